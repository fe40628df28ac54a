"""
systemd units that run what they should have read, and URLs that answer.

A restart that is due is found by comparing the time at which a daemon started with the files that
it reads, so a run that died between a write and the restart loses nothing.
"""

import contextlib
import fnmatch
import logging
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

log = logging.getLogger(__name__)

#: Seconds between two looks at an address or URL; between two looks at the unit itself.
INTERVAL = 0.25
UNIT_INTERVAL = 2
#: A unit that systemd has restarted within these seconds is worth a word.
RECENT = 60

#: Salt puts in here, for each call, the results of the states that ran before, by tag, and what
#: tells this run from another. (For ``listen`` it hands over no results.)
__running__: dict = {}
__instance_id__ = ""

_RELOADING = ("reloading", "refreshing")
_ACTIVE = ("active", *_RELOADING)
_STOPPED = ("inactive", "failed")
_CAN_ENABLE = ("disabled", "enabled-runtime", "linked", "linked-runtime")
_ENABLED = ("enabled", "enabled-runtime", "linked", "linked-runtime")
_NOT_READ = {"mode", "user", "group"}
_ACTS = {"unit", "restarted", "reloaded"}


def __virtual__():
    if "nova_unit.show" in __salt__:
        return True
    return False, "The execution module nova_unit is missing (saltutil.sync_all) or has no systemd."


def running(
    name: str,
    units: list[str] | None = None,
    reads: list[str] | None = None,
    reload: bool = False,
    enable: bool = True,
    start: bool = True,
    one_at_a_time: dict | None = None,
    listens: list[list] | None = None,
    http: str | None = None,
    ca: str | None = None,
    timeout: int = 120,
    reset_failed: bool = True,
) -> dict:
    """
    A unit is enabled, runs with what its files say now, and answers.

    name : str
        The unit.
    units : list
        All units of the role: they are looked at together, by one process for the whole run.
    reads : list
        Files, globs and directories that the daemon reads when it starts; see
        ``nova_unit.outdated``. The unit's own file and drop-ins are always among them.
    reload : bool
        Reload, not restart, when only ``reads`` have changed.
    enable : bool
        Enable the unit; False leaves that as it is.
    start : bool
        Start a unit that is stopped; False leaves it stopped.
    one_at_a_time : dict
        Arguments of the site's lock (``name``, ``timeout``, ``config``), under which a restart
        happens and the daemon comes back. A first start and a reload take no lock.
    listens : list
        Pairs of address and port on which it has to listen.
    http : str
        URL that it has to answer with a status below 500.
    ca : str
        Path of the CA for that URL.
    timeout : int
        Seconds to wait, for systemd and then for ``listens`` and ``http``.
    reset_failed : bool
        Clear systemd's count of failures first, so that it does not refuse to start the unit.

    In test mode, files that earlier states of the run would change count as changed.

    .. code-block:: yaml

        nova-controller-service-nova-conductor:
          nova_unit.running:
            - name: nova-conductor
            - units: [nova-api, nova-conductor, nova-scheduler]
            - reads: [/etc/nova/nova.conf]
    """
    wanted = {"units": units or [], "reads": reads or [], "reload": reload}
    wanted |= {"enable": enable, "start": start}
    ready = {"listens": listens or [], "http": http, "ca": ca}
    ret = {"name": name, "result": True, "changes": {}, "comment": ""}
    done: dict = {}
    if __opts__["test"] and name in _acted_on():
        return {**ret, "comment": f"{name} will have been started by then."}
    try:
        changes = _changes(name, **wanted)
        if changes:
            # What was seen may be as old as the run, and another run may be at work there.
            _come_up(name, wanted["reads"], reload, timeout)
            changes = _changes(name, **wanted)
        if _ACTS.intersection(changes):
            _acted_on().append(name)
        if __opts__["test"]:
            return _predicted(ret, changes, ready)
        restarts = "restarted" in changes or ("unit" in changes and _starts(_look(name)))
        lock = one_at_a_time if restarts else None
        with __utils__["nova_db.lock"](**lock) if lock else contextlib.nullcontext():
            if lock:
                changes = _changes(name, **wanted, refresh=True)
            if changes:
                _apply(name, changes, done, timeout, reset_failed)
            _wait(name, ready, timeout)
            if changes and (left := _changes(name, **wanted, refresh=True)):
                raise CommandExecutionError(_complaint(name, f"is still to be {', '.join(left)}"))
    except (CommandExecutionError, SaltInvocationError) as exc:
        # Without skip_watch, Salt would go on to mod_watch, and forget that this has failed.
        return {**ret, "result": False, "changes": done, "comment": str(exc), "skip_watch": True}
    return {**ret, "changes": done, "comment": _summary(name, done, reads or [], reload)}


