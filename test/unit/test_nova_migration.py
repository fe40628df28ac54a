"""Migration over SSH: keys of nodes, what of them is believed, and what a peer may do here."""

import base64
import copy
import os
import pwd
import stat
import struct
import subprocess
import sys

import pytest
from conftest import ROOT, load
from stub import stub
from test_map import changed, run_map

PROGRAM = ROOT / "nova" / "files" / "migration.py"
GUEST = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"

ME = "root"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to root")


def key(letter, kind="ssh-ed25519"):
    return f"{kind} {base64.b64encode(letter.encode() * 51).decode()}"


def record(letter, address, *names):
    return {
        "key": key(letter),
        "host_keys": [key(letter.upper())],
        "names": [*names, address],
        "addresses": [address],
    }


PEERS = {
    "cmp1": record("a", "10.20.0.80", "cmp1"),
    "cmp2": record("b", "10.20.0.90", "cmp2"),
    "cmp3": record("c", "10.20.0.100", "cmp3"),
}


# ---- the map -------------------------------------------------------------------------------------


def test_nothing_of_it_is_there_where_nobody_asks_for_it():
    nova = run_map(changed("cmp1"), "cmp1")
    assert nova["migration"] == {"ssh": False, "live": False, "tls": False}
    assert "ssh" not in nova["units"] and "openssh-server" not in nova["packages"]["compute"]
    assert not any("migration" in option for option in nova["conf"]["nova"]["libvirt"])


def test_ssh_alone_leaves_live_migration_as_it_is():
    nova = run_map(changed("cmp1", migration={"ssh": True}), "cmp1")
    assert nova["faults"] == []
    assert nova["migration"]["command"].endswith("/migration /var/lib/nova/instances")
    assert nova["migration"]["names"] == ["cmp1", "10.20.0.80"]
    assert nova["migration"]["minions"] == ["cmp*"]
    assert "openssh-server" in nova["packages"]["compute"] and "ssh" in nova["unit_list"]
    assert "live_migration_uri" not in nova["conf"]["nova"]["libvirt"]


def test_live_migration_logs_in_as_nova_with_the_node_s_key():
    pillar = changed(
        "cmp1",
        migration={"ssh": True, "live": True},
        config={"libvirt": {"live_migration_inbound_addr": "10.30.0.80"}},
    )
    nova = run_map(pillar, "cmp1")
    libvirt = nova["conf"]["nova"]["libvirt"]
    assert libvirt["live_migration_inbound_addr"] == ["10.30.0.80"]
    assert libvirt["live_migration_uri"] == [
        "qemu+ssh://nova@%s/system?keyfile=/var/lib/nova/.ssh/id_ed25519&no_tty=1"
    ]
    assert nova["migration"]["names"] == ["cmp1", "10.20.0.80", "10.30.0.80"]
    assert nova["migration"]["command"].endswith(" libvirt")
    assert nova["qemu_options"] == {"migration_address": "10.30.0.80"}
    assert nova["libvirt_reads"] == {"libvirtd": ["/etc/libvirt/qemu.conf"]}
    pillar["config"]["libvirt"]["live_migration_inbound_addr"] = "cmp1.storage.example.org"
    assert run_map(pillar, "cmp1")["qemu_options"] == {}, "libvirt takes addresses alone"
    assert "live_migration_uri" not in str(run_map(changed(migration=pillar["migration"]))["conf"])


