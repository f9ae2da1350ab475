"""The network: its interfaces, the rules between them, and the fixed addresses.

Every interface has its own veth pair (host_network.py), and every packet between two of them is routed by the host, so
it passes the packet filter (packet_filter.py) even if both are in one subnet.

The lab's internet is one range, `INTERNET`; addresses outside of it and of the VPC cannot be reached, and no packet
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
ELSEWHERE = "198.51.100.3"
"""Another host of the internet, on which tests offer services (tests/e2e/sink.py)."""
METADATA = "169.254.169.254"
METADATA_PORT = 8169  # of the metadata server, on OPERATOR
CLIENT_ALIASES = ipaddress.IPv4Address("240.0.0.0")  # the first one reserved by RFC 1112, which no host has
NUMBERS = 2048
"""How many numbers of load balancers have aliases for their clients: 240.0.0.0/4 in networks of /15."""
LINK_LOCAL_RESOLVER = "169.254.169.253"

NAMESPACES = Path("/run/netns")


@dataclass(frozen=True)
class Interface:
    """A network interface in use by a machine or a load balancer.

    `groups` is None for a load balancer created without a security group: AWS then allows all traffic.
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
        """The address the internet gateway translates to, which requires an elastic address and the route."""
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
    """A load balancer whose targets see the clients' addresses. `number` is unique among the load balancers.

    Responses must return to it, also those to this host, which is itself a client. Therefore each client has an alias
    between the load balancer's namespace and the host's translation, which the host routes to the load balancer.
    """

    interface: Interface
    number: int
    targets: tuple[tuple[int, tuple[str, ...]], ...]
    """The private addresses of the targets, by the listener's port."""

    @property
    def aliases(self) -> ipaddress.IPv4Network:
        """All aliases of this load balancer's clients."""
        return ipaddress.IPv4Network((int(CLIENT_ALIASES) + (self.number << 17), 15))

    def aliases_of(self) -> dict[ipaddress.IPv4Network, ipaddress.IPv4Network]:
        """Return the networks of clients, and for each the network of their aliases."""
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
        """Return the private addresses that a reference to the group matches."""
        return sorted(i.address for i in self.interfaces if i.groups and group in i.groups)

    def aliases_of_members(self, group: str) -> list[str]:
        """Return the aliases of the clients of the group's load balancers that preserve client addresses."""
        return sorted(str(p.aliases) for p in self.preserving if group in (p.interface.groups or ()))

    def own_addresses(self) -> list[str]:
        """Return the addresses of the bridge: those of the internet, each subnet's router and each VPC's resolver."""
        addresses = {a for i in self.interfaces for a in (i.router, i.resolver)}
        return [OPERATOR, VENDORS, ELSEWHERE, *sorted(addresses)]
