"""
Connections to the databases of a site over PyMySQL, and the lock that the whole site sees.
"""

import contextlib
import functools
import importlib.util
import logging
import os
import threading
import time

from salt.exceptions import CommandExecutionError

log = logging.getLogger(__name__)

#: Seconds after which the server drops a lock's connection that has fallen silent: a controller
#: that lost power keeps the lock no longer than this.
SILENCE = 30
#: Seconds between two signs of life; shorter than any sane idle time-out of a balancer.
HEARTBEAT = 8
#: PyMySQL's own number for TLS that does not come to be.
_NO_TLS = 2026


def connect(
    host: str,
    user: str,
    password: str,
    port: int | None = 3306,
    database: str | None = None,
    ssl_ca: str | None = None,
    ssl_cert: str | None = None,
    ssl_key: str | None = None,
    connect_timeout: int = 10,
    read_timeout: int = 60,
    what: str = "",
):
    """
    Open a PyMySQL connection (autocommit, rows as dicts).

    host, user, password, database : str
        As in the URL, decoded.
    port : int
        TCP port; None means 3306.
    ssl_ca : str
        Path of the CA that signed the server's certificate; given, TLS is required, and the
        certificate must name the host.
    ssl_cert, ssl_key : str
        Paths of this client's own certificate and its key.
    connect_timeout, read_timeout : int
        Seconds.
    what : str
        Where the credentials come from (a pillar key, a file's option), for the error.

    Raises CommandExecutionError with one sentence; ``exc.info`` holds the server's error number.
    """
    try:
        import pymysql
        from pymysql.cursors import DictCursor

        connection = _connection()
    except ImportError as exc:
        raise CommandExecutionError(
            "PyMySQL is missing in Salt's own Python: install it with `salt-pip install PyMySQL`."
        ) from exc
    port = port or 3306
    files = {"ca": ssl_ca, "cert": ssl_cert, "key": ssl_key} if ssl_ca else {}
    for path in filter(None, files.values()):
        if not os.access(path, os.R_OK):
            # PyMySQL would say that there is no such file, and not which.
            failure = CommandExecutionError(
                f"{path} cannot be read: the TLS of the database server {host}:{port} needs it."
            )
            failure.info = _NO_TLS
            raise failure
    try:
        return connection(
            host=host,
            user=user,
            password=password,
            port=port,
            database=database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            write_timeout=read_timeout,
            cursorclass=DictCursor,
            ssl={name: path for name, path in files.items() if path} or None,
        )
    # Not pymysql.err.Error: Salt's mysql module imports pymysql's modules a second time, as
    # MySQLdb's, and that name then is the second class.
    except (pymysql.Error, OSError, RuntimeError) as exc:
        number, text = error(exc)
        source = f" (credentials from {what})" if what else ""
        failure = CommandExecutionError(
            f"Cannot log in to the database server {host}:{port} as {user}{source}: {text}."
        )
        # Handed to the constructor, Salt would write it below the sentence.
        failure.info = number
        raise failure from exc


@functools.lru_cache
def _connection() -> type:
    """PyMySQL's class, but without a CA none are read: they take 30 ms for each connection."""
    import ssl

    import pymysql
    from pymysql.constants import CLIENT

    class Connection(pymysql.connections.Connection):
        tls_required = False

        def _create_ssl_ctx(self, sslp):
            if isinstance(sslp, dict) and not any(sslp.values()):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                return context
            self.tls_required = True
            return super()._create_ssl_ctx(sslp)

        def _request_authentication(self):
            # Before 1.2 PyMySQL logs in without TLS where the server, or who is between, has none.
            if self.tls_required and not self.server_capabilities & CLIENT.SSL:
                raise pymysql.OperationalError(_NO_TLS, "the server offers no TLS")
            super()._request_authentication()

    return Connection


def error(exc: Exception) -> tuple[int | None, str]:
    """The number and the text of a PyMySQL error, without a trailing full stop."""
    number = exc.args[0] if exc.args and isinstance(exc.args[0], int) else None
    return number, str(exc.args[-1] if exc.args else exc).rstrip(". ")


class Held:
    """A lock that is held; ``lost`` is set when the server no longer answers for it."""

    def __init__(self) -> None:
        self.lost = threading.Event()


