"""Installing packages while their daemons are kept down, and what is left behind: nothing."""

import os
import subprocess
import sys
import threading
from unittest.mock import create_autospec

import pytest
import salt.modules.aptpkg
import salt.modules.cmdmod
import salt.states.pkg
from conftest import load
from salt.exceptions import CommandExecutionError

FOREIGN = "#!/bin/sh\n# by somebody else\nexit 0\n"
INSTALLED = {
    "name": "pkgs",
    "result": True,
    "changes": {"nova-api": {"old": "", "new": "2:26"}},
    "comment": "1 targeted package was installed/updated.",
}
NOTHING = {"name": "pkgs", "result": True, "changes": {}, "comment": "All are installed."}


def write(path, text, mode=0o755):
    path.write_text(text)
    os.chmod(path, mode)


class Host:
    """The state, what stands in for pkg.installed, and the policies it saw."""

    def __init__(self, options, directory, monkeypatch):
        self.utils, self.modules, self.states = load(options)
        self.present = self.stand_in(self.modules, "pkg.list_pkgs", salt.modules.aptpkg.list_pkgs)
        self.present.return_value = {"python3-nova": ["2:26.2.2-1"]}
        self.install = self.stand_in(self.states, "pkg.installed", salt.states.pkg.installed)
        self.policy = directory / "policy-rc.d"
        self.kept = directory / "policy-rc.d.kept"
        self.scope = self.states["nova_package.installed"].__globals__
        monkeypatch.setitem(self.scope, "POLICY", str(self.policy))
        monkeypatch.setitem(self.scope, "KEPT", str(self.kept))
        for name in ("JOURNAL", "STATUS", "LOCK", "TERM_LOG"):
            monkeypatch.setitem(self.scope, name, str(directory / name.lower()))
        self.directory = directory
        self.seen = []
        self.answer = INSTALLED

        def install(**_):
            self.seen.append(self.verdict())
            if isinstance(self.answer, Exception):
                raise self.answer
            return dict(self.answer)

        self.install.side_effect = install

    def stand_in(self, loader, name, function):
        """Salt's own pkg loads only where a package manager is; its functions' mocks always do."""
        mock = create_autospec(function)
        mock.__module__ = self.states["nova_package.installed"].__module__
        loader._dict[name] = mock
        return mock

    def verdict(self, unit="nova-api.service"):
        """What the policy says to a daemon that would start; None without a policy."""
        if not os.path.lexists(self.policy):
            return None
        command = [str(self.policy), unit, "start"]
        return subprocess.run(command, check=False).returncode

    def installed(self, pkgs=("nova-api",), **kwargs):
        return self.states["nova_package.installed"]("pkgs", pkgs=list(pkgs), **kwargs)

    def leave_ours(self):
        write(self.policy, f"#!/bin/sh\n{self.scope['MARKER']}\nexit 101\n")


@pytest.fixture
def host(opts, testmode, tmp_path, monkeypatch):
    opts["test"] = testmode
    return Host(opts, tmp_path, monkeypatch)


@pytest.fixture
def real(opts, tmp_path, monkeypatch):
    return Host(opts, tmp_path, monkeypatch)


def test_daemons_are_kept_down_during_the_install_alone(host, testmode):
    assert host.installed() == INSTALLED
    assert host.seen == [None if testmode else 101]
    left = [name for name in os.listdir(host.policy.parent) if "policy" in name]
    assert left == []


def test_all_arguments_reach_pkg_installed(host):
    host.installed(["nova-api"], fromrepo="bookworm-zed", refresh=True)
    host.install.assert_called_once_with(
        name="pkgs", pkgs=["nova-api"], fromrepo="bookworm-zed", refresh=True
    )


def test_what_pkg_installed_predicts_is_passed_on(opts, tmp_path, monkeypatch):
    opts["test"] = True
    host = Host(opts, tmp_path, monkeypatch)
    host.answer = {**INSTALLED, "result": None, "warnings": ["a word"]}
    assert host.installed() == host.answer


@pytest.mark.parametrize(
    "answer", [{**INSTALLED, "result": False}, CommandExecutionError("no dpkg")]
)
def test_the_policy_goes_when_the_install_fails(host, answer):
    host.answer = answer
    assert host.installed()["result"] is False
    assert not host.policy.exists()


