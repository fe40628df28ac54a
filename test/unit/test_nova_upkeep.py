"""Upkeep: every exit code has its name, and what comes in batches has bounds."""

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError
from test_nova_manage import UUID, nova, program  # noqa: F401

OUTCOMES = {
    "online_data_migrations": ([], {0: "done", 1: "more"}, [2, 127]),
    "map_instances": ([UUID], {0: "done", 1: "more"}, [127]),
    "archive_deleted_rows": ([], {0: "nothing", 1: "archived"}, [2, 3, 4]),
    "purge": (["2026-01-31"], {0: "deleted", 3: "nothing"}, [1, 2, 4]),
    "heal_allocations": ([], {0: "healed", 1: "more", 4: "nothing"}, [2, 3, 5, 6, 7, 8, 127]),
    "audit": ([], {0: "clean", 3: "orphans", 4: "deleted"}, [1, 127]),
    "sync_aggregates": ([], {0: "synced"}, [1, 2, 3, 4, 5, 6]),
}
SUCCESSES = [(f, a, c, name) for f, (a, good, _) in OUTCOMES.items() for c, name in good.items()]
FAILURES = [(f, a, code) for f, (a, _, bad) in OUTCOMES.items() for code in bad]


@pytest.fixture
def upkeep(nova):  # noqa: F811
    return lambda function, *a, **k: nova.modules[f"nova_upkeep.{function}"](*a, **k)


@pytest.mark.parametrize(("function", "args", "code", "name"), SUCCESSES)
def test_each_exit_code_that_is_no_failure_has_its_name(nova, upkeep, function, args, code, name):  # noqa: F811
    program(nova, f"echo one; echo; echo two; exit {code}")
    bound = {"batches": 1} if name == "more" else {}
    ret = upkeep(function, *args, **bound)
    assert ret["outcome"] == name
    assert ret.get("output", ["one", "two"]) == ["one", "two"]


@pytest.mark.parametrize(("function", "args", "code"), FAILURES)
def test_each_exit_code_that_is_a_failure_has_its_meaning(nova, upkeep, function, args, code):  # noqa: F811
    program(nova, f"echo the reason; exit {code}")
    with pytest.raises(CommandExecutionError) as caught:
        upkeep(function, *args)
    assert f"failed with code {code} (" in str(caught.value)
    assert str(caught.value).endswith("): the reason")
    assert caught.value.info == code


@pytest.mark.parametrize("code", [1, 255])
@pytest.mark.parametrize("function", OUTCOMES)
def test_a_crash_is_none_of_the_command_s_own_outcomes(nova, upkeep, function, code):  # noqa: F811
    program(
        nova, f"echo 'Traceback (most recent call last):'; echo 'DBError: no table'; exit {code}"
    )
    with pytest.raises(CommandExecutionError, match="code 255: DBError: no table") as caught:
        upkeep(function, *OUTCOMES[function][0])
    assert caught.value.info == 255


def counter(nova, body):  # noqa: F811
    """A program that knows how often it was called, as $n."""
    program(nova, f'echo "$@" >> {nova.path}/calls; n=$(wc -l < {nova.path}/calls); {body}')
    return lambda: (nova.path / "calls").read_text().splitlines()


def test_migrations_run_in_batches_until_none_is_left_and_are_summed_up(nova, upkeep):  # noqa: F811
    calls = counter(nova, 'echo "5 rows matched query fill_uuid, $n migrated"; [ $n = 3 ]')
    ret = upkeep("online_data_migrations", batch=7)
    assert ret["outcome"] == "done"
    assert (ret["batches"], ret["migrated"]) == (3, {"fill_uuid": 6})
    assert calls() == ["db online_data_migrations --max-count=7"] * 3


def test_a_loop_ends_when_its_time_is_over(nova, upkeep):  # noqa: F811
    counter(nova, "sleep 0.4; exit 1")
    ret = upkeep("online_data_migrations", timeout=1)
    assert ret["outcome"] == "more"
    assert 2 <= ret["batches"] <= 4


def test_a_migration_that_fails_is_named(nova, upkeep):  # noqa: F811
    program(
        nova,
        "echo 'Error attempting to run <function fill_uuid at 0x7f>'; "
        "echo 'Error attempting to run <bound method A.b of <class A>>'; echo failed; exit 2",
    )
    with pytest.raises(CommandExecutionError, match=r"These failed: A\.b, fill_uuid\."):
        upkeep("online_data_migrations")


def test_mapping_begins_anew_once_only(nova, upkeep):  # noqa: F811
    calls = counter(nova, "[ $n = 2 ]")
    upkeep("map_instances", UUID, batch=2, reset=True)
    command = f"cell_v2 map_instances --cell_uuid={UUID} --max-count=2"
    assert calls() == [f"{command} --reset", command]


def test_what_was_healed_before_the_last_batch_counts(nova, upkeep):  # noqa: F811
    counter(nova, "[ $n = 1 ] && exit 1; exit 4")
    assert upkeep("heal_allocations")["outcome"] == "healed"


@pytest.mark.parametrize(
    ("function", "options", "arguments"),
    [
        (
            "archive_deleted_rows",
            {"before": "2026-01-31", "purge": True, "task_log": True, "batch": 5},
            "db archive_deleted_rows --verbose --max_rows=5 --before=2026-01-31 --all-cells "
            "--until-complete --purge --task-log",
        ),
        (
            "archive_deleted_rows",
            {"all_cells": False, "until_complete": False},
            "db archive_deleted_rows --verbose --max_rows=1000",
        ),
        ("purge", {"everything": True}, "db purge --verbose --all --all-cells"),
        (
            "heal_allocations",
            {"instance": UUID, "force": True, "skip_ports": True},
            f"placement heal_allocations --verbose --instance={UUID} --skip-port-allocations "
            "--force",
        ),
        (
            "heal_allocations",
            {"cell": UUID, "batch": 3},
            f"placement heal_allocations --verbose --max-count=3 --cell={UUID}",
        ),
        (
            "audit",
            {"provider": UUID, "delete": True},
            f"placement audit --verbose --resource_provider={UUID} --delete",
        ),
    ],
)
def test_options_are_written_as_nova_manage_has_them(nova, upkeep, function, options, arguments):  # noqa: F811
    calls = counter(nova, "exit 0")
    upkeep(function, **options)
    assert calls() == [arguments]


@pytest.mark.parametrize("options", [{}, {"before": "2026-01-31", "everything": True}])
def test_purge_wants_either_a_date_or_everything(upkeep, options):
    with pytest.raises(SaltInvocationError, match="either before"):
        upkeep("purge", **options)
