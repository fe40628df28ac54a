"""
Schema, cells and hosts of a nova deployment.

What is there is read from the databases over PyMySQL, with the URLs of the node's own nova.conf: a
few milliseconds, against seconds for one call of nova-manage. nova-manage runs to change something
only: as the user nova, with no secret in its arguments, and it dies with the job that started it.

Functions that change something name nova-manage's exit codes; a failure raises
CommandExecutionError with the code in ``exc.info``.
"""

import glob
import hashlib
import logging
import os
import re
from typing import Any
from uuid import uuid4

from salt.exceptions import CommandExecutionError, SaltInvocationError

log = logging.getLogger(__name__)

NOVA_CONF = "/etc/nova/nova.conf"
PLACEMENT_CONF = "/etc/placement/placement.conf"
#: Where distributions put Python packages; code is looked at, never imported.
PACKAGES = (
    "/usr/lib/python3*/dist-packages",
    "/usr/lib/python3*/site-packages",
    "/usr/lib/python2.7/site-packages",
)

CELL0 = "00000000-0000-0000-0000-000000000000"
CELL0_TRANSPORT = "none:///"

#: Exit codes of nova-manage; 255 is an exception that nothing caught.
OK = 0
UPGRADE_CHECK_WARNING = 1
UPGRADE_CHECK_FAILURE = 2
DB_SYNC = {1: "the database of cell0 cannot be reached"}
CREATE_CELL = {
    1: "an URL is missing or malformed",
    2: "another cell has one of these URLs",
}
UPDATE_CELL = {
    1: "there is no such cell",
    2: "the change could not be saved",
    3: "another cell has one of these URLs",
    4: "a cell cannot be disabled and enabled at once",
    5: "cell0 cannot be disabled",
}
DELETE_CELL = {
    1: "there is no such cell",
    2: "hosts are mapped to it",
    3: "instances live in it",
    4: "mappings of deleted instances are left: archive deleted rows first",
}
DELETE_HOST = {
    1: "there is no such cell",
    2: "the host is not mapped",
    3: "the host is mapped to another cell",
    4: "instances live on the host",
}
DISCOVER_HOSTS = {2: "another discovery ran at the same moment"}

#: ``exc.info`` of what is found wrong with the cells or URLs, and of a cell that is not there.
FINDING = "finding"
ABSENT = "absent"

#: Seconds without a sign of life after which nova takes a service for down (service_down_time).
SERVICE_DOWN_TIME = 60

_NO_SUCH_TABLE = 1146
#: The server's refusals of a migration that has been done in part: a table, column, key or
#: constraint that is there already, or one to drop that is not.
_DONE_IN_PART = re.compile(r"\((1050|1060|1061|1068|1091|1826), ")
_VERSION_TABLES = ("alembic_version", "migrate_version")
_REVISION = re.compile(r"^revision\b[^=]*=\s*['\"](\w+)['\"]", re.MULTILINE)
_DOWN_REVISION = re.compile(r"^down_revision\b[^=]*=\s*['\"](\w+)['\"]", re.MULTILINE)

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
    disabled: bool | None = None,
) -> dict[str, dict[str, Any]]:
    """
    In what a cell's stored row differs from what is wanted: field → old and new, masked.

    uuid : str
        The cell's.
    database_connection, transport_url, name : str
        What is wanted: URLs or templates, compared with the row as it is stored; literal URLs by
        what they mean (nova_url.same).
    disabled : bool
        Whether the scheduler passes it over; None: either.
    connection : dict
        Another way to the nova_api database than nova.conf: see nova_database.

    Raises CommandExecutionError when there is no such cell.

    CLI Example::

        salt ctl1 nova_manage.cell_drift 00000000-0000-0000-0000-000000000000 '…' none:///
    """
    row = _cell(uuid, connection)
    wanted = {"database_connection": database_connection, "transport_url": transport_url}
    drift = {
        field: {"old": _shown_url(row[field]), "new": _shown_url(url)}
        for field, url in wanted.items()
        if not __utils__["nova_url.same"](row[field], url)
    }
    if name and row["name"] != name:
        drift["name"] = {"old": row["name"], "new": name}
    if disabled is not None and row["disabled"] != disabled:
        drift["disabled"] = {"old": row["disabled"], "new": disabled}
    return drift


