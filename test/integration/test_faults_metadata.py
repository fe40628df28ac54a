"""
The metadata secret is rotated under load: agents of Neutron's go over to a second metadata API one
after another, and with the next secret back.
"""

import contextlib
import json

import pytest
from conftest import CONTROLLERS, apply, lab, on, sh
from test_faults_ha import load
from test_faults_rotate import NASTY, PILLAR, add_to_pillar, kill_when, quiet, rotate

pytestmark = [pytest.mark.usefixtures("agents"), pytest.mark.long]

VIP = "10.20.0.40"
FIRST, SECOND = 8775, 8785
AGENTS = ("agent-1", "agent-2")
UWSGI = "nova-api-metadata-second-uwsgi.ini"
SUBNET, ADDRESS = "192.0.2.0/24", "192.0.2.9"
INSTALL = """
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq --yes --no-install-recommends install neutron-metadata-agent curl > /dev/null
rm /usr/sbin/policy-rc.d
"""
#: A program of Neutron's as a unit of its own, with configuration files.
START = "systemd-run --quiet --collect --uid neutron --unit {unit} --property Restart=on-failure {}"
NEUTRON = "--config-file /etc/neutron/neutron.conf --config-file "
AGENT = """[DEFAULT]
metadata_proxy_socket = /run/neutron/{name}.sock
metadata_proxy_socket_mode = user
metadata_workers = 1
nova_metadata_host = {host}
nova_metadata_port = {port}
metadata_proxy_shared_secret = {secret}
"""
#: An agent listens.
READY = """
for _ in $(seq 120); do
    curl -s --unix-socket /run/neutron/{name}.sock http://x/ > /dev/null && exit
    sleep 0.5
done
journalctl --unit {name} | tail
exit 1
"""
#: Names of agents that run.
running = set()


def agent(name, port, secret):
    """An agent asks Nova at a port with a secret: a new one, or one that gets this by a restart."""
    text = AGENT.format(name=name, host=VIP, port=port, secret=secret.replace("$", "$$"))
    path = f"/etc/neutron/{name}.ini"
    sh("infra", f"umask 077; cat > {path}; chown neutron {path}", input=text)
    if name in running:
        start = f"systemctl restart {name}"
    else:
        running.add(name)
        start = START.format(f"neutron-metadata-agent {NEUTRON}{path}", unit=name)
    sh("infra", f"rm -f /run/neutron/{name}.sock; {start}; {READY.format(name=name)}")


def asked(name):
    """What a guest of the network is told through an agent: (status, answer)."""
    command = (
        f"curl -s -w '\\n%{{http_code}}' --unix-socket /run/neutron/{name}.sock "
        f"-H 'X-Neutron-Network-ID: {guest['network']}' -H 'X-Forwarded-For: {ADDRESS}' "
        "http://169.254.169.254/openstack/latest/meta_data.json"
    )
    text, _, status = sh("infra", command).rpartition("\n")
    return int(status), text


#: Of the guest: its id, and its network's.
guest = {}


def openstack(*arguments):
    return json.loads(on("infra", "openstack", *arguments, "-f", "json"))


def site_secret():
    text = (PILLAR / "secrets_controllers.sls").read_text().removeprefix("#!json\n")
    return json.loads(text)["nova"]["passwords"]["metadata"]


def pillar(second, secrets):
    add_to_pillar(
        "metadata",
        {"metadata": {"balanced": True, "second": second}, "passwords": secrets},
    )


@contextlib.contextmanager
def guests_ask(*restarting):
    """Traffic of guests through both agents, beside that of the APIs: no request is refused."""
    sockets = {f"/run/neutron/{name}.sock": name for name in AGENTS}
    arguments = []
    for socket in sockets:
        arguments += ["--agent", socket, guest["network"], ADDRESS]
    with load(*arguments) as clients:
        yield
    seen = clients.stop()
    # While it restarts, an agent itself answers nobody.
    own = [
        reason
        for *_, reason in clients.failures
        if sockets.get(reason.split(": ")[0]) in restarting and "status" not in reason
    ]
    print(
        f"\n{len(clients.failures)} of {seen['requests']} requests failed, of {seen['asked']}; "
        f"{len(own)} while their agent restarted; the longest waited {seen['longest wait']:.1f} s"
    )
    assert [reason for *_, reason in clients.failures if reason not in own] == []
    assert min(seen["asked"].values()) > 5


