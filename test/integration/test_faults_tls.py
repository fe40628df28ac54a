"""A converged site goes over to TLS: what is said on the wire, and who is told of a new file."""

import json
import os
import sys
import time

import pytest
from conftest import CONTROLLERS, MINIONS, ROOT, apply, lab, on, sh, sql
from test_faults_ha import QUIET, RESTARTS, failed, instants, load, rolling

sys.path.insert(0, str(ROOT / "test"))
from certificates import Authority  # noqa: E402
from fleet.lab import Lab, refresh_pillar  # noqa: E402

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
SERVED = {**CA, "cert": f"{HERE}/my.pem", "key": f"{HERE}/my.key", "vip": f"{HERE}/vip.pem"}
EVERYTHING = {**REQUIRED, "tls": SERVED}
ADDRESSES = {"ctl1": "10.20.0.60", "ctl2": "10.20.0.70"}
DISPLAYS = "/etc/pki/libvirt-vnc"
VNC = {"ca": f"{HERE}/vnc-ca.pem", "cert": f"{HERE}/vnc.pem", "key": f"{HERE}/vnc.key"}
CONSOLES = {**EVERYTHING, "tls": {**SERVED, "vnc": VNC}}
OF_DISPLAYS = Authority("displays")
SERVERS_OF_APIS = ["nova-api", "nova-api-metadata", "nova-novncproxy", "placement-api"]
DAEMONS = [*SERVERS_OF_APIS, "nova-conductor", "nova-scheduler"]


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
    rows = {(_address(row["peer_host"]), row["ssl"]) for row in json.loads(listed)}
    return {row for row in rows if row[0] != NEUTRON}


def _address(peer):
    """RabbitMQ gives an IPv4 address as such, or as the eight numbers of an IPv6 one."""
    if isinstance(peer, str):
        return peer.removeprefix("::ffff:")
    return ".".join(f"{part >> 8}.{part & 255}" for part in peer[6:])


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
    infra_offers_tls()
    for host in CONTROLLERS:
        serve(host)
    put("lb1", SERVED["vip"], "".join(AUTHORITY.issue(VIP)), "0600")


def infra_offers_tls():
    """MariaDB and RabbitMQ, whose files are there, offer TLS; infra's clients know the CA."""
    put("infra", "/etc/mysql/mariadb.conf.d/91-tls.cnf", MARIADB)
    put("infra", "/etc/rabbitmq/rabbitmq.conf", RABBITMQ)
    sh("infra", f"chmod 0644 {HERE}/server.key; systemctl restart mariadb rabbitmq-server")
    cacert = f"s,^  lab:,&\\n    cacert: {CA['ca']},"
    sh("infra", f"sed -i '{cacert}' /root/.config/openstack/clouds.yaml")


def serve(host):
    """Give a controller a new certificate."""
    certificate, key = AUTHORITY.issue(host, ADDRESSES[host])
    put(host, SERVED["cert"], certificate)
    put(host, SERVED["key"], key, "0640")
    sh(host, f"chgrp nova {SERVED['key']}")


def status(url, **more):
    """The status with which an URL answers on ctl1; None where there is no answer."""
    more = [f"{key}={value}" for key, value in more.items()]
    said = on("infra", "salt", "--out=json", "ctl1", "nova_unit.http_answer", url, *more)
    return json.loads(said)["ctl1"]["status"]


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


#: Asks Nova with a new token; prints when that expires.
ASK = """
import openstack
cloud = openstack.connect(cloud="lab")
assert cloud.compute.get("/servers?limit=1").status_code == 200
print(cloud.session.auth.get_access(cloud.session).expires.strftime("%Y-%m-%dT%H:%M:%S"))
"""
#: Prints the tokens that memcached holds; with an argument, empties it before.
CACHED = """
import socket, sys, urllib.parse
with socket.create_connection(("localhost", 11211)) as link:
    stream = link.makefile("rwb")
    def said(command, end):
        stream.write(command + b"\\r\\n")
        stream.flush()
        return b"".join(iter(stream.readline, end))
    if sys.argv[1:]:
        said(b"flush_all", b"OK\\r\\n")
    for line in said(b"lru_crawler metadump all", b"END\\r\\n").splitlines():
        key = urllib.parse.unquote_to_bytes(line.split()[0].removeprefix(b"key="))
        if key.startswith(b"tokens/"):  # Keystone's own are others
            print(said(b"get " + key, b"END\\r\\n"))
"""


