"""The packet filter: one nftables table that treats every packet between two interfaces as AWS does.

What AWS does, and which chains do it here:

- egress rules of the sender see the destination as the sender wrote it      → `egress`, before translation
- the internet gateway translates elastic and private addresses one to one   → `gateway_*`
- ingress rules of the receiver see the source after translation, so traffic
  that came through the gateway has a public source, which no reference to a
  security group matches                                                     → `ingress`, after translation
- a packet that no rule allows is dropped without a response                 → `blocked`
- a load balancer that preserves client addresses sends with its client's address: the receiver's rules see the
  client, and a reference to the load balancer's group still matches          → `Preserving`

Security groups are stateful: packets of an allowed connection pass.
"""

import json
from collections.abc import Iterable

from lab.cloud.network import (
    BRIDGE,
    DEVICE_PREFIX,
    ELSEWHERE,
    INTERNET,
    LINK_LOCAL_RESOLVER,
    METADATA,
    METADATA_PORT,
    OPERATOR,
    TABLE,
    VENDORS,
    Interface,
    Network,
    Preserving,
    Rule,
)
from lab.shell import call


def render(network: Network) -> str:
    """Return the packet filter as a script for `nft -f -` that replaces the whole table at once."""
    chains = [line for interface in network.interfaces for line in _interface_chains(interface, network)]
    return _table([*_sets(network), *_base_chains(network), *chains])


def render_preserving(preserving: Preserving) -> str:
    """Return the packet filter of the load balancer's namespace, which sends to targets with the client's address."""
    clients = _verdicts(f"{client} : {alias}" for client, alias in preserving.aliases_of().items())
    chain = _chain(
        "preserve",
        "type nat hook postrouting priority srcnat;",
        f"ip saddr != {preserving.interface.address} snat ip prefix to ip saddr map {clients}",
    )
    return _table(chain)


def _table(lines: Iterable[str]) -> str:
    return "\n".join([f"table ip {TABLE}", f"delete table ip {TABLE}", f"table ip {TABLE} {{", *lines, "}", ""])


def _sets(network: Network) -> list[str]:
    public = {i.address: i.public for i in network.interfaces if i.public}
    senders = [f'"{i.device}" . {i.address}' for i in network.interfaces]
    return [
        # What VPC flow logs would report as rejected; `lab status` prints it.
        (
            "set rejected { type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic, timeout;"
            " timeout 10m; size 1024; }"
        ),
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
            f"ip daddr {ELSEWHERE} meta l4proto tcp accept",
            "goto blocked",
        ),
        *_chain(
            "operator",
            "type filter hook output priority 0; policy accept;",
            # Connections to an unused elastic address time out; they do not fail with "no route to host".
            f'oifname "{BRIDGE}" ip daddr {INTERNET} goto blocked',
        ),
        *_chain(
            "ingress",
            "type filter hook postrouting priority 150; policy accept;",
            f"oifname != {lab} accept",
            *answers,
            # A VPC's private addresses cannot be reached from outside, not even by the operator.
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
    """Return rules that drop the connections of a target to itself through the load balancer."""
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
            # Traffic through a load balancer counts as its own, from any client (AWS, security groups of NLBs).
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


def rejected() -> list[dict[str, str | int]]:
    """Return the connections dropped in the last ten minutes or since the last change of the rules."""
    listing = call("nft", "--json", "list", "set", "ip", TABLE, "rejected", check=False)
    if not listing:
        return []
    found = next(item["set"] for item in json.loads(listing)["nftables"] if "set" in item)
    keys = [element["elem"]["val"]["concat"] for element in found.get("elem", [])]
    return [dict(zip(("from", "to", "protocol", "port"), key, strict=True)) for key in keys]


def foreign_filters() -> list[str]:
    """Return other packet filters of this host that drop unknown packets, such as Docker's own `FORWARD` chain.

    Only those that nft lists: rules of the older iptables backend are not visible to it.
    """
    listing = call("nft", "--json", "list", "chains", check=False)
    chains = [item["chain"] for item in json.loads(listing or '{"nftables": []}')["nftables"] if "chain" in item]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain["table"] != TABLE and chain.get("hook") == "forward" and chain.get("policy") == "drop"
    ]
