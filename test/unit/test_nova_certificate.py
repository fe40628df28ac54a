"""The formula's own authority: keys stay on their nodes, and nobody gets a name not granted."""

import grp
import os
import pwd
import stat
import time
from pathlib import Path

import pytest
from conftest import load, minion
from stub import stub
from test_map import changed, run_map

GRANTS = [
    {"identity": "server", "ca": "site", "minion": "ctl1", "names": ["ctl1", "10.20.0.60"]},
    {"identity": "hypervisor", "ca": "hypervisors", "minion": "cmp*"},
]
ME = {"user": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}


class Site:
    """Nodes with directories of their own and a mine that they share; their clock can be moved."""

    def __init__(self, directory):
        self.directory, self.mine, self.nodes, self.testmode = directory, {}, {}, False
        self.asked = []  # of the mine

    def node(self, name):
        # What was loaded last has the options of all; so a node is loaded when its turn comes.
        if (name, self.testmode) not in self.nodes:
            home = self.directory / name
            home.mkdir(exist_ok=True)
            options = minion(home)
            options.update(id=name, test=self.testmode, features={"x509_v2": True})
            utils, modules, states = load(options)

            def get(target, function):
                self.asked.append(function)
                its = self.mine.get(function, {})
                return {who: it for who, it in its.items() if target in ("*", who)}

            def send(function, *_, mine_function, **kwargs):
                self.mine.setdefault(function, {})[name] = modules[mine_function](**kwargs)

            def delete(function):
                self.mine[function].pop(name)

            stub(modules, "mine.delete", side_effect=delete)
            stub(modules, "mine.get", side_effect=get)
            stub(modules, "mine.send", side_effect=send)
            self.nodes = {(name, self.testmode): (modules, states)}
        return self.nodes[name, self.testmode]

    def apply(self, node, function, **kwargs):
        return self.node(node)[1][f"nova_certificate.{function}"](**kwargs)

    def path(self, name, *parts):
        return str(self.directory.joinpath(name, *parts))

    def request(self, name, identity="server", names=None, **more):
        where = self.path(name, "keys")
        identities = {identity: names or [name]}
        return self.apply(name, "requested", name=where, identities=identities, **more)

    def sign(self, grants=GRANTS, **more):
        home = self.path("infra", "ca")
        return self.apply("infra", "signed", name=home, grants=grants, timeout=0, **more)

    def obtain(self, name, identity="server", names=None, ca="site", **more):
        given = {"identities": {identity: names or [name]}, "authorities": [ca], "timeout": 0}
        where = self.path(name, "keys")
        return self.apply(name, "obtained", name=where, authority="infra", **given, **more)

    def place(self, name, holds, file="file", **more):
        given = {**({"ca": "site"} if holds == "ca" else {"identity": "server"}), **ME, **more}
        path, where = self.path(name, file), self.path(name, "keys")
        return self.apply(name, "placed", name=path, directory=where, holds=holds, **given)

    def read(self, name, function, *args):
        return self.node(name)[0][f"x509.{function}"](*args)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture
def served(site):
    """A site whose ctl1 has what it asked for."""
    for done in (site.request("ctl1"), site.sign(), site.obtain("ctl1")):
        assert done["result"] is True and done["changes"], done
    return site


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_node_gets_the_names_that_it_is_granted_and_no_others(site):
    site.request("ctl1", names=["ctl1", "openstack-vip.example.org"])
    site.sign()
    site.obtain("ctl1", names=["ctl1", "openstack-vip.example.org"])
    site.place("ctl1", "cert")
    its = site.read("ctl1", "read_certificate", site.path("ctl1", "file"))
    assert sorted(its["extensions"]["subjectAltName"]["value"]) == ["DNS:ctl1", "IP:10.20.0.60"]
    assert its["extensions"]["basicConstraints"]["ca"] is False
    assert 363 < (time.mktime(time.strptime(its["not_after"], "%Y-%m-%d %H:%M:%S")) - time.time()) \
        / 86400 < 367  # fmt: skip


def test_a_second_run_does_and_asks_nothing(served):
    served.asked = []
    for served.testmode in (False, True):
        for done in (served.request("ctl1"), served.obtain("ctl1")):
            assert (done["result"], done["changes"]) == (True, {})
        assert served.asked == []
    assert served.sign()["changes"] == {}