def test_tokens_in_memcached_say_nothing_to_who_reads_them(site):
    secret = {"passwords": {"memcached": "m@%$:#'\""}}
    for pillar, readable in ((REQUIRED, True), ({**REQUIRED, **secret}, False)):
        run = apply(nova=pillar)
        assert run.failed() == [] and "m@%$" not in run.text
        on("infra", "python3", "-c", CACHED, "anew")
        expires = on("infra", "/opt/saltstack/bin/python", "-c", ASK).strip()
        held = on("infra", "python3", "-c", CACHED)
        assert "VALUE tokens/" in held
        # Tokens that Glance and Neutron put there stay readable.
        assert (f'"expires_at": "{expires}' in held) is readable
    nothing_to_do(**REQUIRED, **secret)
    assert apply(nova=REQUIRED).failed() == []


def test_the_apis_go_over_to_tls_as_predicted_and_once(site):
    goes_over_to(**EVERYTHING)
    (endpoint,) = json.loads(
        on("infra", "openstack", "endpoint", "list", "--service", "placement", "--interface",
           "public", "-f", "json")
    )  # fmt: skip
    assert endpoint["URL"] == f"https://{VIP}:8778"


@pytest.mark.parametrize("port", [8774, 8778, 6080])
def test_only_tls_is_answered_at_the_vip_and_on_the_controllers(site, port):
    for host in (VIP, *ADDRESSES.values()):
        assert status(f"https://{host}:{port}/", ca=CA["ca"]) in (200, 300, 404, 405)
        assert status(f"https://{host}:{port}/") is None, "the system knows no such CA"
        assert status(f"http://{host}:{port}/") is None


def test_links_of_the_api_stay_in_tls(site):
    listed = on("infra", "openstack", "versions", "show", "--service", "compute", "-f", "json")
    assert {row["Endpoint"].partition(":")[0] for row in json.loads(listed)} == {"https"}


def test_a_renewed_certificate_reloads_those_that_serve_with_it_and_no_others(site):
    serve("ctl2")
    for args in (["test=True"], []):
        run = apply(*args, nova=EVERYTHING)
        assert restarted(run) == {("ctl2", unit) for unit in SERVERS_OF_APIS}
        assert {minion for minion, _ in run.changed()} == {"ctl2"}
    put("lb1", SERVED["vip"], "".join(AUTHORITY.issue(VIP)), "0600")
    for args in (["test=True"], []):
        run = apply(*args, nova=EVERYTHING)
        assert [key for _, _, state in run.states() for key in state["changes"]] == ["reloaded"]
        assert run.changed() == [("lb1", "nova-haproxy-service-running")]
    nothing_to_do(**EVERYTHING)


@pytest.fixture
def everything():
    """The pillar that other tests give with the command, as the master's own."""
    ours = Lab(os.environ.get("NOVA_LAB", "nova"))
    (ours.directory / "pillar/system.sls").write_text(json.dumps({"nova": EVERYTHING}))
    yield
    refresh_pillar(ours)


