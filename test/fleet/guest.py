"""The guest image: a kernel and a busybox on a small disk, up in seconds under emulation."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import cache, packages, shell

PACKAGES = ("linux-image-cloud-amd64", "busybox-static")
DISK_MIB = 24
START = 2048  # sector of the only partition


def image(os_name: str) -> Path:
    """Return a directory with guest.qcow2."""
    fixture = cache.FILES / "guest"

    def build(target: Path) -> None:
        work = target / "work"
        files = packages.unpack(os_name, PACKAGES, work)
        kernel = next(files.glob("boot/vmlinuz-*"))
        initrd = _initrd(files, fixture / "init", work)
        disk = work / "disk.img"
        with disk.open("wb") as handle:
            handle.truncate(DISK_MIB << 20)
        shell.run("sfdisk", "--quiet", disk, stdin=f"start={START}, type=e, bootable\n")
        offset = START * 512
        shell.run("mkfs.vfat", "--offset", str(START), "-F", "16", disk,
                  str((DISK_MIB << 10) - START // 2))
        for source, name in ((kernel, "kernel"), (initrd, "initrd"),
                             (fixture / "syslinux.cfg", "syslinux.cfg")):
            shell.run("mcopy", "-i", f"{disk}@@{offset}", source, f"::{name}")
        shell.run("syslinux", "--install", "--offset", str(offset), disk)
        with disk.open("r+b") as handle:
            handle.write(Path("/usr/lib/SYSLINUX/mbr.bin").read_bytes())
        shell.run("qemu-img", "convert", "-O", "qcow2", "-c", disk, target / "guest.qcow2")
        shutil.rmtree(work)

    return cache.piece(f"guest-{os_name}", build, PACKAGES, DISK_MIB, START, _initrd, fixture)


def _initrd(files: Path, init: Path, work: Path) -> Path:
    """Pack busybox and the init program."""
    tree = work / "initrd"
    for name in ("bin", "dev", "proc", "sys"):
        (tree / name).mkdir(parents=True)
    shutil.copy(files / "bin/busybox", tree / "bin/busybox")
    shutil.copy(init, tree / "init")
    shell.run("sh", "-c", "find . | cpio --quiet -o -H newc | gzip -9 > ../initrd.gz", cwd=tree)
    return work / "initrd.gz"
