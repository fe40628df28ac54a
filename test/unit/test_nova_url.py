"""URLs: encoding, masking, templates, comparison. Property-based where every text must work."""

import pytest
from conftest import util
from hypothesis import example, given
from hypothesis import strategies as st

url = util("nova_url")

TEXT = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FF, blacklist_categories=("Cc",)),
    min_size=1,
    max_size=12,
)
# A secret that can be told from what surrounds it, with any characters in any place.
SECRET = st.builds("{}s3cr{}et{}".format, TEXT, TEXT, TEXT)
NASTY = "p@s/s%$w:o#r'd\"?&[]"
HOST = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.example\.org)?", fullmatch=True)
SIX = st.ip_addresses(v=6).map(lambda address: f"[{address}]")
PORT = st.integers(1, 65535).map(str)
QUERY = st.dictionaries(st.sampled_from(["charset", "ssl_ca", "a b", "x"]), TEXT, max_size=4)


def lower_escapes(text):
    """The same URL, its percent-encoding written in small letters and where it need not be."""
    return "".join(f"%{ord(c):02x}" if c.isascii() else url.encode(c) for c in text)


def query(pairs):
    return "&".join(f"{url.encode(k)}={url.encode(v)}" for k, v in pairs)


@st.composite
def transports(draw, least=1):
    """A transport URL as its parts: hosts with credentials and ports, virtual host, query."""
    host = st.tuples(TEXT, TEXT, HOST | SIX, PORT)
    return draw(st.lists(host, min_size=least, max_size=3)), draw(TEXT), draw(QUERY)


def written(hosts, virtual_host, pairs, encode=url.encode):
    netloc = ",".join(f"{encode(u)}:{encode(p)}@{h}:{port}" for u, p, h, port in hosts)
    return f"rabbit://{netloc}/{encode(virtual_host)}?{query(pairs)}"


# ---- encoding ----------------------------------------------------------------------------------


@given(user=TEXT, password=TEXT)
def test_any_user_and_password_survive_encoding_and_parsing(user, password):
    parts = url.parse(
        f"mysql+pymysql://{url.encode(user)}:{url.encode(password)}@db.example.org:3307/nova?a=b"
    )
    assert (parts["user"], parts["password"]) == (user, password)
    assert (parts["host"], parts["port"], parts["database"]) == ("db.example.org", 3307, "nova")
    assert parts["query"] == {"a": "b"}


@given(password=TEXT)
@example(password="@,")
def test_what_is_not_encoded_is_refused_or_read_right_but_never_taken_for_a_host(password):
    try:
        parts = url.parse(f"mysql+pymysql://nova:{password}@db:3306/nova")
    except ValueError as exc:
        assert password not in str(exc) or len(password) < 3
    else:
        assert (parts["host"], parts["port"], parts["database"]) == ("db", 3306, "nova")


# ---- masking -----------------------------------------------------------------------------------


@given(password=TEXT)
def test_masking_an_encoded_password_leaves_the_text_around_it(password):
    encoded = url.encode(password)
    shown = url.mask(f"error at rabbit://openstack:{encoded}@mq:5672/ (gave up)")
    assert shown == "error at rabbit://***@mq:5672/ (gave up)"


@given(password=SECRET)
def test_nothing_of_an_unencoded_password_is_shown(password):
    for text in (
        f"mysql+pymysql://nova:{password}@db/nova",
        f"rabbit://a:{password}@mq1:5672,b:x{password}@mq2:5672//v (tried 3 times)",
    ):
        for shown in (url.mask(text), url.shown(text)):
            assert "s3cr" not in shown
            assert "et" not in shown.partition("***@")[0]
            assert shown.partition("://")[2].startswith("***@")


def test_an_http_url_is_masked_by_the_word(mask=url.mask):
    assert mask("http://vip:5000/v3 refuses admin@Default") == (
        "http://vip:5000/v3 refuses admin@Default"
    )
    assert mask("https://u:p@vip/ 'mysql://u:p@db' x") == "https://***@vip/ 'mysql://***@db' x"


@given(transport=transports())
def test_a_literal_url_holds_a_secret_and_its_template_does_not(transport):
    literal = written(*transport[:2], transport[2].items())
    assert url.holds_secret(literal)
    template = url.transport_template(literal)
    assert not url.holds_secret(template)
    assert url.shown(template) == template


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("none:///", False),
        ("rabbit://mq:5672/", False),
        ("{scheme}://{username}:{password}@db:3306/x", False),
        ("{scheme}://{username1}:{password1}@a:1,{username1}:{password1}@b:2/x", False),
        ("{scheme}://nova:{password}@db/x", False),
        ("{scheme}://{username}:pw@db/x", True),
        ("{scheme}://{username}:{password}x@db/x", True),
        ("{scheme}://{username1}:{password1}@a:1,u:p@b:2/x", True),
        ("rabbit://token@mq/", True),
        ("rabbit://u:a,b@mq/", True),
    ],
)
def test_a_password_is_told_from_a_field(text, secret):
    assert url.holds_secret(text) is secret