@pytest.mark.parametrize("ssh", [True, False])
def test_over_tls_no_peer_s_key_reaches_libvirt(ssh):
    migration = {"ssh": ssh, "live": True, "tls": True}
    nova = run_map(changed("cmp1", migration=migration), "cmp1")
    assert nova["faults"] == []
    libvirt = nova["conf"]["nova"]["libvirt"]
    assert "live_migration_uri" not in libvirt
    assert libvirt["live_migration_scheme"] == ["tls"]
    assert libvirt["live_migration_with_native_tls"] == ["true"]
    assert libvirt["live_migration_inbound_addr"] == ["10.20.0.80"]
    assert not nova["migration"].get("command", "").endswith(" libvirt")
    assert "libvirtd-tls.socket" in nova["unit_list"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"migration": {"live": True}}, "nova:migration:live needs a way: set nova:migration:ssh"),
        ({"migration": {"tls": True}}, "nova:migration:tls is for live migration: set"),
        (
            {"migration": {"live": True, "tls": True}, "lookup": {"libvirt_tls": None}},
            "nova:migration:tls must be false",
        ),
        (
            {"migration": {"ssh": True}, "topology": ..., "roles": ["compute"]},
            "nova:topology:compute is missing: nova:migration:ssh trusts",
        ),
        (
            {"migration": {"ssh": True}, "config": {"DEFAULT": {"instances_path": '/x" y'}}},
            "nova:config:DEFAULT:instances_path must be an absolute path",
        ),
    ],
)
def test_a_pillar_that_cannot_be_meant_is_refused_by_its_key(changes, fault):
    faults = run_map(changed("cmp1", **changes), "cmp1")["faults"]
    assert any(it.startswith(fault) for it in faults), faults


# ---- records -------------------------------------------------------------------------------------


@pytest.fixture
def mine(opts):
    """Modules and states of cmp1 that see a mine of the test's."""
    opts["id"] = "cmp1"
    opts["grains"]["nodename"] = "cmp1"
    utils, modules, states = load(opts)
    content = copy.deepcopy(PEERS)

    def get(target, function):
        assert function == "nova_migration"
        return {m: it for m, it in content.items() if target in ("*", m)}

    stub(modules, "mine.get", side_effect=get)
    return content, modules, states


def test_only_minions_that_the_pillar_names_are_peers(mine):
    content, modules, _ = mine
    content["stranger"] = record("d", "10.20.0.99", "stranger")
    peers = lambda *args: set(modules["nova_migration.peers"](*args)["peers"])  # noqa: E731
    assert peers(["cmp*"]) == {"cmp2", "cmp3"}
    assert peers(["cmp2"]) == {"cmp2"}
    assert peers([], {"cmp9": record("e", "10.20.0.9", "cmp9")}) == {"cmp9"}


@pytest.mark.parametrize(
    "change",
    [
        {"key": "ssh-ed25519 AAAA\nssh-ed25519 AAAA evil"},
        {"key": f'command="x" {key("x")}'},
        {"host_keys": []},
        {"host_keys": [f"{key('x')} comment"]},
        {"names": ["cmp2 *"]},
        {"names": ["*"]},
        {"names": ["!cmp1,cmp2"]},
        {"addresses": ["0.0.0.0/0"]},
        {"addresses": ["*"]},
        {"addresses": []},
        {"addresses": ['10.0.0.1",no-restrict="']},
        {"names": None},
    ],
)
def test_a_record_can_become_nothing_but_keys_names_and_addresses(mine, change):
    content, modules, states = mine
    content["cmp2"].update(change)
    found = modules["nova_migration.peers"](["cmp*"])
    assert set(found["peers"]) == {"cmp3"}
    (said,) = found["refused"]
    assert said.startswith("What 'cmp2' has published for migration is no record")


@as_root
@pytest.mark.parametrize(
    ("claim", "left", "said"),
    [
        ("10.20.0.90", set(), "cmp2 and cmp3 both say that they are 10.20.0.90, so the keys of "),
        ("CMP1", {"cmp2"}, "cmp1 and cmp3 both say that they are cmp1, so the keys of neither"),
        ("10.20.0.60", {"cmp2"}, "cmp3 says that it is 10.20.0.60, which the pillar calls ctl1"),
        ("ctl1", {"cmp2"}, "cmp3 says that it is ctl1, which the pillar calls ctl1: no key"),
    ],
)
def test_who_claims_another_s_name_is_left_out_and_stops_nobody(mine, tmp_path, claim, left, said):
    content, _, states = mine
    content["cmp3"]["names"].append(claim)
    taken = {"Ctl1": "ctl1", "10.20.0.60": "ctl1", "cmp2": "cmp2"}
    ret = trust(states, tmp_path, taken=taken)
    assert ret["result"] is True and set(ret["changes"]) == left
    assert ret["warnings"][0].startswith(said), ret["warnings"]


