"""
Many runs at the same moment, and a run while another hangs: no work is done twice, nobody waits for
ever, and who waits says what for.
"""

import contextlib
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import CONTROLLERS, LAB, apply, nothing_is_left, on, one_of_everything, sh, sql

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("fleet")]

RUNS = 25
LOCK = "nova:shanghai"
#: Runs at the same moment, and the codes with which they end.
AT_ONCE = f"""
for number in $(seq {RUNS}); do
    (
        salt-call --log-level=quiet --retcode-passthrough state.apply nova concurrent=True \\
            > /tmp/at-once.$number 2>&1
        code=$?
        [ $code = 0 ] || grep -B 6 -A 8 'Result: False' /tmp/at-once.$number >&2
        echo $code
    ) &
done
wait
"""


def drift():
    """Endpoints and a host mapping are gone: what one of a site makes for all."""
    endpoints = json.loads(on("infra", "openstack", "endpoint", "list", "-f", "json"))
    ours = [e["ID"] for e in endpoints if e["Service Type"] in ("compute", "placement")]
    on("infra", "openstack", "endpoint", "delete", *ours)
    sql("DELETE FROM nova_api.host_mappings WHERE host = 'cmp1'")


@contextlib.contextmanager
def held():
    """Somebody holds the site's lock, and does not come to an end."""
    say = f"SELECT GET_LOCK('{LOCK}', 10); SELECT SLEEP(900)"
    holder = subprocess.Popen([LAB, "exec", "infra", "--", "mysql", "-e", say])
    try:
        while not (number := sql(f"SELECT IS_USED_LOCK('{LOCK}')").strip()).isdigit():
            time.sleep(0.2)
        yield
    finally:
        sql(f"KILL {number}")
        holder.wait()


def test_fifty_runs_at_once_do_each_thing_once():
    drift()
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda host: on(host, "bash", "-c", AT_ONCE), CONTROLLERS))
    print(f"\n{2 * RUNS} runs at once: {time.monotonic() - began:.0f} s")
    assert [text.split() for text in said] == [["0"] * RUNS] * 2
    one_of_everything()
    nothing_is_left()
    assert apply().changed() == []


def test_a_run_that_meets_a_hanging_one_says_so_in_time_and_the_next_converges():
    sql("DELETE FROM nova_api.host_mappings WHERE host = 'cmp1'")
    with held():
        began = time.monotonic()
        run = apply(target="ctl1", nova={"timeouts": {"lock": 20}})
        print(f"\nheld off: {time.monotonic() - began:.0f} s")
        said = " ".join(comment for _, _, comment in run.failed())
        assert f"The lock {LOCK} was not free within 20 s" in said, said
        # It had no work for the lock: it does not wait at all.
        assert apply(target="cmp1").failed() == []
    run = apply(target="ctl1")
    assert run.failed() == [] and run.changed() != []
    one_of_everything()
    assert (sh("ctl1", "pgrep -af '[n]ova-manage' || true"), apply().changed()) == ("", [])
