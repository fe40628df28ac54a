"""
Services, flavors, aggregates, keypairs and quotas on a real Nova.

Needs an administrator's cloud in a clouds.yaml (``OS_CLOUD``, ``OS_CLIENT_CONFIG_FILE``), with two
compute hosts or more, and for the guest an image. What it makes is named formula-test and removed
again; a compute host is disabled for a moment.
"""

import copy
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import salt.config
import salt.loader
from salt.exceptions import CommandExecutionError

CLOUD = os.environ.get("OS_CLOUD", "")
pytestmark = pytest.mark.skipif(not CLOUD, reason="needs OS_CLOUD")

ROOT = Path(__file__).resolve().parents[2]
NAME = "formula-test"
SMALL = {"ram": 64, "vcpus": 1, "disk": 1}
KEYS = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + letter * 43 + " formula@example.org"
    for letter in "CD"
]


class Minion:
    """A minion's loaders; a new one is a new run."""

    def __init__(self, tmp_path):
        self.opts = copy.deepcopy(salt.config.DEFAULT_MINION_OPTS)
        self.opts.update(
            id="ctl1",
            file_client="local",
            root_dir=str(tmp_path),
            cachedir=str(tmp_path / "cache"),
            extension_modules=str(tmp_path / "extmods"),
            module_dirs=[str(ROOT / "_modules")],
            states_dirs=[str(ROOT / "_states")],
            utils_dirs=[str(ROOT / "_utils")],
            grains={"id": "ctl1", "os_family": "Debian", "os": "Debian"},
            pillar={},
        )
        context: dict = {}
        self.utils = salt.loader.utils(self.opts, context=context)
        self.modules = salt.loader.minion_mods(self.opts, context=context, utils=self.utils)
        self.states = salt.loader.states(self.opts, self.modules, self.utils, None, context=context)

    def call(self, function, *args, **kwargs):
        return self.modules[f"nova_compute.{function}"](*args, **kwargs, cloud=CLOUD)

    def state(self, function, name, test=False, **kwargs):
        for loader in (self.states, self.modules, self.utils):
            loader.opts["test"] = test
        return self.states[f"nova_compute.{function}"](name, **kwargs, cloud=CLOUD)

    def converges(self, function, name, **kwargs):
        """Run a state in test mode, for real, and again: the contract of every state."""
        predicted = self.state(function, name, test=True, **kwargs)
        done = self.state(function, name, **kwargs)
        assert done["result"] is True, done["comment"]
        assert predicted["result"] is None, predicted["comment"]
        assert predicted["changes"] == done["changes"] != {}
        self.call("forget")
        for test in (True, False):
            again = self.state(function, name, test=test, **kwargs)
            assert (again["result"], again["changes"]) == (True, {}), again["comment"]
        return done["changes"]

    def refused(self, function, name, **kwargs):
        ret = self.state(function, name, **kwargs)
        assert (ret["result"], ret["changes"]) == (False, {})
        return ret["comment"]

    def clean(self):
        for row in self.call("list_aggregates"):
            if row["name"].startswith(NAME):
                self.state("aggregate_absent", row["name"])
        for row in self.call("list_flavors"):
            if row["name"].startswith(NAME):
                self.state("flavor_absent", row["name"])
        for user in (None, "nova"):
            self.state("keypair_absent", NAME, user=user)
        self.state("quotas_absent", "service")


@pytest.fixture
def nova(tmp_path):
    minion = Minion(tmp_path)
    minion.clean()
    yield minion
    minion.clean()


@pytest.fixture
def hosts(nova):
    return sorted(row["host"] for row in nova.call("list_services", binary="nova-compute"))


def test_a_flavor_is_made_with_all_it_has_and_removed(nova):
    wanted = {
        **SMALL,
        "id": f"{NAME}-1",
        "ephemeral": 1,
        "swap": 16,
        "rxtx_factor": 1.5,
        "is_public": False,
        "description": "für Tests",
        "extra_specs": {"hw:cpu_policy": "shared", "hw:numa_nodes": 1, "quota:x": True},
        "projects": ["service"],
    }
    nova.converges("flavor_present", f"{NAME} a", **wanted)
    made = nova.call("get_flavor", f"{NAME} a")
    assert made["extra_specs"] == {
        "hw:cpu_policy": "shared",
        "hw:numa_nodes": "1",
        "quota:x": "true",
    }
    assert {key: made[key] for key in ("swap", "ephemeral", "rxtx_factor", "is_public")} == {
        "swap": 16,
        "ephemeral": 1,
        "rxtx_factor": 1.5,
        "is_public": False,
    }
    changed = {"extra_specs": {"hw:cpu_policy": "dedicated", "quota:x": None}, "projects": []}
    changes = nova.converges(
        "flavor_present", f"{NAME} a", **{**wanted, **changed, "description": "x", "purge": True}
    )
    assert len(changes) == 5
    assert nova.call("list_flavor_access", f"{NAME} a") == []
    nova.converges("flavor_absent", f"{NAME} a")


