"""One lab: its hosts together, up and down, and the states that they can be put back to."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import (
    cache,
    guest,
    hosts,
    infra,
    inventory,
    machine,
    network,
    packages,
    pillar,
    shell,
    trees,
)

STATE = Path("/var/lib/nova-formula-lab")
FIXTURES = ("infra", "lb1")  # the hosts that the formula finds with something on them
LIKE = {"lb2": "lb1"}  # those that look like one of these
# Whose eventlet does not start without a name server. Nobody answers there, at once.
NAMESERVERS = ("bullseye",)
BARE = "bare"  # the snapshot that is always there: hosts as they were made


class Lab:
    """The lab of a name; lab.json in its directory says what it is made of.

    os, salt: what it was asked for; repository, infra_repository: packages;
    bare: the layers that each known host is made on; hosts: the layers that each made host
    stands on now; snapshots: the same, by name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = STATE / name
        self.read()

    def read(self) -> None:
        file = self.directory / "lab.json"
        self.facts: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}

    def write(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        fresh = self.directory / "lab.json.new"
        fresh.write_text(json.dumps(self.facts, indent=2))
        fresh.rename(self.directory / "lab.json")

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lab while it changes; what it is made of is read under the lock."""
        with shell.lock(STATE / f"{self.name}.lock", f"a command that changes lab {self.name}"):
            self.read()
            yield

    def place(self, host: str) -> hosts.Place:
        return hosts.Place(self.name, host, self.directory / "hosts" / host)

    @property
    def places(self) -> list[hosts.Place]:
        """The hosts that have been made, whether they run or not."""
        return [self.place(host) for host in self.facts.get("hosts", {})]

    @property
    def seed(self) -> str:
        """What the passwords come from; infra was made with it."""
        return (Path(self.facts["bare"]["infra"][0]).parent / infra.SEED).read_text()

    def must_be_made(self) -> None:
        if not self.facts:
            raise shell.LabError(f"There is no lab {self.name}: `test/lab up` first.")


def up(name: str, wanted: Sequence[str], os_name: str, salt: str) -> None:
    """Bring up hosts, from the cache and whatever of it is missing; heal those that are up."""
    machine.check()
    machine.prepare()
    lab = Lab(name)
    with lab.changing():
        for key, value in (("os", os_name), ("salt", salt)):
            if lab.facts.get(key, value) != value:
                raise shell.LabError(f"Lab {name} is up with {key} {lab.facts[key]}: "
                                     f"`down` first, or give the lab another --name.")
        if not lab.facts:
            pieces = prepare_cache(os_name, salt)
            lab.facts = {
                "os": os_name, "salt": salt,
                "repository": str(pieces[os_name]["repository"]),
                "infra_repository": str(pieces[inventory.FOUND]["repository"]),
                "bare": {host: bare_layers(host, pieces[inventory.system_of(host, os_name)])
                         for host in inventory.HOSTS},
                "hosts": {}, "snapshots": {},
            }
        for host in wanted or inventory.FLEET:
            lab.facts["hosts"].setdefault(host, lab.facts["bare"][host])
        lab.write()
        refresh_pillar(lab)
        start(lab, wanted or inventory.FLEET)


def prepare_cache(os_name: str, salt: str) -> dict[str, dict[str, Path]]:
    """Return the pieces of each system; what is missing is made, side by side where it can be."""
    systems = list(dict.fromkeys((inventory.FOUND, os_name)))
    with cache.building(), ThreadPoolExecutor() as pool:
        image = pool.submit(guest.image, inventory.FOUND)
        pieces = dict(zip(systems, pool.map(lambda each: ground(each, salt), systems), strict=True))

        def layer(host: str) -> Path:
            name = inventory.system_of(host, os_name)
            below = pieces[name]
            binds = {below["repository"]: "/srv/repo", image.result(): "/srv/guest"}
            return infra.layer(name, host, [below["base"], below["system"]], binds)

        for host, made in zip(FIXTURES, pool.map(layer, FIXTURES), strict=True):
            pieces[inventory.system_of(host, os_name)][host] = made
        used = {image.result(), *(path for each in pieces.values() for path in each.values())}
        cache.prune(used.union(*map(uses, all_labs())))
        return pieces


def ground(os_name: str, salt: str) -> dict[str, Path]:
    """Return what all hosts of a system stand on."""
    system = trees.system(os_name)
    with ThreadPoolExecutor() as pool:
        repository = pool.submit(packages.repository, os_name, system)
        wheels = trees.wheels(os_name, salt, system)
        return {"system": system, "wheels": wheels,
                "base": trees.base(os_name, salt, system, wheels),
                "repository": repository.result()}


def bare_layers(host: str, pieces: dict[str, Path]) -> list[str]:
    """Return the layers of a freshly made host, topmost first, of its system's pieces."""
    fixture = LIKE.get(host, host)
    own = [pieces[fixture] / "layer"] if fixture in FIXTURES else []
    return [str(path) for path in (*own, pieces["base"], pieces["system"])]


def start(lab: Lab, names: Sequence[str]) -> None:
    """Start those hosts that do not run, and wait until they serve."""
    new = [lab.place(name) for name in names if hosts.leader(lab.place(name)) is None]
    if new:
        with shell.step(f"boot {', '.join(place.name for place in new)}"):
            hosts.kill(new)  # what a bad end left of them
            network.up(lab.name)
            for place in new:
                hosts.mount(place, [Path(layer) for layer in lab.facts["hosts"][place.name]])
                if not place.made.exists():
                    salt = "salt-master" if place.name == "infra" else "salt-minion"
                    hosts.personalize(place, f"{salt}.service")
                    if inventory.system_of(place.name, lab.facts["os"]) in NAMESERVERS:
                        (place.root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
                hosts.boot(place, _binds(lab, place.name))
            for place in new:
                hosts.wait_booted(place)
    healthy(lab, {place.name for place in new})


def healthy(lab: Lab, new: set[str]) -> None:
    """Wait until the minions answer, and until what the formula finds in place serves.

    new: the hosts that were just booted.
    """
    running = {place.name for place in lab.places if hosts.leader(place)}
    if "infra" not in running:
        return
    place = lab.place("infra")
    minions = running - {"infra"}
    if minions:
        with shell.step("wait for Salt"):
            shell.wait_until(lambda: minions <= _answering(place),
                             f"Salt's minions on {', '.join(sorted(minions))}", 600)
    with shell.step("wait for the services of infra"):
        hosts.call(place, "lab-ready", "infra")
        if "lb1" in running:
            if new & {"infra", "lb1"}:
                # HAProxy saw them down while they started, and takes 15 s to believe otherwise.
                hosts.call(lab.place("lb1"), "systemctl", "reload-or-restart", "haproxy")
            hosts.call(place, "lab-ready", inventory.VIP)


def _answering(place: hosts.Place) -> set[str]:
    try:
        return set(json.loads(hosts.call(place, "salt", "--out=json", "--static", "--hide-timeout",
                                         "--timeout=2", "*", "test.ping")))
    except (shell.LabError, ValueError):
        return set()  # the master is not there yet


def _binds(lab: Lab, name: str) -> dict[Path, str]:
    repository = lab.facts["infra_repository" if name == "infra" else "repository"]
    binds = {Path(repository): "/srv/repo", pillar.REPOSITORY: "/srv/formula"}
    if name == "infra":
        binds[lab.directory / "pillar"] = "/srv/pillar"
    return binds


def refresh_pillar(lab: Lab) -> None:
    """Write the master's pillar, and all passwords in one file, for tests to search for."""
    pair = set(pillar.PAIR) <= lab.facts["hosts"].keys()
    pillar.write(lab.directory / "pillar", lab.seed, lab.facts["os"], pair)
    known = lab.directory / "secrets.json"
    known.touch(0o600)
    known.write_text(json.dumps(pillar.passwords(lab.seed), indent=2))


def off(name: str, host: str) -> None:
    """Take a host's power away, as its peers see it: it falls silent, and closes nothing."""
    lab = Lab(name)
    with lab.changing():
        network.unplug(name, host)
        hosts.kill([lab.place(host)])


def down(name: str, wanted: Sequence[str] = ()) -> None:
    """Stop a lab and remove all of it but the cache; also what is left of one that died.

    wanted: the hosts to remove; all, if none is named.
    """
    lab = Lab(name)
    with lab.changing(), shell.step(f"take down {', '.join(wanted) or 'lab ' + name}"):
        if wanted:
            hosts.kill([lab.place(host) for host in wanted])
            for host in wanted:
                del lab.facts["hosts"][host]
                shell.remove_tree(lab.place(host).directory)
                hosts.succeeds(lab.place("infra"), "salt-key", "--yes", f"--delete={host}")
            lab.write()
            refresh_pillar(lab)
            return
        hosts.kill([lab.place(host) for host in inventory.HOSTS])
        network.down(name)
        shell.remove_tree(lab.directory)
        (STATE / f"{name}.lock").unlink(missing_ok=True)


def snapshot(name: str, label: str) -> None:
    """Keep the hosts' trees under a label, while they stand still for a moment.

    The copies become layers, so a restore copies nothing.
    """
    if label == BARE:
        raise shell.LabError(f"The snapshot '{BARE}' is there by itself; take another name.")
    lab = Lab(name)
    with lab.changing(), shell.step(f"copy the hosts' trees to snapshot {label}"):
        lab.must_be_made()
        layers = lab.directory / "layers"
        layers.mkdir(exist_ok=True)
        number = max((int(path.name) for path in layers.iterdir()), default=0) + 1
        kept = {host: [str(layers / str(number) / host), *stack]
                for host, stack in lab.facts["hosts"].items()}
        (layers / str(number)).mkdir()
        with (hosts.frozen([place for place in lab.places if hosts.leader(place)]),
              ThreadPoolExecutor() as pool):
            list(pool.map(lambda place: shell.run("cp", "--archive", "--reflink=auto", place.upper,
                                                  kept[place.name][0]), lab.places))
        lab.facts["snapshots"][label] = kept
        lab.write()
        _drop_unused_layers(lab)


def restore(name: str, label: str) -> None:
    """Put the hosts back to a snapshot and boot them."""
    lab = Lab(name)
    with lab.changing():
        lab.must_be_made()
        if label == BARE:
            kept = {host: lab.facts["bare"][host] for host in lab.facts["hosts"]}
        elif label in lab.facts["snapshots"]:
            kept = lab.facts["snapshots"][label]
        else:
            known = ", ".join((BARE, *lab.facts["snapshots"]))
            raise shell.LabError(f"Lab {name} has no snapshot '{label}'; it has: {known}.")
        with shell.step("stop the hosts"):
            hosts.kill(lab.places)
            for place in lab.places:
                shutil.rmtree(place.directory)
        lab.facts["hosts"] = kept
        lab.write()
        for place in lab.places if label != BARE else ():
            place.directory.mkdir(parents=True)
            place.made.touch()
        _drop_unused_layers(lab)
        refresh_pillar(lab)
        start(lab, list(kept))


def _drop_unused_layers(lab: Lab) -> None:
    """Remove the layers of snapshots whose name was taken by a newer one."""
    stacks = [lab.facts["hosts"], *lab.facts["snapshots"].values()]
    used = {Path(layer).parent for stack in stacks for layers in stack.values() for layer in layers}
    for path in (lab.directory / "layers").glob("*"):
        if path not in used:
            shutil.rmtree(path)


def status(name: str) -> int:
    """Show the hosts of a lab; the exit code is 1 if one of them does not run."""
    lab = Lab(name)
    if not lab.facts:
        print(f"Lab {name} is down.")
        return 1
    print(f"Lab {name}: {lab.facts['os']}, Salt {lab.facts['salt']}; "
          f"snapshots: {', '.join((BARE, *lab.facts['snapshots']))}")
    row = "{:<6} {:<24} {:<28} {}".format
    print(row("HOST", "ADDRESS", "ROLE", "STATE"))
    stopped = 0
    for place in lab.places:
        host = inventory.HOSTS[place.name]
        runs = hosts.leader(place) is not None
        stopped += not runs
        state = "running" if runs else "stopped"
        print(row(host.name, " ".join(host.addresses), host.role, state))
    return 1 if stopped else 0


def execute(name: str, host: str, command: Sequence[str], local_pillar: bool = False) -> int:
    """Run a command in a host, on this program's own input and output; return its exit code.

    local_pillar: give the host its own pillar first, for `salt-call --local`.
    """
    lab = Lab(name)
    place = lab.place(host)
    line = hosts.command_in(place, command)
    if local_pillar:
        pillar.write_local(place.root / "srv/pillar", host, lab.seed, lab.facts["os"])
    return subprocess.run(line, preexec_fn=lambda: hosts.join(place), check=False).returncode


def apply(name: str, arguments: Sequence[str]) -> int:
    """Apply the formula to every minion at once, from the working tree; return Salt's exit code."""
    lab = Lab(name)
    lab.must_be_made()
    refresh_pillar(lab)
    return execute(name, "infra", ["salt", "--state-output=mixed_id", "--timeout=1800", "*",
                                   "state.apply", "nova", *arguments])


def all_labs() -> list[Lab]:
    """Return every lab of this machine that is up or was not taken down."""
    return [Lab(file.parent.name) for file in STATE.glob("*/lab.json")]


def uses(lab: Lab) -> set[Path]:
    """Return the pieces of the cache that a lab stands on."""
    paths = [Path(layer) for layers in lab.facts["bare"].values() for layer in layers]
    paths += [Path(path) for key, path in lab.facts.items() if key.endswith("repository")]
    return {cache.ROOT / path.relative_to(cache.ROOT).parts[0]
            for path in paths if path.is_relative_to(cache.ROOT)}
