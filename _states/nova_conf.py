"""
Configuration files that hold secrets: written whole, their changes shown without them.
"""

import functools
import grp
import logging
import os
import pwd
import shlex
import time
from typing import Any

import salt.utils.files
import salt.utils.templates
from salt.exceptions import CommandExecutionError, SaltRenderError

log = logging.getLogger(__name__)

#: What file.managed calls the change of a content.
_CONTENT = {"diff", "newfile"}
#: How a file of the formula's begins: one that a package brought has no account worth a look.
OURS = "# Managed by Salt (nova formula)"
#: Seconds between two looks at an account that is waited for.
INTERVAL = 5


def managed(
    name: str,
    source: str,
    user: str,
    group: str,
    mode: str = "0640",
    context: dict[str, Any] | None = None,
    imports: list[str] | None = None,
    awaits: list[str] | None = None,
    timeout: int | None = None,
    checker: str | None = None,
    ini: bool = True,
) -> dict[str, Any]:
    """
    A configuration file is what a template says; the changes name each option, secrets masked.

    It is replaced in one step. ``file.managed`` sees to owner and mode; what it would show as a
    diff, secrets in it, never leaves here. Where it changes an account of a file that the formula
    wrote before, that account is tried first, and the file stays as it is until it works.

    name : str
        Path of the file.
    source : str
        The template, a ``salt://`` URL. It reads secrets itself, so that none is an argument.
    user, group, mode : str
        Of the file. In test mode a user that a package has yet to bring is no fault.
    context : dict
        Variables of the template.
    imports : list
        What else the template needs of the file server: salt-ssh sends along what a state names.
    awaits : list
        Users of Keystone that controllers make: a new one is waited for.
    timeout : int
        Seconds to wait for them; None where this run makes them later: they are not tried then.
    checker : str
        A command that fails, given the path of a new file, if the file is not good; then the old
        one stays.
    ini : bool
        False for a file without sections and options: its changes are shown line by line.

    .. code-block:: yaml

        nova-config-nova-conf:
          nova_conf.managed:
            - name: /etc/nova/nova.conf
            - source: salt://nova/files/openstack.conf.jinja
            - user: root
            - group: nova
            - context: {program: nova}
    """
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    try:
        text = _rendered(source, context or {})
        before = _text(name)
        if ini and before != text and (before or "").startswith(OURS):
            _try_accounts(name, text, before, awaits, timeout)
        written = _written(name, text, text != before, user, group, mode, checker)
    except CommandExecutionError as exc:
        ret["comment"] = exc.strerror
        return ret
    if not written["changes"] and written["result"] is not False:
        return {**ret, "result": True, "comment": f"{name} is as it should be."}
    ret["result"] = written["result"]
    if written["result"] is False:
        ret["comment"] = written["comment"]
        return ret
    ret["changes"] = {k: v for k, v in written["changes"].items() if k not in _CONTENT}
    if _CONTENT.intersection(written["changes"]):
        diff = __utils__["nova_conf.diff" if ini else "nova_conf.diff_lines"]
        ret["changes"].update(diff(before or "", text))
    if not ret["changes"]:
        ret["changes"]["text"] = {"old": "other comments or another order", "new": "the template's"}
    ret["comment"] = f"{name} {'would be' if ret['result'] is None else 'was'} written."
    return ret


def accounts_work(
    name: str,
    source: str,
    context: dict[str, Any] | None = None,
    imports: list[str] | None = None,
    made: list[str] | None = None,
) -> dict[str, Any]:
    """
    Every account that a configuration file would get anew works. Nothing is written.

    name, source, context, imports
        As for :func:`managed`.
    made : list
        Users of Keystone that states before this one make. In test mode neither they nor accounts
        of databases are tried.

    .. code-block:: yaml

        nova-controller-proof-nova-conf:
          nova_conf.accounts_work:
            - name: /etc/nova/nova.conf
            - source: salt://nova/files/openstack.conf.jinja
            - context: {program: nova}
    """
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    try:
        tried = _try_accounts(name, _rendered(source, context or {}), _text(name) or "", made, 0)
    except CommandExecutionError as exc:
        return {**ret, "comment": exc.strerror}
    comment = f"New accounts that work: {', '.join(tried)}." if tried else "No account is new."
    return {**ret, "result": True, "comment": comment}


