"""nova.orchestrate.rotate: whose site it is, what comes before what, and who is asked."""

from conftest import load
from test_map import GRAINS

PREFIX = "nova-orchestrate-rotate-"


def steps(opts, topology, **pillar):
    opts["pillar"] = {"nova": {"topology": topology} if topology else {}, **pillar}
    opts["grains"].update(GRAINS)
    chunks = load(opts)[1]["state.show_low_sls"]("nova.orchestrate.rotate")
    chunks.sort(key=lambda chunk: chunk["order"])
    return {c["__id__"].removeprefix(PREFIX): c for c in chunks}


def test_a_step_ends_all_when_it_fails_and_the_retired_go_last(opts):
    topology = {"controller": {"a": "10.0.0.1", "b": "10.0.0.2"}, "compute": ["c*", "d"]}
    found = steps(opts, topology)
    assert list(found) == [
        *("present", "proof", "a", "b"),
        *("computes", "all-computes", "retired"),
    ]
    before = [chunk.get("require", [{}])[0].get("salt", "") for chunk in found.values()]
    assert [each.removeprefix(PREFIX) for each in before] == ["", *found][:-1]
    assert found["present"]["tgt"] == "a or b or c* or d"
    assert found["present"]["expect_minions"] is True
    assert (found["computes"]["tgt"], found["computes"]["batch"]) == ("c* or d", "25%")
    # A batch leaves out who does not answer; a state without one does not.
    assert "batch" not in found["all-computes"]
    assert {step["timeout"] for step in found.values() if step["fun"] == "state"} == {300}


def test_the_batch_can_be_named(opts):
    topology = {"controller": {"a": "10.0.0.1"}, "compute": ["c"]}
    assert steps(opts, topology, batch=7)["computes"]["batch"] == 7


def test_a_site_without_compute_nodes_has_no_step_for_them(opts):
    found = steps(opts, {"controller": {"a": "10.0.0.1"}})
    assert list(found) == ["present", "proof", "a", "retired"]
    assert found["present"]["tgt"] == "a"


def test_a_master_that_knows_no_site_says_so(opts):
    (chunk,) = steps(opts, None).values()
    assert chunk["fun"] == "fail_without_changes"
    assert "_master" in chunk["comment"]
