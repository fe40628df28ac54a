"""Keystone registration: real keystoneauth1 against a small Keystone that can be told to fail."""

import contextlib
import copy
import email.utils
import itertools
import json
import logging
import re
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import load
from salt.exceptions import CommandExecutionError, SaltInvocationError

ADMIN, NOVA = "adm'in@/%$:#", 'n"o@/%$:#va'
KINDS = {
    "domains": "domain",
    "projects": "project",
    "users": "user",
    "roles": "role",
    "services": "service",
    "endpoints": "endpoint",
    "regions": "region",
}
UNIQUE = {"domains", "projects", "users", "roles", "regions"}
COMPUTE = {"service_name": "nova", "service_type": "compute"}
PUBLIC = {"name": "compute public", **COMPUTE, "interface": "public", "region": "R1"}
URL = "http://vip:8774/v2.1"


class Keystone:
    """What the states use of Keystone v3, in memory."""

    def __init__(self):
        self.ids = (f"{number:04x}" for number in itertools.count(0x1000))
        self.rows = {collection: {} for collection in KINDS}
        self.assigned = set()
        self.inherited = set()
        self.requests = []  # (method, path)
        self.readers = set()  # whose tokens have read
        self.forbidden = set()  # whose tokens may not read
        self.faults = {}  # (method, collection) → what goes wrong, once each
        self.before = {}  # (method, collection) → called once with Keystone before it is answered
        self.after = {}
        self.page = None  # rows a page
        self.truncated = set()  # collections that show a part, where no name is asked for
        self.url = None
        self.rows["domains"]["default"] = {"id": "default", "name": "Default", "enabled": True}
        self.add("domains", name="Other", enabled=True)
        for role in ("admin", "reader"):
            self.add("roles", name=role)
        self.add("users", name="admin", domain_id="default", password=ADMIN, enabled=True)
        for project in ("admin", "service"):
            self.add("projects", name=project, domain_id="default", enabled=True)

    def add(self, collection, **row):
        row.setdefault("id", next(self.ids))
        self.rows[collection][row["id"]] = row
        return row["id"]

    def id(self, collection, name):
        return next(row["id"] for row in self.rows[collection].values() if row["name"] == name)

    def one(self, collection, **wanted):
        found = [r for r in self.rows[collection].values() if wanted.items() <= r.items()]
        assert len(found) == 1, found
        return found[0]

    def asked(self, method, collection):
        return [path for m, path in self.requests if m == method and path.startswith(collection)]

    def state(self):
        return copy.deepcopy((self.rows, self.assigned))

    # ---- answers: (status, body) ----------------------------------------------------------------

    def answer(self, method, path, query, body):
        parts = path.split("/")
        if path == "":
            link = [{"rel": "self", "href": self.url}]
            return 200, {"version": {"id": "v3.14", "status": "stable", "links": link}}
        if path == "auth/tokens":
            return self._token(body["auth"])
        if path == "role_assignments":
            return self._assignments(query)
        if "roles" in parts[1:]:
            return self._assign(method, parts)
        if len(parts) == 1:
            return self._collection(method, parts[0], query, body)
        rows, key = self.rows[parts[0]], parts[1]
        if key not in rows:
            return 404, {"error": {"message": f"Could not find {key}."}}
        if method == "DELETE" and parts[0] == "domains" and rows[key]["enabled"]:
            return 403, {"error": {"message": "Cannot delete a domain that is enabled."}}
        if method == "DELETE":
            del rows[key]
            for kept, owner in (("endpoints", "service_id"), ("users", "domain_id")):
                for row in [r for r in self.rows[kept].values() if r[owner] == key]:
                    del self.rows[kept][row["id"]]
            return 204, None
        new = body[KINDS[parts[0]]]
        if "options" in new:
            new = {**new, "options": {**rows[key].get("options", {}), **new["options"]}}
        rows[key].update(new)
        return 200, {KINDS[parts[0]]: rows[key]}

    def _token(self, auth):
        told = auth["identity"]["password"]["user"]
        domain = told["domain"].get("id") or self.id("domains", told["domain"]["name"])
        user = next(
            (
                u
                for u in self.rows["users"].values()
                if (u["name"], u["domain_id"]) == (told["name"], domain)
            ),
            None,
        )
        if not user or not user["enabled"] or user.get("password") != told["password"]:
            return 401, {"error": {"message": "The request you have made requires authentication."}}
        default = {"id": "default", "name": "Default"}
        token = {
            "methods": ["password"],
            "expires_at": "2999-01-01T00:00:00.000000Z",
            "issued_at": "2020-01-01T00:00:00.000000Z",
            "user": {"id": user["id"], "name": user["name"], "domain": default},
        }
        if auth["scope"] != "unscoped":
            name = auth["scope"]["project"]["name"]
            token["project"] = {"id": self.id("projects", name), "name": name, "domain": default}
        return 201, {"token": token}

    def _collection(self, method, collection, query, body):
        rows = self.rows[collection]
        if method == "GET":
            marker, query = (
                int(query.get("marker", 0)),
                {k: v for k, v in query.items() if k != "marker"},
            )
            found = [row for row in rows.values() if query.items() <= row.items()]
            links = {"next": None}
            if self.page and marker + self.page < len(found):
                query["marker"] = marker + self.page
                link = urllib.parse.urlencode(query)
                links["next"] = f"http://keystone.internal.example/v3/{collection}?{link}"
            found = found[marker : marker + self.page] if self.page else found
            shown = [{k: v for k, v in row.items() if k != "password"} for row in found]
            part = collection in self.truncated and "name" not in query
            return 200, {collection: shown, "links": links, "truncated": part}
        new = body[KINDS[collection]]
        if collection == "endpoints" and new["service_id"] not in self.rows["services"]:
            return 400, {"error": {"message": "Expecting to find endpoint service_id in service."}}
        same = ("id",) if collection == "regions" else ("name", "domain_id")
        if collection in UNIQUE and any(
            all(row.get(key) == new.get(key) for key in same) for row in rows.values()
        ):
            return 409, {"error": {"message": "Conflict occurred: Duplicate entry."}}
        return 201, {KINDS[collection]: rows[self.add(collection, **new)]}

    def _assignments(self, query):
        if "include_names" in query:
            return self._named_assignments(query["user.id"])
        ((scope, target),) = query.items()
        kind = scope.split(".")[1]
        return 200, {
            "role_assignments": [
                {
                    "role": {"id": role},
                    "user": {"id": user},
                    "scope": {kind: {"id": target}, **extra},
                }
                for rows, extra in (
                    (self.assigned, {}),
                    (self.inherited, {"OS-INHERIT:inherited_to": "projects"}),
                )
                for (k, t, user, role) in rows
                if (k, t) == (kind, target)
            ]
        }

    def _named_assignments(self, user):
        def scope(kind, target):
            if kind == "system":
                return {"system": {"all": True}}
            row = self.rows[f"{kind}s"][target]
            return {kind: {"id": target, "name": row["name"], "domain": {"name": "Default"}}}

        rows = [
            {"role": {"name": self.rows["roles"][role]["name"]}, "scope": scope(kind, target)}
            for (kind, target, who, role) in sorted(self.assigned)
            if who == user
        ]
        return 200, {"role_assignments": rows}

    def _assign(self, method, parts):
        kind, target = ("system", "all") if parts[0] == "system" else (parts[0][:-1], parts[1])
        entry = (kind, target, parts[-3], parts[-1])
        if method == "DELETE" and entry not in self.assigned:
            return 404, {"error": {"message": "Could not find role assignment."}}
        (self.assigned.add if method == "PUT" else self.assigned.remove)(entry)
        return 204, None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer

    def _serve(self):
        keystone = self.server.keystone
        path, _, query = self.path.removeprefix("/v3").lstrip("/").partition("?")
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        event = (self.command, path.split("/")[0])
        keystone.requests.append((self.command, path))
        token = self.headers.get("X-Auth-Token")
        keystone.readers |= {token} if self.command == "GET" and token else set()
        keystone.before.pop(event, lambda _: None)(keystone)
        fault = keystone.faults[event].pop(0) if keystone.faults.get(event) else None
        if fault == "hang":
            time.sleep(1)
        if fault in ("close", "hang"):
            self.close_connection = True
            return
        headers = {}
        if isinstance(fault, tuple):
            fault, headers["Retry-After"] = fault
        query = dict(urllib.parse.parse_qsl(query))
        if self.command == "GET" and token in keystone.forbidden:
            fault = 403
        if fault in (None, "close after", "half"):
            status, answer = keystone.answer(self.command, path, query, body)
            keystone.after.pop(event, lambda _: None)(keystone)
        elif fault == "html":
            status, answer = 200, "<html>hello</html>"
        else:
            echo = json.dumps(body)
            status, answer = fault, {"error": {"message": f"It says {fault} to {echo}."}}
        if fault == "close after":
            self.close_connection = True
            return
        if isinstance(answer, str):
            data = answer.encode()
        else:
            data = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if path == "auth/tokens" and status == 201:
            self.send_header("X-Subject-Token", answer["token"]["user"]["name"])
        self.send_header("Content-Length", str(len(data)))
        for header in headers.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "half" else data)
        self.close_connection |= fault == "half"

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

    def log_message(self, *_):
        pass


