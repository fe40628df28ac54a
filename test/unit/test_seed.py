"""
What a site gets that writes the seed's deployment as a pillar is what the seed's guide shows; where
the guide errs, a table says how the formula differs, and why.
"""

import configparser

import pytest
import yaml
from conftest import ROOT, load
from test_map import run_map
from test_servers import rendered

SEED = yaml.safe_load((ROOT / "test/unit/seed.yaml").read_text())
CENTOS = {"os_family": "RedHat", "os": "CentOS", "osrelease": "7.6.1810", "osmajorrelease": 7}
UBUNTU = {"os_family": "Debian", "os": "Ubuntu", "osrelease": "18.04", "osmajorrelease": 18}
HOSTS = {
    "OpenStack1": CENTOS,
    "OpenStack2": CENTOS,
    "note1": {**CENTOS, "ipv4": ["127.0.0.1", "10.20.0.80"]},
    "LB1": UBUNTU,
}
UNIT = ("nova_unit", "running")
NODES = {"controller": "OpenStack1", "compute": "note1"}

# Options that differ on purpose: the guide's section and name, what the formula writes, and why.
KEYSTONE = "http://openstack-vip.qh.com:5000/v3"
DOMAIN = "Default is the domain's name; default is its id, which Keystone takes for the name."
DIFFERENCES = {
    "DEFAULT.transport_url": (
        "DEFAULT.transport_url",
        "rabbit://openstack:openstack123@rabbitmq.qh.com:5672/",
        "The same place, with port and vhost written out.",
    ),
    "api_database.connection": (
        "api_database.connection",
        "mysql+pymysql://nova:nova123@openstack-vip.qh.com:3306/nova_api?charset=utf8",
        "The same place, with the character set that nova wants.",
    ),
    "database.connection": (
        "database.connection",
        "mysql+pymysql://nova:nova123@openstack-vip.qh.com:3306/nova?charset=utf8",
        "The same place, with the character set that nova wants.",
    ),
    "keystone_authtoken.auth_uri": (
        "keystone_authtoken.www_authenticate_uri",
        KEYSTONE,
        "auth_uri is an old name that keystonemiddleware is about to drop.",
    ),
    "keystone_authtoken.auth_url": (
        "keystone_authtoken.auth_url",
        KEYSTONE,
        "Keystone has no port 35357 of its own since Queens; one URL serves all.",
    ),
    "placement.auth_url": (
        "placement.auth_url",
        KEYSTONE,
        "Keystone has no port 35357 of its own since Queens; one URL serves all.",
    ),
    "keystone_authtoken.project_domain_name": (
        "keystone_authtoken.project_domain_name",
        "Default",
        DOMAIN,
    ),
    "keystone_authtoken.user_domain_name": (
        "keystone_authtoken.user_domain_name",
        "Default",
        DOMAIN,
    ),
    "vnc.vncserver_listen": (
        "vnc.server_listen",
        "0.0.0.0",
        "vncserver_listen is an old name, gone in Xena.",
    ),
    "placement.os_region_name": (
        "placement.region_name",
        "RegionOne",
        "Nova reads os_region_name no more since Rocky: the guide's Stein ignores it.",
    ),
    "vnc.vncserver_proxyclient_address": (
        "vnc.server_proxyclient_address",
        {"controller": "10.20.0.60", "compute": "10.20.0.80"},
        "On controllers the guide names the VIP, which is the balancer: the proxy's own address is "
        "meant. On compute nodes it says node1, of a host that it calls note1.",
    ),
    "compute DEFAULT.enabled_apis": (None, None, "No API runs on a compute node."),
}
ONLY = {
    "api_database.connection": ["controller"],
    "database.connection": ["controller"],
    "compute DEFAULT.enabled_apis": ["compute"],
}
# What else differs: the guide's words, and why they are not the formula's.
ERRORS = {
    "http:// openstack-vip.qh.com :8778": "An URL with blanks, which Keystone stores as it is.",
    "http://openstack-vip.net:8774/v2.1": "The lists show .net where .com was created: one name "
    "has to serve all, as nova:vip does.",
    "server 10.20.0.60 ": "A server's name in haproxy's statistics is the controller's, not its "
    "address once more.",
    "centos-openstack-ocata": "The repository is Stein's under the name of Ocata; any name does.",
    "gpgcheck: 0": "Packages of [Virt] come unsigned over HTTP; that, too, is the pillar's to say.",
}


@pytest.fixture
def states(opts):
    """All states of one of the seed's hosts."""

    def of(minion_id):
        pillar = {"nova": SEED["pillar"]}
        grains = {"id": minion_id, "num_cpus": 2, "nova_host": {"virt_type": "kvm"}}
        here = {
            **opts,
            "id": minion_id,
            "grains": {**grains, **HOSTS[minion_id]},
            "pillar": pillar,
            "__cli": "salt-call",
        }
        chunks = load(here)[1]["state.show_low_sls"]("nova")
        assert all(isinstance(chunk, dict) for chunk in chunks), chunks
        return chunks

    return of


