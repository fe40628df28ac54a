"""
Accounts and passwords are rotated under load: interrupted, resumed, the old ones gone.

Nova, Placement and a second cell, whose URLs are literal, go from their first accounts to others in
MariaDB, RabbitMQ and Keystone; then once more without the orchestration, and once in place.
"""

import contextlib
import json
import os
import re
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import CONTROLLERS, LAB, MINIONS, Run, apply, lab, on, sh, sql
from test_faults_ha import SAY
from test_faults_ha import load as traffic

pytestmark = [pytest.mark.usefixtures("site"), pytest.mark.long]

COMPUTES = ("cmp1", "cmp2")
#: What the lab's master has for /srv/pillar.
PILLAR = Path("/var/lib/nova-formula-lab") / os.environ.get("NOVA_LAB", "nova") / "pillar"
ROTATE = ["salt-run", "--out=json", "state.orchestrate", "nova.orchestrate.rotate"]
#: Characters that hurt in URLs, INI files and SQL; RabbitMQ's client cannot do with a slash.
NASTY = "@%$:#'\""
INFRA = "10.20.0.10"

#: The load has a new token every two seconds, which Nova and Placement have to look at with their
#: own accounts.
NEW_TOKEN = ("--token", "2")


@contextlib.contextmanager
def load(what):
    """Requests meanwhile; prints what became of them."""
    began = time.monotonic()
    with traffic(*NEW_TOKEN) as clients:
        yield clients
    seen = clients.stop()
    print(
        f"\n{what}: {time.monotonic() - began:.0f} s, {len(clients.failures)} of "
        f"{seen['requests']} requests failed, the longest waited {seen['longest wait']:.1f} s; "
        f"{clients.failures[:12]}"
    )


def no_account_was_refused(clients):
    """No answer was an error; without the orchestration nobody is drained, and a restart cuts."""
    answers = [reason for *_, reason in clients.failures if "status" in reason]
    assert answers == []


def passwords(turn):
    """All of the site's that rotate, for the a, b or c of its accounts."""
    names = ("messaging", "keystone_nova", "keystone_placement", "database_nova")
    secrets = {name: f"{turn}{NASTY}{name}" for name in (*names, "database_placement", "metadata")}
    return {**secrets, "cells": {"cell2": {"database": f"{turn}{NASTY}d", "messaging": f"{turn}m"}}}


def pillar(turn, before=None, secrets=None):
    """Give the master the pillar of a turn; ``before`` is the turn that retires."""
    cell = {"host": INFRA, "name": "nova_cell2", "user": f"cell2_{turn}"}
    mq = {"hosts": ["rabbitmq.example.org"], "vhost": "cell2", "user": f"cell2_{turn}"}
    users = {name: f"{name}_{turn}" for name in ("nova", "placement")}
    nova = {
        "keystone": {"users": users},
        "database": {"users": users},
        "messaging": {"user": f"openstack_{turn}"},
        "cells": {"cell2": {"database": cell, "messaging": mq, "disabled": True}},
        "passwords": secrets or passwords(turn),
    }
    if before is not None:
        old = [name + before for name in ("nova", "placement")]
        nova["retired"] = {"database": old, "keystone": old}
    add_to_pillar("rotation", nova)


def add_to_pillar(name, nova):
    """Lay a file over the pillar of all; the lab's next `up` writes its own anew."""
    path = PILLAR / "top.sls"
    top = json.loads(path.read_text().removeprefix("#!json\n"))
    for number, names in enumerate(top["base"].values()):
        # The last word: controllers get more after what is for all, and Salt takes a name once.
        last = f"{name}_{number}"
        (PILLAR / f"{last}.sls").write_text("#!json\n" + json.dumps({"nova": nova}))
        names[:] = [each for each in names if each != last] + [last]
    path.write_text("#!json\n" + json.dumps(top))


def rabbit(*arguments, secret=None):
    extra = {} if secret is None else {"input": secret + "\n"}
    return lab("exec", "infra", "--", "rabbitmqctl", "--quiet", *arguments, **extra).stdout


def make_in_place(turn):
    """What the formula finds: accounts of RabbitMQ, and of the second cell's database."""
    secrets = passwords(turn)
    for user, secret, vhost in (
        (f"openstack_{turn}", secrets["messaging"], "/"),
        (f"cell2_{turn}", secrets["cells"]["cell2"]["messaging"], "cell2"),
    ):
        rabbit("add_user", user, secret=secret)
        rabbit("set_permissions", "-p", vhost, user, ".*", ".*", ".*")
    secret = secrets["cells"]["cell2"]["database"].replace("'", "''")
    sql(f"GRANT ALL PRIVILEGES ON nova_cell2.* TO cell2_{turn}@'%' IDENTIFIED BY '{secret}'")


