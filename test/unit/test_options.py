"""
Every option that the formula renders, against what each release really defines.

The definitions are those of the packages themselves (test/options), their libraries at two
versions: the lower bound of the release's requirements, and the newest of its series.
"""

import functools
import itertools
import json
import sys

import pytest
import yaml
from conftest import ROOT
from oslo_config import types
from test_map import changed, example, map_module, run_map

sys.path.insert(0, str(ROOT / "test" / "options"))
import lives  # noqa: E402

DATA = json.loads((ROOT / "test/options/options.json").read_text())
SOURCES = json.loads((ROOT / "test/options/sources.json").read_text())
RELEASES = yaml.safe_load((ROOT / "nova/parameters/releases.yaml").read_text())
SERIES = yaml.safe_load((ROOT / "test/options/series.yaml").read_text())
ROLES = {"controller": ["controller"], "compute": ["compute"], "all": ["controller", "compute"]}
BOUNDS = ("lower", "newest")
# Options that the oldest library that the release allows does not have: no distribution ships
# Stein with so old a keystonemiddleware, and quorum queues are the operator's choice.
NOT_IN_THE_OLDEST = {
    "keystone_authtoken.www_authenticate_uri": [19],
    **{
        f"keystone_authtoken.memcache_tls_{name}": range(32, 35)
        for name in ("enabled", "cafile", "certfile", "keyfile")
    },
    "oslo_messaging_rabbit.rabbit_quorum_queue": [25, 26],
    "oslo_messaging_rabbit.rabbit_transient_quorum_queue": range(29, 35),
    "oslo_messaging_rabbit.ssl_enforce_hostname_verification": [31, 34],
}
# With nova-network there was a choice; the heartbeat's thread is a default that hurts eventlet;
# that a server's name is checked is the default in the newest library alone.
DEPRECATED_AND_NEEDED = {
    "DEFAULT.use_neutron": [19, 20],
    "DEFAULT.firewall_driver": [19, 20],
    "oslo_messaging_rabbit.heartbeat_in_pthread": [23, 24],
    "oslo_messaging_rabbit.ssl_enforce_hostname_verification": [34],
    # What replaces it can name no account and no key.
    "libvirt.live_migration_uri": range(19, 35),
}
TLS = {"ca": "/etc/ssl/nova/ca.pem", "cert": "/etc/ssl/nova/my.pem", "key": "/etc/ssl/nova/my.key"}


@functools.cache
def definitions(program, bound, number):
    """What a release reads: ``{section.option: definition}``."""
    found = {name: lives.at(life, bound, number) for name, life in DATA[program].items()}
    return {name: definition for name, definition in found.items() if definition}


@functools.cache
def rendered(release, roles, tls):
    """``[(program, section.option, [value, …])]`` of pillar.example on a node of these roles."""
    scheme = "https" if tls else "http"
    pillar = changed(
        release=release,
        topology=...,
        roles=ROLES[roles],
        scheme=scheme,
        keystone__auth_url=f"{scheme}://openstack-vip.example.org:5000/v3",
        messaging__quorum_queues=tls,
        **({"passwords__memcached": "x"} if tls else {}),
        **({"keystone__memcached_tls": TLS} if tls and RELEASES[release] >= 32 else {}),
        **(dict.fromkeys(("database__tls", "messaging__tls"), TLS) if tls else {}),
        tls={**TLS, "vip": "/etc/haproxy/vip.pem", "vnc": TLS} if tls else {},
        migration={"ssh": True, "live": True, "tls": tls, "keys": {}},
    )
    nova = run_map(pillar)
    assert (nova["faults"], nova["warnings"]) == ([], [])
    return [
        (program, f"{section}.{option}", values)
        for program, sections in nova["conf"].items()
        for section, options in sections.items()
        for option, values in options.items()
    ]


every_node = pytest.mark.parametrize(
    ("release", "roles", "tls"),
    [
        pytest.param(release, roles, tls, id=f"{release}-{roles}-{'https' if tls else 'http'}")
        for release in RELEASES
        for roles in ROLES
        for tls in (False, True)
    ],
)
every_release = pytest.mark.parametrize("release", RELEASES)


@every_node
def test_every_option_rendered_is_one_that_the_release_reads(release, roles, tls):
    number = RELEASES[release]
    unknown = [
        (bound, program, name)
        for bound in BOUNDS
        for program, name, _ in rendered(release, roles, tls)
        if name not in definitions(program, bound, number)
    ]
    assert [it for it in unknown if it[0] == "newest"] == []
    assert [it for it in unknown if number not in NOT_IN_THE_OLDEST.get(it[2], ())] == []


def test_what_is_not_in_the_oldest_library_is_in_none_of_its_releases():
    for name, numbers in NOT_IN_THE_OLDEST.items():
        assert [number for number in numbers if name in definitions("nova", "lower", number)] == []


@every_node
def test_no_option_rendered_is_deprecated_where_a_newer_name_exists(release, roles, tls):
    number = RELEASES[release]
    for bound in BOUNDS:
        for program, name, _ in rendered(release, roles, tls):
            table = definitions(program, bound, number)
            newer = [new for new, it in table.items() if name in it.get("old_names", [])]
            assert newer == [], (bound, program, name)


