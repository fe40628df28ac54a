"""The map: roles, derived data, rendered options, and every fault of a bad pillar by its key."""

import copy
import importlib.util
import re
import stat
import sys
import tempfile
from pathlib import Path

import pytest
import salt.config
import salt.fileclient
import yaml
from conftest import ROOT
from jinja2 import Environment

GRAINS = {
    "os_family": "Debian",
    "osmajorrelease": 12,
    "num_cpus": 2,
    "ipv4": ["127.0.0.1", "10.20.0.80"],
    "nova_host": {"virt_type": "qemu"},
}


CACHE = tempfile.TemporaryDirectory()


def example(minion_id):
    """pillar.example as Salt would render it for a minion."""
    text = Environment().from_string((ROOT / "pillar.example").read_text())
    return yaml.safe_load(text.render(opts={"id": minion_id}))["nova"]


def map_module(pillar, minion_id="ctl1", **grains):
    """nova/map.py with the names that Salt's renderer gives it."""
    spec = importlib.util.spec_from_file_location("nova_map", ROOT / "nova" / "map.py")
    module = importlib.util.module_from_spec(spec)
    module.__pillar__ = {"nova": pillar}
    module.__grains__ = {**GRAINS, "id": minion_id, **grains}
    module.__opts__ = {"cachedir": CACHE.name}
    path = lambda url: ROOT / url.removeprefix("salt://")  # noqa: E731
    module.__salt__ = {
        "cp.cache_file": lambda url: str(path(url)),
        "cp.get_file_str": lambda url: path(url).read_text(),
        "cp.hash_file": lambda url: {"hsum": "…"} if path(url).exists() else {},
        "sdb.get": lambda uri: f"value of {uri}",
    }
    spec.loader.exec_module(module)
    return module


def run_map(pillar, minion_id="ctl1", **grains):
    return map_module(pillar, minion_id, **grains).run()


def changed(minion_id="ctl1", **changes):
    """pillar.example with some keys replaced; a dotted key goes deeper, ... removes."""
    pillar = copy.deepcopy(example(minion_id))
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        here = pillar
        for part in parents:
            here = here.setdefault(part, {})
        if value is ...:
            del here[last]
        else:
            here[last] = value
    return pillar


@pytest.mark.parametrize(
    ("minion_id", "roles"),
    [
        ("ctl1", ["controller"]),
        ("ctl2", ["controller"]),
        ("lb1", ["haproxy"]),
        ("cmp7", ["compute"]),
        ("db1", []),
    ],
)
def test_the_example_is_right_and_gives_each_minion_its_roles(minion_id, roles):
    nova = run_map(example(minion_id), minion_id)
    assert (nova["faults"], nova["roles"]) == ([], roles)


def test_a_pillar_that_was_right_is_not_judged_again_and_any_other_is(monkeypatch):
    pillar = changed(vip="10.20.0.99")
    assert run_map(pillar)["faults"] == []
    right = Path(CACHE.name) / "nova-formula-right-ctl1"
    assert stat.S_IMODE(right.stat().st_mode) == 0o600
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    assert run_map(copy.deepcopy(pillar))["faults"] == []
    for other in (changed(vip="10.20.0.98"), changed(vip=10)):
        assert "jsonschema is missing" in run_map(other)["faults"][0]
    monkeypatch.undo()
    assert "nova:vip must be" in run_map(changed(vip=10))["faults"][0]
    # What is wrong is wrong again.
    assert "nova:vip must be" in run_map(changed(vip=10))["faults"][0]


def test_a_single_node_names_its_own_roles():
    pillar = changed(topology=..., roles=["compute", "controller"])
    assert run_map(pillar)["roles"] == ["controller", "compute"]


def test_discovery_waits_for_a_single_node_itself():
    pillar = changed(topology={}, roles=["controller", "compute"])
    assert run_map(pillar, nodename="one")["topology"]["expected_computes"] == ["one"]
    assert run_map(changed(roles=["controller"]))["topology"]["expected_computes"] == [
        "cmp1",
        "cmp2",
    ]
    pillar["roles"] = ["controller"]
    assert run_map(pillar, nodename="one")["topology"]["expected_computes"] == []


def test_a_compute_node_needs_and_renders_no_controller_secret():
    pillar = example("cmp1")
    assert not {"database_nova", "keystone_admin", "database_admin"} & set(pillar["passwords"])
    conf = run_map(pillar, "cmp1")["conf"]["nova"]
    assert "api_database" not in conf and "database" not in conf
    assert conf["libvirt"]["virt_type"] == ["qemu"]
    assert conf["vnc"]["server_proxyclient_address"] == ["10.20.0.80"]


