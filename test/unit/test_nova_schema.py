"""Schemas: looked at first, brought up once under the lock, and never downgraded."""

import contextlib
import json
from types import SimpleNamespace

import pytest
from conftest import load
from salt.exceptions import CommandExecutionError
from stub import stub

ADMIN = {"host": "db", "user": "root", "password": "x"}
REVISIONS = ["401", "aaa", "bbb"]
STATES = {
    "api_db_synced": ("nova_api", "api_db_sync", ["api"], ["nova_api"]),
    "db_synced": ("nova", "db_sync", ["cell0", "main"], ["nova_cell0", "nova"]),
    "placement_db_synced": ("placement", "placement_db_sync", ["placement"], ["placement"]),
}


def failure(info, text="no"):
    exc = CommandExecutionError(text)
    exc.info = info
    return exc


@pytest.fixture
def site(opts, testmode):
    """Versions of databases, code, a nova-manage that syncs, and a lock that counts."""
    opts["test"] = testmode
    utils, modules, states = load(opts)
    site = SimpleNamespace(
        versions=dict.fromkeys(["api", "main", "cell0", "placement"], "bbb"),
        preview={},
        revisions=REVISIONS,
        locks=[],
        others=lambda: None,
        testmode=testmode,
        held=object(),
    )

    @contextlib.contextmanager
    def lock(name, timeout=900, config=""):
        site.locks.append((name, timeout))
        site.others()
        yield site.held

    def version(which, connection=None):
        found = site.preview[connection["database"]] if connection else site.versions[which]
        if isinstance(found, Exception):
            raise found
        return found

    def sync(*which):
        def run(timeout=900, held=None, cell=None):
            assert held is site.held
            site.versions.update(dict.fromkeys(which, "bbb"))
            return True

        return run

    stub(utils, "nova_db.lock", side_effect=lock)
    stub(modules, "nova_manage.schema_version", side_effect=version)
    stub(modules, "nova_manage.schema_revisions", side_effect=lambda which: site.revisions)
    site.syncs = {
        name: stub(modules, f"nova_manage.{name}", side_effect=sync(*which))
        for _, name, which, _ in STATES.values()
    }
    site.find = stub(modules, "nova_manage.find_cell")
    stub(modules, "nova_manage.code_and_schema", return_value={"api code": "bbb"})
    site.migrate = stub(
        modules,
        "nova_upkeep.online_data_migrations",
        return_value={"outcome": "done", "migrated": {"a": 3, "b": 4}},
    )
    site.rows = [12]
    site.look = stub(
        modules, "nova_upkeep.placement_to_move", side_effect=lambda *a, **k: site.rows[0]
    )
    site.copy = stub(
        modules, "nova_upkeep.copy_placement", side_effect=lambda *a, **k: site.rows.insert(0, 0)
    )
    site.act = stub(modules, "nova_unit.act")
    site.answer = stub(modules, "nova_unit.http_answer", return_value={"status": None})
    site.state = lambda function, *a, **k: states[f"nova_schema.{function}"](*a, **k)
    return site


@pytest.mark.parametrize("function", STATES)
def test_a_current_schema_takes_no_lock_and_runs_nothing(site, function):
    name, sync, *_ = STATES[function]
    ret = site.state(function, name)
    assert (ret["result"], ret["changes"]) == (True, {})
    assert site.locks == []
    site.syncs[sync].assert_not_called()


@pytest.mark.parametrize("old", [None, "401", "aaa"])
@pytest.mark.parametrize("function", STATES)
def test_a_schema_that_is_due_is_brought_up_under_the_lock(site, function, old):
    name, sync, which, databases = STATES[function]
    site.versions.update(dict.fromkeys(which, old))
    ret = site.state(function, name, site_lock={"name": "shanghai", "timeout": 5})
    assert ret["changes"] == {f"{d} schema": {"old": old, "new": "bbb"} for d in databases}
    if site.testmode:
        assert ret["result"] is None
        assert site.locks == []
        site.syncs[sync].assert_not_called()
    else:
        assert ret["result"] is True
        assert site.locks == [("shanghai", 5)]
        site.syncs[sync].assert_called_once()
        again = site.state(function, name)
        assert (again["result"], again["changes"]) == (True, {})