def database_template(database: str | None = None, server: str | None = None) -> str:
    """
    The template of a cell's database URL that follows this node's ``[database] connection``.

    database : str
        Name of another database on that server, such as ``nova_cell0``.
    server : str
        Another server, ``host:port``, that takes the same user and password.

    Raises CommandExecutionError when nova.conf has no such URL.

    CLI Example::

        salt ctl1 nova_manage.database_template nova_cell0
    """
    try:
        return __utils__["nova_url.database_template"](_url("database"), database, server)
    except ValueError as exc:
        raise _failure(f"[database] connection of {NOVA_CONF}: {exc}.", FINDING) from None


def transport_template(
    transport_url: str | None = None,
    virtual_host: str | None = None,
    servers: list[str] | None = None,
) -> str:
    """
    The template of a cell's transport URL that follows this node's ``[DEFAULT] transport_url``.

    transport_url : str
        Another URL than nova.conf's; only its form counts: how many hosts, how many slashes before
        the virtual host.
    virtual_host : str
        Another virtual host there.
    servers : list
        Other hosts, each ``host:port``, that take the same user and password.

    Raises CommandExecutionError when there is no URL, or it has a form that nova cannot render.

    CLI Example::

        salt ctl1 nova_manage.transport_template
    """
    url = transport_url or _url("DEFAULT", "transport_url")
    try:
        return __utils__["nova_url.transport_template"](url, virtual_host, servers)
    except ValueError as exc:
        raise _failure(
            f"[DEFAULT] transport_url of {NOVA_CONF} cannot be that of a cell: {exc}.", FINDING
        ) from None


def cell_urls(database: dict | None = None, messaging: dict | None = None) -> dict[str, str]:
    """
    The URLs of a cell from what it has of its own; what is not given is as in nova.conf.

    With a ``user`` of its own an URL is literal and holds the password; without one it is a
    template and holds none.

    database : dict
        ``name`` of the database, ``host``, ``port`` (3306), ``user``, and ``password_pillar`` (the
        name of a pillar key) or ``password``, ``ssl_ca``, ``ssl_cert``, ``ssl_key`` (paths).
    messaging : dict
        ``hosts``, ``port`` (5672), ``vhost``, ``user``, and ``password_pillar`` or ``password``.

    Returns ``database_connection`` and ``transport_url``, unmasked.

    Raises SaltInvocationError when a user has no password or no host.

    CLI Example::

        salt ctl1 nova_manage.cell_urls '{name: nova_cell2}' '{vhost: cell2}'
    """
    database, messaging = database or {}, messaging or {}
    servers = [
        f"{_bracketed(host)}:{messaging.get('port', 5672)}" for host in messaging.get("hosts", ())
    ]
    server = database.get("host") and f"{_bracketed(database['host'])}:{database.get('port', 3306)}"
    encode = __utils__["nova_url.encode"]
    if messaging.get("user"):
        credentials = _credentials(messaging, "messaging", servers)
        vhost = messaging.get("vhost", "/")
        transport = (
            "rabbit://"
            + ",".join(f"{credentials}@{each}" for each in servers)
            + "/"
            + ("" if vhost == "/" else encode(vhost))
        )
    else:
        transport = transport_template(virtual_host=messaging.get("vhost"), servers=servers or None)
    if database.get("user"):
        query = "?charset=utf8" + "".join(
            f"&{name}={encode(database[name])}"
            for name in ("ssl_ca", "ssl_cert", "ssl_key")
            if database.get(name)
        )
        connection = (
            f"mysql+pymysql://{_credentials(database, 'database', server)}@{server}"
            f"/{database['name']}{query}"
        )
    else:
        connection = database_template(database.get("name"), server)
    return {"database_connection": connection, "transport_url": transport}


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


