"""All network traffic of the stack, in one table that security groups, documentation and tests are generated from."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from settings import WORLD, SmtpSettings
from validation.extra_egress import ExtraEgress

GIT_SSH_PORT = 22
"""The load balancer's port for git over SSH."""

GITLAB_SSHD_PORT = 2222
"""The server's port of gitlab-sshd; 22 there is the administrators' OpenSSH."""

GITLAB_HTTP_PORT = 80
"""The server's port of GitLab's nginx, whether or not TLS terminates at the load balancer."""


RULE_LIMIT = 60
"""Rules per security group and direction, unless AWS has granted a higher quota (Amazon VPC quotas)."""


class TrafficSettings(Protocol):
    """The settings that determine which traffic is allowed; `Settings` has all of them."""

    @property
    def web_port(self) -> int:
        """The load balancer's port for GitLab's web interface."""

    @property
    def registry_port(self) -> int:
        """The registry's port, on the load balancer and on its machine."""

    @property
    def smtp(self) -> SmtpSettings | None:
        """The SMTP server that GitLab sends mail through."""

    @property
    def client_cidrs(self) -> tuple[str, ...]:
        """IPv4 networks that may use GitLab and the registry."""

    @property
    def admin_cidrs(self) -> tuple[str, ...]:
        """IPv4 networks that may reach the machines over SSH."""

    @property
    def extra_egress(self) -> tuple[ExtraEgress, ...]:
        """Egress rules of the machines that the user has added."""


class Place(StrEnum):
    """Where a flow starts or ends."""

    CLIENTS = "clients"
    ADMINISTRATORS = "administrators"
    INTERNET = "internet"
    EXTRA_NETWORKS = "extra-networks"
    LOAD_BALANCER = "balancer"
    SERVER = "server"
    REGISTRY = "registry"
    RUNNER = "runner"


MACHINES = (Place.SERVER, Place.REGISTRY, Place.RUNNER)
GROUPS = (Place.LOAD_BALANCER, *MACHINES)
"""Places that have a security group; the others are address ranges."""


@dataclass(frozen=True)
class Flow:
    """Connections from `source` to `port` of `target`, and why they are needed; `networks` are the address ranges of
    the target if it is EXTRA_NETWORKS.
    """

    source: Place
    target: Place
    port: int
    why: str
    protocol: str = "tcp"
    networks: tuple[str, ...] = ()


class Peer(StrEnum):
    """How a rule refers to its peer."""

    GROUP = "group"
    """By its security group, which matches only private addresses inside the VPC."""

    PUBLIC_ADDRESS = "public address"
    """By its Elastic IP address, the source address of a connection through the internet gateway."""

    NETWORKS = "networks"
    """By address ranges: those of the settings, or the whole internet."""


