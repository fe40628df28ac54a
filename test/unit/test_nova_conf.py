"""Configuration files: what a change shows, and what it must not."""

import errno
import os
import pwd

import pytest
from conftest import load
from oslo_config import cfg
from stub import stub

OLD = "[DEFAULT]\ndebug = true\ntransport_url = rabbit://u:old@h/\n[pci]\nalias = a\nalias = b\n"
NEW = "[DEFAULT]\ntransport_url = rabbit://u:new@h/\n[api]\nx = 1\n[pci]\nalias = a\n"


def test_a_diff_names_options_and_masks_secrets(loaders):
    utils, _, _ = loaders
    assert utils["nova_conf.diff"](OLD, NEW) == {
        "[DEFAULT] debug": {"old": "true", "new": None},
        "[DEFAULT] transport_url": {"old": "***", "new": "***"},
        "[api] x": {"old": None, "new": "1"},
        "[pci] alias": {"old": "a, b", "new": "a"},
    }


def test_a_diff_of_lines_masks_what_stands_after_the_name_of_a_secret(loaders):
    utils, _, _ = loaders
    old = "vrrp {\n    priority 200\n    auth_pass one two\n    state BACKUP\n}\n"
    new = "vrrp {\n    priority 199\n    auth_pass three\n    state BACKUP\n}\n"
    assert utils["nova_conf.diff_lines"](old, new)["diff"].split("\n") == [
        "@@ -2,2 +2,2 @@",
        "-    priority 200",
        "-    auth_pass ***",
        "+    priority 199",
        "+    auth_pass ***",
    ]
    assert utils["nova_conf.diff_lines"](old, old) == {}


def test_a_diff_of_lines_masks_the_secrets_of_an_environment(loaders):
    utils, _, _ = loaders
    new = 'OS_DEFAULT__LOG_FILE="/x.log"\nOS_NEUTRON__METADATA_PROXY_SHARED_SECRET="a b=c"\n'
    assert utils["nova_conf.diff_lines"]("", new)["diff"].split("\n")[1:] == [
        '+OS_DEFAULT__LOG_FILE="/x.log"',
        "+OS_NEUTRON__METADATA_PROXY_SHARED_SECRET=***",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "connection",
        "transport_url",
        "metadata_proxy_shared_secret",
        "slave_connection",
        "memcache_secret_key",
        "ssl_key_password",
    ],
)
def test_options_that_hold_secrets_are_known_by_name(loaders, name):
    utils, _, _ = loaders
    assert utils["nova_conf.is_secret"](name)


@pytest.mark.parametrize("name", ["service_token_roles_required", "debug", "auth_type"])
def test_other_options_are_shown(loaders, name):
    utils, _, _ = loaders
    assert not utils["nova_conf.is_secret"](name)


def test_an_option_reads_back_unescaped(loaders, tmp_path):
    utils, _, _ = loaders
    path = tmp_path / "nova.conf"
    path.write_text("[database]\nconnection = mysql://u:a$$b@h/n\n# connection = x\n")
    assert utils["nova_conf.option"](str(path), "database", "connection") == "mysql://u:a$b@h/n"
    assert utils["nova_conf.option"](str(tmp_path / "none"), "database", "connection") is None


@pytest.fixture
def template(opts, tmp_path):
    root = tmp_path / "srv"
    root.mkdir()
    text = "[database]\nconnection = {{ pillar['url'] }}\n[a]\nb = {{ b }}\n"
    (root / "t.jinja").write_text(text)
    opts["file_roots"] = {"base": [str(root)]}
    opts["pillar"] = {"url": "mysql://u:s3cret@h/n"}
    return "salt://t.jinja"


def managed(loaders, path, template, checker=None, ini=True, **kwargs):
    me = pwd.getpwuid(0).pw_name
    return loaders[2]["nova_conf.managed"](
        str(path), template, user=me, group=me, context=kwargs, checker=checker, ini=ini
    )


def test_a_file_is_written_and_its_secret_is_not_shown(opts, template, testmode, tmp_path):
    opts["test"] = testmode
    loaders = load(opts)
    path = tmp_path / "nova.conf"
    ret = managed(loaders, path, template, b=1)
    assert ret["result"] is (None if testmode else True)
    assert "s3cret" not in str(ret)
    assert ret["changes"]["[database] connection"] == {"old": None, "new": "***"}
    assert ret["changes"]["[a] b"] == {"old": None, "new": "1"}
    assert path.exists() is not testmode


def test_a_file_as_it_should_be_changes_nothing(opts, template, testmode, tmp_path):
    path = tmp_path / "nova.conf"
    managed(load(opts), path, template, b=1)
    opts["test"] = testmode
    ret = managed(load(opts), path, template, b=1)
    assert (ret["result"], ret["changes"]) == (True, {})


def test_only_the_changed_option_is_shown(opts, template, testmode, tmp_path):
    path = tmp_path / "nova.conf"
    managed(load(opts), path, template, b=1)
    opts["test"] = testmode
    ret = managed(load(opts), path, template, b=2)
    assert ret["changes"] == {"[a] b": {"old": "1", "new": "2"}}
    assert ("b = 2" in path.read_text()) is not testmode


