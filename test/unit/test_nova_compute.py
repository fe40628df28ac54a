"""Nova's API: real keystoneauth1 against a small Nova and Keystone that can be told to fail."""

import contextlib
import copy
import re
import sys
import threading
import time
import urllib.parse

import pytest
from conftest import load
from salt.exceptions import CommandExecutionError, SaltInvocationError
from test_nova_identity import ADMIN, Handler, Keystone, served, settle

COLLECTIONS = {
    "os-services",
    "os-hypervisors",
    "servers",
    "flavors",
    "os-aggregates",
    "os-keypairs",
    "os-quota-sets",
    "os-quota-class-sets",
}
DEFAULT = {"cores": 20, "instances": 10, "ram": 51200, "key_pairs": 100}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI deploy@example.org"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5BBBBB deploy@example.org"
SMALL = {"ram": 512, "vcpus": 1, "disk": 1}


class Refused(Exception):
    """An answer as Nova gives it: (status, name of the fault, text)."""


class Cloud(Keystone):
    """Keystone, and what the states use of Nova's API 2.69, in memory."""

    def __init__(self):
        super().__init__()
        self.versions = set()  # that requests asked for
        self.places = ["R1"]
        self.services, self.guests, self.flavors, self.aggregates = [], [], {}, {}
        self.access, self.keypairs, self.quotas, self.default = {}, {}, {}, dict(DEFAULT)
        self.nova_page = None
        for host in ("cmp1", "cmp2"):
            self.add_service(host)

    def add_service(self, host, binary="nova-compute", **changed):
        row = {"id": next(self.ids), "host": host, "binary": binary, "zone": "nova"}
        row |= {"status": "enabled", "state": "up", "disabled_reason": None, "forced_down": False}
        self.services.append({**row, "updated_at": "2020-01-01T00:00:00.000000", **changed})

    def add_flavor(self, name, **changed):
        row = {"id": next(self.ids), "name": name, **SMALL, "OS-FLV-EXT-DATA:ephemeral": 0}
        row |= {"swap": "", "rxtx_factor": 1.0, "os-flavor-access:is_public": True}
        row |= {"description": None, "extra_specs": {}, **changed}
        self.flavors[row["id"]] = row
        self.access[row["id"]] = set()
        return row

    def add_aggregate(self, name, hosts=(), **metadata):
        row = {"id": int(next(self.ids), 16), "uuid": "u", "name": name}
        row |= {"hosts": list(hosts), "metadata": metadata}
        self.aggregates[str(row["id"])] = row
        return row

    def add_keypair(self, name, public_key=KEY, user="admin", type="ssh"):
        row = {"name": name, "public_key": public_key, "type": type, "fingerprint": "aa:bb"}
        self.keypairs[self.id("users", user), name] = row

    def state(self):
        nova = (self.services, self.flavors, self.access, self.aggregates, self.keypairs)
        return copy.deepcopy((nova, self.quotas, self.default))

    # ---- answers --------------------------------------------------------------------------------

    def answer(self, method, path, query, body):
        parts = [urllib.parse.unquote(part) for part in path.split("/")]
        if path == "auth/catalog":
            ends = [
                {"interface": "public", "region": place, "url": self.url.removesuffix("/v3")}
                for place in self.places
            ]
            types = ("compute", "image")
            return 200, {"catalog": [{"type": it, "name": it, "endpoints": ends} for it in types]}
        if parts[0] not in COLLECTIONS:
            return super().answer(method, path, query, body)
        function = getattr(self, "_" + parts[0].removeprefix("os-").replace("-", "_"))
        try:
            return function(method, parts[1:], query, body)
        except Refused as refused:
            status, fault, text = refused.args
            return status, {fault: {"code": status, "message": text}}

    def _services(self, method, rest, _query, body):
        if method == "GET":
            return 200, {"services": self.services}
        row = next(row for row in self.services if row.get("id") == rest[0])
        if method == "DELETE":
            self.services.remove(row)
            return 204, None
        row.update(body)
        if body["status"] == "enabled":
            row["disabled_reason"] = None
        return 200, {"service": row}

    def _hypervisors(self, *_):
        rows = [
            {"id": row["id"], "hypervisor_hostname": f"{row['host']}.example.org"}
            | {"service": {"host": row["host"]}, "state": "up", "memory_mb": 8192}
            for row in self.services
        ]
        return 200, {"hypervisors": rows}

    def _servers(self, _method, _rest, query, _body):
        return 200, {"servers": [row for row in self.guests if row["host"] == query["host"]]}

    def _flavors(self, method, rest, query, body):
        if rest == ["detail"]:
            rows = list(self.flavors.values())
            start = int(query.get("marker", 0))
            stop = start + (self.nova_page or len(rows))
            answer = {"flavors": rows[start:stop]}
            if stop < len(rows):
                link = f"http://nova.internal.example/flavors/detail?is_public=None&marker={stop}"
                answer["flavors_links"] = [{"rel": "next", "href": link}]
            return 200, answer
        if not rest:
            new = body["flavor"]
            if any(row["name"] == new["name"] for row in self.flavors.values()):
                raise Refused(409, "conflictingRequest", "Flavor already exists.")
            if new.get("ram", 0) < 1:
                raise Refused(400, "badRequest", "Invalid input for ram: 0 is less than 1.")
            return 200, {"flavor": self.add_flavor(new.pop("name"), **new)}
        if rest[0] not in self.flavors:
            raise Refused(404, "itemNotFound", f"Flavor {rest[0]} could not be found.")
        row, access = self.flavors[rest[0]], self.access[rest[0]]
        match method, *rest[1:]:
            case ("DELETE",):
                del self.flavors[rest[0]]
            case ("PUT",):
                row.update(body["flavor"])
            case "POST", "os-extra_specs":
                assert all(isinstance(value, str) for value in body["extra_specs"].values())
                row["extra_specs"].update(body["extra_specs"])
            case "DELETE", "os-extra_specs", key:
                del row["extra_specs"][key]
            case "GET", "os-flavor-access":
                rows = [{"flavor_id": rest[0], "tenant_id": project} for project in access]
                return 200, {"flavor_access": rows}
            case "POST", "action":
                ((action, told),) = body.items()
                assert not row["os-flavor-access:is_public"]
                (access.add if action == "addTenantAccess" else access.remove)(told["tenant"])
        return 200, {}

    def _aggregates(self, method, rest, _query, body):
        if not rest and method == "GET":
            rows = [
                {**row, "availability_zone": row["metadata"].get("availability_zone")}
                for row in self.aggregates.values()
            ]
            return 200, {"aggregates": rows}
        if not rest:
            new = body["aggregate"]
            if any(row["name"] == new["name"] for row in self.aggregates.values()):
                raise Refused(409, "conflictingRequest", "Aggregate already exists.")
            zone = new["availability_zone"]
            self.add_aggregate(new["name"], **({"availability_zone": zone} if zone else {}))
            return 200, {"aggregate": {}}
        row = self.aggregates[rest[0]]
        if method == "DELETE":
            if row["hosts"]:
                raise Refused(400, "badRequest", "Host aggregate is not empty.")
            del self.aggregates[rest[0]]
            return 200, None
        ((action, told),) = body.items()
        if action == "set_metadata":
            assert told["metadata"].get("availability_zone", "kept")
            for key, value in told["metadata"].items():
                row["metadata"].pop(key, None)
                if value is not None:
                    row["metadata"][key] = value
        elif action == "remove_host":
            row["hosts"].remove(told["host"])
        else:
            others = [other for other in self.aggregates.values() if told["host"] in other["hosts"]]
            if row in others:
                raise Refused(409, "conflictingRequest", "Host is already there.")
            zones = [other["metadata"].get("availability_zone") for other in others]
            if set(zones) - {None, row["metadata"].get("availability_zone")}:
                raise Refused(409, "conflictingRequest", "Host already in availability zone.")
            row["hosts"].append(told["host"])
        return 200, {"aggregate": {}}

    def _keypairs(self, method, rest, query, body):
        owner = query.get("user_id") or self.id("users", "admin")
        if method == "GET":
            rows = [{"keypair": row} for (user, _), row in self.keypairs.items() if user == owner]
            return 200, {"keypairs": rows}
        if method == "DELETE":
            del self.keypairs[owner, rest[0]]
            return 204, None
        new = dict(body["keypair"])
        owner = new.pop("user_id", owner)
        self.keypairs[owner, new["name"]] = {**new, "fingerprint": "cc:dd"}
        return 201, {"keypair": {}}

    def _quota_sets(self, method, rest, _query, body):
        if method == "DELETE":
            self.quotas.pop(rest[0], None)
            return 202, None
        if method == "PUT":
            new = dict(body["quota_set"])
            if new.get("instances") == 1 and not new["force"]:
                raise Refused(400, "badRequest", "Quota limit 1 must not be below 3.")
            del new["force"]
            self.quotas.setdefault(rest[0], {}).update(new)
        found = {**self.default, **self.quotas.get(rest[0], {})}
        return 200, {"quota_set": {"id": rest[0], **found}}

    def _quota_class_sets(self, method, _rest, _query, body):
        if method == "PUT":
            self.default.update(body["quota_class_set"])
        return 200, {"quota_class_set": {"id": "default", **self.default}}


