"""The suites of kitchen.yml: a node without a master, from bare, twice, and its verifier."""

import pytest
import yaml
from conftest import ROOT, lab

pytestmark = pytest.mark.long

SUITES = [suite["name"] for suite in yaml.safe_load((ROOT / "kitchen.yml").read_text())["suites"]]


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_converges_and_changes_nothing_again(suite):
    done = lab("kitchen", suite, check=False, timeout=3600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "converge again, to no change" in done.stderr