def test_only_the_database_that_is_behind_is_a_change(site):
    site.versions["cell0"] = "aaa"
    ret = site.state("db_synced", "nova", cell0="nova_cell_zero")
    assert ret["changes"] == {"nova_cell_zero schema": {"old": "aaa", "new": "bbb"}}


def test_what_another_controller_did_meanwhile_is_not_done_again(site):
    site.versions["api"] = None
    site.others = lambda: site.versions.update(api="bbb")
    ret = site.state("api_db_synced", "nova_api")
    site.syncs["api_db_sync"].assert_not_called()
    if site.testmode:
        assert ret["result"] is None
    else:
        assert (ret["result"], ret["changes"]) == (True, {})
        assert "another controller" in ret["comment"]


def test_a_schema_that_the_code_does_not_know_is_left_alone(site):
    site.versions["main"] = "newer"
    ret = site.state("db_synced", "nova")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "schema of nova is at newer" in ret["comment"]
    assert site.locks == []


def test_a_failed_sync_reports_what_it_did_before_it_failed(site):
    site.versions.update(main=None, cell0=None)

    def sync(timeout=900, held=None, cell=None):
        site.versions["cell0"] = "bbb"
        raise failure(255, "nova-manage db sync failed.")

    site.syncs["db_sync"].side_effect = sync
    ret = site.state("db_synced", "nova")
    if site.testmode:
        assert set(ret["changes"]) == {"nova_cell0 schema", "nova schema"}
    else:
        assert (ret["result"], ret["comment"]) == (False, "nova-manage db sync failed.")
        assert ret["changes"] == {"nova_cell0 schema": {"old": None, "new": "bbb"}}


def test_a_sync_that_ends_well_and_did_nothing_is_a_failure(site):
    site.versions["cell0"] = None
    site.syncs["db_sync"].side_effect = None
    ret = site.state("db_synced", "nova")
    assert ret["result"] is (None if site.testmode else False)
    if not site.testmode:
        assert ret["changes"] == {}
        assert "still due: nova_cell0 schema" in ret["comment"]


@pytest.mark.parametrize("info", [None, "absent", 1044, 1045, 1049, 1130])
def test_what_is_not_there_yet_is_predicted_in_test_mode_and_else_a_failure(site, info):
    site.versions["cell0"] = failure(info, "Not there.")
    site.revisions = []
    site.versions["main"] = failure(info, "Not there.")
    ret = site.state("db_synced", "nova")
    if site.testmode:
        head = {"old": None, "new": "head of the installed code"}
        assert ret["result"] is None
        assert ret["changes"] == {"nova_cell0 schema": head, "nova schema": head}
    else:
        assert (ret["result"], ret["changes"]) == (False, {})


def test_a_server_that_cannot_be_reached_is_a_failure_in_test_mode_too(site):
    site.versions["api"] = failure(2003, "Cannot reach db.")
    ret = site.state("api_db_synced", "nova_api", connection=ADMIN)
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "Cannot reach db.")


@pytest.mark.parametrize(
    ("there", "predicted"),
    [("bbb", False), (None, True), (failure(1049), True), (failure(None), True)],
)
def test_the_administrator_sees_the_site_from_a_bare_controller(site, there, predicted):
    site.versions["api"] = failure(None, "There is no nova.conf.")
    site.preview["nova_api"] = there
    ret = site.state("api_db_synced", "nova_api", connection=ADMIN)
    if not site.testmode:
        assert (ret["result"], ret["comment"]) == (False, "There is no nova.conf.")
    elif predicted:
        assert ret["result"] is None
    else:
        assert (ret["result"], ret["changes"]) == (True, {})


def test_another_cell_s_schema_is_brought_up_alone(site):
    uuid = "5b4a4f0c-0000-4000-8000-000000000001"
    site.versions[uuid] = "aaa"
    site.find.return_value = {"uuid": uuid}

    def sync(timeout=900, held=None, cell=None):
        site.versions[cell] = "bbb"

    site.syncs["db_sync"].side_effect = sync
    ret = site.state("cell_db_synced", "cell2")
    assert ret["changes"] == {"nova_cell2 schema": {"old": "aaa", "new": "bbb"}}
    assert ret["result"] is (None if site.testmode else True)