def started(name: str, units: list[str], timeout: int = 120) -> dict:
    """
    Units that are stopped are enabled and started, all at once, and not waited for.

    Daemons that need a while each come up side by side; :func:`running`, for each of them, waits
    until it is there, and tells what is wrong if it does not come.

    name : str
        Any text.
    units : list
        The units, in the order in which systemd is asked to start them.
    timeout : int
        Seconds to wait for systemd to take the jobs.

    .. code-block:: yaml

        nova-controller-service-started:
          nova_unit.started:
            - units: [nova-conductor, nova-scheduler, nova-api]
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "All of them run."}
    try:
        due = _stopped(units)
        if due:
            # What was seen may be as old as the run.
            due = _stopped(units, refresh=True)
        if not due:
            return ret
        names = list(due)
        _acted_on().extend(names)
        for unit, changes in due.items():
            ret["changes"] |= {f"{unit} {what}": change for what, change in changes.items()}
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"{', '.join(names)} will be started."}
        looks = {unit: _look(unit) for unit in names}
        if any(props["NeedDaemonReload"] == "yes" for props in looks.values()):
            __salt__["nova_unit.act"]("daemon-reload", names, timeout)
        if enable := [unit for unit in names if "enabled" in due[unit]]:
            __salt__["nova_unit.act"]("enable", enable, timeout)
        if failed := [unit for unit in names if looks[unit]["ActiveState"] == "failed"]:
            __salt__["nova_unit.act"]("reset-failed", failed, timeout)
        __salt__["nova_unit.act"]("start", names, timeout, wait=False)
    except (CommandExecutionError, SaltInvocationError) as exc:
        return {**ret, "result": False, "changes": {}, "comment": str(exc)}
    return {**ret, "comment": f"{', '.join(names)} were told to start."}


def mod_watch(name: str, sfun: str | None = None, **kwargs) -> dict:
    """
    Restart (or reload) a unit because a watched state has changed something.

    Salt calls this for ``watch`` and ``listen``. A unit that :func:`running` has started,
    restarted or reloaded in this run is left alone.

    name : str
        The unit.
    sfun : str
        The function that has the requisite.
    kwargs
        The arguments of :func:`running`.
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": ""}
    if sfun != "running":
        return {**ret, "comment": f"nova_unit.{sfun} does nothing when a watched state changes."}
    if name in _acted_on():
        return {**ret, "comment": f"{name} was started or restarted in this run already."}
    verb, past = ("reload", "reloaded") if kwargs.get("reload") else ("restart", "restarted")
    ready = {"listens": kwargs.get("listens") or [], "http": kwargs.get("http")}
    ready["ca"] = kwargs.get("ca")
    timeout = kwargs.get("timeout", 120)
    lock = kwargs.get("one_at_a_time") if verb == "restart" else None
    try:
        since = __salt__["nova_unit.outdated"](name)["since"]
        changes = {
            past: {
                "old": f"running since {since}" if since else _state(_look(name)),
                "new": "running with what watched states have changed",
            }
        }
        if __opts__["test"]:
            return {**ret, "result": None, "changes": changes, "comment": f"{name} would {verb}."}
        with __utils__["nova_db.lock"](**lock) if lock else contextlib.nullcontext():
            _act(verb, name, timeout)
            ret["changes"] = changes
            _wait(name, ready, timeout)
    except (CommandExecutionError, SaltInvocationError) as exc:
        return {**ret, "result": False, "comment": str(exc)}
    return {**ret, "comment": f"{name} was {past}."}


