"""The suites of kitchen.yml, each on one of the lab's hosts, without a master."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from . import hosts, inventory, lab, pillar, shell

# Which host stands for a suite's node, and who has to be converged around it.
NODES = {
    "controller": ("ctl1", ("lb1",)),
    "compute": ("cmp1", ("lb1", "ctl1", "ctl2")),
    "haproxy": ("lb1", ()),
    "all-in-one": ("ctl1", ()),
}
APPLY = ["salt-call", "--local", "--retcode-passthrough", "--out=json", "state.apply", "nova"]


def suites() -> dict[str, dict[str, Any]]:
    """The suites of kitchen.yml by name."""
    import yaml

    described = yaml.safe_load((pillar.REPOSITORY / "kitchen.yml").read_text())
    return {suite["name"]: suite for suite in described["suites"]}


def run(name: str, suite: str) -> int:
    """Converge a suite's node from bare, twice; then its verifier. Return an exit code."""
    known = suites()
    if suite not in known:
        raise shell.LabError(f"kitchen.yml has no suite {suite}: one of {', '.join(known)}.")
    node, around = NODES[suite]
    lab.up(name, (), inventory.FOUND, lab.trees.SALT)
    lab.restore(name, lab.BARE)
    site = lab.Lab(name)
    if around:
        with shell.step(f"converge {', '.join(around)}"):
            # Nobody waits here for the nodes that the suite leaves out.
            few = json.dumps({"nova": {"topology": {"expected_computes": None}}})
            hosts.call(site.place("infra"), "salt", "--timeout=1800", "-L", ",".join(around),
                       "state.apply", "nova", f"pillar={few}")
    place = site.place(node)
    files = known[suite]["provisioner"]["pillars_from_files"]
    pillar.write_local(place.root / "srv/pillar", node, site.seed)
    top = {"base": {"*": [*_written(place.root / "srv/pillar"), "suite"]}}
    over = (pillar.REPOSITORY / files["suite.sls"]).read_text()
    (place.root / "srv/pillar/suite.sls").write_text(over)
    (place.root / "srv/pillar/top.sls").write_text(json.dumps(top))
    for step in ("converge", "converge again, to no change"):
        with shell.step(f"{suite}: {step}"):
            states = json.loads(hosts.call(place, *APPLY))["local"]
    changed = [state["__id__"] for state in states.values() if state["changes"]]
    if changed:
        raise shell.LabError(f"The second run of {suite} changed {', '.join(changed)}.")
    command = ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test/kitchen"]
    environment = {**os.environ, "KITCHEN_SUITE": suite, "KITCHEN_NODE": node, "NOVA_LAB": name}
    return subprocess.run(command, cwd=pillar.REPOSITORY, env=environment, check=False).returncode


def _written(directory: Path) -> list[str]:
    import yaml

    (names,) = yaml.safe_load((directory / "top.sls").read_text())["base"].values()
    return list(names)


