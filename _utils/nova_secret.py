"""
Secrets by reference: a state argument names a pillar key, and the value is taken where it is used.

State arguments are printed by ``state.show_low_sls`` and kept in the minion's highstate cache, so a
secret must never be one.
"""

from typing import Any

from salt.exceptions import SaltInvocationError


def value(pillar: dict[str, Any], key: str, opts: dict[str, Any]) -> str:
    """
    The secret that the pillar holds under a key; an ``sdb://`` URI is resolved.

    pillar
        The module's ``__pillar__``: plain in Salt 3006 and 3008, where ``pillar.get`` is masked.
    key : str
        Keys joined by colons, such as ``nova:passwords:keystone_nova``.
    opts
        The module's ``__opts__``, for sdb.

    Raises SaltInvocationError when the key is missing, empty, or not a scalar.
    """
    here: Any = pillar
    for part in key.split(":"):
        here = here.get(part) if hasattr(here, "get") else None
    if here is None or here == "" or isinstance(here, (dict, list, bool)):
        raise SaltInvocationError(
            f"The pillar key {key} holds no password: set it for this minion to a non-empty text."
        )
    secret = str(here)
    if secret.startswith("sdb://"):
        import salt.utils.sdb

        resolved = salt.utils.sdb.sdb_get(secret, opts)
        if not resolved or resolved == secret:
            raise SaltInvocationError(
                f"The pillar key {key} names an sdb secret that cannot be read: check the sdb "
                "profile in the minion's configuration."
            )
        return str(resolved)
    return secret
