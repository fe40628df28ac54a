"""Verification: each state passes, or fails with one sentence; test mode never fails."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from conftest import load

AUTH = {"auth_url": "http://vip:5000/v3", "username": "admin", "password": "x"}
SERVICES = [
    {"host": "ctl1", "binary": "nova-conductor", "state": "up", "updated_at": "t"},
    {"host": "ctl1", "binary": "nova-scheduler", "state": "up", "updated_at": "t"},
    {"host": "cmp1", "binary": "nova-compute", "state": "up", "updated_at": "t"},
]


@pytest.fixture
def cloud(opts, testmode):
    """The states, over answers that a test sets instead of those of a cloud."""
    from salt.exceptions import CommandExecutionError

    opts["test"] = testmode
    _, modules, states = load(opts)
    answers = {}

    def get_from(service_type, path, region=None, interface="public", auth=None, cloud=None):
        answer = answers.get((service_type, path))
        if answer is None:
            raise CommandExecutionError(f"The public endpoint of {service_type} does not answer.")
        return answer

    assert modules["nova_identity.get_from"]
    states.pack["__salt__"] = {
        **{name: modules[name] for name in ("nova_manage.list_cells", "nova_identity.get_from")},
        "nova_identity.get_from": get_from,
        "nova_identity.get_ahead": lambda *args, auth, anew: answers["ahead"].append((args, anew)),
        "nova_identity.catalog": lambda auth: answers["catalog"],
        "nova_manage.list_cells": lambda: answers["cells"],
        "nova_manage.unmapped_hosts": lambda: answers["unmapped"],
        "nova_manage.list_hosts": lambda: [],
        "nova_manage.list_services": lambda: answers["reports"].pop(0),
        "nova_manage.code_and_schema": lambda: answers["code"],
        "nova_manage.upgrade_check": lambda: answers["checks"].pop(),
    }
    return states, answers


def failure(testmode):
    return None if testmode else False


def test_an_api_that_answers_is_verified(cloud, testmode):
    states, answers = cloud
    answers["placement", "/"] = {}
    ret = states["nova_verify.api_answers"]("placement", AUTH, "RegionOne")
    assert (ret["result"], ret["changes"]) == (True, {})


@pytest.mark.parametrize("changed", [False, True])
def test_what_was_asked_ahead_holds_until_something_changes_or_fails(cloud, changed, monkeypatch):
    states, answers = cloud
    answers["ahead"] = []
    ahead = {"image": ["/v2/images"]}
    states.inject_globals = {"__running__": {"a": {"changes": {"x": {}} if changed else {}}}}
    monkeypatch.setattr("time.sleep", lambda _: answers.update({("compute", "/"): {}}))
    states["nova_verify.api_answers"]("compute", AUTH, "RegionOne", ahead=ahead)
    asked = (ahead, "RegionOne", "public")
    tries = [(asked, changed)] if states.opts["test"] else [(asked, changed), (asked, True)]
    assert answers["ahead"] == tries


def test_an_api_that_does_not_answer_fails_in_one_sentence(cloud, testmode):
    states, _ = cloud
    ret = states["nova_verify.api_answers"]("placement", AUTH, "RegionOne", timeout=0)
    assert ret["result"] is failure(testmode)
    assert "placement does not answer" in ret["comment"]


def test_a_dead_conductor_fails_and_a_dead_compute_is_reported(cloud, testmode):
    states, answers = cloud
    services = [dict(s) for s in SERVICES]
    answers["compute", "/os-services"] = {"services": services}
    verify = states["nova_verify.services_up"]
    assert verify("x", AUTH, "R", ["ctl1"])["result"] is True
    services[2]["state"] = "down"
    ret = verify("x", AUTH, "R", ["ctl1"])
    assert ret["result"] is True and "nova-compute on cmp1 is down" in ret["warnings"][0]
    services[0]["state"] = "down"
    ret = verify("x", AUTH, "R", ["ctl1"], timeout=0)
    assert ret["result"] is failure(testmode)
    assert "nova-conductor on ctl1 is not up" in ret["comment"]


class Reporting(dict):
    """A service that counts as down, and has reported anew each time one looks."""

    def __init__(self, offset, **fields):
        super().__init__(state="down", **fields)
        self.offset, self.looks = offset, 0

    def __getitem__(self, key):
        if key != "updated_at":
            return super().__getitem__(key)
        self.looks += 1
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        return (now + timedelta(seconds=self.offset, microseconds=self.looks)).isoformat()


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        (-300, "is 300 s behind this node's"),
        (301, "is 301 s ahead of this node's"),
        (-5, "and this node's are not that of the node whose API answered"),
    ],
)
def test_a_service_with_a_wrong_clock_is_told_from_a_dead_one(cloud, testmode, offset, said):
    states, answers = cloud
    conductor = Reporting(offset, host="ctl1", binary="nova-conductor")
    answers["compute", "/os-services"] = {"services": [conductor, *SERVICES[1:]]}
    verify = states["nova_verify.services_up"]
    ret = verify("x", AUTH, "R", ["ctl1"], timeout=0.1)
    assert ret["result"] is failure(testmode)
    if not testmode:
        assert f"its clock {said}. Set the clocks" in ret["comment"]


def test_a_missing_hypervisor_fails_by_its_name(cloud, testmode):
    states, answers = cloud
    answers["compute", "/os-hypervisors/detail"] = {
        "hypervisors": [
            {
                "hypervisor_hostname": "cmp1",
                "hypervisor_type": "QEMU",
                "state": "up",
                "service": {"host": "cmp1"},
            }
        ]
    }
    verify = states["nova_verify.hypervisors_present"]
    assert verify("x", AUTH, "R", ["cmp1"])["comment"] == "1 hypervisors: cmp1 (QEMU)."
    ret = verify("x", AUTH, "R", ["cmp1", "cmp2"], timeout=0)
    assert ret["result"] is failure(testmode) and "cmp2" in ret["comment"]


def test_an_endpoint_of_another_region_does_not_count(cloud, testmode):
    states, answers = cloud
    endpoint = {"interface": "public", "url": "http://vip:8774/v2.1", "region": "R"}
    answers["catalog"] = [{"type": "compute", "endpoints": [endpoint]}]
    wanted = [{"type": "compute", "interface": "public", "url": "http://vip:8774/v2.1"}]
    verify = states["nova_verify.catalog_complete"]
    assert verify("R", AUTH, "R", wanted)["result"] is True
    project = [{"type": "compute", "interface": "public", "url": "http://vip:8775/%(x)s"}]
    assert verify("R", AUTH, "R", project)["result"] is failure(testmode)
    project[0]["url"] = "http://vip:8774/%(project_id)s"
    assert verify("R", AUTH, "R", project)["result"] is True
    endpoint["region"] = "S"
    ret = verify("R", AUTH, "R", wanted)
    assert ret["result"] is failure(testmode)
    assert "no public endpoint of compute at http://vip:8774/v2.1" in ret["comment"]


def test_an_unmapped_host_fails_by_its_name(cloud, testmode):
    states, answers = cloud
    answers.update(cells=[{"name": "cell0"}, {"name": "cell1"}], unmapped=[])
    assert states["nova_verify.cells_mapped"]("cell1")["result"] is True
    answers["unmapped"] = [{"host": "cmp9"}]
    ret = states["nova_verify.cells_mapped"]("cell1")
    assert ret["result"] is failure(testmode) and "cmp9" in ret["comment"]


def test_the_upgrade_check_runs_for_new_code_only(cloud, testmode, tmp_path):
    states, answers = cloud
    stamp = tmp_path / "stamp"
    answers.update(code={"nova": "26"}, checks=[[{"check": "A", "result": "Success"}]])
    verify = states["nova_verify.upgrade_checked"]
    ret = verify("x", str(stamp))
    assert ret["changes"] == {"upgrade check passed for": {"old": None, "new": {"nova": "26"}}}
    assert ret["result"] is (None if testmode else True)
    stamp.write_text(json.dumps({"nova": "26"}))
    # A further check would fail here: no answer is left.
    answers["checks"] = []
    ret = verify("x", str(stamp))
    assert (ret["result"], ret["changes"]) == (True, {})


def test_a_failed_upgrade_check_is_not_remembered(cloud, testmode, tmp_path):
    states, answers = cloud
    stamp = tmp_path / "stamp"
    failed = [{"check": "Cells v2", "result": "Failure", "details": "no hosts"}]
    answers.update(code={"nova": "26"}, checks=[failed])
    ret = states["nova_verify.upgrade_checked"]("x", str(stamp))
    assert ret["result"] is failure(testmode)
    assert not stamp.exists()
    if not testmode:
        assert "Cells v2: no hosts" in ret["comment"]


@pytest.mark.parametrize(("given_up", "result"), [([], False), (["ctl1"], True)])
def test_guests_go_only_with_a_host_that_is_named(cloud, tmp_path, given_up, result):
    states, _ = cloud
    (tmp_path / "_base").mkdir()
    no_guests = states["nova_verify.no_guests"]
    assert no_guests(str(tmp_path), given_up)["result"] is True
    (tmp_path / "0b8f9e2c-6f0e-4c9f-9d0f-2f6d1f3a4b5c").mkdir()
    assert no_guests(str(tmp_path), given_up)["result"] is result


def reports(**counts):
    """What each host's conductor was heard of, as often as that."""
    return [
        {"cell": "cell1", "host": h, "binary": "nova-conductor", "reports": n, "forced_down": False}
        for h, n in counts.items()
    ]


def test_a_service_has_to_report_after_the_look_at_it_began(cloud, testmode, monkeypatch):
    states, answers = cloud
    report = states["nova_verify.services_report"]
    now = [0.0]
    clock = report.__globals__["time"]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    monkeypatch.setattr(clock, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    answers["reports"] = [reports(a=1, b=5), reports(a=2, b=5), reports(a=2, b=6)]
    ret = report("x", timeout=10)
    assert (ret["result"], ret["changes"], ret["comment"]) == (True, {}, "2 services report.")
    assert len(answers["reports"]) == (2 if testmode else 0)
    answers["reports"] = [reports(a=1, b=5), *[reports(a=2, b=5)] * 9]
    ret = report("x", timeout=4)
    assert ret["result"] is testmode
    assert testmode or "Not heard of for 4 s: nova-conductor on b." in ret["comment"]


def test_a_service_that_is_forced_down_need_not_report(cloud):
    states, answers = cloud
    answers["reports"] = [[{**row, "forced_down": True} for row in reports(a=1)]]
    assert states["nova_verify.services_report"]("x", timeout=0)["result"] is True
