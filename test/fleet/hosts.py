"""Hosts: containers that boot a real systemd over stacked trees.

Each one has a control group of its own. It is how a host is found, frozen and killed,
also when whoever started it is long gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import inventory, network, shell, trees


@dataclass(frozen=True)
class Place:
    """Where one host of one lab lives."""

    lab: str
    name: str
    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def upper(self) -> Path:
        return self.directory / "upper"

    @property
    def made(self) -> Path:
        """A file that tells that the host has its name and addresses."""
        return self.directory / "made"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def cgroup(self) -> Path:
        return _cgroup_root() / f"novalab-{self.lab}" / self.name


def mount(place: Place, layers: Sequence[Path]) -> None:
    """Mount a host's tree, its own writes on top."""
    if not os.path.ismount(place.root):
        trees.mount_overlay(place.root, layers, place.upper, place.directory / "work")


def personalize(place: Place, unit: str | None, vip: str = inventory.VIP) -> None:
    """Give a new host its name, its addresses and the Salt daemon that it runs."""
    host = inventory.HOSTS[place.name]
    etc = place.root / "etc"
    (etc / "hostname").write_text(f"{host.name}\n")
    (etc / "hosts").write_text(inventory.etc_hosts(vip))
    (etc / "resolv.conf").write_text("")
    (etc / "lab-addresses").write_text(
        "".join(f"{address}/{inventory.PREFIX}\n" for address in host.addresses))
    (etc / "salt/minion_id").write_text(host.name)
    # Without it systemd takes this for a first boot, and starts all units that there are.
    (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
    if unit:
        wants = etc / "systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True, exist_ok=True)
        (wants / unit).unlink(missing_ok=True)
        (wants / unit).symlink_to(f"/etc/systemd/system/{unit}")
    place.made.touch()


def boot(place: Place, binds: Mapping[Path, str]) -> None:
    """Start a host; it goes on when this program ends. Does not wait for it."""
    _make_cgroup(place.cgroup)
    command = [
        *network.enter(place.lab), "systemd-nspawn", "--quiet", "--keep-unit", "--register=no",
        "--boot", f"--directory={place.root}", f"--machine={place.name}",
        f"--network-bridge={network.BRIDGE}", "--capability=all", "--bind=/dev/net/tun",
        "--bind=/dev/fuse", "--suppress-sync=yes", "--resolv-conf=off", "--timezone=off",
        "--link-journal=no", "--console=pipe",
        *(f"--bind-ro={source}:{target}" for source, target in binds.items()),
    ]
    with place.console.open("ab") as console:
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            start_new_session=True, cwd="/",
            env={"PATH": shell.CLEAN_ENVIRONMENT["PATH"], "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            preexec_fn=lambda: (place.cgroup / "cgroup.procs").write_text("0"),
        )


def leader(place: Place) -> int | None:
    """Return the process that is PID 1 in a host, None if the host is not running."""
    with contextlib.suppress(OSError):
        for pid in (place.cgroup / "payload/init.scope/cgroup.procs").read_text().split():
            status = Path(f"/proc/{pid}/status").read_text()
            if status.partition("NSpid:")[2].split("\n")[0].split()[-1:] == ["1"]:
                return int(pid)
    return None


def running(place: Place) -> bool:
    """Tell whether any process of a host is left."""
    return bool(_processes(place))


def command_in(place: Place, command: Sequence[str], **env: str) -> list[str]:
    """Return the command line that runs a command in a host, with a clean environment."""
    pid = leader(place)
    if pid is None:
        raise shell.LabError(f"Host {place.name} of lab {place.lab} is not running.")
    variables = {key: value for key, value in shell.CLEAN_ENVIRONMENT.items()
                 if key != "DEBIAN_FRONTEND"}
    variables |= {"TERM": os.environ.get("TERM", "dumb"), **_environment(place), **env}
    return ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
            "env", "--ignore-environment", "--chdir=/root",
            *(f"{key}={value}" for key, value in variables.items()), *command]


def join(place: Place) -> None:
    """Move this process to a host's control group, so that what it starts there ends with it."""
    guests = place.cgroup / "exec"
    guests.mkdir(exist_ok=True)
    (guests / "cgroup.procs").write_text("0")