def test_passwords_are_encoded_in_urls_and_escaped_for_oslo_config():
    password = "p@s/s%$w:o#r'd\""
    pillar = changed(
        passwords__database_nova=password,
        passwords__messaging=password.replace("/", ""),
        passwords__keystone_nova=password,
    )
    conf = run_map(pillar)["conf"]["nova"]
    encoded = "p%40s%2Fs%25%24w%3Ao%23r%27d%22"
    assert conf["database"]["connection"] == [
        f"mysql+pymysql://nova:{encoded}@openstack-vip.example.org:3306/nova?charset=utf8"
    ]
    assert conf["DEFAULT"]["transport_url"] == [
        f"rabbit://openstack:{encoded.replace('%2F', '')}@rabbitmq.example.org:5672/"
    ]
    assert conf["service_user"]["password"] == [password.replace("$", "$$")]


@pytest.mark.parametrize(("vhost", "path"), [("/", ""), ("nova", "nova"), ("/n/a", "%2Fn%2Fa")])
def test_a_virtual_host_is_named_as_rabbitmq_has_it(vhost, path):
    conf = run_map(changed(messaging__vhost=vhost))["conf"]["nova"]
    assert conf["DEFAULT"]["transport_url"][0].endswith(f"@rabbitmq.example.org:5672/{path}")


CA, CERT, KEY = (f"/etc/ssl/nova/{name}.pem" for name in ("ca", "cert", "key"))


def test_database_and_messaging_talk_tls_where_they_have_a_ca():
    pillar = changed(
        database__tls={"ca": CA, "cert": CERT, "key": "/etc/a+b/key"}, messaging__tls={"ca": CA}
    )
    nova = run_map(pillar)
    conf = nova["conf"]["nova"]
    for option in (conf["api_database"], nova["conf"]["placement"]["placement_database"]):
        assert option["connection"][0].endswith(
            "?charset=utf8&ssl_ca=%2Fetc%2Fssl%2Fnova%2Fca.pem"
            "&ssl_cert=%2Fetc%2Fssl%2Fnova%2Fcert.pem&ssl_key=%2Fetc%2Fa%2Bb%2Fkey"
        )
    assert conf["DEFAULT"]["transport_url"][0].endswith("@rabbitmq.example.org:5671/")
    assert conf["oslo_messaging_rabbit"] == {"ssl": ["true"], "ssl_ca_file": [CA]}
    files = {"ssl_ca": CA, "ssl_cert": CERT, "ssl_key": "/etc/a+b/key"}
    assert nova["database_admin"].items() >= files.items()
    assert nova["tls_files"] == {
        "messaging-tls-ca": CA,
        "database-tls-ca": CA,
        "database-tls-cert": CERT,
        "database-tls-key": "/etc/a+b/key",
    }
    assert set(files.values()) <= set(nova["reads"]["nova"])
    assert set(files.values()) <= set(nova["reads"]["placement"])


@pytest.mark.parametrize("release", ["stein", "zed", "2026.2"])
def test_tokens_in_memcached_are_encrypted_where_there_is_a_secret(release):
    pillar = changed(release=release, passwords__memcached="a$b")
    given = {"memcache_security_strategy": ["ENCRYPT"], "memcache_secret_key": ["a$$b"]}
    for conf in run_map(pillar)["conf"]["nova"], run_map(pillar)["conf"]["placement"]:
        assert conf["keystone_authtoken"].items() >= given.items()
    plain = run_map(changed(release=release))["conf"]["nova"]["keystone_authtoken"]
    assert not given.keys() & plain.keys()
    # Who keeps no tokens needs no secret, though its pillar has it.
    elsewhere = run_map(changed("cmp1", **{"passwords__memcached": "a$b"}), "cmp1")["conf"]["nova"]
    assert not given.keys() & elsewhere["keystone_authtoken"].keys()


def test_memcached_is_asked_in_tls_by_controllers_of_releases_that_can():
    tls = {"ca": CA, "cert": CERT, "key": KEY}
    nova = run_map(changed(release="2025.2", keystone__memcached_tls=tls))
    for program in ("nova", "placement"):
        assert nova["conf"][program]["keystone_authtoken"].items() >= {
            "memcache_tls_enabled": ["true"],
            "memcache_tls_cafile": [CA],
            "memcache_tls_certfile": [CERT],
            "memcache_tls_keyfile": [KEY],
        }.items()
        assert {CA, CERT, KEY} <= {*nova["reads"][program]}
    assert list(nova["tls_files"].values()) == [CA, CERT, KEY]
    compute = run_map(changed("cmp1", release="2025.2", keystone__memcached_tls=tls), "cmp1")
    assert "memcache_tls_enabled" not in compute["conf"]["nova"]["keystone_authtoken"]
    assert compute["tls_files"] == {}


def test_a_compute_node_has_the_files_of_messaging_alone():
    pillar = changed("cmp1", messaging__tls={"ca": CA, "cert": CERT, "key": KEY})
    nova = run_map(pillar, "cmp1")
    assert list(nova["tls_files"].values()) == [CA, CERT, KEY]
    assert nova["reads"]["nova"][-3:] == [CA, CERT, KEY]
    assert CA not in nova["reads"]["placement"]
    assert run_map(changed("lb1", messaging__tls={"ca": CA}), "lb1")["tls_files"] == {}


