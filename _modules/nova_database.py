"""
Databases, users and grants of a MariaDB or MySQL server, over PyMySQL.

Every function takes ``connection``, a dict: ``host``, ``port`` (3306), ``user``, ``password`` or
``password_pillar`` (the name of a pillar key), ``database``, ``ssl_ca`` (a path; TLS is then
required), ``ssl_cert`` and ``ssl_key`` (this client's) and ``connect_timeout`` (10 seconds).
Without it the node's own nova.conf (``[api_database] connection``) says where to go.
"""

import hashlib
import hmac
import logging
import os
import re
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

log = logging.getLogger(__name__)

#: Error numbers of the server.
DATABASE_EXISTS = 1007
ACCESS_DENIED = 1045
PARSE_ERROR = 1064
NO_SUCH_GRANT = 1141
CANNOT_USER = 1396

ALL = "ALL PRIVILEGES"

_ARGUMENTS = {"host", "port", "user", "password", "database", "connect_timeout", "what"}
_ARGUMENTS |= {"ssl_ca", "ssl_cert", "ssl_key"}
_PRIVILEGES = re.compile(r"[A-Z][A-Z ]*(, ?[A-Z][A-Z ]*)*")
_WORD = re.compile(r"\w+")
_NAME = r"(?:`((?:[^`]|``)+)`|\"((?:[^\"]|\"\")+)\"|([\w$*\\%-]+))"
_GRANT = re.compile(rf"GRANT (?P<privileges>.+?) ON {_NAME}\.\* TO ")


def query(
    statement: str,
    values: list | None = None,
    connection: dict | None = None,
    secrets: list[str] | None = None,
) -> list[dict[str, Any]]:
    """
    Run one statement and return its rows. One connection a run is kept for each server and user.

    statement : str
        SQL with ``%s`` for each value.
    values : list
        Taken as parameters, never as SQL.
    connection : dict
        See the module's head.
    secrets : list
        Texts that no error may show.

    Raises CommandExecutionError; ``exc.info`` holds the server's error number.

    CLI Example::

        salt ctl1 nova_database.query 'SELECT host FROM host_mappings'
    """
    conn = _connected(_arguments(connection))
    try:
        _revive(conn)
        with conn.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())
    # The connection's own class: see nova_db.connect.
    except (conn.Error, OSError) as exc:
        number, text = __utils__["nova_db.error"](exc)
        if secrets and number == PARSE_ERROR:
            # It quotes the statement, cut anywhere.
            text = "it does not understand the statement"
        for secret in secrets or ():
            for shown in (conn.escape(secret)[1:-1], secret):
                text = text.replace(shown, "***")
        raise _failure(
            f"The database server {conn.host}:{conn.port} refuses user {_text(conn.user)}: {text} "
            f"(error {number}).",
            number,
        ) from (None if secrets else exc)


def transaction(
    statements: list[str], connection: dict | None = None, timeout: int = 3600, held=None
) -> int:
    """
    Run statements, all or none of them; returns how many rows they changed.

    statements : list
        SQL without values.
    connection : dict
        See the module's head.
    timeout : int
        Seconds for each.
    held
        A lock that must still be held when they are made to last.

    Raises CommandExecutionError; ``exc.info`` holds the server's error number.

    CLI Example::

        salt ctl1 nova_database.transaction "['DELETE FROM a', 'DELETE FROM b']"
    """
    conn = __utils__["nova_db.connect"](**_arguments(connection), read_timeout=timeout)
    try:
        conn.begin()
        with conn.cursor() as cursor:
            rows = sum(cursor.execute(statement) for statement in statements)
        if held is not None and held.lost.is_set():
            raise _failure("The lock was lost meanwhile: nothing was changed.", None)
        conn.commit()
    except (conn.Error, OSError) as exc:
        number, text = __utils__["nova_db.error"](exc)
        raise _failure(
            f"The database server {conn.host}:{conn.port} refuses user {_text(conn.user)}: {text} "
            f"(error {number}).",
            number,
        ) from exc
    finally:
        if conn.open:
            conn.close()  # what was not made to last is undone by the server
    return rows