def test_keys_are_root_s_and_stay_on_their_node(served):
    key = served.path("ctl1", "keys", "server.key")
    secret = Path(key).read_text().splitlines()[2]
    assert mode(key) == 0o600 and mode(os.path.dirname(key)) == 0o700
    assert mode(served.path("infra", "ca")) == 0o700
    assert mode(served.path("infra", "ca", "site.key")) == 0o600
    assert secret not in str(served.mine)
    ours = Path(served.path("infra", "ca", "site.key")).read_text().splitlines()[2]
    assert ours not in str(served.mine)


def test_test_mode_foretells_and_writes_nothing(site):
    site.testmode = True
    for done in (site.request("ctl1"), site.sign(expected={"server": ["ctl1"]}),
                 site.obtain("ctl1"), site.place("ctl1", "both")):  # fmt: skip
        assert done["result"] is None and done["changes"], done
    assert site.mine == {}
    assert not any(files for _, _, files in os.walk(site.directory) if "server.key" in files)
    assert not os.path.exists(site.path("infra", "ca"))


@pytest.mark.parametrize("holds", ["ca", "cert", "key", "both"])
def test_a_file_is_placed_with_its_rights_once(served, holds):
    given = {"mode": "0640", "file": "deep/er/file"}
    path = served.path("ctl1", "deep/er/file")
    done = served.place("ctl1", holds, **given)
    assert (done["result"], list(done["changes"])) == (True, [holds])
    assert mode(path) == 0o640
    text = Path(path).read_text()
    assert ("PRIVATE KEY" in text) == (holds in ("key", "both"))
    assert ("CERTIFICATE" in text) == (holds != "key")
    assert "PRIVATE KEY" not in str(done)
    assert served.place("ctl1", holds, **given)["changes"] == {}
    os.chmod(path, 0o644)
    assert served.place("ctl1", holds, **given)["changes"]["mode"] == {"old": "0644", "new": "0640"}
    Path(path).write_text("broken")
    assert served.place("ctl1", holds, **given)["result"] is True
    assert Path(path).read_text() == text


def test_a_file_that_is_somebody_else_s_stays(served):
    path = served.path("ctl1", "file")
    Path(path).write_text("theirs")
    for served.testmode in (True, False):
        done = served.place("ctl1", "ca")
        assert done["result"] is False
        assert done["comment"].startswith(f"{path} is there and not the formula's: move it away")
    assert Path(path).read_text() == "theirs"


def test_what_was_made_goes_and_nothing_else(served):
    served.place("ctl1", "key")
    theirs = Path(served.path("ctl1", "theirs"))
    theirs.write_text("theirs")
    assert served.place("ctl1", "ca", "theirs")["result"] is False
    keys, path = served.path("ctl1", "keys"), served.path("ctl1", "file")
    for served.testmode in (True, False):
        done = served.apply("ctl1", "absent", name=keys)
        assert done["result"] is (None if served.testmode else True)
        assert sorted(done["changes"]) == sorted([keys, path, "mine"])
        assert os.path.exists(path) == served.testmode
    assert theirs.exists() and not os.path.exists(keys)
    assert "ctl1" not in served.mine["nova_certificate_request"]
    assert served.apply("ctl1", "absent", name=keys)["changes"] == {}


def test_a_certificate_about_to_end_is_renewed_with_its_key_kept(site, served, monkeypatch):
    served.place("ctl1", "cert")
    before, now = Path(site.path("ctl1", "file")).read_text(), time.time()
    # Of 365 days there are 29 left.
    modules, _ = site.node("ctl1")
    monkeypatch.setattr(time, "time", lambda: now + 336 * 86400)
    expires = site.node("ctl1")[0]["x509.expires"]
    stub(modules, "x509.expires", side_effect=lambda pem, days: pem == before or expires(pem, days))
    assert site.request("ctl1")["comment"] == "server: asked for."
    site.testmode = True
    assert list(site.obtain("ctl1")["changes"]) == ["server"]
    assert list(site.place("ctl1", "cert")["changes"]) == ["cert"]
    assert site.place("ctl1", "cert")["result"] is None
    site.testmode = False
    assert "server of ctl1" in site.sign()["changes"]
    done = site.obtain("ctl1")
    assert done["result"] is True and list(done["changes"]) == ["server"]
    assert list(site.place("ctl1", "cert")["changes"]) == ["cert"]
    assert Path(site.path("ctl1", "file")).read_text() != before


def test_who_is_not_answered_says_whom_to_ask_and_goes_on_while_its_own_lasts(served, monkeypatch):
    served.mine["nova_certificate_answer"].clear()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 336 * 86400)
    done = served.obtain("ctl1")
    assert done["result"] is True and "infra has not signed within 0 s" in done["warnings"][0]
    fresh = served.request("cmp1", "hypervisor") and served.obtain("cmp1", "hypervisor")
    assert fresh["result"] is False
    assert "Run `salt infra state.apply nova.certificates`, then this again." in fresh["comment"]