def test_a_flavor_is_replaced_only_where_it_is_asked_for(nova):
    specs = {"hw:cpu_policy": "shared"}
    private = {"is_public": False, "projects": ["service"]}
    nova.converges("flavor_present", NAME, **SMALL, extra_specs=specs, **private)
    before = nova.call("get_flavor", NAME)
    access = nova.call("list_flavor_access", NAME)
    larger = {**SMALL, "ram": 128, "swap": 8}
    assert "ram 64, swap 0, not ram 128, swap 8" in nova.refused("flavor_present", NAME, **larger)
    nova.converges("flavor_present", NAME, **larger, replace=True)
    assert nova.call("get_flavor", NAME) == {**before, "ram": 128, "swap": 8}
    assert nova.call("list_flavor_access", NAME) == access != []
    refused = nova.refused("flavor_present", NAME, ram=2**40, vcpus=1, disk=1, replace=True)
    assert "is as it was" in refused
    assert nova.call("get_flavor", NAME) == {**before, "ram": 128, "swap": 8}


def test_an_aggregate_follows_its_hosts_zone_and_metadata(nova, hosts):
    first, second = hosts[:2]
    wanted = {"availability_zone": NAME, "hosts": [first], "metadata": {"ssd": True, "n": 1}}
    nova.converges("aggregate_present", NAME, **wanted)
    made = nova.call("get_aggregate", NAME)
    assert (made["hosts"], made["metadata"]) == ([first], {"ssd": "true", "n": "1"})
    zones = {row["host"]: row["zone"] for row in nova.call("list_services", binary="nova-compute")}
    assert (zones[first], zones[second]) == (NAME, "nova")
    changed = {"hosts": [second], "metadata": {"n": 2}, "purge": True}
    changed["availability_zone"] = f"{NAME} 2"
    changes = nova.converges("aggregate_present", NAME, **changed)
    assert set(changes) == {
        "availability_zone",
        f"host {first}",
        f"host {second}",
        "metadata:n",
        "metadata:ssd",
    }
    nova.converges("aggregate_absent", NAME)


def test_a_host_is_in_one_zone_only_and_known(nova, hosts):
    nova.converges("aggregate_present", NAME, availability_zone="a", hosts=hosts[:1])
    ret = nova.state("aggregate_present", f"{NAME} b", availability_zone="b", hosts=hosts[:1])
    assert ret["result"] is False
    assert list(ret["changes"]) == ["name", "availability_zone"]
    assert "in conflict with POST" in ret["comment"]
    assert "availability zone" in ret["comment"]
    ret = nova.state("aggregate_present", NAME, hosts=[f"{NAME}-none"])
    assert "knows no compute host formula-test-none" in ret["comment"]
    with pytest.raises(CommandExecutionError, match="formula-test-none.* correct the name"):
        nova.call("add_aggregate_host", NAME, f"{NAME}-none")


def test_a_service_is_disabled_with_a_reason_and_enabled(nova, hosts):
    try:
        nova.converges("service_disabled", hosts[0], reason="new memory")
        changes = nova.converges("service_disabled", hosts[0], reason="new disks")
        assert changes == {"disabled_reason": {"old": "new memory", "new": "new disks"}}
        (row,) = nova.call("list_services", hosts[0], "nova-compute")
        assert (row["status"], row["disabled_reason"]) == ("disabled", "new disks")
    finally:
        nova.converges("service_enabled", hosts[0])
    (row,) = nova.call("list_services", hosts[0], "nova-compute")
    assert (row["status"], row["disabled_reason"]) == ("enabled", None)
    assert "knows no nova-compute on none" in nova.refused("service_disabled", "none")


