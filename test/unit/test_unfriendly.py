"""
Names and texts with signs of shells, Jinja, YAML, SQL and INI files: each is refused by its key, or
arrives as it was given, in every state, file, statement and command line.
"""

import configparser
import copy
import functools
import json
import os
import pwd
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pymysql
import pytest
import salt.state
import salt.utils.json
import salt.utils.yaml
import yaml
from conftest import load, minion
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oslo_config import cfg
from salt.exceptions import CommandExecutionError
from stub import stub
from test_map import GRAINS, changed, run_map
from test_nova_haproxy import FOREIGN
from test_nova_manage import cell, program
from test_nova_manage import nova as controller  # noqa: F401
from test_reference import reference
from test_servers import grains_of, rendered

# A site with every key where a text is free to choose: there stands a word between two zz.
SITE = """
site: zzsitezz
region: zzregionzz
release: '2026.1'
roles: [controller, compute, haproxy]
topology:
  controller: {zzctlzz: zzaddresszz, other: 10.0.0.2}
  haproxy: {zzlbzz: zzlbaddresszz}
  compute: [zzglobzz]
  expected_computes: [zzcomputezz]
vip: zzvipzz
management_network: 10.0.0.0/24
my_ip: zzmyipzz
tls:
  ca: /etc/zztlscazz
  vip: /etc/zztlsvipzz
  cert: /etc/zztlscertzz
  key: /etc/zztlskeyzz
  vnc: {ca: /etc/zzvcazz, cert: /etc/zzvcertzz, key: /etc/zzvkeyzz, directory: /etc/zzvdirzz}
messaging:
  hosts: [zzmqhostzz]
  user: zzmquserzz
  vhost: zzvhostzz
  tls: {ca: /etc/zzmqcazz, cert: /etc/zzmqcertzz, key: /etc/zzmqkeyzz}
database:
  tls: {ca: /etc/zzdbcazz, cert: /etc/zzdbcertzz, key: /etc/zzdbkeyzz}
  host: zzdbhostzz
  admin_user: zzdbadminzz
  grant_hosts: [zzgrantzz]
  character_set: zzcharsetzz
  users: {nova: zzdbnovazz, placement: zzdbplacementzz}
  names: {nova: zzdbazz, nova_api: zzdbbzz, nova_cell0: zzdbczz, placement: zzdbdzz}
keystone:
  auth_url: http://keystone/zzurlzz
  memcached_servers: ['zzcachezz:11211']
  memcached_tls: {ca: /etc/zzmccazz, cert: /etc/zzmccertzz, key: /etc/zzmckeyzz}
  admin_user: zzadminzz
  admin_project: zzprojectzz
  domain: zzdomainzz
  service_project: zzserviceprojectzz
  users: {nova: zzuserazz, placement: zzuserbzz, neutron: zzuserdzz}
  roles: [zzrolezz]
identity:
  services:
    zzservicezz:
      type: zztypezz
      description: zzdescriptionzz
      port: api
      path: /zzpathzz
      urls: {public: http://a/zzpubliczz, internal: http://a/zzinternalzz, admin: http://a/zzadmzz}
      user: {name: zzuserczz, email: zzemailzz, roles: [zzuserrolezz]}
haproxy:
  config: /etc/zzhaproxyzz
  socket: /run/zzsocketzz
  bind_address: zzbindzz
  check: check zzcheckzz
  options: {openstack_nova_port_8774: [option zzoptionzz]}
  keepalived: {address: 10.20.0.40/24, interface: zzinterfacezz}
cell: zzcellazz
metadata: {second: true}
flavors:
  zzflavorzz:
    ram: 1
    vcpus: 1
    id: zzflavoridzz
    description: zzaboutzz
    extra_specs: {zzspeczz: zzvaluezz}
    projects: [zzflavorprojectzz]
    project_domain: zzflavordomainzz
aggregates:
  zzaggregatezz:
    availability_zone: zzzonezz
    hosts: [zzagghostzz]
    metadata: {zzmetazz: zzmetavaluezz}
quotas: {projects: {zzquotaprojectzz: {zzquotazz: 1}}}
cells:
  zzcellzz:
    database: {name: zzdbezz, host: zzcellhostzz, user: zzcelluserzz, ssl_ca: /etc/zzcazz}
    messaging: {hosts: [zzcellmqzz], vhost: zzcellvhostzz, user: zzcellmquserzz}
config: {zzsectionzz: {zzoptzz: zzoptvaluezz, list: [zzitemzz]}}
placement_config: {zzplacesectionzz: {zzplaceoptzz: zzplacevaluezz, list: [zzplaceitemzz]}}
migration:
  ssh: true
  keys:
    zzpeerzz:
      key: ssh-ed25519 zzpeerkeyzz
      host_keys: [ssh-ed25519 zzhostkeyzz]
      names: [zzpeernamezz]
      addresses: [zzpeeraddresszz]
repositories: {zzrepozz: {zzrepooptzz: zzrepovaluezz, list: [zzrepoitemzz]}}
passwords:
  messaging: zzpwmqzz
  keystone_nova: zzpwnovazz
  keystone_placement: zzpwplacementzz
  keystone_neutron: zzpwneutronzz
  keystone_admin: zzpwadminzz
  database_admin: zzpwdbadminzz
  database_nova: zzpwdbnovazz
  database_placement: zzpwdbplacementzz
  metadata: zzpwmetadatazz
  metadata_second: zzpwsecondzz
  memcached: zzpwcachezz
  keepalived: zzpwvzz
  keystone_zzservicezz: zzpwservicezz
  cells: {zzcellzz: {database: zzpwcelldbzz, messaging: zzpwcellmqzz}}
authority:
  minion: zzsignzz
  servers:
    zzservzz:
      minion: zzservminionzz
      names: [zzservnamezz]
      ca: /etc/zzservcazz
      cert: /etc/zzservcertzz
      key: /etc/zzservkeyzz
      group: zzservgroupzz
firewall: {zone: zzfirezonezz, ports: {controller: [1/tcp], compute: [1/tcp], haproxy: [1/tcp]}}
retired: {database: [zzolddbzz], keystone: [zzolduserzz]}
clean: {databases: [zzdbazz], computes: [zzcleanzz], identity: true, packages: true}
lookup:
  packages: {controller: [zzpackagezz, {zzversionedzz: 1zzversionzz}], compute: [nova-compute]}
  package_options: {zzargumentzz: zzpkgoptzz, list: [zzpkgitemzz]}
  units: {conductor: zzunitzz}
  unwanted_units: [zzunwantedzz]
  users: {nova: zzaccountzz}
  files: {cells: /var/zzcellszz}
  compute_conf: /etc/zzcomputeconfzz
  console_files: {/etc/zzconsolezz: zzconsoletextzz}
  wsgi: {api: {script: /usr/zzscriptzz}, metadata: {module: zzmodulezz}}
  uwsgi: {program: /usr/zzprogramzz, api: {ini: /etc/zzinizz, log: /var/zzlogzz}}
  apache: {metadata: {conf: /etc/zzconfzz, log: /var/zzapachelogzz}}
  ssh:
    packages: [zzsshpackagezz, {zzsshversionedzz: 1zzsshversionzz}]
    unit: zzsshunitzz
    shell: /zzshellzz
  reads: {api: [/etc/zzreadzz]}
"""
TOKEN = re.compile("zz[a-z]+zz")
TOKENS = sorted({*TOKEN.findall(SITE)})
FILE = re.compile("zz(tls|v|serv|mq|mc|db)(ca|cert|key|vip|dir)zz")
# Names that must differ: one of each stands for all.
UNIQUE = [
    ["zzdbazz", "zzdbbzz", "zzdbczz", "zzdbdzz", "zzdbezz"],
    ["zzuserazz", "zzuserbzz", "zzuserczz"],
    ["zzcellazz", "zzcellzz"],
    ["zzctlzz", "zzlbzz"],
    [token for token in TOKENS if FILE.match(token)],
    ["zzpackagezz", "zzversionedzz", "zzsshpackagezz", "zzsshversionedzz"],
    ["zzunitzz", "zzunwantedzz", "zzsshunitzz"],
    ["zzrolezz", "zzuserrolezz"],
]
# Names that must differ from those of all other users: a test of their own has them.
RETIRED = {"zzolddbzz", "zzolduserzz"}
#: Signs that mean something somewhere; a key takes each of these as it is, or refuses it.
LITERAL = {
    "shell": "$(id)`id`; id & id | id > x < y * ? ~ ! \\",
    "Jinja": "{{ 7 * 7 }}{% raw %}{# x #}",
    "YAML": "- a: &b *c !!python/object/apply:os.system [x] # {y: 1} | > %TAG @ ,",
    "SQL": "'; DROP DATABASE nova; -- \\' \" `; %s %(x)s /* */",
    "INI": "[api_database] = : ; # $debug %(here)s",
    "quotes": "\"[x]\nx'\"".replace("\n", ""),
    "blanks": " x\u00a0",
    "a lone quote": "'",
    "arguments": "--config-file=/x -x",
    "a path": "../../etc/passwd",
    "no text to YAML": "null",
    "a number to YAML": "1e3",
    "a sexagesimal number to YAML": "12:30:45",
    "signs that few have": "ü 漢 😀 \u202e",
}
#: What no key takes.
REFUSED = {
    "a line feed": "a\nconnection = x",
    "a line feed at the end": "a\n",
    "a carriage return": "a\r[api_database]",
    "a form feed": "a\x0c[api_database]",
    "a vertical tab": "a\x0bconnection = x",
    "a file separator": "a\x1cconnection = x",
    "a next line": "a\x85connection = x",
    "a line separator": "a\u2028connection = x",
    "a null": "a\x00b",
    "an escape": "a\x1b[2J",
    "a delete": "a\x7f",
    "half a pair": "a\ud800",
    "no character": "a\uffff",
}