def test_what_is_not_granted_is_refused_by_name(site):
    site.request("evil", names=["openstack-vip.example.org"])
    site.request("ctl1", "hypervisor")
    done = site.sign()
    assert done["result"] is True
    assert done["warnings"] == [
        "hypervisor of ctl1 was not signed: nova:authority grants it to nobody there.",
        "server of evil was not signed: nova:authority grants it to nobody there.",
    ]
    assert site.mine["nova_certificate_answer"]["infra"]["certificates"] == {}


def test_a_name_that_two_nodes_claim_is_given_to_none(site):
    site.request("ctl1")
    for node in ("cmp1", "cmp2"):
        site.request(node, "hypervisor", ["10.20.0.80", node])
    done = site.sign()
    assert done["result"] is True
    (said,) = done["warnings"]
    assert said.startswith("cmp1 and cmp2 both say that they are 10.20.0.80, so hypervisor was")
    signed = site.mine["nova_certificate_answer"]["infra"]["certificates"]
    assert {it: list(those) for it, those in signed.items()} == {"server": ["ctl1"]}


@pytest.mark.parametrize(
    "record",
    [
        "text",
        {"server": {"key": "no key", "names": ["ctl1"]}},
        {"server": {"names": ["ctl1"]}},
        {"server": {"key": None, "names": ["a,DNS:b"]}},
    ],
)
def test_a_record_of_anything_else_is_named_and_stops_nobody_else(site, record):
    site.request("ctl1")
    key = site.mine["nova_certificate_request"]["ctl1"]["server"]["key"]
    if isinstance(record, dict) and record["server"].get("key", 1) is None:
        record["server"]["key"] = key
    site.mine["nova_certificate_request"]["cmp1"] = record
    done = site.sign()
    assert done["result"] is True
    (said,) = done["warnings"]
    assert said.startswith("What cmp1 asks of the authority is no record of keys and names")
    assert list(site.mine["nova_certificate_answer"]["infra"]["certificates"]["server"]) == ["ctl1"]


def test_a_certificate_for_another_key_is_not_taken(served):
    os.remove(served.path("ctl1", "keys", "server.key"))
    served.testmode = True
    for done in (served.request("ctl1"), served.obtain("ctl1")):
        assert done["result"] is None and done["changes"], done
    served.testmode = False
    asked = served.mine["nova_certificate_request"]["ctl1"]
    assert served.request("ctl1")["changes"]
    assert served.mine["nova_certificate_request"]["ctl1"] != asked
    assert served.obtain("ctl1")["result"] is False, "it is for the old key"
    assert "server of ctl1" in served.sign()["changes"]
    assert served.obtain("ctl1")["result"] is True


def test_the_authority_waits_for_those_expected_and_names_the_late(site):
    site.request("ctl1")
    expected = {"server": ["ctl1", "ctl2"], "hypervisor": ["cmp1.example.org"]}
    done = site.sign(expected=expected)
    assert done["warnings"] == [
        "Not asked for within 0 s, so left to the next run: server of ctl2, "
        "hypervisor of cmp1.example.org."
    ]
    site.request("cmp1", "hypervisor", ["cmp1", "cmp1.example.org"])
    site.request("ctl2")
    done = site.sign([*GRANTS, {**GRANTS[0], "minion": "ctl2"}], expected=expected)
    assert done["result"] is True and "warnings" not in done


def test_on_salt_without_x509_it_says_what_to_set(site, monkeypatch):
    modules, states = site.node("ctl1")
    names = [it for it in modules if not it.startswith("x509.")]
    kept = {it: modules[it] for it in names if it.startswith(("nova_certificate", "mine"))}
    monkeypatch.setitem(states.pack, "__salt__", kept)
    done = site.request("ctl1")
    assert done["result"] is False and "features: {x509_v2: true}" in done["comment"]


# ---- the map -------------------------------------------------------------------------------------