def test_nothing_happens_when_all_is_installed(host):
    host.answer = NOTHING
    assert host.installed(["python3-nova"]) == NOTHING
    assert host.seen == [None]


@pytest.mark.parametrize(
    ("arguments", "held"),
    [
        ({"pkgs": [{"python3-nova": "2:26.2.2-1"}]}, False),
        ({"pkgs": [{"python3-nova": "2:26*"}]}, False),
        ({"pkgs": [{"python3-nova": "2:27.0-1"}]}, True),
        ({"pkgs": [{"python3-nova": ">=2:27"}]}, True),
        ({"pkgs": ["python3-nova"], "reinstall": True}, True),
        ({"pkgs": ["python3-nova", "nova-api"]}, True),
        ({"pkgs": ["nova-api"], "hold_daemons": []}, False),
    ],
)
def test_daemons_are_held_exactly_when_an_install_may_be_due(real, arguments, held):
    real.installed(**arguments)
    assert real.seen == [101 if held else None]


@pytest.mark.parametrize("unit", ["dbus", "dbus.service", "libvirtd.service"])
def test_daemons_that_are_not_nova_s_are_left_to_their_packages(real, unit):
    verdicts = []
    real.install.side_effect = lambda **_: verdicts.append(real.verdict(unit)) or dict(INSTALLED)
    real.installed()
    write(real.policy, FOREIGN.replace("101", "104") if "101" in FOREIGN else FOREIGN)
    foreign = real.verdict(unit)
    real.installed()
    assert verdicts == [0, foreign]


def test_a_pattern_that_is_no_unit_name_is_refused(real):
    ret = real.installed(hold_daemons=["x) rm -rf /;"])
    assert ret["result"] is False
    assert real.seen == []


def test_a_single_package_is_named_by_the_state(real):
    real.states["nova_package.installed"]("python3-nova", version="2:26.2.2-1")
    real.states["nova_package.installed"]("python3-nova", version="2:27-1")
    assert real.seen == [None, 101]


def test_other_systems_need_no_policy(opts, tmp_path, monkeypatch):
    opts["grains"].update(os_family="RedHat", os="CentOS Stream")
    host = Host(opts, tmp_path, monkeypatch)
    assert host.installed() == INSTALLED
    assert host.seen == [None]


def test_a_foreign_policy_comes_back_as_it_was(host, testmode):
    write(host.policy, FOREIGN, 0o751)
    os.utime(host.policy, (1, 1))
    before = host.policy.stat()
    host.installed()
    assert host.seen == [0 if testmode else 101]
    after = host.policy.stat()
    assert host.policy.read_text() == FOREIGN
    assert (after.st_ino, after.st_mode, after.st_mtime, after.st_nlink) == (
        before.st_ino,
        before.st_mode,
        before.st_mtime,
        1,
    )
    assert not host.kept.exists()


def test_a_foreign_policy_that_is_a_symbolic_link_comes_back(host, tmp_path, testmode):
    target = tmp_path / "elsewhere"
    write(target, FOREIGN)
    host.policy.symlink_to(target)
    host.installed()
    assert host.seen == [0 if testmode else 101]
    assert host.policy.readlink() == target
    assert target.read_text() == FOREIGN


@pytest.mark.parametrize("due", [True, False])
def test_what_a_killed_run_left_is_removed_by_the_next(host, testmode, due):
    host.leave_ours()
    host.installed(["nova-api" if due else "python3-nova"])
    assert host.policy.exists() is testmode


def test_a_foreign_policy_that_a_killed_run_kept_comes_back(host, testmode):
    host.leave_ours()
    write(host.kept, FOREIGN)
    host.installed(["python3-nova"])
    assert host.kept.exists() is testmode
    assert (host.policy.read_text() == FOREIGN) is not testmode


def test_a_run_killed_before_its_policy_stood_leaves_the_foreign_one(real):
    write(real.policy, FOREIGN)
    os.link(real.policy, real.kept)
    real.installed(["python3-nova"])
    assert real.policy.read_text() == FOREIGN
    assert not real.kept.exists()


def test_a_kept_policy_comes_back_when_ours_was_removed_by_hand(real):
    write(real.kept, FOREIGN)
    real.installed(["python3-nova"])
    assert real.policy.read_text() == FOREIGN
    assert not real.kept.exists()


