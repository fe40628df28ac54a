"""
Sections of an haproxy.cfg, owned by name and edited in place; servers, as haproxy runs them.

Whatever stands outside of the named sections stays as it is, to the byte. Comments and blank lines
after a section's last line belong to nobody and stay as well.
"""

import contextlib
import functools
import os
import re
import socket
import tempfile

import salt.utils.path
from salt.exceptions import CommandExecutionError, SaltInvocationError

#: Words that begin a section wherever they begin a line.
KEYWORD = re.compile(
    "global|defaults|listen|frontend|backend|peers|resolvers|mailers|userlist|http-errors|program"
    "|cache|ring|log-forward|log-profile|fcgi-app|crt-store|traces|acme"
)
#: Kinds of section that can be owned, and the kinds that may not carry the same name.
CLASHES = {
    "listen": ("listen", "frontend", "backend"),
    "frontend": ("frontend", "listen"),
    "backend": ("backend", "listen"),
}
#: Exit codes of ``haproxy -c``.
EXIT_VALID = 0
EXIT_NO_LISTENER = 2

#: Bits of a server's administrative state, in ``show servers state``.
MAINTENANCE = 0x01
DRAIN = 0x08
#: Its operational state while it serves, or is about to.
RUNNING = ("1", "2")

_WORD = re.compile(
    r"""\#.*|(?:[^\s"'\\#]|\\.|"(?:[^"\\]|\\.)*"|'[^']*'|["'\\])+""", re.ASCII | re.DOTALL
)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_ALERT = re.compile(r"^\[ALERT\]\s*(?:\d+/\d+\s*)?\(\d+\)\s*:\s*(?:config\s*:\s*)?(.*)$", re.M)
_SUMMARY = re.compile(r"^(Error\(s\) found in configuration file|Fatal errors found)")
# What an earlier state of the same run may still bring.
_MISSING = re.compile(
    r"no such file|unable to (stat|load|open)|could not resolve|cannot open", re.I
)
_WILDCARDS = ("", "*", "0.0.0.0", "::", "[::]")


def list_sections(name: str = "/etc/haproxy/haproxy.cfg") -> list[dict[str, str | int]]:
    """
    The sections of a configuration file, in their order.

    name : str
        Path of the file.

    Returns a list of dicts with ``kind``, ``name`` (empty for such as ``global``), ``line``
    (counted from 1) and ``text``. Raises CommandExecutionError when the file cannot be read.

    CLI Example::

        salt lb1 nova_haproxy.list_sections
    """
    text = _read(name)
    if text is None:
        raise CommandExecutionError(f"{name} does not exist: install haproxy first.")
    lines = _LINE.findall(text)
    return [
        {
            "kind": section["kind"],
            "name": section["name"],
            "line": section["start"] + 1,
            "text": _shown("".join(lines[section["start"] : section["end"]])),
        }
        for section in _parse(lines)
    ]


