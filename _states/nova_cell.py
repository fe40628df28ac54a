"""
Cells of a nova deployment, and the hosts in them.

What is due is done once in the site, by whichever controller comes first, under the site's lock.
``connection`` (an administrator's, as nova_database takes it) is used in test mode only, to look
where nova.conf or its database user is not there yet.
"""

import json
import logging
import time
from typing import Any

import salt.utils.files
from salt.exceptions import CommandExecutionError, SaltInvocationError

log = logging.getLogger(__name__)

_FAILURES = (CommandExecutionError, SaltInvocationError)
_CELL0 = "00000000-0000-0000-0000-000000000000"
_CELL0_TRANSPORT = "none:///"
#: What a node where nothing was installed yet answers in test mode: no configuration or library,
#: then the server's refusals of an unknown database, user, host or table.
_NOT_YET = (None, 1044, 1045, 1049, 1130, 1146)
_NO_SUCH_DATABASE, _NO_SUCH_TABLE = 1049, 1146
_DISCOVERY_COLLIDED = 2
_CANNOT_CONNECT = 2003
#: Seconds between two words about what a wait waits for.
_REPORT = 30


def __virtual__():
    if "nova_manage.list_cells" in __salt__:
        return True
    return False, "The module nova_manage is not loaded: run saltutil.sync_all."


def cell0_mapped(
    name: str = "cell0",
    database: str = "nova_cell0",
    database_connection: str | None = None,
    site_lock: dict | None = None,
    api_database: str = "nova_api",
    connection: dict | None = None,
) -> dict[str, Any]:
    """
    cell0 is mapped, with this database and no messaging.

    name : str
        The cell's name.
    database : str
        Name of its database, next to the main one.
    database_connection : str
        URL or template; by default the template that follows nova.conf's ``[database] connection``
        with this database (nova_manage.database_template).
    site_lock : dict
        Arguments of nova_db.lock: ``{name: shanghai, timeout: 900}``.
    api_database, connection
        Where to look in test mode: see the module's head.

    .. code-block:: yaml

        cell0:
          nova_cell.cell0_mapped:
            - site_lock: {name: shanghai}
    """
    preview = _preview(connection, api_database)

    def find() -> dict | None:
        cells = _look([], preview, "list_cells")
        return next((cell for cell in cells if cell["uuid"] == _CELL0), None)

    def urls() -> dict[str, str] | None:
        url = database_connection or _template("database_template", database)
        return url and {"transport_url": _CELL0_TRANSPORT, "database_connection": url}

    def create(held) -> None:
        url = urls()["database_connection"]
        __salt__["nova_manage.map_cell0"](url, held=held)

    return _settle(name, find, urls, create, site_lock, preview)


def present(
    name: str = "cell1",
    database_connection: str | None = None,
    transport_url: str | None = None,
    site_lock: dict | None = None,
    api_database: str = "nova_api",
    connection: dict | None = None,
    database: dict | None = None,
    messaging: dict | None = None,
    disabled: bool | None = None,
    renamed_from: str | None = None,
) -> dict[str, Any]:
    """
    The cell exists, once, with these URLs.

    name : str
        The cell's name.
    database_connection, transport_url : str
        URLs or templates; by default the templates that follow nova.conf's ``[database]
        connection`` and ``[DEFAULT] transport_url``, which hold no secret and need no change when a
        password does.
    site_lock : dict
        Arguments of nova_db.lock: ``{name: shanghai, timeout: 900}``.
    api_database, connection
        Where to look in test mode: see the module's head.
    database, messaging : dict
        What the cell has of its own, as nova_manage.cell_urls takes it: a database, a virtual host,
        hosts, an account.
    disabled : bool
        Whether the scheduler passes it over; None leaves this as it is.
    renamed_from : str
        A cell of this name becomes this one.

    .. code-block:: yaml

        cell2:
          nova_cell.present:
            - database: {name: nova_cell2}
            - messaging: {vhost: cell2}
            - site_lock: {name: shanghai}
    """
    preview = _preview(connection, api_database)

    def urls() -> dict[str, str] | None:
        given = {"transport_url": transport_url, "database_connection": database_connection}
        if all(given.values()):
            return given
        own = _template("cell_urls", database, messaging)
        return own and {what: given[what] or own[what] for what in given}

    def find() -> dict | None:
        wanted = urls()
        url = wanted and wanted["database_connection"]
        if renamed_from:
            found = _look(None, preview, "find_cell", name, None)
            return found or _look(None, preview, "find_cell", renamed_from, url)
        return _look(None, preview, "find_cell", name, url)

    def create(held) -> None:
        __salt__["nova_manage.create_cell"](name, **urls(), held=held, disabled=bool(disabled))

    return _settle(name, find, urls, create, site_lock, preview, disabled)