def list_services() -> list[dict[str, Any]]:
    """
    The services of all cells that report, from their databases; the APIs are none.

    Returns for each: binary, host, cell (its name), cell_uuid, disabled, forced_down, up, silent
    (the seconds since it was last heard of) and reports (how often it was heard of).

    Raises CommandExecutionError when a cell's database cannot be read.

    CLI Example::

        salt ctl1 nova_manage.list_services
    """
    services = []
    for cell in _cells():
        if cell["uuid"] == CELL0:
            continue
        for row in _query(
            "SELECT `binary`, host, disabled, forced_down, report_count, TIMESTAMPDIFF(SECOND, "
            "COALESCE(last_seen_up, updated_at, created_at), UTC_TIMESTAMP()) AS silent "
            "FROM services WHERE deleted = 0 AND `binary` NOT IN ('nova-osapi_compute', "
            "'nova-metadata') ORDER BY host, `binary`",
            _cell_database(cell),
        ):
            silent = int(row["silent"] or 0)
            services.append(
                {
                    "binary": row["binary"],
                    "host": row["host"],
                    "cell": cell["name"],
                    "cell_uuid": cell["uuid"],
                    "disabled": bool(row["disabled"]),
                    "forced_down": bool(row["forced_down"]),
                    "up": silent <= SERVICE_DOWN_TIME and not row["forced_down"],
                    "silent": silent,
                    "reports": row["report_count"],
                }
            )
    return services


def compute_services() -> list[dict[str, Any]]:
    """
    The nova-compute services of all cells; see :func:`list_services`.

    CLI Example::

        salt ctl1 nova_manage.compute_services
    """
    return [service for service in list_services() if service["binary"] == "nova-compute"]


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
        ``api``, ``main``, ``cell0``, ``placement``, or the uuid of another cell.
    connection : dict
        Another way to that database than the node's configuration: see nova_database.

    Raises CommandExecutionError when the database cannot be read.

    CLI Example::

        salt ctl1 nova_manage.schema_version api
    """
    connection = connection or _database(which)
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
        for path in _migrations(folder):
            number = re.match(r"(\d{3})_", os.path.basename(path))
            if number:
                numbers.add(int(number[1]))
                continue
            text = _read(path)
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

    What a sync that was killed in the database's first migration left behind, after which every
    further one fails, is taken away first, if ``held`` and no table has a row.

    timeout : int
        Seconds after which nova-manage is killed.
    held
        The site's lock (nova_db.lock): nova-manage is killed when it is lost.

    Exit codes: 0 done; 255 (Stein: 1) any failure.

    CLI Example::

        salt ctl1 nova_manage.api_db_sync
    """
    return _sync(["api"], "api_db", "sync", timeout=timeout, held=held)


def db_sync(timeout: int = 900, held=None, cell: str | None = None) -> bool:
    """
    Bring cell0's and then the main database to the schema of the installed code.

    What a killed sync left behind is mended as by api_db_sync.

    timeout : int
        Seconds after which nova-manage is killed.
    held
        The site's lock (nova_db.lock): nova-manage is killed when it is lost.
    cell : str
        The uuid of another cell: its database alone.

    Exit codes: 0 done, also when cell0 is not mapped and was left out, and in Stein when it could
    not be reached: compare schema_version afterwards; 1 cell0 unreachable; 255 any failure.

    CLI Example::

        salt ctl1 nova_manage.db_sync
    """
    options = {"failures": DB_SYNC, "timeout": timeout, "held": held}
    if not cell:
        return _sync(["cell0", "main"], "db", "sync", **options)
    url = _cell(cell)["database_connection"]
    config = _section("database", "connection", __utils__["nova_url.render"](url, _url("database")))
    return _sync([cell], "db", "sync", "--local_cell", config=config, **options)