def call(place: Place, *command: str, log: Path | None = None) -> str:
    """Run a command in a host and return what it printed.

    log: a file that is given all of it if the command fails.
    """
    try:
        return shell.run(*command_in(place, command), log=log)
    except shell.CommandFailed as error:
        what = f"On {place.name}, '{' '.join(command)[:60]}' failed"
        raise shell.LabError(f"{what}: {error.words}") from None


def succeeds(place: Place, *command: str) -> bool:
    """Tell whether a command ends well in a host."""
    if leader(place) is None:
        return False
    return subprocess.run(command_in(place, command), stdin=subprocess.DEVNULL,
                          capture_output=True, check=False).returncode == 0


def wait_booted(place: Place, seconds: float = 180) -> None:
    """Wait until a host's network and system are up."""

    def booted() -> bool:
        if not running(place):
            words = place.console.read_text(errors="replace").strip().splitlines()[-5:]
            raise shell.LabError(f"Host {place.name} ended while it booted: {' / '.join(words)}")
        # Not multi-user.target: a service of OpenStack that waits for another host may hold it up.
        return all(succeeds(place, "systemctl", "is-active", "--quiet", unit)
                   for unit in ("basic.target", "lab-network.service"))

    shell.wait_until(booted, f"host {place.name} to boot", seconds)


def stop(places: Sequence[Place], seconds: float = 30) -> None:
    """Shut hosts down together; what does not end in time is killed."""
    for place in places:
        pid = leader(place)
        if pid:
            os.kill(pid, signal.SIGRTMIN + 4)  # systemd's "power off"
    deadline = time.monotonic() + seconds
    while any(running(place) for place in places) and time.monotonic() < deadline:
        time.sleep(0.1)
    kill(places)


def kill(places: Sequence[Place]) -> None:
    """End hosts at once and take away what they leave: processes, cgroups, links, mounts."""
    for place in places:
        with contextlib.suppress(FileNotFoundError):
            (place.cgroup / "cgroup.kill").write_text("1")
    for place in places:
        shell.wait_until(lambda place=place: not running(place), f"host {place.name} to end", 20)
        _remove_cgroup(place.cgroup)
        network.unplug(place.lab, place.name)
        shell.unmount_below(place.root)


@contextlib.contextmanager
def frozen(places: Sequence[Place]) -> Iterator[None]:
    """Hold hosts still, all at once, while their trees are copied."""
    switches = [place.cgroup / "cgroup.freeze" for place in places]
    try:
        for switch in switches:
            switch.write_text("1")
        for switch in switches:
            events = switch.parent / "cgroup.events"
            shell.wait_until(lambda events=events: "frozen 1" in events.read_text(),
                             f"{switch.parent.name} to freeze", 10, 0.05)
        yield
    finally:
        for switch in switches:
            switch.write_text("0")


def _environment(place: Place) -> dict[str, str]:
    """Return the variables of the host's /etc/environment, as a login would have them."""
    text = (place.root / "etc/environment")
    lines = text.read_text().splitlines() if text.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")


def _cgroup_root() -> Path:
    """Return where version 2 control groups are mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(point)
    raise shell.LabError("No cgroup2 file system is mounted (mount it on /sys/fs/cgroup/unified).")


def _make_cgroup(path: Path) -> None:
    _remove_cgroup(path)
    path.mkdir(parents=True)


def _remove_cgroup(path: Path) -> None:
    """Remove a control group without processes, in the named version 1 hierarchy as well."""
    relative, events = path.relative_to(_cgroup_root()), path / "cgroup.events"
    if events.exists():
        # What was killed takes its time to end where much else runs.
        shell.wait_until(lambda: "populated 0" in events.read_text(),
                         f"the processes of {path.name} to end", 30, 0.05)
    for tree in (path, Path("/sys/fs/cgroup/systemd") / relative):
        for directory, _, _ in os.walk(tree, topdown=False):
            os.rmdir(directory)
        with contextlib.suppress(OSError):
            tree.parent.rmdir()  # the lab's own, when its last host is gone


def _processes(place: Place) -> list[int]:
    found = []
    for directory, _, _ in os.walk(place.cgroup):
        with contextlib.suppress(OSError):
            found += map(int, (Path(directory) / "cgroup.procs").read_text().split())
    return found
