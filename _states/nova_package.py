"""
Packages whose daemons do not start, unconfigured, while they are installed.

On Debian systems a package starts its daemons at once. Nova's then wait for a database that they
were never told of, which costs minutes. While this state installs, a ``policy-rc.d`` keeps them
down; units that the packages enable stay enabled. Other daemons are left to their packages: dbus,
for one, has to reload when libvirt's polkit comes.
"""

import contextlib
import fnmatch
import logging
import os
import re
import tempfile

from salt.exceptions import CommandExecutionError, SaltInvocationError

log = logging.getLogger(__name__)

POLICY = "/usr/sbin/policy-rc.d"
#: Where a policy that somebody else made waits, for as long as ours stands.
KEPT = POLICY + ".kept-by-nova-formula"
MARKER = "# Written by the nova formula: what it holds does not start during an install."
#: Units that do not start, as shell patterns.
HELD = ("nova-*", "placement-*")
#: policy-rc.d's exit code for "action forbidden".
EXIT_FORBIDDEN = 101

#: Arguments of pkg.installed that can make a present package due.
_DEEPER = ("sources", "reinstall", "pkg_verify")


def mod_init(low: dict) -> bool:
    """Let the first install of a run refresh the package lists, as pkg.installed does."""
    return __states__["pkg.mod_init"](low)


def installed(
    name: str, pkgs: list | None = None, hold_daemons: list[str] | None = None, **pkg_kwargs
) -> dict:
    """
    Packages are installed, and their daemons were not started by the install.

    name : str
        The package, unless ``pkgs`` is given.
    pkgs : list
        Package names, or ``{name: version}``.
    hold_daemons : list
        Units that do not start, as shell patterns; by default Nova's and Placement's. An empty
        list leaves it to the packages what starts.
    pkg_kwargs
        Whatever else pkg.installed takes: ``fromrepo``, ``version``, ``refresh``, ``hold`` …

    Returns what pkg.installed returns; a failure is put into one sentence.

    .. code-block:: yaml

        nova-controller-package-install:
          nova_package.installed:
            - pkgs: [nova-api, nova-conductor, nova-scheduler]
    """
    wanted = {"name": name, "pkgs": pkgs, **pkg_kwargs}
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    try:
        if __opts__["test"] or __grains__["os_family"] != "Debian":
            ret = __states__["pkg.installed"](**wanted)
        else:
            _release()
            held = list(HELD if hold_daemons is None else hold_daemons)
            if not all(re.fullmatch(r"[\w@.*?-]+", pattern) for pattern in held):
                raise SaltInvocationError("hold_daemons takes unit names and the signs * and ?")
            hold = held and _may_be_due(name, pkgs, pkg_kwargs)
            with _daemons_held(held) if hold else contextlib.nullcontext():
                ret = __states__["pkg.installed"](**wanted)
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret["comment"] = str(exc)
    if ret["result"] is False:
        ret["comment"] = _sentence(name, pkgs, ret["comment"])
    return ret


def _may_be_due(name: str, pkgs: list | None, pkg_kwargs: dict) -> bool:
    """
    Whether pkg.installed could have something to do.

    A look at the same list that pkg.installed takes from the same cache. A version that only the
    package manager can compare (``>=26``) counts as due: the policy then stands for nothing.
    """
    if any(pkg_kwargs.get(key) for key in _DEEPER):
        return True
    present = __salt__["pkg.list_pkgs"](versions_as_list=True)
    for package in pkgs or [{name: pkg_kwargs.get("version")}]:
        for one, version in package.items() if isinstance(package, dict) else ((package, None),):
            versions = present.get(one, [])
            if not versions or (version and not fnmatch.filter(versions, str(version))):
                return True
    return False


@contextlib.contextmanager
def _daemons_held(held: list[str]):
    handle, temp = None, None
    try:
        if os.path.lexists(POLICY):
            # A second name for the very file, so that putting it back is one step and brings back
            # owner, mode and time; a run that is killed finds it on its next start.
            os.link(POLICY, KEPT, follow_symlinks=False)
        handle, temp = tempfile.mkstemp(prefix=".policy-rc.d.", dir=os.path.dirname(POLICY))
        with os.fdopen(handle, "w") as file:
            file.write(
                f"#!/bin/sh\n{MARKER}\n"
                f'case "$1" in {"|".join(held)}) exit {EXIT_FORBIDDEN};; esac\n'
                f'[ ! -x {KEPT} ] || exec {KEPT} "$@"\n'
            )
        os.chmod(temp, 0o755)
        os.replace(temp, POLICY)
    except OSError as exc:
        if temp:
            with contextlib.suppress(FileNotFoundError):
                os.remove(temp)
        _release()
        raise CommandExecutionError(
            f"cannot keep daemons from starting, {exc.filename or POLICY}: {exc.strerror}"
        ) from exc
    try:
        yield
    finally:
        _release()


def _release() -> None:
    """Take our policy away and put back what stood there, also what a killed run left."""
    try:
        ours = _is_ours()
        if os.path.lexists(KEPT):
            if ours or not os.path.lexists(POLICY):
                os.replace(KEPT, POLICY)
            else:
                # Somebody, such as a package, has put a newer one in place of ours.
                os.remove(KEPT)
        elif ours:
            os.remove(POLICY)
    except OSError as exc:
        raise CommandExecutionError(
            f"cannot put {POLICY} back as it was: {exc.strerror}; see to it and to {KEPT}"
        ) from exc


def _is_ours() -> bool:
    try:
        with open(POLICY, errors="replace") as file:
            return MARKER in file.read(4096).splitlines()
    except FileNotFoundError:
        return False


def _sentence(name: str, pkgs: list | None, reason: str) -> str:
    names = [one for package in pkgs or [name] for one in _names(package)]
    reason = __utils__["nova_url.mask"](reason)
    # apt's own errors say it best; else the first lines that are not pkg.installed's bookkeeping.
    errors = re.findall(r"^.*?\bE: (.+)$", reason, re.M) or reason.splitlines()
    cause = " ".join(" ".join(dict.fromkeys(errors)).split())
    if len(cause) > 400:
        cause = cause[:400].rstrip() + " …"
    named = [one for one in names if re.search(rf"(?<![\w.+-]){re.escape(one)}(?![\w+-])", reason)]
    return (
        f"Cannot install {', '.join(named or names)}: {cause.rstrip('.')}. Name the packages in "
        "nova:lookup:packages, or a repository that has them in nova:repositories."
    )


def _names(package: str | dict) -> list[str]:
    return list(package) if isinstance(package, dict) else [package]
