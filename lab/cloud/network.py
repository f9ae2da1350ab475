"""The network: its interfaces, the rules between them, and the addresses that are fixed.

Every interface hangs on a veth pair of its own (host_network.py) and every packet between two of them is routed by the
host, so it passes the packet filter (packet_filter.py) even when both lie in one subnet.

The lab's internet is one range, `INTERNET`; whatever is neither there nor in the VPC cannot be reached, and nothing
leaves the machine.
"""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

BRIDGE = "gitlab-lab"
TABLE = "gitlab_lab"
DEVICE_PREFIX = "lab-"
NAMESPACE_PREFIX = "gitlab-lab-"

INTERNET = ipaddress.IPv4Network("198.51.100.0/24")
OPERATOR = "198.51.100.1"
VENDORS = "198.51.100.2"
METADATA = "169.254.169.254"
METADATA_PORT = 8169  # of the metadata server, on OPERATOR
CLIENT_ALIASES = ipaddress.IPv4Address("240.0.0.0")  # the first of those that RFC 1112 reserves: no host has one
LINK_LOCAL_RESOLVER = "169.254.169.253"

NAMESPACES = Path("/run/netns")


@dataclass(frozen=True)
class Interface:
    """A network interface that is in use by a machine or a load balancer.

    `groups` is None for a load balancer made without a security group: AWS lets everything through.
    """

    id: str
    address: str
    subnet: str
    vpc: str
    mac: str
    groups: tuple[str, ...] | None
    elastic: str | None = None
    routed: bool = False  # the subnet's default route leads to an internet gateway of the VPC

    @property
    def key(self) -> str:
        return self.id[-10:]

    @property
    def device(self) -> str:
        """The host's end of the veth pair; the kernel allows 15 characters."""
        return DEVICE_PREFIX + self.key

    @property
    def router(self) -> str:
        """AWS reserves the subnet's first address for its router."""
        return str(ipaddress.IPv4Network(self.subnet)[1])

    @property
    def resolver(self) -> str:
        """AWS answers name queries at the VPC's base address plus two."""
        return str(ipaddress.IPv4Network(self.vpc)[2])

    @property
    def public(self) -> str | None:
        """The address the internet gateway translates to: it needs the elastic address and the route."""
        return self.elastic if self.routed else None


@dataclass(frozen=True)
class Rule:
    """One rule of a security group; `peer` is an IPv4 range or the id of a security group."""

    id: str
    group: str
    egress: bool
    protocol: str  # "tcp", "udp", "icmp", "-1" for all, or a protocol number
    peer: str
    first_port: int | None = None  # the ICMP type when the protocol is icmp
    last_port: int | None = None  # the ICMP code
    description: str = ""


@dataclass(frozen=True)
class Preserving:
    """A load balancer whose targets see the clients' addresses. `number` is its own among the load balancers.

    The answers must come back to it, also those to this host, which is a client itself. So between the load balancer's
    namespace and the host's translation each client has an alias, which the host routes to the load balancer.
    """

    interface: Interface
    number: int
    targets: tuple[tuple[int, tuple[str, ...]], ...]
    """By the listener's port, the private addresses of its targets."""

    @property
    def aliases(self) -> ipaddress.IPv4Network:
        """All aliases of this load balancer's clients."""
        return ipaddress.IPv4Network((int(CLIENT_ALIASES) + (self.number << 17), 15))

    def aliases_of(self) -> dict[ipaddress.IPv4Network, ipaddress.IPv4Network]:
        """The networks clients come from, and those of their aliases."""
        private, public = self.aliases.subnets()
        clients = ipaddress.IPv4Network(self.interface.vpc)
        return {
            clients: next(private.subnets(new_prefix=clients.prefixlen)),
            INTERNET: next(public.subnets(new_prefix=INTERNET.prefixlen)),
        }


@dataclass(frozen=True)
class Network:
    interfaces: tuple[Interface, ...] = ()
    rules: tuple[Rule, ...] = ()
    preserving: tuple[Preserving, ...] = ()

    def members(self, group: str) -> list[str]:
        """The private addresses that a reference to the group matches."""
        return sorted(i.address for i in self.interfaces if i.groups and group in i.groups)

    def aliases_of_members(self, group: str) -> list[str]:
        """The clients of those members of the group that are load balancers and preserve addresses."""
        return sorted(str(p.aliases) for p in self.preserving if group in (p.interface.groups or ()))

    def own_addresses(self) -> list[str]:
        """The addresses of the bridge: operator, vendors, and each subnet's router and VPC's resolver."""
        addresses = {a for i in self.interfaces for a in (i.router, i.resolver)}
        return [OPERATOR, VENDORS, *sorted(addresses)]
