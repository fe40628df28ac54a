"""Files that are replaced in one step: never a part of one, nothing left of a killed run."""

import errno
import os
import threading
from contextlib import nullcontext

import pytest
from conftest import load, util
from salt.exceptions import CommandExecutionError
from stub import stub

files = util("nova_file")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "nova.conf"
    path.write_text("old\n")
    return path


def test_a_file_is_replaced_whole_with_its_mode(path):
    before = path.stat().st_ino
    with open(path) as reader:
        assert files.replace(str(path), "new\n", mode=0o640) is True
        assert reader.read() == "old\n"
    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_ino != before
    assert os.listdir(path.parent) == ["nova.conf"]


def test_a_file_with_the_text_is_left_alone(path):
    before = path.stat()
    assert files.replace(str(path), "old\n") is False
    assert path.stat() == before


def test_a_new_file_and_what_a_link_leads_to(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    assert files.replace(str(link), "new\n") is True
    assert link.is_symlink() and (tmp_path / "target").read_text() == "new\n"


def test_a_link_of_a_daemon_s_user_leads_root_nowhere(path):
    path.parent.chmod(0o775)
    victim = path.parent / "victim"
    victim.write_text("new\n")
    path.unlink()
    path.symlink_to(victim)
    for text in ("new\n", "newer\n"):
        assert files.replace(str(path), text) is True
        assert not path.is_symlink() and path.read_text() == text
    assert victim.read_text() == "new\n"


def test_nobody_else_may_read_it_before_it_is_complete(path, monkeypatch):
    modes = []
    fchown = os.fchown

    def look(descriptor, *ids):
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        fchown(descriptor, *ids)

    monkeypatch.setattr(os, "fchown", look)
    old = os.umask(0)
    try:
        files.replace(str(path), "secret\n", mode=0o644)
    finally:
        os.umask(old)
    assert modes == [0o600]


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "make room there"), (errno.EIO, "mend that")]
)
def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(path, monkeypatch, number, remedy):
    def full(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CommandExecutionError) as failure:
        files.replace(str(path), "new\n")
    assert str(failure.value) == (
        f"Cannot write {path}, which stays as it is: {os.strerror(number)}; {remedy} and run the "
        "state again."
    )
    assert path.read_text() == "old\n"
    assert os.listdir(path.parent) == ["nova.conf"]


def test_a_directory_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(CommandExecutionError, match="No such file or directory; mend that"):
        files.replace(str(tmp_path / "none" / "x"), "new\n")


def test_what_a_killed_run_left_is_taken_away_by_the_next(path):
    left = path.parent / ".nova.conf.nova-formula"
    left.write_text("a part of it, with a secr")
    files.replace(str(path), "new\n")
    assert os.listdir(path.parent) == ["nova.conf"]


def test_what_was_not_renamed_is_removed(path):
    with pytest.raises(RuntimeError), files.fresh(str(path), b"new\n"):
        raise RuntimeError
    assert os.listdir(path.parent) == ["nova.conf"]


def test_a_link_that_somebody_puts_in_its_way_is_not_followed(path):
    victim = path.parent / "victim"
    victim.write_text("victim\n")
    (path.parent / ".nova.conf.nova-formula").symlink_to(victim)
    files.replace(str(path), "new\n")
    assert victim.read_text() == "victim\n"


def test_of_many_runs_one_writes(path):
    written = []
    runs = [
        threading.Thread(target=lambda: written.append(files.replace(str(path), "new\n")))
        for _ in range(20)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(written) == [False] * 19 + [True]


def test_a_run_that_hangs_is_not_waited_for_for_ever(path):
    with (
        files.alone(str(path)),
        pytest.raises(CommandExecutionError) as failure,
        files.alone(str(path), timeout=0),
    ):
        pass
    assert str(path) in str(failure.value)
    assert "for 0 s: see `salt-call saltutil.running`" in str(failure.value)
    with files.alone(str(path), timeout=0):
        pass


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("nova_cell.recorded", ["name"]),
        ("nova_verify.upgrade_checked", ["name", "stamp"]),
        ("nova_schema.data_migrated", ["name", "stamp"]),
    ],
)
def test_a_state_that_cannot_record_what_it_did_says_so(opts, tmp_path, function, arguments):
    utils, modules, states = load(opts)
    stub(utils, "nova_db.lock", side_effect=lambda **_: nullcontext())
    for name, answer in {
        "nova_manage.cell_versions": {"uuid": "digest"},
        "nova_manage.code_and_schema": {"api code": "b"},
        "nova_manage.upgrade_check": [{"check": "Cells", "result": "Success"}],
        "nova_upkeep.online_data_migrations": {"outcome": "done", "migrated": {}},
    }.items():
        stub(modules, name, return_value=answer)
    record = str(tmp_path / "none" / "record.json")
    ret = states[function](**dict.fromkeys(arguments, record))
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"].startswith(f"Cannot write {record}, which stays as it is: No such file")
