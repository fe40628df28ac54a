"""kitchen.yml: its keys are kitchen-salt's, and what it names is there."""

import pytest
import yaml
from conftest import ROOT
from test_map import example, run_map

KITCHEN = yaml.safe_load((ROOT / "kitchen.yml").read_text())
SUITES = {suite["name"]: suite for suite in KITCHEN["suites"]}
HOSTS = {"controller": "ctl1", "compute": "cmp1", "haproxy": "lb1", "all-in-one": "ctl1"}
# Of salt_solo, and of Test Kitchen's other plugins as used here.
PROVISIONER = {
    "name",
    "salt_install",
    "require_chef",
    "is_file_root",
    "log_level",
    "state_top",
    "pillars",
    "pillars_from_files",
    "pillars_from_directories",
}


def merged(below, over):
    result = dict(below)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def test_the_suites_are_the_roles_and_a_single_node():
    assert set(SUITES) == set(HOSTS)


def test_keys_are_known():
    assert set(KITCHEN) == {"driver", "provisioner", "verifier", "platforms", "suites"}
    assert KITCHEN["provisioner"]["name"] == "salt_solo"
    assert KITCHEN["provisioner"]["salt_install"] == "none"
    assert KITCHEN["verifier"] == {
        "name": "shell",
        "remote_exec": False,
        "command": "pytest -q test/kitchen",
    }
    for suite in SUITES.values():
        assert set(KITCHEN["provisioner"]) | set(suite["provisioner"]) <= PROVISIONER


def test_the_file_is_plain_yaml():
    assert "<%" not in (ROOT / "kitchen.yml").read_text()


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_s_files_are_there_and_its_pillar_is_right(name):
    provisioner = SUITES[name]["provisioner"]
    (target,) = provisioner["pillars"]["top.sls"]["base"].values()
    files = provisioner["pillars_from_files"]
    assert [f"{sls}.sls" for sls in target] == list(files)
    for path in files.values():
        assert (ROOT / path).exists(), path
    for sls in KITCHEN["provisioner"]["state_top"]["base"]["*"]:
        assert (ROOT / sls / "init.sls").exists()
    suite = yaml.safe_load((ROOT / files["suite.sls"]).read_text())["nova"]
    pillar = merged(example(HOSTS[name]), suite)
    nova = run_map(pillar, HOSTS[name])
    assert nova["faults"] == []
    expected = ["controller", "compute"] if name == "all-in-one" else [name]
    assert nova["roles"] == expected
