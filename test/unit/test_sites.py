"""
The three sites of docs/sites, from Salt's own compiler of pillars to the states of each minion.

Two are regions of one Keystone; each has another release, and systems of its own.
"""

import copy
import functools
import json
import shutil

import pytest
import salt.pillar
import yaml
from conftest import ROOT, load
from test_map import run_map

SITES = ROOT / "docs" / "sites"
CENTOS7 = {"os_family": "RedHat", "os": "CentOS", "osrelease": "7.9", "osmajorrelease": 7}
ROCKY9 = {"os_family": "RedHat", "os": "Rocky", "osrelease": "9.5", "osmajorrelease": 9}
DEBIAN12 = {"os_family": "Debian", "os": "Debian", "osrelease": "12", "osmajorrelease": 12}
DEBIAN13 = {"os_family": "Debian", "os": "Debian", "osrelease": "13", "osmajorrelease": 13}
MINIONS = {  # site: {minion: (its system, the role, the release)}
    "beijing": {
        "bj-ctl1": (CENTOS7, "controller", "stein"),
        "bj-ctl2": (CENTOS7, "controller", "stein"),
        "bj-lb1": (DEBIAN12, "haproxy", "stein"),
        "bj-cmp1": (CENTOS7, "compute", "stein"),
    },
    "shanghai": {
        "sh-ctl1": (DEBIAN12, "controller", "zed"),
        "sh-ctl2": (DEBIAN12, "controller", "zed"),
        "sh-lb1": (DEBIAN12, "haproxy", "zed"),
        "sh-cmp1": (DEBIAN12, "compute", "zed"),
    },
    "frankfurt": {
        "fra-ctl1": (ROCKY9, "controller", "2025.1"),
        "fra-lb1": (ROCKY9, "haproxy", "2025.1"),
        "fra-cmp1": (DEBIAN13, "compute", "2025.1"),
    },
}
NETWORK = {"beijing": "10.10.0.", "shanghai": "10.20.0.", "frankfurt": "10.30.0."}
EVERY = [(site, minion) for site, minions in MINIONS.items() for minion in minions]
# What another valid value is, where one more letter or number would not do.
OTHERS = {"release": "train", "management_network": "10.0.0.0/8", "mode": "tcp"}


def grains(site, minion):
    address = f"{NETWORK[site]}8{minion[-1]}"
    return {
        **MINIONS[site][minion][0],
        "id": minion,
        "num_cpus": 4,
        "ipv4": ["127.0.0.1", address],
        "nova_host": {"virt_type": "kvm"},
    }


@pytest.fixture
def pillar(opts):
    """Salt's pillar of a minion, from the example's tree or a copy of it."""

    # Making one takes longer than compiling, and the loaders of two get into each other's way.
    @functools.lru_cache(maxsize=1)
    def compiler(site, minion, tree):
        options = copy.deepcopy(opts)
        options.update(id=minion, pillar_roots={"base": [str(tree)]})
        return salt.pillar.Pillar(options, grains(site, minion), minion, "base")

    def compiled(site, minion, tree=SITES):
        made = compiler(site, minion, tree).compile_pillar()
        assert "_errors" not in made
        return copy.deepcopy(made)

    return compiled


@pytest.fixture
def mapped(pillar):
    return lambda site, minion, *tree: run_map(
        pillar(site, minion, *tree)["nova"], minion, **grains(site, minion)
    )


@pytest.fixture
def states(opts, pillar):
    """All states of a minion."""

    def compiled(site, minion, sls="nova", **clean):
        options = copy.deepcopy(opts)
        options.update(id=minion, grains=grains(site, minion), pillar=pillar(site, minion))
        options["pillar"]["nova"]["clean"] = clean
        chunks = load(options)[1]["state.show_low_sls"](sls)
        assert isinstance(chunks[0], dict), chunks
        return chunks

    return compiled


