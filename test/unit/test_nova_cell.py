"""Cells and hosts: looked at first, settled once under the lock, repaired in place."""

import contextlib
import json
from types import SimpleNamespace

import pytest
from conftest import load
from salt.exceptions import CommandExecutionError
from stub import stub

ADMIN = {"host": "db", "user": "root", "password": "x"}
CELL0 = "00000000-0000-0000-0000-000000000000"
UUID = "5b4a4f0c-0000-4000-8000-000000000001"
TEMPLATE = "{scheme}://{username}:{password}@{hostname}:{port}/"


def failure(info, text="no"):
    exc = CommandExecutionError(text)
    exc.info = info
    return exc


class Nova:
    """What nova_manage would find, and do."""

    def __init__(self):
        self.rows, self.mapped, self.services, self.flagged, self.calls = {}, set(), {}, set(), []
        self.error = self.preview_error = None

    def _seen(self, connection):
        error = self.preview_error if connection else self.error
        if error:
            raise error

    def list_cells(self, connection=None):
        self._seen(connection)
        return [{"uuid": uuid, **row} for uuid, row in self.rows.items()]

    def find_cell(self, name, database_connection=None, connection=None):
        self._seen(connection)
        named = [u for u, row in self.rows.items() if row["name"] == name and u != CELL0]
        if len(named) > 1:
            raise failure("finding", f"Several cells are named {name}.")
        return {"uuid": named[0]} if named else None

    def cell_drift(
        self,
        uuid,
        database_connection,
        transport_url,
        name=None,
        connection=None,
        disabled=None,
    ):
        self._seen(connection)
        wanted = {"database_connection": database_connection, "transport_url": transport_url}
        wanted["name"] = name
        row = {"disabled": False, **self.rows[uuid]}
        if disabled is not None:
            wanted["disabled"] = disabled
        return {k: {"old": row[k], "new": v} for k, v in wanted.items() if row[k] != v}

    def database_template(self, database=None, server=None):
        if self.error and self.error.info is None:
            raise self.error
        return TEMPLATE + (database or "{path}")

    def cell_urls(self, database=None, messaging=None):
        if self.error and self.error.info is None:
            raise self.error
        return {
            "transport_url": TEMPLATE + (messaging or {}).get("vhost", "{path}"),
            "database_connection": TEMPLATE + (database or {}).get("name", "{path}"),
        }

    def map_cell0(self, database_connection=None, timeout=120, held=None):
        self.calls.append("map_cell0")
        self.rows[CELL0] = {
            "name": "cell0",
            "transport_url": "none:///",
            "database_connection": database_connection,
        }
        return True

    def create_cell(
        self,
        name,
        transport_url=None,
        database_connection=None,
        timeout=120,
        held=None,
        disabled=False,
    ):
        self.calls.append("create_cell")
        self.rows[UUID] = {
            "name": name,
            "disabled": disabled,
            "transport_url": transport_url,
            "database_connection": database_connection,
        }
        return UUID

    def update_cell(
        self,
        uuid,
        name=None,
        transport_url=None,
        database_connection=None,
        timeout=120,
        held=None,
        disabled=None,
    ):
        assert transport_url
        assert database_connection
        self.calls.append("update_cell")
        self.rows[uuid].update(transport_url=transport_url, database_connection=database_connection)
        self.rows[uuid].update(name=name)
        if disabled is not None:
            self.rows[uuid].update(disabled=disabled)
        return True

    def delete_cell(self, uuid, force=False, timeout=120, held=None):
        assert not force
        self.calls.append("delete_cell")
        del self.rows[uuid]
        return True

    def delete_host(self, cell_uuid, host, timeout=120, held=None):
        assert cell_uuid == UUID
        self.calls.append("delete_host")
        self.mapped.discard(host)
        return True

    def list_hosts(self, connection=None):
        self._seen(connection)
        return [{"host": h, "cell": "cell1", "cell_uuid": UUID} for h in sorted(self.mapped)]

    def compute_services(self):
        self._seen(None)
        return [{"host": h, "cell": "cell1", "up": up} for h, up in sorted(self.services.items())]

    def discover_hosts(self, by_service=False, timeout=300, held=None):
        self.calls.append(f"discover_hosts by_service={by_service}")
        self.mapped |= {h for h in self.services if by_service or h not in self.flagged}
        return True


