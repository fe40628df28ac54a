"""What hosts stand on: a minimal Debian, and over it Salt and the setup of the lab."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import cache, packages, shell

SYSTEM_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "iproute2", "iputils-ping", "ca-certificates", "python3",
    "procps", "netbase",
)
SALT = "3008.3"
# What the formula's modules import, besides Salt itself.
SALT_LIBRARIES = ("PyMySQL", "openstacksdk", "keystoneauth1", "jsonschema")
SALT_PROGRAMS = ("salt", "salt-call", "salt-key", "salt-run", "salt-ssh")
# Housekeeping that only costs time in a host that lives for an hour.
MASKED_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "console-getty.service", "systemd-firstboot.service",
)


@contextlib.contextmanager
def overlay(root: Path, layers: Sequence[Path], upper: Path, work: Path) -> Iterator[Path]:
    """Mount layers (topmost first) with a writable directory over them, for a while."""
    mount_overlay(root, layers, upper, work)
    try:
        yield root
    finally:
        shell.unmount_below(root)


def mount_overlay(root: Path, layers: Sequence[Path], upper: Path, work: Path) -> None:
    """Mount layers, topmost first, with a writable directory over them."""
    for path in (root, upper, work):
        path.mkdir(parents=True, exist_ok=True)
    below = ":".join(map(str, layers))
    shell.run("mount", "-t", "overlay", "overlay",
              "-o", f"lowerdir={below},upperdir={upper},workdir={work}", root)


def system(os_name: str) -> Path:
    """Return the tree of a minimal Debian that boots, with its security updates."""

    def build(tree: Path) -> None:
        shell.run("debootstrap", "--variant=minbase", f"--include={','.join(SYSTEM_PACKAGES)}",
                  os_name, tree, env=shell.ONLINE_ENVIRONMENT)
        packages.upgrade(os_name, tree)
        for name in ("etc/hostname", "etc/machine-id", "etc/apt/sources.list"):
            (tree / name).unlink(missing_ok=True)

    return cache.piece(f"system-{os_name}", build, os_name, SYSTEM_PACKAGES, packages.upgrade)


def wheels(os_name: str, salt: str) -> Path:
    """Return a directory of wheels of Salt and its libraries, pip's own among them."""

    def build(target: Path) -> None:
        venv = target / "venv"
        shell.run("/usr/bin/python3", "-m", "venv", venv)
        shell.run(venv / "bin/pip", "wheel", "--wheel-dir", target,
                  f"salt=={salt}", *SALT_LIBRARIES, "pip")
        shutil.rmtree(venv)

    return cache.piece(f"wheels-{os_name}-{salt}", build, salt, SALT_LIBRARIES)


def base(os_name: str, salt: str, system_tree: Path, wheelhouse: Path) -> Path:
    """Return the layer with Salt in a virtual environment and the lab's own setup."""
    setup = cache.FILES / "base"

    def build(layer: Path) -> None:
        root, work = layer.with_suffix(".root"), layer.with_suffix(".work")
        with overlay(root, [system_tree], layer, work):
            shutil.copytree(wheelhouse, root / "srv/wheels")
            pip = next((root / "srv/wheels").glob("pip-*.whl")).relative_to(root)
            shell.chroot(root, "python3", "-m", "venv", "--without-pip", "/opt/saltstack")
            shell.chroot(root, "/opt/saltstack/bin/python", f"/{pip}/pip", "--isolated", "install",
                         "--quiet", "--no-index", "--find-links", "/srv/wheels",
                         f"salt=={salt}", *SALT_LIBRARIES)
            shutil.rmtree(root / "srv/wheels")
            for program in SALT_PROGRAMS:
                (root / "usr/local/bin" / program).symlink_to(f"/opt/saltstack/bin/{program}")
            shutil.copytree(setup, root, dirs_exist_ok=True)
            for unit in MASKED_UNITS:
                link = root / "etc/systemd/system" / unit
                link.unlink(missing_ok=True)
                link.symlink_to("/dev/null")
            for mount_point in ("srv/repo", "srv/formula", "srv/pillar"):
                (root / mount_point).mkdir()
            shell.chroot(root, "systemctl", "enable", "lab-network.service")
        shutil.rmtree(root)
        shell.remove_tree(work)

    return cache.piece(f"base-{os_name}-{salt}", build, system_tree, wheelhouse, setup,
                       MASKED_UNITS, SALT_PROGRAMS)
