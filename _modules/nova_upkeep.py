"""
What nova's data wants now and then: online migrations, archiving, instances mapped, allocations.

Each function runs nova-manage on a controller and returns ``outcome``, what its exit code means,
and ``output``, its lines. A failure raises CommandExecutionError, its code in ``exc.info``.
What comes in batches runs until all is done, in bounds: the time, and if wanted the batches.
"""

import logging
import re
import time
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

log = logging.getLogger(__name__)

#: Exit codes that are no failure, by command.
ONLINE_DATA_MIGRATIONS = {0: "done", 1: "more"}
MAP_INSTANCES = {0: "done", 1: "more"}
ARCHIVE_DELETED_ROWS = {0: "nothing", 1: "archived"}
PURGE = {0: "deleted", 3: "nothing"}
HEAL_ALLOCATIONS = {0: "healed", 1: "more", 4: "nothing"}
AUDIT = {0: "clean", 3: "orphans", 4: "deleted"}
SYNC_AGGREGATES = {0: "synced"}

#: Placement's tables that say what a site has, and those that each Placement fills by itself.
PLACEMENT_DATA = (
    *("resource_providers", "inventories", "allocations", "consumers", "projects", "users"),
    *("placement_aggregates", "resource_provider_aggregates", "resource_provider_traits"),
)
PLACEMENT_NAMES = ("traits", "resource_classes")
#: The first revision of Placement's own schema: the tables as nova_api has them.
PLACEMENT_INITIAL = "b4ed3a175331"

_BAD_NUMBER = {127: "a number must be positive"}
#: Those that are, besides 255 for an exception that nothing caught.
ONLINE_DATA_MIGRATIONS_FAILED = {2: "migrations failed: see nova-manage's log", **_BAD_NUMBER}
MAP_INSTANCES_FAILED = _BAD_NUMBER
ARCHIVE_DELETED_ROWS_FAILED = {
    2: "the number of rows is not allowed",
    3: "the nova_api database cannot be reached",
    4: "the date cannot be read",
}
PURGE_FAILED = {
    1: "it wants a date or all",
    2: "the date cannot be read",
    4: "the nova_api database cannot be reached",
}
HEAL_ALLOCATIONS_FAILED = {
    2: "an instance's compute node is not found",
    3: "Placement refuses an allocation",
    5: "Neutron cannot be asked for ports",
    6: "Neutron's ports cannot be updated",
    7: "Neutron's ports were changed and cannot be changed back: mend them by hand",
    8: "instances with a vGPU or an accelerator cannot be healed",
    127: "these arguments do not go together, or the instance or cell is not known",
}
AUDIT_FAILED = {
    1: "allocations could not be deleted",
    127: "there is no such resource provider",
}
SYNC_AGGREGATES_FAILED = {
    1: "a host has several compute nodes",
    2: "Placement cannot be asked, or does not know a host's resource provider",
    3: "Placement refuses an aggregate",
    4: "hosts of an aggregate are mapped to no cell: discover them first",
    5: "hosts of an aggregate have no compute node: start nova-compute there",
    6: "hosts of an aggregate have no resource provider: restart nova-compute there",
}

_MATCHED = re.compile(r"(\d+) rows matched query (\w+), (\d+) migrated")
_FAILED = re.compile(r"^Error attempting to run <(?:function|bound method) ([\w.]+)", re.MULTILINE)


def online_data_migrations(
    batch: int = 1000, batches: int | None = None, timeout: int = 3600, held=None
) -> dict[str, Any]:
    """
    Bring rows to the form of the installed code, once all services run it.

    batch : int
        Rows at a time.
    batches : int
        After so many it stops with the outcome ``more``; None: no bound but the time.
    timeout : int
        Seconds for all batches; the one that runs then is killed, which loses nothing.
    held
        The site's lock (nova_db.lock): nova-manage is killed when it is lost.

    Returns ``outcome`` (``done``, ``more``), ``batches`` and ``migrated``: rows by migration.

    Exit codes: 0 done; 1 more is left; 2 migrations failed; 127 a number is not positive.

    CLI Example::

        salt ctl1 nova_upkeep.online_data_migrations batch=500
    """
    migrated: dict[str, int] = {}

    def progress(output: str) -> str:
        for _, name, count in _MATCHED.findall(output):
            migrated[name] = migrated.get(name, 0) + int(count)
        return f"{sum(migrated.values())} rows migrated"

    try:
        done = _in_batches(
            ["db", "online_data_migrations", f"--max-count={batch}"],
            ONLINE_DATA_MIGRATIONS,
            ONLINE_DATA_MIGRATIONS_FAILED,
            progress,
            (batches, timeout, held),
        )
    except CommandExecutionError as exc:
        names = sorted(set(_FAILED.findall(getattr(exc, "output", ""))))
        if names:
            raise _failure(f"{exc} These failed: {', '.join(names)}.", exc.info) from exc
        raise
    return {**done, "migrated": migrated}


