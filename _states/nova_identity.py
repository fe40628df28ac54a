"""
What Keystone has to know of a service: users, roles, projects, services and endpoints.

``auth`` (or ``cloud``) says where Keystone is and who asks: see the head of the execution module
nova_identity. Safe when several controllers run them at the same moment, also those of sites that
share a Keystone. An endpoint of another region is never touched.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

_FAILURES = (CommandExecutionError, SaltInvocationError)

#: How often to begin anew when others are quicker.
ROUNDS = 3


def __virtual__():
    if "nova_identity.get_user" in __salt__:
        return True
    return False, "The module nova_identity is not loaded: run saltutil.sync_all."


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
    The user exists and logs in with this password; what is not given is left as it is.

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
    auth, cloud
        See the module's head.

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
    at = {"auth": auth, "cloud": cloud}
    who = {"name": name, "domain": domain}
    secret = {"password": password, "password_pillar": password_pillar}
    managed = bool(password or password_pillar)
    wanted = {"email": email, "description": description, "enabled": enabled}
    wanted = {key: value for key, value in wanted.items() if value is not None}

    def steps() -> list[tuple]:
        found = _look(None, "get_user", **who, **at)
        if found is None:
            new = {**who, **wanted, **({"options": options} if options else {})}
            changes = _diff({}, {**new, "password": "***"} if managed else new)
            return [(changes, "create_user", {**new, **secret})]
        changes = _diff(found, wanted)
        have = found["options"] or {}
        changes |= _diff({"options": {o: have.get(o) for o in options or {}}}, {"options": options})
        if managed and enabled and _is_wrong(found):
            changes["password"] = {"old": "***", "new": "***"}
        new = {key: change["new"] for key, change in changes.items() if key != "password"}
        new |= secret if "password" in changes else {}
        return [(changes, "update_user", {**who, **new})] if changes else []

    def _is_wrong(found: dict) -> bool:
        return not found["enabled"] or not __salt__["nova_identity.token_works"](
            **who, **secret, **at
        )

    return _settle(name, f"The user {name}", steps, at)


def user_absent(
    name: str, domain: str = "Default", auth: dict | None = None, cloud: str | None = None
) -> dict[str, Any]:
    """
    The user does not exist.

    name, domain : str
        Names of the user and its domain.
    auth, cloud
        See the module's head.

    .. code-block:: yaml

        nova:
          nova_identity.user_absent:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"auth": auth, "cloud": cloud}
    who = {"name": name, "domain": domain}

    def steps() -> list[tuple]:
        if _look(None, "get_user", **who, **at) is None:
            return []
        return [({"user": {"old": name, "new": None}}, "delete_user", who)]

    return _settle(name, f"The user {name}", steps, at)


def project_present(
    name: str,
    domain: str = "Default",
    description: str | None = None,
    enabled: bool = True,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    The project exists; a description that is not given is left as it is.

    name, domain, description : str
        Names of the project and its domain, and a text.
    enabled : bool
        Whether its users may use it.
    auth, cloud
        See the module's head.

    .. code-block:: yaml

        service:
          nova_identity.project_present:
            - description: Service accounts
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"auth": auth, "cloud": cloud}
    who = {"name": name, "domain": domain}
    wanted = {"description": description, "enabled": enabled}

    def steps() -> list[tuple]:
        found = _look(None, "get_project", **who, **at)
        changes = _diff(found or {}, wanted if found else {**who, **wanted})
        if found is None:
            return [(changes, "create_project", {**who, **wanted})]
        new = {key: change["new"] for key, change in changes.items()}
        return [(changes, "update_project", {**who, **new})] if changes else []

    return _settle(name, f"The project {name}", steps, at)


