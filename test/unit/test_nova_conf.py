"""Configuration files: what a change shows, and what it must not."""

import errno
import os
import pwd

import pytest
from conftest import load
from oslo_config import cfg

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


def managed(loaders, path, template, **kwargs):
    me = pwd.getpwuid(0).pw_name
    return loaders[2]["nova_conf.managed"](str(path), template, user=me, group=me, context=kwargs)


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
