"""
Schema, cells and hosts of a nova deployment.

What is there is read from the databases over PyMySQL, with the URLs of the node's own nova.conf: a
few milliseconds, against seconds for one call of nova-manage. nova-manage runs to change something
only: as the user nova, with no secret in its arguments, and it dies with the job that started it.

Functions that change something name nova-manage's exit codes; a failure raises
CommandExecutionError with the code in ``exc.info``.
"""

import contextlib
import ctypes
import glob
import hashlib
import logging
import os
import pwd
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from salt.exceptions import CommandExecutionError

log = logging.getLogger(__name__)

NOVA_CONF = "/etc/nova/nova.conf"
PLACEMENT_CONF = "/etc/placement/placement.conf"
#: Where distributions put Python packages; code is looked at, never imported.
PACKAGES = (
    "/usr/lib/python3*/dist-packages",
    "/usr/lib/python3*/site-packages",
    "/usr/lib/python2.7/site-packages",
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CELL0 = "00000000-0000-0000-0000-000000000000"
CELL0_TRANSPORT = "none:///"

#: Exit codes of nova-manage. An exception that nothing caught is 1 in Stein, 255 from Train.
OK = 0
UNCAUGHT_STEIN = 1
USAGE = 2
UNCAUGHT = 255
DB_SYNC_CELL0_UNREACHABLE = 1
CREATE_CELL_BAD_URL = 1
CREATE_CELL_DUPLICATE = 2
UPDATE_CELL_ABSENT = 1
UPDATE_CELL_NOT_SAVED = 2
UPDATE_CELL_DUPLICATE = 3
UPDATE_CELL_BOTH = 4
UPDATE_CELL_CELL0 = 5
DELETE_CELL_ABSENT = 1
DELETE_CELL_HOSTS = 2
DELETE_CELL_INSTANCES = 3
DELETE_CELL_MAPPINGS = 4
DELETE_HOST_NO_CELL = 1
DELETE_HOST_ABSENT = 2
DELETE_HOST_OTHER_CELL = 3
DELETE_HOST_INSTANCES = 4
DISCOVER_HOSTS_DUPLICATE = 2
UPGRADE_CHECK_WARNING = 1
UPGRADE_CHECK_FAILURE = 2

_MEANINGS = {
    "db sync": {DB_SYNC_CELL0_UNREACHABLE: "the database of cell0 cannot be reached"},
    "cell_v2 create_cell": {
        CREATE_CELL_BAD_URL: "an URL is missing or malformed",
        CREATE_CELL_DUPLICATE: "another cell has one of these URLs",
    },
    "cell_v2 update_cell": {
        UPDATE_CELL_ABSENT: "there is no such cell",
        UPDATE_CELL_NOT_SAVED: "the change could not be saved",
        UPDATE_CELL_DUPLICATE: "another cell has one of these URLs",
        UPDATE_CELL_BOTH: "a cell cannot be disabled and enabled at once",
        UPDATE_CELL_CELL0: "cell0 cannot be disabled",
    },
    "cell_v2 delete_cell": {
        DELETE_CELL_ABSENT: "there is no such cell",
        DELETE_CELL_HOSTS: "hosts are mapped to it",
        DELETE_CELL_INSTANCES: "instances live in it",
        DELETE_CELL_MAPPINGS: "mappings of deleted instances are left: archive deleted rows first",
    },
    "cell_v2 delete_host": {
        DELETE_HOST_NO_CELL: "there is no such cell",
        DELETE_HOST_ABSENT: "the host is not mapped",
        DELETE_HOST_OTHER_CELL: "the host is mapped to another cell",
        DELETE_HOST_INSTANCES: "instances live on the host",
    },
    "cell_v2 discover_hosts": {
        DISCOVER_HOSTS_DUPLICATE: "another discovery ran at the same moment"
    },
}

#: ``exc.info`` of what is found wrong with the cells or URLs, and of a cell that is not there.
FINDING = "finding"
ABSENT = "absent"

#: Seconds without a sign of life after which nova takes a service for down (service_down_time).
SERVICE_DOWN_TIME = 60

_NO_SUCH_TABLE = 1146
_PR_SET_PDEATHSIG = 1
_REVISION = re.compile(r"^revision\b[^=]*=\s*['\"](\w+)['\"]", re.MULTILINE)
_DOWN_REVISION = re.compile(r"^down_revision\b[^=]*=\s*['\"](\w+)['\"]", re.MULTILINE)
#: Lines at the end of a failing program's output that do not name the cause.
_NOISE = re.compile(r"\(Background on this error|\[SQL|\[parameters|\s*\^|\+-")

_SCHEMAS = {
    "api": (NOVA_CONF, "api_database"),
    "main": (NOVA_CONF, "database"),
    "placement": (PLACEMENT_CONF, "placement_database"),
}
_VERSIONS = {
    "api": (
        "nova/db/api/migrations/versions",
        "nova/db/api/legacy_migrations/versions",
        "nova/db/sqlalchemy/api_migrations/migrate_repo/versions",
    ),
    "main": (
        "nova/db/main/migrations/versions",
        "nova/db/main/legacy_migrations/versions",
        "nova/db/sqlalchemy/migrate_repo/versions",
    ),
    "placement": ("placement/db/sqlalchemy/alembic/versions",),
}


def list_cells(connection: dict | None = None) -> list[dict[str, Any]]:
    """
    The cells: uuid, name, disabled, where its database is, and both URLs as they are stored.

    A template is shown as it is, in a literal URL the credentials are masked.

    connection : dict
        Another way to the nova_api database than nova.conf: see nova_database.

    Raises CommandExecutionError when the database cannot be read.

    CLI Example::

        salt ctl1 nova_manage.list_cells
    """
    return [_shown(cell) for cell in _cells(connection)]


def cell_versions(connection: dict | None = None) -> dict[str, str]:
    """
    A digest of each cell's row and of when it was last written, by uuid.

    Daemons keep what a row said when they started: another digest means another start is due.

    connection : dict
        Another way to the nova_api database than nova.conf: see nova_database.

    CLI Example::

        salt ctl1 nova_manage.cell_versions
    """
    rows = _query(
        "SELECT uuid, name, transport_url, database_connection, disabled, "
        "COALESCE(updated_at, created_at) AS written FROM cell_mappings ORDER BY id",
        connection or _config("api"),
    )
    return {
        row["uuid"]: hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()[:16]
        for row in rows
    }


def find_cell(
    name: str, database_connection: str | None = None, connection: dict | None = None
) -> dict[str, Any] | None:
    """
    The one cell of this name, as list_cells shows it; None when there is none.

    name : str
        Name of the cell. nova does not keep names unique.
    database_connection : str
        The cell's URL or template: another cell on the same database is then an error.
    connection : dict
        Another way to the nova_api database than nova.conf: see nova_database.

    Raises CommandExecutionError when several cells have the name, or when the database is that of a
    cell of another name.

    CLI Example::

        salt ctl1 nova_manage.find_cell cell1
    """
    cells = [cell for cell in _cells(connection) if cell["uuid"] != CELL0]
    named = [cell for cell in cells if cell["name"] == name]
    if len(named) > 1:
        uuids = " and ".join(cell["uuid"] for cell in named)
        raise _failure(
            f"Several cells are named {name}: {uuids}. Find the one that hosts are mapped to "
            "(nova_manage.list_hosts) and delete the others (nova_manage.delete_cell).",
            FINDING,
        )
    if named:
        return _shown(named[0])
    target = database_connection and _database_of(database_connection)
    for cell in cells:
        if target and _database_of(cell["database_connection"]) == target:
            raise _failure(
                f"The database {target} is that of the cell {cell['name'] or 'without a name'} "
                f"({cell['uuid']}), so it cannot be that of a new cell {name}: set nova:cell "
                "to its name, or rename it (nova_manage.update_cell).",
                FINDING,
            )
    return None


def cell_drift(
    uuid: str,
    database_connection: str,
    transport_url: str,
    name: str | None = None,
    connection: dict | None = None,
) -> dict[str, dict[str, str]]:
    """
    In what a cell's stored row differs from what is wanted: field → old and new, masked.

    uuid : str
        The cell's.
    database_connection, transport_url, name : str
        What is wanted: URLs or templates, compared with the row as it is stored.
    connection : dict
        Another way to the nova_api database than nova.conf: see nova_database.

    Raises CommandExecutionError when there is no such cell.

    CLI Example::

        salt ctl1 nova_manage.cell_drift 00000000-0000-0000-0000-000000000000 '…' none:///
    """
    row = _cell(uuid, connection)
    wanted = {"database_connection": database_connection, "transport_url": transport_url}
    drift = {
        field: {"old": _masked(row[field]), "new": _masked(url)}
        for field, url in wanted.items()
        if row[field] != url
    }
    if name and row["name"] != name:
        drift["name"] = {"old": row["name"], "new": name}
    return drift


def database_template(database: str | None = None) -> str:
    """
    The template of a cell's database URL that follows this node's ``[database] connection``.

    database : str
        Name of another database on that server, such as ``nova_cell0``.

    nova renders ``{port}`` as None and ``{hostname}`` without brackets, so the template has the
    parts that the URL has; ``{query}`` is always there, for an empty one does no harm.

    Raises CommandExecutionError when nova.conf has no such URL.

    CLI Example::

        salt ctl1 nova_manage.database_template nova_cell0
    """
    url = urlsplit(_url("database"))
    return "{scheme}://" + _netloc_template(url.netloc) + f"/{database or '{path}'}?{{query}}"


def transport_template(transport_url: str | None = None) -> str:
    """
    The template of a cell's transport URL that follows this node's ``[DEFAULT] transport_url``.

    transport_url : str
        Another URL than nova.conf's; only its form counts: how many hosts, how many slashes before
        the virtual host.

    nova renders ``{path}`` without any leading slash, so the template repeats them all: the virtual
    host ``/`` is ``//{path}``, as ``/nova`` is. Of several hosts each has fields of its own
    (``{username1}`` …), and each must have credentials in nova.conf: nova cannot render the form
    that gives them once.

    Raises CommandExecutionError when there is no URL, or it has a form that nova cannot render.

    CLI Example::

        salt ctl1 nova_manage.transport_template
    """
    url = urlsplit(transport_url or _url("DEFAULT", "transport_url"))
    netlocs = url.netloc.split(",")
    if len(netlocs) > 1 and not all("@" in netloc for netloc in netlocs):
        raise _failure(
            f"[DEFAULT] transport_url of {NOVA_CONF} names several hosts but not the credentials "
            "of each, which nova cannot render in a cell: give each host its own.",
            FINDING,
        )
    hosts = [
        _netloc_template(netloc, str(number) if len(netlocs) > 1 else "")
        for number, netloc in enumerate(netlocs, start=1)
    ]
    slashes = "/" * (len(url.path) - len(url.path.lstrip("/")))
    path = slashes + "{path}" if slashes else ""
    return "{scheme}://" + ",".join(hosts) + path + "?{query}"


def list_hosts(connection: dict | None = None) -> list[dict[str, str]]:
    """
    The hosts that are mapped to a cell: host, cell (its name) and cell_uuid.

    connection : dict
        Another way to the nova_api database than nova.conf: see nova_database.

    Raises CommandExecutionError when the database cannot be read.

    CLI Example::

        salt ctl1 nova_manage.list_hosts
    """
    return _query(
        "SELECT h.host, c.name AS cell, c.uuid AS cell_uuid FROM host_mappings h "
        "JOIN cell_mappings c ON c.id = h.cell_id ORDER BY h.host",
        connection or _config("api"),
    )


def compute_services() -> list[dict[str, Any]]:
    """
    The nova-compute services of all cells.

    Returns for each: host, cell (its name), cell_uuid, disabled, forced_down, up, and silent: the
    seconds since it was last heard of.

    Raises CommandExecutionError when a cell's database cannot be read.

    CLI Example::

        salt ctl1 nova_manage.compute_services
    """
    services = []
    for cell in _cells():
        if cell["uuid"] == CELL0:
            continue
        for row in _query(
            "SELECT host, disabled, forced_down, TIMESTAMPDIFF(SECOND, COALESCE(last_seen_up, "
            "updated_at, created_at), UTC_TIMESTAMP()) AS silent FROM services "
            "WHERE `binary` = 'nova-compute' AND deleted = 0 ORDER BY host",
            _cell_database(cell),
        ):
            silent = int(row["silent"] or 0)
            services.append(
                {
                    "host": row["host"],
                    "cell": cell["name"],
                    "cell_uuid": cell["uuid"],
                    "disabled": bool(row["disabled"]),
                    "forced_down": bool(row["forced_down"]),
                    "up": silent <= SERVICE_DOWN_TIME and not row["forced_down"],
                    "silent": silent,
                }
            )
    return services


def unmapped_hosts() -> list[dict[str, str]]:
    """
    The hosts that registered a nova-compute service but are mapped to no cell.

    This compares the rows: the flag ``compute_nodes.mapped``, by which nova-manage looks, lies
    after a mapping was lost and after a discovery by service.

    Returns for each: host, cell (name of the one it registered in) and cell_uuid.

    CLI Example::

        salt ctl1 nova_manage.unmapped_hosts
    """
    mapped = {row["host"] for row in list_hosts()}
    return [
        {key: service[key] for key in ("host", "cell", "cell_uuid")}
        for service in compute_services()
        if service["host"] not in mapped
    ]


def schema_version(which: str, connection: dict | None = None) -> str | None:
    """
    The schema revision of a database; None when it holds no schema.

    which : str
        ``api``, ``main``, ``cell0`` or ``placement``.
    connection : dict
        Another way to that database than the node's configuration: see nova_database.

    Raises CommandExecutionError when the database cannot be read.

    CLI Example::

        salt ctl1 nova_manage.schema_version api
    """
    if not connection:
        connection = _cell_database(_cell(CELL0)) if which == "cell0" else _config(which)
    for statement in (
        "SELECT version_num AS version FROM alembic_version",
        "SELECT version FROM migrate_version",
    ):
        try:
            rows = _query(statement, connection)
        except CommandExecutionError as exc:
            if exc.info != _NO_SUCH_TABLE:
                raise
            continue
        if rows:
            return str(rows[0]["version"])
    return None


def schema_revisions(which: str) -> list[str]:
    """
    The schema revisions that the installed code knows, oldest first, the newest last.

    Read from the file names and heads of the migrations alone. Numbers are sqlalchemy-migrate's (to
    Wallaby, and what later releases still upgrade from), the others alembic's.

    which : str
        ``api``, ``main`` (cell0 too) or ``placement``.

    Returns an empty list when the code is not installed.

    Raises CommandExecutionError when the revisions form no chain.

    CLI Example::

        salt ctl1 nova_manage.schema_revisions main
    """
    numbers: set[int] = set()
    follows: dict[str | None, str] = {}
    for folder in _VERSIONS[which]:
        for path in sorted(
            found for root in PACKAGES for found in glob.glob(f"{root}/{folder}/*.py")
        ):
            number = re.match(r"(\d{3})_", os.path.basename(path))
            if number:
                numbers.add(int(number[1]))
                continue
            with open(path, encoding="utf-8") as stream:
                text = stream.read()
            revision, down = _REVISION.search(text), _DOWN_REVISION.search(text)
            if revision:
                follows[down[1] if down else None] = revision[1]
    # The version of a database that was put under control, and no further, is one below the first.
    revisions = [str(n) for n in range(min(numbers) - 1, max(numbers) + 1)] if numbers else []
    revision = follows.get(None)
    while revision:
        revisions.append(revision)
        revision = follows.pop(revision, None)
    if len(follows) > 1 or (follows and None not in follows):
        raise CommandExecutionError(
            f"The {which} migrations of the installed code form no chain: reinstall the package."
        )
    return revisions


def schema_head(which: str) -> str | None:
    """
    The newest schema revision that the installed code knows; None when it is not installed.

    which : str
        ``api``, ``main`` (cell0 too) or ``placement``.

    CLI Example::

        salt ctl1 nova_manage.schema_head main
    """
    revisions = schema_revisions(which)
    return revisions[-1] if revisions else None


def api_db_sync(timeout: int = 900, held=None) -> bool:
    """
    Bring the nova_api database to the schema of the installed code.

    timeout : int
        Seconds after which nova-manage is killed.
    held
        The site's lock (nova_db.lock): nova-manage is killed when it is lost.

    Exit codes: 0 done; 255 (Stein: 1) any failure.

    CLI Example::

        salt ctl1 nova_manage.api_db_sync
    """
    _manage("api_db", "sync", timeout=timeout, held=held)
    return True


def db_sync(timeout: int = 900, held=None) -> bool:
    """
    Bring cell0's and then the main database to the schema of the installed code.

    timeout : int
        Seconds after which nova-manage is killed.
    held
        The site's lock (nova_db.lock): nova-manage is killed when it is lost.

    Exit codes: 0 done, also when cell0 is not mapped and was left out, and in Stein when it could
    not be reached: compare schema_version afterwards; 1 cell0 unreachable; 255 any failure.

    CLI Example::

        salt ctl1 nova_manage.db_sync
    """
    _manage("db", "sync", timeout=timeout, held=held)
    return True


def placement_db_sync(timeout: int = 900, held=None) -> bool:
    """
    Bring Placement's database to the schema of the installed code.

    timeout : int
        Seconds after which placement-manage is killed.
    held
        The site's lock (nova_db.lock): placement-manage is killed when it is lost.

    Exit codes: 0 done; 1 any failure.

    CLI Example::

        salt ctl1 nova_manage.placement_db_sync
    """
    _manage("db", "sync", program="placement-manage", user="placement", timeout=timeout, held=held)
    return True


def map_cell0(database_connection: str | None = None, timeout: int = 120, held=None) -> bool:
    """
    Map cell0.

    database_connection : str
        URL or template; by default the template of a database ``nova_cell0`` next to the main one.
        nova-manage's own default decodes the password and so breaks it.
    timeout : int
        Seconds after which nova-manage is killed.
    held
        The site's lock (nova_db.lock): nova-manage is killed when it is lost.

    Exit codes: 0 always; of a cell0 that is mapped the URL is not changed: see update_cell.

    CLI Example::

        salt ctl1 nova_manage.map_cell0
    """
    wanted = database_connection or database_template("nova_cell0")
    # A literal URL must not be an argument, and map_cell0 takes none from the configuration.
    url = database_template("nova_cell0") if _holds_secret(wanted) else wanted
    _manage("cell_v2", "map_cell0", "--database_connection", url, timeout=timeout, held=held)
    if url != wanted:
        update_cell(CELL0, None, CELL0_TRANSPORT, wanted, timeout=timeout, held=held)
    return True


def create_cell(
    name: str,
    transport_url: str | None = None,
    database_connection: str | None = None,
    timeout: int = 120,
    held=None,
) -> str:
    """
    Create a cell and return its uuid.

    nova-manage creates a second cell of the same name or on the same database without a word; this
    function refuses.

    name : str
        Name of the cell.
    transport_url, database_connection : str
        URLs or templates; by default the templates that follow this node's nova.conf.
    timeout : int
        Seconds after which nova-manage is killed.
    held
        The site's lock (nova_db.lock): nova-manage is killed when it is lost.

    Exit codes: 0 created; 1 an URL is missing or malformed; 2 another cell has the same URL.

    CLI Example::

        salt ctl1 nova_manage.create_cell cell1
    """
    transport_url = transport_url or transport_template()
    database_connection = database_connection or database_template()
    found = find_cell(name, database_connection)
    if found:
        raise CommandExecutionError(f"There is a cell {name} already: {found['uuid']}.")
    with _urls(transport_url, database_connection) as (config, arguments):
        out = _manage(
            "cell_v2",
            "create_cell",
            "--verbose",
            f"--name={name}",
            *arguments,
            config=config,
            timeout=timeout,
            held=held,
        )
    return out.split()[-1]


def update_cell(
    uuid: str,
    name: str | None = None,
    transport_url: str | None = None,
    database_connection: str | None = None,
    timeout: int = 120,
    held=None,
) -> bool:
    """
    Set a cell's name and URLs. Running services see new URLs after a restart.

    nova-manage replaces an URL that is left out by nova.conf's, which for cell0 is the wrong one:
    both are always passed, here the stored one by default.

    uuid : str
        The cell's.
    name : str
        None keeps it.
    transport_url, database_connection : str
        URLs or templates; None keeps what is stored.
    timeout : int
        Seconds after which nova-manage is killed.
    held
        The site's lock (nova_db.lock): nova-manage is killed when it is lost.

    Exit codes: 0 done; 1 no such cell; 2 not saved; 3 another cell has one of the URLs.

    CLI Example::

        salt ctl1 nova_manage.update_cell 5b4a… name=cell1
    """
    row = _cell(uuid)
    transport_url = transport_url or row["transport_url"]
    database_connection = database_connection or row["database_connection"]
    named = [f"--name={name}"] if name else []
    with _urls(transport_url, database_connection) as (config, arguments):
        _manage(
            "cell_v2",
            "update_cell",
            f"--cell_uuid={uuid}",
            *named,
            *arguments,
            config=config,
            timeout=timeout,
            held=held,
        )
    return True


def delete_cell(uuid: str, force: bool = False, timeout: int = 120) -> bool:
    """
    Delete a cell's mapping.

    uuid : str
        The cell's.
    force : bool
        Delete the mappings of its hosts and of deleted instances too; one with living instances is
        never deleted.
    timeout : int
        Seconds after which nova-manage is killed.

    Exit codes: 0 deleted; 1 no such cell; 2 hosts are mapped; 3 instances live in it; 4 mappings of
    deleted instances are left.

    CLI Example::

        salt ctl1 nova_manage.delete_cell 5b4a…
    """
    forced = ["--force"] if force else []
    _manage("cell_v2", "delete_cell", f"--cell_uuid={uuid}", *forced, timeout=timeout)
    return True


def delete_host(cell_uuid: str, host: str, timeout: int = 120) -> bool:
    """
    Delete a host's mapping. The scheduler sees it after SIGHUP or a restart.

    cell_uuid : str
        The cell's that the host is mapped to.
    host : str
        Nova's name of the host.
    timeout : int
        Seconds after which nova-manage is killed.

    Exit codes: 0 deleted; 1 no such cell; 2 the host is not mapped; 3 it is mapped to another cell;
    4 instances live on it.

    CLI Example::

        salt ctl1 nova_manage.delete_host 5b4a… cmp9
    """
    _manage("cell_v2", "delete_host", f"--cell_uuid={cell_uuid}", f"--host={host}", timeout=timeout)
    return True


def discover_hosts(by_service: bool = False, timeout: int = 300, held=None) -> bool:
    """
    Map all hosts that registered to their cells.

    by_service : bool
        Go by the nova-compute services, not by compute nodes that are not flagged as mapped: this
        also finds a host whose mapping was lost.
    timeout : int
        Seconds after which nova-manage is killed.
    held
        The site's lock (nova_db.lock): two discoveries must not run at once.

    Exit codes: 0 done; 2 (Stein: 1) another discovery mapped the same host meanwhile.

    CLI Example::

        salt ctl1 nova_manage.discover_hosts
    """
    arguments = ["--by-service"] if by_service else []
    _manage("cell_v2", "discover_hosts", *arguments, timeout=timeout, held=held)
    return True


def code_and_schema() -> dict[str, str | None]:
    """
    What an upgrade check depends on: the newest schema revisions of the installed code and those of
    the databases.

    CLI Example::

        salt ctl1 nova_manage.code_and_schema
    """
    state = {}
    for which in ("api", "main", "placement"):
        state[f"{which} code"] = schema_head(which)
        state[f"{which} schema"] = schema_version(which)
    for path in sorted(found for root in PACKAGES for found in glob.glob(f"{root}/nova-*-info")):
        state["nova"] = os.path.basename(path).removeprefix("nova-").rpartition(".")[0]
    return state


def upgrade_check(timeout: int = 300) -> list[dict[str, str]]:
    """
    What ``nova-status upgrade check`` finds: a list of check, result and details.

    timeout : int
        Seconds after which nova-status is killed.

    Exit codes: 0 all well; 1 warnings; 2 a failure, which is no error of this function; 255 the
    check itself failed.

    CLI Example::

        salt ctl1 nova_manage.upgrade_check
    """
    code, out, err = _run("nova", ["nova-status", "upgrade", "check"], timeout)
    if code not in (OK, UPGRADE_CHECK_WARNING, UPGRADE_CHECK_FAILURE) or "Check:" not in out:
        cause = _cause(err) or _cause(out) or "it printed nothing"
        raise _failure(f"nova-status upgrade check failed with code {code}: {cause}", code)
    checks: list[dict[str, str]] = []
    for line in out.splitlines():
        text = line.strip().strip("|").strip()
        field, colon, value = text.partition(": ")
        if colon and field in ("Check", "Result", "Details"):
            if field == "Check":
                checks.append({})
            checks[-1][field.lower()] = value
        elif checks and checks[-1].get("details") and text and not text.startswith("+-"):
            checks[-1]["details"] += f" {text}"
    return checks


def _failure(message: str, info: int | str | None) -> CommandExecutionError:
    # Handed to the constructor, Salt would write it below the sentence.
    failure = CommandExecutionError(message)
    failure.info = info
    return failure


def _query(statement: str, connection: dict) -> list[dict[str, Any]]:
    return __salt__["nova_database.query"](statement, connection=connection)


def _url(section: str, option: str = "connection", path: str | None = None) -> str:
    path = path or NOVA_CONF
    url = __utils__["nova_conf.option"](path, section, option)
    if not url or not urlsplit(url).netloc:
        raise CommandExecutionError(
            f"{path} has no URL in [{section}] {option}: apply nova.controller.config first."
        )
    return url


def _config(which: str) -> dict[str, Any]:
    path, section = _SCHEMAS[which]
    url = _url(section, path=path)
    return __utils__["nova_db.from_url"](url, f"[{section}] connection of {path}")


def _cells(connection: dict | None = None) -> list[dict[str, Any]]:
    rows = _query(
        "SELECT uuid, name, transport_url, database_connection, disabled FROM cell_mappings "
        "ORDER BY id",
        connection or _config("api"),
    )
    return [{**row, "disabled": bool(row["disabled"])} for row in rows]


def _cell(uuid: str, connection: dict | None = None) -> dict[str, Any]:
    for cell in _cells(connection):
        if cell["uuid"] == uuid:
            return cell
    what = "cell0 is not mapped" if uuid == CELL0 else f"There is no cell {uuid}"
    raise _failure(f"{what}: apply nova.controller.schema.", ABSENT)


def _shown(cell: dict[str, Any]) -> dict[str, Any]:
    return {
        "uuid": cell["uuid"],
        "name": cell["name"],
        "disabled": cell["disabled"],
        "database": _database_of(cell["database_connection"]),
        "database_connection": _masked(cell["database_connection"]),
        "transport_url": _masked(cell["transport_url"]),
    }


def _masked(url: str) -> str:
    return __utils__["nova_url.mask"](url) if _holds_secret(url) else url


def _holds_secret(url: str) -> bool:
    """Whether anything but fields of a template stands where credentials do."""
    credentials = re.sub(r"\{\w+\}", "", url).rpartition("@")[0].partition("://")[2]
    return bool(credentials.strip(":@,[]"))


def _rendered(url: str) -> dict[str, Any]:
    rendered = url
    if __utils__["nova_url.is_template"](url):
        rendered = __utils__["nova_url.render"](url, _url("database"))
    return __utils__["nova_db.from_url"](rendered)


def _database_of(url: str) -> str | None:
    """Where a cell's database is, ``host:port/name``; None when that cannot be told here."""
    try:
        parts = _rendered(url)
    except (CommandExecutionError, ValueError):
        return None
    return f"{parts['host']}:{parts['port'] or 3306}/{parts['database']}"


def _cell_database(cell: dict[str, Any]) -> dict[str, Any]:
    what = f"database_connection of the cell {cell['name']} ({cell['uuid']})"
    try:
        return {**_rendered(cell["database_connection"]), "what": what}
    except ValueError as exc:
        raise CommandExecutionError(
            f"The {what} is no URL that this node can use: apply nova.controller.schema, which "
            "repairs it."
        ) from exc


def _netloc_template(netloc: str, number: str = "") -> str:
    userinfo, _, hostport = netloc.rpartition("@")
    fields = ""
    if userinfo:
        fields = f"{{username{number}}}"
        fields += f":{{password{number}}}@" if ":" in userinfo else "@"
    six = hostport.startswith("[")
    fields += f"[{{hostname{number}}}]" if six else f"{{hostname{number}}}"
    if re.search(r":\d+$", hostport):
        # Of several hosts nova takes what follows the bracket for the port, its colon too.
        fields += f"{{port{number}}}" if six and number else f":{{port{number}}}"
    return fields


@contextlib.contextmanager
def _urls(transport_url: str, database_connection: str) -> Iterator[tuple[str | None, list[str]]]:
    """
    A configuration file, for URLs with secrets, and arguments, for the others.

    nova-manage takes an URL that is no argument from its configuration.
    """
    sections, arguments = [], []
    for section, option, argument, url in (
        ("DEFAULT", "transport_url", "--transport-url", transport_url),
        ("database", "connection", "--database_connection", database_connection),
    ):
        if _holds_secret(url):
            sections.append(f"[{section}]\n{option} = {url.replace('$', '$$')}\n")
        else:
            arguments.append(f"{argument}={url}")
    if not sections:
        yield None, arguments
        return
    descriptor, path = tempfile.mkstemp(prefix="nova-manage-", suffix=".conf")
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            if os.geteuid() == 0:
                os.fchown(descriptor, 0, _account("nova").pw_gid)
            os.fchmod(descriptor, 0o640)
            stream.writelines(sections)
        yield path, arguments
    finally:
        os.unlink(path)


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError as exc:
        raise CommandExecutionError(
            f"There is no user {user} here: apply nova.controller.package first."
        ) from exc


def _manage(
    *args: str,
    program: str = "nova-manage",
    user: str = "nova",
    config: str | None = None,
    timeout: int,
    held=None,
) -> str:
    # A --config-file replaces the default ones, so nova.conf is named with it.
    files = [f"--config-file={path}" for path in (NOVA_CONF, config)] if config else []
    command = f"{program} {args[0]} {args[1]}"
    code, out, err = _run(user, [program, *files, *args], timeout, held)
    if code != OK:
        meaning = _MEANINGS.get(f"{args[0]} {args[1]}", {}).get(code)
        if code == USAGE and "usage:" in err:
            meaning = "it does not know these arguments"
        cause = _cause(out) or _cause(err) or "it printed nothing"
        raise _failure(
            f"{command} failed with code {code}{f' ({meaning})' if meaning else ''}: {cause}", code
        )
    return out


def _cause(output: str) -> str:
    """The last line of a program's output that says something, masked."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not _NOISE.match(line)]
    return __utils__["nova_url.mask"](lines[-1]) if lines else ""


def _run(user: str, argv: list[str], timeout: int, held=None) -> tuple[int, str, str]:
    account = _account(user)
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        groups = os.getgrouplist(user, account.pw_gid)
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
    # Looked up here: between fork and exec nothing may be done that takes a lock.
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def die_with_parent() -> None:
        # Runs after the change of user, which would reset it.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    log.info("Running as %s: %s", user, " ".join(argv))
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            cwd="/",
            env={"PATH": PATH, "LANG": "C.UTF-8", "HOME": account.pw_dir},
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509
            **identity,
        )
    except FileNotFoundError as exc:
        raise CommandExecutionError(
            f"There is no program {argv[0]} here: apply nova.controller.package first."
        ) from exc
    except OSError as exc:
        raise CommandExecutionError(
            f"{argv[0]} cannot be run as {user}: {exc.strerror}. Run Salt as root."
        ) from exc
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                out, err = process.communicate(timeout=1)
                return process.returncode, out, err
            except subprocess.TimeoutExpired:
                if held is not None and held.lost.is_set():
                    why = "because the site's lock was lost; run the state again"
                elif time.monotonic() >= deadline:
                    why = f"because it was not done within {timeout} s; see what it waits for"
                else:
                    continue
            raise CommandExecutionError(f"{argv[0]} was killed {why}.")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
