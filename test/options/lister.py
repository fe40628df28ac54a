"""
Prints as JSON the options that the packages on the path define; `extract` runs it.

It calls the packages' own ``list_opts`` (the entry points ``oslo.config.opts``), under a Python
without site packages: what those import beyond the packages themselves and oslo.config is replaced
by stand-ins, so that a release of 2019 can be asked as well as one of 2026, none of them installed.

Called as ``python -I -S lister.py '["DIRECTORY", …]' '["DISTRIBUTION", …]'``; without directories
the packages are installed, and nothing is replaced.
"""

import abc
import collections
import collections.abc
import importlib.abc
import importlib.machinery
import importlib.metadata
import inspect
import itertools
import json
import logging
import re
import sys
import types


class Anything(abc.ABCMeta):
    """A class whose attributes, results and items are classes of the same kind."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return stand_in(name)

    def __call__(cls, *args, **kwargs):
        # As a decorator it changes nothing.
        if len(args) == 1 and not kwargs and inspect.isroutine(args[0]):
            return args[0]
        return stand_in(cls.__name__)

    def __bool__(cls):
        return False

    def __iter__(cls):
        return iter(())

    def __getitem__(cls, key):
        return stand_in("item")

    def __or__(cls, other):
        return cls

    def __ror__(cls, other):
        return cls

    def __enter__(cls):
        return cls

    def __exit__(cls, *exc):
        return None


def stand_in(name):
    return Anything(name, (), {})


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """
    The first of all finders: stand-ins for every module that nobody has, but for those of `real`
    packages; of these, for a module that is no Python 3 any more (``async`` was once a name).
    """

    def __init__(self, real):
        self.real = real

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if top in self.real and not (spec and spec.has_location and not compiles(spec.origin)):
            return spec
        return spec if spec and top not in self.real else self.stand_in(name)

    def stand_in(self, name):
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__version__ = "9"  # the newest there is
        module.__getattr__ = lambda name: getattr(Anything("module", (), {}), name)
        return module

    def exec_module(self, module):
        pass


def compiles(path):
    try:
        with open(path, "rb") as stream:
            compile(stream.read(), path, "exec")
    except SyntaxError:
        return False
    return True


def revive_old_python():
    """Names that packages of 2019 import from the standard library, and Python has dropped."""
    for name in collections.abc.__all__:
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))
    if not hasattr(inspect, "getargspec"):
        inspect.getargspec = inspect.getfullargspec


def listed(distributions):
    """All options as ``(namespace, group, option)``."""
    for distribution in distributions:
        for entry in importlib.metadata.distribution(distribution).entry_points:
            if entry.group == "oslo.config.opts":
                # oslo.limit 1.5.0 gives a group's options as several lists.
                for group, *lists in entry.load()():
                    for option in itertools.chain(*lists):
                        yield entry.name, getattr(group, "name", group) or "DEFAULT", option


def auth_options():
    """What [keystone_authtoken] takes besides: the options of the plugin ``password``."""
    from keystoneauth1 import loading

    for option in loading.get_plugin_loader("password").get_options():
        yield "keystoneauth1", "keystone_authtoken", option._to_oslo_opt()


def described(option, group):
    multi = bool(option.multi)
    kind = option.type
    if multi and hasattr(kind, "item_type"):
        kind = kind.item_type
    found = {"type": described_type(kind), "multi": multi, "default": option.default is not None}
    for key in ("deprecated_for_removal", "advanced", "secret", "required"):
        if getattr(option, key, False):
            found[key] = True
    if option.deprecated_since:
        found["deprecated_since"] = str(option.deprecated_since)
    found["old_names"] = sorted(
        {
            f"{old.group or group}.{(old.name or option.dest).replace('-', '_')}"
            for old in option.deprecated_opts
        }
        - {f"{group}.{option.dest}"}
    )
    return {key: value for key, value in found.items() if value not in (None, False, [])}


TYPE_ARGUMENTS = {
    "String": {"choices": None, "ignore_case": False, "max_length": 0, "quotes": False},
    "Integer": {"choices": None, "min": None, "max": None},
    "Float": {"min": None, "max": None},
    "Port": {"choices": None, "min": 0, "max": 65535},
    "Boolean": {},
    "List": {"bounds": False},
    "Dict": {"bounds": False, "key_value_separator": ":"},
    "Range": {"min": None, "max": None},
    "IPAddress": {"version": None},
    "HostAddress": {"version": None},
    "Hostname": {},
    "HostDomain": {"version": None},
    "URI": {"schemes": None, "max_length": 0},
}


def described_type(kind):
    """An oslo.config type as ``[class, {argument: value}]``, or its name alone."""
    names = [c.__name__ for c in type(kind).__mro__ if c.__name__ in TYPE_ARGUMENTS]
    if not names:
        return "String"  # a function, such as str
    arguments = {}
    for key, default in TYPE_ARGUMENTS[names[0]].items():
        value = getattr(kind, key, default)
        if value is None and key == "version" or value == default:
            continue
        if key == "choices":
            value = list(value)
        if key == "version":
            value = {"_ipv4_address": 4}.get(getattr(value, "__name__", ""), value)
        arguments[key] = value
    if names[0] == "String" and getattr(kind, "regex", None):
        arguments["regex"] = kind.regex.pattern
    for key in ("item_type", "value_type"):
        if hasattr(kind, key) and described_type(getattr(kind, key)) != "String":
            arguments[key] = described_type(getattr(kind, key))
    return [names[0], arguments] if arguments else names[0]


def main():
    path, distributions = map(json.loads, sys.argv[1:])
    sys.path[:0] = path
    sys.dont_write_bytecode = True
    logging.basicConfig(level=logging.WARNING)  # stevedore only logs a plugin that does not load
    revive_old_python()
    own = {d.replace("-", "_").replace(".", "_").lower() for d in distributions}
    own |= {re.sub("^openstack_", "", name) for name in own} | {"oslo_config"}
    if path:  # else all is installed
        sys.meta_path.insert(0, StandIns(own))
    found = {}
    rows = list(listed(distributions))
    if "keystoneauth1" in own:
        rows += auth_options()
    for namespace, group, option in rows:
        key = f"{group}.{option.dest}"
        one = described(option, group)
        one["by"] = namespace
        found.setdefault(key, one)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