def dead(name: str, units: list[str] | None = None, timeout: int = 120) -> dict:
    """
    A unit is stopped and disabled; one that does not exist is so already.

    name : str
        The unit.
    units : list
        Further units to look at by the same process.
    timeout : int
        Seconds to wait until it has stopped.
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": f"{name} is stopped already."}
    done: dict = {}
    try:
        changes = _to_stop(_look(name, units))
        if changes:
            changes = _to_stop(_look(name, refresh=True))
        if not changes:
            return ret
        if __opts__["test"]:
            comment = f"{name} would be stopped and disabled."
            return {**ret, "result": None, "changes": changes, "comment": comment}
        for key, verb in (("enabled", "disable"), ("unit", "stop")):
            if key in changes:
                __salt__["nova_unit.act"](verb, name, timeout)
                done[key] = changes[key]
        if _to_stop(_look(name, refresh=True)):
            raise CommandExecutionError(_complaint(name, "did not stop or was enabled again"))
    except (CommandExecutionError, SaltInvocationError) as exc:
        return {**ret, "result": False, "changes": done, "comment": str(exc)}
    return {**ret, "changes": done, "comment": f"{name} was stopped and disabled."}


def http_answers(
    name: str,
    timeout: int = 600,
    interval: float = 2,
    status_below: int = 500,
    ca: str | None = None,
) -> dict:
    """
    An URL answers; it is waited for. Never changes anything.

    name : str
        The URL.
    timeout : int
        Seconds to wait at most.
    interval : float
        Seconds between two attempts.
    status_below : int
        An answer with this status or a higher one does not count.
    ca : str
        Path of the CA that signed the server's certificate.
    """
    url = __utils__["nova_url.mask"](name)
    ret = {"name": name, "result": True, "changes": {}, "comment": f"{url} answers."}
    start = time.monotonic()
    try:
        while problem := _unanswered(name, ca, status_below):
            waited = time.monotonic() - start
            if __opts__["test"]:
                return {**ret, "result": None, "comment": f"{problem}; will be waited for."}
            if waited >= timeout:
                raise CommandExecutionError(
                    f"{problem}, {timeout} s long: see that the service behind it runs and that "
                    "its host name leads there."
                )
            log.info("%s; waiting for it since %d of %d s", problem, waited, timeout)
            time.sleep(min(interval, max(0.0, timeout - waited)))
    except (CommandExecutionError, SaltInvocationError) as exc:
        return {**ret, "result": False, "comment": str(exc)}
    return ret


def _stopped(units: list[str], refresh: bool = False) -> dict[str, dict]:
    """What is due on each unit that is to be started, and that nobody has told systemd to."""
    __salt__["nova_unit.show"](units, refresh)
    wanted = {"units": units, "reads": [], "reload": False, "enable": True, "start": True}
    due = {unit: _changes(unit, **wanted) for unit in units}
    return {
        unit: changes
        for unit, changes in due.items()
        if "unit" in changes and not _has_job(_look(unit))
    }


def _come_up(name: str, reads: list[str], reload: bool, timeout: int) -> None:
    """Look again; wait for a unit that a run, this or another one, has told to start."""
    start = time.monotonic()
    while True:
        props = _look(name, refresh=True)
        told = _has_job(props) or (name in _acted_on() and _starts(props))
        if __opts__["test"] or not told or time.monotonic() - start >= timeout:
            return
        if _starts(props) and __salt__["nova_unit.outdated"](name, reads, reload)["restart"]:
            return
        time.sleep(INTERVAL)


def _has_job(props: dict) -> bool:
    # A busy systemd has the job for a moment before the unit's state says so.
    return props["Job"] not in ("", "0")


def _starts(props: dict) -> bool:
    return props["ActiveState"] == "activating"


def _look(name: str, units: list[str] | None = None, refresh: bool = False) -> dict:
    return __salt__["nova_unit.show"]([name] if refresh else [name, *(units or [])], refresh)[name]


def _state(props: dict) -> str:
    """A unit's state in words, with what systemd does about it if that is under way."""
    if props["LoadState"] == "not-found" and props["ActiveState"] in _STOPPED:
        return "not installed"
    if props["ActiveState"] in _ACTIVE + _STOPPED:
        return props["ActiveState"]
    return f"{props['ActiveState']} ({props['SubState']})"