@pytest.mark.parametrize("how", ["state.apply", "orchestrate.rolling"])
def test_certificates_are_renewed_under_load(site, everything, how):
    for host in CONTROLLERS:
        serve(host)
    put("lb1", SERVED["vip"], "".join(AUTHORITY.issue(VIP)), "0600")
    with load() as traffic:
        if how == "state.apply":
            run = apply()
            assert run.failed() == []
            units = {(host, unit) for host in CONTROLLERS for unit in SERVERS_OF_APIS}
            assert restarted(run) == units
        else:
            assert apply(target="lb1").failed() == []
            assert failed(rolling()) == []
        time.sleep(QUIET)
    seen = traffic.stop()
    print(f"\n{how}: {len(traffic.failures)} of {seen['requests']} failed, the longest took "
          f"{seen['longest wait']:.1f} s; {traffic.failures[:5]}")  # fmt: skip
    allowed = RESTARTS if how == "state.apply" else 0
    assert len(instants(traffic.failures)) <= allowed
    again = apply()
    assert (again.failed(), again.changed()) == ([], [])


#: A browser's part: a websocket in TLS through the VIP, then RFB until the picture would come.
BROWSER = """
import base64, os, re, socket, ssl, sys
from urllib.parse import unquote, urlsplit
url, ca = sys.argv[1:]
parts = urlsplit(url)
token = re.search("token=([0-9a-f-]+)", unquote(parts.query))[1]
context = ssl.create_default_context(cafile=ca)
plain = socket.create_connection((parts.hostname, parts.port), timeout=30)
sock = context.wrap_socket(plain, server_hostname=parts.hostname)
key = base64.b64encode(os.urandom(16)).decode()
head = [f"GET /?token={token} HTTP/1.1", f"Host: {parts.netloc}", "Upgrade: websocket",
        "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: binary", f"Origin: https://{parts.netloc}", "", ""]
sock.sendall("\\r\\n".join(head).encode())
stream = sock.makefile("rb")
assert b"101" in stream.readline()
while stream.readline().strip():
    pass
held = b""
def receive(count):
    global held
    while len(held) < count:
        kind, length = stream.read(2)
        assert kind & 15 in (1, 2), (kind, length)
        length = int.from_bytes(stream.read(2), "big") if length == 126 else length
        held += stream.read(length)
    taken, held = held[:count], held[count:]
    return taken
def send(data):
    sock.sendall(bytes([130, 128 + len(data), 0, 0, 0, 0]) + data)
assert receive(4) == b"RFB "
receive(8)
send(b"RFB 003.008\\n")
types = receive(receive(1)[0])
assert types == b"\\1", types
send(b"\\1")
assert receive(4) == bytes(4)
send(b"\\1")
size = receive(4)
print(int.from_bytes(size[:2], "big"), "x", int.from_bytes(size[2:], "big"))
"""


def security_types(host):
    """What the display of the guest on a host asks of who connects."""
    script = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], 5900), 10); s.recv(12); "
        "s.sendall(b'RFB 003.008\\n'); print(list(s.recv(9)[1:]))"
    )
    address = on(host, "hostname", "-I").split()[0]
    return json.loads(on("infra", "/opt/saltstack/bin/python", "-c", script, address))


#: A console proxy's part: VeNCrypt up to X509None, then what the display says of it.
VIEWER = """
import socket, ssl, sys
address, ca, *own = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.check_hostname = False
if own:
    context.load_cert_chain(*own)
link = socket.create_connection((address, 5900), timeout=20)
for count, answer in ((12, b"RFB 003.008\\n"), (2, bytes([19])), (2, bytes([0, 2])), (1, b"")):
    assert len(link.recv(count)) == count
    link.sendall(answer)
link.recv(4 * link.recv(1)[0])
link.sendall((260).to_bytes(4, "big"))
assert link.recv(1) == bytes([1])
try:
    print(context.wrap_socket(link).recv(4).hex())
except OSError as exc:
    print(exc)
"""


def seen_with(host, *own):
    command = ["/opt/saltstack/bin/python", "-c", VIEWER, NODES[host], VNC["ca"], *own]
    return on("ctl1", *command).strip()


