"""One lab: its hosts together, up and down, and the states that they can be put back to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import cache, guest, hosts, infra, inventory, machine, network, packages, pillar, shell, trees

STATE = Path(os.environ.get("NOVA_LAB_STATE", "/var/lib/nova-formula-lab"))
BARE = "bare"  # the snapshot that is always there: hosts as they were made


class Lab:
    """The lab of a name. What it is made of stands in its state directory, lab.json."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = STATE / name
        self.file = self.directory / "lab.json"
        self.facts: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}

    @property
    def places(self) -> list[hosts.Place]:
        return [self.place(name) for name in self.facts.get("hosts", {})]

    def place(self, name: str) -> hosts.Place:
        return hosts.Place(self.name, name, self.directory / "hosts" / name)

    def save(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(self.facts, indent=2))
        fresh.rename(self.file)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lab while it changes; facts are read anew, under the lock."""
        with shell.lock(STATE / f"{self.name}.lock", f"another command that changes lab {self.name}"):
            self.__init__(self.name)
            yield


def up(name: str, wanted: Sequence[str], os_name: str, salt: str) -> None:
    """Bring up hosts of a lab, from the cache, and whatever of it is missing."""
    machine.check()
    machine.prepare()
    lab = Lab(name)
    with lab.changing():
        names = wanted or inventory.FLEET
        for key, value in (("os", os_name), ("salt", salt)):
            if lab.facts.get(key, value) != value:
                raise shell.LabError(f"Lab {name} is up with {key} {lab.facts[key]}: "
                                     f"`down` first, or give the lab another --name.")
        pieces = prepare_cache(os_name, salt)
        lab.facts |= {"os": os_name, "salt": salt, "repository": str(pieces["repository"])}
        lab.facts.setdefault("hosts", {})
        for host in names:
            lab.facts["hosts"].setdefault(host, bare_layers(host, pieces))
        lab.facts.setdefault("seed", (pieces["infra"] / infra.SEED).read_text())
        lab.save()
        refresh_pillar(lab)
        start(lab, names)
        cache.prune(set(pieces.values()) | {path for other in all_labs() for path in uses(other)})


def prepare_cache(os_name: str, salt: str) -> dict[str, Path]:
    """Return the pieces of the cache, made if they are missing, side by side where they can be."""
    with cache.building(), ThreadPoolExecutor() as pool:
        wheels = pool.submit(trees.wheels, os_name, salt)
        image = pool.submit(guest.image, os_name)
        system = trees.system(os_name)
        repository = pool.submit(packages.repository, os_name, system)
        base = trees.base(os_name, salt, system, wheels.result())
        below = [base, system]
        balancer = pool.submit(infra.layer, os_name, "lb1", below, repository.result())
        found = infra.layer(os_name, "infra", below, repository.result(),
                            {image.result(): "/srv/guest"})
        return {"system": system, "wheels": wheels.result(), "base": base,
                "repository": repository.result(), "guest": image.result(),
                "lb1": balancer.result(), "infra": found}


def bare_layers(host: str, pieces: dict[str, Path]) -> list[str]:
    """Return the layers of a freshly made host, topmost first."""
    own = [pieces[host] / "layer"] if host in ("infra", "lb1") else []
    return [str(path) for path in (*own, pieces["base"], pieces["system"])]


def start(lab: Lab, names: Sequence[str]) -> None:
    """Start those hosts that do not run, and wait until they answer to Salt."""
    began = [lab.place(name) for name in names if hosts.leader(lab.place(name)) is None]
    if not began:
        network.up(lab.name)
    else:
        with shell.step(f"boot {', '.join(place.name for place in began)}"):
            hosts.kill(began)  # what a bad end left of them
            network.up(lab.name)
            for place in began:
                hosts.mount(place, [Path(layer) for layer in lab.facts["hosts"][place.name]])
                if not place.made.exists():
                    salt = "salt-master" if place.name == "infra" else "salt-minion"
                    hosts.personalize(place, f"{salt}.service")
                hosts.boot(place, _binds(lab, place.name))
            for place in began:
                hosts.wait_booted(place)
    healthy(lab)


def healthy(lab: Lab) -> None:
    """Wait until the running hosts' minions answer, and what the formula finds in place serves."""
    running = [place.name for place in lab.places if hosts.leader(place)]
    if "infra" not in running:
        return
    place = lab.place("infra")
    minions = sorted(set(running) - {"infra"})
    if minions:
        with shell.step("wait for Salt"):
            shell.wait_until(lambda: set(minions) <= _answering(place), f"minions {minions}", 90)
    with shell.step("wait for the services of infra"):
        hosts.call(place, "lab-ready", "infra")
        if "lb1" in running:
            # HAProxy saw them down while they started, and takes 15 s to believe otherwise.
            hosts.call(lab.place("lb1"), "systemctl", "reload-or-restart", "haproxy")
            hosts.call(place, "lab-ready", inventory.VIP)


def _answering(place: hosts.Place) -> set[str]:
    try:
        answer = hosts.call(place, "salt", "--out=json", "--static", "--hide-timeout",
                            "--timeout=2", "*", "test.ping")
        return set(json.loads(answer))
    except (shell.LabError, ValueError):
        return set()


def _binds(lab: Lab, name: str) -> dict[Path, str]:
    binds = {Path(lab.facts["repository"]): "/srv/repo", pillar.REPOSITORY: "/srv/formula"}
    if name == "infra":
        binds[lab.directory / "pillar"] = "/srv/pillar"
    return binds


def refresh_pillar(lab: Lab) -> None:
    """Write the master's pillar from pillar.example, and all passwords for tests to search for."""
    pillar.write(lab.directory / "pillar", lab.facts["seed"])
    known = lab.directory / "secrets.json"
    known.touch(0o600)
    known.write_text(json.dumps(pillar.passwords(lab.facts["seed"]), indent=2))


def down(name: str) -> None:
    """Stop a lab and remove all of it but the cache; also what is left of one that died."""
    lab = Lab(name)
    with lab.changing():
        directory = lab.directory / "hosts"
        found = {path.name for path in directory.iterdir()} if directory.exists() else set()
        places = [lab.place(host) for host in found | set(inventory.HOSTS)]
        with shell.step(f"take down lab {name}"):
            hosts.kill(places)
            network.down(name)
            shell.remove_tree(lab.directory)
    (STATE / f"{name}.lock").unlink(missing_ok=True)


def execute(name: str, host: str, command: Sequence[str]) -> int:
    """Run a command in a host, on this program's own input and output; return its exit code."""
    place = Lab(name).place(host)
    line = hosts.command_in(place, command)
    return subprocess.run(line, preexec_fn=lambda: hosts.join(place), check=False).returncode


def apply(name: str, arguments: Sequence[str]) -> int:
    """Apply the formula to every minion at once, from the working tree; return Salt's exit code."""
    lab = Lab(name)
    if not lab.facts:
        raise shell.LabError(f"Lab {name} is not up.")
    refresh_pillar(lab)
    return execute(name, "infra", [
        "salt", "--state-output=mixed_id", "--timeout=1800", *arguments, "*", "state.apply", "nova"])


def all_labs() -> list[Lab]:
    return [Lab(file.parent.name) for file in STATE.glob("*/lab.json")]


def uses(lab: Lab) -> set[Path]:
    """Return the pieces of the cache that a lab's hosts stand on."""
    paths = [Path(layer) for layers in lab.facts["hosts"].values() for layer in layers]
    paths.append(Path(lab.facts["repository"]))
    return {cache.ROOT / path.relative_to(cache.ROOT).parts[0]
            for path in paths if path.is_relative_to(cache.ROOT)}