def map_instances(
    cell: str,
    batch: int = 1000,
    batches: int | None = None,
    timeout: int = 3600,
    reset: bool = False,
    held=None,
) -> dict[str, Any]:
    """
    Map the instances of a cell to it, such as those of a nova that had no cells.

    cell : str
        The cell's uuid.
    batch, batches, timeout, held
        As of online_data_migrations. A stopped one goes on where it was.
    reset : bool
        Begin with the first instance again.

    Returns ``outcome`` (``done``, ``more``) and ``batches``.

    Exit codes: 0 done; 1 more is left; 127 a number is not positive; 255 there is no such cell.

    CLI Example::

        salt ctl1 nova_upkeep.map_instances 5b4a…
    """
    return _in_batches(
        ["cell_v2", "map_instances", f"--cell_uuid={cell}", f"--max-count={batch}"],
        MAP_INSTANCES,
        MAP_INSTANCES_FAILED,
        lambda output: "instances are mapped",
        (batches, timeout, held),
        ["--reset"] if reset else [],
    )


def archive_deleted_rows(
    batch: int = 1000,
    before: str | None = None,
    all_cells: bool = True,
    until_complete: bool = True,
    purge: bool = False,
    task_log: bool = False,
    timeout: int = 3600,
    held=None,
) -> dict[str, Any]:
    """
    Move the rows of what was deleted to the shadow tables.

    batch : int
        Rows at a time.
    before : str
        Only what was deleted before this date, such as ``2026-01-31`` (from Train on).
    all_cells : bool
        In all cells (from Train on), or in the one of nova.conf.
    until_complete : bool
        All of them, or one batch.
    purge : bool
        Empty the shadow tables afterwards.
    task_log : bool
        The task log too (from Xena on).
    timeout : int
        Seconds after which nova-manage is killed, which loses nothing.
    held
        The site's lock (nova_db.lock): nova-manage is killed when it is lost.

    Returns ``outcome`` (``archived``, ``nothing``) and ``output``: tables with their rows.

    Exit codes: 0 nothing to archive; 1 archived, a success; 2 a number is not allowed; 3 the
    nova_api database cannot be reached; 4 the date cannot be read.

    CLI Example::

        salt ctl1 nova_upkeep.archive_deleted_rows before=2026-01-31
    """
    return _outcome(
        [
            *("db", "archive_deleted_rows", "--verbose", f"--max_rows={batch}"),
            *_flags(
                before=before,
                all_cells=all_cells,
                until_complete=until_complete,
                purge=purge,
                task_log=task_log,
            ),
        ],
        ARCHIVE_DELETED_ROWS,
        ARCHIVE_DELETED_ROWS_FAILED,
        timeout,
        held,
    )


def purge(
    before: str | None = None,
    everything: bool = False,
    all_cells: bool = True,
    timeout: int = 3600,
    held=None,
) -> dict[str, Any]:
    """
    Delete rows of the shadow tables for good.

    before : str
        Those that were archived before this date, such as ``2026-01-31``.
    everything : bool
        Or all of them.
    all_cells : bool
        In all cells, or in the one of nova.conf.
    timeout, held
        As of archive_deleted_rows.

    Returns ``outcome`` (``deleted``, ``nothing``) and ``output``.

    Raises SaltInvocationError unless one of before and everything is given.

    Exit codes: 0 deleted; 1 neither a date nor all; 2 the date cannot be read; 3 nothing to delete,
    a success; 4 the nova_api database cannot be reached.

    CLI Example::

        salt ctl1 nova_upkeep.purge before=2025-12-31
    """
    if bool(before) == everything:
        raise SaltInvocationError("Give either before, a date, or everything=True.")
    flags = _flags(before=before, all=everything, all_cells=all_cells)
    return _outcome(["db", "purge", "--verbose", *flags], PURGE, PURGE_FAILED, timeout, held)


