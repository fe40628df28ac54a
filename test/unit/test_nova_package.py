"""Installing packages while their daemons are kept down, and what is left behind: nothing."""

import os
import subprocess
from unittest.mock import create_autospec

import pytest
import salt.modules.aptpkg
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
        _, modules, self.states = load(options)
        present = self.stand_in(modules, "pkg.list_pkgs", salt.modules.aptpkg.list_pkgs)
        present.return_value = {"python3-nova": ["2:26.2.2-1"]}
        self.install = self.stand_in(self.states, "pkg.installed", salt.states.pkg.installed)
        self.policy = directory / "policy-rc.d"
        self.kept = directory / "policy-rc.d.kept"
        self.scope = self.states["nova_package.installed"].__globals__
        monkeypatch.setitem(self.scope, "POLICY", str(self.policy))
        monkeypatch.setitem(self.scope, "KEPT", str(self.kept))
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
    monkeypatch.setitem(real.scope, "POLICY", str(real.policy.parent / "none" / "policy-rc.d"))
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