def test_a_cell_of_its_own_account_has_the_sites_tls_where_it_names_none():
    cells = {
        "own": {"database": {"host": "b", "user": "u"}, "messaging": {"hosts": ["c"]}},
        "other": {
            "database": {"host": "b", "user": "u", "ssl_ca": "/other"},
            "messaging": {"hosts": ["d"], "port": 1},
        },
        "follower": {"database": {"host": "b"}, "messaging": {"vhost": "v"}},
    }
    secrets = {name: {"database": "x"} for name in cells}
    tls = {"database__tls": {"ca": CA}, "messaging__tls": {"ca": CA}}
    made = run_map(changed(cells=cells, passwords__cells=secrets, **tls))["cells"]
    assert [made[name]["database"].get("ssl_ca") for name in cells] == [CA, "/other", None]
    assert [made[name]["messaging"].get("port") for name in cells] == [5671, 1, None]
    plain = run_map(changed(cells=cells, passwords__cells=secrets))["cells"]
    assert "ssl_ca" not in plain["own"]["database"] and "port" not in plain["own"]["messaging"]


def test_a_certificate_needs_its_key_and_both_a_ca():
    pillar = changed(database__tls={"ca": CA, "cert": CERT}, messaging__tls={"key": KEY})
    assert run_map(pillar)["faults"] == [
        "nova:database:tls must be a mapping of ca, and of cert and key or neither.",
        "nova:messaging:tls must be a mapping of ca, and of cert and key or neither.",
        "nova:messaging:tls:ca is missing.",
    ]


SERVED = {"ca": CA, "cert": CERT, "key": KEY}


def test_the_apis_talk_tls_from_the_client_to_the_controller():
    tls = {**SERVED, "vip": "/etc/haproxy/vip.pem"}
    nova = run_map(changed(tls=tls))
    assert set(nova["urls"].values()) == {
        f"https://openstack-vip.example.org:{port}" for port in (6080, 8774, 8775, 8778)
    }
    assert all(endpoint["url"].startswith("https://") for endpoint in nova["endpoints"])
    assert (nova["server_scheme"], nova["auth"]["cacert"]) == ("https", CA)
    conf = nova["conf"]["nova"]
    for section in ("keystone_authtoken", "service_user", "placement", "neutron", "glance"):
        assert conf[section]["cafile"] == [CA]
    assert conf["DEFAULT"]["enabled_ssl_apis"] == ["osapi_compute,metadata"]
    assert (conf["DEFAULT"]["cert"], conf["DEFAULT"]["ssl_only"]) == ([CERT], ["true"])
    assert conf["wsgi"] == {"ssl_cert_file": [CERT], "ssl_key_file": [KEY]}
    assert nova["tls_files"] == {"tls-ca": CA, "tls-cert": CERT, "tls-key": KEY}
    assert {CERT, KEY} <= {*nova["reads"]["api"]} & {*nova["reads"]["placement"]}
    assert CERT not in nova["reads"]["nova"]
    compute = run_map(changed("cmp1", tls=tls), "cmp1")
    assert compute["tls_files"] == {"tls-ca": CA}
    assert compute["conf"]["nova"]["vnc"]["novncproxy_base_url"][0].startswith("https://")
    assert "cert" not in compute["conf"]["nova"]["DEFAULT"]
    balancer = run_map(changed("lb1", tls=tls), "lb1")
    assert balancer["balancer_reads"] == ["/etc/haproxy/vip.pem", CA]
    assert balancer["listens"] == [["10.20.0.40", port] for port in (6080, 8774, 8778)]
    verified = f"ssl verify required ca-file {CA} verifyhost ctl1 check inter 3000 fall 2 rise 5"
    for port in (6080, 8774, 8778):
        lines = balancer["sections"][f"openstack_nova_port_{port}"]
        assert lines[0] == f"bind 10.20.0.40:{port} ssl crt /etc/haproxy/vip.pem"
        assert f"server ctl1 10.20.0.60:{port} {verified}" in lines


def test_a_guest_s_display_is_seen_by_the_console_proxy_alone():
    vnc = {"ca": CA, "cert": CERT, "key": KEY}
    nova = run_map(changed(tls={"vnc": vnc}))
    conf = nova["conf"]["nova"]["vnc"]
    assert conf["auth_schemes"] == ["vencrypt,none"]
    assert (conf["vencrypt_ca_certs"], conf["vencrypt_client_cert"]) == ([CA], [CERT])
    assert nova["tls_files"] == {"vnc-tls-ca": CA, "vnc-tls-cert": CERT, "vnc-tls-key": KEY}
    assert KEY in nova["reads"]["novncproxy"] and KEY not in nova["reads"].get("api", [])
    assert (nova["scheme"], nova["qemu_options"]) == ("http", {})
    for directory in ("/etc/pki/libvirt-vnc", "/other"):
        given = vnc if directory.startswith("/etc") else {**vnc, "directory": directory}
        compute = run_map(changed("cmp1", tls={"vnc": given}), "cmp1")
        assert compute["qemu_options"] == {
            "vnc_tls": 1,
            "vnc_tls_x509_verify": 1,
            "vnc_tls_x509_cert_dir": directory,
        }
        assert list(compute["tls_files"].values()) == [
            f"{directory}/{name}.pem" for name in ("ca-cert", "server-cert", "server-key")
        ]
        assert "vencrypt_ca_certs" not in compute["conf"]["nova"]["vnc"]


