"""
Keystone: domains, projects, users, roles, their assignments, services, endpoints and regions.

Every function takes ``auth``, a dict: ``auth_url``, ``username``, ``password_pillar`` (the name of
a pillar key) or ``password``, ``project_name`` (admin), ``user_domain_name`` and
``project_domain_name`` (Default), ``cacert`` (a path). Requests go to the URL of ``auth_url``, not
to the one in the catalog, which may be wrong yet; ``region_name`` and ``interface`` are therefore
taken but not used. ``read_as`` in it is a dict of the same keys: the account that reads, until it
is refused something. A run that changes nothing then needs no token of the administrator, and has
seen that account's password work. Instead of ``auth``, ``cloud`` or ``$OS_CLOUD`` names a cloud of
clouds.yaml (read by openstacksdk). With neither, the account of ``[keystone_authtoken]`` in the
node's own nova.conf asks, or where that has none the cloud ``nova``.

An object is of one of these kinds, and is found by its key:

========  ================================================  =====================================
kind      key                                               what it has besides, and can be given
========  ================================================  =====================================
domain    name                                              description, enabled
project   name, domain                                      description, enabled
user      name, domain                                      description, enabled, email, options,
                                                            password_pillar or password
role      name                                              description
region    name                                              description
service   type, name                                        description, enabled
endpoint  service_type, service_name, interface, region     url, enabled
========  ================================================  =====================================

All are texts but ``enabled``, a bool, and ``options``, a dict of Keystone's resource options, such
as ``{ignore_lockout_failure_attempts: true}``. ``domain`` is a name, by default ``Default``.

The token and all that is read are kept for a run. Errors are CommandExecutionError with one
sentence, and ``exc.info`` holds the HTTP status where there is one; wrong arguments are
SaltInvocationError.
"""

import email.utils
import json
import os
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, NamedTuple

import salt.utils.args
from salt.exceptions import CommandExecutionError, SaltInvocationError

BAD_REQUEST = 400
UNAUTHORIZED = 401
FORBIDDEN = 403
NOT_FOUND = 404
CONFLICT = 409
TOO_MANY = 429

#: ``exc.info`` when keystoneauth1 cannot be imported: Keystone was not even asked.
MISSING_LIBRARY = "missing library"
#: ``exc.info`` when another service has no endpoint yet, and when it does not answer there.
NO_ENDPOINT = "no endpoint"
UNREACHABLE = "unreachable"
#: ``exc.info`` when Keystone shows a part of a list only.
TRUNCATED = "truncated"
#: Seconds for a connection to be made, and for each answer to come.
TIMEOUT = 30
#: Seconds before each further try after a refused or closed connection, a 429, 502 or 503.
RETRY_DELAYS = (0.5, 1, 2)
#: The most seconds that are waited because a Retry-After asks for it.
RETRY_AFTER = 10
#: Seconds for which what has been read is taken as true, a refused password too.
READ_AGE = 60
#: Seconds for which a Keystone that does not answer is not asked again.
DOWN_AGE = 10
#: How many names are asked for one by one before all are read: a domain may have 10,000 users.
FEW = 2
#: How often, and seconds apart, to look whether the other maker of a duplicate takes its own back.
SETTLE_TRIES = 5
SETTLE_DELAY = 1
#: Where a node has its own account.
NOVA_CONF = "/etc/nova/nova.conf"

_AUTH = {"auth_url", "username", "password", "password_pillar", "project_name", "user_domain_name"}
_AUTH |= {"project_domain_name", "region_name", "cacert", "interface", "read_as"}


class _Kind(NamedTuple):
    collection: str  # in Keystone's URLs
    key: tuple[str, ...]
    fields: tuple[str, ...]


_KINDS = {
    "domain": _Kind("domains", ("name",), ("description", "enabled")),
    "project": _Kind("projects", ("name", "domain"), ("description", "enabled")),
    "user": _Kind("users", ("name", "domain"), ("email", "description", "enabled", "options")),
    "role": _Kind("roles", ("name",), ("description",)),
    "region": _Kind("regions", ("name",), ("description",)),
    "service": _Kind("services", ("type", "name"), ("description", "enabled")),
    "endpoint": _Kind(
        "endpoints", ("service_type", "service_name", "interface", "region"), ("url", "enabled")
    ),
}
_PASSWORD = ("password", "password_pillar")
_CATALOG = "auth/catalog"

#: What each collection is looked into by: thousands of states do, so a list is sorted out once.
_BY = {
    "domains": lambda row: row["name"].casefold(),
    "projects": lambda row: row["name"].casefold(),
    "users": lambda row: row["name"].casefold(),
    "roles": lambda row: row["name"].casefold(),
    "regions": lambda row: row["id"],
    "services": lambda row: row["type"],
    "endpoints": lambda row: (row["service_id"], row["interface"], row.get("region_id")),
    "role_assignments": lambda row: row.get("user", {}).get("id"),
}

_UNAVAILABLE = "{where} is not available for {doing} ({status}): see that {service} runs behind "
_UNAVAILABLE += "its balancer."
_SENTENCES = {
    400: "{where} rejects {doing} ({text}): correct the value.",
    401: "{where} refuses {account}: correct the password, or the user's, project's and domains' "
    "names in auth.",
    403: "{where} forbids {doing} to {account}: give it the role admin on the project it names, or "
    "ask as another (auth, cloud).",
    404: "{where} does not know {doing} ({text}): check that {address} is {service}'s.",
    409: "{where} has something in conflict with {doing} ({text}): remove or rename it there.",
    429: "{where} limits requests and refused {doing} (429{after}): run this again later, or raise "
    "the limit in front of {service}.",
    500: "{where} failed at {doing} (500{request}): see the log of {service} on its host.",
    502: _UNAVAILABLE,
    503: _UNAVAILABLE,
    504: _UNAVAILABLE,
}
#: What it means when another service than Keystone says it.
_OF_OTHERS = {
    401: "{where} does not take the token of {account}: see [keystone_authtoken] there, and its "
    "log.",
    403: "{where} forbids {doing} to {account} ({text}): give it the role admin on the project it "
    "names, or see the policy there.",
    404: "{where} does not find what {doing} is for ({text}): correct the name, or create it.",
    406: "{where} does not know the version asked for with {doing} ({text}): it is too old.",
}


