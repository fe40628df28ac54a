"""
Keystone: domains, projects, users, roles, services and endpoints, over one keystoneauth1 session.

Every function takes ``auth``, a dict: ``auth_url``, ``username``, ``password_pillar`` (the name of
a pillar key) or ``password``, ``project_name`` (admin), ``user_domain_name`` and
``project_domain_name`` (Default), ``cacert`` (a path). Requests go to the URL of ``auth_url``, not
to the one in the catalog, which may be wrong yet; ``region_name`` and ``interface`` are therefore
taken but not used. Without ``auth`` the cloud named by ``cloud`` is read from clouds.yaml, by
default ``$OS_CLOUD`` or ``nova``.

The token and all that is read are kept for a run. Errors are CommandExecutionError with one
sentence, and ``exc.info`` holds the HTTP status where there is one.
"""

import json
import os
import time
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

from salt.exceptions import CommandExecutionError, SaltInvocationError

UNAUTHORIZED = 401
NOT_FOUND = 404
CONFLICT = 409

#: ``exc.info`` when keystoneauth1 cannot be imported: Keystone was not even asked.
MISSING_LIBRARY = "missing library"
#: Seconds for a connection to be made, and for each answer to come.
TIMEOUT = 30
#: Seconds before each further try after a refused or closed connection or a 503.
RETRY_DELAYS = (0.5, 1, 2)
#: Seconds for which what has been read is taken as true.
READ_AGE = 60
#: How often, and seconds apart, to look whether the other maker of a duplicate takes its own back.
SETTLE_TRIES = 5
SETTLE_DELAY = 1

_AUTH = {"auth_url", "username", "password", "password_pillar", "project_name", "user_domain_name"}
_AUTH |= {"project_domain_name", "region_name", "cacert", "interface"}
_USER = ("id", "name", "domain_id", "email", "description", "enabled", "options")
_PROJECT = ("id", "name", "domain_id", "description", "enabled")
_SERVICE = ("id", "name", "type", "description", "enabled")

_SENTENCES = {
    400: "{where} rejects {doing} ({text}): correct the value.",
    401: "{where} refuses {account}: correct the password, or the user's, project's and domains' "
    "names in auth.",
    403: "{where} forbids {doing} to {account}: give it the role admin on the project it names.",
    404: "{where} does not know {doing} ({text}): check that auth_url is Keystone's.",
    409: "{where} has something in conflict with {doing} ({text}): remove or rename it there.",
    429: "{where} limits requests and refused {doing} (429): run this again later, or raise the "
    "limit in front of Keystone.",
    500: "{where} failed at {doing} (500{request}): see the log of Keystone on its host.",
    502: "{where} is not available for {doing} (502): see that Keystone runs behind its balancer.",
    503: "{where} is not available for {doing} (503): see that Keystone runs behind its balancer.",
    504: "{where} is not available for {doing} (504): see that Keystone runs behind its balancer.",
}


class _Client(NamedTuple):
    session: Any
    url: str  # of the API, /v3 included
    account: str  # who asks, for errors
    kept: dict  # what has been read: key → (when, value)
    waited: set  # the ids of duplicates that were given their time to go
    refused: list  # when Keystone answered 401, and the sentence


# ---- domains, projects, users, roles ------------------------------------------------------------


def list_domains(auth: dict | None = None, cloud: str | None = None) -> list[dict[str, Any]]:
    """
    All domains: ``id``, ``name``, ``description``, ``enabled``.

    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.list_domains
    """
    fields = ("id", "name", "description", "enabled")
    return [_picked(row, fields) for row in _list(_client(auth, cloud), "domains")]


def get_project(
    name: str, domain: str = "Default", auth: dict | None = None, cloud: str | None = None
) -> dict[str, Any] | None:
    """
    A project: ``id``, ``name``, ``domain_id``, ``description``, ``enabled``; None: there is none.

    name, domain : str
        Names of the project and its domain.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.get_project service
    """
    return _named(_client(auth, cloud), "projects", name, domain, _PROJECT)


