"""
OpenStack configuration files, as oslo.config reads them; and what may be shown of any.
"""

import difflib
import re

from salt.exceptions import CommandExecutionError

#: Options whose value is a secret, by name.
SECRET = re.compile(r"(password|secret|auth_(key|pass$)|_token$|transport_url|connection$|_key$)")
#: What tells who logs in to Keystone, and where.
_AUTH = ("auth_url", "username", "password", "project_name")
_AUTH += ("user_domain_name", "project_domain_name")
_PLAIN = re.compile(r"^(\w*_)?(token_roles_required|memcache_security_strategy)$")


def parse(text: str) -> dict[str, dict[str, list[str]]]:
    """
    Parse the text of a configuration file.

    text : str
        Sections, ``option = value`` lines, continuation lines that begin with white space, and
        comments that begin with ``#`` or ``;``.

    Returns section → option → list of values (an option may stand there several times).
    """
    sections: dict[str, dict[str, list[str]]] = {}
    section = sections.setdefault("DEFAULT", {})
    last: list[str] | None = None
    # Not splitlines: to oslo.config a form feed, for one, is a part of the value.
    for line in text.split("\n"):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        if line[0].isspace() and last:
            last[-1] += "\n" + line.strip()
        elif line.startswith("["):
            section = sections.setdefault(line.strip()[1:].split("]")[0], {})
            last = None
        else:
            key, separator, val = line.partition("=")
            if not separator:
                key, _, val = line.partition(":")
            last = section.setdefault(key.strip(), [])
            last.append(_unquoted(val.strip()))
    return sections


def _unquoted(value: str) -> str:
    return value[1:-1] if value[:1] in ('"', "'") and value[0] == value[-1] else value


def read(path: str) -> dict[str, dict[str, list[str]]]:
    """
    Parse a configuration file; one that does not exist has no sections.

    path : str
        Such as ``/etc/nova/nova.conf``.

    Raises CommandExecutionError when the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            return parse(stream.read())
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise CommandExecutionError(f"Cannot read {path}: {exc.strerror}.") from exc


def option(path: str, section: str, name: str) -> str | None:
    """
    The value of one option as the program sees it: the last one given, ``$$`` unescaped.

    path : str
        The configuration file.
    section, name : str
        Such as ``api_database`` and ``connection``.

    Returns None when the file or the option does not exist.
    """
    values = read(path).get(section, {}).get(name)
    return values[-1].replace("$$", "$") if values else None


def accounts(text: str) -> dict[str, dict]:
    """
    The accounts with which a program logs in elsewhere, secrets included: where → account.

    text : str
        Of its configuration file. An account has a ``kind``: ``database`` and ``messaging`` have an
        ``url``, ``messaging`` also ``tls`` (options of its driver), ``identity`` has ``auth``, as
        nova_identity takes it.
    """
    found: dict[str, dict] = {}
    tls = messaging_tls(text)
    for section, options in parse(text).items():
        conf = {name: values[-1].replace("$$", "$") for name, values in options.items()}
        if "database" in section and "://" in conf.get("connection", ""):
            found[f"[{section}] connection"] = {"kind": "database", "url": conf["connection"]}
        if "://" in conf.get("transport_url", ""):
            account = {"kind": "messaging", "url": conf["transport_url"], "tls": tls}
            found[f"[{section}] transport_url"] = account
        if all(conf.get(name) for name in ("auth_url", "username", "password")):
            auth = {name: conf[name] for name in _AUTH if conf.get(name)}
            if conf.get("cafile"):
                auth["cacert"] = conf["cafile"]
            # Nothing of the formula's talks to a server whose certificate nobody checks.
            if conf.get("insecure", "").lower() not in ("true", "1", "yes", "on"):
                found[f"[{section}] username"] = {"kind": "identity", "auth": auth}
    return found


def messaging_tls(text: str) -> dict[str, str]:
    """The options of oslo.messaging's rabbit driver that are about TLS, in a configuration text."""
    options = parse(text).get("oslo_messaging_rabbit", {})
    return {name: values[-1] for name, values in options.items() if name.startswith("ssl")}


def is_secret(name: str) -> bool:
    """Whether the value of an option with this name is a secret."""
    return bool(SECRET.search(name)) and not _PLAIN.match(name)


def diff(old: str, new: str) -> dict[str, dict[str, str | None]]:
    """
    What changes from one configuration text to another, option by option, secrets masked.

    old, new : str
        The two texts.

    Returns ``[section] option`` → ``{old: …, new: …}``; an option that is absent is None.
    """
    before, after = parse(old), parse(new)
    changes: dict[str, dict[str, str | None]] = {}
    for section in sorted(before.keys() | after.keys()):
        was, will = before.get(section, {}), after.get(section, {})
        for name in sorted(was.keys() | will.keys()):
            if was.get(name) != will.get(name):
                changes[f"[{section}] {name}"] = {
                    "old": _shown(name, was.get(name)),
                    "new": _shown(name, will.get(name)),
                }
    return changes


def diff_lines(old: str, new: str) -> dict[str, str]:
    """
    What changes from one text to another, line by line, secrets masked.

    old, new : str
        Texts of lines whose first word names what follows.

    Returns ``{diff: …}``, empty for texts that are the same.
    """

    def shown(line):
        found = re.match(r".\s*(\w+)[\s=]+", line)
        return f"{found[0]}***" if found and is_secret(found[1].lower()) else line

    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))[2:]
    return {"diff": "\n".join(map(shown, lines))} if lines else {}


def _shown(name: str, values: list[str] | None) -> str | None:
    if values is None:
        return None
    return "***" if is_secret(name) else ", ".join(values)
