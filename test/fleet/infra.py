"""Layers of the hosts that the formula finds in place: infra and the load balancer.

Each is made by booting the host once, in a lab of its own, and running its fixture there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from . import cache, hosts, inventory, network, packages, pillar, shell

SEED = "seed"  # the file, beside infra's layer, that holds what the passwords come from


def layer(os_name: str, name: str, below: Sequence[Path], binds: Mapping[Path, str]) -> Path:
    """Return the piece with a host's layer, `layer`, made by files/NAME/setup in the host.

    binds: what the setup sees of the machine, and where.
    """
    fixture = cache.FILES / name

    def build(piece: Path) -> None:
        seed = pillar.new_seed()
        # Of its own for each cache: two caches may be made at once.
        lab = f"build-{name}-{hashlib.sha256(str(cache.ROOT).encode()).hexdigest()[:6]}"
        place = hosts.Place(lab, name, piece)
        network.up(lab)
        hosts.kill([place])
        try:
            hosts.mount(place, below)
            hosts.personalize(place, None, vip=inventory.INFRA.address)
            _render(fixture, place.root / "root/fixture", seed)
            hosts.boot(place, binds)
            hosts.wait_booted(place)
            log = cache.ROOT / f"{name}-{os_name}.log"
            hosts.call(place, "sh", "-c", "exec bash -x /root/fixture/setup 2>&1", log=log)
            shutil.rmtree(place.root / "root/fixture")
        finally:
            hosts.stop([place])
            network.down(lab)
        (piece / "upper").rename(piece / "layer")
        shell.remove_tree(piece / "work")
        (piece / "root").rmdir()
        place.made.unlink()
        (piece / SEED).write_text(seed)
        (piece / SEED).chmod(0o600)

    # Of the layers below only the system counts: nothing here depends on Salt's version.
    return cache.piece(f"{name}-{os_name}", build, below[-1], fixture, packages.KINDS[name],
                       hosts.personalize, pillar.password, pillar.NASTY)


def _render(fixture: Path, target: Path, seed: str) -> None:
    """Copy a fixture; files that end in .j2 are filled in."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["url"] = lambda text: quote(text, safe="").replace("$", "$$")
    environment.filters["ini"] = lambda text: text.replace("$", "$$")
    environment.filters["json"] = json.dumps
    environment.filters["sql"] = lambda text: "'" + text.replace("'", "''") + "'"
    values = {
        "password": lambda key: pillar.password(seed, key),
        # Keystone's own database: its migrations stumble over a % in the URL.
        "plain": lambda key: pillar.password(seed, key).removeprefix(f"p{pillar.NASTY}"),
        "infra": inventory.INFRA.address,
        "vip": inventory.VIP,
        "vip_name": inventory.VIP_NAME,
        "messaging_name": inventory.MESSAGING_NAME,
    }
    shutil.copytree(fixture, target)
    target.chmod(0o700)
    for file in target.rglob("*.j2"):
        rendered = file.with_suffix("")
        rendered.write_text(environment.from_string(file.read_text()).render(values))
        shutil.copymode(file, rendered)
        file.unlink()
