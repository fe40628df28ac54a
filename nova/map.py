#!py
"""
The map: all data of the formula for this minion, merged and checked.

defaults → OS family → release → pillar → roles. map.jinja hands the result to SLS files and
templates; nothing else merges. It is Python, not Jinja, so that it can name every fault of the
pillar at once, and be read and tested as code.
"""

import contextlib
import fnmatch
import functools
import hashlib
import ipaddress
import json
import os
import re
from urllib.parse import quote

from salt.exceptions import CommandExecutionError
from salt.utils import dictupdate, files, yaml

ROLES = ("controller", "compute", "haproxy")
KEEP_NULLS = ("config", "placement_config", "identity", "flavors", "aggregates", "lookup")
# What a peer's key starts on a compute node.
MIGRATION = "/usr/local/lib/nova-formula/migration"
# Where libvirt and QEMU look for their certificates, and libvirt's port of TLS.
DISPLAYS = "/etc/pki/libvirt-vnc"
QEMU_PKI = "/etc/pki/qemu"
LIBVIRT_PKI = {
    "ca": "/etc/pki/CA/cacert.pem",
    "server-cert": "/etc/pki/libvirt/servercert.pem",
    "server-key": "/etc/pki/libvirt/private/serverkey.pem",
    "client-cert": "/etc/pki/libvirt/clientcert.pem",
    "client-key": "/etc/pki/libvirt/private/clientkey.pem",
}
LIBVIRT_PORT = 16514
VRRP_PASSWORD = re.compile("[A-Za-z0-9._+-]{1,8}")
# Where a repository of yum or dnf is, and none of apt.
YUM = {"baseurl", "mirrorlist", "metalink"}
# An option that there is where salt-ssh renders for a node, on the master.
SSH = "_ssh_version"


def run():
    """The map of this minion, as a dict; ``faults`` lists what is wrong with the pillar."""
    given = __pillar__.get("nova") or {}
    pillar = _without_nulls(given)
    faults = sorted(_faults_of_keys(given)) or _faults_of_shape(pillar)
    if faults:
        return {"roles": [], "faults": [_printable(fault) for fault in faults]}
    nova = _merged(pillar)
    nova.update(roles=_roles(pillar, __grains__["id"]), faults=[], warnings=[])
    _settle_second_metadata(nova)
    if not nova["roles"] and _takes_part(nova):
        nova["faults"] = [_printable(it) for it in _faults_of_authority(nova)]
        nova["certificates"] = _certificates(nova, _grants(nova))
    if nova["roles"]:
        secrets = _secrets(nova, pillar.get("passwords", {}))
        nova["faults"] = [_printable(it) for it in _faults_of_sense(nova, pillar, secrets)]
        if nova["release"]["number"] is not None:
            _use_names_of_release(nova)
        if not nova["faults"]:
            _derive(nova, secrets)
    return nova


def _without_nulls(pillar):
    """A key that a later pillar file sets to null is as if it were not there."""
    if not isinstance(pillar, dict):
        return pillar
    return {
        # There null has a meaning of its own: an option or a service that is not wanted.
        key: value if key in KEEP_NULLS else _without_nulls(value)
        for key, value in pillar.items()
        if value is not None
    }


def _load(name):
    return yaml.safe_load(_text_of(f"{name}.yaml")) or {}


@functools.cache
def _text_of(name):
    """What a file of parameters says; nothing where there is none."""
    url = f"salt://nova/parameters/{name}"
    if SSH in __opts__:
        # Its cp.get_file_str looks on the master for the copy that it has sent to the node.
        path = __salt__.fsclient.cache_file(url)
        if not path:
            return ""
        with files.fopen(path) as stream:
            return stream.read()
    # A file that is not there would be an error in the log, in each run of most systems.
    if name.startswith("os") and not __salt__["cp.hash_file"](url):
        return ""
    return __salt__["cp.get_file_str"](url)


@functools.cache
def _schema():
    return _load("schema")


@functools.cache
def _names():
    """The lives of options, by program; test/options/extract writes them."""
    return json.loads(_text_of("names.json"))


# ---- checks ------------------------------------------------------------------------------------