class Direction(StrEnum):
    """The direction of a rule, from the perspective of its security group."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True)
class Rule:
    """One security group rule: `group` accepts (ingress) or opens (egress) connections to `port`. `other` is its peer;
    `networks` are the address ranges of the peer if it is EXTRA_NETWORKS.
    """

    group: Place
    direction: Direction
    other: Place
    peer: Peer
    port: int
    why: str
    protocol: str = "tcp"
    networks: tuple[str, ...] = ()

    def ranges(self, settings: TrafficSettings) -> tuple[str, ...]:
        """The address ranges of a peer that is referred to by NETWORKS. AWS needs one rule for each."""
        return self.networks or networks(settings)[self.other]


def flows(settings: TrafficSettings) -> tuple[Flow, ...]:
    """All traffic of the stack. Anything else is blocked."""
    return tuple(_flows(settings))


def _flows(settings: TrafficSettings) -> Iterator[Flow]:
    web, registry = settings.web_port, settings.registry_port

    yield Flow(Place.CLIENTS, Place.LOAD_BALANCER, web, "web and git over HTTP")
    yield Flow(Place.CLIENTS, Place.LOAD_BALANCER, GIT_SSH_PORT, "git over SSH")
    yield Flow(Place.CLIENTS, Place.LOAD_BALANCER, registry, "docker push and pull")

    yield Flow(Place.RUNNER, Place.LOAD_BALANCER, web, "jobs, clones and registry tokens by external_url")
    yield Flow(Place.RUNNER, Place.LOAD_BALANCER, GIT_SSH_PORT, "git over SSH from jobs")
    yield Flow(Place.RUNNER, Place.LOAD_BALANCER, registry, "images of jobs")
    yield Flow(Place.SERVER, Place.LOAD_BALANCER, web, "webhooks to GitLab itself")

    yield Flow(Place.LOAD_BALANCER, Place.SERVER, GITLAB_HTTP_PORT, "web requests and health checks")
    yield Flow(Place.LOAD_BALANCER, Place.SERVER, GITLAB_SSHD_PORT, "git over SSH and health checks")
    yield Flow(Place.LOAD_BALANCER, Place.REGISTRY, registry, "registry requests and health checks")
    yield Flow(Place.SERVER, Place.REGISTRY, registry, "GitLab lists and deletes image tags")

    for machine in MACHINES:
        yield Flow(Place.ADMINISTRATORS, machine, 22, "administration and configuration by SSH")
        yield Flow(machine, Place.INTERNET, 443, "packages and images")
    yield Flow(Place.RUNNER, Place.INTERNET, 80, "plain HTTP downloads of jobs")
    if settings.smtp and settings.smtp.port != 443:  # of packages and images
        yield Flow(Place.SERVER, Place.INTERNET, settings.smtp.port, "outgoing mail")
    for entry in settings.extra_egress:
        for port in entry.ports:
            yield Flow(Place(entry.place), Place.EXTRA_NETWORKS, port, entry.why, entry.protocol, entry.networks)


def rules(flow: Flow) -> tuple[Rule, ...]:
    """The rules that allow a flow, one for each end that has a security group.

    A connection from a machine to the load balancer's public address passes the internet gateway, so both ends see
    public addresses, and a reference to a group would never match (kubernetes-sigs/aws-load-balancer-controller issue
    3394). Traffic that the load balancer forwards matches a reference to its group, even if it preserves the client's
    address (AWS, Network Load Balancers: security groups).
    """
    if Place.LOAD_BALANCER is flow.target and flow.source in MACHINES:
        source_peer = target_peer = Peer.PUBLIC_ADDRESS
    else:
        source_peer = Peer.GROUP if flow.source in GROUPS else Peer.NETWORKS
        target_peer = Peer.GROUP if flow.target in GROUPS else Peer.NETWORKS
    fields = flow.port, flow.why, flow.protocol, flow.networks
    allowing = []
    if flow.target in GROUPS:
        allowing.append(Rule(flow.target, Direction.INGRESS, flow.source, source_peer, *fields))
    if flow.source in GROUPS:
        allowing.append(Rule(flow.source, Direction.EGRESS, flow.target, target_peer, *fields))
    return tuple(allowing)


def networks(settings: TrafficSettings) -> Mapping[Place, tuple[str, ...]]:
    """The address ranges of the places without a security group. AWS needs one rule for each range."""
    extra = {network: None for entry in settings.extra_egress for network in entry.networks}
    return {
        Place.CLIENTS: settings.client_cidrs,
        Place.ADMINISTRATORS: settings.admin_cidrs,
        Place.INTERNET: (str(WORLD),),
        Place.EXTRA_NETWORKS: tuple(extra),
    }


def extra_egress_problems(settings: TrafficSettings) -> list[str]:
    """Entries of `extraEgress` that are already open: AWS rejects duplicate rules of a security group."""
    return [
        f"extraEgress: {entry.protocol} {port} from the {entry.place} to {WORLD} is already open ({flow.why}). Remove "
        "this entry."
        for entry in settings.extra_egress
        for port in entry.ports
        if str(WORLD) in entry.networks
        for flow in flows(settings)
        if (flow.source, flow.target) == (entry.place, Place.INTERNET)
        and (flow.port, flow.protocol) == (port, entry.protocol)
    ]


def rule_limit_problems(settings: TrafficSettings) -> list[str]:
    """Settings that need more rules than a security group can have, each with its key, count, limit and remedy."""
    by_group: dict[tuple[Place, Direction], list[Rule]] = defaultdict(list)
    for flow in flows(settings):
        for rule in rules(flow):
            by_group[rule.group, rule.direction].append(rule)
    problems: dict[str, str] = {}
    for (group, direction), of_group in by_group.items():
        counts: dict[Place, int] = defaultdict(int)
        for rule in of_group:
            counts[rule.other] += len(rule.ranges(settings)) if rule.peer is Peer.NETWORKS else 1
        count, others = sum(counts.values()), [rule.other for rule in of_group]
        if count <= RULE_LIMIT:
            continue
        for key, place in (("clientCidrs", Place.CLIENTS), ("adminCidrs", Place.ADMINISTRATORS)):
            if place in others:
                named, each = len(networks(settings)[place]), others.count(place)
                most = (RULE_LIMIT - count + named * each) // each
                problems.setdefault(
                    key,
                    f"{key}: {named} networks create {count} {direction} rules in the {group}'s security group, but "
                    f"AWS allows {RULE_LIMIT}. Merge adjacent networks, such as 198.51.100.0/25 and 198.51.100.128/25 "
                    f"into 198.51.100.0/24, until at most {most} are left.",
                )
        if Place.EXTRA_NETWORKS in others:
            extra = counts[Place.EXTRA_NETWORKS]
            problems[f"extraEgress {group}"] = (
                f"extraEgress: {extra} pairs of port and network, one rule each, create {count} {direction} rules in "
                f"the {group}'s security group, but AWS allows {RULE_LIMIT}. Merge adjacent networks or list fewer "
                f"ports until at most {RULE_LIMIT - count + extra} pairs are left."
            )
    return list(problems.values())