@pytest.fixture
def site(opts, testmode):
    opts["test"] = testmode
    utils, modules, states = load(opts)
    nova = Nova()
    site = SimpleNamespace(nova=nova, testmode=testmode, locks=[], others=lambda: None, sleeps=[])

    @contextlib.contextmanager
    def lock(name, timeout=900, config=""):
        site.locks.append(name)
        site.others()
        yield object()

    stub(utils, "nova_db.lock", side_effect=lock)
    site.stubs = {
        name: stub(modules, f"nova_manage.{name}", side_effect=getattr(nova, name))
        for name in vars(Nova)
        if not name.startswith("_")
    }
    site.fault = stub(modules, "nova_login.fault_of_cell", return_value="")
    site.state = lambda function, *a, **k: states[f"nova_cell.{function}"](*a, **k)
    site.clock = states["nova_cell.present"].__globals__["time"]
    return site


@pytest.fixture
def time_flies(site, monkeypatch):
    """Sleeps cost nothing, and are counted; ``site.meanwhile`` happens during each."""
    now = [0.0]
    site.meanwhile = lambda: None

    def sleep(seconds):
        site.sleeps.append(seconds)
        now[0] += seconds
        assert site.locks == [], "waited with the lock held"
        site.meanwhile()

    monkeypatch.setattr(site.clock, "monotonic", lambda: now[0])
    monkeypatch.setattr(site.clock, "sleep", sleep)


CELLS = [
    ("cell0_mapped", "cell0", CELL0, "map_cell0", TEMPLATE + "nova_cell0", "none:///"),
    ("present", "cell1", UUID, "create_cell", TEMPLATE + "{path}", TEMPLATE + "{path}"),
]
each_cell = pytest.mark.parametrize(
    ("function", "name", "uuid", "creates", "database", "transport"), CELLS
)


@each_cell
def test_a_missing_cell_is_created_once(site, function, name, uuid, creates, database, transport):
    ret = site.state(function, name, site_lock={"name": "shanghai"})
    assert ret["changes"] == {name: {"old": None, "new": "created"}}
    if site.testmode:
        assert (ret["result"], site.nova.calls, site.locks) == (None, [], [])
    else:
        assert (ret["result"], site.nova.calls, site.locks) == (True, [creates], ["shanghai"])
        assert site.nova.rows[uuid]["database_connection"] == database
        assert site.nova.rows[uuid]["transport_url"] == transport
        again = site.state(function, name)
        assert (again["result"], again["changes"], len(site.locks)) == (True, {}, 1)


@each_cell
def test_a_stale_url_is_repaired_in_place(site, function, name, uuid, creates, database, transport):
    site.nova.rows[uuid] = {
        "name": name,
        "transport_url": transport,
        "database_connection": "mysql://***@old/nova",
    }
    ret = site.state(function, name)
    assert ret["changes"] == {
        f"{name} database_connection": {"old": "mysql://***@old/nova", "new": database}
    }
    assert ret["result"] is (None if site.testmode else True)
    assert site.nova.calls == ([] if site.testmode else ["update_cell"])


@each_cell
def test_what_another_controller_created_meanwhile_is_not_created_again(
    site, function, name, uuid, creates, database, transport
):
    site.others = lambda: site.nova.rows.update(
        {uuid: {"name": name, "transport_url": transport, "database_connection": database}}
    )
    ret = site.state(function, name)
    assert site.nova.calls == []
    if not site.testmode:
        assert (ret["result"], ret["changes"]) == (True, {})
        assert "another controller" in ret["comment"]


@each_cell
def test_a_host_where_nothing_is_installed_predicts_and_else_fails(
    site, function, name, uuid, creates, database, transport
):
    site.nova.error = failure(None, "There is no nova.conf.")
    ret = site.state(function, name)
    if site.testmode:
        assert ret["result"] is None
        assert ret["changes"] == {name: {"old": None, "new": "created"}}
    else:
        assert (ret["result"], ret["comment"]) == (False, "There is no nova.conf.")


@each_cell
def test_the_administrator_sees_the_cells_from_a_bare_controller(
    site, function, name, uuid, creates, database, transport
):
    site.nova.error = failure(None, "There is no nova.conf.")
    site.nova.rows[uuid] = {"name": name, "transport_url": "x", "database_connection": "y"}
    ret = site.state(function, name, connection=ADMIN)
    if site.testmode:
        assert (ret["result"], ret["changes"]) == (True, {})
        looks = [
            call.kwargs["connection"]["database"]
            for mock in site.stubs.values()
            for call in mock.call_args_list
            if call.kwargs.get("connection")
        ]
        assert set(looks) == {"nova_api"}
    else:
        assert ret["result"] is False


