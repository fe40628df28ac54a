"""What the machine must be and must have before there can be a lab."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from . import cache, shell

# A file that shows that a package is there, and the package.
NEEDED = {
    "/usr/sbin/debootstrap": "debootstrap",
    "/usr/bin/systemd-nspawn": "systemd-container",
    "/usr/bin/dpkg-scanpackages": "dpkg-dev",
    "/usr/sbin/ip": "iproute2",
    "/usr/bin/mcopy": "mtools",
    "/usr/sbin/sfdisk": "fdisk",
    "/usr/sbin/mkfs.vfat": "dosfstools",
    "/usr/bin/syslinux": "syslinux",
    "/usr/bin/cpio": "cpio",
    "/usr/bin/qemu-img": "qemu-utils",
    "/usr/lib/python3/dist-packages/yaml": "python3-yaml",
    "/usr/lib/python3/dist-packages/jinja2": "python3-jinja2",
    "/usr/share/doc/python3-venv": "python3-venv",
    # One of Salt's libraries comes as source only.
    "/usr/bin/gcc": "gcc",
    "/usr/share/doc/python3-dev": "python3-dev",
}
# Of the kernel's 128 for root a lab's hosts take about forty, and hang without.
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES = 1024
MEMORY_GIB = 8
DISK_GIB = 10


def check() -> None:
    """Stop with one sentence if this machine cannot hold a lab."""
    if os.geteuid() != 0:
        raise shell.LabError("The lab boots containers and must be started as root.")
    release = Path("/etc/os-release").read_text()
    if not re.search(r"^ID=debian$", release, re.M):
        raise shell.LabError("The lab is made for a Debian machine; this is another distribution.")
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
    if memory < MEMORY_GIB * 0.95:
        raise shell.LabError(f"The lab needs {MEMORY_GIB} GiB of memory; here are {memory:.1f}.")
    cache.ROOT.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache.ROOT).free / 2**30
    if free < DISK_GIB:
        raise shell.LabError(f"The lab needs {DISK_GIB} GiB of disk under {cache.ROOT}; "
                             f"{free:.1f} are free.")


def prepare(needed: dict[str, str] = NEEDED) -> None:
    """Install what is missing of the programs that the lab works with, by file and package.

    And let the kernel watch files for several labs' hosts.
    """
    if int(INOTIFY.read_text()) < INOTIFY_INSTANCES:
        with shell.step(f"set fs.inotify.max_user_instances to {INOTIFY_INSTANCES}"):
            INOTIFY.write_text(str(INOTIFY_INSTANCES))
    missing = sorted({package for file, package in needed.items() if not Path(file).exists()})
    if missing:
        with shell.step(f"install {' '.join(missing)}"):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            shell.run("apt-get", "--quiet", "update", env=environment)
            shell.run("apt-get", "--quiet", "--yes", "--no-install-recommends", "install", *missing,
                      env=environment)
