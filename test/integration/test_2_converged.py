"""A converged fleet: a second run changes nothing, test mode predicts it, drift is repaired."""

import json

import pytest
from conftest import CONFIGURED, CONTROLLERS, apply, on, sh, sql, validate

pytestmark = pytest.mark.usefixtures("fleet")

ENDPOINT = "RegionOne compute public"


def openstack(*args):
    return json.loads(on("infra", "openstack", *args, "-f", "json") or "null")


def test_a_second_run_changes_nothing():
    run = apply()
    assert (run.failed(), run.changed(), run.predicted()) == ([], [], [])


def test_test_mode_predicts_nothing():
    run = apply("test=True")
    assert (run.failed(), run.changed(), run.predicted()) == ([], [], [])


def _endpoint_url():
    (found,) = openstack("endpoint", "list", "--service", "compute", "--interface", "public")
    return found["ID"], found["URL"]


def spoil_endpoint():
    identity, url = _endpoint_url()
    on("infra", "openstack", "endpoint", "set", "--url", "http://wrong.example.org:1/", identity)
    return lambda: _endpoint_url() == (identity, url)


def spoil_password():
    on("infra", "openstack", "user", "set", "--password", "stolen", "placement")
    return lambda: True


def spoil_role():
    on("infra", "openstack", "role", "remove", "--project", "service", "--user", "nova", "admin")
    return lambda: any(
        row["Role"] == "admin"
        for row in openstack(
            "role", "assignment", "list", "--names", "--user", "nova", "--project", "service"
        )
    )


def spoil_cell():
    before = sql("SELECT database_connection FROM nova_api.cell_mappings WHERE name = 'cell1'")
    sql(
        "UPDATE nova_api.cell_mappings SET database_connection = 'mysql+pymysql://a:b@c/d' "
        "WHERE name = 'cell1'"
    )
    return lambda: (
        before == sql("SELECT database_connection FROM nova_api.cell_mappings WHERE name = 'cell1'")
    )


def spoil_option():
    sh("ctl1", "sed -i 's/^region_name = .*/region_name = Elsewhere/' /etc/nova/nova.conf")
    return lambda: "Elsewhere" not in sh("ctl1", "cat /etc/nova/nova.conf")


def spoil_conductor():
    on("ctl2", "systemctl", "stop", "nova-conductor")
    return lambda: on("ctl2", "systemctl", "is-active", "nova-conductor").strip() == "active"


def spoil_haproxy():
    before = sh("lb1", "cat /etc/haproxy/haproxy.cfg")
    sh(
        "lb1",
        "sed -i '/openstack_nova_port_8774/,/backup/s/fall 2/fall 9/' /etc/haproxy/haproxy.cfg",
    )
    assert before != sh("lb1", "cat /etc/haproxy/haproxy.cfg")
    return lambda: before == sh("lb1", "cat /etc/haproxy/haproxy.cfg")


def spoil_host_mapping():
    sql("DELETE FROM nova_api.host_mappings WHERE host = 'cmp2'")
    return lambda: (
        sql("SELECT host FROM nova_api.host_mappings ORDER BY 1").split() == ["cmp1", "cmp2"]
    )


# What is spoiled → the states that may repair it, by a part of their id.
DRIFT = {
    "an endpoint's URL": (spoil_endpoint, ["identity-endpoint-nova-public"]),
    "a user's password": (spoil_password, ["identity-user-placement"]),
    "a role taken away": (spoil_role, ["identity-roles-of-nova"]),
    "a cell's URL": (spoil_cell, ["schema-cell1", "schema-cells-recorded", "controller-service-"]),
    "an option in nova.conf": (spoil_option, ["config-nova-conf", "controller-service-"]),
    "a stopped conductor": (spoil_conductor, ["service-started"]),
    "a haproxy section": (spoil_haproxy, ["haproxy-config-sections", "haproxy-service-running"]),
    "a missing host mapping": (spoil_host_mapping, ["discovery-hosts"]),
}


@pytest.mark.parametrize("what", DRIFT)
def test_drift_is_named_first_then_repaired_by_the_right_states(what):
    spoil, states = DRIFT[what]
    repaired = spoil()
    predicted = apply("test=True")
    assert predicted.failed() == []
    named = {state for _, state in predicted.changed()}
    assert any(states[0] in state for state in named), named
    run = apply()
    assert run.failed() == []
    assert run.changed(), "nothing was repaired"
    for _, state in run.changed():
        assert any(part in state for part in states), state
    assert {state for _, state in run.changed()} <= named
    assert repaired()
    again = apply()
    assert (again.failed(), again.changed()) == ([], [])