def accounts_work(
    name: str, database: dict | None = None, messaging: dict | None = None
) -> dict[str, Any]:
    """
    The accounts with which a cell's database and RabbitMQ are used work. Nothing is changed.

    name : str
        The cell's.
    database, messaging : dict
        As for :func:`present`, with a ``user`` and where it logs in. In test mode the database is
        not tried: the run may have to make it.

    .. code-block:: yaml

        nova-controller-proof-cell-cell2:
          nova_cell.accounts_work:
            - name: cell2
            - messaging: {hosts: [mq], vhost: cell2, user: nova, password_pillar: nova:passwords:…}
    """
    ret: dict[str, Any] = {"name": name, "result": False, "comment": "", "changes": {}}
    try:
        urls = __salt__["nova_manage.cell_urls"](database, messaging)
        if __opts__["test"]:
            del urls["database_connection"]
        found = __salt__["nova_login.fault_of_cell"](urls, f"the cell {name}")
    except _FAILURES as exc:
        return ret | {"comment": getattr(exc, "error", str(exc))}
    if found:
        return ret | {"comment": found}
    return ret | {"result": True, "comment": f"The accounts of the cell {name} work."}


def absent(
    name: str,
    site_lock: dict | None = None,
    api_database: str = "nova_api",
    connection: dict | None = None,
) -> dict[str, Any]:
    """
    The cell does not exist. One with hosts or instances is not deleted; its database stays.

    name : str
        The cell's name.
    site_lock : dict
        Arguments of nova_db.lock: ``{name: shanghai, timeout: 900}``.
    api_database, connection
        Where to look in test mode: see the module's head.

    .. code-block:: yaml

        cell2:
          nova_cell.absent:
            - site_lock: {name: shanghai}
    """
    preview = _preview(connection, api_database)

    def find() -> dict | None:
        cell = _look(None, preview, "find_cell", name)
        rows = _look([], preview, "list_hosts") if cell else []
        hosts = [row["host"] for row in rows if row["cell_uuid"] == cell["uuid"]]
        if hosts:
            raise CommandExecutionError(
                f"The cell {name} has hosts: {', '.join(hosts)}. Remove them first "
                "(nova_cell.host_absent)."
            )
        return cell

    def delete(cell: dict, held) -> None:
        __salt__["nova_manage.delete_cell"](cell["uuid"], held=held)

    return _removed(f"The cell {name}", name, find, delete, site_lock)


def host_absent(
    name: str,
    site_lock: dict | None = None,
    api_database: str = "nova_api",
    connection: dict | None = None,
) -> dict[str, Any]:
    """
    The host is mapped to no cell. One with instances stays; the scheduler knows after a restart.

    name : str
        Nova's name of the host, whose nova-compute service is deleted already: a discovery maps a
        host that is registered again.
    site_lock : dict
        Arguments of nova_db.lock: ``{name: shanghai, timeout: 900}``.
    api_database, connection
        Where to look in test mode: see the module's head.

    .. code-block:: yaml

        cmp9:
          nova_cell.host_absent:
            - site_lock: {name: shanghai}
    """
    preview = _preview(connection, api_database)

    def find() -> dict | None:
        rows = _look([], preview, "list_hosts")
        return next((row for row in rows if row["host"] == name), None)

    def delete(row: dict, held) -> None:
        __salt__["nova_manage.delete_host"](row["cell_uuid"], name, held=held)

    return _removed(f"The host {name}", f"host {name}", find, delete, site_lock)