class _Client(NamedTuple):
    session: Any
    url: str  # of the API, /v3 included
    account: str  # who asks, for errors
    kept: dict  # what has been read: (collection, …) → (when, value)
    waited: set  # the ids of duplicates that were given their time to go
    faults: list  # the last one that would meet every request: until when, sentence, info
    readers: list  # who reads until it is refused: session, account, (user, domain, secret)
    service: str = ""  # the type of another service, whose URL it is then

    @property
    def where(self) -> str:
        return f"{f'The service {self.service}' if self.service else 'Keystone'} at {self.url}"

    @property
    def address(self) -> str:
        return "its endpoint in the catalog" if self.service else "auth_url"


# ---- look ---------------------------------------------------------------------------------------


def find(kind: str, auth: dict | None = None, cloud: str | None = None, **key) -> list[dict]:
    """
    The objects of this key, each with ``id``, its key and what it has besides.

    There are several only where Keystone lets other tools make duplicates, or where a part of a
    key is left out: a service's name, anything of an endpoint's key.

    kind : str
        As in the module's head, which also tells of ``auth`` and ``cloud``.
    key
        The kind's key.

    Raises CommandExecutionError, naming the ids, when an endpoint's service is there twice.

    CLI Example::

        salt ctl1 nova_identity.find endpoint service_type=compute region=RegionOne
    """
    needed = 0 if kind == "endpoint" else 1
    return _find(_client(auth, cloud), kind, _arguments(kind, key, needed, settable=False))


def get(kind: str, auth: dict | None = None, cloud: str | None = None, **key) -> dict | None:
    """
    The one object of this key, as in :func:`find`; None when there is none.

    kind, key
        As of :func:`find`.

    Raises CommandExecutionError, naming the ids, when there are several.

    CLI Example::

        salt ctl1 nova_identity.get user name=nova
    """
    found = find(kind, auth, cloud, **key)
    return _one(_client(auth, cloud), kind, found)


def list_domains(auth: dict | None = None, cloud: str | None = None) -> dict[str, dict]:
    """
    All domains, by name: ``id``, ``description``, ``enabled``.

    CLI Example::

        salt ctl1 nova_identity.list_domains
    """
    return _listed(_client(auth, cloud), "domain")


def list_projects(
    domain: str = "Default", auth: dict | None = None, cloud: str | None = None
) -> dict[str, dict]:
    """
    The projects of a domain, by name: ``id``, ``description``, ``enabled``.

    domain : str
        Name of the domain.

    CLI Example::

        salt ctl1 nova_identity.list_projects
    """
    client = _client(auth, cloud)
    return _listed(client, "project", domain_id=_required_domain(client, domain))


def list_users(
    domain: str = "Default", auth: dict | None = None, cloud: str | None = None
) -> dict[str, dict]:
    """
    The users of a domain, by name: ``id``, ``email``, ``description``, ``enabled``, ``options``.

    domain : str
        Name of the domain.

    CLI Example::

        salt ctl1 nova_identity.list_users
    """
    client = _client(auth, cloud)
    return _listed(client, "user", domain_id=_required_domain(client, domain))


def list_roles(auth: dict | None = None, cloud: str | None = None) -> dict[str, dict]:
    """
    All roles that belong to no domain, by name: ``id``, ``description``.

    CLI Example::

        salt ctl1 nova_identity.list_roles
    """
    return _listed(_client(auth, cloud), "role")


def list_regions(auth: dict | None = None, cloud: str | None = None) -> dict[str, dict]:
    """
    All regions, by name, which is their id: ``id``, ``description``.

    CLI Example::

        salt ctl1 nova_identity.list_regions
    """
    return _listed(_client(auth, cloud), "region")


def list_services(auth: dict | None = None, cloud: str | None = None) -> dict[str, dict]:
    """
    All services, by type and name: ``id``, ``description``, ``enabled``.

    Of duplicates the name here holds the id too.

    CLI Example::

        salt ctl1 nova_identity.list_services
    """
    return _listed(_client(auth, cloud), "service")


def list_endpoints(auth: dict | None = None, cloud: str | None = None) -> dict[str, dict]:
    """
    All endpoints, by region, service and interface: ``id``, ``url``, ``enabled``.

    Of duplicates the name here holds the id too.

    CLI Example::

        salt ctl1 nova_identity.list_endpoints
    """
    return _listed(_client(auth, cloud), "endpoint")


