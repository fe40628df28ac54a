"""The fleet as tests see it: commands on hosts, runs of the formula, what they changed."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAB = str(ROOT / "test" / "lab")
CONTROLLERS = ("ctl1", "ctl2")
MINIONS = (*CONTROLLERS, "lb1", "cmp1", "cmp2")
#: Where a run writes files.
DIRECTORIES = (
    "/etc/nova /etc/placement /etc/haproxy /etc/default /var/lib/nova /usr/sbin /etc/systemd/system"
)
#: Hosts, and programs that oslo.config configures there.
CONFIGURED = ((CONTROLLERS[0], "nova"), (CONTROLLERS[0], "placement"), ("cmp1", "nova"))


def pytest_collection_modifyitems(items):
    """Runs that are broken take longest and come last: what else fails is known before."""
    items.sort(key=lambda item: item.path.name == "test_faults_run.py")


def pytest_runtest_logreport(report):
    """What each test took, and at once why it failed: all of them take hours."""
    if report.when == "call" or report.failed:
        where = report.nodeid.rpartition("/")[2]
        print(f"\n{time.strftime('%T')} {where} {report.outcome} in {report.duration:.0f} s")
    if report.failed:
        print(report.longreprtext, flush=True)


def lab(*args, check=True, timeout=1800, **kwargs):
    """Run test/lab; its result."""
    done = subprocess.run(
        [LAB, *args], capture_output=True, text=True, timeout=timeout, check=False, **kwargs
    )
    if check and done.returncode:
        raise AssertionError(f"test/lab {' '.join(args)}: {done.stdout}{done.stderr}")
    return done


def on(host, *command, check=True, **kwargs):
    """Run a command on a host; its standard output."""
    return lab("exec", host, "--", *command, check=check, **kwargs).stdout


def sh(host, script, **kwargs):
    """Run a shell script on a host; its standard output."""
    return on(host, "sh", "-ec", script, **kwargs)


def sql(statement):
    """Run a statement as root of the site's MariaDB; tab-separated rows without names."""
    return on("infra", "mysql", "-N", "-B", "-e", statement)


def validate(host, program):
    """oslo.config, as the host has it, finds nothing in a configuration that it would not read."""
    libraries = ("keystonemiddleware.auth_token", "oslo.db", "oslo.log", "oslo.concurrency")
    if program == "nova":
        libraries += ("oslo.messaging",)
    namespaces = " ".join(f"--namespace {name}" for name in (f"{program}.conf", *libraries))
    sh(host, f"oslo-config-validator --input-file /etc/{program}/{program}.conf {namespaces}")


class Run:
    """What `salt TARGET state.apply nova` returned, minion by minion."""

    def __init__(self, text):
        self.text = text
        self.returns = _objects(text)

    def states(self):
        """(minion, state id, what it returned) of every state that ran."""
        for minion, ret in self.returns.items():
            assert isinstance(ret, dict), f"{minion}: {ret}"
            for tag, state in ret.items():
                yield minion, tag.split("_|-")[1], state

    def failed(self):
        return [(m, i, s["comment"]) for m, i, s in self.states() if s["result"] is False]

    def changed(self):
        """State ids with changes, predicted or made, by minion."""
        return [(m, i) for m, i, s in self.states() if s["changes"]]

    def predicted(self):
        return [(m, i) for m, i, s in self.states() if s["result"] is None]


def _objects(text):
    """salt --out=json --static prints one object; without --static one for each minion."""
    decoder, merged, position = json.JSONDecoder(), {}, text.find("{")
    while position != -1:
        found, position = decoder.raw_decode(text, position)
        merged.update(found)
        position = text.find("{", position)
    return merged


def apply(*args, target="*", sls="nova", **pillar):
    """Apply the formula from the master; every minion must answer."""
    extra = [f"pillar={json.dumps(pillar)}"] if pillar else []
    command = ["salt", "--out=json", "-t", "1500", target, "state.apply", sls, *args, *extra]
    done = lab("exec", "infra", "--", *command, check=False)
    run = Run(done.stdout)
    expected = set(MINIONS) if target == "*" else {target}
    assert set(run.returns) == expected, done.stdout[-2000:] + done.stderr[-2000:]
    return run


def one_of_everything():
    """One cell0, one cell1 with both hosts, one set of endpoints: what two controllers leave."""
    cells = sql("SELECT name, COUNT(*) FROM nova_api.cell_mappings GROUP BY name ORDER BY name")
    assert cells.split() == ["cell0", "1", "cell1", "1"]
    assert sql("SELECT host FROM nova_api.host_mappings ORDER BY host").split() == ["cmp1", "cmp2"]
    endpoints = json.loads(on("infra", "openstack", "endpoint", "list", "-f", "json"))
    ours = [(e["Service Type"], e["Interface"]) for e in endpoints]
    for service in ("compute", "placement"):
        interfaces = sorted(interface for kind, interface in ours if kind == service)
        assert interfaces == ["admin", "internal", "public"]


def nothing_is_left():
    """No lock, no process, no half of a file or package."""
    assert sql("SELECT IS_FREE_LOCK('nova:shanghai')").strip() == "1"
    files = {}
    for host in MINIONS:
        assert sh(host, "pgrep -af '[n]ova-manage|[p]lacement-manage|[n]ova-status' || true") == ""
        assert sh(host, "dpkg --audit; ls /var/lib/dpkg/updates") == ""
        find = "find {} -xdev -type f ! -path '/var/lib/nova/*/*' 2>/dev/null | sort"
        files[host] = sh(host, find.format(DIRECTORIES)).split()
        assert not [
            path
            for path in files[host]
            if "nova-formula" in os.path.basename(path)
            and not path.endswith(".d/nova-formula.conf")
        ]
        assert "/usr/sbin/policy-rc.d" not in files[host]
    for one, other in (CONTROLLERS, ("cmp1", "cmp2")):
        assert set(files[one]) ^ set(files[other]) == set()


@pytest.fixture(scope="session")
def fleet():
    """The fleet, up and converged."""
    lab("up")
    run = apply()
    assert run.failed() == []


def log_all(host):
    """Let a minion log each state that begins, for tests that follow a run."""
    sh(host, "echo 'log_level_logfile: info' > /etc/salt/minion.d/log.conf")
    on(host, "systemctl", "restart", "salt-minion")


def restore_packages():
    """Hosts with the packages, and nothing in the databases or Keystone yet."""
    lab("up")
    if "packages" not in lab("status").stdout:
        lab("restore", "bare")
        assert apply(sls="nova.packages").failed() == []
        for host in MINIONS:
            # The hosts boot from the snapshot: what is not configured yet is not to start then.
            sh(
                host,
                "systemctl list-unit-files --state=enabled --no-legend 'nova-*' 'placement-*' "
                "| awk '{print $1}' | xargs -r systemctl --quiet disable",
            )
            log_all(host)
        lab("snapshot", "packages")
    lab("restore", "packages")