class NovaHandler(Handler):
    def _serve(self):
        collection = self.path.split("?")[0].lstrip("/").split("/")[0]
        if collection in COLLECTIONS:
            self.server.keystone.versions.add(self.headers["OpenStack-API-Version"])
        super()._serve()

    do_GET = do_POST = do_PUT = do_DELETE = _serve


@pytest.fixture
def cloud():
    with served(Cloud(), NovaHandler) as made:
        yield made


class Minion:
    """One run's states and modules; a new one is a new run."""

    def __init__(self, opts, auth, test):
        self.auth = auth
        self.utils, self.modules, self.states = load({**copy.deepcopy(opts), "test": test})
        # Since Salt 3008 what modules see as __salt__ is a loader of its own.
        for loader in (self.modules, self.modules.pack.get("__salt__") or self.modules):
            scope = loader["nova_identity.forget"].__globals__
            scope.update(RETRY_DELAYS=(0, 0, 0), TIMEOUT=0.5)

    def state(self, function, name, **kwargs):
        return self.states[f"nova_compute.{function}"](name, **{"auth": self.auth, **kwargs})

    def call(self, function, *args, **kwargs):
        return self.modules[f"nova_compute.{function}"](*args, **{"auth": self.auth, **kwargs})


@pytest.fixture
def run(opts, cloud):
    opts["pillar"] = {"passwords": {"admin": ADMIN}}
    auth = {"auth_url": cloud.url, "username": "admin", "password_pillar": "passwords:admin"}
    return lambda test=False: Minion(opts, auth, test)


