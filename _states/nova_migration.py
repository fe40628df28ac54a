"""
Migration over SSH: a key of this node's own, its publication, and the peers that are trusted.

Lines of other people in the same files stay as they are: the formula's end in
``nova-formula:MINION``.
"""

import base64
import contextlib
import hashlib
import os
import pwd
import re
import stat
import time

import salt.utils.files
from salt.exceptions import CommandExecutionError

#: Seconds between two looks at the mine.
INTERVAL = 2

_OURS = re.compile(r" nova-formula:(\S+)$")


def __virtual__():
    if "nova_migration.record" in __salt__:
        return True
    return False, "The execution module nova_migration is missing: run saltutil.sync_all."


def key_present(name: str, user: str) -> dict:
    """
    A key pair that was made on this node stands there; the private key is its user's alone.

    name : str
        Path of the private key. Its directory is there.
    user : str
        Whose it is.

    .. code-block:: yaml

        /var/lib/nova/.ssh/id_ed25519:
          nova_migration.key_present:
            - user: nova
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": f"{name} stands."}
    changes = {}
    found = _file(name)
    if not found or not _file(f"{name}.pub"):
        changes["key"] = {"old": None, "new": "a new ed25519 key"}
    else:
        owner = _name_of(found.st_uid)
        if owner != user:
            changes["user"] = {"old": owner, "new": user}
        if (mode := found.st_mode & 0o7777) != 0o600:
            changes["mode"] = {"old": f"{mode:04o}", "new": "0600"}
    if not changes:
        return ret
    if __opts__["test"]:
        return {**ret, "result": None, "changes": changes, "comment": f"{name} would be made."}
    try:
        account = pwd.getpwnam(user)
        if "key" in changes:
            _make(name, account)
        else:
            _own(name, account)
    except KeyError:
        return {**ret, "result": False, "comment": f"There is no user {user}: install Nova first."}
    except OSError as exc:
        return {**ret, "result": False, "comment": f"Cannot make {name}: {exc.strerror}."}
    except CommandExecutionError as exc:
        return {**ret, "result": False, "comment": str(exc)}
    return {**ret, "changes": changes, "comment": f"{name} was made."}


def _file(path: str) -> os.stat_result | None:
    """Of a file; of a link nothing, for its user could have led root anywhere by it."""
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode):
            return found
    return None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _make(name: str, account) -> None:
    """The pair appears at once, the private half last: a run that dies leaves no half pair."""
    new = f"{name}.new"
    for path in (new, f"{new}.pub"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    done = __salt__["cmd.run_all"](
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"nova@{__opts__['id']}", "-f", new],
        python_shell=False,
        ignore_retcode=True,
    )
    if done["retcode"]:
        raise CommandExecutionError(f"ssh-keygen cannot make {name}: {done['stderr']}")
    _own(new, account)
    os.replace(f"{new}.pub", f"{name}.pub")
    os.replace(new, name)


def _own(path: str, account) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, 0o600)
        os.fchown(descriptor, account.pw_uid, account.pw_gid)
    finally:
        os.close(descriptor)


def published(name: str, known_as: list[str], addresses: list[str]) -> dict:
    """
    This node's public key and host keys stand in the Salt mine, for its peers.

    name : str
        Path of the private key.
    known_as : list
        Names and addresses under which Nova reaches this node. (Salt takes ``names`` for its own.)
    addresses : list
        Those that it connects from.

    .. code-block:: yaml

        /var/lib/nova/.ssh/id_ed25519:
          nova_migration.published:
            - known_as: [cmp1, 10.20.0.80]
            - addresses: [10.20.0.80]
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "The mine has this node's keys."}
    try:
        try:
            wanted = __salt__["nova_migration.record"](name, known_as, addresses)
        except CommandExecutionError:
            if not __opts__["test"]:
                raise
            wanted = None  # a state before this one will have made the keys
        known = __salt__["nova_migration.published"]()
        if known == wanted and wanted:
            return ret
        changes = {__opts__["id"]: {"old": _shown(known), "new": _shown(wanted) or "new keys"}}
        if __opts__["test"]:
            comment = "This node's keys would be published."
            return {**ret, "result": None, "changes": changes, "comment": comment}
        given = {"key": name, "names": known_as, "addresses": addresses}
        __salt__["mine.send"]("nova_migration", mine_function="nova_migration.record", **given)
        if __salt__["nova_migration.published"]() != wanted:
            raise CommandExecutionError(
                "The mine does not give back this node's keys: check the master's "
                "minion_data_cache and peer configuration, or set nova:migration:keys."
            )
    except CommandExecutionError as exc:
        return {**ret, "result": False, "comment": str(exc)}
    return {**ret, "changes": changes, "comment": "This node's keys were published."}


