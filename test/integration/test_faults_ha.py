"""
A fleet under load while parts of it are broken: requests that fail, and how long all takes to be
well again, without a person. The figures stand in docs/ha.md.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from datetime import datetime, timezone

import pytest
from conftest import CONTROLLERS, LAB, ROOT, Run, apply, lab, on, sh, sql

sys.path.insert(0, str(ROOT / "test"))
from fleet import demo  # noqa: E402
from fleet.lab import Lab, refresh_pillar  # noqa: E402

pytestmark = pytest.mark.long

LOAD = ("/opt/saltstack/bin/python", "/srv/formula/test/fleet/load.py")
#: Seconds within which everything has to be well again, whatever it was.
PATIENCE = 300
#: Seconds of load before a fault, and after all is well.
QUIET = 3
#: Two controllers restart two APIs each; seconds in which one that stops still takes connections.
RESTARTS, STOPPING = 4, 3
#: Seconds after which the VIP of a balancer that is lost answers on the other.
TAKEOVER = 5
#: Seconds after which one whose haproxy ended has given the VIP away: it looks every second, and
#: believes it at the second look.
CHECKED = 5
#: Seconds that Salt takes to come to a balancer's first state.
RUN = 15
PAIR, VIP = ("lb1", "lb2"), "10.20.0.40"
ADDRESSES = {"ctl1": "10.20.0.60", "ctl2": "10.20.0.70"}
#: Asks each URL of its arguments; fails where one does not answer.
ASK = """
import sys, urllib.request
for url in sys.argv[1:]:
    urllib.request.urlopen(url, timeout=2).close()
"""
#: Says a command to haproxy's statistics socket.
SAY = """
import socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect("/run/haproxy/admin.sock")
    link.sendall(sys.argv[1].encode() + b"\\n")
    print(b"".join(iter(lambda: link.recv(65536), b"")).decode())
"""
ROW = "| {:<42} | {:>8} | {:>6} | {:>5} | {:>7} | {:>5} |".format
table = []


@pytest.fixture(scope="module", autouse=True)
def site():
    """The converged fleet; after all tests, what they have seen."""
    lab("up")
    assert apply().failed() == []
    yield
    print("", ROW("fault", "requests", "failed", "later", "longest", "well"), *table, sep="\n")


class Load:
    """What the clients saw, and whether the site is well."""

    def __init__(self, *arguments):
        self.program = subprocess.Popen(
            [LAB, "exec", "infra", "--", *LOAD, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.program.stdout.readline() == "ready\n"
        time.sleep(QUIET)
        self.seen = None

    def stop(self):
        """End the load; its report."""
        if self.seen is None:
            said, _ = self.program.communicate(timeout=PATIENCE)
            self.seen = json.loads(said)
        return self.seen

    @property
    def failures(self):
        return self.stop()["failures"]


@contextlib.contextmanager
def load(*arguments):
    """Traffic through the VIP for as long as the block lasts; arguments are those of load.py."""
    traffic = Load(*arguments)
    try:
        yield traffic
        traffic.stop()
    finally:
        traffic.program.kill()
        traffic.program.wait()


def figures(name, traffic, begin, broken, well):
    """
    A row of the table; the failures of requests that came after the fault.

    begin, broken : when the fault began, and when it had happened
    well : when all was well again
    """
    seen = traffic.stop()
    late = [one for one in seen["failures"] if not one[0] <= broken or not one[1] >= begin]
    row = ROW(
        name,
        seen["requests"],
        len(seen["failures"]),
        len(late),
        f"{seen['longest wait']:.1f} s",
        f"{well - begin:.0f} s",
    )
    table.append(row)
    print("\n" + row, *seen["failures"][:5], sep="\n")
    return late


def well(since, controllers=CONTROLLERS, balancer="lb1"):
    """
    Whether each daemon has reported since then, each API answers, and the balancer knows.

    Nova's daemons report every ten seconds, compute nodes through RabbitMQ and a conductor.
    """
    hosts = "','".join((*controllers, "cmp1", "cmp2"))
    moment = datetime.fromtimestamp(since, timezone.utc).strftime("%F %T")
    silent = sql(
        "SELECT COUNT(*) FROM nova.services WHERE deleted = 0 AND topic IS NOT NULL AND "
        "`binary` IN ('nova-conductor', 'nova-scheduler', 'nova-compute') AND "
        f"host IN ('{hosts}') AND (last_seen_up IS NULL OR last_seen_up <= '{moment}')"
    )
    urls = [f"http://{ADDRESSES[host]}:{port}/" for host in controllers for port in (8774, 8778)]
    urls.append("http://openstack-vip.example.org:5000/v3")
    asked = lab("exec", "infra", "--", "python3", "-c", ASK, *urls, check=False)
    return silent.strip() == "0" and asked.returncode == 0 and not down(controllers, balancer)


def down(controllers=CONTROLLERS, balancer="lb1"):
    """Our servers that a balancer does not send anybody to, with their state."""
    said = on(balancer, "python3", "-c", SAY, "show stat").splitlines()
    rows = [line.split(",") for line in said]
    return {
        f"{row[0]}/{row[1]}": row[17]
        for row in rows
        if row[0].startswith("openstack_nova") and row[1] in controllers and row[17] != "UP"
    }


def wait_well(since, **kwargs):
    """Wait until all is well; when that was."""
    while not well(since, **kwargs):
        assert time.time() - since < PATIENCE, down()
        time.sleep(0.3)
    return time.time()


def guest_comes_and_goes():
    found = demo.guest(Lab(os.environ.get("NOVA_LAB", "nova")))
    assert found["guest"]["status"] == "ACTIVE"
    on("infra", "openstack", "server", "delete", "--wait", "demo")


AWAY = "systemctl stop {0}; sleep 60; systemctl start {0}"
#: What is broken → where, by which command that ends when it is whole again, and how many seconds
#: later a request may still begin that fails; None: none may fail at all.
FAULTS = {
    "a controller's API killed": ("ctl1", "systemctl kill --signal=KILL nova-api", 0),
    "a conductor killed": ("ctl1", "systemctl kill --signal=KILL nova-conductor", None),
    "a scheduler killed": ("ctl1", "systemctl kill --signal=KILL nova-scheduler", None),
    "memcached away for a minute": ("infra", AWAY.format("memcached"), None),
    "Keystone away for a minute": ("infra", AWAY.format("keystone"), None),
    "RabbitMQ restarted": ("infra", "systemctl restart rabbitmq-server", None),
    # The balancer asks five times, each 3 s, before it sends anybody to a database that was down.
    "MariaDB restarted": ("infra", "systemctl restart mariadb", 15),
}


def is_broken_and_well_again(name, host, command, grace):
    """Break it under load; only what its grace allows fails, and guests can be made afterwards."""
    with load() as traffic:
        begin = time.time()
        sh(host, command)
        broken = time.time()
        ended = wait_well(broken)
        time.sleep(QUIET)
    late = figures(name, traffic, begin, broken + (grace or 0), ended)
    assert (late if grace is not None else traffic.failures) == []
    guest_comes_and_goes()


@pytest.mark.parametrize("name", FAULTS)
def test_what_breaks_is_well_again_without_a_person(name):
    is_broken_and_well_again(name, *FAULTS[name])


def test_the_same_where_all_controllers_answer():
    """The fleet's other controllers are there in case; here each gets its share."""
    assert apply(target="lb1", nova={"haproxy": {"backup": False}}).failed() == []
    try:
        (name, fault), *_ = FAULTS.items()
        is_broken_and_well_again(f"{name}, all active", *fault)
    finally:
        assert apply(target="lb1").failed() == []