# ---- each state: from nothing, predicted, applied, found ----------------------------------------

CREATED = [
    ("flavor_present", "m1.small", SMALL),
    (
        "flavor_present",
        "m1 größer",
        {
            **SMALL,
            "id": 42,
            "ephemeral": 2,
            "swap": 64,
            "rxtx_factor": 2.0,
            "is_public": False,
            "description": "For tests",
            "extra_specs": {"hw:cpu_policy": "dedicated", "hw:numa_nodes": 2, "a": True},
            "projects": ["service", "admin"],
        },
    ),
    ("aggregate_present", "plain", {}),
    (
        "aggregate_present",
        "ssd",
        {"hosts": ["cmp1", "cmp2"], "availability_zone": "az1", "metadata": {"ssd": True, "n": 1}},
    ),
    ("keypair_present", "deploy", {"public_key": KEY + "\n"}),
    ("keypair_present", "deploy", {"public_key": KEY, "user": "nova"}),
    ("quotas_present", "service", {"quotas": {"cores": 5, "ram": -1}}),
    ("default_quotas_present", "x", {"quotas": {"cores": 5}}),
    ("service_disabled", "cmp1", {"reason": "new memory"}),
    ("service_disabled", "cmp1", {}),
]


@pytest.mark.parametrize(("function", "name", "kwargs"), CREATED)
def test_what_is_missing_is_predicted_then_made_then_found(cloud, run, function, name, kwargs):
    cloud.add("users", name="nova", domain_id="default", enabled=True)
    bare = cloud.state()
    predicted = run(test=True).state(function, name, **kwargs)
    assert predicted["result"] is None
    assert predicted["changes"]
    assert cloud.state() == bare
    made = run().state(function, name, **kwargs)
    assert (made["result"], made["changes"]) == (True, predicted["changes"]), made["comment"]
    assert cloud.state() != bare
    for test in (False, True):
        again = run(test).state(function, name, **kwargs)
        assert (again["result"], again["changes"]) == (True, {})
    assert cloud.versions == {"compute 2.69"}


def flavor(cloud, **changed):
    return cloud.add_flavor("m1.small", **changed)


def ssd(cloud, hosts=("cmp1",), **metadata):
    return cloud.add_aggregate("ssd", hosts, **metadata)


