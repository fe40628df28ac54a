"""
Packages whose daemons do not start, unconfigured, while they are installed.

On Debian systems a package starts its daemons at once. Nova's then wait for a database that they
were never told of, which costs minutes. While this state installs, a ``policy-rc.d`` keeps them
down; units that the packages enable stay enabled. Other daemons are left to their packages: dbus,
for one, has to reload when libvirt's polkit comes.

A run that is killed leaves its install behind: apt goes on without it, or dpkg was cut off and
refuses all further work. The next one waits for the first, and mends the second.
"""

import contextlib
import fcntl
import fnmatch
import functools
import logging
import os
import re
import struct
import time

import salt.utils.data
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

#: What dpkg has not entered into its list yet, the list, its lock, and what apt heard from it.
JOURNAL = "/var/lib/dpkg/updates"
STATUS = "/var/lib/dpkg/status"
LOCK = "/var/lib/dpkg/lock-frontend"
TERM_LOG = "/var/log/apt/term.log"
#: Seconds between two looks at the lock.
INTERVAL = 1

#: How a mended install is shown.
_MENDED = {"interrupted install": {"old": "unfinished", "new": "finished"}}
_QUIETLY = {"DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NONINTERACTIVE_SEEN": "true"}
_DPKG = ("dpkg", "--force-confold", "--force-confdef", "--configure", "-a")
_APT = (
    *("apt-get", "--quiet", "--yes", "--fix-broken"),
    *("--option=DPkg::Options::=--force-confold", "--option=DPkg::Options::=--force-confdef"),
)
_HALF = re.compile(r"^Package: (\S+)\n(?:\S.*\n)??Status: .* half-installed$", re.M)
#: struct flock, with which fcntl's F_GETLK asks and answers.
_FLOCK = "hhqqi4x"
#: The last word of a package's script, the package, and what dpkg says of it.
_DPKG_FAILED = "/usr/bin/dpkg returned an error code"
_DPKG_ERROR = re.compile(r"(?:^(.*)\n)?^dpkg: error processing \S+ (\S+) .*:\n (.+)$", re.M)
_ELSEWHERE = (
    "Name the packages in nova:lookup:packages, or a repository that has them in nova:repositories."
)

#: Arguments of pkg.installed that can make a present package due.
_DEEPER = ("sources", "reinstall", "pkg_verify")


def mod_init(low: dict) -> bool:
    """Let the first install of a run refresh the package lists, as pkg.installed does."""
    return __states__["pkg.mod_init"](low)


