"""nova-manage: how it is run, what its exit codes mean, and what is read without it."""

import json
import multiprocessing
import os
import pwd
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from conftest import load
from salt.exceptions import CommandExecutionError, SaltInvocationError
from stub import stub

CELL0 = "00000000-0000-0000-0000-000000000000"
UUID = "5b4a4f0c-0000-4000-8000-000000000001"
TEMPLATE = "{scheme}://{username}:{password}@{hostname}:{port}/{path}?{query}"
MAIN = "mysql+pymysql://nova:p%40ss%2F@db:3306/nova?charset=utf8"
NOVA_CONF = f"""
[DEFAULT]
transport_url = rabbit://openstack:mq%40@mq:5672/
[api_database]
connection = {MAIN.replace("/nova?", "/nova_api?")}
[database]
connection = {MAIN}
"""


@pytest.fixture
def nova(opts, tmp_path, monkeypatch):
    """The module, with a nova.conf, packages and a nova-manage of its own."""
    utils, modules, _ = load(opts)
    scope = modules["nova_manage.list_cells"].__globals__
    (tmp_path / "nova.conf").write_text(NOVA_CONF)
    (tmp_path / "bin").mkdir()
    monkeypatch.setitem(scope, "NOVA_CONF", str(tmp_path / "nova.conf"))
    schemas = {"api": "api_database", "main": "database"}
    monkeypatch.setitem(
        scope, "_SCHEMAS", {k: (str(tmp_path / "nova.conf"), v) for k, v in schemas.items()}
    )
    program = utils["nova_program.run"].__globals__
    monkeypatch.setitem(program, "NOVA_CONF", str(tmp_path / "nova.conf"))
    monkeypatch.setitem(program, "PATH", f"{tmp_path}/bin:{program['PATH']}")
    monkeypatch.setitem(scope, "PACKAGES", (str(tmp_path / "packages"),))
    me = pwd.getpwuid(os.geteuid())
    monkeypatch.setitem(program, "account", lambda user: me)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    if me.pw_uid == 0:
        monkeypatch.setattr(os, "getgrouplist", lambda user, gid: [gid])
    return SimpleNamespace(
        modules=modules,
        scope=scope,
        program=program,
        path=tmp_path,
        utils=utils,
        call=lambda function, *a, **k: modules[f"nova_manage.{function}"](*a, **k),
        query=stub(modules, "nova_database.query", return_value=[]),
    )


def program(nova, body, name="nova-manage"):
    path = nova.path / "bin" / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def cell(uuid=UUID, name="cell1", transport=TEMPLATE, database=TEMPLATE, disabled=0):
    return {
        "uuid": uuid,
        "name": name,
        "transport_url": transport,
        "database_connection": database,
        "disabled": disabled,
    }


# ---- how it is run -----------------------------------------------------------------------------