# ---- templates ---------------------------------------------------------------------------------


@given(password=TEXT, database=st.none() | st.just("nova_cell0"))
def test_a_database_template_renders_to_the_node_s_url(password, database):
    default = f"mysql+pymysql://nova:{url.encode(password)}@db:3306/nova?charset=utf8"
    rendered = url.render(url.database_template(default, database), default)
    assert rendered == default.replace("/nova?", f"/{database or 'nova'}?")


@given(transport=transports())
def test_a_transport_template_renders_to_the_node_s_url(transport):
    default = written(*transport[:2], transport[2].items())
    rendered = url.render(url.transport_template(default), default)
    assert rendered == default


@given(transport=transports())
def test_a_cell_of_its_own_hosts_renders_with_the_node_s_credentials(transport):
    default = written(*transport[:2], transport[2].items())
    template = url.transport_template(default, "cell2", ["mq8:5672", "mq9:5673"])
    user, password, *_ = transport[0][0]
    hosts = [(user, password, "mq8", "5672"), (user, password, "mq9", "5673")]
    assert url.render(template, default) == written(hosts, "cell2", transport[2].items())


def test_a_literal_url_is_its_own_rendering():
    assert url.render("rabbit://a:b@c:1/", "rabbit://x:y@z:2/") == "rabbit://a:b@c:1/"


def test_a_template_that_names_an_absent_part_is_refused_by_name():
    with pytest.raises(ValueError, match="password7"):
        url.render("{scheme}://{password7}", "rabbit://a:b@c:1/")


# ---- comparison --------------------------------------------------------------------------------


@given(transport=transports(), data=st.data())
def test_order_and_encoding_do_not_count(transport, data):
    hosts, virtual_host, pairs = transport
    one = written(hosts, virtual_host, pairs.items())
    shuffled = data.draw(st.permutations(hosts))
    other = written(
        [(u, p, host.upper(), port) for u, p, host, port in shuffled],
        virtual_host,
        data.draw(st.permutations(list(pairs.items()))),
        lower_escapes,
    )
    assert url.same(one, other)
    assert url.same(other, one)


@given(transport=transports(least=2), data=st.data())
def test_any_part_that_differs_counts(transport, data):
    hosts, virtual_host, pairs = transport
    one = written(hosts, virtual_host, pairs.items())
    index = data.draw(st.integers(0, len(hosts) - 1))
    part = data.draw(st.integers(0, 3))
    changed = [list(host) for host in hosts]
    changed[index][part] = "9" if part == 3 and hosts[index][3] != "9" else hosts[index][part] + "9"
    if part == 2:
        changed[index][2] = "another"
    different = sorted(map(tuple, changed)) != sorted(hosts)
    assert url.same(one, written(changed, virtual_host, pairs.items())) is not different
    assert not url.same(one, written(hosts, virtual_host + "9", pairs.items()))
    assert not url.same(one, written(hosts[:-1], virtual_host, pairs.items()))
    assert not url.same(one, written(hosts, virtual_host, {**pairs, "new": "1"}.items()))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("rabbit://u:p@h", "rabbit://u:p@h:5672/", True),
        ("rabbit://u:p@h:5672/", "rabbit://u:p@h:5672//", True),
        ("rabbit://u:p@h:5672/", "rabbit://u:p@h:5672/%2F", True),
        ("rabbit://u:p@h:5672/nova", "rabbit://u:p@h:5672//nova", False),
        ("mysql+pymysql://u:p@h/n", "mysql+pymysql://u:p@h:3306/n", True),
        ("mysql+pymysql://u:p@h/n", "mysql+pymysql://u:p@h:3307/n", False),
        ("mysql+pymysql://u:p@h/n?a=1&b=2", "mysql+pymysql://u:p@h/n?b=2&a=1", True),
        ("mysql+pymysql://u:p@h/n", "mysql+pymysql://u:p@h/n?a=1", False),
        ("mysql+pymysql://u:p@h/n", "postgresql://u:p@h/n", False),
        ("mysql://u:p@h/n", "mysql://u:p@H/N", False),
        ("{scheme}://{hostname}/n", "mysql://h/n", False),
        ("{scheme}://{hostname}/n", "{scheme}://{hostname}/n", True),
        ("mysql://u:a/b@h/n", "mysql://u:a%2Fb@h/n", False),
        ("mysql://[::1/n", "mysql://u:p@h/n", False),
    ],
)
def test_defaults_count_as_written(one, other, same):
    assert url.same(one, other) is same


def test_the_servers_of_a_transport_url_are_those_that_a_client_logs_in_to():
    text = f"rabbit://u:{url.encode(NASTY)}@mq1,v:w@[2001:db8::1]:5671/a%2Fb?x=1"
    assert url.brokers(text) == (
        [
            {"host": "mq1:5672", "userid": "u", "password": NASTY},
            {"host": "[2001:db8::1]:5671", "userid": "v", "password": "w"},
        ],
        "a/b",
    )
    assert url.brokers("rabbit://u:p@mq/")[1] == url.brokers("rabbit://u:p@mq")[1] == "/"