class Orchestrated(Run):
    """What an orchestration returned: its steps, and in them what minions returned."""

    def __init__(self, text):
        super().__init__(text)
        (master,) = self.returns["data"].values()
        self.steps = {tag.split("_|-")[1]: step for tag, step in master.items()}
        self.steps = {i.removeprefix("nova-orchestrate-rotate-"): s for i, s in self.steps.items()}

    def states(self):
        for step in self.steps.values():
            ret = (step["changes"] or {}).get("ret") or {}
            for minion, states in ret.items():
                for tag, state in states.items() if isinstance(states, dict) else ():
                    yield minion, tag.split("_|-")[1], state

    def failed_steps(self):
        return {i: s["comment"] for i, s in self.steps.items() if s["result"] is False}


def rotate(*arguments):
    done = lab("exec", "infra", "--", *ROTATE, *arguments, check=False)
    return Orchestrated(done.stdout)


def files():
    """nova.conf and placement.conf of all, and when their daemons started."""
    conf = {host: sh(host, "cat /etc/nova/nova.conf") for host in (*CONTROLLERS, *COMPUTES)}
    units = "nova-api nova-conductor nova-scheduler placement-api nova-compute"
    show = f"systemctl show -P ActiveEnterTimestampMonotonic {units}"
    return conf, {host: sh(host, show) for host in conf}


def quiet(run):
    return (run.failed(), run.changed())


@pytest.fixture(scope="module")
def site(fleet):
    """The fleet with a second cell of its own accounts; the lab's own pillar comes back after."""
    rabbit("add_vhost", "cell2")
    sql("CREATE DATABASE nova_cell2")
    make_in_place("a")
    pillar("a", secrets={**passwords("a")})
    run = apply()
    assert run.failed() == []
    assert quiet(apply()) == ([], [])
    yield
    lab("up")


def test_an_account_that_does_not_work_stops_it_before_anything_is_touched():
    pillar("b", before="_a")
    before = files()
    run = rotate()
    assert list(run.failed_steps()) == ["proof"]
    said = " ".join(comment for _, _, comment in run.failed())
    assert "refuses the user openstack_b" in said and "cell2_b" in said, said
    assert "b@%$" not in run.text  # of each password; accounts are called nova_b@%
    assert files() == before
    # Without the orchestration it is the same: each keeps what it has.
    run = apply(target="cmp1")
    said = {state: comment for _, state, comment in run.failed()}
    assert "nova.conf stays as it is. RabbitMQ at" in said["nova-config-nova-conf"]
    assert files() == before


def test_test_mode_tells_what_will_be_done():
    make_in_place("b")
    before = files()
    run = rotate("test=True")
    assert (run.failed_steps(), run.failed()) == ({}, [])
    changed = run.changed()
    for host in CONTROLLERS + COMPUTES:
        assert (host, "nova-config-nova-conf") in changed
    assert (CONTROLLERS[0], "nova-controller-retired-keystone-nova_a") in changed
    assert files() == before


def has_the_new_accounts(host):
    return "openstack_b" in sh(host, "cat /etc/nova/nova.conf")


def is_drained(controller):
    lines = on("lb1", "python3", "-c", SAY, "show stat").splitlines()
    return any(",DRAIN" in line for line in lines if f"_8774,{controller}," in line)


def accounts(name):
    return int(sql(f"SELECT COUNT(*) FROM mysql.user WHERE user = '{name}'"))


#: Where a rotation is killed, one after another.
POINTS = {
    "the first controller is drained": lambda: is_drained("ctl1"),
    "the first controller has them": lambda: has_the_new_accounts("ctl1"),
    "the second one has": lambda: has_the_new_accounts("ctl2"),
    "a compute node has": lambda: has_the_new_accounts("cmp1"),
    "a retired account is gone": lambda: not accounts("nova_a"),
}


def kill_when(reached):
    """Start a rotation, kill it and its jobs on minions at a point; whether that was in time."""
    command = [LAB, "exec", "infra", "--", *ROTATE]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not reached():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    sh("infra", "pkill -9 -f 'salt-run.*[n]ova.orchestrate.rotate' || :")
    on("infra", "salt", "*", "saltutil.kill_all_jobs")
    return killed.wait() != 0


def test_it_is_done_under_load_although_it_is_killed_again_and_again():
    kills = 0
    with load("rotation, killed again and again and resumed") as clients:
        for point, reached in POINTS.items():
            began = time.monotonic()
            # The last killed run may have gone beyond.
            killed = not reached() and kill_when(reached)
            kills += killed
            words = "killed" if killed else "too late to be killed"
            print(f"\n{words} when {point}, after {time.monotonic() - began:.0f} s")
        began = time.monotonic()
        run = rotate()
        print(f"\nresumed: {time.monotonic() - began:.0f} s")
        assert (run.failed_steps(), run.failed()) == ({}, [])
    assert clients.failures == []
    assert kills > 2


def test_a_second_run_changes_nothing():
    began = time.monotonic()
    run = rotate()
    print(f"\nagain: {time.monotonic() - began:.0f} s")
    assert (run.failed_steps(), *quiet(run)) == ({}, [], [])
    assert {step["result"] for step in run.steps.values()} == {True}
    assert quiet(apply()) == ([], [])


