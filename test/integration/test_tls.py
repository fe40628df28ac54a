"""A converged site goes over to TLS: what is said on the wire, and who is told of a new file."""

import json
import sys

import pytest
from conftest import CONTROLLERS, MINIONS, ROOT, apply, lab, on, sh, sql

sys.path.insert(0, str(ROOT / "test"))
from certificates import Authority  # noqa: E402

pytestmark = pytest.mark.long

HERE = "/etc/ssl/nova"
CA = {"ca": f"{HERE}/ca.pem"}
SERVERS = {"database": {"tls": CA}, "messaging": {"tls": CA}}
REQUIRED = {**SERVERS, "database": {"tls": CA, "require_tls": True}}
AUTHORITY = Authority()
VIP, BROKER = "openstack-vip.example.org", "rabbitmq.example.org"
NEUTRON = "10.20.0.10"  # infra, whose own services stay as they are
MARIADB = f"""
[mysqld]
ssl_ca = {HERE}/ca.pem
ssl_cert = {HERE}/server.pem
ssl_key = {HERE}/server.key
"""
RABBITMQ = f"""
listeners.tcp.default = 5672
listeners.ssl.default = 5671
ssl_options.cacertfile = {HERE}/ca.pem
ssl_options.certfile = {HERE}/server.pem
ssl_options.keyfile = {HERE}/server.key
"""
DAEMONS = [
    "nova-api",
    "nova-api-metadata",
    "nova-conductor",
    "nova-novncproxy",
    "nova-scheduler",
    "placement-api",
]


def put(host, path, text, mode="0644"):
    """Write a file of a host; its directory is made."""
    lab(
        "exec",
        host,
        "--",
        *("sh", "-ec", 'mkdir -p "${1%/*}"; cat > "$1"; chmod $2 "$1"', "sh", path, mode),
        input=text,
    )


def sessions():
    """(peer, whether it talks TLS) of each connection to RabbitMQ but Neutron's."""
    listed = on("infra", "rabbitmqctl", "-q", "list_connections", "peer_host", "ssl", "--formatter",
                "json")  # fmt: skip
    rows = [(row["peer_host"], row["ssl"]) for row in json.loads(listed)]
    return {row for row in rows if row[0] != NEUTRON}


def goes_over_to(**pillar):
    """Apply a pillar: as it was predicted, and then there is nothing to do. The states' ids."""
    predicted = apply("test=True", nova=pillar)
    run = apply(nova=pillar)
    assert (predicted.failed(), run.failed()) == ([], [])
    # What happens once in a site, both controllers predict and one does.
    assert {*run.changed()} <= {*predicted.changed()}
    ids = {state for _, state in run.changed()}
    assert ids == {state for _, state in predicted.changed()}
    nothing_to_do(**pillar)
    return ids


def nothing_to_do(**pillar):
    for args in ([], ["test=True"]):
        run = apply(*args, nova=pillar)
        assert (run.failed(), run.changed(), run.predicted()) == ([], [], [])


def restarted(run):
    """The units that a run restarted, by minion."""
    return {
        (minion, state["name"])
        for minion, _, state in run.states()
        if "restarted" in (state["changes"] or {})
    }


@pytest.fixture(scope="module")
def site():
    """A fleet that converged in clear text, whose servers offer TLS too."""
    lab("up")
    lab("restore", "bare")
    assert apply().failed() == []
    for host in (*MINIONS, "infra"):
        put(host, CA["ca"], AUTHORITY.pem)
    certificate, key = AUTHORITY.issue(VIP, BROKER)
    put("infra", f"{HERE}/server.pem", certificate)
    put("infra", f"{HERE}/server.key", key)
    put("infra", "/etc/mysql/mariadb.conf.d/91-tls.cnf", MARIADB)
    put("infra", "/etc/rabbitmq/rabbitmq.conf", RABBITMQ)
    sh("infra", f"chmod 0644 {HERE}/server.key; systemctl restart mariadb rabbitmq-server")


def test_a_ca_that_is_not_there_stops_the_run_and_nothing_is_restarted(site):
    wrong = {"database": {"tls": {"ca": "/nowhere/ca.pem"}}}
    for args in (["test=True"], []):
        run = apply(*args, target="ctl1", nova=wrong)
        said = {state: comment for _, state, comment in run.failed()}
        assert "/nowhere/ca.pem" in said["nova-config-database-tls-ca"]
        assert "/nowhere/ca.pem cannot be read" in said["nova-controller-database-nova"]
        assert run.changed() == []


def test_the_site_goes_over_to_tls_as_predicted_and_once(site):
    goes_over_to(**SERVERS)


def test_the_message_queue_is_spoken_to_in_tls_alone(site):
    peers = sessions()
    assert {tls for _, tls in peers} == {True}
    assert len(peers) == 4, "two controllers and two compute nodes"


def test_accounts_that_require_tls_lose_nobody(site):
    assert goes_over_to(**REQUIRED) == {
        "nova-controller-database-user-nova",
        "nova-controller-database-user-placement",
    }
    # Whoever is connected now has logged in after accounts began to require TLS.
    sh("infra", "mysql -N -e \"SELECT CONCAT('KILL ', id, ';') FROM information_schema.processlist "
       "WHERE user IN ('nova', 'placement')\" | mysql")  # fmt: skip
    nothing_to_do(**REQUIRED)
    servers = on("infra", "openstack", "server", "list", "--all-projects", "-f", "json")
    assert json.loads(servers) == []
    users = sql("SELECT DISTINCT user FROM information_schema.processlist").split()
    assert {"nova", "placement"} <= set(users)


def test_in_clear_text_the_accounts_are_refused(site):
    password = sh("ctl1", "sed -n 's,^connection = mysql+pymysql://nova:\\([^@]*\\)@.*,\\1,p' "
                  "/etc/nova/nova.conf | head -1").strip()  # fmt: skip
    for tls, answer in (("--ssl", "1"), ("--skip-ssl", "Access denied")):
        said = sh("infra", f"MYSQL_PWD='{password}' mysql {tls} -h {VIP} -u nova -N -e 'SELECT 1' "
                  "2>&1 || :")  # fmt: skip
        assert answer in said


def test_a_server_of_another_name_is_not_believed(site):
    certificate, key = AUTHORITY.issue("elsewhere.example.org")
    own = {name: on("infra", "cat", f"{HERE}/server.{name}") for name in ("pem", "key")}
    put("infra", f"{HERE}/server.pem", certificate)
    put("infra", f"{HERE}/server.key", key)
    sql("FLUSH SSL")
    try:
        run = apply("test=True", target="ctl1", nova=REQUIRED)
        comments = {comment for _, _, comment in run.failed()}
        assert any("certificate verify failed: Hostname mismatch" in it for it in comments)
    finally:
        for name, text in own.items():
            put("infra", f"{HERE}/server.{name}", text)
        sql("FLUSH SSL")


def test_a_renewed_ca_restarts_those_that_read_it_and_no_others(site):
    for host, expected in ((CONTROLLERS[0], DAEMONS), ("cmp1", ["nova-compute"])):
        put(host, CA["ca"], AUTHORITY.pem + Authority("the next CA").pem)
        for args in (["test=True"], []):
            assert restarted(apply(*args, nova=REQUIRED)) == {(host, unit) for unit in expected}
    nothing_to_do(**REQUIRED)
