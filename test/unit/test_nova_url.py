"""URLs: encoding, masking, templates. Property-based where every text must work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FF, blacklist_categories=("Cc",)),
    min_size=1,
)
NASTY = "p@s/s%$w:o#r'd\"?&[]"


@pytest.fixture(scope="module")
def url():
    import importlib.util
    from pathlib import Path

    path = Path(__file__).resolve().parents[2] / "_utils" / "nova_url.py"
    spec = importlib.util.spec_from_file_location("nova_url", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(user=TEXT, password=TEXT)
def test_any_user_and_password_survive_encoding_and_parsing(url, user, password):
    parts = url.parse(
        f"mysql+pymysql://{url.encode(user)}:{url.encode(password)}@db.example.org:3307/nova?a=b"
    )
    assert (parts["user"], parts["password"]) == (user, password)
    assert (parts["host"], parts["port"], parts["database"]) == ("db.example.org", 3307, "nova")
    assert parts["query"] == {"a": "b"}


@given(password=TEXT)
def test_masking_leaves_nothing_of_an_encoded_password(url, password):
    encoded = url.encode(password)
    shown = url.mask(f"error at rabbit://openstack:{encoded}@mq:5672/ (gave up)")
    assert shown == "error at rabbit://***@mq:5672/ (gave up)"


def test_masking_covers_an_unencoded_password_and_every_host(url):
    assert url.mask("rabbit://u:a@b/c@h1:1,u:x@h2:2//v") == "rabbit://***@h2:2//v"


@given(password=TEXT)
def test_a_template_renders_to_the_default_with_another_database(url, password):
    default = f"mysql+pymysql://nova:{url.encode(password)}@db:3306/nova?charset=utf8"
    template = "{scheme}://{username}:{password}@{hostname}:{port}/nova_cell0?{query}"
    assert url.render(template, default) == default.replace("/nova?", "/nova_cell0?")


def test_a_template_names_each_of_several_message_hosts(url):
    encoded = url.encode(NASTY)
    default = f"rabbit://o:{encoded}@mq1:5672,o:{encoded}@mq2:5673/"
    template = (
        "{scheme}://{username1}:{password1}@{hostname1}:{port1},"
        "{username2}:{password2}@{hostname2}:{port2}/{path}"
    )
    assert url.render(template, default) == default


def test_a_literal_url_is_its_own_rendering(url):
    assert url.render("rabbit://a:b@c:1/", "rabbit://x:y@z:2/") == "rabbit://a:b@c:1/"


def test_a_template_that_names_an_absent_part_is_refused_by_name(url):
    with pytest.raises(ValueError, match="password7"):
        url.render("{scheme}://{password7}", "rabbit://a:b@c:1/")