def _to_stop(props: dict) -> dict:
    changes = {}
    if props["UnitFileState"] in _ENABLED:
        changes["enabled"] = {"old": props["UnitFileState"], "new": "disabled"}
    if props["ActiveState"] not in _STOPPED:
        changes["unit"] = {"old": _state(props), "new": "inactive"}
    return changes


def _changes(
    name: str,
    *,
    units: list[str],
    reads: list[str],
    reload: bool,
    enable: bool,
    start: bool,
    refresh: bool = False,
) -> dict:
    props = _look(name, units, refresh)
    if props["LoadState"] == "not-found":
        if not __opts__["test"]:
            raise CommandExecutionError(
                f"The unit {name} does not exist on this host: install the package that brings "
                "it, or correct its name in nova:lookup."
            )
    elif props["LoadState"] != "loaded":
        raise CommandExecutionError(
            f"The unit {name} cannot run, systemd says it is {props['LoadState']}: "
            f"`systemctl {'unmask' if props['LoadState'] == 'masked' else 'status'} {name}`."
        )
    changes = {}
    absent = props["LoadState"] == "not-found"
    if enable and (absent or props["UnitFileState"] in _CAN_ENABLE):
        old = "not installed" if absent else props["UnitFileState"]
        changes["enabled"] = {"old": old, "new": "enabled"}
    if props["ActiveState"] not in _ACTIVE:
        if start:
            changes["unit"] = {"old": _state(props), "new": "active"}
        return changes
    due = __salt__["nova_unit.outdated"](name, reads, reload)
    restart, again = due["restart"], due["reload"]
    if __opts__["test"]:
        definition = [props["FragmentPath"], f"/etc/systemd/system/{props['Id']}.d/*"]
        restart = _merged(restart, _to_be_changed(definition if reload else definition + reads))
        again = _merged(again, _to_be_changed(reads) if reload else [])
    if props["NeedDaemonReload"] == "yes" and not restart:
        restart = ["unit file"]
    if restart:
        changes["restarted"] = _older(due["since"], restart)
    elif again:
        changes["reloaded"] = _older(due["since"], again)
    return changes


def _merged(found: list[str], predicted: list[str]) -> list[str]:
    return [*found, *(path for path in predicted if path not in found)]


def _older(since: str, files: list[str]) -> dict[str, str]:
    return {
        "old": f"running since {since} with an older {', '.join(sorted(files))}",
        "new": "running with the present one",
    }


def _to_be_changed(reads: list[str]) -> list[str]:
    """Files whose content earlier states of a test run would change."""
    found = []
    for tag, result in __running__.items():
        path = tag.split("_|-")[2]
        if set(result.get("changes") or ()) - _NOT_READ and any(
            fnmatch.fnmatch(path, pattern) for pattern in reads if pattern
        ):
            found.append(path)
    return found


def _acted_on() -> list[str]:
    """The units that this run has started, restarted or reloaded, or would."""
    return __context__.setdefault(f"nova_unit.acted_on.{__instance_id__}", [])


def _predicted(ret: dict, changes: dict, ready: dict) -> dict:
    name = ret["name"]
    if changes:
        will = ["started" if key == "unit" else key for key in changes]
        comment = f"{name} will be {' and '.join(will)}."
        return {**ret, "result": None, "changes": changes, "comment": comment}
    problem = _problem(**ready)
    if problem:
        return {**ret, "result": None, "comment": f"{name} runs; {problem}: will be waited for."}
    return {**ret, "comment": _unchanged(_look(name))}


def _apply(name: str, changes: dict, done: dict, timeout: int, reset_failed: bool) -> None:
    """Make the changes; ``done`` holds those that were made, also when one fails."""
    props = _look(name)
    if props["NeedDaemonReload"] == "yes":
        __salt__["nova_unit.act"]("daemon-reload", name, timeout)
    if "enabled" in changes:
        __salt__["nova_unit.act"]("enable", name, timeout)
        done["enabled"] = changes["enabled"]
    if "unit" in changes:
        if reset_failed and props["ActiveState"] == "failed":
            __salt__["nova_unit.act"]("reset-failed", name, timeout)
        # One that hangs in its start has not read what may have changed since.
        _act("restart" if _starts(props) else "start", name, timeout)
        done["unit"] = changes["unit"]
    elif "restarted" in changes:
        _act("restart", name, timeout)
        done["restarted"] = changes["restarted"]
    elif "reloaded" in changes:
        _act("reload", name, timeout)
        done["reloaded"] = changes["reloaded"]


