"""From bare hosts: nothing is touched too early, then everything, and no secret is shown."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import CONTROLLERS, MINIONS, ROOT, apply, lab, on, one_of_everything, sh

# Where a run may write though it changes nothing: Salt's caches and logs, the journal, and apt's
# lists, which Salt's own pkg.installed refreshes in test mode too.
OWN = (
    "-path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /srv "
    "-o -path /var/cache/salt -o -path /var/log -o -path /var/lib/systemd -o -path /etc/salt "
    "-o -path /opt/saltstack -o -path /var/lib/apt -o -path /var/cache/apt"
)


@pytest.fixture(scope="module")
def bare():
    lab("up")
    lab("restore", "bare")
    return json.loads(Path(secrets_path()).read_text())


def secrets_path():
    name = os.environ.get("NOVA_LAB", "nova")
    return f"/var/lib/nova-formula-lab/{name}/secrets.json"


def fingerprint():
    """Everything that a run could change: files and packages of hosts, databases, Keystone."""
    found = {}
    for host in MINIONS:
        found[host] = sh(
            host,
            f"find / \\( {OWN} \\) -prune -o -type f -printf '%p %T@ %s %m\\n' "
            "| sort; dpkg-query -W; systemctl list-units --no-legend "
            "--type=service --state=running | awk '{print $1}' "
            "| grep -v -e user@ -e systemd-",
        )
    found["database"] = sh(
        "infra",
        "mysql -NBe 'SHOW DATABASES; SELECT user, host FROM mysql.user ORDER BY 1, 2';"
        "mysqldump --databases keystone glance neutron --skip-dump-date --single-transaction"
        " | md5sum",
    )
    found["keystone"] = on("infra", "openstack", "endpoint", "list", "-f", "value")
    return found


def different(before, after):
    """The lines in which two fingerprints differ, by what they are of."""
    return {
        what: sorted(set(before[what].splitlines()) ^ set(after[what].splitlines()))
        for what in before
        if before[what] != after[what]
    }


def test_test_mode_fails_nowhere_and_touches_nothing(bare):
    before = fingerprint()
    run = apply("test=True")
    assert run.failed() == []
    assert len(run.predicted()) > 80
    assert different(before, fingerprint()) == {}
    assert not leaks(run.text, bare)


def test_a_bad_pillar_stops_every_minion_before_it_touches_anything(bare):
    before = fingerprint()
    bad = {"nova": {"ports": {"api": "8774"}, "keystone": {"auth_url": "vip:5000/v3"}}}
    run = apply(**bad)
    for minion in MINIONS:
        (state,) = run.returns[minion].values()
        assert state["result"] is False
        assert "nova:ports:api must be a number from 1 to 65535." in state["comment"]
        assert "nova:keystone:auth_url must be an URL" in state["comment"]
    assert different(before, fingerprint()) == {}


class Sampler(threading.Thread):
    """Reads every process's command line, of all hosts, as often as it can."""

    def __init__(self, needles):
        super().__init__(daemon=True)
        self.needles, self.seen, self.samples, self.going = needles, set(), 0, True

    def run(self):
        while self.going:
            for entry in os.scandir("/proc"):
                if entry.name.isdigit():
                    try:
                        line = Path(entry.path, "cmdline").read_bytes()
                    except OSError:
                        continue
                    if any(needle in line for needle in self.needles):
                        self.seen.add(line)
            self.samples += 1
            time.sleep(0.02)


def unique(password):
    """The part of a lab password that survives every encoding."""
    return password[-16:]


def leaks(text, secrets):
    return [name for name, value in secrets.items() if unique(value) in text]


def test_one_command_converges_the_whole_fleet(bare):
    sampler = Sampler([unique(value).encode() for value in bare.values()])
    sampler.start()
    began = time.monotonic()
    run = apply()
    sampler.going = False
    print(f"the first converge took {time.monotonic() - began:.0f} s")
    assert run.failed() == []
    assert not leaks(run.text, bare)
    assert sampler.samples > 100
    # The sampler sees this very process's children too; none of them carries a password.
    assert sampler.seen == set()


def test_there_is_one_of_everything(bare):
    one_of_everything()


def test_no_secret_is_in_the_job_cache_a_log_or_a_readable_file(bare):
    """Passwords belong into root's and the services' own files, and nowhere else."""
    patterns = "\n".join(unique(value) for value in bare.values())
    for host in (*MINIONS, "infra"):
        found = sh(
            host,
            "cat > /run/patterns; "
            "{ grep -rlF -f /run/patterns /var/cache/salt/master/jobs /var/log/salt "
            "/var/log/nova /var/log/placement 2>/dev/null; "
            "find /etc /var /run /tmp /home -xdev -type f -perm -o=r ! -path '/run/patterns' "
            "-exec grep -lF -f /run/patterns {} + 2>/dev/null; } || true; rm /run/patterns",
            input=patterns,
        )
        # The lab's own infra is not the formula's; its job cache and logs are looked at above.
        lines = [line for line in found.splitlines() if host != "infra" or "/salt/" in line]
        assert lines == [], host


def test_a_compute_node_holds_no_controller_secret(bare):
    pillar = on("infra", "salt", "--out=json", "cmp1", "pillar.item", "nova:passwords")
    keys = set(json.loads(pillar)["cmp1"]["nova:passwords"])
    assert not {k for k in keys if k.startswith(("database_", "keystone_admin", "metadata"))}


@pytest.mark.parametrize("host", CONTROLLERS)
def test_owners_modes_and_listening_addresses_are_the_security_guide_s(bare, host):
    stat = sh(
        host,
        "stat -c '%n %U:%G %a' /etc/nova /etc/nova/nova.conf "
        "/etc/nova/nova-api-uwsgi.ini /etc/placement/placement.conf",
    )
    assert stat.splitlines() == [
        "/etc/nova root:nova 750",
        "/etc/nova/nova.conf root:nova 640",
        "/etc/nova/nova-api-uwsgi.ini root:nova 640",
        "/etc/placement/placement.conf root:placement 640",
    ]
    listening = sh(host, "ss -Hltn | awk '{print $4}'").split()
    for port in (8774, 8775, 8778, 6080):
        (address,) = [a for a in listening if a.endswith(f":{port}")]
        assert not address.startswith(("0.0.0.0", "*", "[::]")), address


def test_the_fleet_is_the_working_tree(bare):
    """The hosts ran what stands here, not something that a cache remembered."""
    here = subprocess.run(
        ["sha256sum", "_modules/nova_manage.py"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    ).stdout.split()[0]
    there = on("ctl1", "sha256sum", "/var/cache/salt/minion/extmods/modules/nova_manage.py")
    assert there.split()[0] == here