HERE = "/etc/ssl/nova"
TLS = {
    **{"ca": f"{HERE}/ca.pem", "cert": f"{HERE}/my.pem", "key": f"{HERE}/my.key"},
    "vip": f"{HERE}/vip.pem",
    "vnc": {"ca": f"{HERE}/vnc-ca.pem", "cert": f"{HERE}/vnc.pem", "key": f"{HERE}/vnc.key"},
}
SERVER = {
    **{"minion": "infra", "names": ["openstack-vip.example.org"], "ca": f"{HERE}/ca.pem"},
    **{"cert": f"{HERE}/server.pem", "key": f"{HERE}/server.key", "group": "mysql"},
}
GIVEN = {
    "tls": TLS,
    "authority": {"minion": "infra", "servers": {"mariadb": SERVER}},
    "migration": {"live": True, "tls": True},
}


def of(name, **more):
    nova = run_map(changed(name, **{**GIVEN, **more}), name)
    assert nova["faults"] == []
    return nova


def test_without_an_authority_files_are_looked_for():
    nova = run_map(changed(tls=TLS))
    assert nova["certificates"] is None and nova["tls_files"]


def test_each_node_asks_for_what_its_roles_serve():
    asked = {
        name: sorted(of(name)["certificates"]["identities"])
        for name in ("ctl1", "lb1", "cmp1", "infra")
    }
    assert asked == {
        "ctl1": ["display", "server"],
        "lb1": ["server"],
        "cmp1": ["display", "hypervisor"],
        "infra": ["mariadb"],
    }
    assert of("ctl1")["tls_files"] == {}
    its = {place["path"]: place for place in of("cmp1")["certificates"]["places"]}
    assert its["/etc/pki/qemu/server-key.pem"]["group"] == "libvirt-qemu"
    assert its["/etc/pki/libvirt/private/serverkey.pem"]["mode"] == "0600"
    assert its[TLS["ca"]] == {"path": TLS["ca"], "holds": "ca", "ca": "site"}
    assert its.keys().isdisjoint({TLS["key"], TLS["cert"], TLS["vnc"]["key"]})


def test_clients_certificates_of_servers_are_not_made_but_looked_for():
    tls = {"ca": f"{HERE}/ca.pem", "cert": "/c.pem", "key": "/k.pem"}
    nova = of("ctl1", database__tls=tls)
    assert nova["tls_files"] == {"database-tls-cert": "/c.pem", "database-tls-key": "/k.pem"}


def test_the_authority_grants_names_by_topology_and_signs_without_a_role():
    nova = of("infra")
    its = nova["certificates"]
    assert (nova["roles"], its["signs"]) == ([], True)
    grants = {(it["identity"], it["minion"]): it.get("names") for it in its["grants"]}
    assert grants["server", "ctl1"] == ["ctl1", "10.20.0.60"]
    assert grants["server", "lb1"][0] == "openstack-vip.example.org"
    assert grants["hypervisor", "cmp*"] is None
    assert grants["mariadb", "infra"] == ["openstack-vip.example.org"]
    assert "ctl1" in its["expected"]["server"] and its["expected"]["hypervisor"]
    assert of("ctl1")["certificates"]["grants"] == its["grants"]


def test_a_minion_that_has_no_part_in_it_has_nothing_to_do():
    assert "certificates" not in run_map(changed("other", **GIVEN), "other")


def test_a_single_node_is_its_own_authority():
    nova = run_map(changed(
        topology=..., roles=["controller", "compute"], my_ip="10.20.0.60",
        tls={key: TLS[key] for key in ("ca", "cert", "key")}, authority={"minion": "ctl1"},
    ))  # fmt: skip
    its = nova["certificates"]
    assert its["signs"] and list(its["identities"]) == ["server"]
    (grant,) = its["grants"]
    assert (grant["minion"], grant["names"][:2]) == ("ctl1", ["ctl1", "10.20.0.60"])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"tls": {**TLS, "vnc": {**TLS["vnc"], "ca": TLS["ca"]}}},
            f"nova:authority would make {TLS['ca']} of site and of displays: name two files.",
        ),
        (
            {"tls": {**TLS, "vip": TLS["cert"]}, "roles": ["haproxy"]},
            f"nova:authority would make {TLS['cert']} of server's cert and",
        ),
        (
            {"authority": {"minion": "infra", "days": 31}},
            "nova:authority:renew must be less than days, by two",
        ),
        ({"authority": {"servers": {"x": SERVER}}}, "nova:authority:minion is missing"),
        (
            {"authority": {"minion": "infra", "servers": {"server": SERVER}}},
            "nova:authority:servers:server has a name that must be small letters",
        ),
    ],
)
def test_what_it_cannot_do_is_a_fault(changes, fault):
    faults = run_map(changed("ctl1", **{**GIVEN, **changes}))["faults"]
    assert any(it.startswith(fault) for it in faults), faults