# ---- states --------------------------------------------------------------------------------------


def trust(states, directory, **given):
    arguments = {"minions": ["cmp*"], "command": "/x /y", "user": ME, "timeout": 0, **given}
    return states["nova_migration.peers_trusted"](
        str(directory / "authorized_keys"), str(directory / "known_hosts"), **arguments
    )


@as_root
def test_peers_come_and_go_beside_other_people_s_lines(mine, tmp_path):
    content, _, states = mine
    foreign = "# an operator's\nssh-ed25519 AAAA operator\n"
    (tmp_path / "authorized_keys").write_text(foreign)
    predicted = test_mode(states, lambda: trust(states, tmp_path))
    assert (tmp_path / "authorized_keys").read_text() == foreign
    run = trust(states, tmp_path)
    assert run["result"] is True, run
    assert set(run["changes"]) == {"cmp2", "cmp3"}
    assert predicted["result"] is None and predicted["changes"] == run["changes"]
    lines = (tmp_path / "authorized_keys").read_text()
    assert lines.startswith(foreign)
    assert lines.splitlines()[2] == (
        f'restrict,from="10.20.0.90",command="/x /y" {key("b")} nova-formula:cmp2'
    )
    known = (tmp_path / "known_hosts").read_text().splitlines()
    assert known[0] == f"cmp2,10.20.0.90 {key('B')} nova-formula:cmp2"
    assert trust(states, tmp_path)["changes"] == {}
    del content["cmp3"]
    content["cmp2"]["host_keys"] = [key("Z")]
    run = trust(states, tmp_path)
    assert set(run["changes"]) == {"cmp2", "cmp3"}
    assert run["changes"]["cmp3"]["known_hosts"]["new"] is None
    assert "cmp3" not in (tmp_path / "known_hosts").read_text()
    run = trust(states, tmp_path, minions=[])
    assert set(run["changes"]) == {"cmp2"}
    assert (tmp_path / "authorized_keys").read_text() == foreign


@as_root
def test_a_link_in_place_of_the_user_s_keys_is_neither_read_nor_written_through(mine, tmp_path):
    _, _, states = mine
    victim = tmp_path / "shadow"
    victim.write_text("root's\n")
    keys = tmp_path / "authorized_keys"
    keys.symlink_to(victim)
    assert trust(states, tmp_path)["result"] is True
    assert victim.read_text() == "root's\n"
    assert not keys.is_symlink() and "root's" not in keys.read_text()
    assert trust(states, tmp_path)["changes"] == {}


@as_root
def test_an_empty_mine_takes_nothing_away(mine, tmp_path):
    content, _, states = mine
    trust(states, tmp_path)
    before = (tmp_path / "authorized_keys").read_text()
    content.clear()
    ret = trust(states, tmp_path)
    assert ret["result"] is False and "has not this node's own keys" in ret["comment"]
    assert (tmp_path / "authorized_keys").read_text() == before


@as_root
def test_a_peer_that_is_late_is_named_and_fails_nobody(mine, tmp_path):
    content, _, states = mine
    late = content.pop("cmp3")
    run = trust(states, tmp_path, expected=["cmp1", "cmp2", "cmp3"])
    assert run["result"] is True and set(run["changes"]) == {"cmp2"}
    assert "cmp3 has not published its keys yet" in run["warnings"][0]
    content["cmp3"] = late
    run = trust(states, tmp_path, expected=["cmp1", "cmp2", "cmp3"])
    assert set(run["changes"]) == {"cmp3"} and "warnings" not in run


