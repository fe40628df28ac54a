"""
Nova's API: services, hypervisors, flavors, aggregates, keypairs and quotas.

Every function takes ``auth``, a dict, or ``cloud``, a name, which say where Keystone is and who
asks, as for nova_identity, whose session is used; with neither the node's own nova.conf does. They
also take ``region``, a name, by default auth's ``region_name``: it is needed where the catalog has
several. ``interface`` of auth is ``public`` by default.

What is read is kept for a run. Errors are CommandExecutionError with one sentence, and
``exc.info`` holds the HTTP status where there is one.
"""

import os
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

from salt.exceptions import CommandExecutionError

#: The lowest of Nova's "REST API Version History" that has all that is used: services and
#: hypervisors by uuid (2.53), descriptions (2.55) and extra specs (2.61) of flavors, quotas that
#: are Nova's alone (2.57), services of a cell that does not answer (2.69). Stein goes to 2.72; no
#: release has dropped an old one. Later ones take away: a hypervisor's figures (2.88), the making
#: of a private key (2.92).
MICROVERSION = "2.69"

NOT_FOUND = 404
CONFLICT = 409
FAILED = 500
#: Seconds for which what has been read is taken as true.
READ_AGE = 60

_SERVICE = ("id", "host", "binary", "zone", "status", "state", "disabled_reason", "forced_down")
_SERVICE += ("updated_at",)
_HYPERVISOR = ("id", "hypervisor_hostname", "hypervisor_type", "hypervisor_version", "host_ip")
_HYPERVISOR += ("state", "status", "vcpus", "vcpus_used", "memory_mb", "memory_mb_used")
_HYPERVISOR += ("local_gb", "local_gb_used", "running_vms", "cpu_info")
#: What a flavor has, and how the API calls it.
_FLAVOR = {
    "id": "id",
    "name": "name",
    "ram": "ram",
    "vcpus": "vcpus",
    "disk": "disk",
    "ephemeral": "OS-FLV-EXT-DATA:ephemeral",
    "swap": "swap",
    "rxtx_factor": "rxtx_factor",
    "is_public": "os-flavor-access:is_public",
    "description": "description",
}


# ---- services and hypervisors -------------------------------------------------------------------


