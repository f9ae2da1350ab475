"""The network on this host: one bridge, one veth pair per network interface, and the packet filter in the kernel.

Only sysctls of the lab's own interfaces are set (forwarding, proxy ARP), which disappear with the interfaces.
"""

import contextlib
import ipaddress
import json
import re
from pathlib import Path

from lab.cloud import packet_filter
from lab.cloud.network import (
    BRIDGE,
    DEVICE_PREFIX,
    INTERNET,
    NAMESPACE_PREFIX,
    NAMESPACES,
    OPERATOR,
    TABLE,
    Interface,
    Network,
    Preserving,
)
from lab.shell import call

SYSCTL = Path("/proc/sys/net")
ANSWERS_TABLE = 100  # a routing table in a load balancer's namespace


class Host:
    """The host's side of the network. Only changes are applied to the kernel."""

    def __init__(self) -> None:
        self._loaded = ""
        self._addresses: list[str] = []

    def apply(self, network: Network) -> None:
        """Apply `network` to bridge, addresses and packet filter. Raises LabError if the kernel rejects it."""
        self._apply_addresses(network.own_addresses())
        rules = packet_filter.render(network)
        if rules != self._loaded:
            call("nft", "-f", "-", stdin=rules)
            self._loaded = rules

    def _apply_addresses(self, addresses: list[str]) -> None:
        if addresses == self._addresses:
            return
        # A bridge without ports replaces the dummy device, which not every kernel has.
        if not (SYSCTL / "ipv4/conf" / BRIDGE).exists():
            call("ip", "link", "add", BRIDGE, "type", "bridge")
        batch = [f"link set {BRIDGE} up"]
        batch += [f"address replace {address}/32 dev {BRIDGE}" for address in addresses]
        batch += [f"address delete {a}/32 dev {BRIDGE}" for a in self._addresses if a not in addresses]
        batch += [f"route replace {INTERNET} dev {BRIDGE} src {OPERATOR}"]
        _ip(batch)
        self._addresses = addresses


def plug_in(interface: Interface, namespace: Path) -> None:
    """Create eth0 in the network namespace (a file such as /proc/PID/ns/net). Raises LabError.

    An old end of the pair on the host is deleted first: its other end is in a namespace that no longer exists.
    """
    call("ip", "link", "delete", interface.device, check=False)
    peer = f"name eth0 address {interface.mac} netns {_netns_argument(namespace)}"
    _ip([f"link add {interface.device} type veth peer {peer}"])
    # IPv4 forwarding is set per incoming device; the host's own ip_forward is not changed. Proxy ARP answers for
    # the subnet's other addresses, so that the packets between them are sent to the host.
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
    """Route packets with clients' addresses between the load balancer's namespace and the host. Idempotent.

    Raises LabError. The host's route is on the load balancer's own device and disappears with it.
    """
    interface = preserving.interface
    _ip([f"route replace {preserving.aliases} via {interface.address} dev {interface.device} onlink"])
    enter = ("nsenter", f"--net={namespace}")
    call(*enter, "nft", "-f", "-", stdin=packet_filter.render_preserving(preserving))
    # Every packet that arrives is for the load balancer, even one addressed to a client.
    call(*enter, "ip", "rule", "delete", "iif", "eth0", "table", str(ANSWERS_TABLE), check=False)
    _ip(
        [f"rule add iif eth0 table {ANSWERS_TABLE}", f"route replace local default dev lo table {ANSWERS_TABLE}"],
        namespace,
    )


def _ip(lines: list[str], namespace: Path | None = None) -> None:
    enter = ["nsenter", f"--net={namespace}"] if namespace else []
    call(*enter, "ip", "-batch", "-", stdin="\n".join([*lines, ""]))


def _netns_argument(namespace: Path) -> str:
    process = re.fullmatch(r"/proc/(\d+)/ns/net", str(namespace))
    return process[1] if process else namespace.name


def remove() -> None:
    """Remove everything that this module creates in the kernel, also what another process has left. Idempotent."""
    call("nft", "delete", "table", "ip", TABLE, check=False)
    for namespace in sorted(NAMESPACES.glob(f"{NAMESPACE_PREFIX}*")):
        call("ip", "netns", "delete", namespace.name)
    for link in json.loads(call("ip", "-json", "link", "show", "type", "veth", check=False) or "[]"):
        if link.get("ifname", "").startswith(DEVICE_PREFIX):
            call("ip", "link", "delete", link["ifname"], check=False)
    call("ip", "link", "delete", BRIDGE, check=False)