def test_mode_and_owner_are_repaired_without_a_new_file(opts, template, testmode, tmp_path):
    path = tmp_path / "nova.conf"
    managed(load(opts), path, template, b=1)
    path.chmod(0o644)
    before = path.stat()
    opts["test"] = testmode
    ret = managed(load(opts), path, template, b=1)
    assert (ret["result"], ret["changes"]) == (None if testmode else True, {"mode": "0640"})
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mode & 0o777 == (0o644 if testmode else 0o640)


def test_a_half_written_file_is_written_whole(opts, template, testmode, tmp_path):
    path = tmp_path / "nova.conf"
    managed(load(opts), path, template, b=1)
    whole = path.read_text()
    path.write_text(whole[:15])
    opts["test"] = testmode
    ret = managed(load(opts), path, template, b=1)
    assert ret["changes"]["[a] b"] == {"old": None, "new": "1"}
    assert (path.read_text() == whole) is not testmode


def test_a_full_disk_is_one_sentence_and_the_old_file_stays(opts, template, tmp_path, monkeypatch):
    path = tmp_path / "nova.conf"
    managed(load(opts), path, template, b=1)
    whole = path.read_text()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    ret = managed(load(opts), path, template, b=2)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "No space left on device; make room there" in ret["comment"]
    assert (path.read_text(), os.listdir(tmp_path).count("nova.conf")) == (whole, 1)


def test_a_group_that_no_package_has_brought_is_one_sentence(opts, template, tmp_path):
    ret = load(opts)[2]["nova_conf.managed"](
        str(tmp_path / "nova.conf"), template, user="root", group="no-such", context={"b": 1}
    )
    assert ret["result"] is False
    assert "no-such" in ret["comment"] and "\n" not in ret["comment"]


def test_a_file_that_another_run_wrote_meanwhile_is_no_change(opts, template, tmp_path):
    loaders = load(opts)
    path = tmp_path / "nova.conf"
    managed(loaders, path, template, b=1)
    whole = path.read_text()
    scope = loaders[2]["nova_conf.managed"].__globals__
    text, scope["_text"] = scope["_text"], lambda _: "[a]\n"
    try:
        ret = managed(loaders, path, template, b=1)
    finally:
        scope["_text"] = text
    assert (ret["result"], ret["changes"], path.read_text()) == (True, {}, whole)


def test_a_file_that_its_program_refuses_does_not_go_live(opts, template, tmp_path):
    path = tmp_path / "keepalived.conf"
    ret = managed(load(opts), path, template, checker="grep -q 'b = 1'", b=1)
    assert ret["result"] is True and path.read_text()
    ret = managed(load(opts), path, template, checker="grep -q 'b = 1'", b=2)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "so the old one stays" in ret["comment"] and "\n" not in ret["comment"]
    assert "b = 1" in path.read_text()


def test_a_file_that_has_no_options_is_shown_line_by_line(opts, template, testmode, tmp_path):
    path = tmp_path / "keepalived.conf"
    managed(load(opts), path, template, ini=False, b=1)
    opts["test"] = testmode
    ret = managed(load(opts), path, template, ini=False, b=2)
    assert ret["changes"] == {"diff": "@@ -4 +4 @@\n-b = 1\n+b = 2"}


def test_a_template_that_fails_is_one_sentence(opts, template, testmode, tmp_path):
    opts["test"] = testmode
    opts["pillar"] = {}
    ret = managed(load(opts), tmp_path / "nova.conf", template, b=1)
    assert ret["result"] is False
    assert "salt://t.jinja cannot be rendered" in ret["comment"]
    assert "Traceback" not in ret["comment"] and "\n" not in ret["comment"]


def test_a_file_is_read_as_oslo_config_reads_it(loaders, tmp_path):
    """Its lines end with a line feed alone, and one pair of quotes around a value is none of it."""
    utils, _, _ = loaders
    path = tmp_path / "nova.conf"
    path.write_text("[a]\nb = x\x0c[c]\x85d = 1\ne = \"'f'\"\ng = '\nh = \"i'\n")
    sections = {}
    cfg.ConfigParser(str(path), sections).parse()
    assert sections == {"a": {"b": ["x\x0c[c]\x85d = 1"], "e": ["'f'"], "g": [""], "h": ["\"i'"]}}
    assert utils["nova_conf.read"](str(path)) == {"DEFAULT": {}, **sections}


HEAD = "# Managed by Salt (nova formula): …\n"
ACCOUNTS = """
[DEFAULT]
transport_url = rabbit://{{ pillar['user'] }}:m%2F@mq1:5672,u:m@mq2/v
[database]
connection = mysql+pymysql://{{ pillar['user'] }}:d$$@db/nova
[keystone_authtoken]
auth_url = http://k:5000/v3
username = {{ pillar['user'] }}
password = k$$
project_name = service
region_name = R
[service_user]
auth_url = http://k:5000/v3
username = {{ pillar['user'] }}
password = k$$
project_name = service
[neutron]
auth_url = http://k:5000/v3
username = neutron
password = n
"""


