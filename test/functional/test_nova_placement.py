"""
Rows of the Placement inside Nova are moved to a database of Placement's own, on a real server.

Nothing but the server is needed here, so that any of them can be tried from any host.
"""

import threading

import pytest
from controller import API, LOCK, PLACEMENT, USER, Bench, needs_server
from salt.exceptions import CommandExecutionError

pytestmark = needs_server

#: Some of the tables as nova's own migrations made them: columns that came later stand last.
TABLES = (
    "CREATE TABLE resource_providers (created_at DATETIME, updated_at DATETIME, "
    "id INT AUTO_INCREMENT PRIMARY KEY, uuid VARCHAR(36) NOT NULL UNIQUE, name VARCHAR(200), "
    "generation INT, root_provider_id INT, parent_provider_id INT, "
    "FOREIGN KEY (root_provider_id) REFERENCES resource_providers (id)) CHARACTER SET utf8mb3",
    "CREATE TABLE traits (created_at DATETIME, id INT AUTO_INCREMENT PRIMARY KEY, "
    "name VARCHAR(255) NOT NULL UNIQUE)",
    "CREATE TABLE resource_provider_traits (trait_id INT, resource_provider_id INT, "
    "PRIMARY KEY (trait_id, resource_provider_id), FOREIGN KEY (trait_id) REFERENCES traits (id), "
    "FOREIGN KEY (resource_provider_id) REFERENCES resource_providers (id))",
    "CREATE TABLE allocations (id INT AUTO_INCREMENT PRIMARY KEY, resource_provider_id INT, "
    "consumer_id VARCHAR(36), resource_class_id INT, used INT)",
)
ROWS = (
    "INSERT INTO resource_providers (id, uuid, name, root_provider_id) VALUES (7, 'u7', 'cmp1', 7)",
    "INSERT INTO traits (id, name) VALUES (3, 'HW_CPU_X86_AVX')",
    "INSERT INTO resource_provider_traits VALUES (3, 7)",
    "INSERT INTO allocations "
    "SELECT NULL, 7, UUID(), 0, 1 FROM information_schema.columns LIMIT 300",
    "CREATE TABLE cell_mappings (id INT)",
)


@pytest.fixture
def site(server, tmp_path):
    """A server with both databases; the source has Placement's tables and others."""
    server.wipe()
    (server.etc / "nova").mkdir(exist_ok=True)
    for database in (API, PLACEMENT):
        server.done("nova_database.present", database, connection=server.admin)
    for statement in TABLES:
        server.sql(statement, database=API)
    return server


def arguments(site):
    return [PLACEMENT], {"source": API, "connection": site.admin, "site_lock": site_lock(site)}


def site_lock(site):
    """The lock of a node whose nova.conf leads to the server."""
    where = f"{site.admin['host']}:{site.admin['port']}"
    path = site.etc / "nova.conf"
    path.write_text(
        f"[api_database]\nconnection = mysql+pymysql://{USER}:s3cret@{where}/{API}\n"
    )
    site.done(
        "nova_database.user_present",
        USER,
        hosts=["%", "127.%"],
        password="s3cret",
        grants={API: "ALL"},
        connection=site.admin,
    )
    return {**LOCK, "config": str(path)}


def fill(site):
    for statement in ROWS:
        site.sql(statement, database=API)


def content(site, database):
    return {
        table: site.sql(f"SELECT * FROM {table} ORDER BY 1, 2", database=database)
        for table in ("resource_providers", "traits", "resource_provider_traits", "allocations")
    }


