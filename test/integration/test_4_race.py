"""Two controllers that start from nothing at the same moment make one of everything."""

import pytest
from conftest import MINIONS, apply, lab, one_of_everything, sh, sql

#: In CI two rounds are a sample; test/run full makes ten.
ROUNDS = [pytest.param(n, marks=[pytest.mark.long] if n > 2 else []) for n in range(1, 11)]


@pytest.fixture(scope="module")
def prepared():
    """Hosts with the packages, and nothing in the databases or Keystone yet."""
    lab("up")
    lab("restore", "bare")
    assert apply(sls="nova.packages").failed() == []
    for host in MINIONS:
        # The hosts boot from the snapshot: what is not configured yet is not to start then.
        sh(
            host,
            "systemctl list-unit-files --state=enabled --no-legend 'nova-*' 'placement-*' "
            "| awk '{print $1}' | xargs -r systemctl --quiet disable",
        )
    lab("snapshot", "packages")


@pytest.mark.parametrize("number", ROUNDS)
def test_one_of_everything(prepared, number):
    lab("restore", "packages")
    assert "nova_api" not in sql("SHOW DATABASES").split()
    run = apply()
    assert run.failed() == []
    one_of_everything()
    again = apply()
    assert (again.failed(), again.changed()) == ([], [])
