"""Fixtures of the functional tests: see controller.py."""

import pytest

pytest.register_assert_rewrite("controller")

from controller import bench, server  # noqa: E402, F401
