"""What a run costs, all of it measured in one go on one controller of a lab of its own."""

from __future__ import annotations

import collections
import json
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

from . import cache, hosts, inventory, lab, packages, pillar, shell, trees

PARTS = ("first", "noop", "objects", "cli", "puppet")
RUNS = 5
SALT = ["salt-call", "--local", "--log-level=quiet"]
APPLY = [*SALT, "--retcode-passthrough", "state.apply", "nova"]
FILES = cache.FILES / "bench"
# What a controller's daemons read, kept from the formula's run for the bare script's.
CONFIGURATION = ("etc/nova", "etc/placement", "etc/default/nova-consoleproxy",
                 "etc/systemd/system")
# What waits for Keystone's tokens and probes stands apart, as the verification does, by the SLS.
KINDS = {"verify": "verification", "identity": "identity", "accounts": "identity"}
DAEMONS = ("api", "metadata", "conductor", "scheduler", "novncproxy")
CLOUDS = Path("root/.config/openstack/clouds.yaml")
ACCESS_LOG = "var/log/keystone/keystone.log"
SIZES = (1, 10, 100, 1000)
CELLS = (1, 10, 50)


def run(name: str, parts: list[str], puppet_runs: int) -> dict[str, Any]:
    """Measure the parts; return the figures."""
    lab.up(name, (), inventory.FOUND, trees.SALT)
    site = lab.Lab(name)
    found: dict[str, Any] = {"salt": trees.SALT}
    todo = {
        "first": lambda: first(site),
        "": lambda: _converge(site),
        "noop": lambda: noop(site),
        "objects": lambda: objects(site),
        "cli": lambda: cli(site),
        "puppet": lambda: puppet(site, puppet_runs),
    }
    try:
        for part, measured in todo.items():
            if part and part not in parts:
                continue
            try:
                found |= measured()
            except shell.LabError as error:
                # What the other parts measure is worth having all the same.
                found.setdefault("failed", {})[part or "converge"] = str(error)
                if not part:
                    break
    finally:
        lab.down(name)
    if {"puppet_noop_s", "noop_s"} <= found.keys():
        found["puppet_noop_s / noop_s"] = round(found["puppet_noop_s"] / found["noop_s"], 1)
    return found


def _converge(site: lab.Lab) -> dict[str, Any]:
    with shell.step("converge the fleet"):
        lab.refresh_pillar(site)
        hosts.call(site.place("infra"), "salt", "--timeout=1800", "*", "state.apply", "nova")
    for host in ("ctl1", "cmp1", "lb1"):
        pillar.write_local(site.place(host).root / "srv/pillar", host, site.seed)
    return {}


def measure(place: hosts.Place, runs: int, *commands: list[str],
            codes: tuple[int, ...] = (0,)) -> list[dict]:
    """Run commands in a host some times, in turn: of each its median seconds and peak memory."""
    script = (FILES / "measure.py").read_text()
    names = ", ".join(" ".join(command[-2:]) for command in commands)
    with shell.step(f"{place.name}: {names} ({runs} times)"):
        found = json.loads(hosts.call(place, "/opt/saltstack/bin/python", "-c", script, str(runs),
                                      json.dumps(commands)))
    for command, its in zip(commands, found, strict=True):
        if set(its["codes"]) - set(codes):
            said = "".join((place.root / "root" / name).read_text()[-1000:]
                           for name in ("measured", "measured.errors"))
            raise shell.LabError(f"On {place.name}, '{' '.join(command)[:60]}' ended with "
                                 f"{its['codes']}: {said}")
    return [{"s": round(statistics.median(its["seconds"]), 2), "mb": its["memory_mb"],
             "codes": its["codes"]} for its in found]