def test_hypervisors_are_read(nova, hosts):
    rows = nova.call("list_hypervisors")
    assert sorted(row["host"] for row in rows) == hosts
    one = nova.call("get_hypervisor", rows[0]["hypervisor_hostname"])
    assert one["memory_mb"] > 0 and one["vcpus"] > 0 and one["state"] == "up"


@pytest.mark.parametrize("user", [None, "nova"])
def test_a_keypair_is_replaced_only_where_it_is_asked_for(nova, user):
    nova.converges("keypair_present", NAME, public_key=KEYS[0], user=user)
    assert "`replace: true`" in nova.refused("keypair_present", NAME, public_key=KEYS[1], user=user)
    nova.converges("keypair_present", NAME, public_key=KEYS[1], user=user, replace=True)
    nova.converges("keypair_absent", NAME, user=user)


def test_quotas_of_a_project_are_set_and_taken_back(nova):
    before = nova.call("get_quotas", "service")
    nova.converges("quotas_present", "service", quotas={"cores": 7, "ram": -1})
    assert nova.call("get_quotas", "service") == {**before, "cores": 7, "ram": -1}
    assert "no quota cors" in nova.refused("quotas_present", "service", quotas={"cors": 1})
    assert "rejects PUT" in nova.refused("quotas_present", "service", quotas={"cores": -2})
    nova.converges("quotas_absent", "service")
    assert nova.call("get_quotas", "service") == before


def test_default_quotas_are_set(nova):
    before = nova.call("get_default_quotas")
    nova.converges("default_quotas_present", "x", quotas={"cores": before["cores"] + 1})
    nova.converges("default_quotas_present", "x", quotas={"cores": before["cores"]})


def rival(tmp_path, host, barrier, queue):
    """What one controller does from nothing; in a process of its own."""
    minion = Minion(tmp_path)
    barrier.wait()
    for number in range(5):
        name = f"{NAME} {number}"
        queue.put(minion.state("flavor_present", name, **SMALL, extra_specs={"a:b": "1"}))
        queue.put(minion.state("aggregate_present", name, hosts=[host], metadata={"a": "1"}))
    queue.put(None)


def test_two_controllers_at_once_make_one_of_everything(nova, hosts, tmp_path):
    fork = multiprocessing.get_context("fork")
    barrier, queue = fork.Barrier(2), fork.Queue()
    arguments = (tmp_path, hosts[0], barrier, queue)
    processes = [fork.Process(target=rival, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    results = []
    while results.count(None) < 2:
        results.append(queue.get(timeout=300))
    for process in processes:
        process.join()
    assert [ret["comment"] for ret in results if ret and ret["result"] is not True] == []
    nova.call("forget")
    for rows in (nova.call("list_flavors"), nova.call("list_aggregates")):
        assert len([row for row in rows if row["name"].startswith(NAME)]) == 5


@pytest.fixture
def guest(nova):
    """A guest on some host: (id, host)."""
    identity = nova.modules

    def compute(method, path, body=None):
        headers = {"OpenStack-API-Version": "compute 2.69"}
        return identity["nova_identity.request"](
            "compute", method, path, body, headers=headers, cloud=CLOUD
        )

    images = identity["nova_identity.get_from"]("image", "/v2/images", cloud=CLOUD)["images"]
    if not images:
        pytest.skip("needs an image")
    nova.state("flavor_present", NAME, ram=128, vcpus=1, disk=1)
    wanted = {"name": NAME, "imageRef": images[0]["id"], "networks": "none"}
    wanted["flavorRef"] = nova.call("get_flavor", NAME)["id"]
    key = compute("POST", "/servers", {"server": wanted})["server"]["id"]
    try:
        for _ in range(120):
            server = compute("GET", f"/servers/{key}")["server"]
            if server["status"] != "BUILD":
                break
            time.sleep(1)
        assert server["status"] == "ACTIVE", server
        yield key, server["OS-EXT-SRV-ATTR:host"]
    finally:
        compute("DELETE", f"/servers/{key}")
        for _ in range(120):
            if not nova.call("list_guests", server["OS-EXT-SRV-ATTR:host"]):
                break
            time.sleep(1)


def test_a_host_with_a_guest_stays(nova, guest):
    key, host = guest
    for test in (True, False):
        assert f"{NAME} ({key}): move them away" in nova.refused("service_absent", host, test=test)
    with pytest.raises(CommandExecutionError, match="in conflict with DELETE /os-services"):
        nova.call("delete_service", host)
    assert nova.call("list_services", host, "nova-compute")