def test_without_a_certificate_of_the_vip_tls_passes_through():
    lines = run_map(changed("lb1", tls=SERVED), "lb1")["sections"]["openstack_nova_port_8774"]
    assert lines[0] == "bind 10.20.0.40:8774"
    assert f"8774 check-ssl verify required ca-file {CA} verifyhost ctl2 check" in lines[-1]
    nova = run_map(changed(tls=SERVED))
    assert nova["urls"]["api"] == "https://openstack-vip.example.org:8774"
    assert "compute_link_prefix" not in nova["conf"]["nova"].get("api", {})


def test_a_balancer_that_ends_tls_gives_nova_the_prefix_of_its_links():
    nova = run_map(changed(tls={"vip": "/etc/haproxy/vip.pem"}))
    assert nova["conf"]["nova"]["api"]["compute_link_prefix"] == [
        "https://openstack-vip.example.org:8774"
    ]
    assert (nova["server_scheme"], nova["tls_files"]) == ("http", {})
    sections = run_map(changed("lb1", tls={"vip": "/v"}), "lb1")["sections"]
    lines = sections["openstack_nova_port_8774"]
    assert "ssl crt /v" in lines[0] and "ssl" not in lines[-1]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"tls": {"cert": CERT, "key": KEY}},
            "nova:tls must be a mapping, of ca, cert and key together if of cert or key.",
        ),
        (
            {"tls": SERVED, "scheme": "http"},
            "nova:scheme must be https, or left out, where nova:tls has vip or cert.",
        ),
        (
            {"tls": SERVED, "haproxy__mode": "http"},
            "nova:tls:vip is missing: in mode http haproxy does not let TLS through.",
        ),
    ],
)
def test_tls_that_could_not_work_is_refused(changes, fault):
    assert run_map(changed(**changes))["faults"] == [fault]


def test_pillar_sets_adds_and_removes_any_option():
    pillar = changed(
        config={
            "DEFAULT": {"debug": True, "log_dir": None},
            "filter_scheduler": {"enabled_filters": ["ComputeFilter", "ImagePropertiesFilter"]},
            "pci": {"alias": ['{"name": "a"}', '{"name": "b"}']},
        }
    )
    conf = run_map(pillar)["conf"]["nova"]
    assert conf["DEFAULT"]["debug"] == ["true"]
    assert "log_dir" not in conf["DEFAULT"]
    assert conf["filter_scheduler"]["enabled_filters"] == ["ComputeFilter,ImagePropertiesFilter"]
    assert conf["pci"]["alias"] == ['{"name": "a"}', '{"name": "b"}']


def test_options_follow_the_release():
    assert "enabled_apis" in run_map(changed(release="zed"))["conf"]["nova"]["DEFAULT"]
    assert "enabled_apis" not in run_map(changed(release="2026.1"))["conf"]["nova"]["DEFAULT"]
    assert "use_neutron" in run_map(changed(release="stein"))["conf"]["nova"]["DEFAULT"]


@pytest.mark.parametrize(
    ("osrelease", "major", "release"),
    [("11", 11, "victoria"), ("12", 12, "zed"), ("13", 13, "2025.1")],
)
def test_without_a_name_the_release_is_what_the_system_ships(osrelease, major, release):
    nova = run_map(changed(release=...), osrelease=osrelease, osmajorrelease=major)
    assert nova["release"]["name"] == release
    assert nova["faults"] == []


def test_an_unreleased_system_needs_the_name_of_a_release():
    grains = {"osrelease": "forky/sid", "osmajorrelease": ""}  # Debian testing and unstable alike
    assert run_map(changed(release=...), **grains)["faults"] == [
        "nova:release is missing, and this OS has no default: name a release."
    ]
    assert run_map(changed(release="2026.2"), **grains)["faults"] == []


def test_the_balancer_has_the_seeds_sections():
    sections = run_map(example("lb1"), "lb1")["sections"]
    assert sections["openstack_nova_port_8774"] == [
        "bind 10.20.0.40:8774",
        "mode tcp",
        "log global",
        "retries 3",
        "option redispatch 1",
        "server ctl1 10.20.0.60:8774 check inter 3000 fall 2 rise 5",
        "server ctl2 10.20.0.70:8774 check inter 3000 fall 2 rise 5 backup",
    ]
    assert list(sections) == [f"openstack_nova_port_{port}" for port in (6080, 8774, 8778)]


def test_a_check_asks_an_api_and_only_connects_to_the_console():
    pillar = changed("lb1", haproxy__health="http", haproxy__retries=0)
    sections = run_map(pillar, "lb1")["sections"]
    asked = {name: "option httpchk GET /" in lines for name, lines in sections.items()}
    assert asked == {f"openstack_nova_port_{port}": port != 6080 for port in (6080, 8774, 8778)}
    assert "retries" not in str(sections) and "redispatch" not in str(sections)
    assert "timeout tunnel 1h" in sections["openstack_nova_port_6080"]


