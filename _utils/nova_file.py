"""
Files that are replaced in one step: who reads one finds the old text or the new one, never a part.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator

from salt.exceptions import CommandExecutionError

#: Seconds to wait for another run on this node.
WAIT = 60
#: Seconds between two looks whether it has ended.
INTERVAL = 0.1

_REMEDIES = {errno.ENOSPC: "make room there", errno.EDQUOT: "raise the quota or make room there"}


@contextlib.contextmanager
def alone(path: str, timeout: int = WAIT) -> Iterator[None]:
    """
    While it lasts, no other run on this node has this for a file of the same directory.

    It is a lock on the directory, which the kernel takes from a run that dies.

    path : str
        The file.
    timeout : int
        Seconds to wait for another run.

    Raises CommandExecutionError when the other run has not ended by then, or without the directory.
    """
    try:
        descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        raise _failure(path, exc) from exc
    try:
        deadline = time.monotonic() + timeout
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                raise CommandExecutionError(
                    f"Another run on this node has been at work on {path} or beside it for "
                    f"{timeout} s: see `salt-call saltutil.running`, and run the state again."
                )
            time.sleep(INTERVAL)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def fresh(path: str, text: bytes, uid: int = -1, gid: int = -1, mode: int = 0o644) -> Iterator[str]:
    """
    A file with a text beside the one that it is to replace, on the disk; call it in :func:`alone`.

    path : str
        The file that it is to replace.
    text : bytes
        What it holds.
    uid, gid : int
        Whose it is; -1: those of this process.
    mode : int
        Its mode; before it is complete, nobody else may read it.

    Yields its path. What was not renamed in the end is removed, also what a killed run left.

    Raises CommandExecutionError when it cannot be written or renamed.
    """
    temp = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.nova-formula")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)
        with open(temp, "xb", opener=_private) as file:
            file.write(text)
            file.flush()
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        yield temp
    except OSError as exc:
        raise _failure(path, exc) from exc
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)


def replace(
    path: str,
    text: str,
    uid: int = -1,
    gid: int = -1,
    mode: int = 0o644,
    check: Callable[[str], None] | None = None,
) -> bool:
    """
    Give a file a text in one step; False: another run has given it the same meanwhile.

    path : str
        The file; of a symbolic link, what it leads to, where nobody but root can have made it.
    text : str
        What it will hold.
    uid, gid : int
        Whose it will be; -1: those of this process.
    mode : int
        Its mode.
    check : function
        Called with the path of the new file before that goes live; raises if it must not.

    Raises CommandExecutionError when it cannot be written; it is then as it was.
    """
    path, data = _target(path), text.encode()
    with alone(path):
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            if not os.path.islink(path) and file.read() == data:
                return False
        with fresh(path, data, uid, gid, mode) as temp:
            if check:
                check(temp)
            rename(temp, path)
    return True


def _target(path: str) -> str:
    """What a link leads to; the link itself, where a daemon's user could lead root anywhere."""
    directory = os.path.realpath(os.path.dirname(path))
    try:
        found = os.stat(directory)
    except OSError as exc:
        raise _failure(path, exc) from exc
    if found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022:
        return os.path.realpath(path)
    return os.path.join(directory, os.path.basename(path))


def rename(temp: str, path: str) -> None:
    """
    Put a file of :func:`fresh` in its place, so that a power cut does not undo it.

    temp, path : str
        The file, and the one that it replaces.
    """
    os.replace(temp, path)
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _failure(path: str, exc: OSError) -> CommandExecutionError:
    remedy = _REMEDIES.get(exc.errno, "mend that")
    return CommandExecutionError(
        f"Cannot write {path}, which stays as it is: {exc.strerror}; {remedy} and run the state "
        "again."
    )
