"""The network: one bridge, one veth pair per network interface, one packet filter table.

Every interface hangs on a veth pair of its own and every packet between two of them is routed by the host, so
it passes the rules below even when both lie in one subnet. What AWS does to a packet, and where it is done:

- egress rules of the sender see the destination as the sender wrote it      → `egress`, before translation
- the internet gateway translates elastic and private addresses one to one   → `gateway_*`
- ingress rules of the receiver see the source after translation, so traffic
  that came through the gateway has a public source, which no reference to a
  security group matches                                                     → `ingress`, after translation
- a packet that no rule admits is dropped without an answer                  → `blocked`
- a load balancer that preserves client addresses sends in its client's name: the receiver's rules see the client,
  and a reference to the load balancer's group matches all the same           → `Preserving`

Security groups are stateful: what belongs to an admitted connection passes. The lab's internet is one range,
`INTERNET`; whatever is neither there nor in the VPC cannot be reached, and nothing leaves the machine.

Only sysctls of the lab's own interfaces are set (forwarding, proxy ARP): they go away with them.
"""

import contextlib
import ipaddress
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.shell import call

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
ANSWERS_TABLE = 100  # of routes, in a load balancer's namespace
LINK_LOCAL_RESOLVER = "169.254.169.253"

NAMESPACES = Path("/run/netns")
SYSCTL = Path("/proc/sys/net")


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


def render(network: Network) -> str:
    """The packet filter as a script for `nft -f -` that replaces the whole table at once."""
    lines = [f"table ip {TABLE}", f"delete table ip {TABLE}", f"table ip {TABLE} {{"]
    lines += _sets(network) + _base_chains(network)
    for interface in network.interfaces:
        lines += _interface_chains(interface, network)
    return "\n".join([*lines, "}", ""])


def _sets(network: Network) -> list[str]:
    public = {i.address: i.public for i in network.interfaces if i.public}
    senders = [f'"{i.device}" . {i.address}' for i in network.interfaces]
    return [
        # What VPC flow logs would show as rejected; `lab status` prints it.
        "set rejected { type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic, timeout;"
        " timeout 10m; size 1024; }",
        _set("senders", "type ifname . ipv4_addr", senders),
        _set("own", "type ipv4_addr", network.own_addresses()),
        _set("resolvers", "type ipv4_addr", {i.resolver for i in network.interfaces} | {LINK_LOCAL_RESOLVER}),
        _set("public", "type ipv4_addr : ipv4_addr", (f"{a} : {p}" for a, p in public.items()), kind="map"),
        _set("private", "type ipv4_addr : ipv4_addr", (f"{p} : {a}" for a, p in public.items()), kind="map"),
    ]


