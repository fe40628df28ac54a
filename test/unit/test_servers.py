"""
All states of a node compile on every distribution, and serve the APIs by the web server that the
distribution and its release have, each on its own address.
"""

import jinja2
import pytest
from conftest import ROOT, load
from test_map import changed

# Family, name, release, and the OpenStack release where the system has no default.
SYSTEMS = {
    "Debian 12": ("Debian", "Debian", "12", ...),
    "Debian 13": ("Debian", "Debian", "13", ...),
    "Ubuntu 24.04": ("Debian", "Ubuntu", "24.04", ...),
    "Ubuntu 26.04": ("Debian", "Ubuntu", "26.04", ...),
    "CentOS 7": ("RedHat", "CentOS", "7", ...),
    "Rocky 9": ("RedHat", "Rocky", "9", ...),
    "CentOS 10": ("RedHat", "CentOS Stream", "10", "2026.1"),
}
UWSGI = {
    "api": "/etc/nova/nova-api-uwsgi.ini",
    "metadata": "/etc/nova/nova-api-metadata-uwsgi.ini",
    "placement": "/etc/placement/placement-api-uwsgi.ini",
}
UBUNTU = "/etc/apache2/sites-enabled/"
CENTOS = "/etc/httpd/conf.d/00-"
SERVED = {  # system: {daemon: (unit, its web server's file, what that runs)}
    "Debian 12": {
        "api": ("nova-api", UWSGI["api"], "wsgi-file = /usr/bin/nova-api-wsgi"),
        "metadata": ("nova-api-metadata", UWSGI["metadata"], "wsgi-file = /usr/bin/nova-metadata-"),
        "placement": ("placement-api", UWSGI["placement"], "wsgi-file = /usr/bin/placement-api"),
    },
    "Debian 13": {
        "api": ("nova-api", UWSGI["api"], "module = nova.wsgi.osapi_compute:application"),
        "metadata": ("nova-api-metadata", UWSGI["metadata"], "module = nova.wsgi.metadata:app"),
        "placement": ("placement-api", UWSGI["placement"], "module = placement.wsgi.api:app"),
    },
    "Ubuntu 24.04": {
        "api": ("nova-api", None, None),
        "placement": ("apache2", f"{UBUNTU}placement-api.conf", "/ /usr/bin/placement-api\n"),
    },
    "Ubuntu 26.04": {
        "api": ("apache2", f"{UBUNTU}nova-api.conf", "/ /usr/local/lib/nova-formula/api.wsgi"),
        "metadata": ("apache2", f"{UBUNTU}nova-api-metadata.conf", "nova-formula/metadata.wsgi"),
        "placement": ("apache2", f"{UBUNTU}placement-api.conf", "nova-formula/placement.wsgi"),
    },
    "CentOS 7": {
        "api": ("openstack-nova-api", None, None),
        "consoleauth": ("openstack-nova-consoleauth", None, None),
        "placement": ("httpd", f"{CENTOS}placement-api.conf", "/ /usr/bin/placement-api\n"),
    },
    "Rocky 9": {
        "api": ("openstack-nova-api", None, None),
        "placement": ("httpd", f"{CENTOS}placement-api.conf", "nova-formula/placement.wsgi"),
    },
    "CentOS 10": {
        "api": ("httpd", f"{CENTOS}nova-api.conf", "nova-formula/api.wsgi"),
        "metadata": ("httpd", f"{CENTOS}nova-api-metadata.conf", "nova-formula/metadata.wsgi"),
        "placement": ("httpd", f"{CENTOS}placement-api.conf", "nova-formula/placement.wsgi"),
    },
}
PORTS = {"api": 8774, "metadata": 8775, "placement": 8778}


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


def test_warnings_reach_the_operator_and_change_nothing(opts):
    states = compiled(opts, "CentOS 7", config={"vnc": {"vncserver_listen": "192.0.2.1"}})
    (state,) = [chunk for chunk in states if chunk["__id__"] == "nova-pillar-warnings"]
    assert (state["result"], state["changes"]) == (True, False)
    assert state["warnings"] == ["nova:config:vnc:vncserver_listen is an old name: "
                                 "say [vnc] server_listen."]


def compiled(opts, system, sls="nova", **pillar):
    """All states of a single node of a system."""
    family, name, version, release = SYSTEMS[system]
    opts["grains"].update(
        os_family=family,
        os=name,
        osrelease=version,
        osmajorrelease=int(version.split(".")[0]),
        num_cpus=4,
    )
    node = {"roles": ["controller", "compute"], "my_ip": "10.20.0.60", "virt_type": "qemu"}
    opts["pillar"] = {"nova": changed(release=release, topology=..., threads=3, **node, **pillar)}
    _, modules, _ = load(opts)
    chunks = modules["state.show_low_sls"](sls)
    assert isinstance(chunks[0], dict), chunks
    return chunks


def rendered(state):
    """The text of a managed file."""
    template = (ROOT / state["source"].removeprefix("salt://")).read_text()
    return jinja2.Template(template, undefined=jinja2.StrictUndefined).render(state["context"])
