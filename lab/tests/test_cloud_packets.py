"""The network with real packets: which connections work, and which source address the target sees."""

import contextlib
import dataclasses
import itertools
import json
import subprocess
import sys

import pytest

from configuration import reachability
from configuration.flows import GROUPS, Direction, Peer, Place, flows, rules
from lab.cloud.network import ELSEWHERE, OPERATOR, Interface, Network, Preserving, Rule
from lab.cloud.packet_filter import render
from lab.workspace import ROOT

NAMESPACES = ["unshare", "--net", "--mount"]
pytestmark = pytest.mark.needs("ip", "nft", "unshare", root=True)


def interface(number, group, subnet="10.42.0", public=None, vpc="10.42.0.0/16"):
    return Interface(
        f"eni-0000000000000000{number}",
        f"{subnet}.{number}",
        f"{subnet}.0/24",
        vpc,
        f"02:00:00:00:00:{number:02}",
        (group,) if group else None,
        public,
        public is not None,
    )


FRONT = interface(7, "sg-front", public="198.51.100.16")
SERVER = interface(4, "sg-server", public="198.51.100.17")
RUNNER = interface(5, "sg-runner", public="198.51.100.18")
AWAY = interface(6, "sg-runner", subnet="10.42.1", public="198.51.100.19")
HIDDEN = interface(8, "sg-runner")
OTHER_STACK = interface(9, "sg-other", subnet="10.43.0", public="198.51.100.20", vpc="10.43.0.0/16")
assert FRONT.elastic
assert SERVER.elastic
assert RUNNER.elastic


def rule(group, direction, peer):
    return Rule(f"sgr-{group}-{direction}-{peer}".replace("/", "-"), group, direction == "out", "tcp", peer, 80, 80)