def filled(text, tokens=TOKENS):
    """The pillar of the site with a text in place of tokens."""
    return replaced(yaml.safe_load(SITE), dict.fromkeys(tokens, text))


def replaced(tree, texts):
    """A tree with texts in place of tokens, in keys too."""
    if isinstance(tree, dict):
        return {replaced(key, texts): replaced(value, texts) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [replaced(value, texts) for value in tree]
    if isinstance(tree, str):
        return TOKEN.sub(lambda found: texts.get(found[0], found[0]), tree)
    return tree


def places(tree, path=()):
    """``(token, the key where it stands, whether it is a name)`` of a pillar."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        here = (*path, str(key))
        if TOKEN.search(str(key)):
            yield TOKEN.search(str(key))[0], here, True
        if isinstance(value, (dict, list)):
            yield from places(value, here)
        elif TOKEN.search(str(value)):
            yield TOKEN.search(str(value))[0], here, False


def refused(text):
    """Tokens that the map refuses the text for: each fault is of the key of one of them."""
    where = list(places(yaml.safe_load(SITE)))
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    left = {*TOKENS} - doubles(text)
    while faults := run_map(filled(text, left))["faults"]:
        texts = dict.fromkeys(left, shown)
        of = {token: set() for token in left}
        for token, path, is_name in where:
            if token in left:
                key = ":".join(["nova", *(replaced(part, texts) for part in path)])
                of[token] |= {
                    fault for fault in faults
                    if fault.startswith(f"{key} ") and is_name == (" has a name that " in fault)
                }
        by = {token for token in left if of[token]}
        assert set().union(*of.values()) == set(faults), faults
        left -= by
    return {*TOKENS} - doubles(text) - left


def doubles(text):
    """All but one of each group of names that must differ; which one, the text decides."""
    rest = {name for names in UNIQUE for name in names if name != names[len(text) % len(names)]}
    return rest | RETIRED


def canonical(tree):
    """A tree without an order, which names may change."""
    if isinstance(tree, dict):
        return {key: canonical(value) for key, value in tree.items() if key != "order"}
    if isinstance(tree, (list, tuple)):
        return sorted(map(canonical, tree), key=lambda item: json.dumps(item, sort_keys=True))
    return tree


def test_the_site_has_every_key_that_takes_a_text():
    site = yaml.safe_load(SITE)
    assert run_map(site)["faults"] == []
    assert [path for path in free(reference.SCHEMA) if not has(site, path)] == []


#: Texts that are words of the formula's own, or of a form that leaves nothing to choose.
CLOSED = ["release", "management_network", "module_from", "address"]


def free(node, path=()):
    """Paths of the schema where a text is free: * is any name or item, ? a name itself."""
    node = reference.resolved(node)
    digits = node.get("pattern", "").startswith("^[0-9]+")
    if "string" in node.get("type", []) and path[-1] not in CLOSED and not digits:
        yield path
    names = node.get("propertyNames", {})
    if names and "enum" not in names and path[-1] not in ("default", "*"):
        yield (*path, "?")
    for name, child in node.get("properties", {}).items():
        yield from free(child, (*path, name))
    for child in (node.get("additionalProperties"), node.get("items")):
        if isinstance(child, dict):
            yield from free(child, (*path, "*"))


def has(tree, path):
    if not path:
        return isinstance(tree, dict) or bool(TOKEN.search(str(tree))) or tree == "api"
    if path[0] == "?":
        return any(TOKEN.search(name) for name in tree)
    if path[0] == "*":
        below = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
        return any(has(value, path[1:]) for value in below)
    return isinstance(tree, dict) and path[0] in tree and has(tree[path[0]], path[1:])


# ---- states and files ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function: what a node of every role makes of the site with a text in place of tokens."""

    @functools.cache
    def make(text=None, system="Debian 12", release="zed"):
        options = minion(tmp_path_factory.mktemp("minion"))
        options["grains"] = {**GRAINS, **grains_of(system), "id": "ctl1", "nodename": "ctl1"}
        left = [] if text is None else sorted({*TOKENS} - refused(text) - doubles(text))
        texts = dict.fromkeys(left, text)
        site = {**replaced(yaml.safe_load(SITE), texts), "release": release}
        if release == "zed":  # it has no TLS to memcached
            del site["keystone"]["memcached_tls"]
        options["pillar"] = {"nova": site}
        _, modules, states = load(options)
        chunks = {sls: modules["state.show_low_sls"](sls) for sls in ("nova", "nova.clean")}
        assert all(isinstance(chunk, dict) for sls in chunks.values() for chunk in sls), chunks
        files = {}
        for chunk in chunks["nova"]:
            if chunk["fun"] == "managed" and "template" in chunk:
                files[chunk["__id__"]] = rendered(chunk)
        conf, lines = {}, {}
        for chunk in chunks["nova"]:
            if chunk["state"] == "nova_conf":
                path = os.path.join(options["root_dir"], chunk["__id__"])
                me = pwd.getpwuid(os.getuid()).pw_name
                ret = states["nova_conf.managed"](
                    path, chunk["source"], user=me, group=me, context=chunk["context"]
                )
                assert ret["result"] is True, ret
                if chunk.get("ini", True):
                    conf[chunk["__id__"]] = path
                else:
                    lines[chunk["__id__"]] = Path(path).read_text()
        sections = next(c["sections"] for c in chunks["nova"] if c["state"] == "nova_haproxy")
        return SimpleNamespace(
            texts=texts, chunks=chunks, files=files, conf=conf, lines=lines, sections=sections,
            modules=modules,
        )

    return make


@pytest.mark.parametrize("kind", REFUSED)
def test_no_key_takes_what_could_end_a_line(kind):
    taken = {*TOKENS} - refused(REFUSED[kind]) - doubles(REFUSED[kind])
    # The contents of a file may have lines.
    assert taken == ({"zzconsoletextzz"} if kind.startswith("a line feed") else set())


NAMES = {"zzsitezz", "zzregionzz", "zzservicezz", "zztypezz", "zzsectionzz", "zzrepozz"}
TEXTS = {"zzvhostzz", "zzdomainzz", "zzflavorzz", "zzspeczz", "zzoptvaluezz", "zzpwnovazz"}


@pytest.mark.parametrize("kind", LITERAL)
def test_a_text_arrives_in_every_state_as_it_was_given(made, kind):
    """But for the text, the states are those of a harmless site: none more, no other argument."""
    hostile, harmless = made(LITERAL[kind]), made()
    plain = kind in ("no text to YAML", "a number to YAML")
    assert hostile.texts.keys() >= (TEXTS | NAMES if plain else TEXTS)
    for sls, chunks in harmless.chunks.items():
        assert canonical(hostile.chunks[sls]) == canonical(replaced(chunks, hostile.texts))


@pytest.mark.parametrize("kind", LITERAL)
def test_a_retired_name_arrives_as_it_was_given(opts, kind):
    text = LITERAL[kind]
    opts["pillar"] = {"nova": changed(retired={"database": [text]})}
    opts["grains"].update(GRAINS)
    chunks = load(opts)[1]["state.show_low_sls"]("nova.controller.retired")
    assert [c["name"] for c in chunks if c["state"] == "nova_database"] == [text]


@pytest.mark.parametrize("kind", ["no text to YAML", "YAML"])
def test_a_text_arrives_in_apache_s_files_as_it_was_given(made, kind):
    system = ("Ubuntu 26.04", "2026.1")
    hostile, harmless = made(LITERAL[kind], *system), made(None, *system)
    assert sum("<VirtualHost" in text for text in harmless.files.values()) == 3
    assert hostile.files == replaced(harmless.files, hostile.texts)


@pytest.mark.parametrize("kind", LITERAL)
def test_a_text_arrives_in_the_servers_files_as_it_was_given(made, kind):
    hostile, harmless = made(LITERAL[kind]), made()
    assert len(harmless.files) == 9
    assert hostile.files == replaced(harmless.files, hostile.texts)
    for state, text in hostile.files.items():
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(text)
        assert parser.sections() == {
            "server": ["uwsgi"], "address": ["Service"], "unit": ["Unit", "Service", "Install"]
        }[state.rpartition("-")[2]]


@pytest.mark.parametrize("kind", LITERAL)
def test_oslo_config_reads_what_the_pillar_says(made, kind):
    hostile, harmless = made(LITERAL[kind]), made()
    assert len(harmless.conf) == 2
    for state, path in harmless.conf.items():
        found = options(hostile.conf[state])
        assert found == {
            section: {
                option: [value if TOKEN.search(value) is None else literal(value, option, hostile)
                         for value in values]
                for option, values in table.items()
            }
            for section, table in replaced(options(path), {
                token: text for token, text in hostile.texts.items()
                if token in ("zzsectionzz", "zzoptzz", "zzplacesectionzz", "zzplaceoptzz")
            }).items()
        }


@pytest.mark.parametrize("kind", LITERAL)
def test_a_text_says_nothing_else_to_keepalived(made, kind):
    hostile, harmless = made(LITERAL[kind]), made()
    state = "nova-haproxy-keepalived-conf"
    assert "zzpwvzz" in harmless.lines[state]
    assert hostile.lines[state] == replaced(harmless.lines[state], hostile.texts)


@pytest.mark.parametrize("kind", LITERAL)
def test_a_secret_is_one_variable_of_the_second_metadata_api(made, kind):
    text = made(LITERAL[kind]).lines["nova-controller-metadata-second-secret"]
    # As systemd, a shell undoes a backslash before a quote or another one within quotes.
    (variable,) = shlex.split(text, comments=True)
    name, _, value = variable.partition("=")
    assert name == "OS_NEUTRON__METADATA_PROXY_SHARED_SECRET"
    assert value.replace("$$", "$") == LITERAL[kind]


def literal(value, option, hostile):
    texts = hostile.texts
    if option in ("transport_url", "connection"):
        texts = {token: quote(text, safe="") for token, text in texts.items()}
    return replaced(value, texts)


def options(path):
    """Section → option → values, as oslo.config's own parser finds them; $$ is its $."""
    sections = {}
    cfg.ConfigParser(path, sections).parse()
    return {
        section: {
            name: [value.replace("$$", "$") for value in values] for name, values in table.items()
        }
        for section, table in sections.items()
    }


@pytest.mark.parametrize("kind", LITERAL)
def test_a_text_makes_no_other_section_of_haproxy_s(made, tmp_path, kind, monkeypatch):
    hostile, harmless = made(LITERAL[kind]), made()
    monkeypatch.setattr(salt.utils.path, "which", lambda program: program)
    listed = []
    for site in (harmless, hostile):
        path = tmp_path / "haproxy.cfg"
        path.write_bytes(FOREIGN)
        site.modules["nova_haproxy.edit"].__globals__["_check"] = lambda *_, **__: None
        site.modules["nova_haproxy.edit"](str(path), site.sections)
        assert path.read_bytes().startswith(FOREIGN)
        rows = site.modules["nova_haproxy.list_sections"](str(path))
        listed.append([(row["kind"], row["name"], row["text"].splitlines()) for row in rows])
    assert canonical(listed[1]) == canonical(replaced(listed[0], hostile.texts))


# ---- statements and command lines ----------------------------------------------------------------

LEXEME = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.|'')*')|(?P<name>`(?:[^`]|``)*`)|(?P<word>\w+)|(?P<blank>\s+)|(?P<sign>.)""",
    re.DOTALL,
)

