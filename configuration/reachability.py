"""Who reaches what, worked out from the table of flows: a connection passes only if the rules of both its ends let it.

It is about every pair of places, also those that have no flow: a rule that names a network may let in more than what it
was made for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv4Network

from configuration.flows import GROUPS, MACHINES, Direction, Peer, Place, Rule, TrafficSettings, flows, networks, rules
from settings import SmtpSettings
from validation.extra_egress import PROTOCOLS, ExtraEgress

JOB = "a job's container"
"""Docker lets it out in the name of the runner's machine, but not to that machine itself, nor to its metadata."""

NOTHING = "nothing"

NAMES = {
    Place.INTERNET: "the internet",
    Place.CLIENTS: "clients' networks",
    Place.ADMINISTRATORS: "administrators' networks",
    Place.LOAD_BALANCER: "the load balancer",
    Place.SERVER: "the server",
    Place.REGISTRY: "the registry",
    Place.RUNNER: "the runner's machine",
}
"""Who connects. Whoever else is outside is the internet."""

METADATA = "its metadata service"
METADATA_OF_A_MACHINE = "80: with a session token (IMDSv2)"


@dataclass(frozen=True, kw_only=True)
class Example:
    """As much of the settings of a stack as decides what is open."""

    web_port: int
    registry_port: int = 5000
    smtp: SmtpSettings | None = None
    client_cidrs: tuple[str, ...]
    admin_cidrs: tuple[str, ...]
    extra_egress: tuple[ExtraEgress, ...] = ()


class _Way(Enum):
    PRIVATE = auto()
    """By private addresses, inside the VPC."""

    PUBLIC = auto()
    """By elastic addresses, through the internet gateway."""


def ports(settings: TrafficSettings, protocol: str = "tcp") -> tuple[int, ...]:
    """Every port that is open anywhere."""
    return tuple(sorted({flow.port for flow in flows(settings) if flow.protocol == protocol}))


def reached(settings: TrafficSettings, source: Place, target: Place, protocol: str = "tcp") -> tuple[int, ...]:
    """The ports of `target`, at any of its addresses (of EXTRA_NETWORKS: at some), to which `source` can open a
    connection.
    """
    made = [rule for flow in flows(settings) for rule in rules(flow)]
    ways = [_Way.PUBLIC] if {source, target} - set(GROUPS) else list(_Way)

    def passes(port: int, way: _Way) -> bool:
        at = [rule for rule in made if (rule.port, rule.protocol) == (port, protocol)]
        sent = source not in GROUPS or any(
            rule.group is source and rule.direction is Direction.EGRESS and _is_about(rule, target, way, settings)
            for rule in at
        )
        admitted = target not in GROUPS or any(
            rule.group is target and rule.direction is Direction.INGRESS and _is_about(rule, source, way, settings)
            for rule in at
        )
        return sent and admitted

    return tuple(port for port in ports(settings, protocol) if any(passes(port, way) for way in ways))


def _is_about(rule: Rule, place: Place, way: _Way, settings: TrafficSettings) -> bool:
    """Whether the peer of the rule matches the place, when it is met by this way."""
    if rule.peer is Peer.NETWORKS:
        if rule.other is Place.EXTRA_NETWORKS is place:
            return True
        ranges = [IPv4Network(text) for text in rule.ranges(settings)]
        places = [IPv4Network(text) for text in networks(settings).get(place) or ("0.0.0.0/0",)]
        return all(any(inner.subnet_of(outer) for outer in ranges) for inner in places)
    return rule.other is place and way is (_Way.PRIVATE if rule.peer is Peer.GROUP else _Way.PUBLIC)


def table(settings: TrafficSettings) -> str:
    """The matrix in Markdown: a row for whoever connects, a column for where to, in a cell the ports and why."""
    targets = (*GROUPS, Place.INTERNET, *([Place.EXTRA_NETWORKS] if settings.extra_egress else []))
    names = {**NAMES, Place.EXTRA_NETWORKS: "networks of extraEgress"}
    head = ["from \\ to", *(names[target] for target in targets), METADATA]
    lines = [_row(head), _row(["---"] * len(head))]
    for source, name in NAMES.items():
        cells = [_cell(settings, source, target) for target in targets]
        lines.append(_row([f"**{name}**", *cells, METADATA_OF_A_MACHINE if source in MACHINES else ""]))
    of_the_machine = [_cell(settings, Place.RUNNER, target) or NOTHING for target in targets]
    lines.append(_row([f"**{JOB}**", *of_the_machine, NOTHING]))
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(settings: TrafficSettings, source: Place, target: Place) -> str:
    if source is target or not {source, target} & set(GROUPS):
        return ""
    return "<br>".join(_words(settings, source, target)) or NOTHING


def _words(settings: TrafficSettings, source: Place, target: Place) -> Iterator[str]:
    for protocol in PROTOCOLS:
        made = [
            flow for flow in flows(settings) if (flow.source, flow.target, flow.protocol) == (source, target, protocol)
        ]
        for port in reached(settings, source, target, protocol):
            shown = f"{port}" if protocol == "tcp" else f"{port} ({protocol})"
            for flow in [flow for flow in made if flow.port == port]:
                where = f" ({', '.join(flow.networks)})" if flow.networks else ""
                yield f"{shown}: {flow.why}{where}"
            if port not in [flow.port for flow in made]:
                yield f"{shown}: by a rule for others"