def test_a_rotated_account_is_looked_around_in_test_mode(site):
    site.nova.error = failure(1045, "Access denied.")
    site.nova.rows[UUID] = {
        "name": "cell1",
        "transport_url": TEMPLATE + "{path}",
        "database_connection": "stale",
    }
    ret = site.state("present", "cell1", connection=ADMIN)
    if site.testmode:
        assert list(ret["changes"]) == ["cell1 database_connection"]
    else:
        assert ret["comment"] == "Access denied."


def test_no_schema_yet_is_said_so(site):
    site.nova.error = failure(1146, "no such table")
    ret = site.state("cell0_mapped", "cell0")
    if site.testmode:
        assert ret["result"] is None
    else:
        assert "no schema yet: apply nova.controller.schema first" in ret["comment"]


@pytest.mark.parametrize("connection", [None, ADMIN])
def test_a_finding_about_the_cells_fails_in_test_mode_too(site, connection):
    for uuid in (UUID, UUID.replace("1", "2")):
        site.nova.rows[uuid] = {"name": "cell1"}
    ret = site.state("present", "cell1", connection=connection)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"] == "Several cells are named cell1."
    assert site.locks == []


def test_a_cell_that_does_not_come_right_is_a_failure(site):
    site.stubs["map_cell0"].side_effect = None
    ret = site.state("cell0_mapped", "cell0")
    assert ret["result"] is (None if site.testmode else False)
    if not site.testmode:
        assert ret["changes"] == {}
        assert "still differs" in ret["comment"]


def test_a_cell_of_its_own_database_and_messaging_is_created_disabled(site):
    own = {"database": {"name": "nova_cell2"}, "messaging": {"vhost": "cell2"}}
    ret = site.state("present", "cell2", disabled=True, **own)
    assert ret["changes"] == {"cell2": {"old": None, "new": "created"}}
    if not site.testmode:
        assert site.nova.rows[UUID] == {
            "name": "cell2",
            "disabled": True,
            "transport_url": TEMPLATE + "cell2",
            "database_connection": TEMPLATE + "nova_cell2",
        }


def row(name, **more):
    urls = dict.fromkeys(("transport_url", "database_connection"), TEMPLATE + "{path}")
    return {"name": name, "disabled": False, **urls, **more}


@pytest.mark.parametrize("wanted", [True, False, None])
def test_a_cell_is_disabled_and_enabled_where_it_is_asked_for(site, wanted):
    site.nova.rows[UUID] = row("cell1", disabled=wanted is False)
    ret = site.state("present", "cell1", disabled=wanted)
    if wanted is None:
        assert (ret["result"], ret["changes"]) == (True, {})
    else:
        assert ret["changes"] == {"cell1 disabled": {"old": not wanted, "new": wanted}}
        assert site.nova.rows[UUID]["disabled"] is (not wanted if site.testmode else wanted)


def test_a_cell_is_renamed_once(site):
    site.nova.rows[UUID] = row("old")
    ret = site.state("present", "cell1", renamed_from="old")
    assert ret["changes"] == {"cell1 name": {"old": "old", "new": "cell1"}}
    if not site.testmode:
        again = site.state("present", "cell1", renamed_from="old")
        assert (again["result"], again["changes"]) == (True, {})
        assert site.nova.calls == ["update_cell"]


def test_a_cell_is_deleted_once(site):
    site.nova.rows[UUID] = row("cell1")
    ret = site.state("absent", "cell1", site_lock={"name": "shanghai"})
    assert ret["changes"] == {"cell1": {"old": "present", "new": None}}
    assert ret["result"] is (None if site.testmode else True)
    if not site.testmode:
        again = site.state("absent", "cell1")
        assert (again["result"], again["changes"]) == (True, {})
        assert (site.nova.calls, site.locks) == (["delete_cell"], ["shanghai"])


def test_a_cell_with_hosts_is_not_deleted_and_they_are_named(site):
    site.nova.rows[UUID], site.nova.mapped = row("cell1"), {"cmp1"}
    ret = site.state("absent", "cell1")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "has hosts: cmp1" in ret["comment"]
    assert site.nova.calls == []