def _printable(fault):
    """A sentence with the names that the pillar has, of which none can pass for another line."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in fault)


def _faults_of_keys(tree, path="nova"):
    """YAML takes a bare 8774, on or null for no text; nothing after could tell what was meant."""
    if isinstance(tree, dict):
        for key in tree:
            if not isinstance(key, str):
                yield f"{path}:{key} is a key that YAML does not take for a text: put it in quotes."
    elif not isinstance(tree, list):
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _faults_of_keys(value, f"{path}:{key}")


def _faults_of_shape(pillar):
    if not pillar:
        return []
    # A pillar that was right is not judged again: all else here takes less than this import.
    right = os.path.join(__opts__["cachedir"], f"nova-formula-right-{__grains__['id']}")
    told = json.dumps([_text_of("schema.yaml"), pillar], sort_keys=True, default=repr)
    digest = hashlib.sha256(told.encode()).hexdigest()
    with contextlib.suppress(OSError), files.fopen(right) as stream:
        if stream.read() == digest:
            return []
    try:
        import jsonschema
    except ImportError:
        return [
            "jsonschema is missing in Salt's own Python: install it with "
            "`salt-pip install jsonschema`."
        ]
    # Draft 7 takes 8774.0 for an integer, which no port is written as.
    validator = jsonschema.validators.extend(
        jsonschema.Draft7Validator, type_checker=jsonschema.Draft4Validator.TYPE_CHECKER
    )(_schema())
    if isinstance(pillar, dict) and "lookup" in pillar:
        # A null there removes what the system has, of whatever kind that is.
        pillar = {**pillar, "lookup": _without_nulls(pillar["lookup"])}
    faults = sorted({f for error in validator.iter_errors(pillar) for f in _sentences(error)})
    if not faults:
        with contextlib.suppress(OSError), files.set_umask(0o077), files.fopen(right, "w") as to:
            to.write(digest)
    return faults


def _sentences(error):
    """Faults as sentences that name the key and never show a value: it may be a secret."""
    key = ":".join(["nova", *(str(part) for part in error.absolute_path)])
    if error.validator == "additionalProperties" and isinstance(error.validator_value, bool):
        known, patterns = error.schema.get("properties", {}), error.schema.get("patternProperties")
        for name in error.instance:
            if name not in known and not any(re.search(it, name) for it in patterns or ()):
                yield f"{key}:{name} is not a key of this formula: one of {', '.join(known)}."
    elif error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                yield f"{key}:{name} is missing."
    elif "propertyNames" in error.absolute_schema_path:
        yield f"{key}:{error.instance} has a name that must be {error.schema['title']}."
    else:
        title = error.schema.get("title", f"of another kind ({error.validator})")
        yield f"{key} must be {title}."


def _faults_of_sense(nova, pillar, secrets):
    faults = []
    release = nova["release"]
    if release["number"] is None:
        if release["name"]:
            faults.append(
                f"nova:release {release['name']} is not a release: one of "
                f"{', '.join(_load('releases'))}."
            )
        else:
            faults.append("nova:release is missing, and this OS has no default: name a release.")
    if not nova["packages"]:
        faults.append(
            f"The OS family {__grains__['os_family']} is not known: "
            "give nova:lookup:packages and nova:lookup:units."
        )
    if nova["placement_in_nova"] and "in_nova" not in nova and "controller" in nova["roles"]:
        faults.append(
            f"nova:placement_in_nova must be false: {__grains__.get('os')} has none for "
            f"{release['name']}; RedHat systems have one for stein, the last release with it."
        )
    passwords = pillar.get("passwords", {})
    for role in nova["roles"]:
        for name in _passwords(role):
            if name == "database_placement" and nova["placement_in_nova"]:
                continue
            if name not in passwords and f"nova:passwords:{name} is missing." not in faults:
                faults.append(f"nova:passwords:{name} is missing.")
    for name, secret in secrets.items():
        if not secret:
            faults.append(
                f"nova:passwords:{name} names no sdb secret of one line: check it, and the "
                "sdb profile in the minion's configuration."
            )
    for name, needed in _further_passwords(nova).items():
        if needed and name not in passwords:
            faults.append(f"nova:passwords:{name} is missing.")
    if "memcached_tls" in nova["keystone"] and (release["number"] or 32) < 32:
        faults.append(
            f"nova:keystone:memcached_tls must go: {release['name']} talks no TLS to memcached, "
            "2025.2 does; nova:passwords:memcached encrypts what is there in every release."
        )
    if nova["metadata"]["second"] and not (nova["metadata"]["enabled"] and "metadata_unit" in nova):
        faults.append(
            "nova:metadata:second must be false: nova:metadata:enabled is, or this OS is not known."
        )
    faults += _faults_of_keepalived(nova, secrets)
    faults += _faults_of_authority(nova)
    for key, value in (
        ("passwords:messaging", secrets.get("messaging", "")),
        ("messaging:user", nova["messaging"]["user"]),
    ):
        # Its rabbit driver (18.3.1 still) builds kombu's URL with quote(), which keeps a slash.
        if "/" in value:
            faults.append(f"nova:{key} must have no slash: oslo.messaging cannot log in with one.")
    controllers = nova["topology"].get("controller", {})
    if "haproxy" in nova["roles"] and not controllers:
        faults.append("nova:topology:controller is missing: haproxy needs the addresses behind it.")
    migration = nova["migration"]
    instances = (nova.get("config", {}).get("DEFAULT") or {}).get("instances_path")
    path = _schema()["definitions"]["path"]
    if migration["ssh"] and instances and not re.match(path["pattern"], str(instances)):
        faults.append(
            f"nova:config:DEFAULT:instances_path must be {path['title']}, for nova:migration:ssh."
        )
    if migration["live"] and not (migration["ssh"] or migration["tls"]):
        faults.append(
            "nova:migration:live needs a way: set nova:migration:ssh or nova:migration:tls to true."
        )
    if migration["tls"] and not migration["live"]:
        faults.append("nova:migration:tls is for live migration: set nova:migration:live to true.")
    if migration["tls"] and "compute" in nova["roles"] and "libvirt_tls" not in nova:
        faults.append(
            "nova:migration:tls must be false: this system's libvirt has no socket unit for TLS."
        )
    if migration["ssh"] and not nova["topology"].get("compute") and "keys" not in migration:
        faults.append(
            "nova:topology:compute is missing: nova:migration:ssh trusts the keys of the minions "
            "that it names; or give nova:migration:keys."
        )
    if not nova.get("vip") and not controllers:
        faults.append("nova:vip is missing.")
    for name, cell in nova["cells"].items():
        for what, hosts in (("database", "host"), ("messaging", "hosts")):
            own = cell.get(what, {})
            secret = passwords.get("cells", {}).get(name, {}).get(what)
            if own.get("user") and "controller" in nova["roles"]:
                if not secret:
                    faults.append(f"nova:passwords:cells:{name}:{what} is missing.")
                if not own.get(hosts):
                    faults.append(f"nova:cells:{name}:{what}:{hosts} is missing.")
        if not cell.get("messaging", {}).keys() & {"hosts", "vhost"}:
            faults.append(
                f"nova:cells:{name}:messaging must have a vhost or hosts of its own: the cells' "
                "conductors would take each other's calls."
            )
        if name == nova["cell"]:
            faults.append(f"nova:cells:{name} has the name of the first cell, nova:cell.")
    try:
        ipaddress.ip_network(nova.get("management_network", "::/0"), strict=False)
    except ValueError:
        faults.append("nova:management_network must be a network such as 10.20.0.0/24.")
    balanced = "vip" in nova["tls"]
    if pillar.get("scheme") == "http" and (balanced or "cert" in nova["tls"]):
        faults.append("nova:scheme must be https, or left out, where nova:tls has vip or cert.")
    if "cert" in nova["tls"] and not balanced and nova["haproxy"]["mode"] == "http":
        faults.append("nova:tls:vip is missing: in mode http haproxy does not let TLS through.")
    ports = nova["ports"]
    if len(set(ports.values())) < len(ports):
        faults.append("nova:ports gives one port to two services.")
    sections = [_section(port) for port in ports.values()]
    for name in nova["haproxy"]["options"].keys() - set(sections):
        faults.append(f"nova:haproxy:options:{name} is no section: one of {', '.join(sections)}.")
    databases = [*nova["database"]["names"].values()]
    databases += [_cell(nova, *item)["database"]["name"] for item in nova["cells"].items()]
    if len(set(databases)) < len(databases):
        faults.append("nova:database:names and nova:cells give one database to two.")
    users = [account["name"] for account in _accounts(nova)]
    if len(set(users)) < len(users):
        faults.append("nova:keystone:users and nova:identity:services give one user to two.")
    for service, data in nova["identity"]["services"].items():
        if data is None:
            continue
        if "type" not in data:
            faults.append(f"nova:identity:services:{service}:type is missing.")
        if isinstance(data.get("port"), str) and data["port"] not in ports:
            faults.append(
                f"nova:identity:services:{service}:port must be a number or one of "
                f"{', '.join(ports)}."
            )
        if "port" not in data and not data.get("urls"):
            faults.append(f"nova:identity:services:{service} needs a port or urls.")
    accounts = [account["password"] for account in _accounts(nova)]
    for name in passwords:
        if name.startswith("keystone_") and name not in {*_passwords("controller"), *accounts}:
            faults.append(
                f"nova:passwords:{name} is not the password of a service that has a user under "
                "nova:identity:services."
            )
    if "controller" in nova["roles"]:
        missing = [name for name in accounts if name not in passwords]
        faults += {f"nova:passwords:{name} is missing." for name in missing} - set(faults)
    faults += _faults_of_retired(nova)
    return sorted(faults) + _faults_of_filters(pillar.get("config", {}), release["number"])


def _faults_of_retired(nova):
    """What is to go and is named as in use: it would be made again at once, or not be there."""
    database, keystone = nova["database"], nova["keystone"]
    used = {
        "database": {*database["users"].values(), database["admin_user"]},
        "keystone": {*keystone["users"].values(), keystone["admin_user"]},
    }
    used["database"] |= {cell.get("database", {}).get("user") for cell in nova["cells"].values()}
    used["keystone"] |= {account["name"] for account in _accounts(nova)}
    return [
        f"nova:retired:{kind} names {name}, which the pillar uses: name the account before it."
        for kind, names in nova["retired"].items()
        for name in names
        if name in used[kind]
    ]


def _faults_of_keepalived(nova, secrets):
    conf = nova["haproxy"]["keepalived"]
    if "address" not in conf or "haproxy" not in nova["roles"]:
        return
    try:
        ipaddress.ip_interface(conf["address"])
    except ValueError:
        yield "nova:haproxy:keepalived:address must be an address with its prefix."
    if ":" in conf["address"] and conf["version"] == 2:
        yield "nova:haproxy:keepalived:version must be 3 for an IPv6 address."
    secret = secrets.get("keepalived")
    if secret and not VRRP_PASSWORD.fullmatch(secret):
        yield (
            "nova:passwords:keepalived must be of 8 letters, digits and . _ + - at most: VRRP has "
            "no room for more."
        )


def _faults_of_authority(nova):
    """What the formula's own authority cannot do."""
    if "minion" not in nova["authority"]:
        if nova["authority"]["servers"]:
            yield "nova:authority:minion is missing: name the minion that signs."
        return
    if nova["authority"]["renew"] + 1 >= nova["authority"]["days"]:
        yield "nova:authority:renew must be less than days, by two: else each run would renew."
    held = {}
    for place in _places(nova):
        path, what = place["path"], place.get("ca") or place["identity"] + "'s " + place["holds"]
        if held.setdefault(path, what) != what:
            yield f"nova:authority would make {path} of {held[path]} and of {what}: name two files."


