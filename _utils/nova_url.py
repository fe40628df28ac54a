"""
URLs of databases and message queues, as nova writes, reads and templates them.
"""

import re
from urllib.parse import quote, unquote, urlsplit

_CREDENTIALS = re.compile(r"(?<=://)[^\s'\"]*@")
_NETLOC = re.compile(r"(?:(?P<username>[^:@]*)(?::(?P<password>[^@]*))?@)?(?P<rest>[^@]*)$")


def encode(text: str) -> str:
    """
    Percent-encode a user name or password for use in a URL.

    text : str
        Any text; every character with a meaning in a URL is encoded, ``/`` too.
    """
    return quote(text, safe="")


def mask(text: str) -> str:
    """
    Replace the credentials in every URL of a text by ``***``.

    text : str
        One URL, or any text with URLs in it, such as the output of a program. Everything from
        ``://`` to the last ``@`` of the word is replaced, so a password that holds an unencoded
        ``@`` or ``/`` is masked whole; so are all hosts but the last of a multi-host URL.
    """
    return _CREDENTIALS.sub("***@", text)


def is_template(url: str) -> bool:
    """Whether a cell's URL is a template, such as ``{scheme}://{username}…``, not a literal URL."""
    return "{" in url


def _split_netloc(netloc: str) -> dict[str, str]:
    found = _NETLOC.match(netloc)
    parts = {k: v for k, v in found.groupdict().items() if k != "rest" and v is not None}
    host, colon, port = found["rest"].rpartition(":")
    if colon and port.isdigit():
        parts["hostname"], parts["port"] = host, port
    else:
        parts["hostname"] = found["rest"]
    return parts


def render(template: str, default: str) -> str:
    """
    Render a cell's URL template the way nova does.

    template : str
        What ``cell_mappings`` holds; a literal URL comes back as it is.
    default : str
        The node's ``[database] connection`` or ``[DEFAULT] transport_url``.

    Raises ValueError when the template names a part that the default URL has not.
    Source: ``CellMapping._format_url`` in nova/objects/cell_mapping.py (Rocky to 2026.2).
    """
    if not is_template(template):
        return template
    url = urlsplit(default)
    first = _split_netloc(url.netloc.split(",")[0])
    parts = {
        "username": first.get("username"),
        "password": first.get("password"),
        "hostname": (first.get("hostname") or "").lower().strip("[]"),
        "port": first.get("port"),
        "scheme": url.scheme,
        "query": url.query,
        "fragment": url.fragment,
        "path": url.path.lstrip("/"),
    }
    if "," in url.netloc:
        for index, netloc in enumerate(url.netloc.split(","), start=1):
            parts.update({f"{k}{index}": v for k, v in _split_netloc(netloc).items()})
    try:
        return template.format(**parts)
    except (KeyError, IndexError) as exc:
        raise ValueError(f"the template {template} names {exc}, which the URL has not") from exc


def parse(url: str) -> dict[str, str | int | dict | None]:
    """
    The parts of a SQLAlchemy database URL, decoded.

    url : str
        ``mysql+pymysql://user:password@host:port/database?charset=utf8``

    Returns a dict with ``scheme``, ``user``, ``password``, ``host``, ``port`` (int or None),
    ``database`` and ``query`` (dict).
    """
    parts = urlsplit(url)
    netloc = _split_netloc(parts.netloc)
    return {
        "scheme": parts.scheme,
        "user": unquote(netloc.get("username") or ""),
        "password": unquote(netloc.get("password") or ""),
        "host": (netloc.get("hostname") or "").strip("[]"),
        "port": int(netloc["port"]) if netloc.get("port") else None,
        "database": parts.path.lstrip("/"),
        "query": dict(
            (unquote(k), unquote(v))
            for k, _, v in (pair.partition("=") for pair in parts.query.split("&") if pair)
        ),
    }
