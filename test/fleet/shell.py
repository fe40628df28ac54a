"""Commands, steps with the time they took, and errors that are one sentence."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# What a program inside a tree or a host gets: nothing of the caller's environment may leak in.
CLEAN_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}

# The same, for what downloads.
ONLINE_ENVIRONMENT = CLEAN_ENVIRONMENT | {
    name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


class LabError(Exception):
    """Something a person has to know, in one sentence."""


class CommandFailed(LabError):
    """A command that failed, with its last words."""

    def __init__(self, command: Sequence[str], code: int, words: str) -> None:
        begin = " ".join([Path(command[0]).name, *command[1:4]])
        super().__init__(f"'{begin} …' failed with exit code {code}:\n{words}")
        self.words = words


def run(*command: str | os.PathLike[str], env: dict[str, str] | None = None,
        cwd: Path | None = None, stdin: str | None = None, log: Path | None = None) -> str:
    """Run a command and return its output; CommandFailed, with its last words, if it fails.

    log: a file that is given all that was printed, when it fails.
    """
    line = [os.fspath(part) for part in command]
    done = subprocess.run(
        line, env=env, cwd=cwd, input=stdin, text=True,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True, errors="replace", check=False,
    )
    if done.returncode:
        said = f"{done.stdout.rstrip()}\n{done.stderr}"
        if log:
            log.write_text(said)
        raise CommandFailed(line, done.returncode, "\n".join(said.strip().splitlines()[-25:]))
    return done.stdout


def chroot(tree: Path, *command: str, env: dict[str, str] = CLEAN_ENVIRONMENT) -> str:
    """Run a command in a tree, with a clean environment."""
    return run("/usr/sbin/chroot", tree, *command, env=env)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is done, and how long it took. Steps may run side by side: one line each."""
    began = time.monotonic()
    try:
        yield
    except BaseException:
        took = time.monotonic() - began
        print(f"  {text}: failed after {took:.0f} s", file=sys.stderr, flush=True)
        raise
    print(f"  {text}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def lock(path: Path, waits_for: str) -> Iterator[None]:
    """Hold a file lock; it ends with this process, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = False
    while not held:
        with path.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"  waiting for {waits_for}", file=sys.stderr, flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
            # Who had it may have removed the file: whoever comes next locks another one.
            with contextlib.suppress(FileNotFoundError):
                held = os.path.samestat(os.fstat(handle.fileno()), path.stat())
            if held:
                yield


def wait_until(condition: Callable[[], bool], what: str, seconds: float,
               interval: float = 0.2) -> None:
    """Wait until condition() is true; LabError that names what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"Waited {seconds:.0f} s in vain for {what}.")
        time.sleep(interval)


def mounts_below(path: Path) -> list[str]:
    """Return the mount points at or below a path, innermost first."""
    points = [line.split()[4].encode().decode("unicode_escape")
              for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in reversed(points)
            if point == str(path) or point.startswith(f"{path}/")]


def unmount_below(path: Path) -> None:
    """Unmount all that is mounted at or below a path."""
    for point in mounts_below(path):
        run("umount", "--lazy", point)


def remove_tree(path: Path) -> None:
    """Remove a tree, after whatever a killed build left mounted in it."""
    unmount_below(path)
    run("rm", "-rf", "--one-file-system", path)
