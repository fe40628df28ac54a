"""
Databases, schema, cells and hosts on a real server with the real nova-manage.

Needs root, nova and placement installed, and an administrator of a MariaDB or MySQL server in
``NOVA_TEST_DATABASE`` (``mysql://root:password@host:port/``). The databases have names of their
own, and the configuration is laid over /etc/nova and /etc/placement in a mount namespace of this
process: what runs on the host stays as it is.
"""

import copy
import ctypes
import json
import multiprocessing
import os
import pwd
import shutil
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
import salt.config
import salt.loader

ADMIN = os.environ.get("NOVA_TEST_DATABASE", "")
NEEDS = [
    (os.geteuid() == 0, "root"),
    (bool(ADMIN), "NOVA_TEST_DATABASE"),
    (bool(shutil.which("nova-manage")), "nova-manage"),
    (bool(shutil.which("placement-manage")), "placement-manage"),
]
MISSING = [what for there, what in NEEDS if not there]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")

ROOT = Path(__file__).resolve().parents[2]
CLONE_NEWNS, MS_BIND, MS_REC_PRIVATE = 0x20000, 0x1000, 0x44000
PREFIX = "formula_test"
API, MAIN, CELL0_DB, PLACEMENT = (f"{PREFIX}_{n}" for n in ("api", "nova", "cell0", "placement"))
USER = f"{PREFIX}_user"
PASSWORDS = ["p@ss/w%20$ord:#'\"\\`{x}", "another:@/%$#"]
CELL0 = "00000000-0000-0000-0000-000000000000"
LOCK = {"name": PREFIX, "timeout": 120}


