"""Databases, users and grants: what is compared, what is sent, and what is never shown."""

import hashlib
from unittest.mock import create_autospec

import pytest
from conftest import load
from salt.exceptions import CommandExecutionError, SaltInvocationError
from stub import stub

CONNECTION = {"host": "db", "user": "root", "password_pillar": "nova:passwords:database_admin"}
PILLAR = {"nova": {"passwords": {"database_admin": "adm1n", "database_nova": "n0va'"}}}
PASSWORD = "nova:passwords:database_nova"
ALL = "ALL PRIVILEGES"


def failure(number, text="no"):
    exc = CommandExecutionError(text)
    exc.info = number
    return exc


@pytest.fixture
def modules(opts):
    opts["pillar"] = PILLAR
    return load(opts)[1]


@pytest.fixture
def query(modules, monkeypatch):
    """The one function that speaks to a server, replaced; answers come from ``.answers``."""
    scope = modules["nova_database.query"].__globals__
    mock = create_autospec(scope["query"], return_value=[])
    monkeypatch.setitem(scope, "query", mock)
    return mock


def test_a_native_password_is_compared_without_a_login(modules, query):
    stored = "*" + hashlib.sha1(hashlib.sha1(b"n0va'").digest()).hexdigest().upper()
    query.return_value = [
        {"plugin": "mysql_native_password", "hash": stored, "ssl_type": ""},
    ]
    found = modules["nova_database.get_user"]("nova", "%", password_pillar=PASSWORD)
    assert found == {
        "plugin": "mysql_native_password",
        "require_ssl": False,
        "password_matches": True,
    }
    found = modules["nova_database.get_user"]("nova", "%", password="other")
    assert found["password_matches"] is False


def test_mariadb_s_own_example_of_a_native_hash(modules):
    native = modules["nova_database.query"].__globals__["_native"]
    assert native("mypass") == "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4"


def test_mysql_8_s_hash_is_compared_without_a_login(modules, query):
    # hashcat's example for mode 7401, whose password is "hashcat".
    salt = bytes.fromhex("F9CC98CE08892924F50A213B6BC571A2C11778C5")
    digest = bytes.fromhex(
        "625479393559393965414D45316477456B484F41316E64484742577A2E3162785353526B7554584647562F"
    ).decode()
    crypt = modules["nova_database.query"].__globals__["_sha256_crypt"]
    assert crypt(b"hashcat", salt, 5000) == digest
    stored = "$A$005$" + "s" * 20 + crypt(b"n0va'", b"s" * 20, 5000)
    query.return_value = [{"plugin": "caching_sha2_password", "hash": stored, "ssl_type": "ANY"}]
    found = modules["nova_database.get_user"]("nova", "%", password_pillar=PASSWORD)
    assert (found["password_matches"], found["require_ssl"]) == (True, True)
    assert not modules["nova_database.get_user"]("nova", password="x")["password_matches"]


def test_no_such_user_is_none(modules, query):
    assert modules["nova_database.get_user"]("nova", "%") is None


@pytest.mark.parametrize(
    ("grants", "expected"),
    [
        (["GRANT USAGE ON *.* TO `nova`@`%` IDENTIFIED BY PASSWORD '*X'"], {}),
        (["GRANT ALL PRIVILEGES ON `nova_api`.* TO `nova`@`%`"], {"nova_api": [ALL]}),
        (["GRANT ALL PRIVILEGES ON `nova\\_api`.* TO `nova`@`%`"], {"nova_api": [ALL]}),
        (["GRANT UPDATE, SELECT ON `a``b`.* TO 'nova'@'%'"], {"a`b": ["SELECT", "UPDATE"]}),
        (['GRANT SELECT ON "nova".* TO "nova"@"%"'], {"nova": ["SELECT"]}),
        (["GRANT ALL PRIVILEGES ON *.* TO `root`@`%` WITH GRANT OPTION"], {"*": [ALL]}),
        (["GRANT SELECT (`a`), INSERT ON `nova`.`t` TO `nova`@`%`"], {}),
    ],
)
def test_grants_are_read_as_the_server_shows_them(modules, query, grants, expected):
    query.return_value = [{"Grants for nova@%": grant} for grant in grants]
    assert modules["nova_database.list_grants"]("nova") == expected


def test_a_user_without_grants_has_none(modules, query):
    query.side_effect = failure(1141)
    assert modules["nova_database.list_grants"]("nova") == {}


