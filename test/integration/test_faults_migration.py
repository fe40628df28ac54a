"""Migration over SSH: guests move, cold and live, and a peer's key opens nothing else."""

import contextlib
import json
import subprocess

import pytest
from conftest import LAB, apply, on, sh

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("fleet")]

PILLAR = {"migration": {"ssh": True, "live": True}}
NODES = {"cmp1": "10.20.0.80", "cmp2": "10.20.0.90"}
HOME = "/var/lib/nova/.ssh"
#: Guests that other tests have left there stay, and come back with the node.
GIVEN_UP = {"computes": ["cmp2"]}


@pytest.fixture(scope="module")
def keys():
    """The fleet with migration on: what test mode foresaw, the run, and a second one."""
    predicted = apply("test=True", nova=PILLAR)
    run = apply(nova=PILLAR)
    yield predicted, run
    sh("infra", "openstack server delete --wait mover || :; openstack flavor delete mover big || :")


def changed(run):
    return {(minion, state) for minion, state in run.changed() if minion in NODES}


def test_several_nodes_trust_each_other_after_one_run(keys):
    predicted, run = keys
    assert (predicted.failed(), run.failed()) == ([], [])
    assert changed(run) == changed(predicted)
    for node in NODES:
        assert (node, "nova-compute-migration-peers") in changed(run)
    again = apply(nova=PILLAR)
    assert (again.failed(), again.changed()) == ([], [])
    predicted = apply("test=True", nova=PILLAR)
    assert (predicted.failed(), predicted.changed()) == ([], [])


def test_the_private_key_is_its_node_s_alone(keys):
    parts = {}
    for node in NODES:
        stat = sh(node, f"stat -c '%U:%G %a' {HOME} {HOME}/id_ed25519 {HOME}/authorized_keys")
        assert stat.splitlines() == ["root:nova 750", "nova:nova 600", "root:nova 640"]
        parts[node] = sh(node, f"sed -n 3p {HOME}/id_ed25519").strip()
    assert parts["cmp1"] != parts["cmp2"]
    for host in ("infra", *NODES):
        for node, part in parts.items():
            own = [f"{HOME}/id_ed25519"] if host == node else []
            grep = 'grep -rlF -D skip -- "$(cat)" /var/cache/salt /var/log /var/lib/nova /tmp || :'
            assert sh(host, grep, input=part).splitlines() == own
    assert not any(part in keys[1].text for part in parts.values())


def ssh(command, *options, peer="10.20.0.90", user="nova", host="cmp1"):
    """What `ssh` as nova on cmp1 gets from its peer: return code, output."""
    line = " ".join(["ssh", "-o", "BatchMode=yes", *options, f"{user}@{peer}", command])
    script = 'cd /; rc=0; su -s /bin/sh nova -c "$(cat)" 2>&1 || rc=$?; echo "rc $rc"'
    output, _, code = sh(host, script, input=line).rpartition("rc ")
    return int(code), output


@pytest.mark.parametrize(
    "command",
    [
        "",
        "id",
        "'sh -c id'",
        "cat /etc/nova/nova.conf",
        "'mkdir -p /var/lib/nova/.ssh/x'",
        "'touch /var/lib/nova/instances/../.ssh/x'",
        "'rm -rf /var/lib/nova/instances'",
        "'rm -rf /var/lib/nova/instances/_base'",
        "'scp -f /etc/nova/nova.conf'",
        "'rsync --server --sender -e.LsfxC . /etc/nova/nova.conf'",
        "'nc -U /var/run/libvirt/libvirt-sock'",
        "'virsh -c qemu:///system list'",
        "'/usr/lib/openssh/sftp-server -e'",
    ],
)
def test_a_peer_runs_nothing_but_steps_of_a_migration(keys, command):
    code, output = ssh(command)
    assert code == 1 and "this key is for the migration of guests alone" in output
    assert "uid=" not in output and "password" not in output


