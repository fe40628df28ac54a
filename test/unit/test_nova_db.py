"""Connections: a refused one is a sentence, also after Salt's own mysql module was loaded."""

import socket
import subprocess
import sys
import threading

import pytest
from conftest import ROOT
from salt.exceptions import CommandExecutionError

sys.path.insert(0, str(ROOT / "test"))
from certificates import Authority  # noqa: E402

# Salt's mysql module does the first three lines; the third executes pymysql's modules again, and
# replaces `pymysql.err`, from then on another module than the one whose errors are raised.
AFTER_SALTS_MYSQL = """
import pymysql
pymysql.install_as_MySQLdb()
import MySQLdb.converters
import importlib.util
from salt.exceptions import CommandExecutionError
spec = importlib.util.spec_from_file_location("nova_db", "_utils/nova_db.py")
nova_db = importlib.util.module_from_spec(spec)
spec.loader.exec_module(nova_db)
try:
    nova_db.connect("127.0.0.1", "nova", "s3cret", port=1)
except CommandExecutionError as exc:
    print(exc.info, exc)
"""


def test_a_refused_connection_is_a_sentence_after_salts_mysql_module_was_loaded():
    done = subprocess.run(
        [sys.executable, "-c", AFTER_SALTS_MYSQL],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout.startswith("2003 Cannot log in to the database server 127.0.0.1:1 as nova")


def test_a_refused_connection_names_where_its_credentials_come_from(loaders):
    with pytest.raises(CommandExecutionError) as caught:
        loaders[0]["nova_db.connect"]("127.0.0.1", "nova", "s3cret", port=1, what="the file x")
    assert "credentials from the file x" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_file_of_tls_that_is_not_there_is_named(loaders):
    with pytest.raises(CommandExecutionError, match=r"^/no/ca\.pem cannot be read: the TLS of"):
        loaders[0]["nova_db.connect"]("127.0.0.1", "nova", "s3cret", port=1, ssl_ca="/no/ca.pem")


#: What a server says first: its version, a challenge, what it can (no TLS), how one logs in.
GREETING = (
    b"\n10.11\0" + bytes(4) + b"12345678\0\xff\xf7\x21\x02\0\xff\x81\x15" + bytes(10)
    + b"123456789012\0mysql_native_password\0"
)  # fmt: skip


def test_a_server_without_tls_is_told_nothing_where_tls_is_required(loaders, tmp_path):
    (tmp_path / "ca.pem").write_text(Authority().pem)
    told = []

    def serve(server):
        connection, _ = server.accept()
        with connection:
            connection.sendall(len(GREETING).to_bytes(3, "little") + b"\0" + GREETING)
            told.append(connection.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        with pytest.raises(CommandExecutionError, match=r"TLS|doesn't support it") as caught:
            loaders[0]["nova_db.connect"](
                "127.0.0.1",
                "nova",
                "s3cret",
                port=server.getsockname()[1],
                ssl_ca=str(tmp_path / "ca.pem"),
            )
        thread.join()
    assert (caught.value.info, told) == (2026, [b""])


def test_a_configuration_without_the_url_is_named(loaders, tmp_path):
    with pytest.raises(CommandExecutionError, match=r"has no \[api_database\] connection"):
        loaders[0]["nova_db.from_config"](str(tmp_path / "nova.conf"))


def test_a_url_gives_the_arguments_of_a_connection(loaders):
    url = "mysql+pymysql://u:p%40@h:3307/n?ssl_ca=/ca.pem&ssl_cert=%2Fmy.pem"
    found = loaders[0]["nova_db.from_url"](url, "w")
    assert found == {
        "host": "h",
        "port": 3307,
        "user": "u",
        "password": "p@",
        "database": "n",
        "ssl_ca": "/ca.pem",
        "ssl_cert": "/my.pem",
        "ssl_key": None,
        "what": "w",
    }