def test_all_rows_are_copied_once_and_the_source_keeps_its_own(site):
    fill(site)
    before = content(site, API)
    names, more = arguments(site)
    done = site.predicted_and_done("nova_schema.placement_moved", *names, **more)
    assert done["changes"] == {f"{PLACEMENT} rows": {"old": 0, "new": 303}}
    assert content(site, PLACEMENT) == before == content(site, API)
    assert site.sql("SELECT version_num AS v FROM alembic_version", database=PLACEMENT) == [
        {"v": "b4ed3a175331"}
    ]
    tables = {list(row.values())[0] for row in site.sql("SHOW TABLES", database=PLACEMENT)}
    assert "cell_mappings" not in tables
    # What refers to another row still does, and numbers go on where they were.
    with pytest.raises(CommandExecutionError, match="foreign key"):
        site.sql("DELETE FROM traits", database=PLACEMENT)
    site.sql("INSERT INTO resource_providers (uuid) VALUES ('new')", database=PLACEMENT)
    assert site.sql("SELECT MAX(id) AS n FROM resource_providers", database=PLACEMENT)[0]["n"] == 8
    # Rows that the site has since then are its own.
    site.sql("DELETE FROM allocations", database=PLACEMENT)
    again = site.state("nova_schema.placement_moved", *names, **more)
    assert (again["result"], again["changes"]) == (True, {})


def test_nothing_is_moved_where_nova_had_no_placement(site):
    site.sql("INSERT INTO traits (name) VALUES ('HW_CPU_X86_AVX')", database=API)
    names, more = arguments(site)
    for test in (True, False):
        ret = site.state("nova_schema.placement_moved", *names, test=test, **more)
        assert (ret["result"], ret["changes"]) == (True, {})
    assert site.tables(PLACEMENT) == 0


def test_a_move_that_was_cut_off_is_begun_again(site):
    fill(site)
    names, more = arguments(site)
    # A row that the target will not take stops the copy in its middle, as a dead server does.
    site.sql(TABLES[0].replace("name VARCHAR(200)", "name INT"), database=PLACEMENT)
    ret = site.state("nova_schema.placement_moved", *names, **more)
    assert ret["result"] is False
    assert ret["changes"] == {}
    assert "\n" not in ret["comment"]
    counted = [row for rows in content(site, PLACEMENT).values() for row in rows]
    assert counted == []
    assert site.sql("SELECT * FROM alembic_version", database=PLACEMENT) == []
    site.sql("ALTER TABLE resource_providers MODIFY name VARCHAR(200)", database=PLACEMENT)
    site.predicted_and_done("nova_schema.placement_moved", *names, **more)
    assert content(site, PLACEMENT) == content(site, API)


def test_columns_go_where_their_names_are(site):
    fill(site)
    turned = (
        "CREATE TABLE allocations (used INT, resource_class_id INT, consumer_id VARCHAR(36), "
        "id INT AUTO_INCREMENT PRIMARY KEY, resource_provider_id INT)"
    )
    site.sql(turned, database=PLACEMENT)
    names, more = arguments(site)
    site.done("nova_schema.placement_moved", *names, **more)
    key = "SELECT id, consumer_id, used FROM allocations ORDER BY id"
    assert site.sql(key, database=PLACEMENT) == site.sql(key, database=API)


def test_a_placement_that_ran_before_the_move_is_named(site):
    fill(site)
    site.sql(TABLES[1], database=PLACEMENT)
    site.sql("INSERT INTO traits (name) VALUES ('HW_CPU_X86_AVX')", database=PLACEMENT)
    names, more = arguments(site)
    for test in (True, False):
        ret = site.state("nova_schema.placement_moved", *names, test=test, **more)
        assert (ret["result"], ret["changes"]) == (False, {})
        assert f"Drop the database {PLACEMENT}" in ret["comment"]
    site.sql("DROP TABLE traits", database=PLACEMENT)
    site.sql("CREATE TABLE alembic_version (version_num VARCHAR(32))", database=PLACEMENT)
    site.sql("INSERT INTO alembic_version VALUES ('b5c396305c25')", database=PLACEMENT)
    site.sql(TABLES[1], database=PLACEMENT)
    assert site.state("nova_schema.placement_moved", *names, **more)["result"] is False


def test_of_two_controllers_one_moves_the_rows(site):
    fill(site)
    names, more = arguments(site)
    results = []

    def controller():
        other = Bench(site.etc)
        barrier.wait()
        results.append(other.state("nova_schema.placement_moved", *names, **more))

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=controller) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ret["result"] for ret in results] == [True, True]
    assert sorted(len(ret["changes"]) for ret in results) == [0, 1]
    assert content(site, PLACEMENT) == content(site, API)