def test_a_policy_that_a_package_brings_meanwhile_stays(real):
    write(real.policy, FOREIGN)

    def install(**_):
        real.policy.unlink()
        real.policy.write_text("#!/bin/sh\nexit 104\n")
        return INSTALLED

    real.install.side_effect = install
    real.installed()
    assert real.policy.read_text() == "#!/bin/sh\nexit 104\n"
    assert not real.kept.exists()


def test_a_policy_that_cannot_be_written_fails_before_the_install(real, monkeypatch):
    write(real.policy, FOREIGN)
    monkeypatch.setitem(real.scope, "KEPT", str(real.policy.parent / "none" / "kept"))
    ret = real.installed()
    assert ret["result"] is False
    assert "keep daemons from starting" in ret["comment"]
    assert real.seen == []


def test_a_failure_is_one_sentence_with_the_package_and_what_to_do(host):
    host.answer = {
        "name": "pkgs",
        "result": False,
        "changes": {"nova-common": {"old": "", "new": "2:26"}},
        "comment": (
            "An error was encountered while installing package(s):\n"
            "E: Failed to fetch https://me:s3cret@repo.example.org/nova-api_26.deb  404\n"
            "E: Unable to locate package nova-api"
        ),
    }
    ret = host.installed(["nova-common", "nova-api", "nova-api-metadata"])
    assert ret["changes"] == host.answer["changes"]
    assert ret["comment"] == (
        "Cannot install nova-api: Failed to fetch https://***@repo.example.org/nova-api_26.deb "
        "404 Unable to locate package nova-api. Name the packages in nova:lookup:packages, or a "
        "repository that has them in nova:repositories."
    )


TERM = (
    "\nLog started: 2026-11-24  10:00:00\r\ndpkg: error processing package old (--configure):\r\n"
    " old trouble\r\nLog ended: 2026-11-24  10:00:01\n"
    "\nLog started: 2026-11-25  10:00:00\nSetting up nova-api (2:26) ...\r\n"
    "the licence server does not answer\r\n"
    "dpkg: error processing package nova-common (--configure):\r\n"
    " installed nova-common package post-installation script subprocess returned error exit "
    "status 3\r\ndpkg: error processing package nova-api (--configure):\r\n"
    " dependency problems - leaving unconfigured\r\nLog ended: 2026-11-25  10:00:05\n"
)


def test_a_package_whose_script_fails_is_named_with_its_last_word(host):
    (host.directory / "term_log").write_text(TERM)
    host.answer = {
        **INSTALLED,
        "result": False,
        "comment": "Problem encountered installing package(s). Additional info follows:\n\n"
        "errors:\n    - E: Sub-process /usr/bin/dpkg returned an error code (1)",
    }
    assert host.installed()["comment"] == (
        "Cannot install nova-api: nova-common: post-installation script subprocess returned error "
        "exit status 3; its last word: the licence server does not answer. See "
        f"{host.directory}/term_log there, mend the cause and run the state again."
    )


def test_a_package_that_dpkg_refuses_without_a_log_still_says_so(host):
    error = "E: Sub-process /usr/bin/dpkg returned an error code (1)"
    host.answer = {**INSTALLED, "result": False, "comment": error}
    assert "dpkg returned an error code (1). Name the" in host.installed()["comment"]


@pytest.fixture
def dpkg(host, testmode):
    """The programs that mend, what they were told, and whether the policy stood."""
    host.commands = []
    host.retcode = 0

    def run(command, **kwargs):
        host.commands.append(command)
        assert host.verdict() == 101
        assert kwargs["env"]["DEBIAN_FRONTEND"] == "noninteractive"
        for left in (host.directory / "journal").glob("*"):
            left.unlink()
        host.present.return_value = {**host.present.return_value, "nova-api": ["2:26"]}
        return {"retcode": host.retcode, "stdout": "", "stderr": "E: Unmet dependencies"}

    host.stand_in(host.modules, "cmd.run_all", salt.modules.cmdmod.run_all).side_effect = run
    return host


def cut_off(host):
    (host.directory / "journal").mkdir()
    (host.directory / "journal" / "0001").write_text("Package: nova-api\n")


