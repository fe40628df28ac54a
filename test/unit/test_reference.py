"""The schema says what each key of the pillar is for; reference page and example say the same."""

import importlib.machinery
import importlib.util

import pytest
import yaml
from conftest import ROOT
from test_map import changed, offered, run_map

LOADER = importlib.machinery.SourceFileLoader("reference", str(ROOT / "test" / "reference"))
reference = importlib.util.module_from_spec(importlib.util.spec_from_loader("reference", LOADER))
LOADER.exec_module(reference)

RELEASES = yaml.safe_load((ROOT / "nova/parameters/releases.yaml").read_text())


def test_the_reference_page_is_what_the_schema_says():
    assert reference.PAGE.read_text() == reference.page(), "run test/reference"


def test_the_example_s_comments_are_what_the_schema_says():
    text = reference.EXAMPLE.read_text()
    assert reference.commented(text) == text, "run test/reference"
    stale = text.replace("# Its port", "# Its harbour").replace("# Threads of", "# Yarns of")
    assert stale != text
    assert reference.commented(stale) == text


def test_the_readme_s_matrix_is_what_the_tests_have_proven():
    text = reference.README.read_text()
    assert reference.with_matrix(text) == text, "run test/reference"
    assert "| Debian 12 | Zed | **converged** 2" in text
    assert "| Rocky 9 | 2025.1 | compiled | compiled | checked |" in text


def test_every_key_says_what_it_is_for_and_what_it_must_be():
    silent = [
        (path, word)
        for path, node, _ in reference.known_keys()
        for word in ("title", "description")
        if not node.get(word, "").strip()
    ]
    assert silent == []


def unknown(pillar, path=()):
    """Keys that the schema does not name, down to where the site chooses them."""
    for name, value in pillar.items():
        here = (*path, name)
        node = reference.find(here)
        if node is None:
            yield here
        elif isinstance(value, dict) and reference.children(node).keys() - {"NAME"}:
            yield from unknown(value, here)


def test_every_default_is_one_that_the_schema_knows():
    defaults = dict(reference.DEFAULTS)
    keys = ("administrators", "wsgi", "users", "files")
    looked_up = {"lookup": {key: defaults.pop(key) for key in keys}}
    assert list(unknown({**defaults, **looked_up})) == []


def test_every_key_that_the_example_gives_or_offers_is_one_that_the_schema_knows():
    assert list(unknown(offered())) == []
    assert list(unknown({"lokup": {}, "ports": {"apy": 1}})) == [("lokup",), ("ports", "apy")]


SINCE = {path: node["since"] for path, node, _ in reference.known_keys() if "since" in node}


@pytest.mark.parametrize("path", SINCE, ids=":".join)
def test_a_key_is_read_from_the_release_on_that_the_schema_names(path):
    first = RELEASES[SINCE[path]]
    for release, number in RELEASES.items():
        without = run_map(changed(release=release))["conf"]
        given = run_map(changed(release=release, **{"__".join(path): True}))["conf"]
        assert (given != without) == (number >= first), release
