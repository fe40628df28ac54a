"""
Whether the accounts of nova.conf and placement.conf work, each tried as its program would use it.

Databases are asked over PyMySQL and Keystone over keystoneauth1, both of Salt's own Python;
RabbitMQ over the library of Nova's own. No password is an argument of a program.
"""

import json
import re
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

NOVA_CONF = "/etc/nova/nova.conf"
#: Whose interpreter has the AMQP library: it is on controllers and compute nodes.
NOVA_MANAGE = "/usr/bin/nova-manage"
#: Seconds for one RabbitMQ server, and what starting the interpreter may take besides.
TIMEOUT = 10
START = 30

_TRUE = ("1", "true", "yes", "on")
#: Replies with which RabbitMQ refuses an account: its password, its rights on the virtual host.
_REFUSED = (403, 530)
#: Python 2.7, which Stein runs on, to 3. It prints [server, code of the reply or 0, text] of each.
_PROBE = """
import json, ssl, sys
import amqp
with open(sys.argv[1]) as stream:
    given = json.load(stream)
tls, named = given["tls"], False
if isinstance(tls, dict):
    named = tls.pop("named")
    tls["cert_reqs"] = ssl.CERT_REQUIRED if "ca_certs" in tls else ssl.CERT_NONE
found = []
for server in given["servers"]:
    options = dict(server, virtual_host=given["vhost"], login_method="PLAIN", ssl=tls)
    options.update(dict.fromkeys(("connect_timeout", "read_timeout"), given["timeout"]))
    if named:
        options["ssl"] = dict(tls, server_hostname=server["host"].rsplit(":", 1)[0].strip("[]"))
    connection = amqp.Connection(**options)
    try:
        connection.connect()
        found.append([server["host"], 200, ""])
        connection.close()
    except Exception as exc:
        found.append([server["host"], getattr(exc, "reply_code", 0) or 0, str(exc)])
json.dump(found, sys.stdout)
"""


def check(path: str = NOVA_CONF) -> dict[str, str]:
    """
    Try all accounts of a configuration file: where each stands → ``works``, or what is wrong.

    path : str
        nova.conf, or placement.conf.

    CLI Example::

        salt '*' nova_login.check
    """
    text = _read(path)
    return {
        where: fault(account, f"{where} of {path}") or "works"
        for where, account in __utils__["nova_conf.accounts"](text).items()
    }


def fault(account: dict[str, Any], where: str = "", user: str = "nova") -> str:
    """
    What is wrong with an account, in a sentence; empty where it works.

    account : dict
        As ``nova_conf.accounts`` of the utils gives it.
    where : str
        Where it stands, for the sentence.
    user : str
        Whose program tries RabbitMQ.

    Raises CommandExecutionError when it cannot be tried: no Nova is installed here.

    CLI Example::

        salt ctl1 nova_login.fault '{kind: database, url: "mysql+pymysql://…"}'
    """
    if account["kind"] == "identity":
        return __salt__["nova_identity.refusal"](account["auth"], f" ({where})")
    if account["kind"] == "messaging":
        return _fault_of_messaging(account, where, user)
    try:
        arguments = __utils__["nova_db.from_url"](account["url"], where)
        __utils__["nova_db.connect"](**arguments).close()
    except (CommandExecutionError, SaltInvocationError) as exc:
        return exc.strerror
    return ""


def fault_of_cell(urls: dict[str, str], where: str = "") -> str:
    """
    What is wrong with the accounts in a cell's URLs, in a sentence; empty where they work.

    urls : dict
        ``database_connection`` and ``transport_url``; a template, or cell0's ``none:///``, holds
        no account.
    where : str
        The cell, for the sentence.

    CLI Example::

        salt ctl1 nova_login.fault_of_cell '{transport_url: "rabbit://…"}'
    """
    tls = __utils__["nova_conf.messaging_tls"](_read(NOVA_CONF))
    accounts = {
        "database_connection": {"kind": "database"},
        "transport_url": {"kind": "messaging", "tls": tls},
    }
    for what, account in accounts.items():
        url = urls.get(what) or ""
        if __utils__["nova_url.holds_secret"](url):
            found = fault({**account, "url": url}, f"{what} of {where}")
            if found:
                return found
    return ""


def _fault_of_messaging(account: dict[str, Any], where: str, user: str) -> str:
    try:
        servers, vhost = __utils__["nova_url.brokers"](account["url"])
    except ValueError as exc:
        return f"The {where} cannot be read: {exc}."
    given = {"servers": servers, "vhost": vhost, "tls": _tls(account["tls"]), "timeout": TIMEOUT}
    away, answered = [], False
    for server, code, text in _probed(given, user):
        for secret in (each["password"] for each in servers):
            text = text.replace(secret, "***") if secret else text
        if code in _REFUSED:
            return (
                f"RabbitMQ at {server} refuses the user {servers[0]['userid']} of {where} on the "
                f"virtual host {vhost} ({text}): make the account there, with this password and "
                "all permissions, or correct the pillar."
            )
        answered = answered or code == 200
        away += [] if code == 200 else [f"{server} ({text})"]
    if answered:
        return ""
    return f"RabbitMQ of {where} cannot be reached: {', '.join(away)}. See that it runs."


def _probed(given: dict[str, Any], user: str) -> list[list]:
    with __utils__["nova_program.secret_file"](json.dumps(given), user) as (path, descriptor):
        argv = [*_python(), "-c", _PROBE, path]
        timeout = START + 2 * TIMEOUT * len(given["servers"])
        code, out, err = __utils__["nova_program.run"](
            user, argv, timeout, descriptors=(descriptor,)
        )
    if code:
        raise CommandExecutionError(
            f"Nova's Python cannot ask RabbitMQ: {__utils__['nova_program.cause'](err)}. Its "
            "library amqp comes with Nova's packages."
        )
    return json.loads(out)


def _tls(options: dict[str, str]) -> bool | dict[str, Any]:
    """What the AMQP library takes for the options of oslo.messaging's driver."""
    if options.get("ssl", "").lower() not in _TRUE:
        return False
    names = {"ssl_ca_file": "ca_certs", "ssl_cert_file": "certfile", "ssl_key_file": "keyfile"}
    found = {theirs: options[ours] for ours, theirs in names.items() if options.get(ours)}
    named = options.get("ssl_enforce_hostname_verification", "").lower() in _TRUE
    return {**found, "named": named}


def _python() -> list[str]:
    """The interpreter of Nova's programs, as their first line names it."""
    found = re.match(r"#! *(/\S+)([^\n]*)", _read(NOVA_MANAGE))
    if not found:
        raise CommandExecutionError(
            f"There is no {NOVA_MANAGE} here that names its Python: apply nova.packages first."
        )
    return [found[1], *found[2].split()]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise CommandExecutionError(f"Cannot read {path}: {exc.strerror}.") from exc
