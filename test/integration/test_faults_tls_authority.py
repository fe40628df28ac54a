"""A bare site converges in TLS alone, with certificates of the formula's own authority."""

import json

import pytest
from conftest import CONTROLLERS, MINIONS, apply, lab, on, sh
from test_faults_tls import (
    ADDRESSES,
    CA,
    HERE,
    NODES,
    SERVED,
    SERVERS_OF_APIS,
    VIP,
    VNC,
    infra_offers_tls,
    move,
    nothing_to_do,
    put,
    restarted,
    sessions,
    status,
    whereabouts,
)

pytestmark = pytest.mark.long

KEYS = "/var/lib/nova-formula/certificates"
#: MariaDB's and RabbitMQ's host has no minion: a controller gets theirs, to be carried there.
FOUND = {"minion": "ctl1", "names": [VIP, "rabbitmq.example.org"], "ca": CA["ca"]}
FOUND |= {"cert": f"{HERE}/server.pem", "key": f"{HERE}/server.key"}
AUTHORITY = {"minion": "ctl1", "days": 20, "renew": 10, "servers": {"found": FOUND}}
PILLAR = {
    "authority": AUTHORITY,
    "database": {"tls": CA, "require_tls": True},
    "messaging": {"tls": CA},
    "tls": {**SERVED, "vnc": VNC},
    "migration": {"live": True, "tls": True},
}


@pytest.fixture(scope="module")
def site():
    lab("up")
    lab("restore", "bare")
    first = apply(sls="nova.certificates", target="ctl1", nova={**PILLAR, "timeouts": {
        "certificates": 2}})  # fmt: skip
    assert first.failed() == []
    for path in (CA["ca"], FOUND["cert"], FOUND["key"]):
        put("infra", path, sh("ctl1", f"cat {path}"))
    infra_offers_tls()
    run = apply(nova=PILLAR)
    assert run.failed() == []
    return run


def test_a_second_run_changes_nothing(site):
    nothing_to_do(**PILLAR)


def test_all_of_it_is_in_tls(site):
    for host in (VIP, *ADDRESSES.values()):
        for port in (8774, 8778, 6080):
            assert status(f"https://{host}:{port}/", ca=CA["ca"]) in (200, 300, 404, 405)
            assert status(f"http://{host}:{port}/") is None
    assert {tls for _, tls in sessions()} == {True}


def test_keys_stay_where_they_were_made(site):
    secrets = {}
    for host in MINIONS:
        made = sh(host, f"ls {KEYS}/*.key").split()
        its = {path: sh(host, f"sed -n 3p {path}").strip() for path in made}
        secrets.update({(host, path): text for path, text in its.items()})
        assert sh(host, f"stat -c '%U %a' {KEYS}").split() == ["root", "700"]
    names = {host: [] for host in MINIONS}
    for host, path in sorted(secrets):
        names[host].append(path.rpartition("/")[2])
    assert names == {
        "ctl1": ["display.key", "found.key", "server.key"],
        "ctl2": ["display.key", "server.key"],
        "lb1": ["server.key"],
        **dict.fromkeys(NODES, ["display.key", "hypervisor.key"]),
    }
    authority = [sh("ctl1", f"sed -n 3p {path}").strip()
                 for path in sh("ctl1", "ls /etc/nova-authority/*.key").split()]  # fmt: skip
    assert len(authority) == 3
    for host in ("infra", *MINIONS):
        grep = 'grep -rlF -D skip -- "$(cat)" /var/cache/salt /var/log /var/lib /tmp /etc || :'
        others = [text for (other, _), text in secrets.items() if other != host]
        others += [] if host == "ctl1" else authority
        found = sh(host, grep, input="\n".join(others)).split()
        assert found == ([FOUND["key"]] if host == "infra" else [])
    assert not any(text in site.text for text in [*secrets.values(), *authority])


def test_a_guest_migrates_live_with_them(site):
    sh("infra", "openstack flavor create --ram 128 --vcpus 1 --disk 0 mover >/dev/null; "
       "openstack server create --os-compute-api-version 2.74 --flavor mover --image guest "
       "--nic none --host cmp1 --wait mover >/dev/null")  # fmt: skip
    assert move("cmp2") == "completed"
    assert whereabouts() == ("ACTIVE", "cmp2")


def test_they_are_renewed_with_a_reload_of_those_that_read_them(site):
    before = {host: sh(host, f"sha256sum {HERE}/my.pem") for host in CONTROLLERS}
    longer = {**PILLAR, "authority": {**AUTHORITY, "days": 365, "renew": 30}}
    predicted, run = apply("test=True", nova=longer), apply(nova=longer)
    assert (predicted.failed(), run.failed()) == ([], [])
    assert restarted(predicted) == restarted(run)
    assert {(host, unit) for host in CONTROLLERS for unit in SERVERS_OF_APIS} <= restarted(run)
    assert ("lb1", "nova-haproxy-service-running") in run.changed()
    assert all(sh(host, f"sha256sum {HERE}/my.pem") != before[host] for host in CONTROLLERS)
    nothing_to_do(**longer)
    assert whereabouts() == ("ACTIVE", "cmp2")
    on("infra", "openstack", "server", "delete", "--wait", "mover")


def test_a_renewed_site_still_answers(site):
    listed = json.loads(on("infra", "openstack", "server", "list", "-f", "json"))
    assert listed == []
