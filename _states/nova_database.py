"""
Databases, users and grants that a service needs in MariaDB or MySQL.

``connection`` is a dict: ``host``, ``port`` (3306), ``user``, ``password_pillar`` (the name of a
pillar key) or ``password``, ``ssl_ca``, ``ssl_cert``, ``ssl_key``, ``connect_timeout``. Safe when
two controllers run them at the same moment.
"""

import time
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

#: Seconds between two looks at the sessions of a user.
INTERVAL = 2

_FAILURES = (CommandExecutionError, SaltInvocationError)


def __virtual__():
    if "nova_database.get_database" in __salt__:
        return True
    return False, "The module nova_database is not loaded: run saltutil.sync_all."


def present(
    name: str,
    connection: dict,
    character_set: str = "utf8mb3",
    collate: str | None = None,
) -> dict[str, Any]:
    """
    The database exists, with this default character set.

    name : str
        Name of the database.
    connection : dict
        The administrator's; see the module's head.
    character_set : str
        Such as ``utf8mb3``, which ``utf8`` is another name of.
    collate : str
        None: the collation is the character set's default, and not compared.

    .. code-block:: yaml

        nova_api:
          nova_database.present:
            - connection:
                host: db.example.org
                user: root
                password_pillar: nova:passwords:database_admin
    """
    arguments = {"character_set": character_set, "collate": collate, "connection": connection}

    def steps() -> list[tuple]:
        found = _look(None, "get_database", name, connection)
        if found is None:
            return [(name, None, "created", "create_database", [name], arguments)]
        due = []
        if _canonical(found["character_set"]) != _canonical(character_set):
            due.append(("character set", found["character_set"], character_set))
        if collate and _canonical(found["collation"]) != _canonical(collate):
            due.append(("collation", found["collation"], collate))
        return [
            (f"{name} {what}", old, new, "alter_database", [name], arguments)
            for what, old, new in due
        ]

    return _settle(name, f"The database {name}", steps)


def absent(name: str, connection: dict) -> dict[str, Any]:
    """
    The database does not exist: it is dropped with all it holds.

    name : str
        Name of the database.
    connection : dict
        The administrator's; see the module's head.

    .. code-block:: yaml

        nova_cell0:
          nova_database.absent:
            - connection: {host: db.example.org, user: root, password_pillar: …}
    """

    def steps() -> list[tuple]:
        if _look(None, "get_database", name, connection) is None:
            return []
        return [(name, "present", None, "drop_database", [name], {"connection": connection})]

    return _settle(name, f"The database {name}", steps)


def user_present(
    name: str,
    connection: dict,
    hosts: list[str] | None = None,
    password_pillar: str | None = None,
    password: str | None = None,
    grants: dict[str, str | list[str]] | None = None,
    require_ssl: bool | None = None,
) -> dict[str, Any]:
    """
    The user exists for each host pattern, with this password and at least these grants.

    name : str
        Name of the user.
    connection : dict
        The administrator's; see the module's head.
    hosts : list
        Host patterns, by default ``['%']``.
    password_pillar, password : str
        The name of the pillar key that holds the password, or the password.
    grants : dict
        Database → privileges, such as ``ALL PRIVILEGES`` or ``SELECT, INSERT``. Nothing is revoked.
    require_ssl : bool
        Whether the user may log in over TLS only; None leaves this as it is.

    .. code-block:: yaml

        nova:
          nova_database.user_present:
            - hosts: ['10.20.0.%']
            - password_pillar: nova:passwords:database_nova
            - grants: {nova_api: ALL PRIVILEGES, nova: ALL PRIVILEGES}
            - connection: {host: db.example.org, user: root, password_pillar: …}
    """
    secret = {"password": password, "password_pillar": password_pillar}
    connected = {"connection": connection}

    def steps() -> list[tuple]:
        due: list[tuple] = []
        for host in hosts or ["%"]:
            account, who = [name, host], f"{name}@{host}"
            user = _look(None, "get_user", *account, **secret, **connected)
            have = _look({}, "list_grants", *account, **connected) if user else {}
            if user is None:
                arguments = {**secret, **connected, "require_ssl": bool(require_ssl)}
                due.append((who, None, "created", "create_user", account, arguments))
            elif not user.get("password_matches", True):
                arguments = {**secret, **connected}
                due.append((f"{who} password", "***", "***", "set_password", account, arguments))
            if user and require_ssl is not None and user["require_ssl"] != require_ssl:
                old, new = ("optional", "required") if require_ssl else ("required", "optional")
                arguments = [*account, require_ssl]
                due.append((f"{who} TLS", old, new, "require_ssl", arguments, connected))
            for database, privileges in (grants or {}).items():
                old, new = _missing(have, database, privileges)
                if old != new:
                    arguments = [*account, database, privileges]
                    label = f"{who} grants on {database}"
                    due.append((label, old, new, "grant", arguments, connected))
        return due

    return _settle(name, f"The database user {name}", steps)