def first(site: lab.Lab) -> dict[str, Any]:
    """The first converge of a controller, and a bare script that does what cannot be saved."""
    place = site.place("ctl1")
    lab.restore(site.name, lab.BARE)
    hosts.call(site.place("infra"), "salt", "lb1", "state.apply", "nova")
    pillar.write_local(place.root / "srv/pillar", "ctl1", site.seed)
    nobody = json.dumps({"nova": {"topology": {"expected_computes": []}}})
    took = measure(place, 1, [*APPLY, "--out=json", f"pillar={nobody}"])[0]["s"]
    states = json.loads((place.root / "root/measured").read_text())["local"].values()
    longest = sorted(states, key=lambda state: -state["duration"])[:12]
    nova = _map(place)
    kept = site.directory / "floor"
    shutil.rmtree(kept, ignore_errors=True)
    for path in CONFIGURATION:
        (kept / path).parent.mkdir(parents=True, exist_ok=True)
        shell.run("cp", "--archive", place.root / path, kept / path)
    databases = _mysql(site, "SHOW DATABASES", "--skip-column-names").split()
    cells = dict(line.split("\t") for line in _mysql(
        site, "SELECT name, database_connection FROM nova_api.cell_mappings",
        "--skip-column-names").splitlines())
    ours = [name for name in databases if name.startswith(("nova", "placement"))]
    grants = "\n".join(f"CREATE DATABASE {name};" for name in ours)
    accounts = hosts.call(site.place("infra"), "sh", "-c",
                          "for u in nova placement; do mysql -NBe \"SHOW CREATE USER '$u'@'%'; "
                          "SHOW GRANTS FOR '$u'@'%'\"; done")
    lab.restore(site.name, lab.BARE)
    hosts.call(site.place("infra"), "salt", "lb1", "state.apply", "nova")
    _mysql(site, grants + "\n" + ";\n".join(accounts.strip().splitlines()))
    shell.run("cp", "--archive", kept, place.root / "root/floor")
    pillar.write_local(place.root / "srv/pillar", "ctl1", site.seed)
    _register(place)
    _render("floor.j2", place.root / "root/floor.sh", packages=nova["packages"]["controller"],
            units=nova["units"], daemons=[nova["units"][daemon] for daemon in DAEMONS],
            cells=cells, vip=nova["vip"], address=nova["my_ip"], ports=nova["ports"])
    floor = measure(place, 1, ["bash", "/root/floor.sh"])[0]["s"]
    lab.restore(site.name, lab.BARE)
    return {"first_s": took, "first_floor_s": floor, **_ratio("first_s", took, floor, "first_"),
            "first_longest_s": {state["__id__"]: round(state["duration"] / 1000, 1)
                                for state in longest}}


def noop(site: lab.Lab) -> dict[str, Any]:
    """Runs with nothing left to do, what they asked Keystone for, what they started."""
    place, keystone = site.place("ctl1"), site.place("infra")
    measure(place, 1, APPLY)
    floor, full = measure(place, RUNS, [*SALT, "test.ping"], APPLY)
    found = {"floor_s": floor["s"], "noop_s": full["s"], "floor_memory_mb": floor["mb"],
             "noop_memory_mb": full["mb"], **_ratio("noop_s", full["s"], floor["s"])}
    for host in ("cmp1", "lb1"):
        role = inventory.HOSTS[host].role
        other = site.place(host)
        measure(other, 1, APPLY)
        its_floor, its = measure(other, RUNS, [*SALT, "test.ping"], APPLY)
        found |= {f"{role}_floor_s": its_floor["s"], f"{role}_noop_s": its["s"],
                  **_ratio(f"{role}_noop_s", its["s"], its_floor["s"])}
    _install(place, "strace")
    log = keystone.root / ACCESS_LOG
    before = log.stat().st_size
    hosts.call(place, "strace", "--follow-forks", "--quiet", "--output=/root/trace",
               "--trace=execve", *APPLY)
    asked = collections.Counter(re.findall(
        r"\] ([A-Z]+ /\S*?)(?:\?\S*)? => generated", log.read_bytes()[before:].decode()))
    # Nova, Placement and Glance have it validate the token that they were shown.
    asked.pop("GET /v3/auth/tokens", None)
    trace = (place.root / "root/trace").read_text()
    started = [line for line in trace.splitlines() if " = 0" in line]
    found["keystone_requests"] = asked.total()
    found["keystone_requests_by"] = dict(sorted(asked.items()))
    for key, program in (("nova_manage_calls", "nova-manage"), ("openstack_calls", "openstack")):
        found[key] = sum(f'/{program}"' in line for line in started)
    found["processes"] = len(started)
    states = json.loads(hosts.call(place, *APPLY, "--out=json"))["local"].values()
    by_kind: dict[str, float] = {}
    for state in states:
        sls = state["__sls__"].rpartition(".")[2]
        kind = KINDS.get(sls, "other_states")
        by_kind[kind] = by_kind.get(kind, 0) + state["duration"] / 1000
    return found | {f"{kind}_s": round(seconds, 2) for kind, seconds in by_kind.items()}


