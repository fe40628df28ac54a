"""The functional tests, on a controller of the converged fleet, against what stands there.

Each finds in its environment what it needs: NOVA_TEST_DATABASE (a server of its own, for some of
them stop it or make it read-only), NOVA_TEST_KEYSTONE (the fleet's), OS_CLOUD (the fleet's).
"""

import base64
import io
import json
import os
import shlex
import tarfile
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import ROOT, lab, on, sh

pytestmark = pytest.mark.long

HOST = "ctl1"
TOOLS = "/root/test-tools"
#: What pytest is made of; all of it is plain Python.
DISTRIBUTIONS = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
SERVER = """
apt-get --quiet --yes --no-install-recommends install mariadb-server-core mariadb-client-core
mkdir -p /srv/test-database
mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db \
    --user=root --datadir=/srv/test-database/data
echo "CREATE OR REPLACE USER root@'127.0.0.1' IDENTIFIED BY 'p@ss:root';
GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;" > /srv/test-database/init.sql
systemd-run --unit=test-database mariadbd --no-defaults --user=root --port=33306 \
    --bind-address=127.0.0.1 --skip-name-resolve --max-connections=500 \
    --innodb-flush-log-at-trx-commit=0 --datadir=/srv/test-database/data \
    --socket=/srv/test-database/socket --init-file=/srv/test-database/init.sql
for _ in $(seq 60); do
    python3 -c 'import socket; socket.create_connection(("127.0.0.1", 33306))' && exit
    sleep 1
done
exit 1
"""


def tools():
    """pytest as this process has it: a tar file, in Base64."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in DISTRIBUTIONS:
            for file in metadata.distribution(name).files:
                if ".." not in file.parts and file.suffix != ".pyc":
                    archive.add(file.locate(), str(file))
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def controller(fleet):
    """Its environment file, as a path there."""
    secrets = Path(f"/var/lib/nova-formula-lab/{os.environ.get('NOVA_LAB', 'nova')}/secrets.json")
    admin = quote(json.loads(secrets.read_text())["keystone_admin"], safe="")
    environment = {
        "PYTHONPATH": TOOLS,
        "PYTHONDONTWRITEBYTECODE": "1",
        "NOVA_TEST_DATABASE": "mysql://root:p%40ss%3Aroot@127.0.0.1:33306/",
        "NOVA_TEST_KEYSTONE": f"http://admin:{admin}@openstack-vip.example.org:5000/v3",
        "OS_CLOUD": "lab",
        "OS_CLIENT_CONFIG_FILE": f"{TOOLS}/clouds.yaml",
    }
    sh(HOST, f"rm -rf {TOOLS}; mkdir -m 700 {TOOLS}")
    sh(HOST, f"base64 -d | tar -x -C {TOOLS}", input=tools())
    files = {
        "environment": "".join(f"export {k}={shlex.quote(v)}\n" for k, v in environment.items()),
        "clouds.yaml": on("infra", "cat", "/root/.config/openstack/clouds.yaml"),
    }
    for name, text in files.items():
        sh(HOST, f"umask 077; cat > {TOOLS}/{name}", input=text)
    sh(HOST, SERVER)
    yield f"{TOOLS}/environment"
    sh(HOST, f"systemctl stop test-database; rm -rf {TOOLS} /srv/test-database")


FILES = sorted(path.name for path in (ROOT / "test/functional").glob("test_*.py"))


@pytest.mark.parametrize("name", FILES)
def test_it_passes_on_a_controller(controller, name):
    done = lab(
        *("exec", HOST, "--", "sh", "-c"),
        f". {controller}; cd /srv/formula && exec /opt/saltstack/bin/python -m pytest "
        f"-p no:cacheprovider --tb=short -rs test/functional/{name}",
        check=False,
        timeout=3600,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
