"""Two controllers that start from nothing at the same moment make one of everything."""

import pytest
from conftest import apply, one_of_everything, restore_packages, sql

#: In CI two rounds are a sample; test/run full makes ten.
ROUNDS = [pytest.param(n, marks=[pytest.mark.long] if n > 2 else []) for n in range(1, 11)]


@pytest.mark.parametrize("number", ROUNDS)
def test_one_of_everything(number):
    restore_packages()
    assert "nova_api" not in sql("SHOW DATABASES").split()
    run = apply()
    assert run.failed() == []
    one_of_everything()
    again = apply()
    assert (again.failed(), again.changed()) == ([], [])