def _base_chains(network: Network) -> list[str]:
    lab = f'"{DEVICE_PREFIX}*"'
    answers = ["ct state established,related accept", "ct state invalid drop"]
    resolvers = _verdicts(f"{i.vpc} : {i.resolver}" for i in network.interfaces)
    clients = _verdicts(f"{a} : {c}" for p in network.preserving for c, a in p.aliases_of().items())
    return [
        *_chain(
            "blocked",
            "meta l4proto { tcp, udp } update @rejected { ip saddr . ip daddr . meta l4proto . th dport }",
            "drop",
        ),
        *_chain(
            "sender",
            "iifname . ip saddr @senders return",
            *(f'iifname "{p.interface.device}" ip saddr {p.aliases} return' for p in network.preserving),
            "drop",
        ),
        *_chain(
            "egress",
            "type filter hook prerouting priority -150; policy accept;",
            f"iifname != {lab} accept",
            "jump sender",
            *answers,
            # Not subject to security groups: metadata service and resolver.
            f"ip daddr {METADATA} tcp dport 80 accept",
            "ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 accept",
            *_dispatch("iifname", "egress", network),
            "goto blocked",
        ),
        *_chain(
            "gateway_prerouting",
            "type nat hook prerouting priority dstnat;",
            f"iifname != {lab} accept",
            f"ip daddr {METADATA} tcp dport 80 dnat to {OPERATOR}:{METADATA_PORT}",
            *([f"ip daddr {LINK_LOCAL_RESOLVER} dnat to ip saddr map {resolvers}"] if resolvers else []),
            "dnat to ip daddr map @private",
        ),
        *_chain("gateway_output", "type nat hook output priority -100;", "dnat to ip daddr map @private"),
        *_chain(
            "gateway_postrouting",
            "type nat hook postrouting priority srcnat;",
            *([f"snat ip prefix to ip saddr map {clients}"] if clients else []),
            f"ct original ip daddr {INTERNET} snat to ip saddr map @public",
        ),
        *_chain(
            "gateway_input",
            "type nat hook input priority 100;",
            f"ct original ip daddr {INTERNET} snat to ip saddr map @public",
        ),
        *_chain(
            "forward",
            "type filter hook forward priority 0; policy accept;",
            f"iifname {lab} oifname {lab} accept",
            f"iifname {lab} drop",
            f"oifname {lab} drop",
        ),
        *_chain(
            "host",
            "type filter hook input priority 0; policy accept;",
            *answers[:1],
            f"iifname {lab} goto host_services",
            'iifname != "lo" ip daddr @own drop',
        ),
        *_chain(
            "host_services",
            f"ct original ip daddr {METADATA} tcp dport {METADATA_PORT} accept",
            "ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 accept",
            f"ip daddr {VENDORS} tcp dport 443 accept",
            "goto blocked",
        ),
        *_chain(
            "operator",
            "type filter hook output priority 0; policy accept;",
            # An elastic address that nothing answers at: time-out, not "no route to host".
            f'oifname "{BRIDGE}" ip daddr {INTERNET} goto blocked',
        ),
        *_chain(
            "ingress",
            "type filter hook postrouting priority 150; policy accept;",
            f"oifname != {lab} accept",
            *answers,
            # From outside a VPC its private addresses do not exist, for the operator neither.
            f"ct original ip saddr {INTERNET} ct original ip daddr != {INTERNET} goto blocked",
            *_dispatch("oifname", "ingress", network),
            "goto blocked",
        ),
    ]


def _interface_chains(interface: Interface, network: Network) -> list[str]:
    reachable = f"{{ {interface.vpc}, {INTERNET} }}" if interface.public else interface.vpc
    return [
        *_chain(
            f"egress_{interface.key}",
            f"ip daddr != {reachable} goto blocked",
            *_rules(interface, network, egress=True),
        ),
        *_chain(
            f"ingress_{interface.key}",
            *(line for p in network.preserving if p.interface == interface for line in _loopbacks(p, network)),
            *_rules(interface, network, egress=False),
        ),
    ]


def _loopbacks(preserving: Preserving, network: Network) -> list[str]:
    """A target that calls itself through the load balancer gets no answer."""
    public = {i.address: i.public for i in network.interfaces if i.public}
    return [
        f"tcp dport {port} ip saddr {_verdicts({*targets, *(public[t] for t in targets if t in public)})} drop"
        for port, targets in preserving.targets
        if targets
    ]


def _rules(interface: Interface, network: Network, *, egress: bool) -> list[str]:
    if interface.groups is None:
        return ["accept"]
    rules = [r for r in network.rules if r.group in interface.groups and r.egress == egress]
    return [text for rule in rules for text in _rule(rule, network)]


def _rule(rule: Rule, network: Network) -> list[str]:
    field = "ip daddr" if rule.egress else "ip saddr"
    if rule.peer.startswith("sg-"):
        members = {field: network.members(rule.peer)}
        if not rule.egress:
            # What comes through a load balancer is its traffic, whoever is its client (AWS, security groups of NLBs).
            members["ct original ip saddr"] = network.aliases_of_members(rule.peer)
        peers = [f"{seen} {{ {', '.join(addresses)} }}" for seen, addresses in members.items() if addresses]
    else:
        peers = [f"{field} {rule.peer}"]
    return [" ".join(filter(None, (peer, _service(rule), "accept", f'comment "{rule.id}"'))) for peer in peers]