class Bench:
    """A minion's loaders, and the server that they speak to."""

    def __init__(self, etc: Path):
        self.etc = etc
        url = urlsplit(ADMIN)
        self.admin = {
            "host": url.hostname,
            "port": url.port or 3306,
            "user": unquote(url.username),
            "password_pillar": "nova:passwords:database_admin",
        }
        self.opts = copy.deepcopy(salt.config.DEFAULT_MINION_OPTS)
        self.opts.update(
            id="ctl1",
            file_client="local",
            root_dir=str(etc),
            cachedir=str(etc / "cache"),
            extension_modules=str(etc / "extmods"),
            module_dirs=[str(ROOT / "_modules")],
            states_dirs=[str(ROOT / "_states")],
            utils_dirs=[str(ROOT / "_utils")],
            grains={"id": "ctl1", "os_family": "Debian", "os": "Debian"},
        )
        self.password = PASSWORDS[0]
        self.transport = "rabbit://openstack:mq%2Fpass@mq.example.org:5672/"
        self.admin_password = unquote(url.password or "")
        self.load()

    def load(self) -> None:
        passwords = {"database_admin": self.admin_password, "database_nova": self.password}
        self.opts["pillar"] = {"nova": {"passwords": passwords}}
        context: dict = {}
        self.utils = salt.loader.utils(self.opts, context=context)
        self.modules = salt.loader.minion_mods(self.opts, context=context, utils=self.utils)
        self.states = salt.loader.states(self.opts, self.modules, self.utils, None, context=context)

    def configure(self) -> None:
        nova = pwd.getpwnam("nova").pw_gid
        placement = pwd.getpwnam("placement").pw_gid
        where = f"{self.admin['host']}:{self.admin['port']}"
        user = f"mysql+pymysql://{USER}:{quote(self.password, safe='')}@{where}"

        def write(name: str, gid: int, sections: dict[str, dict[str, str]]) -> None:
            path = self.etc / name
            lines = []
            for section, options in sections.items():
                lines.append(f"[{section}]")
                lines += [f"{key} = {value.replace('$', '$$')}" for key, value in options.items()]
            path.write_text("\n".join(lines) + "\n")
            os.chown(path, 0, gid)
            path.chmod(0o640)

        write(
            "nova/nova.conf",
            nova,
            {
                "DEFAULT": {"transport_url": self.transport},
                "api_database": {"connection": f"{user}/{API}?charset=utf8"},
                "database": {"connection": f"{user}/{MAIN}?charset=utf8"},
            },
        )
        write(
            "placement/placement.conf",
            placement,
            {"placement_database": {"connection": f"{user}/{PLACEMENT}?charset=utf8"}},
        )

    def state(self, function: str, *args, test: bool = False, **kwargs) -> dict:
        for loader in (self.states, self.modules, self.utils):
            loader.opts["test"] = test
        self.states.opts["test"] = test
        return self.states[function](*args, **kwargs)

    def predicted_and_done(self, function: str, *args, **kwargs) -> dict:
        """Run a state in test mode, for real, and again: the contract of every state."""
        predicted = self.state(function, *args, test=True, **kwargs)
        done = self.state(function, *args, **kwargs)
        assert done["result"] is True, done["comment"]
        assert predicted["result"] is None, predicted["comment"]
        assert predicted["changes"] == done["changes"] != {}
        for test in (True, False):
            again = self.state(function, *args, test=test, **kwargs)
            assert (again["result"], again["changes"]) == (True, {}), again["comment"]
        text = json.dumps([predicted, done])
        for password in PASSWORDS + [self.admin_password]:
            assert password not in text
            assert quote(password, safe="") not in text
        return done

    def sql(self, statement: str, *values, database: str | None = None) -> list[dict]:
        connection = {**self.admin, "database": database} if database else self.admin
        return self.modules["nova_database.query"](statement, list(values), connection=connection)

    def wipe(self) -> None:
        for database in (API, MAIN, CELL0_DB, PLACEMENT):
            self.modules["nova_database.drop_database"](database, connection=self.admin)
        for host in ("%", "127.%"):
            self.modules["nova_database.drop_user"](USER, host, connection=self.admin)

    def cells(self) -> list[dict]:
        return self.sql("SELECT * FROM cell_mappings ORDER BY id", database=API)

    def nova_manage(self, *args: str) -> int:
        return subprocess.run(
            ["nova-manage", *args],
            user="nova",
            group="nova",
            extra_groups=[],
            cwd="/",
            check=False,
            capture_output=True,
        ).returncode

    def register(self, *hosts: str, mapped: int = 0) -> None:
        """What a nova-compute does when it starts."""
        for host in hosts:
            self.sql(
                "INSERT INTO services (created_at, updated_at, host, `binary`, topic, "
                "report_count, disabled, deleted, forced_down, version, uuid, last_seen_up) "
                "VALUES (UTC_TIMESTAMP(), UTC_TIMESTAMP(), %s, 'nova-compute', 'compute', 1, 0, 0, "
                "0, 61, UUID(), UTC_TIMESTAMP())",
                host,
                database=MAIN,
            )
            self.sql(
                "INSERT INTO compute_nodes (created_at, vcpus, memory_mb, local_gb, vcpus_used, "
                "memory_mb_used, local_gb_used, hypervisor_type, hypervisor_version, cpu_info, "
                "host, hypervisor_hostname, deleted, uuid, mapped) VALUES (UTC_TIMESTAMP(), 1, 1, "
                "1, 0, 0, 0, 'QEMU', 1, '{}', %s, %s, 0, UUID(), %s)",
                host,
                host,
                mapped,
                database=MAIN,
            )


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    etc = tmp_path_factory.mktemp("etc")
    for parent in (etc, *etc.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNS) == 0
    assert libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None) == 0
    for name in ("nova", "placement"):
        shutil.copytree(f"/etc/{name}", etc / name, symlinks=True)
        (etc / name).chmod(0o755)
        (etc / name / f"{name}.conf").unlink(missing_ok=True)
        source, target = str(etc / name).encode(), f"/etc/{name}".encode()
        assert libc.mount(source, target, None, MS_BIND, None) == 0
    bench = Bench(etc)

    bench.wipe()
    yield bench
    bench.wipe()
    for name in ("nova", "placement"):
        libc.umount2(f"/etc/{name}".encode(), 2)


