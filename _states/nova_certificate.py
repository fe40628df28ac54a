"""
Certificates of the formula's own authority, for trial sites: keys are made where they are used and
never leave the node, one minion signs, and the Salt mine carries what is public.

:func:`requested`, on the authority :func:`signed`, :func:`obtained`, then :func:`placed` for each
file, in this order: a node that is the authority too waits for nobody but the others.
"""

import calendar
import contextlib
import fnmatch
import grp
import hashlib
import ipaddress
import json
import logging
import os
import pwd
import shutil
import time

import salt.utils.files
from salt.exceptions import CommandExecutionError

log = logging.getLogger(__name__)

#: Seconds between two looks at the mine.
INTERVAL = 2
DAY = 86400
#: Days for which a CA itself is good.
CA_DAYS = 3650
#: The authority renews this many days before the nodes ask, so that they are never early.
AHEAD = 1

#: What :func:`obtained` would bring, for :func:`placed` in the same run of test mode.
_NEW = "nova_certificate.new"
_HALVES = ("ca", "cert", "key", "both")


def __virtual__():
    if "nova_certificate.request" in __salt__:
        return True
    return False, "The execution module nova_certificate is missing: run saltutil.sync_all."


def requested(name: str, identities: dict[str, list[str]], renew: int = 30) -> dict:
    """
    This node has a key for each identity, and the mine has its public half while one is due.

    name : str
        Directory of the keys, root's alone.
    identities : dict
        Names and addresses that this node goes by, by identity.
    renew : int
        Days before its end from which a certificate is due.

    .. code-block:: yaml

        /var/lib/nova-formula/certificates:
          nova_certificate.requested:
            - identities: {server: [ctl1, 10.20.0.60]}
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "Nothing is due."}
    changes = {}
    try:
        for identity in identities:
            if not os.path.isfile(f"{name}/{identity}.key"):
                changes[f"{identity} key"] = {"old": None, "new": "a new key (EC, P-256)"}
        due = _due(name, identities, renew)
        if not changes and not due:
            return ret
        _need_x509()
        if not changes:
            wanted = __salt__["nova_certificate.request"](name, identities)
            own = __opts__["id"]
            known = __salt__["mine.get"](own, "nova_certificate_request").get(own)
            if known != wanted:
                changes["mine"] = {"old": _shown(known), "new": _shown(wanted)}
            if not changes:
                return {**ret, "comment": f"{', '.join(due)}: asked for."}
        if __opts__["test"]:
            return {**ret, "result": None, "changes": changes, "comment": "Keys would be made."}
        _directory(name)
        kept = __salt__["nova_certificate.kept_in"](name)
        for identity in identities:
            path = f"{name}/{identity}.key"
            if not os.path.isfile(path):
                if kept["certificates"].pop(identity, None):
                    _keep(name, kept)  # it was for the key that is gone
                pem = __salt__["x509.create_private_key"](algo="ec", keysize=256)
                __utils__["nova_file.replace"](path, pem, mode=0o600)
        function = "nova_certificate.request"
        given = {"directory": name, "identities": identities}
        __salt__["mine.send"]("nova_certificate_request", mine_function=function, **given)
    except CommandExecutionError as exc:
        return {**ret, "result": False, "comment": str(exc)}
    return {**ret, "changes": changes, "comment": "The authority was asked."}


def signed(
    name: str,
    grants: list[dict],
    expected: dict[str, list[str]] | None = None,
    days: int = 365,
    renew: int = 30,
    timeout: int = 60,
) -> dict:
    """
    This minion's CAs have signed what the nodes ask for, as far as it is granted.

    name : str
        Directory of the CAs, root's alone.
    grants : list
        Who may have what, the first that fits: ``identity``, ``ca``, ``minion`` (an id or glob),
        ``names`` that stand in the certificate; without ``names`` those that the node says, which
        no other may say.
    expected : dict
        Whom to wait for, by identity: minion ids, or names that a node says.
    days, renew : int
        Days for which a certificate is good, and before its end from which it is renewed.
    timeout : int
        Seconds to wait at most; who asks later gets it with the next run.

    .. code-block:: yaml

        /etc/nova-authority:
          nova_certificate.signed:
            - grants:
              - {identity: server, ca: site, minion: ctl1, names: [ctl1, 10.20.0.60]}
              - {identity: hypervisor, ca: hypervisors, minion: 'cmp*'}
            - expected: {server: [ctl1], hypervisor: [cmp1]}
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "All that is asked is signed."}
    changes: dict[str, dict] = {}
    deadline = time.monotonic() + (0 if __opts__["test"] else timeout)
    try:
        for ca in dict.fromkeys(grant["ca"] for grant in grants):
            if not os.path.isfile(f"{name}/{ca}.key"):
                changes[ca] = {"old": None, "new": f"a CA for {CA_DAYS // 365} years"}
                if not __opts__["test"]:
                    _need_x509()
                    _make_authority(name, ca)
        while True:
            asked = __salt__["nova_certificate.requests"]()
            signs, refused = _granted(asked, grants)
            changes |= _sign(name, signs, days, renew + AHEAD)
            late = _late(asked, signs, expected or {})
            if not late or time.monotonic() >= deadline:
                break
            log.info("Waiting for the nodes to ask for: %s", ", ".join(late))
            time.sleep(INTERVAL)
    except CommandExecutionError as exc:
        return {**ret, "result": False, "changes": changes, "comment": str(exc)}
    if __opts__["test"]:
        changes |= {it: {"old": None, "new": "once it has asked"} for it in late}
    ret["changes"] = changes
    if changes:
        ret["result"] = None if __opts__["test"] else True
        ret["comment"] = f"Certificates {'would be' if __opts__['test'] else 'were'} signed."
    warnings = refused
    if late and not __opts__["test"]:
        warnings.append(f"Not asked for within {timeout} s, so left to the next run: "
                        f"{', '.join(late)}.")  # fmt: skip
    return {**ret, **({"warnings": warnings} if warnings else {})}