def test_a_cell_that_nova_manage_refuses_to_delete_is_a_failure(site):
    site.nova.rows[UUID] = row("cell1")
    site.stubs["delete_cell"].side_effect = failure(3, "instances live in it")
    ret = site.state("absent", "cell1")
    if not site.testmode:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert ret["comment"] == "instances live in it"


def test_a_host_is_unmapped_once(site):
    site.nova.mapped = {"cmp1", "cmp2"}
    ret = site.state("host_absent", "cmp1")
    assert ret["changes"] == {"host cmp1": {"old": "present", "new": None}}
    assert (ret["name"], ret["result"]) == ("cmp1", None if site.testmode else True)
    assert site.nova.mapped == ({"cmp1", "cmp2"} if site.testmode else {"cmp2"})


# ---- hosts -------------------------------------------------------------------------------------


def mapped(*hosts):
    return {f"host {host}": {"old": None, "new": "mapped"} for host in hosts}


def test_hosts_that_are_mapped_need_nothing_and_the_down_one_is_named(site):
    site.nova.mapped, site.nova.services = {"cmp1", "cmp2"}, {"cmp1": True, "cmp2": False}
    ret = site.state("hosts_discovered", "site", expected=["cmp1", "cmp2"])
    assert (ret["result"], ret["changes"]) == (True, {})
    assert ret["comment"].endswith("Known but down: cmp2.")
    assert (site.nova.calls, site.locks) == ([], [])


def test_registered_hosts_are_mapped_by_one_discovery(site):
    site.nova.services = {"cmp1": True, "cmp2": True, "unexpected": True}
    ret = site.state("hosts_discovered", "site", expected=["cmp1"], site_lock={"name": "x"})
    assert ret["changes"] == mapped("cmp1", "cmp2", "unexpected")
    if site.testmode:
        assert (ret["result"], site.nova.calls) == (None, [])
    else:
        assert ret["result"] is True
        assert site.nova.calls == ["discover_hosts by_service=False"]
        assert site.locks == ["x"]


def test_a_host_whose_mapping_was_lost_is_found_by_its_service(site):
    site.nova.services = {"cmp1": True, "cmp2": True}
    site.nova.mapped, site.nova.flagged = {"cmp1"}, {"cmp2"}
    ret = site.state("hosts_discovered", "site", expected=["cmp1", "cmp2"])
    assert ret["changes"] == mapped("cmp2")
    if not site.testmode:
        assert site.nova.calls == [
            "discover_hosts by_service=False",
            "discover_hosts by_service=True",
        ]


def test_it_waits_without_the_lock_until_the_expected_hosts_register(site, time_flies):
    def register():
        if len(site.sleeps) == 3:
            site.nova.services = {"cmp1": True, "cmp2": True}

    site.meanwhile = register
    ret = site.state("hosts_discovered", "site", expected=["cmp1", "cmp2"], interval=3)
    assert ret["changes"] == mapped("cmp1", "cmp2")
    if site.testmode:
        assert (ret["result"], site.sleeps) == (None, [])
    else:
        assert (ret["result"], site.sleeps) == (True, [3, 3, 3])


def test_hosts_that_never_come_are_named_after_the_others_are_mapped(site, time_flies):
    site.nova.mapped, site.nova.services = {"cmp1"}, {"cmp1": False, "cmp2": True}
    ret = site.state(
        "hosts_discovered",
        "site",
        expected=["cmp1", "cmp2", "cmp3", "cmp4"],
        timeout=10,
        interval=4,
    )
    if site.testmode:
        assert ret["result"] is None
        assert ret["changes"] == mapped("cmp2", "cmp3", "cmp4")
    else:
        assert ret["result"] is False
        assert "Within 10 s no nova-compute registered as cmp3, cmp4 (" in ret["comment"]
        assert ret["changes"] == mapped("cmp2")
        assert site.sleeps == [4, 4, 2]


def test_a_discovery_that_collides_with_the_scheduler_s_is_looked_at_again(site):
    site.nova.services = {"cmp1": True}

    def collide(by_service=False, timeout=300, held=None):
        site.nova.mapped = {"cmp1"}
        raise failure(2, "duplicate")

    site.stubs["discover_hosts"].side_effect = collide
    ret = site.state("hosts_discovered", "site", expected=["cmp1"])
    assert ret["changes"] == mapped("cmp1")
    assert ret["result"] is (None if site.testmode else True)