def _further_passwords(nova):
    """Passwords that more than a role asks for, and whether this node needs them."""
    conf, roles = nova["haproxy"]["keepalived"], nova["roles"]
    return {
        "keepalived": "haproxy" in roles and "address" in conf and conf["version"] == 2,
        "metadata_second": "controller" in roles and nova["metadata"]["second"],
    }


def _passwords(role):
    """Names of the passwords that a role cannot do without; a controller needs them all."""
    known = _schema()["properties"]["passwords"]["properties"]
    return [name for name, secret in known.items() if role in secret.get("needed_by", [])]


def _faults_of_filters(config, number):
    filters = (config.get("filter_scheduler") or {}).get("enabled_filters") or []
    if isinstance(filters, str):
        filters = [name.strip() for name in filters.split(",")]
    gone = {} if number is None else _load("removed")["filters"]
    return [
        f"nova:config:filter_scheduler:enabled_filters: {name} is gone from release "
        f"{gone[name]} on; the scheduler would not start: remove it."
        for name in filters
        if name in gone and number >= gone[name]
    ]


# ---- names of options --------------------------------------------------------------------------


def _use_names_of_release(nova):
    """The pillar's options under the names that the release reads; with faults and warnings."""
    for program, key in (("nova", "config"), ("placement", "placement_config")):
        nova[key], remarks = _renamed(nova.get(key, {}), _names()[program], nova["release"])
        for kind, option, sentence in remarks:
            nova[kind].append(f"nova:{key}:{option} {sentence}")


def _renamed(table, names, release):
    """
    A table of options under the names that a release reads, without those that it does not read.

    Returns ``({section: {option: value}}, [(kind, "section:option", sentence), …])``, where the
    kind is ``faults`` or ``warnings``.
    """
    renamed, remarks = {}, []
    for section, options in table.items():
        for option, value in (options or {}).items():
            there, kind, sentence = _name_in(release, f"{section}.{option}", names)
            if sentence and value is not None:
                remarks.append((kind, f"{section}:{option}", sentence))
            if there:
                if names.get(there, {}).get("one") and isinstance(value, list) and len(value) > 1:
                    words = f"takes one value in {release['name']}."
                    remarks.append(("faults", f"{section}:{option}", words))
                place, _, name = there.rpartition(".")
                # Where the old and the new name are given, the new one holds.
                if (place, name) == (section, option) or name not in renamed.get(place, {}):
                    renamed.setdefault(place, {})[name] = value
    return renamed, remarks


def _name_in(release, name, names):
    """What a release calls an option, if it has it; the kind of a remark, and the remark."""
    number, known = release["number"], names.get(name, {})

    def has(option):
        life = names.get(option, {})
        within = life.get("since", number) <= number <= life.get("until", number)
        return within and number not in life.get("without", [])

    newer = [new for new in known.get("now", {}) if has(new)]
    taken = [new for new in newer if number <= known["now"][new]]
    words = " or ".join("[{0}] {2}".format(*new.rpartition(".")) for new in newer)
    deprecated = known.get("deprecated", number + 1) <= number
    if has(name):
        # As an option of its own it may mean more than as the old name of another section's.
        section = name.rpartition(".")[0]
        taken = [new for new in taken if deprecated or new.rpartition(".")[0] == section]
        if taken:
            return taken[0], "warnings", f"is an old name: say {words}."
        if deprecated:
            instead = f"use {words}" if words else known.get("instead", "nothing replaces it")
            return name, "warnings", f"is deprecated in {release['name']}: {instead}."
        return name, "", ""
    if taken:
        there = taken[0] if len(taken) == 1 else name
        return there, "warnings", f"is an old name: say {words}."
    if number < known.get("until", number + 1):
        older = [old for old, life in names.items() if name in life.get("now", {}) and has(old)]
        if older:
            return older[0], "", ""
        return None, "warnings", f"is not read by {release['name']} yet: left out."
    instead = f"use {words}" if words else known.get("instead", "remove it")
    return None, "faults", f"is not read by {release['name']} any more: {instead}."


# ---- merging -----------------------------------------------------------------------------------


def _merged(pillar):
    system = dictupdate.merge_recurse(
        _load(f"os_family/{__grains__['os_family']}"), _load(f"os/{__grains__.get('os')}")
    )
    releases, shipped = _load("releases"), system.pop("release", {})
    name = str(
        pillar.get("release")
        or shipped.get(__grains__.get("osrelease"))
        or shipped.get(str(__grains__.get("osmajorrelease")))
        or ""
    )
    number = releases.get(name)
    first, last = system.pop("from", {}), system.pop("until", {})
    major = __grains__.get("osmajorrelease") or 0
    layers = [v for since, v in sorted(system.pop("from_system", {}).items()) if major >= since]
    layers += [layer for since, layer in sorted(first.items()) if number and number >= since]
    layers += [layer for until, layer in sorted(last.items()) if number and number <= until]
    nova = dictupdate.merge_recurse(_load("defaults"), {"packages": {}, "units": {}})
    for layer in (system, *layers):
        nova = dictupdate.merge_recurse(nova, layer)
    in_nova = nova.get("in_nova", {}) if pillar.get("placement_in_nova") else {}
    for layer in (in_nova, pillar, pillar.get("lookup", {})):
        nova = dictupdate.merge_recurse(nova, layer)
    # Pillar values stay where pillar has them: only their names travel (nova:passwords:…).
    nova.pop("passwords", None)
    return {**_without_nulls(nova), "release": {"name": name, "number": number}}


