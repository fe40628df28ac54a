"""
All states of a node compile on every distribution, and serve the APIs by the web server that the
distribution and its release have, each on its own address.
"""

import itertools
import multiprocessing
import os
import re

import jinja2
import pytest
import salt.utils.templates
import yaml
from conftest import ROOT, load
from test_map import PAIR, changed, run_map

UWSGI = {
    "api": ("nova-api", "/etc/nova/nova-api-uwsgi.ini"),
    "metadata": ("nova-api-metadata", "/etc/nova/nova-api-metadata-uwsgi.ini"),
    "placement": ("placement-api", "/etc/placement/placement-api-uwsgi.ini"),
}
UBUNTU = "/etc/apache2/sites-enabled/"
RDO = "/etc/httpd/conf.d/00-"
# How the APIs are served: {daemon: (unit, its web server's file, what that runs)}.
SCRIPTS_IN_UWSGI = {
    "api": (*UWSGI["api"], "wsgi-file = /usr/bin/nova-api-wsgi"),
    "metadata": (*UWSGI["metadata"], "wsgi-file = /usr/bin/nova-metadata-"),
    "placement": (*UWSGI["placement"], "wsgi-file = /usr/bin/placement-api"),
}
MODULES_IN_UWSGI = {
    "api": (*UWSGI["api"], "module = nova.wsgi.osapi_compute:application"),
    "metadata": (*UWSGI["metadata"], "module = nova.wsgi.metadata:app"),
    "placement": (*UWSGI["placement"], "module = placement.wsgi.api:app"),
}
DAEMON_ON_UBUNTU = {
    "api": ("nova-api", None, None),
    "placement": ("apache2", f"{UBUNTU}placement-api.conf", "/ /usr/bin/placement-api\n"),
}
APACHE_ON_UBUNTU = {
    "api": ("apache2", f"{UBUNTU}nova-api.conf", "/ /usr/local/lib/nova-formula/api.wsgi"),
    "metadata": ("apache2", f"{UBUNTU}nova-api-metadata.conf", "nova-formula/metadata.wsgi"),
    "placement": ("apache2", f"{UBUNTU}placement-api.conf", "nova-formula/placement.wsgi"),
}
DAEMON_OF_RDO = {
    "api": ("openstack-nova-api", None, None),
    "placement": ("httpd", f"{RDO}placement-api.conf", "/ /usr/bin/placement-api\n"),
}
STEIN_OF_RDO = {**DAEMON_OF_RDO, "consoleauth": ("openstack-nova-consoleauth", None, None)}
INSIDE_NOVA = {
    **STEIN_OF_RDO,
    "placement": ("httpd", f"{RDO}nova-placement-api.conf", "/ /usr/bin/nova-placement-api\n"),
}
EPOXY_OF_RDO = {
    **DAEMON_OF_RDO,
    "placement": ("httpd", f"{RDO}placement-api.conf", "nova-formula/placement.wsgi"),
}
APACHE_OF_RDO = {
    "api": ("httpd", f"{RDO}nova-api.conf", "nova-formula/api.wsgi"),
    "metadata": ("httpd", f"{RDO}nova-api-metadata.conf", "nova-formula/metadata.wsgi"),
    "placement": ("httpd", f"{RDO}placement-api.conf", "nova-formula/placement.wsgi"),
}
SYSTEMS = yaml.safe_load((ROOT / "test/systems.yaml").read_text())
# How the APIs are served.
SERVED = {
    "Debian 11": SCRIPTS_IN_UWSGI,
    "Debian 12": SCRIPTS_IN_UWSGI,
    "Debian 13": MODULES_IN_UWSGI,
    "Debian testing": MODULES_IN_UWSGI,
    "Debian unstable": MODULES_IN_UWSGI,
    "Ubuntu 22.04": DAEMON_ON_UBUNTU,
    "Ubuntu 22.04, cloud archive": DAEMON_ON_UBUNTU,
    "Ubuntu 24.04": DAEMON_ON_UBUNTU,
    "Ubuntu 24.04, cloud archive": APACHE_ON_UBUNTU,
    "Ubuntu 26.04": APACHE_ON_UBUNTU,
    "Ubuntu 26.04, cloud archive": APACHE_ON_UBUNTU,
    "CentOS 7": STEIN_OF_RDO,
    "CentOS 7, Placement in Nova": INSIDE_NOVA,
    "CentOS Stream 8": DAEMON_OF_RDO,
    "Rocky 8": DAEMON_OF_RDO,
    "CentOS Stream 9": DAEMON_OF_RDO,
    "Rocky 9": EPOXY_OF_RDO,
    "CentOS Stream 10": APACHE_OF_RDO,
    "Rocky 10": EPOXY_OF_RDO,
}
ROLES = ["controller", "compute", "haproxy"]
SLS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".init")
    for path in (ROOT / "nova").rglob("*.sls")
)
ELSEWHERE = {"controller": {"ctl2": "10.20.0.70"}}
MORE = {
    "repositories": {"openstack": {"baseurl": "https://mirror.example.org/"}},
    "flavors": {"m1.small": {"ram": 2048, "vcpus": 1}},
    "cells": {"cell2": {"messaging": {"vhost": "cell2"}}},
    "clean": {"identity": True, "packages": True, "databases": ["nova"]},
    "retired": {"database": ["nova_a"], "keystone": ["nova_a"]},
}
PORTS = {"api": 8774, "metadata": 8775, "placement": 8778}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def opts(opts, cache):
    """Those of a minion that has the formula's files and modules from an earlier run."""
    # The pillar is taken as it is, instead of being gathered again.
    return {**opts, "cachedir": str(cache), "extension_modules": str(cache), "__cli": "salt-call"}