def placement_db_sync(timeout: int = 900, held=None) -> bool:
    """
    Bring Placement's database to the schema of the installed code.

    What a killed sync left behind is mended as by api_db_sync.

    timeout : int
        Seconds after which placement-manage is killed.
    held
        The site's lock (nova_db.lock): placement-manage is killed when it is lost.

    Exit codes: 0 done; 1 any failure.

    CLI Example::

        salt ctl1 nova_manage.placement_db_sync
    """
    options = {"program": "placement-manage", "user": "placement", "timeout": timeout, "held": held}
    return _sync(["placement"], "db", "sync", **options)


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
    secret = __utils__["nova_url.holds_secret"](wanted)
    url = database_template("nova_cell0") if secret else wanted
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
    disabled: bool = False,
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
    disabled : bool
        Whether the scheduler is to pass it over.

    Exit codes: 0 created; 1 an URL is missing or malformed; 2 another cell has the same URL.

    CLI Example::

        salt ctl1 nova_manage.create_cell cell1
    """
    transport_url = transport_url or transport_template()
    database_connection = database_connection or database_template()
    found = find_cell(name, database_connection)
    if found:
        raise CommandExecutionError(f"There is a cell {name} already: {found['uuid']}.")
    if _secret(transport_url, database_connection):
        uuid = str(uuid4())
        row = {"name": name, "disabled": disabled}
        _write_cell(uuid, {**row, **_both(transport_url, database_connection)}, new=True)
        return uuid
    _, out = _manage(
        *("cell_v2", "create_cell", "--verbose", f"--name={name}"),
        *(["--disabled"] if disabled else []),
        *_arguments(transport_url, database_connection),
        failures=CREATE_CELL,
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
    disabled: bool | None = None,
) -> bool:
    """
    Set a cell's name and URLs, and whether it is disabled. Running services see new URLs, and the
    scheduler that a cell is disabled, after a restart.

    nova-manage replaces an URL that is left out by nova.conf's, which for cell0 is the wrong one:
    both are always passed, here the stored one by default. URLs that hold secrets go to the row
    itself: nova-manage has no other safe way for them.

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
    disabled : bool
        Whether the scheduler is to pass it over; None keeps it.

    Exit codes: 0 done; 1 no such cell; 2 not saved; 3 another cell has one of the URLs; 4 both
    disabled and enabled, which this function never asks for; 5 cell0 cannot be disabled.

    CLI Example::

        salt ctl1 nova_manage.update_cell 5b4a… name=cell1
    """
    row = _cell(uuid)
    transport_url = transport_url or row["transport_url"]
    database_connection = database_connection or row["database_connection"]
    if _secret(transport_url, database_connection):
        row = {
            "name": name or row["name"],
            "disabled": row["disabled"] if disabled is None else disabled,
        }
        _write_cell(uuid, {**row, **_both(transport_url, database_connection)})
        return True
    arguments = [f"--name={name}"] if name else []
    if disabled is not None and disabled != row["disabled"]:
        arguments.append("--disable" if disabled else "--enable")
    _manage(
        *("cell_v2", "update_cell", f"--cell_uuid={uuid}", *arguments),
        *_arguments(transport_url, database_connection),
        failures=UPDATE_CELL,
        timeout=timeout,
        held=held,
    )
    return True


def delete_cell(uuid: str, force: bool = False, timeout: int = 120, held=None) -> bool:
    """
    Delete a cell's mapping.

    uuid : str
        The cell's.
    force : bool
        Delete the mappings of its hosts and of deleted instances too; one with living instances is
        never deleted.
    timeout : int
        Seconds after which nova-manage is killed.
    held
        The site's lock (nova_db.lock): nova-manage is killed when it is lost.

    Exit codes: 0 deleted; 1 no such cell; 2 hosts are mapped; 3 instances live in it; 4 mappings of
    deleted instances are left.

    CLI Example::

        salt ctl1 nova_manage.delete_cell 5b4a…
    """
    forced = ["--force"] if force else []
    _manage(
        *("cell_v2", "delete_cell", f"--cell_uuid={uuid}", *forced),
        failures=DELETE_CELL,
        timeout=timeout,
        held=held,
    )
    return True


def delete_host(cell_uuid: str, host: str, timeout: int = 120, held=None) -> bool:
    """
    Delete a host's mapping. The scheduler sees it after SIGHUP or a restart.

    cell_uuid : str
        The cell's that the host is mapped to.
    host : str
        Nova's name of the host.
    timeout : int
        Seconds after which nova-manage is killed.
    held
        The site's lock (nova_db.lock): nova-manage is killed when it is lost.

    Exit codes: 0 deleted; 1 no such cell; 2 the host is not mapped; 3 it is mapped to another cell;
    4 instances live on it.

    CLI Example::

        salt ctl1 nova_manage.delete_host 5b4a… cmp9
    """
    _manage(
        *("cell_v2", "delete_host", f"--cell_uuid={cell_uuid}", f"--host={host}"),
        failures=DELETE_HOST,
        timeout=timeout,
        held=held,
    )
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
    _manage(
        *("cell_v2", "discover_hosts", *arguments),
        failures=DISCOVER_HOSTS,
        timeout=timeout,
        held=held,
    )
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
    code, out, err = __utils__["nova_program.run"](
        "nova", ["nova-status", "upgrade", "check"], timeout
    )
    if code not in (OK, UPGRADE_CHECK_WARNING, UPGRADE_CHECK_FAILURE) or "Check:" not in out:
        said = __utils__["nova_program.cause"]
        cause = said(err) or said(out) or "it printed nothing"
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
    return __utils__["nova_program.failure"](message, info)


def _manage(*args: str, **kwargs) -> tuple[int, str]:
    return __utils__["nova_program.manage"](*args, **kwargs)


def _query(statement: str, connection: dict, values: list | None = None) -> list[dict[str, Any]]:
    return __salt__["nova_database.query"](statement, values, connection=connection)


def _url(section: str, option: str = "connection", path: str | None = None) -> str:
    path = path or NOVA_CONF
    url = __utils__["nova_conf.option"](path, section, option)
    if not re.search("://[^/?#]", url or ""):
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
        "database_connection": _shown_url(cell["database_connection"]),
        "transport_url": _shown_url(cell["transport_url"]),
    }


def _shown_url(url: str) -> str:
    return __utils__["nova_url.shown"](url)


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
    return f"{parts['host'].lower()}:{parts['port'] or 3306}/{parts['database']}"


def _database(which: str) -> dict[str, Any]:
    """The way to a database of nova's: one of nova.conf's, or that of a cell."""
    if which in _SCHEMAS:
        return _config(which)
    return _cell_database(_cell(CELL0 if which == "cell0" else which))


def _cell_database(cell: dict[str, Any]) -> dict[str, Any]:
    what = f"database_connection of the cell {cell['name']} ({cell['uuid']})"
    try:
        return {**_rendered(cell["database_connection"]), "what": what}
    except (CommandExecutionError, ValueError) as exc:
        raise CommandExecutionError(
            f"The {what} is no URL that this node can use: apply nova.controller.schema, which "
            "repairs it."
        ) from exc


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _credentials(given: dict, what: str, servers: list[str] | str | None) -> str:
    """``user:password`` of a cell's own database or messaging, for an URL."""
    key = given.get("password_pillar")
    password = given.get("password")
    if key:
        password = __utils__["nova_secret.value"](__pillar__, key, __opts__)
    if not password or not servers:
        raise SaltInvocationError(
            f"The cell's {what} has a user of its own: it needs a host and a password too."
        )
    encode = __utils__["nova_url.encode"]
    return f"{encode(given['user'])}:{encode(str(password))}"