def unpublished(name: str) -> dict:
    """
    The Salt mine has nothing of this node's, so that its peers forget it.

    name : str
        Any text.
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "The mine has nothing."}
    known = __salt__["nova_migration.published"]()
    if known is None:
        return ret
    changes = {__opts__["id"]: {"old": _shown(known), "new": None}}
    if __opts__["test"]:
        return {**ret, "result": None, "changes": changes, "comment": "Keys would be withdrawn."}
    __salt__["mine.delete"]("nova_migration")
    return {**ret, "changes": changes, "comment": "This node's keys were withdrawn."}


def _shown(record: dict | None) -> str | None:
    if not record:
        return None
    prints = ", ".join(_fingerprint(key) for key in record["host_keys"])
    return f"key {_fingerprint(record['key'])} of {', '.join(record['names'])}; host keys {prints}"


def _fingerprint(key: str) -> str:
    """As ssh-keygen -l shows it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def peers_trusted(
    name: str,
    known_hosts: str,
    command: str,
    user: str,
    minions: list[str],
    expected: list[str] | None = None,
    keys: dict | None = None,
    taken: dict[str, str] | None = None,
    timeout: int = 60,
) -> dict:
    """
    Peers may do here what one command lets them, and their host keys are known; nobody else's.

    name : str
        The authorized_keys of the user that they log in as.
    known_hosts : str
        Where the host keys are pinned.
    command : str
        What a peer's key starts, whatever the peer asks for.
    user : str
        Whose group reads ``name``; root owns it.
    minions : list
        Ids or globs of the minions whose records in the mine are believed. An empty list takes
        away all lines of the formula's.
    expected : list
        Nova host names, whose records are waited for.
    keys : dict
        Records by minion id, over the mine's.
    taken : dict
        Names and addresses that the pillar gives to a minion, with its id: no other may claim them.
    timeout : int
        Seconds to wait at most; what is not there then comes with the next run.

    .. code-block:: yaml

        /var/lib/nova/.ssh/authorized_keys:
          nova_migration.peers_trusted:
            - known_hosts: /etc/ssh/ssh_known_hosts
            - command: /usr/local/lib/nova-formula/migration /var/lib/nova/instances
            - user: nova
            - minions: ['cmp*']
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "The peers' keys stand."}
    try:
        wait = 0 if __opts__["test"] else timeout
        records, late, refused = _records(minions, expected or [], keys, taken, wait)
        doors = {minion: [_door(minion, command, it)] for minion, it in records.items()}
        pins = {minion: _pins(minion, it) for minion, it in records.items()}
        changes = {}
        for path, wanted, group, mode, follow in (
            (known_hosts, pins, "root", "0644", True),
            # A link there could be the user's, and lead root anywhere.
            (name, doors, user, "0640", False),
        ):
            before = _lines(path, follow)
            for minion, old, new in _differences(before, wanted):
                changes.setdefault(minion, {})[os.path.basename(path)] = {"old": old, "new": new}
            if before or wanted:
                rights = _written(path, _merged(before, wanted), group, mode, follow)
                if rights and not changes:
                    changes[path] = rights
        if __opts__["test"]:
            changes.update({host: {"old": None, "new": "once it has published"} for host in late})
    except CommandExecutionError as exc:
        return {**ret, "result": False, "comment": str(exc)}
    ret["changes"] = changes
    if changes:
        ret["result"] = None if __opts__["test"] else True
        ret["comment"] = f"Peers' keys {'would be' if __opts__['test'] else 'were'} written."
    warnings = refused
    if late and not __opts__["test"]:
        warnings.append(
            f"{', '.join(late)} has not published its keys yet: migration there works after the "
            "next run on both."
        )
    return {**ret, **({"warnings": warnings} if warnings else {})}


def _records(
    minions: list[str], expected: list[str], keys: dict | None, taken: dict | None, timeout: int
) -> tuple[dict, list[str], list[str]]:
    """
    What the peers have published, once those that are expected have, or the time is up; who has
    not; and what of it is refused, in sentences.
    """
    if not minions and not keys:
        return {}, [], []
    deadline = time.monotonic() + timeout
    while True:
        found = __salt__["nova_migration.peers"](minions, keys, taken)
        records = found["peers"]
        own = __salt__["nova_migration.published"]()
        if own is None and not __opts__["test"]:
            raise CommandExecutionError(
                "The mine has not this node's own keys, so it may have lost the others' too: "
                "nothing was changed. Run this again."
            )
        known = [own or {"names": [__grains__.get("nodename")]}, *records.values()]
        late = [host for host in expected if all(host not in it["names"] for it in known)]
        if not late or time.monotonic() >= deadline:
            return records, late, found["refused"]
        time.sleep(INTERVAL)


def _door(minion: str, command: str, record: dict) -> str:
    source = ",".join(record["addresses"])
    key = f"{record['key']} nova-formula:{minion}"
    return f'restrict,from="{source}",command="{command}" {key}'


def _pins(minion: str, record: dict) -> list[str]:
    names = ",".join(dict.fromkeys([*record["names"], *record["addresses"]]))
    return [f"{names} {key} nova-formula:{minion}" for key in record["host_keys"]]


def _lines(path: str, follow: bool) -> list[str]:
    if os.path.islink(path) and not follow:
        return []
    try:
        with salt.utils.files.fopen(path) as stream:
            return stream.read().splitlines()
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise CommandExecutionError(f"Cannot read {path}: {exc.strerror}.") from exc


def _differences(before: list[str], wanted: dict[str, list[str]]):
    """(minion, old, new) of each whose lines are not those that are wanted."""
    present = {}
    for line in before:
        if ours := _OURS.search(line):
            present.setdefault(ours[1], []).append(line)
    for minion in sorted(present.keys() | wanted.keys()):
        old, new = present.get(minion), wanted.get(minion)
        if old != new:
            yield minion, old and "\n".join(old), new and "\n".join(new)


def _merged(before: list[str], wanted: dict[str, list[str]]) -> str:
    """The text of a file: what is not ours, then ours."""
    lines = [line for line in before if not _OURS.search(line)]
    return "".join(f"{it}\n" for it in lines + sum((wanted[one] for one in sorted(wanted)), []))


def _written(path: str, text: str, group: str, mode: str, follow: bool) -> dict:
    """Write a file of root's; what changes of its owner and mode."""
    if __opts__["test"] and not os.path.isdir(os.path.dirname(path)):
        return {}  # a state or a package before this one brings it
    done = __states__["file.managed"](
        path, contents=text, user="root", group=group, mode=mode, show_changes=False,
        follow_symlinks=follow,
    )  # fmt: skip
    if done["result"] is False:
        raise CommandExecutionError(f"Cannot write {path}: {done['comment']}")
    return {
        key: value for key, value in done["changes"].items() if key in ("mode", "user", "group")
    }