def user_absent(
    name: str,
    connection: dict,
    hosts: list[str] | None = None,
    unused_within: int | None = None,
) -> dict[str, Any]:
    """
    The user does not exist for these host patterns. One that is in use can be kept.

    name : str
        Name of the user.
    connection : dict
        The administrator's; see the module's head.
    hosts : list
        Host patterns, by default ``['%']``.
    unused_within : int
        Seconds to wait for the user's sessions to end; a user that has any then stays, and that is
        a failure. None: it is not looked for sessions.

    .. code-block:: yaml

        nova:
          nova_database.user_absent:
            - connection: {host: db.example.org, user: root, password_pillar: …}
    """
    connected = {"connection": connection}

    def steps() -> list[tuple]:
        due = [
            (f"{name}@{host}", "present", None, "drop_user", [name, host], connected)
            for host in hosts or ["%"]
            if _look(None, "get_user", name, host, **connected) is not None
        ]
        if due and unused_within is not None and not __opts__["test"]:
            _wait_until_unused(name, connection, unused_within)
        return due

    return _settle(name, f"The database user {name}", steps)


def _settle(name: str, what: str, steps) -> dict[str, Any]:
    """Apply what ``steps`` says is due, then look again: each is (label, old, new, call)."""
    ret: dict[str, Any] = {"name": name, "result": False, "comment": "", "changes": {}}
    try:
        due = steps()
        if not due:
            return ret | {"result": True, "comment": f"{what} is as it should be."}
        if __opts__["test"]:
            changes = {label: {"old": old, "new": new} for label, old, new, *_ in due}
            return ret | {"result": None, "changes": changes, "comment": f"{what} would change."}
        for label, old, new, function, args, kwargs in due:
            # False: another controller did it between our look and our call.
            if __salt__[f"nova_database.{function}"](*args, **kwargs):
                ret["changes"][label] = {"old": old, "new": new}
        left = [label for label, *_ in steps()]
    except _FAILURES as exc:
        return ret | {"comment": getattr(exc, "error", str(exc))}
    if left:
        left = ", ".join(left)
        return ret | {"comment": f"{what} was changed, but is not as it should be yet: {left}."}
    return ret | {"result": True, "comment": f"{what} was changed."}


def _wait_until_unused(name: str, connection: dict, timeout: int) -> None:
    deadline = time.monotonic() + timeout
    while sessions := __salt__["nova_database.list_sessions"](name, connection=connection):
        if time.monotonic() >= deadline:
            hosts = sorted({session["host"].rpartition(":")[0] for session in sessions})
            raise CommandExecutionError(
                f"The database user {name} stays: it is in use, {len(sessions)} sessions from "
                f"{', '.join(hosts)}. See which program there still has it, and restart that."
            )
        time.sleep(INTERVAL)


def _look(nothing: Any, function: str, *args, **kwargs) -> Any:
    try:
        return __salt__[f"nova_database.{function}"](*args, **kwargs)
    except CommandExecutionError as exc:
        # No error number: the server was not even asked, for PyMySQL is not installed yet.
        if __opts__["test"] and exc.info is None:
            return nothing
        raise


def _missing(have: dict[str, list[str]], database: str, privileges: str | list[str]) -> tuple:
    """The privileges on a database as they are and as they will be, as texts."""
    everywhere, here = set(have.get("*", ())), set(have.get(database, ()))
    wanted = set(__salt__["nova_database.split_privileges"](privileges))
    old = ", ".join(sorted(here))
    if "ALL PRIVILEGES" in everywhere | here or wanted <= everywhere | here:
        return old, old
    if "ALL PRIVILEGES" in wanted:
        return old, "ALL PRIVILEGES"
    return old, ", ".join(sorted(here | wanted))


def _canonical(name: str) -> str:
    return name.replace("utf8mb3", "utf8").lower()