def get_database(name: str, connection: dict | None = None) -> dict[str, str] | None:
    """
    A database's default ``character_set`` and ``collation``; None when there is none.

    name : str
        Name of the database.
    connection : dict
        See the module's head.

    Raises CommandExecutionError when the server cannot be asked.

    CLI Example::

        salt ctl1 nova_database.get_database nova_api
    """
    rows = query(
        "SELECT default_character_set_name AS character_set, default_collation_name AS collation "
        "FROM information_schema.schemata WHERE schema_name = %s",
        [name],
        connection,
    )
    return rows[0] if rows else None


def create_database(
    name: str,
    character_set: str = "utf8mb3",
    collate: str | None = None,
    connection: dict | None = None,
) -> bool:
    """
    Create a database. Returns False when another created it first.

    name, character_set, collate : str
        ``collate`` None is the character set's default.
    connection : dict
        See the module's head.

    Raises CommandExecutionError when the server refuses.

    CLI Example::

        salt ctl1 nova_database.create_database nova_cell2 connection='{host: …, user: root, …}'
    """
    try:
        query(
            f"CREATE DATABASE {_quoted(name)} {_charset(character_set, collate)}",
            connection=connection,
        )
    except CommandExecutionError as exc:
        if exc.info != DATABASE_EXISTS:
            raise
        return False
    return True


def alter_database(
    name: str,
    character_set: str = "utf8mb3",
    collate: str | None = None,
    connection: dict | None = None,
) -> bool:
    """
    Set a database's default character set and collation: those of tables that are yet to come.

    name, character_set, collate : str
        ``collate`` None is the character set's default.
    connection : dict
        See the module's head.

    Raises CommandExecutionError when the server refuses.

    CLI Example::

        salt ctl1 nova_database.alter_database nova utf8mb3 connection='{host: …, user: root, …}'
    """
    query(
        f"ALTER DATABASE {_quoted(name)} {_charset(character_set, collate)}", connection=connection
    )
    return True


def drop_database(name: str, connection: dict | None = None) -> bool:
    """
    Drop a database with all it holds.

    name : str
        Name of the database.
    connection : dict
        See the module's head.

    Raises CommandExecutionError when the server refuses.

    CLI Example::

        salt ctl1 nova_database.drop_database nova_cell2 connection='{host: …, user: root, …}'
    """
    query(f"DROP DATABASE IF EXISTS {_quoted(name)}", connection=connection)
    return True


def get_user(
    name: str,
    host: str = "%",
    password: str | None = None,
    password_pillar: str | None = None,
    connection: dict | None = None,
) -> dict[str, Any] | None:
    """
    An account: ``plugin``, ``require_ssl`` and, given a password, ``password_matches``.

    The password is compared with the hash that the server keeps, without a login; only where the
    account's plugin keeps another kind of hash, a login from here tells.

    name, host : str
        The account, such as ``nova`` and ``%``.
    password, password_pillar : str
        The password it should have, or the name of the pillar key that holds it.
    connection : dict
        See the module's head.

    Returns None when there is no such account.

    CLI Example::

        salt ctl1 nova_database.get_user nova % password_pillar=nova:passwords:database_nova
    """
    rows = query(
        "SELECT plugin, authentication_string AS hash, ssl_type FROM mysql.user "
        "WHERE user = %s AND host = %s",
        [name, host],
        connection,
    )
    if not rows:
        return None
    plugin = _text(rows[0]["plugin"])
    found = {"plugin": plugin, "require_ssl": bool(_text(rows[0]["ssl_type"]))}
    if password or password_pillar:
        secret = _secret(password, password_pillar)
        stored = _text(rows[0]["hash"])
        if plugin in ("", "mysql_native_password"):
            matches = hmac.compare_digest(stored.upper().encode(), _native(secret).encode())
        elif plugin == "caching_sha2_password":
            matches = hmac.compare_digest(stored.encode(), _caching_sha2(secret, stored).encode())
        else:
            matches = _logs_in(name, secret, connection)
        found["password_matches"] = matches
    return found