def _settle_second_metadata(nova):
    """Where there is no second metadata API, it has no port, and its section has to go."""
    nova["sections_absent"] = []
    if not nova["metadata"]["second"]:
        port = nova["ports"].pop("metadata_second")
        if port not in nova["ports"].values():
            nova["sections_absent"] = [_section(port)]


def _section(port):
    return f"openstack_nova_port_{port}"


def _roles(pillar, minion_id):
    topology = pillar.get("topology", {})
    roles = set(pillar.get("roles", []))
    roles.update(role for role in ("controller", "haproxy") if minion_id in topology.get(role, {}))
    if any(fnmatch.fnmatchcase(minion_id, glob) for glob in topology.get("compute", [])):
        roles.add("compute")
    return [role for role in ROLES if role in roles]


def _secrets(nova, passwords):
    """The passwords that stand in this node's files, by name; "" for one that sdb does not give."""
    names = {name for role in nova["roles"] for name in _passwords(role)}
    names |= {name for name, needed in _further_passwords(nova).items() if needed}
    if "controller" in nova["roles"]:
        names.add("memcached")
    names &= passwords.keys()
    return {name: _resolved(str(passwords[name])) for name in sorted(names)}


def _resolved(secret):
    if not secret.startswith("sdb://"):
        return secret
    try:
        found = str(__salt__["sdb.get"](secret) or "")
    except CommandExecutionError:  # the driver has logged why
        return ""
    # Salt gives the URI back where the minion has no such profile.
    wrong = found == secret or not re.match(_schema()["definitions"]["secret"]["pattern"], found)
    return "" if wrong else found


# ---- what follows from the data ----------------------------------------------------------------


def _derive(nova, secrets):
    controllers = nova["topology"].get("controller", {})
    nova["my_ip"] = _my_ip(nova)
    nova["host"] = __grains__.get("nodename", __grains__["id"])
    grants = _grants(nova)
    nova["migration"] = _migration(nova)
    nova["my_netloc"] = _bracketed(nova["my_ip"]) if nova["my_ip"] else None
    nova["keepalived"] = _keepalived(nova, secrets)
    _derive_second_metadata(nova)
    known = {*nova["units"].values(), *nova.get("unwanted_units", []), nova.get("metadata_unit")}
    nova["unit_list"] = sorted(known - {None})
    for wsgi in nova["wsgi"].values():
        # From some release on the application is a module; the script goes two releases later.
        wsgi["modular"] = nova["release"]["number"] >= wsgi["module_from"]
    both = {"controller", "compute"}.issubset(nova["roles"])
    nova["topology"].setdefault("expected_computes", [nova["host"]] if both else [])
    nova["vip"] = nova.get("vip") or next(iter(controllers.values()))
    nova["database"].setdefault("host", nova["vip"])
    nova["messaging"].setdefault("port", 5671 if "tls" in nova["messaging"] else 5672)
    _derive_tls(nova)
    nova["certificates"] = _certificates(nova, grants)
    if nova["certificates"]:
        made = {place["path"] for place in nova["certificates"]["places"]}
        nova["tls_files"] = {k: path for k, path in nova["tls_files"].items() if path not in made}
    nova["keystone"].setdefault("memcached_servers", [])
    nova["workers"] = nova.get("workers") or min(__grains__.get("num_cpus", 1), 8)
    if "compute" in nova["roles"]:
        nova["virt_type"] = nova.get("virt_type") or _host()["virt_type"]
    if nova["tls"].keys() & {"vip", "cert"}:
        nova["scheme"] = "https"
    nova["server_scheme"] = "https" if "cert" in nova["tls"] else "http"
    base = {
        name: f"{nova['scheme']}://{_bracketed(nova['vip'])}:{port}"
        for name, port in nova["ports"].items()
    }
    nova["urls"] = base
    # What the verification asks the APIs for; nova_verify names the compute API's last two.
    nova["asked"] = {
        "compute": ["/servers?limit=1", "/os-services", "/os-hypervisors/detail"],
        "placement": ["/resource_providers"],
        "image": ["/v2/images?limit=1"],
    }
    services = {k: v for k, v in sorted(nova["identity"]["services"].items()) if v is not None}
    nova["accounts"] = _accounts(nova)
    nova["services"] = [
        {"name": service, "type": data["type"], "description": data.get("description")}
        for service, data in services.items()
    ]
    nova["endpoints"] = [
        {"service": service, "type": data["type"], "interface": interface, "url": url}
        for service, data in services.items()
        for interface, url in _urls(nova, data).items()
    ]
    nova["site_lock"] = {"name": nova["site"], "timeout": nova["timeouts"]["lock"]}
    nova["auth"] = {
        "auth_url": nova["keystone"]["auth_url"],
        "username": nova["keystone"]["admin_user"],
        "project_name": nova["keystone"]["admin_project"],
        "password_pillar": "nova:passwords:keystone_admin",
        **({"cacert": nova["tls"]["ca"]} if "ca" in nova["tls"] else {}),
        # Nova's account reads: a run with nothing to do needs no token of the administrator.
        "read_as": {
            "username": nova["keystone"]["users"]["nova"],
            "user_domain_name": nova["keystone"]["domain"],
            "project_name": nova["keystone"]["service_project"],
            "project_domain_name": nova["keystone"]["domain"],
            "password_pillar": "nova:passwords:keystone_nova",
        },
    }
    nova["database_admin"] = {
        "host": nova["database"]["host"],
        "port": nova["database"]["port"],
        "user": nova["database"]["admin_user"],
        "password_pillar": "nova:passwords:database_admin",
        **_ssl(nova["database"]),
    }
    nova["cells"] = {name: _cell(nova, name, cell) for name, cell in sorted(nova["cells"].items())}
    for cell in nova["cells"].values():
        cell["logins"] = _logins(nova, cell)
    nova["sections"] = _sections(nova) if "haproxy" in nova["roles"] else {}
    nova["listens"] = [
        [host.strip("[]"), int(port)]
        for lines in nova["sections"].values()
        for line in lines
        if line.startswith("bind ")
        for host, _, port in [line.split()[1].rpartition(":")]
    ]
    # A site of several systems names those of all.
    nova["repositories"] = {
        name: options
        for name, options in nova.get("repositories", {}).items()
        if YUM.isdisjoint(options) == (__grains__["os_family"] == "Debian")
    }
    nova["open_ports"] = _open_ports(nova)
    more = nova.pop("tls_packages", {})
    for role, packages in more.items() if "cert" in nova["tls"] else ():
        nova["packages"][role] = nova["packages"][role] + packages
    selinux = nova.pop("selinux", {}) if __grains__.get("selinux", {}).get("enabled") else {}
    for role, packages in selinux.get("packages", {}).items():
        nova["packages"][role] = nova["packages"][role] + packages
    nova["selinux_booleans"] = selinux.get("booleans", {}).get("haproxy", [])
    nova["placements"] = [
        f"http://{_bracketed(address)}:{nova['ports']['placement']}/"
        for address in controllers.values() or [nova["my_ip"]]
    ]
    nova["conf"] = _config(nova, secrets)