def recorded(name: str) -> dict[str, Any]:
    """
    A file of this node tells which cells there are, so that daemons that started before the last
    change of a cell can be told from the others: they are to be restarted.

    name : str
        Path of the file; it holds digests, no URL.

    .. code-block:: yaml

        /var/lib/nova/cells.json:
          nova_cell.recorded
    """
    ret: dict[str, Any] = {"name": name, "result": True, "comment": "", "changes": {}}
    try:
        there = _look({}, None, "cell_versions")
    except _FAILURES as exc:
        return ret | {"result": False, "comment": str(exc)}
    before = _recorded(name)
    if before != there:
        ret["changes"]["cells"] = {"old": before, "new": there}
    elif __opts__["test"] and _cells_would_change():
        ret["changes"]["cells"] = {"old": before, "new": "what this run makes of them"}
    if not ret["changes"]:
        return ret | {"comment": "The cells are those that were recorded."}
    if __opts__["test"]:
        return ret | {"result": None, "comment": "The cells would be recorded."}
    try:
        written = __utils__["nova_file.replace"](name, json.dumps(there))
    except _FAILURES as exc:
        return ret | {"result": False, "changes": {}, "comment": str(exc)}
    if not written:
        return ret | {"changes": {}, "comment": "Another run has recorded the cells meanwhile."}
    return ret | {"comment": "The cells were recorded."}


def _recorded(path: str) -> dict[str, str] | None:
    try:
        with salt.utils.files.fopen(path) as stream:
            return json.load(stream)
    except (FileNotFoundError, ValueError):
        return None


def _cells_would_change() -> bool:
    return any(
        tag.startswith("nova_cell_|-") and ret.get("changes") for tag, ret in __running__.items()
    )


def hosts_discovered(
    name: str,
    expected: list[str] | None = None,
    timeout: int = 600,
    interval: float = 3,
    site_lock: dict | None = None,
    api_database: str = "nova_api",
    connection: dict | None = None,
) -> dict[str, Any]:
    """
    The expected hosts are mapped to their cells, and so is every other host that registered.

    It waits, without the lock, until each expected host that is not mapped has registered its
    nova-compute, then maps all of them at once. A mapped host that is down is reported, no more.

    name : str
        Any text.
    expected : list
        Nova's names of the hosts.
    timeout, interval : int
        Seconds to wait at most, and between two looks.
    site_lock : dict
        Arguments of nova_db.lock: ``{name: shanghai, timeout: 900}``.
    api_database, connection
        Where to look in test mode: see the module's head.

    .. code-block:: yaml

        nova-controller-discovery:
          nova_cell.hosts_discovered:
            - expected: [cmp1, cmp2]
            - site_lock: {name: shanghai}
    """
    ret: dict[str, Any] = {"name": name, "result": False, "comment": "", "changes": {}}
    expected = sorted(set(expected or ()))
    preview = _preview(connection, api_database)
    try:
        mapped, services = _hosts(preview)
        if not _unmapped(mapped, services, expected):
            comment = "All expected hosts are mapped." + _down(services, mapped)
            return ret | {"result": True, "comment": comment}
        if __opts__["test"]:
            changes = _mappings(_unmapped(mapped, services, expected))
            return ret | {"result": None, "changes": changes, "comment": "Hosts would be mapped."}
        _wait(expected, timeout, interval)
        if _unmapped(*_hosts()):
            with __utils__["nova_db.lock"](**(site_lock or {"name": "site"})) as held:
                _discover(held, ret["changes"])
        mapped, services = _hosts()
        missing = _unmapped(mapped, services, expected)
    except _FAILURES as exc:
        return ret | {"comment": getattr(exc, "error", str(exc))}
    registered = {service["host"] for service in services}
    absent = [host for host in missing if host not in registered]
    if absent:
        comment = (
            f"Within {timeout} s no nova-compute registered as {', '.join(absent)} (registered: "
            f"{', '.join(sorted(registered)) or 'none'}). Look at nova-compute's log there, or "
            "correct nova:topology:expected_computes: it takes the names that nova knows."
        )
        return ret | {"comment": comment}
    if missing:
        comment = f"The discovery ended well, but these hosts are not mapped: {', '.join(missing)}."
        return ret | {"comment": comment}
    done = "Hosts were mapped." if ret["changes"] else "Another controller mapped the hosts."
    return ret | {"result": True, "comment": done + _down(services, mapped)}