def _try_accounts(
    name: str, text: str, before: str, made: list[str] | None, timeout: int | None
) -> list[str]:
    """
    Try the accounts that one text has and the other has not; where they stand.

    Raises CommandExecutionError with what is wrong with the first that does not work.
    """
    had = __utils__["nova_conf.accounts"](before)
    tried, done = [], []
    deadline = time.monotonic() + (timeout or 0)
    for where, account in __utils__["nova_conf.accounts"](text).items():
        ours = account.get("auth", {}).get("username") in (made or ())
        if had.get(where) == account or (ours and timeout is None):
            continue
        if __opts__["test"] and (ours or account["kind"] == "database"):
            continue  # the run makes it
        tried.append(where)
        if account in done:
            continue
        while found := __salt__["nova_login.fault"](account, f"{where} of {name}"):
            if not ours or time.monotonic() >= deadline:
                raise CommandExecutionError(f"{name} stays as it is. {found}")
            log.info("%s Waiting for a controller to make it", found)
            time.sleep(INTERVAL)
        done.append(account)
    return tried


def _rendered(source: str, context: dict[str, Any]) -> str:
    path = __salt__["cp.cache_file"](source, __env__)
    if not path:
        raise CommandExecutionError(
            f"The template {source} is not on the Salt file server: check file_roots."
        )
    # Not slsutil.renderer: that one writes what it rendered into the debug log.
    try:
        done = salt.utils.templates.JINJA(
            path,
            to_str=True,
            salt=__salt__,
            grains=__grains__,
            pillar=__pillar__,
            opts=__opts__,
            saltenv=__env__,
            tmplpath=path,
            context=context,
        )
        error = None if done["result"] else str(done["data"])
    except SaltRenderError as exc:
        error = str(exc)
    if error:
        last = [line for line in error.splitlines() if line.strip()][-1]
        raise CommandExecutionError(f"The template {source} cannot be rendered: {last}")
    return done["data"].rstrip("\n") + "\n"


def _text(path: str) -> str | None:
    try:
        with salt.utils.files.fopen(path) as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CommandExecutionError(f"Cannot read {path}: {exc.strerror}.") from exc


def _written(
    name: str, text: str, due: bool, user: str, group: str, mode: str, checker: str | None
) -> dict[str, Any]:
    owned = {"user": user, "group": group, "mode": mode, "show_changes": False}
    if __opts__["test"]:
        if not os.path.isdir(os.path.dirname(name)):
            # The package that brings the directory is yet to be installed.
            return {"result": None, "changes": {"newfile": name}, "comment": ""}
        return __states__["file.managed"](name, contents=text, **owned)
    written = {"result": True, "changes": {}}
    if os.path.exists(name):
        written = __states__["file.managed"](name, replace=False, **owned)
    if due and written["result"]:
        ids = _ids(user, group)
        check = functools.partial(_check, checker, name) if checker else None
        if __utils__["nova_file.replace"](name, text, *ids, int(mode, 8), check):
            written["changes"]["diff"] = "masked by who calls"
    return written


def _check(checker: str, name: str, path: str) -> None:
    """Fail if a program does not take a file that is to be ``name``."""
    command = [*shlex.split(checker), path]
    done = __salt__["cmd.run_all"](command, python_shell=False, ignore_retcode=True)
    if done["retcode"]:
        said = " ".join(f"{done['stdout']} {done['stderr']}".replace(path, name).split())
        raise CommandExecutionError(
            f"{command[0]} refuses the new {name}, so the old one stays: "
            f"{said.rstrip('.') or 'exit code ' + str(done['retcode'])}."
        )


def _ids(user: str, group: str) -> tuple[int, int]:
    try:
        return pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as exc:
        raise CommandExecutionError(
            f"There is no {exc.args[0].split(':')[-1].strip()} here: install the package that "
            "brings it."
        ) from exc