def _derive_second_metadata(nova):
    """
    How the second metadata API is served, and what is to go where it is served otherwise or not.

    ``files`` names all that it may have, ``absent`` those that go; ``stale_unit`` is stopped.
    """
    metadata, unit = nova["metadata"], nova.get("metadata_unit")
    secret = nova["files"]["metadata_second"]
    ini = nova.get("uwsgi", {}).get("metadata_second", {}).get("ini")
    site = nova.get("apache", {}).get("metadata_second", {}).get("conf")
    wanted = metadata["second"]
    units = [f"/etc/systemd/system/{unit}.service"] if unit else []
    if ini:
        units += [f"/etc/systemd/system/{unit}.service.d/nova-formula.conf", ini]
    scripts = ["/usr/local/lib/nova-formula/metadata_second.wsgi"] if site else []
    metadata.update(
        site=site,
        own_unit=unit if wanted and not site else None,
        stale_unit=None if wanted and not site else unit,
        files=[secret, *units, *scripts, *([site] if site else [])],
        absent=[secret, *units, *scripts] if not wanted else units if site else [],
    )
    reads = nova.setdefault("reads", {})
    reads["metadata_second"] = [*reads.get("metadata_second", []), secret]
    if site:
        # Once the site is empty, whoever serves the others has to read that.
        reads["api"] = [*reads.get("api", []), site]
    if wanted:
        nova["units"]["metadata_second"] = nova["units"]["metadata"] if site else unit


def _ssl(server):
    """The files of a server's TLS, as PyMySQL and an URL's query name them."""
    tls = server.get("tls", {})
    return {f"ssl_{name}": tls[name] for name in ("ca", "cert", "key") if name in tls}


def _derive_tls(nova):
    """Which files of TLS have to be on this node, and who has read them."""
    given = {
        f"{place}tls-{key}": path
        for place, tls in (
            ("database-", nova["database"].get("tls", {})),
            ("messaging-", nova["messaging"].get("tls", {})),
            ("memcached-", nova["keystone"].get("memcached_tls", {})),
            ("", {key: path for key, path in nova["tls"].items() if key != "vnc"}),
            ("vnc-", nova["tls"].get("vnc", {})),
        )
        for key, path in tls.items()
    }
    displays = given.pop("vnc-tls-directory", DISPLAYS)
    everybody, server = ("tls-ca",), ("tls-cert", "tls-key")
    readers = {}
    if {"controller", "compute"} & {*nova["roles"]}:
        readers["nova"] = (*everybody, "messaging-tls-")
    if "controller" in nova["roles"]:
        servers = ("database-tls-", "memcached-tls-")
        readers["nova"] += servers
        readers["placement"] = (*everybody, *servers, *server)
        readers.update(dict.fromkeys(("api", "metadata", "metadata_second"), server))
        readers["novncproxy"] = (*server, "vnc-tls-")
    nova["tls_files"] = {}
    for daemon, beginnings in readers.items():
        files = {name: path for name, path in given.items() if name.startswith(beginnings)}
        if files:
            nova["tls_files"].update(files)
            reads = nova.setdefault("reads", {})
            reads[daemon] = reads.get(daemon, []) + list(files.values())
    _derive_hypervisor_tls(nova, displays)
    nova["balancer_reads"] = [nova["tls"][key] for key in ("vip", "ca") if key in nova["tls"]]


def _derive_hypervisor_tls(nova, displays):
    """The same for QEMU and libvirt, who look for theirs under names of their own."""
    nova["qemu_options"], nova["libvirt_reads"] = {}, {}
    if "compute" not in nova["roles"]:
        return
    if "vnc" in nova["tls"]:
        nova["qemu_options"] = {
            "vnc_tls": 1,
            "vnc_tls_x509_verify": 1,
            "vnc_tls_x509_cert_dir": displays,
        }
        for name in ("ca-cert", "server-cert", "server-key"):
            nova["tls_files"][f"vnc-{name}"] = f"{displays}/{name}.pem"
    if "inbound" in nova["migration"]:
        # For memory and disks it would listen on all addresses.
        nova["qemu_options"]["migration_address"] = nova["migration"]["inbound"]
    if nova["migration"]["tls"]:
        nova["qemu_options"] |= {
            "migrate_tls_x509_cert_dir": QEMU_PKI,
            "migrate_tls_x509_verify": 1,
            "migrate_tls_force": 1,
        }
        for name in ("ca-cert", "server-cert", "server-key", "client-cert", "client-key"):
            nova["tls_files"][f"migration-{name}"] = f"{QEMU_PKI}/{name}.pem"
        for name, path in LIBVIRT_PKI.items():
            nova["tls_files"][f"libvirt-{name}"] = path
        drop_ins = [nova["migration"]["socket_file"], nova["migration"]["unit_file"]]
        reads = [LIBVIRT_PKI[name] for name in ("ca", "server-cert", "server-key")]
        nova["libvirt_reads"][nova["migration"]["unit"]] = drop_ins + reads
    if nova["qemu_options"]:
        qemu = nova["qemu"]
        nova["libvirt_reads"].setdefault(qemu["unit"], []).append(qemu["conf"])


def _takes_part(nova):
    """Whether the formula's own authority is this minion, or it has a server of its own."""
    given, minion = nova["authority"], __grains__["id"]
    servers = [server["minion"] for server in given["servers"].values()]
    return "minion" in given and minion in (given["minion"], *servers)


def _certificates(nova, grants):
    """What this node has to do with the formula's own authority; None where there is none."""
    given, me = nova["authority"], __grains__["id"]
    if "minion" not in given:
        return None
    places = _places(nova)
    needed = sorted({it["identity"] for it in places if "identity" in it})
    names = {me, nova.get("host"), nova.get("my_ip"), nova["migration"].get("listens", [None])[0]}
    return {
        "directory": "/var/lib/nova-formula/certificates",
        "home": "/etc/nova-authority",
        "authority": given["minion"],
        "signs": given["minion"] == me,
        "identities": {identity: sorted(names - {None}) for identity in needed},
        "authorities": sorted({it["ca"] for it in places if "ca" in it}),
        "places": places,
        "grants": grants,
        "expected": _expected(nova, grants),
        "days": given["days"],
        "renew": given["renew"],
    }


