"""
What compute nodes tell each other for migration over SSH: keys, and the names they are known by.

Each node publishes a record through the Salt mine. What a record says is believed only as far as it
must be: a name or address that two minions claim is a fault, and nothing in a record can become
anything but a key, a name or an address.
"""

import fnmatch
import glob
import ipaddress
import re

import salt.utils.files
from salt.exceptions import CommandExecutionError

#: The mine's name for the records.
MINE = "nova_migration"
HOST_KEYS = "/etc/ssh/ssh_host_*_key.pub"

_KEY = re.compile(
    r"(ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]{40,1000}={0,2}"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}|(?=[0-9A-Fa-f]*:)[0-9A-Fa-f:.]{2,45}")
_MINION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


def record(key: str, names: list[str], addresses: list[str]) -> dict:
    """
    What this node tells its peers: its public key and host keys, what it is called, where it is.

    key : str
        Path of the private key; the public one lies beside it, with ``.pub``.
    names : list
        Names and addresses under which Nova reaches this node.
    addresses : list
        Those that it connects from.

    Raises CommandExecutionError where a key is missing.

    CLI Example:

    .. code-block:: bash

        salt cmp1 nova_migration.record /var/lib/nova/.ssh/id_ed25519 '[cmp1]' '[10.20.0.80]'
    """
    hosts = sorted(_public(path) for path in glob.glob(HOST_KEYS))
    found = {"key": _public(f"{key}.pub"), "host_keys": [it for it in hosts if it]}
    if not found["host_keys"]:
        raise CommandExecutionError(f"This host has no {HOST_KEYS}: start its SSH server once.")
    if not found["key"]:
        raise CommandExecutionError(f"{key}.pub holds no public key: remove it and {key}.")
    return {**found, "names": list(names), "addresses": list(addresses)}


def _public(path: str) -> str | None:
    """Type and key of a public key file, without its comment."""
    try:
        with salt.utils.files.fopen(path) as stream:
            found = _KEY.match(stream.read())
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CommandExecutionError(f"Cannot read {path}: {exc.strerror}.") from exc
    return found and found[0]


def published() -> dict | None:
    """
    This minion's record in the mine; None if there is none.

    CLI Example:

    .. code-block:: bash

        salt cmp1 nova_migration.published
    """
    return __salt__["mine.get"](__opts__["id"], MINE).get(__opts__["id"])


def peers(minions: list[str], keys: dict | None = None) -> dict[str, dict]:
    """
    The records of this minion's peers, by minion id.

    minions : list
        Ids or globs of those that are trusted.
    keys : dict
        Records, by minion id, that go before the mine's.

    Raises CommandExecutionError where a record holds what it must not, or two claim one name.

    CLI Example:

    .. code-block:: bash

        salt cmp1 nova_migration.peers '[cmp*]'
    """
    found = {
        minion: it
        for minion, it in __salt__["mine.get"]("*", MINE).items()
        if any(fnmatch.fnmatchcase(minion, pattern) for pattern in minions)
    }
    found.update(keys or {})
    claimed = {}
    for minion, it in sorted(found.items()):
        for name in _checked(minion, it):
            if claimed.setdefault(name, minion) != minion:
                raise CommandExecutionError(
                    f"{claimed[name]} and {minion} both say that they are {name}: correct "
                    f"nova:my_ip there, or `salt MINION mine.delete {MINE}` for one that is gone."
                )
    found.pop(__opts__["id"], None)
    return found


def _checked(minion: str, it: dict) -> set[str]:
    """The names and addresses of a record that holds nothing else than it should."""
    try:
        keys, names = [it["key"], *it["host_keys"]], [*it["names"], *it["addresses"]]
        good = all(map(_KEY.fullmatch, keys)) and all(map(_NAME.fullmatch, names))
        for address in it["addresses"]:
            ipaddress.ip_address(address)
    except (KeyError, TypeError, ValueError):
        good = False
    if not good or not it["host_keys"] or not it["addresses"] or not _MINION.fullmatch(minion):
        raise CommandExecutionError(
            f"What {minion!r} has published for migration is no record of keys, names and "
            "addresses: look at that host."
        )
    return {name.lower() for name in names}