def settle(minion):
    """What states use of ``__utils__``, for tests that put a lock of their own beside it."""
    return {name: minion.utils[name] for name in ("nova_settle.settle", "nova_settle.diff")}


@contextlib.contextmanager
def served(made, handler=Handler):
    """A Keystone that answers on a port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.keystone = True, made
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/v3"
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def keystone():
    with served(Keystone()) as made:
        yield made


@pytest.fixture
def auth(keystone):
    return {"auth_url": keystone.url, "username": "admin", "password_pillar": "passwords:admin"}


class Minion:
    """One run's states and modules; a new one is a new run."""

    def __init__(self, opts, auth, test=False):
        self.opts, self.auth = {**copy.deepcopy(opts), "test": test}, auth
        self.utils, self.modules, self.states = load(self.opts)
        # Quick where patience is what is not tested.
        scope = self.modules["nova_identity.forget"].__globals__
        scope.update(RETRY_DELAYS=(0, 0, 0), TIMEOUT=0.5, SETTLE_DELAY=0)

    def state(self, function, name, **kwargs):
        kwargs.setdefault("auth", self.auth)
        return self.states[f"nova_identity.{function}"](name, **kwargs)

    def call(self, function, *args, **kwargs):
        kwargs.setdefault("auth", self.auth)
        return self.modules[f"nova_identity.{function}"](*args, **kwargs)


@pytest.fixture
def run(opts, auth):
    opts["pillar"] = {"passwords": {"admin": ADMIN, "nova": NOVA}}
    return lambda test=False: Minion(opts, auth, test)


def nova_user(keystone, **changed):
    row = {"name": "nova", "domain_id": "default", "password": NOVA, "enabled": True}
    return keystone.add("users", **{**row, **changed})


def nova_service(keystone):
    return keystone.add("services", name="nova", type="compute", enabled=True)


def endpoint(keystone, service, **changed):
    row = {"service_id": service, "interface": "public", "region_id": "R1", "url": URL}
    return keystone.add("endpoints", **{**row, "enabled": True, **changed})


def site(minion, **where):
    """What the formula registers, as (function, name, arguments)."""
    wanted = []
    for user in ("nova", "placement"):
        wanted += [
            ("user_present", user, {"password_pillar": "passwords:nova"}),
            ("role_assigned", user, {"roles": ["admin", "service"], "project": "service"}),
        ]
    wanted.insert(0, ("role_present", "service", {}))
    for name, type in (("nova", "compute"), ("placement", "placement")):
        wanted.append(("service_present", name, {"type": type, "description": type}))
        for interface in ("public", "internal", "admin"):
            place = {"service_name": name, "service_type": type, "interface": interface}
            wanted.append(("endpoint_present", interface, {**place, "region": "R1", "url": URL}))
    return [minion.state(function, name, **kwargs, **where) for function, name, kwargs in wanted]


# ---- each state: from nothing, predicted, applied, found ----------------------------------------

CREATED = [
    (
        "user_present",
        "nova",
        {
            "password_pillar": "passwords:nova",
            "email": "n@x",
            "options": {"ignore_lockout_failure_attempts": True},
        },
    ),
    ("user_present", "nova", {"domain": "Other"}),
    ("domain_present", "new", {"description": "New"}),
    ("project_present", "old", {"description": "Old"}),
    ("role_present", "service", {"description": "Service"}),
    ("region_present", "R2", {"description": "Second"}),
    ("role_assigned", "admin", {"roles": ["admin", "reader"], "project": "service"}),
    ("role_assigned", "admin", {"roles": ["reader"], "domain": "Default"}),
    ("role_assigned", "admin", {"roles": ["reader"], "system": True}),
    ("service_present", "glance", {"type": "image", "description": "Images"}),
    ("endpoint_present", "x", {**COMPUTE, "interface": "public", "region": "R1", "url": URL}),
]


@pytest.mark.parametrize(("function", "name", "kwargs"), CREATED)
def test_what_is_missing_is_predicted_then_made_then_found(keystone, run, function, name, kwargs):
    nova_service(keystone)
    bare = keystone.state()
    predicted = run(test=True).state(function, name, **kwargs)
    assert predicted["result"] is None
    assert predicted["changes"]
    assert keystone.state() == bare
    made = run().state(function, name, **kwargs)
    assert (made["result"], made["changes"]) == (True, predicted["changes"])
    assert keystone.state() != bare
    for test in (False, True):
        again = run(test).state(function, name, **kwargs)
        assert (again["result"], again["changes"]) == (True, {})


DRIFTED = [
    (
        "user_present",
        "nova",
        {"password_pillar": "passwords:nova"},
        "users",
        {"password": "old"},
        {"password": {"old": "***", "new": "***"}},
    ),
    (
        "user_present",
        "nova",
        {"email": "new@x"},
        "users",
        {"email": "old@x"},
        {"email": {"old": "old@x", "new": "new@x"}},
    ),
    (
        "user_present",
        "nova",
        {"password_pillar": "passwords:nova"},
        "users",
        {"enabled": False},
        {"enabled": {"old": False, "new": True}, "password": {"old": "***", "new": "***"}},
    ),
    (
        "user_present",
        "nova",
        {"options": {"a": True}},
        "users",
        {"options": {"a": False, "b": 1}},
        {"options": {"old": {"a": False}, "new": {"a": True}}},
    ),
    (
        "domain_present",
        "Other",
        {},
        "domains",
        {"enabled": False},
        {"enabled": {"old": False, "new": True}},
    ),
    (
        "role_present",
        "reader",
        {"description": "new"},
        "roles",
        {"description": "old"},
        {"description": {"old": "old", "new": "new"}},
    ),
    (
        "region_present",
        "R1",
        {"description": "new"},
        "regions",
        {"description": "old"},
        {"description": {"old": "old", "new": "new"}},
    ),
    (
        "user_present",
        "nova",
        {"description": "new"},
        "users",
        {"description": "old"},
        {"description": {"old": "old", "new": "new"}},
    ),
    (
        "service_present",
        "nova",
        {"type": "compute"},
        "services",
        {"enabled": False},
        {"enabled": {"old": False, "new": True}},
    ),
    (
        "project_present",
        "service",
        {},
        "projects",
        {"enabled": False},
        {"enabled": {"old": False, "new": True}},
    ),
    (
        "service_present",
        "nova",
        {"type": "compute", "description": "new"},
        "services",
        {"description": "old"},
        {"description": {"old": "old", "new": "new"}},
    ),
    (
        "endpoint_present",
        "x",
        {**COMPUTE, "interface": "public", "region": "R1", "url": URL},
        "endpoints",
        {"url": "http://old"},
        {"url": {"old": "http://old", "new": URL}},
    ),
    (
        "endpoint_present",
        "x",
        {**COMPUTE, "interface": "public", "region": "R1", "url": URL},
        "endpoints",
        {"enabled": False},
        {"enabled": {"old": False, "new": True}},
    ),
]


