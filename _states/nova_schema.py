"""
Schemas of nova's and Placement's databases: those of the installed code.

A schema that is due is brought up once in the site, by whichever controller comes first, under the
site's lock; one that is not costs two reads. ``connection`` (an administrator's, as nova_database
takes it) is used in test mode only, to look where nova.conf or its database user is not there yet.
"""

import json
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
    except (CommandExecutionError, SaltInvocationError) as exc:
        return ret | {"comment": getattr(exc, "error", str(exc))}
    rows = sum(done["migrated"].values())
    if done["outcome"] != "done":
        comment = f"{rows} rows were migrated, and more are left after {timeout} s: run it again."
        return ret | {"comment": comment}
    with salt.utils.files.fopen(stamp, "w") as stream:
        json.dump(now, stream)
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
