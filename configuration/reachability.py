"""Computes which places can reach each other from the table of flows: both ends' rules must allow a connection.

It covers every pair of places, including those without a flow, because a rule for a network may allow more than it was
created for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv4Network

from configuration.flows import GROUPS, MACHINES, Direction, Peer, Place, Rule, TrafficSettings, flows, networks, rules
from settings import SmtpSettings
from validation.extra_egress import PROTOCOLS, ExtraEgress

JOB = "a job's container"
"""It connects from the address of the runner's machine, but cannot reach that machine or its metadata service."""

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
"""Sources of connections. The internet is everything that is not listed separately."""

METADATA = "its metadata service"
METADATA_OF_A_MACHINE = "80: with a session token (IMDSv2)"
METADATA_OF_ROOT = "80: root only, with a session token (IMDSv2)"
WITH_ROLE = (Place.SERVER, Place.REGISTRY)
"""The machines with data, whose metadata service has the credentials of the role for backups."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """Example settings: the part of a stack's settings that determines which traffic is allowed."""

    web_port: int
    registry_port: int = 5000
    smtp: SmtpSettings | None = None
    client_cidrs: tuple[str, ...]
    admin_cidrs: tuple[str, ...]
    extra_egress: tuple[ExtraEgress, ...] = ()


class _Path(Enum):
    PRIVATE = auto()
    """With private addresses, inside the VPC."""

    PUBLIC = auto()
    """With Elastic IP addresses, through the internet gateway."""


def ports(settings: TrafficSettings, protocol: str = "tcp") -> tuple[int, ...]:
    """All ports that any flow uses."""
    return tuple(sorted({flow.port for flow in flows(settings) if flow.protocol == protocol}))


def reached(settings: TrafficSettings, source: Place, target: Place, protocol: str = "tcp") -> tuple[int, ...]:
    """The ports that `source` can connect to at any address of `target` (for EXTRA_NETWORKS: at some of them)."""
    all_rules = [rule for flow in flows(settings) for rule in rules(flow)]
    paths = [_Path.PUBLIC] if {source, target} - set(GROUPS) else list(_Path)

    def passes(port: int, path: _Path) -> bool:
        candidates = [rule for rule in all_rules if (rule.port, rule.protocol) == (port, protocol)]
        sent = source not in GROUPS or any(
            rule.group is source and rule.direction is Direction.EGRESS and _matches(rule, target, path, settings)
            for rule in candidates
        )
        admitted = target not in GROUPS or any(
            rule.group is target and rule.direction is Direction.INGRESS and _matches(rule, source, path, settings)
            for rule in candidates
        )
        return sent and admitted

    return tuple(port for port in ports(settings, protocol) if any(passes(port, path) for path in paths))


def _matches(rule: Rule, place: Place, path: _Path, settings: TrafficSettings) -> bool:
    """Whether the rule's peer matches the place on this path."""
    if rule.peer is Peer.NETWORKS:
        if rule.other is Place.EXTRA_NETWORKS is place:
            return True
        ranges = [IPv4Network(text) for text in rule.ranges(settings)]
        places = [IPv4Network(text) for text in networks(settings).get(place) or ("0.0.0.0/0",)]
        return all(any(inner.subnet_of(outer) for outer in ranges) for inner in places)
    return rule.other is place and path is (_Path.PRIVATE if rule.peer is Peer.GROUP else _Path.PUBLIC)


def table(settings: TrafficSettings) -> str:
    """The matrix in Markdown: a row for each source, a column for each target; cells contain the ports and reasons."""
    targets = (*GROUPS, Place.INTERNET, *([Place.EXTRA_NETWORKS] if settings.extra_egress else []))
    names = {**NAMES, Place.EXTRA_NETWORKS: "networks of extraEgress"}
    head = ["from \\ to", *(names[target] for target in targets), METADATA]
    lines = [_row(head), _row(["---"] * len(head))]
    for source, name in NAMES.items():
        cells = [_cell(settings, source, target) for target in targets]
        of_metadata = METADATA_OF_ROOT if source in WITH_ROLE else METADATA_OF_A_MACHINE if source in MACHINES else ""
        lines.append(_row([f"**{name}**", *cells, of_metadata]))
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
        own = [
            flow for flow in flows(settings) if (flow.source, flow.target, flow.protocol) == (source, target, protocol)
        ]
        for port in reached(settings, source, target, protocol):
            shown = f"{port}" if protocol == "tcp" else f"{port} ({protocol})"
            for flow in [flow for flow in own if flow.port == port]:
                where = f" ({', '.join(flow.networks)})" if flow.networks else ""
                yield f"{shown}: {flow.why}{where}"
            if port not in [flow.port for flow in own]:
                yield f"{shown}: through a rule for another place"