@pytest.mark.parametrize(("function", "name", "kwargs", "collection", "drift", "changes"), DRIFTED)
def test_drift_is_repaired_in_place(
    keystone, run, testmode, function, name, kwargs, collection, drift, changes
):
    service = nova_service(keystone)
    keys = {
        "domains": keystone.id("domains", "Other"),
        "projects": keystone.id("projects", "service"),
        "users": nova_user(keystone),
        "roles": keystone.id("roles", "reader"),
        "regions": keystone.add("regions", id="R1"),
        "services": service,
        "endpoints": endpoint(keystone, service),
    }
    row = keystone.rows[collection][keys[collection]]
    row.update(drift)
    before = keystone.state()
    ret = run(testmode).state(function, name, **kwargs)
    assert (ret["result"], ret["changes"]) == (None if testmode else True, changes)
    if testmode:
        assert keystone.state() == before
    else:
        assert len(keystone.rows[collection]) == len(before[0][collection])
        assert run().state(function, name, **kwargs)["changes"] == {}
        assert row.get("options", {}).get("b") == drift.get("options", {}).get("b")


GONE = [
    ("domain_absent", "Other", {}, "domains"),
    ("role_absent", "reader", {}, "roles"),
    ("region_absent", "R2", {}, "regions"),
    ("user_absent", "nova", {}, "users"),
    ("project_absent", "service", {}, "projects"),
    ("service_absent", "nova", {"type": "compute", "region": "R1"}, "services"),
    ("endpoint_absent", "x", {**COMPUTE, "interface": "public", "region": "R1"}, "endpoints"),
]


@pytest.mark.parametrize(("function", "name", "kwargs", "collection"), GONE)
def test_what_is_to_be_absent_is_deleted_once(
    keystone, run, testmode, function, name, kwargs, collection
):
    nova_user(keystone)
    keystone.add("regions", id="R2")
    endpoint(keystone, nova_service(keystone))
    before = len(keystone.rows[collection])
    ret = run(testmode).state(function, name, **kwargs)
    assert ret["result"] is (None if testmode else True)
    (change,) = ret["changes"].values()
    assert change["new"] is None
    assert len(keystone.rows[collection]) == before - (not testmode)
    if not testmode:
        ret = run().state(function, name, **kwargs)
        assert (ret["result"], ret["changes"]) == (True, {})


def test_a_converged_site_takes_eight_requests_and_a_probe_for_each_user(keystone, run, testmode):
    first = site(run())
    assert {ret["result"] for ret in first} == {True}
    keystone.requests.clear()
    again = site(run(testmode))
    assert [(ret["result"], ret["changes"]) for ret in again] == [(True, {})] * len(again)
    assert len(keystone.requests) <= 8 + 2
    assert {method for method, path in keystone.requests if path != "auth/tokens"} == {"GET"}


@pytest.fixture
def reading(auth):
    """Nova's own account reads."""
    auth["read_as"] = {
        "username": "nova",
        "password_pillar": "passwords:nova",
        "project_name": "service",
    }


def nova_drift(minion):
    return minion.state("user_present", "nova", password_pillar="passwords:nova")


def test_the_account_that_reads_spares_its_probe_and_the_administrator(
    keystone, run, reading, testmode
):
    nova_user(keystone)
    assert nova_drift(run(testmode))["changes"] == {}
    assert keystone.readers == {"nova"}
    assert len(keystone.asked("POST", "auth/tokens")) == 1


def test_the_administrator_changes_what_the_other_account_has_read(keystone, run, reading):
    nova_user(keystone)
    ret = run().state("role_present", "service")
    assert ret["result"] is True, ret["comment"]
    assert keystone.one("roles", name="service")
    assert keystone.readers == {"nova"}
    assert len(keystone.asked("POST", "auth/tokens")) == 2


@pytest.mark.parametrize("password", [None, "older"])
def test_the_administrator_reads_where_the_other_account_cannot(
    keystone, run, reading, testmode, password
):
    if password:
        nova_user(keystone, password=password)
    ret = nova_drift(run(testmode))
    assert ret["result"] is (None if testmode else True), ret["comment"]
    assert ret["changes"]["password"] == {"old": "***" if password else None, "new": "***"}
    assert keystone.readers == {"admin"}
    if not testmode:
        assert keystone.one("users", name="nova")["password"] == NOVA


def test_the_administrator_reads_what_is_forbidden_to_the_other_account(keystone, run, reading):
    nova_user(keystone)
    keystone.forbidden.add("nova")
    minion = run()
    assert "admin" in minion.call("list_roles")
    keystone.readers.clear()
    assert "admin" in minion.call("list_projects")
    assert keystone.readers == {"admin"}


def test_a_fault_that_meets_every_account_is_told_once(keystone, run, reading):
    nova_user(keystone)
    keystone.faults["GET", "roles"] = [500]
    with pytest.raises(CommandExecutionError, match=r"failed at GET /roles"):
        run().call("list_roles")
    assert len(keystone.asked("GET", "roles")) == 1


USERS = {"nova": "passwords:nova", "placement": "passwords:nova"}


@pytest.mark.parametrize("reader", [False, True])
def test_what_is_read_ahead_is_asked_once(keystone, run, auth, testmode, reader, request):
    if reader:
        request.getfixturevalue("reading")
    site(run())
    keystone.requests.clear()
    minion = run(testmode)
    ret = minion.state("read_ahead", "all", users=USERS, project="service")
    assert (ret["result"], ret["changes"]) == (True, {})
    again = site(minion)
    assert [(ret["result"], ret["changes"]) for ret in again] == [(True, {})] * len(again)
    for collection in ("roles", "services", "endpoints", "projects", "role_assignments"):
        assert len(keystone.asked("GET", collection)) == 1
    assert len(keystone.asked("GET", "users")) == 2
    assert len(keystone.asked("POST", "auth/tokens")) == (2 if not reader else 1) + 1


def test_the_order_of_an_account_s_keys_makes_no_other_login(keystone, run, auth):
    minion = run()
    minion.call("read_ahead", auth=dict(reversed(auth.items())))
    assert minion.call("list_roles", auth=auth)
    assert len(keystone.asked("POST", "auth/tokens")) == 1


