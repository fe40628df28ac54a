"""The lives of options: from which release until which, and under which names."""

import json

FIRST, LAST = 19, 34
# Newer names that the packages do not declare, and names that were gone before the first release.
SUCCESSORS = {
    "neutron.url": "neutron.endpoint_override",
    "placement.os_region_name": "placement.region_name",
}

# What to say of an option that has no newer name.
SERVER = "use the API server of the distribution (uwsgi or Apache)"
INSTEAD = {
    "DEFAULT.use_neutron": "Neutron is the only choice, remove it",
    "DEFAULT.firewall_driver": "Neutron filters, remove it",
    "DEFAULT.enabled_apis": SERVER,
    "DEFAULT.osapi_compute_listen": SERVER,
    "DEFAULT.osapi_compute_listen_port": SERVER,
    "DEFAULT.osapi_compute_workers": SERVER,
    "DEFAULT.metadata_listen": SERVER,
    "DEFAULT.metadata_listen_port": SERVER,
    "DEFAULT.metadata_workers": SERVER,
    "api.auth_strategy": "Keystone is the only choice, remove it",
}


def write_sources(path, chosen, files):
    """What the data was made from: the packages chosen, and the digest of each file."""
    data = {"chosen": chosen, "sha256": dict(sorted(files.items()))}
    path.write_text(json.dumps(data, indent=1) + "\n")


def write_options(path, tables):
    """``{program: {bound: {release: {option: definition}}}}``, one line for each option."""
    lines = []
    for program, bounds in tables.items():
        options = {}
        for bound, by_release in bounds.items():
            for name in sorted({name for table in by_release.values() for name in table}):
                options.setdefault(name, {})[bound] = spans(
                    {number: table[name] for number, table in by_release.items() if name in table}
                )
        rows = []
        for name, life in sorted(options.items()):
            if life.get("lower") == life.get("newest"):
                life = {"both": life["newest"]}
            rows.append(f"  {json.dumps(name)}: {json.dumps(life, separators=(',', ':'))}")
        lines.append(f" {json.dumps(program)}: {{\n" + ",\n".join(rows) + "\n }")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def spans(by_release):
    """``[[since, until, definition], …]`` of ``{release: definition}``."""
    found = []
    for number, definition in sorted(by_release.items()):
        if found and found[-1][1] == number - 1 and found[-1][2] == definition:
            found[-1][1] = number
        else:
            found.append([number, number, definition])
    return found


def at(life, bound, number):
    """The definition of an option in a release; None where that does not have it."""
    for since, until, definition in life.get(bound) or life.get("both", []):
        if since <= number <= until:
            return definition
    return None


def names(data):
    """
    What the formula has to know of names at run time, for those that not every release reads.

    ``{program: {name: {since, until, without, deprecated, now: {name: release, …}}}}``: the
    releases in which the name is an option of its own (`without` are gaps between them: a library
    got the option in an older series too), from which on it is deprecated, and the newer names,
    each with the last release that still takes the old one for it. What is left out says nothing.
    """
    return {program: _names(options) for program, options in data.items()}


def _names(options):
    found = {}
    for name, life in options.items():
        own = life.get("newest") or life.get("both")
        if own is None:  # only an old version of a library has it
            found[name] = {"until": FIRST - 1}
            continue
        entry = {"since": own[0][0], "until": own[-1][1]}
        has = {number for since, until, _ in own for number in range(since, until + 1)}
        entry["without"] = sorted(set(range(entry["since"], entry["until"])) - has)
        entry["deprecated"] = _last_run(own)
        found[name] = entry
    for name, life in options.items():
        for _, until, definition in life.get("newest") or life.get("both") or []:
            for old in definition.get("old_names", []):
                entry = found.setdefault(old, {"until": FIRST - 1})
                entry.setdefault("now", {})[name] = until
    for old, new in SUCCESSORS.items():
        if new in options:
            entry = found.setdefault(old, {"until": FIRST - 1})
            entry.setdefault("now", {}).setdefault(new, FIRST - 1)
    for name in INSTEAD.keys() & options.keys():
        found[name]["instead"] = INSTEAD[name]
    return {name: _short(entry) for name, entry in sorted(found.items()) if _short(entry)}


def _last_run(own):
    """The first release of the run of deprecated ones that ends an option's life."""
    first = None
    for since, _, definition in reversed(own):
        if not definition.get("deprecated_for_removal"):
            break
        first = since
    return first


def _short(entry):
    defaults = {"since": FIRST, "until": LAST, "without": [], "deprecated": None}
    return {key: value for key, value in entry.items() if value != defaults.get(key)}


def multi_valued(data):
    """Options that may stand in a section several times, by program."""
    return {
        program: sorted(
            name
            for name, life in options.items()
            if any(it.get("multi") for spans in life.values() for _, _, it in spans)
        )
        for program, options in data.items()
    }


def names_as_text(data):
    """The file of the names, one to a line."""
    parts = []
    for program, table in names(data).items():
        rows = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in table.items()]
        parts.append(f" {json.dumps(program)}: {{\n" + ",\n".join(rows) + "\n }")
    parts.append(f' "multi_valued": {json.dumps(multi_valued(data))}')
    return "{\n" + ",\n".join(parts) + "\n}\n"