def _try_accounts(name: str, urls: dict[str, str], changes: dict[str, dict]) -> None:
    """An account that a running cell is to use works, or the cell keeps the one it has."""
    new = {what: url for what, url in urls.items() if f"{name} {what}" in changes}
    found = __salt__["nova_login.fault_of_cell"](new, f"the cell {name}")
    if found:
        raise CommandExecutionError(f"The cell {name} stays as it is. {found}")


def _removed(what: str, label: str, find, delete, site_lock: dict | None) -> dict[str, Any]:
    """Bring one mapping to be no more: look, lock, look again, delete, look."""
    ret: dict[str, Any] = {
        "name": label.removeprefix("host "),
        "result": False,
        "comment": "",
        "changes": {},
    }
    gone = {label: {"old": "present", "new": None}}
    try:
        if find() is None:
            return ret | {"result": True, "comment": f"{what} is not there."}
        if __opts__["test"]:
            return ret | {"result": None, "changes": gone, "comment": f"{what} would be removed."}
        with __utils__["nova_db.lock"](**(site_lock or {"name": "site"})) as held:
            found = find()
            if found:
                delete(found, held)
                ret["changes"] = gone
                if find() is not None:
                    return ret | {"changes": {}, "comment": f"{what} was removed and is there."}
    except _FAILURES as exc:
        return ret | {"comment": getattr(exc, "error", str(exc))}
    return ret | {"result": True, "comment": f"{what} was removed."}


def _settle(
    name: str,
    find,
    urls,
    create,
    site_lock: dict | None,
    preview: dict | None,
    disabled: bool | None = None,
) -> dict[str, Any]:
    """Bring one cell to what ``urls`` says: look, lock, look again, act, look."""
    ret: dict[str, Any] = {"name": name, "result": False, "comment": "", "changes": {}}

    def due() -> tuple[dict | None, dict[str, dict]]:
        cell, wanted = find(), urls()
        if cell is None:
            return None, {name: {"old": None, "new": "created"}}
        if wanted is None:
            return cell, {}
        more = {"name": name, "disabled": disabled}
        drift = _look({}, preview, "cell_drift", cell["uuid"], **wanted, **more)
        return cell, {f"{name} {field}": change for field, change in drift.items()}

    try:
        _, changes = due()
        if not changes:
            return ret | {"result": True, "comment": f"The cell {name} is as it should be."}
        if __opts__["test"]:
            comment = f"The cell {name} would change."
            return ret | {"result": None, "changes": changes, "comment": comment}
        with __utils__["nova_db.lock"](**(site_lock or {"name": "site"})) as held:
            cell, changes = due()
            left: dict[str, dict] = {}
            if changes:
                try:
                    if cell:
                        _try_accounts(name, urls(), changes)
                        __salt__["nova_manage.update_cell"](
                            cell["uuid"], name, **urls(), held=held, disabled=disabled
                        )
                    else:
                        create(held)
                finally:
                    left = due()[1]
                    ret["changes"] = {what: changes[what] for what in changes if what not in left}
    except _FAILURES as exc:
        return ret | {"comment": getattr(exc, "error", str(exc))}
    if left:
        comment = f"The cell {name} was changed, but this still differs: {', '.join(left)}."
        return ret | {"comment": comment}
    done = "was changed" if changes else "was made right by another controller meanwhile"
    return ret | {"result": True, "comment": f"The cell {name} {done}."}