def test_a_controller_that_loses_its_power_fails_only_what_it_was_answering():
    with load() as traffic:
        begin = time.time()
        lab("off", "ctl1")
        broken = time.time()
        ended = wait_well(broken, controllers=["ctl2"])
        guest_comes_and_goes()
    assert figures("a controller's power lost", traffic, begin, broken, ended) == []
    with load() as traffic:
        begin = time.time()
        lab("up", "ctl1")
        ended = wait_well(time.time())
        time.sleep(QUIET)
    figures("that controller's power back", traffic, begin, begin, ended)
    assert traffic.failures == []
    guest_comes_and_goes()


# ---- the formula itself as the fault: a changed configuration under load ------------------------


@pytest.fixture
def option():
    """A function that gives an option of both APIs another value in the pillar of all."""
    site = Lab(os.environ.get("NOVA_LAB", "nova"))

    def change(number):
        nova = {
            "config": {"api": {"max_limit": number}},
            "placement_config": {"placement": {"allocation_conflict_retry_count": number}},
        }
        (site.directory / "pillar/system.sls").write_text(json.dumps({"nova": nova}))

    yield change
    refresh_pillar(site)
    assert apply().failed() == []


def options():
    """The values of that option on all controllers, for both APIs."""
    files = "/etc/nova/nova.conf /etc/placement/placement.conf"
    wanted = "^(max_limit|allocation_conflict_retry_count) = "
    return {
        line.split()[-1]
        for host in CONTROLLERS
        for line in sh(host, f"grep -hE '{wanted}' {files}").splitlines()
    }


def rolling():
    """Run the rollout; what its steps said, by their ids."""
    done = on("infra", "salt-run", "--out=json", "state.orchestrate", "nova.orchestrate.rolling")
    (states,) = json.loads(done[done.index("{") :])["data"].values()
    return {state["__id__"]: state for state in states.values()}


def failed(steps):
    return [(name, step["comment"]) for name, step in steps.items() if step["result"] is False]


