"""Schema, cells and hosts on a real server with the real nova-manage: see controller.py."""

import json
import multiprocessing
import os
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from controller import (
    ADMIN,
    API,
    CELL0,
    CELL0_DB,
    CELL2,
    INSTANCE,
    LOCK,
    MAIN,
    PASSWORDS,
    PLACEMENT,
    STATES,
    USER,
    Bench,
    needs_nova,
)
from salt.exceptions import CommandExecutionError

pytestmark = needs_nova


@pytest.mark.parametrize(("function", "args", "kwargs"), STATES, ids=[s[0] for s in STATES])
def test_on_a_bare_host_each_state_predicts_and_does_not_fail(bench, function, args, kwargs):
    for extra in ({}, {"connection": bench.admin}):
        ret = bench.state(function, *args, test=True, **kwargs, **extra)
        assert ret["result"] is None, ret["comment"]
        assert ret["changes"]


def test_the_schema_and_the_cells_are_made_in_nova_s_order(bench):
    bench.prepare()
    bench.predicted_and_done("nova_schema.api_db_synced", API, site_lock=LOCK)
    done = bench.predicted_and_done("nova_cell.cell0_mapped", "cell0", CELL0_DB, site_lock=LOCK)
    assert done["changes"] == {"cell0": {"old": None, "new": "created"}}
    bench.predicted_and_done("nova_cell.present", "cell1", site_lock=LOCK)
    bench.predicted_and_done("nova_schema.db_synced", MAIN, cell0=CELL0_DB, site_lock=LOCK)
    bench.predicted_and_done("nova_schema.placement_db_synced", PLACEMENT, site_lock=LOCK)
    cell0, cell1 = bench.cells()
    template = "{scheme}://{username}:{password}@{hostname}:{port}/"
    assert cell0["database_connection"] == template + CELL0_DB + "?{query}"
    assert cell0["transport_url"] == "none:///"
    assert cell1["database_connection"] == template + "{path}?{query}"
    assert cell1["transport_url"] == template + "{path}?{query}"
    assert bench.modules["nova_manage.schema_version"]("cell0") == bench.modules[
        "nova_manage.schema_head"
    ]("main")


def test_the_versions_agree_with_the_programs(bench):
    for which, args in (
        ("api", ["nova-manage", "api_db", "version"]),
        ("main", ["nova-manage", "db", "version"]),
        ("placement", ["placement-manage", "db", "version"]),
    ):
        out = subprocess.run(args, check=True, capture_output=True, text=True).stdout
        assert bench.modules["nova_manage.schema_version"](which) == out.split()[-1]


def test_a_schema_that_the_code_does_not_know_is_left_alone(bench):
    bench.sql("UPDATE alembic_version SET version_num = 'fffffffffff1'", database=API)
    for test in (True, False):
        ret = bench.state("nova_schema.api_db_synced", API, test=test)
        assert (ret["result"], ret["changes"]) == (False, {})
        assert "fffffffffff1" in ret["comment"]
    head = bench.modules["nova_manage.schema_head"]("api")
    bench.sql("UPDATE alembic_version SET version_num = %s", head, database=API)


def test_trap_1_templates_repeated_make_no_second_cell(bench):
    url = bench.modules["nova_manage.database_template"]()
    transport = bench.modules["nova_manage.transport_template"]()
    arguments = ["--name=cell1", f"--database_connection={url}", f"--transport-url={transport}"]
    assert bench.nova_manage("cell_v2", "create_cell", *arguments) == 0
    try:
        uuids = [row["uuid"] for row in bench.cells() if row["name"] == "cell1"]
        assert len(uuids) == 2, "the trap is gone: nova-manage refused"
        for test in (True, False):
            ret = bench.state("nova_cell.present", "cell1", test=test)
            assert (ret["result"], ret["changes"]) == (False, {})
            assert all(uuid in ret["comment"] for uuid in uuids)
    finally:
        bench.modules["nova_manage.delete_cell"](uuids[1])
    for name in ("cell1", "other"):
        with pytest.raises(Exception, match="cell1"):
            bench.modules["nova_manage.create_cell"](name)


