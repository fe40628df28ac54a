"""
Schemas of nova's and Placement's databases: those of the installed code.

A schema that is due is brought up once in the site, by whichever controller comes first, under the
site's lock; one that is not costs two reads. ``connection`` (an administrator's, as nova_database
takes it) is used in test mode only, to look where nova.conf or its database user is not there yet.
"""

import functools
import json
import os
import time
from typing import Any

import salt.utils.files
from salt.exceptions import CommandExecutionError, SaltInvocationError

#: What a node where nothing was installed yet answers in test mode: no configuration or library,
#: no mapping of cell0, then the server's refusals of an unknown database, user or host.
_NOT_YET = (None, "absent", 1044, 1045, 1049, 1130)
_NO_SUCH_DATABASE, _NO_SUCH_TABLE = 1049, 1146
_FUTURE_HEAD = "head of the installed code"


def __virtual__():
    if "nova_manage.schema_version" in __salt__:
        return True
    return False, "The module nova_manage is not loaded: run saltutil.sync_all."


def api_db_synced(
    name: str,
    site_lock: dict | None = None,
    timeout: int = 900,
    connection: dict | None = None,
) -> dict[str, Any]:
    """
    The nova_api database has the schema of the installed code.

    name : str
        Name of the database.
    site_lock : dict
        Arguments of nova_db.lock: ``{name: shanghai, timeout: 900}``.
    timeout : int
        Seconds after which nova-manage is killed.
    connection : dict
        See the module's head.

    .. code-block:: yaml

        nova_api:
          nova_schema.api_db_synced:
            - site_lock: {name: shanghai}
    """
    schemas = {"api": name}
    return _synced(name, "api", schemas, "api_db_sync", site_lock, timeout, connection)


def db_synced(
    name: str,
    site_lock: dict | None = None,
    timeout: int = 900,
    cell0: str = "nova_cell0",
    connection: dict | None = None,
) -> dict[str, Any]:
    """
    The main database and cell0's have the schema of the installed code. cell0 is mapped before.

    name : str
        Name of the main database.
    site_lock : dict
        Arguments of nova_db.lock: ``{name: shanghai, timeout: 900}``.
    timeout : int
        Seconds after which nova-manage is killed.
    cell0 : str
        Name of cell0's database.
    connection : dict
        See the module's head.

    .. code-block:: yaml

        nova:
          nova_schema.db_synced:
            - site_lock: {name: shanghai}
    """
    schemas = {"cell0": cell0, "main": name}
    return _synced(name, "main", schemas, "db_sync", site_lock, timeout, connection)


def placement_db_synced(
    name: str,
    site_lock: dict | None = None,
    timeout: int = 900,
    connection: dict | None = None,
) -> dict[str, Any]:
    """
    Placement's database has the schema of the installed code.

    name : str
        Name of the database.
    site_lock : dict
        Arguments of nova_db.lock: ``{name: shanghai, timeout: 900}``.
    timeout : int
        Seconds after which placement-manage is killed.
    connection : dict
        See the module's head.

    .. code-block:: yaml

        placement:
          nova_schema.placement_db_synced:
            - site_lock: {name: shanghai}
    """
    schemas = {"placement": name}
    return _synced(name, "placement", schemas, "placement_db_sync", site_lock, timeout, connection)


