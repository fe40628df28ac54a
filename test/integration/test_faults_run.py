"""A run that is killed, loses its host's power or its database: the next one makes the same fleet.

NOVA_FAULTS_SEED chooses where; without it each session takes another one, and prints it.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import (
    CONTROLLERS,
    LAB,
    MINIONS,
    ROOT,
    Run,
    apply,
    lab,
    log_all,
    nothing_is_left,
    on,
    one_of_everything,
    restore_packages,
    sh,
)
from test_faults_concurrent import spoil

sys.path.insert(0, str(ROOT / "test"))
from fleet import hosts, network  # noqa: E402
from fleet.lab import Lab  # noqa: E402

#: Points that all rounds together reach at the least.
POINTS = 25
SEED = int(os.environ.get("NOVA_FAULTS_SEED") or time.time_ns() % 1_000_000)
SIGKILL = 9
#: In CI the first round is the sample; test/run faults makes all.
ROUNDS = [pytest.param(n, marks=[pytest.mark.long] if n else []) for n in range(6)]
INSTALLS = (6,)
SERVING = (7, 8)
ALL = len(ROUNDS) + len(INSTALLS) + len(SERVING)
#: Rounds that go through the phases, in their order.
PHASED = (*range(1, len(ROUNDS)), *SERVING)
#: Rounds whose controllers lose their database, not their job.
DATABASE_GONE = (3, 5)
#: Seconds that installing packages takes on a host.
INSTALL = 90
#: Rounds, hosts and phases in which a run was broken.
hit_at = set()


@pytest.fixture(scope="module")
def states():
    """What a run is made of: minion → the states' SLS, function and name, in their order."""
    lab("up")
    command = ["salt", "--out=json", "--static", "*", "state.show_low_sls", "nova"]
    low = {}
    for minion, chunks in json.loads(on("infra", *command)).items():
        chunks.sort(key=lambda chunk: chunk["order"])
        low[minion] = [
            (chunk["__sls__"], f"{chunk['state']}.{chunk['fun']}", chunk["name"])
            for chunk in chunks
            if chunk["state"] != "test"
        ]
    assert set(low) == set(MINIONS)
    print(f"\nNOVA_FAULTS_SEED={SEED}")
    return low


def points(states, number):
    """Where a round's runs are hit: (host, what happens, SLS, function, name, seconds later)."""
    rng = random.Random(SEED * 100 + number)
    if number == 0:
        victims = [*CONTROLLERS, rng.choice(["lb1", "cmp1", "cmp2"])]
        chosen = {host: rng.choice(states[host]) for host in victims}
    else:
        # Phase by phase; the controllers share theirs, two a round.
        chosen = {}
        for turn, host in enumerate((*CONTROLLERS, "lb1", rng.choice(["cmp1", "cmp2"]))):
            phases = sorted({sls for sls, *_ in states[host] if not sls.endswith("package")})
            random.Random(SEED).shuffle(phases)
            place = PHASED.index(number)
            place = 2 * place + turn if host in CONTROLLERS else place
            phase = phases[place % len(phases)]
            chosen[host] = rng.choice([state for state in states[host] if state[0] == phase])
    found = []
    for host, state in chosen.items():
        what = rng.choice(["job", "job", "power"])
        if number in DATABASE_GONE and host == "ctl1":
            what = "database"
        # Most states take an instant, some take seconds.
        found.append((host, what, *state, round(4 * rng.random() ** 3, 3)))
    return found


def run_in_background():
    """A run of the formula on all minions, as an operator starts it."""
    # What one host waits for may never come: another is broken.
    pillar = {"nova": {"timeouts": {"api": 120, "discovery": 120, "lock": 120}}}
    command = ["salt", "--out=json", "-t", "20", "*", "state.apply", "nova"]
    command.append(f"pillar={json.dumps(pillar)}")
    return subprocess.Popen(
        [LAB, "exec", "infra", "--", *command], stdout=subprocess.PIPE, text=True
    )


def cut_power(host):
    """The network first: a host that lost its power says no more."""
    place = Lab(os.environ.get("NOVA_LAB", "nova")).place(host)
    network.unplug(place.lab, host)
    hosts.kill([place])


def kill_database():
    sh("infra", "systemctl mask --runtime --quiet mariadb; systemctl kill --signal=KILL mariadb")
    time.sleep(20)
    sh("infra", "systemctl unmask --runtime --quiet mariadb; systemctl start mariadb")


def hit(point, watcher):
    """Wait until a run is at a point, and let happen what shall; what it was at."""
    host, what, *_ = point
    answer = json.loads(watcher.stdout.readline() or '{"at": null}')
    if answer["at"] and what == "power":
        cut_power(host)
    elif answer["at"] and what == "database":
        kill_database()
    return answer["at"]