def list_assignments(
    user: str, user_domain: str = "Default", auth: dict | None = None, cloud: str | None = None
) -> dict[str, list[str]]:
    """
    Names of the roles that were given to a user itself, by what they are on.

    user, user_domain : str
        Names of the user and its domain.

    CLI Example::

        salt ctl1 nova_identity.list_assignments nova
    """
    client = _client(auth, cloud)
    user_id = _required(client, "user", name=user, domain=user_domain)
    found: dict[str, list[str]] = {}
    query = {"user.id": user_id, "include_names": "true"}
    for row in _list(client, "role_assignments", **query):
        scope = row["scope"]
        if "project" in scope:
            on = f"project {scope['project']['name']} of {scope['project']['domain']['name']}"
        else:
            on = f"domain {scope['domain']['name']}" if "domain" in scope else "system"
        on += ", inherited by projects" if "OS-INHERIT:inherited_to" in scope else ""
        found[on] = sorted([*found.get(on, []), row["role"]["name"]])
    return found


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

    CLI Example::

        salt ctl1 nova_identity.get_user_roles nova project=service
    """
    client = _client(auth, cloud)
    found = _find(client, "user", {"name": user, "domain": user_domain})
    kind, target = _scope(client, project, domain, system, project_domain)
    if not found or target is None:
        return []
    scope = {"scope.system": "all"} if kind == "system" else {f"scope.{kind}.id": target}
    names = {row["id"]: row["name"] for row in _list(client, "roles")}
    return sorted(
        names.get(row["role"]["id"], row["role"]["id"])
        for row in _index(client, "role_assignments", **scope).get(found[0]["id"], [])
        if "OS-INHERIT:inherited_to" not in row["scope"]
    )


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

    CLI Example::

        salt ctl1 nova_identity.token_works nova password_pillar=nova:passwords:keystone_nova
    """
    client = _client(auth, cloud)
    works = _kept(client, *_probe(client, name, domain, _secret(password, password_pillar)))
    if not works:
        _required_domain(client, domain)
    return works


def refusal(auth: dict, source: str = "") -> str:
    """
    Why an account gets no token on its project, in a sentence; empty where it gets one.

    It is asked anew each time, once.

    auth : dict
        The account.
    source : str
        Where it stands, for the sentence, such as `` of nova.conf``.

    CLI Example::

        salt ctl1 nova_identity.refusal '{auth_url: …, username: nova, password_pillar: …}'
    """
    try:
        _access(_from_auth(auth, source))
    except (CommandExecutionError, SaltInvocationError) as exc:
        return exc.strerror
    return ""


def read_ahead(
    users: dict[str, str] | None = None,
    domain: str = "Default",
    auth: dict | None = None,
    cloud: str | None = None,
    paths: dict[str, list[str]] | None = None,
    region: str | None = None,
    project: str | None = None,
) -> bool:
    """
    Begin to ask for what later calls of this run look at, and do not wait for it.

    That is a token, then the lists of roles, services and endpoints, the project, its assignments
    and the users, meanwhile whether users' passwords are right (a password costs Keystone some
    0.2 s of hashing), and other services. What fails is asked again by whoever looks at it, unless
    it would meet every request.

    users : dict
        Users' names, and the names of the pillar keys that hold their passwords.
    project, domain : str
        Name of the users' project, and of the domain of both.
    paths, region : dict, str
        As of :func:`get_ahead`.

    CLI Example::

        salt ctl1 nova_identity.read_ahead
    """
    client = _client(auth, cloud)
    # One after another: a Keystone that has just started, asked much at once, may refuse a part.
    lists, passwords = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    def enter() -> None:
        _access(client)
        if project:
            with suppress(CommandExecutionError):
                accounts()

    def after_token(read: Callable[[], Any]) -> Any:
        # A wrong password is tried once, not by each.
        token.result()
        return read()

    def begin(pool: ThreadPoolExecutor, key: tuple, read: Callable[[], Any]) -> None:
        if key not in client.kept:
            client.kept[key] = (time.monotonic(), pool.submit(after_token, read))

    def accounts() -> None:
        where = {"domain_id": _domain_id(client, domain)}
        key, read = _reading(client, "projects", name=project, **where)

        def its() -> list[dict]:
            found = read()
            for row in found:
                scope = {"scope.project.id": row["id"]}
                begin(lists, *_reading(client, "role_assignments", **scope))
            return found

        begin(lists, key, its)
        for name in list(users or {})[:FEW]:
            begin(lists, *_reading(client, "users", name=name, **where))

    token = lists.submit(enter)
    for collection in ("roles", "services", "endpoints"):
        begin(lists, *_reading(client, collection))
    for name, key in (users or {}).items():
        begin(passwords, *_probe(client, name, domain, _secret(None, key)))
    if paths:
        listed = lists.submit(copy_context().run, catalog, auth, cloud)
        _get_ahead(client, paths, listed.result, region=region, auth=auth, cloud=cloud)
    passwords.shutdown(wait=False)
    return True


def forget(auth: dict | None = None, cloud: str | None = None) -> bool:
    """
    Forget what has been read in this run, so that the next look asks Keystone.

    CLI Example::

        salt ctl1 nova_identity.forget
    """
    _client(auth, cloud).kept.clear()
    return True


# ---- change -------------------------------------------------------------------------------------


def create(kind: str, auth: dict | None = None, cloud: str | None = None, **values) -> bool:
    """
    Create an object; an endpoint's region is created with it where it is new.

    Returns False when another made it first, or made the same service or endpoint at the same
    moment, and ours was taken back.

    kind : str
        As in the module's head, which also tells of ``auth`` and ``cloud``.
    values
        The kind's key, and what it has besides.

    CLI Example::

        salt ctl1 nova_identity.create user name=heat password_pillar=nova:passwords:keystone_heat
        salt ctl1 nova_identity.create service type=orchestration name=heat
    """
    given = _arguments(kind, values)
    client = _client(auth, cloud)
    collection, key, _ = _KINDS[kind]
    body = {name: value for name, value in given.items() if name not in _PASSWORD}
    secret = None
    if kind == "user":
        secret = _secret(given.get("password"), given.get("password_pillar"))
        body |= _given(password=secret)
    if "domain" in key:
        body["domain_id"] = _required_domain(client, body.pop("domain"))
    if kind == "region":
        body["id"] = body.pop("name")
    if kind == "endpoint":
        service = {"type": body.pop("service_type"), "name": body.pop("service_name")}
        body["service_id"] = _required(client, "service", **service)
        body["region_id"] = body.pop("region")
        if not _index(client, "regions").get(body["region_id"]):
            _create(client, "regions", {"region": {"id": body["region_id"]}})
    if kind in ("service", "endpoint"):
        place = {name: given[name] for name in key}
        try:
            return _create_one(client, kind, body, lambda: _same(client, kind, place))
        except CommandExecutionError as exc:
            # The service that we saw may have been a duplicate that its maker has taken back.
            if (kind, exc.info) != ("endpoint", BAD_REQUEST):
                raise
            if _required(client, "service", **service) == body["service_id"]:
                raise
            return False
    return _create(client, collection, {kind: body}, secret)


