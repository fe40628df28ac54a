"""The lab's network: a namespace of its own with a bridge in it and no way out.

Every lab therefore has the same addresses, and two labs do not meet.
"""

from __future__ import annotations

import json
from pathlib import Path

from . import inventory, shell

BRIDGE = "lab"


def namespace(lab: str) -> str:
    """Return the name of a lab's network namespace."""
    return f"novalab-{lab}"


def path(lab: str) -> Path:
    """Return where a lab's network namespace is pinned."""
    return Path("/run/netns") / namespace(lab)


def enter(lab: str) -> list[str]:
    """Return the command prefix that runs a program on the lab's bridge."""
    return ["nsenter", f"--net={path(lab)}"]


def up(lab: str) -> None:
    """Make the namespace and its bridge, or what is missing of them."""
    if namespace(lab) not in _namespaces():
        path(lab).unlink(missing_ok=True)  # a pin that outlived its namespace
        shell.run("ip", "netns", "add", namespace(lab))
    if BRIDGE not in _links(lab):
        _ip(lab, "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
    _ip(lab, "address", "replace", f"{inventory.GATEWAY}/{inventory.PREFIX}", "dev", BRIDGE)
    _ip(lab, "link", "set", "lo", "up")
    _ip(lab, "link", "set", BRIDGE, "up")
    # With forwarding on, the bridge says "unreachable" at once to who would go out.
    shell.run(*enter(lab), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


def unplug(lab: str, host: str) -> None:
    """Remove a host's link to the bridge; the kernel takes its time after a host was killed."""
    if namespace(lab) in _namespaces() and f"vb-{host}" in _links(lab):
        _ip(lab, "link", "delete", f"vb-{host}")


def down(lab: str) -> None:
    """Remove the namespace, and with it the bridge."""
    if namespace(lab) in _namespaces():
        shell.run("ip", "netns", "delete", namespace(lab))


def _ip(lab: str, *arguments: str) -> None:
    shell.run("ip", "-netns", namespace(lab), *arguments)


def _links(lab: str) -> set[str]:
    links = json.loads(shell.run("ip", "-json", "-netns", namespace(lab), "link", "show"))
    return {link["ifname"] for link in links}


def _namespaces() -> set[str]:
    listed = json.loads(shell.run("ip", "-json", "netns", "list").strip() or "[]")
    return {entry["name"] for entry in listed}