def leaves(tree, path=()):
    """Every key and its value; a key that the site chooses the name of is one too."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def files(site):
    """The files that a site has for itself, with what they hold."""
    return {
        path.relative_to(SITES): yaml.safe_load(path.read_text())
        for path in sorted((SITES / site).glob("*.sls"))
    }


def changes(site):
    """``(file, key, the file's data with another value for the key)``, for each key of a site."""
    for name, data in files(site).items():
        for path, value in leaves(data):
            changed = copy.deepcopy(data)
            here = functools.reduce(dict.__getitem__, path[:-1], changed)
            here[path[-1]] = another(path[-1], value)
            yield name, path, changed


def another(key, value):
    if key in OTHERS:
        return OTHERS[key]
    if value is None or isinstance(value, bool):
        return not value
    more = {int: 1, list: ["x"]}.get(type(value), "x")
    return value + more


@pytest.mark.parametrize(("site", "minion"), EVERY)
def test_each_minion_of_each_site_gets_its_map(mapped, site, minion):
    nova = mapped(site, minion)
    _, role, release = MINIONS[site][minion]
    assert (nova["faults"], nova["warnings"]) == ([], [])
    assert (nova["site"], nova["roles"], nova["release"]["name"]) == (site, [role], release)
    assert nova["my_ip"].startswith(NETWORK[site])


@pytest.mark.parametrize(("site", "minion"), [it for it in EVERY if "ctl2" not in it[1]])
def test_its_states_compile_and_name_no_other_site(states, site, minion):
    text = json.dumps(states(site, minion)).lower()
    for other in MINIONS.keys() - {site}:
        assert other not in text
        assert NETWORK[other] not in text


def test_what_sites_share_stands_once():
    seen = {}
    for path in sorted(SITES.rglob("*.sls")):
        if path.name != "top.sls":
            for key, value in leaves(yaml.safe_load(path.read_text())):
                seen.setdefault((key, str(value)), []).append(path)
    assert [places for places in seen.values() if len(places) > 1] == []


def test_a_compute_node_gets_no_secret_of_controllers(pillar):
    secrets = ("messaging", "keystone_nova", "keystone_placement", "keystone_neutron")
    for site, minion in EVERY:
        if MINIONS[site][minion][1] != "controller":
            assert sorted(pillar(site, minion)["nova"]["passwords"]) == sorted(secrets)


@pytest.mark.parametrize("site", MINIONS)
def test_no_key_of_a_site_changes_what_another_gets(pillar, tmp_path, site):
    """The pillar and the minion's own grains are all that its states are made from."""
    tree = tmp_path / "sites"
    shutil.copytree(SITES, tree)
    for it in EVERY:
        before = pillar(*it, tree)
        affected, keys = set(), {path for _, path, _ in changes(site)}
        for name, path, changed in changes(site):
            text = (tree / name).read_text()
            (tree / name).write_text(json.dumps(changed))
            if pillar(*it, tree) != before:
                affected.add(path)
            (tree / name).write_text(text)
        if it[0] == site and MINIONS[site][it[1]][1] == "controller":
            assert affected == keys
        else:
            assert bool(affected) == (it[0] == site), affected


def registered(states, site):
    """What a site makes in Keystone, by state, name and region; without the site's own lock."""
    found = {}
    for chunk in states(site, next(iter(MINIONS[site]))):
        if chunk["state"] == "nova_identity" and chunk["fun"] != "read_ahead":
            given = {
                key: value
                for key, value in chunk.items()
                if key not in ("order", "require", "site_lock", "__sls__", "__id__", "__env__")
            }
            found[chunk["fun"], chunk["name"], chunk.get("region")] = given
    return found


def test_two_regions_of_one_keystone_share_users_and_services_and_no_endpoint(states):
    beijing, shanghai = registered(states, "beijing"), registered(states, "shanghai")
    shared = beijing.keys() & shanghai.keys()
    assert {fun for fun, *_ in shared} == {
        "project_present", "role_present", "user_present", "role_assigned", "service_present"
    }
    # What they share they want alike: neither run undoes what the other's did.
    assert all(beijing[key] == shanghai[key] for key in shared)
    for own, region in ((beijing, "Beijing"), (shanghai, "Shanghai")):
        alone = [chunk for key, chunk in own.items() if key not in shared]
        assert {(chunk["fun"], chunk["region"]) for chunk in alone} == {
            ("endpoint_present", region)
        }
        assert len(alone) == 6


def test_no_key_of_a_region_changes_what_the_regions_share(mapped, pillar, tmp_path):
    tree = tmp_path / "sites"
    shutil.copytree(SITES, tree)

    def shared(site, minion):
        nova, secrets = mapped(site, minion, tree), pillar(site, minion, tree)["nova"]["passwords"]
        assert nova["faults"] == []
        keystone = {key: value for key, value in nova["keystone"].items() if "cached" not in key}
        used = {key: value for key, value in secrets.items() if key.startswith("keystone")}
        return nova["accounts"], nova["services"], nova["auth"], keystone, used

    before = shared("shanghai", "sh-ctl1")
    for name, path, changed in changes("beijing"):
        text = (tree / name).read_text()
        (tree / name).write_text(json.dumps(changed))
        assert shared("beijing", "bj-ctl1") == before, path
        (tree / name).write_text(text)


def test_a_clean_of_one_region_spares_what_the_other_uses(states):
    chunks = states("beijing", "bj-ctl1", "nova.clean", identity=True)
    identity = [chunk for chunk in chunks if chunk["state"] == "nova_identity"]
    assert len(identity) == 6 + 2 + 2
    assert {chunk["region"] for chunk in identity} == {"Beijing"}
    users = {chunk["name"]: chunk["service"] for chunk in identity if chunk["fun"] == "user_absent"}
    assert users == {"nova": "nova", "placement": "placement"}