ESCAPED = re.compile(r"\\.|''", re.DOTALL)
MEANT = {"n": "\n", "r": "\r", "0": "\0", "Z": "\x1a"}


@pytest.fixture
def statements(opts):
    """The database module, and the statements that it would send, as PyMySQL writes them."""
    opts["pillar"] = {"nova": {"passwords": {"x": "zzpasswordzz"}}}
    modules = load(opts)[1]
    connection = pymysql.connections.Connection(defer_connect=True)
    connection.server_status = 0
    sent = []

    class Cursor(pymysql.cursors.DictCursor):
        def execute(self, query, args=None):
            sent.append(self.mogrify(query, args))

        def fetchall(self):
            return []

    connection.cursorclass = Cursor
    scope = modules["nova_database.query"].__globals__
    scope["_connected"], scope["_revive"] = lambda arguments: connection, lambda conn: None
    return modules, sent


TOKENS_OF_SQL = ("zzdatabasezz", "zzuserzz", "zzhostzz", "zzpasswordzz")
AT = {"host": "h", "user": "u", "password": "p"}
ASKED = {
    "create_database": ("zzdatabasezz",),
    "alter_database": ("zzdatabasezz", "utf8mb4"),
    "drop_database": ("zzdatabasezz",),
    "get_database": ("zzdatabasezz",),
    "get_user": ("zzuserzz", "zzhostzz"),
    "create_user": ("zzuserzz", "zzhostzz", "zzpasswordzz"),
    "set_password": ("zzuserzz", "zzhostzz", "zzpasswordzz"),
    "require_ssl": ("zzuserzz", "zzhostzz"),
    "drop_user": ("zzuserzz", "zzhostzz"),
    "list_grants": ("zzuserzz", "zzhostzz"),
    "grant": ("zzuserzz", "zzhostzz", "zzdatabasezz", "SELECT"),
}