def create_user(
    name: str,
    host: str = "%",
    password: str | None = None,
    password_pillar: str | None = None,
    require_ssl: bool = False,
    connection: dict | None = None,
) -> bool:
    """
    Create an account. Returns False when another created it first.

    name, host : str
        The account, such as ``nova`` and ``%``.
    password, password_pillar : str
        Its password, or the name of the pillar key that holds it.
    require_ssl : bool
        Whether it may log in over TLS only.
    connection : dict
        See the module's head.

    Raises CommandExecutionError when the server refuses.

    CLI Example::

        salt ctl1 nova_database.create_user nova % password_pillar=nova:passwords:database_nova
    """
    secret = _secret(password, password_pillar)
    try:
        query(
            "CREATE USER %s@%s IDENTIFIED BY %s" + (" REQUIRE SSL" if require_ssl else ""),
            [name, host, secret],
            connection,
            [secret],
        )
    except CommandExecutionError as exc:
        if exc.info != CANNOT_USER or get_user(name, host, connection=connection) is None:
            raise
        return False
    return True


def set_password(
    name: str,
    host: str = "%",
    password: str | None = None,
    password_pillar: str | None = None,
    connection: dict | None = None,
) -> bool:
    """
    Set an account's password.

    name, host : str
        The account, such as ``nova`` and ``%``.
    password, password_pillar : str
        The new password, or the name of the pillar key that holds it.
    connection : dict
        See the module's head.

    Raises CommandExecutionError when the server refuses.

    CLI Example::

        salt ctl1 nova_database.set_password nova % password_pillar=nova:passwords:database_nova
    """
    secret = _secret(password, password_pillar)
    query("ALTER USER %s@%s IDENTIFIED BY %s", [name, host, secret], connection, [secret])
    return True


def require_ssl(
    name: str, host: str = "%", required: bool = True, connection: dict | None = None
) -> bool:
    """
    Let an account log in over TLS only, or without it too.

    name, host : str
        The account, such as ``nova`` and ``%``.
    required : bool
        Whether it needs TLS.
    connection : dict
        See the module's head.

    Raises CommandExecutionError when the server refuses.

    CLI Example::

        salt ctl1 nova_database.require_ssl nova connection='{host: …, user: root, …}'
    """
    query(f"ALTER USER %s@%s REQUIRE {'SSL' if required else 'NONE'}", [name, host], connection)
    return True


def drop_user(name: str, host: str = "%", connection: dict | None = None) -> bool:
    """
    Drop an account with its grants.

    name, host : str
        The account, such as ``nova`` and ``%``.
    connection : dict
        See the module's head.

    Raises CommandExecutionError when the server refuses.

    CLI Example::

        salt ctl1 nova_database.drop_user nova connection='{host: …, user: root, …}'
    """
    query("DROP USER IF EXISTS %s@%s", [name, host], connection)
    return True


def list_sessions(name: str, connection: dict | None = None) -> list[dict[str, Any]]:
    """
    The sessions that a user has now: ``host`` (from where) and ``database``.

    name : str
        The user.
    connection : dict
        See the module's head; its account needs the privilege PROCESS.

    Raises CommandExecutionError where the server would show the asking account's own alone.

    CLI Example::

        salt ctl1 nova_database.list_sessions nova connection='{host: …, user: root, …}'
    """
    seen = query(
        "SELECT 1 FROM information_schema.user_privileges WHERE privilege_type = 'PROCESS' AND "
        "grantee = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')",
        connection=connection,
    )
    if not seen:
        raise CommandExecutionError(
            "The account may not see the sessions of others on the database server: grant it "
            "PROCESS."
        )
    rows = query(
        "SELECT host, db FROM information_schema.processlist WHERE user = %s ORDER BY host",
        [name],
        connection,
    )
    return [{"host": _text(row["host"]), "database": _text(row["db"])} for row in rows]