def update(
    kind: str, id: str, auth: dict | None = None, cloud: str | None = None, **values
) -> bool:
    """
    Change an object in place; what is not given stays, a user's other options too.

    Returns False when there is no such object.

    kind, id : str
        As in the module's head; the id, as :func:`get` tells it.
    values
        What the kind has besides its key.

    CLI Example::

        salt ctl1 nova_identity.update endpoint 0123456789abcdef0123456789abcdef url=http://192.0.2.1
    """
    given = _arguments(kind, values, 0, key=False)
    client = _client(auth, cloud)
    secret = _secret(given.pop("password", None), given.pop("password_pillar", None))
    path = f"/{_KINDS[kind].collection}/{id}"
    body = {kind: given | _given(password=secret)}
    return _there(lambda: _write(client, "PATCH", path, body, secret=secret))


def delete(kind: str, id: str, auth: dict | None = None, cloud: str | None = None) -> bool:
    """
    Delete an object. Returns False when there is none.

    Keystone deletes with a service its endpoints in every region, with a role its assignments, and
    with a domain (which is disabled first, as Keystone wants it) its users and projects.

    kind, id : str
        As in the module's head; the id, as :func:`get` tells it.

    CLI Example::

        salt ctl1 nova_identity.delete endpoint 0123456789abcdef0123456789abcdef
    """
    _arguments(kind, {}, 0, key=False)
    if kind == "domain" and not update("domain", id, auth, cloud, enabled=False):
        return False
    client = _client(auth, cloud)
    return _there(lambda: _write(client, "DELETE", f"/{_KINDS[kind].collection}/{id}"))


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

    CLI Example::

        salt ctl1 nova_identity.unassign_role admin nova project=service
    """
    client = _client(auth, cloud)
    where = (project, domain, system, user_domain, project_domain)
    path = _assignment(client, role, user, *where)
    return _there(lambda: _write(client, "DELETE", path))


# ---- other services, by the catalog -------------------------------------------------------------


def catalog(auth: dict | None = None, cloud: str | None = None) -> list[dict[str, Any]]:
    """
    The catalog that a token gets now: services with ``type``, ``name`` and ``endpoints``.

    CLI Example::

        salt ctl1 nova_identity.catalog
    """
    return _list(_client(auth, cloud), _CATALOG)


def request(
    service_type: str,
    method: str,
    path: str,
    body: dict | None = None,
    headers: dict | None = None,
    region: str | None = None,
    interface: str = "public",
    retry: bool = True,
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    What another service answers, authenticated, at the URL that the catalog gives.

    service_type, region, interface : str
        Whose endpoint, such as ``compute``.
    method, path : str
        Such as ``GET``, and the path below the endpoint, such as ``/servers?limit=1``.
    body, headers : dict
        What to send, as JSON, and headers such as ``{OpenStack-API-Version: compute 2.69}``.
    retry : bool
        Whether to ask again after a passing fault, and to spare a service that does not answer.

    Returns an empty dict where the answer is empty. Raises CommandExecutionError when the catalog
    has no such endpoint, and when the service refuses, fails, or does not answer with JSON;
    SaltInvocationError when several regions have one and none is named.

    CLI Example::

        salt ctl1 nova_identity.request compute GET /os-services region=RegionOne
    """
    client = _client(auth, cloud)
    found = [
        endpoint
        for service in catalog(auth, cloud)
        if service["type"] == service_type
        for endpoint in service["endpoints"]
        if endpoint["interface"] == interface and region in (None, endpoint["region"])
    ]
    where = f"{interface} endpoint of {service_type}{f' in {region}' if region else ''}"
    if not found:
        raise _error(f"The catalog has no {where}: register one with Keystone.", NO_ENDPOINT)
    regions = sorted({endpoint["region"] for endpoint in found})
    if len(regions) > 1:
        raise SaltInvocationError(
            f"The catalog has a {where} in each of {', '.join(regions)}: name the region."
        )
    url = found[0]["url"].rstrip("/")
    # Its own faults: that another service is down does not say that Keystone is.
    others = __context__.setdefault("nova_identity.faults", {})
    faults = others.setdefault((os.getpid(), client.account, url), []) if retry else []
    other = client._replace(url=url, service=service_type, faults=faults)
    _spare(other)
    return _request(other, method, path, body, retry, headers=headers)


def get_from(
    service_type: str,
    path: str,
    region: str | None = None,
    interface: str = "public",
    auth: dict | None = None,
    cloud: str | None = None,
) -> dict[str, Any]:
    """
    What another service answers to GET, asked once; arguments and errors as of :func:`request`.

    CLI Example::

        salt ctl1 nova_identity.get_from compute /os-services RegionOne
    """
    kept = _client(auth, cloud).kept
    when, asked = kept.pop(_ahead(service_type, path, region, interface), (0, None))
    if asked and time.monotonic() - when < READ_AGE:
        with suppress(CommandExecutionError):
            return asked.result()
    where = {"region": region, "interface": interface, "auth": auth, "cloud": cloud}
    return request(service_type, "GET", path, retry=False, **where)