def test_a_project_that_is_not_there_yet_has_no_assignments_to_ask_for(keystone, run):
    del keystone.rows["projects"][keystone.id("projects", "service")]
    minion = run()
    minion.state("read_ahead", "all", users=USERS, project="service")
    made = [minion.state("project_present", "service"), *site(minion)]
    assert {ret["result"] for ret in made} == {True}


def test_what_fails_ahead_is_told_by_whoever_looks(keystone, run):
    keystone.one("users", name="admin")["password"] = "another"
    minion = run()
    ret = minion.state("read_ahead", "all", users=USERS, project="service")
    assert ret["result"] is True
    ret = minion.state("role_present", "service")
    assert ret["result"] is False
    assert "refuses the user admin" in ret["comment"]
    assert len(keystone.asked("POST", "auth/tokens")) == 1


@pytest.mark.parametrize("fault", [403, 500])
def test_what_is_refused_ahead_is_asked_again_by_whoever_looks(keystone, run, fault):
    keystone.faults["GET", "services"] = [fault]
    minion = run()
    minion.state("read_ahead", "all")
    ret = minion.state("service_present", "nova", type="compute")
    assert ret["result"] is True, ret["comment"]
    assert keystone.one("services", name="nova")


def test_nothing_is_read_ahead_where_nothing_can_be_asked(run, auth):
    auth["password_pillar"] = "passwords:missing"
    ret = run().state("read_ahead", "all")
    assert (ret["result"], ret["changes"]) == (True, {})
    assert "passwords:missing" in ret["comment"]


def test_a_whole_bare_site_is_predicted_as_it_is_then_made(keystone, run):
    predicted, made = site(run(test=True)), site(run())
    assert {ret["result"] for ret in made} == {True}
    assert [ret["changes"] for ret in predicted] == [ret["changes"] for ret in made]


def test_a_thousand_endpoints_take_no_more_requests_than_one(keystone, run):
    service = nova_service(keystone)
    for number in range(1000):
        endpoint(keystone, service, region_id=f"R{number}")
    minion = run()
    for number in range(1000):
        ret = minion.state("endpoint_present", **{**PUBLIC, "region": f"R{number}"}, url=URL)
        assert ret["result"] is True
    assert len(keystone.requests) <= 3


def test_a_thousand_users_are_read_at_once_after_the_first_few(keystone, run):
    names = [f"user{number}" for number in range(1000)]
    project, role = keystone.id("projects", "service"), keystone.id("roles", "reader")
    for name in names:
        user = nova_user(keystone, name=name)
        keystone.assigned.add(("project", project, user, role))
    minion = run()
    for name in names:
        assert minion.state("user_present", name)["changes"] == {}
        ret = minion.state("role_assigned", name, roles=["reader"], project="service")
        assert ret["changes"] == {}
    assert len(keystone.requests) <= 8


def test_where_keystone_shows_a_part_of_the_users_each_is_asked_for(keystone, run):
    keystone.truncated = {"users"}
    names = [f"user{number}" for number in range(4)]
    for name in names:
        nova_user(keystone, name=name)
    minion = run()
    for name in names:
        assert minion.state("user_present", name)["changes"] == {}
    assert len(keystone.asked("GET", "users")) == len(names) + 1


# ---- users and passwords ------------------------------------------------------------------------


def test_a_password_is_probed_once_when_it_is_right_and_nothing_is_set(keystone, run):
    nova_user(keystone)
    run().state("user_present", "nova", password_pillar="passwords:nova")
    assert len(keystone.asked("POST", "auth/tokens")) == 2
    assert not keystone.asked("PATCH", "users")


@pytest.mark.parametrize("fault", [403, 429, 500])
def test_only_401_means_that_a_password_has_drifted(keystone, run, testmode, fault):
    nova_user(keystone)
    minion = run(testmode)
    minion.call("list_roles")
    keystone.faults["POST", "auth"] = [fault] * 4
    ret = minion.state("user_present", "nova", password_pillar="passwords:nova")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert not keystone.asked("PATCH", "users")


def test_a_password_that_still_does_not_work_after_it_was_set_is_a_failure(keystone, run):
    nova_user(keystone, password="old")
    minion = run()
    minion.call("list_roles")
    keystone.faults["POST", "auth"] = [401, 401]
    ret = minion.state("user_present", "nova", password_pillar="passwords:nova")
    assert ret["result"] is False
    assert "otherwise of: password" in ret["comment"]
    assert len(keystone.asked("PATCH", "users")) == 1


def test_a_user_that_is_to_be_disabled_is_not_probed(keystone, run):
    nova_user(keystone, enabled=False)
    minion = run()
    ret = minion.state("user_present", "nova", password_pillar="passwords:nova", enabled=False)
    assert (ret["result"], ret["changes"]) == (True, {})
    assert len(keystone.asked("POST", "auth/tokens")) == 1


def test_a_disabled_user_is_not_probed_as_nothing_would_be_learnt(keystone, run):
    nova_user(keystone, enabled=False)
    run(test=True).state("user_present", "nova", password_pillar="passwords:nova")
    assert len(keystone.asked("POST", "auth/tokens")) == 1


def test_the_same_name_in_another_domain_is_another_user(keystone, run):
    nova_user(keystone, domain_id=keystone.id("domains", "Other"), email="other@x")
    assert run().state("user_present", "nova", email="n@x")["changes"]["name"]["old"] is None
    assert keystone.one("users", name="nova", email="other@x")


@pytest.mark.parametrize("state", ["user_present", "token_works", "refused"])
def test_no_password_is_shown_anywhere(keystone, run, caplog, state):
    caplog.set_level(logging.DEBUG)
    nova_user(keystone, password="old")
    if state == "refused":
        keystone.faults["PATCH", "users"] = [400]
    if state == "token_works":
        shown = run().call("token_works", "nova", password_pillar="passwords:nova")
    else:
        shown = run().state("user_present", "nova", password_pillar="passwords:nova")
        assert shown["result"] is (state != "refused")
        assert ("***" in shown["comment"]) is (state == "refused")
        shown = shown["comment"] + str(shown["changes"])
    for text in (caplog.text, str(shown)):
        for secret in (NOVA, ADMIN):
            assert secret not in text
            assert json.dumps(secret)[1:-1] not in text


# ---- roles --------------------------------------------------------------------------------------


def test_only_missing_roles_are_assigned(keystone, run, testmode):
    user, project = nova_user(keystone), keystone.id("projects", "service")
    keystone.assigned = {("project", project, user, keystone.id("roles", "admin"))}
    ret = run(testmode).state("role_assigned", "nova", roles=["admin", "reader"], project="service")
    assert ret["changes"] == {"reader on project service": {"old": None, "new": "assigned"}}
    assert len(keystone.asked("PUT", "projects")) == (not testmode)


def test_a_role_that_only_children_inherit_is_not_had(keystone, run):
    user, project = nova_user(keystone), keystone.id("projects", "service")
    keystone.inherited = {("project", project, user, keystone.id("roles", "admin"))}
    assert run().call("get_user_roles", "nova", project="service") == []


def test_named_roles_alone_are_unassigned(keystone, run, testmode):
    user, project = nova_user(keystone), keystone.id("projects", "service")
    admin, reader = keystone.id("roles", "admin"), keystone.id("roles", "reader")
    keystone.assigned = {("project", project, user, role) for role in (admin, reader)}
    ret = run(testmode).state("role_unassigned", "nova", roles=["admin"], project="service")
    assert ret["changes"] == {"admin on project service": {"old": "assigned", "new": None}}
    left = {role for *_, role in keystone.assigned}
    assert left == ({admin, reader} if testmode else {reader})


