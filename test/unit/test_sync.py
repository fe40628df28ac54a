"""nova/sync.sls: what a minion lacks of the formula's modules is brought, and nothing else."""

import hashlib
import importlib.machinery
import importlib.util
from pathlib import Path

import pytest
import salt.state
from conftest import ROOT
from salt.exceptions import SaltRenderError
from test_map import GRAINS, changed


@pytest.fixture
def sync(tmp_path):
    """The SLS as Salt's py renderer runs it; ``calls`` holds what was synced."""
    loader = importlib.machinery.SourceFileLoader("sync_sls", str(ROOT / "nova" / "sync.sls"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("sync_sls", loader))
    loader.exec_module(module)
    module.calls = []
    hashed = {}

    def hash_file(url):
        path = ROOT / url.removeprefix("salt://")
        return {"hsum": hashlib.sha256(path.read_bytes()).hexdigest()} if path.exists() else {}

    def syncs(kind):
        return lambda refresh: module.calls.append((kind, refresh))

    hashed["cp.hash_file"] = hash_file
    hashed |= {f"saltutil.sync_{kind}": syncs(kind) for kind in module.CUSTOM}
    module.__salt__, module.__opts__ = hashed, {"extension_modules": str(tmp_path)}
    module.cache = tmp_path
    return module


def shipped(kind):
    return sorted(path.stem for path in (ROOT / f"_{kind}").glob("*.py"))


def test_every_module_of_the_formula_is_looked_at(sync):
    assert {kind: sorted(names) for kind, names in sync.CUSTOM.items()} == {
        kind: shipped(kind) for kind in ("grains", "modules", "states", "utils")
    }


def test_a_minion_that_has_none_gets_all_of_each_kind_once(sync):
    assert sync.run() == {}
    assert sync.calls == [(kind, False) for kind in sync.CUSTOM]


def test_only_the_kind_with_an_outdated_file_is_synced(sync):
    for kind in sync.CUSTOM:
        (sync.cache / kind).mkdir()
        for name in shipped(kind):
            (sync.cache / kind / f"{name}.py").write_bytes(
                (ROOT / f"_{kind}" / f"{name}.py").read_bytes()
            )
    sync.run()
    assert sync.calls == []
    (sync.cache / "states" / "nova_cell.py").write_text("older")
    sync.run()
    assert sync.calls == [("states", False)]


def test_nothing_is_synced_on_the_master_by_salt_ssh(sync, monkeypatch):
    sync.__opts__["_ssh_version"] = (9, 2)
    monkeypatch.setattr(sync, "SALT", (3008, 3))
    assert (sync.run(), sync.calls) == ({}, [])


def test_a_salt_ssh_that_would_leave_modules_out_is_refused(sync, monkeypatch):
    sync.__opts__["_ssh_version"] = (9, 2)
    monkeypatch.setattr(sync, "SALT", (3006, 28))
    with pytest.raises(SaltRenderError, match="before Salt 3008: use that"):
        sync.run()


@pytest.mark.parametrize("sls", ["nova", "nova.controller"])
def test_a_bare_minion_that_has_rendered_has_every_module(opts, sls):
    for kind in ("module", "states", "utils", "grains"):
        opts[f"{kind}_dirs"] = []
    for kind in ("modules", "states", "utils", "grains"):
        (Path(opts["extension_modules"]) / kind).mkdir(parents=True)
    opts["grains"].update(GRAINS)
    opts["pillar"] = {"nova": changed()}
    with salt.state.HighState(opts, pillar_override=opts["pillar"]) as run:
        high, errors = run.render_highstate({"base": [sls]})
        assert (errors, bool(high)) == ([], True)
        for state in ("nova_identity.user_present", "nova_database.present", "nova_cell.present"):
            assert state in run.state.states
