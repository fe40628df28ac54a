"""
The OpenStack Security Guide's checklist for Compute, and what a reviewer asks beyond it, on hosts.

It holds for what runs: files as they lie, sockets as they listen, answers as they come, and what
Salt and the daemons leave behind when secrets change.
"""

import configparser
import json
import os
import re
import time
from pathlib import Path

import pytest
from conftest import CONTROLLERS, MINIONS, apply, on, sh, sql

pytestmark = pytest.mark.usefixtures("fleet")

COMPUTES = ("cmp1", "cmp2")
VIP = "http://openstack-vip.example.org"
CONFIGURED = [
    *((host, program) for host in CONTROLLERS for program in ("nova", "placement")),
    *((host, "nova") for host in COMPUTES),
]
EACH_CONFIGURED = pytest.mark.parametrize(("host", "program"), CONFIGURED)


def conf(host, program):
    """A configuration file as sections, without interpolation; a repeated option's last value."""
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(on(host, "cat", f"/etc/{program}/{program}.conf"))
    return parser


# ---- 01, 02: owners and modes --------------------------------------------------------------------


@EACH_CONFIGURED
def test_configuration_is_root_s_and_the_service_s_group_reads_it(host, program):
    """Others cannot enter /etc/nova and /etc/placement; below, nobody but root writes."""
    lines = sh(host, f"find /etc/{program} ! -type l -printf '%d %y %u:%g %m %p\\n'").splitlines()
    assert lines[0] == f"0 d root:{program} 750 /etc/{program}"
    files = [line for line in lines if line.startswith("1 f")]
    assert len(files) > 1
    assert [line for line in files if not line.startswith(f"1 f root:{program} 640 ")] == []
    assert sh(host, f"find /etc/{program} ! -type l \\( ! -user root -o -perm /022 \\)") == ""


@pytest.mark.parametrize("host", MINIONS)
def test_nobody_but_root_writes_what_systemd_and_web_servers_read(host):
    """Drop-ins, sites, haproxy.cfg and what is under /usr/local; they hold no secret."""
    places = "/etc/systemd/system /etc/default /etc/haproxy /etc/apache2 /usr/local/lib"
    found = sh(host, f"find {places} ! -type l \\( ! -user root -o -perm /022 \\) 2>/dev/null || :")
    assert found.splitlines() == []


@pytest.mark.parametrize("host", (*CONTROLLERS, *COMPUTES))
def test_logs_are_closed_to_others(host):
    """Logs hold what users and guests are called."""
    directories = "/var/log/nova /var/log/placement"
    found = sh(host, f"find {directories} -maxdepth 0 -printf '%m %p\\n' 2>/dev/null || :")
    modes = {path: mode for mode, path in map(str.split, found.splitlines())}
    assert set(modes) == set(directories.split()[: 2 if host in CONTROLLERS else 1])
    assert {mode[-1] for mode in modes.values()} == {"0"}


@pytest.mark.parametrize("host", (*CONTROLLERS, *COMPUTES))
def test_no_daemon_of_nova_s_runs_as_root_or_leaves_its_memory_in_a_core_file(host):
    script = """
    for pid in $(pgrep -f '/usr/bin/(nova-|placement-|uwsgi)'); do
        echo "$(ps -o user= -p $pid) $(awk '/^Max core/ {print $5}' /proc/$pid/limits)"
    done | sort -u
    """
    users = ["nova", "placement"] if host in CONTROLLERS else ["nova"]
    assert sh(host, script).splitlines() == [f"{user} 0" for user in users]


ASK = """
import json, sys, urllib.error, urllib.request
try:
    request = urllib.request.Request(sys.argv[1], headers=json.load(sys.stdin))
    answer = urllib.request.urlopen(request)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, dict(answer.headers)]))
"""


def asked(url, headers):
    """The status and headers that an URL answers to somebody in the site."""
    return json.loads(on("infra", "python3", "-c", ASK, url, input=json.dumps(headers)))


# ---- 03, 04: Keystone ----------------------------------------------------------------------------


@EACH_CONFIGURED
def test_tokens_are_asked_of_keystone_and_no_connection_is_left_unchecked(host, program):
    options = conf(host, program)
    token = options["keystone_authtoken"]
    assert token["www_authenticate_uri"] == token["auth_url"] == f"{VIP}:5000/v3"
    assert token["auth_type"] == "password" and token["service_token_roles_required"] == "true"
    for section in options.sections():
        assert options[section].get("insecure", "false").lower() == "false", section
        # Zed's nova has no other strategy, and deprecates the option.
        assert options[section].get("auth_strategy", "keystone") == "keystone", section


@pytest.mark.parametrize(
    "path", [":8774/v2.1/servers", ":8774/v2.1/os-services", ":8778/resource_providers"]
)
def test_an_api_sends_who_has_no_token_to_keystone(path):
    for token in ({}, {"X-Auth-Token": "forged"}):
        code, headers = asked(VIP + path, token)
        assert code == 401
        assert headers["WWW-Authenticate"] == f'Keystone uri="{VIP}:5000/v3"'


