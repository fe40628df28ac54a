"""systemd units: what is due is found by looking, and done once; nothing is done twice."""

import http.server
import os
import shutil
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import salt.utils.path
from conftest import load
from salt.exceptions import CommandExecutionError, SaltInvocationError
from stub import stub

UNITS = ["nova-conductor", "nova-scheduler"]
HOUR = 3600


def now():
    """The monotonic clock in microseconds, as systemd counts."""
    return int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)


class Systemd:
    """Stands in for systemctl and journalctl: units that start, stop and need a reload."""

    def __init__(self):
        self.units, self.commands, self.refuses = {}, [], set()
        self.journal = self.broken = ""
        self.reload_takes = 0  # seconds

    def unit(self, name, **props):
        started = now() - 60 * 10**6
        self.units[f"{name}.service"] = {
            "Id": f"{name}.service",
            "Names": f"{name}.service",
            "LoadState": "loaded",
            "ActiveState": "active",
            "SubState": "running",
            "UnitFileState": "enabled",
            "FragmentPath": "",
            "DropInPaths": "",
            "NeedDaemonReload": "no",
            "Result": "success",
            "ReloadResult": "success",
            "MainPID": 7,
            "NRestarts": 0,
            "ExecMainStatus": 0,
            "ExecMainStartTimestampMonotonic": started,
            "ActiveEnterTimestampMonotonic": started + 10,
            "StateChangeTimestampMonotonic": started + 10,
            **props,
        }
        return self.units[f"{name}.service"]

    def stopped(self, name, **props):
        stop = {"ActiveState": "inactive", "SubState": "dead", "MainPID": 0}
        return self.unit(name, **{**stop, "ExecMainStartTimestampMonotonic": 0, **props})

    def __call__(self, command, **_):
        self.commands.append(command)
        answer = {"retcode": 0, "stdout": "", "stderr": "", "pid": 1}
        if self.broken:
            return {**answer, "retcode": 1, "stderr": self.broken}
        if command[0] == "journalctl":
            return {**answer, "stdout": self.journal}
        verb, names = command[1], command[command.index("--") + 1 :] if "--" in command else []
        if verb == "show":
            absent = {"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
            found = [self.units.get(name, {"Id": name, "Names": name, **absent}) for name in names]
            blocks = ("\n".join(f"{k}={v}" for k, v in props.items()) for props in found)
            return {**answer, "stdout": "\n\n".join(blocks) + "\n"}
        if verb in self.refuses:
            stderr = f"Job for {names[0]} failed because the control process exited.\nSee it."
            if verb in ("start", "restart"):
                state = {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}
                self.units[names[0]].update(state, ExecMainStatus=1)
            return {**answer, "retcode": 1, "stderr": stderr}
        if verb == "daemon-reload":
            for props in self.units.values():
                props["NeedDaemonReload"] = "no"
        for name in names:
            change = {
                "start": {"ActiveState": "active", "SubState": "running"},
                "stop": {"ActiveState": "inactive", "SubState": "dead"},
                "enable": {"UnitFileState": "enabled"},
                "disable": {"UnitFileState": "disabled"},
                "reload": {"StateChangeTimestampMonotonic": now() + 1},
                "reset-failed": {"ActiveState": "inactive"},
            }
            props, new = self.units[name], change["start" if verb == "restart" else verb]
            if verb == "reload" and self.reload_takes:
                props["ActiveState"] = "reloading"
                done = {"ActiveState": "active", "StateChangeTimestampMonotonic": now() + 10**7}
                threading.Timer(self.reload_takes, props.update, [done]).start()
                continue
            props.update(new)
            if verb in ("start", "restart"):
                clocks = ("ExecMainStart", "ActiveEnter", "StateChange")
                self.units[name].update({f"{key}TimestampMonotonic": now() for key in clocks})
        return answer

    @property
    def acts(self):
        """What was done to units, without looks."""
        return [
            " ".join(word for word in command[1:] if word != "--")
            for command in self.commands
            if command[0] == "systemctl" and command[1] != "show"
        ]

    @property
    def looks(self):
        return [command for command in self.commands if command[1] == "show"]


@pytest.fixture(autouse=True)
def systemctl_is_there(monkeypatch):
    which = salt.utils.path.which
    monkeypatch.setattr(
        salt.utils.path, "which", lambda program: program == "systemctl" or which(program)
    )


@pytest.fixture
def systemd():
    return Systemd()


@pytest.fixture
def formula(opts, testmode, systemd, tmp_path, monkeypatch):
    """The states; each looks at the fake systemd, and waits for nothing longer than it must."""
    opts["test"] = testmode
    utils, modules, states = load(opts)
    stub(modules, "cmd.run_all", side_effect=systemd)
    monkeypatch.setitem(modules["nova_unit.show"].__globals__, "SYSTEM", str(tmp_path / "system"))
    monkeypatch.setitem(states["nova_unit.running"].__globals__, "INTERVAL", 0.01)
    monkeypatch.setitem(states["nova_unit.running"].__globals__, "UNIT_INTERVAL", 0.02)
    states.loaders = (utils, modules)
    return states


@pytest.fixture
def modules(loaders, systemd, tmp_path, monkeypatch):
    _, modules, _ = loaders
    stub(modules, "cmd.run_all", side_effect=systemd)
    monkeypatch.setitem(modules["nova_unit.show"].__globals__, "SYSTEM", str(tmp_path / "system"))
    return modules


def file(path, age=HOUR, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    return str(path)


def running(states, name="nova-conductor", **kwargs):
    return states["nova_unit.running"](name, **kwargs)


# ---- The execution module ------------------------------------------------------------------------


def test_all_units_are_seen_by_one_process(modules, systemd):
    for name in UNITS:
        systemd.unit(name)
    seen = modules["nova_unit.show"]([*UNITS, "nova-conductor.service"])
    assert list(seen) == [*UNITS, "nova-conductor.service"]
    assert seen["nova-scheduler"]["Id"] == "nova-scheduler.service"
    assert seen["nova-scheduler"]["MainPID"] == 7
    assert modules["nova_unit.show"](["nova-scheduler"])["nova-scheduler"]["NRestarts"] == 0
    assert len(systemd.commands) == 1


def test_a_unit_that_was_changed_is_looked_at_again_and_no_other(modules, systemd):
    for name in UNITS:
        systemd.unit(name)
    modules["nova_unit.show"](UNITS)
    modules["nova_unit.act"]("stop", "nova-scheduler")
    assert modules["nova_unit.show"](UNITS)["nova-scheduler"]["ActiveState"] == "inactive"
    assert systemd.looks[-1][-1] == "nova-scheduler.service"
    assert systemd.looks[-1][-2] == "--"


def test_a_unit_that_is_absent_is_looked_at_again_once_units_came(
    modules, systemd, monkeypatch, tmp_path
):
    show = modules["nova_unit.show"]
    monkeypatch.setitem(show.__globals__, "UNIT_PATHS", (str(tmp_path),))
    assert show(["nova-api"])["nova-api"]["LoadState"] == "not-found"
    assert show(["nova-api"])["nova-api"]["LoadState"] == "not-found"
    assert len(systemd.commands) == 1
    systemd.unit("nova-api")
    os.utime(tmp_path, (1, 1))
    assert show(["nova-api"])["nova-api"]["LoadState"] == "loaded"


def test_what_was_seen_long_ago_is_not_trusted(modules, systemd, monkeypatch):
    systemd.unit("nova-api")
    modules["nova_unit.show"](["nova-api"])
    monkeypatch.setitem(modules["nova_unit.show"].__globals__, "FRESH", -1)
    modules["nova_unit.show"](["nova-api"])
    assert len(systemd.commands) == 2


def test_a_host_without_systemd_gives_one_sentence(modules, systemd):
    systemd.broken = "System has not been booted with systemd as init system (PID 1).\nx"
    with pytest.raises(CommandExecutionError, match=r"`systemctl show nova-api.service` failed: S"):
        modules["nova_unit.show"](["nova-api"])


def test_an_unknown_verb_is_refused(modules, systemd):
    with pytest.raises(SaltInvocationError):
        modules["nova_unit.act"]("poweroff", "nova-api")
    assert systemd.commands == []


def test_a_drop_in_that_systemd_overlooked_needs_a_daemon_reload(modules, systemd, tmp_path):
    props = systemd.unit("nova-api")
    show = modules["nova_unit.show"]
    assert show(["nova-api"])["nova-api"]["NeedDaemonReload"] == "no"
    directory = tmp_path / "system" / "nova-api.service.d"
    path = file(directory / "bind.conf")
    (directory / "off.conf").symlink_to(os.devnull)
    assert show(["nova-api"])["nova-api"]["NeedDaemonReload"] == "yes"
    props["DropInPaths"] = path
    assert show(["nova-api"], refresh=True)["nova-api"]["NeedDaemonReload"] == "no"
    os.remove(path)
    assert show(["nova-api"])["nova-api"]["NeedDaemonReload"] == "yes"


def outdated(modules, reads, **kwargs):
    return modules["nova_unit.outdated"]("nova-api", reads, **kwargs)


def test_files_younger_than_the_daemon_make_a_restart_due(modules, systemd, tmp_path):
    systemd.unit("nova-api")
    conf = file(tmp_path / "nova.conf", age=1)
    file(tmp_path / "old.conf")
    assert outdated(modules, [str(tmp_path / "*.conf"), "/none"])["restart"] == [conf]
    assert outdated(modules, [conf], reload=True) == {
        **outdated(modules, []),
        "reload": [conf],
    }


def test_a_chmod_makes_nothing_due(modules, systemd, tmp_path):
    systemd.unit("nova-api")
    conf = file(tmp_path / "nova.conf")
    os.chmod(conf, 0o600)
    assert os.stat(conf).st_ctime > time.time() - 60
    assert outdated(modules, [conf])["restart"] == []


def test_a_link_that_points_elsewhere_makes_a_restart_due(modules, systemd, tmp_path):
    systemd.unit("nova-api")
    link = tmp_path / "ca.pem"
    link.symlink_to(file(tmp_path / "old.pem"))
    assert outdated(modules, [str(link)])["restart"] == [str(link)]


def test_a_file_that_went_makes_a_restart_due_by_its_directory(modules, systemd, tmp_path):
    systemd.unit("nova-api")
    conf = file(tmp_path / "conf.d" / "a.conf")
    os.utime(tmp_path / "conf.d", (1, 1))
    reads = [str(tmp_path / "conf.d"), str(tmp_path / "conf.d" / "*.conf")]
    assert outdated(modules, reads)["restart"] == []
    os.remove(conf)
    assert outdated(modules, reads)["restart"] == [str(tmp_path / "conf.d")]


def test_a_time_that_has_yet_to_come_makes_nothing_due(modules, systemd, tmp_path):
    systemd.unit("nova-api")
    conf = file(tmp_path / "nova.conf", age=-HOUR)
    found = outdated(modules, [conf])
    assert (found["restart"], found["future"]) == ([], [conf])


def test_a_wall_clock_that_was_set_back_hides_no_restart(modules, systemd, tmp_path, monkeypatch):
    systemd.unit("nova-api")
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() - HOUR)
    assert outdated(modules, [file(tmp_path / "new", age=30)])["restart"]
    assert not outdated(modules, [file(tmp_path / "old", age=90)])["restart"]


def test_a_daemon_that_does_not_run_has_read_nothing(modules, systemd, tmp_path):
    systemd.stopped("nova-api")
    assert outdated(modules, [file(tmp_path / "nova.conf", age=0)])["since"] is None


def test_after_a_reload_only_later_files_are_due(modules, systemd, tmp_path):
    props = systemd.unit("nova-api")
    conf = file(tmp_path / "haproxy.cfg", age=30)
    props["StateChangeTimestampMonotonic"] = now() - 20 * 10**6
    assert outdated(modules, [conf], reload=True)["reload"] == []
    file(tmp_path / "haproxy.cfg", age=10)
    assert outdated(modules, [conf], reload=True)["reload"] == [conf]


def test_a_reload_that_failed_has_read_nothing(modules, systemd, tmp_path):
    props = systemd.unit("nova-api", ReloadResult="exit-code")
    props["StateChangeTimestampMonotonic"] = now()
    conf = file(tmp_path / "haproxy.cfg", age=30)
    assert outdated(modules, [conf], reload=True)["reload"] == [conf]


def test_a_file_written_while_the_daemon_came_up_is_due_for_a_reload(modules, systemd, tmp_path):
    # It became active 20 s ago, 40 s after it was started; when it has read the file, who knows.
    up = now() - 20 * 10**6
    systemd.unit("nova-api", ActiveEnterTimestampMonotonic=up, StateChangeTimestampMonotonic=up)
    conf = file(tmp_path / "haproxy.cfg", age=30)
    assert outdated(modules, [conf], reload=True)["reload"] == [conf]


def test_a_younger_unit_file_needs_a_restart_also_where_a_reload_would_do(
    modules, systemd, tmp_path
):
    path = file(tmp_path / "nova-api.service", age=1)
    systemd.unit("nova-api", FragmentPath=path)
    found = outdated(modules, [], reload=True)
    assert (found["restart"], found["reload"]) == ([path], [])


@pytest.fixture
def tables(modules, tmp_path, monkeypatch):
    """Tables as the kernel of a little-endian machine writes them."""
    monkeypatch.setitem(modules["nova_unit.show"].__globals__, "PROC_NET", str(tmp_path))
    scope = modules["nova_unit.show"].__globals__
    monkeypatch.setattr(scope["sys"], "byteorder", "little")
    head = "  sl  local_address rem_address   st\n"

    def write(tcp=(), tcp6=()):
        for name, rows in (("tcp", tcp), ("tcp6", tcp6)):
            lines = (f"   {n}: {local} 0:0 {state} 0\n" for n, (local, state) in enumerate(rows))
            (tmp_path / name).write_text(head + "".join(lines))

    write()
    return write


@pytest.mark.parametrize(
    ("address", "local", "listens"),
    [
        ("10.20.0.60", "3C00140A:2246", True),
        ("10.20.0.60", "00000000:2246", True),
        ("10.20.0.60", "3D00140A:2246", False),
        ("10.20.0.60", "3C00140A:2247", False),
        ("0.0.0.0", "3C00140A:2246", False),
        ("0.0.0.0", "00000000:2246", True),
        ("*", "3C00140A:2246", True),
        ("*", "3C00140A:2247", False),
        ("10.20.0.60", "00000000000000000000000000000000:2246", True),
        ("10.20.0.60", "0000000000000000FFFF00003C00140A:2246", True),
        ("::", "00000000000000000000000000000000:2246", True),
        ("::1", "00000000000000000000000001000000:2246", True),
        ("[::1]", "00000000000000000000000001000000:2246", True),
        ("2001:db8::1", "B80D0120000000000000000001000000:2246", True),
        ("2001:db8::1", "3C00140A:2246", False),
    ],
)
def test_an_address_listens_as_the_kernel_says(modules, tables, address, local, listens):
    tables(**{"tcp6" if len(local) > 13 else "tcp": [(local, "0A")]})
    missing = modules["nova_unit.not_listening"]([[address, 8774]])
    assert missing == ([] if listens else [f"{address}:8774"])


def test_a_connection_is_no_listener(modules, tables):
    tables(tcp=[("3C00140A:2246", "01")])
    assert modules["nova_unit.not_listening"]([["10.20.0.60", 8774]]) == ["10.20.0.60:8774"]


def test_a_name_without_address_is_an_error_that_says_so(modules, tables):
    with pytest.raises(CommandExecutionError, match="no-such-host.invalid"):
        modules["nova_unit.not_listening"]([["no-such-host.invalid", 8774]])


def test_a_real_listener_is_seen(modules):
    with socket.create_server(("127.0.0.1", 0)) as server:
        listens = [["localhost", server.getsockname()[1]]]
        assert modules["nova_unit.not_listening"](listens) == []
    assert modules["nova_unit.not_listening"](listens) != []


class Answers(http.server.BaseHTTPRequestHandler):
    statuses: list[int] = []

    def do_GET(self):
        status = self.statuses.pop(0) if self.statuses else 200
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def url():
    Answers.statuses = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("status", [200, 300, 302, 401, 404, 503])
def test_every_status_is_an_answer(modules, url, status):
    Answers.statuses = [status]
    assert modules["nova_unit.http_answer"](url) == {"status": status, "reason": ""}


def test_no_proxy_is_asked(modules, url, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert modules["nova_unit.http_answer"](url)["status"] == 200


def test_no_answer_has_a_reason(modules):
    answer = modules["nova_unit.http_answer"]("http://127.0.0.1:1/")
    assert answer == {"status": None, "reason": "Connection refused"}


@pytest.mark.parametrize("bad", ["file:///etc/passwd", "10.20.0.40:8774", "http:///"])
def test_what_is_no_url_is_refused(modules, bad):
    with pytest.raises(SaltInvocationError, match="is no URL"):
        modules["nova_unit.http_answer"](bad)


def test_an_unreadable_ca_is_named(modules):
    with pytest.raises(CommandExecutionError, match="/no/ca.pem"):
        modules["nova_unit.http_answer"]("https://127.0.0.1:1/", ca="/no/ca.pem")


def test_the_last_error_is_the_daemon_s_own_with_credentials_masked(modules, systemd):
    systemd.journal = (
        "Started nova-conductor.service - x.\n"
        "ERROR oslo: cannot reach rabbit://openstack:s3@cret@mq:5672/\n"
        "bye\n"
        "nova-conductor.service: Failed with result 'exit-code'.\n"
        "Failed to start nova-conductor.service - x.\n"
    )
    said = modules["nova_unit.last_error"]("nova-conductor")
    assert said == "ERROR oslo: cannot reach rabbit://***@mq:5672/"


@pytest.mark.skipif(not shutil.which("systemctl"), reason="systemctl is not installed")
def test_the_real_systemctl_takes_the_command(loaders):
    # Without a running systemd it fails later than by its arguments.
    show = loaders[1]["nova_unit.show"]
    try:
        assert show(["no-such-unit"])["no-such-unit"]["LoadState"] == "not-found"
    except CommandExecutionError as exc:
        assert "systemd" in str(exc) or "bus" in str(exc)


# ---- running -------------------------------------------------------------------------------------


def test_a_converged_role_starts_one_process_and_changes_nothing(formula, systemd, tmp_path):
    conf = file(tmp_path / "nova.conf")
    for name in UNITS:
        systemd.unit(name)
    for name in UNITS:
        ret = running(formula, name, units=UNITS, reads=[conf])
        assert (ret["result"], ret["changes"]) == (True, {})
    assert len(systemd.commands) == 1


def test_a_stopped_unit_is_enabled_and_started(formula, systemd, testmode):
    systemd.stopped("nova-conductor", UnitFileState="disabled")
    ret = running(formula)
    assert ret["changes"] == {
        "enabled": {"old": "disabled", "new": "enabled"},
        "unit": {"old": "inactive", "new": "active"},
    }
    assert ret["result"] is (None if testmode else True)
    acts = ["enable nova-conductor.service", "start nova-conductor.service"]
    assert systemd.acts == ([] if testmode else acts)


def test_a_reload_that_takes_its_time_is_waited_for(formula, systemd, testmode, tmp_path):
    systemd.unit("nova-conductor")
    systemd.reload_takes = 1
    conf = file(tmp_path / "nova.conf", age=1)
    ret = running(formula, reads=[conf], reload=True)
    assert ret["result"] is (None if testmode else True), ret["comment"]


def test_a_unit_may_stay_disabled(formula, systemd):
    systemd.unit("nova-conductor", UnitFileState="disabled")
    assert running(formula, enable=False)["changes"] == {}


def test_a_stopped_unit_may_stay_stopped(formula, systemd, testmode):
    systemd.stopped("nova-conductor", UnitFileState="disabled")
    ret = running(formula, enable=False, start=False)
    assert (ret["result"], ret["changes"], systemd.acts) == (True, {}, [])
    assert ret["comment"] == "nova-conductor is stopped, and stays so."


@pytest.mark.parametrize("state", ["static", "indirect", "generated", "alias"])
def test_what_cannot_be_enabled_is_no_drift(formula, systemd, state):
    systemd.unit("nova-conductor", UnitFileState=state)
    assert running(formula)["changes"] == {}


def test_systemd_s_count_of_failures_is_cleared_before_a_start(formula, systemd, testmode):
    systemd.stopped("nova-conductor", ActiveState="failed", SubState="failed")
    ret = running(formula)
    assert ret["changes"] == {"unit": {"old": "failed", "new": "active"}}
    acts = ["reset-failed nova-conductor.service", "start nova-conductor.service"]
    assert systemd.acts == ([] if testmode else acts)


@pytest.mark.parametrize(
    ("reload", "done"), [(False, "restarted"), (True, "reloaded")], ids=["restart", "reload"]
)
def test_a_younger_file_is_read_once(formula, systemd, testmode, tmp_path, reload, done):
    systemd.unit("nova-conductor")
    conf = file(tmp_path / "nova.conf", age=1)
    ret = running(formula, reads=[conf], reload=reload)
    since = ret["changes"][done]["old"].partition(" with ")[0]
    assert since.startswith("running since 2")
    assert ret["changes"] == {
        done: {"old": f"{since} with an older {conf}", "new": "running with the present one"}
    }
    assert ret["result"] is (None if testmode else True)
    assert systemd.acts == ([] if testmode else [f"{done[:-2]} nova-conductor.service"])
    if not testmode:
        assert running(formula, reads=[conf], reload=reload)["changes"] == {}


def test_a_daemon_that_hangs_in_its_start_reads_anew(formula, systemd, testmode):
    systemd.unit("nova-compute", ActiveState="activating", SubState="start")
    ret = running(formula, "nova-compute")
    assert ret["changes"] == {"unit": {"old": "activating (start)", "new": "active"}}
    assert systemd.acts == ([] if testmode else ["restart nova-compute.service"])


def test_each_unit_with_another_definition_is_restarted(formula, systemd, testmode):
    # The first daemon-reload makes systemd forget that the second unit needs a restart as well.
    for name in UNITS:
        systemd.unit(name, NeedDaemonReload="yes")
    rets = [running(formula, name, units=UNITS) for name in UNITS]
    assert all("older unit file" in ret["changes"]["restarted"]["old"] for ret in rets)
    restarts = [act for act in systemd.acts if act.startswith("restart")]
    assert restarts == ([] if testmode else [f"restart {name}.service" for name in UNITS])
    if not testmode:
        assert systemd.acts[0] == "daemon-reload"
        assert [running(formula, name)["changes"] for name in UNITS] == [{}, {}]


def test_a_unit_that_starts_first_gets_its_new_drop_in(formula, systemd, testmode, tmp_path):
    path = file(tmp_path / "system" / "nova-api.service.d" / "bind.conf")
    props = systemd.stopped("nova-api")
    running(formula, "nova-api")
    assert systemd.acts == ([] if testmode else ["daemon-reload", "start nova-api.service"])
    props["DropInPaths"] = path


def test_an_absent_unit_is_predicted_and_in_a_real_run_a_failure(formula, systemd, testmode):
    ret = running(formula)
    if testmode:
        assert ret["result"] is None
        assert ret["changes"] == {
            "enabled": {"old": "not installed", "new": "enabled"},
            "unit": {"old": "not installed", "new": "active"},
        }
    else:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert "The unit nova-conductor does not exist on this host" in ret["comment"]


def test_a_masked_unit_is_a_failure_with_the_way_out(formula, systemd):
    systemd.stopped("nova-conductor", LoadState="masked")
    ret = running(formula)
    assert ret["result"] is False
    assert "systemctl unmask nova-conductor" in ret["comment"]


@pytest.fixture
def lock(formula):
    """The site's lock; the list holds what was taken, and what was done under it."""
    events = []

    @contextmanager
    def held(name, timeout=900, config=""):
        events.append(("taken", name))
        yield
        events.append(("released", name))

    stub(formula.loaders[0], "nova_db.lock", side_effect=held)
    return events


def test_a_restart_holds_the_site_s_lock(formula, systemd, lock, testmode, tmp_path):
    systemd.unit("nova-conductor")
    conf = file(tmp_path / "nova.conf", age=1)
    running(formula, reads=[conf], one_at_a_time={"name": "shanghai"})
    assert lock == ([] if testmode else [("taken", "shanghai"), ("released", "shanghai")])


@pytest.mark.parametrize("reload", [False, True])
def test_a_first_start_and_a_reload_take_no_lock(formula, systemd, lock, tmp_path, reload):
    (systemd.unit if reload else systemd.stopped)("nova-conductor")
    conf = file(tmp_path / "nova.conf", age=1)
    ret = running(formula, reads=[conf], reload=reload, one_at_a_time={"name": "shanghai"})
    assert ret["changes"]
    assert lock == []


def test_a_restart_that_somebody_else_made_meanwhile_is_not_made_again(
    formula, systemd, testmode, tmp_path
):
    systemd.unit("nova-conductor")
    conf = file(tmp_path / "nova.conf", age=1)

    @contextmanager
    def slow(name, timeout=900, config=""):
        systemd.unit("nova-conductor", ExecMainStartTimestampMonotonic=now())
        yield

    stub(formula.loaders[0], "nova_db.lock", side_effect=slow)
    ret = running(formula, reads=[conf], one_at_a_time={"name": "shanghai"})
    assert bool(ret["changes"]) is testmode
    assert systemd.acts == []


@pytest.mark.parametrize(
    "props",
    [
        {"ActiveState": "deactivating", "SubState": "stop-sigterm"},
        {"ActiveState": "inactive", "SubState": "dead"},
        {"ActiveState": "activating", "SubState": "start"},
    ],
    ids=["stops", "stopped", "starts"],
)
def test_a_restart_that_another_run_is_making_is_waited_for(
    formula, systemd, lock, tmp_path, props
):
    if props["ActiveState"] == "activating":
        props = {**props, "ExecMainStartTimestampMonotonic": now()}
    systemd.unit("nova-conductor")
    conf = file(tmp_path / "nova.conf", age=1)
    formula.loaders[1]["nova_unit.show"](["nova-conductor"])
    systemd.unit("nova-conductor", Job="77", **props)
    done = {"ExecMainStartTimestampMonotonic": now()}
    threading.Timer(0.1, systemd.unit, ["nova-conductor"], done).start()
    assert formula["nova_unit.started"]("nova", ["nova-conductor"])["changes"] == {}
    ret = running(formula, reads=[conf], one_at_a_time={"name": "shanghai"})
    if ret["result"]:
        assert (ret["changes"], lock) == ({}, [])
    assert systemd.acts == []


def test_one_that_starts_without_what_is_new_is_restarted_under_the_lock(
    formula, systemd, lock, testmode, tmp_path
):
    systemd.unit("nova-conductor", ActiveState="activating", SubState="start", Job="77")
    conf = file(tmp_path / "nova.conf", age=1)
    ret = running(formula, reads=[conf], one_at_a_time={"name": "shanghai"})
    assert ret["changes"] == {"unit": {"old": "activating (start)", "new": "active"}}
    assert systemd.acts == ([] if testmode else ["restart nova-conductor.service"])
    assert lock == ([] if testmode else [("taken", "shanghai"), ("released", "shanghai")])


def test_a_lock_that_is_not_had_is_a_failure_without_a_change(formula, systemd, testmode, tmp_path):
    systemd.unit("nova-conductor")
    busy = CommandExecutionError("The lock nova:shanghai was not free within 900 s.")
    stub(formula.loaders[0], "nova_db.lock", side_effect=busy)
    conf = file(tmp_path / "nova.conf", age=1)
    ret = running(formula, reads=[conf], one_at_a_time={"name": "shanghai"})
    if not testmode:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert ret["comment"] == str(busy)
    assert systemd.acts == []


def test_a_start_that_fails_says_what_the_daemon_said(formula, systemd, testmode):
    systemd.stopped("nova-conductor", UnitFileState="disabled")
    systemd.refuses = {"start"}
    systemd.journal = "CRITICAL nova: mysql+pymysql://nova:s3cret@db/nova: refused\n"
    ret = running(formula)
    assert ret["result"] is (None if testmode else False)
    if not testmode:
        assert ret["changes"] == {"enabled": {"old": "disabled", "new": "enabled"}}
        assert ret["comment"] == (
            "nova-conductor did not start. It is failed, result exit-code, status 1; its last "
            'error: "CRITICAL nova: mysql+pymysql://***@db/nova: refused". See `journalctl -u '
            "nova-conductor` and its log file."
        )
        # Else Salt would restart it because of a watch, and report that instead.
        assert ret["skip_watch"]


def test_a_daemon_that_flaps_while_it_is_waited_for_is_called_so(formula, systemd, testmode):
    props = systemd.stopped("nova-conductor")
    flapping = {"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": 4}
    checks = []

    def not_listening(listens):
        checks.append(listens)
        props.update(flapping, Result="exit-code", ExecMainStatus=1)
        return ["10.20.0.60:8774"]

    stub(formula.loaders[1], "nova_unit.not_listening", side_effect=not_listening)
    ret = running(formula, listens=[["10.20.0.60", 8774]], timeout=0)
    if not testmode:
        assert ret["result"] is False
        assert "nothing listens on 10.20.0.60:8774" in ret["comment"]
        assert "It is flapping, activating (auto-restart), with 4 restarts" in ret["comment"]
        assert checks


def test_a_daemon_that_dies_while_it_is_waited_for_is_not_waited_for(formula, systemd, testmode):
    props = systemd.unit("nova-conductor")

    def not_listening(listens):
        props.update(ActiveState="failed", SubState="failed")
        return ["10.20.0.60:8774"]

    stub(formula.loaders[1], "nova_unit.not_listening", side_effect=not_listening)
    start = time.monotonic()
    ret = running(formula, listens=[["10.20.0.60", 8774]], timeout=60)
    assert time.monotonic() - start < 20
    assert ret["result"] is (None if testmode else False)


def test_it_waits_until_the_daemon_listens_and_answers(formula, systemd, testmode, url):
    systemd.unit("nova-api")
    Answers.statuses = [503, 500]
    with socket.create_server(("127.0.0.1", 0)) as server:
        listens = [["127.0.0.1", server.getsockname()[1]]]
        ret = running(formula, "nova-api", listens=listens, http=url, timeout=20)
    assert ret["changes"] == {}
    assert ret["result"] is (None if testmode else True)
    if testmode:
        assert "answers with the status 503: will be waited for" in ret["comment"]
    else:
        assert Answers.statuses == []


def test_files_that_earlier_states_of_a_test_run_would_change_count(formula, systemd, tmp_path):
    conf = file(tmp_path / "nova.conf")
    systemd.unit("nova-conductor")
    formula.inject_globals = {
        "__running__": {
            f"file_|-a_|-{conf}_|-managed": {"result": None, "changes": {"diff": "+ x"}},
            "file_|-b_|-/etc/other_|-managed": {"result": None, "changes": {"diff": "+ x"}},
        }
    }
    changes = running(formula, reads=[str(tmp_path / "*.conf")])["changes"]
    # In a real run, the file itself tells: here it was not written, so nothing is due.
    if formula.loaders[1].opts["test"]:
        assert changes["restarted"]["old"].endswith(f" with an older {conf}")
    else:
        assert changes == {}


def test_a_mode_that_an_earlier_state_would_change_does_not_count(formula, systemd, tmp_path):
    conf = file(tmp_path / "nova.conf")
    systemd.unit("nova-conductor")
    result = {"result": None, "changes": {"mode": "0640"}}
    formula.inject_globals = {"__running__": {f"file_|-a_|-{conf}_|-managed": result}}
    assert running(formula, reads=[conf])["changes"] == {}


def test_a_time_that_has_yet_to_come_is_mentioned(formula, systemd, tmp_path):
    systemd.unit("nova-conductor")
    ret = running(formula, reads=[file(tmp_path / "nova.conf", age=-HOUR)])
    assert (ret["result"], ret["changes"]) == (True, {})
    if not formula.loaders[1].opts["test"]:
        assert "has yet to come" in ret["comment"]


def test_a_daemon_that_was_restarted_a_moment_ago_is_mentioned(formula, systemd, testmode):
    systemd.unit("nova-conductor", NRestarts=9, ActiveEnterTimestampMonotonic=now() - 10**6)
    ret = running(formula)
    assert ret["result"] is True
    assert ("9 times" in ret["comment"]) is not testmode


# ---- started -------------------------------------------------------------------------------------


def test_stopped_units_start_side_by_side_and_are_waited_for_one_by_one(
    formula, systemd, testmode
):
    systemd.stopped("nova-conductor", UnitFileState="disabled")
    systemd.unit("nova-api")
    systemd.stopped("nova-scheduler", ActiveState="failed")
    ret = formula["nova_unit.started"]("nova", ["nova-conductor", "nova-api", "nova-scheduler"])
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {
        "nova-conductor enabled": {"old": "disabled", "new": "enabled"},
        "nova-conductor unit": {"old": "inactive", "new": "active"},
        "nova-scheduler unit": {"old": "failed", "new": "active"},
    }
    acts = [
        "enable nova-conductor.service",
        "reset-failed nova-scheduler.service",
        "start --no-block nova-conductor.service nova-scheduler.service",
    ]
    assert systemd.acts == ([] if testmode else acts)
    for name in UNITS:
        assert running(formula, name)["changes"] == {}
    assert systemd.acts == ([] if testmode else acts)


def test_what_runs_is_not_started_and_costs_one_look(formula, systemd):
    for name in UNITS:
        systemd.unit(name)
    assert formula["nova_unit.started"]("nova", UNITS)["changes"] == {}
    for name in UNITS:
        running(formula, name, units=UNITS)
    assert len(systemd.commands) == 1


def test_one_that_ended_after_it_was_told_to_start_is_a_failure(formula, systemd, testmode):
    systemd.stopped("nova-conductor")
    formula["nova_unit.started"]("nova", ["nova-conductor"])
    systemd.stopped("nova-conductor")
    systemd.refuses = {"start"}
    ret = running(formula)
    assert ret["result"] is testmode


@pytest.mark.parametrize(
    "props",
    [
        {"ActiveState": "activating", "SubState": "start"},
        {"ActiveState": "inactive", "SubState": "dead", "Job": "77"},
    ],
)
def test_one_that_takes_its_time_is_waited_for_and_not_started_again(
    formula, systemd, testmode, props
):
    systemd.stopped("nova-conductor")
    formula["nova_unit.started"]("nova", ["nova-conductor"])
    systemd.unit("nova-conductor", **props)
    threading.Timer(0.1, systemd.unit, ["nova-conductor"]).start()
    ret = running(formula)
    assert (ret["result"], ret["changes"]) == (True, {})
    assert len(systemd.acts) == (0 if testmode else 1)


# ---- mod_watch, dead, http_answers ---------------------------------------------------------------


def test_a_watched_change_restarts(formula, systemd, testmode):
    systemd.unit("nova-conductor")
    ret = formula["nova_unit.mod_watch"]("nova-conductor", sfun="running", reads=["/none"])
    assert list(ret["changes"]) == ["restarted"]
    assert ret["result"] is (None if testmode else True)
    assert systemd.acts == ([] if testmode else ["restart nova-conductor.service"])


def test_a_watched_change_reloads_where_that_is_enough(formula, systemd, testmode):
    systemd.unit("haproxy")
    ret = formula["nova_unit.mod_watch"]("haproxy", sfun="running", reload=True)
    assert list(ret["changes"]) == ["reloaded"]
    assert systemd.acts == ([] if testmode else ["reload haproxy.service"])


@pytest.mark.parametrize("first", ["started", "restarted", "reloaded"])
def test_a_unit_that_this_run_has_started_is_not_restarted_by_listen(
    formula, systemd, tmp_path, first
):
    (systemd.stopped if first == "started" else systemd.unit)("nova-conductor")
    conf, reload = file(tmp_path / "nova.conf", age=1), first == "reloaded"
    assert running(formula, reads=[conf], reload=reload)["changes"]
    acts = systemd.acts
    ret = formula["nova_unit.mod_watch"]("nova-conductor", sfun="running", reload=reload)
    assert (ret["result"], ret["changes"], systemd.acts) == (True, {}, acts)


def test_a_unit_that_another_run_has_started_or_this_one_enabled_is_restarted(formula, systemd):
    systemd.stopped("nova-conductor")
    systemd.unit("nova-scheduler", UnitFileState="disabled")
    assert running(formula)["changes"]
    assert running(formula, "nova-scheduler")["changes"]
    assert formula["nova_unit.mod_watch"]("nova-scheduler", sfun="running")["changes"]
    formula.inject_globals = {"__instance_id__": "another"}
    assert formula["nova_unit.mod_watch"]("nova-conductor", sfun="running")["changes"]


def test_a_watched_change_restarts_under_the_lock(formula, systemd, lock, testmode):
    systemd.unit("nova-conductor")
    site = {"name": "shanghai"}
    formula["nova_unit.mod_watch"]("nova-conductor", sfun="running", one_at_a_time=site)
    assert lock == ([] if testmode else [("taken", "shanghai"), ("released", "shanghai")])


def test_other_states_do_nothing_when_a_watched_state_changes(formula, systemd):
    ret = formula["nova_unit.mod_watch"]("nova-conductor", sfun="dead")
    assert (ret["result"], ret["changes"], systemd.commands) == (True, {}, [])


def test_a_unit_is_stopped_and_disabled(formula, systemd, testmode):
    systemd.unit("nova-consoleauth")
    ret = formula["nova_unit.dead"]("nova-consoleauth")
    assert ret["changes"] == {
        "enabled": {"old": "enabled", "new": "disabled"},
        "unit": {"old": "active", "new": "inactive"},
    }
    assert ret["result"] is (None if testmode else True)
    acts = ["disable nova-consoleauth.service", "stop nova-consoleauth.service"]
    assert systemd.acts == ([] if testmode else acts)
    if not testmode:
        assert formula["nova_unit.dead"]("nova-consoleauth")["changes"] == {}


@pytest.mark.parametrize("state", ["absent", "stopped", "failed"])
def test_what_is_dead_already_is_left_alone(formula, systemd, state):
    if state != "absent":
        props = {} if state == "stopped" else {"ActiveState": "failed"}
        systemd.stopped("nova-consoleauth", UnitFileState="disabled", **props)
    ret = formula["nova_unit.dead"]("nova-consoleauth")
    assert (ret["result"], ret["changes"], systemd.acts) == (True, {}, [])


def test_a_stop_that_fails_shows_what_was_done_before(formula, systemd, testmode):
    systemd.unit("nova-consoleauth")
    systemd.refuses = {"stop"}
    ret = formula["nova_unit.dead"]("nova-consoleauth")
    assert ret["result"] is (None if testmode else False)
    if not testmode:
        assert ret["changes"] == {"enabled": {"old": "enabled", "new": "disabled"}}
        assert "`systemctl stop nova-consoleauth.service` failed" in ret["comment"]


def test_an_url_that_answers_is_not_waited_for(formula, url):
    ret = formula["nova_unit.http_answers"](url)
    assert (ret["result"], ret["changes"]) == (True, {})


def test_an_url_is_waited_for_until_it_answers(formula, testmode, url):
    Answers.statuses = [503, 503]
    ret = formula["nova_unit.http_answers"](url, timeout=20, interval=0.01)
    assert ret["result"] is (None if testmode else True)
    assert ret["changes"] == {}
    assert len(Answers.statuses) == (1 if testmode else 0)


def test_a_wait_is_bounded_and_says_for_what(formula, testmode):
    name = "http://nova:s3cret@127.0.0.1:1/"
    ret = formula["nova_unit.http_answers"](name, timeout=0.05, interval=0.01)
    assert ret["result"] is (None if testmode else False)
    assert ret["comment"].startswith("http://***@127.0.0.1:1/ does not answer (")
    assert "s3cret" not in ret["comment"]


def test_a_status_can_be_asked_for(formula, testmode, url):
    Answers.statuses = [404] * 100
    ret = formula["nova_unit.http_answers"](url, timeout=0.05, interval=0.01, status_below=400)
    assert ret["result"] is (None if testmode else False)
    assert "answers with the status 404" in ret["comment"]
