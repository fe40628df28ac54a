"""
Databases, accounts and grants on a real MariaDB or MySQL server; see controller.py.

Nothing but the server is needed here, so that any of them can be tried from any host.
"""

import threading
import time

import pytest
from controller import (
    API,
    DATABASES,
    MAIN,
    PASSWORDS,
    PREFIX,
    USER,
    Bench,
    needs_server,
)
from salt.exceptions import CommandExecutionError

pytestmark = needs_server


def test_databases_are_created_and_their_character_set_repaired(server):
    for database in DATABASES:
        done = server.predicted_and_done("nova_database.present", database, connection=server.admin)
        assert done["changes"] == {database: {"old": None, "new": "created"}}
    server.sql(f"ALTER DATABASE {MAIN} CHARACTER SET latin1")
    done = server.predicted_and_done("nova_database.present", MAIN, connection=server.admin)
    assert done["changes"] == {f"{MAIN} character set": {"old": "latin1", "new": "utf8mb3"}}


def test_users_get_their_password_and_grants_and_lose_none(server):
    wanted = {
        "hosts": ["%", "127.%"],
        "password_pillar": "nova:passwords:database_nova",
        "grants": dict.fromkeys(DATABASES, "ALL PRIVILEGES"),
        "connection": server.admin,
    }
    done = server.predicted_and_done("nova_database.user_present", USER, **wanted)
    assert done["changes"][f"{USER}@%"] == {"old": None, "new": "created"}

    server.password = PASSWORDS[1]
    server.load()
    done = server.predicted_and_done("nova_database.user_present", USER, **wanted)
    assert done["changes"] == {
        f"{USER}@{host} password": {"old": "***", "new": "***"} for host in ("%", "127.%")
    }
    server.password = PASSWORDS[0]
    server.load()

    server.sql(f"REVOKE ALL PRIVILEGES ON {API}.* FROM {USER}@'127.%%'")
    server.sql(f"GRANT SELECT ON {API}.* TO {USER}@'127.%%'")
    server.sql(f"GRANT SELECT ON mysql.* TO {USER}@'127.%%'")
    done = server.predicted_and_done("nova_database.user_present", USER, **wanted)
    assert done["changes"] == {
        f"{USER}@127.% password": {"old": "***", "new": "***"},
        f"{USER}@% password": {"old": "***", "new": "***"},
        f"{USER}@127.% grants on {API}": {"old": "SELECT", "new": "ALL PRIVILEGES"},
    }
    grants = server.modules["nova_database.list_grants"](USER, "127.%", connection=server.admin)
    assert grants["mysql"] == ["SELECT"]


def test_a_name_with_a_backtick_is_quoted(server):
    name = f"{PREFIX}`; DROP DATABASE {API}; -- %s"
    server.predicted_and_done("nova_database.present", name, connection=server.admin)
    assert server.modules["nova_database.get_database"](API, connection=server.admin)
    done = server.predicted_and_done("nova_database.absent", name, connection=server.admin)
    assert done["changes"] == {name: {"old": "present", "new": None}}


def test_two_controllers_may_create_the_same_at_the_same_moment(server):
    name = f"{PREFIX}_race"
    results = []

    def controller() -> None:
        other = Bench(server.etc)
        barrier.wait()
        results.append(other.state("nova_database.present", name, connection=other.admin))
        results.append(
            other.state(
                "nova_database.user_present",
                name,
                password="x",
                connection=other.admin,
                grants={name: "ALL"},
            )
        )

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=controller) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ret["comment"] for ret in results if not ret["result"]] == []
    created = [ret for ret in results if ret["changes"].get(name)]
    assert len(results) == 8
    assert len(created) == 1
    server.predicted_and_done("nova_database.user_absent", name, connection=server.admin)
    server.predicted_and_done("nova_database.absent", name, connection=server.admin)


def test_a_wrong_administrator_password_is_one_sentence_without_it(server):
    wrong = {**server.admin, "password": "wrong-secret"}
    del wrong["password_pillar"]
    ret = server.state("nova_database.present", "x", connection=wrong)
    assert ret["result"] is False
    assert "wrong-secret" not in ret["comment"]
    assert server.admin["host"] in ret["comment"]


