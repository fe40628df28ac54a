"""
systemd units, many seen by one process, and what a daemon has to have read and to listen on.
"""

import glob
import http.client
import os
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress

import salt.utils.path
from salt.exceptions import CommandExecutionError, SaltInvocationError

PROC_NET = "/proc/net"
#: Where an administrator's units and drop-ins are.
SYSTEM = "/etc/systemd/system"
#: Where systemd finds units: a directory's time tells whether one has come.
UNIT_PATHS = (SYSTEM, "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
#: What ``show`` tells of a unit.
PROPERTIES = (
    "Id",
    "Names",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "FragmentPath",
    "DropInPaths",
    "NeedDaemonReload",
    "Result",
    "ReloadResult",
    "ConditionResult",
    "MainPID",
    "NRestarts",
    "ExecMainStatus",
    "ActiveEnterTimestampMonotonic",
    "ExecMainStartTimestampMonotonic",
    "StateChangeTimestampMonotonic",
    "Job",
)
#: What ``act`` does to a unit.
VERBS = ("start", "stop", "restart", "reload", "enable", "disable", "reset-failed", "daemon-reload")
#: States in which a unit serves.
ACTIVE = ("active", "reloading", "refreshing")
#: Seconds for which a unit that was seen is not looked at again.
FRESH = 60

_SUFFIXES = (".service", ".socket", ".target", ".timer", ".path", ".mount", ".slice", ".scope")
_NUMBERS = re.compile(r"^(MainPID|NRestarts|ExecMainStatus|\w+TimestampMonotonic)$")
_LISTEN = b"0A"
# Bytes that are read of /proc/net/tcp at a time. What listens stands before all connections, and
# the kernel takes 10 ms to look for those.
_READ = 256
# Keys in __context__: what was seen of units; those that run by an older definition, although
# systemd has read the present one.
_CACHE = "nova_unit.show"
_OLDER = "nova_unit.older"
# Lines of the journal in which systemd, not the daemon, speaks of a unit.
_SYSTEMD_SAYS = re.compile(
    r"^(\S+\.(service|socket): |(Start|Stopp|Reload)(ed|ing) |Failed to start |Dependency failed )"
)
_ERROR = re.compile(r"error|critical|fatal|fail|cannot|refused|denied|traceback", re.I)


def __virtual__():
    if salt.utils.path.which("systemctl"):
        return True
    return False, "nova_unit needs systemd, and this host has no systemctl."


def show(units: list[str], refresh: bool = False) -> dict[str, dict[str, str | int]]:
    """
    The state of units, by one process for all of them.

    What was seen is kept for this run, and forgotten when :func:`act` changes the unit. A unit
    that is not there is looked at again when a package or a person has brought one.

    units : list
        Unit names; ``.service`` may be left out.
    refresh : bool
        Look again, whatever was seen.

    Returns unit (as asked) → its properties; times are microseconds of the monotonic clock, and a
    unit that does not exist has the ``LoadState`` ``not-found``. ``NeedDaemonReload`` is also
    ``yes`` for a drop-in that systemd has overlooked. Raises CommandExecutionError when systemd
    does not answer.

    CLI Example::

        salt ctl1 nova_unit.show '[nova-api, nova-conductor]'
    """
    units = [units] if isinstance(units, str) else units
    cache = __context__.setdefault(_CACHE, {})
    now, places = time.monotonic(), _mtimes(UNIT_PATHS)
    ask = list(
        dict.fromkeys(
            full
            for full in map(_full, units)
            if refresh
            or full not in cache
            or (cache[full][1]["LoadState"] == "not-found" and cache[full][2] != places)
            or now - cache[full][0] > FRESH
        )
    )
    if ask:
        output = _run(["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *ask])
        blocks = output.strip("\n").split("\n\n")
        if len(blocks) != len(ask):
            raise CommandExecutionError(
                f"systemctl show told of {len(blocks)} units where {len(ask)} were asked for: "
                f"{', '.join(ask)}."
            )
        cache.update(
            {
                full: (now, _properties(block), places)
                for full, block in zip(ask, blocks, strict=True)
            }
        )
    found = {}
    for unit in units:
        found[unit] = dict(cache[_full(unit)][1])
        if _full(unit) in __context__.get(_OLDER, []) or _has_other_drop_ins(found[unit]):
            found[unit]["NeedDaemonReload"] = "yes"
    return found


def act(verb: str, unit: str | list[str], timeout: int = 120, wait: bool = True) -> None:
    """
    Start, stop, restart, reload, enable or disable units, reset their failures, or reload systemd.

    verb : str
        One of ``start``, ``stop``, ``restart``, ``reload``, ``enable``, ``disable``,
        ``reset-failed`` and ``daemon-reload`` (on behalf of the unit).
    unit : str or list
        Name of the unit, or of several.
    timeout : int
        Seconds to wait for systemd; the job goes on after that.
    wait : bool
        False leaves the job to systemd at once.

    Raises CommandExecutionError when systemd refuses or the unit fails.

    CLI Example::

        salt ctl1 nova_unit.act restart nova-conductor
    """
    if verb not in VERBS:
        raise SaltInvocationError(f"verb must be one of {', '.join(VERBS)}, not {verb!r}.")
    full = [_full(name) for name in ([unit] if isinstance(unit, str) else unit)]
    cache, older = __context__.setdefault(_CACHE, {}), __context__.setdefault(_OLDER, [])
    if verb == "daemon-reload":
        # After it, systemd no longer knows of other units that run by an older definition.
        older += [seen for seen in cache if show([seen])[seen]["NeedDaemonReload"] == "yes"]
    names = [] if verb == "daemon-reload" else ["--", *full]
    try:
        _run(["systemctl", verb, *([] if wait else ["--no-block"]), *names], timeout)
    finally:
        for name in full:
            cache.pop(name, None)
    if verb in ("start", "stop", "restart"):
        older[:] = [other for other in older if other not in full]


def outdated(unit: str, reads: list[str] | None = None, reload: bool = False) -> dict:
    """
    Which files have changed since a running unit has read them.

    A file's mtime is what counts. Its ctime does not: chmod and chown, with which a converged
    state repairs a mode, would restart daemons that have nothing new to read. Files that a
    package manager unpacks keep an old mtime; to follow a package, name a file that is written
    when it is installed, such as ``/var/lib/dpkg/info/nova-common.list``.

    unit : str
        Name of the unit; it is looked up as :func:`show` saw it.
    reads : list
        Files, globs and directories that the daemon reads when it starts.
    reload : bool
        The daemon reads them at a reload, too.

    Returns a dict with ``since`` (local time at which it started, None if it does not run),
    ``restart`` and ``reload`` (lists of files for which each is due), and ``future`` (files whose
    time has yet to come, of which nothing can be said).

    CLI Example::

        salt ctl1 nova_unit.outdated nova-api '[/etc/nova/nova.conf]'
    """
    props = show([unit])[unit]
    found: dict = {"since": None, "restart": [], "reload": [], "future": []}
    started = props["ExecMainStartTimestampMonotonic"] or props["ActiveEnterTimestampMonotonic"]
    if not started or props["ActiveState"] in ("inactive", "failed"):
        return found
    wall = time.time()
    # systemd's times are of the monotonic clock: they stay right when the wall clock is set.
    offset = wall - time.clock_gettime(time.CLOCK_MONOTONIC)
    start = offset + started / 1e6
    read = start
    changed = props["StateChangeTimestampMonotonic"]
    reloaded = props["ActiveState"] == "active" and changed > props["ActiveEnterTimestampMonotonic"]
    if reload and reloaded and props["ReloadResult"] == "success":
        # A reload moves a unit to "reloading" and back to "active", and nothing else changes the
        # state of one that has become active and goes on.
        read = offset + changed / 1e6
    found["since"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(start))
    # The unit's own definition is read by systemd; no reload of the daemon brings it in.
    definition = [
        props["FragmentPath"],
        *sorted({*props["DropInPaths"].split(), *_drop_ins(props)}),
    ]
    for path, mtime in _mtimes(definition).items():
        if start < mtime <= wall:
            found["restart"].append(path)
    for path, mtime in _mtimes(reads or []).items():
        if mtime > wall:
            found["future"].append(path)
        elif mtime > read:
            found["reload" if reload else "restart"].append(path)
    return found


def not_listening(listens: list[list]) -> list[str]:
    """
    Those of some addresses on which nothing listens, found without a process or a connection.

    listens : list
        Pairs of address (or host name) and TCP port; ``*`` means any address.

    Returns a list of ``address:port``. Raises CommandExecutionError for a name without address.

    CLI Example::

        salt lb1 nova_unit.not_listening '[[10.20.0.40, 8774]]'
    """
    wanted = {
        f"{address}:{port}": (
            {f"{port:04X}"} if address in ("", "*") else _locals(address, int(port))
        )
        for address, port in listens
    }
    for table in ("tcp", "tcp6"):
        if not wanted:
            break
        with suppress(FileNotFoundError), open(os.path.join(PROC_NET, table), "rb", _READ) as lines:
            for line in lines:
                fields = line.split(None, 4)
                if fields[3] != _LISTEN:
                    continue
                local = fields[1].decode()
                here = {local, local.rpartition(":")[2]}
                wanted = {name: ways for name, ways in wanted.items() if here.isdisjoint(ways)}
                if not wanted:
                    break
    return list(wanted)


def http_answer(
    url: str, timeout: float = 10, ca: str | None = None
) -> dict[str, int | str | None]:
    """
    The status with which an URL answers. No proxy is used, no redirection followed.

    url : str
        ``http://…`` or ``https://…``
    timeout : float
        Seconds.
    ca : str
        Path of the CA that signed the server's certificate; the system's, if not given.

    Returns a dict with ``status`` (None if there was no answer) and ``reason`` (why not). Raises
    SaltInvocationError for what is no such URL, CommandExecutionError for an unreadable CA.

    CLI Example::

        salt ctl1 nova_unit.http_answer http://10.20.0.40:8774/
    """
    shown = __utils__["nova_url.mask"](url)
    if not re.match(r"https?://[^/]", url):
        raise SaltInvocationError(f"{shown} is no URL that begins with http:// or https://.")
    handlers: list = [urllib.request.ProxyHandler({}), _NoRedirect]
    if ca:
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as exc:
            raise CommandExecutionError(f"The CA {ca} cannot be read: {exc}.") from exc
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=timeout) as answer:
            return {"status": answer.status, "reason": ""}
    except urllib.error.HTTPError as exc:
        exc.close()
        return {"status": exc.code, "reason": ""}
    except (OSError, http.client.HTTPException) as exc:
        cause = getattr(exc, "reason", None) or exc
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return {"status": None, "reason": reason}


def last_error(unit: str, lines: int = 100) -> str:
    """
    The last error that a unit's daemon wrote to the journal, with credentials masked.

    unit : str
        Name of the unit.
    lines : int
        How many of the last lines to look through.

    Returns one line, empty if the daemon said nothing.

    CLI Example::

        salt ctl1 nova_unit.last_error nova-conductor
    """
    result = __salt__["cmd.run_all"](
        ["journalctl", "-u", _full(unit), "-n", str(lines), "-o", "cat", "--no-pager", "-q"],
        python_shell=False,
        ignore_retcode=True,
        output_loglevel="quiet",
    )
    said = [
        line.strip()
        for line in result["stdout"].splitlines()
        if line.strip() and not _SYSTEMD_SAYS.match(line)
    ]
    errors = [line for line in said if _ERROR.search(line)]
    last = (errors or said or [""])[-1]
    return __utils__["nova_url.mask"](last)[:300]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib knows no option for this: a redirection is an answer like any other."""

    def redirect_request(self, *args, **kwargs):
        return None


def _full(unit: str) -> str:
    return unit if unit.endswith(_SUFFIXES) else f"{unit}.service"


def _properties(block: str) -> dict[str, str | int]:
    props: dict[str, str | int] = dict.fromkeys(PROPERTIES, "")
    props.update(line.split("=", 1) for line in block.splitlines() if "=" in line)
    for key, value in props.items():
        if _NUMBERS.match(key):
            props[key] = int(value) if str(value).isdigit() else 0
    return props


def _drop_ins(props: dict) -> set[str]:
    """The drop-ins of a unit that an administrator has on disk; a link to /dev/null is none."""
    return {
        path
        for unit in props["Names"].split()
        for path in glob.glob(os.path.join(SYSTEM, f"{unit}.d", "*.conf"))
        if os.path.realpath(path) != os.devnull
    }


def _has_other_drop_ins(props: dict) -> bool:
    """
    Whether drop-ins came or went since systemd has read them.

    systemd 252 does not see one whose directory is younger than its last daemon-reload: it calls
    the unit up to date, and starts it without.
    """
    read = set(props["DropInPaths"].split())
    return bool(_drop_ins(props) - read) or not all(map(os.path.lexists, read))


def _run(command: list[str], timeout: int | None = None) -> str:
    result = __salt__["cmd.run_all"](
        command, python_shell=False, ignore_retcode=True, timeout=timeout
    )
    if result["retcode"]:
        said = (result["stderr"] or result["stdout"]).strip().splitlines()
        reason = said[0].rstrip(".") if said else f"exit code {result['retcode']}"
        shown = " ".join(word for word in command if not word.startswith("-"))
        raise CommandExecutionError(f"`{shown}` failed: {reason}.")
    return result["stdout"]


def _mtimes(patterns: list[str]) -> dict[str, float]:
    found = {}
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):
            try:
                # A link that points elsewhere now is as new as the link.
                found[path] = max(os.stat(path).st_mtime, os.lstat(path).st_mtime)
            except FileNotFoundError:
                continue
    return found


def _locals(address: str, port: int) -> set[str]:
    """How the tables in /proc/net may write an address and the wildcards that cover it."""
    try:
        infos = socket.getaddrinfo(address.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise CommandExecutionError(
            f"The address {address} on which port {port} should listen has no meaning here: "
            f"{exc.strerror}. Add it to /etc/hosts or the DNS, or give the address itself."
        ) from exc
    packed = {bytes(16)}
    for family, *_, sockaddr in infos:
        raw = socket.inet_pton(family, sockaddr[0].partition("%")[0])
        packed.add(raw)
        if family == socket.AF_INET:
            packed |= {bytes(4), bytes(10) + b"\xff\xff" + raw}
    return {f"{_hex(raw)}:{port:04X}" for raw in packed}


def _hex(raw: bytes) -> str:
    words = (raw[i : i + 4] for i in range(0, len(raw), 4))
    return "".join((w[::-1] if sys.byteorder == "little" else w).hex() for w in words).upper()