def project_absent(
    name: str, domain: str = "Default", auth: dict | None = None, cloud: str | None = None
) -> dict[str, Any]:
    """
    The project does not exist. What other services keep for it is not looked for.

    name, domain : str
        Names of the project and its domain.
    auth, cloud
        See the module's head.

    .. code-block:: yaml

        old:
          nova_identity.project_absent:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"auth": auth, "cloud": cloud}
    who = {"name": name, "domain": domain}

    def steps() -> list[tuple]:
        if _look(None, "get_project", **who, **at) is None:
            return []
        return [({"project": {"old": name, "new": None}}, "delete_project", who)]

    return _settle(name, f"The project {name}", steps, at)


def role_present(name: str, auth: dict | None = None, cloud: str | None = None) -> dict[str, Any]:
    """
    The role exists.

    name : str
        Name of the role.
    auth, cloud
        See the module's head.

    .. code-block:: yaml

        service:
          nova_identity.role_present:
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"auth": auth, "cloud": cloud}

    def steps() -> list[tuple]:
        if any(role["name"] == name for role in _look([], "list_roles", **at)):
            return []
        return [({"role": {"old": None, "new": name}}, "create_role", {"name": name})]

    return _settle(name, f"The role {name}", steps, at)


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
    auth, cloud
        See the module's head.

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
    auth, cloud
        See the module's head.

    .. code-block:: yaml

        nova:
          nova_identity.service_present:
            - type: compute
            - description: OpenStack Compute
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"auth": auth, "cloud": cloud}
    who = {"name": name, "type": type}
    wanted = {"description": description, "enabled": enabled}

    def steps() -> list[tuple]:
        found = _look(None, "get_service", **who, **at)
        if found is None:
            others = [row for row in _look([], "list_services", **at) if row["type"] == type]
            if others:
                known = ", ".join(f"{row['name']} (id {row['id']})" for row in others)
                raise CommandExecutionError(
                    f"A service of the type {type} exists under the name {known}: rename it to "
                    f"{name}, delete it, or register it under the name it has."
                )
            return [(_diff({}, {**who, **wanted}), "create_service", {**who, **wanted})]
        changes = _diff(found, wanted)
        new = {key: change["new"] for key, change in changes.items()}
        return [(changes, "update_service", {"service_id": found["id"], **new})] if changes else []

    return _settle(name, f"The service {name} of the type {type}", steps, at, site_lock)


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
    auth, cloud
        See the module's head.

    .. code-block:: yaml

        nova:
          nova_identity.service_absent:
            - type: compute
            - region: RegionOne
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"auth": auth, "cloud": cloud}
    who = {"name": name, "type": type}
    what = f"The service {name} of the type {type}"
    kept: list[str] = []

    def steps() -> list[tuple]:
        found = _look(None, "get_service", **who, **at)
        if found is None:
            return []
        used = _look([], "find_endpoints", service_name=name, service_type=type, **at)
        others = sorted({str(row["region"]) for row in used} - {region})
        if others and region:
            kept.append(f" It is kept: {', '.join(others)} uses it.")
            return []
        # In test mode states before this one have not yet removed them.
        if others and not __opts__["test"]:
            raise CommandExecutionError(
                f"{what} still has endpoints in {', '.join(others)}: remove them first "
                "(nova_identity.endpoint_absent)."
            )
        changes = {"service": {"old": name, "new": None}}
        return [(changes, "delete_service", {"service_id": found["id"]})]

    ret = _settle(name, what, steps, at)
    ret["comment"] += "".join(kept)
    return ret


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
    auth, cloud
        See the module's head.

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
    at = {"auth": auth, "cloud": cloud}
    place = _place(service_name, service_type, interface, region)
    what = f"The {interface} endpoint of {service_name} in {region}"
    wanted = {"url": url, "enabled": enabled}

    def steps() -> list[tuple]:
        found = _look([], "find_endpoints", **place, **at)
        if len(found) > 1:
            known = ", ".join(sorted(f"{row['id']} {row['url']}" for row in found))
            raise CommandExecutionError(
                f"{what} exists {len(found)} times ({known}): delete all but the right one."
            )
        if not found:
            return [(_diff({}, {**place, **wanted}), "create_endpoint", {**place, **wanted})]
        changes = _diff(found[0], wanted)
        new = {key: change["new"] for key, change in changes.items()}
        new["endpoint_id"] = found[0]["id"]
        return [(changes, "update_endpoint", new)] if changes else []

    return _settle(name, what, steps, at, site_lock)


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
    auth, cloud
        See the module's head.

    .. code-block:: yaml

        RegionOne compute public:
          nova_identity.endpoint_absent:
            - service_name: nova
            - service_type: compute
            - interface: public
            - region: RegionOne
            - auth: {auth_url: …, username: admin, password_pillar: …}
    """
    at = {"auth": auth, "cloud": cloud}
    place = _place(service_name, service_type, interface, region)

    def steps() -> list[tuple]:
        return [
            (
                {f"endpoint {row['id']}": {"old": row["url"], "new": None}},
                "delete_endpoint",
                {"endpoint_id": row["id"]},
            )
            for row in _look([], "find_endpoints", **place, **at)
        ]

    what = f"The {interface} endpoint of {service_name} in {region}"
    return _settle(name, what, steps, at)


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


def _place(service_name: str, service_type: str, interface: str, region: str) -> dict[str, str]:
    return {
        "service_name": service_name,
        "service_type": service_type,
        "interface": interface,
        "region": region,
    }


def _diff(found: dict, wanted: dict) -> dict[str, dict]:
    return {
        key: {"old": found.get(key), "new": value}
        for key, value in wanted.items()
        if value is not None and found.get(key) != value
    }


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
    """Apply what ``steps`` says is due, then look again: each is (changes, function, arguments)."""
    ret: dict[str, Any] = {"name": name, "result": False, "comment": "", "changes": {}}
    try:
        due = steps()
        if due and __opts__["test"]:
            for changes, *_ in due:
                ret["changes"].update(changes)
            return ret | {"result": None, "comment": f"{what} would be changed."}
        if due:
            due = _apply(steps, due, at, ret["changes"], site_lock)
    except _FAILURES as exc:
        return ret | {"comment": exc.strerror}
    if due:
        left = ", ".join(label for changes, *_ in due for label in changes)
        return ret | {
            "comment": f"{what} was changed, but Keystone still says otherwise of: {left}. "
            "See whether another tool changes it too, and the log of Keystone."
        }
    changed = "was changed" if ret["changes"] else "is as it should be"
    return ret | {"result": True, "comment": f"{what} {changed}."}


def _apply(
    steps: Callable[[], list[tuple]],
    due: list[tuple],
    at: dict,
    done: dict,
    site_lock: dict | None,
) -> list[tuple]:
    """Do what is due, note in ``done`` what was done, and return what is due still."""
    lock = __utils__["nova_db.lock"](**site_lock) if site_lock else contextlib.nullcontext()
    with lock:
        if site_lock:
            __salt__["nova_identity.forget"](**at)
            due = steps()
        for _ in range(ROUNDS):
            overtaken = False
            for changes, function, arguments in due:
                if __salt__[f"nova_identity.{function}"](**arguments, **at):
                    done.update(changes)
                else:
                    # Another was quicker, and what it made may differ from what we want.
                    overtaken = True
            due = steps()
            if not (due and overtaken):
                break
    return due