@pytest.mark.parametrize("error", [None, failure(1146), failure(None)])
def test_a_cell_that_is_not_there_yet_is_predicted_and_else_a_failure(site, error):
    site.find.return_value, site.find.side_effect = None, error
    ret = site.state("cell_db_synced", "cell2", database="other")
    if site.testmode:
        head = {"old": None, "new": "head of the installed code"}
        assert (ret["result"], ret["changes"]) == (None, {"other schema": head})
    else:
        assert (ret["result"], ret["changes"]) == (False, {})


def test_rows_are_migrated_once_for_a_code_and_schema(site, tmp_path):
    stamp = tmp_path / "stamp"
    ret = site.state("data_migrated", "x", str(stamp), site_lock={"name": "shanghai"})
    change = {"rows migrated for": {"old": None, "new": {"api code": "bbb"}}}
    assert ret["changes"] == change
    if site.testmode:
        assert (ret["result"], site.locks, stamp.exists()) == (None, [], False)
        return
    assert (ret["result"], ret["comment"]) == (True, "7 rows were migrated.")
    assert json.loads(stamp.read_text()) == {"api code": "bbb"}
    again = site.state("data_migrated", "x", str(stamp))
    assert (again["result"], again["changes"], len(site.locks)) == (True, {}, 1)


@pytest.mark.parametrize(
    ("answer", "comment"),
    [
        ({"outcome": "more", "migrated": {"a": 7}}, "more are left"),
        (failure(2, "It failed."), "It f"),
    ],
)
def test_rows_that_are_left_are_a_failure_and_not_remembered(site, tmp_path, answer, comment):
    site.migrate.side_effect = [answer]
    ret = site.state("data_migrated", "x", str(tmp_path / "stamp"))
    if not site.testmode:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert comment in ret["comment"]
        assert not (tmp_path / "stamp").exists()


MOVED = {"source": "nova_api", "silent": ["http://ctl1:8778/", "http://ctl2:8778/"]}


@pytest.fixture
def web(tmp_path):
    """The sites of the old Placement and of the new one."""
    sites = [tmp_path / "old.conf", tmp_path / "new.conf"]
    for path in sites:
        path.touch()
    return [str(path) for path in sites]


def test_the_old_placement_is_silent_before_its_rows_are_moved(site, web):
    order = []
    site.act.side_effect = lambda *a, **k: order.append(a)
    site.answer.side_effect = lambda url: order.append(url) or {"status": None}
    site.others = lambda: order.append("lock")
    ret = site.state("placement_moved", "placement", sites=web, site_lock={"name": "s"}, **MOVED)
    assert ret["changes"] == {
        **{path: {"old": "present", "new": None} for path in web},
        "placement rows": {"old": 0, "new": 12},
    }
    if site.testmode:
        assert (ret["result"], order, site.copy.call_count) == (None, [], 0)
        return
    assert ret["result"] is True
    assert order == [("reload", "httpd"), *MOVED["silent"], "lock"]
    assert site.copy.call_args.kwargs["held"] is site.held
    again = site.state("placement_moved", "placement", sites=web, **MOVED)
    assert (again["result"], again["changes"]) == (True, {})


def test_the_old_site_goes_where_another_controller_has_moved_the_rows(site, web):
    site.rows = [0]
    ret = site.state("placement_moved", "placement", sites=web, **MOVED)
    assert ret["changes"] == {web[0]: {"old": "present", "new": None}}
    assert ret["result"] is (None if site.testmode else True)
    site.copy.assert_not_called()
    assert site.locks == []


def test_rows_are_not_moved_while_a_placement_answers(site):
    site.answer.side_effect = lambda url: {"status": 401 if "ctl2" in url else None}
    ret = site.state("placement_moved", "placement", timeout=0, **MOVED)
    if site.testmode:
        assert ret["result"] is None
        return
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "http://ctl2:8778/ still answers" in ret["comment"]
    site.copy.assert_not_called()
    # It is the new one of a controller that was quicker.
    site.rows[:] = [12, 0]
    site.look.side_effect = lambda *a, **k: site.rows.pop(0) if site.rows else 0
    ret = site.state("placement_moved", "placement", timeout=0, **MOVED)
    assert (ret["result"], ret["changes"]) == (True, {})
    site.copy.assert_not_called()


def test_what_the_server_refuses_is_the_sentence_of_the_state(site):
    site.look.side_effect = failure(1049, "Drop the database.")
    ret = site.state("placement_moved", "placement", **MOVED)
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "Drop the database.")