STATES = [
    ("nova_schema.api_db_synced", [API], {}),
    ("nova_cell.cell0_mapped", ["cell0", CELL0_DB], {}),
    ("nova_cell.present", ["cell1"], {}),
    ("nova_schema.db_synced", [MAIN], {"cell0": CELL0_DB}),
    ("nova_schema.placement_db_synced", [PLACEMENT], {}),
    ("nova_cell.hosts_discovered", ["site"], {"expected": ["cmp1"]}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), STATES, ids=[s[0] for s in STATES])
def test_on_a_bare_host_each_state_predicts_and_does_not_fail(bench, function, args, kwargs):
    for extra in ({}, {"connection": bench.admin}):
        ret = bench.state(function, *args, test=True, **kwargs, **extra)
        assert ret["result"] is None, ret["comment"]
        assert ret["changes"]


def test_databases_are_created_and_their_character_set_repaired(bench):
    for database in (API, MAIN, CELL0_DB, PLACEMENT):
        done = bench.predicted_and_done("nova_database.present", database, connection=bench.admin)
        assert done["changes"] == {database: {"old": None, "new": "created"}}
    bench.sql(f"ALTER DATABASE {MAIN} CHARACTER SET latin1")
    done = bench.predicted_and_done("nova_database.present", MAIN, connection=bench.admin)
    assert done["changes"] == {f"{MAIN} character set": {"old": "latin1", "new": "utf8mb3"}}


def test_users_get_their_password_and_grants_and_lose_none(bench):
    wanted = {
        "hosts": ["%", "127.%"],
        "password_pillar": "nova:passwords:database_nova",
        "grants": dict.fromkeys((API, MAIN, CELL0_DB, PLACEMENT), "ALL PRIVILEGES"),
        "connection": bench.admin,
    }
    done = bench.predicted_and_done("nova_database.user_present", USER, **wanted)
    assert done["changes"][f"{USER}@%"] == {"old": None, "new": "created"}

    bench.password = PASSWORDS[1]
    bench.load()
    done = bench.predicted_and_done("nova_database.user_present", USER, **wanted)
    assert done["changes"] == {
        f"{USER}@{host} password": {"old": "***", "new": "***"} for host in ("%", "127.%")
    }
    bench.password = PASSWORDS[0]
    bench.load()

    bench.sql(f"REVOKE ALL PRIVILEGES ON {API}.* FROM {USER}@'127.%%'")
    bench.sql(f"GRANT SELECT ON {API}.* TO {USER}@'127.%%'")
    bench.sql(f"GRANT SELECT ON mysql.* TO {USER}@'127.%%'")
    done = bench.predicted_and_done("nova_database.user_present", USER, **wanted)
    assert done["changes"] == {
        f"{USER}@127.% password": {"old": "***", "new": "***"},
        f"{USER}@% password": {"old": "***", "new": "***"},
        f"{USER}@127.% grants on {API}": {"old": "SELECT", "new": "ALL PRIVILEGES"},
    }
    grants = bench.modules["nova_database.list_grants"](USER, "127.%", connection=bench.admin)
    assert grants["mysql"] == ["SELECT"]


def test_a_name_with_a_backtick_is_quoted(bench):
    name = f"{PREFIX}`; DROP DATABASE {API}; -- %s"
    bench.predicted_and_done("nova_database.present", name, connection=bench.admin)
    assert bench.modules["nova_database.get_database"](API, connection=bench.admin)
    done = bench.predicted_and_done("nova_database.absent", name, connection=bench.admin)
    assert done["changes"] == {name: {"old": "present", "new": None}}


def test_two_controllers_may_create_the_same_at_the_same_moment(bench):
    name = f"{PREFIX}_race"
    results = []

    def controller() -> None:
        other = Bench(bench.etc)
        barrier.wait()
        results.append(other.state("nova_database.present", name, connection=other.admin))
        results.append(
            other.state(
                "nova_database.user_present",
                name,
                password="x",
                connection=other.admin,
                grants={name: "ALL"},
            )
        )

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=controller) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ret["comment"] for ret in results if not ret["result"]] == []
    created = [ret for ret in results if ret["changes"].get(name)]
    assert len(results) == 8
    assert len(created) == 1
    bench.predicted_and_done("nova_database.user_absent", name, connection=bench.admin)
    bench.predicted_and_done("nova_database.absent", name, connection=bench.admin)


