"""
Sections of an haproxy.cfg, owned by name; all others stay as they are, to the byte. Servers that
get no connections for a while.
"""

import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

#: Seconds between two looks at what haproxy does.
INTERVAL = 0.25


def __virtual__():
    if "nova_haproxy.edit" in __salt__:
        return True
    return False, "The execution module nova_haproxy is missing: run saltutil.sync_all."


def sections_present(
    name: str = "/etc/haproxy/haproxy.cfg",
    sections: dict[str, list[str]] | None = None,
    kind: str = "listen",
    program: str = "haproxy",
    defaults_text: str | None = None,
    absent: list[str] | None = None,
) -> dict:
    """
    Sections stand in the configuration with just these lines.

    name : str
        Path of the configuration file.
    sections : dict
        Section name → its lines.
    kind : str
        ``listen``, ``frontend`` or ``backend``.
    program : str
        The haproxy program that checks the file before it goes live.
    defaults_text : str
        What a file that does not exist begins with; without it, a missing file is a failure.
    absent : list
        Names of sections that do not stand there, in the same step.

    .. code-block:: yaml

        nova-haproxy-config-sections:
          nova_haproxy.sections_present:
            - name: /etc/haproxy/haproxy.cfg
            - sections:
                openstack_nova_port_8774:
                  - bind 10.20.0.40:8774
                  - mode tcp
                  - server ctl1 10.20.0.60:8774 check inter 3000 fall 2 rise 5
    """
    return _apply(
        name,
        present=sections or {},
        absent=absent or [],
        kind=kind,
        program=program,
        defaults_text=defaults_text,
    )


def sections_absent(
    name: str = "/etc/haproxy/haproxy.cfg",
    sections: list[str] | None = None,
    kind: str = "listen",
    program: str = "haproxy",
) -> dict:
    """
    Sections of these names do not stand in the configuration.

    name : str
        Path of the configuration file; if it does not exist, nothing is due.
    sections : list
        Section names.
    kind : str
        ``listen``, ``frontend`` or ``backend``.
    program : str
        The haproxy program that checks the file before it goes live.
    """
    return _apply(name, absent=sections or [], kind=kind, program=program)