def placement_moved(
    name: str,
    source: str,
    sites: list[str] | None = None,
    unit: str = "httpd",
    silent: list[str] | None = None,
    site_lock: dict | None = None,
    timeout: int = 900,
    connection: dict | None = None,
) -> dict[str, Any]:
    """
    What the Placement inside Nova has stored is in the database of Placement itself.

    Due once, before Placement's own schema is synced, where the source has rows and the database
    has none. The rows are copied, the source stays. Until then the old Placement must not write:
    its web site is taken away here, and the copy waits until the other controllers have done so.

    name : str
        Name of Placement's own database.
    source : str
        Name of the nova_api database, on the same server.
    sites : list
        The web server's file of the old Placement; behind it that of the new one as its package
        ships it, which is taken away too while a move is due: it would answer on the same port.
    unit : str
        The web server.
    silent : list
        URLs of Placement on all controllers, which must not answer while rows are copied.
    site_lock : dict
        Arguments of nova_db.lock: ``{name: shanghai, timeout: 900}``.
    timeout : int
        Seconds to wait for the other controllers.
    connection : dict
        An administrator's, as nova_database takes it.

    .. code-block:: yaml

        placement:
          nova_schema.placement_moved:
            - source: nova_api
            - sites: [/etc/httpd/conf.d/00-nova-placement-api.conf]
            - silent: ['http://10.20.0.60:8778/', 'http://10.20.0.70:8778/']
            - site_lock: {name: shanghai}
            - connection: {host: db1, user: root, password_pillar: 'nova:passwords:database_admin'}
    """
    ret: dict[str, Any] = {"name": name, "result": False, "comment": "", "changes": {}}
    look = functools.partial(
        __salt__["nova_upkeep.placement_to_move"], source, name, connection=connection
    )
    try:
        rows = look()
        gone = [path for path in (sites or [])[: None if rows else 1] if os.path.exists(path)]
        changes = {path: {"old": "present", "new": None} for path in gone}
        if rows:
            changes[f"{name} rows"] = {"old": 0, "new": rows}
        if not changes:
            return ret | {"result": True, "comment": f"{source} has no rows to move to {name}."}
        if __opts__["test"]:
            comment = f"What {source} has of Placement would be moved to {name}."
            return ret | {"result": None, "changes": changes, "comment": comment}
        for path in gone:
            os.remove(path)
            ret["changes"][path] = changes[path]
        if gone:
            __salt__["nova_unit.act"]("reload", unit)
        if rows:
            _wait_for_silence(silent or [], look, timeout)
            with __utils__["nova_db.lock"](**(site_lock or {"name": "site"})) as held:
                if look():
                    copy = __salt__["nova_upkeep.copy_placement"]
                    copy(source, name, connection=connection, held=held)
                    ret["changes"][f"{name} rows"] = changes[f"{name} rows"]
    except (CommandExecutionError, SaltInvocationError, OSError) as exc:
        return ret | {"comment": getattr(exc, "error", str(exc))}
    return ret | {"result": True, "comment": f"What {source} has of Placement is in {name}."}


def _wait_for_silence(urls: list[str], look, timeout: int) -> None:
    """Wait until no Placement answers, or until another controller has moved the rows."""
    deadline = time.monotonic() + timeout
    answers = __salt__["nova_unit.http_answer"]
    while loud := [url for url in urls if answers(url)["status"] is not None]:
        if not look():
            return
        if time.monotonic() >= deadline:
            raise CommandExecutionError(
                f"{loud[0]} still answers after {timeout} s: what the Placement inside Nova writes "
                "while its rows are moved would be lost. Apply the formula to all controllers at "
                "the same time."
            )
        time.sleep(2)


def cell_db_synced(
    name: str,
    site_lock: dict | None = None,
    timeout: int = 900,
    connection: dict | None = None,
    database: str | None = None,
) -> dict[str, Any]:
    """
    The database of a cell that is neither cell0 nor nova.conf's has the installed code's schema.

    name : str
        The cell's name.
    site_lock : dict
        Arguments of nova_db.lock: ``{name: shanghai, timeout: 900}``.
    timeout : int
        Seconds after which nova-manage is killed.
    connection : dict
        See the module's head.
    database : str
        Name of its database, by default ``nova_`` and the cell's name.

    .. code-block:: yaml

        cell2:
          nova_schema.cell_db_synced:
            - site_lock: {name: shanghai}
    """
    database = database or f"nova_{name}"
    try:
        cell = __salt__["nova_manage.find_cell"](name)
        if cell is None and not __opts__["test"]:
            raise CommandExecutionError(f"There is no cell {name}: apply nova_cell.present first.")
    except CommandExecutionError as exc:
        if not __opts__["test"] or exc.info not in (*_NOT_YET, _NO_SUCH_TABLE):
            comment = getattr(exc, "error", str(exc))
            return {"name": name, "result": False, "comment": comment, "changes": {}}
        cell = None
    if cell is None:
        change = {"old": None, "new": _FUTURE_HEAD}
        comment = f"The schema of {database} would be brought up."
        changes = {f"{database} schema": change}
        return {"name": name, "result": None, "comment": comment, "changes": changes}
    schemas = {cell["uuid"]: database}
    sync = {"cell": cell["uuid"]}
    return _synced(name, "main", schemas, "db_sync", site_lock, timeout, connection, sync)


