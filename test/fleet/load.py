"""Traffic for a fleet that is being broken: authenticated requests through the VIP.

Runs in `infra`, with Salt's Python, until its input ends; then prints one JSON object:
requests, failures (when each began and ended, and why), the longest wait for an answer and the
longest time without one. Each request has a connection of its own, as uwsgi closes them anyway.
All have one token, or a new one every so many seconds, the argument.
"""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import sys
import threading
import time
from urllib.parse import urlsplit

import openstack
from keystoneauth1.exceptions import ClientException

CLIENTS = 2  # of each API
PAUSE = 0.2
PATIENCE = 60  # seconds; clients of OpenStack themselves wait for as long as it takes
PATHS = {"compute": "/servers?limit=1", "placement": "/resource_providers"}


def ask(url: str, token: str, trust: ssl.SSLContext) -> str:
    """Ask once; return what went wrong, empty if nothing did."""
    parts = urlsplit(url)
    where = (parts.hostname, parts.port)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(*where, timeout=PATIENCE, context=trust)
    else:
        connection = http.client.HTTPConnection(*where, timeout=PATIENCE)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers={"X-Auth-Token": token})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"status {answer.status}"


def client(name: str, url: str, cloud, token: list, ended: threading.Event, seen: list) -> None:
    """Ask again and again, and note when each request began and ended, and how."""
    verify, _ = cloud.config.get_requests_verify_args()
    trust = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    while not ended.is_set():
        began = time.time()
        reason = ask(url, token[0], trust)
        seen.append((began, time.time(), reason and f"{name}: {reason}"))
        ended.wait(PAUSE)


def renew(token: list, cloud, seconds: float, ended: threading.Event, seen: list) -> None:
    """Put a new token in the place of the last one, again and again; no token is a failure, too."""
    while not ended.wait(seconds):
        began = time.time()
        try:
            cloud.session.invalidate()
            token[0] = cloud.session.get_token()
        except ClientException as error:
            seen.append((began, time.time(), f"token: {type(error).__name__}: {error}"))


def report(seen: list) -> dict:
    """Return the figures of what was seen."""
    answered = sorted(end for _, end, reason in seen if not reason)
    return {
        "requests": len(seen),
        "failures": [one for one in seen if one[2]],
        "longest wait": max(end - began for began, end, _ in seen),
        "longest gap": max((b - a for a, b in itertools.pairwise(answered)), default=None),
    }


def main() -> None:
    cloud = openstack.connect(cloud="lab")
    seen: list = []
    token = [cloud.auth_token]
    ended = threading.Event()
    clients = [
        threading.Thread(target=client, args=(name, cloud.session.get_endpoint(service_type=name)
                                              + path, cloud, token, ended, seen))
        for name, path in PATHS.items() for _ in range(CLIENTS)]
    for seconds in sys.argv[1:]:
        given = (token, cloud, float(seconds), ended, seen)
        clients.append(threading.Thread(target=renew, args=given))
    for thread in clients:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    ended.set()
    for thread in clients:
        thread.join()
    print(json.dumps(report(seen)), flush=True)


if __name__ == "__main__":
    main()