def _act(verb: str, name: str, timeout: int) -> None:
    """Start, restart or reload a unit; a failure says what the daemon said."""
    try:
        __salt__["nova_unit.act"](verb, name, timeout)
    except CommandExecutionError as exc:
        late = _look(name)["ActiveState"] not in _STOPPED
        what = f"did not {verb} within {timeout} s" if late else f"did not {verb}"
        raise CommandExecutionError(_complaint(name, what)) from exc
    start = time.monotonic()
    # A reload goes on after systemctl has come back.
    while _look(name, refresh=True)["ActiveState"] in _RELOADING:
        if time.monotonic() - start >= timeout:
            raise CommandExecutionError(_complaint(name, f"did not {verb} within {timeout} s"))
        time.sleep(INTERVAL)
    if _look(name)["ActiveState"] not in _ACTIVE:
        raise CommandExecutionError(_complaint(name, f"did not {verb}"))


def _unanswered(url: str, ca: str | None, status_below: int = 500) -> str:
    shown = __utils__["nova_url.mask"](url)
    answer = __salt__["nova_unit.http_answer"](url, ca=ca)
    if answer["status"] is None:
        return f"{shown} does not answer ({answer['reason']})"
    if answer["status"] >= status_below:
        return f"{shown} answers with the status {answer['status']}"
    return ""


def _problem(listens: list, http: str | None, ca: str | None) -> str:
    missing = __salt__["nova_unit.not_listening"](listens) if listens else []
    if missing:
        return f"nothing listens on {', '.join(missing)}"
    return _unanswered(http, ca) if http else ""


def _wait(name: str, ready: dict, timeout: int) -> None:
    start = looked = time.monotonic()
    while problem := _problem(**ready):
        now = time.monotonic()
        if now - start >= timeout:
            raise CommandExecutionError(
                _complaint(name, f"is not ready after {timeout} s: {problem}")
            )
        if now - looked >= UNIT_INTERVAL:
            looked = now
            log.info("%s: %s; waiting for it since %d of %d s", name, problem, now - start, timeout)
            if _look(name, refresh=True)["ActiveState"] in _STOPPED:
                raise CommandExecutionError(_complaint(name, f"is not ready: {problem}"))
        time.sleep(INTERVAL)


def _complaint(name: str, what: str) -> str:
    props = _look(name, refresh=True)
    state = _state(props)
    if props["SubState"].startswith("auto-restart"):
        state = f"flapping, {state}, with {props['NRestarts']} restarts"
    if props["Result"] not in ("", "success"):
        state += f", result {props['Result']}, status {props['ExecMainStatus']}"
    if props["ConditionResult"] == "no" and props["ActiveState"] == "inactive":
        state += ", a condition of the unit is not met"
    error = __salt__["nova_unit.last_error"](name)
    said = f'; its last error: "{error}"' if error else ""
    return f"{name} {what}. It is {state}{said}. See `journalctl -u {name}` and its log file."


def _unchanged(props: dict) -> str:
    name = props["Id"].removesuffix(".service")
    if props["ActiveState"] in _STOPPED:
        return f"{name} is stopped, and stays so."
    return f"{name} is enabled and running."


def _summary(name: str, done: dict, reads: list[str], reload: bool) -> str:
    if done:
        was = ["started" if key == "unit" else key for key in done]
        return f"{name} was {' and '.join(was)}."
    props = _look(name)
    comment = _unchanged(props)
    up = time.clock_gettime(time.CLOCK_MONOTONIC) - props["ActiveEnterTimestampMonotonic"] / 1e6
    if props["NRestarts"] and up < RECENT:
        comment += (
            f" systemd has restarted it {props['NRestarts']} times, last {up:.0f} s ago: it may "
            f"be flapping, see `journalctl -u {name}`."
        )
    future = __salt__["nova_unit.outdated"](name, reads, reload)["future"]
    if future:
        comment += f" {', '.join(future)}: its time has yet to come, so a restart due is not seen."
    return comment