def list_services(
    host: str | None = None,
    binary: str | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> list[dict[str, Any]]:
    """
    Nova's daemons: ``id``, ``host``, ``binary``, ``zone``, ``status``, ``state``,
    ``disabled_reason``, ``forced_down``, ``updated_at``.

    ``status`` is ``enabled``, ``disabled``, or ``UNKNOWN`` where the cell does not answer, and all
    but host and binary are then None.

    host, binary : str
        Only those of a host, and such as ``nova-compute``.

    CLI Example::

        salt ctl1 nova_compute.list_services binary=nova-compute
    """
    at = (region, auth, cloud)
    return [
        {field: row.get(field) for field in _SERVICE}
        for row in _list(at, "/os-services", "services")
        if host in (None, row["host"]) and binary in (None, row["binary"])
    ]


def enable_service(
    host: str,
    binary: str = "nova-compute",
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Let the scheduler use a host again.

    host, binary : str
        Nova's name of the host, and the daemon.

    CLI Example::

        salt ctl1 nova_compute.enable_service cmp1
    """
    return _update_service((region, auth, cloud), host, binary, {"status": "enabled"})


def disable_service(
    host: str,
    binary: str = "nova-compute",
    reason: str | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Keep the scheduler from using a host. Guests that run there stay.

    host, binary, reason : str
        Nova's name of the host, the daemon, and a text for whoever asks why.

    CLI Example::

        salt ctl1 nova_compute.disable_service cmp1 reason='new memory'
    """
    values = {"status": "disabled", **({"disabled_reason": reason} if reason else {})}
    return _update_service((region, auth, cloud), host, binary, values)


def delete_service(
    host: str,
    binary: str = "nova-compute",
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Delete a service; of nova-compute also the host's mapping, provider and places in aggregates.

    Stop the daemon first: it does not come back by itself before it is started anew.

    host, binary : str
        Nova's name of the host, and the daemon.

    Returns False when there is none. Nova refuses while guests are on the host.

    CLI Example::

        salt ctl1 nova_compute.delete_service cmp9
    """
    at = (region, auth, cloud)
    found = _known_services(at, host, binary)
    return all([_delete(at, f"/os-services/{row['id']}") for row in found]) and bool(found)


def list_guests(
    host: str, region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> list[dict[str, Any]]:
    """
    Guests of all projects on a host: ``id``, ``name``. Never from memory.

    host : str
        Nova's name of the host.

    CLI Example::

        salt ctl1 nova_compute.list_guests cmp1
    """
    query = urllib.parse.urlencode({"all_tenants": 1, "host": host})
    rows = _rows((region, auth, cloud), f"/servers?{query}", "servers")
    return [{"id": row["id"], "name": row.get("name")} for row in rows]


def list_hypervisors(
    region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> list[dict[str, Any]]:
    """
    All hypervisors: ``hypervisor_hostname``, ``host``, ``state``, ``status``, their type, version
    and address, what they have and what is used (``memory_mb`` in MiB, ``local_gb`` in GiB).

    CLI Example::

        salt ctl1 nova_compute.list_hypervisors
    """
    return [
        {field: row.get(field) for field in _HYPERVISOR} | {"host": row["service"]["host"]}
        for row in _list((region, auth, cloud), "/os-hypervisors/detail", "hypervisors")
    ]


def get_hypervisor(
    name: str, region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> dict[str, Any] | None:
    """
    One hypervisor, as in :func:`list_hypervisors`; None when there is none.

    name : str
        Its ``hypervisor_hostname``.

    CLI Example::

        salt ctl1 nova_compute.get_hypervisor cmp1.example.org
    """
    rows = list_hypervisors(region, auth, cloud)
    return next((row for row in rows if row["hypervisor_hostname"] == name), None)


# ---- flavors ------------------------------------------------------------------------------------


def list_flavors(
    region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> list[dict[str, Any]]:
    """
    All flavors: ``id``, ``name``, ``ram`` (MiB), ``vcpus``, ``disk`` and ``ephemeral`` (GiB),
    ``swap`` (MiB), ``rxtx_factor``, ``is_public``, ``description``, ``extra_specs``.

    CLI Example::

        salt ctl1 nova_compute.list_flavors
    """
    return list(_flavors((region, auth, cloud)).values())


def get_flavor(
    name: str, region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> dict[str, Any] | None:
    """
    One flavor, as in :func:`list_flavors`; None when there is none.

    name : str
        Its name.

    CLI Example::

        salt ctl1 nova_compute.get_flavor m1.small
    """
    return _flavors((region, auth, cloud)).get(name)


def create_flavor(
    name: str,
    ram: int,
    vcpus: int,
    disk: int = 0,
    ephemeral: int | None = None,
    swap: int | None = None,
    rxtx_factor: float | None = None,
    is_public: bool | None = None,
    id: str | None = None,
    description: str | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Create a flavor. Returns False when another made it first.

    name, id, description : str
        Its name, its id (by default Nova chooses), and a text.
    ram, vcpus, disk, ephemeral, swap : int
        Memory in MiB, processors, root disk and second disk in GiB, swap in MiB.
    rxtx_factor : float
        Its share of the network, where the hypervisor knows of that.
    is_public : bool
        Whether all projects may use it; by default they may.

    CLI Example::

        salt ctl1 nova_compute.create_flavor m1.small 2048 1 20
    """
    at = (region, auth, cloud)
    values = {"name": name, "ram": ram, "vcpus": vcpus, "disk": disk, "ephemeral": ephemeral}
    values |= {"swap": swap, "rxtx_factor": rxtx_factor, "is_public": is_public, "id": id}
    values |= {"description": description}
    body = {_FLAVOR[key]: value for key, value in values.items() if value is not None}
    return _unless_made(at, "/flavors", {"flavor": body}, lambda: name in _flavors(at))


def update_flavor(
    name: str,
    description: str,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Change the one thing that Nova lets change: a flavor's description.

    name, description : str
        Its name, and a text.

    CLI Example::

        salt ctl1 nova_compute.update_flavor m1.small 'For tests'
    """
    at = (region, auth, cloud)
    _write(at, "PUT", _flavor_path(at, name), {"flavor": {"description": description}})
    return True


def replace_flavor(
    name: str,
    ram: int | None = None,
    vcpus: int | None = None,
    disk: int | None = None,
    ephemeral: int | None = None,
    swap: int | None = None,
    rxtx_factor: float | None = None,
    is_public: bool | None = None,
    id: str | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Delete a flavor and make it anew with other values; what is not given stays, its id too.

    Its extra specs stay, and so does the access that projects have. Servers keep a copy of the
    flavor that they were made with. When the new one is refused the old one is put back.

    name, id : str
        Its name, and its new id.
    ram, vcpus, disk, ephemeral, swap, rxtx_factor, is_public
        As of :func:`create_flavor`.

    CLI Example::

        salt ctl1 nova_compute.replace_flavor m1.small ram=4096
    """
    at = (region, auth, cloud)
    old = _required(at, "flavor", name)
    projects = [] if old["is_public"] else list_flavor_access(name, *at)
    new = {"ram": ram, "vcpus": vcpus, "disk": disk, "ephemeral": ephemeral, "swap": swap}
    new |= {"rxtx_factor": rxtx_factor, "is_public": is_public, "id": id}
    new = old | {key: value for key, value in new.items() if value is not None}

    def make(flavor: dict) -> None:
        base = {key: value for key, value in flavor.items() if key != "extra_specs"}
        create_flavor(**base, region=region, auth=auth, cloud=cloud)
        if flavor["extra_specs"]:
            set_extra_specs(name, flavor["extra_specs"], *at)
        for project_id in projects if not flavor["is_public"] else ():
            add_flavor_access(name, None, "Default", project_id, *at)

    if not _delete(at, _flavor_path(at, name)):
        return False
    try:
        make(new)
    except CommandExecutionError as exc:
        delete_flavor(name, *at)
        make(old)
        failure = CommandExecutionError(f"{exc.strerror} The flavor {name} is as it was.")
        failure.info = exc.info
        raise failure from exc
    return True


def delete_flavor(
    name: str, region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> bool:
    """
    Delete a flavor. Servers that were made with it stay. Returns False when there is none.

    name : str
        Its name.

    CLI Example::

        salt ctl1 nova_compute.delete_flavor m1.old
    """
    at = (region, auth, cloud)
    return name in _flavors(at) and _delete(at, _flavor_path(at, name))


def set_extra_specs(
    name: str,
    extra_specs: dict[str, Any],
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Set extra specs of a flavor, and remove those whose value is None; the others stay.

    Returns False when another set the same at the same moment.

    name : str
        The flavor's name.
    extra_specs : dict
        Such as ``{'hw:cpu_policy': dedicated}``.

    CLI Example::

        salt ctl1 nova_compute.set_extra_specs m1.small "{'hw:cpu_policy': dedicated}"
    """
    at = (region, auth, cloud)
    path = f"{_flavor_path(at, name)}/os-extra_specs"
    wanted = {key: _text(value) for key, value in extra_specs.items() if value is not None}

    def made() -> bool:
        return wanted.items() <= _required(at, "flavor", name)["extra_specs"].items()

    done = not wanted or _unless_made(at, path, {"extra_specs": wanted}, made)
    for key in extra_specs.keys() - wanted.keys():
        _delete(at, f"{path}/{_quoted(key)}")
    return done


def list_flavor_access(
    name: str, region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> list[str]:
    """
    Ids of the projects that may use a flavor that is not public; empty for one that is.

    name : str
        The flavor's name.

    CLI Example::

        salt ctl1 nova_compute.list_flavor_access m1.gpu
    """
    at = (region, auth, cloud)
    if _required(at, "flavor", name)["is_public"]:
        return []
    rows = _list(at, f"{_flavor_path(at, name)}/os-flavor-access", "flavor_access")
    return sorted(row["tenant_id"] for row in rows)


def add_flavor_access(
    name: str,
    project: str | None = None,
    domain: str = "Default",
    project_id: str | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Let a project use a flavor that is not public. Returns False when another did it first.

    name, project, domain : str
        The flavor's name, and those of a project and its domain; or
    project_id : str
        the project's id.

    CLI Example::

        salt ctl1 nova_compute.add_flavor_access m1.gpu service
    """
    at = (region, auth, cloud)
    project_id = project_id or _id(at, "project", project, domain)
    body = {"addTenantAccess": {"tenant": project_id}}
    return _unless_made(
        at,
        f"{_flavor_path(at, name)}/action",
        body,
        lambda: project_id in list_flavor_access(name, *at),
    )


def remove_flavor_access(
    name: str,
    project: str | None = None,
    domain: str = "Default",
    project_id: str | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Keep a project from using a flavor that is not public.

    name, project, domain : str
        The flavor's name, and those of a project and its domain; or
    project_id : str
        the project's id.

    CLI Example::

        salt ctl1 nova_compute.remove_flavor_access m1.gpu service
    """
    at = (region, auth, cloud)
    project_id = project_id or _id(at, "project", project, domain)
    body = {"removeTenantAccess": {"tenant": project_id}}
    return _unless_gone(at, "POST", f"{_flavor_path(at, name)}/action", body)


# ---- aggregates ---------------------------------------------------------------------------------


def list_aggregates(
    region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> list[dict[str, Any]]:
    """
    All host aggregates: ``id``, ``uuid``, ``name``, ``availability_zone``, ``hosts``,
    ``metadata`` (without the zone, which Nova keeps there too).

    CLI Example::

        salt ctl1 nova_compute.list_aggregates
    """
    return list(_aggregates((region, auth, cloud)).values())


def get_aggregate(
    name: str, region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> dict[str, Any] | None:
    """
    One aggregate, as in :func:`list_aggregates`; None when there is none.

    name : str
        Its name.

    CLI Example::

        salt ctl1 nova_compute.get_aggregate ssd
    """
    return _aggregates((region, auth, cloud)).get(name)


def create_aggregate(
    name: str,
    availability_zone: str | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Create an aggregate. Returns False when another made it first.

    name, availability_zone : str
        Its name, and the zone that its hosts form.

    CLI Example::

        salt ctl1 nova_compute.create_aggregate ssd
    """
    at = (region, auth, cloud)
    body = {"aggregate": {"name": name, "availability_zone": availability_zone}}
    return _unless_made(at, "/os-aggregates", body, lambda: name in _aggregates(at))


def set_aggregate_metadata(
    name: str,
    metadata: dict[str, Any],
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Set metadata of an aggregate, and remove what has the value None; the rest stays.

    name : str
        The aggregate's name.
    metadata : dict
        Such as ``{ssd: 'true'}``; ``availability_zone`` is the zone, which can only be changed.

    CLI Example::

        salt ctl1 nova_compute.set_aggregate_metadata fast "{ssd: 'true'}"
    """
    wanted = {key: None if value is None else _text(value) for key, value in metadata.items()}
    return _act((region, auth, cloud), name, {"set_metadata": {"metadata": wanted}})


def add_aggregate_host(
    name: str,
    host: str,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Add a host to an aggregate. Returns False when another did it first.

    name, host : str
        The aggregate's name, and Nova's name of a compute host.

    CLI Example::

        salt ctl1 nova_compute.add_aggregate_host ssd cmp1
    """
    at = (region, auth, cloud)
    path = f"/os-aggregates/{_required(at, 'aggregate', name)['id']}/action"
    return _unless_made(
        at, path, {"add_host": {"host": host}}, lambda: host in _aggregates(at)[name]["hosts"]
    )


def remove_aggregate_host(
    name: str,
    host: str,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Take a host out of an aggregate.

    name, host : str
        The aggregate's name, and Nova's name of the host.

    CLI Example::

        salt ctl1 nova_compute.remove_aggregate_host ssd cmp1
    """
    return _act((region, auth, cloud), name, {"remove_host": {"host": host}})


def delete_aggregate(
    name: str, region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> bool:
    """
    Delete an aggregate that has no host. Returns False when there is none.

    name : str
        Its name.

    CLI Example::

        salt ctl1 nova_compute.delete_aggregate ssd
    """
    at = (region, auth, cloud)
    found = _aggregates(at).get(name)
    return bool(found) and _delete(at, f"/os-aggregates/{found['id']}")


# ---- keypairs -----------------------------------------------------------------------------------


def list_keypairs(
    user: str | None = None,
    domain: str = "Default",
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> list[dict[str, Any]]:
    """
    A user's keypairs: ``name``, ``type``, ``fingerprint``, ``public_key``.

    user, domain : str
        Names of the user and its domain; by default who asks.

    CLI Example::

        salt ctl1 nova_compute.list_keypairs
    """
    at = (region, auth, cloud)
    fields = ("name", "type", "fingerprint", "public_key")
    return [
        {field: row["keypair"].get(field) for field in fields}
        for row in _list(at, f"/os-keypairs{_of_user(at, user, domain)}", "keypairs")
    ]


def create_keypair(
    name: str,
    public_key: str,
    type: str = "ssh",
    user: str | None = None,
    domain: str = "Default",
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Import a public key. Returns False when another did it first.

    name, public_key, type : str
        The keypair's name, the key, and ``ssh`` or ``x509``.
    user, domain : str
        Names of the user and its domain; by default who asks.

    CLI Example::

        salt ctl1 nova_compute.create_keypair deploy 'ssh-ed25519 AAAA… deploy'
    """
    at = (region, auth, cloud)
    values = {"name": name, "public_key": public_key, "type": type}
    if user:
        values["user_id"] = _id(at, "user", user, domain)

    def made() -> bool:
        return any(row["name"] == name for row in list_keypairs(user, domain, *at))

    return _unless_made(at, "/os-keypairs", {"keypair": values}, made)


def delete_keypair(
    name: str,
    user: str | None = None,
    domain: str = "Default",
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Delete a keypair. Returns False when there is none.

    name, user, domain : str
        Its name, and the names of the user and its domain; by default who asks.

    CLI Example::

        salt ctl1 nova_compute.delete_keypair old
    """
    at = (region, auth, cloud)
    return _delete(at, f"/os-keypairs/{_quoted(name)}{_of_user(at, user, domain)}")


# ---- quotas -------------------------------------------------------------------------------------


def get_quotas(
    project: str,
    domain: str = "Default",
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, int]:
    """
    What a project may have at most, such as ``{cores: 20, instances: 10, ram: 51200}``; -1: as
    much as there is. What was never set is the default.

    project, domain : str
        Names of the project and its domain.

    CLI Example::

        salt ctl1 nova_compute.get_quotas service
    """
    at = (region, auth, cloud)
    return _quotas(at, f"/os-quota-sets/{_id(at, 'project', project, domain)}", "quota_set")


def get_default_quotas(
    region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> dict[str, int]:
    """
    What a project may have for which nothing was set, as in :func:`get_quotas`.

    CLI Example::

        salt ctl1 nova_compute.get_default_quotas
    """
    return _quotas((region, auth, cloud), "/os-quota-class-sets/default", "quota_class_set")


def set_quotas(
    project: str,
    quotas: dict[str, int],
    domain: str = "Default",
    force: bool = False,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Set what a project may have at most; what is not given stays.

    project, domain : str
        Names of the project and its domain.
    quotas : dict
        As in :func:`get_quotas`; ram in MiB.
    force : bool
        Also below what the project uses now.

    CLI Example::

        salt ctl1 nova_compute.set_quotas service '{cores: 40}'
    """
    at = (region, auth, cloud)
    body = {"quota_set": {**quotas, "force": force}}
    _write(at, "PUT", f"/os-quota-sets/{_id(at, 'project', project, domain)}", body)
    return True


def set_default_quotas(
    quotas: dict[str, int],
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Set what projects may have for which nothing was set; what is not given stays.

    quotas : dict
        As in :func:`get_quotas`.

    CLI Example::

        salt ctl1 nova_compute.set_default_quotas '{cores: 40}'
    """
    at = (region, auth, cloud)
    _write(at, "PUT", "/os-quota-class-sets/default", {"quota_class_set": quotas})
    return True


def reset_quotas(
    project: str,
    domain: str = "Default",
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Take back all that was set for a project: it may then have the default.

    project, domain : str
        Names of the project and its domain.

    CLI Example::

        salt ctl1 nova_compute.reset_quotas old
    """
    at = (region, auth, cloud)
    return _delete(at, f"/os-quota-sets/{_id(at, 'project', project, domain)}")


def forget(region: str | None = None, auth: dict | None = None, cloud: str | None = None) -> bool:
    """
    Forget what has been read in this run, so that the next look asks Nova.

    CLI Example::

        salt ctl1 nova_compute.forget
    """
    _memory((region, auth, cloud)).clear()
    return True


# ---- what is there ------------------------------------------------------------------------------


def _flavors(at: tuple) -> dict[str, dict[str, Any]]:
    def read() -> dict[str, dict]:
        # None: public or not.
        rows = _list(at, "/flavors/detail?is_public=None", "flavors")
        found = [{key: row.get(field) for key, field in _FLAVOR.items()} for row in rows]
        for flavor, row in zip(found, rows, strict=True):
            flavor |= {"swap": flavor["swap"] or 0, "extra_specs": dict(row["extra_specs"])}
        return {flavor["name"]: flavor for flavor in found}

    return _kept(at, "flavors by name", read)


def _aggregates(at: tuple) -> dict[str, dict[str, Any]]:
    return {
        row["name"]: {
            **{key: row[key] for key in ("id", "uuid", "name", "availability_zone")},
            "hosts": sorted(row["hosts"]),
            "metadata": {k: v for k, v in row["metadata"].items() if k != "availability_zone"},
        }
        for row in _list(at, "/os-aggregates", "aggregates")
    }


def _required(at: tuple, kind: str, name: str) -> dict[str, Any]:
    found = (_flavors if kind == "flavor" else _aggregates)(at).get(name)
    if found is None:
        raise CommandExecutionError(
            f"Nova has no {kind} {name}: create it first (nova_compute.{kind}_present)."
        )
    return found


def _flavor_path(at: tuple, name: str) -> str:
    return f"/flavors/{_quoted(_required(at, 'flavor', name)['id'])}"


def _known_services(at: tuple, host: str, binary: str) -> list[dict[str, Any]]:
    found = list_services(host, binary, *at)
    if any(row["id"] is None for row in found):
        raise CommandExecutionError(
            f"The cell of {host} does not answer, so {binary} there cannot be changed: see that "
            "its database runs."
        )
    return found


def _update_service(at: tuple, host: str, binary: str, values: dict) -> bool:
    found = _known_services(at, host, binary)
    if not found:
        raise CommandExecutionError(
            f"Nova knows no {binary} on {host}: correct the name, or start it there first."
        )
    for row in found:
        _write(at, "PUT", f"/os-services/{row['id']}", values)
    return True


def _act(at: tuple, name: str, body: dict) -> bool:
    _write(at, "POST", f"/os-aggregates/{_required(at, 'aggregate', name)['id']}/action", body)
    return True


def _quotas(at: tuple, path: str, key: str) -> dict[str, int]:
    found = _kept(at, path, lambda: _part(_ask(at, "GET", path), key, dict, path))
    return {name: limit for name, limit in found.items() if name != "id"}


def _id(at: tuple, kind: str, name: str, domain: str) -> str:
    found = __salt__["nova_identity.get"](kind, at[1], at[2], name=name, domain=domain)
    if found is None:
        raise CommandExecutionError(
            f"Keystone has no {kind} {name} in the domain {domain}: create it first "
            f"(nova_identity.{kind}_present)."
        )
    return found["id"]


def _of_user(at: tuple, user: str | None, domain: str) -> str:
    return f"?user_id={_id(at, 'user', user, domain)}" if user else ""


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(part: str) -> str:
    if part in ("", ".", ".."):
        # On its way to Nova an URL loses these, and what is left means the parent.
        raise CommandExecutionError(f"{part!r} can be no name in an URL of Nova's.")
    return urllib.parse.quote(part, safe="")


# ---- requests -----------------------------------------------------------------------------------


def _list(at: tuple, path: str, key: str) -> list[dict[str, Any]]:
    return _kept(at, path, lambda: _rows(at, path, key))


def _rows(at: tuple, path: str, key: str) -> list[dict[str, Any]]:
    """All rows of a collection, page after page."""
    rows: list[dict] = []
    asked: str | None = path
    while asked:
        body = _ask(at, "GET", asked)
        rows += _part(body, key, list, path)
        links = body.get(f"{key}_links", ())
        following = next((link["href"] for link in links if link["rel"] == "next"), None)
        # Only the query: the link's host is what Nova believes its own to be.
        query = following and urllib.parse.urlsplit(following).query
        asked = query and f"{path.partition('?')[0]}?{query}"
    return rows


def _part(body: dict, key: str, kind: type, path: str) -> Any:
    if not isinstance(body.get(key), kind):
        raise CommandExecutionError(
            f"What answers GET {path} is not Nova: correct the endpoint of compute in the catalog."
        )
    return body[key]


def _memory(at: tuple) -> dict[str, tuple[float, Any]]:
    # By process, as nova_identity's session.
    return __context__.setdefault("nova_compute.kept", {}).setdefault(f"{os.getpid()} {at}", {})


def _kept(at: tuple, key: str, read: Callable[[], Any]) -> Any:
    kept = _memory(at)
    when, value = kept.get(key, (None, None))
    if when is None or time.monotonic() - when > READ_AGE:
        value = read()
        kept[key] = (time.monotonic(), value)
    return value


def _unless_made(at: tuple, path: str, body: dict, made: Callable[[], bool]) -> bool:
    """POST; False: another made the same first. Other conflicts are errors."""
    try:
        _write(at, "POST", path, body)
    except CommandExecutionError as exc:
        # Of two at the same moment Nova answers one with 500.
        if exc.info not in (CONFLICT, FAILED) or not made():
            raise
        return False
    return True


def _unless_gone(at: tuple, method: str, path: str, body: dict | None = None) -> bool:
    try:
        _write(at, method, path, body)
    except CommandExecutionError as exc:
        if exc.info != NOT_FOUND:
            raise
        return False
    return True


def _delete(at: tuple, path: str) -> bool:
    return _unless_gone(at, "DELETE", path)


def _write(at: tuple, method: str, path: str, body: dict | None = None) -> None:
    try:
        _ask(at, method, path, body)
    finally:
        # Whatever came of it, what was read before is no longer to be relied on.
        _memory(at).clear()


def _ask(at: tuple, method: str, path: str, body: dict | None = None) -> dict[str, Any]:
    region, auth, cloud = at
    return __salt__["nova_identity.request"](
        "compute",
        method,
        path,
        body,
        headers={"OpenStack-API-Version": f"compute {MICROVERSION}"},
        region=region or (auth or {}).get("region_name"),
        interface=(auth or {}).get("interface") or "public",
        auth=auth,
        cloud=cloud,
    )
