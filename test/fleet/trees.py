"""What hosts stand on: a minimal Debian, and over it Salt and the setup of the lab."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import cache, inventory, packages, shell

SYSTEM_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "iproute2", "iputils-ping", "ca-certificates", "python3",
    "procps", "netbase",
)
# How each release is made; one that came after this machine's debootstrap, as unstable.
DEBOOTSTRAP = Path("/usr/share/debootstrap/scripts")
SALT = "3008.3"
# What makes wheels: one of Salt's libraries comes as source only.
BUILD_PACKAGES = ("gcc", "libc6-dev", "python3-dev", "python3-venv")
# A library that comes as source may name nothing that it is built with (contextvars, Salt 3006).
MAKE_WHEELS = ("wheel", "--use-pep517", "--wheel-dir")
# The formula's modules need Python 3.10, as Salt's own packages bring it; an older system gets one.
OLD_PYTHON = ("bullseye",)
PYTHON = "python3.11"
PYTHON_PACKAGES = ("gcc", "libc6-dev", "make", "xz-utils", "libbz2-dev", "libffi-dev",
                   "liblzma-dev", "libsqlite3-dev", "libssl-dev", "zlib1g-dev")
# How this machine reaches the package index; the same holds in a tree that asks it.
MACHINE_FILES = tuple(map(Path, (
    "/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")))
# What the formula's modules import, besides Salt itself.
SALT_LIBRARIES = ("PyMySQL", "openstacksdk", "keystoneauth1", "jsonschema")
SALT_PROGRAMS = ("salt", "salt-call", "salt-key", "salt-run", "salt-ssh")
# Housekeeping that only costs time in a host that lives for an hour.
MASKED_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "console-getty.service", "systemd-firstboot.service",
    # Debian 11's starts while it is installed, and does not come up in a container.
    "iscsid.service", "open-iscsi.service",
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
        known = (DEBOOTSTRAP / os_name).exists()
        shell.run("debootstrap", "--variant=minbase", f"--include={','.join(SYSTEM_PACKAGES)}",
                  os_name, tree, *(() if known else ("", "sid")),
                  env=shell.ONLINE_ENVIRONMENT)
        packages.change(os_name, tree, "dist-upgrade")  # hosts have only the lab's repository
        if os_name in OLD_PYTHON:
            compile_python(os_name, tree)
        for name in ("etc/hostname", "etc/machine-id", "etc/apt/sources.list"):
            (tree / name).unlink(missing_ok=True)

    return cache.piece(f"system-{os_name}", build, os_name, SYSTEM_PACKAGES, packages.change,
                       *((compile_python, packages.source, PYTHON_PACKAGES)
                         if os_name in OLD_PYTHON else ()))


def compile_python(os_name: str, tree: Path) -> None:
    """Compile the Python of FOUND for a tree, under /opt/python."""
    work = tree.with_suffix(".python")
    shell.remove_tree(work)
    with overlay(work / "root", [tree], work / "upper", work / "work") as root:
        packages.change(os_name, root, "install", *PYTHON_PACKAGES)
        packages.source(inventory.FOUND, PYTHON, root / "srv")
        shell.chroot(root, "sh", "-ec", """
            cd /srv && tar -xf *.orig.tar.*
            cd Python-*
            # It would look for semaphores in /dev/shm, which a chroot has not.
            ./configure --quiet --prefix=/opt/python --disable-test-modules \
                ac_cv_posix_semaphores_enabled=yes ac_cv_broken_sem_getvalue=no
            make --quiet -j2 && make --quiet altinstall
        """)
        shell.run("cp", "--archive", root / "opt/python", tree / "opt/python")
        (tree / "opt/python/bin/python3").symlink_to(PYTHON)
    shell.remove_tree(work)


def python(os_name: str) -> str:
    """Return the interpreter that Salt runs in: the system's, unless that is too old for it."""
    return "/opt/python/bin/python3" if os_name in OLD_PYTHON else "/usr/bin/python3"


def wheels(os_name: str, salt: str, system_tree: Path) -> Path:
    """Return a directory of wheels of Salt and its libraries, pip's own among them.

    Wheels are for one version of Python and of glibc: the machine makes those of its own release,
    and of another one that system's Python, in its tree.
    """
    wanted = (f"salt=={salt}", *SALT_LIBRARIES, "pip")

    def build(target: Path) -> None:
        if os_name == inventory.FOUND:
            shell.run("/usr/bin/python3", "-m", "venv", target / "venv")
            shell.run(target / "venv/bin/pip", *MAKE_WHEELS, target, *wanted)
            shutil.rmtree(target / "venv")
            return
        root, upper, work = (target / name for name in ("root", "upper", "work"))
        with overlay(root, [system_tree], upper, work):
            packages.change(os_name, root, "install", *BUILD_PACKAGES)
            for file in filter(Path.exists, MACHINE_FILES):
                shutil.copy(file, root / file.relative_to("/"))
            shell.chroot(root, python(os_name), "-m", "venv", "/srv/venv")
            shell.chroot(root, "/srv/venv/bin/pip", *MAKE_WHEELS, "/srv/wheels", *wanted,
                         env=shell.ONLINE_ENVIRONMENT)
        for wheel in (upper / "srv/wheels").iterdir():
            wheel.rename(target / wheel.name)
        for directory in (root, upper, work):
            shell.remove_tree(directory)

    return cache.piece(f"wheels-{os_name}-{salt}", build, salt, SALT_LIBRARIES, system_tree,
                       BUILD_PACKAGES)


def base(os_name: str, salt: str, system_tree: Path, wheelhouse: Path) -> Path:
    """Return the layer with Salt in a virtual environment and the lab's own setup."""
    setup = cache.FILES / "base"

    def build(layer: Path) -> None:
        root, work = layer.with_suffix(".root"), layer.with_suffix(".work")
        with overlay(root, [system_tree], layer, work):
            shutil.copytree(wheelhouse, root / "srv/wheels")
            pip = next((root / "srv/wheels").glob("pip-*.whl")).relative_to(root)
            shell.chroot(root, python(os_name), "-m", "venv", "--without-pip", "/opt/saltstack")
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