def _section(name: str, option: str, value: str) -> str:
    return f"[{name}]\n{option} = {value.replace('$', '$$')}\n"


def _both(transport_url: str, database_connection: str) -> dict[str, str]:
    return {"transport_url": transport_url, "database_connection": database_connection}


def _arguments(transport_url: str, database_connection: str) -> list[str]:
    return [f"--transport-url={transport_url}", f"--database_connection={database_connection}"]


def _secret(*urls: str) -> bool:
    return any(__utils__["nova_url.holds_secret"](url) for url in urls)


def _write_cell(uuid: str, row: dict[str, Any], new: bool = False) -> None:
    """
    Write the row of a cell whose URLs hold secrets.

    nova-manage takes an URL as an argument, which everybody sees, or from its configuration. From
    that one it renders the templates of the other cells too, and refuses the URL as one of theirs.
    """
    columns = ", ".join(f"{column} = %s" for column in row)
    statement = (
        f"INSERT INTO cell_mappings SET {columns}, created_at = UTC_TIMESTAMP(), uuid = %s"
        if new
        else f"UPDATE cell_mappings SET {columns}, updated_at = UTC_TIMESTAMP() WHERE uuid = %s"
    )
    for url in (row["transport_url"], row["database_connection"]):
        # An URL that nova could not read must not get there.
        try:
            __utils__["nova_url.check"](url)
        except ValueError as exc:
            raise _failure(
                f"An URL of the cell {row['name']} cannot be used: {exc}.", FINDING
            ) from None
    __salt__["nova_database.query"](
        statement,
        [*row.values(), uuid],
        connection=_config("api"),
        secrets=[row["transport_url"], row["database_connection"]],
    )