def the(bench, name):
    (found,) = [row for row in bench.cells() if row["name"] == name]
    return found


def literal(password, database, host=None):
    url = urlsplit(ADMIN)
    where = host or f"{url.hostname}:{url.port}"
    return f"mysql+pymysql://{USER}:{quote(password, safe='')}@{where}/{database}?charset=utf8"


def set_cell(bench, uuid, transport, database):
    bench.sql(
        "UPDATE cell_mappings SET transport_url = %s, database_connection = %s WHERE uuid = %s",
        transport,
        database,
        uuid,
        database=API,
    )


def test_trap_2_rotated_literal_urls_make_no_second_cell_and_leave_no_stale_one(bench):
    uuid, works = the(bench, "cell1")["uuid"], bench.rabbit
    stale = works.replace(urlsplit(works).password, "old")
    new = [f"--transport-url={works}", f"--database_connection={literal('n', MAIN)}"]
    set_cell(bench, uuid, stale, literal("n", MAIN))
    assert bench.nova_manage("cell_v2", "create_cell", "--name=cell1", *new) == 2
    set_cell(bench, uuid, stale, literal("old", MAIN))
    assert bench.nova_manage("cell_v2", "create_cell", "--name=cell1", *new) == 0
    second = bench.cells()[2]
    assert second["name"] == "cell1", "the trap is gone: nova-manage made no second cell"
    bench.modules["nova_manage.delete_cell"](second["uuid"])

    wanted = {"transport_url": works, "database_connection": literal(bench.password, MAIN)}
    for transport in (stale, works):  # both rotated, or the database's alone
        set_cell(bench, uuid, transport, literal("old", MAIN))
        done = bench.predicted_and_done("nova_cell.present", "cell1", site_lock=LOCK, **wanted)
        assert len(done["changes"]) == (2 if transport == stale else 1)
        assert "old@" not in json.dumps(done)
        assert [row["uuid"] for row in bench.cells()] == [CELL0, uuid]
    assert the(bench, "cell1")["database_connection"] == wanted["database_connection"]
    bench.predicted_and_done("nova_cell.present", "cell1", site_lock=LOCK)


def test_a_literal_url_that_is_written_another_way_is_left_alone(bench):
    uuid = the(bench, "cell1")["uuid"]
    url = urlsplit(ADMIN)
    database = literal("a/b", MAIN) + "&ssl_ca=/x"
    set_cell(bench, uuid, "rabbit://u:%2f@A:5672,v:q@b/x?b=1&a=2", database)
    ret = bench.state(
        "nova_cell.present",
        "cell1",
        transport_url="rabbit://v:q@b:5672,u:%2F@a:5672/%78?a=2&b=1",
        database_connection=f"mysql+pymysql://{USER}:%61%2fb@{url.hostname}:{url.port}/{MAIN}"
        "?ssl_ca=%2Fx&charset=utf8",
    )
    assert (ret["result"], ret["changes"]) == (True, {})
    bench.predicted_and_done("nova_cell.present", "cell1", site_lock=LOCK)


def test_trap_3_cell0_keeps_an_encoded_password(bench):
    # nova-manage decodes what nova.conf has, here where it is literal: a password with %.
    bench.sql("DELETE FROM cell_mappings WHERE uuid = %s", CELL0, database=API)
    assert bench.nova_manage("cell_v2", "map_cell0") == 0
    row = next(row for row in bench.cells() if row["uuid"] == CELL0)
    assert quote(bench.password, safe="") not in row["database_connection"], "the trap is gone"
    # It ignores another URL for a cell0 that is mapped.
    template = bench.modules["nova_manage.database_template"](CELL0_DB)
    assert bench.nova_manage("cell_v2", "map_cell0", "--database_connection", template) == 0
    assert row in bench.cells()
    done = bench.predicted_and_done("nova_cell.cell0_mapped", "cell0", CELL0_DB, site_lock=LOCK)
    assert set(done["changes"]) == {"cell0 database_connection"}
    assert bench.modules["nova_manage.schema_version"]("cell0")