def list_grants(name: str, host: str = "%", connection: dict | None = None) -> dict[str, list[str]]:
    """
    The privileges of an account on whole databases: database → sorted privileges.

    ``*`` stands for all databases. An account without any, or none at all, has no entry.

    name, host : str
        The account, such as ``nova`` and ``%``.
    connection : dict
        See the module's head.

    CLI Example::

        salt ctl1 nova_database.list_grants nova
    """
    try:
        rows = query("SHOW GRANTS FOR %s@%s", [name, host], connection)
    except CommandExecutionError as exc:
        if exc.info != NO_SUCH_GRANT:
            raise
        return {}
    grants: dict[str, set[str]] = {}
    for row in rows:
        found = _GRANT.match(_text(next(iter(row.values()))))
        if found:
            quoted, ansi, bare = found.groups()[1:]
            database = bare or (quoted or "").replace("``", "`") or ansi.replace('""', '"')
            # GRANT takes a pattern: `nova\_api` is what a careful hand wrote for nova_api.
            database = re.sub(r"\\([_%\\])", r"\1", database)
            grants.setdefault(database, set()).update(split_privileges(found["privileges"]))
    return {
        database: [ALL] if ALL in privileges else sorted(privileges - {"USAGE"})
        for database, privileges in grants.items()
        if privileges != {"USAGE"}
    }


def grant(
    name: str,
    host: str,
    database: str,
    privileges: str | list[str] = ALL,
    connection: dict | None = None,
) -> bool:
    """
    Grant an account privileges on a database; what it has besides stays.

    name, host, database : str
        The account, such as ``nova`` and ``%``, and the database.
    privileges : str or list
        ``ALL PRIVILEGES``, or names such as ``SELECT, INSERT``.
    connection : dict
        See the module's head.

    Raises CommandExecutionError when the server refuses, SaltInvocationError for a bad name.

    CLI Example::

        salt ctl1 nova_database.grant nova % nova_cell2 connection='{host: …, user: root, …}'
    """
    names = ", ".join(split_privileges(privileges))
    target = _quoted(database).replace("%", "%%")
    query(f"GRANT {names} ON {target}.* TO %s@%s", [name, host], connection)
    return True


def split_privileges(privileges: str | list[str]) -> list[str]:
    """
    Names of privileges, sorted, in capitals; ``ALL`` is ``ALL PRIVILEGES``.

    privileges : str or list
        Such as ``select, INSERT`` or ``[SELECT, INSERT]``.

    Raises SaltInvocationError for what cannot be the name of a privilege.

    CLI Example::

        salt ctl1 nova_database.split_privileges 'select, insert'
    """
    text = ", ".join(privileges) if isinstance(privileges, list) else str(privileges)
    text = text.upper().strip()
    if not _PRIVILEGES.fullmatch(text):
        raise SaltInvocationError(
            f"{text!r} is no list of privileges: write ALL PRIVILEGES, or names with commas."
        )
    names = {name.strip() for name in text.split(",")}
    return [ALL] if names & {"ALL", ALL} else sorted(names)


def _failure(message: str, info: int | str | None) -> CommandExecutionError:
    # Handed to the constructor, Salt would write it below the sentence.
    failure = CommandExecutionError(message)
    failure.info = info
    return failure


def _arguments(connection: dict | None) -> dict[str, Any]:
    if connection is None:
        return __utils__["nova_db.from_config"]()
    arguments = dict(connection)
    key = arguments.pop("password_pillar", None)
    if key:
        arguments["password"] = __utils__["nova_secret.value"](__pillar__, key, __opts__)
        arguments["what"] = f"pillar {key}"
    missing = {"host", "user", "password"} - arguments.keys()
    if missing or arguments.keys() - _ARGUMENTS:
        wrong = ", ".join(sorted(missing or arguments.keys() - _ARGUMENTS))
        raise SaltInvocationError(
            f"connection has {'no' if missing else 'an unknown'} {wrong}: it takes host, port, "
            "user, password or password_pillar, database, ssl_ca, ssl_cert, ssl_key, "
            "connect_timeout."
        )
    return arguments