DRIFTED = [
    (
        "flavor_present",
        "m1.small",
        {**SMALL, "description": "new"},
        lambda cloud: flavor(cloud, description="old"),
        {"description": {"old": "old", "new": "new"}},
    ),
    (
        "flavor_present",
        "m1.small",
        {**SMALL, "extra_specs": {"a": "2", "b": None}},
        lambda cloud: flavor(cloud, extra_specs={"a": "1", "b": "1", "c": "1"}),
        {"extra_specs:a": {"old": "1", "new": "2"}, "extra_specs:b": {"old": "1", "new": None}},
    ),
    (
        "flavor_present",
        "m1.small",
        {**SMALL, "extra_specs": {"a": "1"}, "purge": True},
        lambda cloud: flavor(cloud, extra_specs={"a": "1", "hw:b/c": "1"}),
        {"extra_specs:hw:b/c": {"old": "1", "new": None}},
    ),
    (
        "flavor_present",
        "m1.small",
        {**SMALL, "ram": 1024, "replace": True},
        lambda cloud: flavor(cloud, extra_specs={"a": "1"}),
        {"ram": {"old": 512, "new": 1024}},
    ),
    (
        "flavor_present",
        "m1.small",
        {**SMALL, "is_public": False, "projects": ["service"], "replace": True},
        flavor,
        {
            "is_public": {"old": True, "new": False},
            "access of service": {"old": None, "new": "allowed"},
        },
    ),
    (
        "aggregate_present",
        "ssd",
        {"availability_zone": "az2"},
        lambda cloud: ssd(cloud, availability_zone="az1"),
        {"availability_zone": {"old": "az1", "new": "az2"}},
    ),
    (
        "aggregate_present",
        "ssd",
        {"metadata": {"a": None}},
        lambda cloud: ssd(cloud, availability_zone="az1", a="1", b="1"),
        {"metadata:a": {"old": "1", "new": None}},
    ),
    (
        "aggregate_present",
        "ssd",
        {"hosts": ["cmp2"]},
        ssd,
        {"host cmp2": {"old": None, "new": "member"}},
    ),
    (
        "aggregate_present",
        "ssd",
        {"hosts": ["cmp2"], "metadata": {"a": "2"}, "purge": True},
        lambda cloud: ssd(cloud, a="1", b="1", availability_zone="az1"),
        {
            "metadata:a": {"old": "1", "new": "2"},
            "metadata:b": {"old": "1", "new": None},
            "host cmp2": {"old": None, "new": "member"},
            "host cmp1": {"old": "member", "new": None},
        },
    ),
    (
        "keypair_present",
        "deploy",
        {"public_key": OTHER_KEY, "replace": True},
        lambda cloud: cloud.add_keypair("deploy"),
        {"public_key": {"old": KEY, "new": OTHER_KEY}},
    ),
    (
        "quotas_present",
        "service",
        {"quotas": {"cores": 5}},
        lambda cloud: cloud.quotas.update({cloud.id("projects", "service"): {"cores": 4}}),
        {"cores": {"old": 4, "new": 5}},
    ),
    (
        "quotas_present",
        "service",
        {"quotas": {"instances": 1}, "force": True},
        lambda cloud: None,
        {"instances": {"old": 10, "new": 1}},
    ),
    (
        "service_disabled",
        "cmp3",
        {"reason": "new"},
        lambda cloud: cloud.add_service("cmp3", status="disabled", disabled_reason="old"),
        {"disabled_reason": {"old": "old", "new": "new"}},
    ),
    (
        "service_enabled",
        "cmp3",
        {},
        lambda cloud: cloud.add_service("cmp3", status="disabled", disabled_reason="old"),
        {"status": {"old": "disabled", "new": "enabled"}},
    ),
]


@pytest.mark.parametrize(("function", "name", "kwargs", "arrange", "changes"), DRIFTED)
def test_a_changed_value_is_seen_and_set(
    cloud, run, testmode, function, name, kwargs, arrange, changes
):
    arrange(cloud)
    before = cloud.state()
    ret = run(testmode).state(function, name, **kwargs)
    assert (ret["result"], ret["changes"]) == (None if testmode else True, changes), ret["comment"]
    if testmode:
        assert cloud.state() == before
    else:
        assert run().state(function, name, **kwargs)["changes"] == {}


GONE = [
    ("flavor_absent", "m1.small", flavor, {"flavor"}),
    ("aggregate_absent", "ssd", ssd, {"host cmp1", "aggregate"}),
    ("keypair_absent", "deploy", lambda cloud: cloud.add_keypair("deploy"), {"keypair"}),
    ("service_absent", "cmp1", lambda cloud: None, {"service"}),
    (
        "quotas_absent",
        "service",
        lambda cloud: cloud.quotas.update({cloud.id("projects", "service"): {"cores": 4}}),
        {"cores"},
    ),
]


@pytest.mark.parametrize(("function", "name", "arrange", "changes"), GONE)
def test_what_is_to_be_absent_is_deleted_once(cloud, run, function, name, arrange, changes):
    arrange(cloud)
    before = cloud.state()
    predicted = run(test=True).state(function, name)
    assert (predicted["result"], set(predicted["changes"])) == (None, changes)
    assert cloud.state() == before
    done = run().state(function, name)
    assert (done["result"], done["changes"]) == (True, predicted["changes"]), done["comment"]
    assert cloud.state() != before
    for test in (False, True):
        again = run(test).state(function, name)
        assert (again["result"], again["changes"]) == (True, {})


# ---- what Nova cannot do, or must not -----------------------------------------------------------