def test_mode(states, call):
    """What a call returns in test mode."""
    states.opts["test"] = True
    try:
        return call()
    finally:
        states.opts["test"] = False


test_mode.__test__ = False


@as_root
def test_a_key_is_made_once_for_its_user_alone(mine, tmp_path):
    _, _, states = mine
    path = tmp_path / "id_ed25519"
    make = lambda: states["nova_migration.key_present"](str(path), "nobody")  # noqa: E731
    assert test_mode(states, make)["result"] is None and not path.exists()
    (tmp_path / "id_ed25519.new").write_text("what a run left that was killed")
    run = make()
    assert run["result"] is True, run
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert (tmp_path / "id_ed25519.pub").read_text().startswith("ssh-ed25519 ")
    before = path.read_text()
    assert before.splitlines()[1] not in str(run)
    path.chmod(0o644)
    assert make()["changes"] == {"mode": {"old": "0644", "new": "0600"}}
    assert make()["changes"] == {} and path.read_text() == before
    victim = tmp_path / "shadow"
    victim.write_text("root's\n")
    path.unlink()
    path.symlink_to(victim)
    assert "key" in make()["changes"]
    assert not path.is_symlink() and path.read_text() != before
    assert (victim.read_text(), victim.stat().st_uid) == ("root's\n", os.geteuid())


# ---- what a peer may do --------------------------------------------------------------------------


@pytest.fixture
def instances(tmp_path):
    (tmp_path / "instances" / GUEST).mkdir(parents=True)
    (tmp_path / "instances" / GUEST / "disk").write_bytes(b"a disk")
    (tmp_path / "instances" / "_base").mkdir()
    (tmp_path / "secret").write_text("s3cret")
    (tmp_path / "instances" / GUEST / "link").symlink_to(tmp_path / "secret")
    return tmp_path / "instances"


def ask(instances, command, data=b"", *arguments):
    return subprocess.run(
        [sys.executable, "-I", PROGRAM, instances, *arguments],
        input=data,
        capture_output=True,
        check=False,
        env={"SSH_ORIGINAL_COMMAND": command, "PATH": "/nowhere"},
    )


def test_nova_s_own_steps_are_done(instances):
    new = instances / "11111111-2222-3333-4444-555555555555"
    for command in (f"mkdir -p {new}", f"touch {new}/x.tmp"):
        assert ask(instances, command).returncode == 0
    assert (new / "x.tmp").exists()
    assert ask(instances, f"rm {new}/x.tmp").returncode == 0
    assert new.exists() and not (new / "x.tmp").exists()
    assert ask(instances, f"rm -rf {new}").returncode == 0
    assert not new.exists()


@pytest.mark.parametrize(
    "command",
    [
        "",
        "id",
        "sh",
        "bash -i",
        "sh -c id",
        "sh -c 'virt-ssh-helper qemu:///system'",
        "rm -rf {0}",
        "rm -rf {0}/_base",
        "rm -rf {0}/{1}/..",
        "rm -rf {0}/{1}/../_base",
        "rm -rf {0}/{1}/../../secret",
        "rm -rf {0}/{1}/link",
        "rm -rf /",
        "rm {1}",
        "rm -rf {0}/{1} /",
        "rm -r {0}/{1}",
        "mkdir -p /root/.ssh",
        "mkdir -p -m 777 {0}/{1}",
        "touch {0}/{1}/x; id",
        "touch `id`",
        "touch $(id)",
        "touch --reference=/etc/shadow {0}/{1}/disk",
        "scp -f /etc/shadow",
        "scp -f {0}/{1}/link",
        "scp -S /bin/sh -t {0}/{1}/disk",
        "scp -t {0}/{1}/disk /etc/nova",
        "scp {0}/{1}/disk host:disk",
        "rsync --server . /",
        "nc -U /var/run/libvirt/libvirt-sock",
        "virsh list",
        "sftp-server -R",
        "'unbalanced",
    ],
)
def test_all_else_is_refused_and_leaves_no_trace(instances, command):
    before = sorted(instances.parent.rglob("*"))
    done = ask(instances, command.format(instances, GUEST))
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr == b"Refused: this key is for the migration of guests alone.\n"
    assert sorted(instances.parent.rglob("*")) == before