def lexemes(statement):
    """The kinds of a statement's parts, and what stands in the quotes, as the server reads it."""
    kinds, inside = [], []
    for found in LEXEME.finditer(statement):
        kind, text = found.lastgroup, found[0]
        if kind == "text":
            inside.append(ESCAPED.sub(lambda it: MEANT.get(it[0][1], it[0][1]), text[1:-1]))
        elif kind == "name":
            inside.append(text[1:-1].replace("``", "`"))
        kinds.append(kind if kind in ("text", "name", "blank") else text)
    return kinds, inside


@pytest.mark.parametrize("function", ASKED)
def test_a_text_makes_no_other_statement(statements, function):
    """By hand too, when no schema stands before: a name stays within its quotes."""
    modules, sent = statements
    modules[f"nova_database.{function}"](*ASKED[function], connection=AT)
    harmless = sent.pop()
    kinds, inside = lexemes(harmless)
    for text in (*LITERAL.values(), *REFUSED.values()):
        texts = dict.fromkeys(TOKENS_OF_SQL, text)
        modules[f"nova_database.{function}"](*replaced(ASKED[function], texts), connection=AT)
        assert lexemes(sent.pop()) == (kinds, replaced(inside, texts))


NAMED = {
    "create_cell": lambda at, text: at.call("create_cell", text),
    "update_cell": lambda at, text: at.call("update_cell", UUID, name=text),
    "delete_host": lambda at, text: at.call("delete_host", UUID, text),
}
UUID = cell()["uuid"]