PAIR = {
    "haproxy__keepalived": {"address": "10.20.0.40/24", "interface": "eth0"},
    "topology__haproxy": {"lb1": "10.20.0.41", "lb2": "10.20.0.42"},
    "passwords__keepalived": "s3cr.t",
}


@pytest.mark.parametrize(("host", "priority", "peer"), [("lb1", 200, 42), ("lb2", 199, 41)])
def test_balancers_hold_the_vip_in_the_order_of_the_topology(host, priority, peer):
    nova = run_map(changed(host, **PAIR), host)
    assert nova["faults"] == []
    assert nova["keepalived"]["priority"] == priority
    assert nova["keepalived"]["peers"] == [f"10.20.0.{peer}"]
    assert nova["packages"]["haproxy"] == ["haproxy", "keepalived"]
    assert (nova["units"]["keepalived"], nova["keepalived"]["password"]) == ("keepalived", "s3cr.t")


@pytest.mark.parametrize(("host", "pillar"), [("lb1", {}), ("ctl1", PAIR)])
def test_nobody_else_hears_of_keepalived(host, pillar):
    nova = run_map(changed(host, **pillar), host)
    assert (nova["faults"], nova["keepalived"]) == ([], None)
    assert "keepalived" not in {*nova["packages"], *nova["units"], *nova["unit_list"]}


VRRP = {
    "no password": ({"passwords__keepalived": None}, "nova:passwords:keepalived is missing."),
    "a long one": (
        {"passwords__keepalived": "a" * 9},
        "nova:passwords:keepalived must be of 8 letters, digits and . _ + - at most: VRRP has no "
        "room for more.",
    ),
    "one that sdb gives": (
        {"passwords__keepalived": "sdb://vault/long"},
        "nova:passwords:keepalived must be of 8 letters, digits and . _ + - at most: VRRP has no "
        "room for more.",
    ),
    "no address": (
        {"haproxy__keepalived": {"address": "10.20.0.400/24", "interface": "eth0"}},
        "nova:haproxy:keepalived:address must be an address with its prefix.",
    ),
    "an IPv6 address": (
        {"haproxy__keepalived": {"address": "fd00::40/64", "interface": "eth0"}},
        "nova:haproxy:keepalived:version must be 3 for an IPv6 address.",
    ),
    "no interface": (
        {"haproxy__keepalived": {"address": "10.20.0.40/24"}},
        "nova:haproxy:keepalived:interface is missing.",
    ),
}


@pytest.mark.parametrize("what", VRRP)
def test_what_vrrp_cannot_do_is_a_fault(what):
    changes, fault = VRRP[what]
    assert run_map(changed("lb1", **{**PAIR, **changes}), "lb1")["faults"] == [fault]


def test_vrrp_version_3_needs_no_password():
    conf = {**PAIR["haproxy__keepalived"], "version": 3}
    pillar = {**PAIR, "haproxy__keepalived": conf, "passwords__keepalived": None}
    assert run_map(changed("lb1", **pillar), "lb1")["faults"] == []


def test_metadata_gets_a_section_when_it_is_asked_for():
    sections = run_map(changed("lb1", metadata={"balanced": True}), "lb1")["sections"]
    assert "openstack_nova_port_8775" in sections


@pytest.mark.parametrize("balanced", [True, False])
def test_a_second_metadata_api_is_balanced_as_the_first(balanced):
    pillar = {"metadata": {"second": True, "balanced": balanced}, "ports": {"metadata_second": 9}}
    nova = run_map(changed("lb1", **pillar), "lb1")
    assert (nova["faults"], nova["sections_absent"]) == ([], [])
    assert ("openstack_nova_port_9" in nova["sections"]) is balanced
    nova = run_map(changed("lb1", metadata={"balanced": balanced}), "lb1")
    assert nova["sections_absent"] == ["openstack_nova_port_8785"]
    assert "openstack_nova_port_8785" not in nova["sections"]


def test_a_second_metadata_api_has_a_secret_of_its_own():
    pillar = {"metadata__second": True, "passwords__metadata_second": 'a"\\$'}
    assert run_map(changed(**pillar))["conf"]["metadata_second"] == {
        "OS_NEUTRON__METADATA_PROXY_SHARED_SECRET": 'a\\"\\\\$$'
    }
    assert run_map(changed())["conf"]["metadata_second"] == {}
    assert run_map(changed("cmp1", **pillar), "cmp1")["faults"] == []


@pytest.mark.parametrize("name", ["novnc", "metadata"])
def test_a_port_of_no_second_metadata_api_is_free(name):
    pillar = {"ports": {name: 8785}, "metadata": {"balanced": True}}
    nova = run_map(changed("lb1", **pillar), "lb1")
    assert (nova["faults"], nova["sections_absent"]) == ([], [])
    assert "openstack_nova_port_8785" in nova["sections"]