def test_trap_4_cell0_is_not_pulled_to_the_main_database(bench):
    # It refuses while another cell has these URLs, which is luck.
    update = ["cell_v2", "update_cell", f"--cell_uuid={CELL0}", "--name=cell0"]
    assert bench.nova_manage(*update) == 3
    uuid = the(bench, "cell1")["uuid"]
    set_cell(bench, uuid, "rabbit://u:p@elsewhere:5672/", literal("old", "elsewhere"))
    assert bench.nova_manage(*update) == 0
    row = next(row for row in bench.cells() if row["uuid"] == CELL0)
    assert f"/{MAIN}" in row["database_connection"], "the trap is gone"
    done = bench.predicted_and_done("nova_cell.cell0_mapped", "cell0", CELL0_DB, site_lock=LOCK)
    assert set(done["changes"]) == {"cell0 transport_url", "cell0 database_connection"}
    # A name alone does not pull nova.conf's URLs in.
    bench.done("nova_cell.present", "cell1", site_lock=LOCK)
    bench.modules["nova_manage.update_cell"](CELL0, name="cell0")
    ret = bench.state("nova_cell.cell0_mapped", "cell0", CELL0_DB)
    assert (ret["result"], ret["changes"]) == (True, {})


def test_a_literal_url_reaches_the_row_but_no_command_line(bench):
    cell1 = the(bench, "cell1")
    where = f"{bench.admin['host']}:{bench.admin['port']}"
    url = f"mysql+pymysql://{USER}:{quote(bench.password, safe='')}@{where}/{MAIN}?charset=utf8"
    seen, stop = set(), threading.Event()

    def sample() -> None:
        while not stop.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue
            time.sleep(0.05)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        done = bench.predicted_and_done(
            "nova_cell.present", "cell1", database_connection=url, site_lock=LOCK
        )
        literal = bench.predicted_and_done(
            "nova_cell.cell0_mapped",
            "cell0",
            database_connection=url.replace(MAIN, CELL0_DB),
            site_lock=LOCK,
        )
    finally:
        stop.set()
        sampler.join()
    assert set(done["changes"]) == {"cell1 database_connection"}
    assert set(literal["changes"]) == {"cell0 database_connection"}
    assert the(bench, "cell1")["database_connection"] == url
    assert seen
    assert not any(quote(bench.password, safe="") in line for line in seen)
    assert not list(Path("/tmp").glob("nova-manage-*.conf"))
    bench.predicted_and_done("nova_cell.present", "cell1", site_lock=LOCK)
    bench.predicted_and_done("nova_cell.cell0_mapped", "cell0", CELL0_DB, site_lock=LOCK)
    assert the(bench, "cell1")["uuid"] == cell1["uuid"]


def test_a_cell_of_another_name_on_the_database_is_a_clear_failure(bench):
    uuid = the(bench, "cell1")["uuid"]
    bench.sql("UPDATE cell_mappings SET name = NULL WHERE uuid = %s", uuid, database=API)
    for test in (True, False):
        ret = bench.state("nova_cell.present", "cell1", test=test)
        assert (ret["result"], ret["changes"]) == (False, {})
        assert uuid in ret["comment"]
    bench.modules["nova_manage.update_cell"](uuid, name="cell1")
    ret = bench.state("nova_cell.present", "cell1")
    assert (ret["result"], ret["changes"]) == (True, {})


def test_registered_hosts_are_mapped_at_once_and_those_that_never_come_are_named(bench):
    bench.register("cmp1", "cmp2")
    done = bench.predicted_and_done(
        "nova_cell.hosts_discovered", "site", expected=["cmp1"], site_lock=LOCK
    )
    assert done["changes"] == {
        f"host {host}": {"old": None, "new": "mapped"} for host in ("cmp1", "cmp2")
    }
    timer = threading.Timer(2, Bench(bench.etc).register, ["cmp3"])
    timer.start()
    ret = bench.state(
        "nova_cell.hosts_discovered",
        "site",
        expected=["cmp1", "cmp3", "cmp4"],
        timeout=6,
        interval=1,
        site_lock=LOCK,
    )
    timer.join()
    assert ret["result"] is False
    assert "registered as cmp4 (" in ret["comment"]
    assert ret["changes"] == {"host cmp3": {"old": None, "new": "mapped"}}


