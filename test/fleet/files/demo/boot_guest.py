"""Runs on infra: one connection to the cloud boots a guest and asks for all that the demo shows.

Usage: boot_guest.py LINE — the line that the guest's console says when it is up.
"""

import json
import sys
import time

import openstack

LINE = sys.argv[1]
NAME, FLAVOR, IMAGE = "demo", "demo.tiny", "guest"
SECONDS = 180

cloud = openstack.connect(cloud="lab")
compute = cloud.compute


def wait(condition, what):
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"Waited {SECONDS} s in vain for {what}.")
        time.sleep(0.5)
    return found


def active():
    server = compute.get_server(guest.id)
    if server.status == "ERROR":
        sys.exit(f"The guest is in ERROR: {(server.fault or {}).get('message')}")
    return server if server.status == "ACTIVE" else None


def said():
    try:
        log = compute.get_server_console_output(guest.id)["output"] or ""
    except openstack.exceptions.NotFoundException:
        return None  # no console: its host was switched off under it
    return next((line.strip() for line in log.splitlines() if LINE in line), None)


flavor = compute.find_flavor(FLAVOR) or compute.create_flavor(
    name=FLAVOR, vcpus=1, ram=128, disk=0, is_public=True)
guest = compute.find_server(NAME)
if guest and not (compute.get_server(guest.id).status == "ACTIVE" and said()):
    compute.delete_server(guest.id)
    compute.wait_for_delete(guest)
    guest = None
guest = guest or compute.create_server(
    name=NAME, flavor_id=flavor.id, image_id=cloud.image.find_image(IMAGE).id, networks="none")
guest = wait(active, "the guest to be ACTIVE")
line = wait(said, f"'{LINE}' on the guest's console")

services = {}
for service in compute.services():
    state = "" if service.state == "up" else f" ({service.state})"
    services.setdefault(service.host, []).append(service.binary.removeprefix("nova-") + state)
print(json.dumps({
    "url": compute.create_server_remote_console(guest, protocol="vnc", type="novnc").url,
    "guest": {"name": guest.name, "status": guest.status, "host": guest.hypervisor_hostname,
              "says": line},
    "services": services,
    "hypervisors": [{"name": hypervisor.name, "type": hypervisor.hypervisor_type,
                     "state": hypervisor.state}
                    for hypervisor in compute.hypervisors(details=True)],
}))
