"""
A controller to test on: Salt's loaders, and a configuration of its own for nova and Placement.

Needs root, nova and placement installed, and an administrator of a MariaDB or MySQL server in
``NOVA_TEST_DATABASE`` (``mysql://root:password@host:port/``). The databases have names of their
own, and the configuration is laid over /etc/nova and /etc/placement in a mount namespace of this
process: what runs on the host stays as it is.
"""

import contextlib
import copy
import ctypes
import json
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
import salt.config
import salt.loader
from salt.exceptions import CommandExecutionError

ADMIN = os.environ.get("NOVA_TEST_DATABASE", "")
NEEDS = [
    (os.geteuid() == 0, "root"),
    (bool(ADMIN), "NOVA_TEST_DATABASE"),
    (bool(shutil.which("nova-manage")), "nova-manage"),
    (bool(shutil.which("placement-manage")), "placement-manage"),
]
MISSING = [what for there, what in NEEDS if not there]
needs_server = pytest.mark.skipif(not ADMIN, reason="needs NOVA_TEST_DATABASE")
needs_nova = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")

ROOT = Path(__file__).resolve().parents[2]
CLONE_NEWNS, MS_BIND, MS_REC_PRIVATE = 0x20000, 0x1000, 0x44000
PREFIX = "formula_test"
API, MAIN, CELL0_DB, PLACEMENT = (f"{PREFIX}_{n}" for n in ("api", "nova", "cell0", "placement"))
DATABASES = (API, MAIN, CELL0_DB, PLACEMENT)
CELL2 = f"{PREFIX}_cell2"
USER = f"{PREFIX}_user"
PASSWORDS = ["p@ss/w%20$ord:#'\"\\`{x}", "another:@/%$#"]
CELL0 = "00000000-0000-0000-0000-000000000000"
LOCK = {"name": PREFIX, "timeout": 120}

STATES = [
    ("nova_schema.api_db_synced", [API], {}),
    ("nova_cell.cell0_mapped", ["cell0", CELL0_DB], {}),
    ("nova_cell.present", ["cell1"], {}),
    ("nova_schema.db_synced", [MAIN], {"cell0": CELL0_DB}),
    ("nova_schema.placement_db_synced", [PLACEMENT], {}),
    ("nova_cell.hosts_discovered", ["site"], {"expected": ["cmp1"]}),
]
#: An instance, as the main database holds it.
INSTANCE = (
    "INSERT INTO instances (created_at, uuid, display_name, vm_state, project_id, user_id, "
    "deleted, host, node) "
    "VALUES (UTC_TIMESTAMP(), 'i-1', 'i-1', 'active', 'p', 'u', 0, 'cmp1', 'cmp1')"
)


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
        # What the host's own nova.conf says of the cloud: asked, never changed.
        self.cloud: dict[str, dict[str, str]] = {}
        # The URL of its RabbitMQ: a new account is tried before a cell gets it.
        self.rabbit = ""
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
                **self.cloud,
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

    def prepare(self) -> None:
        """Databases and the account, from nothing, and the configuration for them."""
        self.wipe()
        self.configure()
        for database in DATABASES:
            self.done("nova_database.present", database, connection=self.admin)
        self.done(
            "nova_database.user_present",
            USER,
            hosts=["%", "127.%"],
            password_pillar="nova:passwords:database_nova",
            grants=dict.fromkeys(DATABASES, "ALL PRIVILEGES"),
            connection=self.admin,
        )

    def converge(self) -> None:
        """Schema and cells."""
        for function, args, kwargs in STATES[:5]:
            self.done(function, *args, site_lock=LOCK, **kwargs)

    def done(self, function: str, *args, **kwargs) -> dict:
        ret = self.state(function, *args, **kwargs)
        assert ret["result"] is True, ret["comment"]
        return ret

    def wipe(self) -> None:
        for database in (*DATABASES, CELL2):
            self.modules["nova_database.drop_database"](database, connection=self.admin)
        for user, host in ((USER, "%"), (USER, "127.%"), (f"{USER}_tls", "%")):
            self.modules["nova_database.drop_user"](user, host, connection=self.admin)

    def kill_connections(self) -> None:
        """What a server does to them that dies."""
        for row in self.sql("SELECT id FROM information_schema.processlist WHERE user = %s", USER):
            # One may have ended by itself.
            with contextlib.suppress(CommandExecutionError):
                self.sql(f"KILL CONNECTION {row['id']}")

    def tables(self, database: str) -> int:
        return self.sql(
            "SELECT COUNT(*) AS n FROM information_schema.tables WHERE table_schema = %s", database
        )[0]["n"]

    def cells(self) -> list[dict]:
        return self.sql("SELECT * FROM cell_mappings ORDER BY id", database=API)

    def nova_manage(self, *args: str) -> int:
        return subprocess.run(
            ["nova-manage", *args],
            user="nova",
            group="nova",
            extra_groups=[],
            cwd="/",
            # Not the tests' own modules, which nova may not read.
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
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
def server(tmp_path_factory):
    """A bench without nova."""
    bench = Bench(tmp_path_factory.mktemp("etc"))
    bench.wipe()
    yield bench
    bench.wipe()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    etc = tmp_path_factory.mktemp("etc")
    for parent in (etc, *etc.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    bench = Bench(etc)
    found = bench.utils["nova_conf.read"]("/etc/nova/nova.conf")
    # The package's own file names one at localhost.
    if "localhost" not in found.get("placement", {}).get("auth_url", ["localhost"])[-1]:
        bench.cloud = {
            section: {
                name: values[-1].replace("$$", "$") for name, values in found[section].items()
            }
            for section in ("placement", "neutron", "service_user", "keystone_authtoken")
            if section in found
        }
    bench.rabbit = found.get("DEFAULT", {}).get("transport_url", [""])[-1].replace("$$", "$")
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNS) == 0
    assert libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None) == 0
    for name in ("nova", "placement"):
        shutil.copytree(f"/etc/{name}", etc / name, symlinks=True)
        (etc / name).chmod(0o755)
        (etc / name / f"{name}.conf").unlink(missing_ok=True)
        source, target = str(etc / name).encode(), f"/etc/{name}".encode()
        assert libc.mount(source, target, None, MS_BIND, None) == 0
    bench.wipe()
    yield bench
    bench.wipe()
    for name in ("nova", "placement"):
        libc.umount2(f"/etc/{name}".encode(), 2)