def _service(rule: Rule) -> str:
    if rule.protocol == "-1":
        return ""
    if rule.protocol == "icmp":
        kind = "" if rule.first_port in (None, -1) else f" icmp type {rule.first_port}"
        code = "" if not kind or rule.last_port in (None, -1) else f" icmp code {rule.last_port}"
        return f"ip protocol icmp{kind}{code}"
    if rule.protocol in ("tcp", "udp"):
        return f"{rule.protocol} dport {rule.first_port}-{rule.last_port}"
    return f"ip protocol {rule.protocol}"


def _chain(name: str, *lines: str) -> list[str]:
    return [f"chain {name} {{", *(f"  {line}" for line in lines), "}"]


def _set(name: str, kind_of_element: str, elements: Iterable[str], *, kind: str = "set") -> str:
    return f"{kind} {name} {{ {kind_of_element};{_elements(elements)} }}"


def _elements(elements: Iterable[str]) -> str:
    joined = ", ".join(sorted(set(elements)))
    return f" elements = {{ {joined} }};" if joined else ""


def _dispatch(field: str, chain: str, network: Network) -> list[str]:
    verdicts = _verdicts(f'"{i.device}" : jump {chain}_{i.key}' for i in network.interfaces)
    return [f"{field} vmap {verdicts}"] if verdicts else []


def _verdicts(elements: Iterable[str]) -> str:
    joined = ", ".join(sorted(set(elements)))
    return f"{{ {joined} }}" if joined else ""


class Host:
    """The host's side of the network, brought to what is wanted; only changes touch the kernel."""

    def __init__(self) -> None:
        self._loaded = ""
        self._addresses: list[str] = []

    def apply(self, network: Network) -> None:
        """Bring bridge, addresses and packet filter to `network`. Raises LabError when the kernel refuses."""
        self._apply_addresses(network.own_addresses())
        rules = render(network)
        if rules != self._loaded:
            call("nft", "-f", "-", input=rules)
            self._loaded = rules

    def _apply_addresses(self, addresses: list[str]) -> None:
        if addresses == self._addresses:
            return
        # The kernel's dummy device need not be built in; a bridge without ports does the same.
        if not (SYSCTL / "ipv4/conf" / BRIDGE).exists():
            call("ip", "link", "add", BRIDGE, "type", "bridge")
        batch = [f"link set {BRIDGE} up"]
        batch += [f"address replace {address}/32 dev {BRIDGE}" for address in addresses]
        batch += [f"address delete {a}/32 dev {BRIDGE}" for a in self._addresses if a not in addresses]
        batch += [f"route replace {INTERNET} dev {BRIDGE} src {OPERATOR}"]
        _ip(batch)
        self._addresses = addresses


def plug_in(interface: Interface, namespace: Path) -> None:
    """Give the network namespace (a file like /proc/PID/ns/net) its eth0. Raises LabError.

    An old end of the pair on the host is taken away first: its other end lies in a namespace that is gone.
    """
    call("ip", "link", "delete", interface.device, check=False)
    peer = f"name eth0 address {interface.mac} netns {_netns_argument(namespace)}"
    _ip([f"link add {interface.device} type veth peer {peer}"])
    # Forwarding is per incoming device in IPv4: the host's own ip_forward stays as it is. Proxy ARP answers for
    # the subnet's other addresses, so that the packets between them come to the host.
    settings = {
        "ipv4/conf": {"forwarding": 1, "proxy_arp": 1, "send_redirects": 0, "rp_filter": 0},
        "ipv4/neigh": {"proxy_delay": 0},
        "ipv6/conf": {"disable_ipv6": 1},
    }
    for group, values in settings.items():
        for name, value in values.items():
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
                (SYSCTL / group / interface.device / name).write_text(f"{value}\n")
    _ip(
        [
            f"link set {interface.device} up",
            f"route replace {interface.address}/32 dev {interface.device} src {OPERATOR}",
        ]
    )
    length = ipaddress.IPv4Network(interface.subnet).prefixlen
    _ip(
        [
            "link set lo up",
            f"address add {interface.address}/{length} dev eth0",
            "link set eth0 up",
            f"route add default via {interface.router}",
        ],
        namespace,
    )