def test_trap_6_a_lost_mapping_is_found_again(bench):
    bench.sql("DELETE FROM host_mappings WHERE host = 'cmp2'", database=API)
    assert bench.nova_manage("cell_v2", "discover_hosts") == 0
    assert [row["host"] for row in bench.modules["nova_manage.unmapped_hosts"]()] == ["cmp2"]
    done = bench.predicted_and_done(
        "nova_cell.hosts_discovered", "site", expected=["cmp1", "cmp2"], site_lock=LOCK
    )
    assert done["changes"] == {"host cmp2": {"old": None, "new": "mapped"}}


def test_trap_5_what_was_found_by_service_is_not_taken_for_unmapped(bench):
    bench.register("cmp5")
    bench.modules["nova_manage.discover_hosts"](by_service=True)
    rows = bench.sql("SELECT mapped FROM compute_nodes WHERE host = 'cmp5'", database=MAIN)
    assert rows == [{"mapped": 0}]
    assert bench.modules["nova_manage.unmapped_hosts"]() == []


def test_a_mapped_host_that_is_down_is_only_reported(bench):
    bench.sql(
        "UPDATE services SET last_seen_up = UTC_TIMESTAMP() - INTERVAL 1 HOUR WHERE host = 'cmp1'",
        database=MAIN,
    )
    ret = bench.state("nova_cell.hosts_discovered", "site", expected=["cmp1"])
    assert (ret["result"], ret["changes"]) == (True, {})
    assert "down: cmp1" in ret["comment"]


def test_hosts_and_cells_are_deleted_with_named_refusals(bench):
    uuid = the(bench, "cell1")["uuid"]
    with pytest.raises(Exception, match=r"code 2 \(hosts are mapped to it\)"):
        bench.modules["nova_manage.delete_cell"](uuid)
    with pytest.raises(Exception, match=r"code 2 \(the host is not mapped\)"):
        bench.modules["nova_manage.delete_host"](uuid, "nobody")
    assert bench.modules["nova_manage.delete_host"](uuid, "cmp5")
    assert "cmp5" not in [row["host"] for row in bench.modules["nova_manage.list_hosts"]()]
    with pytest.raises(Exception, match=r"code 1 \(there is no such cell\)"):
        bench.modules["nova_manage.delete_cell"]("5b4a0000-0000-0000-0000-000000000000")


def test_a_second_cell_has_a_database_and_messaging_of_its_own(bench):
    bench.done("nova_database.present", CELL2, connection=bench.admin)
    bench.sql(f"GRANT ALL ON {CELL2}.* TO {USER}@'%%'")
    bench.sql(f"GRANT ALL ON {CELL2}.* TO {USER}@'127.%%'")
    own = {"database": {"name": CELL2}, "messaging": {"vhost": "cell2", "hosts": ["mq2"]}}
    ret = bench.state("nova_schema.cell_db_synced", "cell2", database=CELL2, test=True)
    assert (ret["result"], list(ret["changes"])) == (None, [f"{CELL2} schema"])
    bench.predicted_and_done("nova_cell.present", "cell2", disabled=True, site_lock=LOCK, **own)
    bench.predicted_and_done("nova_schema.cell_db_synced", "cell2", database=CELL2, site_lock=LOCK)
    row = the(bench, "cell2")
    assert (row["name"], row["disabled"]) == ("cell2", 1)
    assert row["transport_url"] == "{scheme}://{username}:{password}@mq2:5672/cell2?{query}"
    version = bench.modules["nova_manage.schema_version"]
    assert version(row["uuid"]) == version("main")

    done = bench.predicted_and_done(
        "nova_cell.present", "cell2", disabled=False, site_lock=LOCK, **own
    )
    assert done["changes"] == {"cell2 disabled": {"old": True, "new": False}}
    done = bench.predicted_and_done(
        "nova_cell.present", "far", renamed_from="cell2", site_lock=LOCK, **own
    )
    assert done["changes"] == {"far name": {"old": "cell2", "new": "far"}}