def obtained(
    name: str,
    authority: str,
    identities: dict[str, list[str]],
    authorities: list[str],
    renew: int = 30,
    timeout: int = 120,
) -> dict:
    """
    This node has the certificates that it asked for, and the CAs'; they fit its keys.

    name, identities, renew
        As of :func:`requested`.
    authority : str
        Id of the minion that signs.
    authorities : list
        CAs whose certificates this node needs, besides those of its own.
    timeout : int
        Seconds to wait for the authority.

    .. code-block:: yaml

        /var/lib/nova-formula/certificates:
          nova_certificate.obtained:
            - authority: infra
            - identities: {server: [ctl1, 10.20.0.60]}
            - authorities: [site]
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "All of them are good."}
    try:
        kept = __salt__["nova_certificate.kept_in"](name)
        due = _due(name, identities, renew)
        missing = [ca for ca in authorities if ca not in kept["authorities"]]
        if not due and not missing:
            return ret
        if __opts__["test"]:
            changes = {it: {"old": _until(kept, it), "new": f"of {authority}"} for it in due}
            changes |= {ca: {"old": None, "new": f"of {authority}"} for ca in missing}
            __context__[_NEW] = {*due, *missing}
            words = f"{authority} would be waited for."
            return {**ret, "result": None, "changes": changes, "comment": words}
        _need_x509()
        deadline = time.monotonic() + timeout
        while True:
            answer = __salt__["nova_certificate.answered"](authority)
            new = _taken(name, answer, due, identities, renew)
            here = answer.get("authorities", {})
            left = [it for it in due if it not in new]
            left += [ca for ca in missing if ca not in here]
            if not left or time.monotonic() >= deadline:
                break
            log.info("Waiting for %s to sign: %s", authority, ", ".join(left))
            time.sleep(INTERVAL)
        changes = {}
        for identity, it in new.items():
            changes[identity] = {"old": _until(kept, identity), "new": f"until {_date(it)}"}
            kept["certificates"][identity] = it
        for ca, pem in here.items():
            if kept["authorities"].get(ca) != pem and (new or ca in missing):
                kept["authorities"][ca] = pem
                if ca in missing:
                    changes[ca] = {"old": None, "new": _fingerprint(pem)}
        if changes:
            _directory(name)
            _keep(name, kept)
    except CommandExecutionError as exc:
        return {**ret, "result": False, "comment": str(exc)}
    words = (
        f"{authority} has not signed within {timeout} s: {', '.join(left)}. Run "
        f"`salt {authority} state.apply nova.certificates`, then this again."
    )
    good = [it for it in left if it in kept["certificates"] or it in kept["authorities"]]
    if left and left != good:
        return {**ret, "result": False, "changes": changes, "comment": words}
    ret |= {"changes": changes, "comment": "Certificates were taken." if changes else words}
    return {**ret, **({"warnings": [words]} if left else {})}


def placed(
    name: str,
    directory: str,
    holds: str,
    ca: str = "",
    identity: str = "",
    user: str = "root",
    group: str = "root",
    mode: str = "0644",
) -> dict:
    """
    A file holds a CA's certificate, or one of this node's own, its key, or both.

    A file that is there and not of the formula's making stays as it is, and this fails.

    name : str
        The file.
    directory : str
        Where :func:`obtained` keeps them.
    holds : str
        ``ca``, ``cert``, ``key`` or ``both``.
    ca, identity : str
        Which CA's, or whose.
    user, group, mode : str
        Whose it is, and what they may.

    .. code-block:: yaml

        /etc/ssl/nova/my.key:
          nova_certificate.placed:
            - directory: /var/lib/nova-formula/certificates
            - holds: key
            - identity: server
            - group: nova
            - mode: '0640'
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": f"{name} stands."}
    what = f"the {holds} of {identity or ca}" if holds != "both" else f"{identity}, with its key"
    try:
        kept = __salt__["nova_certificate.kept_in"](directory)
        wanted = _text(directory, kept, holds, ca or identity)
        if holds != "key" and (ca or identity) in __context__.get(_NEW, ()):
            wanted = None  # in test mode: not there yet
        found = _content(name)
        if found is not None and found != wanted and name not in kept["places"]:
            raise CommandExecutionError(
                f"{name} is there and not the formula's: move it away, or name another file in "
                "the pillar."
            )
        changes = {}
        if wanted is None or found != wanted:
            old = None if found is None else _fingerprint(found)
            new = what if holds in ("key", "both") or not wanted else _fingerprint(wanted)
            changes[holds] = {"old": "another" if old and holds != "ca" else old, "new": new}
        rights = _rights(name, user, group, mode)
        changes |= rights if found is not None else {}
        if wanted is None and not __opts__["test"]:
            raise CommandExecutionError(f"There is nothing of {identity or ca} in {directory}.")
        if not changes:
            return ret
        if __opts__["test"]:
            words = f"{name} would hold {what}."
            return {**ret, "result": None, "changes": changes, "comment": words}
        if name not in kept["places"]:
            # First: who dies in between leaves a file that is known for the formula's.
            kept["places"].append(name)
            _keep(directory, kept)
        with salt.utils.files.set_umask(0o022):
            os.makedirs(os.path.dirname(name), exist_ok=True)
        uid, gid = pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
        __utils__["nova_file.replace"](name, wanted, uid, gid, int(mode, 8))
        os.chown(name, uid, gid)
        os.chmod(name, int(mode, 8))
    except CommandExecutionError as exc:
        return {**ret, "result": False, "comment": str(exc)}
    except (KeyError, OSError) as exc:
        return {**ret, "result": False, "comment": f"Cannot write {name}: {exc}."}
    return {**ret, "changes": changes, "comment": f"{name} holds {what}."}


