"""The lab's pillar: pillar.example as it is, and over it a set of passwords that hurt.

Only its OpenStack release is left to the system where that ships another one.

Each password holds characters that break careless quoting, in URLs, INI files, SQL, YAML and
shells, and a part of its own that a test can search for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from pathlib import Path
from typing import Any

from . import inventory

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "pillar.example"
PAIR = ("lb1", "lb2")
NASTY = "@/%$:#'\""


def new_seed() -> str:
    """Return what all passwords of an infra are derived from."""
    return secrets.token_hex(16)


def password(seed: str, key: str) -> str:
    """Return the password for a key of nova:passwords."""
    unique = hmac.new(seed.encode(), key.encode(), hashlib.sha256).hexdigest()[:16]
    # oslo.messaging cannot log in to RabbitMQ with a slash: it leaves that one unencoded.
    return f"p{NASTY.replace('/', '') if key == 'messaging' else NASTY}{unique}"


def example(minion: str) -> dict[str, Any]:
    """Return pillar.example as a minion gets it."""
    import jinja2  # both come from a package that the lab installs first
    import yaml

    text = jinja2.Template(EXAMPLE.read_text(), undefined=jinja2.StrictUndefined).render(
        opts={"id": minion})
    return yaml.safe_load(text)


def passwords(seed: str) -> dict[str, str]:
    """Return every password of the site."""
    keys = {key for minion in _controllers() for key in example(minion)["nova"]["passwords"]}
    return {key: password(seed, key) for key in sorted(keys)}


def write(directory: Path, seed: str, os_name: str, pair: bool) -> None:
    """Write the master's pillar: the example, and the passwords of all and of controllers.

    pair: whether there are two balancers, which hold the VIP between them.
    """
    everyone = set(example("a minion without a role")["nova"]["passwords"])
    site = passwords(seed)
    top = {"base": {"*": ["nova", "system", "secrets"],
                    ",".join(_controllers()): [{"match": "list"}, "secrets_controllers"]}}
    files = {
        "top.sls": "#!json\n" + json.dumps(top, indent=2),
        "nova.sls": EXAMPLE.read_text(),
        "system.sls": _sls(_own(os_name)),
        "secrets.sls": _sls({"passwords": {key: site[key] for key in site if key in everyone}}),
        "secrets_controllers.sls": _sls(
            {"passwords": {key: site[key] for key in site if key not in everyone}}),
    }
    if pair:
        top["base"]["*"].append("pair")
        top["base"][",".join(PAIR)] = [{"match": "list"}, "secrets_balancers"]
        keepalived = {"address": f"{inventory.VIP}/{inventory.PREFIX}", "interface": "host0"}
        balancers = {host: inventory.HOSTS[host].address for host in PAIR}
        secret = password(seed, "keepalived")[-8:]  # VRRP has no room for more
        files |= {
            "top.sls": "#!json\n" + json.dumps(top, indent=2),
            "pair.sls": _sls({"topology": {"haproxy": balancers},
                              "haproxy": {"keepalived": keepalived}}),
            "secrets_balancers.sls": _sls({"passwords": {"keepalived": secret}}),
        }
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    for name, text in files.items():
        (directory / name).write_text(text)


def write_local(directory: Path, minion: str, seed: str,
                os_name: str = inventory.FOUND) -> None:
    """Write one minion's pillar into its own tree, for runs without a master."""
    site = example(minion)
    site["nova"].update(_own(os_name))
    keys = site["nova"]["passwords"]
    site["nova"]["passwords"] = {key: password(seed, key) for key in keys}
    directory.chmod(0o700)
    (directory / "top.sls").write_text("base: {'*': [site]}\n")
    (directory / "site.sls").write_text("#!json\n" + json.dumps(site, indent=2))


def _controllers() -> list[str]:
    """Return who is a controller; the topology stands in the part that every minion gets."""
    return list(example("a minion without a role")["nova"]["topology"]["controller"])


def _own(os_name: str) -> dict[str, Any]:
    """Return what a system has over the example, which names the release of FOUND.

    The formula knows what a released Debian ships; testing and unstable look the same to it.
    """
    unreleased = {"forky": "2026.1", "sid": "2026.2"}
    return {} if os_name == inventory.FOUND else {"release": unreleased.get(os_name)}


def _sls(values: dict[str, Any]) -> str:
    return "#!json\n" + json.dumps({"nova": values}, indent=2)
