"""The functional tests that need a server alone, on the servers that other Debian releases have."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "test"))
from fleet import databases  # noqa: E402

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", databases.SERVERS)
def test_it_passes_on_a_server(name, tmp_path):
    with databases.running(name, tmp_path, 33310) as url:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                "--tb=short",
                "test/functional/test_nova_database.py",
                "test/functional/test_nova_placement.py",
            ],
            cwd=ROOT,
            env={**os.environ, "NOVA_TEST_DATABASE": url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "skipped" not in done.stdout
