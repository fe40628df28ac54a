"""
Run on a host: waits until the minion's job is at a state, then sends the job a signal, or says so.

Arguments: the state's function and name (as the minion logs them), seconds to wait from then on,
and a signal's number (0: none). Prints one JSON object. It reads the log from its present end on,
so it is to be started before the job, and ends with its input.
"""

import json
import os
import re
import select
import sys
import time

import msgpack

LOG = "/var/log/salt/minion"
PROC = "/var/cache/salt/minion/proc"
EXECUTING = re.compile(r"Executing state (\S+) for \[(.*)\]$")


def states(log):
    """The states that begin, as the log gets them; None where nothing is new."""
    part = ""
    while True:
        part += log.readline()
        if not part.endswith("\n"):
            yield None
            continue
        found, part = EXECUTING.search(part.rstrip()), ""
        if found:
            yield found.groups()


def job():
    """The process of the minion's state run."""
    for name in os.listdir(PROC):
        try:
            with open(os.path.join(PROC, name), "rb") as file:
                found = msgpack.unpack(file)
        except (OSError, ValueError):
            continue
        if found.get("fun", "").startswith("state.") and os.path.exists(f"/proc/{found['pid']}"):
            return found["pid"]
    return None


def main():
    function, name, delay, number = sys.argv[1:]
    with open(LOG) as log:
        log.seek(0, os.SEEK_END)
        print("watching", flush=True)
        seen, at = states(log), None
        while at != (function, name):
            at = next(seen)
            if at is None and select.select([sys.stdin], [], [], 0.01)[0]:
                print(json.dumps({"at": None}))
                return
        time.sleep(float(delay))
        pid = job()
        if pid and int(number):
            os.kill(pid, int(number))
        time.sleep(0.1)
        while later := next(seen):
            at = later
        print(json.dumps({"at": " ".join(at), "pid": pid}))


main()