def test_identifiers_are_quoted_and_values_are_parameters(modules, query):
    modules["nova_database.grant"]("no'va", "%", "a`b%", "select, INSERT", CONNECTION)
    query.assert_called_once_with(
        "GRANT INSERT, SELECT ON `a``b%%`.* TO %s@%s", ["no'va", "%"], CONNECTION
    )


@pytest.mark.parametrize("privileges", ["SELECT; DROP", "", "SELECT ON x.* TO y --", "a(b)"])
def test_what_is_no_privilege_is_refused(modules, query, privileges):
    with pytest.raises(SaltInvocationError):
        modules["nova_database.grant"]("nova", "%", "nova", privileges)
    query.assert_not_called()


@pytest.mark.parametrize("charset", ["utf8; DROP DATABASE nova", "utf8 COLLATE x"])
def test_what_is_no_character_set_is_refused(modules, query, charset):
    with pytest.raises(SaltInvocationError):
        modules["nova_database.create_database"]("nova", charset)
    query.assert_not_called()


def test_a_database_that_another_created_first_is_no_error(modules, query):
    query.side_effect = failure(1007)
    assert modules["nova_database.create_database"]("nova") is False
    query.side_effect = failure(1044)
    with pytest.raises(CommandExecutionError):
        modules["nova_database.create_database"]("nova")


@pytest.mark.parametrize("there", [True, False])
def test_a_refused_create_user_counts_only_when_the_user_is_there(modules, query, there):
    user = [{"plugin": "mysql_native_password", "hash": "", "ssl_type": ""}] if there else []
    query.side_effect = [failure(1396), user]
    if there:
        assert modules["nova_database.create_user"]("nova", password="x") is False
    else:
        with pytest.raises(CommandExecutionError):
            modules["nova_database.create_user"]("nova", password="x")


@pytest.mark.parametrize(
    ("connection", "what"),
    [({"host": "db", "user": "root"}, "no password"), ({**CONNECTION, "prot": 1}, "prot")],
)
def test_a_bad_connection_argument_is_named(modules, connection, what):
    with pytest.raises(SaltInvocationError, match=what):
        modules["nova_database.query"]("SELECT 1", connection=connection)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1064, "error near 'IDENTIFIED BY 'n0v' at line 1"),
        (1064, "error near 'n0va\\'' REQUIRE' at line 1"),
        (1819, "n0va' is no good password"),
        (1105, "cannot hash 'n0va\\''"),
    ],
)
def test_an_error_of_the_server_shows_no_secret(modules, monkeypatch, number, text):
    pymysql = pytest.importorskip("pymysql")
    conn = create_autospec(pymysql.connections.Connection, instance=True)
    conn.host, conn.port, conn.user = "db", 3306, b"root"
    conn.Error = pymysql.err.Error
    conn.escape = lambda text: f"'{pymysql.converters.escape_string(text)}'"
    cursor = conn.cursor.return_value.__enter__.return_value
    cursor.execute.side_effect = pymysql.err.OperationalError(number, text)
    scope = modules["nova_database.query"].__globals__
    monkeypatch.setitem(scope, "_connected", lambda arguments: conn)
    with pytest.raises(CommandExecutionError) as caught:
        modules["nova_database.create_user"](
            "nova", password_pillar=PASSWORD, connection=CONNECTION
        )
    assert "n0v" not in str(caught.value)
    assert str(caught.value).startswith("The database server db:3306 refuses user root: ")
    assert caught.value.info == number


def test_a_connection_is_kept_for_the_run_and_not_across_a_fork(opts, monkeypatch):
    utils, modules, _ = load(opts)
    scope = modules["nova_database.query"].__globals__
    connect = stub(utils, "nova_db.connect", side_effect=lambda *a, **k: object())

    def connected(password="p"):
        arguments = {"host": "db", "user": "u", "password": password}
        return modules.run(scope["_connected"], arguments)

    first = connected()
    assert connected() is first
    assert connected("rotated") is not first
    monkeypatch.setattr(scope["os"], "getpid", lambda: 1)
    assert connected() is not first
    assert connect.call_count == 3


