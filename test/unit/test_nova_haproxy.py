"""Sections of haproxy.cfg: what is edited, and that nothing else is."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import salt.utils.path
from conftest import load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError, SaltInvocationError
from stub import stub

FOREIGN = b"""\
# made by hand
global
\tlog /dev/log local0

defaults
    timeout connect 5s
    timeout client 5s
    timeout server 5s
listen mysql
    bind 10.20.0.40:3306   # the VIP
    mode tcp
    server db1 10.20.0.50:3306 check
"""
API = ["bind 10.20.0.40:8774", "mode tcp", "server ctl1 10.20.0.60:8774 check inter 3000"]
API_TEXT = """\
listen nova_api
    bind 10.20.0.40:8774
    mode tcp
    server ctl1 10.20.0.60:8774 check inter 3000
"""
GOOD = {"retcode": 0, "stdout": "Configuration file is valid", "stderr": "", "pid": 1}
ALERT = (
    "[NOTICE]   (12) : haproxy version is 2.6.12\n"
    "[ALERT]    (12) : config : parsing [{0}:14] : unknown keyword 'mood' in 'listen' section\n"
    "[ALERT]    (12) : config : Error(s) found in configuration file : {0}\n"
    "[ALERT]    (12) : config : Fatal errors found in configuration.\n"
)


@pytest.fixture
def cfg(tmp_path):
    path = tmp_path / "etc" / "haproxy.cfg"
    path.parent.mkdir()
    path.write_bytes(FOREIGN)
    return path


@pytest.fixture
def formula(opts, testmode, monkeypatch):
    """The loaders; haproxy itself is there and content."""
    opts["test"] = testmode
    monkeypatch.setattr(salt.utils.path, "which", lambda program: f"/usr/sbin/{program}")
    loaders = load(opts)
    haproxy = stub(loaders[1], "cmd.run_all", return_value=GOOD)
    return loaders[1], loaders[2], haproxy


@pytest.fixture
def modules(loaders, monkeypatch):
    """Execution modules whose haproxy finds every file good."""
    monkeypatch.setattr(salt.utils.path, "which", lambda program: f"/usr/sbin/{program}")
    stub(loaders[1], "cmd.run_all", return_value=GOOD)
    return loaders[1]


def refusing(haproxy, alert=ALERT):
    haproxy.side_effect = lambda command, **_: {
        **GOOD,
        "retcode": 1,
        "stdout": "",
        "stderr": alert.format(command[-1]),
    }


def present(states, path, sections, **kwargs):
    return states["nova_haproxy.sections_present"](str(path), sections, **kwargs)


def test_a_missing_section_is_appended_and_the_second_run_has_nothing_to_do(formula, cfg, testmode):
    _, states, _ = formula
    ret = present(states, cfg, {"nova_api": API})
    assert ret["changes"] == {"nova_api": {"old": None, "new": API_TEXT}}
    assert ret["result"] is (None if testmode else True)
    if testmode:
        assert cfg.read_bytes() == FOREIGN
        return
    assert cfg.read_bytes() == FOREIGN + b"\n" + API_TEXT.encode()
    ret = present(states, cfg, {"nova_api": API})
    assert (ret["result"], ret["changes"]) == (True, {})


def test_missing_sections_come_in_the_given_order(modules, cfg):
    modules["nova_haproxy.edit"](str(cfg), {"z": ["bind :1"], "a": ["bind :2"]})
    names = [section["name"] for section in modules["nova_haproxy.list_sections"](str(cfg))]
    assert names == ["", "", "mysql", "z", "a"]


@pytest.mark.parametrize(
    "text",
    [
        "listen nova_api\n" + "".join(f"\t{line}\n" for line in API),
        "  listen   nova_api # ours\n\n" + "".join(f"{line}   # why\n# what\n" for line in API),
        "listen nova_api\r\n" + "".join(f"    {line}\r\n" for line in API),
        "listen nova_api\n" + "\n".join(line.replace(" ", "\t ") for line in API),
    ],
    ids=["tabs", "comments", "crlf", "no final newline"],
)
def test_a_section_of_equal_meaning_is_left_as_it_is(formula, cfg, text):
    _, states, haproxy = formula
    cfg.write_bytes(FOREIGN + text.encode())
    before = cfg.read_bytes(), cfg.stat()
    ret = present(states, cfg, {"nova_api": API})
    assert (ret["result"], ret["changes"]) == (True, {})
    assert (cfg.read_bytes(), cfg.stat()) == before
    assert not haproxy.called


def test_a_changed_section_is_rewritten_where_it_stands(formula, cfg, testmode):
    _, states, _ = formula
    before = b"\n# ours:\nlisten nova_api\n\tbind 10.20.0.40:8774\n\n\t# note\n\tmode http\n"
    after = b"# about web\n\nfrontend web\n\tbind :80"
    cfg.write_bytes(FOREIGN + before + after)
    ret = present(states, cfg, {"nova_api": API})
    old = "listen nova_api\n\tbind 10.20.0.40:8774\n\n\t# note\n\tmode http\n"
    assert ret["changes"] == {"nova_api": {"old": old, "new": API_TEXT}}
    assert ret["result"] is (None if testmode else True)
    if not testmode:
        assert cfg.read_bytes() == FOREIGN + b"\n# ours:\n" + API_TEXT.encode() + after


@pytest.mark.parametrize(
    "made_by_hand",
    [
        "listen nova_api\n bind :1\nlisten nova_api\n bind :2\n",
        "frontend nova_api\n bind :1\n",
        "backend nova_api\n server a 10.0.0.1:1\n",
    ],
)
def test_an_ambiguous_name_is_a_failure_that_says_where(formula, cfg, made_by_hand):
    _, states, _ = formula
    cfg.write_bytes(FOREIGN + made_by_hand.encode())
    ret = present(states, cfg, {"nova_api": API})
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "nova_api" in ret["comment"]
    assert "in line 13" in ret["comment"]
    assert cfg.read_bytes() == FOREIGN + made_by_hand.encode()


def test_a_frontend_and_a_backend_may_share_a_name(modules, cfg):
    cfg.write_bytes(FOREIGN + b"backend api\n    server a 10.0.0.1:1\n")
    changes = modules["nova_haproxy.edit"](str(cfg), {"api": ["bind :8774"]}, kind="frontend")
    assert list(changes) == ["api"]


@pytest.mark.parametrize(
    "bind",
    [
        "10.20.0.40:8774",
        "*:8774",
        ":8774",
        "0.0.0.0:8774 ssl",
        ":::8774",
        "10.20.0.40:80,10.20.0.40:8774",
        "ipv4@10.20.0.40:8774",
        "10.20.0.40:8000-9000",
        '"10.20.0.40:8774"',
    ],
)
def test_an_address_of_a_foreign_section_is_a_failure_that_names_it(formula, cfg, bind):
    _, states, _ = formula
    cfg.write_bytes(FOREIGN + f"frontend by-hand\n    bind {bind}\n".encode())
    ret = present(states, cfg, {"nova_api": API})
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "frontend by-hand" in ret["comment"]
    assert ":8774" in ret["comment"]


@pytest.mark.parametrize(
    "bind", ["10.20.0.41:8774", "10.20.0.40:8775", "/run/x.sock", "10.20.0.40:8775-8780"]
)
def test_other_addresses_of_foreign_sections_do_not_matter(formula, cfg, bind):
    _, states, _ = formula
    cfg.write_bytes(FOREIGN + f"frontend by-hand\n    bind {bind}\n".encode())
    assert present(states, cfg, {"nova_api": API})["result"] is not False


def test_what_haproxy_refuses_never_goes_live(formula, cfg):
    _, states, haproxy = formula
    refusing(haproxy)
    ret = present(states, cfg, {"nova_api": [*API, "mood bad"]})
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"] == (
        f"haproxy refuses the new {cfg}, so the old one stays: parsing [{cfg}:14] : unknown "
        "keyword 'mood' in 'listen' section."
    )
    assert cfg.read_bytes() == FOREIGN
    assert os.listdir(cfg.parent) == ["haproxy.cfg"]
    assert not os.path.exists(haproxy.call_args.args[0][-1])


def test_the_check_of_a_real_run_is_made_beside_the_file_and_that_of_a_test_run_is_not(
    formula, cfg, testmode
):
    _, states, haproxy = formula
    present(states, cfg, {"nova_api": API})
    command = haproxy.call_args.args[0]
    assert command[:3] == ["haproxy", "-c", "-f"]
    assert (os.path.dirname(command[3]) == str(cfg.parent)) is not testmode
    assert not os.path.exists(command[3])


def test_a_certificate_that_an_earlier_state_may_bring_fails_no_test_run(formula, cfg, testmode):
    _, states, haproxy = formula
    refusing(haproxy, "[ALERT] (1) : config : unable to stat SSL certificate from file 'x.pem'\n")
    ret = present(states, cfg, {"nova_api": [*API[1:], "bind :8774 ssl crt x.pem"]})
    assert ret["result"] is (None if testmode else False)


def test_on_a_bare_host_a_test_run_predicts_and_a_real_one_says_what_is_missing(
    formula, cfg, testmode, monkeypatch
):
    _, states, _ = formula
    monkeypatch.setattr(salt.utils.path, "which", lambda program: None)
    cfg.unlink()
    ret = present(states, cfg, {"nova_api": API})
    if testmode:
        assert ret["result"] is None
        assert ret["changes"] == {"nova_api": {"old": None, "new": API_TEXT}}
    else:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert "install haproxy" in ret["comment"]
    assert not cfg.exists()


def test_without_the_program_no_file_is_changed(formula, cfg, testmode, monkeypatch):
    _, states, _ = formula
    monkeypatch.setattr(salt.utils.path, "which", lambda program: None)
    ret = present(states, cfg, {"nova_api": API})
    assert ret["result"] is (None if testmode else False)
    assert cfg.read_bytes() == FOREIGN


def test_a_missing_file_begins_with_the_given_defaults(formula, cfg, testmode):
    _, states, _ = formula
    cfg.unlink()
    ret = present(states, cfg, {"nova_api": API}, defaults_text="defaults\n")
    assert ret["changes"] == {
        str(cfg): {"old": None, "new": "defaults\n"},
        "nova_api": {"old": None, "new": API_TEXT},
    }
    assert cfg.exists() is not testmode
    if not testmode:
        assert cfg.read_text() == "defaults\n\n" + API_TEXT
        assert cfg.stat().st_mode & 0o777 == 0o644


def test_owner_and_mode_stay_and_a_symbolic_link_too(modules, cfg, tmp_path):
    os.chmod(cfg, 0o640)
    os.chown(cfg, os.getuid(), 12345 if os.getuid() == 0 else os.getgid())
    os.utime(cfg, (1, 1))
    before = cfg.stat()
    link = tmp_path / "haproxy.cfg"
    link.symlink_to(cfg)
    modules["nova_haproxy.edit"](str(link), {"nova_api": API})
    after = cfg.stat()
    assert link.is_symlink()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    # A reload is found to be due by this.
    assert after.st_mtime > before.st_mtime


def test_named_sections_are_removed_and_nothing_else(formula, cfg, testmode):
    _, states, _ = formula
    cfg.write_bytes(FOREIGN + API_TEXT.encode() + b"# end\nlisten other\n bind :1\n")
    ret = states["nova_haproxy.sections_absent"](str(cfg), ["nova_api", "nova_placement"])
    assert ret["changes"] == {"nova_api": {"old": API_TEXT, "new": None}}
    assert ret["result"] is (None if testmode else True)
    if not testmode:
        assert cfg.read_bytes() == FOREIGN + b"# end\nlisten other\n bind :1\n"
        ret = states["nova_haproxy.sections_absent"](str(cfg), ["nova_api"])
        assert (ret["result"], ret["changes"]) == (True, {})


def test_a_section_named_twice_is_removed_once(formula, cfg):
    _, states, _ = formula
    cfg.write_bytes(FOREIGN + API_TEXT.encode() + b"listen other\n    bind :1\n")
    states["nova_haproxy.sections_absent"](str(cfg), ["nova_api", "nova_api"])
    assert b"listen other\n    bind :1\n" in cfg.read_bytes()


def test_a_section_is_not_both_present_and_absent(formula, cfg):
    _, states, _ = formula
    cfg.write_bytes(FOREIGN)
    ret = states["nova_haproxy.sections_present"](
        str(cfg), {"nova_api": ["bind :1"], "x": []}, absent=["nova_api"]
    )
    assert ret["result"] is False
    assert ret["comment"] == "nova_api cannot be both present and absent."
    assert cfg.read_bytes() == FOREIGN


def test_a_section_of_another_kind_is_not_removed(formula, cfg):
    _, states, _ = formula
    cfg.write_bytes(FOREIGN + b"backend nova_api\n    server a 10.0.0.1:1\n")
    ret = states["nova_haproxy.sections_absent"](str(cfg), ["nova_api"])
    assert ret["result"] is False
    assert b"backend nova_api" in cfg.read_bytes()


def test_a_file_that_does_not_exist_holds_no_section(formula, cfg):
    _, states, _ = formula
    cfg.unlink()
    ret = states["nova_haproxy.sections_absent"](str(cfg), ["nova_api"])
    assert (ret["result"], ret["changes"]) == (True, {})


def test_the_last_section_may_go_although_haproxy_would_not_start_without_it(formula, cfg):
    _, states, haproxy = formula
    cfg.write_bytes(API_TEXT.encode())
    haproxy.return_value = {**GOOD, "retcode": 2}
    assert states["nova_haproxy.sections_absent"](str(cfg), ["nova_api"])["result"] is not False
    assert present(states, cfg, {"other": API[1:]})["result"] is False


def test_a_condition_inside_of_a_section_to_be_edited_is_a_failure(formula, cfg):
    _, states, _ = formula
    cfg.write_bytes(FOREIGN + b"listen nova_api\n.if defined(X)\n mode http\n.endif\n mode tcp\n")
    ret = present(states, cfg, {"nova_api": API})
    assert ret["result"] is False
    assert "line 14" in ret["comment"]


def test_a_condition_around_a_section_stays(modules, cfg):
    cfg.write_bytes(b".if defined(X)\nlisten nova_api\n mode http\n.endif\n")
    modules["nova_haproxy.edit"](str(cfg), {"nova_api": API})
    assert cfg.read_bytes() == b".if defined(X)\n" + API_TEXT.encode() + b".endif\n"


@pytest.mark.parametrize(
    "arguments",
    [
        {"present": {"nova api": API}},
        {"present": {"nova_api": "bind :1"}},
        {"present": {"nova_api": ["bind :1\nlisten other"]}},
        {"present": {"nova_api": ["listen other"]}},
        {"present": {"nova_api": API}, "kind": "global"},
    ],
)
def test_arguments_that_make_no_section_are_refused(modules, cfg, arguments):
    with pytest.raises(SaltInvocationError):
        modules["nova_haproxy.edit"](str(cfg), **arguments)
    assert cfg.read_bytes() == FOREIGN


def test_a_state_without_the_name_of_a_file_fails(formula):
    _, states, _ = formula
    ret = states["nova_haproxy.sections_absent"]("nova-haproxy-clean", ["nova_api"])
    assert ret["result"] is False
    assert "absolute path" in ret["comment"]


def test_sections_are_listed_with_their_place(modules, cfg):
    assert modules["nova_haproxy.list_sections"](str(cfg))[-1] == {
        "kind": "listen",
        "name": "mysql",
        "line": 9,
        "text": FOREIGN.decode()[FOREIGN.decode().index("listen mysql") :],
    }
    with pytest.raises(CommandExecutionError, match="does not exist"):
        modules["nova_haproxy.list_sections"](str(cfg) + ".none")


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
def test_the_real_haproxy_judges_what_is_written(opts, testmode, cfg):
    opts["test"] = testmode
    _, _, states = load(opts)
    ret = present(states, cfg, {"nova_api": API})
    assert ret["result"] is (None if testmode else True)
    live = cfg.read_bytes()
    ret = present(states, cfg, {"nova_api": [*API, "mood bad"]})
    assert ret["result"] is False
    assert "unknown keyword 'mood'" in ret["comment"]
    assert str(cfg) in ret["comment"]
    assert "\n" not in ret["comment"]
    assert cfg.read_bytes() == live
    cfg.write_bytes(FOREIGN[: FOREIGN.index(b"listen mysql")] + API_TEXT.encode())
    ret = states["nova_haproxy.sections_absent"](str(cfg), ["nova_api"])
    assert ret["result"] is (None if testmode else True)


# ---- Whatever else stands in the file ------------------------------------------------------------

EOLS = st.sampled_from([b"\n", b"\r\n", b" \t\n"])
SILENT = st.sampled_from([b"", b"# listen a", b"\t", b"   # x \xff\xfe", b"#"])
HEADERS = st.sampled_from(
    [b"global", b"defaults  x", b"\tfrontend web", b"listen aa # a", b"peers a", b"backend 'q\xe9'"]
)
OPTIONS = st.one_of(
    SILENT,
    st.sampled_from(
        [b"  bind :80", b"option 'listen a", b'log-format "%[x] #"', b".if defined(X)"]
    ),
    st.binary(max_size=12).map(lambda raw: b" x" + raw.replace(b"\n", b"")),
)


def joined(*lines):
    return st.tuples(*lines).map(b"".join)


silent_lines = st.lists(joined(SILENT, EOLS), max_size=3).map(b"".join)
option_lines = st.lists(joined(OPTIONS, EOLS), max_size=4).map(b"".join)
foreign_sections = joined(silent_lines, HEADERS, EOLS, option_lines)
own_bodies = st.lists(
    st.sampled_from([b"\tbind 10.20.0.40:8774\n", b"mode http # x\n", b"\n", b" # note\r\n"]),
    max_size=3,
).map(b"".join)


@st.composite
def files(draw):
    """Parts of a file, in order: ``(None, bytes)`` for what is foreign, ``(name, bytes)`` else."""
    parts = [(None, draw(option_lines))]
    for name in draw(st.permutations(["a", "b"]))[: draw(st.integers(0, 2))]:
        parts.append((None, draw(st.lists(foreign_sections, max_size=2).map(b"".join))))
        body = draw(own_bodies)
        parts.append((name, b"listen " + name.encode() + b"\n" + body + b" mode health\n"))
    parts.append((None, draw(st.lists(foreign_sections, max_size=2).map(b"".join))))
    parts.append((None, draw(silent_lines)))
    return parts


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=files(), cut=st.booleans())
def test_bytes_outside_of_the_own_sections_never_change(modules, parts, cut):
    text = b"".join(part for _, part in parts)
    if cut and parts[-1][1].endswith(b"\n"):
        parts[-1] = (None, parts[-1][1][:-1])
        text = text[:-1]
    eol = b"\r\n" if text.split(b"\n", 1)[0].endswith(b"\r") and b"\n" in text else b"\n"
    wanted = {"a": ["bind 10.20.0.41:1", "mode tcp"], "b": ["bind 10.20.0.41:2", "mode tcp"]}
    own = {
        name: eol.join([f"listen {name}".encode(), *(b"    " + x.encode() for x in lines), b""])
        for name, lines in wanted.items()
    }
    kept = b"".join(own[name] if name else part for name, part in parts)
    there = [name for name, _ in parts if name]
    with tempfile.TemporaryDirectory() as directory:
        cfg = Path(directory) / "haproxy.cfg"
        cfg.write_bytes(text)
        changes = modules["nova_haproxy.edit"](str(cfg), wanted)
        edited = cfg.read_bytes()
        assert edited.startswith(kept)
        added = b"".join(edited[len(kept) :].split())
        missing = b"".join(own[name] for name in ("a", "b") if name not in there)
        assert added == b"".join(missing.split())
        assert sorted(changes) == ["a", "b"]
        assert modules["nova_haproxy.edit"](str(cfg), wanted) == {}

        modules["nova_haproxy.edit"](str(cfg), absent=["a", "b"])
        rest = b"".join(part for name, part in parts if not name)
        assert cfg.read_bytes().startswith(rest)
        assert not cfg.read_bytes()[len(rest) :].strip()