@pytest.mark.parametrize(
    ("name", "role", "on", "missing"),
    [
        ("nova", "admin", {"project": "service"}, "no user nova in the domain Default"),
        ("admin", "service", {"project": "service"}, "no role service"),
        ("admin", "admin", {"project": "none"}, "no project none in the domain Default"),
        ("admin", "admin", {"domain": "None"}, "no domain None"),
    ],
)
def test_a_role_of_what_does_not_exist_is_predicted_and_then_fails_clearly(
    run, testmode, name, role, on, missing
):
    ret = run(testmode).state("role_assigned", name, roles=[role], **on)
    if testmode:
        assert ret["result"] is None
        assert ret["changes"]
    else:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert missing in ret["comment"]
        assert "first" in ret["comment"] or "create it" in ret["comment"]


@pytest.mark.parametrize("on", [{}, {"project": "service", "system": True}])
def test_a_role_is_on_exactly_one_thing(run, on):
    ret = run().state("role_assigned", "admin", roles=["admin"], **on)
    assert ret["result"] is False
    assert "Give one of project, domain and system" in ret["comment"]


# ---- the catalog --------------------------------------------------------------------------------


def test_another_regions_endpoint_is_never_touched(keystone, run):
    service = nova_service(keystone)
    other = copy.deepcopy(keystone.rows["endpoints"][endpoint(keystone, service, region_id="R2")])
    assert run().state("endpoint_present", **PUBLIC, url="http://mine")["result"] is True
    assert run().state("endpoint_absent", **PUBLIC)["changes"]
    assert list(keystone.rows["endpoints"].values()) == [other]


def test_a_new_region_is_made_with_its_first_endpoint(keystone, run):
    nova_service(keystone)
    minion = run()
    for interface in ("public", "internal"):
        minion.state("endpoint_present", **{**PUBLIC, "interface": interface}, url=URL)
    assert list(keystone.rows["regions"]) == ["R1"]


def test_an_endpoint_without_its_service_is_predicted_and_then_fails_clearly(run, testmode):
    ret = run(testmode).state("endpoint_present", **PUBLIC, url=URL)
    if testmode:
        assert ret["result"] is None
        assert ret["changes"]["url"] == {"old": None, "new": URL}
    else:
        assert ret["result"] is False
        assert "no service nova of the type compute: create it first" in ret["comment"]


def test_duplicate_endpoints_are_reported_by_id_and_left_alone(keystone, run, testmode):
    service = nova_service(keystone)
    ids = [endpoint(keystone, service), endpoint(keystone, service, url="http://b")]
    before = keystone.state()
    ret = run(testmode).state("endpoint_present", **PUBLIC, url=URL)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert all(id in ret["comment"] for id in ids)
    assert keystone.state() == before


def test_duplicates_that_go_in_time_are_no_failure(keystone, run):
    service = nova_service(keystone)
    endpoint(keystone, service)
    endpoint(keystone, service, id="ffff")

    def seen(k):
        k.before["GET", "endpoints"] = lambda k: k.rows["endpoints"].pop("ffff")

    keystone.after["GET", "endpoints"] = seen
    ret = run().state("endpoint_present", **PUBLIC, url=URL)
    assert (ret["result"], ret["changes"]) == (True, {})


def test_duplicates_that_stay_are_waited_for_once_a_run(keystone, run):
    service = nova_service(keystone)
    nova_service(keystone)
    endpoint(keystone, service)
    minion = run()
    for _ in range(9):
        assert minion.state("endpoint_present", **PUBLIC, url=URL)["result"] is False
    assert len(keystone.asked("GET", "services")) < 9


@pytest.mark.parametrize("function", ["service_present", "endpoint_present", "service_absent"])
def test_duplicate_services_are_reported_by_id_and_left_alone(keystone, run, testmode, function):
    ids = [nova_service(keystone), nova_service(keystone)]
    before = keystone.state()
    if function == "endpoint_present":
        ret = run(testmode).state(function, **PUBLIC, url=URL)
    else:
        ret = run(testmode).state(function, "nova", type="compute")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert all(id in ret["comment"] for id in ids)
    assert keystone.state() == before


def test_a_service_of_the_type_under_another_name_is_reported(keystone, run, testmode):
    other = keystone.add("services", name="compute", type="compute", enabled=True)
    ret = run(testmode).state("service_present", "nova", type="compute")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert f"compute exists under the name compute (id {other})" in ret["comment"]


def test_a_service_that_other_regions_use_is_not_deleted(keystone, run):
    service = nova_service(keystone)
    endpoint(keystone, service)
    endpoint(keystone, service, region_id="R2")
    before = keystone.state()
    kept = run().state("service_absent", "nova", type="compute", region="R1")
    assert (kept["result"], kept["changes"]) == (True, {})
    assert "is kept: its service has endpoints in R2." in kept["comment"]
    refused = run().state("service_absent", "nova", type="compute")
    assert refused["result"] is False
    assert "endpoints in R1, endpoints in R2" in refused["comment"]
    assert keystone.state() == before
    assert run(test=True).state("service_absent", "nova", type="compute")["result"] is None


def test_a_user_whose_service_other_regions_use_is_not_deleted(keystone, run, testmode):
    nova_user(keystone)
    service = nova_service(keystone)
    theirs = endpoint(keystone, service, region_id="R2")
    before = keystone.state()
    kept = run(testmode).state("user_absent", "nova", service="nova", region="R1")
    assert (kept["result"], kept["changes"]) == (True, {})
    assert "is kept: its service has endpoints in R2." in kept["comment"]
    assert keystone.state() == before
    del keystone.rows["endpoints"][theirs]
    endpoint(keystone, service)
    ret = run(testmode).state("user_absent", "nova", service="nova", region="R1")
    assert ret["changes"] == {"user": {"old": "nova", "new": None}}


@pytest.mark.parametrize(
    ("function", "name", "held"),
    [("domain_absent", "Other", "heat"), ("region_absent", "R1", "nova")],
)
def test_what_still_holds_something_is_not_deleted(keystone, run, testmode, function, name, held):
    keystone.add("regions", id="R1")
    endpoint(keystone, nova_service(keystone))
    nova_user(keystone, name="heat", domain_id=keystone.id("domains", "Other"))
    before = keystone.state()
    ret = run(testmode).state(function, name)
    # Earlier states may be about to remove what is there.
    assert ret["result"] is (None if testmode else False)
    assert testmode or f"{held}: remove them first" in ret["comment"]
    assert keystone.state() == before


# ---- two that do the same at the same moment ----------------------------------------------------


@pytest.mark.parametrize(
    ("function", "name", "kwargs", "event", "theirs"),
    [
        (
            "user_present",
            "nova",
            {"password_pillar": "passwords:nova"},
            "users",
            nova_user,
        ),
        ("role_present", "service", {}, "roles", lambda k: k.add("roles", name="service")),
        (
            "project_present",
            "old",
            {},
            "projects",
            lambda k: k.add("projects", name="old", domain_id="default", enabled=True),
        ),
    ],
)
def test_what_another_made_first_is_taken_as_it_is(
    keystone, run, function, name, kwargs, event, theirs
):
    keystone.before["POST", event] = theirs
    ret = run().state(function, name, **kwargs)
    assert (ret["result"], ret["changes"]) == (True, {})
    assert keystone.one(event, name=name)


