"""Secrets that gpg, sdb's files or the environment keep, by Salt's own renderers and drivers."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import salt.pillar
import yaml
from conftest import ROOT, load
from test_map import GRAINS, changed

SECRET = "g$h/ü 'x\""
needs_gpg = pytest.mark.skipif(not shutil.which("gpg"), reason="gpg is not installed")


@pytest.fixture
def encrypt():
    """A function that encrypts for a key of its own; its keyring is ``encrypt.keydir``."""
    # The agent's socket needs a short path.
    keydir = tempfile.mkdtemp(prefix="gpg")

    def gpg(*arguments, **given):
        command = ["gpg", "--homedir", keydir, "--batch", "--quiet", *arguments]
        return subprocess.run(command, capture_output=True, check=True, **given).stdout.decode()

    gpg("--passphrase", "", "--quick-generate-key", "site@example.org", "future-default")

    def encrypted(text):
        options = ("--trust-model", "always", "--armor", "--encrypt", "-r", "site@example.org")
        return gpg(*options, input=text.encode())

    encrypted.keydir = keydir
    yield encrypted
    subprocess.run(["gpgconf", "--homedir", keydir, "--kill", "all"], check=True)
    shutil.rmtree(keydir)


@pytest.fixture
def compiled(opts, tmp_path):
    """Compiles a pillar, over pillar.example, as a master does; and it is the minion's then."""
    opts["grains"] = {**opts["grains"], **GRAINS, "osrelease": "12"}

    def compile_pillar(passwords, renderer="yaml"):
        roots = tmp_path / "pillar"
        roots.mkdir()
        (roots / "top.sls").write_text("base: {'*': [nova, secrets]}\n")
        shutil.copy(ROOT / "pillar.example", roots / "nova.sls")
        text = yaml.safe_dump({"nova": {"passwords": passwords}})
        (roots / "secrets.sls").write_text(f"#!{renderer}\n{text}")
        opts["pillar_roots"] = {"base": [str(roots)]}
        made = salt.pillar.Pillar(opts, opts["grains"], "ctl1", "base").compile_pillar()
        assert "_errors" not in made
        opts["pillar"] = made
        return made["nova"]["passwords"]

    return compile_pillar


def faults(opts):
    modules = load(opts)[1]
    return modules["slsutil.renderer"]("salt://nova/map.py", default_renderer="py")["faults"]


def written(opts, path):
    """What nova_conf.managed returns for nova.conf, and what it wrote."""
    me = pwd.getpwuid(os.getuid()).pw_name
    ret = load(opts)[2]["nova_conf.managed"](
        str(path), "salt://nova/files/openstack.conf.jinja", user=me, group=me,
        context={"program": "nova", "pillar_key": "config"},
    )
    return ret, path.read_text() if path.exists() else ""


def expect_secret(opts, path, testmode):
    opts["test"] = testmode
    ret, text = written(opts, path)
    assert ret["result"] is (None if testmode else True), ret
    assert ret["changes"]["[service_user] password"] == {"old": None, "new": "***"}
    assert SECRET not in str(ret) and SECRET.replace("$", "$$") not in str(ret)
    assert (f"\npassword = {SECRET.replace('$', '$$')}\n" in text) is not testmode


@needs_gpg
def test_gpg(opts, compiled, encrypt, tmp_path, testmode):
    opts["gpg_keydir"] = encrypt.keydir
    assert compiled({"keystone_nova": encrypt(SECRET)}, "yaml|gpg")["keystone_nova"] == SECRET
    assert faults(opts) == []
    expect_secret(opts, tmp_path / "nova.conf", testmode)


@needs_gpg
def test_what_gpg_cannot_decrypt_is_a_fault(opts, compiled, encrypt, tmp_path):
    cipher = encrypt(SECRET)
    opts.update(gpg_keydir=str(tmp_path), gpg_decrypt_must_succeed=False)
    compiled({"keystone_nova": cipher}, "yaml|gpg")
    assert faults(opts) == ["nova:passwords:keystone_nova must be a non-empty text of one line."]


URIS = {"keystone_nova": "sdb://vault/site:nova", "database_admin": "sdb://osenv/NOVA_TEST_ROOT"}


@pytest.fixture
def sdb(opts, compiled, tmp_path, monkeypatch):
    """Profiles of two of Salt's drivers, and the pillar that names secrets there."""
    stored = tmp_path / "secrets.yaml"
    stored.write_text(yaml.safe_dump({"site": {"nova": SECRET}}))
    opts["vault"] = {"driver": "yaml", "files": [str(stored)]}
    opts["osenv"] = {"driver": "env"}
    monkeypatch.setenv("NOVA_TEST_ROOT", "r00t")
    assert compiled(URIS).items() >= URIS.items()


def test_sdb(opts, sdb, tmp_path, testmode):
    assert faults(opts) == []
    expect_secret(opts, tmp_path / "nova.conf", testmode)


def test_sdb_for_a_secret_that_stands_in_no_file(opts, sdb):
    utils, modules, _ = load(opts)
    value = utils["nova_secret.value"](opts["pillar"], "nova:passwords:database_admin", opts)
    assert value == "r00t"
    text = str(modules["state.show_low_sls"]("nova"))
    assert "nova:passwords:database_admin" in text
    assert "r00t" not in text and SECRET not in text


@pytest.mark.parametrize("fault", ["no profile", "no file", "no key", "two lines", "a refusal"])
def test_what_sdb_does_not_give_is_a_fault(opts, sdb, tmp_path, fault):
    stored = Path(opts["vault"]["files"][0])
    if fault == "no profile":
        del opts["vault"]
    elif fault == "no file":
        stored.unlink()
    elif fault == "a refusal":
        (tmp_path / "sdb").mkdir()
        (tmp_path / "sdb" / "refuser.py").write_text(
            "from salt.exceptions import CommandExecutionError\n"
            "def get(key, profile=None):\n    raise CommandExecutionError('permission denied')\n"
        )
        opts.update(sdb_dirs=[str(tmp_path / "sdb")], vault={"driver": "refuser"})
    else:
        stored.write_text("site: {}" if fault == "no key" else 'site: {nova: "a\\nb"}')
    assert faults(opts) == [
        "nova:passwords:keystone_nova names no sdb secret of one line: check it, and the sdb "
        "profile in the minion's configuration."
    ]


def test_a_slash_that_sdb_gives_for_rabbitmq_is_a_fault_too(opts, compiled, monkeypatch):
    monkeypatch.setenv("NOVA_TEST_MQ", "a/b")
    opts["osenv"] = {"driver": "env"}
    compiled({"messaging": "sdb://osenv/NOVA_TEST_MQ"})
    assert faults(opts) == [
        "nova:passwords:messaging must have no slash: oslo.messaging cannot log in with one."
    ]


def test_a_balancer_asks_sdb_for_nothing(opts):
    passwords = {name: f"sdb://none/{name}" for name in changed("lb1")["passwords"]}
    opts["pillar"] = {"nova": changed("lb1", passwords=passwords)}
    opts["grains"] = {**opts["grains"], **GRAINS, "osrelease": "12", "id": "lb1"}
    assert faults({**opts, "id": "lb1"}) == []