def objects(site: lab.Lab) -> dict[str, Any]:
    """A check of 1, 10, 100 and 1,000 objects of a kind, none of which needs a change."""
    place = site.place("ctl1")
    nova = _map(place)
    found: dict[str, dict[str, float]] = {}
    for kind, sizes in (("endpoints", SIZES), ("users", SIZES), ("host_mappings", SIZES),
                        ("cells", CELLS)):
        for size in sizes:
            states = globals()[f"_{kind}"](site, nova, size)
            sls = place.root / "root/objects.sls"
            sls.write_text("#!json\n" + json.dumps(states))
            command = [*SALT, "--retcode-passthrough", "--out=json", "state.template",
                       "/root/objects.sls"]
            with shell.step(f"{kind}: make {size}"):
                hosts.call(place, *command)
            with shell.step(f"{kind}: check {size}"):
                checked = json.loads(hosts.call(place, *command))["local"]
            changed = [tag for tag, state in checked.items() if state["changes"]]
            if changed:
                raise shell.LabError(f"The check of {size} {kind} changed {changed[0]}.")
            found.setdefault(kind, {})[str(size)] = round(
                sum(state["duration"] for state in checked.values()) / 1000, 3)
    return {"check_s": found}


def _endpoints(site: lab.Lab, nova: dict, size: int) -> dict:
    at = {"auth": nova["auth"], "service_name": "bench", "service_type": "bench"}
    states: dict[str, Any] = {
        "service": {"nova_identity.service_present": [
            {"name": "bench"}, {"type": "bench"}, {"auth": nova["auth"]}]}}
    for number in range(size):
        region = f"bench-{number // 3}"
        arguments = {**at, "name": f"endpoint {number}", "region": region,
                     "interface": ("public", "internal", "admin")[number % 3],
                     "url": f"http://bench.example.org:{number}/"}
        if number % 3 == 0:
            states[region] = {"nova_identity.region_present": [{"auth": nova["auth"]}]}
        states[f"endpoint {number}"] = {"nova_identity.endpoint_present": [
            {key: value} for key, value in arguments.items()]}
    return states


def _users(site: lab.Lab, nova: dict, size: int) -> dict:
    return {f"bench-{number}": {"nova_identity.user_present": [{"auth": nova["auth"]}]}
            for number in range(size)}


def _host_mappings(site: lab.Lab, nova: dict, size: int) -> dict:
    _mysql(site, f"""
        USE nova;
        INSERT INTO nova.services (created_at, updated_at, host, `binary`, topic, report_count,
                                   disabled, deleted, last_seen_up, forced_down, version, uuid)
        SELECT NOW(), NOW(), CONCAT('bench-', seq), 'nova-compute', 'compute', 1, 0, 0, NOW(), 0,
               (SELECT MAX(version) FROM nova.services AS known), UUID()
        FROM seq_1_to_{size}
        WHERE CONCAT('bench-', seq) NOT IN (SELECT host FROM nova.services AS known);
        INSERT IGNORE INTO nova_api.host_mappings (created_at, cell_id, host)
        SELECT NOW(), (SELECT id FROM nova_api.cell_mappings WHERE name = 'cell1'),
               CONCAT('bench-', seq) FROM seq_1_to_{size};""")
    expected = [f"bench-{number}" for number in range(1, size + 1)]
    return {"hosts": {"nova_cell.hosts_discovered": [
        {"expected": expected}, {"site_lock": nova["site_lock"]}]}}


def _cells(site: lab.Lab, nova: dict, size: int) -> dict:
    # Discovery would ask each cell's database: the rows of hosts go first.
    _mysql(site, f"""
        USE nova_api;
        INSERT INTO nova_api.cell_mappings (created_at, uuid, name, transport_url,
                                            database_connection, disabled)
        SELECT NOW(), UUID(), CONCAT('bench-', seq), cell1.transport_url,
               cell1.database_connection, 0
        FROM seq_1_to_{size}, (SELECT * FROM nova_api.cell_mappings WHERE name = 'cell1') AS cell1
        WHERE CONCAT('bench-', seq) NOT IN (SELECT COALESCE(name, '') FROM
                                            nova_api.cell_mappings AS known);""")
    return {f"bench-{number}": {"nova_cell.present": [{"site_lock": nova["site_lock"]}]}
            for number in range(1, size + 1)}


def cli(site: lab.Lab) -> dict[str, Any]:
    """The seed's commands where there is nothing left to do."""
    place, other = site.place("ctl1"), site.place("infra")
    _install(place, "mariadb-client", "python3-openstackclient")
    shell.run("cp", "--archive", other.root / CLOUDS.parent, place.root / "etc/")
    environment = other.root / "etc/environment"
    (place.root / "etc/environment").write_bytes(environment.read_bytes())
    admin = pillar.passwords(site.seed)["database_admin"].replace("\\", "\\\\").replace('"', '\\"')
    settings = place.root / "root/.my.cnf"
    settings.touch(0o600)
    settings.write_text(f'[client]\nhost={inventory.VIP}\nuser=root\npassword="{admin}"\n')
    shutil.copy(FILES / "cli", place.root / "root/cli")
    return {"cli_s": measure(place, 1, ["/root/cli"], codes=(0, 1, 2))[0]["s"]}


