"""The only source of packages that hosts have: what they may install, downloaded once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from . import cache, inventory, shell

# One download for each kind of host: packages of different kinds may exclude each other.
KINDS = {
    "infra": (
        "mariadb-server", "rabbitmq-server", "memcached", "keystone", "glance", "neutron-server",
        "neutron-plugin-ml2", "python3-openstackclient",
    ),
    "lb1": ("haproxy", "socat"),
    "a pair of balancers": ("keepalived",),
    "controller": (
        "nova-api", "nova-conductor", "nova-scheduler", "nova-consoleproxy", "novnc",
        "placement-api", "python3-openstackclient", "mariadb-client", "memcached",
    ),
    "compute": (
        "nova-compute", "nova-compute-qemu", "libvirt-daemon-system", "libvirt-clients",
        "dmidecode", "genisoimage",
        "qemu-system-x86", "qemu-utils",
    ),
    "compute with KVM": ("nova-compute", "nova-compute-kvm"),
    "tests": ("curl", "faketime", "openssl", "gnutls-bin", "nftables", "strace", "rsync",
              "openssh-server", "gnupg"),
    "metadata agent": ("neutron-metadata-agent",),
    "peer": ("puppet-agent", "puppet-module-nova", "puppet-module-placement",
             "puppet-module-keystone"),
}


# What only the system of infra is asked for: what the formula finds in place, and its peer.
FOUND_KINDS = ("infra", "metadata agent", "peer")


def repository(os_name: str, system_tree: Path) -> Path:
    """Return a directory with all packages of a system's KINDS, what they need, and an index."""
    kinds = {kind: names for kind, names in KINDS.items()
             if os_name == inventory.FOUND or kind not in FOUND_KINDS}

    def build(repo: Path) -> None:
        apt = _private_apt(os_name, repo / "apt", system_tree / "var/lib/dpkg/status")
        shell.run(*apt, "update")
        for packages in kinds.values():
            shell.run(*apt, "--download-only", "--option", "APT::Install-Recommends=true",
                      "install", *packages)
        for package in (repo / "apt/archives").glob("*.deb"):
            package.rename(repo / package.name)
        shell.remove_tree(repo / "apt")
        shell.run("sh", "-c", "dpkg-scanpackages --multiversion . 2>/dev/null > Packages", cwd=repo)

    return cache.piece(f"repository-{os_name}", build, system_tree, kinds, _private_apt, _sources)


def change(os_name: str, tree: Path, *command: str) -> None:
    """Change the packages of a tree by a command of apt-get's, from the distribution's archive."""
    inside = tree / "var/cache/apt"
    apt = _private_apt(os_name, inside / "private", tree / "var/lib/dpkg/status")
    shell.run(*apt, "update")
    shell.run(*apt, f"--option=DPkg::Chroot-Directory={tree}",
              "--option=DPkg::Options::=--force-unsafe-io", *command,
              env=shell.ONLINE_ENVIRONMENT)
    shell.remove_tree(inside)
    inside.mkdir()


def source(os_name: str, package: str, target: Path) -> None:
    """Put the upstream source of a package into a directory."""
    apt = _private_apt(os_name, target / "apt", Path("/dev/null"))
    listed = target / "apt/sources.list"
    listed.write_text(re.sub("^deb ", "deb-src ", listed.read_text(), flags=re.M))
    shell.run(*apt, "update")
    shell.run(*apt, "--download-only", "--tar-only", "source", package, cwd=target)


def unpack(os_name: str, packages: Sequence[str], work: Path) -> Path:
    """Return a directory with the unpacked files of packages and what they depend on."""
    (work / "files").mkdir(parents=True)
    (work / "no-status").touch()
    apt = _private_apt(os_name, work / "apt", work / "no-status")
    shell.run(*apt, "update")
    urls = shell.run(*apt, "--print-uris", "install", *packages)
    wanted = re.findall(r"^'[^']+' ((?:linux-image|busybox)[^_]*)_", urls, re.M)
    shell.run(*apt, "download", *wanted, cwd=work)
    for package in work.glob("*.deb"):
        shell.run("dpkg-deb", "--extract", package, work / "files")
    return work / "files"


def _private_apt(os_name: str, scratch: Path, status: Path) -> list[str]:
    """Return an apt-get command with its own sources, lists and cache, for a system's status."""
    for name in ("lists/partial", "archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "sources.list").write_text(_sources(os_name))
    (scratch / "status").write_bytes(status.read_bytes())
    options = {
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": scratch,
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch,
        "Dir::Log": scratch,
        "APT::Sandbox::User": "root",  # nobody else may enter the cache
        "APT::Update::Post-Invoke-Success": "",
    }
    return ["apt-get", "--quiet", "--yes", "--no-install-recommends",
            *(f"--option={key}={value}" for key, value in options.items())]


def _sources(os_name: str) -> str:
    """Return the machine's own Debian sources as one-line entries, for os_name.

    Mirrors and their options are kept; anything that is not the distribution's archive is not.
    A release has suites of updates beside its own.
    """
    own = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.M)[1]
    suites = {own}
    if os_name not in inventory.LONE:
        suites |= {f"{own}-updates", f"{own}-security"}
    lines = []
    directory = Path("/etc/apt/sources.list.d")
    for file in (Path("/etc/apt/sources.list"), *sorted(directory.glob("*.list"))):
        for line in file.read_text().splitlines() if file.exists() else ():
            entry = re.match(r"deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)\s", line)
            if entry and entry[3] in suites and not entry[2].startswith("cdrom:"):
                lines.append(line)
    for file in sorted(directory.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            field = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.+)$", stanza, re.M))
            if field.get("Enabled", "yes") == "no" or "deb" not in field.get("Types", "").split():
                continue
            key = f"[signed-by={field['Signed-By']}] " if "Signed-By" in field else ""
            lines += [f"deb {key}{uri} {suite} {field.get('Components', '')}"
                      for uri in field["URIs"].split() for suite in field["Suites"].split()
                      if suite in suites]
    if not lines:
        raise shell.LabError(f"The machine's apt sources name no archive of Debian {own}.")
    return "\n".join(lines).replace(own, os_name) + "\n"
