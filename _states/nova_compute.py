"""
What Nova offers and who may use it: services, flavors, aggregates, keypairs, quotas.

Every state takes ``auth`` (or ``cloud``) and ``region``, where Nova is and who asks: see the head
of the execution module nova_compute. What is not named in the arguments is left as it is, unless
``purge`` says that it is to go. In test mode an API that does not answer yet is taken for one that
has nothing.
"""

from collections.abc import Callable
from typing import Any

from salt.exceptions import CommandExecutionError

#: ``exc.info`` where Nova is not there yet: the library, the endpoint, what answers at it.
_NOT_YET = ("missing library", "no endpoint", "unreachable")


def __virtual__():
    if "nova_compute.list_flavors" in __salt__:
        return True
    return False, "The module nova_compute is not loaded: run saltutil.sync_all."


def service_enabled(
    name: str,
    binary: str = "nova-compute",
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The scheduler may use the host.

    name, binary : str
        Nova's name of the host, and the daemon.

    .. code-block:: yaml

        cmp1:
          nova_compute.service_enabled:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    wanted = {"status": "enabled"}
    return _service(name, binary, wanted, "enable_service", {}, region, auth, cloud)


def service_disabled(
    name: str,
    binary: str = "nova-compute",
    reason: str | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The scheduler does not use the host; guests that run there stay.

    name, binary : str
        Nova's name of the host, and the daemon.
    reason : str
        For whoever asks why; not given, it is left as it is.

    .. code-block:: yaml

        cmp1:
          nova_compute.service_disabled:
            - reason: new memory on Monday
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    wanted = {"status": "disabled", "disabled_reason": reason}
    return _service(
        name, binary, wanted, "disable_service", {"reason": reason}, region, auth, cloud
    )


def service_absent(
    name: str,
    binary: str = "nova-compute",
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    Nova does not know the daemon; of nova-compute the host's mapping and provider go with it.

    Refused while guests are on the host. Stop the daemon first.

    name, binary : str
        Nova's name of the host, and the daemon.

    .. code-block:: yaml

        cmp9:
          nova_compute.service_absent:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"region": region, "auth": auth, "cloud": cloud}
    who = {"host": name, "binary": binary}
    what = f"The service {binary} on {name}"

    def steps() -> list[tuple]:
        if not _look([], "list_services", **who, **at):
            return []
        guests = _look([], "list_guests", host=name, **at) if binary == "nova-compute" else []
        if guests:
            raise CommandExecutionError(
                f"{what} stays: {len(guests)} guests are there, such as {guests[0]['name']} "
                f"({guests[0]['id']}): move them away or delete them first."
            )
        return [({"service": {"old": f"{binary} on {name}", "new": None}}, "delete_service", who)]

    return _settle(name, what, steps, at)


def flavor_present(
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
    extra_specs: dict[str, Any] | None = None,
    projects: list[str] | None = None,
    project_domain: str = "Default",
    purge: bool = False,
    replace: bool = False,
    site_lock: dict | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The flavor exists with these values, extra specs and projects that may use it.

    Nova changes no flavor but its description, extra specs and access. Where another value
    differs this fails, unless ``replace`` says that the flavor is to be deleted and made anew.

    name, id, description : str
        Its name, its id and a text.
    ram, vcpus, disk, ephemeral, swap : int
        Memory in MiB, processors, root disk and second disk in GiB, swap in MiB.
    rxtx_factor : float
        Its share of the network, where the hypervisor knows of that.
    is_public : bool
        Whether all projects may use it; by default a new one is.
    extra_specs : dict
        Such as ``{'hw:cpu_policy': dedicated}``; null removes one.
    projects, project_domain : list, str
        Names of projects that may use it where it is not public, and of their domain.
    purge : bool
        Remove the extra specs and the access that are not named, where ``extra_specs`` and
        ``projects`` are given.
    replace : bool
        Delete the flavor and make it anew where Nova cannot change it. Its id, extra specs and
        access stay; servers keep a copy of what they were made with.
    site_lock : dict
        Arguments of nova_db.lock, under which it is changed: ``{name: shanghai, timeout: 900}``.

    .. code-block:: yaml

        m1.pinned:
          nova_compute.flavor_present:
            - ram: 4096
            - vcpus: 2
            - disk: 20
            - extra_specs: {'hw:cpu_policy': dedicated}
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"region": region, "auth": auth, "cloud": cloud}
    what = f"The flavor {name}"
    fixed = {"ram": ram, "vcpus": vcpus, "disk": disk, "ephemeral": ephemeral, "swap": swap}
    fixed |= {
        "rxtx_factor": rxtx_factor,
        "is_public": is_public,
        "id": None if id is None else str(id),
    }
    fixed = {key: value for key, value in fixed.items() if value is not None}
    told = {"description": description} if description is not None else {}
    wanted_specs = _texts(extra_specs)

    def steps() -> list[tuple]:
        found = _look(None, "get_flavor", name=name, **at)
        due = []
        if found is None:
            new = {"name": name, **fixed, **told}
            due.append((_diff({}, new), "create_flavor", new))
            found = {"extra_specs": {}, "is_public": is_public is not False}
            access: list[str] = []
        else:
            drift = _diff(found, fixed)
            if drift and not replace:
                have = ", ".join(f"{key} {change['old']}" for key, change in drift.items())
                want = ", ".join(f"{key} {change['new']}" for key, change in drift.items())
                raise CommandExecutionError(
                    f"{what} has {have}, not {want}, and Nova cannot change that in place: say "
                    "`replace: true` to have it deleted and made anew, or give the new one "
                    "another name."
                )
            if drift:
                due.append((drift, "replace_flavor", {"name": name, **fixed}))
            if changes := _diff(found, told):
                due.append((changes, "update_flavor", {"name": name, **told}))
            found = {**found, **fixed}
            asked = projects is not None and not found["is_public"]
            access = _look([], "list_flavor_access", name=name, **at) if asked else []
        specs = _drift("extra_specs", found["extra_specs"], wanted_specs, purge)
        if specs:
            new = {key.partition(":")[2]: change["new"] for key, change in specs.items()}
            due.append((specs, "set_extra_specs", {"name": name, "extra_specs": new}))
        if projects and found["is_public"]:
            raise CommandExecutionError(
                f"{what} is for all projects: give `is_public: false` or leave out `projects`."
            )
        return due + access_steps(access)

    def access_steps(access: list[str]) -> list[tuple]:
        due, wanted = [], set()
        for project in projects or ():
            project_id = _id("project", project, project_domain, at)
            wanted.add(project_id)
            if project_id not in access:
                change = {f"access of {project}": {"old": None, "new": "allowed"}}
                new = {"name": name, "project": project, "domain": project_domain}
                due.append((change, "add_flavor_access", new))
        for project_id in sorted(set(access) - wanted) if purge else ():
            change = {f"access of {project_id}": {"old": "allowed", "new": None}}
            new = {"name": name, "project_id": project_id}
            due.append((change, "remove_flavor_access", new))
        return due

    return _settle(name, what, steps, at, site_lock)


def flavor_absent(
    name: str, region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> dict[str, Any]:
    """
    The flavor does not exist. Servers that were made with it stay.

    name : str
        Its name.

    .. code-block:: yaml

        m1.old:
          nova_compute.flavor_absent:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"region": region, "auth": auth, "cloud": cloud}

    def steps() -> list[tuple]:
        if _look(None, "get_flavor", name=name, **at) is None:
            return []
        return [({"flavor": {"old": name, "new": None}}, "delete_flavor", {"name": name})]

    return _settle(name, f"The flavor {name}", steps, at)


def aggregate_present(
    name: str,
    availability_zone: str | None = None,
    hosts: list[str] | None = None,
    metadata: dict[str, Any] | None = None,
    purge: bool = False,
    site_lock: dict | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The host aggregate exists with this zone, these hosts and metadata.

    name : str
        Its name.
    availability_zone : str
        The zone that its hosts form. Nova lets no guests be moved by it, and no aggregate lose
        it: delete that and make another.
    hosts : list
        Nova's names of compute hosts. One that Nova does not know yet is a failure, when all
        else is done.
    metadata : dict
        Such as ``{ssd: true}``; null removes one.
    purge : bool
        Remove the hosts and metadata that are not named, where ``hosts`` and ``metadata`` are
        given.
    site_lock : dict
        Arguments of nova_db.lock, under which it is changed: ``{name: shanghai, timeout: 900}``.

    .. code-block:: yaml

        ssd:
          nova_compute.aggregate_present:
            - hosts: [cmp1, cmp2]
            - metadata: {ssd: true}
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"region": region, "auth": auth, "cloud": cloud}
    what = f"The aggregate {name}"
    wanted_metadata = _texts(metadata)
    unknown: list[str] = []

    def steps() -> list[tuple]:
        if "availability_zone" in (metadata or ()):
            raise CommandExecutionError(
                f"{what} has its zone among the metadata: give it as `availability_zone`."
            )
        found = _look(None, "get_aggregate", name=name, **at)
        due = []
        if found is None:
            new = {"name": name, "availability_zone": availability_zone}
            due.append((_diff({}, new), "create_aggregate", new))
            found = {**new, "hosts": [], "metadata": {}}
        changes = _drift("metadata", found["metadata"], wanted_metadata, purge)
        new = {key.partition(":")[2]: change["new"] for key, change in changes.items()}
        zone = _diff(found, {"availability_zone": availability_zone})
        if zone:
            new["availability_zone"] = availability_zone
            changes |= zone
        if changes:
            due.append((changes, "set_aggregate_metadata", {"name": name, "metadata": new}))
        return due + host_steps(found["hosts"])

    def host_steps(have: list[str]) -> list[tuple]:
        new = sorted(set(hosts or ()) - set(have))
        unknown[:] = [] if __opts__["test"] or not new else _unknown(new, at)
        due = []
        for host in new:
            if host not in unknown:
                change = {f"host {host}": {"old": None, "new": "member"}}
                due.append((change, "add_aggregate_host", {"name": name, "host": host}))
        for host in sorted(set(have) - set(hosts)) if purge and hosts is not None else ():
            change = {f"host {host}": {"old": "member", "new": None}}
            due.append((change, "remove_aggregate_host", {"name": name, "host": host}))
        return due

    ret = _settle(name, what, steps, at, site_lock)
    if ret["result"] and unknown:
        return ret | {
            "result": False,
            "comment": f"Nova knows no compute host {', '.join(unknown)}, so {name} cannot have "
            "it: correct the name, or see nova-compute's log there.",
        }
    return ret


def aggregate_absent(
    name: str, region: str | None = None, auth: dict | None = None, cloud: str | None = None
) -> dict[str, Any]:
    """
    The host aggregate does not exist; its hosts are taken out of it first.

    name : str
        Its name.

    .. code-block:: yaml

        old:
          nova_compute.aggregate_absent:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"region": region, "auth": auth, "cloud": cloud}

    def steps() -> list[tuple]:
        found = _look(None, "get_aggregate", name=name, **at)
        if found is None:
            return []
        due = [
            (
                {f"host {host}": {"old": "member", "new": None}},
                "remove_aggregate_host",
                {"name": name, "host": host},
            )
            for host in found["hosts"]
        ]
        change = {"aggregate": {"old": name, "new": None}}
        return [*due, (change, "delete_aggregate", {"name": name})]

    return _settle(name, f"The aggregate {name}", steps, at)


def keypair_present(
    name: str,
    public_key: str,
    type: str = "ssh",
    user: str | None = None,
    domain: str = "Default",
    replace: bool = False,
    site_lock: dict | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The user has the keypair with this public key.

    Nova cannot change a keypair. Where the key differs this fails, unless ``replace`` says that it
    is to be deleted and made anew. The comment at the end of an SSH key is not compared.

    name, public_key, type : str
        The keypair's name, the key, and ``ssh`` or ``x509``.
    user, domain : str
        Names of the user and its domain; by default who asks.
    replace : bool
        Delete the keypair and make it anew where it differs. Servers keep the key that they have.
    site_lock : dict
        Arguments of nova_db.lock, under which it is changed: ``{name: shanghai, timeout: 900}``.

    .. code-block:: yaml

        deploy:
          nova_compute.keypair_present:
            - public_key: ssh-ed25519 AAAA… deploy@example.org
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"region": region, "auth": auth, "cloud": cloud}
    who = {"user": user, "domain": domain}
    what = f"The keypair {name}"
    wanted = {"type": type, "public_key": public_key.strip()}

    def steps() -> list[tuple]:
        found = _keypair(name, who, at)
        made = ("create_keypair", {"name": name, **wanted, **who})
        if found is None:
            return [(_diff({}, {"name": name, **wanted}), *made)]
        if found["type"] == type and _material(found) == _material(wanted):
            return []
        if not replace:
            raise CommandExecutionError(
                f"{what} holds another key ({found['type']}, {found['fingerprint']}), and Nova "
                "cannot change it in place: say `replace: true` to have it deleted and made "
                "anew, or give the new one another name."
            )
        gone = {"public_key": {"old": found["public_key"], "new": None}}
        changes = _diff(found, wanted)
        return [(gone, "delete_keypair", {"name": name, **who}), (changes, *made)]

    return _settle(name, what, steps, at, site_lock)


def keypair_absent(
    name: str,
    user: str | None = None,
    domain: str = "Default",
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The user has no such keypair. Servers keep the key that they have.

    name, user, domain : str
        The keypair's name, and the names of the user and its domain; by default who asks.

    .. code-block:: yaml

        old:
          nova_compute.keypair_absent:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"region": region, "auth": auth, "cloud": cloud}
    who = {"user": user, "domain": domain}

    def steps() -> list[tuple]:
        if _keypair(name, who, at) is None:
            return []
        change = {"keypair": {"old": name, "new": None}}
        return [(change, "delete_keypair", {"name": name, **who})]

    return _settle(name, f"The keypair {name}", steps, at)


def quotas_present(
    name: str,
    quotas: dict[str, int],
    domain: str = "Default",
    force: bool = False,
    site_lock: dict | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The project may have this much at most; what is not given is left as it is.

    name, domain : str
        Names of the project and its domain.
    quotas : dict
        Such as ``{cores: 40, instances: 20, ram: 102400}``; ram in MiB, -1: as much as there is.
    force : bool
        Also below what the project uses now.
    site_lock : dict
        Arguments of nova_db.lock: Nova answers 500 to one of two that set a quota for the first
        time at the same moment.

    .. code-block:: yaml

        service:
          nova_compute.quotas_present:
            - quotas: {cores: 40, ram: 102400}
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"region": region, "auth": auth, "cloud": cloud}
    who = {"project": name, "domain": domain}

    def steps() -> list[tuple]:
        missing = __opts__["test"] and _id("project", name, domain, at) is None
        found = {} if missing else _look({}, "get_quotas", **who, **at)
        arguments = {**who, "quotas": quotas, "force": force}
        return _quota_steps(found, quotas, "set_quotas", arguments)

    return _settle(name, f"The quota of the project {name}", steps, at, site_lock)


def quotas_absent(
    name: str,
    domain: str = "Default",
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The project may have what all may: nothing is set for it that differs from the default.

    name, domain : str
        Names of the project and its domain.

    .. code-block:: yaml

        service:
          nova_compute.quotas_absent:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"region": region, "auth": auth, "cloud": cloud}
    who = {"project": name, "domain": domain}

    def steps() -> list[tuple]:
        if _id("project", name, domain, at) is None:
            return []
        found = _look({}, "get_quotas", **who, **at)
        default = _look({}, "get_default_quotas", **at)
        drift = _diff(found, {key: default[key] for key in found if key in default})
        return [(drift, "reset_quotas", who)] if drift else []

    return _settle(name, f"The quota of the project {name}", steps, at)


def default_quotas_present(
    name: str,
    quotas: dict[str, int],
    site_lock: dict | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    Projects for which nothing else was set may have this much; what is not given is left.

    name : str
        A label, free to choose.
    quotas : dict
        As in :func:`quotas_present`.
    site_lock : dict
        Arguments of nova_db.lock: Nova answers 500 to one of two that set a quota for the first
        time at the same moment.

    .. code-block:: yaml

        default quotas:
          nova_compute.default_quotas_present:
            - quotas: {cores: 40}
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"region": region, "auth": auth, "cloud": cloud}

    def steps() -> list[tuple]:
        found = _look({}, "get_default_quotas", **at)
        return _quota_steps(found, quotas, "set_default_quotas", {"quotas": quotas})

    return _settle(name, "The default quota", steps, at, site_lock)


# ---- steps --------------------------------------------------------------------------------------


def _service(
    host: str,
    binary: str,
    wanted: dict,
    function: str,
    more: dict,
    region: str | None,
    auth: dict | None,
    cloud: str | None,
) -> dict[str, Any]:
    at = {"region": region, "auth": auth, "cloud": cloud}
    who = {"host": host, "binary": binary}

    def steps() -> list[tuple]:
        found = _look([], "list_services", **who, **at)
        # One that is not known is a failure when it is changed, and in test mode yet to come.
        drift = {k: change for row in found or [{}] for k, change in _diff(row, wanted).items()}
        return [(drift, function, {**who, **more})] if drift else []

    return _settle(host, f"The service {binary} on {host}", steps, at)


def _quota_steps(found: dict, quotas: dict, function: str, arguments: dict) -> list[tuple]:
    strange = sorted(quotas.keys() - found.keys()) if found else []
    if strange:
        raise CommandExecutionError(
            f"Nova has no quota {', '.join(strange)}: it has {', '.join(sorted(found))}."
        )
    drift = _diff(found, quotas)
    return [(drift, function, arguments)] if drift else []


def _keypair(name: str, who: dict, at: dict) -> dict[str, Any] | None:
    if __opts__["test"] and who["user"] and _id("user", who["user"], who["domain"], at) is None:
        return None
    rows = _look([], "list_keypairs", **who, **at)
    return next((row for row in rows if row["name"] == name), None)


def _material(keypair: dict) -> list[str] | str:
    key = keypair["public_key"].strip()
    return key.split()[:2] if keypair["type"] == "ssh" else key


def _unknown(hosts: list[str], at: dict) -> list[str]:
    known = _look([], "list_services", binary="nova-compute", **at)
    return sorted(set(hosts) - {row["host"] for row in known})


def _id(kind: str, name: str, domain: str, at: dict) -> str | None:
    where = {"auth": at["auth"], "cloud": at["cloud"]}
    try:
        found = __salt__["nova_identity.get"](kind, **where, name=name, domain=domain)
    except CommandExecutionError as exc:
        return _nothing_yet(exc, None)
    return found and found["id"]


def _texts(values: dict[str, Any] | None) -> dict[str, str | None] | None:
    """As Nova keeps them: ``true``, not ``True``."""
    if values is None:
        return None
    lower = {True: "true", False: "false", None: None}
    return {
        key: lower[value] if value is None or isinstance(value, bool) else str(value)
        for key, value in values.items()
    }


def _drift(label: str, found: dict, wanted: dict | None, purge: bool) -> dict[str, dict]:
    """Changes by ``label:key``; None as the new value removes the key."""
    if wanted is None:
        return {}
    gone = {key: None for key in found} if purge else {}
    return {
        f"{label}:{key}": {"old": found.get(key), "new": value}
        for key, value in sorted({**gone, **wanted}.items())
        if found.get(key) != value
    }


def _diff(found: dict, wanted: dict) -> dict[str, dict]:
    return __utils__["nova_settle.diff"](found, wanted)


def _look(nothing: Any, function: str, **arguments) -> Any:
    try:
        return __salt__[f"nova_compute.{function}"](**arguments)
    except CommandExecutionError as exc:
        return _nothing_yet(exc, nothing)


def _nothing_yet(exc: CommandExecutionError, nothing: Any) -> Any:
    """In test mode an earlier state of the same run may be what brings Nova up."""
    if __opts__["test"] and exc.info in _NOT_YET:
        return nothing
    raise exc


def _settle(
    name: str,
    what: str,
    steps: Callable[[], list[tuple]],
    at: dict,
    site_lock: dict | None = None,
) -> dict[str, Any]:
    run = __utils__["nova_settle.settle"](
        name,
        what,
        steps,
        lambda function, arguments: __salt__[f"nova_compute.{function}"](**arguments, **at),
        __opts__["test"],
        (lambda: __utils__["nova_db.lock"](**site_lock)) if site_lock else None,
        lambda: __salt__["nova_compute.forget"](**at),
        "Nova",
    )
    return run()