def _connected(arguments: dict[str, Any]):
    # By process: a socket that a fork inherits (`parallel: True`) must not be spoken to by both.
    # What it is called in errors makes no other of it.
    key = (os.getpid(), *sorted((k, str(v)) for k, v in arguments.items() if k != "what"))
    kept = __context__.setdefault("nova_database.connections", {})
    if key not in kept:
        kept[key] = __utils__["nova_db.connect"](**arguments)
    return kept[key]


def _revive(conn) -> None:
    """Connect again where the server or a balancer has closed the connection meanwhile."""
    try:
        conn.ping(reconnect=False)
    except (conn.Error, OSError):
        conn.connect()


def _secret(password: str | None, password_pillar: str | None) -> str:
    if password_pillar:
        return __utils__["nova_secret.value"](__pillar__, password_pillar, __opts__)
    if not password:
        raise SaltInvocationError("Give password_pillar, the name of a pillar key, or password.")
    return str(password)


def _logs_in(name: str, secret: str, connection: dict | None) -> bool:
    target = {**_arguments(connection), "user": name, "password": secret, "database": None}
    target["what"] = ""
    try:
        __utils__["nova_db.connect"](**target).close()
    except CommandExecutionError as exc:
        if exc.info != ACCESS_DENIED:
            raise
        return False
    return True


def _quoted(identifier: str) -> str:
    return "`" + identifier.replace("`", "``") + "`"


def _charset(character_set: str, collate: str | None) -> str:
    for word in filter(None, (character_set, collate)):
        if not _WORD.fullmatch(word):
            raise SaltInvocationError(f"{word!r} is no character set or collation.")
    return f"CHARACTER SET {character_set}" + (f" COLLATE {collate}" if collate else "")


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


def _native(password: str) -> str:
    once = hashlib.sha1(password.encode()).digest()
    return "*" + hashlib.sha1(once).hexdigest().upper()


def _caching_sha2(password: str, stored: str) -> str:
    """What MySQL keeps for a password: ``$A$005$``, 20 characters of salt, SHA-crypt's digest."""
    if not re.match(r"\$A\$[0-9A-F]{3}\$.{20}", stored, re.DOTALL):
        return ""
    salt, rounds = stored[7:27].encode(), int(stored[3:6], 16) * 1000
    return stored[:27] + _sha256_crypt(password.encode(), salt, rounds)


def _sha256_crypt(key: bytes, salt: bytes, rounds: int) -> str:
    """SHA-crypt with SHA-256, as Drepper's specification; crypt(3) takes 16 bytes of salt only."""

    def digest(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()

    def stretched(block: bytes, length: int) -> bytes:
        return (block * (length // len(block) + 1))[:length]

    second = digest(key, salt, key)
    parts = [key, salt, stretched(second, len(key))]
    length = len(key)
    while length:
        parts.append(second if length & 1 else key)
        length >>= 1
    state = digest(*parts)
    keys = stretched(digest(key * len(key)), len(key))
    salts = stretched(digest(salt * (16 + state[0])), len(salt))
    for i in range(rounds):
        odd = i & 1
        state = digest(
            keys if odd else state,
            salts if i % 3 else b"",
            keys if i % 7 else b"",
            state if odd else keys,
        )
    alphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    groups = [(0, 10, 20), (21, 1, 11), (12, 22, 2), (3, 13, 23), (24, 4, 14)]
    groups += [(15, 25, 5), (6, 16, 26), (27, 7, 17), (18, 28, 8), (9, 19, 29)]
    numbers = [(state[a] << 16 | state[b] << 8 | state[c], 4) for a, b, c in groups]
    numbers.append((state[31] << 8 | state[30], 3))
    return "".join(alphabet[n >> 6 * i & 63] for n, size in numbers for i in range(size))
