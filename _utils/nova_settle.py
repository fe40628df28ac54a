"""
How a state brings something about: look, predict or apply, look again.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

#: How often to begin anew when others are quicker.
ROUNDS = 3


def settle(
    name: str,
    what: str,
    steps: Callable[[], list[tuple]],
    call: Callable[..., bool],
    test: bool,
    lock: Callable[[], Any] | None = None,
    forget: Callable[[], Any] | None = None,
    service: str = "Keystone",
) -> Callable[[], dict[str, Any]]:
    """
    How to apply what is due, then look again: a function that returns what a state returns.

    It is for the state to call: while a loader runs a function of its own, ``__salt__`` and
    ``__opts__`` in ``steps`` and ``call`` would be that loader's.

    name, what : str
        The state's name, and what it is about as a sentence begins.
    steps : function
        Says what is due, as a list of (changes, function, arguments).
    call : function
        Takes a step's function and arguments. False: another was quicker, so look again.
    test : bool
        Predict only.
    lock, forget : function
        Returns the site's lock, under which it is looked again after ``forget()``.
    service : str
        Who has the last word, for the error.
    """

    def run() -> dict[str, Any]:
        ret: dict[str, Any] = {"name": name, "result": False, "comment": "", "changes": {}}
        try:
            due = steps()
            if due and test:
                for changes, *_ in due:
                    ret["changes"].update(changes)
                return ret | {"result": None, "comment": f"{what} would be changed."}
            if due:
                due = _apply(steps, due, call, ret["changes"], lock, forget)
        except (CommandExecutionError, SaltInvocationError) as exc:
            return ret | {"comment": exc.strerror}
        if due:
            left = ", ".join(label for changes, *_ in due for label in changes)
            return ret | {
                "comment": f"{what} was changed, but {service} still says otherwise of: {left}. "
                f"See whether another tool changes it too, and the log of {service}."
            }
        changed = "was changed" if ret["changes"] else "is as it should be"
        return ret | {"result": True, "comment": f"{what} {changed}."}

    return run


def diff(found: dict, wanted: dict) -> dict[str, dict]:
    """
    Changes that make ``found`` what is ``wanted``; what is wanted as None is not looked at.

    found, wanted : dict
        An object as it is, and the fields that it should have.
    """
    return {
        key: {"old": found.get(key), "new": value}
        for key, value in wanted.items()
        if value is not None and found.get(key) != value
    }


def _apply(
    steps: Callable[[], list[tuple]],
    due: list[tuple],
    call: Callable[..., bool],
    done: dict,
    lock: Callable[[], Any] | None,
    forget: Callable[[], Any] | None,
) -> list[tuple]:
    """Do what is due, note in ``done`` what was done, and return what is due still."""
    with lock() if lock else contextlib.nullcontext():
        if lock:
            forget()
            due = steps()
        for _ in range(ROUNDS):
            overtaken = False
            for changes, function, arguments in due:
                if call(function, arguments):
                    done.update(changes)
                else:
                    # Another was quicker, and what it made may differ from what we want.
                    overtaken = True
            due = steps()
            if not (due and overtaken):
                break
    return due