def edit(
    name: str = "/etc/haproxy/haproxy.cfg",
    present: dict[str, list[str]] | None = None,
    absent: list[str] | None = None,
    kind: str = "listen",
    program: str = "haproxy",
    defaults_text: str | None = None,
    test: bool = False,
) -> dict[str, dict[str, str | None]]:
    """
    Bring sections into a configuration file, or take them out.

    Sections of equal meaning (white space, comments) are left as they are; missing ones are
    appended in the given order. The new file is checked by haproxy itself, and replaces the old
    one, in one step and with its owner and mode, only if it is found good.

    name : str
        Path of the file; a symbolic link is followed.
    present : dict
        Section name → its lines, without indentation.
    absent : list
        Names of sections to remove.
    kind : str
        ``listen``, ``frontend`` or ``backend``.
    program : str
        The haproxy program that checks the file.
    defaults_text : str
        What a file that does not exist begins with; without it, a missing file is an error.
    test : bool
        Only look: nothing is written, and neither the file nor the program need exist.

    Returns section name → ``{"old": text or None, "new": text or None}``; nothing due: ``{}``.
    Raises SaltInvocationError for arguments that make no section, CommandExecutionError when a
    section is ambiguous, an address is taken, or haproxy refuses the result.

    CLI Example::

        salt lb1 nova_haproxy.edit absent='[openstack_nova_port_8774]' test=True
    """
    if kind not in CLASHES:
        raise SaltInvocationError(f"kind must be one of {', '.join(CLASHES)}, not {kind!r}.")
    if not os.path.isabs(name):
        raise SaltInvocationError(
            f"name must be the absolute path of an haproxy.cfg, not {name!r}."
        )
    wanted = {section: _content(section, lines) for section, lines in (present or {}).items()}
    if both := wanted.keys() & set(absent or []):
        raise SaltInvocationError(f"{', '.join(sorted(both))} cannot be both present and absent.")
    path = os.path.realpath(name)
    plan = functools.partial(
        _plan, path, wanted, absent or [], kind, name, defaults_text, without=test
    )
    old, new, changes = plan()
    if not changes:
        return {}
    allowed = (EXIT_VALID,) if wanted else (EXIT_VALID, EXIT_NO_LISTENER)
    if test:
        # What the installed package would bring is not known yet; a lone section proves nothing.
        if salt.utils.path.which(program) and (old is not None or defaults_text is not None):
            _trial(new, program, name, allowed)
        return changes
    if not salt.utils.path.which(program):
        raise CommandExecutionError(
            f"The program {program} that checks {name} is not installed: install haproxy first."
        )
    with __utils__["nova_file.alone"](path):
        _, new, changes = plan()
        if changes:
            owned = (-1, -1, 0o644)
            with contextlib.suppress(FileNotFoundError):
                stat = os.stat(path)
                owned = (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777)
            with __utils__["nova_file.fresh"](path, _bytes(new), *owned) as temp:
                _check(program, temp, name, allowed)
                __utils__["nova_file.rename"](temp, path)
    return changes


def _plan(
    path: str,
    wanted: dict,
    absent: list[str],
    kind: str,
    name: str,
    defaults_text: str | None,
    without: bool,
) -> tuple[str | None, str, dict]:
    """A file's text, the one that it should have, and the changes; ``without`` a file: no fault."""
    old = _read(path)
    changes: dict[str, dict[str, str | None]] = {}
    if old is None and wanted:
        if defaults_text is None and not without:
            raise CommandExecutionError(
                f"{name} does not exist: install haproxy, whose package brings one, or give "
                "defaults_text."
            )
        if defaults_text is not None:
            changes[name] = {"old": None, "new": defaults_text}
    new, changed = _edited(
        old if old is not None else defaults_text or "", wanted, absent, kind, name
    )
    changes.update(changed)
    _refuse_shared_binds(new, wanted, kind, name)
    return old, new, changes


def servers(
    sections: list[str], name: str = "/run/haproxy/admin.sock"
) -> dict[str, dict[str, dict[str, bool | int]]]:
    """
    The servers of sections, as haproxy sees them at this moment.

    sections : list
        Names of sections.
    name : str
        Path of haproxy's statistics socket.

    Returns section → server → ``up``, ``drained``, ``maintenance`` (booleans) and ``sessions``
    (their number). Raises CommandExecutionError when haproxy does not answer or has no such
    section.

    CLI Example::

        salt lb1 nova_haproxy.servers '[openstack_nova_port_8774]'
    """
    sessions = {}
    for line in _said(name, "show stat").splitlines():
        fields = line.split(",")
        if len(fields) > 4 and not line.startswith("#"):
            sessions[fields[0], fields[1]] = int(fields[4] or 0)
    found: dict[str, dict[str, dict[str, bool | int]]] = {section: {} for section in sections}
    for line in _said(name, "show servers state").splitlines():
        fields = line.split()
        if len(fields) > 6 and fields[1] in found:
            _, section, _, server, _, state, admin = fields[:7]
            found[section][server] = {
                "up": state in RUNNING,
                "drained": bool(int(admin) & DRAIN),
                "maintenance": bool(int(admin) & MAINTENANCE),
                "sessions": sessions.get((section, server), 0),
            }
    if missing := [section for section, known in found.items() if not known]:
        raise CommandExecutionError(
            f"haproxy has no servers in {', '.join(missing)}: apply nova.haproxy first."
        )
    return found


def drain(section: str, server: str, name: str = "/run/haproxy/admin.sock") -> None:
    """
    Give a server no new connections; it keeps those that it has. A reload of haproxy forgets it.

    section, server : str
        Of haproxy's configuration.
    name : str
        Path of haproxy's statistics socket, which has to be of level admin.

    Raises CommandExecutionError when haproxy refuses.

    CLI Example::

        salt lb1 nova_haproxy.drain openstack_nova_port_8774 ctl1
    """
    _set_state(section, server, "drain", name)


