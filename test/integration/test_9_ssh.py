"""salt-ssh from bare hosts: without minions and without a sync, the same site."""

import json

import pytest
from conftest import MINIONS, Run, lab, on, one_of_everything, sh

pytestmark = pytest.mark.long

KEY = "/root/.ssh/salt-ssh"
#: Whose python3 has the libraries that the formula's modules import.
PATH = "/opt/saltstack/bin:$PATH"
SERVER = """
apt-get -qq update && DEBIAN_FRONTEND=noninteractive \\
    apt-get -qq --yes --no-install-recommends install openssh-server > /dev/null
mkdir -p -m 0700 /root/.ssh
"""


@pytest.fixture(scope="module")
def roster():
    """Bare hosts that an SSH key of the master's opens; their own keys are known to it."""
    lab("up")
    lab("restore", "bare")
    install = "apt-get -qq update && apt-get -qq --yes install openssh-client > /dev/null; "
    sh("infra", f"{install} mkdir -p -m 0700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f {KEY}")
    public = on("infra", "cat", f"{KEY}.pub")
    known, hosts = "", {}
    for host in MINIONS:
        sh(host, SERVER)
        lab("exec", host, "--", "sh", "-c", "cat > /root/.ssh/authorized_keys", input=public)
        address = on(host, "hostname", "-I").split()[0]
        known += f"{address} {on(host, 'cat', '/etc/ssh/ssh_host_ed25519_key.pub')}"
        hosts[host] = {"host": address, "user": "root", "priv": KEY, "set_path": PATH}
        sh(host, "systemctl disable --quiet --now salt-minion")
    lab("exec", "infra", "--", "sh", "-c", "cat > /root/.ssh/known_hosts", input=known)
    lab("exec", "infra", "--", "sh", "-c", "cat > /etc/salt/roster", input=json.dumps(hosts))


def apply(*args):
    command = ["salt-ssh", "--out=json", "--static", "*", "state.apply", "nova", *args]
    done = lab("exec", "infra", "--", *command, check=False, timeout=3600)
    run = Run(done.stdout)
    assert set(run.returns) == set(MINIONS), done.stdout[-2000:] + done.stderr[-2000:]
    return run


def test_a_site_converges_over_ssh_and_changes_nothing_again(roster):
    run = apply()
    assert run.failed() == []
    one_of_everything()
    predicted = apply("test=True")
    assert (predicted.failed(), predicted.changed()) == ([], [])
    again = apply()
    assert (again.failed(), again.changed()) == ([], [])