def installed(
    name: str,
    pkgs: list | None = None,
    hold_daemons: list[str] | None = None,
    timeout: int = 900,
    **pkg_kwargs,
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
    timeout : int
        Seconds to wait for another program that installs packages.
    pkg_kwargs
        Whatever else pkg.installed takes: ``fromrepo``, ``version``, ``refresh``, ``hold`` …

    Returns what pkg.installed returns; a failure is put into one sentence.

    .. code-block:: yaml

        nova-controller-package-install:
          nova_package.installed:
            - pkgs: [nova-api, nova-conductor, nova-scheduler]
    """
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    names = [one for package in pkgs or [name] for one in _names(package)]
    install = functools.partial(__states__["pkg.installed"], name=name, pkgs=pkgs, **pkg_kwargs)
    remedy = None
    try:
        if __grains__["os_family"] != "Debian":
            ret = install()
        elif __opts__["test"]:
            ret = install()
            if _is_cut_off(names) and ret["result"] is not False:
                ret = {**ret, "result": None, "changes": {**_MENDED, **ret["changes"]}}
        else:
            held = list(HELD if hold_daemons is None else hold_daemons)
            if not all(re.fullmatch(r"[\w@.*?-]+", pattern) for pattern in held):
                raise SaltInvocationError("hold_daemons takes unit names and the signs * and ?")
            due = functools.partial(_may_be_due, name, pkgs, pkg_kwargs)
            if _is_left() or _is_cut_off(names) or due():
                ret = _installed_alone(install, names, held, due, timeout)
            else:
                ret = install()
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret["comment"] = str(exc)
        remedy = getattr(exc, "info", None)
    if ret["result"] is False:
        ret["comment"] = _sentence(names, ret["comment"], remedy)
    return ret


def _installed_alone(install, names: list[str], held: list[str], due, timeout: int) -> dict:
    """
    Install while no other run does, nor a program that a killed run has left.

    Two of them would take each other's policy away.
    """
    changes: dict = {}
    with __utils__["nova_file.alone"](POLICY, timeout):
        _wait_for_dpkg(timeout)
        _release()
        # What was seen may be older than what another run has installed.
        __salt__["pkg.list_pkgs"](versions_as_list=True, use_context=False)
        cut_off = _is_cut_off(names)
        hold = held and (cut_off or due())
        with _daemons_held(held) if hold else contextlib.nullcontext():
            if cut_off:
                changes = _mended(names)
            ret = install()
    return {**ret, "changes": {**changes, **ret["changes"]}}


def _wait_for_dpkg(timeout: int) -> None:
    start = time.monotonic()
    while holder := _dpkg_holder():
        if time.monotonic() - start >= timeout:
            raise __utils__["nova_program.failure"](
                f"{holder} has held dpkg's lock for {timeout} s",
                "Wait until it has ended, or end it, and run the state again.",
            )
        log.info("Waiting for %s, which holds dpkg's lock", holder)
        time.sleep(INTERVAL)


def _dpkg_holder() -> str:
    """Who works with dpkg; empty if nobody does."""
    try:
        with open(LOCK, "rb") as file:
            ask = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, ask))
    except FileNotFoundError:
        return ""
    if kind == fcntl.F_UNLCK:
        return ""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return f"process {pid} ({file.read().strip()})"
    except FileNotFoundError:
        return f"process {pid}"


def _is_cut_off(names: list[str]) -> bool:
    """
    Whether dpkg was stopped in the middle of its work, and nobody is at it.

    What is merely not configured, pkg.installed takes for missing, and so installs it. But a
    package that dpkg was about to replace counts as present to it.
    """
    return bool((_is_dir_filled(JOURNAL) or _half_installed(names)) and not _dpkg_holder())


def _is_dir_filled(path: str) -> bool:
    try:
        return bool(os.listdir(path))
    except FileNotFoundError:
        return False


def _half_installed(names: list[str]) -> list[str]:
    try:
        with open(STATUS, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    if " half-installed\n" not in text:
        return []
    return sorted(set(names).intersection(_HALF.findall(text)))


def _mended(names: list[str]) -> dict:
    """Finish what was cut off; the changes."""
    before = __salt__["pkg.list_pkgs"]()
    # What this cannot do, apt does, or says why not.
    _run(_DPKG)
    half = _half_installed(names)
    done = _run([*_APT, "install", *(["--reinstall", *half] if half else [])])
    if done["retcode"]:
        raise __utils__["nova_program.failure"](
            done["stderr"] or done["stdout"],
            "An earlier install was cut off: see what `dpkg --configure -a` and `apt-get "
            "--fix-broken install` say there, and run the state again.",
        )
    after = __salt__["pkg.list_pkgs"](use_context=False)
    return {**_MENDED, **salt.utils.data.compare_dicts(before, after)}


def _run(command) -> dict:
    return __salt__["cmd.run_all"](
        list(command), python_shell=False, ignore_retcode=True, env=_QUIETLY
    )


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
    text = (
        f"#!/bin/sh\n{MARKER}\n"
        f'case "$1" in {"|".join(held)}) exit {EXIT_FORBIDDEN};; esac\n'
        f'[ ! -x {KEPT} ] || exec {KEPT} "$@"\n'
    )
    try:
        if os.path.lexists(POLICY):
            # A second name for the very file, so that putting it back is one step and brings back
            # owner, mode and time; a run that is killed finds it on its next start.
            os.link(POLICY, KEPT, follow_symlinks=False)
        with __utils__["nova_file.fresh"](POLICY, text.encode(), mode=0o755) as temp:
            os.replace(temp, POLICY)
    except (OSError, CommandExecutionError) as exc:
        _release()
        raise CommandExecutionError(
            f"cannot keep daemons from starting, {POLICY}: {exc.strerror}"
        ) from exc
    try:
        yield
    finally:
        _release()


def _is_left() -> bool:
    """Whether a run that was killed has left its policy, or another one goes on."""
    return os.path.lexists(KEPT) or _is_ours()


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


def _sentence(names: list[str], reason: str, remedy: str | None) -> str:
    failed = _dpkg_error() if _DPKG_FAILED in reason else None
    if failed:
        word, package, error = failed
        said = f"; its last word: {word}" if word else ""
        reason = f"{package}: {error.removeprefix(f'installed {package} package ')}{said}"
        remedy = f"See {TERM_LOG} there, mend the cause and run the state again."
    reason = __utils__["nova_url.mask"](reason)
    # apt's own errors say it best; else the first lines that are not pkg.installed's bookkeeping.
    errors = re.findall(r"^.*?\bE: (.+)$", reason, re.M) or reason.splitlines()
    cause = " ".join(" ".join(dict.fromkeys(errors)).split())
    if len(cause) > 400:
        cause = cause[:400].rstrip() + " …"
    named = [one for one in names if re.search(rf"(?<![\w.+-]){re.escape(one)}(?![\w+-])", reason)]
    shown = ", ".join(named or names)
    return f"Cannot install {shown}: {cause.rstrip('.')}. {remedy or _ELSEWHERE}"


def _dpkg_error() -> tuple[str, str, str] | None:
    """The first error of dpkg's in apt's last session: what was said before it, of what, and it."""
    try:
        with open(TERM_LOG, encoding="utf-8", errors="replace") as file:
            session = file.read().rpartition("\nLog started: ")[2]
    except OSError:
        return None
    found = _DPKG_ERROR.search(session.replace("\r", ""))
    return found.groups(default="") if found else None


def _names(package: str | dict) -> list[str]:
    return list(package) if isinstance(package, dict) else [package]