def ready(section: str, server: str, name: str = "/run/haproxy/admin.sock") -> None:
    """
    Give a server connections again, if its check is content with it.

    section, server : str
        Of haproxy's configuration.
    name : str
        Path of haproxy's statistics socket, which has to be of level admin.

    Raises CommandExecutionError when haproxy refuses.

    CLI Example::

        salt lb1 nova_haproxy.ready openstack_nova_port_8774 ctl1
    """
    _set_state(section, server, "ready", name)


def _set_state(section: str, server: str, state: str, name: str) -> None:
    for word in (section, server):
        if _words(word) != (word,) or {*word} & {*"/;"}:
            raise SaltInvocationError(f"{word!r} is no name for a section or server of haproxy.")
    said = _said(name, f"set server {section}/{server} state {state}").strip()
    if said:
        raise CommandExecutionError(
            f"haproxy does not set {section}/{server} to {state}: {said.rstrip('.')}. Its "
            f"statistics socket {name} has to be of level admin, in haproxy.cfg's section global."
        )


def _said(path: str, command: str) -> str:
    """What haproxy answers to a command at its statistics socket."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(10)
            link.connect(path)
            link.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: link.recv(65536), b"")).decode("utf-8", "replace")
    except OSError as exc:
        raise CommandExecutionError(
            f"haproxy does not answer at {path} ({exc.strerror or exc}): see that it runs, and "
            "that nova:haproxy:socket is the `stats socket` of haproxy.cfg."
        ) from exc


def _read(path: str) -> str | None:
    try:
        with open(path, "rb") as handle:
            return handle.read().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CommandExecutionError(f"Cannot read {path}: {exc.strerror}.") from exc


def _shown(text: str) -> str:
    """Text as msgpack can carry it, with plain newlines."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text.replace("\r\n", "\n").rstrip("\n") + "\n"


def _words(line: str) -> tuple[str, ...]:
    words = []
    for word in _WORD.findall(line):
        if word.startswith("#"):
            break
        words.append(word)
    return tuple(words)


def _parse(lines: list[str]) -> list[dict]:
    """Sections with ``start`` and ``end`` (past the last line that says something)."""
    sections: list[dict] = []
    for number, line in enumerate(lines):
        words = _words(line)
        if not words:
            continue
        if KEYWORD.fullmatch(re.sub(r"[\"'\\]", "", words[0])):
            name = words[1] if len(words) > 1 else ""
            sections.append(
                {"kind": words[0], "name": name, "start": number, "end": number + 1, "words": []}
            )
        if not sections or words[0].startswith("."):
            # `.if` and `.endif` enclose sections, they are no part of them.
            continue
        sections[-1]["end"] = number + 1
        sections[-1]["words"].append(words)
    return sections


def _content(section: str, lines: list[str]) -> list[str]:
    if not isinstance(section, str) or len(_words(section)) != 1 or _words(section)[0] != section:
        raise SaltInvocationError(f"{section!r} is no name for a section of haproxy.")
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise SaltInvocationError(f"The section {section} must be a list of lines of text.")
    content = []
    for line in lines:
        words = _words(line)
        # A word in quotes may be any, and one that begins with a point is a condition.
        plain = not words or (_PLAIN.fullmatch(words[0]) and not KEYWORD.fullmatch(words[0]))
        if len(f"{line} ".splitlines()) > 1 or not plain:
            raise SaltInvocationError(
                f"The section {section} holds {line!r}, which could begin another line or section."
            )
        if words:
            content.append(line.strip(" \t"))
    return content


def _find(sections: list[dict], section: str, kind: str, name: str) -> dict | None:
    found = [s for s in sections if s["name"] == section and s["kind"] in CLASHES[kind]]
    if len(found) > 1 or (found and found[0]["kind"] != kind):
        places = ", ".join(f"{s['kind']} in line {s['start'] + 1}" for s in found)
        raise CommandExecutionError(
            f"{name} already uses the name {section} in a way that leaves open which section is "
            f"meant ({places}; wanted: one {kind}): remove or rename what was made by hand."
        )
    return found[0] if found else None