def test_metadata_is_for_neutron_s_proxy_alone():
    """Who does not sign an instance's id with the shared secret learns nothing."""
    instance = {"X-Instance-ID": "x", "X-Tenant-ID": "x", "X-Forwarded-For": "192.0.2.1"}
    url = "http://10.20.0.60:8775/latest/meta-data"
    assert asked(url, instance)[0] in (400, 403)
    assert asked(url, {**instance, "X-Instance-ID-Signature": "0" * 64})[0] == 403


# ---- what listens, and where ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def guest():
    """A guest on a compute node: its display, and QEMU's, are among what listens."""
    make = """
    openstack flavor show access >/dev/null 2>&1 ||
        openstack flavor create --ram 128 --disk 0 access >/dev/null
    openstack server create --os-compute-api-version 2.37 --nic none --image guest --flavor access \
        --wait access >/dev/null
    openstack server show -f json access
    """
    server = json.loads(sh("infra", make))
    assert server["status"] == "ACTIVE"
    yield server["OS-EXT-SRV-ATTR:host"]
    sh("infra", "openstack server delete --wait access; openstack flavor delete access")


def listening(host):
    """(address, port, program) of every socket that takes TCP connections."""
    for line in sh(host, "ss -Hlntp").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        program = re.search(r'users:\(\("([^"]+)', line)
        yield address.strip("[]"), int(port), program[1] if program else "?"


@pytest.mark.parametrize("host", MINIONS)
def test_nothing_listens_on_every_address(host, guest):
    # What a site logs in over is its own.
    found = [it for it in listening(host) if it[2] != "sshd"]
    assert [it for it in found if it[0] in ("0.0.0.0", "*", "::", "")] == []


def test_each_port_is_served_on_the_management_address(guest):
    addresses = {"ctl1": "10.20.0.60", "ctl2": "10.20.0.70", "cmp1": "10.20.0.80"}
    addresses["cmp2"] = "10.20.0.90"
    for host in CONTROLLERS:
        ours = {(address, port) for address, port, _ in listening(host)}
        assert {(addresses[host], port) for port in (8774, 8775, 8778, 6080)} <= ours
    displays = [(a, p) for a, p, program in listening(guest) if program.startswith("qemu")]
    assert displays and {address for address, _ in displays} == {addresses[guest]}
    # libvirt is asked through its socket alone.
    assert [it for host in COMPUTES for it in listening(host) if "virt" in it[2]] == []


@pytest.mark.parametrize("host", (*CONTROLLERS, *COMPUTES))
def test_sockets_in_files_are_not_everybody_s(host, guest):
    """Statistics of uwsgi's, monitors of QEMU's: who is in no group of theirs cannot write."""
    script = """
    for path in $(ss -Hlxp | grep -E 'uwsgi|nova|placement|qemu' | awk '{print $5}' | grep ^/); do
        su -s /bin/sh nobody -c "test -w $path" && echo "open $path" || echo "shut $path"
    done
    """
    found = sh(host, script).split()
    assert "open" not in found, found
    assert found or host != guest


# ---- accounts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", COMPUTES)
def test_a_compute_node_has_no_credential_of_a_database_or_an_administrator(host):
    options = conf(host, "nova")
    assert {"database", "api_database", "placement_database"}.isdisjoint(options.sections())
    assert sh(host, "grep -rlE 'mysql|pymysql|sqlite' /etc/nova || :") == ""
    pillar = json.loads(on("infra", "salt", "--out=json", host, "pillar.items"))[host]
    names = set(pillar["nova"]["passwords"])
    assert names == {"messaging", "keystone_nova", "keystone_placement", "keystone_neutron"}


def test_each_account_has_the_roles_that_its_release_wants_and_no_other():
    """Zed's Nova takes events of administrators, and its Placement nobody else at all."""
    for user in ("nova", "placement"):
        ask = f"openstack role assignment list --names -f json --user {user}"
        rows = json.loads(sh("infra", ask))
        assert {(row["Role"], row["Project"]) for row in rows} == {
            ("admin", "service@Default"),
            ("service", "service@Default"),
        }


def test_each_database_account_has_its_own_databases_alone():
    grants = sql("SHOW GRANTS FOR 'placement'@'%'; SHOW GRANTS FOR 'nova'@'%'")
    on_what = set(re.findall(r"ON (\S+) TO ['`](\w+)", grants))
    assert on_what == {
        ("*.*", "placement"),
        ("*.*", "nova"),
        ("`placement`.*", "placement"),
        *((f"`{name}`.*", "nova") for name in ("nova", "nova_api", "nova_cell0")),
    }
    assert [g for g in grants.splitlines() if "*.*" in g and not g.startswith("GRANT USAGE")] == []


# ---- secrets, while they change ------------------------------------------------------------------