class Server:
    """What the execution module would find on a server, and do to it."""

    def __init__(self):
        self.databases, self.users, self.grants, self.calls = {}, {}, {}, []

    def get_database(self, name, connection=None):
        return self.databases.get(name)

    def create_database(self, name, character_set="", collate=None, connection=None):
        self.calls.append("create_database")
        self.databases[name] = {"character_set": character_set, "collation": "x"}
        return True

    def alter_database(self, name, character_set="", collate=None, connection=None):
        self.calls.append("alter_database")
        self.databases[name] = {"character_set": character_set, "collation": collate or "x"}
        return True

    def drop_database(self, name, connection=None):
        del self.databases[name]
        return True

    def get_user(self, name, host="%", password=None, password_pillar=None, connection=None):
        user = self.users.get((name, host))
        return user and {
            "plugin": "p",
            "require_ssl": user["ssl"],
            "password_matches": user["password"] == (password_pillar or password),
        }

    def create_user(
        self,
        name,
        host="%",
        password=None,
        password_pillar=None,
        require_ssl=False,
        connection=None,
    ):
        self.calls.append("create_user")
        self.users[name, host] = {"password": password_pillar or password, "ssl": require_ssl}
        return True

    def set_password(self, name, host="%", password=None, password_pillar=None, connection=None):
        self.calls.append("set_password")
        self.users[name, host]["password"] = password_pillar or password
        return True

    def require_ssl(self, name, host="%", required=True, connection=None):
        self.users[name, host]["ssl"] = required
        return True

    def drop_user(self, name, host="%", connection=None):
        del self.users[name, host]
        return True

    def list_grants(self, name, host="%", connection=None):
        return self.grants.get((name, host), {})

    def grant(self, name, host, database, privileges=ALL, connection=None):
        self.calls.append("grant")
        here = self.grants.setdefault((name, host), {}).setdefault(database, [])
        here[:] = sorted({*here, *([ALL] if privileges == ALL else privileges.split(", "))})
        return True

    def list_sessions(self, name, connection=None):
        return [{"host": "10.20.0.60:4711", "database": "nova"}] * self._looks.pop(0)


@pytest.fixture
def server(opts, testmode):
    opts["test"] = testmode
    _, modules, states = load(opts)
    server = Server()
    server.stubs = {
        name: stub(modules, f"nova_database.{name}", side_effect=getattr(server, name))
        for name in vars(Server)
        if not name.startswith("_")
    }
    server.states, server.testmode = states, testmode
    return server


def outcome(server, function, name, **kwargs):
    """Run a state, check it against its mode, and return its changes."""
    ret = server.states[f"nova_database.{function}"](name, connection=CONNECTION, **kwargs)
    assert ret["result"] is (None if server.testmode else True), ret["comment"]
    if server.testmode:
        assert server.calls == []
    else:
        again = server.states[f"nova_database.{function}"](name, connection=CONNECTION, **kwargs)
        assert (again["result"], again["changes"]) == (True, {})
    return ret["changes"]


def test_a_missing_database_is_created(server):
    assert outcome(server, "present", "nova") == {"nova": {"old": None, "new": "created"}}


def test_a_character_set_is_repaired_and_its_other_name_is_not(server):
    server.databases["nova"] = {"character_set": "utf8", "collation": "utf8_general_ci"}
    ret = server.states["nova_database.present"](
        "nova", CONNECTION, character_set="utf8mb3", collate="utf8mb3_general_ci"
    )
    assert (ret["result"], ret["changes"]) == (True, {})
    server.databases["nova"]["character_set"] = "utf8mb4"
    assert outcome(server, "present", "nova") == {
        "nova character set": {"old": "utf8mb4", "new": "utf8mb3"}
    }


def test_absent_drops_what_is_there(server):
    server.databases["nova"] = {"character_set": "utf8", "collation": "x"}
    assert outcome(server, "absent", "nova") == {"nova": {"old": "present", "new": None}}
    server.databases.clear()
    ret = server.states["nova_database.absent"]("nova", CONNECTION)
    assert (ret["result"], ret["changes"]) == (True, {})


def test_a_missing_user_is_created_for_each_host_with_its_grants(server):
    changes = outcome(
        server,
        "user_present",
        "nova",
        hosts=["%", "10.%"],
        password_pillar=PASSWORD,
        grants={"nova_api": ALL},
    )
    assert changes == {
        "nova@%": {"old": None, "new": "created"},
        "nova@% grants on nova_api": {"old": "", "new": ALL},
        "nova@10.%": {"old": None, "new": "created"},
        "nova@10.% grants on nova_api": {"old": "", "new": ALL},
    }


