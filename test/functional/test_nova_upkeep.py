"""Upkeep of nova's data by the real nova-manage: each outcome that can be had without a cloud."""

import pytest
from controller import API, CELL0, INSTANCE, LOCK, MAIN, needs_nova
from salt.exceptions import CommandExecutionError

pytestmark = needs_nova

#: What the nova of Victoria has to migrate.
PCI = (
    "INSERT INTO pci_devices (compute_node_id, address, vendor_id, product_id, dev_type, label, "
    "dev_id, status, deleted) "
    "SELECT id, %s, 'v', 'p', 'type-PCI', 'l', 'd', 'available', 0 FROM compute_nodes"
)


@pytest.fixture(scope="module")
def site(bench):
    bench.prepare()
    bench.converge()
    return bench


@pytest.fixture
def upkeep(site):
    return lambda function, *args, **kwargs: site.modules[f"nova_upkeep.{function}"](
        *args, **kwargs
    )


def fails(upkeep, code, function, *args, **kwargs):
    with pytest.raises(CommandExecutionError) as caught:
        upkeep(function, *args, **kwargs)
    assert caught.value.info == code, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_are_migrated_in_bounded_batches(site, upkeep):
    site.register("cmp1")
    assert upkeep("online_data_migrations")["migrated"] == {"migrate_empty_ratio": 1}
    for number in range(5):
        site.sql(PCI, f"0000:00:0{number}.0", database=MAIN)
    ret = upkeep("online_data_migrations", batch=2, batches=1)
    assert (ret["outcome"], ret["batches"], ret["migrated"]) == (
        "more",
        1,
        {"populate_dev_uuids": 2},
    )
    ret = upkeep("online_data_migrations", batch=2)
    assert (ret["outcome"], ret["migrated"]) == ("done", {"populate_dev_uuids": 3})
    assert site.sql("SELECT 1 FROM pci_devices WHERE uuid IS NULL", database=MAIN) == []
    assert upkeep("online_data_migrations")["migrated"] == {}


def test_a_migration_that_fails_is_named(site, upkeep):
    site.sql("RENAME TABLE pci_devices TO pci_hidden", database=MAIN)
    try:
        assert "populate_dev_uuids" in fails(upkeep, 2, "online_data_migrations")
    finally:
        site.sql("RENAME TABLE pci_hidden TO pci_devices", database=MAIN)
    fails(upkeep, 127, "online_data_migrations", batch=0)


def test_the_state_migrates_once_for_a_code_and_schema(site, tmp_path):
    stamp = str(tmp_path / "stamp")
    site.predicted_and_done("nova_schema.data_migrated", "x", stamp, site_lock=LOCK)


def test_instances_are_mapped_in_batches_and_archived_when_they_are_gone(site, upkeep):
    uuid = site.cells()[1]["uuid"]
    for number in range(3):
        site.sql(INSTANCE.replace("i-1", f"i-{number}"), database=MAIN)
    ret = upkeep("map_instances", uuid, batch=2, batches=1)
    assert (ret["outcome"], ret["batches"]) == ("more", 1)
    ret = upkeep("map_instances", uuid, batch=2)
    assert ret["outcome"] == "done"
    mapped = site.sql("SELECT instance_uuid FROM instance_mappings", database=API)
    assert sorted(row["instance_uuid"] for row in mapped) == ["i-0", "i-1", "i-2"]
    fails(upkeep, 127, "map_instances", uuid, batch=0)
    assert "CellMappingNotFound" in fails(upkeep, 255, "map_instances", CELL0.replace("0", "1"))

    assert upkeep("archive_deleted_rows")["outcome"] == "nothing"
    site.sql("UPDATE instances SET deleted = id, deleted_at = UTC_TIMESTAMP()", database=MAIN)
    assert upkeep("archive_deleted_rows", before="2001-01-01")["outcome"] == "nothing"
    ret = upkeep("archive_deleted_rows")
    assert ret["outcome"] == "archived"
    assert any("instances" in line and "3" in line for line in ret["output"])
    assert site.sql("SELECT 1 FROM instance_mappings", database=API) == []
    fails(upkeep, 2, "archive_deleted_rows", batch=-1)
    fails(upkeep, 4, "archive_deleted_rows", before="no date")

    assert upkeep("purge", before="2001-01-01")["outcome"] == "nothing"
    assert upkeep("purge", everything=True)["outcome"] == "deleted"
    assert upkeep("purge", everything=True)["outcome"] == "nothing"
    fails(upkeep, 2, "purge", before="no date")


def test_a_database_that_is_not_configured_is_said_so(site, upkeep):
    conf = site.etc / "nova/nova.conf"
    before = conf.read_text()
    conf.write_text(before.replace("[api_database]", "[nothing]"))
    try:
        fails(upkeep, 3, "archive_deleted_rows")
    finally:
        conf.write_text(before)


def test_options_that_do_not_go_together_are_refused(site, upkeep):
    fails(upkeep, 127, "heal_allocations", force=True)
    fails(upkeep, 127, "heal_allocations", cell=CELL0, instance=CELL0)


@pytest.fixture
def placement(site):
    """The cloud's Placement, on a controller that has one: asked, never changed."""
    if not site.cloud:
        pytest.skip("this host's nova.conf names no Placement")


def test_allocations_are_looked_after(upkeep, placement):
    assert upkeep("heal_allocations", dry_run=True)["outcome"] == "nothing"
    assert upkeep("audit")["outcome"] in ("clean", "orphans")
    fails(upkeep, 127, "audit", provider=CELL0)
    assert upkeep("sync_aggregates")["outcome"] == "synced"


def test_an_aggregate_of_a_host_that_is_not_mapped_is_named(site, upkeep, placement):
    site.sql(
        "INSERT INTO aggregates (created_at, id, uuid, name) "
        "VALUES (UTC_TIMESTAMP(), 1, UUID(), 'a')",
        database=API,
    )
    site.sql("INSERT INTO aggregate_hosts (host, aggregate_id) VALUES ('cmp7', 1)", database=API)
    assert "cmp7" in fails(upkeep, 4, "sync_aggregates")
    uuid = site.cells()[1]["uuid"]
    site.sql(
        "INSERT INTO host_mappings (cell_id, host) SELECT id, 'cmp7' FROM cell_mappings "
        "WHERE uuid = %s",
        uuid,
        database=API,
    )
    assert "cmp7" in fails(upkeep, 5, "sync_aggregates")
    site.register("cmp7", mapped=1)
    # Code 6 is for this by nova's manual; Placement's 404 comes first.
    assert "provider" in fails(upkeep, 2, "sync_aggregates")