def test_a_rollout_of_a_changed_option_fails_no_request(option):
    option(998)
    with load() as traffic:
        begin = time.time()
        assert failed(rolling()) == []
        ended = wait_well(time.time())
    late = figures("orchestrate.rolling of a changed option", traffic, begin, begin, ended)
    assert options() == {"998"}
    assert late == [] and traffic.failures == []


def instants(failures):
    """When requests failed that others did not shortly before."""
    found = []
    for begin, *_ in sorted(failures):
        if not found or begin - found[-1] > STOPPING:
            found.append(begin)
    return found


def test_a_changed_option_fails_only_what_came_while_an_api_stopped(option):
    option(997)
    with load() as traffic:
        begin = time.time()
        assert apply().failed() == []
        applied = time.time()
        ended = wait_well(applied)
        time.sleep(QUIET)
    late = figures("state.apply of a changed option", traffic, begin, applied, ended)
    assert options() == {"997"}
    assert late == [] and len(instants(traffic.failures)) <= RESTARTS


# ---- the balancer: last, for it makes another fleet ----------------------------------------------


def balancer_with_vip():
    """The one of the pair that has the VIP; keepalived looks twice before it takes it."""
    until = time.monotonic() + 3 * CHECKED
    while True:
        having = [host for host in PAIR if f" {VIP}/" in on(host, "ip", "-4", "-o", "address")]
        if len(having) == 1:
            return having[0]
        assert time.monotonic() < until, having
        time.sleep(0.5)


def on_balancers(target, sls="nova"):
    """Run a state of the formula on balancers, which must all answer and not fail."""
    hosts = target.split(",")
    command = ["salt", "--out=json", "-t", "900", "-L", target, "state.apply", sls]
    run = Run(on("infra", *command))
    assert set(run.returns) == set(hosts)
    assert run.failed() == []
    return run


@pytest.fixture(scope="module")
def pair():
    """The site with a second balancer, keepalived between the two; its one balancer afterwards."""
    lab("snapshot", "one-balancer")
    lab("up", "lb2")
    try:
        # A site with one has the VIP in that host's own network configuration.
        sh("lb1", f"sed -i '/^{VIP}/d' /etc/lab-addresses; ip address del {VIP}/24 dev host0")
        for _ in range(2):
            run = on_balancers(",".join(PAIR))
        assert run.changed() == []
        yield
    finally:
        lab("restore", "one-balancer")


def test_a_balancer_that_loses_its_power_is_followed_within_seconds(pair):
    first = balancer_with_vip()
    (second,) = set(PAIR) - {first}
    with load() as traffic:
        begin = time.time()
        lab("off", first)
        ended = wait_well(time.time(), balancer=second)
        guest_comes_and_goes()
    late = figures("the active balancer's power lost", traffic, begin, begin + TAKEOVER, ended)
    assert late == []
    with load() as traffic:
        begin = time.time()
        lab("up", first)
        ended = wait_well(time.time(), balancer=second)
        time.sleep(QUIET)
    figures("that balancer's power back", traffic, begin, begin, ended)
    assert traffic.failures == []
    assert balancer_with_vip() == second
    guest_comes_and_goes()


def test_a_balancer_whose_haproxy_ends_gives_the_vip_away(pair):
    first = balancer_with_vip()
    (second,) = set(PAIR) - {first}
    with load() as traffic:
        begin = time.time()
        on(first, "systemctl", "stop", "haproxy")
        ended = wait_well(time.time(), balancer=second)
        time.sleep(QUIET)
    late = figures("the active balancer's haproxy stopped", traffic, begin, begin + CHECKED, ended)
    assert late == []
    assert balancer_with_vip() == second
    on(first, "systemctl", "start", "haproxy")
    time.sleep(CHECKED)
    assert balancer_with_vip() == second


def test_a_balancer_that_is_cleaned_leaves_the_vip_to_the_other(pair):
    first = balancer_with_vip()
    (second,) = set(PAIR) - {first}
    with load() as traffic:
        begin = time.time()
        on_balancers(first, "nova.clean")
        ended = wait_well(time.time(), balancer=second)
        time.sleep(QUIET)
    late = figures("nova.clean on the active balancer", traffic, begin, begin + RUN, ended)
    assert late == []
    assert balancer_with_vip() == second
    assert on_balancers(first, "nova.clean").changed() == []
    units = "systemctl is-active haproxy keepalived; systemctl is-enabled keepalived"
    assert sh(first, f"set +e; {units}; :").split() == ["active", "inactive", "disabled"]
    assert "keepalived.conf" not in sh(first, "ls -A /etc/keepalived").split()
    for host, count in ((first, 0), (second, 1)):
        listens = sh(host, "grep -c 'openstack_nova_port_8774$' /etc/haproxy/haproxy.cfg || :")
        assert int(listens) == count
    for _ in range(2):
        run = on_balancers(",".join(PAIR))
    assert run.changed() == []
    assert balancer_with_vip() == second