def test_a_user_s_drift_is_repaired_and_nothing_is_revoked(server):
    server.users["nova", "%"] = {"password": "old", "ssl": False}
    server.grants["nova", "%"] = {"nova": ["DELETE", "SELECT"], "other": [ALL]}
    changes = outcome(
        server,
        "user_present",
        "nova",
        password_pillar=PASSWORD,
        require_ssl=True,
        grants={"nova": "SELECT, INSERT"},
    )
    assert changes == {
        "nova@% password": {"old": "***", "new": "***"},
        "nova@% TLS": {"old": "optional", "new": "required"},
        "nova@% grants on nova": {"old": "DELETE, SELECT", "new": "DELETE, INSERT, SELECT"},
    }
    if not server.testmode:
        assert server.grants["nova", "%"]["other"] == [ALL]


@pytest.mark.parametrize(("wanted", "there"), [(True, False), (False, True), (None, True)])
def test_tls_is_required_or_not_as_asked(server, wanted, there):
    server.users["nova", "%"] = {"password": PASSWORD, "ssl": there}
    wish = {"password_pillar": PASSWORD, "require_ssl": wanted}
    if wanted is None:
        ret = server.states["nova_database.user_present"]("nova", CONNECTION, **wish)
        assert (ret["result"], ret["changes"]) == (True, {})
    else:
        texts = {True: "required", False: "optional"}
        assert outcome(server, "user_present", "nova", **wish) == {
            "nova@% TLS": {"old": texts[there], "new": texts[wanted]}
        }


def test_a_grant_on_everything_is_enough(server):
    server.users["nova", "%"] = {"password": PASSWORD, "ssl": True}
    server.grants["nova", "%"] = {"*": [ALL]}
    ret = server.states["nova_database.user_present"](
        "nova", CONNECTION, password_pillar=PASSWORD, grants={"nova": ALL}
    )
    assert (ret["result"], ret["changes"]) == (True, {})


def test_user_absent_drops_the_hosts_that_are_named(server):
    server.users = {("nova", "%"): {}, ("nova", "10.%"): {"password": "", "ssl": False}}
    changes = outcome(server, "user_absent", "nova", hosts=["10.%"])
    assert changes == {"nova@10.%": {"old": "present", "new": None}}
    assert ("nova", "%") in server.users


def test_user_absent_waits_for_sessions_to_end_and_keeps_a_user_that_has_some(server, monkeypatch):
    server.users = {("nova", "%"): {"password": "", "ssl": False}}
    clock = server.states["nova_database.user_absent"].__globals__["time"]
    monkeypatch.setattr(clock, "sleep", lambda seconds: None)

    server._looks = [1, 1]
    ret = server.states["nova_database.user_absent"]("nova", CONNECTION, unused_within=0)
    if server.testmode:
        assert ret["result"] is None  # until then it may be
    else:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert "nova stays: it is in use, 1 sessions from 10.20.0.60." in ret["comment"]
        assert ("nova", "%") in server.users

    server._looks = [1, 0, 0]
    changes = outcome(server, "user_absent", "nova", unused_within=9)
    assert changes == {"nova@%": {"old": "present", "new": None}}


def test_a_refusal_is_one_sentence_and_keeps_what_was_done(server):
    server.stubs["grant"].side_effect = failure(1044, "The server refuses.")
    ret = server.states["nova_database.user_present"](
        "nova", CONNECTION, password_pillar=PASSWORD, grants={"nova": ALL}
    )
    created = {"nova@%": {"old": None, "new": "created"}}
    if server.testmode:
        assert ret["changes"] == created | {"nova@% grants on nova": {"old": "", "new": ALL}}
    else:
        assert (ret["result"], ret["comment"]) == (False, "The server refuses.")
        assert ret["changes"] == created


@pytest.mark.parametrize("number", [None, 2003])
def test_only_a_library_that_is_missing_yet_is_forgiven_and_only_in_test_mode(server, number):
    server.stubs["get_database"].side_effect = failure(number, "PyMySQL is missing.")
    ret = server.states["nova_database.present"]("nova", CONNECTION)
    if server.testmode and number is None:
        assert ret["result"] is None
        assert ret["changes"] == {"nova": {"old": None, "new": "created"}}
    else:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert ret["comment"] == "PyMySQL is missing."