def absent(name: str) -> dict:
    """
    This node has no keys of its own here, no file that was made of them, and asks for nothing.

    The authority's own directory stays.

    name : str
        Directory of the keys.

    .. code-block:: yaml

        /var/lib/nova-formula/certificates:
          nova_certificate.absent
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": f"There is no {name}."}
    try:
        places = __salt__["nova_certificate.kept_in"](name)["places"]
        paths = [path for path in [*places, name] if os.path.exists(path)]
        own = __opts__["id"]
        asked = __salt__["mine.get"](own, "nova_certificate_request").get(own)
    except CommandExecutionError as exc:
        return {**ret, "result": False, "comment": str(exc)}
    changes = {path: {"old": "there", "new": None} for path in paths}
    if asked:
        changes["mine"] = {"old": _shown(asked), "new": None}
    if not changes:
        return ret
    if __opts__["test"]:
        return {**ret, "result": None, "changes": changes, "comment": f"{name} would be removed."}
    try:
        # The directory last: who dies in between leaves the list of what is still to go.
        for path in paths:
            shutil.rmtree(path) if path == name else os.remove(path)
    except OSError as exc:
        return {**ret, "result": False, "comment": f"Cannot remove {exc.filename}: {exc.strerror}."}
    if asked:
        __salt__["mine.delete"]("nova_certificate_request")
    return {**ret, "changes": changes, "comment": f"{name} was removed, with what was made of it."}


def _need_x509() -> None:
    if "x509.create_certificate" not in __salt__:
        raise CommandExecutionError(
            "Salt's x509 modules are not there: Salt 3006 needs `features: {x509_v2: true}` in the "
            "minion's configuration, and a restart of the minion."
        )


def _directory(path: str) -> None:
    os.makedirs(path, mode=0o700, exist_ok=True)
    os.chmod(path, 0o700)


def _keep(directory: str, kept: dict) -> None:
    text = json.dumps(kept, indent=1, sort_keys=True)
    __utils__["nova_file.replace"](f"{directory}/kept.json", text, mode=0o600)


def _due(name: str, identities: dict[str, list[str]], renew: int) -> list[str]:
    """Identities without a certificate, or with one of other names, or about to end."""
    kept = __salt__["nova_certificate.kept_in"](name)["certificates"]
    soon = time.time() + renew * DAY
    return [
        identity
        for identity, names in identities.items()
        if identity not in kept
        or not os.path.isfile(f"{name}/{identity}.key")
        or kept[identity]["names"] != names
        or kept[identity]["expires"] <= soon
    ]


def _taken(name: str, answer: dict, due: list[str], identities: dict, renew: int) -> dict:
    """What has been signed for this node's keys, is of a CA named there, and lasts."""
    found = {}
    for identity in due:
        pem = answer.get("certificates", {}).get(identity, {}).get(__opts__["id"])
        if not pem or __salt__["x509.expires"](pem, renew):
            continue
        if __salt__["x509.verify_private_key"](f"{name}/{identity}.key", pem) and any(
            __salt__["x509.verify_signature"](pem, ca) for ca in answer["authorities"].values()
        ):
            expires = _expires(pem)
            found[identity] = {"names": identities[identity], "pem": pem, "expires": expires}
    return found


