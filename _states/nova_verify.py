"""
What a person would look at after a deployment, each as a state that fails with one sentence.

They change nothing. In test mode what is not right yet is no failure: the run may make it so.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import salt.utils.files
from salt.exceptions import CommandExecutionError, SaltInvocationError

log = logging.getLogger(__name__)

# Salt puts in what the states before this one have returned.
__running__: dict = {}

#: Seconds between two looks.
INTERVAL = 2
#: Seconds within which a service has surely reported again: it does so every ten.
REPORTS = 30
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def __virtual__():
    if "nova_identity.get_from" in __salt__:
        return True
    return False, "The module nova_identity is not loaded: run saltutil.sync_all."


def api_answers(
    name: str,
    auth: dict[str, Any],
    region: str,
    path: str = "/",
    interface: str = "public",
    timeout: int = 60,
    ahead: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    """
    An API answers an authenticated request at the URL that the catalog gives.

    name : str
        Service type, such as ``placement``.
    auth : dict
        As for the states of nova_identity.
    region, interface : str
        Of the endpoint.
    path : str
        What to ask for.
    timeout : int
        Seconds to wait for it.
    ahead : dict
        Lists of paths, by service type, that this state and those after it ask for: they are
        asked at the same time. What nova_identity.read_ahead has begun to ask holds, unless this
        run has changed something since.

    .. code-block:: yaml

        nova-verify-placement:
          nova_verify.api_answers:
            - name: placement
            - path: /resource_providers
            - region: RegionOne
            - auth: {auth_url: …, username: admin, password_pillar: nova:passwords:keystone_admin}
    """

    anew = any(ret.get("changes") for ret in __running__.values())

    def check() -> str:
        nonlocal anew
        if ahead:
            __salt__["nova_identity.get_ahead"](ahead, region, interface, auth=auth, anew=anew)
        anew = True
        _get(auth, region, name, path, interface)
        return f"{name} answers at its {interface} endpoint."

    return _verified(name, check, timeout)


def services_up(
    name: str, auth: dict[str, Any], region: str, hosts: list[str], timeout: int = 60
) -> dict[str, Any]:
    """
    Conductor and scheduler of each controller are up; a nova-compute that is down is reported.

    name : str
        Any text.
    auth : dict
        As for the states of nova_identity.
    region : str
        Of the compute endpoint.
    hosts : list
        The controllers that must be up, by Nova's name.
    timeout : int
        Seconds to wait for their first report.
    """
    warnings = []
    first: dict[tuple, str | None] = {}

    def check() -> str:
        services = _get(auth, region, "compute", "/os-services")["services"]
        up = {(s["host"], s["binary"]) for s in services if s["state"] == "up"}
        last = {(s["host"], s["binary"]): s["updated_at"] for s in services}
        for host in hosts:
            for binary in ("nova-conductor", "nova-scheduler"):
                if (host, binary) not in up:
                    seen = last.get((host, binary))
                    if seen != first.setdefault((host, binary), seen):
                        raise CommandExecutionError(_clock(binary, host, seen))
                    raise CommandExecutionError(
                        f"{binary} on {host} is not up: see its log under /var/log/nova there."
                    )
        warnings[:] = [
            f"nova-compute on {s['host']} is down since {s['updated_at']}."
            for s in services
            if s["binary"] == "nova-compute" and s["state"] != "up"
        ]
        return f"{len(up)} of {len(services)} services are up."

    return _verified(name, check, timeout, warnings)


def services_report(name: str, timeout: int = 120) -> dict[str, Any]:
    """
    Every service of every cell reports while this state looks: it reaches RabbitMQ, or its cell's
    database, with what it runs with now. One that is forced down is passed over.

    name : str
        Any text.
    timeout : int
        Seconds to wait for the next report of the last of them; Nova's interval is 10.
    """
    first: dict[tuple, int] = {}

    def check() -> str:
        now = {
            (s["cell"], s["host"], s["binary"]): s["reports"]
            for s in __salt__["nova_manage.list_services"]()
            if not s["forced_down"]
        }
        for who, reports in now.items():
            first.setdefault(who, reports)
        silent = sorted(who for who, reports in now.items() if reports == first[who])
        if silent and not __opts__["test"]:
            named = ", ".join(f"{binary} on {host}" for _, host, binary in silent)
            raise CommandExecutionError(
                f"Not heard of for {timeout} s: {named}. See their logs under /var/log/nova; what "
                "is gone for good, delete with nova_compute.delete_service."
            )
        return f"{len(now)} services report."

    return _verified(name, check, timeout)


def hypervisors_present(
    name: str, auth: dict[str, Any], region: str, expected: list[str], timeout: int = 60
) -> dict[str, Any]:
    """
    The expected hosts have a hypervisor; one that is down is reported.

    name : str
        Any text.
    auth : dict
        As for the states of nova_identity.
    region : str
        Of the compute endpoint.
    expected : list
        Nova's names of the compute hosts.
    timeout : int
        Seconds to wait for them.
    """
    warnings = []

    def check() -> str:
        found = _get(auth, region, "compute", "/os-hypervisors/detail")["hypervisors"]
        missing = sorted(set(expected) - {h["service"]["host"] for h in found})
        if missing:
            raise CommandExecutionError(
                f"No hypervisor on {', '.join(missing)}: see nova-compute's log there."
            )
        warnings[:] = [
            f"The hypervisor {h['hypervisor_hostname']} is {h['state']}."
            for h in found
            if h["state"] != "up"
        ]
        shown = ", ".join(f"{h['hypervisor_hostname']} ({h['hypervisor_type']})" for h in found)
        return f"{len(found)} hypervisors: {shown or 'none yet'}."

    return _verified(name, check, timeout, warnings)


def catalog_complete(
    name: str, auth: dict[str, Any], region: str, endpoints: list[dict[str, str]]
) -> dict[str, Any]:
    """
    The token's catalog has each endpoint, at its URL.

    name : str
        Any text.
    auth : dict
        As for the states of nova_identity.
    region : str
        Whose endpoints are meant.
    endpoints : list
        Dicts of ``type``, ``interface`` and ``url``.
    """

    def check() -> str:
        there: dict[tuple, list[str]] = {}
        for service in __salt__["nova_identity.catalog"](auth):
            for endpoint in service["endpoints"]:
                if endpoint["region"] == region:
                    place = (service["type"], endpoint["interface"])
                    there.setdefault(place, []).append(endpoint["url"])
        for wanted in endpoints:
            # Keystone puts ids of the token's project and user into a URL that asks for them.
            parts = re.split(r"[%$]\(\w+\)s", wanted["url"])
            url = re.compile("[^/]+".join(re.escape(part) for part in parts))
            if not any(map(url.fullmatch, there.get((wanted["type"], wanted["interface"]), []))):
                raise CommandExecutionError(
                    f"The catalog of {region} has no {wanted['interface']} endpoint of "
                    f"{wanted['type']} at {wanted['url']}: apply nova.controller.identity."
                )
        return f"The catalog has all {len(endpoints)} endpoints."

    return _verified(name, check, 0)


def cells_mapped(name: str) -> dict[str, Any]:
    """
    cell0 and the named cell are mapped, and every host that registered is in a cell.

    name : str
        The cell.
    """

    def check() -> str:
        cells = {cell["name"] for cell in __salt__["nova_manage.list_cells"]()}
        for wanted in ("cell0", name):
            if wanted not in cells:
                raise CommandExecutionError(
                    f"The cell {wanted} is not mapped: apply nova.controller.schema."
                )
        lost = [row["host"] for row in __salt__["nova_manage.unmapped_hosts"]()]
        if lost:
            raise CommandExecutionError(
                f"No cell has {', '.join(lost)}: apply nova.controller.discovery."
            )
        return f"{len(cells)} cells, {len(__salt__['nova_manage.list_hosts']())} hosts in them."

    return _verified(name, check, 0)


def upgrade_checked(name: str, stamp: str, always: bool = False) -> dict[str, Any]:
    """
    ``nova-status upgrade check`` finds no failure; it takes seconds, so it runs for new code only.

    name : str
        Any text.
    stamp : str
        File that remembers for which code and schema the check was last passed.
    always : bool
        Run it in any case.
    """
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    try:
        now = __salt__["nova_manage.code_and_schema"]()
        before = _remembered(stamp)
        if now == before and not always:
            return {**ret, "result": True, "comment": "Passed before, for this code and schema."}
        if now != before:
            ret["changes"] = {"upgrade check passed for": {"old": before, "new": now}}
        if __opts__["test"]:
            return {**ret, "result": None, "comment": "The upgrade check would run."}
        found = __salt__["nova_manage.upgrade_check"]()
    except (CommandExecutionError, SaltInvocationError) as exc:
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"Not yet: {exc}"}
        return {**ret, "changes": {}, "comment": str(exc)}
    shown = [f"{c['check']}: {c.get('details', '')}" for c in found if c["result"] != "Success"]
    if any(c["result"] == "Failure" for c in found):
        comment = f"nova-status upgrade check finds what must be mended first: {'; '.join(shown)}"
        return {**ret, "changes": {}, "comment": comment}
    if now != before:
        try:
            __utils__["nova_file.replace"](stamp, json.dumps(now))
        except CommandExecutionError as exc:
            return {**ret, "changes": {}, "comment": str(exc)}
    comment = f"nova-status upgrade check: {len(found)} checks passed."
    return {**ret, "result": True, "comment": comment, **({"warnings": shown} if shown else {})}


def no_guests(name: str, given_up: list[str]) -> dict[str, Any]:
    """
    No guest lives on this node, or the pillar gives its guests up by the node's name.

    name : str
        Directory of the guests, ``/var/lib/nova/instances``.
    given_up : list
        Hosts that may go with their guests (``nova:clean:computes``).
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "No guest lives here."}
    guests = [g for g in (os.listdir(name) if os.path.isdir(name) else ()) if _UUID.match(g)]
    if guests and not {__grains__["id"], __grains__.get("host")} & set(given_up):
        return {
            **ret,
            "result": False,
            "comment": f"{len(guests)} guests live here: move them away, or name this host under "
            "nova:clean:computes.",
        }
    if guests:
        ret["comment"] = f"{len(guests)} guests are given up (nova:clean:computes)."
    return ret