def heal_allocations(
    batch: int = 1000,
    batches: int | None = None,
    instance: str | None = None,
    cell: str | None = None,
    dry_run: bool = False,
    skip_ports: bool = False,
    force: bool = False,
    timeout: int = 3600,
    held=None,
) -> dict[str, Any]:
    """
    Create in Placement the allocations that instances lack.

    batch, batches, timeout, held
        As of online_data_migrations.
    instance, cell : str
        Only this instance, or this cell's (from Ussuri on), by uuid.
    dry_run : bool
        Only say what would be done; the outcome is ``nothing``.
    skip_ports : bool
        Pass over the resources of ports.
    force : bool
        Correct an instance's allocations too (from Victoria on; with ``instance``).

    Returns ``outcome`` (``healed``, ``more``, ``nothing``), ``batches`` and ``output``.

    Exit codes: 0 healed; 1 more is left; 2 no compute node; 3 Placement refuses; 4 nothing to heal;
    5 to 7 Neutron; 8 a vGPU or an accelerator (from Xena on); 127 bad arguments.

    CLI Example::

        salt ctl1 nova_upkeep.heal_allocations dry_run=True
    """
    bound = [] if instance or dry_run else [f"--max-count={batch}"]
    flags = _flags(
        instance=instance,
        cell=cell,
        dry_run=dry_run,
        skip_port_allocations=skip_ports,
        force=force,
    )
    return _in_batches(
        ["placement", "heal_allocations", "--verbose", *bound, *flags],
        HEAL_ALLOCATIONS,
        HEAL_ALLOCATIONS_FAILED,
        lambda output: "allocations are healed",
        (batches, timeout, held),
    )


def audit(
    provider: str | None = None, delete: bool = False, timeout: int = 3600, held=None
) -> dict[str, Any]:
    """
    Find allocations in Placement whose instance is gone (from Ussuri on).

    provider : str
        Only those of this resource provider, by uuid.
    delete : bool
        Delete them.
    timeout, held
        As of archive_deleted_rows.

    Returns ``outcome`` (``clean``, ``orphans``, ``deleted``) and ``output``.

    Exit codes: 0 none; 1 they could not be deleted; 3 there are some; 4 they were deleted; 127 no
    such provider.

    CLI Example::

        salt ctl1 nova_upkeep.audit
    """
    flags = _flags(resource_provider=provider, delete=delete)
    return _outcome(["placement", "audit", "--verbose", *flags], AUDIT, AUDIT_FAILED, timeout, held)


def sync_aggregates(timeout: int = 3600, held=None) -> dict[str, Any]:
    """
    Tell Placement the hosts of nova's aggregates.

    timeout, held
        As of archive_deleted_rows.

    Returns ``outcome`` (``synced``) and ``output``.

    Exit codes: 0 synced; 1 several compute nodes of one host; 2, 3 Placement; 4 a host without
    mapping; 5 one without compute node; 6 one without resource provider.

    CLI Example::

        salt ctl1 nova_upkeep.sync_aggregates
    """
    return _outcome(
        ["placement", "sync_aggregates", "--verbose"],
        SYNC_AGGREGATES,
        SYNC_AGGREGATES_FAILED,
        timeout,
        held,
    )


def placement_to_move(source: str, target: str, connection: dict | None = None) -> int:
    """
    How many rows Placement's tables have in nova_api that its own database has yet to get.

    None are where the source has nothing of a site's, or where the target already has.

    source, target : str
        Names of the databases, on one server.
    connection : dict
        The way to that server: see nova_database.

    Raises CommandExecutionError when a Placement ran on the target before its rows were moved.

    CLI Example::

        salt ctl1 nova_upkeep.placement_to_move nova_api placement
    """
    ours = _placement_rows(source, connection)
    if not any(ours.get(table) for table in PLACEMENT_DATA):
        return 0
    theirs = _placement_rows(target, connection)
    if any(theirs.get(table) for table in PLACEMENT_DATA):
        return 0
    inside = {**connection, "database": target} if connection else None
    version = __salt__["nova_manage.schema_version"]("placement", inside) if theirs else None
    if any(theirs.values()) or version not in (None, PLACEMENT_INITIAL):
        raise _failure(
            f"{source} has {ours['resource_providers']} resource providers, and {target} a schema "
            "without any: a Placement ran there before its rows were moved. Drop the database "
            f"{target} and apply this again.",
            None,
        )
    return sum(ours.values())


