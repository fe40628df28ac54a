"""Servers that get no connections for a while, by the real haproxy and its statistics socket."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time

import pytest
from conftest import load
from salt.exceptions import SaltInvocationError
from test_balancer import HEAD, NODES, VIP, api, ask

pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
GLOBAL = "global\n stats socket {} level {}\n"
SERVER = " server {} {}:{} check inter 100 fall 1 rise 1\n"
NAMES = dict(zip(("ctl1", "ctl2"), NODES, strict=True))


@pytest.fixture
def haproxy(tmp_path, request):
    """haproxy with two APIs behind it, in two sections; the second stands for consoles."""
    with contextlib.ExitStack() as stack:
        with socket.create_server((NODES[0], 0)) as free, socket.create_server((VIP, 0)) as other:
            port, console = free.getsockname()[1], other.getsockname()[1]
        stats = tmp_path / "s"
        text = GLOBAL.format(stats, getattr(request, "param", "admin")) + HEAD
        for name, at in (("api", port), ("console", console)):
            text += f"listen {name}\n bind {VIP}:{at}\n mode tcp\n"
            text += "".join(SERVER.format(host, node, port) for host, node in NAMES.items())
        (tmp_path / "haproxy.cfg").write_text(text)
        apis = [stack.enter_context(api(node, port, 200)) for node in NODES]
        command = ["haproxy", "-db", "-f", tmp_path / "haproxy.cfg"]
        program = stack.enter_context(subprocess.Popen(command))
        stack.callback(program.kill)
        while not stats.exists():
            time.sleep(0.02)
        yield Balancer(str(stats), port, console, apis)


class Balancer:
    def __init__(self, stats, port, console, apis):
        self.stats, self.port, self.console, self.apis = stats, port, console, apis

    def served(self):
        return {ask(self.port)[1] for _ in range(6)}


def drained(opts, haproxy, *servers, test=False, timeout=5, unserved=()):
    states = load({**opts, "test": test})[2]
    return states["nova_haproxy.drained"](
        haproxy.stats, ["api", "console"], list(servers), ["console"], timeout, list(unserved)
    )


def changes(**servers):
    words = {"drained": ("ready", "drained"), "ready": ("drained", "ready")}
    return {
        f"{section}/{server}": dict(zip(("old", "new"), words[new], strict=True))
        for section in ("api", "console")
        for server, new in servers.items()
    }


def test_a_server_is_drained_and_put_back(opts, haproxy):
    assert haproxy.served() == {*NODES}
    for servers, due, left in (
        (["ctl1"], changes(ctl1="drained"), {NODES[1]}),
        (["ctl2"], changes(ctl1="ready", ctl2="drained"), {NODES[0]}),
        ([], changes(ctl2="ready"), {*NODES}),
    ):
        before = haproxy.served()
        predicted = drained(opts, haproxy, *servers, test=True)
        assert (predicted["result"], predicted["changes"]) == (None, due)
        assert haproxy.served() == before
        ret = drained(opts, haproxy, *servers)
        assert (ret["result"], ret["changes"]) == (True, due)
        assert haproxy.served() == left
        again = drained(opts, haproxy, *servers)
        assert (again["result"], again["changes"]) == (True, {})


def connected(port):
    link = socket.create_connection((VIP, port))
    link.sendall(b"GET / HTTP/1.1\r\n")  # an answer is not due yet
    time.sleep(0.2)
    return link


def test_sessions_are_waited_for_but_those_of_consoles(opts, haproxy):
    links = [connected(haproxy.port) for _ in NODES]
    consoles = [connected(haproxy.console) for _ in NODES]
    threading.Timer(1, lambda: [link.close() for link in links]).start()
    began = time.monotonic()
    assert drained(opts, haproxy, "ctl1")["result"] is True
    assert 0.7 < time.monotonic() - began < 4
    for console in consoles:
        console.close()


def test_sessions_that_do_not_end_in_time_leave_the_server_where_it_was(opts, haproxy):
    links = [connected(haproxy.port) for _ in NODES]
    ret = drained(opts, haproxy, "ctl1", timeout=1)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "api/ctl1 still had 1 sessions after 1 s" in ret["comment"]
    for link in links:
        link.close()
    assert haproxy.served() == {*NODES}


def test_the_last_server_of_a_section_is_not_drained(opts, haproxy):
    haproxy.apis[1].stop()
    time.sleep(0.5)
    ret = drained(opts, haproxy, "ctl1")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"].startswith("Without ctl1 nobody would serve api")
    assert haproxy.served() == {NODES[0]}


def test_where_nobody_serves_yet_nothing_is_taken_away(opts, haproxy):
    haproxy.apis[1].stop()
    time.sleep(0.5)
    assert drained(opts, haproxy, "ctl1", unserved=["api", "console"])["result"] is False
    haproxy.apis[0].stop()
    time.sleep(0.5)
    assert drained(opts, haproxy, "ctl1")["result"] is False
    ret = drained(opts, haproxy, "ctl1", unserved=["api", "console"])
    assert (ret["result"], ret["changes"]) == (True, changes(ctl1="drained"))


def test_one_that_was_drained_before_the_others_went_serves_again(opts, haproxy):
    assert drained(opts, haproxy, "ctl1")["result"] is True
    haproxy.apis[1].stop()
    time.sleep(0.5)
    ret = drained(opts, haproxy, "ctl1")
    assert (ret["result"], ret["changes"]) == (False, changes(ctl1="ready"))
    assert haproxy.served() == {NODES[0]}


def test_one_that_was_put_back_and_is_down_stops_the_rollout(opts, haproxy):
    assert drained(opts, haproxy, "ctl1")["result"] is True
    haproxy.apis[0].stop()
    time.sleep(0.5)
    ret = drained(opts, haproxy, "ctl2", timeout=1)
    assert ret["result"] is False and "api/ctl1" in ret["comment"]
    assert ret["changes"] == changes(ctl1="ready")
    assert haproxy.served() == {NODES[1]}


def test_a_server_in_maintenance_stays_there(opts, haproxy):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(haproxy.stats)
        link.sendall(b"set server api/ctl1 state maint; set server console/ctl1 state maint\n")
        link.recv(100)
    for servers in (["ctl1"], []):
        ret = drained(opts, haproxy, *servers)
        assert (ret["result"], ret["changes"]) == (True, {})
    assert haproxy.served() == {NODES[1]}


@pytest.mark.parametrize("haproxy", ["operator"], indirect=True)
def test_a_socket_without_the_right_to_drain_is_named(opts, haproxy):
    ret = drained(opts, haproxy, "ctl1")
    assert ret["result"] is False and "level admin" in ret["comment"]


def test_what_is_not_there_is_named(opts, haproxy, testmode):
    assert "no server ctl3" in drained(opts, haproxy, "ctl3", test=testmode)["comment"]
    haproxy.stats = "/nonexistent"
    assert "nova:haproxy:socket" in drained(opts, haproxy, "ctl1", test=testmode)["comment"]


@pytest.mark.parametrize("name", ["a b", "a/b", "a;b", "a\nb", ""])
def test_a_name_says_nothing_else_to_haproxy(loaders, haproxy, name):
    with pytest.raises(SaltInvocationError, match="is no name"):
        loaders[1]["nova_haproxy.drain"]("api", name, haproxy.stats)