def sftp(instances, *requests):
    """Answers to raw requests of SFTP: ``[(kind, body without the number)]``."""
    frames = [b"\x01" + struct.pack(">I", 3)]
    frames += [
        bytes([kind]) + struct.pack(">I", n) + body for n, (kind, body) in enumerate(requests)
    ]
    data = b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)
    out, answers = ask(instances, "/usr/lib/openssh/sftp-server", data).stdout, []
    while out:
        (size,) = struct.unpack(">I", out[:4])
        answers.append((out[4], out[9 : 4 + size]))
        out = out[4 + size :]
    return answers[1:]


def text(value):
    data = value if isinstance(value, bytes) else str(value).encode()
    return struct.pack(">I", len(data)) + data


def opening(path, flags=1):
    return 3, text(path) + struct.pack(">II", flags, 0)


CREATE = 2 | 8 | 16


def code(answer):
    return struct.unpack(">I", answer[1][:4])[0] if answer[0] == 101 else answer[0]


def test_disks_are_written_and_read_over_sftp(instances):
    target = instances / GUEST / "new"
    handle = b"3"
    answers = sftp(
        instances,
        opening(target, CREATE),
        (6, text(handle) + struct.pack(">Q", 4) + text("disk")),
        (10, text(handle) + struct.pack(">II", 4, 0o640)),
        (4, text(handle)),
        (17, text(target)),
        opening(instances / GUEST / "disk"),
        (5, text(handle) + struct.pack(">QI", 2, 100)),
        (5, text(handle) + struct.pack(">QI", 99, 100)),
        (14, text(instances / GUEST / "directory") + struct.pack(">I", 0)),
    )
    assert [code(it) for it in answers] == [102, 0, 0, 0, 105, 102, 103, 1, 0]
    assert answers[0][1] == text(handle)
    assert target.read_bytes() == b"\0\0\0\0disk"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert answers[6][1] == text("disk")
    assert (instances / GUEST / "directory").is_dir()


def test_sftp_knows_nothing_outside_of_guests_directories(instances):
    outside = (
        instances.parent / "secret",
        instances / GUEST / "link",
        instances / "_base" / "x",
        instances / "x",
        f"{instances}/{GUEST}/../../secret",
        "/etc/passwd",
        "relative",
        "",
    )
    before = sorted(instances.parent.rglob("*"))
    for path in outside:
        answers = sftp(
            instances,
            opening(path),
            opening(path, CREATE),
            (7, text(path)),
            (17, text(path)),
            (9, text(path) + struct.pack(">IQ", 1, 0)),
            (14, text(path) + struct.pack(">I", 0)),
        )
        assert [code(it) for it in answers] == [3] * 6, path
    assert sorted(instances.parent.rglob("*")) == before
    assert (instances.parent / "secret").read_text() == "s3cret"


def test_sftp_has_no_links_renames_listings_or_extensions(instances):
    path = text(instances / GUEST / "disk")
    requests = [(kind, path + path) for kind in (11, 12, 13, 15, 18, 19, 20, 200)]
    assert [code(it) for it in sftp(instances, *requests)] == [8] * len(requests)


@pytest.mark.parametrize(
    "request_", [(3, b""), (6, text("9") + b"x"), (4, text("9")), (5, text("0") + b"\0" * 12)]
)
def test_sftp_answers_nonsense_with_an_error(instances, request_):
    assert [code(it) for it in sftp(instances, request_)] == [5]
