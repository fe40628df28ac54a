"""What a run meets on its way: it says in one sentence what is wrong and what to do, what serves
goes on as it was, and when the fault is gone the next run converges.
"""

import base64
import contextlib
import io
import json
import tarfile
import time
from pathlib import Path

import _time_machine
import pytest
import time_machine
from conftest import apply, nothing_is_left, on, sh, sql

pytestmark = pytest.mark.usefixtures("fleet")

UNITS = "nova-api nova-conductor nova-scheduler nova-novncproxy placement-api"
#: A package whose script does what stands for SCRIPT.
PACKAGE = r"""
mkdir -p /srv/faults/NAME/DEBIAN
printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\n' NAME \
    > /srv/faults/NAME/DEBIAN/control
printf 'Description: of a test\n' >> /srv/faults/NAME/DEBIAN/control
printf '#!/bin/sh\nSCRIPT\n' > /srv/faults/NAME/DEBIAN/postinst
chmod 755 /srv/faults/NAME/DEBIAN/postinst
dpkg-deb --build /srv/faults/NAME /srv/faults/NAME.deb > /dev/null
cd /srv/faults
for deb in *.deb; do
    dpkg-deb --field "$deb"
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" \
        "$(sha256sum "$deb" | cut -d' ' -f1)"
done > Packages
echo 'deb [trusted=yes] file:/srv/faults ./' > /etc/apt/sources.list.d/faults.list
apt-get -qq update
"""


def processes(host, units=UNITS):
    return sh(host, f"systemctl show --property=MainPID,ActiveState {units}")


def said(run):
    """What failed of a run, by state id, but for what was waiting for that."""
    found = {}
    for minion, state, comment in run.failed():
        if "requisite" not in comment:
            print(f"{minion} {state}: {comment}")
            assert "\n" not in comment and "Traceback" not in comment, comment
            found[state] = comment
    assert found
    return found


def converges(host, changes=None):
    """The fault is gone: one run puts all right, the next finds nothing to do."""
    began = time.monotonic()
    run = apply(target=host)
    assert run.failed() == []
    if changes is not None:
        assert bool(run.changed()) is changes, run.changed()
    print(f"{host}: converged in {time.monotonic() - began:.0f} s")
    again = apply(target=host)
    assert (again.failed(), again.changed()) == ([], [])


@contextlib.contextmanager
def full(host, directory):
    """A directory on a disk of its own, without a byte left."""
    sh(
        host,
        f"cp -a {directory} /run/whole; mode=$(stat -c %a {directory}); "
        f"owner=$(stat -c %U:%G {directory}); "
        f"mount -t tmpfs -o size=1m,mode=$mode tmpfs {directory}; chown $owner {directory}; "
        f"cp -a /run/whole/. {directory}; rm -r /run/whole; "
        f"dd if=/dev/zero of={directory}/filler bs=4k 2>/dev/null || true",
    )
    try:
        yield lambda: sh(host, f"rm -f {directory}/filler")
    finally:
        sh(host, f"umount --lazy {directory}")


def test_a_full_disk_under_the_configuration(fleet):
    before = processes("ctl1")
    with full("ctl1", "/etc/nova") as make_room:
        # In place, for there is no room: the region is one letter off.
        sh(
            "ctl1",
            "printf 'S' | dd of=/etc/nova/nova.conf bs=1 conv=notrunc 2>/dev/null seek="
            "$(grep -b -o -m1 RegionOne /etc/nova/nova.conf | head -n1 | cut -d: -f1)",
        )
        spoiled = sh("ctl1", "sha256sum < /etc/nova/nova.conf; ls -A /etc/nova")
        assert (
            "No space left on device; make room there"
            in said(apply(target="ctl1"))["nova-config-nova-conf"]
        )
        assert sh("ctl1", "sha256sum < /etc/nova/nova.conf; ls -A /etc/nova") == spoiled
        assert processes("ctl1") == before
        make_room()
        converges("ctl1", changes=True)
    converges("ctl1")
    nothing_is_left()


def test_a_full_disk_under_the_state_of_nova(fleet):
    before = processes("ctl1")
    with full("ctl1", "/var/lib/nova") as make_room:
        on("ctl1", "truncate", "--size=0", "/var/lib/nova/cells.json")
        sh("ctl1", "dd if=/dev/zero of=/var/lib/nova/more bs=1k 2>/dev/null || true")
        failed = said(apply(target="ctl1"))
        assert (
            "No space left on device; make room there"
            in failed["nova-controller-schema-cells-recorded"]
        )
        assert processes("ctl1") == before
        on("ctl1", "rm", "/var/lib/nova/more")
        make_room()
        converges("ctl1", changes=True)
    converges("ctl1")
    nothing_is_left()


#: What the formula writes on a controller and reads again.
WRITTEN = (
    "/etc/nova/nova.conf /etc/placement/placement.conf /etc/nova/nova-api-uwsgi.ini "
    "/var/lib/nova/cells.json /var/lib/nova/upgrade-check.json"
)


@pytest.mark.parametrize("share", ["half", pytest.param("nothing", marks=pytest.mark.long)])
def test_files_that_were_half_written(fleet, share):
    before = sh("ctl1", f"sha256sum {WRITTEN}")
    size = "$(($(stat -c %s $file) / 2))" if share == "half" else "0"
    sh("ctl1", f"for file in {WRITTEN}; do truncate --size={size} $file; done")
    converges("ctl1", changes=True)
    assert sh("ctl1", f"sha256sum {WRITTEN}") == before
    nothing_is_left()


