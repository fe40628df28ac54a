"""The formula's own modules, loaded by Salt's real loader."""

import copy
import importlib.util
import logging
from pathlib import Path

import pytest
import salt.config
import salt.loader

ROOT = Path(__file__).resolve().parents[2]

# At exit Salt flushes what it deferred into a stream that pytest has closed, and would say so.
logging.raiseExceptions = False


@pytest.fixture(params=[False, True], ids=["real", "testmode"])
def testmode(request):
    """Every test of a state runs twice: for real, and with ``test=True``."""
    return request.param


@pytest.fixture
def opts(tmp_path):
    return minion(tmp_path)


def minion(directory):
    """A masterless minion's options, with the formula's modules in its module directories."""
    options = copy.deepcopy(salt.config.DEFAULT_MINION_OPTS)
    options.update(
        id="ctl1",
        file_client="local",
        file_roots={"base": [str(ROOT)]},
        root_dir=str(directory),
        cachedir=str(directory / "cache"),
        extension_modules=str(directory / "extmods"),
        module_dirs=[str(ROOT / "_modules")],
        states_dirs=[str(ROOT / "_states")],
        grains_dirs=[str(ROOT / "_grains")],
        utils_dirs=[str(ROOT / "_utils")],
        grains={"id": "ctl1", "os_family": "Debian", "os": "Debian", "osmajorrelease": 12},
        pillar={},
        test=False,
    )
    return options


def load(options):
    """The real loaders: ``(utils, modules, states)``, sharing one ``__context__``."""
    options, context = copy.deepcopy(options), {}
    utils = salt.loader.utils(options, context=context)
    modules = salt.loader.minion_mods(options, context=context, utils=utils)
    states = salt.loader.states(options, modules, utils, None, context=context)
    states.inject_globals = {"__env__": "base", "__instance_id__": "test"}
    return utils, modules, states


@pytest.fixture
def loaders(opts):
    """The loaders of :func:`load` for the options as they are."""
    return load(opts)


def util(name):
    """One of the formula's utils as a module, for what needs no loader."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "_utils" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
