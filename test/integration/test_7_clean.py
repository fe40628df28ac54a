"""nova.verify looks at a fleet, nova.clean undoes it, and nothing is lost that was not named."""

import subprocess

import pytest
from conftest import CONTROLLERS, MINIONS, ROOT, apply, on, one_of_everything, sh, sql

pytestmark = [pytest.mark.usefixtures("fleet"), pytest.mark.long]

OURS = {"nova", "nova_api", "nova_cell0", "placement"}
UNITS = "nova-api nova-conductor nova-scheduler nova-novncproxy placement-api"
GIVEN_UP = {"clean": {"databases": sorted(OURS), "identity": True, "computes": ["cmp1", "cmp2"]}}


def guests(host):
    """The guests that libvirt runs on a host."""
    return on(host, "virsh", "-q", "list", "--name").split()


def databases():
    return set(sql("SHOW DATABASES").split()) & OURS


def services():
    listed = on("infra", "openstack", "service", "list", "-f", "value", "-c", "Type")
    return set(listed.split())


def test_the_verification_alone_holds_the_slow_check_too():
    run = apply(sls="nova.verify")
    assert (run.failed(), run.changed()) == ([], [])
    checked = {minion for minion, state, _ in run.states() if "upgrade-check" in state}
    assert checked == set(CONTROLLERS)


def test_a_compute_node_with_guests_is_refused():
    subprocess.run([ROOT / "test" / "demo"], capture_output=True, check=True)
    (host,) = [host for host in ("cmp1", "cmp2") if guests(host)]
    for args in (["test=True"], []):
        run = apply(*args, target=host, sls="nova.clean")
        said = {state: comment for _, state, comment in run.failed()}
        assert "nova:clean:computes" in said.pop("nova-compute-clean-guests")
        assert all("requisite" in comment for comment in said.values()), said
        assert run.changed() == []
    assert on(host, "systemctl", "is-active", "nova-compute").strip() == "active"
    assert guests(host)


def test_a_clean_keeps_databases_and_keystone_s_objects_unless_they_are_named():
    foreign = sh("lb1", "sed '/openstack_nova_port/,/^$/d' /etc/haproxy/haproxy.cfg")
    for target in ("lb1", *CONTROLLERS):
        predicted = apply("test=True", target=target, sls="nova.clean")
        run = apply(target=target, sls="nova.clean")
        assert run.failed() == [] and run.changed()
        assert predicted.changed() == run.changed()
        again = apply(target=target, sls="nova.clean")
        assert (again.failed(), again.changed()) == ([], [])
    assert "openstack_nova" not in sh("lb1", "cat /etc/haproxy/haproxy.cfg")
    assert sh("lb1", "cat /etc/haproxy/haproxy.cfg").strip() == foreign.strip()
    assert on("lb1", "systemctl", "is-active", "haproxy").strip() == "active"
    for host in CONTROLLERS:
        states = sh(host, f"systemctl is-active {UNITS} || true").split()
        assert set(states) == {"inactive"}
        assert sh(host, "ls /etc/nova/nova.conf 2>/dev/null || true") == ""
    assert databases() == OURS
    assert {"compute", "placement"} <= services()


def test_what_was_cleaned_is_there_again_after_one_command():
    run = apply()
    assert run.failed() == []
    one_of_everything()
    again = apply()
    assert (again.failed(), again.changed()) == ([], [])


def test_what_is_named_goes_and_the_rest_of_the_site_stays():
    before = sql("SHOW DATABASES").split()
    for target in ("cmp1", "cmp2", *CONTROLLERS, "lb1"):
        run = apply(target=target, sls="nova.clean", nova=GIVEN_UP)
        assert run.failed() == [], target
    assert databases() == set()
    assert set(before) - OURS == set(sql("SHOW DATABASES").split())
    assert not {"compute", "placement"} & services()
    assert {"identity", "image", "network"} <= services()
    again = apply(target="ctl1", sls="nova.clean", nova=GIVEN_UP)
    assert (again.failed(), again.changed()) == ([], [])


def test_a_site_can_be_built_anew_where_one_was_cleaned():
    run = apply()
    assert run.failed() == []
    assert {minion for minion, _ in run.changed()} == set(MINIONS)
    one_of_everything()
    again = apply()
    assert (again.failed(), again.changed()) == ([], [])