def test_a_peer_gets_no_terminal_forwarding_or_other_account(keys):
    assert "PTY allocation request failed" in ssh("", "-tt")[1]
    code, output = ssh("", "-N", "-o", "ExitOnForwardFailure=yes", "-R", "9999:127.0.0.1:22")
    assert code == 255 and "remote port forwarding failed" in output
    for user in ("root", "libvirt-qemu", "placement"):
        code, output = ssh("id", user=user)
        assert code == 255 and "Permission denied" in output


def test_a_peer_reads_and_writes_guests_files_alone(keys):
    guest = "/var/lib/nova/instances/0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
    move = f"""
    set -e; cd /
    peer=nova@10.20.0.90; echo disk > /tmp/disk
    ssh -o BatchMode=yes $peer mkdir -p {guest}
    for way in "" -O; do
        scp -q $way -C -r /tmp/disk $peer:{guest}/disk
        scp -q $way -r $peer:{guest}/disk /tmp/back; cmp /tmp/disk /tmp/back; rm /tmp/back
        for path in /etc/nova/nova.conf /etc/passwd {guest}/../../.ssh/id_ed25519; do
            if scp -q $way $peer:$path /tmp/stolen; then exit 9; fi
        done
        for path in /var/lib/nova/.ssh/authorized_keys /var/lib/nova/instances/x /tmp/x; do
            if scp -q $way /tmp/disk $peer:$path; then exit 8; fi
        done
        mkdir -p /tmp/tree/deeper; echo x > /tmp/tree/deeper/file
        scp -q $way -r /tmp/tree $peer:{guest}/
    done
    ssh -o BatchMode=yes $peer rm -rf {guest}
    rm -r /tmp/disk /tmp/tree
    """
    sh("cmp1", 'su -s /bin/sh nova -c "$(cat)"', input=move)
    assert sh("cmp2", f"ls -d {guest} /tmp/x /var/lib/nova/instances/x 2>/dev/null || :") == ""
    assert "refused" in sh("cmp2", "journalctl -t nova-migration --no-pager -o cat")


def test_only_the_peer_s_own_address_is_let_in(keys):
    """Its key in a stranger's hands opens nothing."""
    sh("ctl1", "cat > /tmp/key; chmod 600 /tmp/key", input=sh("cmp1", f"cat {HOME}/id_ed25519"))
    sh("ctl1", "command -v ssh >/dev/null || apt-get -qq -y install openssh-client >/dev/null 2>&1")
    answer = sh(
        "ctl1",
        "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/tmp/known "
        "-i /tmp/key nova@10.20.0.90 id 2>&1 || :; rm -f /tmp/key /tmp/known",
    )
    assert "Permission denied" in answer


def test_a_host_with_another_key_is_not_spoken_to(keys):
    for name in ("cmp2", "10.20.0.90"):
        assert "Host key verification failed" not in ssh("id", peer=name)[1]
    known = sh("cmp1", "cat /etc/ssh/ssh_known_hosts")
    assert "no" not in sh("cmp1", "ssh -G 10.20.0.90 | grep -i ^stricthostkeychecking").split()[1:]
    sh("cmp1", "sed -i 's/ AAAA/ AAAB/' /etc/ssh/ssh_known_hosts")
    code, output = ssh("id")
    assert code == 255 and "verification failed" in output
    predicted = apply("test=True", target="cmp1", nova=PILLAR)
    assert predicted.changed() == [("cmp1", "nova-compute-migration-peers")]
    run = apply(target="cmp1", nova=PILLAR)
    assert (run.failed(), run.changed()) == ([], predicted.changed())
    assert sh("cmp1", "cat /etc/ssh/ssh_known_hosts") == known


# ---- guests --------------------------------------------------------------------------------------


def openstack(*args):
    return on("infra", "openstack", *args)


def server():
    found = json.loads(openstack("server", "show", "mover", "-f", "json"))
    return found["status"], found["OS-EXT-SRV-ATTR:host"]


