"""What it is all for: Nova boots a guest, and its console is seen through the balancer."""

import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from conftest import ROOT, on

pytestmark = pytest.mark.usefixtures("fleet")


def colours(png):
    """The number of different bytes in a PNG's pixel data: a blank picture has very few."""
    data, position = b"", 8
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        if png[position + 4 : position + 8] == b"IDAT":
            data += png[position + 8 : position + 8 + length]
        position += 12 + length
    return len(set(zlib.decompress(data)))


def test_the_demo_boots_a_guest_and_shows_its_console():
    done = subprocess.run([ROOT / "test" / "demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "ACTIVE" in done.stdout
    (picture,) = {word for word in done.stdout.split() if word.endswith(".png")}
    png = Path(picture).read_bytes()
    assert png.startswith(b"\x89PNG") and colours(png) > 4
    log = on("infra", "openstack", "console", "log", "show", "demo")
    assert "nova-formula guest is up" in log