def test_an_install_that_was_cut_off_is_finished_before_more_is_installed(dpkg, testmode):
    cut_off(dpkg)
    dpkg.answer = NOTHING
    ret = dpkg.installed()
    interrupted = {"interrupted install": {"old": "unfinished", "new": "finished"}}
    assert dpkg.seen == [None if testmode else 101]
    if testmode:
        assert (ret["result"], ret["changes"], dpkg.commands) == (None, interrupted, [])
        return
    assert ret["result"] is True
    assert ret["changes"] == {**interrupted, "nova-api": {"old": "", "new": ["2:26"]}}
    assert dpkg.commands[0] == ["dpkg", "--force-confold", "--force-confdef", "--configure", "-a"]
    assert dpkg.commands[1][:1] + dpkg.commands[1][-1:] == ["apt-get", "install"]
    assert not dpkg.policy.exists()
    dpkg.commands.clear()
    assert dpkg.installed() == NOTHING
    assert dpkg.commands == []


def test_a_package_that_was_being_replaced_is_installed_again(dpkg, testmode):
    status = dpkg.directory / "status"
    status.write_text(
        "Package: other\nStatus: install reinstreq half-installed\nVersion: 1\n\n"
        "Package: python3-nova\nEssential: no\nStatus: install reinstreq half-installed\n"
        "Version: 2:26\n\nPackage: nova-api\nStatus: install ok installed\n"
    )
    dpkg.installed(["python3-nova", "nova-api"])
    if not testmode:
        assert dpkg.commands[1][-3:] == ["install", "--reinstall", "python3-nova"]


def test_what_cannot_be_mended_is_one_sentence(dpkg, testmode):
    cut_off(dpkg)
    dpkg.retcode = 100
    ret = dpkg.installed()
    if not testmode:
        assert ret["result"] is False and ret["changes"] == {}
        assert ret["comment"].startswith("Cannot install nova-api: Unmet dependencies. An earlier")
        assert "dpkg --configure -a" in ret["comment"]
        assert dpkg.seen == []


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(dpkg):
    """Another program that works with dpkg, until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(dpkg.directory / "lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        yield process
        process.stdin.close()


def test_another_program_s_install_is_waited_for_and_named(dpkg, holder, testmode):
    ret = dpkg.installed(timeout=0)
    if testmode:
        assert ret == INSTALLED
        return
    assert ret["result"] is False and dpkg.seen == []
    assert ret["comment"].startswith(f"Cannot install nova-api: process {holder.pid} (")
    assert ret["comment"].endswith(
        "has held dpkg's lock for 0 s. Wait until it has ended, or end it, and run the state again."
    )
    monkey = threading.Timer(0.3, holder.stdin.close)
    monkey.start()
    dpkg.scope["INTERVAL"], before = 0.05, dpkg.scope["INTERVAL"]
    try:
        assert dpkg.installed(timeout=30) == INSTALLED
    finally:
        dpkg.scope["INTERVAL"] = before


def test_nothing_is_waited_for_where_nothing_is_due(dpkg, holder):
    cut_off(dpkg)  # what a program that works looks like
    dpkg.answer = NOTHING
    assert dpkg.installed(["python3-nova"], timeout=0) == NOTHING
    assert dpkg.commands == []


def test_the_apt_that_a_killed_run_left_keeps_its_policy_until_it_ends(dpkg, holder, testmode):
    dpkg.leave_ours()
    ret = dpkg.installed(["python3-nova"], timeout=0)
    assert dpkg.policy.exists()
    assert (ret["result"] is False) is not testmode


def test_two_runs_do_not_take_each_other_s_policy_away(real):
    with real.utils["nova_file.alone"](str(real.policy)):
        ret = real.installed(timeout=0)
    assert ret["result"] is False and "Another run on this node" in ret["comment"]
    assert real.seen == []


def test_a_failure_that_names_no_package_names_all(host):
    host.answer = {**INSTALLED, "result": False, "comment": "dpkg was interrupted"}
    comment = host.installed([{"nova-api": "2:26"}, "nova-scheduler"])["comment"]
    assert comment.startswith("Cannot install nova-api, nova-scheduler: dpkg was interrupted. ")


def test_the_first_install_of_a_run_refreshes_as_pkg_does(real):
    mod_init = real.stand_in(real.states, "pkg.mod_init", salt.states.pkg.mod_init)
    mod_init.return_value = True
    low = {"state": "nova_package", "fun": "installed", "name": "x"}
    assert real.states["nova_package.mod_init"](low) is True
    mod_init.assert_called_once_with(low)
