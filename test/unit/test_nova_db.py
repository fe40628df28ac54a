"""Connections: a refused one is a sentence, also after Salt's own mysql module was loaded."""

import subprocess
import sys

import pytest
from conftest import ROOT
from salt.exceptions import CommandExecutionError

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


def test_a_configuration_without_the_url_is_named(loaders, tmp_path):
    with pytest.raises(CommandExecutionError, match=r"has no \[api_database\] connection"):
        loaders[0]["nova_db.from_config"](str(tmp_path / "nova.conf"))


def test_a_url_gives_the_arguments_of_a_connection(loaders):
    found = loaders[0]["nova_db.from_url"]("mysql+pymysql://u:p%40@h:3307/n?ssl_ca=/ca.pem", "w")
    assert found == {
        "host": "h",
        "port": 3307,
        "user": "u",
        "password": "p@",
        "database": "n",
        "ssl_ca": "/ca.pem",
        "what": "w",
    }