@contextlib.contextmanager
def network(interfaces, *, ports=(80,), balancer=None):
    """Create a network; yields a function of rules and probes that returns the response to each probe (from an
    interface, or None for the operator, to an address and port).
    """
    made = {"interfaces": list(map(dataclasses.asdict, interfaces)), "ports": ports, "balancer": balancer}
    command = ["timeout", "300", *NAMESPACES, sys.executable, "-m", "lab.tests.packets"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        requests, responses = process.stdin, process.stdout
        assert requests
        assert responses
        print(json.dumps(made), file=requests, flush=True)

        def answers(probes, rules):
            asked = {
                "rules": list(map(dataclasses.asdict, rules)),
                "probes": [(source.id if source else None, address, port) for source, address, port in probes],
            }
            print(json.dumps(asked), file=requests, flush=True)
            answered = responses.readline()
            assert answered, "the network could not be created, or not with these rules: see standard error"
            return json.loads(answered)

        yield answers
        requests.close()
        assert process.wait() == 0, "see standard error"


@contextlib.contextmanager
def machines(balancer=None):
    """Create the network of the interfaces above; yields the same for probes of port 80."""
    with network((FRONT, SERVER, RUNNER, AWAY, HIDDEN, OTHER_STACK), balancer=balancer) as answers:
        yield lambda *probes, rules: answers([(source, address, 80) for source, address in probes], rules)


@pytest.fixture(scope="module")
def reach():
    """A function of probes and rules, with one network for all tests: each sets all rules."""
    with machines() as answers:
        yield answers


def test_the_network_is_made_without_moto_botocore_and_cryptography():
    """Each network is a separate process; importing these would take most of its time."""
    program = "import sys, lab.tests.packets; sys.exit(bool({'moto', 'botocore', 'cryptography'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


RUNNER_OUT = rule("sg-runner", "out", "0.0.0.0/0")


def test_a_machine_is_seen_by_its_public_address_at_a_public_one(reach):
    to_front = (RUNNER, FRONT.elastic)
    assert reach(to_front, rules=[RUNNER_OUT, rule("sg-front", "in", f"{RUNNER.elastic}/32")]) == [RUNNER.elastic]


INTO_FRONT = rule("sg-front", "in", "0.0.0.0/0")


@pytest.mark.parametrize(
    ("rules", "seen"),
    [
        ((RUNNER_OUT, rule("sg-front", "in", "sg-runner")), None),
        ((RUNNER_OUT, rule("sg-front", "in", f"{RUNNER.address}/32")), None),
        ((rule("sg-runner", "out", "sg-front"), INTO_FRONT), None),
        ((rule("sg-runner", "out", f"{FRONT.address}/32"), INTO_FRONT), None),
        ((rule("sg-runner", "out", f"{FRONT.elastic}/32"), INTO_FRONT), RUNNER.elastic),
    ],
    ids=["from a group", "from a private address", "to a group", "to a private address", "to the public address"],
)
def test_a_reference_to_a_group_does_not_match_a_public_address(reach, rules, seen):
    """Neither as the source of traffic through the gateway, nor as its destination."""
    assert reach((RUNNER, FRONT.elastic), rules=rules) == [seen]


def test_a_reference_to_a_group_matches_private_addresses(reach):
    rules = [rule("sg-runner", "out", "sg-server"), rule("sg-server", "in", "sg-runner")]
    private = [(RUNNER, SERVER.address), (AWAY, SERVER.address), (FRONT, SERVER.address)]
    assert reach(*private, rules=rules) == [RUNNER.address, AWAY.address, None]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_connection_needs_a_rule_at_either_end(reach, missing):
    rules = [rule("sg-front", "out", "sg-server"), rule("sg-server", "in", "sg-front")]
    to_server = (FRONT, SERVER.address)
    assert reach(to_server, rules=rules) == [FRONT.address]
    del rules[missing]
    assert reach(to_server, rules=rules) == [None]


def test_an_answer_needs_no_rule_and_the_other_direction_does(reach):
    rules = [rule("sg-front", "out", "sg-server"), rule("sg-server", "in", "sg-front")]
    assert reach((FRONT, SERVER.address), (SERVER, FRONT.address), rules=rules) == [FRONT.address, None]


def test_a_machine_without_a_public_address_has_no_way_out(reach):
    rules = [RUNNER_OUT, rule("sg-front", "in", "0.0.0.0/0")]
    assert reach((HIDDEN, FRONT.elastic), (HIDDEN, FRONT.address), rules=rules) == [None, HIDDEN.address]


def test_two_stacks_reach_each_other_by_public_addresses_alone(reach):
    """Each is a stranger on the internet to the other one: also a reference to a group is within one VPC."""
    rules = [rule("sg-server", "in", "0.0.0.0/0"), rule("sg-other", "out", "0.0.0.0/0")]
    probes = [(OTHER_STACK, SERVER.address), (OTHER_STACK, SERVER.elastic)]
    assert reach(*probes, rules=rules) == [None, OTHER_STACK.elastic]
    rules[0] = rule("sg-server", "in", "sg-other")
    assert reach(*probes, rules=rules) == [None, None]


def test_another_host_of_the_internet_sees_what_the_rules_of_the_sender_let_out(reach):
    probes = [(RUNNER, ELSEWHERE), (HIDDEN, ELSEWHERE), (SERVER, ELSEWHERE)]
    assert reach(*probes, rules=[RUNNER_OUT]) == [RUNNER.elastic, None, None]


# A load balancer, with its target group's attribute for client addresses

needs_haproxy = pytest.mark.needs("haproxy")
OPEN_FRONT = (rule("sg-front", "in", "0.0.0.0/0"), rule("sg-front", "out", "0.0.0.0/0"), RUNNER_OUT)
BY_GROUP = (*OPEN_FRONT, rule("sg-server", "in", "sg-front"))


def front(*, preserves, number=0):
    return {"interface": FRONT.id, "target": SERVER.id, "preserves": preserves, "number": number}


@pytest.fixture(scope="module")
def reach_preserved():
    """The same as `reach`, with a load balancer that preserves the clients' addresses."""
    with machines(front(preserves=True)) as answers:
        yield answers


@needs_haproxy
def test_without_preservation_a_target_sees_the_balancer():
    probes = [(None, FRONT.elastic), (RUNNER, FRONT.elastic), (RUNNER, FRONT.address)]
    with machines(front(preserves=False)) as reach:
        assert reach(*probes, rules=BY_GROUP) == [FRONT.address] * 3


@needs_haproxy
@pytest.mark.parametrize("number", [0, 5])
def test_with_preservation_a_target_sees_the_client_and_a_reference_to_the_balancers_group_matches(number):
    probes = [(None, FRONT.elastic), (RUNNER, FRONT.elastic), (AWAY, FRONT.address), (HIDDEN, FRONT.address)]
    seen = [OPERATOR, RUNNER.elastic, AWAY.address, HIDDEN.address]
    with machines(front(preserves=True, number=number)) as reach:
        assert reach(*probes, rules=BY_GROUP) == seen


@needs_haproxy
@pytest.mark.parametrize(
    ("peer", "seen"),
    [(f"{RUNNER.elastic}/32", [RUNNER.elastic, None]), ("sg-runner", [None, None])],
    ids=["by address", "by group"],
)
def test_with_preservation_rules_by_address_are_about_the_client(reach_preserved, peer, seen):
    health_checks = rule("sg-server", "in", f"{FRONT.address}/32")
    rules = [*OPEN_FRONT, health_checks, rule("sg-server", "in", peer)]
    probes = [(RUNNER, FRONT.elastic), (None, FRONT.elastic)]
    assert reach_preserved(*probes, rules=rules) == seen


@needs_haproxy
def test_the_balancers_own_rules_hold_with_preservation_too(reach_preserved):
    rules = [*BY_GROUP[1:], rule("sg-front", "in", f"{RUNNER.elastic}/32")]
    probes = [(RUNNER, FRONT.elastic), (AWAY, FRONT.elastic)]
    assert reach_preserved(*probes, rules=rules) == [RUNNER.elastic, None]


@needs_haproxy
def test_a_target_reaches_itself_through_its_balancer_unless_addresses_are_preserved(reach_preserved):
    rules = [*BY_GROUP, rule("sg-server", "out", "0.0.0.0/0")]
    to_itself = [(SERVER, FRONT.elastic), (SERVER, FRONT.address)]
    with machines(front(preserves=False)) as reach:
        assert reach(*to_itself, rules=rules) == [FRONT.address] * 2
    assert reach_preserved(*to_itself, rules=rules) == [None, None]


def test_nobody_speaks_in_the_name_of_a_balancers_client():
    """Packets of a machine with a client's address as source are dropped at its own interface."""
    rules = [RUNNER_OUT, rule("sg-server", "in", "0.0.0.0/0")]
    text = render(Network((FRONT, SERVER, RUNNER), tuple(rules), (Preserving(FRONT, 0, ((80, (SERVER.address,)),)),)))
    sender = [line.strip() for line in text.split("chain sender {")[1].split("}")[0].splitlines()]
    assert [line for line in sender if "240." in line] == [f'iifname "{FRONT.device}" ip saddr 240.0.0.0/15 return']
    assert sender[-1] == "drop"


# The product's own rules: every pair of places, compared with the documentation


def host(number, group):
    """An interface in use at one of the program's places."""
    return interface(number, group, public=f"198.51.100.{20 + number}")


def outside(number):
    """A computer on the internet: in a separate network, without a security group."""
    return dataclasses.replace(
        interface(number, None, subnet=f"10.{number}.0", public=f"198.51.100.{20 + number}"),
        vpc=f"10.{number}.0.0/16",
    )


PLACES = {
    **{place: host(number, f"sg-{place}") for number, place in enumerate(GROUPS, start=4)},
    **{place: outside(number) for number, place in enumerate([p for p in Place if p not in GROUPS], start=10)},
}


def settings(web_port, *, open_to_the_world):
    clients = "0.0.0.0/0" if open_to_the_world else f"{PLACES[Place.CLIENTS].public}/32"
    return reachability.Example(
        web_port=web_port, client_cidrs=(clients,), admin_cidrs=(f"{PLACES[Place.ADMINISTRATORS].public}/32",)
    )


def registered(settings):
    """The rules as components/security.py registers them."""
    for flow in flows(settings):
        for each in rules(flow):
            peers = {
                Peer.GROUP: (f"sg-{each.other}",),
                Peer.PUBLIC_ADDRESS: (f"{PLACES[each.other].public}/32",),
                Peer.NETWORKS: each.ranges(settings) if each.peer is Peer.NETWORKS else (),
            }[each.peer]
            for peer in peers:
                egress = each.direction is Direction.EGRESS
                name = f"{each.group}-{each.direction}-{peer.replace('/', '-')}-{each.port}-{each.protocol}"
                yield Rule(name, f"sg-{each.group}", egress, each.protocol, peer, each.port, each.port)


TRIED = (22, 80, 443, 2222, 5000, 8443)


@pytest.fixture(scope="module")
def between_places():
    """A function of probes and rules, with one network for all settings."""
    with network(PLACES.values(), ports=TRIED) as answers:
        yield answers


@pytest.mark.parametrize(
    "wished",
    [
        pytest.param(settings(80, open_to_the_world=False), id="without a certificate"),
        pytest.param(settings(443, open_to_the_world=False), id="with a certificate"),
        pytest.param(settings(443, open_to_the_world=True), id="open to the world"),
    ],
)
def test_packets_reach_what_the_documented_matrix_says_and_nothing_else(between_places, wished):
    assert set(reachability.ports(wished)) <= set(TRIED)
    pairs = [pair for pair in itertools.permutations(PLACES, 2) if set(pair) & set(GROUPS)]
    probes = [
        (source, target, address, port)
        for source, target in pairs
        for address in (PLACES[target].address, PLACES[target].public)
        for port in TRIED
    ]
    asked = [(PLACES[source], address, port) for source, _, address, port in probes]
    answered = between_places(asked, registered(wished))
    reached: dict[tuple[Place, Place], set[int]] = {pair: set() for pair in pairs}
    for (source, target, _, port), answer in zip(probes, answered, strict=True):
        if answer:
            reached[source, target].add(port)
    assert reached == {pair: set(reachability.reached(wished, *pair)) for pair in pairs}