def test_what_another_made_first_is_repaired(keystone, run):
    keystone.before["POST", "users"] = lambda k: nova_user(k, password="old", email="n@x")
    ret = run().state("user_present", "nova", password_pillar="passwords:nova", email="n@x")
    assert (ret["result"], list(ret["changes"])) == (True, ["password"])
    assert keystone.one("users", name="nova")["password"] == NOVA


def test_a_conflict_with_what_cannot_be_seen_ends_in_a_failure(keystone, run):
    keystone.faults["POST", "roles"] = [409] * 9
    ret = run().state("role_present", "service")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert len(keystone.asked("POST", "roles")) == 3


def test_a_region_that_another_made_first_is_taken(keystone, run):
    nova_service(keystone)
    keystone.before["POST", "regions"] = lambda k: k.add("regions", id="R1")
    assert run().state("endpoint_present", **PUBLIC, url=URL)["result"] is True


@pytest.mark.parametrize("their_id", ["0000", "ffff"])
def test_of_two_endpoints_made_at_once_ours_goes_while_theirs_stays(keystone, run, their_id):
    service = nova_service(keystone)

    def theirs(k):
        endpoint(k, service, id=their_id, url="http://theirs")

    keystone.before["POST", "endpoints"] = theirs
    ret = run().state("endpoint_present", **PUBLIC, url=URL)
    assert ret["result"] is True
    # What they made differed from what we want: it is repaired, and that is all we changed.
    assert ret["changes"] == {"url": {"old": "http://theirs", "new": URL}}
    assert [row["id"] for row in keystone.rows["endpoints"].values()] == [their_id]


def test_of_two_endpoints_made_at_once_ours_stays_when_theirs_is_taken_back(keystone, run):
    service = nova_service(keystone)

    def withdrawn(k):
        del k.rows["endpoints"]["ffff"]

    def seen(k):
        k.before["GET", "endpoints"] = withdrawn

    def theirs(k):
        endpoint(k, service, id="ffff")
        k.after["GET", "endpoints"] = seen

    keystone.before["POST", "endpoints"] = theirs
    ret = run().state("endpoint_present", **PUBLIC, url=URL)
    assert ret["result"] is True
    assert ret["changes"]["url"] == {"old": None, "new": URL}
    assert "ffff" not in keystone.rows["endpoints"]
    assert len(keystone.rows["endpoints"]) == 1


def test_an_endpoint_goes_to_the_service_that_stayed(keystone, run):
    """Its maker took the other one back after we had seen it."""
    taken_back, stays = nova_service(keystone), "ffff"

    def settled(k):
        del k.rows["services"][taken_back]
        k.add("services", id=stays, name="nova", type="compute", enabled=True)

    keystone.before["POST", "endpoints"] = settled
    ret = run().state("endpoint_present", **PUBLIC, url=URL)
    assert ret["result"] is True, ret["comment"]
    assert keystone.one("endpoints")["service_id"] == stays


def test_many_runs_at_once_leave_one_of_everything(keystone, run):
    minions = [run() for _ in range(4)]
    for minion in minions:
        minion.modules["nova_identity.forget"].__globals__["SETTLE_DELAY"] = 0.05
    results = {}

    def work(number):
        results[number] = site(minions[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {ret["result"] for rets in results.values() for ret in rets} == {True}
    assert len(keystone.rows["services"]) == 2
    assert len(keystone.rows["endpoints"]) == 6
    assert {str(ret["changes"]) for ret in site(run())} == {"{}"}


@pytest.fixture
def locked(monkeypatch):
    """The site's lock, which needs a database, as a record of who took it."""
    taken = []

    def install(minion):
        @contextlib.contextmanager
        def lock(name, timeout=900, config="/etc/nova/nova.conf"):
            taken.append((name, timeout))
            yield

        scope = minion.states["nova_identity.user_present"].__globals__
        monkeypatch.setitem(scope, "__utils__", {**settle(minion), "nova_db.lock": lock})
        return minion

    install.taken = taken
    return install


def test_the_sites_lock_is_taken_only_when_something_is_due(keystone, run, locked, testmode):
    lock = {"name": "shanghai", "timeout": 5}
    minion = locked(run(testmode))
    minion.state("service_present", "nova", type="compute", site_lock=lock)
    assert locked.taken == ([] if testmode else [("shanghai", 5)])
    if testmode:
        nova_service(keystone)
    endpoint(keystone, keystone.id("services", "nova"))
    locked.taken.clear()
    minion = locked(run(testmode))
    for function, name, kwargs in (
        ("service_present", "nova", {"type": "compute"}),
        ("endpoint_present", "x", {**{k: v for k, v in PUBLIC.items() if k != "name"}, "url": URL}),
    ):
        assert minion.state(function, name, site_lock=lock, **kwargs)["changes"] == {}
    assert locked.taken == []


def test_under_the_lock_it_is_looked_again(keystone, run, monkeypatch):
    minion = run()

    @contextlib.contextmanager
    def lock(name):
        nova_service(keystone)  # the other controller held it until now
        yield

    scope = minion.states["nova_identity.user_present"].__globals__
    monkeypatch.setitem(scope, "__utils__", {**settle(minion), "nova_db.lock": lock})
    ret = minion.state("service_present", "nova", type="compute", site_lock={"name": "x"})
    assert (ret["result"], ret["changes"]) == (True, {})
    assert not keystone.asked("POST", "services")


# ---- faults -------------------------------------------------------------------------------------

FAULTS = {
    401: "with the password in the pillar key passwords:admin: correct the password",
    403: "forbids GET /services to the user admin on the project admin",
    404: "check that auth_url is Keystone's",
    409: "in conflict with GET /services",
    429: "limits requests and refused GET /services (429)",
    500: "failed at GET /services (500)",
    503: "is not available for GET /services (503)",
    (429, "120"): "refused GET /services (429, for 120 s): run this again later",
    "half": "cannot be reached for GET /services (",
    "hang": "did not answer GET /services within 0.5 s",
    "close": "cannot be reached for GET /services (Remote end closed connection",
    "html": "is not Keystone: correct auth_url",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_clear_sentence_and_the_next_run_converges(
    keystone, run, testmode, fault
):
    keystone.faults["GET", "services"] = [fault] * 9
    ret = run(testmode).state("service_present", "nova", type="compute")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert FAULTS[fault] in ret["comment"]
    assert keystone.url in ret["comment"]
    assert "\n" not in ret["comment"]
    keystone.faults.clear()
    assert run().state("service_present", "nova", type="compute")["result"] is True


@pytest.mark.parametrize("fault", [403, 404, 429, 500, 503, "hang", "close", "half"])
@pytest.mark.parametrize("collection", ["users", "services"])
def test_a_fault_in_a_write_is_a_failure_and_the_next_run_converges(
    keystone, run, fault, collection
):
    function = {"users": "user_present", "services": "service_present"}[collection]
    kwargs = {"type": "compute"} if collection == "services" else {}
    keystone.faults["POST", collection] = [fault] * 9
    ret = run().state(function, "nova", **kwargs)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert keystone.url in ret["comment"]
    keystone.faults.clear()
    assert run().state(function, "nova", **kwargs)["result"] is True
    assert keystone.one(collection, name="nova")


@pytest.mark.parametrize("fault", ["close", 429, 502, 503])
@pytest.mark.parametrize("event", [("POST", "auth"), ("GET", "roles"), ("POST", "roles")])
def test_a_passing_fault_is_overcome(keystone, run, fault, event):
    keystone.faults[event] = [fault] * 3
    ret = run().state("role_present", "service")
    assert (ret["result"], list(ret["changes"])) == (True, ["name"])


@pytest.mark.parametrize("date", [False, True])
def test_as_long_is_waited_as_keystone_asks_for(keystone, run, monkeypatch, date):
    when = email.utils.formatdate(time.time() + 5, usegmt=True) if date else "5"
    keystone.faults["GET", "roles"] = [(429, when), (503, "1")]
    waits = []
    minion = run()
    monkeypatch.setattr(time, "sleep", waits.append)
    assert minion.state("role_present", "reader")["result"] is True
    asked, again = waits
    # A date comes nearer, on a busy machine by more than a second.
    assert again == 1 and (0 < asked <= 5 if date else asked == 5)


def test_a_wait_that_would_be_too_long_is_not_begun(keystone, run, monkeypatch):
    keystone.faults["GET", "roles"] = [(503, "3600")]
    minion = run()
    monkeypatch.setattr(time, "sleep", None)
    assert minion.state("role_present", "reader")["result"] is False


def test_a_keystone_that_hangs_makes_a_run_wait_once(keystone, run):
    keystone.faults["POST", "auth"] = ["hang"] * 99
    assert {ret["result"] for ret in site(run())} == {False}
    assert len(keystone.requests) == 1


def test_what_was_deleted_in_between_is_made_anew(keystone, run):
    nova_user(keystone, email="old@x")
    gone = nova_service(keystone)
    for kind, state, kwargs in (
        ("users", "user_present", {"email": "n@x"}),
        ("services", "service_present", {"type": "compute", "description": "new"}),
    ):
        row = keystone.id(kind, "nova")
        keystone.before["PATCH", kind] = lambda k, kind=kind, row=row: k.rows[kind].pop(row)
        ret = run().state(state, "nova", **kwargs)
        assert ret["result"] is True
        assert keystone.one(kind, name="nova")["id"] != row
    assert gone not in keystone.rows["services"]


def test_a_create_that_could_make_a_duplicate_is_not_repeated(keystone, run):
    keystone.faults["POST", "services"] = ["close after"]
    assert run().state("service_present", "nova", type="compute")["result"] is False
    assert len(keystone.asked("POST", "services")) == 1
    ret = run().state("service_present", "nova", type="compute")
    assert (ret["result"], ret["changes"]) == (True, {})


@pytest.mark.parametrize("fault", ["close after", "half"])
def test_a_create_whose_answer_was_lost_is_found_when_it_is_repeated(keystone, run, fault):
    keystone.faults["POST", "roles"] = [fault]
    ret = run().state("role_present", "service")
    assert ret["result"] is True
    assert keystone.one("roles", name="service")


def test_changes_hold_what_was_done_before_a_failure(keystone, run):
    nova_user(keystone)
    minion = run()
    keystone.after["PUT", "projects"] = lambda k: k.faults.update({("PUT", "projects"): [500]})
    ret = minion.state("role_assigned", "nova", roles=["admin", "reader"], project="service")
    assert ret["result"] is False
    assert list(ret["changes"]) == ["admin on project service"]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"auth_url": "http://127.0.0.1:1"}, r"http://127.0.0.1:1/v3 cannot be reached .*refused"),
        ({"auth_url": "ftp://x"}, "cannot be asked .*correct auth_url"),
        ({"password_pillar": "passwords:nova"}, "refuses .*pillar key passwords:nova: correct"),
        ({"password_pillar": "passwords:none"}, "pillar key passwords:none holds no password"),
        ({"cacert": "/nonexistent.pem"}, "cacert /nonexistent.pem, which is not there"),
        ({"auth_url": ""}, "auth has no auth_url"),
        ({"usernam": "x"}, "auth has an unknown usernam"),
    ],
)
def test_bad_credentials_and_addresses_fail_in_both_modes(run, auth, testmode, changed, sentence):
    ret = run(testmode).state("role_present", "service", auth={**auth, **changed})
    assert (ret["result"], ret["changes"]) == (False, {})
    assert re.search(sentence, ret["comment"])