def _clock(binary: str, host: str, seen: str) -> str:
    """What is said of a service that reports and counts as down nevertheless."""
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    behind = (now - datetime.fromisoformat(seen)).total_seconds()
    clock = f"is {abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'} this node's"
    if abs(behind) < REPORTS:
        clock = "and this node's are not that of the node whose API answered"
    return (
        f"{binary} on {host} reports, but counts as down: its clock {clock}. Set the clocks of the "
        "site's hosts by the same time servers, and restart it there."
    )


def _verified(
    name: str, check: Callable[[], str], timeout: int, warnings: list[str] | None = None
) -> dict[str, Any]:
    ret = {"name": name, "result": True, "changes": {}, "comment": ""}
    deadline = time.monotonic() + (0 if __opts__["test"] else timeout)
    spoken = ""
    while True:
        try:
            ret["comment"] = check()
            break
        except (CommandExecutionError, SaltInvocationError) as exc:
            if time.monotonic() >= deadline:
                if __opts__["test"]:
                    return {**ret, "result": None, "comment": f"Not yet: {exc}"}
                return {**ret, "result": False, "comment": str(exc)}
            if str(exc) != spoken:
                spoken = str(exc)
                log.info("%s Looking again, for %d s at most.", spoken, deadline - time.monotonic())
        time.sleep(INTERVAL)
    return {**ret, **({"warnings": warnings} if warnings else {})}


def _get(
    auth: dict[str, Any], region: str, service: str, path: str, interface: str = "public"
) -> dict[str, Any]:
    return __salt__["nova_identity.get_from"](service, path, region, interface, auth=auth)


def _remembered(stamp: str) -> dict[str, Any] | None:
    try:
        with salt.utils.files.fopen(stamp) as stream:
            return json.load(stream)
    except (FileNotFoundError, ValueError):
        return None
