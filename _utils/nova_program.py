"""
nova-manage and its like, run as their own user, with a clean environment and no secret among the
arguments; they do not outlive the job that started them.
"""

import contextlib
import ctypes
import functools
import importlib.util
import logging
import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Iterator

from salt.exceptions import CommandExecutionError

log = logging.getLogger(__name__)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOVA_CONF = "/etc/nova/nova.conf"
OK = 0
#: An exception that nothing caught: from Train on. Stein gives 1, which is made this one.
UNCAUGHT = 255
_UNCAUGHT_STEIN = 1
_USAGE = 2
_TRACEBACK = "Traceback (most recent call last)"
_PR_SET_PDEATHSIG = 1
#: What SQLAlchemy says after the cause.
_STATEMENT = re.compile(r"^\[SQL: .*?(?=^\(Background on|\Z)", re.DOTALL | re.MULTILINE)
#: Lines at the end of a failing program's output that do not name the cause.
_NOISE = re.compile(
    r"\(Background on this error|\[parameters|\s*\^|\+-|Modules with known eventlet"
)


def manage(
    *args: str,
    timeout: int,
    failures: dict[int, str] | None = None,
    success: tuple[int, ...] = (OK,),
    program: str = "nova-manage",
    user: str = "nova",
    config: str = "",
    held=None,
) -> tuple[int, str]:
    """
    Run nova-manage; its exit code, one of ``success``, and what it printed.

    args : str
        Its arguments, the first two of which name the command.
    timeout : int
        Seconds after which it is killed.
    failures : dict
        What other exit codes mean.
    success : tuple
        Exit codes that are none of a failure.
    program, user : str
        Another program of this kind, and whose it is.
    config : str
        Text of a configuration file that is laid over nova.conf; it may hold secrets.
    held
        The site's lock (nova_db.lock): the program is killed when it is lost.

    Raises CommandExecutionError; ``exc.info`` holds the exit code, 255 for what nothing caught,
    and ``exc.output`` what it printed.
    """
    with secret_file(config, user) as (path, descriptor):
        # A --config-file replaces the default ones, so nova.conf is named with it.
        files = [f"--config-file={each}" for each in (NOVA_CONF, path)] if config else []
        argv = [program, *files, *args]
        code, out, err = run(user, argv, timeout, held, (descriptor,) if config else ())
    # Stein's code for a crash is another's for a success: archive_deleted_rows' for one.
    if code == _UNCAUGHT_STEIN and _TRACEBACK in out + err:
        code = UNCAUGHT
    if code in success:
        return code, out
    meaning = (failures or {}).get(code)
    if code == _USAGE and "usage:" in err:
        meaning = "it does not know these arguments"
    command = f"{program} {args[0]} {args[1]}"
    why = f"code {code}" if code >= 0 else f"signal {-code}: another program killed it"
    exc = failure(
        f"{command} failed with {why}{f' ({meaning})' if meaning else ''}: "
        f"{cause(out) or cause(err) or 'it printed nothing'}",
        code,
    )
    exc.output = out
    raise exc


def failure(message: str, info: int | str | None) -> CommandExecutionError:
    """A CommandExecutionError with ``info``, which its constructor would write below the text."""
    exc = CommandExecutionError(message)
    exc.info = info
    return exc


def cause(output: str) -> str:
    """
    The last line of a program's output that says something, masked.

    output : str
        What it printed; SQL statements and hints of SQLAlchemy's are passed over.
    """
    text = _STATEMENT.sub("", output)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not _NOISE.match(line)]
    return _sibling("nova_url").mask(lines[-1]) if lines else ""


def account(user: str) -> pwd.struct_passwd:
    """
    The account of a user.

    user : str
        Its name. Raises CommandExecutionError when there is none.
    """
    try:
        return pwd.getpwnam(user)
    except KeyError as exc:
        raise CommandExecutionError(
            f"There is no user {user} here: apply nova.controller.package first."
        ) from exc


@contextlib.contextmanager
def secret_file(text: str, user: str) -> Iterator[tuple[str, int]]:
    """
    A file for a program's eyes only, and in memory only: none is left, however this process ends.

    text : str
        What it holds.
    user : str
        Whose group may read it: it is root's, with mode 0640.

    Yields its path, as the program sees it, and the descriptor that the program must inherit.
    """
    descriptor = os.memfd_create("nova-manage.conf")
    try:
        os.write(descriptor, text.encode())
        if os.geteuid() == 0:
            os.fchown(descriptor, 0, account(user).pw_gid)
        os.fchmod(descriptor, 0o640)
        yield f"/proc/self/fd/{descriptor}", descriptor
    finally:
        os.close(descriptor)


def run(
    user: str, argv: list[str], timeout: int, held=None, descriptors: tuple[int, ...] = ()
) -> tuple[int, str, str]:
    """
    Run a program; its exit code and what it wrote to its two outputs.

    user : str
        As whom, with the groups of that user.
    argv : list
        The program and its arguments.
    timeout : int
        Seconds after which it is killed, with all that it started.
    held
        The site's lock (nova_db.lock): the program is killed when it is lost.
    descriptors : tuple
        Open files that it inherits.

    Raises CommandExecutionError when it cannot be started, or was killed.
    """
    who = account(user)
    identity = {}
    if os.geteuid() == 0:
        groups = os.getgrouplist(user, who.pw_gid)
        identity = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": groups}
    # Looked up here: between fork and exec nothing may be done that takes a lock.
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def die_with_parent() -> None:
        # Runs after the change of user, which would reset it.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    log.info("Running as %s: %s", user, " ".join(argv))
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            cwd="/",
            env={"PATH": PATH, "LANG": "C.UTF-8", "HOME": who.pw_dir},
            start_new_session=True,
            pass_fds=descriptors,
            preexec_fn=die_with_parent,  # noqa: PLW1509
            **identity,
        )
    except FileNotFoundError as exc:
        raise CommandExecutionError(
            f"There is no program {argv[0]} here: apply nova.controller.package first."
        ) from exc
    except OSError as exc:
        raise CommandExecutionError(
            f"{argv[0]} cannot be run as {user}: {exc.strerror}. Run Salt as root."
        ) from exc
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                out, err = process.communicate(timeout=1)
                return process.returncode, out, err
            except subprocess.TimeoutExpired:
                if held is not None and held.lost.is_set():
                    why = "because the site's lock was lost; run the state again"
                elif time.monotonic() >= deadline:
                    why = f"because it was not done within {timeout} s; see what it waits for"
                else:
                    continue
            raise CommandExecutionError(f"{argv[0]} was killed {why}.")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@functools.lru_cache
def _sibling(name: str):
    """Another of the formula's utils: Salt gives ``__utils__`` to modules and states only."""
    path = os.path.join(os.path.dirname(__file__), f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{__name__}_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
