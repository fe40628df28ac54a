"""Ports of a zone: opened now and for good, where they are not; nothing else is touched."""

import pytest
from conftest import load
from salt.exceptions import CommandExecutionError
from stub import stub

PORTS = ["8774/tcp", "5900-6923/tcp"]


@pytest.fixture
def zone(opts, testmode, monkeypatch, tmp_path):
    """A firewalld of one zone: ``{permanent: ports}``; answers of the state."""
    (tmp_path / "firewall-cmd").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    opts["test"] = testmode
    _, modules, states = load(opts)
    zone = {True: ["22/tcp"], False: ["22/tcp"]}
    runs = {"firewalld": {"ActiveState": "active"}}
    zone["show"] = stub(modules, "nova_unit.show", return_value=runs)
    stub(modules, "firewalld.list_ports", side_effect=lambda name, permanent: zone[permanent])
    zone["add"] = stub(
        modules,
        "firewalld.add_port",
        side_effect=lambda name, port, permanent: zone[permanent].append(port),
    )
    zone["state"] = lambda: states["nova_firewall.ports_open"]("public", PORTS)
    zone["test"] = testmode
    return zone


def test_ports_are_opened_now_and_for_good(zone):
    ret = zone["state"]()
    assert ret["changes"] == {port: {"old": None, "new": "open"} for port in PORTS}
    if zone["test"]:
        assert (ret["result"], zone[True], zone[False]) == (None, ["22/tcp"], ["22/tcp"])
        return
    assert ret["result"] is True
    assert sorted(zone[True]) == sorted(zone[False]) == sorted(["22/tcp", *PORTS])
    again = zone["state"]()
    assert (again["result"], again["changes"]) == (True, {})


def test_a_port_that_is_open_until_the_next_start_alone_is_a_change(zone):
    zone[False] += PORTS
    zone[True] += PORTS[1:]
    assert list(zone["state"]()["changes"]) == ["8774/tcp"]
    if not zone["test"]:
        zone["add"].assert_called_once_with("public", "8774/tcp", True)


def test_what_firewalld_refuses_is_one_sentence(zone):
    zone["add"].side_effect = CommandExecutionError("INVALID_ZONE: public")
    ret = zone["state"]()
    assert ret["result"] is (None if zone["test"] else False)
    if not zone["test"]:
        assert (ret["changes"], "INVALID_ZONE" in ret["comment"]) == ({}, True)


def test_where_firewalld_does_not_run_there_is_nothing_to_open(zone):
    zone["show"].return_value = {"firewalld": {"ActiveState": "inactive"}}
    ret = zone["state"]()
    assert (ret["result"], ret["changes"]) == (True, {})
    zone["add"].assert_not_called()