def puppet(site: lab.Lab, runs: int) -> dict[str, Any]:
    """Puppet's runs with nothing left to do, after it made the host its own."""
    place, other = site.place("ctl1"), site.place("infra")
    with shell.step("install Puppet"):
        _install(place, *packages.KINDS["peer"])
    _render("puppet-nova.pp.j2", place.root / "root/puppet-nova.pp", vip_name=inventory.VIP_NAME,
            messaging_name=inventory.MESSAGING_NAME, address=inventory.HOSTS["ctl1"].address)
    hosts.call(other, "rabbitmqctl", "add_user", "bench", "bench")
    hosts.call(other, "rabbitmqctl", "set_permissions", "bench", ".*", ".*", ".*")
    _mysql(site, "CREATE USER bench IDENTIFIED BY 'bench';\n" + "\n".join(
        f"GRANT ALL ON {name}.* TO bench;" for name in ("nova", "nova_api", "nova_cell0"))
        + "\nUPDATE nova_api.cell_mappings SET name = 'default' WHERE name = 'cell1';")
    clouds = json.loads(hosts.call(other, "python3", "-c", "import json, yaml; print(json.dumps("
                        f"yaml.safe_load(open('/{CLOUDS}'))))"))
    (admin,) = clouds["clouds"].values()
    common = {"region_name": "RegionOne", "identity_api_version": 3}
    who = {key: admin["auth"][key] for key in ("auth_url", "username", "password")}
    who["user_domain_name"] = "Default"
    ours = place.root / "etc/openstack/puppet/admin-clouds.yaml"
    ours.parent.mkdir(parents=True, exist_ok=True)
    ours.write_text(json.dumps({"clouds": {
        "project": {**common, "auth": {**who, "project_name": "admin",
                                       "project_domain_name": "Default"}},
        "system": {**common, "auth": {**who, "system_scope": "all"}}}}))
    apply = ["puppet", "apply", "--detailed-exitcodes", "/root/puppet-nova.pp"]
    measure(place, 2, apply, codes=(0, 2, 4, 6))
    (found,) = measure(place, runs, apply, codes=(0, 2))
    return {"puppet_noop_s": found["s"], "puppet_codes": found["codes"]}


def _register(place: hosts.Place) -> None:
    """Make what the site has in Keystone, as a controller's first run would."""
    hosts.call(place, *SALT, "saltutil.sync_all")
    chunks = json.loads(hosts.call(place, *SALT, "--out=json", "state.show_low_sls",
                                   "nova.controller.identity"))["local"]
    states = {
        chunk["__id__"]: {f"nova_identity.{chunk['fun']}": [
            {key: value} for key, value in chunk.items()
            if not key.startswith(("__", "require"))
            and key not in ("state", "fun", "order", "site_lock")]}
        for chunk in chunks if chunk["state"] == "nova_identity"
    }
    (place.root / "root/register.sls").write_text("#!json\n" + json.dumps(states))
    hosts.call(place, *SALT, "--retcode-passthrough", "state.template", "/root/register.sls")


def _ratio(name: str, took: float, floor: float, prefix: str = "") -> dict[str, float]:
    return {f"{name} / {prefix}floor_s": round(took / floor, 2)}


def _map(place: hosts.Place) -> dict[str, Any]:
    return json.loads(hosts.call(place, *SALT, "--out=json", "slsutil.renderer",
                                 "salt://nova/map.py", "default_renderer=py"))["local"]


def _render(template: str, target: Path, **values: Any) -> None:
    import jinja2

    text = (FILES / template).read_text()
    target.write_text(jinja2.Template(text, undefined=jinja2.StrictUndefined).render(values))


def _install(place: hosts.Place, *names: str) -> None:
    install = ("apt-get -qq update && DEBIAN_FRONTEND=noninteractive "
               'apt-get -qq install --yes --no-install-recommends "$@"')
    hosts.call(place, "sh", "-c", install, "sh", *names)


def _mysql(site: lab.Lab, statements: str, *options: str) -> str:
    return shell.run(*hosts.command_in(site.place("infra"), ["mysql", "--batch", *options]),
                     stdin=statements)