WAIT = """
for i in $(seq 120); do
    status=$(openstack server show mover -f value -c status)
    case $status in $1) exit 0;; ERROR) openstack server show mover; exit 1;; esac
    sleep 1
done
openstack server event list mover; exit 1
"""


def until(status):
    on("infra", "sh", "-ec", WAIT, "sh", status)


@pytest.fixture(scope="module")
def mover(keys):
    sh(
        "infra",
        "openstack flavor create --ram 128 --disk 0 mover >/dev/null; "
        "openstack flavor create --ram 160 --disk 0 big >/dev/null; "
        "openstack server create --os-compute-api-version 2.74 --nic none --image guest "
        "--flavor mover --host cmp1 --wait mover >/dev/null",
    )
    assert server() == ("ACTIVE", "cmp1")


def test_a_guest_is_resized_and_migrates_cold_there_and_back(mover):
    openstack("server", "resize", "--flavor", "big", "mover")
    until("VERIFY_RESIZE")
    openstack("server", "resize", "confirm", "mover")
    until("ACTIVE")
    here = server()[1]
    assert here == "cmp2"
    openstack("server", "migrate", "mover")
    until("VERIFY_RESIZE")
    openstack("server", "migration", "confirm", "mover")
    until("ACTIVE")
    assert server() == ("ACTIVE", "cmp1")


#: Where QEMU has listened for guests, until its input ends.
LISTENS = """
while ! read -t 0.05 line; do ss -Hltn '( sport >= :49152 and sport <= :49215 )'; done |
    awk '{print $4}' | sed 's/:[0-9]*$//' | sort -u
"""


@contextlib.contextmanager
def watched(host):
    """What QEMU listens at on a host meanwhile; the addresses come at the end."""
    command = [LAB, "exec", host, "--", "bash", "-c", LISTENS]
    watcher = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    found = []
    try:
        yield found
    finally:
        found += watcher.communicate("\n")[0].split()


def test_a_guest_migrates_live_there_and_back(mover):
    for target in ("cmp2", "cmp1"):
        line = "server migrate --os-compute-api-version 2.30 --live-migration --block-migration"
        with watched(target) as addresses:
            openstack(*line.split(), "--host", target, "--wait", "mover")
            until("ACTIVE")
        assert addresses == [NODES[target]]
        assert server() == ("ACTIVE", target), openstack("server", "show", "mover")
        # What the guest has printed stays where it was; that it runs is to be seen.
        assert sh(target, "virsh --quiet list --state-running --name").split()


def test_without_live_a_peer_does_not_reach_libvirt(mover):
    ask = "\"sh -c 'virt-ssh-helper qemu:///system'\""
    only = {"migration": {"ssh": True}}
    run = apply(nova=only)
    assert run.failed() == []
    code, output = ssh(ask)
    assert code == 1 and "migration of guests alone" in output
    assert "live_migration_uri" not in sh("cmp1", "cat /etc/nova/nova.conf")


def test_clean_takes_the_keys_away_and_the_peer_forgets(mover):
    openstack("server", "delete", "--wait", "mover")
    run = apply(target="cmp2", sls="nova.clean", nova={**PILLAR, "clean": GIVEN_UP})
    assert run.failed() == []
    assert sh("cmp2", f"ls {HOME}").split() == ["authorized_keys"]
    assert "nova-formula" not in sh("cmp2", f"cat {HOME}/authorized_keys /etc/ssh/ssh_known_hosts")
    forgot = apply(target="cmp1", nova={**PILLAR, "timeouts": {"migration": 1}})
    assert forgot.failed() == []
    assert "cmp2" not in sh("cmp1", f"cat {HOME}/authorized_keys /etc/ssh/ssh_known_hosts")
    back = apply(nova=PILLAR)
    assert back.failed() == []
    again = apply(nova=PILLAR)
    assert (again.failed(), again.changed()) == ([], [])