def test_a_wrong_administrator_password_is_one_sentence_without_it(bench):
    wrong = {**bench.admin, "password": "wrong-secret"}
    del wrong["password_pillar"]
    ret = bench.state("nova_database.present", "x", connection=wrong)
    assert ret["result"] is False
    assert "wrong-secret" not in ret["comment"]
    assert bench.admin["host"] in ret["comment"]


def test_the_schema_and_the_cells_are_made_in_nova_s_order(bench):
    bench.configure()
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


def test_trap_2_a_literal_row_is_repaired_in_place_whatever_rotated(bench):
    uuid = bench.cells()[1]["uuid"]
    old = ("rabbit://openstack:old@mq:5672/", f"mysql+pymysql://{USER}:old@h:3306/{MAIN}")
    bench.sql(
        "UPDATE cell_mappings SET transport_url = %s, database_connection = %s WHERE uuid = %s",
        *old,
        uuid,
        database=API,
    )
    done = bench.predicted_and_done("nova_cell.present", "cell1", site_lock=LOCK)
    assert set(done["changes"]) == {"cell1 transport_url", "cell1 database_connection"}
    assert "old@" not in json.dumps(done)
    assert [row["uuid"] for row in bench.cells()] == [CELL0, uuid]


def test_traps_3_and_4_cell0_keeps_its_own_database_and_an_encoded_password(bench):
    bench.sql(
        "UPDATE cell_mappings SET database_connection = '{scheme}://{username}:{password}@"
        "{hostname}:{port}/{path}?{query}', transport_url = 'rabbit://x/' WHERE uuid = %s",
        CELL0,
        database=API,
    )
    done = bench.predicted_and_done("nova_cell.cell0_mapped", "cell0", CELL0_DB, site_lock=LOCK)
    assert set(done["changes"]) == {"cell0 transport_url", "cell0 database_connection"}
    assert bench.modules["nova_manage.schema_version"]("cell0")
    # A name alone must not pull nova.conf's URLs in.
    bench.modules["nova_manage.update_cell"](CELL0, name="cell0")
    ret = bench.state("nova_cell.cell0_mapped", "cell0", CELL0_DB)
    assert (ret["result"], ret["changes"]) == (True, {})


def test_a_literal_url_reaches_the_row_but_no_command_line(bench):
    cell1 = bench.cells()[1]
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
    assert bench.cells()[1]["database_connection"] == url
    assert any("update_cell" in line for line in seen)
    assert not any(quote(bench.password, safe="") in line for line in seen)
    assert not list(Path("/tmp").glob("nova-manage-*.conf"))
    bench.predicted_and_done("nova_cell.present", "cell1", site_lock=LOCK)
    bench.predicted_and_done("nova_cell.cell0_mapped", "cell0", CELL0_DB, site_lock=LOCK)
    assert bench.cells()[1]["uuid"] == cell1["uuid"]


def test_a_cell_of_another_name_on_the_database_is_a_clear_failure(bench):
    uuid = bench.cells()[1]["uuid"]
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
    uuid = bench.cells()[1]["uuid"]
    with pytest.raises(Exception, match=r"code 2 \(hosts are mapped to it\)"):
        bench.modules["nova_manage.delete_cell"](uuid)
    with pytest.raises(Exception, match=r"code 2 \(the host is not mapped\)"):
        bench.modules["nova_manage.delete_host"](uuid, "nobody")
    assert bench.modules["nova_manage.delete_host"](uuid, "cmp5")
    assert "cmp5" not in [row["host"] for row in bench.modules["nova_manage.list_hosts"]()]
    with pytest.raises(Exception, match=r"code 1 \(there is no such cell\)"):
        bench.modules["nova_manage.delete_cell"]("5b4a0000-0000-0000-0000-000000000000")


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