def _grants(nova):
    """Who may have a certificate, of which CA, and of what names: the node's own where None."""
    tls, topology, me = nova["tls"], nova["topology"], __grains__["id"]
    ways = {role: dict(topology.get(role, {})) for role in ("controller", "haproxy")}
    for role in ways.keys() & {*nova["roles"]}:
        ways[role].setdefault(me, nova.get("my_ip"))
    vip = nova.get("vip")
    names = {}
    if "cert" in tls:
        for minion, address in ways["controller"].items():
            names[minion] = [minion, address, None if "vip" in tls else vip]
    if "vip" in tls:
        for minion, address in ways["haproxy"].items():
            names[minion] = [vip, *names.get(minion, [minion, address])]
    grants = [
        {"identity": "server", "ca": "site", "minion": minion, "names": _distinct(its)}
        for minion, its in names.items()
    ]
    if "vnc" in tls:
        grants += [
            {"identity": "display", "ca": "displays", "minion": minion, "names": [minion]}
            for minion in ways["controller"]
        ]
    computes = [*topology.get("compute", []), *([me] if "compute" in nova["roles"] else [])]
    for identity, wanted in (("display", "vnc" in tls), ("hypervisor", nova["migration"]["tls"])):
        grants += [
            {"identity": identity, "ca": f"{identity}s", "minion": pattern}
            for pattern in (_distinct(computes) if wanted else ())
        ]
    grants += [
        {"identity": name, "ca": "site", "minion": it["minion"], "names": it["names"]}
        for name, it in sorted(nova["authority"]["servers"].items())
    ]
    return grants


def _distinct(values):
    return [value for value in dict.fromkeys(values) if value]


def _expected(nova, grants):
    """Whom the authority waits for."""
    found = {}
    for grant in grants:
        if "names" in grant:
            found.setdefault(grant["identity"], []).append(grant["minion"])
    for identity in {grant["identity"] for grant in grants if "names" not in grant}:
        found.setdefault(identity, []).extend(nova["topology"].get("expected_computes", []))
    return found


def _places(nova):
    """The files of this node that the authority's certificates and the node's keys go to."""
    tls, roles, places = nova["tls"], nova["roles"], []
    group = nova["users"]["nova"]

    def put(path, **what):
        if {"path": path, **what} not in places:
            places.append({"path": path, **what})

    def ca(path, name="site"):
        if path:
            put(path, holds="ca", ca=name)

    def pair(cert, key, identity, group="root", mode="0640"):
        if cert:
            put(cert, holds="cert", identity=identity)
            put(key, holds="key", identity=identity, group=group, mode=mode)

    if roles:
        ca(tls.get("ca"))
    if {"controller", "compute"} & {*roles}:
        ca(nova["messaging"].get("tls", {}).get("ca"))
    if "controller" in roles:
        ca(nova["database"].get("tls", {}).get("ca"))
        ca(nova["keystone"].get("memcached_tls", {}).get("ca"))
        pair(tls.get("cert"), tls.get("key"), "server", group)
        if "vnc" in tls:
            ca(tls["vnc"]["ca"], "displays")
            pair(tls["vnc"]["cert"], tls["vnc"]["key"], "display", group)
    if "haproxy" in roles and "vip" in tls:
        put(tls["vip"], holds="both", identity="server", mode="0600")
    if "compute" in roles:
        group = nova["qemu"]["group"]
        if "vnc" in tls:
            displays = tls["vnc"].get("directory", DISPLAYS)
            ca(f"{displays}/ca-cert.pem", "displays")
            pair(f"{displays}/server-cert.pem", f"{displays}/server-key.pem", "display", group)
        if nova["migration"]["tls"]:
            ca(f"{QEMU_PKI}/ca-cert.pem", "hypervisors")
            ca(LIBVIRT_PKI["ca"], "hypervisors")
            for end in ("server", "client"):
                cert, key = LIBVIRT_PKI[f"{end}-cert"], LIBVIRT_PKI[f"{end}-key"]
                pair(cert, key, "hypervisor", mode="0600")
                cert, key = f"{QEMU_PKI}/{end}-cert.pem", f"{QEMU_PKI}/{end}-key.pem"
                pair(cert, key, "hypervisor", group)
    for name, it in sorted(nova["authority"]["servers"].items()):
        if it["minion"] == __grains__["id"]:
            ca(it["ca"])
            pair(it["cert"], it["key"], name, it.get("group", "root"))
    return places


def _accounts(nova):
    """Users that the formula makes: Nova's, Placement's, and those of further services."""
    keystone, number = nova["keystone"], nova["release"]["number"] or 0
    users = {service: {"name": keystone["users"][service]} for service in ("nova", "placement")}
    for service, data in sorted(nova["identity"]["services"].items()):
        if data and "user" in data:
            users[service] = {"name": service, **data["user"], **users.get(service, {})}

    def roles(service):
        # What a further service asks of others is not known here.
        administrator = number <= nova["administrators"].get(service, number)
        return keystone.get("roles") or ["admin"] * administrator + ["service"]

    return [
        {"roles": roles(service), **user, "service": service, "password": f"keystone_{service}"}
        for service, user in users.items()
    ]


def _cell(nova, name, given):
    """A further cell as its states take it; ``make``: whether its database is on our server."""
    cell = {"disabled": given.get("disabled", False)}
    for what in ("database", "messaging"):
        cell[what] = dict(given.get(what, {}))
        if "user" in cell[what]:
            cell[what]["password_pillar"] = f"nova:passwords:cells:{name}:{what}"
    if "user" in cell["database"] and "ssl_ca" not in cell["database"]:
        # Without an account of its own its URL follows nova.conf's, TLS and all.
        cell["database"].update(_ssl(nova["database"]))
    if "hosts" in cell["messaging"] and "tls" in nova["messaging"]:
        cell["messaging"].setdefault("port", 5671)
    cell["database"].setdefault("name", f"nova_{name}")
    cell["make"] = "host" not in cell["database"]
    return cell


def _logins(nova, cell):
    """The accounts with which a further cell is used, where database.sls does not make them."""
    database, messaging, site = cell["database"], cell["messaging"], nova["messaging"]
    ours = {
        "database": {
            "user": nova["database"]["users"]["nova"],
            "password_pillar": "nova:passwords:database_nova",
            **_ssl(nova["database"]),
        },
        "messaging": {
            "user": site["user"],
            "password_pillar": "nova:passwords:messaging",
            "vhost": site["vhost"],
        },
    }
    if "hosts" not in messaging:
        ours["messaging"].update(hosts=site["hosts"], port=site["port"])
    return {
        "database": {**ours["database"], **database} if "host" in database else None,
        "messaging": {**ours["messaging"], **messaging},
    }


def _urls(nova, data):
    if "port" not in data:
        return data["urls"]
    port = nova["ports"].get(data["port"], data["port"])
    url = f"{nova['scheme']}://{_bracketed(nova['vip'])}:{port}{data.get('path', '')}"
    return {"public": url, "internal": url, "admin": url, **data.get("urls", {})}


def _bracketed(host):
    return f"[{host}]" if ":" in host else host