def test_a_collation_is_repaired_and_stays_the_default_of_new_tables(server):
    name = f"{PREFIX}_collation"
    server.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    wanted = {"character_set": "utf8mb4", "collate": "utf8mb4_bin", "connection": server.admin}
    done = server.predicted_and_done("nova_database.present", name, **wanted)
    assert list(done["changes"]) == [f"{name} collation"]
    assert (
        server.sql(f"SHOW CREATE DATABASE {name}")[0]["Create Database"].count("utf8mb4_bin") == 1
    )
    server.predicted_and_done("nova_database.absent", name, connection=server.admin)


def test_tls_is_required_and_not_required_any_more(server):
    name = f"{USER}_tls"
    account = {"password": "s3cret", "connection": server.admin}
    login = {**server.admin, "user": name, "password": "s3cret"}
    del login["password_pillar"]

    def logs_in() -> bool:
        try:
            server.utils["nova_db.connect"](**login).close()
        except CommandExecutionError as exc:
            assert exc.info in (1045, 3159)
            return False
        return True

    server.done("nova_database.user_present", name, **account)
    assert logs_in()
    # PyMySQL speaks TLS by itself where the server can.
    (status,) = server.sql("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    for required, was, will in ((True, "optional", "required"), (False, "required", "optional")):
        done = server.predicted_and_done(
            "nova_database.user_present", name, require_ssl=required, **account
        )
        assert done["changes"] == {f"{name}@% TLS": {"old": was, "new": will}}
        assert logs_in() is (not required or bool(status["Value"]))
        ret = server.state("nova_database.user_present", name, **account)
        assert (ret["result"], ret["changes"]) == (True, {})
    server.predicted_and_done("nova_database.user_absent", name, connection=server.admin)


FAULTS = {
    "nobody listens": ({"port": 1}, "127.0.0.1:1 as "),
    "nobody is there": ({"host": "203.0.113.1", "connect_timeout": 1}, "203.0.113.1:"),
    "no such name": ({"host": "db.invalid", "connect_timeout": 1}, "db.invalid:"),
    "no such account": ({"user": "nobody"}, "as nobody"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_refuses_is_one_sentence(server, fault):
    change, named = FAULTS[fault]
    for test in (True, False):
        ret = server.state(
            "nova_database.present", "x", test=test, connection={**server.admin, **change}
        )
        assert (ret["result"], ret["changes"]) == (False, {})
        assert named in ret["comment"]
        assert server.admin_password not in ret["comment"]
        assert "\n" not in ret["comment"]


def test_a_connection_that_died_between_two_states_is_made_again(server):
    for _ in range(2):
        assert server.modules["nova_database.get_user"](USER, connection=server.admin)
        (me,) = server.sql("SELECT CONNECTION_ID() AS id")
        Bench(server.etc).sql(f"KILL CONNECTION {me['id']}")


def test_a_user_stays_while_it_has_a_session(server):
    name = f"{USER}_old"
    account = {"password": "s3cret", "connection": server.admin}
    server.done("nova_database.user_present", name, **account)
    login = {**server.admin, "user": name, "password": "s3cret"}
    del login["password_pillar"]
    session = server.utils["nova_db.connect"](**login)
    away = {"connection": server.admin, "unused_within": 1}
    ret = server.state("nova_database.user_absent", name, **away)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert f"The database user {name} stays: it is in use, 1 sessions from" in ret["comment"]
    another_run = Bench(server.etc).modules
    with pytest.raises(CommandExecutionError, match="grant it PROCESS"):
        another_run["nova_database.list_sessions"](name, connection=login)
    for kept in another_run.pack["__context__"]["nova_database.connections"].values():
        kept.close()
    session.close()
    deadline = time.monotonic() + 10
    while server.modules["nova_database.list_sessions"](name, connection=server.admin):
        assert time.monotonic() < deadline
        time.sleep(0.1)  # the server sees a moment later that it is gone
    server.predicted_and_done("nova_database.user_absent", name, **away)