def test_an_sdb_secret_is_resolved_where_it_is_rendered():
    conf = run_map(changed(passwords__keystone_nova="sdb://vault/nova"))["conf"]["nova"]
    assert conf["service_user"]["password"] == ["value of sdb://vault/nova"]


BAD = {
    "TLS to memcached in a release that has none": (
        dict(release="2025.1", keystone__memcached_tls={"ca": "/ca.pem"}),
        "nova:keystone:memcached_tls must go: 2025.1 talks no TLS to memcached",
    ),
    "a second metadata API without a secret": (
        dict(metadata__second=True),
        "nova:passwords:metadata_second is missing.",
    ),
    "a second metadata API without a first": (
        dict(metadata={"enabled": False, "second": True}, passwords__metadata_second="x"),
        "nova:metadata:second must be false",
    ),
    "a second metadata API at another one's port": (
        dict(
            metadata__second=True,
            passwords__metadata_second="x",
            ports={"metadata_second": 8775},
        ),
        "nova:ports gives one port to two services.",
    ),
    "a missing password": (
        dict(passwords__database_nova=...),
        "nova:passwords:database_nova is missing.",
    ),
    "an empty password": (dict(passwords__messaging=""), "nova:passwords:messaging must be"),
    "a password of two lines": (
        dict(passwords__messaging="a\nb"),
        "nova:passwords:messaging must be",
    ),
    "a password with a line break at its end": (
        dict(passwords__messaging="a\n"),
        "nova:passwords:messaging must be",
    ),
    "a host with a line break at its end": (dict(vip="a.example.org\n"), "nova:vip must be"),
    "an option with a line break at its end": (
        dict(config={"DEFAULT": {"debug": "true\n"}}),
        "nova:config:DEFAULT:debug must be",
    ),
    "an unknown role": (
        dict(roles=["controler"]),
        "nova:roles:0 must be controller, compute or haproxy.",
    ),
    "an unknown release": (
        dict(release="zedd"),
        "nova:release zedd is not a release: one of stein",
    ),
    "a port that is text": (
        dict(ports={"api": "8774"}),
        "nova:ports:api must be a number from 1 to 65535.",
    ),
    "a port out of range": (dict(ports={"api": 87740}), "nova:ports:api must be"),
    "two services on one port": (
        dict(ports={"api": 8778}),
        "nova:ports gives one port to two services.",
    ),
    "an URL without scheme": (
        dict(keystone__auth_url="vip:5000/v3"),
        "nova:keystone:auth_url must be an URL",
    ),
    "no Keystone": (dict(keystone=...), "nova:keystone is missing."),
    "no message host": (
        dict(messaging__hosts=[]),
        "nova:messaging:hosts must be a list of host names.",
    ),
    "a message host as text": (dict(messaging__hosts="mq1"), "nova:messaging:hosts must be a list"),
    "a host with blanks": (
        dict(vip="openstack vip"),
        "nova:vip must be a host name or an IP address.",
    ),
    "a removed filter": (
        dict(config={"filter_scheduler": {"enabled_filters": ["RetryFilter"]}}),
        "nova:config:filter_scheduler:enabled_filters: RetryFilter is gone",
    ),
    "a removed option": (
        dict(config={"placement": {"os_region_name": "R"}}),
        "nova:config:placement:os_region_name is not read by zed any more: "
        "use [placement] region_name.",
    ),
    "an option of two lines": (
        dict(config={"DEFAULT": {"debug": "true\n[database]\nconnection = x"}}),
        "nova:config:DEFAULT:debug must be a text of one line",
    ),
    "a section that opens another": (
        dict(config={"DEFAULT]\n[x": {"a": 1}}),
        "nova:config:DEFAULT]\\n[x has a name that must be a section's, of letters, digits",
    ),
    "controllers as a list": (
        dict(topology__controller=["ctl1"]),
        "nova:topology:controller must be",
    ),
    "an unknown key": (dict(databse={}), "nova:databse is not a key of this formula"),
    "an unknown key below": (dict(database__hots="x"), "nova:database:hots is not a key"),
    "an unknown password": (
        dict(passwords__keystone_novaa="x"),
        "nova:passwords:keystone_novaa is not",
    ),
    "a bad network": (dict(management_network="10.20.0.0"), "nova:management_network must be"),
    "a network of too many bits": (
        dict(management_network="10.20.0.0/240"),
        "nova:management_network must be a network such as 10.20.0.0/24.",
    ),
    "a bad scheme": (dict(scheme="ftp"), "nova:scheme must be http or https."),
    "a balancer with nothing behind": (
        dict(topology={"haproxy": {"ctl1": "10.20.0.41"}}),
        "nova:topology:controller is missing",
    ),
    "a slash that oslo.messaging cannot take": (
        dict(passwords__messaging="a/b"),
        "nova:passwords:messaging must have no slash",
    ),
    "an unknown virt_type": (dict(virt_type="xen"), "nova:virt_type must be"),
    "a site with a slash": (dict(site="a/b"), "nova:site must be"),
    "no timeout": (dict(timeouts={"lock": 0}), "nova:timeouts:lock must be a number of seconds."),
    "a Placement inside a Nova that has none": (
        dict(placement_in_nova=True),
        "nova:placement_in_nova must be false: None has none for zed",
    ),
    "a flavor without memory": (
        dict(flavors={"m1.small": {"vcpus": 1}}),
        "nova:flavors:m1.small:ram is missing.",
    ),
    "a quota that is text": (
        dict(quotas={"default": {"cores": "40"}}),
        "nova:quotas:default:cores must be a number, -1 for no limit.",
    ),
    "a service without an address": (
        dict(identity={"services": {"x": {"type": "x"}}}),
        "nova:identity:services:x needs a port or urls.",
    ),
    "a service's user without a password": (
        dict(identity={"services": {"x": {"type": "x", "port": 1, "user": {}}}}),
        "nova:passwords:keystone_x is missing.",
    ),
    "a service without type": (
        dict(identity={"services": {"x": {"port": 1}}}),
        "nova:identity:services:x:type is missing.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_pillar_is_named_by_its_key(name):
    changes, fault = BAD[name]
    faults = run_map(changed(**changes))["faults"]
    assert any(fault in line for line in faults), faults


def test_null_leaves_out_a_flavor_and_removes_a_label():
    specs = {"hw:cpu_policy": None}
    flavors = {"a": None, "b": {"ram": 1, "vcpus": 1, "extra_specs": specs}}
    nova = run_map(changed(flavors=flavors, aggregates={"ssd": {"metadata": {"x": None}}}))
    assert nova["faults"] == []
    assert nova["flavors"] == flavors
    assert nova["aggregates"]["ssd"]["metadata"] == {"x": None}


def test_lookup_replaces_a_name_of_the_system_and_null_removes_one():
    lookup = {"units": {"libvirt": "libvirtd", "libvirt_nodedev": None}}
    grains = {"os_family": "RedHat", "os": "Rocky", "osmajorrelease": 9}
    units = run_map(changed(lookup=lookup), **grains)["units"]
    assert units["libvirt"] == "libvirtd"
    assert "libvirt_nodedev" not in units and "libvirt_proxy" in units


def test_every_fault_is_listed_at_once():
    faults = run_map(changed(ports={"api": "x"}, scheme="ftp", vip="a b"))["faults"]
    assert len(faults) == 3


def test_a_fault_never_shows_a_value():
    faults = run_map(changed(passwords={"keystone_nova": ["s3cret"], "messaging": {"a": "s3cret"}}))
    assert faults["faults"] and "s3cret" not in str(faults["faults"])


def offered(minion_id="ctl1"):
    """pillar.example with what it has in comments."""
    text = ""
    for line in (ROOT / "pillar.example").read_text().splitlines():
        found = re.match(r"^( +)# ( *[\w.-]+: ?.*)$", line)
        text += (found[1] + found[2] if found else line) + "\n"
    return yaml.safe_load(Environment().from_string(text).render(opts={"id": minion_id}))["nova"]


def test_what_the_example_offers_in_comments_is_right_too():
    assert len(offered()) > len(example("ctl1")) + 10
    nova = run_map(offered())
    assert nova["faults"] == []
    assert "heat" in {endpoint["service"] for endpoint in nova["endpoints"]}


def test_any_service_is_registered_with_what_it_has():
    nova = run_map(
        changed(
            identity={
                "services": {
                    "heat": {
                        "type": "orchestration",
                        "port": 8004,
                        "path": "/v1",
                        "urls": {"public": "https://x/v1"},
                        "user": {"roles": ["service"]},
                    },
                    "s3": {"type": "s3", "urls": {"public": "https://s3/"}},
                    "nova": None,
                }
            },
            passwords__keystone_heat="s3cret",
        )
    )
    assert nova["faults"] == []
    assert [service["name"] for service in nova["services"]] == ["heat", "placement", "s3"]
    urls = {(row["service"], row["interface"]): row["url"] for row in nova["endpoints"]}
    vip = "http://openstack-vip.example.org"
    assert urls.pop(("placement", "public")) == f"{vip}:8778"
    assert urls == {
        ("heat", "public"): "https://x/v1",
        ("heat", "internal"): f"{vip}:8004/v1",
        ("heat", "admin"): f"{vip}:8004/v1",
        ("placement", "internal"): f"{vip}:8778",
        ("placement", "admin"): f"{vip}:8778",
        ("s3", "public"): "https://s3/",
    }
    accounts = [(account["name"], account["roles"]) for account in nova["accounts"]]
    both = ["admin", "service"]
    assert accounts == [("nova", both), ("placement", both), ("heat", ["service"])]
    assert "s3cret" not in str({**nova, "conf": None})


@pytest.mark.parametrize(
    ("release", "nova", "placement"),
    [
        ("stein", ["admin", "service"], ["admin", "service"]),
        ("zed", ["admin", "service"], ["admin", "service"]),
        ("2023.1", ["admin", "service"], ["service"]),
        ("2025.1", ["admin", "service"], ["service"]),
        ("2025.2", ["service"], ["service"]),
        ("2026.2", ["service"], ["service"]),
    ],
)
def test_an_account_is_administrator_only_where_the_release_s_policies_want_it(
    release, nova, placement
):
    accounts = run_map(changed(release=release))["accounts"]
    assert {it["service"]: it["roles"] for it in accounts} == {"nova": nova, "placement": placement}
    accounts = run_map(changed(release=release, keystone__roles=["reader"]))["accounts"]
    assert [it["roles"] for it in accounts] == [["reader"], ["reader"]]


CELL2 = {"database": {"host": "db2", "user": "u"}, "messaging": {"hosts": ["mq2"], "user": "u"}}


def test_a_further_cell_has_its_secrets_by_reference():
    pillar = changed(cells={"cell2": {"messaging": {"vhost": "cell2"}}, "cell3": CELL2})
    pillar["passwords"]["cells"] = {"cell3": {"database": "s3cret1", "messaging": "s3cret2"}}
    nova = run_map(pillar)
    assert nova["faults"] == []
    assert nova["cells"]["cell2"] == {
        "disabled": False,
        "database": {"name": "nova_cell2"},
        "messaging": {"vhost": "cell2"},
        "make": True,
        # Its database is on the site's server, where the formula makes the account.
        "logins": {
            "database": None,
            "messaging": {
                "hosts": ["rabbitmq.example.org"],
                "port": 5672,
                "user": "openstack",
                "vhost": "cell2",
                "password_pillar": "nova:passwords:messaging",
            },
        },
    }
    assert nova["cells"]["cell3"]["logins"]["messaging"] == {
        "hosts": ["mq2"],
        "user": "u",
        "vhost": "/",
        "password_pillar": "nova:passwords:cells:cell3:messaging",
    }
    assert nova["cells"]["cell3"]["make"] is False
    assert nova["cells"]["cell3"]["database"]["password_pillar"] == (
        "nova:passwords:cells:cell3:database"
    )
    assert "s3cret" not in str({**nova, "conf": None})


def test_a_further_cell_s_faults_are_named():
    pillar = changed(cells={"cell1": CELL2, "cell2": {"messaging": {"user": "u"}}})
    pillar["passwords"]["cells"] = {"cell1": {"database": "s3cret1", "messaging": "s3cret2"}}
    assert run_map(pillar)["faults"] == [
        "nova:cells:cell1 has the name of the first cell, nova:cell.",
        "nova:cells:cell2:messaging must have a vhost or hosts of its own: the cells' conductors "
        "would take each other's calls.",
        "nova:cells:cell2:messaging:hosts is missing.",
        "nova:passwords:cells:cell2:messaging is missing.",
    ]


def test_salt_ssh_maps_on_the_master_and_leaves_the_host_s_own_facts_to_the_node(tmp_path):
    """Its functions would run on the node, or read there what is here."""
    options = copy.deepcopy(salt.config.DEFAULT_MASTER_OPTS)
    options.update(cachedir=str(tmp_path), file_roots={"base": [str(ROOT)]})

    class Wrapper(dict):
        fsclient = salt.fileclient.FSClient(options)

    module = map_module(example("cmp1"), "cmp1", os="Debian")
    del module.__grains__["nova_host"]
    module.__opts__["_ssh_version"], module.__salt__ = (9, 2), Wrapper()
    nova, known = module.run(), run_map(example("cmp1"), "cmp1", os="Debian")
    assert known["conf"]["nova"].pop("libvirt") == {"virt_type": ["qemu"]}
    assert (nova.pop("virt_type"), known.pop("virt_type")) == (None, "qemu")
    assert nova == known


def test_a_cell_on_another_server_is_used_with_the_site_s_account():
    cell = {"database": {"host": "db2"}, "messaging": {"vhost": "cell2"}}
    assert run_map(changed(cells={"cell2": cell}))["cells"]["cell2"]["logins"]["database"] == {
        "name": "nova_cell2",
        "host": "db2",
        "user": "nova",
        "password_pillar": "nova:passwords:database_nova",
    }


def test_what_is_retired_must_not_be_in_use():
    cells = {"cell3": CELL2}
    pillar = changed(cells=cells, database__users={"nova": "nova_b"})
    pillar["passwords"]["cells"] = {"cell3": {"database": "s3cret1", "messaging": "s3cret2"}}
    pillar["retired"] = {"database": ["nova"], "keystone": ["old"]}
    assert run_map(pillar)["faults"] == []
    pillar["retired"] = {"database": ["nova_b", "u", "root"], "keystone": ["nova", "neutron"]}
    assert [fault.partition(",")[0] for fault in run_map(pillar)["faults"]] == [
        "nova:retired:database names nova_b",
        "nova:retired:database names root",
        "nova:retired:database names u",
        "nova:retired:keystone names neutron",
        "nova:retired:keystone names nova",
    ]