def test_configuration_is_owned_and_closed():
    for host in CONTROLLERS:
        stat = sh(host, "stat -c '%U:%G %a' /etc/nova/nova.conf /etc/placement/placement.conf")
        assert stat.split("\n")[:2] == ["root:nova 640", "root:placement 640"]
    conf = sh("cmp1", "cat /etc/nova/nova.conf")
    assert "api_database" not in conf and "[database]" not in conf


@pytest.mark.parametrize(("host", "program"), CONFIGURED)
def test_oslo_config_finds_no_option_that_the_program_does_not_read(host, program):
    validate(host, program)


#: A new key signs the repository.
SIGN = r"""
cd /srv/site
export GNUPGHOME=$(mktemp -d)
gpg --batch --quiet --passphrase '' --quick-generate-key site@example.org ed25519
gpg --export > key.gpg
printf 'Date: %s\nSHA256:\n %s %s Packages\n' "$(date -Ru)" \
    "$(sha256sum Packages | cut -d' ' -f1)" "$(stat -c %s Packages)" |
    gpg --batch --quiet --clearsign > InRelease
"""
#: A repository of one package.
REPOSITORY = """
apt-get -qq update && apt-get -qq --yes --no-install-recommends install gnupg > /dev/null
rm -rf /srv/site && mkdir -p /srv/site && cd /srv/site
cp /srv/repo/acl_*.deb .
for deb in *.deb; do
    dpkg-deb --field $deb | sed 's/^Package: .*/Package: site-package/'
    echo "Filename: ./$deb"
    echo "Size: $(stat -c %s $deb)"
    echo "SHA256: $(sha256sum $deb | cut -d' ' -f1)"
done > Packages
"""


def test_a_repository_of_the_pillar_is_set_up_with_its_key_checked():
    sh("cmp2", REPOSITORY + SIGN)
    site = {
        "name": "deb [signed-by=/etc/apt/keyrings/site.gpg] file:/srv/site ./",
        "file": "/etc/apt/sources.list.d/site.list",
        "key_url": "file:///srv/site/key.gpg",
        "aptkey": False,
    }
    pillar = {"repositories": {"site": site}}
    predicted = apply("test=True", target="cmp2", sls="nova.packages", nova=pillar)
    assert predicted.changed() == [("cmp2", "nova-repository-site")]
    run = apply(target="cmp2", sls="nova.packages", nova=pillar)
    assert (run.failed(), run.changed()) == ([], predicted.changed())
    assert "file:/srv/site" in on("cmp2", "apt-cache", "policy", "site-package")
    again = apply(target="cmp2", sls="nova.packages", nova=pillar)
    assert (again.failed(), again.changed()) == ([], [])
    # Whoever is not in the keyring is not believed.
    sh("cmp2", f"{SIGN} rm -rf /var/lib/apt/lists/*srv_site*")
    refused = sh("cmp2", "apt-get update 2>&1 || :")
    assert "NO_PUBKEY" in refused and "file:/srv/site ./ InRelease' is not signed" in refused
    sources = "/etc/apt/sources.list.d/site.list /etc/apt/keyrings/site.gpg"
    sh("cmp2", f"rm -r /srv/site {sources}; apt-get -qq update")


@pytest.mark.long
def test_a_further_cell_is_made_once_and_goes_when_it_is_empty():
    cells = {"cells": {"cell2": {"messaging": {"vhost": "cell2"}, "disabled": True}}}
    predicted = apply("test=True", nova=cells)
    assert predicted.failed() == []
    run = apply(nova=cells)
    assert run.failed() == []
    assert {state for _, state in run.changed()} <= {state for _, state in predicted.changed()}
    made = [state for _, state in run.changed() if "cell-cell2" in state or "nova_cell2" in state]
    assert sorted(made) == [
        "nova-controller-database-nova_cell2",
        "nova-controller-schema-cell-cell2",
        "nova-controller-schema-of-cell-cell2",
    ]
    assert sql("SELECT COUNT(*) FROM nova_cell2.services").strip() == "0"
    assert sql(
        "SELECT transport_url, disabled FROM nova_api.cell_mappings WHERE name = 'cell2'"
    ) == ("{scheme}://{username}:{password}@{hostname}:{port}/cell2?{query}\t1\n")
    again = apply(nova=cells)
    assert (again.failed(), again.changed()) == ([], [])
    remove = 'nova_cell.absent name=cell2 site_lock="{name: shanghai}"'
    sh("ctl1", f"salt-call --retcode-passthrough state.single {remove}")
    sql("DROP DATABASE nova_cell2")
    settled = apply()  # the daemons forget it
    assert settled.failed() == []
    again = apply()
    assert (again.failed(), again.changed()) == ([], [])