def _my_ip(nova):
    """This node's own address: pillar, topology, the management network, or the host's name."""
    minion_id = __grains__["id"]
    if nova.get("my_ip"):
        return nova["my_ip"]
    for role in ("controller", "haproxy"):
        if minion_id in nova["topology"].get(role, {}):
            return nova["topology"][role][minion_id]
    addresses = __grains__.get("ipv4", []) + __grains__.get("ipv6", [])
    if nova.get("management_network"):
        network = ipaddress.ip_network(nova["management_network"], strict=False)
        for address in addresses:
            if ipaddress.ip_address(address) in network:
                return address
        nova["faults"].append(
            f"nova:management_network {network} holds no address of this minion: "
            "correct it, or give nova:my_ip."
        )
        return None
    for address in __grains__.get("fqdn_ip4", []) + addresses:
        if not ipaddress.ip_address(address).is_loopback:
            return address
    nova["faults"].append("nova:my_ip is missing, and this minion has no address but loopback.")
    return None


def _migration(nova):
    """What migration needs on a compute node; its packages and units join the node's."""
    migration, ssh, tls = nova["migration"], nova.get("ssh", {}), nova.get("libvirt_tls", {})
    found = {"ssh": False, "live": False, "tls": False}
    if "compute" not in nova["roles"]:
        return found
    options = nova["config"].get("DEFAULT") or {}
    address = (nova["config"].get("libvirt") or {}).get("live_migration_inbound_addr")
    addresses = list(dict.fromkeys([nova["my_ip"], address or nova["my_ip"]]))
    found.update(live=migration["live"], tls=migration["tls"])
    if migration["live"] and _is_address(addresses[-1]):
        found["inbound"] = addresses[-1]
    if migration["tls"]:
        nova["units"]["migration"] = tls["socket"]
        found.update(
            unit=tls["unit"],
            unit_file=f"/etc/systemd/system/{tls['unit']}.service.d/nova-formula.conf",
            socket_file=f"/etc/systemd/system/{tls['socket']}.d/nova-formula.conf",
            listens=[addresses[-1], LIBVIRT_PORT],
            netloc=f"{_bracketed(str(addresses[-1]))}:{LIBVIRT_PORT}",
        )
    if not migration["ssh"]:
        return found
    nova["packages"]["compute"] = nova["packages"]["compute"] + ssh.get("packages", [])
    nova["units"]["ssh"] = ssh.get("unit", "sshd")
    instances = options.get("instances_path") or "/var/lib/nova/instances"
    key = "/var/lib/nova/.ssh/id_ed25519"
    over_ssh = migration["live"] and not migration["tls"]
    return {
        **found,
        "ssh": True,
        "key": key,
        "names": list(dict.fromkeys([options.get("host") or nova["host"], *addresses])),
        "addresses": addresses,
        "command": f"{MIGRATION} {instances}{' libvirt' * over_ssh}",
        "uri": f"qemu+ssh://{nova['users']['nova']}@%s/system?keyfile={key}&no_tty=1"
        if over_ssh
        else None,
        "minions": nova["topology"].get("compute", []),
        "keys": migration.get("keys", {}),
        "taken": {
            name: minion
            for role in ("controller", "haproxy")
            for minion, address in nova["topology"].get(role, {}).items()
            for name in (minion, address)
        },
        "shell": ssh.get("shell"),
    }


def _is_address(text):
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _keepalived(nova, secrets):
    """
    What this balancer says to the others by VRRP; None where none of them does.

    It holds a secret, so only the template of keepalived.conf uses all of it.
    """
    conf, balancers = nova["haproxy"]["keepalived"], nova["topology"].get("haproxy", {})
    package, unit = nova["packages"].pop("keepalived", []), nova["units"].pop("keepalived", None)
    if "address" not in conf or "haproxy" not in nova["roles"]:
        return None
    nova["packages"]["haproxy"] = nova["packages"]["haproxy"] + package
    nova["units"]["keepalived"] = unit
    others = [host for host in balancers if host != __grains__["id"]]
    family = "ipv6" if ":" in conf["address"] else "ipv4"
    return {
        **conf,
        "bind_elsewhere": f"net.{family}.ip_nonlocal_bind",
        # By the order of the topology; a balancer that only its role names comes last.
        "priority": 200 - [*balancers, __grains__["id"]].index(__grains__["id"]),
        "source": nova["my_ip"],
        "peers": [balancers[host] for host in others],
        "password": secrets.get("keepalived"),
    }


def _open_ports(nova):
    """Ports of this node's roles, as firewalld takes them."""
    firewall = nova["firewall"]
    if "unit" not in firewall or not firewall["enabled"]:
        return []
    served = {
        "controller": nova["ports"].values(),
        "compute": [],
        "haproxy": [port for _, port in nova["listens"]],
    }
    ports = {f"{port}/tcp" for role in nova["roles"] for port in served[role]}
    if nova["migration"]["live"]:
        ports.add("49152-49215/tcp")
    if nova["migration"]["tls"]:
        ports.add(f"{LIBVIRT_PORT}/tcp")
    return sorted(ports.union(*(firewall["ports"].get(role, []) for role in nova["roles"])))


def _host():
    """The grain nova_host; on the very first run, before grains are synced, from its source."""
    known = __grains__.get("nova_host")
    if known:
        return known
    if SSH in __opts__:
        return {"virt_type": None}  # the node finds it itself when it renders its nova.conf
    scope = {}
    path = __salt__["cp.cache_file"]("salt://_grains/nova_host.py")
    with files.fopen(path) as stream:
        exec(compile(stream.read(), path, "exec"), scope)  # noqa: S102
    return scope["nova_host"]()["nova_host"]


def _sections(nova):
    """haproxy's listen sections, by name, as lists of lines."""
    ports = dict(nova["ports"])
    if not (nova["metadata"]["enabled"] and nova["metadata"]["balanced"]):
        ports = {name: port for name, port in ports.items() if not name.startswith("metadata")}
    conf = nova["haproxy"]
    bind = conf.get("bind_address") or nova["vip"]
    tls, verified = nova["tls"], ""
    crt = f" ssl crt {tls['vip']}" if "vip" in tls else ""
    if "cert" in tls:
        # Where TLS only passes through, the checks alone are the balancer's own.
        verified = f"{'ssl' if crt else 'check-ssl'} verify required ca-file {tls['ca']}"
    sections = {}
    for port in sorted(ports.values()):
        name = _section(port)
        lines = [f"bind {_bracketed(bind)}:{port}{crt}", f"mode {conf['mode']}", "log global"]
        if conf["retries"]:
            lines += [f"retries {conf['retries']}", "option redispatch 1"]
        if conf["health"] == "http" and port != ports["novnc"]:
            lines.append("option httpchk GET /")
        lines += conf["options"].get(name, [])
        if port == ports["novnc"]:
            lines += ["timeout client 1h", "timeout server 1h", "timeout tunnel 1h"]
        for index, (host, address) in enumerate(nova["topology"]["controller"].items()):
            backup = " backup" if conf["backup"] and index else ""
            ssl = verified and f" {verified} verifyhost {host}"
            lines.append(f"server {host} {_bracketed(address)}:{port}{ssl} {conf['check']}{backup}")
        sections[name] = lines
    return sections