def test_a_server_without_tls_is_not_trusted(keystone, run, auth):
    https = {**auth, "auth_url": keystone.url.replace("http:", "https:")}
    ret = run().state("role_present", "service", auth=https)
    assert ret["result"] is False
    assert "cannot be trusted" in ret["comment"]
    assert "cacert" in ret["comment"]


def test_a_wrong_admin_password_is_tried_once_a_run(keystone, run, auth):
    ret = site(run(), auth={**auth, "password_pillar": "passwords:nova"})
    assert {r["result"] for r in ret} == {False}
    assert len({r["comment"] for r in ret}) == 1
    assert len(keystone.requests) == 1


def test_a_corrected_password_is_used_without_a_new_process(run, monkeypatch):
    minion = run()
    scope = minion.modules["nova_identity.forget"].__globals__
    monkeypatch.setitem(scope, "__pillar__", {"passwords": {"admin": "wrong"}})
    monkeypatch.setitem(scope, "READ_AGE", -1)
    with pytest.raises(CommandExecutionError) as caught:
        minion.call("list_roles")
    assert caught.value.info == 401
    assert "Additional info" not in str(caught.value)
    monkeypatch.setitem(scope, "__pillar__", {"passwords": {"admin": ADMIN}})
    assert minion.call("list_roles")


@pytest.mark.parametrize(("function", "name", "kwargs", "_"), GONE)
def test_without_the_library_nothing_is_said_to_be_absent(
    run, monkeypatch, function, name, kwargs, _
):
    monkeypatch.setitem(sys.modules, "keystoneauth1", None)
    monkeypatch.setitem(sys.modules, "keystoneauth1.identity", None)
    ret = run().state(function, name, **kwargs)
    assert ret["result"] is False
    assert "salt-pip install keystoneauth1" in ret["comment"]


@pytest.mark.parametrize(("function", "name", "kwargs"), CREATED)
def test_without_the_library_test_mode_predicts_and_a_real_run_names_it(
    run, testmode, monkeypatch, function, name, kwargs
):
    for module in [m for m in sys.modules if m.split(".")[0] == "keystoneauth1"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "keystoneauth1", None)
    ret = run(testmode).state(function, name, **kwargs)
    assert ret["result"] is (None if testmode else False)
    if testmode:
        assert ret["changes"]
    else:
        assert "salt-pip install keystoneauth1" in ret["comment"]


# ---- lists and the command line -----------------------------------------------------------------


def test_pages_are_followed_at_our_address(keystone, run):
    keystone.page = 1
    assert set(run().call("list_roles")) == {"admin", "reader"}
    assert len(keystone.asked("GET", "roles")) == 2


def test_a_truncated_list_is_not_taken_for_all(keystone, run):
    keystone.truncated = {"services"}
    with pytest.raises(CommandExecutionError, match="list_limit"):
        run().call("list_services")


def test_what_was_read_is_kept_until_something_is_written_or_it_is_old(keystone, run):
    minion = run()
    minion.call("list_services")
    minion.call("list_services")
    assert len(keystone.asked("GET", "services")) == 1
    minion.call("create", "service", type="image", name="glance")
    assert set(minion.call("list_services")) == {"image glance"}
    asked = len(keystone.asked("GET", "services"))
    minion.call("create", "role", name="service")
    minion.call("list_services")
    assert len(keystone.asked("GET", "services")) == asked
    minion.modules["nova_identity.forget"].__globals__["READ_AGE"] = -1
    minion.call("list_services")
    assert len(keystone.asked("GET", "services")) == asked + 1


def test_the_url_of_auth_is_used_with_or_without_its_version(keystone, run, auth):
    for url in (keystone.url, keystone.url + "/", keystone.url.removesuffix("/v3")):
        assert run().call("list_roles", auth={**auth, "auth_url": url})