@contextlib.contextmanager
def watching(todo):
    """A watcher on each host, ready."""
    watchers = []
    for host, what, _, function, name, delay in todo:
        number = str(SIGKILL if what == "job" else 0)
        watch = "/srv/formula/test/integration/watch.py"
        command = ["/opt/saltstack/bin/python", "-B", watch, function, name, str(delay), number]
        watchers.append(
            subprocess.Popen(
                [LAB, "exec", host, "--", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    try:
        for watcher in watchers:
            assert watcher.stdout.readline() == "watching\n"
        yield watchers
    finally:
        for watcher in watchers:
            watcher.stdin.close()
            watcher.wait()


def broken_run(todo):
    """Run the formula and break it at points; what each host was at, and the run's returns."""
    with watching(todo) as watchers, ThreadPoolExecutor() as pool:
        run = run_in_background()
        hits = [pool.submit(hit, *pair) for pair in zip(todo, watchers, strict=True)]
        text, _ = run.communicate(timeout=1500)
        for watcher in watchers:
            with contextlib.suppress(BrokenPipeError):
                watcher.stdin.close()
        return [each.result() for each in hits], text


def said_well(text):
    """Each failure of a run that went on is one sentence."""
    for minion, ret in Run(text).returns.items():
        for state in ret.values() if isinstance(ret, dict) else ():
            if state["result"] is False:
                comment = state["comment"]
                assert "Traceback" not in comment, (minion, comment)
                assert "\n" not in comment or "requisite" in comment, (minion, comment)


def is_broken_and_mended(number, todo):
    """Break a run at points; it fails in sentences, and the next one makes the same fleet."""
    began = time.monotonic()
    reached, text = broken_run(todo)
    said_well(text)
    broken = time.monotonic() - began
    lab("up")
    began = time.monotonic()
    run = apply()
    seconds = time.monotonic() - began
    assert run.failed() == []
    one_of_everything()
    nothing_is_left()
    again = apply()
    assert (again.failed(), again.changed()) == ([], [])
    for (host, what, sls, *_), at in zip(todo, reached, strict=True):
        print(f"round {number}: {host} | {what} | {sls} | {at or 'was not reached'}")
    print(f"round {number}: run broken after {broken:.0f} s, the next converged in {seconds:.0f} s")
    assert any(reached)
    hit_at.update(
        (number, host, sls) for (host, _, sls, *_), at in zip(todo, reached, strict=True) if at
    )


def test_the_rounds_aim_at_each_phase(states):
    """But installs, which have a round of their own."""
    aimed = {host: set() for host in states}
    for number in PHASED:
        for host, _, sls, *_ in points(states, number):
            aimed[host].add(sls)
    phases = {sls for sls, *_ in states["ctl1"] if not sls.endswith("package")}
    assert aimed["ctl1"] | aimed["ctl2"] == phases


@pytest.mark.parametrize("number", ROUNDS)
def test_a_run_that_was_broken_is_followed_by_one_that_converges(states, number):
    restore_packages()
    todo = points(states, number)
    is_broken_and_mended(number, todo)


@pytest.mark.long
@pytest.mark.parametrize("number", INSTALLS)
def test_an_install_that_was_broken_is_finished_by_the_next_run(states, number):
    lab("restore", "bare")
    rng = random.Random(SEED * 100 + number)
    todo = []
    for host in MINIONS:
        sls, function, name = next(s for s in states[host] if s[0].endswith("package"))
        what = rng.choice(["job", "power"])
        log_all(host)
        todo.append((host, what, sls, function, name, round(INSTALL * rng.random(), 1)))
    lab("up")
    is_broken_and_mended(number, todo)


@pytest.mark.long
@pytest.mark.parametrize("number", SERVING)
def test_a_run_on_a_site_that_serves_was_broken(states, fleet, number):
    """A mapping, an endpoint and a cell's URL are to be mended there, and daemons to restart."""
    for host in MINIONS:
        log_all(host)
    lab("up")
    spoil()
    todo = points(states, number)
    is_broken_and_mended(number, todo)


@pytest.mark.long
def test_enough_points_were_reached():
    """Of all rounds; of a selection there is nothing to hold."""
    rounds = {number for number, *_ in hit_at}
    print(
        f"\n{len(hit_at)} points in {len({sls for *_, sls in hit_at})} phases were reached in "
        f"{len(rounds)} rounds (seed {SEED})"
    )
    if len(rounds) < ALL:
        pytest.skip("not all rounds ran")
    assert len(hit_at) >= POINTS