def test_the_program_sees_a_clean_environment_and_the_root_directory(nova, monkeypatch):
    monkeypatch.setenv("OS_PASSWORD", "secret")
    program(nova, f'env > {nova.path}/env; pwd > {nova.path}/pwd; echo "$@" > {nova.path}/args')
    assert nova.call("api_db_sync") is True
    env = dict(line.split("=", 1) for line in (nova.path / "env").read_text().splitlines())
    assert env.keys() - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "LANG", "HOME"}
    assert env["LANG"] == "C.UTF-8"
    assert (nova.path / "pwd").read_text() == "/\n"
    assert (nova.path / "args").read_text() == "api_db sync\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_program_runs_as_nova_with_its_groups(nova, monkeypatch):
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setitem(nova.program, "account", lambda user: nobody)
    monkeypatch.setattr(os, "getgrouplist", lambda user, gid: [gid, 12345])
    program(nova, 'echo "$(id -u) $(id -g) $(id -G)"; exit 7')
    for parent in (nova.path, *nova.path.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    with pytest.raises(CommandExecutionError) as caught:
        nova.call("db_sync")
    uid, gid = nobody.pw_uid, nobody.pw_gid
    assert f"{uid} {gid} {gid} 12345" in str(caught.value)


def test_a_program_that_is_not_installed_is_one_sentence(nova, monkeypatch):
    monkeypatch.setitem(nova.program, "PATH", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CommandExecutionError, match="no program nova-manage here: apply"):
        nova.call("db_sync")


def test_a_user_that_does_not_exist_is_one_sentence(opts):
    utils, _, _ = load(opts)
    with pytest.raises(CommandExecutionError, match="no user no-such-user here: apply"):
        utils["nova_program.account"]("no-such-user")


def test_a_program_that_hangs_is_killed_with_its_children(nova):
    program(nova, f"sleep 60 & echo $! > {nova.path}/pid; wait")
    with pytest.raises(CommandExecutionError, match="killed because it was not done within 1 s"):
        nova.call("db_sync", timeout=1)
    assert gone(int((nova.path / "pid").read_text()))


def test_a_lost_lock_kills_the_program(nova):
    program(nova, f"echo $$ > {nova.path}/pid; exec sleep 60")
    held = SimpleNamespace(lost=threading.Event())
    threading.Timer(0.5, held.lost.set).start()
    with pytest.raises(CommandExecutionError, match="the site's lock was lost"):
        nova.call("db_sync", held=held)
    assert gone(int((nova.path / "pid").read_text()))


def test_the_program_dies_with_the_job_that_started_it(nova):
    program(nova, f"echo $$ > {nova.path}/new; mv {nova.path}/new {nova.path}/pid; exec sleep 60")
    job = multiprocessing.get_context("fork").Process(target=nova.call, args=("db_sync",))
    job.start()
    for _ in range(100):
        if (nova.path / "pid").exists():
            break
        time.sleep(0.05)
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    assert gone(int((nova.path / "pid").read_text()))


def gone(pid):
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
                if stream.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


# ---- exit codes --------------------------------------------------------------------------------

FAILURES = [
    ("db_sync", [], 1, "the database of cell0 cannot be reached"),
    ("create_cell", ["cell1"], 1, "an URL is missing or malformed"),
    ("create_cell", ["cell1"], 2, "another cell has one of these URLs"),
    ("update_cell", [UUID], 1, "there is no such cell"),
    ("update_cell", [UUID], 2, "the change could not be saved"),
    ("update_cell", [UUID], 3, "another cell has one of these URLs"),
    ("update_cell", [UUID], 4, "a cell cannot be disabled and enabled at once"),
    ("update_cell", [UUID], 5, "cell0 cannot be disabled"),
    ("delete_cell", [UUID], 1, "there is no such cell"),
    ("delete_cell", [UUID], 2, "hosts are mapped to it"),
    ("delete_cell", [UUID], 3, "instances live in it"),
    ("delete_cell", [UUID], 4, "mappings of deleted instances are left"),
    ("delete_host", [UUID, "cmp1"], 1, "there is no such cell"),
    ("delete_host", [UUID, "cmp1"], 2, "the host is not mapped"),
    ("delete_host", [UUID, "cmp1"], 3, "the host is mapped to another cell"),
    ("delete_host", [UUID, "cmp1"], 4, "instances live on the host"),
    ("discover_hosts", [], 2, "another discovery ran at the same moment"),
]


@pytest.mark.parametrize(
    ("function", "args", "code", "meaning"), FAILURES, ids=[f"{f[0]}-{f[2]}" for f in FAILURES]
)
def test_each_exit_code_has_its_meaning(nova, function, args, code, meaning):
    nova.query.return_value = [] if function == "create_cell" else [cell()]
    program(nova, f"echo the reason; exit {code}")
    with pytest.raises(CommandExecutionError) as caught:
        nova.call(function, *args)
    assert f"failed with code {code} ({meaning}" in str(caught.value)
    assert str(caught.value).endswith(": the reason")
    assert caught.value.info == code


def test_code_2_of_the_argument_parser_is_told_from_the_command_s_own(nova):
    program(nova, "echo 'usage: nova-manage …' >&2; echo 'error: unrecognized' >&2; exit 2")
    with pytest.raises(CommandExecutionError, match="it does not know these arguments"):
        nova.call("discover_hosts", by_service=True)


def test_the_cause_is_the_last_line_that_says_something_and_is_masked(nova):
    program(
        nova,
        "cat <<'X'\nAn error has occurred:\nTraceback (most recent call last):\n"
        "DBError: cannot reach mysql+pymysql://nova:p@ss/word@db:3306/nova\n"
        "[SQL: SELECT 1]\n[parameters: {'x': 'secret'}]\n"
        "(Background on this error at: https://sqlalche.me/e/14/e3q8)\nX\nexit 255",
    )
    with pytest.raises(CommandExecutionError) as caught:
        nova.call("api_db_sync")
    assert "DBError: cannot reach mysql+pymysql://***@db:3306/nova" in str(caught.value)
    assert "word" not in str(caught.value)
    assert "secret" not in str(caught.value)


# ---- arguments ---------------------------------------------------------------------------------


def test_update_cell_always_passes_both_urls(nova):
    nova.query.return_value = [cell(CELL0, "cell0", "none:///", "{scheme}://x/nova_cell0")]
    program(nova, f'printf "%s\\n" "$@" > {nova.path}/args')
    nova.call("update_cell", CELL0, name="cell0")
    assert (nova.path / "args").read_text().splitlines() == [
        "cell_v2",
        "update_cell",
        f"--cell_uuid={CELL0}",
        "--name=cell0",
        "--transport-url=none:///",
        "--database_connection={scheme}://x/nova_cell0",
    ]


def test_a_literal_url_goes_to_the_row_and_to_no_program(nova):
    nova.query.return_value = [cell(disabled=1)]
    program(nova, f"touch {nova.path}/called")
    nova.call("update_cell", UUID, name="new", database_connection=MAIN)
    (statement, values), more = nova.query.call_args
    assert statement.startswith("UPDATE cell_mappings SET name = %s, disabled = %s, ")
    assert values == ["new", True, TEMPLATE, MAIN, UUID]
    assert MAIN in more["secrets"]
    nova.query.return_value = []
    uuid = nova.call("create_cell", "far", database_connection=MAIN.replace("/nova?", "/far?"))
    (statement, values), more = nova.query.call_args
    assert statement.startswith("INSERT INTO cell_mappings SET ")
    assert values[-1] == uuid != UUID
    assert not (nova.path / "called").exists()


def test_a_literal_url_that_nova_could_not_read_is_refused_without_it(nova):
    nova.query.return_value = [cell()]
    with pytest.raises(CommandExecutionError, match="must be percent-encoded") as caught:
        nova.call("update_cell", UUID, database_connection="mysql+pymysql://u:a@s3/cret@db/nova")
    assert "cret@" not in str(caught.value)
    assert nova.query.call_count == 1


def test_map_cell0_never_leaves_the_url_to_nova_manage(nova):
    program(nova, f'printf "%s\\n" "$@" > {nova.path}/args')
    nova.call("map_cell0")
    assert (nova.path / "args").read_text().splitlines()[-2:] == [
        "--database_connection",
        TEMPLATE.replace("{path}", "nova_cell0"),
    ]


def test_create_cell_returns_the_uuid(nova):
    program(nova, f"echo '--transport-url not provided'; echo {UUID}")
    assert nova.call("create_cell", "cell1") == UUID


@pytest.mark.parametrize(
    "rows",
    [
        [cell()],
        [cell(), cell(CELL0.replace("0000-", "1111-"))],
        [cell(name=None, database=MAIN)],
        [cell(name="other")],
    ],
    ids=["same name", "two of them", "unnamed on the database", "other name on the database"],
)
def test_create_cell_refuses_what_would_be_a_duplicate(nova, rows):
    nova.query.return_value = rows
    program(nova, f"touch {nova.path}/called; echo {UUID}")
    with pytest.raises(CommandExecutionError, match=UUID):
        nova.call("create_cell", "cell1")
    assert not (nova.path / "called").exists()


# ---- templates ---------------------------------------------------------------------------------

TRANSPORTS = [
    ("rabbit://u:p@h:5672/", "{username}:{password}@{hostname}:{port}/{path}"),
    ("rabbit://u:p@h:5672//", "{username}:{password}@{hostname}:{port}//{path}"),
    ("rabbit://u:p@h:5672/nova?ssl=1", "{username}:{password}@{hostname}:{port}/{path}"),
    ("rabbit://u:p@h:5672//nova", "{username}:{password}@{hostname}:{port}//{path}"),
    ("rabbit://u:p@h", "{username}:{password}@{hostname}"),
    ("rabbit://h:5672/", "{hostname}:{port}/{path}"),
    ("rabbit://u:p@[::1]:5672/", "{username}:{password}@[{hostname}]:{port}/{path}"),
    (
        "rabbit://u:p@a:1,u:p@b:2//",
        "{username1}:{password1}@{hostname1}:{port1},{username2}:{password2}@{hostname2}:{port2}"
        "//{path}",
    ),
    (
        "rabbit://u:p@[::1]:1,u:p@[::2]:2/",
        "{username1}:{password1}@[{hostname1}]{port1},{username2}:{password2}@[{hostname2}]{port2}"
        "/{path}",
    ),
]


@pytest.mark.parametrize(("url", "template"), TRANSPORTS)
def test_a_transport_template_has_the_form_of_the_url(nova, url, template):
    assert nova.call("transport_template", url) == "{scheme}://" + template + "?{query}"


def test_hosts_that_share_credentials_cannot_be_a_template(nova):
    with pytest.raises(CommandExecutionError, match="credentials of each"):
        nova.call("transport_template", "rabbit://u:p@a:1,b:2/")


def test_the_database_template_is_facts_own(nova):
    assert nova.call("database_template") == TEMPLATE
    assert nova.call("database_template", "nova_cell0") == TEMPLATE.replace("{path}", "nova_cell0")


@pytest.mark.parametrize("text", ["", "[database]\nconnection = sqlite:////var/lib/nova/novadb\n"])
def test_a_package_s_own_nova_conf_is_not_taken_for_the_formula_s(nova, text):
    (nova.path / "nova.conf").write_text(text)
    with pytest.raises(CommandExecutionError, match=r"has no URL in \[database\] connection") as e:
        nova.call("database_template")
    assert e.value.info is None


# ---- reads -------------------------------------------------------------------------------------


def test_list_cells_shows_templates_and_masks_literal_urls(nova):
    nova.query.return_value = [
        cell(),
        cell(
            CELL0, "cell0", "rabbit://u:{brace}pw@h:5672/", MAIN.replace("/nova?", "/nova_cell0?")
        ),
    ]
    shown = nova.call("list_cells")
    assert shown[0] == {
        "uuid": UUID,
        "name": "cell1",
        "disabled": False,
        "database": "db:3306/nova",
        "database_connection": TEMPLATE,
        "transport_url": TEMPLATE,
    }
    assert shown[1]["database"] == "db:3306/nova_cell0"
    assert shown[1]["transport_url"] == "rabbit://***@h:5672/"
    assert "p%40ss" not in json.dumps(shown)


def test_drift_compares_rows_as_they_are_stored_and_masks_them(nova):
    nova.query.return_value = [cell(database=MAIN, name="old")]
    assert nova.call("cell_drift", UUID, TEMPLATE, TEMPLATE, name="cell1") == {
        "database_connection": {
            "old": "mysql+pymysql://***@db:3306/nova?charset=utf8",
            "new": TEMPLATE,
        },
        "name": {"old": "old", "new": "cell1"},
    }
    assert nova.call("cell_drift", UUID, MAIN, TEMPLATE) == {}


def test_a_rotated_literal_password_is_drift_that_shows_neither(nova):
    nova.query.return_value = [cell(database=MAIN)]
    drift = nova.call("cell_drift", UUID, MAIN.replace("p%40ss", "newpw"), TEMPLATE)
    assert list(drift) == ["database_connection"]
    assert "newpw" not in str(drift)


def test_several_cells_of_one_name_are_named_by_uuid(nova):
    other = UUID.replace("1", "2")
    nova.query.return_value = [cell(), cell(other)]
    with pytest.raises(CommandExecutionError) as caught:
        nova.call("find_cell", "cell1")
    assert UUID in str(caught.value)
    assert other in str(caught.value)


def test_unmapped_hosts_are_those_that_registered_without_a_mapping(nova):
    def answer(statement, values=None, connection=None, secrets=None):
        if "host_mappings" in statement:
            return [{"host": "cmp1", "cell": "cell1", "cell_uuid": UUID}]
        if "cell_mappings" in statement:
            return [cell(CELL0, "cell0", "none:///", TEMPLATE), cell()]
        assert connection["database"] == "nova"
        assert connection["password"] == "p@ss/"
        compute = {"binary": "nova-compute", "report_count": 3}
        return [
            {**compute, "host": "cmp1", "disabled": 0, "forced_down": 1, "silent": 5},
            {**compute, "host": "cmp2", "disabled": 1, "forced_down": None, "silent": 61},
            {**compute, "host": "cmp3", "disabled": 0, "forced_down": 0, "silent": 60},
            {**compute, "host": "ctl1", "disabled": 0, "forced_down": 0, "silent": 1}
            | {"binary": "nova-conductor"},
        ]

    nova.query.side_effect = answer
    assert [row["host"] for row in nova.call("unmapped_hosts")] == ["cmp2", "cmp3"]
    assert [row["up"] for row in nova.call("compute_services")] == [False, False, True]
    assert [row["binary"] for row in nova.call("list_services")][-1] == "nova-conductor"


# ---- schema ------------------------------------------------------------------------------------


def revision(nova, folder, name, text=""):
    path = nova.path / "packages" / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_text(text)


ALEMBIC = "nova/db/main/migrations/versions"


def test_revisions_are_read_from_legacy_numbers_and_the_alembic_chain(nova):
    revision(nova, "nova/db/main/legacy_migrations/versions", "402_train.py")
    revision(nova, "nova/db/main/legacy_migrations/versions", "403_placeholder.py")
    revision(nova, ALEMBIC, "a_second.py", "revision = 'bbb'\ndown_revision = 'aaa'\n")
    revision(nova, ALEMBIC, "z_first.py", 'revision = "aaa"\ndown_revision = None\n')
    revision(nova, ALEMBIC, "c.py", "revision: str = 'ccc'\ndown_revision: str | None = 'bbb'\n")
    revision(nova, ALEMBIC, "__init__.py")
    assert nova.call("schema_revisions", "main") == ["401", "402", "403", "aaa", "bbb", "ccc"]
    assert nova.call("schema_head", "main") == "ccc"


def test_revisions_of_old_releases_are_numbers(nova):
    folder = "nova/db/sqlalchemy/api_migrations/migrate_repo/versions"
    for number in ("001", "002", "062"):
        revision(nova, folder, f"{number}_x.py")
    assert nova.call("schema_head", "api") == "62"


def test_code_that_is_not_installed_has_no_head(nova):
    assert nova.call("schema_revisions", "placement") == []
    assert nova.call("schema_head", "placement") is None


@pytest.mark.parametrize("down", ["'zzz'", "None"])
def test_revisions_that_form_no_chain_are_an_error(nova, down):
    revision(nova, ALEMBIC, "a.py", "revision = 'aaa'\ndown_revision = 'xxx'\n")
    revision(nova, ALEMBIC, "b.py", f"revision = 'bbb'\ndown_revision = {down}\n")
    with pytest.raises(CommandExecutionError, match="form no chain"):
        nova.call("schema_revisions", "main")


def no_table():
    exc = CommandExecutionError("no table")
    exc.info = 1146
    return exc


@pytest.mark.parametrize(
    ("answers", "version"),
    [
        ([[{"version": "aaa"}]], "aaa"),
        ([no_table(), [{"version": 402}]], "402"),
        ([[], [{"version": 422}]], "422"),
        ([no_table(), no_table()], None),
    ],
)
def test_a_schema_s_version_is_alembic_s_or_its_predecessor_s(nova, answers, version):
    nova.query.side_effect = answers
    assert nova.call("schema_version", "api") == version


def test_cell0_s_schema_is_that_of_the_database_in_its_mapping(nova):
    nova.query.side_effect = [
        [cell(CELL0, "cell0", "none:///", TEMPLATE.replace("{path}", "nova_cell0"))],
        [{"version": "aaa"}],
    ]
    assert nova.call("schema_version", "cell0") == "aaa"
    assert nova.query.call_args.kwargs["connection"]["database"] == "nova_cell0"


def test_a_cell0_that_is_not_mapped_is_said(nova):
    with pytest.raises(CommandExecutionError, match="cell0 is not mapped: apply"):
        nova.call("schema_version", "cell0")


# ---- a sync that was cut off -------------------------------------------------------------------


@pytest.fixture
def cut_off(nova):
    """A database on which a sync fails until its tables are dropped; ``rows``: who has some."""
    revision(nova, ALEMBIC, "a.py", "revision = 'aaa'\ncreate('instances')\ncreate(\"cells\")\n")
    nova.tables, nova.rows, nova.said = ["alembic_version", "instances", "shadow_cells"], [], []

    def answer(statement, values=None, connection=None, secrets=None):
        nova.said.append(statement)
        if "version_num" in statement:
            return []
        if "version FROM migrate" in statement:
            raise no_table()
        if "cell_mappings" in statement:
            return [cell(CELL0, "cell0", "none:///", TEMPLATE)]
        if "information_schema" in statement:
            return [{"name": name} for name in nova.tables]
        return [{"1": 1}] if any(f"`{name}`" in statement for name in nova.rows) else []

    nova.query.side_effect = answer
    program(
        nova,
        f"echo run >> {nova.path}/runs; [ $(wc -l < {nova.path}/runs) -gt 1 ] && exit; "
        "printf '%s\\n' 'sqlalchemy.exc.OperationalError: (pymysql.err.OperationalError) "
        "(1050, \"Table x already exists\")' '[SQL: CREATE TABLE x (' ')' ']' "
        "'(Background on this error at: https://sqlalche.me/e/14/e3q8)'; exit 255",
    )
    return nova


def test_the_empty_tables_of_a_sync_that_was_cut_off_are_dropped(cut_off):
    assert cut_off.call("db_sync", held=SimpleNamespace(lost=threading.Event()), cell=CELL0)
    dropped = [statement for statement in cut_off.said if "DROP" in statement]
    assert dropped == [f"DROP TABLE `{name}`" for name in cut_off.tables]
    assert cut_off.said[-1] == "SET SESSION foreign_key_checks = 1"
    assert (cut_off.path / "runs").read_text().count("run") == 2


@pytest.mark.parametrize(
    ("tables", "rows", "held", "why"),
    [
        (["instances"], ["instances"], True, "instances holds rows"),
        (["instances", "theirs"], [], True, "theirs is none of nova's tables"),
        (["instances"], [], False, "this call holds no lock"),
    ],
)
def test_nothing_is_dropped_that_may_be_wanted(cut_off, tables, rows, held, why):
    cut_off.tables, cut_off.rows = tables, rows
    lock = SimpleNamespace(lost=threading.Event()) if held else None
    with pytest.raises(CommandExecutionError) as caught:
        cut_off.call("db_sync", held=lock, cell=CELL0)
    assert f"not dropped, for {why}" in str(caught.value)
    assert "Table x already exists" in str(caught.value)
    assert "[SQL" not in str(caught.value)
    assert not any("DROP" in statement for statement in cut_off.said)
    assert (cut_off.path / "runs").read_text() == "run\n"


def test_a_sync_that_fails_otherwise_drops_nothing(cut_off):
    program(cut_off, "echo 'OperationalError: (2003, \"Cannot connect\")'; exit 255")
    with pytest.raises(CommandExecutionError, match="Cannot connect"):
        cut_off.call("db_sync", held=SimpleNamespace(lost=threading.Event()), cell=CELL0)
    assert not any("DROP" in statement for statement in cut_off.said)


def test_another_cell_s_database_is_synced_by_an_url_in_memory(nova):
    nova.query.return_value = [cell(database=TEMPLATE.replace("{path}", "nova_cell2"))]
    program(
        nova,
        f'f=${{2#--config-file=}}; cp $f {nova.path}/seen; echo "$@" > {nova.path}/args; '
        f"stat -Lc %a:%u $f > {nova.path}/mode; readlink $f > {nova.path}/file",
    )
    nova.call("db_sync", cell=UUID)
    assert (nova.path / "mode").read_text() == f"640:{os.geteuid()}\n"
    # In memory only: there is nothing to remove, also after a kill.
    assert (nova.path / "file").read_text().startswith("/memfd:")
    option = nova.utils["nova_conf.option"](str(nova.path / "seen"), "database", "connection")
    assert option == MAIN.replace("/nova?", "/nova_cell2?")
    assert (nova.path / "args").read_text().endswith("db sync --local_cell\n")


def test_a_program_that_another_one_killed_is_said_so(nova):
    program(nova, "kill -9 $$")
    with pytest.raises(CommandExecutionError, match="with signal 9: another program killed it"):
        nova.call("api_db_sync")


# ---- what a cell has of its own ----------------------------------------------------------------


OWN = [
    ({}, {}, TEMPLATE, TEMPLATE),
    (
        {"name": "n2"},
        {"vhost": "v/2"},
        TEMPLATE.replace("{path}", "n2"),
        TEMPLATE.replace("{path}", "v%2F2"),
    ),
    (
        {"name": "n2", "host": "::1"},
        {"hosts": ["a", "fd00::1"], "port": 9},
        "{scheme}://{username}:{password}@[::1]:3306/n2?{query}",
        "{scheme}://{username}:{password}@a:9,{username}:{password}@[fd00::1]:9/{path}?{query}",
    ),
    (
        {"name": "n2", "host": "h", "port": 1, "user": "u@", "password": "p/"},
        {"hosts": ["a", "b"], "user": "u", "password_pillar": "mq"},
        "mysql+pymysql://u%40:p%2F@h:1/n2?charset=utf8",
        "rabbit://u:s%25:5@a:5672,u:s%25:5@b:5672/".replace("%25:5", "%25%3A5"),
    ),
]


@pytest.mark.parametrize(("database", "messaging", "connection", "transport"), OWN)
def test_a_cell_s_urls_are_templates_but_for_accounts_of_its_own(
    opts, request, database, messaging, connection, transport
):
    opts["pillar"] = {"mq": "s%:5"}
    nova = request.getfixturevalue("nova")
    assert nova.call("cell_urls", database, messaging) == {
        "database_connection": connection,
        "transport_url": transport,
    }


@pytest.mark.parametrize(
    "own", [{"user": "u", "password": "p"}, {"user": "u", "host": "h", "hosts": ["h"]}]
)
@pytest.mark.parametrize("which", ["database", "messaging"])
def test_an_account_of_a_cell_s_own_wants_a_host_and_a_password(nova, own, which):
    with pytest.raises(SaltInvocationError, match=f"{which} has a user of its own"):
        nova.call("cell_urls", **{which: own})


def test_a_cell_is_disabled_and_enabled_by_its_own_options(nova):
    program(nova, f'printf "%s\\n" "$@" >> {nova.path}/args')
    for there, wanted, option in ((0, True, "--disable"), (1, False, "--enable"), (1, True, None)):
        (nova.path / "args").write_text("")
        nova.query.return_value = [cell(disabled=there)]
        nova.call("update_cell", UUID, disabled=wanted)
        options = [line for line in (nova.path / "args").read_text().split() if "able" in line]
        assert options == ([option] if option else [])


def test_a_look_at_many_cells_asks_the_database_once(nova):
    nova.query.return_value = [
        cell(UUID[:-2] + f"{n:02}", f"cell{n}", database=MAIN + str(n)) for n in range(50)
    ]
    assert len(nova.call("list_cells")) == 50
    assert nova.call("find_cell", "cell49", MAIN)["name"] == "cell49"
    assert nova.query.call_count == 2