def get_ahead(
    paths: dict[str, list[str]],
    region: str | None = None,
    interface: str = "public",
    auth: dict | None = None,
    cloud: str | None = None,
    anew: bool = True,
) -> bool:
    """
    Begin to ask what :func:`get_from` is called for next, and do not wait for it.

    Each service has Keystone look at a token that is new to it, some 0.1 s. What fails is asked
    again by whoever looks at it.

    paths : dict
        Lists of paths by service type; other arguments and errors as of :func:`request`.
    anew : bool
        False: what :func:`read_ahead` has begun holds.

    CLI Example::

        salt ctl1 nova_identity.get_ahead '{placement: [/resource_providers]}' RegionOne
    """
    client = _client(auth, cloud)
    if anew:
        client.kept.pop((_CATALOG,), None)
    wanted = [(service, path) for service, its in paths.items() for path in its]
    if anew or any(_ahead(*each, region, interface) not in client.kept for each in wanted):
        catalog(auth, cloud)  # once, for all of them
        where = {"region": region, "interface": interface, "auth": auth, "cloud": cloud}
        _get_ahead(client, paths, lambda: None, **where)
    return True


def _get_ahead(
    client: _Client,
    paths: dict[str, list[str]],
    catalog_is_there: Callable[[], Any],
    interface: str = "public",
    **where,
) -> None:
    def ask(service: str, path: str) -> dict[str, Any]:
        catalog_is_there()
        return request(service, "GET", path, retry=False, interface=interface, **where)

    for service, its in paths.items():
        # One after another: a service that is asked much at once has Keystone look at the token
        # for each, where it would keep the answer.
        pool = ThreadPoolExecutor(1)
        for path in its:
            # A thread has the loader's dunders in a copy of this context only.
            asked = pool.submit(copy_context().run, ask, service, path)
            key = _ahead(service, path, where["region"], interface)
            client.kept[key] = (time.monotonic(), asked)
        pool.shutdown(wait=False)


def _ahead(service_type: str, path: str, region: str | None, interface: str) -> tuple:
    return "ahead", service_type, path, region, interface


# ---- what a kind is looked for by ---------------------------------------------------------------


def _arguments(
    kind: str, values: dict, needed: int | None = None, key: bool = True, settable: bool = True
) -> dict[str, Any]:
    """
    What was given of a kind's ``key`` and of what is ``settable`` besides.

    needed
        How many parts of the key must be there; None: all.
    """
    if kind not in _KINDS:
        raise SaltInvocationError(f"{kind} is no kind: one of {', '.join(_KINDS)}.")
    _, parts, fields = _KINDS[kind]
    known = parts if key else ()
    if settable:
        known += fields + (_PASSWORD if kind == "user" else ())
    # Salt adds words of its own, __pub_….
    given = _given(**salt.utils.args.clean_kwargs(**values))
    for name in given:
        if name not in known:
            raise SaltInvocationError(f"No {name} of a {kind} here, but {', '.join(known)}.")
    if "domain" in known:
        given.setdefault("domain", "Default")
    missing = [name for name in parts[:needed] if not given.get(name)]
    if missing:
        raise SaltInvocationError(f"Give {', '.join(missing)} of the {kind}.")
    return given


def _find(client: _Client, kind: str, key: dict) -> list[dict[str, Any]]:
    # Where a part of the key is left out, several are no duplicates that might go.
    if kind in ("service", "endpoint") and all(key.get(part) for part in _KINDS[kind].key):
        return _patiently(client, lambda: _same(client, kind, key))
    return _same(client, kind, key)


def _same(client: _Client, kind: str, key: dict) -> list[dict[str, Any]]:
    """The objects of a key, however many."""
    if kind == "service":
        rows = _index(client, "services").get(key["type"], [])
        rows = [row for row in rows if key.get("name") in (None, row.get("name"))]
    elif kind == "endpoint":
        rows = _placed(client, key)
    elif kind == "region":
        rows = _index(client, "regions").get(key["name"], [])
    elif kind == "role":
        rows = _alike(_index(client, "roles"), key["name"])
    elif kind == "domain":
        rows = _named(client, "domains", key["name"])
    else:
        domain_id = _domain_id(client, key["domain"])
        query = {"domain_id": domain_id}
        rows = _named(client, _KINDS[kind].collection, key["name"], **query) if domain_id else []
    return [_object(client, kind, row, key) for row in rows]


def _placed(client: _Client, key: dict) -> list[dict[str, Any]]:
    """The endpoints of one service, or of all where none is named."""
    service = None
    if "service_name" in key and "service_type" not in key:
        raise SaltInvocationError("Give service_type too, not service_name alone.")
    if "service_type" in key:
        wanted = {"type": key["service_type"], "name": key.get("service_name")}
        service = _one(client, "service", _find(client, "service", wanted))
        if service is None:
            return []
    index = _index(client, "endpoints")
    place = (service and service["id"], key.get("interface"), key.get("region"))
    if None not in place:
        return index.get(place, [])
    named = [(part, wanted) for part, wanted in enumerate(place) if wanted is not None]
    fitting = [rows for at, rows in index.items() if all(at[part] == w for part, w in named)]
    return [row for rows in fitting for row in rows]


def _object(client: _Client, kind: str, row: dict, key: dict) -> dict[str, Any]:
    if kind == "endpoint":
        service = _index(client, "services", by="id").get(row["service_id"], [{}])[0]
        key = {
            "service_type": service.get("type"),
            "service_name": service.get("name"),
            "interface": row["interface"],
            "region": row.get("region_id"),
        }
        row = {"enabled": True, **row}
    elif kind == "service":
        key = {"type": row["type"], "name": row.get("name")}
    elif kind == "region":
        key = {"name": row["id"]}
    else:
        key = {**key, "name": row["name"]}
    return {"id": row["id"], **key, **{name: row.get(name) for name in _KINDS[kind].fields}}