@pytest.mark.parametrize("function", NAMED)
def test_a_text_makes_no_other_argument_of_nova_manage(controller, function):  # noqa: F811
    program(controller, f'printf "%s\\0" "$@" > {controller.path}/args; echo {UUID}')
    controller.query.return_value = [] if function == "create_cell" else [cell()]

    def arguments(text):
        NAMED[function](controller, text)
        return (controller.path / "args").read_text().split("\0")

    harmless = arguments("zznamezz")
    assert any("zznamezz" in argument for argument in harmless)
    for text in LITERAL.values():
        assert arguments(text) == replaced(harmless, {"zznamezz": text})


@pytest.mark.parametrize("name", [".", ".."])
def test_no_name_leads_to_another_url_of_nova_s(opts, name):
    """On its way to Nova `/flavors/1/os-extra_specs/..` would become `/flavors/1`."""
    modules = load(opts)[1]
    flavor = {"id": "1", "name": "m1", "extra_specs": {name: "x"}}
    asked = stub(
        modules, "nova_identity.request",
        side_effect=lambda service, method, path, *_, **__: {"flavors": [flavor]},
    )
    with pytest.raises(CommandExecutionError, match="can be no name"):
        modules["nova_compute.set_extra_specs"]("m1", {name: None})
    assert {call.args[1] for call in asked.call_args_list} == {"GET"}


