#!py
"""
Custom modules, states and grains for this minion, where they are missing or outdated.

`state.apply` does not sync them by itself; with this the first run is as right as the second. It
writes nothing but the minion's own module cache, at render time, before any state runs.
"""

import hashlib
import os

from salt.exceptions import SaltRenderError
from salt.version import __version_info__ as SALT

CUSTOM = {
    "grains": ("nova_host",),
    "modules": (
        "nova_certificate",
        "nova_compute",
        "nova_database",
        "nova_haproxy",
        "nova_identity",
        "nova_login",
        "nova_manage",
        "nova_migration",
        "nova_unit",
        "nova_upkeep",
    ),
    "states": (
        "nova_cell",
        "nova_certificate",
        "nova_compute",
        "nova_conf",
        "nova_database",
        "nova_firewall",
        "nova_haproxy",
        "nova_identity",
        "nova_migration",
        "nova_package",
        "nova_schema",
        "nova_unit",
        "nova_verify",
    ),
    "utils": (
        "nova_conf",
        "nova_db",
        "nova_file",
        "nova_program",
        "nova_secret",
        "nova_settle",
        "nova_url",
    ),
}


def run():
    if "_ssh_version" in __opts__:  # it renders on the master, and sends the modules along itself
        if SALT < (3008,):
            raise SaltRenderError(
                "salt-ssh sends no _utils before Salt 3008: use that, or salt-call --local."
            )
        return {}
    hashed = __salt__["cp.hash_file"]
    cache = __opts__["extension_modules"]
    for kind, names in CUSTOM.items():
        for name in names:
            wanted = hashed(f"salt://_{kind}/{name}.py")
            if wanted and wanted["hsum"] != _hash(os.path.join(cache, kind, f"{name}.py")):
                __salt__[f"saltutil.sync_{kind}"](refresh=False)
                break
    return {}


def _hash(path):
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except FileNotFoundError:
        return None
