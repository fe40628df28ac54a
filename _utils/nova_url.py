"""
URLs of databases and message queues, as nova writes, reads, templates and compares them.
"""

import re
from urllib.parse import SplitResult, quote, unquote, urlsplit

# Over HTTP credentials hold no blank or quote; elsewhere they may hold anything.
_HTTP = re.compile(r"(?<=http://|ttps://)[^\s'\"]*@")
_OTHER = re.compile(r"(?<!http)(?<!https)://.*@")
_NETLOC = re.compile(r"(?:(?P<username>[^:@]*)(?::(?P<password>[^@]*))?@)?(?P<rest>[^@]*)$")
_FIELD = re.compile(r"\{\w+\}")
_NOT_ENCODED = "its user or password holds a character that must be percent-encoded"
#: The port that is meant where an URL of this kind names none.
_PORTS = {"mysql": "3306", "rabbit": "5672"}


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
        ``://`` to the last ``@`` of the line is replaced (of an HTTP URL: of the word), so a
        password is masked whole whatever it holds; so is what stands between two URLs.
    """
    return _OTHER.sub("://***@", _HTTP.sub("***@", text))


def is_template(url: str) -> bool:
    """Whether a cell's URL is a template, such as ``{scheme}://{username}…``, not a literal URL."""
    return "{" in url


def holds_secret(url: str) -> bool:
    """
    Whether a password stands in a cell's URL: anything but a field where credentials do.

    url : str
        A template or a literal URL. In doubt it does.
    """
    pieces = url.partition("://")[2].rpartition("@")[0].split(",")
    for index, piece in enumerate(pieces):
        # All pieces but the last end with a host.
        userinfo, at, _ = piece.rpartition("@") if index < len(pieces) - 1 else (piece, "@", "")
        user, colon, password = (userinfo if at else piece).partition(":")
        if _FIELD.sub("", password if colon else user):
            return True
    return False


def shown(url: str) -> str:
    """A cell's URL as it may be shown: a template as it is, a literal one masked."""
    return mask(url) if holds_secret(url) else url


def check(url: str) -> None:
    """Raise ValueError unless an URL, or what a template makes of its own parts, can be read."""
    if not is_template(url):
        _meaning(url)


def same(one: str, other: str) -> bool:
    """
    Whether two URLs of a cell mean the same.

    one, other : str
        Templates, which are compared as texts, or literal URLs: then neither the order of several
        hosts and of the query counts, nor how something is encoded, the case of a host name, or
        whether a default port or the default virtual host is written.
    """
    if one == other or is_template(one) or is_template(other):
        return one == other
    try:
        return _meaning(one) == _meaning(other)
    except ValueError:
        return False


def _meaning(url: str) -> tuple:
    parts = _split(url)
    kind = parts.scheme.partition("+")[0].lower()
    hosts = []
    for netloc in parts.netloc.split(","):
        found = _split_netloc(netloc)
        credentials = [unquote(found.get(part) or "") for part in ("username", "password")]
        port = found.get("port") or _PORTS.get(kind)
        hosts.append((*credentials, found["hostname"].lower().strip("[]"), port))
    path = unquote(parts.path[1:])
    if kind == "rabbit":
        path = path or "/"
    query = sorted(tuple(map(unquote, pair.partition("=")[::2])) for pair in _pairs(parts.query))
    return parts.scheme.lower(), sorted(hosts), path, query


def _pairs(query: str) -> list[str]:
    return [pair for pair in query.split("&") if pair]


def _split(url: str) -> SplitResult:
    """urlsplit, which takes parts of a password that is not encoded for a host or a path."""
    scheme, mark, rest = url.partition("://")
    hosts = re.split("[/?#]", rest, maxsplit=1)[0]
    # Patched Pythons refuse a list of hosts of which only some are IPv6 addresses.
    parts = urlsplit(scheme + mark + rest[len(hosts) :])._replace(netloc=hosts)
    if "@" in parts.path + parts.query + parts.fragment or any(
        netloc.count("@") > 1 for netloc in parts.netloc.split(",")
    ):
        raise ValueError(_NOT_ENCODED)
    return parts


