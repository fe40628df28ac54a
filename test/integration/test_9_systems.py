"""
The systems that the lab can have: a site of each with a guest, nothing to do again, and no option
that its own oslo.config does not know.
"""

import json
import re
import subprocess
from datetime import date

import pytest
import yaml
from conftest import CONFIGURED, ROOT, lab, validate

pytestmark = pytest.mark.long

SYSTEMS = yaml.safe_load((ROOT / "test/systems.yaml").read_text())
NEWER, OLDER = dict.fromkeys(re.findall(r"300\d\.\d+", (ROOT / "test/run").read_text()))
SALTS = [(name, NEWER) for name in SYSTEMS if "lab" in SYSTEMS[name]] + [("Debian 12", OLDER)]
RESULTS = ROOT / "docs" / "converged.json"


@pytest.mark.parametrize(("system", "salt"), SALTS)
def test_a_site_boots_a_guest_and_changes_nothing_again(system, salt, monkeypatch):
    name = SYSTEMS[system]["lab"]
    monkeypatch.setenv("NOVA_LAB", name)
    command = [ROOT / "test/demo", "--os", name, "--salt", salt]
    try:
        for again in (False, True):
            # Its progress is seen while it goes on.
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            print(done.stdout)
            assert done.returncode == 0
            changed = re.findall(r" \d+, (\d+) changed ", done.stdout)
            assert len(changed) == 5
            assert not again or set(changed) == {"0"}
        for host, program in CONFIGURED:
            validate(host, program)
    finally:
        lab("down", check=False)
    results = json.loads(RESULTS.read_text())
    results.setdefault(system, {})[salt] = date.today().isoformat()
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