def test_a_cell_with_accounts_of_its_own_is_repaired_when_they_change(bench):
    host, port = bench.admin["host"], bench.admin["port"]
    url = urlsplit(bench.rabbit)
    rabbit = {"user": unquote(url.username), "password": unquote(url.password)}
    bench.sql("DROP USER IF EXISTS cell2@'%%'")
    # Of two servers one that answers is enough: the other may be down.
    messaging = {"vhost": "/", "hosts": [url.hostname, "127.0.0.1"], **rabbit}
    for password in ("cell2:p@ss/", "cell2:other%"):
        secret = {"user": "cell2", "password": password}
        database = {"name": CELL2, "host": host, "port": port, **secret}
        own = {"database": database, "messaging": messaging}
        ret = bench.state("nova_cell.present", "far", site_lock=LOCK, **own)
        assert (ret["result"], ret["changes"]) == (False, {})
        assert "The cell far stays as it is. Cannot log in" in ret["comment"]
        bench.sql(f"GRANT ALL ON {CELL2}.* TO cell2@'%%' IDENTIFIED BY %s", password)
        done = bench.predicted_and_done("nova_cell.present", "far", site_lock=LOCK, **own)
        transport = {"far transport_url"} if password == "cell2:p@ss/" else set()
        assert set(done["changes"]) == {"far database_connection"} | transport
        assert quote(password, safe="") not in json.dumps(done)
        row = the(bench, "far")
        account = f"{url.username}:{quote(rabbit['password'], safe='')}"
        assert row["transport_url"] == (
            f"rabbit://{account}@{url.hostname}:5672,{account}@127.0.0.1:5672/"
        )
        shown = json.dumps(bench.modules["nova_manage.list_cells"]())
        for word in (password, rabbit["password"]):
            assert word not in shown
            assert quote(word, safe="") not in shown
    bench.sql("DROP USER cell2@'%%'")
    own = {"database": {"name": CELL2}, "messaging": {"vhost": "cell2"}}
    bench.predicted_and_done("nova_cell.present", "far", site_lock=LOCK, **own)


def test_a_cell_is_deleted_once_nothing_lives_in_it(bench):
    uuid = the(bench, "far")["uuid"]
    for refusal, statement, database in (
        (2, "INSERT INTO host_mappings (cell_id, host) SELECT id, 'x' FROM cell_mappings", API),
        (3, INSTANCE, CELL2),
        (4, "UPDATE instances SET deleted = id", CELL2),
    ):
        bench.sql(statement + (" WHERE name = 'far'" if refusal == 2 else ""), database=database)
        if refusal == 3:
            bench.sql("DELETE FROM host_mappings WHERE host = 'x'", database=API)
            bench.modules["nova_upkeep.map_instances"](uuid)
        ret = bench.state("nova_cell.absent", "far", site_lock=LOCK)
        assert (ret["result"], ret["changes"]) == (False, {})
        with pytest.raises(CommandExecutionError) as caught:
            bench.modules["nova_manage.delete_cell"](uuid)
        assert caught.value.info == refusal
    bench.sql("DELETE FROM instance_mappings WHERE instance_uuid = 'i-1'", database=API)
    done = bench.predicted_and_done("nova_cell.absent", "far", site_lock=LOCK)
    assert done["changes"] == {"far": {"old": "present", "new": None}}
    bench.done("nova_database.absent", CELL2, connection=bench.admin)


def test_a_host_is_unmapped_and_found_again_only_if_it_is_registered(bench):
    done = bench.predicted_and_done("nova_cell.host_absent", "cmp2", site_lock=LOCK)
    assert done["changes"] == {"host cmp2": {"old": "present", "new": None}}
    assert "cmp2" in [row["host"] for row in bench.modules["nova_manage.unmapped_hosts"]()]