def _split_netloc(netloc: str) -> dict[str, str]:
    found = _NETLOC.match(netloc)
    if not found:
        raise ValueError(_NOT_ENCODED)
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

    Raises ValueError when the template names a part that the default URL has not, or when that one
    is not encoded as it must be.
    Source: ``CellMapping._format_url`` in nova/objects/cell_mapping.py (Rocky to 2026.2).
    """
    if not is_template(template):
        return template
    url = _split(default)
    first = _split_netloc(url.netloc.split(",")[0])
    parts = {
        "username": first.get("username"),
        "password": first.get("password"),
        "hostname": first["hostname"].lower().strip("[]"),
        "port": first.get("port"),
        "scheme": url.scheme,
        "query": url.query,
        "fragment": url.fragment,
        "path": url.path.lstrip("/"),
    }
    if "," in url.netloc:
        for index, netloc in enumerate(url.netloc.split(","), start=1):
            found = _split_netloc(netloc)
            if found["hostname"].startswith("["):
                found["hostname"] = found["hostname"].strip("[]")
                found["port"] = f":{found['port']}" if "port" in found else ""
            parts.update({f"{k}{index}": v for k, v in found.items()})
    try:
        return template.format(**parts)
    except (KeyError, IndexError) as exc:
        raise ValueError(f"the template {template} names {exc}, which the URL has not") from exc


def database_template(url: str, database: str | None = None, server: str | None = None) -> str:
    """
    The template of a cell's database URL that follows a node's ``[database] connection``.

    url : str
        The node's URL. nova renders ``{port}`` as None and ``{hostname}`` without brackets, so the
        template has the parts that the URL has; ``{query}`` is always there, for an empty one does
        no harm.
    database : str
        Name of another database.
    server : str
        Another server, ``host:port``, with the same credentials.

    Raises ValueError when a character of the credentials must be encoded and is not.
    """
    netloc = _netloc_template(_split(url).netloc, server=server)
    return "{scheme}://" + netloc + f"/{database or '{path}'}?{{query}}"


def transport_template(
    url: str, virtual_host: str | None = None, servers: list[str] | None = None
) -> str:
    """
    The template of a cell's transport URL that follows a node's ``[DEFAULT] transport_url``.

    url : str
        The node's URL. nova renders ``{path}`` without any leading slash, so the template repeats
        them all: the virtual host ``/`` is ``//{path}``, as ``/nova`` is. Of several hosts each has
        fields of its own (``{username1}`` …).
    virtual_host : str
        Another virtual host, such as ``/`` or ``cell2``.
    servers : list
        Other hosts, each ``host:port``, with the first one's credentials.

    Raises ValueError when nova cannot render such a template: not all of several hosts have
    credentials of their own.
    """
    parts = _split(url)
    netlocs = parts.netloc.split(",")
    several = len(netlocs) > 1
    if several and not all("@" in netloc for netloc in netlocs):
        raise ValueError("it names several hosts but not the credentials of each")
    if servers:
        number = "1" if several else ""
        hosts = [_netloc_template(netlocs[0], number, server) for server in servers]
    else:
        hosts = [
            _netloc_template(netloc, str(index) if several else "")
            for index, netloc in enumerate(netlocs, start=1)
        ]
    slashes = "/" * (len(parts.path) - len(parts.path.lstrip("/")))
    path = slashes + "{path}" if slashes else ""
    if virtual_host is not None:
        path = "/" + encode(virtual_host)
    return "{scheme}://" + ",".join(hosts) + path + "?{query}"


def _netloc_template(netloc: str, number: str = "", server: str | None = None) -> str:
    userinfo, _, hostport = netloc.rpartition("@")
    fields = ""
    if userinfo:
        fields = f"{{username{number}}}"
        fields += f":{{password{number}}}@" if ":" in userinfo else "@"
    if server:
        return fields + server
    six = hostport.startswith("[")
    fields += f"[{{hostname{number}}}]" if six else f"{{hostname{number}}}"
    if re.search(r":\d+$", hostport):
        # Of several hosts nova takes what follows the bracket for the port, its colon too.
        fields += f"{{port{number}}}" if six and number else f":{{port{number}}}"
    return fields


def brokers(url: str) -> tuple[list[dict[str, str]], str]:
    """
    The servers of a transport URL as a client logs in to them, decoded, and the virtual host.

    url : str
        ``rabbit://user:password@host:5672,user:password@host2:5672/vhost``

    Raises ValueError when a character of the credentials must be encoded and is not.
    """
    parts = _split(url)
    servers = []
    for netloc in parts.netloc.split(","):
        found = _split_netloc(netloc)
        servers.append(
            {
                "host": f"{found['hostname']}:{found.get('port') or _PORTS['rabbit']}",
                "userid": unquote(found.get("username") or ""),
                "password": unquote(found.get("password") or ""),
            }
        )
    return servers, unquote(parts.path[1:]) or "/"


def parse(url: str) -> dict[str, str | int | dict | None]:
    """
    The parts of a SQLAlchemy database URL, decoded.

    url : str
        ``mysql+pymysql://user:password@host:port/database?charset=utf8``

    Returns a dict with ``scheme``, ``user``, ``password``, ``host``, ``port`` (int or None),
    ``database`` and ``query`` (dict).

    Raises ValueError when a character of the credentials must be encoded and is not.
    """
    parts = _split(url)
    netloc = _split_netloc(parts.netloc)
    return {
        "scheme": parts.scheme,
        "user": unquote(netloc.get("username") or ""),
        "password": unquote(netloc.get("password") or ""),
        "host": netloc["hostname"].strip("[]"),
        "port": int(netloc["port"]) if netloc.get("port") else None,
        "database": parts.path.lstrip("/"),
        "query": {
            unquote(k): unquote(v) for k, _, v in (p.partition("=") for p in _pairs(parts.query))
        },
    }