def data_migrated(
    name: str, stamp: str, batch: int = 1000, timeout: int = 3600, site_lock: dict | None = None
) -> dict[str, Any]:
    """
    Rows have the form of the installed code: the last step of an upgrade, when all services run it.

    It takes seconds, so it runs for new code only. One that was stopped goes on with the next run.

    name : str
        Any text.
    stamp : str
        File that remembers for which code and schema it was done.
    batch : int
        Rows at a time.
    timeout : int
        Seconds for all of them.
    site_lock : dict
        Arguments of nova_db.lock: ``{name: shanghai, timeout: 900}``.

    .. code-block:: yaml

        nova-online-data-migrations:
          nova_schema.data_migrated:
            - stamp: /var/lib/nova/data-migrated.json
            - site_lock: {name: shanghai}
    """
    ret: dict[str, Any] = {"name": name, "result": False, "comment": "", "changes": {}}
    try:
        now = __salt__["nova_manage.code_and_schema"]()
        before = _remembered(stamp)
        if now == before:
            return ret | {"result": True, "comment": "Done before, for this code and schema."}
        changes = {"rows migrated for": {"old": before, "new": now}}
        if __opts__["test"]:
            return ret | {"result": None, "changes": changes, "comment": "Rows would be migrated."}
        with __utils__["nova_db.lock"](**(site_lock or {"name": "site"})) as held:
            done = __salt__["nova_upkeep.online_data_migrations"](batch, timeout=timeout, held=held)
        rows = sum(done["migrated"].values())
        if done["outcome"] != "done":
            comment = f"{rows} rows were migrated, and more are left after {timeout} s: run again."
            return ret | {"comment": comment}
        __utils__["nova_file.replace"](stamp, json.dumps(now))
    except (CommandExecutionError, SaltInvocationError) as exc:
        return ret | {"comment": getattr(exc, "error", str(exc))}
    return ret | {"result": True, "changes": changes, "comment": f"{rows} rows were migrated."}


def _remembered(path: str) -> dict | None:
    try:
        with salt.utils.files.fopen(path) as stream:
            return json.load(stream)
    except (FileNotFoundError, ValueError):
        return None


def _synced(
    name: str,
    code: str,
    schemas: dict[str, str],
    sync: str,
    site_lock: dict | None,
    timeout: int,
    connection: dict | None,
    more: dict | None = None,
) -> dict[str, Any]:
    ret: dict[str, Any] = {"name": name, "result": False, "comment": "", "changes": {}}
    what = " and ".join(schemas.values())
    try:
        changes = _due(code, schemas, connection)
        if not changes:
            return ret | {"result": True, "comment": f"The schema of {what} is current."}
        if __opts__["test"]:
            comment = f"The schema of {what} would be brought up."
            return ret | {"result": None, "changes": changes, "comment": comment}
        with __utils__["nova_db.lock"](**(site_lock or {"name": "site"})) as held:
            changes = _due(code, schemas, connection)
            if changes:
                try:
                    __salt__[f"nova_manage.{sync}"](timeout=timeout, held=held, **(more or {}))
                finally:
                    left = _due(code, schemas, connection)
                    ret["changes"] = _done(changes, left)
                if left:
                    behind = ", ".join(left)
                    comment = f"nova_manage.{sync} ended well, but this is still due: {behind}."
                    return ret | {"comment": comment}
    except (CommandExecutionError, SaltInvocationError) as exc:
        return ret | {"comment": getattr(exc, "error", str(exc))}
    if not changes:
        comment = f"The schema of {what} was brought up by another controller meanwhile."
        return ret | {"result": True, "comment": comment}
    return ret | {"result": True, "comment": f"The schema of {what} was brought up."}


def _due(code: str, schemas: dict[str, str], connection: dict | None) -> dict[str, dict[str, str]]:
    """Changes for each database that is not at the head of the code."""
    revisions = __salt__["nova_manage.schema_revisions"](code)
    if not revisions and not __opts__["test"]:
        raise CommandExecutionError(
            "The code whose schema is due is not installed here: apply nova.controller.package."
        )
    changes = {}
    for which, database in schemas.items():
        version = _version(which, database, connection)
        if version is None:
            head = revisions[-1] if revisions else _FUTURE_HEAD
            changes[f"{database} schema"] = {"old": None, "new": head}
        elif not revisions or version == revisions[-1]:
            continue
        elif version not in revisions:
            raise CommandExecutionError(
                f"The schema of {database} is at {version}, which the code installed here (head "
                f"{revisions[-1]}) does not know: a newer release made it, or one too old to "
                "upgrade from in one step. Install the release that fits."
            )
        else:
            changes[f"{database} schema"] = {"old": version, "new": revisions[-1]}
    return changes


def _version(which: str, database: str, connection: dict | None) -> str | None:
    try:
        return __salt__["nova_manage.schema_version"](which)
    except CommandExecutionError as exc:
        if not __opts__["test"] or exc.info not in _NOT_YET:
            raise
    if connection is None:
        return None
    try:
        preview = {**connection, "database": database}
        return __salt__["nova_manage.schema_version"](which, connection=preview)
    except CommandExecutionError as exc:
        if exc.info not in (None, _NO_SUCH_DATABASE):
            raise
        return None


def _done(before: dict[str, dict], after: dict[str, dict]) -> dict[str, dict[str, str]]:
    """What was changed when ``before`` was due and ``after`` is left."""
    done = {}
    for what, change in before.items():
        reached = after[what]["old"] if what in after else change["new"]
        if reached != change["old"]:
            done[what] = {"old": change["old"], "new": reached}
    return done