@every_node
def test_no_option_rendered_is_to_be_removed_but_those_that_are_needed(release, roles, tls):
    for bound in BOUNDS:
        for program, name, _ in rendered(release, roles, tls):
            it = definitions(program, bound, RELEASES[release]).get(name, {})
            needed = RELEASES[release] in DEPRECATED_AND_NEEDED.get(name, ())
            assert needed or not it.get("deprecated_for_removal"), (bound, program, name)


def test_every_option_that_the_formula_sets_is_one_that_some_release_gets():
    tables = yaml.safe_load((ROOT / "nova/parameters/config.yaml").read_text())
    meant = {f"{s}.{o}" for table in tables.values() for s, it in table.items() for o in it}
    every = itertools.product(RELEASES, (True, False))
    got = {name for release, tls in every for _, name, _ in rendered(release, "all", tls)}
    assert meant - got == set()


@every_node
def test_every_value_rendered_is_one_of_its_type(release, roles, tls):
    for bound in BOUNDS:
        for program, name, values in rendered(release, roles, tls):
            definition = definitions(program, bound, RELEASES[release]).get(name)
            if definition:
                assert len(values) == 1 or definition.get("multi"), name
                for value in values:
                    of_type(definition["type"])(value.replace("$$", "$"))


def of_type(described):
    """The oslo.config type that lister.py described."""
    name, arguments = (described, {}) if isinstance(described, str) else described
    arguments = {
        key: of_type(value) if key in ("item_type", "value_type") else value
        for key, value in arguments.items()
    }
    return getattr(types, name)(**arguments)


@every_release
@pytest.mark.parametrize("program", DATA)
def test_any_name_gives_what_the_release_reads_or_a_remark(program, release):
    number = RELEASES[release]
    module = map_module(example("ctl1"))
    names = module._names()[program]
    table = definitions(program, "newest", number)
    old = {name for it in table.values() for name in it.get("old_names", [])}
    latest = definitions(program, "newest", max(RELEASES.values()))
    for name in DATA[program].keys() | names.keys():
        there, kind, sentence = module._name_in({"name": release, "number": number}, name, names)
        assert there in table or there in old or (there is None and sentence), name
        assert bool(kind) == bool(sentence)
        if name in latest:
            assert kind != "faults", f"{name} is a modern name"
        if name in table and not (kind or table[name].get("deprecated_for_removal")):
            assert there == name
        if name not in table and name in old:
            assert kind == "warnings", name


# ---- what a release needs of the RPC and of service users --------------------------------------


def option(release, roles, name, **pillar):
    """The values of one option in nova.conf, None where it does not stand there."""
    nova = run_map(changed(release=release, topology=..., roles=ROLES[roles], **pillar))
    assert (nova["faults"], nova["warnings"]) == ([], [])
    section, _, key = name.rpartition(".")
    return nova["conf"]["nova"].get(section, {}).get(key)


@every_release
@pytest.mark.parametrize("roles", ROLES)
def test_the_heartbeat_is_kept_out_of_a_thread_where_that_is_the_default(release, roles):
    # On from Wallaby to Yoga, where a thread of eventlet's daemons then blocks.
    expected = ["false"] if 23 <= RELEASES[release] <= 25 else None
    assert option(release, roles, "oslo_messaging_rabbit.heartbeat_in_pthread") == expected


@every_release
def test_queues_are_replicated_where_they_can_be_and_it_is_asked_for(release):
    for name, first in (("rabbit_quorum_queue", 25), ("rabbit_transient_quorum_queue", 29)):
        name = f"oslo_messaging_rabbit.{name}"
        assert option(release, "all", name) is None
        given = option(release, "all", name, messaging__quorum_queues=True)
        assert given == (["true"] if RELEASES[release] >= first else None)


@every_release
@pytest.mark.parametrize("roles", ROLES)
def test_service_users_have_and_need_the_role_service(release, roles):
    authtoken = "keystone_authtoken.service_token_roles"
    assert option(release, roles, authtoken) == ["service"]
    assert option(release, roles, f"{authtoken}_required") == ["true"]
    assert option(release, roles, "service_user.send_service_user_token") == ["true"]
    # From 2025.2 on Nova takes Neutron's events from this role alone.
    accounts = run_map(changed(release=release))["accounts"]
    assert all("service" in account["roles"] for account in accounts)


@every_release
@pytest.mark.parametrize("roles", ROLES)
def test_rpc_versions_are_pinned_where_pillar_says_so(release, roles):
    name = "upgrade_levels.compute"
    assert option(release, roles, name) is None
    for pin in ("auto", "5.0"):
        assert option(release, roles, name, config__upgrade_levels={"compute": pin}) == [pin]