def _sync(schemas: list[str], *args: str, held, **options) -> bool:
    try:
        _manage(*args, held=held, **options)
    except CommandExecutionError as exc:
        if not _DONE_IN_PART.search(str(exc)):
            raise
        behind = [which for which in schemas if _behind(which)]
        for which in behind:
            _clear(which, exc, held)
        if not behind:
            raise
        _manage(*args, held=held, **options)
    return True


def _behind(which: str) -> bool:
    code = which if which in _VERSIONS else "main"
    return schema_version(which) != schema_head(code)


def _clear(which: str, failed: CommandExecutionError, held) -> None:
    """
    Drop the tables that a sync which was cut off within a migration left, where that is safe.

    MariaDB and MySQL commit each statement of a migration, but its version is written at the end:
    the next sync begins it again, finds its tables there, and fails for ever. Where no table of
    the database has a row, nothing is lost with them.
    """
    connection = _database(which)
    rows = _query(
        "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = %s",
        connection,
        [connection["database"]],
    )
    tables = [row["name"] for row in rows]
    why = None
    code = which if which in _VERSIONS else "main"
    texts = "".join(_read(path) for folder in _VERSIONS[code] for path in _migrations(folder))
    known = {*_VERSION_TABLES, *re.findall(r"['\"](\w+)['\"]", texts)}
    foreign = [name for name in tables if name.removeprefix("shadow_") not in known]
    if foreign:
        why = f"{', '.join(foreign[:3])} is none of nova's tables"
    filled = [
        name for name in tables if name not in _VERSION_TABLES and _has_rows(name, connection)
    ]
    if filled:
        why = f"{', '.join(filled[:3])} holds rows"
    if held is None:
        why = "this call holds no lock; the state nova_schema does"
    if why:
        raise _failure(
            f"{failed} An earlier sync was cut off within a migration. The tables of "
            f"{connection['database']} are not dropped, for {why}: restore the database as it was "
            "before that sync, or finish that migration by hand.",
            failed.info,
        ) from failed
    log.warning(
        "Dropping the %d empty tables that a sync which was cut off left in %s",
        len(tables),
        connection["database"],
    )
    _query("SET SESSION foreign_key_checks = 0", connection)
    try:
        for name in tables:
            _query(f"DROP TABLE `{name}`", connection)
    finally:
        _query("SET SESSION foreign_key_checks = 1", connection)


def _migrations(folder: str) -> list[str]:
    return sorted(found for root in PACKAGES for found in glob.glob(f"{root}/{folder}/*.py"))


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read()


def _has_rows(table: str, connection: dict) -> bool:
    return bool(_query(f"SELECT 1 FROM `{table}` LIMIT 1", connection))