def _preview(connection: dict | None, database: str) -> dict | None:
    return {**connection, "database": database} if connection else None


def _look(nothing: Any, preview: dict | None, function: str, *args, **kwargs) -> Any:
    """Read by nova.conf; in test mode, where that cannot be done yet, by ``preview`` or not."""
    try:
        return __salt__[f"nova_manage.{function}"](*args, **kwargs)
    except CommandExecutionError as exc:
        if exc.info == _NO_SUCH_TABLE and not __opts__["test"]:
            raise CommandExecutionError(
                "The nova_api database has no schema yet: apply nova.controller.schema first."
            ) from exc
        if not __opts__["test"] or exc.info not in _NOT_YET:
            raise
    if preview is None:
        return nothing
    try:
        return __salt__[f"nova_manage.{function}"](*args, **kwargs, connection=preview)
    except CommandExecutionError as exc:
        if exc.info not in (None, _NO_SUCH_DATABASE, _NO_SUCH_TABLE):
            raise
        return nothing


def _template(function: str, *args) -> str | None:
    try:
        return __salt__[f"nova_manage.{function}"](*args)
    except CommandExecutionError as exc:
        if not __opts__["test"] or exc.info is not None:
            raise
        return None


def _hosts(preview: dict | None = None) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Mapped hosts with the uuid of their cell, and the nova-compute services."""
    rows = _look([], preview, "list_hosts")
    mapped = {row["host"]: row["cell_uuid"] for row in rows}
    try:
        return mapped, __salt__["nova_manage.compute_services"]()
    except CommandExecutionError as exc:
        # A cell whose URL an earlier state would repair cannot be asked yet.
        if not __opts__["test"] or exc.info not in (*_NOT_YET, _CANNOT_CONNECT):
            raise
        return mapped, []


def _unmapped(mapped: dict, services: list[dict], expected: list[str] | tuple = ()) -> list[str]:
    registered = {service["host"] for service in services}
    return sorted((registered | set(expected)) - mapped.keys())


def _mappings(hosts: list[str]) -> dict[str, dict]:
    return {f"host {host}": {"old": None, "new": "mapped"} for host in hosts}


def _wait(expected: list[str], timeout: int, interval: float) -> None:
    """Until each expected host is mapped or has registered, or the time is over."""
    started = spoken = time.monotonic()
    waiting = None
    while True:
        mapped, services = _hosts()
        registered = {service["host"] for service in services}
        left = [host for host in expected if host not in mapped and host not in registered]
        now = time.monotonic()
        if not left or now - started >= timeout:
            return
        if left != waiting or now - spoken >= _REPORT:
            log.info(
                "Waiting for nova-compute to register on %s, %d s at most",
                ", ".join(left),
                timeout - (now - started),
            )
            waiting, spoken = left, now
        time.sleep(min(interval, max(0, started + timeout - now)))


def _discover(held, changes: dict[str, dict]) -> None:
    """Map what registered, and note it in ``changes``."""
    due = left = _unmapped(*_hosts())
    # A host whose mapping was lost is found by its service only.
    for by_service in (False, True):
        if not left:
            return
        try:
            __salt__["nova_manage.discover_hosts"](by_service=by_service, held=held)
        except CommandExecutionError as exc:
            # The scheduler's periodic discovery takes no lock.
            if exc.info != _DISCOVERY_COLLIDED:
                raise
        left = _unmapped(*_hosts())
        changes.update(_mappings([host for host in due if host not in left]))


def _down(services: list[dict], mapped: dict) -> str:
    down = sorted(s["host"] for s in services if s["host"] in mapped and not s["up"])
    return f" Known but down: {', '.join(down)}." if down else ""