@pytest.fixture(scope="module")
def secrets():
    """The part of each password that survives every encoding, by its key."""
    name = os.environ.get("NOVA_LAB", "nova")
    known = json.loads(Path(f"/var/lib/nova-formula-lab/{name}/secrets.json").read_text())
    return {key: value[-16:] for key, value in known.items()}


EVENTS = "/run/access-events"
LISTEN = f"""
rm -f {EVENTS}
systemd-run --quiet --unit=access-events --setenv=PYTHONUNBUFFERED=1 \\
    --property=StandardOutput=file:{EVENTS} \\
    /usr/local/bin/salt-run state.event pretty=True
"""
#: Passwords, and those within URLs.
SPOIL = r"sed -i 's/^password = .*/password = stale/; s,://\([^:]*\):[^@]*@,://\1:stale@,' "


@pytest.fixture(scope="module")
def repaired(secrets):
    """A run that puts back passwords in files, in Keystone and in MariaDB; what the bus carried."""
    sh("infra", LISTEN)
    time.sleep(5)
    for host in ("ctl1", "cmp1"):
        sh(host, SPOIL + "/etc/nova/nova.conf")
    sh("ctl1", SPOIL + "/etc/placement/placement.conf")
    on("infra", "openstack", "user", "set", "--password", "stale", "placement")
    sql("SET PASSWORD FOR 'placement'@'%' = PASSWORD('stale')")
    predicted, run = apply("test=True"), apply()
    time.sleep(2)
    sh("infra", "systemctl stop access-events")
    return predicted, run


def shown(text, secrets):
    return [key for key, part in secrets.items() if part in text]


def test_a_run_that_changes_secrets_returns_none(repaired, secrets):
    predicted, run = repaired
    assert (predicted.failed(), run.failed()) == ([], [])
    states = {state for _, state in run.changed()}
    for part in ("config-nova-conf", "placement-conf", "identity-user-placement", "database"):
        assert any(part in state for state in states), (part, states)
    assert "***" in run.text and "***" in predicted.text
    assert shown(predicted.text, secrets) == shown(run.text, secrets) == []


def test_the_event_bus_carries_none(repaired, secrets):
    events = on("infra", "cat", EVENTS)
    assert all(f"/ret/{minion}" in events for minion in MINIONS), events[-2000:]
    assert "nova-config-nova-conf" in events
    assert shown(events, secrets) == []


PLACES = {
    # Salt's own: jobs that the master keeps, what a minion caches of pillar and of compiled runs.
    "minion": "/var/cache/salt /var/log /tmp /var/tmp /root /home /var/crash "
    "/var/lib/systemd/coredump /var/lib/nova /etc/salt",
    "master": "/var/cache/salt/master/jobs /var/log/salt /tmp /var/tmp",
}


@pytest.mark.parametrize("host", (*MINIONS, "infra"))
def test_no_secret_is_left_in_caches_logs_or_crash_files(repaired, secrets, host):
    places = PLACES["master" if host == "infra" else "minion"]
    script = f"""
    cat > /run/patterns
    grep -rlF -D skip -f /run/patterns {places} 2>/dev/null || :
    journalctl --no-pager -o cat | grep -cF -f /run/patterns || :
    rm /run/patterns
    """
    found = sh(host, script, input="\n".join(secrets.values()) + "\n").splitlines()
    # MariaDB's own history is the lab's.
    assert found == ["0"]


@pytest.mark.parametrize("host", (*CONTROLLERS, *COMPUTES))
def test_only_the_services_own_files_hold_secrets_and_others_read_none(secrets, host):
    script = """
    cat > /run/patterns
    grep -rlF -D skip -f /run/patterns /etc /var /root /home /usr/local 2>/dev/null || :
    rm /run/patterns
    """
    found = sh(host, script, input="\n".join(secrets.values()) + "\n").splitlines()
    wanted = {"/etc/nova/nova.conf"}
    if host in CONTROLLERS:
        wanted.add("/etc/placement/placement.conf")
    assert set(found) == wanted


@pytest.mark.parametrize("host", MINIONS)
def test_no_command_line_or_world_readable_environment_holds_one(repaired, secrets, host):
    script = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"
    assert shown(sh(host, script, check=False), secrets) == []


def test_a_report_of_a_daemon_s_state_masks_them(secrets):
    """Nova writes all options of a process when it gets SIGUSR2: Guru Meditation."""
    script = """
    since=$(date '+%F %T')
    kill -USR2 $(systemctl show -p MainPID --value nova-conductor)
    for i in $(seq 40); do
        journalctl --no-pager -o cat -u nova-conductor --since "$since" > /run/report
        find /var/log/nova -newermt "$since" -name '*gurumeditation*' -exec cat {} + >> /run/report
        grep -q 'transport_url = ' /run/report && break
        sleep 0.5
    done
    cat /run/report; rm /run/report
    """
    report = sh("ctl1", script)
    assert "Guru Meditation" in report and "transport_url = ***" in report
    assert shown(report, secrets) == []
    assert on("ctl1", "systemctl", "is-active", "nova-conductor").strip() == "active"