def create_project(
    name: str,
    domain: str = "Default",
    description: str | None = None,
    enabled: bool = True,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Create a project. Returns False when another made it first.

    name, domain, description : str
        Names of the project and its domain, and a text.
    enabled : bool
        Whether its users may use it.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.create_project service description='Service accounts'
    """
    client = _client(auth, cloud)
    values = _given(name=name, description=description, enabled=enabled)
    values["domain_id"] = _required_domain(client, domain)
    return _create(client, "projects", {"project": values})


def update_project(
    name: str,
    domain: str = "Default",
    description: str | None = None,
    enabled: bool | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Change a project; what is not given stays.

    name, domain, description : str
        Names of the project and its domain, and a text.
    enabled : bool
        Whether its users may use it.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.update_project service enabled=true
    """
    client = _client(auth, cloud)
    path = f"/projects/{_required(client, 'projects', name, domain)}"
    _write(client, "PATCH", path, {"project": _given(description=description, enabled=enabled)})
    return True


def delete_project(
    name: str, domain: str = "Default", auth: dict | None = None, cloud: str | None = None
) -> bool:
    """
    Delete a project. Returns False when there is none.

    name, domain : str
        Names of the project and its domain.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.delete_project old
    """
    found = get_project(name, domain, auth, cloud)
    return bool(found) and _delete(_client(auth, cloud), f"/projects/{found['id']}")


def get_user(
    name: str, domain: str = "Default", auth: dict | None = None, cloud: str | None = None
) -> dict[str, Any] | None:
    """
    A user: ``id``, ``name``, ``domain_id``, ``email``, ``description``, ``enabled``, ``options``.

    name, domain : str
        Names of the user and its domain.
    auth, cloud
        See the module's head.

    Returns None when there is no such user.

    CLI Example::

        salt ctl1 nova_identity.get_user nova
    """
    return _named(_client(auth, cloud), "users", name, domain, _USER)


def create_user(
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
) -> bool:
    """
    Create a user. Returns False when another made it first.

    name, domain, email, description : str
        Names of the user and its domain, and what is told about it.
    password_pillar, password : str
        The name of the pillar key that holds its password, or the password.
    enabled : bool
        Whether it may log in.
    options : dict
        Keystone's resource options, such as ``{ignore_lockout_failure_attempts: true}``.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.create_user nova password_pillar=nova:passwords:keystone_nova
    """
    client = _client(auth, cloud)
    secret = _secret(password, password_pillar)
    values = _given(name=name, email=email, description=description, enabled=enabled)
    values |= _given(options=options, password=secret)
    values["domain_id"] = _required_domain(client, domain)
    return _create(client, "users", {"user": values}, secret)


def update_user(
    name: str,
    password_pillar: str | None = None,
    password: str | None = None,
    domain: str = "Default",
    email: str | None = None,
    description: str | None = None,
    enabled: bool | None = None,
    options: dict | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Change a user; what is not given stays.

    name, domain, email, description : str
        Names of the user and its domain, and what is told about it.
    password_pillar, password : str
        The name of the pillar key that holds its new password, or the password.
    enabled : bool
        Whether it may log in.
    options : dict
        Keystone's resource options; those that are not named stay.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.update_user nova password_pillar=nova:passwords:keystone_nova
    """
    client = _client(auth, cloud)
    secret = _secret(password, password_pillar)
    values = _given(email=email, description=description, enabled=enabled, options=options)
    values |= _given(password=secret)
    path = f"/users/{_required(client, 'users', name, domain)}"
    _write(client, "PATCH", path, {"user": values}, secret=secret)
    return True


def delete_user(
    name: str, domain: str = "Default", auth: dict | None = None, cloud: str | None = None
) -> bool:
    """
    Delete a user. Returns False when there is none.

    name, domain : str
        Names of the user and its domain.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.delete_user old
    """
    found = get_user(name, domain, auth, cloud)
    return bool(found) and _delete(_client(auth, cloud), f"/users/{found['id']}")


def token_works(
    name: str,
    password_pillar: str | None = None,
    password: str | None = None,
    domain: str = "Default",
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Whether Keystone gives the user an unscoped token for this password.

    It is asked once a run, as a wrong password counts towards a lockout. A user that is disabled
    or locked out gets no token with the right password either.

    name, domain : str
        Names of the user and its domain.
    password_pillar, password : str
        The name of the pillar key that holds the password, or the password.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.token_works nova password_pillar=nova:passwords:keystone_nova
    """
    client = _client(auth, cloud)
    from keystoneauth1 import exceptions

    secret = _secret(password, password_pillar)
    if secret is None:
        raise SaltInvocationError("Give password_pillar, the name of a pillar key, or password.")
    user = {"name": name, "domain": {"id": _required_domain(client, domain)}, "password": secret}
    identity = {"methods": ["password"], "password": {"user": user}}
    body = {"auth": {"identity": identity, "scope": "unscoped"}}

    def probe() -> bool:
        url = f"{client.url}/auth/tokens"
        try:
            client.session.post(url, json=body, authenticated=False, log=False)
        except exceptions.Unauthorized:
            return False
        return True

    key = ("token", name, domain, secret)
    return _kept(client, key, lambda: _ask(client, "POST /auth/tokens", probe, secret=secret))


def list_roles(auth: dict | None = None, cloud: str | None = None) -> list[dict[str, Any]]:
    """
    All roles that belong to no domain: ``id``, ``name``.

    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.list_roles
    """
    return [_picked(row, ("id", "name")) for row in _list(_client(auth, cloud), "roles")]


def create_role(name: str, auth: dict | None = None, cloud: str | None = None) -> bool:
    """
    Create a role. Returns False when another made it first.

    name : str
        Name of the role.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.create_role service
    """
    return _create(_client(auth, cloud), "roles", {"role": {"name": name}})


def get_user_roles(
    user: str,
    project: str | None = None,
    domain: str | None = None,
    system: bool = False,
    user_domain: str = "Default",
    project_domain: str = "Default",
    auth: dict | None = None,
    cloud: str | None = None,
) -> list[str]:
    """
    Names of the roles that were given to a user itself, on one project, domain or the system.

    Empty when the user, the project or the domain does not exist.

    user, user_domain : str
        Names of the user and its domain.
    project, project_domain : str
        Names of a project and its domain; or
    domain : str
        the name of a domain; or
    system : bool
        the whole system.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.get_user_roles nova project=service
    """
    client = _client(auth, cloud)
    found = get_user(user, user_domain, auth, cloud)
    kind, target = _scope(client, project, domain, system, project_domain)
    if found is None or target is None:
        return []
    scope = {"scope.system": "all"} if kind == "system" else {f"scope.{kind}.id": target}
    roles = {row["id"]: row["name"] for row in _list(client, "roles")}
    return sorted(
        roles.get(row["role"]["id"], row["role"]["id"])
        for row in _list(client, "role_assignments", **scope)
        if row.get("user", {}).get("id") == found["id"]
        and "OS-INHERIT:inherited_to" not in row["scope"]
    )


def assign_role(
    role: str,
    user: str,
    project: str | None = None,
    domain: str | None = None,
    system: bool = False,
    user_domain: str = "Default",
    project_domain: str = "Default",
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Give a user a role on one project, domain or the system.

    role : str
        Name of the role.
    user, project, domain, system, user_domain, project_domain
        As of :func:`get_user_roles`.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.assign_role service nova project=service
    """
    client = _client(auth, cloud)
    where = (project, domain, system, user_domain, project_domain)
    _write(client, "PUT", _assignment(client, role, user, *where))
    return True


def unassign_role(
    role: str,
    user: str,
    project: str | None = None,
    domain: str | None = None,
    system: bool = False,
    user_domain: str = "Default",
    project_domain: str = "Default",
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Take a role from a user on one project, domain or the system. Returns False when it has none.

    role : str
        Name of the role.
    user, project, domain, system, user_domain, project_domain
        As of :func:`get_user_roles`.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.unassign_role admin nova project=service
    """
    client = _client(auth, cloud)
    where = (project, domain, system, user_domain, project_domain)
    return _delete(client, _assignment(client, role, user, *where))


# ---- the catalog --------------------------------------------------------------------------------


def list_services(auth: dict | None = None, cloud: str | None = None) -> list[dict[str, Any]]:
    """
    All services: ``id``, ``name``, ``type``, ``description``, ``enabled``.

    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.list_services
    """
    return [_picked(row, _SERVICE) for row in _list(_client(auth, cloud), "services")]


def get_service(
    name: str, type: str, auth: dict | None = None, cloud: str | None = None
) -> dict[str, Any] | None:
    """
    The service of this name and type, as in :func:`list_services`; None when there is none.

    name, type : str
        Such as ``nova`` and ``compute``.
    auth, cloud
        See the module's head.

    Raises CommandExecutionError, naming the ids, when there are several.

    CLI Example::

        salt ctl1 nova_identity.get_service nova compute
    """
    client = _client(auth, cloud)

    def look() -> list[dict]:
        return [row for row in _list(client, "services") if _is(row, name, type)]

    same = _patiently(client, look)
    if len(same) > 1:
        ids = ", ".join(sorted(row["id"] for row in same))
        raise CommandExecutionError(
            f"Keystone at {client.url} has {len(same)} services {name} of the type {type} (ids "
            f"{ids}): delete all but the one whose endpoints are in use."
        )
    return _picked(same[0], _SERVICE) if same else None


def create_service(
    name: str,
    type: str,
    description: str | None = None,
    enabled: bool = True,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Create a service. Returns False when another made the same and ours was taken back.

    name, type, description : str
        Such as ``nova``, ``compute`` and a text.
    enabled : bool
        Whether the catalog shows it.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.create_service nova compute 'OpenStack Compute'
    """
    client = _client(auth, cloud)
    values = _given(name=name, type=type, description=description, enabled=enabled)

    def same() -> list[dict]:
        return [row for row in _list(client, "services") if _is(row, name, type)]

    return _create_one(client, "services", "service", values, same)


def update_service(
    service_id: str,
    description: str | None = None,
    enabled: bool | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Change a service; what is not given stays.

    service_id, description : str
        Its id, and a text.
    enabled : bool
        Whether the catalog shows it.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.update_service 0123456789abcdef0123456789abcdef enabled=true
    """
    values = {"service": _given(description=description, enabled=enabled)}
    _write(_client(auth, cloud), "PATCH", f"/services/{service_id}", values)
    return True


def delete_service(service_id: str, auth: dict | None = None, cloud: str | None = None) -> bool:
    """
    Delete a service with its endpoints in every region. Returns False when there is none.

    service_id : str
        Its id.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.delete_service 0123456789abcdef0123456789abcdef
    """
    return _delete(_client(auth, cloud), f"/services/{service_id}")


def list_regions(auth: dict | None = None, cloud: str | None = None) -> list[str]:
    """
    The names of all regions, which are their ids.

    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.list_regions
    """
    return sorted(row["id"] for row in _list(_client(auth, cloud), "regions"))


def list_endpoints(auth: dict | None = None, cloud: str | None = None) -> list[dict[str, Any]]:
    """
    All endpoints: ``id``, ``service_id``, ``service_name``, ``service_type``, ``interface``,
    ``region``, ``url``, ``enabled``.

    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.list_endpoints
    """
    return [row for rows in _endpoints(_client(auth, cloud)).values() for row in rows]


def find_endpoints(
    service_name: str,
    service_type: str,
    interface: str | None = None,
    region: str | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> list[dict[str, Any]]:
    """
    The endpoints of one service, as in :func:`list_endpoints`. Empty without such a service.

    service_name, service_type : str
        Such as ``nova`` and ``compute``.
    interface, region : str
        ``public``, ``internal`` or ``admin``, and a region; None: whichever.
    auth, cloud
        See the module's head.

    Raises CommandExecutionError when there are several such services.

    CLI Example::

        salt ctl1 nova_identity.find_endpoints nova compute public RegionOne
    """
    client = _client(auth, cloud)
    service = get_service(service_name, service_type, auth, cloud)
    if service is None:
        return []
    if interface and region:
        place = (service["id"], interface, region)
        return list(_patiently(client, lambda: _endpoints(client).get(place, [])))
    return [
        row
        for (owner, side, area), rows in _endpoints(client).items()
        if owner == service["id"] and interface in (None, side) and region in (None, area)
        for row in rows
    ]


def create_endpoint(
    service_name: str,
    service_type: str,
    interface: str,
    region: str,
    url: str,
    enabled: bool = True,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Create an endpoint, and its region where it is new.

    service_name, service_type : str
        The service, such as ``nova`` and ``compute``.
    interface, region, url : str
        ``public``, ``internal`` or ``admin``; the region's name; the URL.
    enabled : bool
        Whether the catalog shows it.
    auth, cloud
        See the module's head.

    Returns False when another made one for the same place and ours was taken back.

    CLI Example::

        salt ctl1 nova_identity.create_endpoint nova compute public R1 http://192.0.2.1:8774/v2.1
    """
    client = _client(auth, cloud)
    service = get_service(service_name, service_type, auth, cloud)
    if service is None:
        raise CommandExecutionError(
            f"Keystone at {client.url} has no service {service_name} of the type {service_type}: "
            "create it first (nova_identity.service_present)."
        )
    if region not in list_regions(auth, cloud):
        _create(client, "regions", {"region": {"id": region}})
    values = {"service_id": service["id"], "interface": interface, "region_id": region}
    values |= {"url": url, "enabled": enabled}

    def same() -> list[dict]:
        return _endpoints(client).get((service["id"], interface, region), [])

    return _create_one(client, "endpoints", "endpoint", values, same)


def update_endpoint(
    endpoint_id: str,
    url: str | None = None,
    enabled: bool | None = None,
    auth: dict | None = None,
    cloud: str | None = None,
) -> bool:
    """
    Change an endpoint in place; what is not given stays.

    endpoint_id, url : str
        Its id, and its new URL.
    enabled : bool
        Whether the catalog shows it.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.update_endpoint 0123456789abcdef0123456789abcdef http://192.0.2.1
    """
    values = {"endpoint": _given(url=url, enabled=enabled)}
    _write(_client(auth, cloud), "PATCH", f"/endpoints/{endpoint_id}", values)
    return True


def delete_endpoint(endpoint_id: str, auth: dict | None = None, cloud: str | None = None) -> bool:
    """
    Delete an endpoint. Returns False when there is none.

    endpoint_id : str
        Its id.
    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.delete_endpoint 0123456789abcdef0123456789abcdef
    """
    return _delete(_client(auth, cloud), f"/endpoints/{endpoint_id}")


def forget(auth: dict | None = None, cloud: str | None = None) -> bool:
    """
    Forget what has been read in this run, so that the next look asks Keystone.

    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.forget
    """
    _client(auth, cloud).kept.clear()
    return True


# ---- other services, by the catalog -------------------------------------------------------------


def catalog(auth: dict | None = None, cloud: str | None = None) -> list[dict[str, Any]]:
    """
    The catalog that a token gets now: services with ``type``, ``name`` and ``endpoints``.

    auth, cloud
        See the module's head.

    CLI Example::

        salt ctl1 nova_identity.catalog
    """
    return _list(_client(auth, cloud), "auth/catalog")


def get_from(
    service_type: str,
    path: str,
    region: str | None = None,
    interface: str = "public",
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    What another service answers, authenticated, at the URL that the catalog gives.

    service_type, region, interface : str
        Whose endpoint, such as ``compute``.
    path : str
        Below the endpoint, such as ``/servers?limit=1``.
    auth, cloud
        See the module's head.

    Raises CommandExecutionError when the catalog has no such endpoint, or the service does not
    answer with JSON.

    CLI Example::

        salt ctl1 nova_identity.get_from compute /os-services RegionOne
    """
    from keystoneauth1 import exceptions

    client = _client(auth, cloud)
    urls = [
        endpoint["url"]
        for service in catalog(auth, cloud)
        if service["type"] == service_type
        for endpoint in service["endpoints"]
        if endpoint["interface"] == interface and (not region or endpoint["region"] == region)
    ]
    where = f"{interface} endpoint of {service_type}{f' in {region}' if region else ''}"
    if not urls:
        raise CommandExecutionError(f"The catalog has no {where}: register one with Keystone.")
    url = f"{urls[0].rstrip('/')}{path}"
    try:
        return client.session.get(url, headers={"Accept": "application/json"}).json()
    except (exceptions.ClientException, ValueError) as exc:
        status = getattr(exc, "http_status", None)
        said = f"answers {status}" if status else f"does not answer ({_root(exc)})"
        raise _error(
            f"The {where} {said} to GET {url}: see that the service runs behind the balancer, "
            "and its log.",
            status,
        ) from None


# ---- names to ids -------------------------------------------------------------------------------


def _domain_id(client: _Client, name: str) -> str | None:
    # The token tells its own user's and project's domains: mostly these are the ones meant.
    access = _ask(
        client, "POST /auth/tokens", lambda: client.session.auth.get_access(client.session)
    )
    known = {
        access.user_domain_name: access.user_domain_id,
        access.project_domain_name: access.project_domain_id,
    }
    if known.get(name):
        return known[name]
    rows = _list(client, "domains", name=name)
    return next((row["id"] for row in rows if row["name"] == name), None)


def _required_domain(client: _Client, name: str) -> str:
    found = _domain_id(client, name)
    if found is None:
        raise CommandExecutionError(
            f"Keystone at {client.url} has no domain {name}: create it, or name another."
        )
    return found


def _named(
    client: _Client, collection: str, name: str, domain: str, fields: tuple[str, ...]
) -> dict[str, Any] | None:
    domain_id = _domain_id(client, domain)
    if domain_id is None:
        return None
    rows = _list(client, collection, name=name, domain_id=domain_id)
    # A database may compare without case: what it holds as Nova it will not let us create as nova.
    alike = [row for row in rows if row["name"].casefold() == name.casefold()]
    exact = [row for row in alike if row["name"] == name]
    return next((_picked(row, fields) for row in exact + alike), None)


def _required(client: _Client, collection: str, name: str, domain: str) -> str:
    found = _named(client, collection, name, domain, ("id",))
    if found is None:
        kind = collection[:-1]
        raise CommandExecutionError(
            f"Keystone at {client.url} has no {kind} {name} in the domain {domain}: create it "
            f"first (nova_identity.{kind}_present)."
        )
    return found["id"]


def _scope(
    client: _Client, project: str | None, domain: str | None, system: bool, project_domain: str
) -> tuple[str, str | None]:
    """What a role is given on: its kind, and its id or None."""
    if [bool(project), bool(domain), bool(system)].count(True) != 1:
        raise SaltInvocationError("Give one of project, domain and system: what the role is on.")
    if system:
        return "system", "all"
    if domain:
        return "domain", _domain_id(client, domain)
    found = _named(client, "projects", project, project_domain, ("id",))
    return "project", found and found["id"]


def _assignment(
    client: _Client,
    role: str,
    user: str,
    project: str | None,
    domain: str | None,
    system: bool,
    user_domain: str,
    project_domain: str,
) -> str:
    """The path of a role's assignment."""
    kind, target = _scope(client, project, domain, system, project_domain)
    if target is None and domain:
        _required_domain(client, domain)
    if target is None:
        _required(client, "projects", project, project_domain)
    user_id = _required(client, "users", user, user_domain)
    role_id = next((row["id"] for row in _list(client, "roles") if row["name"] == role), None)
    if role_id is None:
        raise CommandExecutionError(
            f"Keystone at {client.url} has no role {role}: create it first "
            "(nova_identity.role_present)."
        )
    on = "/system" if kind == "system" else f"/{kind}s/{target}"
    return f"{on}/users/{user_id}/roles/{role_id}"


def _endpoints(client: _Client) -> dict[tuple, list[dict[str, Any]]]:
    """All endpoints by service, interface and region: a thousand states look into it."""

    def read() -> dict[tuple, list[dict]]:
        services = {row["id"]: row for row in _list(client, "services")}
        places: dict[tuple, list[dict]] = {}
        for row in _list(client, "endpoints"):
            service = services.get(row["service_id"], {})
            endpoint = {
                "id": row["id"],
                "service_id": row["service_id"],
                "service_name": service.get("name"),
                "service_type": service.get("type"),
                "interface": row["interface"],
                "region": row.get("region_id"),
                "url": row["url"],
                "enabled": row.get("enabled", True),
            }
            place = (endpoint["service_id"], endpoint["interface"], endpoint["region"])
            places.setdefault(place, []).append(endpoint)
        return places

    return _kept(client, ("endpoints by place",), read)


def _patiently(client: _Client, look: Callable[[], list[dict]]) -> list[dict]:
    """What ``look`` finds, after duplicates that were made at the same moment had time to go."""
    rows = look()
    for _ in range(SETTLE_TRIES):
        ids = tuple(sorted(row["id"] for row in rows))
        if len(ids) < 2 or ids in client.waited:
            return rows
        time.sleep(SETTLE_DELAY)
        client.kept.clear()
        rows = look()
    client.waited.add(tuple(sorted(row["id"] for row in rows)))
    return rows


def _is(service: dict, name: str, type: str) -> bool:
    return service["type"] == type and service.get("name") == name


def _picked(row: dict, fields: tuple[str, ...]) -> dict[str, Any]:
    return {field: row.get(field) for field in fields}


def _given(**values) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


# ---- requests -----------------------------------------------------------------------------------


def _list(client: _Client, collection: str, **query) -> list[dict[str, Any]]:
    name = collection.rpartition("/")[2]

    def read() -> list[dict]:
        rows: list[dict] = []
        asked: str | None = urllib.parse.urlencode(query)
        while asked is not None:
            path = f"/{collection}" + (f"?{asked}" if asked else "")
            body = _request(client, "GET", path)
            if not isinstance(body.get(name), list):
                raise _foreign(client, f"GET {path}")
            rows += body[name]
            following = (body.get("links") or {}).get("next")
            if body.get("truncated") and not following:
                raise CommandExecutionError(
                    f"Keystone at {client.url} shows a part of GET {path} only: raise list_limit "
                    "in its keystone.conf."
                )
            # Only the query: the link's host is what Keystone believes its own to be.
            asked = urllib.parse.urlsplit(following).query if following else None
        return rows

    return _kept(client, (collection, *sorted(query.items())), read)


def _kept(client: _Client, key: tuple, read: Callable[[], Any]) -> Any:
    when, value = client.kept.get(key, (None, None))
    if when is None or time.monotonic() - when > READ_AGE:
        value = read()
        client.kept[key] = (time.monotonic(), value)
    return value


def _create(client: _Client, collection: str, body: dict, secret: str | None = None) -> bool:
    """Create what Keystone takes once only; False: another made it first."""
    try:
        _write(client, "POST", f"/{collection}", body, secret=secret)
    except CommandExecutionError as exc:
        if exc.info != CONFLICT:
            raise
        return False
    return True


def _create_one(
    client: _Client, collection: str, kind: str, values: dict, same: Callable[[], list[dict]]
) -> bool:
    """
    Create what Keystone would take twice; False: another made the same, and ours was taken back.

    Of several the smallest id stays, and each maker deletes its own. A maker that looked before
    ours was there deletes nothing: when its own stays, ours goes, though its id be the smallest.
    """
    mine = _write(client, "POST", f"/{collection}", {kind: values}, retry=False)[kind]["id"]
    for _ in range(SETTLE_TRIES):
        ids = sorted(row["id"] for row in same())
        if ids == [mine]:
            return True
        if mine != min(ids, default=None):
            break
        client.kept.clear()
        time.sleep(SETTLE_DELAY)
    _delete(client, f"/{collection}/{mine}")
    return False


def _delete(client: _Client, path: str) -> bool:
    try:
        _write(client, "DELETE", path)
    except CommandExecutionError as exc:
        if exc.info != NOT_FOUND:
            raise
        return False
    return True


def _write(client: _Client, method: str, path: str, body: dict | None = None, **options) -> dict:
    try:
        return _request(client, method, path, body, **options)
    finally:
        # Whatever came of it, what was read before is no longer to be relied on.
        client.kept.clear()


def _request(
    client: _Client,
    method: str,
    path: str,
    body: dict | None = None,
    retry: bool = True,
    secret: str | None = None,
) -> dict[str, Any]:
    doing = f"{method} {path}"

    def send():
        # keystoneauth1 writes bodies into the debug log, passwords too.
        return client.session.request(f"{client.url}{path}", method, json=body, log=secret is None)

    answer = _ask(client, doing, send, retry, secret)
    if not answer.content:
        return {}
    try:
        data = answer.json()
    except ValueError:
        raise _foreign(client, doing) from None
    if not isinstance(data, dict):
        raise _foreign(client, doing)
    return data


def _ask(
    client: _Client,
    doing: str,
    call: Callable[[], Any],
    retry: bool = True,
    secret: str | None = None,
) -> Any:
    """Call, again after a passing fault where ``retry`` says that twice does no harm."""
    from keystoneauth1 import exceptions

    delays = iter(RETRY_DELAYS if retry else ())
    while True:
        try:
            return call()
        except exceptions.ClientException as exc:
            passing = isinstance(exc, (exceptions.ConnectFailure, exceptions.ServiceUnavailable))
            delay = next(delays, None) if passing else None
            if delay is None:
                # What keystoneauth1 says may hold the password: no chain, no traceback of it.
                raise _failure(client, doing, exc, secret) from None
        time.sleep(delay)


def _failure(
    client: _Client, doing: str, exc: Exception, secret: str | None
) -> CommandExecutionError:
    from keystoneauth1 import exceptions

    where = f"Keystone at {client.url}"
    status = getattr(exc, "http_status", None)
    if status in _SENTENCES:
        number = getattr(exc, "request_id", None)
        sentence = _SENTENCES[status].format(
            where=where,
            doing=doing,
            account=client.account,
            text=_masked(str(getattr(exc, "message", exc)), secret),
            request=f", request {number}" if number else "",
        )
    elif isinstance(exc, exceptions.ConnectTimeout):
        sentence = (
            f"{where} did not answer {doing} within {client.session.timeout:g} s: see that it runs "
            "and that no firewall swallows the packets."
        )
    elif isinstance(exc, exceptions.SSLError):
        sentence = (
            f"{where} cannot be trusted ({_root(exc)}): name the CA that signed its certificate as "
            "cacert in auth, or correct the host name in auth_url."
        )
    elif isinstance(exc, exceptions.ConnectFailure):
        sentence = (
            f"{where} cannot be reached for {doing} ({_root(exc)}): see that it runs there and "
            "that auth_url is right."
        )
    elif isinstance(exc, exceptions.UnknownConnectionError):
        sentence = f"{where} cannot be asked ({_root(exc).rstrip('.')}): correct auth_url."
    elif isinstance(exc, exceptions.InvalidResponse):
        return _foreign(client, doing)
    else:
        text = _masked(str(exc), secret)
        sentence = f"{where} could not do {doing} ({text}): see the log of Keystone on its host."
    if status == UNAUTHORIZED:
        client.refused[:] = [time.monotonic(), sentence]
    return _error(sentence, status)


def _foreign(client: _Client, doing: str) -> CommandExecutionError:
    return CommandExecutionError(
        f"What answers {doing} at {client.url} is not Keystone: correct auth_url."
    )


def _error(sentence: str, info: Any) -> CommandExecutionError:
    exc = CommandExecutionError(sentence)
    # Not by the constructor, which would put it into the sentence.
    exc.info = info
    return exc


def _root(exc: BaseException) -> str:
    """What the system or the TLS library said, beneath all the libraries' wrappings."""
    while exc.__cause__ or exc.__context__:
        exc = exc.__cause__ or exc.__context__
    return getattr(exc, "verify_message", None) or getattr(exc, "strerror", None) or str(exc)


def _masked(text: str, secret: str | None) -> str:
    for shown in (json.dumps(secret)[1:-1], repr(secret)[1:-1], secret) if secret else ():
        text = text.replace(shown, "***")
    return " ".join(text.split()).rstrip(".")


# ---- the session --------------------------------------------------------------------------------


def _client(auth: dict | None, cloud: str | None) -> _Client:
    if not auth:
        cloud = cloud or os.environ.get("OS_CLOUD") or "nova"
    # By process: a socket that a fork inherits (`parallel: True`) must not be spoken to by both.
    key = (os.getpid(), cloud, *sorted((k, str(v)) for k, v in (auth or {}).items()))
    clients = __context__.setdefault("nova_identity.clients", {})
    client = clients.get(key)
    if client and client.refused:
        # Not tried again by each state: an administrator is locked out by wrong passwords too.
        when, sentence = client.refused
        if time.monotonic() - when <= READ_AGE:
            raise _error(sentence, UNAUTHORIZED)
        client = None
    if client is None:
        client = clients[key] = _from_auth(auth) if auth else _from_cloud(cloud)
    return client


def _from_auth(auth: dict) -> _Client:
    key = auth.get("password_pillar")
    password = _secret(auth.get("password"), key)
    missing = [word for word in ("auth_url", "username") if not auth.get(word)]
    missing += [] if password else ["password_pillar"]
    unknown = sorted(auth.keys() - _AUTH)
    if missing or unknown:
        raise SaltInvocationError(
            f"auth has {'no' if missing else 'an unknown'} {', '.join(missing or unknown)}: it "
            f"takes {', '.join(sorted(_AUTH))}."
        )
    cacert = auth.get("cacert")
    if cacert and not os.path.exists(cacert):
        raise SaltInvocationError(
            f"auth names the cacert {cacert}, which is not there: correct it."
        )
    try:
        from keystoneauth1.identity import v3
    except ImportError as exc:
        raise _missing_library("keystoneauth1") from exc
    url = _api(auth["auth_url"])
    project = auth.get("project_name") or "admin"
    plugin = v3.Password(
        auth_url=url,
        username=auth["username"],
        password=password,
        user_domain_name=auth.get("user_domain_name") or "Default",
        project_name=project,
        project_domain_name=auth.get("project_domain_name") or "Default",
    )
    source = f" with the password in the pillar key {key}" if key else ""
    account = f"the user {auth['username']} on the project {project}{source}"
    return _Client(_session(plugin, cacert or True), url, account, {}, set(), [])


def _from_cloud(cloud: str) -> _Client:
    try:
        import openstack.config
        import openstack.exceptions
    except ImportError as exc:
        raise _missing_library("openstacksdk") from exc
    import yaml
    from keystoneauth1 import exceptions

    faults = (openstack.exceptions.SDKException, exceptions.ClientException, yaml.YAMLError)
    try:
        found = openstack.config.OpenStackConfig().get_one(cloud=cloud)
        plugin, (verify, cert) = found.get_auth(), found.get_requests_verify_args()
        url = _api(found.config["auth"]["auth_url"])
    except (*faults, KeyError) as exc:
        raise CommandExecutionError(
            f"The cloud {cloud} cannot be taken from clouds.yaml ({exc}): name another as `cloud`, "
            "or give `auth`."
        ) from exc
    return _Client(
        _session(plugin, verify, cert), url, f"the cloud {cloud} of clouds.yaml", {}, set(), []
    )


def _session(plugin, verify: bool | str, cert=None):
    from keystoneauth1 import session

    return session.Session(
        auth=plugin, verify=verify, cert=cert, timeout=TIMEOUT, app_name="salt-nova-identity"
    )


def _api(auth_url: str) -> str:
    url = str(auth_url).rstrip("/")
    return url if url.endswith("/v3") else f"{url}/v3"


def _secret(password: str | None, password_pillar: str | None) -> str | None:
    if password_pillar:
        return __utils__["nova_secret.value"](__pillar__, password_pillar, __opts__)
    return None if password in (None, "") else str(password)


def _missing_library(name: str) -> CommandExecutionError:
    return _error(
        f"{name} is missing in Salt's own Python: install it with `salt-pip install {name}`.",
        MISSING_LIBRARY,
    )
