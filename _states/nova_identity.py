"""
Domains, projects, users, roles, their assignments, services, endpoints and regions of Keystone.

Every state takes ``auth``, where Keystone is and who asks, or ``cloud``: see the head of the
execution module nova_identity. An object that is there is repaired in place; what is not given is
left as it is. Safe when several controllers run them at the same moment, also those of sites that
share a Keystone. What belongs to another region is never touched, and duplicates that other tools
left are reported by their ids, never guessed at.
"""

from collections.abc import Callable
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError


def __virtual__():
    if "nova_identity.get" in __salt__:
        return True
    return False, "The module nova_identity is not loaded: run saltutil.sync_all."


def read_ahead(
    name: str,
    users: dict[str, str] | None = None,
    domain: str = "Default",
    auth: dict | None = None,
    cloud: str | None = None,
    paths: dict[str, list[str]] | None = None,
    region: str | None = None,
    project: str | None = None,
) -> dict[str, Any]:
    """
    Keystone is asked for what later states look at, while others run. It changes nothing.

    name : str
        Any text.
    users, paths, auth : dict
        As of the module's nova_identity.read_ahead; ``paths`` as of ``ahead`` of
        nova_verify.api_answers, too.
    domain, cloud, region, project : str
        As of the module's, too.

    .. code-block:: yaml

        keystone:
          nova_identity.read_ahead:
            - users: {nova: 'nova:passwords:keystone_nova'}
            - project: service
            - auth: {auth_url: …, username: admin, password_pillar: …}
            - order: first
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "Keystone is being asked."}
    try:
        __salt__["nova_identity.read_ahead"](users, domain, auth, cloud, paths, region, project)
    except (CommandExecutionError, SaltInvocationError) as exc:
        # Whoever needs it says so, and may come after what mends it.
        ret["comment"] = f"Nothing is read ahead: {exc}"
    return ret


def domain_present(
    name: str,
    description: str | None = None,
    enabled: bool = True,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The domain exists.

    name, description : str
        Its name, and a text.
    enabled : bool
        Whether its users may log in.

    .. code-block:: yaml

        heat:
          nova_identity.domain_present:
            - description: Stacks' users
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    wanted = {"description": description, "enabled": enabled}
    return _present("domain", {"name": name}, wanted, auth, cloud)


def domain_absent(name: str, auth: dict | None = None, cloud: str | None = None) -> dict[str, Any]:
    """
    The domain does not exist. One that still has users or projects is not deleted.

    Keystone would delete them with it.

    name : str
        Its name.

    .. code-block:: yaml

        heat:
          nova_identity.domain_absent:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"auth": auth, "cloud": cloud}

    def uses() -> list[str]:
        return [
            f"the {kind} {row}"
            for kind in ("project", "user")
            for row in _look({}, f"list_{kind}s", domain=name, **at)
        ]

    return _absent("domain", {"name": name}, auth, cloud, uses)


