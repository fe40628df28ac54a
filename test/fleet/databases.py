"""Database servers of other Debian releases: unpacked with what they need, run in a chroot."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import cache, packages, shell, trees

URL = "mysql://root:p%40ss%3Aroot@127.0.0.1:{port}/"
_COMMON = "--no-defaults --user=root --datadir=/srv/data --socket=/srv/socket \
--bind-address=127.0.0.1 --skip-name-resolve --max-connections=500 --init-file=/srv/admin.sql"
# What a server's chroot runs, with the port as $1.
SERVERS = {
    "MariaDB of trixie": (
        "trixie", ("mariadb-server-core", "mariadb-client-core", "gawk", "sed"), f"""
ln -sf gawk /usr/bin/awk
mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db \
    --skip-name-resolve --force --user=root --datadir=/srv/data
echo "ALTER USER root@'127.0.0.1' IDENTIFIED BY 'p@ss:root';" > /srv/admin.sql
exec mariadbd {_COMMON} --port=$1
"""),
    "MySQL of sid": ("sid", ("mysql-server-core",), f"""
mysqld --no-defaults --user=root --initialize-insecure --datadir=/srv/data
echo "CREATE USER root@'127.0.0.1' IDENTIFIED BY 'p@ss:root';
GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;" > /srv/admin.sql
exec mysqld {_COMMON} --port=$1 --mysqlx=0 --secure-file-priv=NULL
"""),
}


def tree(os_name: str, wanted: tuple[str, ...]) -> Path:
    """Return the unpacked files of packages of a release, and of what they depend on."""

    def build(root: Path) -> None:
        status = root / "no-status"
        status.touch()
        apt = packages._private_apt(os_name, root / "apt", status)
        sources = root / "apt/sources.list"
        lines = [line for line in sources.read_text().splitlines() if f" {os_name} " in line]
        sources.write_text("\n".join(lines) + "\n")
        shell.run(*apt, "update")
        shell.run(*apt, "--no-install-recommends", "--download-only", "install", "bash",
                  "coreutils", *wanted)
        for package in (root / "apt/archives").glob("*.deb"):
            shell.run("dpkg-deb", "--extract", package, root)
        shell.remove_tree(root / "apt")
        for link in ("bin", "sbin", "lib", "lib64"):
            if not (root / link).exists() and (root / "usr" / link).is_dir():
                (root / link).symlink_to(f"usr/{link}")
        (root / "usr/bin/sh").unlink(missing_ok=True)
        (root / "usr/bin/sh").symlink_to("bash")
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")

    return cache.piece(f"database-{os_name}", build, os_name, wanted)


@contextlib.contextmanager
def running(name: str, work: Path, port: int) -> Iterator[str]:
    """Run a server of SERVERS until the end of the block; yields its administrator's URL."""
    os_name, wanted, script = SERVERS[name]
    with cache.building():
        files = tree(os_name, wanted)
    with trees.overlay(work / "root", [files], work / "upper", work / "work") as root:
        for directory in ("dev", "tmp", "srv"):
            (root / directory).mkdir(exist_ok=True)
        shell.run("mount", "--rbind", "--make-rslave", "/dev", root / "dev")
        with (work / "log").open("w") as log:
            process = subprocess.Popen(
                ["/usr/sbin/chroot", root, "bash", "-ec", script, "bash", str(port)],
                env=shell.CLEAN_ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
        try:
            shell.wait_until(
                lambda: process.poll() is not None or _listens(port), f"{name} to listen", 120)
            if process.poll() is not None:
                raise shell.LabError(f"{name} did not start: {(work / 'log').read_text()[-2000:]}")
            yield URL.format(port=port)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