# ---- bad pillars ---------------------------------------------------------------------------------

SERVICE = {"identity": {"services": {"x": {"type": "x", "port": 1}}}}
BAD = [  # what is changed in pillar.example, and the key that the fault has to name
    (dict(site="a b"), "site"),
    (dict(site="$(id)"), "site"),
    (dict(site="{{ 1 }}"), "site"),
    (dict(site="a" * 64), "site"),
    (dict(site="-rf"), "site"),
    (dict(site=8774), "site"),
    (dict(region="a: b"), "region"),
    (dict(region="R'; DROP TABLE x; --"), "region"),
    (dict(region=["R"]), "region"),
    (dict(cell="cell1\ncell2"), "cell"),
    (dict(cell="--name=x"), "cell"),
    (dict(vip="a;b"), "vip"),
    (dict(vip="a.example.org/x"), "vip"),
    (dict(vip="user@host"), "vip"),
    (dict(vip="12:30:45"), "vip"),
    (dict(my_ip="10.0.0.1 ssl"), "my_ip"),
    (dict(ports={"api": 8774.0}), "ports:api"),
    (dict(ports={"api": True}), "ports:api"),
    (dict(ports={"api": -1}), "ports:api"),
    (dict(workers="2; id"), "workers"),
    (dict(workers=10**9), "workers"),
    (dict(topology__controller={"c tl1": "10.0.0.1"}), "topology:controller:c tl1"),
    (dict(topology__controller={"a 1:1\nlisten x": "10.0.0.1"}), "topology:controller:a 1:1"),
    (dict(topology__controller={"ctl1": "10.0.0.1:80"}), "topology:controller:ctl1"),
    (dict(topology__controller={1: "10.0.0.1"}), "topology:controller:1"),
    (dict(topology__haproxy={True: "10.0.0.1"}), "topology:haproxy:True"),
    (dict(topology__compute="cmp*"), "topology:compute"),
    (dict(topology__compute=["cmp\x00*"]), "topology:compute:0"),
    (dict(messaging__hosts=["mq1,mq2"]), "messaging:hosts:0"),
    (dict(messaging__hosts=["mq1@evil"]), "messaging:hosts:0"),
    (dict(messaging__vhost="a\x7f"), "messaging:vhost"),
    (dict(database__host="db:3306"), "database:host"),
    (dict(database__names={"nova": "nova`; DROP"}), "database:names:nova"),
    (dict(database__names={"nova": "nova?ssl=0"}), "database:names:nova"),
    (dict(database__names={"nova": "nova_api"}), "database:names"),
    (dict(database__character_set="utf8; DROP DATABASE nova"), "database:character_set"),
    (dict(database__users={"nova": "a" * 256}), "database:users:nova"),
    (dict(database__grant_hosts="%"), "database:grant_hosts"),
    (dict(keystone__auth_url="http://admin:x@keystone/v3"), "keystone:auth_url"),
    (dict(keystone__auth_url="http://keystone/v3\n[DEFAULT]"), "keystone:auth_url"),
    (dict(keystone__auth_url="http://käystone/v3"), "keystone:auth_url"),
    (dict(keystone__auth_url="file:///etc/passwd"), "keystone:auth_url"),
    (dict(keystone__memcached_servers=["a:11211,b:11211"]), "keystone:memcached_servers:0"),
    (dict(keystone__users={"nova": "one", "placement": "one"}), "keystone:users"),
    (dict(keystone__roles=["admin", "admin"]), "keystone:roles"),
    (dict(identity={"services": {"a:\n  b": {"type": "x", "port": 1}}}), "identity:services:a"),
    (dict(identity={"services": {"a:b": {"type": "x", "port": 1}}}), "identity:services:a:b"),
    (dict(identity={"services": {"x": {"type": "x", "port": 99999}}}), "identity:services:x:port"),
    (dict(identity={"services": {"x": {"type": "x", "path": "x"}}}), "identity:services:x:path"),
    (dict(haproxy={"config": "haproxy.cfg"}), "haproxy:config"),
    (dict(haproxy={"config": "/etc/$(id)"}), "haproxy:config"),
    (dict(haproxy={"check": "check\nlisten x"}), "haproxy:check"),
    (dict(haproxy={"options": {"mysql": ["mode tcp"]}}), "haproxy:options:mysql"),
    (dict(haproxy={"options": {"openstack_nova_port_8774": ["listen x"]}}), "haproxy:options:open"),
    (dict(haproxy={"options": {"openstack_nova_port_8774": ['"listen" x']}}), "haproxy:options:op"),
    (dict(haproxy={"options": {"openstack_nova_port_8774": ["l\\isten x"]}}), "haproxy:options:op"),
    (dict(haproxy={"options": {"openstack_nova_port_8774": [".if 0"]}}), "haproxy:options:open"),
    (dict(config={"a]\n[b": {}}), "config:a]"),
    (dict(config={"DEFAULT": {"a = 1\nb": 1}}), "config:DEFAULT:a = 1"),
    (dict(config={"DEFAULT": {"a": {"b": 1}}}), "config:DEFAULT:a"),
    (dict(config={"DEFAULT": {"a": ["x\n[b]"]}}), "config:DEFAULT:a:0"),
    (dict(config={"DEFAULT": {True: 1}}), "config:DEFAULT:True"),
    (dict(placement_config={"DEFAULT": {"a": "x\x0c[b]"}}), "placement_config:DEFAULT:a"),
    (dict(flavors={"a\nb": {"ram": 1, "vcpus": 1}}), "flavors:a"),
    (dict(flavors={"a": {"ram": "1", "vcpus": 1}}), "flavors:a:ram"),
    (dict(flavors={"a": {"ram": 1, "vcpus": 1, "extra_specs": {"k": ["v"]}}}), "flavors:a:extra"),
    (dict(aggregates={"a": {"availability_zone": "a:b"}}), "aggregates:a:availability_zone"),
    (dict(quotas={"projects": {"p": {"cores\n": 1}}}), "quotas:projects:p:cores"),
    (dict(cells={"c d": {"messaging": {"vhost": "x"}}}), "cells:c d"),
    (dict(cells={"c": {"messaging": {"vhost": "x"}, "database": {"name": "nova"}}}), "database"),
    (dict(cells={"c": {"database": {"ssl_ca": "/ca&x=y"}}}), "cells:c:database:ssl_ca"),
    (dict(repositories={"r": {"onlyif": "touch /tmp/x"}}), "repositories:r:onlyif"),
    (dict(repositories={"r": {"require": [{"cmd": "x"}]}}), "repositories:r:require"),
    (dict(repositories={"r": {"baseurl": "http://a\n[evil]"}}), "repositories:r:baseurl"),
    (dict(repositories={"r": {"a: b": "c"}}), "repositories:r:a: b"),
    (dict(passwords__keystone_nova="a\rb"), "passwords:keystone_nova"),
    (dict(passwords__keystone_nova=12345), "passwords:keystone_nova"),
    (dict(passwords={"keystone_x\x1b[2J": "x"}), "passwords:keystone_x\\x1b[2J"),
    (dict(passwords={"cells": {"a/b": {}}}), "passwords:cells:a/b"),
    (dict(timeouts={"lock": float("nan")}), "timeouts:lock"),
    (dict(lookup={"units": {"api": "--force"}}), "lookup:units:api"),
    (dict(lookup={"units": {"api": "a b"}}), "lookup:units:api"),
    (dict(lookup={"packages": {"compute": ["-oDPkg::X=id"]}}), "lookup:packages:compute:0"),
    (dict(lookup={"packages": {"compute": [{"a": "1; id"}]}}), "lookup:packages:compute:0:a"),
    (dict(lookup={"package_options": {"unless": "id"}}), "lookup:package_options:unless"),
    (dict(lookup={"files": {"passwd": "/etc/passwd"}}), "lookup:files:passwd"),
    (dict(lookup={"files": {"nova_conf": "etc/nova.conf"}}), "lookup:files:nova_conf"),
    (dict(lookup={"users": {"nova": "nova:root"}}), "lookup:users:nova"),
    (dict(lookup={"wsgi": {"api": {"module": "os; import x"}}}), "lookup:wsgi:api:module"),
    (dict(lookup={"wsgi": {"api": {"script": "/usr/bin/@(exec://id)"}}}), "lookup:wsgi:api:script"),
    (dict(lookup={"uwsgi": {"program": "/bin/sh -c id;"}}), "lookup:uwsgi:program"),
    (dict(lookup={"uwsgi": {"api": {"log": "/x\nexec-asap = id"}}}), "lookup:uwsgi:api:log"),
    (dict(lookup={"apache": {"api": {"log": "|/bin/sh"}}}), "lookup:apache:api:log"),
    (dict(lookup={"console_files": {"x": "y"}}), "lookup:console_files:x"),
    (dict(lookup={"reads": {"api": ["$(id)"]}}), "lookup:reads:api:0"),
    (dict(lookup={"sections": {"x": ["y"]}}), "lookup:sections"),
]