def test_a_guest_s_display_is_seen_by_the_console_proxy_alone(site):
    for host in CONTROLLERS:
        certificate, key = OF_DISPLAYS.issue(host)
        put(host, VNC["ca"], OF_DISPLAYS.pem)
        put(host, VNC["cert"], certificate)
        put(host, VNC["key"], key, "0640")
        sh(host, f"chgrp nova {VNC['key']}")
    for host in ("cmp1", "cmp2"):
        certificate, key = OF_DISPLAYS.issue(host)
        put(host, f"{DISPLAYS}/ca-cert.pem", OF_DISPLAYS.pem)
        put(host, f"{DISPLAYS}/server-cert.pem", certificate)
        put(host, f"{DISPLAYS}/server-key.pem", key, "0640")
        sh(host, f"chown root:libvirt-qemu {DISPLAYS}/server-key.pem")
    goes_over_to(**CONSOLES)
    sh("infra", "openstack flavor create --ram 128 --vcpus 1 --disk 0 tls >/dev/null; "
       "openstack --os-compute-api-version 2.37 server create --flavor tls --image guest "
       "--nic none --wait seen >/dev/null")  # fmt: skip
    shown = json.loads(on("infra", "openstack", "server", "show", "seen", "-f", "json"))
    assert shown["status"] == "ACTIVE", shown
    host = shown["OS-EXT-SRV-ATTR:host"]
    assert security_types(host) == [19], "VeNCrypt alone"
    assert seen_with(host, VNC["cert"], VNC["key"]) == "0" * 8, "let in"
    certificate, key = Authority("displays").issue("ctl1")
    put("ctl1", "/tmp/vnc/cert.pem", certificate)
    put("ctl1", "/tmp/vnc/key.pem", key)
    for own in ((), ("/tmp/vnc/cert.pem", "/tmp/vnc/key.pem")):
        said = seen_with(host, *own)
        print(f"\n{own}: {said}")
        assert said != "0" * 8 and "timed out" not in said
    url = on("infra", "openstack", "console", "url", "show", "seen", "-f", "value", "-c", "url")
    url = url.strip()
    assert url.startswith(f"https://{VIP}:6080/")
    size = on("infra", "/opt/saltstack/bin/python", "-c", BROWSER, url, CA["ca"])
    assert int(size.split()[0]) > 0
    on("infra", "openstack", "server", "delete", "--wait", "seen")


HYPERVISORS = Authority("hypervisors")
MIGRATING = {**CONSOLES, "migration": {"live": True, "tls": True}}
NODES = {"cmp1": "10.20.0.80", "cmp2": "10.20.0.90"}
QEMU = "/etc/pki/qemu"
#: Where libvirt and QEMU look, the keys' group, and which half of what it is.
PLACES = [
    (f"{QEMU}/server-cert.pem", f"{QEMU}/server-key.pem", "libvirt-qemu"),
    (f"{QEMU}/client-cert.pem", f"{QEMU}/client-key.pem", "libvirt-qemu"),
    ("/etc/pki/libvirt/servercert.pem", "/etc/pki/libvirt/private/serverkey.pem", "root"),
    ("/etc/pki/libvirt/clientcert.pem", "/etc/pki/libvirt/private/clientkey.pem", "root"),
]


def hypervisor(host):
    """Give a compute node its certificates."""
    for ca in (f"{QEMU}/ca-cert.pem", "/etc/pki/CA/cacert.pem"):
        put(host, ca, HYPERVISORS.pem)
    for public, private, group in PLACES:
        certificate, key = HYPERVISORS.issue(host, f"{host}.example.org", NODES[host])
        put(host, public, certificate)
        put(host, private, key, "0640")
        sh(host, f"chgrp {group} {private}")


def whereabouts():
    shown = json.loads(on("infra", "openstack", "server", "show", "mover", "-f", "json"))
    return shown["status"], shown["OS-EXT-SRV-ATTR:host"].partition(".")[0]


def migrations():
    """The status of each live migration of the guest, by its id."""
    listed = on("infra", "openstack", "--os-compute-api-version", "2.80", "server", "migration",
                "list", "--server", "mover", "--type", "live-migration", "-f", "json")  # fmt: skip
    return {row["Id"]: row["Status"] for row in json.loads(listed)}