def grains_of(system):
    grains = {name: SYSTEMS[system][name] for name in ("os_family", "os", "osrelease")}
    major = grains["osrelease"].split(".")[0]
    return {**grains, "osmajorrelease": int(major) if major.isdigit() else ""}


@pytest.mark.parametrize("system", [name for name in SYSTEMS if "ships" in SYSTEMS[name]])
def test_a_system_brings_a_release(system):
    nova = run_map(changed(release=...), **grains_of(system))
    assert (nova["faults"], nova["release"]["name"]) == ([], SYSTEMS[system]["ships"])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("system", SYSTEMS)
def test_all_that_a_role_has_compiles(opts, system, role):
    others = tuple(f"nova.{other}" for other in ROLES if other != role)
    sls = [name for name in SLS if not name.startswith(others)]
    assert compiled(opts, system, sls, roles=[role], topology=ELSEWHERE, **MORE)


@pytest.mark.parametrize("sls", SLS)
def test_an_sls_alone_brings_the_states_that_its_own_require(opts, sls):
    states = compiled(opts, "Debian 12", sls, roles=ROLES, topology=ELSEWHERE, **MORE)
    there = set()
    for chunk in states:
        there |= {(chunk["state"], chunk["__id__"]), (chunk["state"], chunk["name"])}
        # Salt 3006 takes an SLS that only includes others for there, and waits for nothing.
        there |= {("sls", chunk["__sls__"])}
    for chunk in states:
        named = chunk.get("require", []) + chunk.get("require_in", [])
        assert {pair for one in named for pair in one.items()} <= there, chunk["__id__"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_api_is_served_as_its_system_does_it(opts, system):
    states = compiled(opts, system)
    daemons = {
        chunk["__id__"].removeprefix("nova-controller-service-"): chunk["name"]
        for chunk in states
        if chunk["fun"] == "running" and chunk["__id__"].startswith("nova-controller")
    }
    daemons["placement"] = daemons.pop("nova-controller-placement-running")
    served = SERVED[system]
    for name in ("conductor", "scheduler", "novncproxy"):
        assert daemons.pop(name).endswith(f"nova-{name}")
    assert daemons == {name: unit for name, (unit, _, _) in served.items()}
    files = {c["name"]: c for c in states if (c["state"], c["fun"]) == ("file", "managed")}
    for name, (unit, path, runs) in served.items():
        if path is None:
            continue
        text = rendered(files[path])
        assert runs in text
        assert "processes = 4" in text or "processes=4 threads=3 " in text
        if unit.startswith(("nova", "placement")):
            address = files[f"/etc/systemd/system/{unit}.service.d/nova-formula.conf"]
            assert "threads = 3\n" in text
            assert ("module = " in text) == ("OS_DEFAULT__LOG_FILE=/var/log/" in text)
            assert f"--http-socket 10.20.0.60:{PORTS[name]} --ini {path}" in rendered(address)
        else:
            assert f"Listen 10.20.0.60:{PORTS[name]}\n" in text
            if "nova-formula" in runs:
                script = files[f"/usr/local/lib/nova-formula/{name}.wsgi"]["contents"]
                assert "import application" in script
    no_more = {path for path in files if path.endswith((".ini", "-api.conf", "metadata.conf"))}
    assert no_more == {path for _, path, _ in served.values() if path}


SECOND = {"metadata": {"second": True}, "passwords__metadata_second": "second"}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_second_metadata_api_is_served_as_the_first_with_a_secret_and_a_port_of_its_own(
    opts, system
):
    states = compiled(opts, system, **SECOND)
    by_id = {chunk["__id__"]: chunk for chunk in states}
    secret = by_id["nova-controller-metadata-second-secret"]
    assert (secret["name"], secret["group"]) == ("/etc/nova/metadata-second.env", "nova")
    daemon = by_id["nova-controller-service-metadata_second"]
    assert (daemon["listens"], daemon["http"]) == (
        [["10.20.0.60", 8785]],
        "http://10.20.0.60:8785/",
    )
    assert "/etc/nova/metadata-second.env" in daemon["reads"]
    files = {c["name"]: c for c in states if (c["state"], c["fun"]) == ("file", "managed")}
    first, path, runs = SERVED[system].get("metadata", (None, None, None))
    if first in ("apache2", "httpd"):
        assert daemon["name"] == first
        assert daemon["name"] not in {c["name"] for c in states if c["fun"] == "dead"}
        text = rendered(files[path.replace("metadata.conf", "metadata-second.conf")])
        assert "Listen 10.20.0.60:8785\n" in text
        assert "WSGIProcessGroup nova-metadata_second\n" in text
        script = files["/usr/local/lib/nova-formula/metadata_second.wsgi"]["contents"]
        compile(script, "metadata_second.wsgi", "exec")
        assert 'open("/etc/nova/metadata-second.env")' in script
        return
    unit = files[f"/etc/systemd/system/{daemon['name']}.service"]
    # Without its drop-in it would be no unit to systemd.
    order = {c["name"]: c["order"] for c in states}
    assert all(order[path] <= unit["order"] for path in files if "metadata-second" in path)
    unit = rendered(unit)
    assert "\nEnvironmentFile=/etc/nova/metadata-second.env\n" in unit
    if first:
        ini = path.replace("metadata-uwsgi", "metadata-second-uwsgi")
        text = rendered(files[ini])
        assert runs in text and ini in daemon["reads"]
        assert "OS_DEFAULT__LOG_FILE" not in text or "nova-api-metadata-second.log" in text
        drop_in = files[f"/etc/systemd/system/{daemon['name']}.service.d/nova-formula.conf"]
        assert f"--http-socket 10.20.0.60:8785 --ini {ini}" in rendered(drop_in)
        assert "ExecStart" not in unit
    else:
        assert re.search("\nExecStart=/usr/bin/(nova-api-metadata|python3 -c .*metadata.*)\n", unit)


def test_apache_gives_the_second_metadata_api_its_secret(opts, tmp_path, monkeypatch):
    path = tmp_path / "second.env"
    lookup = {"files": {"metadata_second": str(path)}}
    states = compiled(opts, "Ubuntu 26.04", lookup=lookup, **SECOND)
    (script,) = [c["contents"] for c in states if str(c["name"]).endswith("_second.wsgi")]
    path.write_text('# a comment\nOS_X="a=\\"b\\" $$ \\\\ #"\n')
    monkeypatch.setenv("OS_X", "")
    exec(script.replace("nova.wsgi.metadata", "os").replace("application", "environ"), found := {})  # noqa: S102
    assert found["os"].environ["OS_X"] == 'a="b" $$ \\ #'


@pytest.mark.parametrize("system", SYSTEMS)
def test_nothing_stays_of_a_second_metadata_api_and_its_secret(opts, system, monkeypatch):
    there = compiled(opts, system, **SECOND)
    kinds = (("file", "managed"), ("nova_conf", "managed"))
    made = {
        c["name"]
        for c in there
        if c["__sls__"] == "nova.controller.metadata" and (c["state"], c["fun"]) in kinds
    }
    apache = {path for path in made if path.endswith(".conf") and "apache" in path + system}
    apache |= {path for path in made if "/httpd/" in path}
    unit = "openstack-nova-metadata-api-second"
    if SYSTEMS[system]["os_family"] == "Debian":
        unit = "nova-api-metadata-second"
    for sls in ("nova.clean", "nova"):
        states = compiled(opts, system, sls, **SECOND if sls == "nova.clean" else {})
        gone = {c["name"] for c in states if (c["state"], c["fun"]) == ("file", "absent")}
        assert made - (set() if sls == "nova.clean" else apache) <= gone
        assert unit in {c["name"] for c in states if c["fun"] == "dead"}
        # What others may have laid into a directory stays.
        assert not [path for path in gone if path.endswith(".service.d")]
    # Apache's site gets empty: that tells Apache, whenever it is, to read it anew.
    readers = [c for c in states if c["fun"] == "running" and apache & {*c.get("reads", [])}]
    assert [c["__id__"] for c in readers] == ["nova-controller-service-api"] * len(apache)
    assert not [c for c in states if c["name"] in apache]
    there = os.path.isfile
    monkeypatch.setattr("os.path.isfile", lambda path: path in apache or there(path))
    states = compiled(opts, system, "nova.controller.metadata")
    (left,) = [c["contents"] for c in states if c["name"] in apache] or ["#"]
    assert left.startswith("#") and "\n" not in left


@pytest.mark.parametrize("system", ["Ubuntu 26.04", "CentOS Stream 10"])
def test_where_apache_serves_from_now_on_the_daemon_of_the_release_before_is_gone(opts, system):
    states = compiled(opts, system, **SECOND)
    (dead,) = [c["name"] for c in states if c["fun"] == "dead" and "second" in c["name"]]
    gone = {c["name"] for c in states if (c["state"], c["fun"]) == ("file", "absent")}
    assert gone == {f"/etc/systemd/system/{dead}.service"}


TLS = {"ca": "/t/ca.pem", "cert": "/t/my.pem", "key": "/t/my.key"}


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_api_is_served_in_tls_as_its_system_does_it(opts, system):
    states = compiled(opts, system, roles=["controller"], tls=TLS)
    files = {c["name"]: c for c in states if (c["state"], c["fun"]) == ("file", "managed")}
    for name, (unit, path, _) in SERVED[system].items():
        if path is None:
            continue
        if unit.startswith(("nova", "placement")):
            text = rendered(files[f"/etc/systemd/system/{unit}.service.d/nova-formula.conf"])
            key = f"/run/credentials/{unit}.service/tls.key"
            assert f"--https-socket 10.20.0.60:{PORTS[name]},/t/my.pem,{key} --ini" in text
            assert "\nLoadCredential=tls.key:/t/my.key\n" in text
        else:
            text = rendered(files[path])
            assert "    SSLEngine on\n    SSLCertificateFile /t/my.pem\n" in text
            assert ("LoadModule ssl_module" in text) == system.startswith("Ubuntu")
    red = SYSTEMS[system]["os_family"] == "RedHat"
    (packages,) = [c["pkgs"] for c in states if c["__id__"] == "nova-controller-package-installed"]
    assert ("mod_ssl" in packages) == red
    asked = {chunk["http"]: chunk["ca"] for chunk in states if chunk.get("http")}
    assert set(asked.values()) == {"/t/ca.pem"}
    assert all(url.startswith("https://10.20.0.60:") for url in asked)


@pytest.mark.parametrize(("system", "unit"), [("Debian 12", "libvirtd"), ("Rocky 9", "virtqemud")])
def test_libvirt_reads_what_qemu_s_displays_are_to_do(opts, system, unit):
    states = compiled(opts, system, "nova.compute", roles=["compute"], tls={"vnc": TLS})
    (block,) = [chunk for chunk in states if chunk["fun"] == "blockreplace"]
    assert block["content"] == (
        'vnc_tls = 1\nvnc_tls_x509_verify = 1\nvnc_tls_x509_cert_dir = "/etc/pki/libvirt-vnc"\n'
    )
    (reader,) = [c for c in states if c["__id__"] == f"nova-compute-service-{unit}"]
    assert (reader["name"], reader["reads"]) == (unit, ["/etc/libvirt/qemu.conf"])
    assert reader["watch_in"] == [{"nova_unit": "nova-compute-service-compute"}]
    plain = compiled(opts, system, "nova.compute", roles=["compute"])
    assert not [chunk for chunk in plain if "qemu" in chunk["__id__"]]


@pytest.mark.parametrize(
    ("system", "forks"),
    [
        ("Debian 13", False),
        ("Debian testing", True),
        ("Ubuntu 24.04", False),
        ("Ubuntu 26.04", True),
        ("Rocky 10", False),
    ],
)
def test_consoles_are_answered_with_a_python_that_starts_processes_anew(opts, system, forks):
    states = compiled(opts, system, "nova.controller.config", roles=["controller"])
    files = {c["name"]: c["contents"] for c in states if "contents" in c}
    drop_in = files.get("/etc/systemd/system/nova-novncproxy.service.d/nova-formula.conf", "")
    found = re.search("^Environment=PYTHONPATH=(.+)$", drop_in, re.MULTILINE)
    assert bool(found) == forks
    if found:
        # As Python 3.14 begins.
        multiprocessing.set_start_method("forkserver", force=True)
        exec(files[f"{found[1]}/usercustomize.py"], {})  # noqa: S102
        assert multiprocessing.get_start_method() == "fork"


def test_libvirt_restarts_once_for_tls_and_before_its_socket_is_looked_at(opts):
    migration = {"live": True, "tls": True}
    given = {"roles": ["compute"], "migration": migration, "my_ip": "10.20.0.80"}
    for system, unit in (("Debian 12", "libvirtd"), ("Rocky 9", "virtproxyd")):
        states = compiled(opts, system, "nova.compute", **given)
        drop_in = f"/etc/systemd/system/{unit}-tls.socket.d/nova-formula.conf"
        (socket,) = [c["contents"] for c in states if c["name"] == drop_in]
        assert "\nListenStream=\nListenStream=10.20.0.80:16514\n" in socket
        (service,) = [c for c in states if c["__id__"] == f"nova-compute-service-{unit}"]
        assert drop_in in service["reads"] and "/etc/pki/CA/cacert.pem" in service["reads"]
        assert ("/etc/libvirt/qemu.conf" in service["reads"]) == (unit == "libvirtd")
        (socket,) = [c for c in states if c["name"] == f"{unit}-tls.socket"]
        assert {"nova_unit": f"nova-compute-service-{unit}"} in socket["require"]
        files = [c["name"] for c in states if (c["state"], c["fun"]) == ("file", "exists")]
        assert "/etc/pki/qemu/client-key.pem" in files
        assert not any("ssh" in str(chunk["name"]) for chunk in states)


MODULAR = [f"virt{driver}d.socket" for driver in ("nodedev", "proxy", "qemu", "secret", "storage")]
LIBVIRT = {"Debian 13": ["libvirtd.socket"], "Rocky 8": ["libvirtd"], "Rocky 9": MODULAR}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("sls", ["nova", "nova.controller.placement"])
def test_what_reads_accounts_restarts_when_they_are_made(opts, system, sls):
    states = {chunk["__id__"]: chunk for chunk in compiled(opts, system, sls)}
    for daemon in ("placement-running", "service-started"):
        if chunk := states.get(f"nova-controller-{daemon}"):
            assert {"sls": "nova.controller.accounts"} in chunk["require"]
    assert "nova-controller-placement-running" in states


@pytest.mark.parametrize("system", LIBVIRT)
def test_nova_compute_waits_for_libvirt_as_its_system_has_it(opts, system):
    states = compiled(opts, system, "nova.compute", roles=["compute"], topology=ELSEWHERE)
    libvirt = {c["__id__"]: c["name"] for c in states if "-libvirt" in c["__id__"]}
    assert sorted(libvirt.values()) == LIBVIRT[system]
    for chunk in states:
        if chunk["__id__"] in libvirt:
            assert {"nova_unit": "nova-compute-service-compute"} in chunk["require_in"]


def test_placement_inside_nova_has_neither_a_database_nor_a_configuration_of_its_own(opts):
    states = compiled(opts, "CentOS 7, Placement in Nova", passwords__database_placement=...)
    names = [str(chunk["name"]) for chunk in states]
    assert "openstack-nova-placement-api" in str([chunk.get("pkgs") for chunk in states])
    assert not {"/etc/placement/placement.conf", "placement_db_synced"} & set(names)
    assert not [c for c in states if c["state"] == "nova_database" and c["name"] == "placement"]
    (unit,) = [c for c in states if c["__id__"] == "nova-controller-placement-running"]
    assert "/etc/nova/nova.conf" in unit["reads"]
    assert {"nova_schema": "nova-controller-schema-api"} in unit["require"]


def test_rows_are_moved_before_placement_has_a_schema_and_a_site_of_its_own(opts):
    topology = {"controller": {"ctl1": "10.20.0.60", "ctl2": "10.20.0.70"}}
    states = compiled(opts, "CentOS 7", roles=["controller"], topology=topology)
    (moved,) = [chunk for chunk in states if chunk["fun"] == "placement_moved"]
    assert moved["silent"] == ["http://10.20.0.60:8778/", "http://10.20.0.70:8778/"]
    assert moved["sites"] == [f"{RDO}nova-placement-api.conf", f"{RDO}placement-api.conf"]
    before = {pair for one in moved["require_in"] for pair in one.items()}
    assert before == {
        ("file", "nova-controller-placement-placement-server"),
        ("nova_schema", "nova-controller-placement-schema"),
    }


SELINUX = {"enabled": True, "enforced": "Permissive"}


@pytest.mark.parametrize(
    ("system", "tools"),
    [("CentOS 7", "policycoreutils-python"), ("Rocky 9", "policycoreutils-python-utils")],
)
def test_selinux_lets_haproxy_and_httpd_do_their_work_where_it_is_on(opts, system, tools):
    opts["grains"]["selinux"] = SELINUX
    states = compiled(opts, system, roles=ROLES, topology=ELSEWHERE)
    packages = {chunk["__sls__"]: chunk["pkgs"] for chunk in states if "pkgs" in chunk}
    assert "openstack-selinux" in packages["nova.controller.package"]
    assert "openstack-selinux" in packages["nova.compute.package"]
    assert packages["nova.haproxy.package"] == ["haproxy", tools]
    (boolean,) = [chunk for chunk in states if chunk["state"] == "selinux"]
    assert (boolean["name"], boolean["value"], boolean["persist"]) == (
        "haproxy_connect_any",
        True,
        True,
    )


@pytest.mark.parametrize("system", ["Debian 12", "Rocky 9"])
def test_where_selinux_is_off_nothing_is_said_of_it(opts, system):
    opts["grains"]["selinux"] = {"enabled": False}
    states = compiled(opts, system, roles=ROLES, topology=ELSEWHERE)
    assert "selinux" not in str([chunk.get("pkgs") for chunk in states])
    assert not [chunk for chunk in states if chunk["state"] == "selinux"]


OPEN = {
    "controller": ["6080/tcp", "8774/tcp", "8775/tcp", "8778/tcp"],
    "compute": ["5900-6923/tcp"],
    "haproxy": ["6080/tcp", "8774/tcp", "8778/tcp"],
}


@pytest.mark.parametrize("role", ROLES)
def test_firewalld_opens_the_ports_of_a_role(opts, role):
    pillar = {"roles": [role], "topology": ELSEWHERE}
    states = compiled(opts, "Rocky 9", firewall={"enabled": True, "zone": "internal"}, **pillar)
    (ports,) = [chunk for chunk in states if chunk["state"] == "nova_firewall"]
    assert (ports["name"], ports["ports"]) == ("internal", OPEN[role])
    states = compiled(opts, "Rocky 9", firewall={"enabled": False}, **pillar)
    assert not [chunk for chunk in states if chunk["state"] == "nova_firewall"]


@pytest.mark.parametrize("system", ["Ubuntu 26.04", "CentOS 7"])
def test_clean_takes_the_web_servers_away_and_spares_a_shared_apache(opts, system):
    states = compiled(opts, system, "nova.clean")
    gone = {chunk["name"] for chunk in states if chunk["fun"] == "absent"}
    assert {path for _, path, _ in SERVED[system].values() if path} <= gone
    stopped = {chunk["name"] for chunk in states if chunk["fun"] == "dead"}
    assert not stopped & {"apache2", "httpd"}
    assert [c["name"] for c in states if c.get("reload")] == [SERVED[system]["placement"][0]]


def test_the_seed_s_repositories_are_set_up_before_the_packages(opts):
    stein = {
        "humanname": "CentOS-7 - OpenStack stein",
        "baseurl": "https://mirrors.aliyun.com/centos/7/cloud/x86_64/openstack-stein/",
        "gpgcheck": 1,
        "gpgkey": "file:///etc/pki/rpm-gpg/RPM-GPG-KEY-CentOS-SIG-Cloud",
        "exclude": "sip,PyQt4",
        "priority": 10,
    }
    virt = {
        "name": "Virt",
        "humanname": "CentOS-$releasever - Base",
        "mirrorlist": "http://mirrorlist.centos.org/?release=7&arch=x86_64&repo=virt",
        "gpgcheck": 0,
    }
    repositories = {"openstack-stein": stein, "virt": virt}
    states = compiled(opts, "CentOS 7", "nova.packages", repositories=repositories)
    made = [(c["state"], c["fun"], c["name"]) for c in states if c["state"] != "test"]
    assert made == [
        ("pkgrepo", "managed", "openstack-stein"),
        ("pkgrepo", "managed", "Virt"),
        ("nova_package", "installed", "nova-controller-package-installed"),
        ("nova_package", "installed", "nova-compute-package-installed"),
    ]
    for given in (stein, virt):
        (chunk,) = [c for c in states if c.get("humanname") == given["humanname"]]
        assert {key: chunk[key] for key in given} == given


BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/repositories.md").read_text(), re.S)
EXAMPLES = {}
for block in BLOCKS:
    EXAMPLES.update(yaml.safe_load(block)["nova"]["repositories"])


@pytest.mark.parametrize(
    ("system", "names"),
    [
        ("Ubuntu 24.04, cloud archive", {"cloud-archive"}),
        ("CentOS 7", EXAMPLES.keys() - {"cloud-archive"}),
    ],
)
def test_repositories_of_the_docs_are_set_up_where_they_belong_and_signed(opts, system, names):
    states = compiled(opts, system, "nova.repository", repositories=EXAMPLES)
    made = {
        chunk["__id__"].removeprefix("nova-repository-"): chunk
        for chunk in states
        if chunk["state"] == "pkgrepo"
    }
    assert made.keys() == names
    for name, chunk in made.items():
        given = EXAMPLES[name]
        assert {key: chunk[key] for key in given} == given
        if "baseurl" in given:
            assert (chunk["gpgcheck"], chunk["gpgkey"][:8]) == (1, "https://")
        else:
            assert "signed-by=" in chunk["name"] and chunk["key_url"].startswith("https://")


def keepalived(text, **pillar):
    """What the balancer's template makes of a pillar."""
    template = text.partition("-%}")[2]
    nova = run_map(changed("lb1", **{**PAIR, **pillar}), "lb1")
    return jinja2.Template(template, undefined=jinja2.StrictUndefined).render(nova=nova)


def test_balancers_speak_vrrp_to_each_other_with_a_password_where_its_version_has_one():
    text = (ROOT / "nova/files/keepalived.conf.jinja").read_text()
    words = keepalived(text).split()
    assert words[words.index("auth_pass") + 1] == "s3cr.t"
    assert words[words.index("unicast_peer") + 2] == "10.20.0.42"
    third = keepalived(text, haproxy__keepalived={**PAIR["haproxy__keepalived"], "version": 3})
    assert "vrrp_version 3" in third and "auth_" not in third
    alone = keepalived(text, topology__haproxy={"lb1": "10.20.0.41"})
    assert "unicast" not in alone and alone.count("{") == alone.count("}")


@pytest.mark.parametrize(("system", "checked"), [("CentOS 7", False), ("Rocky 9", True)])
def test_the_vip_goes_to_a_balancer_that_listens_on_it(opts, system, checked):
    pair = {"roles": ["haproxy"], "topology": {**ELSEWHERE, "haproxy": PAIR["topology__haproxy"]}}
    pair |= {key: value for key, value in PAIR.items() if key != "topology__haproxy"}
    states = {chunk["__id__"]: chunk for chunk in compiled(opts, system, **pair)}
    order = [
        f"nova-haproxy-{state}"
        for state in ("keepalived-bind-allowed", "service-running", "keepalived-running")
    ]
    bind, haproxy, vip = (states[name] for name in order)
    assert {"nova_unit": order[1]} in bind["require_in"]
    assert {"sls": "nova.haproxy.service"} in vip["require"]
    conf = states["nova-haproxy-keepalived-conf"]
    assert (conf["mode"], conf["user"], "checker" in conf) == ("0600", "root", checked)
    assert "s3cr.t" not in str(states)
    gone = compiled(opts, system, "nova.clean", **pair)
    assert [c["name"] for c in gone if c["fun"] == "dead"] == ["keepalived"]


def test_a_rollout_goes_from_one_controller_to_the_next_only_when_all_was_well(opts):
    opts["pillar"] = {"nova": {"topology": {
        "controller": {"ctl1": "10.20.0.60", "ctl2": "10.20.0.70"},
        "haproxy": PAIR["topology__haproxy"],
    }}}
    states = load(opts)[1]["state.show_low_sls"]("nova.orchestrate.rolling")
    steps = [
        (c["tgt"], c["sls"], c.get("pillar", {}).get("nova_drained", c.get("test"))) for c in states
    ]
    balancers = ["lb1", "lb2"]
    assert steps == [
        ("ctl1", "nova", True),
        (balancers, "nova.haproxy.drained", ["ctl1"]),
        ("ctl1", "nova", None),
        ("ctl2", "nova", True),
        (balancers, "nova.haproxy.drained", ["ctl2"]),
        ("ctl2", "nova", None),
        (balancers, "nova.haproxy.drained", []),
    ]
    for before, step in itertools.pairwise(states):
        after = [*step.get("require", []), *step.get("onchanges", [])]
        assert {"salt": before["__id__"]} in after
    # A controller with nothing to do is not drained, and stays as it is.
    for step in states:
        if not step.get("test") and step["__id__"] != "nova-orchestrate-rolling-all-ready":
            (controller,) = step.get("pillar", {}).get("nova_drained", [step["tgt"]])
            due = f"nova-orchestrate-rolling-{controller}-due"
            assert step["onchanges"] == [{"salt": due}]


def test_warnings_reach_the_operator_and_change_nothing(opts):
    states = compiled(opts, "CentOS 7", config={"vnc": {"vncserver_listen": "192.0.2.1"}})
    (state,) = [chunk for chunk in states if chunk["__id__"] == "nova-pillar-warnings"]
    assert (state["result"], state["changes"]) == (True, False)
    assert state["warnings"] == ["nova:config:vnc:vncserver_listen is an old name: "
                                 "say [vnc] server_listen."]


def test_a_run_makes_its_map_once_though_states_have_the_pillar_as_a_copy(opts):
    modules, maps = load(opts)[1], []
    for release in ("zed", "zed", "yoga"):
        done = salt.utils.templates.JINJA(
            "{% from 'nova/map.jinja' import nova with context %}{{ nova.release.name }}",
            from_str=True,
            to_str=True,
            salt=modules,
            pillar={"nova": changed(release=release)},
            **{"opts": opts, "grains": opts["grains"], "saltenv": "base", "sls": ""},
        )
        assert done["result"], done["data"]
        maps.append(modules.pack["__context__"]["nova.map"])
    assert maps[0] is maps[1] is not maps[2]


def compiled(opts, system, sls="nova", **pillar):
    """All states of a node of a system: of one with the daemons of both roles, by default."""
    opts["grains"].update(grains_of(system), num_cpus=4)
    node = {
        "roles": ["controller", "compute"],
        "topology": {},
        "my_ip": "10.20.0.60",
        "virt_type": "qemu",
        "threads": 3,
        "placement_in_nova": system.endswith("Placement in Nova"),
        **pillar,
    }
    opts["pillar"] = {"nova": changed(release=SYSTEMS[system].get("release", ...), **node)}
    _, modules, _ = load(opts)
    chunks = modules["state.show_low_sls"](sls)
    assert all(isinstance(chunk, dict) for chunk in chunks), chunks
    return chunks


def rendered(state):
    """The text of a managed file."""
    template = (ROOT / state["source"].removeprefix("salt://")).read_text()
    return jinja2.Template(template, undefined=jinja2.StrictUndefined).render(state["context"])