@pytest.mark.parametrize(("changes", "key"), BAD, ids=[str(changes)[:60] for changes, _ in BAD])
def test_a_bad_pillar_is_refused_by_its_key_in_one_printable_line(changes, key):
    faults = run_map(changed(**changes))["faults"]
    assert any(f"{fault} ".startswith(f"nova:{key}") for fault in faults), faults
    assert all(fault.isprintable() for fault in faults)


def test_there_are_enough_bad_pillars():
    assert len(BAD) >= 60


@pytest.mark.parametrize("pillar", ["nova", ["a"], 1, {"a": {1: 2}}, {None: 1}, {"lookup": "x"}])
def test_what_is_no_pillar_at_all_is_a_fault_and_no_traceback(pillar):
    assert run_map(pillar)["faults"]


def test_a_bad_pillar_makes_one_state_that_fails(opts, testmode):
    opts["test"] = testmode
    opts["pillar"] = {"nova": changed(**{
        "vip": "a\x1b[2J\x85b: c", "site": "{{ x }}", "passwords": {"x\x85\n- y: z": "x"}})}
    opts["grains"].update(GRAINS)
    (chunk,) = load(opts)[1]["state.show_low_sls"]("nova")
    assert (chunk["state"], chunk["fun"]) == ("test", "fail_without_changes")
    done = load(opts)[2]["test.fail_without_changes"](chunk["name"], comment=chunk["comment"])
    assert done["result"] is False
    said = done["name" if testmode else "comment"]
    assert "nova:vip must be" in said
    assert r"x\x85\n- y: z is not a key" in said