def project_present(
    name: str,
    domain: str = "Default",
    description: str | None = None,
    enabled: bool = True,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The project exists.

    name, domain, description : str
        Names of the project and its domain, and a text.
    enabled : bool
        Whether its users may use it.

    .. code-block:: yaml

        service:
          nova_identity.project_present:
            - description: Service accounts
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    wanted = {"description": description, "enabled": enabled}
    return _present("project", {"name": name, "domain": domain}, wanted, auth, cloud)


def project_absent(
    name: str, domain: str = "Default", auth: dict | None = None, cloud: str | None = None
) -> dict[str, Any]:
    """
    The project does not exist. What other services keep for it is not looked for.

    name, domain : str
        Names of the project and its domain.

    .. code-block:: yaml

        old:
          nova_identity.project_absent:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    return _absent("project", {"name": name, "domain": domain}, auth, cloud)


def user_present(
    name: str,
    password_pillar: str | None = None,
    password: str | None = None,
    domain: str = "Default",
    email: str | None = None,
    description: str | None = None,
    enabled: bool = True,
    options: dict | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The user exists and logs in with this password.

    Whether the password is right is found by asking for a token with it. A user that was disabled
    and is to be enabled gets the password anew, as nobody can tell.

    name, domain : str
        Names of the user and its domain.
    password_pillar, password : str
        The name of the pillar key that holds the password, or the password.
    email, description : str
        What is told about it.
    enabled : bool
        Whether it may log in.
    options : dict
        Keystone's resource options. ``ignore_lockout_failure_attempts: true`` keeps a service from
        being locked out by whoever guesses at its password.

    .. code-block:: yaml

        nova:
          nova_identity.user_present:
            - password_pillar: nova:passwords:keystone_nova
            - options: {ignore_lockout_failure_attempts: true}
            - auth:
                auth_url: http://keystone.example.org:5000/v3
                username: admin
                password_pillar: nova:passwords:keystone_admin
    """
    secret = {"password": password, "password_pillar": password_pillar}
    managed = bool(password or password_pillar)
    at = {"auth": auth, "cloud": cloud}
    who = {"name": name, "domain": domain}

    def drift(found: dict | None) -> dict[str, dict]:
        """Of what cannot be compared as it is: single options, and the password."""
        there = found or {}
        have = {option: (there.get("options") or {}).get(option) for option in options or {}}
        changes = _diff({"options": have if found else None}, {"options": options or None})
        if managed and found is None:
            changes["password"] = {"old": None, "new": "***"}
        elif managed and enabled and not (there["enabled"] and works()):
            changes["password"] = {"old": "***", "new": "***"}
        return changes

    def works() -> bool:
        return __salt__["nova_identity.token_works"](**who, **secret, **at)

    wanted = {"email": email, "description": description, "enabled": enabled}
    return _present("user", who, wanted, auth, cloud, drift=drift, secret=secret)


def user_absent(
    name: str,
    domain: str = "Default",
    service: str | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The user does not exist. One whose service other regions use can be kept.

    name, domain : str
        Names of the user and its domain.
    service, region : str
        Name of the service that logs in as this user, and a region: where the service has endpoints
        in another one the user stays, and that is as it should be.

    .. code-block:: yaml

        nova:
          nova_identity.user_absent:
            - service: nova
            - region: RegionOne
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"auth": auth, "cloud": cloud}
    others = _others(region, at, service) if service else list
    return _absent("user", {"name": name, "domain": domain}, auth, cloud, others, keep=True)


def role_present(
    name: str,
    description: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The role exists.

    name, description : str
        Its name, and a text.

    .. code-block:: yaml

        service:
          nova_identity.role_present:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    return _present("role", {"name": name}, {"description": description}, auth, cloud)


def role_absent(name: str, auth: dict | None = None, cloud: str | None = None) -> dict[str, Any]:
    """
    The role does not exist. Whoever had it loses it.

    name : str
        Its name.

    .. code-block:: yaml

        old:
          nova_identity.role_absent:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    return _absent("role", {"name": name}, auth, cloud)


def role_assigned(
    name: str,
    roles: list[str],
    project: str | None = None,
    domain: str | None = None,
    system: bool = False,
    user_domain: str = "Default",
    project_domain: str = "Default",
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The user has these roles on a project, a domain or the system; others that it has stay.

    name, user_domain : str
        Names of the user and its domain.
    roles : list
        Names of roles.
    project, project_domain : str
        Names of a project and its domain; or
    domain : str
        the name of a domain; or
    system : bool
        the whole system.

    .. code-block:: yaml

        nova:
          nova_identity.role_assigned:
            - roles: [admin, service]
            - project: service
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    return _assignments(
        True, name, roles, project, domain, system, user_domain, project_domain, auth, cloud
    )


def role_unassigned(
    name: str,
    roles: list[str],
    project: str | None = None,
    domain: str | None = None,
    system: bool = False,
    user_domain: str = "Default",
    project_domain: str = "Default",
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The user has none of these roles there; arguments as of :func:`role_assigned`.

    .. code-block:: yaml

        nova:
          nova_identity.role_unassigned:
            - roles: [admin]
            - project: service
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    return _assignments(
        False, name, roles, project, domain, system, user_domain, project_domain, auth, cloud
    )


def service_present(
    name: str,
    type: str,
    description: str | None = None,
    enabled: bool = True,
    site_lock: dict | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The service exists; a description that is not given is left as it is.

    Two services of this name and type, or one of the type under another name, are reported and
    left alone: only a person knows which is right.

    name, type, description : str
        Such as ``nova``, ``compute`` and a text.
    enabled : bool
        Whether the catalog shows it.
    site_lock : dict
        Arguments of nova_db.lock, under which it is created: ``{name: shanghai, timeout: 900}``.

    .. code-block:: yaml

        nova:
          nova_identity.service_present:
            - type: compute
            - description: OpenStack Compute
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"auth": auth, "cloud": cloud}

    def drift(found: dict | None) -> dict[str, dict]:
        others = [] if found else _look([], "find", kind="service", type=type, **at)
        if others:
            known = ", ".join(f"{row['name']} (id {row['id']})" for row in others)
            raise CommandExecutionError(
                f"A service of the type {type} exists under the name {known}: rename it to "
                f"{name}, delete it, or register it under the name it has."
            )
        return {}

    key = {"type": type, "name": name}
    wanted = {"description": description, "enabled": enabled}
    return _present("service", key, wanted, auth, cloud, site_lock, drift)


def service_absent(
    name: str,
    type: str,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The service does not exist. One that other regions use is not deleted.

    Keystone would delete a service's endpoints in every region with it.

    name, type : str
        Such as ``nova`` and ``compute``.
    region : str
        A region whose endpoints go with the service; when others use it too, it stays, and so do
        they, and that is as it should be. None: a service with any endpoint at all is a failure.

    .. code-block:: yaml

        nova:
          nova_identity.service_absent:
            - type: compute
            - region: RegionOne
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    key = {"type": type, "name": name}
    at = {"auth": auth, "cloud": cloud}
    others = _others(region, at, name, service_type=type, service_name=name)
    return _absent("service", key, auth, cloud, others, keep=bool(region))


def _others(region: str | None, at: dict, service: str, **key) -> Callable[[], list[str]]:
    """What looks for a service's endpoints in other regions."""

    def uses() -> list[str]:
        ends = _look([], "find", kind="endpoint", **key, **at)
        others = {str(row["region"]) for row in ends if row["service_name"] == service} - {region}
        return [f"endpoints in {other}" for other in sorted(others)]

    return uses


def endpoint_present(
    name: str,
    service_name: str,
    service_type: str,
    interface: str,
    region: str,
    url: str,
    enabled: bool = True,
    site_lock: dict | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The service has this endpoint in the region, which is created where it is new.

    An URL that differs is changed in place. Two endpoints for the same service, region and
    interface are reported and left alone: only a person knows which is right.

    name : str
        A label, free to choose.
    service_name, service_type : str
        The service, such as ``nova`` and ``compute``.
    interface, region, url : str
        ``public``, ``internal`` or ``admin``; the region's name; the URL.
    enabled : bool
        Whether the catalog shows it.
    site_lock : dict
        Arguments of nova_db.lock, under which it is created: ``{name: shanghai, timeout: 900}``.

    .. code-block:: yaml

        RegionOne compute public:
          nova_identity.endpoint_present:
            - service_name: nova
            - service_type: compute
            - interface: public
            - region: RegionOne
            - url: http://nova.example.org:8774/v2.1
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    key = {
        "service_type": service_type,
        "service_name": service_name,
        "interface": interface,
        "region": region,
    }
    wanted = {"url": url, "enabled": enabled}
    return _present("endpoint", key, wanted, auth, cloud, site_lock, label=name)


def endpoint_absent(
    name: str,
    service_name: str,
    service_type: str,
    interface: str,
    region: str,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The service has no such endpoint in the region.

    name : str
        A label, free to choose.
    service_name, service_type : str
        The service, such as ``nova`` and ``compute``.
    interface, region : str
        ``public``, ``internal`` or ``admin``, and the region's name.

    .. code-block:: yaml

        RegionOne compute public:
          nova_identity.endpoint_absent:
            - service_name: nova
            - service_type: compute
            - interface: public
            - region: RegionOne
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    key = {
        "service_type": service_type,
        "service_name": service_name,
        "interface": interface,
        "region": region,
    }
    return _absent("endpoint", key, auth, cloud, label=name)


def region_present(
    name: str,
    description: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The region exists. An endpoint's region is created with it, so that this is seldom needed.

    name, description : str
        Its name, which is its id, and a text.

    .. code-block:: yaml

        RegionTwo:
          nova_identity.region_present:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    return _present("region", {"name": name}, {"description": description}, auth, cloud)


def region_absent(name: str, auth: dict | None = None, cloud: str | None = None) -> dict[str, Any]:
    """
    The region does not exist. One that still has endpoints is not deleted.

    name : str
        Its name.

    .. code-block:: yaml

        RegionTwo:
          nova_identity.region_absent:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"auth": auth, "cloud": cloud}

    def uses() -> list[str]:
        ends = _look([], "find", kind="endpoint", region=name, **at)
        return [f"the endpoint {row['id']} of {row['service_name']}" for row in ends]

    return _absent("region", {"name": name}, auth, cloud, uses)


def _assignments(
    present: bool,
    name: str,
    roles: list[str],
    project: str | None,
    domain: str | None,
    system: bool,
    user_domain: str,
    project_domain: str,
    auth: dict | None,
    cloud: str | None,
) -> dict[str, Any]:
    at = {"auth": auth, "cloud": cloud}
    who = {"user": name, "project": project, "domain": domain, "system": system}
    who |= {"user_domain": user_domain, "project_domain": project_domain}
    on = f"project {project}" if project else f"domain {domain}" if domain else "the system"
    old, new = (None, "assigned") if present else ("assigned", None)
    function = "assign_role" if present else "unassign_role"

    def steps() -> list[tuple]:
        have = _look([], "get_user_roles", **who, **at)
        return [
            ({f"{role} on {on}": {"old": old, "new": new}}, function, {"role": role, **who})
            for role in roles
            if (role in have) != present
        ]

    return _settle(name, f"The set of roles of the user {name} on {on}", steps, at)


def _present(
    kind: str,
    key: dict,
    wanted: dict,
    auth: dict | None,
    cloud: str | None,
    site_lock: dict | None = None,
    drift: Callable[[dict | None], dict] = lambda _: {},
    secret: dict | None = None,
    label: str | None = None,
) -> dict[str, Any]:
    """
    The object of this key has what is wanted of it.

    drift
        Further changes, of what was found or None.
    secret
        What a password is set by.
    """
    at = {"auth": auth, "cloud": cloud}
    wanted = {name: value for name, value in wanted.items() if value is not None}

    def steps() -> list[tuple]:
        found = _look(None, "get", kind=kind, **key, **at)
        changes = _diff(found or {}, wanted if found else {**key, **wanted}) | drift(found)
        if not changes:
            return []
        new = {name: change["new"] for name, change in changes.items() if name != "password"}
        new |= (secret or {}) if "password" in changes else {}
        if found is None:
            return [(changes, "create", {"kind": kind, **new})]
        return [(changes, "update", {"kind": kind, "id": found["id"], **new})]

    return _settle(label or key["name"], _what(kind, key), steps, at, site_lock)


def _absent(
    kind: str,
    key: dict,
    auth: dict | None,
    cloud: str | None,
    uses: Callable[[], list[str]] = list,
    keep: bool = False,
    label: str | None = None,
) -> dict[str, Any]:
    """There is no object of this key; one that something ``uses`` is kept, or is a failure."""
    at = {"auth": auth, "cloud": cloud}
    kept: list[str] = []

    def steps() -> list[tuple]:
        found = _look(None, "get", kind=kind, **key, **at)
        users = uses() if found else []
        kept[:] = users if keep else []
        if found is None or kept:
            return []
        # In test mode states before this one have not yet removed them.
        if users and not __opts__["test"]:
            more = f" and {len(users) - 5} more" if len(users) > 5 else ""
            raise CommandExecutionError(
                f"{_what(kind, key)} still has {', '.join(users[:5])}{more}: remove them first."
            )
        changes = {kind: {"old": found.get("url") or key["name"], "new": None}}
        return [(changes, "delete", {"kind": kind, "id": found["id"]})]

    ret = _settle(label or key["name"], _what(kind, key), steps, at)
    ret["comment"] += f" It is kept: its service has {', '.join(kept)}." if kept else ""
    return ret


def _what(kind: str, key: dict) -> str:
    if kind == "endpoint":
        return f"The {key['interface']} endpoint of {key['service_name']} in {key['region']}"
    domain = f" of the domain {key['domain']}" if key.get("domain", "Default") != "Default" else ""
    of = f" of the type {key['type']}" if "type" in key else domain
    return f"The {kind} {key['name']}{of}"


def _diff(found: dict, wanted: dict) -> dict[str, dict]:
    return __utils__["nova_settle.diff"](found, wanted)


def _look(nothing: Any, function: str, **arguments) -> Any:
    try:
        return __salt__[f"nova_identity.{function}"](**arguments)
    except CommandExecutionError as exc:
        # A package that is yet to be installed brings it; Keystone was not even asked.
        if __opts__["test"] and exc.info == "missing library":
            return nothing
        raise


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
        lambda function, arguments: __salt__[f"nova_identity.{function}"](**arguments, **at),
        __opts__["test"],
        (lambda: __utils__["nova_db.lock"](**site_lock)) if site_lock else None,
        lambda: __salt__["nova_identity.forget"](**at),
    )
    return run()