def test_accounts_are_read_as_their_programs_read_them(loaders):
    found = loaders[0]["nova_conf.accounts"](
        ACCOUNTS.replace("{{ pillar['user'] }}", "a")
        + "cafile = /ca\n[x]\nauth_url = h\nusername = u\npassword = p\ninsecure = True\n"
        + "[oslo_messaging_rabbit]\nssl = true\nssl_ca_file = /mq-ca\n"
    )
    auth = {"auth_url": "http://k:5000/v3", "username": "a", "password": "k$"}
    auth["project_name"] = "service"
    neutron = {"auth_url": "http://k:5000/v3", "username": "neutron", "password": "n"}
    assert found == {
        "[DEFAULT] transport_url": {
            "kind": "messaging",
            "url": "rabbit://a:m%2F@mq1:5672,u:m@mq2/v",
            "tls": {"ssl": "true", "ssl_ca_file": "/mq-ca"},
        },
        "[database] connection": {"kind": "database", "url": "mysql+pymysql://a:d$@db/nova"},
        "[keystone_authtoken] username": {"kind": "identity", "auth": auth},
        "[service_user] username": {"kind": "identity", "auth": auth},
        "[neutron] username": {"kind": "identity", "auth": {**neutron, "cacert": "/ca"}},
    }


@pytest.fixture
def accounts(opts, template, testmode, tmp_path, monkeypatch):
    """nova.conf of the account a, to become that of b; ``tried`` has what was tried of b's."""
    path = tmp_path / "nova.conf"
    (tmp_path / "srv" / "t.jinja").write_text(HEAD + ACCOUNTS)
    opts["pillar"] = {"user": "a"}
    managed(load(opts), path, template)
    opts["pillar"], opts["test"] = {"user": "b"}, testmode
    site = load(opts)
    site_fault, tried = {}, []

    def fault(account, where="", user="nova"):
        tried.append(where.partition(" of ")[0])
        return site_fault.pop(account["kind"], "")

    stub(site[1], "nova_login.fault", side_effect=fault)
    clock = site[2]["nova_conf.managed"].__globals__["time"]
    monkeypatch.setattr(clock, "sleep", lambda seconds: None)

    def apply(function="managed", **kwargs):
        if function == "managed":
            me = pwd.getpwuid(0).pw_name
            kwargs.update(user=me, group=me)
        return site[2][f"nova_conf.{function}"](str(path), template, **kwargs)

    return apply, path, tried, site_fault


MESSAGING, DATABASE = "[DEFAULT] transport_url", "[database] connection"


def test_a_new_account_is_tried_before_the_file_gets_it(accounts, testmode):
    apply, path, tried, _ = accounts
    ret = apply(awaits=["b"], timeout=9)
    assert ret["result"] is (None if testmode else True)
    # One that two sections share is tried once; one that stays as it is, not at all.
    once = [MESSAGING, DATABASE, "[keystone_authtoken] username"]
    assert tried == ([MESSAGING] if testmode else once)
    assert ("u:m@mq2" in path.read_text()) and ("b:m%2F@" in path.read_text()) is not testmode


@pytest.mark.parametrize("kind", ["messaging", "database", "identity"])
def test_a_file_keeps_its_accounts_while_a_new_one_is_refused(accounts, testmode, kind):
    apply, path, _, fault = accounts
    before = path.read_text()
    fault[kind] = "It is refused."
    ret = apply(awaits=[], timeout=9)
    if testmode and kind == "database":
        assert ret["result"] is None  # the run may have to make it
        return
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"] == f"{path} stays as it is. It is refused."
    assert path.read_text() == before


def test_a_user_that_controllers_make_is_waited_for(accounts, testmode):
    apply, _, tried, fault = accounts
    fault["identity"] = "There is none yet."
    ret = apply(awaits=["b"], timeout=9)
    assert ret["result"] is (None if testmode else True)
    assert tried.count("[keystone_authtoken] username") == (0 if testmode else 2)


def test_a_user_that_this_run_makes_later_is_not_tried(accounts, testmode):
    apply, _, tried, fault = accounts
    fault["identity"] = "There is none yet."
    assert apply(awaits=["b"])["result"] is (None if testmode else True)
    assert "[keystone_authtoken] username" not in tried


def test_a_file_of_a_package_s_holds_no_account_to_be_careful_with(accounts, testmode):
    apply, path, tried, _ = accounts
    path.write_text("[database]\nconnection = sqlite:////var/lib/nova/nova.sqlite\n")
    assert apply()["result"] is (None if testmode else True)
    assert tried == []


def test_accounts_are_proven_without_a_file_being_written(accounts, testmode):
    apply, path, tried, fault = accounts
    before = path.read_text()
    ret = apply("accounts_work", made=["b"])
    assert (ret["result"], ret["changes"], path.read_text()) == (True, {}, before)
    assert ("[keystone_authtoken] username" in tried) is not testmode
    fault["messaging"] = "RabbitMQ refuses."
    assert apply("accounts_work", made=["b"])["result"] is False
