"""The other systems that the lab can have: a site of each with a guest, and nothing to do again."""

import re
import subprocess

import pytest
from conftest import ROOT, lab

pytestmark = pytest.mark.long


@pytest.mark.parametrize("system", ["trixie", "sid"])
def test_a_site_boots_a_guest_and_changes_nothing_again(system):
    command = [ROOT / "test" / "demo", "--name", system, "--os", system]
    try:
        for again in (False, True):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            changed = re.findall(r" \d+, (\d+) changed ", done.stdout)
            assert len(changed) == 5, done.stdout
            assert not again or set(changed) == {"0"}
    finally:
        lab("--name", system, "down", check=False)
