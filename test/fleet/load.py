"""Traffic for a fleet that is being broken: authenticated requests through the VIP.

Runs in `infra`, with Salt's Python, until its input ends; then prints one JSON object:
requests, how many of them each agent got, failures (when each began and ended, and why), the
longest wait for an answer and the longest time without one. Each request has a connection of its
own, as uwsgi closes them anyway. All have one token, or with --token a new one every so many
seconds. Each --agent adds a guest that asks one of Neutron's metadata agents, at its socket, as the
guest with an address of a network.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import re
import socket
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
METADATA = "/openstack/latest/meta_data.json"
PATHS = {"compute": "/servers?limit=1", "placement": "/resource_providers"}


class Agent(http.client.HTTPConnection):
    """A connection to a metadata agent, at its socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("169.254.169.254", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


def ask(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> str:
    """Ask once; return what went wrong, empty if nothing did."""
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    if answer.status == 200:
        return ""
    said = re.sub(r"<[^>]*>|\s+", " ", body.decode(errors="replace"))
    return f"status {answer.status}: {said[:200].strip()}"


def client(name: str, url: str, cloud, token: list, ended: threading.Event, seen: list) -> None:
    """Ask again and again, and note when each request began and ended, and how."""
    verify, _ = cloud.config.get_requests_verify_args()
    trust = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    parts = urlsplit(url)
    where = (parts.hostname, parts.port)
    while not ended.is_set():
        began = time.time()
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(*where, timeout=PATIENCE, context=trust)
        else:
            connection = http.client.HTTPConnection(*where, timeout=PATIENCE)
        reason = ask(connection, f"{parts.path}?{parts.query}", {"X-Auth-Token": token[0]})
        seen.append((began, time.time(), reason and f"{name}: {reason}"))
        ended.wait(PAUSE)


def guest(path: str, network: str, address: str, ended: threading.Event, seen: list,
          asked: dict[str, int]) -> None:
    """Ask for a guest's metadata again and again, as the proxy of its network does."""
    headers = {"X-Neutron-Network-ID": network, "X-Forwarded-For": address}
    while not ended.is_set():
        began = time.time()
        reason = ask(Agent(path), METADATA, headers)
        seen.append((began, time.time(), reason and f"{path}: {reason}"))
        asked[path] += 1
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


def report(seen: list, asked: dict[str, int]) -> dict:
    """Return the figures of what was seen."""
    answered = sorted(end for _, end, reason in seen if not reason)
    return {
        "requests": len(seen),
        "asked": asked,
        "failures": [one for one in seen if one[2]],
        "longest wait": max(end - began for began, end, _ in seen),
        "longest gap": max((b - a for a, b in itertools.pairwise(answered)), default=None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--token", type=float, metavar="SECONDS")
    parser.add_argument("--agent", nargs=3, action="append", default=[],
                        metavar=("SOCKET", "NETWORK", "ADDRESS"))
    given = parser.parse_args()
    cloud = openstack.connect(cloud="lab")
    seen: list = []
    token = [cloud.auth_token]
    ended = threading.Event()
    clients = [
        threading.Thread(target=client, args=(name, cloud.session.get_endpoint(service_type=name)
                                              + path, cloud, token, ended, seen))
        for name, path in PATHS.items() for _ in range(CLIENTS)]
    if given.token:
        todo = (token, cloud, given.token, ended, seen)
        clients.append(threading.Thread(target=renew, args=todo))
    asked = {path: 0 for path, *_ in given.agent}
    for agent in given.agent:
        clients.append(threading.Thread(target=guest, args=(*agent, ended, seen, asked)))
    for thread in clients:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    ended.set()
    for thread in clients:
        thread.join()
    print(json.dumps(report(seen, asked)), flush=True)


if __name__ == "__main__":
    main()