def drained(
    name: str = "/run/haproxy/admin.sock",
    sections: list[str] | None = None,
    servers: list[str] | None = None,
    lasting: list[str] | None = None,
    timeout: int = 120,
    unserved: list[str] | None = None,
) -> dict:
    """
    Of the servers of sections, these are drained, and no others.

    Others that are drained are put back first, and waited for: haproxy itself remembers who is,
    so a rollout that was killed leaves nobody drained when the next one begins. A server in
    maintenance is a person's: it stays as it is. The last server of a section is never drained.

    name : str
        Path of haproxy's statistics socket.
    sections : list
        Names of sections.
    servers : list
        Names of servers to be drained in all of them; none, to put all back.
    lasting : list
        Sections whose sessions are not waited for, such as that of consoles.
    timeout : int
        Seconds to wait for servers that are put back to be up, and then for the sessions of those
        that are drained to end. If these do not, the servers are put back.
    unserved : list
        Sections that nobody may serve yet: there servers are drained, too, of which none is up.

    .. code-block:: yaml

        nova-haproxy-drained:
          nova_haproxy.drained:
            - sections: [openstack_nova_port_8774]
            - servers: [ctl1]
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "The servers are as wanted."}
    sections, servers, done = sections or [], servers or [], {}
    try:
        due = _due(name, sections, servers)
        if __opts__["test"]:
            comment = "Servers would be drained or put back." if due else ret["comment"]
            return {**ret, "result": None if due else True, "changes": due, "comment": comment}
        _put_back(name, sections, servers, due, done, timeout)
        _refuse_to_drain_all(name, sections, servers, unserved or [], done)
        _drain(name, servers, due, done)
        _wait_for_sessions(name, sections, servers, lasting or [], done, timeout)
    except (CommandExecutionError, SaltInvocationError) as exc:
        return {**ret, "result": False, "changes": done, "comment": str(exc)}
    if done:
        ret["comment"] = "Servers were drained or put back."
    return {**ret, "changes": done}


def _due(name: str, sections: list[str], servers: list[str]) -> dict[str, dict[str, str]]:
    """``section/server`` → what changes."""
    due = {}
    for section, known in __salt__["nova_haproxy.servers"](sections, name).items():
        if unknown := set(servers) - set(known):
            raise CommandExecutionError(
                f"{section} has no server {', '.join(sorted(unknown))}: apply nova.haproxy first."
            )
        for server, look in known.items():
            if look["drained"] != (server in servers) and not look["maintenance"]:
                words = ("drained", "ready") if look["drained"] else ("ready", "drained")
                due[f"{section}/{server}"] = dict(zip(("old", "new"), words, strict=True))
    return due


def _put_back(
    name: str, sections: list[str], servers: list[str], due: dict, done: dict, timeout: int
) -> None:
    back = [key.split("/") for key in due if due[key]["new"] == "ready"]
    for section, server in back:
        __salt__["nova_haproxy.ready"](section, server, name)
        done[f"{section}/{server}"] = due[f"{section}/{server}"]
    deadline = time.monotonic() + timeout
    while True:
        look = __salt__["nova_haproxy.servers"](sections, name) if back else {}
        down = [f"{at}/{server}" for at, server in back if not look[at][server]["up"]]
        if not down:
            return
        if time.monotonic() >= deadline:
            raise CommandExecutionError(
                f"{', '.join(down)} was put back, and is not up after {timeout} s: see to that "
                "controller first."
            )
        time.sleep(INTERVAL)


def _refuse_to_drain_all(
    name: str, sections: list[str], servers: list[str], unserved: list[str], done: dict
) -> None:
    """Fail if nobody else serves, and put back who was drained before the others went."""
    looks = __salt__["nova_haproxy.servers"](sections, name)
    alone = [
        section
        for section, known in looks.items()
        if servers
        and not (section in unserved and not any(known[server]["up"] for server in servers))
        and not any(
            look["up"] and not look["maintenance"]
            for server, look in known.items()
            if server not in servers
        )
    ]
    if not alone:
        return
    for section in alone:
        for server in servers:
            if looks[section][server]["drained"]:
                __salt__["nova_haproxy.ready"](section, server, name)
                done[f"{section}/{server}"] = {"old": "drained", "new": "ready"}
    raise CommandExecutionError(
        f"Without {', '.join(servers)} nobody would serve {', '.join(alone)}: see to its other "
        "servers first."
    )


def _drain(name: str, servers: list[str], due: dict, done: dict) -> None:
    for key, change in due.items():
        section, server = key.split("/")
        if server in servers:
            __salt__["nova_haproxy.drain"](section, server, name)
            done[key] = change


def _wait_for_sessions(
    name: str, sections: list[str], servers: list[str], lasting: list[str], done: dict, timeout: int
) -> None:
    deadline = time.monotonic() + timeout
    while servers:
        left = {
            f"{section}/{server}": look[server]["sessions"]
            for section, look in __salt__["nova_haproxy.servers"](sections, name).items()
            for server in servers
            if section not in lasting and look[server]["sessions"]
        }
        if not left:
            return
        if time.monotonic() >= deadline:
            for key in [key for key, change in done.items() if change["new"] == "drained"]:
                __salt__["nova_haproxy.ready"](*key.split("/"), name)
                del done[key]
            raise CommandExecutionError(
                f"{', '.join(left)} still had {sum(left.values())} sessions after {timeout} s, and "
                "serves on: raise nova:timeouts:service, or see who holds them."
            )
        time.sleep(INTERVAL)


def _apply(name: str, **wanted) -> dict:
    ret = {"name": name, "result": True, "changes": {}, "comment": "The sections are as wanted."}
    edit = __salt__["nova_haproxy.edit"]
    try:
        changes = edit(name, test=__opts__["test"], **wanted)
        if not changes:
            return ret
        ret["changes"] = changes
        named = ", ".join(changes)
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"Would be edited in {name}: {named}."}
        left = edit(name, test=True, **wanted)
        if left:
            raise CommandExecutionError(
                f"{name} does not hold {', '.join(left)} as written: something else writes it too."
            )
    except (CommandExecutionError, SaltInvocationError) as exc:
        return {**ret, "result": False, "comment": str(exc)}
    return {**ret, "comment": f"Edited in {name}: {named}."}