@pytest.mark.parametrize("drift", [{"ram": 1024}, {"vcpus": 2, "swap": 5}, {"id": "9"}])
def test_a_flavor_is_not_replaced_unasked(cloud, run, testmode, drift):
    flavor(cloud)
    before = cloud.state()
    ret = run(testmode).state("flavor_present", "m1.small", **{**SMALL, **drift})
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "`replace: true`" in ret["comment"]
    assert all(f"{key} {value}" in ret["comment"] for key, value in drift.items())
    assert cloud.state() == before


def test_a_replaced_flavor_keeps_its_id_extra_specs_and_access(cloud, run):
    old = flavor(cloud, extra_specs={"a": "1"}, **{"os-flavor-access:is_public": False})
    cloud.access[old["id"]] = {"p1", "p2"}
    ret = run().state("flavor_present", "m1.small", ram=2048, vcpus=1, disk=1, replace=True)
    assert ret["result"] is True, ret["comment"]
    assert cloud.flavors == {old["id"]: {**old, "ram": 2048, "swap": 0}}
    assert cloud.access == {old["id"]: {"p1", "p2"}}


def test_a_flavor_whose_successor_is_refused_is_put_back(cloud, run):
    old = flavor(cloud, extra_specs={"a": "1"})
    ret = run().state("flavor_present", "m1.small", ram=0, vcpus=1, disk=1, replace=True)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "Invalid input for ram" in ret["comment"]
    assert "is as it was" in ret["comment"]
    assert cloud.flavors == {old["id"]: {**old, "swap": 0}}


def test_access_that_is_not_named_goes_only_with_purge(cloud, run, testmode):
    old = flavor(cloud, **{"os-flavor-access:is_public": False})
    cloud.access[old["id"]] = {"p1", cloud.id("projects", "service")}
    wanted = {**SMALL, "projects": ["service"]}
    assert run(testmode).state("flavor_present", "m1.small", **wanted)["changes"] == {}
    ret = run(testmode).state("flavor_present", "m1.small", **wanted, purge=True)
    assert ret["changes"] == {"access of p1": {"old": "allowed", "new": None}}
    assert ("p1" in cloud.access[old["id"]]) is testmode


def test_access_to_what_is_for_all_is_a_mistake(cloud, run, testmode):
    ret = run(testmode).state("flavor_present", "x", **SMALL, projects=["service"])
    assert ret["result"] is False
    assert "`is_public: false`" in ret["comment"]
    assert not cloud.flavors


def test_a_zone_among_the_metadata_is_a_mistake(cloud, run, testmode):
    ret = run(testmode).state("aggregate_present", "ssd", metadata={"availability_zone": "a"})
    assert ret["result"] is False
    assert "give it as `availability_zone`" in ret["comment"]
    assert not cloud.aggregates


def test_a_keypair_is_not_replaced_unasked(cloud, run, testmode):
    cloud.add_keypair("deploy")
    before = cloud.state()
    ret = run(testmode).state("keypair_present", "deploy", public_key=OTHER_KEY)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "`replace: true`" in ret["comment"]
    assert cloud.state() == before
    same = KEY.rpartition(" ")[0] + " another comment"
    assert run(testmode).state("keypair_present", "deploy", public_key=same)["result"] is True


def test_a_host_with_guests_stays(cloud, run, testmode):
    cloud.guests = [{"id": "g1", "name": "web", "host": "cmp1"}]
    before = cloud.state()
    ret = run(testmode).state("service_absent", "cmp1")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "web (g1): move them away" in ret["comment"]
    assert cloud.state() == before


def test_an_unknown_host_joins_no_aggregate_but_all_else_is_done(cloud, run, testmode):
    ret = run(testmode).state("aggregate_present", "ssd", hosts=["cmp1", "cmp9"])
    if testmode:  # an earlier state of the same run may start it
        assert ret["result"] is None
        assert {"host cmp1", "host cmp9"} < set(ret["changes"])
        return
    assert ret["result"] is False
    assert "no compute host cmp9" in ret["comment"]
    assert cloud.aggregates.popitem()[1]["hosts"] == ["cmp1"]


def test_an_unknown_service_cannot_be_disabled(run, testmode):
    ret = run(testmode).state("service_disabled", "cmp9", reason="x")
    assert ret["result"] is (None if testmode else False)
    assert testmode or "Nova knows no nova-compute on cmp9" in ret["comment"]


@pytest.mark.parametrize("function", ["service_disabled", "service_absent"])
def test_a_service_of_a_cell_that_does_not_answer_is_not_touched(cloud, run, function):
    cloud.services.append({"host": "cmp5", "binary": "nova-compute", "status": "UNKNOWN"})
    ret = run().state(function, "cmp5")
    assert ret["result"] is False
    assert "The cell of cmp5 does not answer" in ret["comment"]