PILLARS = {
    "a modern name on an old release": (
        "train",
        {"image_cache": {"manager_interval": 60}},
        {"DEFAULT.image_cache_manager_interval": ["60"], "image_cache.manager_interval": None},
        "",
    ),
    "a modern list on a release that reads one": (
        "stein",
        {"libvirt": {"cpu_models": ["Nehalem"]}},
        {"libvirt.cpu_model": ["Nehalem"]},
        "",
    ),
    "an old name that the release still takes": (
        "zed",
        {"pci": {"passthrough_whitelist": ['{"a": 1}', '{"b": 2}']}},
        {"pci.device_spec": ['{"a": 1}', '{"b": 2}'], "pci.passthrough_whitelist": None},
        "nova:config:pci:passthrough_whitelist is an old name: say [pci] device_spec.",
    ),
    "an old name of an option that the formula sets": (
        "stein",
        {"vnc": {"vncserver_listen": "192.0.2.1"}},
        {"vnc.server_listen": ["192.0.2.1"]},
        "nova:config:vnc:vncserver_listen is an old name: say [vnc] server_listen.",
    ),
    "the old and the new name": (
        "zed",
        {"keystone_authtoken": {"www_authenticate_uri": "http://b", "auth_uri": "http://a"}},
        {"keystone_authtoken.www_authenticate_uri": ["http://b"]},
        "nova:config:keystone_authtoken:auth_uri is an old name: "
        "say [keystone_authtoken] www_authenticate_uri.",
    ),
    "an option to come": (
        "stein",
        {"oslo_messaging_rabbit": {"rabbit_quorum_queue": True}},
        {"oslo_messaging_rabbit.rabbit_quorum_queue": None},
        "nova:config:oslo_messaging_rabbit:rabbit_quorum_queue is not read by stein yet: "
        "left out.",
    ),
    "an option that is to go": (
        "2025.1",
        {"glance": {"api_servers": ["http://glance:9292"]}},
        {"glance.api_servers": ["http://glance:9292"]},
        "nova:config:glance:api_servers is deprecated in 2025.1: nothing replaces it.",
    ),
    "an option that nobody has heard of": ("zed", {"mine": {"own": 1}}, {"mine.own": ["1"]}, ""),
    "an old option removed": ("2026.2", {"DEFAULT": {"use_neutron": None}}, {}, ""),
}


@pytest.mark.parametrize("case", PILLARS)
def test_a_pillar_is_rendered_as_its_release_reads_it(case):
    release, config, expected, warning = PILLARS[case]
    nova = run_map(changed(release=release, config=config))
    assert nova["faults"] == []
    assert nova["warnings"] == ([warning] if warning else [])
    for name, values in expected.items():
        section, _, option = name.rpartition(".")
        assert nova["conf"]["nova"].get(section, {}).get(option) == values


def test_a_name_that_the_release_no_longer_reads_is_refused_with_the_new_one():
    refused = {
        "DEFAULT:enabled_apis": "use the API server of the distribution (uwsgi or Apache)",
        "keystone_authtoken:auth_uri": "use [keystone_authtoken] www_authenticate_uri",
        "neutron:url": "use [neutron] endpoint_override",
        "oslo_messaging_rabbit:rabbit_use_ssl": "use [oslo_messaging_rabbit] ssl",
        "scheduler:driver": "remove it",
        "vnc:vncserver_listen": "use [vnc] server_listen",
    }
    config = {}
    for name in refused:
        section, option = name.split(":")
        config.setdefault(section, {})[option] = "x"
    nova = run_map(changed(release="2026.2", config=config))
    assert sorted(nova["faults"]) == [
        f"nova:config:{name} is not read by 2026.2 any more: {instead}."
        for name, instead in refused.items()
    ]


def test_several_values_for_an_option_that_took_one_are_refused():
    config = {"libvirt": {"cpu_models": ["Nehalem", "Haswell"]}}
    faults = {r: run_map(changed(release=r, config=config))["faults"] for r in ("stein", "train")}
    assert faults == {
        "stein": ["nova:config:libvirt:cpu_models takes one value in stein."],
        "train": [],
    }


def test_placement_conf_is_held_to_its_own_names():
    placement_config = {"placement": {"policy_file": "x"}, "DEFAULT": {"use_neutron": True}}
    nova = run_map(changed(release="zed", placement_config=placement_config))
    assert nova["faults"] == [
        "nova:placement_config:placement:policy_file is not read by zed any more: remove it."
    ]


# ---- the data itself ---------------------------------------------------------------------------


def version(text):
    return [int(part) for part in text.split(".")]


@pytest.mark.parametrize("program", SOURCES["chosen"])
@every_release
def test_the_data_says_which_packages_it_comes_from(program, release):
    lower, newest = (SOURCES["chosen"][program][release][bound] for bound in BOUNDS)
    for pins in (lower, newest):
        for package, pinned in pins.items():
            assert len(SOURCES["sha256"][f"{package}=={pinned}"]) == 64
    assert version(newest.get("nova", "0"))[0] in (0, RELEASES[release])
    for package, pinned in newest.items():
        assert version(lower[package]) <= version(pinned)
        if package in SERIES.get(release, {}):
            assert pinned == SERIES[release][package]


def test_what_the_formula_knows_of_names_comes_from_the_data():
    assert (ROOT / "nova/parameters/names.json").read_text() == lives.names_as_text(DATA)