def test_a_rotated_password_needs_no_change_of_a_cell(bench):
    bench.password = PASSWORDS[1]
    bench.load()
    # In test mode, before the account and nova.conf have followed, nothing is predicted.
    for function, args, kwargs in STATES[:4]:
        ret = bench.state(function, *args, test=True, connection=bench.admin, **kwargs)
        assert (ret["result"], ret["changes"]) == (True, {}), ret["comment"]
    bench.state(
        "nova_database.user_present",
        USER,
        hosts=["%", "127.%"],
        connection=bench.admin,
        password_pillar="nova:passwords:database_nova",
    )
    for function, args, kwargs in STATES[:4]:
        ret = bench.state(function, *args, test=True, connection=bench.admin, **kwargs)
        assert (ret["result"], ret["changes"]) == (True, {}), ret["comment"]
    bench.configure()
    for function, args, kwargs in STATES[:5]:
        ret = bench.state(function, *args, **kwargs)
        assert (ret["result"], ret["changes"]) == (True, {}), ret["comment"]


def test_a_bare_second_controller_sees_the_site_in_test_mode(bench):
    os.rename(bench.etc / "nova/nova.conf", bench.etc / "nova.conf")
    try:
        for function, args, kwargs in STATES[:4]:
            ret = bench.state(
                function,
                *args,
                test=True,
                connection=bench.admin,
                **kwargs,
                **({"api_database": API} if "cell" in function else {}),
            )
            assert (ret["result"], ret["changes"]) == (True, {}), ret["comment"]
    finally:
        os.rename(bench.etc / "nova.conf", bench.etc / "nova/nova.conf")


TRANSPORTS = [
    "rabbit://u:p@h1:5672/",
    "rabbit://u:p@h1:5672//",
    "rabbit://u:p@h1:5672/nova",
    "rabbit://u:p@h1:5672//nova",
    "rabbit://u:p%40%2F%25@h1:5672/nova?ssl=1",
    "rabbit://u:p@[fd00::1]:5672/",
    "rabbit://u:p@h1",
    "rabbit://u:p@h1:5672,u:p%2F@h2:5672,v:q@h3:5673//",
    "rabbit://u:p@[fd00::1]:5672,u:p@[fd00::2]:5672/nova",
]


def test_nova_renders_each_transport_template_to_the_same_address(bench):
    pairs = [[bench.modules["nova_manage.transport_template"](url), url] for url in TRANSPORTS]
    program = (
        "import json, sys\n"
        "from nova.objects.cell_mapping import CellMapping\n"
        "from oslo_messaging import TransportURL\n"
        "import nova.conf, oslo_messaging.conffixture\n"
        "CONF = nova.conf.CONF\n"
        "for template, url in json.load(sys.stdin):\n"
        "    rendered = CellMapping._format_url(template, url)\n"
        "    a, b = TransportURL.parse(CONF, rendered), TransportURL.parse(CONF, url)\n"
        "    assert a == b, (template, rendered, url)\n"
        "    assert a.query == b.query, (rendered, url)\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def controller(etc, password, barrier, queue):
    """What one controller does from nothing; in a process of its own."""
    bench = Bench(etc)
    bench.password = password
    bench.load()
    barrier.wait()
    for database in (API, MAIN, CELL0_DB, PLACEMENT):
        queue.put(bench.state("nova_database.present", database, connection=bench.admin))
    user = {
        "hosts": ["%"],
        "password_pillar": "nova:passwords:database_nova",
        "grants": dict.fromkeys((API, MAIN, CELL0_DB, PLACEMENT), "ALL"),
        "connection": bench.admin,
    }
    queue.put(bench.state("nova_database.user_present", USER, **user))
    for function, args, kwargs in STATES[:5]:
        queue.put(bench.state(function, *args, site_lock=LOCK, **kwargs))
    queue.put(None)


def test_two_controllers_from_nothing_make_one_of_everything(bench):
    bench.wipe()
    fork = multiprocessing.get_context("fork")
    barrier, queue = fork.Barrier(2), fork.Queue()
    arguments = (bench.etc, bench.password, barrier, queue)
    processes = [fork.Process(target=controller, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    results = []
    while results.count(None) < 2:
        results.append(queue.get(timeout=300))
    for process in processes:
        process.join()
    results = [ret for ret in results if ret]
    assert [ret["comment"] for ret in results if ret["result"] is not True] == []
    assert [row["name"] for row in bench.cells()] == ["cell0", "cell1"]
    made = [what for ret in results for what in ret["changes"] if "grants" not in what]
    assert sorted(made) == sorted(set(made)), "one thing was made twice"