def test_lists_are_by_name_and_tell_duplicates_apart(keystone, run):
    service = nova_service(keystone)
    first, other = endpoint(keystone, service), endpoint(keystone, service, region_id="R2")
    minion = run()
    row = {"url": URL, "enabled": True}
    assert minion.call("list_endpoints") == {
        "R1 compute nova public": {"id": first, **row},
        "R2 compute nova public": {"id": other, **row},
    }
    second = endpoint(keystone, service)
    assert set(run().call("list_endpoints")) == {
        f"R1 compute nova public (id {first})",
        f"R1 compute nova public (id {second})",
        "R2 compute nova public",
    }
    assert set(minion.call("list_services")) == {"compute nova"}
    assert set(minion.call("list_domains")) == {"Default", "Other"}
    assert set(minion.call("list_projects")) == {"admin", "service"}
    assert minion.call("list_users", "Other") == {}
    fields = {"id", "email", "description", "enabled", "options"}
    assert set(minion.call("list_users")["admin"]) == fields
    keystone.add("regions", id="R1", description="One")
    assert minion.call("list_regions") == {"R1": {"id": "R1", "description": "One"}}


def test_what_is_found_has_its_key_and_what_it_has_besides(keystone, run):
    service = nova_service(keystone)
    end = endpoint(keystone, service)
    minion = run()
    found = {"id": end, **COMPUTE, "interface": "public", "region": "R1", "url": URL}
    for key in ({"service_type": "compute"}, {"region": "R1"}, {"interface": "public", **COMPUTE}):
        assert minion.call("find", "endpoint", **key) == [{**found, "enabled": True}]
    assert minion.call("find", "endpoint", **COMPUTE, interface="admin") == []
    assert minion.call("find", "endpoint", service_type="image") == []
    assert minion.call("get", "service", type="compute")["name"] == "nova"
    assert minion.call("get", "project", name="service", __pub_fun="x")["domain"] == "Default"
    assert minion.call("get", "user", name="nobody") is None
    assert minion.call("get", "user", name="admin", domain="None") is None


def test_the_endpoints_of_a_region_are_no_duplicates_to_wait_for(keystone, run, monkeypatch):
    service = nova_service(keystone)
    for interface in ("public", "internal"):
        endpoint(keystone, service, interface=interface)
    minion = run()
    monkeypatch.setattr(time, "sleep", None)
    assert len(minion.call("find", "endpoint", region="R1")) == 2


@pytest.mark.parametrize("collection", ["services", "endpoints"])
def test_where_only_the_type_is_asked_for_two_of_the_type_are_reported(keystone, run, collection):
    ids = [nova_service(keystone), keystone.add("services", name="old", type="compute")]
    look = {
        "services": ("service", {"type": "compute"}),
        "endpoints": ("endpoint", {"service_type": "compute"}),
    }
    kind, key = look[collection]
    with pytest.raises(CommandExecutionError) as caught:
        run().call("get", kind, **key)
    assert all(id in str(caught.value) for id in ids)


def test_a_users_assignments_are_listed_by_what_they_are_on(keystone, run):
    user, admin = nova_user(keystone), keystone.id("roles", "admin")
    project, reader = keystone.id("projects", "service"), keystone.id("roles", "reader")
    keystone.assigned = {
        ("project", project, user, reader),
        ("project", project, user, admin),
        ("domain", "default", user, reader),
        ("system", "all", user, reader),
        ("system", "all", keystone.id("users", "admin"), admin),
    }
    assert run().call("list_assignments", "nova") == {
        "project service of Default": ["admin", "reader"],
        "domain Default": ["reader"],
        "system": ["reader"],
    }


@pytest.mark.parametrize(
    ("function", "args", "values", "sentence"),
    [
        ("find", ["group"], {}, "group is no kind: one of domain, project"),
        ("find", ["user"], {"nam": "x"}, "No nam of a user here, but name, domain"),
        ("find", ["service"], {"name": "nova"}, "Give type of the service"),
        ("find", ["endpoint"], {"service_name": "nova"}, "Give service_type too"),
        ("create", ["service"], {"type": "compute"}, "Give name of the service"),
        ("create", ["role"], {"name": "x", "email": "x"}, "No email of a role"),
        ("update", ["user", "1"], {"name": "x"}, "No name of a user here, but email"),
        ("delete", ["group", "1"], {}, "group is no kind"),
    ],
)
def test_what_a_kind_does_not_have_is_refused(keystone, run, function, args, values, sentence):
    with pytest.raises(SaltInvocationError, match=sentence):
        run().call(function, *args, **values)
    assert not keystone.requests


CONF = """
[keystone_authtoken]
auth_url = {url}
username = admin
password = {password}
project_name = admin
user_domain_name = Default
project_domain_name = Default
"""


def test_without_auth_the_nodes_own_nova_conf_is_used(keystone, run, tmp_path, monkeypatch):
    monkeypatch.delenv("OS_CLOUD", raising=False)
    minion = run()
    scope = minion.modules["nova_identity.forget"].__globals__
    path = tmp_path / "nova.conf"
    monkeypatch.setitem(scope, "NOVA_CONF", str(path))
    path.write_text(CONF.format(url=keystone.url, password=ADMIN.replace("$", "$$")))
    assert set(minion.call("list_roles", auth=None)) == {"admin", "reader"}
    minion = run()
    scope = minion.modules["nova_identity.forget"].__globals__
    monkeypatch.setitem(scope, "NOVA_CONF", str(path))
    path.write_text(CONF.format(url=keystone.url, password="wrong"))
    with pytest.raises(CommandExecutionError, match=f"refuses the user admin .* of {path}"):
        minion.call("list_roles", auth=None)


def test_without_auth_the_cloud_comes_from_clouds_yaml(keystone, run, tmp_path, monkeypatch):
    pytest.importorskip("openstack.config")
    clouds = {
        name: {
            "auth": {
                "auth_url": keystone.url,
                "username": "admin",
                "password": password,
                "project_name": "admin",
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            }
        }
        for name, password in (("nova", ADMIN), ("wrong", "wrong"))
    }
    path = tmp_path / "clouds.yaml"
    path.write_text(json.dumps({"clouds": clouds}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
    monkeypatch.delenv("OS_CLOUD", raising=False)
    minion = run()
    assert minion.call("list_roles", auth=None)
    with pytest.raises(CommandExecutionError, match="refuses the cloud wrong of clouds.yaml"):
        minion.call("list_roles", auth=None, cloud="wrong")
    monkeypatch.setenv("OS_CLOUD", "none")
    with pytest.raises(CommandExecutionError, match="cloud none cannot be taken from clouds.yaml"):
        minion.call("list_roles", auth=None)


def test_a_probe_without_a_password_is_refused(run):
    with pytest.raises(SaltInvocationError, match="password_pillar"):
        run().call("token_works", "nova")


def test_a_refusal_is_a_sentence_and_asked_anew_each_time(keystone, run, auth):
    nova_user(keystone, password="old")
    minion = run()
    account = {**auth, "username": "nova", "password": NOVA, "project_name": "service"}
    account.pop("password_pillar")
    found = minion.modules["nova_identity.refusal"](account, " of nova.conf")
    assert "refuses the user nova on the project service of nova.conf: " in found
    assert NOVA not in found
    keystone.one("users", name="nova")["password"] = NOVA
    assert minion.modules["nova_identity.refusal"](account) == ""