def test_no_argument_of_a_repository_is_one_that_every_state_has():
    schema = reference.SCHEMA["definitions"]["arguments"]["propertyNames"]
    words = {*salt.state.STATE_INTERNAL_KEYWORDS, *salt.state.STATE_REQUISITE_KEYWORDS}
    words |= {*salt.state.STATE_REQUISITE_IN_KEYWORDS, "provider", "names", "pkgs"}
    assert {word for word in words if word[0] != "_"} <= {*schema["not"]["enum"]}


def test_no_line_of_a_section_begins_another_of_haproxy_s(opts):
    keyword = load(opts)[1]["nova_haproxy.edit"].__globals__["KEYWORD"].pattern
    for word in keyword.split("|"):
        pillar = changed("lb1", haproxy={"options": {"openstack_nova_port_8774": [f"{word} x"]}})
        assert run_map(pillar, "lb1")["faults"] != [], word


# ---- generated -----------------------------------------------------------------------------------

CONTROLS = "\t\n\r\0\x0b\x0c\x1b\x7f\x85\u2028\ufeff\ud800"
SIGNS = st.text(
    st.sampled_from(CONTROLS + " aZ0'\"`\\$(){}[]<>|;&#%@:=,.*?!~/-_ü😀"), min_size=1, max_size=12
)
KINDS = st.one_of(
    SIGNS, st.integers(), st.floats(), st.booleans(), st.binary(max_size=3),
    st.lists(SIGNS, max_size=2), st.dictionaries(SIGNS, SIGNS, max_size=2),
    st.dictionaries(st.integers(), st.none(), max_size=1),
)
KEYS = [path for path, _, _ in reference.known_keys()]


@settings(deadline=None, max_examples=150)
@given(path=st.sampled_from(KEYS), value=KINDS)
def test_any_value_of_any_key_is_right_or_refused_by_the_key(path, value):
    pillar = here = changed()
    for name in path[:-1]:
        here = here.setdefault("x" if name == "NAME" else name, {})
    here[path[-1]] = value
    found = run_map(copy.deepcopy(pillar))
    place = ":".join(["nova", *("x" if name == "NAME" else name for name in path[:-1])])
    assert all(fault.isprintable() for fault in found["faults"])
    if "site" not in found:
        assert found["faults"]
        assert all(fault.startswith(place) for fault in found["faults"])


@functools.cache
def harmless_map():
    return run_map(yaml.safe_load(SITE))


def option_names(conf):
    """Names of all options, or variables; their values are escaped, each kind its own way."""
    return sorted(
        (kind, name, *(sorted(value) if isinstance(value, dict) else ()))
        for kind in conf
        for name, value in conf[kind].items()
    )


@settings(deadline=None, max_examples=150)
@given(token=st.sampled_from(TOKENS), text=SIGNS)
@example(token="zzpwsecondzz", text="$")
def test_any_text_is_taken_as_it_is_or_refused_by_the_key(token, text):
    hostile = run_map(filled(text, [token]))
    if hostile["faults"]:
        return
    harmless = replaced(harmless_map(), {token: text})
    conf = [harmless.pop("conf"), hostile.pop("conf")]
    assert canonical(hostile) == canonical(harmless)
    one, other = map(option_names, conf)
    assert one == other


@settings(deadline=None, max_examples=500)
@given(SIGNS)
def test_what_the_schema_calls_a_text_is_the_same_after_jinja_and_yaml(text):
    pattern = reference.SCHEMA["definitions"]["text"]["pattern"]
    if re.search(pattern, text):
        line = f"- {{ {salt.utils.json.dumps(text)}: [{salt.utils.json.dumps(text)}] }}"
        assert salt.utils.yaml.safe_load(line) == [{text: [text]}]
        assert text.splitlines() == [text]