def copy_placement(
    source: str, target: str, connection: dict | None = None, timeout: int = 3600, held=None
) -> int:
    """
    Copy Placement's tables from nova_api into a database of their own; returns the number of rows.

    Tables come first, each where it is missing; the rows and the schema's revision follow in one
    transaction, so that what is cut off is begun again. The source stays as it is. Nothing may
    write to it meanwhile.

    source, target : str
        Names of the databases, on one server.
    connection : dict
        An administrator's way to that server: see nova_database.
    timeout : int
        Seconds for the rows of one table.
    held
        The site's lock, which must still be held in the end.

    CLI Example::

        salt ctl1 nova_upkeep.copy_placement nova_api placement
    """
    inside = {**connection, "database": target} if connection else None
    copies = []
    _query("SET SESSION foreign_key_checks = 0", inside)
    try:
        for name in _placement_rows(source, connection):
            table = f"{_quoted(source)}.{_quoted(name)}"
            made = _query(f"SHOW CREATE TABLE {table}", inside)[0]["Create Table"]
            _query(made.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1), inside)
            fields = ", ".join(
                _quoted(row["Field"]) for row in _query(f"SHOW COLUMNS FROM {table}", inside)
            )
            copies.append(f"INSERT INTO {_quoted(name)} ({fields}) SELECT {fields} FROM {table}")
    finally:
        _query("SET SESSION foreign_key_checks = 1", inside)
    _query(
        "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
        inside,
    )
    stamp = f"INSERT IGNORE INTO alembic_version VALUES ('{PLACEMENT_INITIAL}')"
    return __salt__["nova_database.transaction"](
        ["SET SESSION foreign_key_checks = 0", stamp, *copies], inside, timeout, held
    )


def _placement_rows(database: str, connection: dict | None) -> dict[str, int]:
    """The number of rows of each of Placement's tables that are in a database."""
    there = _query(
        "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = %s",
        connection,
        [database],
    )
    names = {row["name"] for row in there} & {*PLACEMENT_DATA, *PLACEMENT_NAMES}
    return {
        name: _query(f"SELECT COUNT(*) AS n FROM {_quoted(database)}.{_quoted(name)}", connection)[
            0
        ]["n"]
        for name in sorted(names)
    }


def _query(statement: str, connection: dict | None, values: list | None = None) -> list[dict]:
    return __salt__["nova_database.query"](statement, values, connection=connection)


def _quoted(identifier: str) -> str:
    return "`" + identifier.replace("`", "``") + "`"


def _failure(message: str, info: int | str | None) -> CommandExecutionError:
    return __utils__["nova_program.failure"](message, info)


def _flags(**options: str | bool | None) -> list[str]:
    """The options that are wanted, as nova-manage writes them: not all of one kind."""
    flags = []
    for option, value in options.items():
        name = option if option == "resource_provider" else option.replace("_", "-")
        if value:
            flags.append(f"--{name}" if value is True else f"--{name}={value}")
    return flags


def _outcome(
    args: list[str], outcomes: dict[int, str], failures: dict[int, str], timeout: int, held
) -> dict[str, Any]:
    code, out = __utils__["nova_program.manage"](
        *args, success=tuple(outcomes), failures=failures, timeout=timeout, held=held
    )
    lines = [line.rstrip() for line in out.splitlines() if line.strip()]
    return {"outcome": outcomes[code], "output": [_mask(line) for line in lines]}


def _mask(text: str) -> str:
    return __utils__["nova_url.mask"](text)


def _in_batches(
    args: list[str],
    outcomes: dict[int, str],
    failures: dict[int, str],
    progress,
    bounds: tuple[int | None, int, Any],
    first: list[str] | tuple = (),
) -> dict[str, Any]:
    """Repeat a command while its outcome is ``more``; ``first`` goes to the first one alone."""
    batches, timeout, held = bounds
    deadline = time.monotonic() + timeout
    done, said = 0, []
    while True:
        left = max(1, round(deadline - time.monotonic()))
        ret = _outcome([*args, *(first if not done else ())], outcomes, failures, left, held)
        done += 1
        said += ret["output"]
        log.info("%s: %s", " ".join(args[:2]), progress("\n".join(ret["output"])))
        if ret["outcome"] != "more" or done == batches or time.monotonic() >= deadline:
            break
    if ret["outcome"] == "nothing" and done > 1:
        ret["outcome"] = "healed"
    return {"outcome": ret["outcome"], "batches": done, "output": said}