@pytest.fixture(scope="module")
def agents(fleet):
    """A guest with a port of Neutron's, and what Neutron's agents ask; the first of these."""
    pillar(False, {})
    assert apply().failed() == []
    sh("infra", INSTALL)
    rpc = f"neutron-rpc-server {NEUTRON}/etc/neutron/plugins/ml2/ml2_conf.ini"
    sh("infra", START.format(rpc, unit="rpc"))
    on("infra", "openstack", "flavor", "create", "--ram", "128", "--disk", "0", "lab.metadata")
    server = openstack(
        *("--os-compute-api-version", "2.74", "server", "create", "--nic", "none", "--wait"),
        *("--image", "guest", "--flavor", "lab.metadata", "lab-metadata"),
    )
    network = openstack(
        *("network", "create", "--provider-network-type", "flat"),
        *("--provider-physical-network", "lab", "lab-metadata"),
    )
    on(
        "infra",
        "openstack",
        "subnet",
        "create",
        "--network",
        network["id"],
        "--subnet-range",
        SUBNET,
        "lab-metadata",
    )
    port = openstack(
        *("port", "create", "--network", network["id"], "--fixed-ip", f"ip-address={ADDRESS}"),
        *("--device", server["id"], "--device-owner", "compute:nova", "lab-metadata"),
    )
    guest.update(id=server["id"], network=network["id"])
    for name in AGENTS:
        agent(name, FIRST, site_secret())
    yield
    on("infra", "openstack", "server", "delete", "--wait", server["id"])
    on("infra", "openstack", "port", "delete", port["id"], check=False)
    on("infra", "openstack", "network", "delete", network["id"])
    on("infra", "openstack", "flavor", "delete", "lab.metadata")
    on("infra", "systemctl", "stop", "rpc", *running)
    lab("up")
    assert apply().failed() == []


def both_get_the_guest_s_metadata():
    for name in AGENTS:
        status, text = asked(name)
        assert (status, json.loads(text)["uuid"]) == (200, guest["id"])


def test_an_agent_gets_a_guest_s_metadata_by_the_secret_alone():
    both_get_the_guest_s_metadata()
    agent("stranger", FIRST, "another secret")
    assert asked("stranger")[0] == 403


def test_agents_go_over_to_the_second_api_one_after_another_and_none_is_refused():
    pillar(True, {"metadata_second": f"b{NASTY}"})
    with guests_ask():
        assert apply(target="lb1").failed() == []
        for path in ("metadata-second.env", UWSGI):
            assert kill_when(lambda path=path: sh("ctl1", f"ls /etc/nova/{path} 2> /dev/null || :"))
        run = rotate()
        assert (run.failed_steps(), run.failed()) == ({}, [])
        assert ("ctl2", "nova-controller-service-started") in run.changed()
        assert "b@%$" not in run.text
        assert quiet(apply()) == ([], [])
    for name in AGENTS:
        with guests_ask(name):
            agent(name, SECOND, f"b{NASTY}")
            both_get_the_guest_s_metadata()


def test_the_old_secret_goes_when_all_have_gone_over():
    pillar(True, {"metadata": f"b{NASTY}", "metadata_second": f"b{NASTY}"})
    with guests_ask():
        run = rotate()
        assert (run.failed_steps(), run.failed()) == ({}, [])
    agent("stranger", FIRST, site_secret())
    assert asked("stranger")[0] == 403


def test_agents_go_back_with_the_next_secret_and_nothing_of_the_second_api_stays():
    pillar(True, {"metadata": f"c{NASTY}", "metadata_second": f"b{NASTY}"})
    with guests_ask():
        run = rotate()
        assert (run.failed_steps(), run.failed()) == ({}, [])
    for name in AGENTS:
        with guests_ask(name):
            agent(name, FIRST, f"c{NASTY}")
            both_get_the_guest_s_metadata()
    pillar(False, {"metadata": f"c{NASTY}"})
    with guests_ask():
        assert kill_when(lambda: not sh("ctl1", f"ls /etc/nova/{UWSGI} 2> /dev/null || :"))
        run = rotate()
        assert (run.failed_steps(), run.failed()) == ({}, [])
        assert apply(target="lb1").failed() == []
    assert quiet(apply()) == ([], [])
    for host in CONTROLLERS:
        assert sh(host, "find /etc -type f -path '*metadata*second*'") == ""
        assert sh(host, f"ss -Hltn 'sport = {SECOND}'") == ""
    assert str(SECOND) not in sh("lb1", "cat /etc/haproxy/haproxy.cfg")
