"""
Sections of an haproxy.cfg, owned by name; all others stay as they are, to the byte.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError


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
