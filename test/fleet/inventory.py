"""The hosts that a lab knows: the seed's names and addresses."""

from __future__ import annotations

from dataclasses import dataclass

# Debian's releases, oldest first. What the formula finds in place runs on FOUND, and so do all
# hosts unless another system is asked for.
SYSTEMS = ("bullseye", "bookworm", "trixie", "forky", "sid")
FOUND = "bookworm"
# Those of one suite alone: not released yet, or with security updates that mirrors drop.
LONE = ("bullseye", "forky", "sid")
DOMAIN = "example.org"
PREFIX = 24
GATEWAY = "10.20.0.1"  # the bridge itself: it leads nowhere
VIP = "10.20.0.40"
VIP_NAME = f"openstack-vip.{DOMAIN}"
MESSAGING_NAME = f"rabbitmq.{DOMAIN}"


@dataclass(frozen=True)
class Host:
    """One host. A spare one boots only when it is asked for by name."""

    name: str
    address: str
    role: str
    also: tuple[str, ...] = ()
    spare: bool = False

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, *self.also)


HOSTS = {
    host.name: host
    for host in (
        Host("infra", "10.20.0.10", "found in place, Salt master"),
        Host("lb1", "10.20.0.41", "haproxy", also=(VIP,)),
        # With it the balancers are a pair, and keepalived holds the VIP: pillar.py.
        Host("lb2", "10.20.0.42", "haproxy", spare=True),
        Host("ctl1", "10.20.0.60", "controller"),
        Host("ctl2", "10.20.0.70", "controller"),
        Host("ctl3", "10.20.0.75", "controller", spare=True),
        Host("cmp1", "10.20.0.80", "compute"),
        Host("cmp2", "10.20.0.90", "compute"),
        Host("cmp3", "10.20.0.100", "compute", spare=True),
    )
}
INFRA = HOSTS["infra"]
FLEET = tuple(name for name, host in HOSTS.items() if not host.spare)


def system_of(host: str, asked: str) -> str:
    """Return which Debian a host runs in a lab that was asked for with some."""
    return FOUND if host == INFRA.name else asked


def etc_hosts(vip: str = VIP) -> str:
    """Return /etc/hosts for every host; nova-common's postinst fails on a nameless one."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{host.address} {host.name}.{DOMAIN} {host.name}" for host in HOSTS.values()]
    lines += [f"{vip} {VIP_NAME}", f"{INFRA.address} {MESSAGING_NAME}"]
    return "\n".join(lines) + "\n"