def _listed(client: _Client, kind: str, **query) -> dict[str, dict[str, Any]]:
    """All objects of a kind by what a person calls them."""
    named: dict[str, list[dict]] = {}
    _, key, fields = _KINDS[kind]
    order = ("region", "service_type", "service_name", "interface") if kind == "endpoint" else key
    for row in _list(client, _KINDS[kind].collection, **query):
        found = _object(client, kind, row, {})
        named.setdefault(" ".join(str(found[k]) for k in order if k in found), []).append(found)
    return {
        f"{name} (id {row['id']})" if len(rows) > 1 else name: _picked(row, ("id", *fields))
        for name, rows in sorted(named.items())
        for row in rows
    }


def _one(client: _Client, kind: str, found: list[dict]) -> dict[str, Any] | None:
    if len(found) > 1:
        known = ", ".join(sorted(f"{row['id']} {row.get('url') or row['name']}" for row in found))
        names = " ".join(str(found[0][name]) for name in _KINDS[kind].key)
        raise CommandExecutionError(
            f"Keystone at {client.url} has {len(found)} {kind}s {names} ({known}): delete all but "
            "the one that is right; only a person knows which."
        )
    return found[0] if found else None


def _alike(index: dict, name: str) -> list[dict[str, Any]]:
    # A database may compare without case: what it holds as Nova it will not let us create as nova.
    return sorted(index.get(name.casefold(), []), key=lambda row: row["name"] != name)[:1]


def _named(client: _Client, collection: str, name: str, **query) -> list[dict[str, Any]]:
    """The row of a name, if any: the first few names are asked for, then all are read at once."""
    names = _kept(client, (collection, "names", *query.values()), set)
    names.add(name)

    def read() -> dict | None:
        try:
            return _index(client, collection, **query)
        except CommandExecutionError as exc:
            if exc.info != TRUNCATED:
                raise
            return None

    index = None
    if len(names) > FEW:
        index = _kept(client, (collection, "if whole", *query.values()), read)
    if index is None:
        index = _index(client, collection, name=name, **query)
    return _alike(index, name)


def _domain_id(client: _Client, name: str) -> str | None:
    # The token tells its own user's and project's domains: mostly these are the ones meant.
    access = _access(client)
    known = {
        access.user_domain_name: access.user_domain_id,
        access.project_domain_name: access.project_domain_id,
    }
    if known.get(name):
        return known[name]
    return next((row["id"] for row in _named(client, "domains", name)), None)


def _required_domain(client: _Client, name: str) -> str:
    found = _domain_id(client, name)
    if found is None:
        raise CommandExecutionError(
            f"Keystone at {client.url} has no domain {name}: create it, or name another."
        )
    return found