def test_a_host_of_another_zone_is_refused_in_novas_words(cloud, run):
    cloud.add_aggregate("a", ["cmp1"], availability_zone="az1")
    ret = run().state("aggregate_present", "b", hosts=["cmp1"], availability_zone="az2")
    assert ret["result"] is False
    assert list(ret["changes"]) == ["name", "availability_zone"]
    assert "Host already in availability zone" in ret["comment"]


def test_a_quota_that_nova_does_not_have_is_named(run, testmode):
    ret = run(testmode).state("quotas_present", "service", quotas={"cors": 1})
    assert ret["result"] is False
    assert "no quota cors: it has cores, instances" in ret["comment"]


def test_a_quota_below_what_is_used_needs_force(run):
    ret = run().state("quotas_present", "service", quotas={"instances": 1})
    assert ret["result"] is False
    assert "must not be below 3" in ret["comment"]


def test_a_driver_that_keeps_its_limits_elsewhere_is_found_out(cloud, run, monkeypatch):
    monkeypatch.setattr(
        cloud, "_quota_class_sets", lambda *_: (200, {"quota_class_set": dict(DEFAULT)})
    )
    ret = run().state("default_quotas_present", "x", quotas={"cores": 5})
    assert ret["result"] is False
    assert "Nova still says otherwise of: cores" in ret["comment"]


@pytest.mark.parametrize(
    ("function", "kwargs"),
    [
        ("quotas_present", {"quotas": {"cores": 1}}),
        ("flavor_present", {**SMALL, "is_public": False, "projects": ["none"]}),
        ("keypair_present", {"public_key": KEY, "user": "none"}),
    ],
)
def test_who_is_not_in_keystone_yet_is_predicted_and_then_missed(run, testmode, function, kwargs):
    ret = run(testmode).state(function, "none", **kwargs)
    assert ret["result"] is (None if testmode else False)
    assert testmode or re.search("Keystone has no (project|user) none in the", ret["comment"])


# ---- several at once ----------------------------------------------------------------------------


def test_a_flavor_that_another_made_first_is_taken_and_repaired(cloud, run):
    cloud.before["POST", "flavors"] = lambda c: flavor(c, extra_specs={"a": "1"})
    ret = run().state("flavor_present", "m1.small", **SMALL, extra_specs={"a": "2"})
    assert (ret["result"], list(ret["changes"])) == (True, ["extra_specs:a"])
    assert len(cloud.flavors) == 1


@pytest.mark.parametrize("fault", [409, 500])
def test_extra_specs_that_another_set_at_the_same_moment_are_taken(cloud, run, fault):
    row = flavor(cloud)
    cloud.before["POST", "flavors"] = lambda _: row["extra_specs"].update(a="2")
    cloud.faults["POST", "flavors"] = [fault]
    ret = run().state("flavor_present", "m1.small", **SMALL, extra_specs={"a": "2"})
    assert (ret["result"], ret["changes"]) == (True, {}), ret["comment"]


@pytest.mark.parametrize("rival", ["aggregate", "host"])
def test_an_aggregate_or_host_that_another_added_first_is_taken(cloud, run, rival):
    if rival == "host":
        row = ssd(cloud, ())
        event = ("POST", "os-aggregates")
        cloud.before[event] = lambda c: row["hosts"].append("cmp1")
    else:
        cloud.before["POST", "os-aggregates"] = ssd
    ret = run().state("aggregate_present", "ssd", hosts=["cmp1"])
    assert (ret["result"], ret["changes"]) == (True, {}), ret["comment"]


def test_the_sites_lock_is_taken_only_when_something_is_due(cloud, run, monkeypatch, testmode):
    taken = []

    @contextlib.contextmanager
    def lock(name, timeout=900):
        taken.append(name)
        flavor(cloud)  # the other controller held it until now
        yield

    minion = run(testmode)
    scope = minion.states["nova_compute.flavor_present"].__globals__
    monkeypatch.setitem(scope, "__utils__", {**settle(minion), "nova_db.lock": lock})
    wanted = {**SMALL, "site_lock": {"name": "x"}}
    ret = minion.state("flavor_present", "m1.small", **wanted)
    assert taken == ([] if testmode else ["x"])
    # Under the lock it is looked again, and what the other made is found.
    assert (ret["result"], bool(ret["changes"])) == ((None, True) if testmode else (True, False))
    if not testmode:
        assert minion.state("flavor_present", "m1.small", **wanted)["result"] is True
        assert taken == ["x"]


# ---- faults -------------------------------------------------------------------------------------

