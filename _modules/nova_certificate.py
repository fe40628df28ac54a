"""
What nodes and the formula's own certificate authority tell each other, through the Salt mine.

A node publishes public keys, and the names that it goes by; the authority publishes certificates.
Both are public. Whose record it is, the master knows; what may be signed, the authority's pillar.
"""

import json
import os
import re
from typing import Any

import salt.utils.files
from salt.exceptions import CommandExecutionError

#: The mine's names for what a node asks for, and for what the authority answers.
REQUEST, ANSWER = "nova_certificate_request", "nova_certificate_answer"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}|(?=[0-9A-Fa-f]*:)[0-9A-Fa-f:.]{2,45}")
_KEY = re.compile(
    r"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=]{1,76}\n){1,20}-----END PUBLIC KEY-----\n?"
)


def request(directory: str, identities: dict[str, list[str]]) -> dict[str, dict]:
    """
    What this node wants signed: of each identity its public key, and the names that it goes by.

    directory : str
        Where the private keys are, as ``IDENTITY.key``.
    identities : dict
        Names and addresses, by identity.

    Raises CommandExecutionError where a key cannot be read.

    CLI Example:

    .. code-block:: bash

        salt ctl1 nova_certificate.request /var/lib/nova-formula/certificates '{server: [ctl1]}'
    """
    found = {}
    for identity, names in sorted(identities.items()):
        path = f"{directory}/{identity}.key"
        if not os.path.isfile(path):
            raise CommandExecutionError(f"There is no {path}: apply nova.certificates.")
        key = __salt__["x509.get_public_key"](path)
        found[identity] = {"key": key, "names": list(names)}
    return found


def answer(home: str) -> dict[str, dict]:
    """
    What the authority has signed: its CAs' certificates, and the nodes', by identity and minion.

    home : str
        Directory of the authority.

    CLI Example:

    .. code-block:: bash

        salt infra nova_certificate.answer /etc/nova-authority
    """
    issued = issued_by(home)
    return {
        "authorities": {ca: it["pem"] for ca, it in issued["authorities"].items()},
        "certificates": {
            identity: {minion: it["pem"] for minion, it in its.items()}
            for identity, its in issued["certificates"].items()
        },
    }


def issued_by(home: str) -> dict[str, dict]:
    """
    The authority's own list of what it has signed; ``expires`` in seconds since 1970.

    home : str
        Directory of the authority.

    CLI Example:

    .. code-block:: bash

        salt infra nova_certificate.issued_by /etc/nova-authority
    """
    return {"authorities": {}, "certificates": {}, **_read(f"{home}/issued.json")}


def kept_in(directory: str) -> dict[str, dict]:
    """
    What this node has of the authority, as :func:`issued_by` has it, and the files made of it.

    directory : str
        Where the private keys are.

    CLI Example:

    .. code-block:: bash

        salt ctl1 nova_certificate.kept_in /var/lib/nova-formula/certificates
    """
    empty = {"authorities": {}, "certificates": {}, "places": []}
    return {**empty, **_read(f"{directory}/kept.json")}


def _read(path: str) -> dict:
    try:
        with salt.utils.files.fopen(path) as stream:
            return json.load(stream)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise CommandExecutionError(f"Cannot read {path}: {exc}. Remove it.") from exc


def requests() -> dict[str, dict | None]:
    """
    What all nodes ask for, by minion id, this one's included.

    None for a node whose record holds anything but keys and names: it is not to stop the others.

    CLI Example:

    .. code-block:: bash

        salt infra nova_certificate.requests
    """
    return {
        minion: identities if _is_record(identities) else None
        for minion, identities in __salt__["mine.get"]("*", REQUEST).items()
    }


def _is_record(identities: Any) -> bool:
    try:
        return all(
            _KEY.fullmatch(it["key"]) and all(map(_NAME.fullmatch, it["names"]))
            for it in identities.values()
        )
    except (AttributeError, KeyError, TypeError):
        return False


def answered(minion: str) -> dict[str, dict]:
    """
    What the authority has published, as :func:`answer` gives it; empty where it has not yet.

    minion : str
        Id of the authority.

    CLI Example:

    .. code-block:: bash

        salt ctl1 nova_certificate.answered infra
    """
    return __salt__["mine.get"](minion, ANSWER).get(minion) or {}
