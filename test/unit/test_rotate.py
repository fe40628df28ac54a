"""nova.orchestrate.rotate: whose site it is, what comes before what, and who is asked."""

import itertools

import pytest
from conftest import load
from test_map import GRAINS

PREFIX = "nova-orchestrate-"
CONTROLLERS = {"a": "10.0.0.1", "b": "10.0.0.2"}


def steps(opts, topology, **pillar):
    opts["pillar"] = {"nova": {"topology": topology} if topology else {}, **pillar}
    opts["grains"].update(GRAINS)
    chunks = load(opts)[1]["state.show_low_sls"]("nova.orchestrate.rotate")
    chunks.sort(key=lambda chunk: chunk["order"])
    return {c["__id__"].removeprefix(PREFIX): c for c in chunks}


@pytest.mark.parametrize("balancers", [{}, {"l": "10.0.0.3"}])
def test_a_step_ends_all_when_it_fails_and_the_retired_go_last(opts, balancers):
    topology = {"controller": CONTROLLERS, "haproxy": balancers, "compute": ["c*", "d"]}
    found = steps(opts, topology)
    each = ("due", "drained", "applied") if balancers else ("due", "applied")
    assert list(found) == [
        *("rotate-present", "rotate-proof"),
        *(f"rolling-{controller}-{step}" for controller in CONTROLLERS for step in each),
        *(["rolling-all-ready"] if balancers else []),
        *("rotate-computes", "rotate-all-computes", "rotate-retired"),
    ]
    for before, name in itertools.pairwise(found):
        after = [*found[name].get("require", []), *found[name].get("onchanges", [])]
        assert found[before].get("failhard") or {"salt": PREFIX + before} in after
    assert found["rotate-present"]["tgt"] == " or ".join(["a", "b", *balancers, "c*", "d"])
    assert found["rotate-present"]["expect_minions"] is True
    computes = found["rotate-computes"]
    assert (computes["tgt"], computes["batch"]) == ("c* or d", "25%")
    # A batch leaves out who does not answer; a state without one does not.
    assert "batch" not in found["rotate-all-computes"]
    # Salt asks after so long whether a minion is at work, and forgives one missed answer no longer.
    states = {name: step for name, step in found.items() if step["fun"] == "state"}
    whole = {name for name, step in states.items() if step["sls"] == "nova" and "test" not in step}
    assert {name for name, step in states.items() if step["timeout"] == 1800} == whole
    assert {step["timeout"] for name, step in states.items() if name not in whole} == {300}


def test_the_batch_can_be_named(opts):
    topology = {"controller": {"a": "10.0.0.1"}, "compute": ["c"]}
    assert steps(opts, topology, batch=7)["rotate-computes"]["batch"] == 7


def test_a_site_without_compute_nodes_has_no_step_for_them(opts):
    found = steps(opts, {"controller": {"a": "10.0.0.1"}})
    controller = ["rolling-a-due", "rolling-a-applied"]
    assert list(found) == ["rotate-present", "rotate-proof", *controller, "rotate-retired"]
    assert found["rotate-present"]["tgt"] == "a"


def test_a_master_that_knows_no_site_says_so(opts):
    (chunk,) = steps(opts, None).values()
    assert chunk["fun"] == "fail_without_changes"
    assert "_master" in chunk["comment"]