def test_a_failed_discovery_is_one_sentence(site):
    site.nova.services = {"cmp1": True}
    site.stubs["discover_hosts"].side_effect = failure(255, "nova-manage failed.")
    ret = site.state("hosts_discovered", "site", expected=["cmp1"])
    assert ret["result"] is (None if site.testmode else False)
    if not site.testmode:
        assert (ret["comment"], ret["changes"]) == ("nova-manage failed.", {})


def test_a_bare_host_predicts_the_expected_hosts(site):
    site.nova.error = failure(1045, "Access denied.")
    ret = site.state("hosts_discovered", "site", expected=["cmp2", "cmp1"])
    if site.testmode:
        assert (ret["result"], ret["changes"]) == (None, mapped("cmp1", "cmp2"))
    else:
        assert (ret["result"], ret["comment"]) == (False, "Access denied.")


@pytest.fixture
def versions(opts, testmode):
    """nova_cell.recorded, and what nova_manage.cell_versions answers."""
    opts["test"] = testmode
    _, modules, states = load(opts)
    mock = stub(modules, "nova_manage.cell_versions", return_value={UUID: "aa"})
    states.inject_globals["__running__"] = running = {}
    return states["nova_cell.recorded"], mock, running


def test_a_written_cell_is_recorded_so_that_daemons_restart(versions, tmp_path, testmode):
    recorded, mock, _ = versions
    path = tmp_path / "cells.json"
    ret = recorded(str(path))
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {"cells": {"old": None, "new": {UUID: "aa"}}}
    assert path.exists() is not testmode
    path.write_text(json.dumps({UUID: "aa"}))
    assert recorded(str(path))["changes"] == {}
    mock.return_value = {UUID: "bb"}
    assert recorded(str(path))["changes"] == {"cells": {"old": {UUID: "aa"}, "new": {UUID: "bb"}}}


def test_a_cell_that_the_run_would_change_is_predicted_to_be_recorded(versions, tmp_path, testmode):
    recorded, _, running = versions
    path = tmp_path / "cells.json"
    path.write_text(json.dumps({UUID: "aa"}))
    running["nova_cell_|-x_|-cell1_|-present"] = {"changes": {"cell1 transport_url": {}}}
    assert bool(recorded(str(path))["changes"]) is testmode


def test_a_half_written_record_is_written_again(versions, tmp_path, testmode):
    recorded, _, _ = versions
    path = tmp_path / "cells.json"
    path.write_text('{"')
    assert recorded(str(path))["changes"]["cells"]["old"] is None


def test_discovery_is_predicted_where_a_cell_s_url_is_to_be_repaired(opts):
    opts["test"] = True
    _, modules, states = load(opts)
    stub(modules, "nova_manage.list_hosts", return_value=[{"host": "cmp1", "cell_uuid": UUID}])
    stub(modules, "nova_manage.compute_services", side_effect=failure(2003))
    discovered = states["nova_cell.hosts_discovered"]
    assert discovered("x", expected=["cmp1"])["result"] is True
    assert discovered("x", expected=["cmp1", "cmp2"])["result"] is None


def test_a_running_cell_gets_no_account_that_does_not_work(site):
    site.nova.rows[UUID] = {
        "name": "cell2",
        "transport_url": TEMPLATE + "cell2",
        "database_connection": "mysql://***@old/nova",
    }
    site.fault.return_value = "The server refuses."
    ret = site.state("present", "cell2", messaging={"vhost": "cell2"})
    assert "update_cell" not in site.nova.calls
    if not site.testmode:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert ret["comment"] == "The cell cell2 stays as it is. The server refuses."
        ((urls, where),) = [call.args for call in site.fault.call_args_list]
        # Only what is new is tried.
        assert (urls, where) == ({"database_connection": TEMPLATE + "{path}"}, "the cell cell2")


def test_the_accounts_of_a_cell_are_tried_and_nothing_is_changed(site):
    ret = site.state("accounts_work", "cell2", {"name": "nova_cell2"}, {"vhost": "cell2"})
    assert (ret["result"], ret["changes"], site.nova.calls) == (True, {}, [])
    (urls, _) = site.fault.call_args.args
    tried = {"transport_url"} if site.testmode else {"transport_url", "database_connection"}
    assert urls.keys() == tried
    site.fault.return_value = "RabbitMQ refuses."
    ret = site.state("accounts_work", "cell2", {"name": "nova_cell2"}, {"vhost": "cell2"})
    assert (ret["result"], ret["comment"]) == (False, "RabbitMQ refuses.")
