"""Accounts are tried as their programs use them; a refusal is a sentence without the password."""

import json
import sys

import pytest
from conftest import load, util
from stub import stub

SECRET = "p@ss/'$"
URL = "rabbit://nova_b:p%40ss%2F%27%24@mq1:5672,nova_b:p%40ss%2F%27%24@mq2/cell2"
#: The library, as far as the probe uses it: what each server says stands in a file.
AMQP = """
import json, os
SAYS = json.load(open({says!r}))
class Refused(Exception):
    reply_code = 403
class Connection:
    def __init__(self, host, userid, password, virtual_host, login_method, ssl, connect_timeout,
                 read_timeout):
        assert (userid, password, virtual_host) == ("nova_b", {secret!r}, "cell2")
        assert password not in " ".join(open("/proc/self/cmdline").read().split(chr(0)))
        self.host, self.says = host, SAYS[host.split(":")[0]]
        json.dump(ssl, open({seen!r}, "w"), default=str)
    def connect(self):
        if self.says == "refused":
            raise Refused("(403) ACCESS_REFUSED " + {secret!r})
        if self.says == "away":
            raise OSError("Connection refused")
    def close(self):
        pass
"""


@pytest.fixture
def rabbit(opts, tmp_path, monkeypatch):
    """Tries the account at two servers, each of which takes it, refuses it or is away."""
    says, seen = tmp_path / "says", tmp_path / "seen"
    text = AMQP.format(says=str(says), seen=str(seen), secret=SECRET)
    (tmp_path / "amqp.py").write_text(text)
    manage = tmp_path / "nova-manage"
    manage.write_text(f"#! /usr/bin/env PYTHONPATH={tmp_path} {sys.executable}\n")
    _, modules, _ = load(opts)
    module = modules["nova_login.fault"].__globals__
    monkeypatch.setitem(module, "NOVA_MANAGE", str(manage))

    def fault(one, other, **tls):
        says.write_text(json.dumps({"mq1": one, "mq2": other}))
        account = {"kind": "messaging", "url": URL, "tls": tls}
        return modules["nova_login.fault"](account, "[DEFAULT] transport_url", user="root")

    fault.seen = lambda: json.loads(seen.read_text())
    fault.modules, fault.manage = modules, manage
    return fault


def test_an_account_that_every_server_takes_works(rabbit):
    assert rabbit("yes", "yes") == ""
    assert rabbit.seen() is False


def test_a_server_that_is_away_says_nothing_about_the_account(rabbit):
    assert rabbit("yes", "away") == ""
    assert "cannot be reached: mq1:5672 (Connection refused), mq2:5672" in rabbit("away", "away")


def test_a_refusal_names_server_user_and_virtual_host_and_no_password(rabbit):
    found = rabbit("yes", "refused")
    assert found.startswith(
        "RabbitMQ at mq2:5672 refuses the user nova_b of [DEFAULT] transport_url on the virtual "
        "host cell2 ((403) ACCESS_REFUSED ***)"
    )
    assert SECRET not in found


def test_tls_is_what_nova_has(rabbit):
    assert rabbit("yes", "yes", ssl="true", ssl_ca_file="/ca") == ""
    assert rabbit.seen() == {"ca_certs": "/ca", "cert_reqs": 2}
    named = {"ssl": "true", "ssl_ca_file": "/ca", "ssl_enforce_hostname_verification": "true"}
    assert rabbit("yes", "yes", **named) == ""
    assert rabbit.seen() == {"ca_certs": "/ca", "cert_reqs": 2, "server_hostname": "mq2"}


def test_a_node_without_nova_says_so(rabbit):
    rabbit.manage.unlink()
    with pytest.raises(Exception, match="apply nova.packages first"):
        rabbit("yes", "yes")


@pytest.fixture
def others(opts, monkeypatch):
    """``works`` of a database and of Keystone, without a server."""
    utils, modules, _ = load(opts)
    stub(modules, "nova_identity.refusal", side_effect=lambda auth, source="": auth["says"])
    return modules, stub(utils, "nova_db.connect")


def test_a_database_is_logged_in_to(others):
    modules, connect = others
    account = {"kind": "database", "url": "mysql+pymysql://u:p%40@db:3307/nova?charset=utf8"}
    assert modules["nova_login.fault"](account, "[database] connection") == ""
    given = connect.call_args.kwargs
    assert (given["user"], given["password"], given["port"]) == ("u", "p@", 3307)
    assert (given["database"], given["what"]) == ("nova", "[database] connection")
    connect.side_effect = util("nova_program").failure("Cannot log in.", 1045)
    assert modules["nova_login.fault"](account) == "Cannot log in."


def test_a_file_s_accounts_are_all_tried(others, tmp_path):
    modules, connect = others
    connect.side_effect = util("nova_program").failure("Cannot log in.", 1045)
    path = tmp_path / "nova.conf"
    path.write_text("[api_database]\nconnection = mysql://u:p@db/nova_api\n")
    assert modules["nova_login.check"](str(path)) == {"[api_database] connection": "Cannot log in."}


def test_a_cell_s_templates_hold_no_account(others):
    modules, connect = others
    urls = {"database_connection": "{scheme}://{username}:{password}@h/n", "transport_url": "none:///"}
    assert modules["nova_login.fault_of_cell"](urls, "cell0") == ""
    connect.side_effect = util("nova_program").failure("Cannot log in.", 1045)
    urls["database_connection"] = "mysql+pymysql://u:p@db/n"
    assert modules["nova_login.fault_of_cell"](urls, "cell0") == "Cannot log in."