@pytest.mark.parametrize("role", NODES)
def test_nova_conf_has_every_option_of_the_guide(role):
    nova = run_map(SEED["pillar"], NODES[role], **HOSTS[NODES[role]])
    assert (nova["faults"], nova["warnings"]) == ([], [])
    ours = {
        f"{section}.{option}": plain(values[0])
        for section, options in nova["conf"]["nova"].items()
        for option, values in options.items()
    }
    guide = configparser.RawConfigParser(default_section="none", strict=True)
    guide.read_string(SEED["nova.conf"][role])
    used = set()
    for section in guide.sections():
        for option, value in guide.items(section):
            name = f"{section}.{option}"
            known = {name, f"{role} {name}"} & DIFFERENCES.keys()
            if not known:
                assert ours.get(name) == plain(value), name
                continue
            used |= known
            there, wanted, _ = DIFFERENCES[known.pop()]
            assert ours.get(there) == (wanted[role] if isinstance(wanted, dict) else wanted), name
            if there != name:
                assert name not in ours
    assert used == {key for key in DIFFERENCES if role in ONLY.get(key, NODES)}


def plain(value):
    return value.lower() if value == "True" else value


@pytest.mark.parametrize(("role", "host"), NODES.items())
def test_packages_and_units_are_those_of_the_guide(states, role, host):
    chunks = states(host)
    (packages,) = [chunk["pkgs"] for chunk in chunks if chunk["state"] == "nova_package"]
    assert sorted(packages) == sorted(SEED["packages"][role])
    units = [chunk["name"] for chunk in chunks if (chunk["state"], chunk["fun"]) == UNIT]
    assert sorted(units) == sorted(SEED["units"][role])
    repositories = {c["name"]: c for c in chunks if c["state"] == "pkgrepo"}
    assert repositories.keys() == SEED["repositories"].keys()
    for name, options in SEED["repositories"].items():
        assert {key: repositories[name][key] for key in options} == options


def test_the_database_has_the_guide_s_accounts_and_grants(states):
    chunks = [c for c in states("OpenStack1") if c["state"] == "nova_database"]
    made = [chunk["name"] for chunk in chunks if chunk["fun"] == "present"]
    assert sorted(made) == sorted(SEED["grants"]["nova"])
    users = {c["name"]: (c["hosts"], c["grants"]) for c in chunks if c["fun"] == "user_present"}
    assert users == {"nova": (["%"], dict.fromkeys(SEED["grants"]["nova"], "ALL PRIVILEGES"))}


def test_keystone_has_the_guide_s_users_services_and_endpoints(states):
    chunks = [c for c in states("OpenStack1") if c["state"] == "nova_identity"]
    roles = {c["name"]: c["roles"] for c in chunks if c["fun"] == "role_assigned"}
    assert roles == SEED["accounts"]
    services = {c["name"]: (c["type"], c["description"]) for c in chunks if "description" in c}
    assert services == {
        "nova": ("compute", "OpenStack Compute"),
        "placement": ("placement", "Placement API"),
    }
    urls = {(c["service_name"], c["interface"]): c["url"] for c in chunks if "url" in c}
    assert SEED["endpoints"]["placement"] in ERRORS and SEED["endpoints"]["listed"] in ERRORS
    assert urls == {
        (service, interface): SEED["endpoints"][service].replace(" ", "")
        for service in ("nova", "placement")
        for interface in ("public", "internal", "admin")
    }
    assert {c["region"] for c in chunks if "url" in c} == {"RegionOne"}


def test_the_balancer_has_the_guide_s_sections_though_it_is_of_another_family(states):
    chunks = states("LB1")
    (sections,) = [c["sections"] for c in chunks if c["fun"] == "sections_present"]
    console = ["timeout client 1h", "timeout server 1h", "timeout tunnel 1h"]
    text = ""
    for name in sorted(sections, key=SEED["haproxy"].index):
        lines = [line for line in sections[name] if line not in console]
        text += "\n  ".join([f"listen {name}", *lines]) + "\n\n"
    guide = SEED["haproxy"]
    for minion_id, address in SEED["pillar"]["topology"]["controller"].items():
        guide = guide.replace(f"server {address} ", f"server {minion_id} ")
    assert text.strip() == guide.strip()
    # A console that says nothing for a minute would be cut off.
    assert set(console) <= set(sections["openstack_nova_port_6080"])
    assert [chunk["pkgs"] for chunk in chunks if "pkgs" in chunk] == [["haproxy"]]
    # The repositories of the site's CentOS hosts are none of this one's.
    assert not [chunk for chunk in chunks if chunk["state"] == "pkgrepo"]


def test_httpd_may_run_placement_as_the_guide_lets_it(states):
    (site,) = [
        chunk
        for chunk in states("OpenStack1")
        if chunk["name"] == "/etc/httpd/conf.d/00-nova-placement-api.conf"
    ]
    text = rendered(site)
    assert "WSGIScriptAlias / /usr/bin/nova-placement-api\n" in text
    granted = " ".join(text.split("<Directory")[1].split())
    assert granted.startswith("/usr/bin> Require all granted </Directory>")
    # CentOS 7 has 2.4 alone, so the guide's rule for 2.2 says nothing.
    assert "Require all granted" in SEED["httpd"].split("<IfVersion < 2.4>")[0]


@pytest.mark.parametrize("words", ERRORS)
def test_an_error_of_the_guide_is_where_the_table_finds_it(words):
    assert words in (ROOT / "test/unit/seed.yaml").read_text()
