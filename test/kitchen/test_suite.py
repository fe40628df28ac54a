"""What a suite of kitchen.yml leaves on its node: units, ports, files."""

import os
import subprocess
from pathlib import Path

import pytest

SUITE = os.environ.get("KITCHEN_SUITE")
NODE = os.environ.get("KITCHEN_NODE", "")
LAB = Path(__file__).resolve().parents[1] / "lab"
CONTROLLER = (
    "nova-api", "nova-api-metadata", "nova-conductor", "nova-scheduler", "nova-novncproxy",
    "placement-api",
)
UNITS = {
    "controller": CONTROLLER,
    "compute": ("nova-compute", "libvirtd.socket"),
    "haproxy": ("haproxy",),
    "all-in-one": (*CONTROLLER, "nova-compute", "libvirtd.socket"),
}
PORTS = {
    "controller": (6080, 8774, 8775, 8778),
    "compute": (),
    "haproxy": (6080, 8774, 8778),
    "all-in-one": (6080, 8774, 8775, 8778),
}

pytestmark = pytest.mark.skipif(not SUITE, reason="runs as the verifier of a suite")


def on_node(*command):
    done = subprocess.run(
        [LAB, "exec", NODE, "--", *command], capture_output=True, text=True, check=False
    )
    return done.stdout


def test_units_run_and_are_enabled():
    for unit in UNITS[SUITE]:
        assert on_node("systemctl", "is-active", unit).strip() == "active", unit
        assert on_node("systemctl", "is-enabled", unit).strip() == "enabled", unit


def test_ports_listen():
    listening = on_node("ss", "-Hltn")
    for port in PORTS[SUITE]:
        assert f":{port} " in listening, port


def test_configuration_is_root_s_and_nova_s():
    if SUITE == "haproxy":
        pytest.skip("a balancer has no nova.conf")
    assert on_node("stat", "-c", "%U:%G %a", "/etc/nova/nova.conf").strip() == "root:nova 640"
