"""What breaks on the way: each ends in one sentence, and the next run converges."""

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from controller import (
    API,
    CELL0_DB,
    INSTANCE,
    LOCK,
    MAIN,
    PLACEMENT,
    STATES,
    needs_nova,
)

pytestmark = needs_nova

SYNCS = {
    "api": (0, API, ["nova-manage", "api_db", "sync"]),
    "cell0": (3, CELL0_DB, ["nova-manage", "db", "sync"]),
    "main": (3, MAIN, ["nova-manage", "db", "sync", "--local_cell"]),
    "placement": (4, PLACEMENT, ["placement-manage", "db", "sync"]),
}


@pytest.fixture(scope="module")
def site(bench):
    bench.prepare()
    return bench


def empty(site, which):
    """The database of a schema, new; what comes before it is there."""
    for function, args, kwargs in STATES[: SYNCS[which][0]]:
        site.done(function, *args, **kwargs)
    if which == "main":
        site.done(*STATES[3][:1], *STATES[3][1], **STATES[3][2])
    database = SYNCS[which][1]
    site.done("nova_database.absent", database, connection=site.admin)
    site.done("nova_database.present", database, connection=site.admin)


def job(site, function, args, kwargs):
    site.load()  # connections of its own
    site.state(function, *args, **kwargs)


def start(site, which):
    """The state that syncs a schema, in a job of its own."""
    function, args, kwargs = STATES[SYNCS[which][0]]
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=job, args=(site, function, args, {**kwargs, "site_lock": LOCK}))
    process.start()
    return process


def until_tables(site, which, count):
    deadline = time.monotonic() + 60
    while site.tables(SYNCS[which][1]) < count:
        assert time.monotonic() < deadline
    assert site.tables(SYNCS[which][1]) >= count


def synced(site, which, predicted=True):
    index, *_ = SYNCS[which]
    function, args, kwargs = STATES[index]
    if predicted:
        return site.predicted_and_done(function, *args, **kwargs, site_lock=LOCK)
    return site.state(function, *args, **kwargs, site_lock=LOCK)


def program(which):
    args = SYNCS[which][2]
    user = args[0].partition("-")[0]
    return subprocess.run(
        args, user=user, group=user, extra_groups=[], cwd="/", check=False, capture_output=True
    ).returncode


@pytest.mark.parametrize("which", SYNCS)
def test_a_sync_killed_in_its_first_migration_is_mended_by_the_next_run(site, which):
    empty(site, which)
    process = start(site, which)
    until_tables(site, which, 5)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    left = site.tables(SYNCS[which][1])
    assert left >= 5
    assert program(which) != 0, "the trap is gone: the program mends it by itself"
    synced(site, which)
    assert site.tables(SYNCS[which][1]) > left


def test_a_cut_off_sync_whose_tables_hold_rows_is_left_to_a_person(site):
    empty(site, "main")
    process = start(site, "main")
    until_tables(site, "main", 40)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    head = "INSERT INTO quota_classes (class_name, resource, hard_limit) VALUES ('x', 'y', 1)"
    tables = {
        row["t"]
        for row in site.sql(
            "SELECT table_name AS t FROM information_schema.tables WHERE table_schema = %s", MAIN
        )
    }
    assert "quota_classes" in tables or "instances" in tables
    name, statement = (
        ("quota_classes", head) if "quota_classes" in tables else ("instances", INSTANCE)
    )
    site.sql(statement, database=MAIN)
    count = site.tables(MAIN)
    ret = synced(site, "main", predicted=False)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert f"for {name} holds rows: restore the database" in ret["comment"]
    assert site.tables(MAIN) == count
    site.sql(f"DELETE FROM {name}", database=MAIN)
    site.sql("CREATE TABLE somebody_s (id INT)", database=MAIN)
    ret = synced(site, "main", predicted=False)
    assert "somebody_s is none of nova's tables" in ret["comment"]
    assert site.tables(MAIN) == count + 1
    site.sql("DROP TABLE somebody_s", database=MAIN)
    with pytest.raises(Exception, match="this call holds no lock"):
        site.modules["nova_manage.db_sync"]()
    synced(site, "main")


def test_a_sync_that_another_program_kills_is_said_so(site):
    empty(site, "main")

    def kill() -> None:
        until_tables(Watcher(site), "main", 10)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                mine = b"nova-manage\0db\0sync" in path.read_bytes()
            except OSError:
                continue
            if mine:
                os.kill(int(path.parent.name), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    ret = synced(site, "main", predicted=False)
    killer.join()
    assert ret["result"] is False
    assert "failed with signal 9: another program killed it" in ret["comment"]
    synced(site, "main")


class Watcher:
    """A look at the server from another thread."""

    def __init__(self, site):
        self.bench = type(site)(site.etc)
        self.tables = self.bench.tables


def one_sentence(ret):
    assert (ret["result"], ret["changes"]) == (False, {}), ret
    assert "\n" not in ret["comment"]
    assert "Traceback" not in ret["comment"]
    return ret["comment"]


def test_a_server_whose_connections_die_in_the_middle(site):
    empty(site, "api")

    def kill() -> None:
        watcher = Watcher(site)
        until_tables(watcher, "api", 5)
        watcher.bench.kill_connections()

    killer = threading.Thread(target=kill)
    killer.start()
    ret = synced(site, "api", predicted=False)
    killer.join()
    comment = one_sentence(ret)
    assert "Lost connection" in comment or "went away" in comment or "gone away" in comment
    synced(site, "api")


def test_a_server_that_is_read_only(site):
    for which in ("api", "main"):
        empty(site, which)
        site.sql("SET GLOBAL read_only = 1")
        try:
            comment = one_sentence(synced(site, which, predicted=False))
            assert "read-only" in comment
        finally:
            site.sql("SET GLOBAL read_only = 0")
        synced(site, which)
    site.sql("DELETE FROM cell_mappings WHERE name = 'cell1'", database=API)
    site.sql("SET GLOBAL read_only = 1")
    try:
        comment = one_sentence(site.state("nova_cell.present", "cell1", site_lock=LOCK))
        assert "read-only" in comment
    finally:
        site.sql("SET GLOBAL read_only = 0")
    site.predicted_and_done("nova_cell.present", "cell1", site_lock=LOCK)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [(lambda url: url.replace("127.0.0.1:", "127.0.0.1:1"), "Cannot log in"), (None, "sqlite")],
    ids=["refused", "the package's own nova.conf"],
)
def test_a_server_that_refuses(site, wrong, named):
    conf = site.etc / "nova/nova.conf"
    before = conf.read_text()
    where = f"@{site.admin['host']}:{site.admin['port']}/"
    if wrong:
        conf.write_text(before.replace(where, f"@{site.admin['host']}:1/"))
    else:
        conf.write_text("[database]\nconnection = sqlite:////var/lib/nova/novadb\n")
    try:
        for function, args, kwargs in STATES[:4]:
            comment = one_sentence(site.state(function, *args, site_lock=LOCK, **kwargs))
            assert ("127.0.0.1:1 " if wrong else "apply nova.controller.config") in comment
    finally:
        conf.write_text(before)
    site.load()
    for function, args, kwargs in STATES[:4]:
        site.done(function, *args, site_lock=LOCK, **kwargs)