# ---- configuration files -----------------------------------------------------------------------


def _config(nova, passwords):
    """
    Sections of nova.conf for this node's roles, and of placement.conf.

    It holds secrets, so only the templates of configuration files use it, when they are rendered.
    Returns ``{'nova': {section: {option: [value, …]}}, 'placement': …}``, values escaped as
    oslo.config wants them, and ``'metadata_second': {variable: value}``, as systemd does.
    """
    tables, facts, release = _load("config"), _facts(nova, passwords), nova["release"]
    roles = [role for role in ("controller", "compute") if role in nova["roles"]]
    merged = {}
    for layer in (tables["common"], *(tables[role] for role in roles)):
        merged = dictupdate.merge_recurse(merged, layer)
    conf = {
        program: _filled(
            _renamed(_for_release(table, release["number"]), _names()[program], release)[0],
            overrides,
            facts,
            _names()["multi_valued"][program],
        )
        for program, table, overrides in (
            ("nova", merged, nova["config"]),
            ("placement", tables["placement"], nova["placement_config"]),
        )
    }
    return {**conf, "metadata_second": _second_environment(nova, passwords)}


def _second_environment(nova, passwords):
    """What is another option in the second metadata API, as systemd takes it from a file."""
    if not nova["metadata"]["second"]:
        return {}
    found = {
        # oslo.config's own names of options in the environment.
        "OS_NEUTRON__METADATA_PROXY_SHARED_SECRET": _escaped(passwords.get("metadata_second", ""))
    }
    if "metadata_command" in nova:
        found["OS_DEFAULT__METADATA_LISTEN_PORT"] = str(nova["ports"]["metadata_second"])
        found["OS_DEFAULT__LOG_FILE"] = "/var/log/nova/nova-api-metadata-second.log"
    return {k: v.replace("\\", "\\\\").replace('"', '\\"') for k, v in found.items()}


def _for_release(table, number):
    """The table less what is meant for other releases: ``{value: …, since: …, until: …}``."""
    chosen = {}
    for section, options in table.items():
        for option, value in options.items():
            if isinstance(value, dict):
                if not value.get("since", 0) <= number <= value.get("until", number):
                    continue
                value = value["value"]
            chosen.setdefault(section, {})[option] = value
    return chosen


def _facts(nova, passwords):
    keystone, messaging, database = nova["keystone"], nova["messaging"], nova["database"]
    apis = ["osapi_compute"] + ["metadata"] * nova["metadata"]["enabled"]
    facts = {name: passwords.get(name, "") for name in _passwords("controller")}
    # Who caches tokens is asked with them.
    cache = keystone.get("memcached_tls", {}) if "controller" in nova["roles"] else {}
    facts.update({f"keystone_user_{k}": v for k, v in keystone["users"].items()})
    facts.update({f"port_{k}": v for k, v in nova["ports"].items()})
    facts.update(
        my_ip=nova["my_ip"],
        region=nova["region"],
        workers=nova["workers"],
        virt_type=nova.get("virt_type"),
        migration_address=nova["my_ip"] if nova["migration"]["live"] else None,
        migration_uri=nova["migration"].get("uri"),
        migration_scheme="tls" if nova["migration"]["tls"] else None,
        migration_tls=nova["migration"]["tls"] or None,
        domain=keystone["domain"],
        service_project=keystone["service_project"],
        keystone_url=keystone["auth_url"],
        memcached_servers=keystone["memcached_servers"],
        memcached=passwords.get("memcached"),
        memcached_strategy="ENCRYPT" if "memcached" in passwords else None,
        memcached_tls=bool(cache) or None,
        **{f"memcached_{it}": cache.get(it) for it in ("ca", "cert", "key")},
        enabled_apis=apis,
        ssl_apis=apis if "cert" in nova["tls"] else None,
        metadata_enabled=nova["metadata"]["enabled"],
        quorum_queues=messaging["quorum_queues"] or None,
        tls_ca=nova["tls"].get("ca"),
        tls_cert=nova["tls"].get("cert"),
        tls_key=nova["tls"].get("key"),
        tls_server="cert" in nova["tls"] or None,
        vnc_schemes=["vencrypt", "none"] if "vnc" in nova["tls"] else None,
        **{f"vnc_{it}": nova["tls"].get("vnc", {}).get(it) for it in ("ca", "cert", "key")},
        link_prefix=nova["urls"]["api"] if "vip" in nova["tls"] else None,
        messaging_tls="tls" in messaging or None,
        **{f"messaging_{it}": messaging.get("tls", {}).get(it) for it in ("ca", "cert", "key")},
        novnc_url=f"{nova['urls']['novnc']}/vnc_lite.html",
        transport_url="rabbit://"
        + ",".join(
            f"{_quoted(messaging['user'])}:{_quoted(passwords.get('messaging', ''))}"
            f"@{_bracketed(host)}:{messaging['port']}"
            for host in messaging["hosts"]
        )
        + "/"
        + ("" if messaging["vhost"] == "/" else _quoted(messaging["vhost"])),
    )
    query = "".join(f"&{name}={_quoted(path)}" for name, path in _ssl(database).items())
    for name, real in database["names"].items():
        account = "placement" if name == "placement" else "nova"
        facts[f"database_url_{name}"] = (
            f"mysql+pymysql://{_quoted(database['users'][account])}:"
            f"{_quoted(passwords.get('database_' + account, ''))}"
            f"@{_bracketed(database['host'])}:{database['port']}/{real}?charset=utf8{query}"
        )
    return facts


def _quoted(text):
    return quote(str(text), safe="")


def _filled(table, overrides, facts, multi):
    sections = {}
    for section in sorted(table.keys() | overrides.keys()):
        ours, theirs = table.get(section, {}), overrides.get(section) or {}
        for option in sorted(ours.keys() | theirs.keys()):
            value = theirs[option] if option in theirs else _fill(ours[option], facts)
            if value is None:
                continue
            lines = value if isinstance(value, list) and f"{section}.{option}" in multi else [value]
            sections.setdefault(section, {})[option] = [_literal(_text(line)) for line in lines]
    return sections


def _literal(text):
    """In quotes where oslo.config would take away blanks, or quotes that are the value's own."""
    quoted = text[:1] in ('"', "'") and text[0] == text[-1]
    return f'"{text}"' if quoted or text != text.strip() else text


def _fill(value, facts):
    if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        return _escaped(facts[value[1:-1]])
    return value


def _escaped(fact):
    """What the pillar has for a fact is no reference to an option, as $ would make it."""
    if isinstance(fact, list):
        return [_escaped(item) for item in fact]
    return fact.replace("$", "$$") if isinstance(fact, str) else fact


def _text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    return str(value)