def packages(*more):
    found = json.loads(
        on(
            "infra",
            "salt",
            "--out=json",
            "ctl1",
            "slsutil.renderer",
            "salt://nova/parameters/os_family/Debian.yaml",
            "default_renderer=yaml",
        )
    )
    return {
        "lookup": {"packages": {"controller": [*found["ctl1"]["packages"]["controller"], *more]}}
    }


def test_a_package_that_is_missing_and_one_that_fails(fleet):
    before = processes("ctl1")
    failed = said(apply(target="ctl1", nova=packages("nova-no-such")))
    assert "Cannot install nova-no-such: " in failed["nova-controller-package-installed"]
    script = "echo the licence server does not answer; exit 3"
    sh("ctl1", PACKAGE.replace("NAME", "nova-fails").replace("SCRIPT", script))
    failed = said(apply(target="ctl1", nova=packages("nova-fails")))
    assert (
        "its last word: the licence server does not answer. See /var/log/apt/term.log"
        in (failed["nova-controller-package-installed"])
    )
    assert processes("ctl1") == before
    converges("ctl1", changes=False)
    sh("ctl1", "dpkg --purge nova-fails > /dev/null")


def test_an_install_that_was_cut_off(fleet):
    before = processes("ctl1")
    sh("ctl1", PACKAGE.replace("NAME", "nova-slow").replace("SCRIPT", "sleep 5"))
    sh(
        "ctl1",
        "DEBIAN_FRONTEND=noninteractive apt-get -qq --yes install nova-slow > /dev/null 2>&1 & "
        "until pgrep -f nova-slow[.]postinst > /dev/null; do sleep 0.1; done; "
        "pkill -KILL -x apt-get; pkill -KILL -x dpkg; sleep 0.5",
    )
    assert sh("ctl1", "ls /var/lib/dpkg/updates") != ""
    predicted = apply("test=True", target="ctl1")
    assert predicted.changed() == [("ctl1", "nova-controller-package-installed")]
    converges("ctl1", changes=True)
    assert "install ok installed" in on("ctl1", "dpkg-query", "-W", "-f", "${Status}", "nova-slow")
    assert processes("ctl1") == before
    sh("ctl1", "dpkg --purge nova-slow > /dev/null; rm /etc/apt/sources.list.d/faults.list")
    nothing_is_left()


def test_no_name_is_known(fleet):
    before = processes("ctl1")
    sh("ctl1", "mount --bind /dev/null /etc/hosts")
    try:
        timeouts = {"api": 5, "service": 5, "lock": 5, "discovery": 5}
        failed = said(apply(target="ctl1", nova={"timeouts": timeouts}))
    finally:
        on("ctl1", "umount", "/etc/hosts")
    assert any("openstack-vip.example.org" in comment for comment in failed.values()), failed
    assert processes("ctl1") == before
    converges("ctl1", changes=False)


# libfaketime takes what eventlet sleeps until for a time of the clock it has moved: a daemon then
# sleeps five minutes longer each time. time-machine leaves the monotonic clock alone.
REPORTING = "nova-conductor nova-scheduler"
CLOCK = """
import datetime, time_machine
time_machine.travel(datetime.timedelta(seconds=SHIFT), tick=True).start()
"""
MOVE = """
mkdir /run/clock
base64 -d | tar --extract --directory=/run/clock
for unit in UNITS; do
    mkdir -p /run/systemd/system/$unit.service.d
    printf '[Service]\nEnvironment=PYTHONPATH=/run/clock\n' \
        > /run/systemd/system/$unit.service.d/clock.conf
done
systemctl daemon-reload
systemctl restart UNITS
"""
MOVE_BACK = """
rm -rf /run/clock /run/systemd/system/nova-*.service.d/clock.conf
systemctl daemon-reload
systemctl restart UNITS
"""


def reports():
    """How often ctl2's daemons have reported, by their own count."""
    return int(sql("SELECT SUM(report_count) FROM nova.services WHERE host LIKE 'ctl2%'"))


@contextlib.contextmanager
def clock(shift):
    """ctl2's daemons live some seconds before or after its clock, and have reported by that."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in (Path(time_machine.__file__).parent, Path(_time_machine.__file__)):
            tar.add(path, arcname=path.name)
        customize = CLOCK.replace("SHIFT", str(shift)).encode()
        member = tarfile.TarInfo("sitecustomize.py")
        member.size = len(customize)
        tar.addfile(member, io.BytesIO(customize))
    try:
        script = MOVE.replace("UNITS", REPORTING)
        sh("ctl2", script, input=base64.b64encode(packed.getvalue()).decode())
        since, deadline = reports(), time.monotonic() + 120
        while reports() < since + 4:
            assert time.monotonic() < deadline, on("ctl2", "journalctl", "-n", "40", "-u", "nova-*")
            time.sleep(2)
        yield
    finally:
        sh("ctl2", MOVE_BACK.replace("UNITS", REPORTING))


@pytest.mark.long
@pytest.mark.parametrize("shift", [-300, 300])
def test_a_clock_that_is_five_minutes_off(fleet, shift):
    with clock(shift):
        before = processes("ctl2")
        comments = said(apply(target="ctl2", nova={"timeouts": {"api": 30}}))
        assert processes("ctl2") == before
        where = "behind" if shift < 0 else "ahead of"
        assert any(
            f" on ctl2 reports, but counts as down: its clock is {about}" in comment
            and f" s {where} this node's" in comment
            for comment in comments.values()
            for about in ("29", "30", "31")
        ), comments
    converges("ctl2", changes=False)
