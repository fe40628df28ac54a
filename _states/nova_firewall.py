"""
Ports that are open in a zone of firewalld's, now and after its next start.

Salt's own ``firewalld.present`` would on Salt 3006 also turn off what masquerading the zone has.
"""

from salt.exceptions import CommandExecutionError


def ports_open(name: str, ports: list[str], unit: str = "firewalld") -> dict:
    """
    Ports are open in a zone; others, and all else that the zone has, stay as they are.

    Where firewalld does not run, there is nothing to open.

    name : str
        The zone.
    unit : str
        firewalld's unit.
    ports : list
        As firewall-cmd takes them: ``8774/tcp``, ``5900-6923/tcp``.

    .. code-block:: yaml

        public:
          nova_firewall.ports_open:
            - ports: [8774/tcp]
    """
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    try:
        if __salt__["nova_unit.show"]([unit])[unit]["ActiveState"] != "active":
            return ret | {"result": True, "comment": f"{unit} does not run."}
        missing = {
            permanent: sorted(set(ports) - set(__salt__["firewalld.list_ports"](name, permanent)))
            for permanent in (True, False)
        }
        due = {port for some in missing.values() for port in some}
        if not due:
            return ret | {"result": True, "comment": f"All ports are open in zone {name}."}
        changes = {port: {"old": None, "new": "open"} for port in sorted(due)}
        if __opts__["test"]:
            comment = f"Ports would be opened in zone {name}."
            return ret | {"result": None, "changes": changes, "comment": comment}
        for permanent, some in missing.items():
            for port in some:
                __salt__["firewalld.add_port"](name, port, permanent)
    except CommandExecutionError as exc:
        return ret | {"comment": f"firewalld refuses ports of zone {name}: {exc}"}
    return ret | {
        "result": True,
        "changes": changes,
        "comment": f"Ports were opened in zone {name}.",
    }