def _required(client: _Client, kind: str, **key) -> str:
    found = _one(client, kind, _find(client, kind, key))
    if found is None:
        name = key["name"]
        where = f" in the domain {key['domain']}" if "domain" in key else ""
        where = f" of the type {key['type']}" if "type" in key else where
        raise CommandExecutionError(
            f"Keystone at {client.url} has no {kind} {name}{where}: create it first "
            f"(nova_identity.{kind}_present)."
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
    found = _find(client, "project", {"name": project, "domain": project_domain})
    return "project", found[0]["id"] if found else None


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
        _required(client, "project", name=project, domain=project_domain)
    user_id = _required(client, "user", name=user, domain=user_domain)
    role_id = _required(client, "role", name=role)
    on = "/system" if kind == "system" else f"/{kind}s/{target}"
    return f"{on}/users/{user_id}/roles/{role_id}"


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


def _picked(row: dict, fields: tuple[str, ...]) -> dict[str, Any]:
    return {field: row.get(field) for field in fields}


def _given(**values) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


# ---- requests -----------------------------------------------------------------------------------


def _list(client: _Client, collection: str, **query) -> list[dict[str, Any]]:
    return _kept(client, *_reading(client, collection, **query))


def _reading(client: _Client, collection: str, **query) -> tuple[tuple, Callable[[], list[dict]]]:
    """By what a list is kept, and how it is read."""
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
                raise _error(
                    f"Keystone at {client.url} shows a part of GET {path} only: raise list_limit "
                    "in its keystone.conf.",
                    TRUNCATED,
                )
            # Only the query: the link's host is what Keystone believes its own to be.
            asked = urllib.parse.urlsplit(following).query if following else None
        return rows

    return (collection, *sorted(query.items())), read


def _probe(
    client: _Client, name: str, domain: str, secret: str | None
) -> tuple[tuple, Callable[[], bool]]:
    """By what it is kept whether a user's password is right, and how that is found."""
    if secret is None:
        raise SaltInvocationError("Give password_pillar, the name of a pillar key, or password.")
    from keystoneauth1 import exceptions

    user = {"name": name, "domain": {"name": domain}, "password": secret}
    identity = {"methods": ["password"], "password": {"user": user}}
    body = {"auth": {"identity": identity, "scope": "unscoped"}}

    def ask() -> bool:
        url = f"{client.url}/auth/tokens"
        try:
            client.session.post(url, json=body, authenticated=False, log=False)
        except exceptions.Unauthorized:
            return False
        return True

    def read() -> bool:
        if any(who == (name, domain, secret) for *_, who in client.readers):
            _access(client)
            if client.readers:
                return True
        return _ask(client, "POST /auth/tokens", ask, secret=secret)

    return ("users", "token", name, domain, secret), read


def _index(client: _Client, collection: str, by: str = "", **query) -> dict[Any, list[dict]]:
    """A list sorted out: thousands of states look into it."""
    value = _BY[collection] if not by else lambda row: row[by]

    def read() -> dict[Any, list[dict]]:
        found: dict[Any, list[dict]] = {}
        for row in _list(client, collection, **query):
            found.setdefault(value(row), []).append(row)
        return found

    return _kept(client, (collection, "index", by, *sorted(query.items())), read)


def _kept(client: _Client, key: tuple, read: Callable[[], Any]) -> Any:
    when, value = client.kept.get(key, (None, None))
    if when is None or time.monotonic() - when > READ_AGE:
        value = read()
        client.kept[key] = (time.monotonic(), value)
    elif isinstance(value, Future):
        del client.kept[key]
        try:
            value = value.result()
        except CommandExecutionError:
            if client.faults:
                raise
            # It was early: what runs may have mended it since.
            when, value = time.monotonic(), read()
        client.kept[key] = (when, value)
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


def _create_one(client: _Client, kind: str, body: dict, same: Callable[[], list[dict]]) -> bool:
    """
    Create what Keystone would take twice; False: another made the same, and ours was taken back.

    Of several the smallest id stays, and each maker deletes its own. A maker that looked before
    ours was there deletes nothing: when its own stays, ours goes, though its id be the smallest.
    """
    path = f"/{_KINDS[kind].collection}"
    mine = _write(client, "POST", path, {kind: body}, retry=False)[kind]["id"]
    for _ in range(SETTLE_TRIES):
        ids = sorted(row["id"] for row in same())
        if ids == [mine]:
            return True
        if mine != min(ids, default=None):
            break
        client.kept.clear()
        time.sleep(SETTLE_DELAY)
    _there(lambda: _write(client, "DELETE", f"{path}/{mine}"))
    return False


def _there(call: Callable[[], Any]) -> bool:
    """Call; False: what it was for is not there any more."""
    try:
        call()
    except CommandExecutionError as exc:
        if exc.info != NOT_FOUND:
            raise
        return False
    return True


def _write(client: _Client, method: str, path: str, body: dict | None = None, **options) -> dict:
    # What was read before is no longer to be relied on: all of it after a failure or a deletion,
    # which takes more than what it names.
    collection = {"PUT": "role_assignments", "DELETE": None}.get(method, path.split("/")[1])
    try:
        answer = _request(client, method, path, body, **options)
    except CommandExecutionError:
        client.kept.clear()
        raise
    for key in list(client.kept):
        if collection is None or key[0] in (collection, _CATALOG):
            del client.kept[key]
    return answer


def _request(
    client: _Client,
    method: str,
    path: str,
    body: dict | None = None,
    retry: bool = True,
    secret: str | None = None,
    headers: dict | None = None,
) -> dict[str, Any]:
    doing = f"{method} {path}"

    def ask(client: _Client) -> Any:
        def send():
            # keystoneauth1 writes bodies into the debug log, passwords too.
            return client.session.request(
                f"{client.url}{path}", method, json=body, headers=headers, log=secret is None
            )

        return _ask(client, doing, send, retry, secret)

    answer = _read(client, ask) if method == "GET" else ask(client)
    if not answer.content:
        return {}
    try:
        data = answer.json()
    except ValueError:
        raise _foreign(client, doing) from None
    if not isinstance(data, dict):
        raise _foreign(client, doing)
    return data


def _access(client: _Client) -> Any:
    """Whose token reads, and what it tells."""

    def ask(client: _Client) -> Any:
        return _ask(
            client, "POST /auth/tokens", lambda: client.session.auth.get_access(client.session)
        )

    return _read(client, ask)


def _read(client: _Client, ask: Callable[[_Client], Any]) -> Any:
    """Ask as the account that reads; as the one that changes, once that was refused something."""
    for session, account, _ in client.readers[:]:
        reader = client._replace(session=session, account=account, faults=[])
        try:
            return ask(reader)
        except CommandExecutionError as exc:
            if exc.info not in (UNAUTHORIZED, FORBIDDEN):
                client.faults[:] = reader.faults
                raise
            client.readers.clear()
    return ask(client)


def _ask(
    client: _Client,
    doing: str,
    call: Callable[[], Any],
    retry: bool = True,
    secret: str | None = None,
) -> Any:
    """Call, again after a passing fault where ``retry`` says that twice does no harm."""
    from keystoneauth1 import exceptions

    delays = iter(RETRY_DELAYS)
    while True:
        try:
            return call()
        except exceptions.ClientException as exc:
            again = (retry and _passes(exc)) or getattr(exc, "http_status", None) == TOO_MANY
            delay, after = next(delays, None) if again else None, _retry_after(exc)
            if delay is None or after > RETRY_AFTER:
                # What keystoneauth1 says may hold the password: no chain, no traceback of it.
                raise _failure(client, doing, exc, secret) from None
        time.sleep(max(delay, after))


def _passes(exc: Exception) -> bool:
    """Whether a second try may help; after a hang it would only hang again."""
    from keystoneauth1 import exceptions

    passing = (exceptions.ConnectFailure, exceptions.BadGateway, exceptions.ServiceUnavailable)
    unknown = isinstance(exc, exceptions.UnknownConnectionError)
    return isinstance(exc, passing) or (unknown and not _is_bad_url(exc))


def _is_bad_url(exc: Exception) -> bool:
    # So are requests' InvalidURL, InvalidSchema and MissingSchema, but not a broken answer.
    return isinstance(getattr(exc, "original", None), ValueError)


def _retry_after(exc: Exception) -> float:
    """Seconds that the answer asks to wait for, 0 where it does not."""
    header = getattr(getattr(exc, "response", None), "headers", {}).get("Retry-After", "")
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0


def _failure(
    client: _Client, doing: str, exc: Exception, secret: str | None
) -> CommandExecutionError:
    from keystoneauth1 import exceptions

    where, service = client.where, client.service or "Keystone"
    status = getattr(exc, "http_status", None)
    sentences = _SENTENCES | (_OF_OTHERS if client.service else {})
    if status in sentences:
        number = getattr(exc, "request_id", None)
        sentence = sentences[status].format(
            where=where,
            service=service,
            address=client.address,
            doing=doing,
            account=client.account,
            text=_masked(_said(exc), secret),
            request=f", request {number}" if number else "",
            status=status,
            after=f", for {_retry_after(exc):.0f} s" if _retry_after(exc) else "",
        )
    elif isinstance(exc, exceptions.ConnectTimeout):
        sentence = (
            f"{where} did not answer {doing} within {client.session.timeout:g} s: see that it runs "
            "and that no firewall swallows the packets."
        )
    elif isinstance(exc, exceptions.SSLError):
        sentence = (
            f"{where} cannot be trusted ({_root(exc)}): name the CA that signed its certificate as "
            f"cacert in auth, or correct the host name in {client.address}."
        )
    elif isinstance(exc, exceptions.UnknownConnectionError) and _is_bad_url(exc):
        reason = _root(exc).rstrip(".")
        sentence = f"{where} cannot be asked ({reason}): correct {client.address}."
    elif isinstance(exc, (exceptions.ConnectFailure, exceptions.UnknownConnectionError)):
        sentence = (
            f"{where} cannot be reached for {doing} ({_root(exc)}): see that it runs there and "
            f"that {client.address} is right."
        )
    elif isinstance(exc, exceptions.InvalidResponse):
        return _foreign(client, doing)
    else:
        text = _masked(_said(exc), secret)
        sentence = f"{where} could not do {doing} ({text}): see the log of {service} on its host."
    # Not tried again by each state: an administrator is locked out by wrong passwords too, and a
    # run of many states would hang for long.
    down = isinstance(exc, (exceptions.ConnectFailure, exceptions.ConnectTimeout))
    age = READ_AGE if status == UNAUTHORIZED else DOWN_AGE if down else 0
    info = UNREACHABLE if client.service and (down or status in (502, 503, 504)) else status
    if age:
        client.faults[:] = [time.monotonic() + age, sentence, info]
    return _error(sentence, info)


def _said(exc: Exception) -> str:
    """What the service said; keystoneauth1 does not know Nova's ``{"badRequest": {…}}``."""
    try:
        (fault,) = exc.response.json().values()
        return fault["message"]
    except (AttributeError, TypeError, KeyError, ValueError):
        return str(getattr(exc, "message", exc))


def _foreign(client: _Client, doing: str) -> CommandExecutionError:
    return CommandExecutionError(
        f"What answers {doing} at {client.url} is not {client.service or 'Keystone'}: correct "
        f"{client.address}."
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
    cloud = None if auth else cloud or os.environ.get("OS_CLOUD")
    # By process: a socket that a fork inherits (`parallel: True`) must not be spoken to by both.
    key = os.getpid(), cloud, json.dumps(auth, sort_keys=True)
    clients = __context__.setdefault("nova_identity.clients", {})
    client = clients.get(key)
    if client and client.faults:
        _spare(client)
        client = None
    if client is None:
        source = ""
        if not auth and not cloud:
            auth, source = _from_nova_conf(), f" of {NOVA_CONF}"
        made = _from_auth(auth, source) if auth else _from_cloud(cloud or "nova")
        client = clients[key] = made
    return client


def _spare(client: _Client) -> None:
    """Do not ask again too soon where it would fail again."""
    if client.faults and time.monotonic() < client.faults[0]:
        raise _error(*client.faults[1:])


def _from_nova_conf() -> dict | None:
    """The account with which the node's own Nova asks Keystone, if it has one."""
    options = __utils__["nova_conf.read"](NOVA_CONF).get("keystone_authtoken", {})
    conf = {name: values[-1].replace("$$", "$") for name, values in options.items()}
    named = _AUTH - {"auth_url", "region_name", "cacert", "interface", "password_pillar", "read_as"}
    if not all(conf.get(name) for name in ("auth_url", "username", "password")):
        return None
    auth = {name: conf.get(name) for name in {"auth_url", *named}}
    return _given(**auth, cacert=conf.get("cafile") or None)


def _from_auth(auth: dict, source: str = "") -> _Client:
    session, account, _ = _account(auth, source)
    other, shared = auth.get("read_as"), ("auth_url", "cacert")
    readers = []
    if other:
        readers = [_account({**_picked(auth, shared), **other}, "", "read_as")]
    return _Client(session, _api(auth["auth_url"]), account, {}, set(), [], readers)


def _account(auth: dict, source: str, where: str = "auth") -> tuple[Any, str, tuple]:
    """The session of an account, its name for errors, and what its password is."""
    key = auth.get("password_pillar")
    password = _secret(auth.get("password"), key)
    missing = [word for word in ("auth_url", "username") if not auth.get(word)]
    missing += [] if password else ["password_pillar"]
    unknown = sorted(auth.keys() - _AUTH)
    if missing or unknown:
        raise SaltInvocationError(
            f"{where} has {'no' if missing else 'an unknown'} {', '.join(missing or unknown)}: it "
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
    user, domain = auth["username"], auth.get("user_domain_name") or "Default"
    project = auth.get("project_name") or "admin"
    plugin = v3.Password(
        auth_url=_api(auth["auth_url"]),
        username=user,
        password=password,
        user_domain_name=domain,
        project_name=project,
        project_domain_name=auth.get("project_domain_name") or "Default",
        include_catalog=False,
    )
    source = f" with the password in the pillar key {key}" if key else source
    account = f"the user {user} on the project {project}{source}"
    return _session(plugin, cacert or True), account, (user, domain, password)


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
    session, account = _session(plugin, verify, cert), f"the cloud {cloud} of clouds.yaml"
    return _Client(session, url, account, {}, set(), [], [])


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