def from_config(
    path: str = "/etc/nova/nova.conf", section: str = "api_database", option: str = "connection"
) -> dict:
    """
    The arguments of :func:`connect` for the database that a configuration file names.

    path : str
        The configuration file.
    section, option : str
        Where the file holds the URL, such as ``api_database`` and ``connection``.

    Raises CommandExecutionError when the file holds no such URL.
    """
    url = _sibling("nova_conf").option(path, section, option)
    if not url:
        raise CommandExecutionError(
            f"{path} has no [{section}] {option}: apply nova.controller.config on a controller."
        )
    return from_url(url, f"[{section}] {option} of {path}")


def from_url(url: str, what: str = "") -> dict:
    """
    The arguments of :func:`connect` for a SQLAlchemy URL.

    url : str
        ``mysql+pymysql://…``; ``ssl_ca`` in its query requires TLS, ``ssl_cert`` and ``ssl_key``
        are this client's.
    what : str
        Where the URL comes from, for errors.

    Raises CommandExecutionError when it is not encoded as it must be.
    """
    try:
        parts = _sibling("nova_url").parse(url)
    except ValueError as exc:
        raise CommandExecutionError(f"{what or 'A database URL'} cannot be read: {exc}.") from None
    return {
        "host": parts["host"],
        "port": parts["port"],
        "user": parts["user"],
        "password": parts["password"],
        "database": parts["database"] or None,
        **{name: parts["query"].get(name) for name in ("ssl_ca", "ssl_cert", "ssl_key")},
        "what": what,
    }


@contextlib.contextmanager
def lock(name: str, timeout: int = 900, config: str = "/etc/nova/nova.conf"):
    """
    Hold the site's lock: work that must happen once in a site is done by whoever has it.

    It is MySQL's GET_LOCK on a connection of its own, kept awake by a heartbeat, with a short
    session time-out: neither a balancer's idle time-out nor a dead controller keeps it wrongly.
    States take these arguments as one dict, ``site_lock: {name: shanghai, timeout: 900}``.

    name : str
        Names the lock, such as the site; ``nova:`` is put before it.
    timeout : int
        Seconds to wait for another holder.
    config : str
        The file whose ``[api_database] connection`` names the database server.

    Yields a :class:`Held`. Raises CommandExecutionError when the lock is not had in time, or when
    the server has no such locks (a strict mode of Galera).
    """
    full = f"nova:{name}"[:64]
    conn = connect(**from_config(config))
    held, stop = Held(), threading.Event()
    beat = threading.Thread(target=_heartbeat, args=(conn, held, stop), daemon=True)
    try:
        _take(conn, full, timeout)
        beat.start()
        yield held
        if held.lost.is_set():
            raise CommandExecutionError(
                f"The database server {conn.host} went away while the lock {full} was held; "
                "run the state again."
            )
    finally:
        stop.set()
        if beat.is_alive():
            beat.join()
        if conn.open:
            conn.close()


@functools.lru_cache
def _sibling(name: str):
    """Another of the formula's utils: Salt gives ``__utils__`` to modules and states only."""
    path = os.path.join(os.path.dirname(__file__), f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{__name__}_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _take(conn, full: str, timeout: int) -> None:
    deadline = time.monotonic() + timeout
    try:
        with conn.cursor() as cursor:
            cursor.execute("SET SESSION wait_timeout = %s", (SILENCE,))
            while True:
                # Short waits on the server keep the connection in sight of balancers between them.
                cursor.execute("SELECT GET_LOCK(%s, %s) AS got", (full, HEARTBEAT))
                got = cursor.fetchone()["got"]
                if got == 1:
                    return
                if got is None:
                    raise CommandExecutionError(
                        f"The database server {conn.host} gives no lock {full}: GET_LOCK returned "
                        "NULL. Point nova:database:host at a server that allows GET_LOCK."
                    )
                if time.monotonic() >= deadline:
                    raise CommandExecutionError(
                        f"The lock {full} was not free within {timeout} s: another controller of "
                        "the site holds it. See what it is doing, then run the state again."
                    )
                log.info("Waiting for the lock %s, which another controller holds", full)
    except conn.Error as exc:
        raise CommandExecutionError(
            f"The database server {conn.host} refused the lock {full}: {error(exc)[1]}. "
            "Point nova:database:host at one writer that allows GET_LOCK."
        ) from exc


def _heartbeat(conn, held: Held, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        try:
            conn.ping(reconnect=False)
        except (conn.Error, OSError):
            held.lost.set()
            return
