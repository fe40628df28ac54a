"""The sections of the balancer, as the real haproxy serves them."""

import contextlib
import http.client
import http.server
import itertools
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT
from test_map import changed, run_map

sys.path.insert(0, str(ROOT / "test"))
from certificates import Authority  # noqa: E402

pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
HEAD = "defaults\n timeout connect 1s\n timeout client 5s\n timeout server 5s\n"
VIP, NODES = "127.0.0.40", ("127.0.0.60", "127.0.0.70")


def configuration(port=8774, tls=None, **haproxy):
    pillar = changed("lb1", ports={"api": port}, vip=VIP, tls=tls or {})
    pillar["haproxy"] = {"bind_address": VIP, **haproxy}
    pillar["topology"]["controller"] = dict(zip(("ctl1", "ctl2"), NODES, strict=True))
    sections = run_map(pillar, "lb1")["sections"]
    return HEAD + "".join(
        f"listen {name}\n" + "".join(f"    {line}\n" for line in lines)
        for name, lines in sections.items()
    )


@pytest.mark.parametrize(
    ("mode", "health", "backup", "retries"),
    itertools.product(("tcp", "http"), ("tcp", "http"), (True, False), (0, 3)),
)
def test_haproxy_takes_every_form_without_a_warning(tmp_path, mode, health, backup, retries):
    path = tmp_path / "haproxy.cfg"
    path.write_text(configuration(mode=mode, health=health, backup=backup, retries=retries))
    done = subprocess.run(["haproxy", "-c", "-f", path], capture_output=True, text=True)
    assert (done.returncode, "WARNING" in done.stdout + done.stderr) == (0, False), done


@pytest.fixture
def fleet(tmp_path):
    """A function that starts haproxy before two APIs, of which the first answers ``status``."""
    with contextlib.ExitStack() as stack:

        def start(status=200, contexts=(None, None), client=None, **haproxy):
            with socket.create_server((NODES[0], 0)) as free:
                port = free.getsockname()[1]
            apis = [
                stack.enter_context(api(address, port, code, context))
                for address, code, context in zip(NODES, (status, 200), contexts, strict=True)
            ]
            path = tmp_path / "haproxy.cfg"
            path.write_text(configuration(port, **haproxy))
            program = stack.enter_context(subprocess.Popen(["haproxy", "-db", "-f", path]))
            stack.callback(program.kill)
            for _ in range(100):
                with contextlib.suppress(OSError):
                    socket.create_connection((VIP, port)).close()
                    break
                time.sleep(0.05)
            return apis, lambda context=client: ask(port, context)

        yield start


@contextlib.contextmanager
def api(address, port, status, context=None):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(address.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((address, port), Handler)
    if context:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop():
        server.shutdown()
        server.server_close()

    server.stop = stop
    yield server
    stop()


def ask(port, context=None):
    connection = http.client.HTTPConnection(VIP, port, timeout=5)
    if context:
        connection = http.client.HTTPSConnection(VIP, port, timeout=5, context=context)
    connection.request("GET", "/servers")
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


@pytest.mark.parametrize("mode", ["tcp", "http"])
@pytest.mark.parametrize(("health", "served"), [("tcp", {*NODES}), ("http", {NODES[1]})])
def test_an_api_that_answers_with_errors_is_seen_by_a_check_that_asks(fleet, mode, health, served):
    _, request = fleet(
        500, mode=mode, health=health, backup=False, check="check inter 100 fall 1 rise 1"
    )
    time.sleep(0.5)
    assert {request()[1] for _ in range(6)} == served


@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_no_request_fails_before_a_check_has_seen_that_an_api_is_gone(fleet, mode):
    apis, request = fleet(mode=mode, backup=False, check="check inter 60000")
    assert {request() for _ in range(6)} == {(200, node) for node in NODES}
    apis[0].stop()
    began = time.monotonic()
    assert {request() for _ in range(6)} == {(200, NODES[1])}
    assert time.monotonic() - began < 3


def test_the_second_controller_serves_once_the_first_is_seen_to_be_gone(fleet):
    apis, request = fleet(backup=True, check="check inter 100 fall 2 rise 1")
    assert {request() for _ in range(6)} == {(200, NODES[0])}
    apis[0].stop()
    time.sleep(0.5)
    assert {request() for _ in range(6)} == {(200, NODES[1])}


@pytest.fixture
def tls(tmp_path):
    """A function: the pillar's nova:tls, what ctl1 and ctl2 serve with, what a client trusts."""
    authority = Authority()
    (tmp_path / "ca.pem").write_text(authority.pem)

    def make(ends, second="ctl2"):
        contexts = []
        for name, address in (("ctl1", NODES[0]), (second, NODES[1]), ("vip", VIP)):
            path = tmp_path / f"{name}.pem"
            path.write_text("".join(authority.issue(name, address, VIP)))
            contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            contexts[-1].load_cert_chain(path)
        found = {name: str(tmp_path / "ca.pem") for name in ("ca", "cert", "key")}
        if ends:
            found["vip"] = str(path)
        return found, contexts[:2], ssl.create_default_context(cafile=tmp_path / "ca.pem")

    return make


@pytest.mark.parametrize(("ends", "mode"), [(True, "tcp"), (True, "http"), (False, "tcp")])
@pytest.mark.parametrize("health", ["tcp", "http"])
def test_tls_ends_at_the_balancer_and_begins_again_or_passes_through(
    fleet, tls, ends, mode, health
):
    given, contexts, client = tls(ends)
    _, request = fleet(
        mode=mode, health=health, tls=given, contexts=contexts, client=client, backup=False,
        check="check inter 100 fall 1 rise 1",
    )  # fmt: skip
    time.sleep(0.5)
    assert {request() for _ in range(6)} == {(200, node) for node in NODES}
    with pytest.raises((OSError, http.client.HTTPException)):
        request(None)


@pytest.mark.parametrize("ends", [True, False])
def test_a_controller_with_the_certificate_of_another_host_gets_no_request(fleet, tls, ends):
    given, contexts, client = tls(ends, second="cmp1")
    _, request = fleet(
        tls=given, contexts=contexts, client=client, backup=False,
        check="check inter 100 fall 1 rise 1",
    )  # fmt: skip
    time.sleep(0.5)
    assert {request() for _ in range(6)} == {(200, NODES[0])}
