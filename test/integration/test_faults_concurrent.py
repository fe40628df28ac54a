"""Runs at the same time: one does what is due, the others wait, and say for what they gave up."""

import contextlib
import json
import subprocess
import time

import pytest
from conftest import CONTROLLERS, LAB, Run, apply, nothing_is_left, on, one_of_everything, sh, sql

pytestmark = pytest.mark.usefixtures("fleet")

RUNS = 25  # on each of two controllers
UNITS = "nova-conductor nova-scheduler nova-novncproxy nova-api"
#: Seconds that a run takes beside what it waits for.
RUN = 60
#: Each run in a file of its own, all at once; ends with the last one.
AT_ONCE = """
cd $(mktemp -d)
for n in $(seq {runs}); do
    salt --out=json --static -t 1500 -L {hosts} state.apply nova concurrent=True > $n 2>&1 &
done
wait
cat *
"""
#: Stops the first nova-manage that comes, and says so.
STOP = """
until pid=$(pgrep -n -f '[p]ython3 /usr/bin/nova-manage'); do sleep 0.01; done
kill -STOP $pid
echo $pid
"""


def spoil():
    """Something to do once in the site, and something on each controller."""
    sql("DELETE FROM nova_api.host_mappings WHERE host = 'cmp2'")
    sql(
        "UPDATE nova_api.cell_mappings SET database_connection = 'mysql+pymysql://a:b@c/d' "
        "WHERE name = 'cell1'"
    )
    listed = ("endpoint", "list", "--service", "placement", "--interface", "admin", "-f", "json")
    (found,) = json.loads(on("infra", "openstack", *listed))
    on("infra", "openstack", "endpoint", "delete", found["ID"])
    for host in CONTROLLERS:
        sh(host, "sed -i 's/^region_name = .*/region_name = Elsewhere/' /etc/nova/nova.conf")


def restarts():
    """When each daemon of each controller was started."""
    show = f"systemctl show --value --property=ActiveEnterTimestampMonotonic {UNITS}"
    return {host: sh(host, show).split() for host in CONTROLLERS}


def changes(text):
    """How many runs returned, and ``{(minion, state id): runs that changed something there}``."""
    decoder, found, position, runs = json.JSONDecoder(), {}, text.find("{"), 0
    while position != -1:
        returns, position = decoder.raw_decode(text, position)
        run = Run(json.dumps(returns))
        assert run.failed() == []
        runs += len(run.returns)
        for pair in run.changed():
            found[pair] = found.get(pair, 0) + 1
        position = text.find("{", position)
    return runs, found


@pytest.mark.long
def test_fifty_runs_at_once_do_what_is_due_once():
    spoil()
    before = restarts()
    began = time.monotonic()
    script = AT_ONCE.format(runs=RUNS, hosts=",".join(CONTROLLERS))
    runs, found = changes(sh("infra", script))
    print(f"\n{runs} runs in {time.monotonic() - began:.0f} s: {found}")
    assert runs == RUNS * len(CONTROLLERS)
    once = [state for (_, state), n in found.items() for _ in range(n)]
    for state in ("schema-cell1", "identity-endpoint-placement-admin", "discovery-hosts"):
        assert once.count(f"nova-controller-{state}") == 1, state
    for host in CONTROLLERS:
        for daemon in ("conductor", "scheduler", "novncproxy", "api"):
            assert found[host, f"nova-controller-service-{daemon}"] == 1, daemon
        assert (host, "nova-controller-service-started") not in found
        assert all(a != b for a, b in zip(before[host], restarts()[host], strict=True))
    one_of_everything()
    nothing_is_left()
    again = apply()
    assert (again.failed(), again.changed()) == ([], [])


@contextlib.contextmanager
def started(host, *command):
    """A command on a host, which ends with the block; its input and output are pipes."""
    running = subprocess.Popen(
        [LAB, "exec", host, "--", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        with contextlib.suppress(BrokenPipeError):
            running.stdin.close()
        running.wait()


def gives_up(host, seconds):
    """A run there says what it waits for, and ends when it has waited."""
    began = time.monotonic()
    run = apply(target=host, nova={"timeouts": {"lock": seconds}})
    took = time.monotonic() - began
    said = {comment for _, _, comment in run.failed() if "requisite" not in comment}
    print(f"\n{host} gave up after {took:.0f} s: {said}")
    assert said == {
        f"The lock nova:shanghai was not free within {seconds} s: another controller of the site "
        "holds it. See what it is doing, then run the state again."
    }
    assert seconds <= took < seconds * 2 + RUN
    return run


def converges():
    run = apply()
    assert run.failed() == []
    one_of_everything()
    nothing_is_left()
    again = apply()
    assert (again.failed(), again.changed()) == ([], [])


def test_a_lock_that_somebody_holds_is_waited_for_and_named():
    spoil()
    with started("infra", "mysql", "-N", "-n") as holder:
        print("SELECT GET_LOCK('nova:shanghai', 0);", file=holder.stdin, flush=True)
        assert holder.stdout.readline() == "1\n"
        gives_up("ctl1", 5)
    converges()


@pytest.mark.long
@pytest.mark.parametrize("end", ["goes on", "never ends"])
def test_a_run_beside_one_that_hangs(end):
    spoil()
    salt = ("salt", "--out=json", "--static", "-t", "900", "ctl1", "state.apply", "nova")
    with started("ctl1", "sh", "-ec", STOP) as stopper, started("infra", *salt) as hanging:
        pid = stopper.stdout.readline().strip()
        began = time.monotonic()
        gives_up("ctl2", 5)
        if end == "goes on":
            on("ctl1", "kill", "-CONT", pid)
        run = Run(hanging.stdout.read())
        print(f"\nctl1 hung for {time.monotonic() - began:.0f} s: {run.failed()}")
    failed = [comment for _, _, comment in run.failed() if "requisite" not in comment]
    if end == "goes on":
        assert failed == []
    else:
        assert failed
        assert all("nova-manage was killed because it was not done within" in one for one in failed)
    converges()