def preserve(preserving: Preserving, namespace: Path) -> None:
    """Have the load balancer's namespace and the host lead packets in clients' names there and back. Idempotent.

    Raises LabError. On the host it is a route of the load balancer's own device, which goes away with it.
    """
    interface = preserving.interface
    _ip([f"route replace {preserving.aliases} via {interface.address} dev {interface.device} onlink"])
    clients = _verdicts(f"{client} : {alias}" for client, alias in preserving.aliases_of().items())
    chain = _chain(
        "preserve",
        "type nat hook postrouting priority srcnat;",
        f"ip saddr != {interface.address} snat ip prefix to ip saddr map {clients}",
    )
    filters = [f"table ip {TABLE}", f"delete table ip {TABLE}", f"table ip {TABLE} {{", *chain, "}", ""]
    enter = ("nsenter", f"--net={namespace}")
    call(*enter, "nft", "-f", "-", input="\n".join(filters))
    # Whatever arrives is for the load balancer, also what is addressed to a client.
    call(*enter, "ip", "rule", "delete", "iif", "eth0", "table", str(ANSWERS_TABLE), check=False)
    _ip(
        [f"rule add iif eth0 table {ANSWERS_TABLE}", f"route replace local default dev lo table {ANSWERS_TABLE}"],
        namespace,
    )


def _ip(lines: list[str], namespace: Path | None = None) -> None:
    enter = ["nsenter", f"--net={namespace}"] if namespace else []
    call(*enter, "ip", "-batch", "-", input="\n".join([*lines, ""]))


def _netns_argument(namespace: Path) -> str:
    process = re.fullmatch(r"/proc/(\d+)/ns/net", str(namespace))
    return process[1] if process else namespace.name


def rejected() -> list[dict[str, str | int]]:
    """The connections dropped in the last ten minutes or since the last change of the rules."""
    listing = call("nft", "--json", "list", "set", "ip", TABLE, "rejected", check=False)
    if not listing:
        return []
    found = next(item["set"] for item in json.loads(listing)["nftables"] if "set" in item)
    keys = [element["elem"]["val"]["concat"] for element in found.get("elem", [])]
    return [dict(zip(("from", "to", "protocol", "port"), key, strict=True)) for key in keys]


def foreign_filters() -> list[str]:
    """Other packet filters of this host that drop what they do not know, as Docker's own `FORWARD` chain does.

    Only those that nft shows: what the older iptables backend holds cannot be seen here.
    """
    listing = call("nft", "--json", "list", "chains", check=False)
    chains = [item["chain"] for item in json.loads(listing or '{"nftables": []}')["nftables"] if "chain" in item]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain["table"] != TABLE and chain.get("hook") == "forward" and chain.get("policy") == "drop"
    ]


def remove() -> None:
    """Take away everything of this module that is in the kernel, whoever left it there. Idempotent."""
    call("nft", "delete", "table", "ip", TABLE, check=False)
    for namespace in sorted(NAMESPACES.glob(f"{NAMESPACE_PREFIX}*")):
        call("ip", "netns", "delete", namespace.name)
    for link in json.loads(call("ip", "-json", "link", "show", "type", "veth", check=False) or "[]"):
        if link.get("ifname", "").startswith(DEVICE_PREFIX):
            call("ip", "link", "delete", link["ifname"], check=False)
    call("ip", "link", "delete", BRIDGE, check=False)