def _edited(
    text: str, wanted: dict[str, list[str]], absent: list[str], kind: str, name: str
) -> tuple[str, dict[str, dict[str, str | None]]]:
    lines = _LINE.findall(text)
    sections = _parse(lines)
    eol = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    changes: dict[str, dict[str, str | None]] = {}
    appended: list[str] = []
    edits: list[tuple[int, int, list[str]]] = []
    for section, content in wanted.items():
        own = [f"{kind} {section}", *(f"    {line}" for line in content)]
        new = "".join(line + "\n" for line in own)
        found = _find(sections, section, kind, name)
        if found is None:
            changes[section] = {"old": None, "new": new}
            appended += ["", *own]
        elif found["words"] != [_words(line) for line in own]:
            changes[section] = {"old": _shown(_text(lines, found, name)), "new": new}
            edits.append((found["start"], found["end"], [line + eol for line in own]))
    for section in dict.fromkeys(absent):
        found = _find(sections, section, kind, name)
        if found:
            changes[section] = {"old": _shown(_text(lines, found, name)), "new": None}
            edits.append((found["start"], found["end"], []))
    for start, end, own in sorted(edits, reverse=True):
        lines[start:end] = own
    if appended:
        if lines and not lines[-1].endswith("\n"):
            lines.append(eol)
        if not lines or not lines[-1].strip():
            del appended[0]
        lines += [line + eol for line in appended]
    return "".join(lines), changes


def _text(lines: list[str], section: dict, name: str) -> str:
    own = lines[section["start"] : section["end"]]
    for number, line in enumerate(own, start=section["start"] + 1):
        if line.lstrip().startswith("."):
            raise CommandExecutionError(
                f"{name} has the condition {_shown(line).strip()} in line {number}, inside of the "
                f"section {section['name']}, which is to be edited: remove the condition."
            )
    return "".join(own)


def _binds(section: dict) -> list[tuple[str, int, int]]:
    """The addresses that a section listens on: host, first port, last port."""
    found = []
    for words in section["words"]:
        for address in words[1].strip("\"'").split(",") if words[0] == "bind" and words[1:] else ():
            host, _, ports = re.sub(r"^(ipv[46]|tcp[46]?)@", "", address).rpartition(":")
            first, _, last = ports.partition("-")
            if first.isdigit() and (last or first).isdigit():
                found.append((host, int(first), int(last or first)))
    return found


def _refuse_shared_binds(text: str, wanted: dict, kind: str, name: str) -> None:
    """Haproxy starts with two sections on one address, and serves from either as it pleases."""
    sections = _parse(_LINE.findall(text))
    binds = [(section, *bind) for section in sections for bind in _binds(section)]
    for own, host, first, last in binds:
        if own["kind"] != kind or own["name"] not in wanted:
            continue
        for other, other_host, other_first, other_last in binds:
            same = host == other_host or host in _WILDCARDS or other_host in _WILDCARDS
            if other is not own and same and first <= other_last and other_first <= last:
                raise CommandExecutionError(
                    f"{name} already uses the address {other_host}:{max(first, other_first)} in "
                    f"the section {other['kind']} {other['name']}, so {own['name']} cannot bind "
                    f"{host}:{max(first, other_first)}: remove that section or choose another "
                    "address."
                )


def _trial(text: str, program: str, name: str, allowed: tuple[int, ...]) -> None:
    """Check a text that is not to go live."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".haproxy.cfg.") as file:
            file.write(_bytes(text))
            file.flush()
            _check(program, file.name, name, allowed, tolerant=True)
    except OSError as exc:
        raise CommandExecutionError(f"Cannot write a temporary file: {exc.strerror}.") from exc


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _check(
    program: str, temp: str, name: str, allowed: tuple[int, ...], tolerant: bool = False
) -> None:
    result = __salt__["cmd.run_all"](
        [program, "-c", "-f", temp], python_shell=False, ignore_retcode=True
    )
    if result["retcode"] in allowed:
        return
    output = f"{result['stdout']}\n{result['stderr']}".replace(temp, name)
    alerts = [alert for alert in _ALERT.findall(output) if not _SUMMARY.match(alert)]
    reason = "; ".join(alerts) or " ".join(output.split()) or f"exit code {result['retcode']}"
    if tolerant and _MISSING.search(reason):
        return
    raise CommandExecutionError(
        f"haproxy refuses the new {name}, so the old one stays: {reason.rstrip('.')}."
    )