NOT_YET = (503, "hang", "close")
FAULTS = {
    401: "does not take the token of the user admin on the project admin",
    403: "forbids GET /flavors/detail?is_public=None to the user admin",
    404: "does not find what GET /flavors/detail?is_public=None is for",
    406: "does not know the version asked for",
    409: "in conflict with GET /flavors/detail?is_public=None",
    429: "limits requests and refused GET /flavors/detail?is_public=None (429)",
    500: "failed at GET /flavors/detail?is_public=None (500)",
    503: "is not available for GET /flavors/detail?is_public=None (503)",
    "hang": "did not answer GET /flavors/detail?is_public=None within 0.5 s",
    "close": "cannot be reached for GET /flavors/detail?is_public=None (Remote end closed",
    "html": "is not compute: correct its endpoint in the catalog",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_clear_sentence_and_the_next_run_converges(cloud, run, testmode, fault):
    cloud.faults["GET", "flavors"] = [fault] * 9
    ret = run(testmode).state("flavor_present", "m1.small", **SMALL)
    if testmode and fault in NOT_YET:
        assert ret["result"] is None
        assert ret["changes"]
    else:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert FAULTS[fault] in ret["comment"]
        assert cloud.url.removesuffix("/v3") in ret["comment"]
        assert "\n" not in ret["comment"]
    cloud.faults.clear()
    assert run().state("flavor_present", "m1.small", **SMALL)["result"] is True


@pytest.mark.parametrize("fault", [401, 403, 409, 429, 500, 503, "hang", "close"])
def test_a_fault_in_a_write_is_a_failure_and_the_next_run_converges(cloud, run, fault):
    cloud.faults["POST", "flavors"] = [fault] * 9
    ret = run().state("flavor_present", "m1.small", **SMALL)
    assert (ret["result"], ret["changes"]) == (False, {})
    cloud.faults.clear()
    assert run().state("flavor_present", "m1.small", **SMALL)["result"] is True
    assert len(cloud.flavors) == 1


@pytest.mark.parametrize("fault", [401, 503, "close"])
def test_a_fault_of_keystone_is_one_in_both_modes(cloud, run, testmode, fault):
    cloud.faults["POST", "auth"] = [fault] * 9
    ret = run(testmode).state("flavor_present", "m1.small", **SMALL)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"].startswith(f"Keystone at {cloud.url} ")


def test_a_nova_that_is_down_is_asked_once_a_run(cloud, run):
    cloud.faults["GET", "flavors"] = ["hang"] * 9
    minion = run()
    rets = [minion.state("flavor_present", name, **SMALL) for name in ("a", "b", "c")]
    assert {ret["result"] for ret in rets} == {False}
    assert len({ret["comment"] for ret in rets}) == 1
    assert len(cloud.asked("GET", "flavors")) == 1


def test_a_refusal_by_nova_does_not_spoil_the_session_with_keystone(cloud, run):
    cloud.faults["GET", "flavors"] = [401] * 2
    minion = run()
    assert minion.state("flavor_present", "m1.small", **SMALL)["result"] is False
    cloud.requests.clear()
    assert minion.modules["nova_identity.list_roles"](auth=minion.auth)
    assert not cloud.asked("POST", "auth/tokens"), "the session is shared"


def test_a_create_whose_answer_was_lost_is_found_when_it_is_repeated(cloud, run):
    cloud.faults["POST", "flavors"] = ["close after"]
    assert run().state("flavor_present", "m1.small", **SMALL)["result"] is True
    assert len(cloud.flavors) == 1


def test_changes_hold_what_was_done_before_a_failure(cloud, run):
    cloud.faults["POST", "os-aggregates"] = [None, 500]
    ret = run().state("aggregate_present", "ssd", metadata={"a": "1"})
    assert ret["result"] is False
    assert list(ret["changes"]) == ["name"]


def test_without_an_endpoint_test_mode_predicts(cloud, run, testmode):
    cloud.places = []
    ret = run(testmode).state("flavor_present", "m1.small", **SMALL)
    assert ret["result"] is (None if testmode else False)
    assert testmode or "The catalog has no public endpoint of compute" in ret["comment"]


def test_a_region_is_named_or_asked_for(cloud, run):
    cloud.places = ["R1", "R2"]
    minion = run()
    with pytest.raises(SaltInvocationError, match="R1, R2: name the region"):
        minion.call("list_flavors")
    assert minion.call("list_flavors", region="R2") == []
    assert minion.call("list_flavors", auth={**minion.auth, "region_name": "R1"}) == []
    with pytest.raises(CommandExecutionError, match="of compute in R3"):
        minion.call("list_flavors", region="R3")


def test_without_the_library_test_mode_predicts_and_a_real_run_names_it(run, testmode, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == "keystoneauth1"]:
        monkeypatch.setitem(sys.modules, module, None)
    ret = run(testmode).state("flavor_present", "m1.small", **SMALL)
    assert ret["result"] is (None if testmode else False)
    assert testmode or "salt-pip install keystoneauth1" in ret["comment"]


# ---- lists and the command line -----------------------------------------------------------------


def test_a_thousand_flavors_take_one_list_and_pages_are_followed_at_our_address(cloud, run):
    for number in range(5):
        cloud.add_flavor(f"f{number}")
    cloud.nova_page = 2
    minion = run()
    for number in range(5):
        assert minion.state("flavor_present", f"f{number}", **SMALL)["result"] is True
    assert len(cloud.asked("GET", "flavors")) == 3


def test_what_was_read_is_kept_until_something_is_written_or_it_is_old(cloud, run):
    minion = run()
    minion.call("list_flavors")
    minion.call("list_flavors")
    assert len(cloud.asked("GET", "flavors")) == 1
    minion.call("create_aggregate", "x")
    minion.call("list_flavors")
    assert len(cloud.asked("GET", "flavors")) == 2
    minion.call("forget")
    minion.call("list_flavors")
    assert len(cloud.asked("GET", "flavors")) == 3
    minion.modules["nova_compute.forget"].__globals__["READ_AGE"] = -1
    minion.call("list_flavors")
    assert len(cloud.asked("GET", "flavors")) == 4


def test_lists_are_plain_data(cloud, run):
    minion = run()
    assert [row["host"] for row in minion.call("list_services", host="cmp2")] == ["cmp2"]
    assert minion.call("list_services", binary="nova-conductor") == []
    hypervisor = minion.call("get_hypervisor", "cmp1.example.org")
    assert (hypervisor["host"], hypervisor["memory_mb"]) == ("cmp1", 8192)
    assert hypervisor["cpu_info"] is None  # a later version, or another driver, has none
    assert minion.call("get_hypervisor", "cmp1") is None
    flavor(cloud)
    assert minion.call("get_flavor", "m1.small")["swap"] == 0
    ssd(cloud, availability_zone="az1", a="1")
    aggregate = minion.call("get_aggregate", "ssd")
    assert (aggregate["availability_zone"], aggregate["metadata"]) == ("az1", {"a": "1"})
    assert minion.call("get_quotas", "service") == minion.call("get_default_quotas") == DEFAULT


PATHS = {"compute": ["/os-services"], "image": ["/flavors/detail"]}


def test_what_is_asked_ahead_is_under_way_together_and_asked_once(cloud, run):
    minion = run()
    get_ahead = minion.modules["nova_identity.get_ahead"]
    get_from = minion.modules["nova_identity.get_from"]
    together = threading.Barrier(2, timeout=0.4)
    for collection in ("os-services", "flavors"):
        cloud.before["GET", collection] = lambda _: together.wait()
    get_ahead(PATHS, "R1", auth=minion.auth)
    for service, (path,) in PATHS.items():
        assert get_from(service, path, "R1", auth=minion.auth)
    assert not together.broken
    for collection in ("os-services", "flavors", "auth/catalog"):
        assert len(cloud.asked("GET", collection)) == 1


def test_what_is_read_ahead_of_services_is_asked_once_and_anew_when_told(cloud, run):
    minion = run()
    modules, where = minion.modules, {"auth": minion.auth}
    modules["nova_identity.read_ahead"](paths=PATHS, region="R1", **where)
    asked = lambda: [len(cloud.asked("GET", it)) for it in ("os-services", "auth/catalog")]  # noqa: E731
    modules["nova_identity.get_ahead"](PATHS, "R1", anew=False, **where)
    assert modules["nova_identity.get_from"]("compute", "/os-services", "R1", **where)
    assert asked() == [1, 1]
    modules["nova_identity.read_ahead"](paths=PATHS, region="R1", **where)
    # All of it: whoever is still on the way to an endpoint asks for the catalog that is anew, too.
    until = time.monotonic() + 10
    while [len(cloud.asked("GET", it)) for it in ("os-services", "flavors/detail")] != [2, 2]:
        assert time.monotonic() < until
        time.sleep(0.01)
    modules["nova_identity.get_ahead"](PATHS, "R1", **where)
    assert modules["nova_identity.get_from"]("compute", "/os-services", "R1", **where)
    assert asked() == [3, 2]


def test_an_answer_that_has_grown_old_is_asked_for_again(cloud, run, monkeypatch):
    minion = run()
    minion.modules["nova_identity.get_ahead"](PATHS, "R1", auth=minion.auth)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert minion.modules["nova_identity.get_from"](
        "compute", "/os-services", "R1", auth=minion.auth
    )
    assert len(cloud.asked("GET", "os-services")) == 2


def test_what_fails_ahead_is_asked_again(cloud, run):
    minion = run()
    cloud.faults["GET", "os-services"] = [503]
    minion.modules["nova_identity.get_ahead"](PATHS, "R1", auth=minion.auth)
    found = minion.modules["nova_identity.get_from"](
        "compute", *PATHS["compute"], "R1", auth=minion.auth
    )
    assert len(found["services"]) == 2