def move(target):
    """Migrate the guest live; how it ended."""
    before = migrations()
    line = "server migrate --os-compute-api-version 2.30 --live-migration --block-migration --host"
    on("infra", "openstack", *line.split(), target, "mover")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        (status,) = [it for key, it in migrations().items() if key not in before] or [""]
        if status in ("completed", "error", "failed"):
            return status
        time.sleep(1)
    raise AssertionError(f"The migration is still {status}.")


def test_a_guest_migrates_live_over_tls(site):
    for host in NODES:
        hypervisor(host)
    goes_over_to(**MIGRATING)
    for host, address in NODES.items():
        listed = sh(host, "ss -Hltn '( sport = :16514 )'").split()
        assert listed[3] == f"{address}:16514" and len(listed) == 5, listed
    sh("infra", "openstack flavor create --ram 128 --vcpus 1 --disk 0 mover >/dev/null; "
       "openstack server create --os-compute-api-version 2.74 --flavor mover --image guest "
       "--nic none --host cmp1 --wait mover >/dev/null")  # fmt: skip
    assert whereabouts() == ("ACTIVE", "cmp1")
    for target in ("cmp2", "cmp1"):
        assert move(target) == "completed"
        assert whereabouts() == ("ACTIVE", target)
        assert sh(target, "virsh --quiet list --state-running --name").split()
    nothing_to_do(**MIGRATING)


#: What libvirt says first to whom it lets in, or why there is nothing; it has looked at a client's
#: certificate by then, and not the client's own library.
KNOCK = """
import socket, ssl, sys
address, ca, *own = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if own:
    context.load_cert_chain(*own)
try:
    with socket.create_connection((address, 16514), timeout=20) as link:
        print(context.wrap_socket(link, server_hostname=address).recv(1))
except OSError as exc:
    print(exc)
"""


def knock(*own):
    command = ["/opt/saltstack/bin/python", "-c", KNOCK, NODES["cmp2"], "/etc/pki/CA/cacert.pem"]
    return on("cmp1", *command, *own).strip()


def test_who_has_no_certificate_of_the_ca_does_not_reach_libvirt(site):
    ask = "virsh -c qemu+tls://10.20.0.90/system list --name 2>&1 || :"
    assert "error" not in sh("cmp1", ask)
    let_in = r"b'\x01'"
    assert knock(*PLACES[3][:2]) == let_in
    certificate, key = Authority("hypervisors").issue("cmp1", NODES["cmp1"])
    put("cmp1", "/tmp/pki/cert.pem", certificate)
    put("cmp1", "/tmp/pki/key.pem", key)
    for own in ((), ("/tmp/pki/cert.pem", "/tmp/pki/key.pem")):
        said = knock(*own)
        print(f"\n{own}: {said}")
        assert said != let_in and "timed out" not in said
    said = sh("cmp1", ask.replace("+tls", "+tcp"))
    assert "Connection refused" in said


def test_a_guest_s_memory_goes_to_no_host_of_another_ca(site):
    put("cmp2", f"{QEMU}/ca-cert.pem", Authority("hypervisors").pem)
    try:
        assert move("cmp2") in ("error", "failed")
    finally:
        put("cmp2", f"{QEMU}/ca-cert.pem", HYPERVISORS.pem)
    assert whereabouts() == ("ACTIVE", "cmp1")
    assert move("cmp2") == "completed"
    assert whereabouts() == ("ACTIVE", "cmp2")
    on("infra", "openstack", "server", "delete", "--wait", "mover")


def test_a_renewed_certificate_of_libvirt_s_restarts_it_and_no_guest(site):
    hypervisor("cmp1")
    # Cut off from libvirt, nova-compute would take no guest for up to a minute.
    due = {("cmp1", "libvirtd"), ("cmp1", "nova-compute")}
    for args in (["test=True"], []):
        assert restarted(apply(*args, nova=MIGRATING)) == due
    nothing_to_do(**MIGRATING)