def nobody_logs_in_with(turn, addresses=("10.20.0.6", "10.20.0.7", "10.20.0.8", "10.20.0.9")):
    """No account of a turn is left, and of RabbitMQ's, which stay, no node of Nova's uses one."""
    old = f"('nova_{turn}', 'placement_{turn}')"
    assert sql(f"SELECT COUNT(*) FROM mysql.user WHERE user IN {old}") == "0\n"
    assert sql(f"SELECT COUNT(*) FROM information_schema.processlist WHERE user IN {old}") == "0\n"
    users = json.loads(on("infra", "openstack", "user", "list", "-f", "json"))
    assert not {f"nova_{turn}", f"placement_{turn}"} & {user["Name"] for user in users}
    for line in rabbit("list_connections", "user", "peer_host").splitlines():
        assert not (line.startswith(f"openstack_{turn}") and line.split()[1].startswith(addresses))
    for host in (*CONTROLLERS, *COMPUTES):
        text = sh(host, "cat /etc/nova/nova.conf")
        assert not re.search(rf"(nova|placement|openstack)_{turn}\b", text)
    urls = sql("SELECT transport_url, database_connection FROM nova_api.cell_mappings")
    assert f"cell2_{turn}" not in urls


def controllers_have(secrets):
    """Each password of the pillar stands in the controllers' files."""
    for host in CONTROLLERS:
        text = sh(host, "cat /etc/nova/nova.conf /etc/placement/placement.conf")
        for name, secret in secrets.items():
            if name != "cells":
                written = (quote(secret, safe=""), secret.replace("$", "$$"))
                assert any(f"{it}@" in text or f" = {it}\n" in text for it in written), name


def test_the_old_accounts_are_gone_and_nobody_uses_one():
    nobody_logs_in_with("a")
    controllers_have(passwords("b"))
    secret = quote(passwords("b")["cells"]["cell2"]["database"], safe="")
    assert f"cell2_b:{secret}@" in sql("SELECT database_connection FROM nova_api.cell_mappings")
    # The accounts that stay in place can go now: nothing of Nova's asks for them.
    for user in ("openstack_a", "cell2_a"):
        rabbit("delete_user", user)
    sql("DROP USER cell2_a")
    for host in MINIONS[:2] + COMPUTES:
        checked = json.loads(on("infra", "salt", "--out=json", host, "nova_login.check"))[host]
        assert set(checked.values()) == {"works"}, checked


def boots_a_guest_on(host):
    name = f"rotated-{host}"
    sh(
        "infra",
        "openstack flavor show demo.tiny > /dev/null 2>&1 || "
        "openstack flavor create --ram 128 --disk 0 --vcpus 1 demo.tiny",
    )
    made = sh(
        "infra",
        "openstack --os-compute-api-version 2.74 server create --nic none --image guest --wait "
        f"--flavor demo.tiny --host {host} -f json {name}",
    )
    assert json.loads(made)["status"] == "ACTIVE"
    on("infra", "openstack", "server", "delete", "--wait", name)


@pytest.mark.parametrize("host", COMPUTES)
def test_guests_are_made_afterwards(host):
    boots_a_guest_on(host)


def test_without_the_orchestration_compute_nodes_wait_for_the_controllers():
    make_in_place("c")
    pillar("c", before="_b")
    command = ["salt", "--out=json", "--static", "-t", "900", "cmp*", "state.apply", "nova"]
    with load("state.apply, compute nodes first") as clients:
        early = subprocess.Popen([LAB, "exec", "infra", "--", *command], stdout=-1, text=True)
        time.sleep(20)
        assert early.poll() is None
        assert "openstack_b" in sh("cmp1", "cat /etc/nova/nova.conf")
        late = [apply(target=target) for target in CONTROLLERS]
        assert [run.failed() for run in late] == [[], []]
        first = Run(early.communicate()[0])
        assert first.failed() == []
        assert ("cmp1", "nova-config-nova-conf") in first.changed()
    no_account_was_refused(clients)
    assert quiet(apply()) == ([], [])
    run = apply(target="ctl1", sls="nova.controller.retired")
    assert run.failed() == []
    assert len(run.changed()) == 4
    nobody_logs_in_with("b")


def test_a_password_changes_in_place_with_a_short_window():
    secrets = {**passwords("c"), "keystone_nova": f"d{NASTY}k", "database_nova": f"d{NASTY}d"}
    secrets["messaging"] = f"d{NASTY}m"
    pillar("c", secrets=secrets)
    with load("in place, state.apply at once"):
        rabbit("change_password", "openstack_c", secret=secrets["messaging"])
        run = apply()
        assert run.failed() == []
    controllers_have(secrets)
    assert quiet(apply()) == ([], [])
    for host in COMPUTES:
        boots_a_guest_on(host)
