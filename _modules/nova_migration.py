"""
What compute nodes tell each other for migration over SSH: keys, and the names they are known by.

Each node publishes a record through the Salt mine. What a record says is believed only as far as it
must be: a record that claims a name or address of another host is left out, and nothing in a record
can become anything but a key, a name or an address.
"""

import fnmatch
import glob
import ipaddress
import re
from typing import Any

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


def peers(
    minions: list[str], keys: dict | None = None, taken: dict[str, str] | None = None
) -> dict[str, Any]:
    """
    The records of this minion's peers, by minion id, and in sentences those that are left out.

    minions : list
        Ids or globs of those that are trusted.
    keys : dict
        Records, by minion id, that go before the mine's.
    taken : dict
        Names and addresses that the pillar gives to a minion, with its id.

    Returns ``peers`` and ``refused``: one node's record is not to stop the others. Left out are
    records that hold what they must not, and all that claim the same name.

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
    claims: dict[str, list[str]] = {}
    owners = {name.lower(): minion for name, minion in (taken or {}).items()}
    refused = {}
    for minion, it in sorted(found.items()):
        if not _is_record(minion, it):
            refused[minion] = (
                f"What {minion!r} has published for migration is no record of keys, names and "
                "addresses, so its keys are left out: look at that host."
            )
            continue
        for name in {name.lower() for name in (*it["names"], *it["addresses"])}:
            claims.setdefault(name, []).append(minion)
    for name, its in sorted(claims.items()):
        owner = owners.get(name, its[0])
        if its != [owner]:
            said = f"both say that they are {name}, so the keys of neither are taken"
            if owner not in its:
                said = f"says that it is {name}, which the pillar calls {owner}: no key is taken"
            for minion in its:
                refused.setdefault(minion, (
                    f"{' and '.join(its)} {said}. Correct nova:my_ip there, or `salt MINION "
                    f"mine.delete {MINE}` for one that is gone."
                ))  # fmt: skip
    good = {it: found[it] for it in found if it not in (*refused, __opts__["id"])}
    return {"peers": good, "refused": list(dict.fromkeys(refused.values()))}


def _is_record(minion: str, it: dict) -> bool:
    """Whether it holds nothing else than it should."""
    try:
        keys, names = [it["key"], *it["host_keys"]], [*it["names"], *it["addresses"]]
        good = all(map(_KEY.fullmatch, keys)) and all(map(_NAME.fullmatch, names))
        for address in it["addresses"]:
            ipaddress.ip_address(address)
    except (KeyError, TypeError, ValueError):
        good = False
    return bool(good and it["host_keys"] and it["addresses"] and _MINION.fullmatch(minion))