def _expires(pem: str) -> int:
    until = __salt__["x509.read_certificate"](pem)["not_after"]
    return calendar.timegm(time.strptime(until, "%Y-%m-%d %H:%M:%S"))


def _until(kept: dict, identity: str) -> str | None:
    it = kept["certificates"].get(identity)
    return it and f"until {_date(it)}"


def _date(it: dict) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(it["expires"]))


def _shown(request: dict | None) -> str | None:
    if not request:
        return None
    return ", ".join(
        f"{identity}: {' '.join(it['names'])}, key {_fingerprint(it['key'])}"
        for identity, it in request.items()
    )


def _fingerprint(text: str) -> str:
    return "SHA256:" + hashlib.sha256(text.encode()).hexdigest()[:16]


# ---- the authority ------------------------------------------------------------------------------


def _make_authority(home: str, ca: str) -> None:
    _directory(home)
    key = __salt__["x509.create_private_key"](algo="ec", keysize=256)
    pem = __salt__["x509.create_certificate"](
        signing_private_key=key,
        CN=f"nova formula, {ca}",
        basicConstraints="critical, CA:TRUE, pathlen:0",
        keyUsage="critical, keyCertSign, cRLSign",
        subjectKeyIdentifier="hash",
        days_valid=CA_DAYS,
    )
    issued = __salt__["nova_certificate.issued_by"](home)
    issued["authorities"][ca] = {"pem": pem, "expires": _expires(pem)}
    _issue(home, issued)
    # The key last: without it the next run makes both anew.
    __utils__["nova_file.replace"](f"{home}/{ca}.key", key, mode=0o600)


def _issue(home: str, issued: dict) -> None:
    text = json.dumps(issued, indent=1, sort_keys=True)
    __utils__["nova_file.replace"](f"{home}/issued.json", text, mode=0o600)


def _granted(asked: dict, grants: list[dict]) -> tuple[dict, list[str]]:
    """What is to be signed, as ``{(identity, minion): …}``; and in sentences, what is not."""
    signs, refused, said = {}, [], {}
    for minion, identities in sorted(asked.items()):
        if identities is None:
            refused.append(
                f"What {minion} asks of the authority is no record of keys and names: look at that "
                "host."
            )
            continue
        for identity, it in identities.items():
            grant = _grant(grants, identity, minion)
            names = grant.get("names", it["names"])
            if not names:
                refused.append(
                    f"{identity} of {minion} was not signed: nova:authority grants it to nobody "
                    "there."
                )
                continue
            signs[identity, minion] = {"ca": grant["ca"], "key": it["key"], "names": names}
            for each in {name.lower() for name in names if "names" not in grant}:
                said.setdefault((identity, each), []).append(minion)
    for (identity, each), minions in sorted(said.items()):
        if len(minions) > 1:
            refused.append(
                f"{' and '.join(minions)} both say that they are {each}, so {identity} was signed "
                "for neither: correct nova:my_ip there, or `salt MINION mine.delete "
                "nova_certificate_request` for one that is gone."
            )
            for minion in minions:
                signs.pop((identity, minion), None)
    return signs, refused


