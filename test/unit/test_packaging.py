"""
Names of packages, units, files and users are those of the distributions' own packages, release by
release, as far as these are public: test/packaging has them, with where they come from. Of RDO's
from 2025.2 on, files are not.
"""

import fnmatch

import pytest
import yaml
from conftest import ROOT
from test_map import changed, run_map

PUBLIC = {
    name: yaml.safe_load((ROOT / f"test/packaging/{name}.yaml").read_text())
    for name in ("debian", "ubuntu", "rdo")
}
GRAINS = {
    "debian": {"os_family": "Debian", "os": "Debian", "osmajorrelease": ""},
    "ubuntu": {"os_family": "Debian", "os": "Ubuntu", "osmajorrelease": 24},
    "rdo": {"os_family": "RedHat", "os": "CentOS Stream", "osmajorrelease": 8},
}
# Of a system with a libvirt daemon for each driver; nothing public has the packages' files.
WITHOUT_FILES = [("rdo", "2025.2"), ("rdo", "2026.1")]
# What comes with the system itself: nothing of Nova's packaging names it.
OF_THE_SYSTEM = {
    "debian": {"/var/log/placement"},  # its package's script makes it
    "ubuntu": {
        *("apache2", "dmidecode", "genisoimage", "haproxy", "novnc", "qemu-system-x86"),
        *("libvirtd.socket", "/var/log/apache2"),
    },
    "rdo": {"httpd", "haproxy", "libvirtd"},
}
RELEASES = [
    (name, release)
    for name, groups in PUBLIC.items()
    for release in dict.fromkeys(release for group in groups for release in group["from"])
]


@pytest.mark.parametrize(("name", "release"), RELEASES)
def test_every_name_is_one_that_the_packages_have(name, release):
    public = {
        kind: {
            word
            for group in PUBLIC[name]
            if release in group["from"]
            for word in group.get(kind, "").split()
        }
        for kind in ("packages", "units", "files", "users")
    }
    # Versions of Python have a program each, and a link that the alternatives make.
    public["files"] |= {path.rstrip("1239") + "3" for path in public["files"] if "uwsgi_py" in path}
    grains = dict(GRAINS[name])
    if (name, release) in WITHOUT_FILES:
        grains["osmajorrelease"] = 10
    nova = run_map(changed(release=release, roles=["controller", "compute", "haproxy"]), **grains)
    assert nova["faults"] == []
    ours = {
        "packages": {package for names in nova["packages"].values() for package in names},
        # The second metadata API's is the formula's own.
        "units": set(nova["unit_list"]) - {nova["metadata_unit"]},
        "files": set(files_of_packages(nova)),
        "users": set(nova["users"].values()),
    }
    if (name, release) in WITHOUT_FILES:
        assert not public["files"]
        del ours["files"]
    for kind, names in ours.items():
        unknown = {
            word
            for word in names - OF_THE_SYSTEM[name]
            if not any(fnmatch.fnmatchcase(word, known) for known in public[kind])
        }
        assert (kind, unknown) == (kind, set())


def files_of_packages(nova):
    """What the formula finds where a package has put it: web servers' files, and what these run."""
    served = {**nova.get("uwsgi", {}), **nova.get("apache", {})}
    if "program" in served:
        yield served.pop("program")
    for daemon, server in served.items():
        if daemon != "metadata_second":
            yield server.get("ini") or server["conf"]
        yield server["log"].rpartition("/")[0]
        if not nova["wsgi"][daemon]["modular"]:
            yield nova["wsgi"][daemon]["script"]
    if "compute_conf" in nova:
        yield nova["compute_conf"]