def _grant(grants: list[dict], identity: str, minion: str) -> dict:
    """The first that fits; of no names where none does."""
    for grant in grants:
        if grant["identity"] == identity and fnmatch.fnmatchcase(minion, grant["minion"]):
            return grant
    return {"names": []}


def _sign(home: str, signs: dict, days: int, renew: int) -> dict[str, dict]:
    """Sign what is not signed yet, or about to end, and publish all; the changes."""
    issued = __salt__["nova_certificate.issued_by"](home)
    soon, changes = time.time() + renew * DAY, {}
    for (identity, minion), it in signs.items():
        its = issued["certificates"].setdefault(identity, {})
        old = its.get(minion)
        same = old and all(old[key] == it[key] for key in it)
        if same and old["expires"] > soon:
            continue
        change = {"old": old and f"until {_date(old)}", "new": f"{days} days, {it['names']}"}
        changes[f"{identity} of {minion}"] = change
        if not __opts__["test"]:
            _need_x509()
            pem = _certificate(home, issued["authorities"][it["ca"]]["pem"], it, days)
            its[minion] = {**it, "pem": pem, "expires": _expires(pem)}
    if changes and not __opts__["test"]:
        _issue(home, issued)
    known = __salt__["nova_certificate.answered"](__opts__["id"])
    if changes or known != __salt__["nova_certificate.answer"](home):
        changes["mine"] = {"old": "older" if known else None, "new": "all that is signed"}
        if not __opts__["test"]:
            function = "nova_certificate.answer"
            __salt__["mine.send"]("nova_certificate_answer", mine_function=function, home=home)
    return changes


def _certificate(home: str, ca_pem: str, it: dict, days: int) -> str:
    return __salt__["x509.create_certificate"](
        signing_private_key=f"{home}/{it['ca']}.key",
        signing_cert=ca_pem,
        public_key=it["key"],
        CN=it["names"][0][:64],  # there is no room for more
        subjectAltName=[_alternative(each) for each in it["names"]],
        basicConstraints="critical, CA:FALSE",
        # Not critical: libvirt 9 would want encipherment, which keys of elliptic curves have not.
        keyUsage="digitalSignature",
        extendedKeyUsage="serverAuth, clientAuth",
        subjectKeyIdentifier="hash",
        authorityKeyIdentifier="keyid:always",
        days_valid=days,
    )


def _alternative(name: str) -> str:
    with contextlib.suppress(ValueError):
        return f"IP:{ipaddress.ip_address(name)}"
    return f"DNS:{name}"


def _late(asked: dict, signs: dict, expected: dict[str, list[str]]) -> list[str]:
    late = []
    for identity, who in expected.items():
        there = {minion for it, minion in signs if it == identity}
        there |= {name for minion in there for name in asked[minion][identity]["names"]}
        late += [f"{identity} of {each}" for each in who if each not in there]
    return late


# ---- files --------------------------------------------------------------------------------------


def _text(directory: str, kept: dict, holds: str, whose: str) -> str | None:
    """What a file is to hold; None where it is not there yet."""
    if holds not in _HALVES:
        raise CommandExecutionError(f"holds must be one of {', '.join(_HALVES)}.")
    if holds == "ca":
        return kept["authorities"].get(whose)
    certificate = kept["certificates"].get(whose, {}).get("pem")
    key = _content(f"{directory}/{whose}.key")
    if holds == "key":
        return key
    if holds == "both":
        return certificate and key and f"{certificate.rstrip()}\n{key}"
    return certificate


def _content(path: str) -> str | None:
    try:
        with salt.utils.files.fopen(path) as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandExecutionError(f"Cannot read {path}: {exc}.") from exc


def _rights(path: str, user: str, group: str, mode: str) -> dict[str, dict]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return {}
    has = {
        "user": _named(pwd.getpwuid, found.st_uid),
        "group": _named(grp.getgrgid, found.st_gid),
        "mode": f"{found.st_mode & 0o7777:04o}",
    }
    wanted = {"user": user, "group": group, "mode": mode}
    return {key: {"old": has[key], "new": wanted[key]} for key in has if has[key] != wanted[key]}


def _named(look, number: int) -> str:
    try:
        return look(number)[0]
    except KeyError:
        return str(number)
