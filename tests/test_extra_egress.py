"""Egress rules in the settings: rejected by key if AWS would reject them, otherwise rows of the table of flows."""

import dataclasses
import re
from typing import Any

import pytest

from configuration import reachability
from configuration.flows import GROUPS, MACHINES, Place, extra_egress_problems, flows, rule_limit_problems
from configuration.reachability import reached
from lab.cloud.constraints.ec2 import CHARACTERS
from lab.preview import describe
from settings import Settings, SettingsError
from tests.conftest import dev_config
from tests.engine import Graph, run_program
from tests.test_settings import load
from tools.docs_tables import EXAMPLE
from validation import extra_egress

EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
LDAPS = {"place": "server", "protocol": "tcp", "port": 636, "networks": ["10.20.0.0/24"], "why": "sign-in by LDAP"}
SSH = {"place": "runner", "ports": [22, 2222], "networks": ["198.51.100.0/24", "203.0.113.9"], "why": "deployments"}
NTP = {"place": "registry", "protocol": "udp", "port": 123, "networks": ["192.0.2.123/32"], "why": "time"}


def ways(*entries: Any) -> Settings:
    return load(extraEgress=list(entries))


def refusal(*entries: Any) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        ways(*entries)
    return [line.removeprefix("- ") for line in str(refused.value).splitlines()[1:]]


def test_without_the_setting_there_is_no_other_way_out():
    assert load().extra_egress == load(extraEgress=[]).extra_egress == ()
    assert not [flow for flow in flows(load()) if flow.target is Place.EXTRA_NETWORKS]


def test_the_places_are_the_machines():
    assert extra_egress.PLACES == MACHINES


def test_each_port_is_a_row_of_the_table_of_flows():
    rows = [flow for flow in flows(ways(LDAPS, SSH, NTP)) if flow.target is Place.EXTRA_NETWORKS]
    assert [(row.source, row.protocol, row.port, row.networks, row.why) for row in rows] == [
        (Place.SERVER, "tcp", 636, ("10.20.0.0/24",), "sign-in by LDAP"),
        (Place.RUNNER, "tcp", 22, ("198.51.100.0/24", "203.0.113.9/32"), "deployments"),
        (Place.RUNNER, "tcp", 2222, ("198.51.100.0/24", "203.0.113.9/32"), "deployments"),
        (Place.REGISTRY, "udp", 123, ("192.0.2.123/32",), "time"),
    ]


@pytest.fixture(scope="module")
def extended() -> Graph:
    return run_program(dev_config(extraEgress=[LDAPS, SSH, NTP]))


def test_each_port_and_network_is_a_rule_of_the_machines_group(graph, extended):
    def egress(found: Graph) -> dict[tuple[Any, ...], Any]:
        keys = ("securityGroupId", "ipProtocol", "fromPort", "toPort", "cidrIpv4", "referencedSecurityGroupId")
        return {tuple(rule.inputs.get(key) for key in keys): rule for rule in found.of_type(EGRESS)}

    before, after = egress(graph), egress(extended)
    assert before.keys() <= after.keys()
    assert {key[:5] for key in after.keys() - before.keys()} == {
        ("gitlab-server-id", "tcp", 636, 636, "10.20.0.0/24"),
        *(
            ("gitlab-runner-id", "tcp", port, port, network)
            for port in (22, 2222)
            for network in ("198.51.100.0/24", "203.0.113.9/32")
        ),
        ("gitlab-registry-id", "udp", 123, 123, "192.0.2.123/32"),
    }
    [rule] = [rule for key, rule in after.items() if key[2] == 636]
    assert rule.inputs["description"] == "sign-in by LDAP (to extra-networks)"


def test_a_rule_that_was_there_keeps_its_name(extended):
    names = {rule.name for rule in extended.of_type(EGRESS)}
    assert names >= {"gitlab-server-to-internet-443-0.0.0.0/0", "gitlab-runner-to-internet-80-0.0.0.0/0"}
    assert names >= {
        "gitlab-server-to-extra-networks-636-10.20.0.0/24",
        "gitlab-registry-to-extra-networks-123-udp-192.0.2.123/32",
    }


def test_who_reaches_what_says_so_and_nobody_else_reaches_it():
    example = dataclasses.replace(EXAMPLE, extra_egress=ways(LDAPS, SSH, NTP).extra_egress)
    assert reached(example, Place.SERVER, Place.EXTRA_NETWORKS) == (443, 587, 636)
    assert reached(example, Place.RUNNER, Place.EXTRA_NETWORKS) == (22, 80, 443, 2222)
    assert reached(example, Place.REGISTRY, Place.EXTRA_NETWORKS) == (443,)
    assert reached(example, Place.REGISTRY, Place.EXTRA_NETWORKS, "udp") == (123,)
    for source in GROUPS:
        for target in (*GROUPS, Place.INTERNET):
            assert reached(example, source, target) == reached(EXAMPLE, source, target)
            assert reached(example, source, target, "udp") == ()
    table = reachability.table(example)
    assert "| networks of extraEgress |" in table
    assert "636: sign-in by LDAP (10.20.0.0/24)" in table
    assert "123 (udp): time (192.0.2.123/32)" in table
    assert "networks of extraEgress" not in reachability.table(EXAMPLE)


def test_a_preview_names_what_opens():
    config = {f"gitlab:{key}" if ":" not in key else key: value for key, value in dev_config(extraEgress=[NTP]).items()}
    described = describe.describe("gitlab", config, ["gitlab:sshPrivateKey"])["flows"]
    assert ["registry", "extra-networks (192.0.2.123/32)", "123 (udp)", "time"] in described


RIGHT = {
    "without a protocol": {key: value for key, value in LDAPS.items() if key != "protocol"},
    "a port as string, as pulumi config set stores it": {**LDAPS, "port": "636"},
    "ports as texts": {**SSH, "ports": ["22", 2222]},
    "the first port": {**LDAPS, "port": 1},
    "the last port": {**LDAPS, "port": 65535},
    "one port as a list": {**SSH, "ports": [22]},
    "the whole world": {**SSH, "networks": ["0.0.0.0/0"]},
    "one address": {**LDAPS, "networks": ["10.20.0.7"]},
    "overlapping networks, which AWS accepts": {**LDAPS, "networks": ["10.20.0.0/24", "10.20.0.0/16"]},
    "TCP and UDP": {**NTP, "protocol": "tcp", "port": 88},
    "every character that AWS accepts": {**LDAPS, "why": "aZ9. _-:/()#,@[]+=&;{}!$*."},
    "the longest why": {**LDAPS, "why": "x" * 200},
    "one letter": {**LDAPS, "why": "x"},
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_way_that_works_is_taken_and_aws_takes_its_description(name):
    settings = ways(RIGHT[name])
    made = [flow for flow in flows(settings) if flow.target is Place.EXTRA_NETWORKS]
    assert made
    for flow in made:
        assert re.fullmatch(f"{CHARACTERS}{{1,255}}", f"{flow.why} (to {flow.target})")
    assert not extra_egress_problems(settings) + rule_limit_problems(settings)


def without(field: str) -> dict[str, Any]:
    return {key: value for key, value in LDAPS.items() if key != field}


NO_PORTS: tuple[Any, ...] = (
    0,
    -1,
    65536,
    True,
    636.0,
    1.5,
    "0",
    "636 ",
    "٦٣٦",
    "0636",
    "ldaps",
    "389-636",
    [636],
    {},
    None,
)
NO_REASONS: tuple[Any, ...] = (
    "",
    " ",
    " x",
    "x ",
    "x" * 201,
    "für alle",
    "a\nb",
    "a|b",
    "it's",
    'a "b"',
    "a<b>",
    5,
    [],
)

WRONG: list[tuple[Any, str]] = [
    ("server 636", "extraEgress[0]: 'server 636' is not a map"),
    (None, "extraEgress[0]: None is not a map"),
    ([], "extraEgress[0]: [] is not a map"),
    ({}, "extraEgress[0].place: missing"),
    (without("place"), "extraEgress[0].place: missing"),
    (without("networks"), "extraEgress[0].networks: missing"),
    (without("why"), "extraEgress[0].why: missing"),
    (without("port"), "extraEgress[0]: has no port"),
    ({**LDAPS, "ports": [389]}, "extraEgress[0]: has both port and ports"),
    ({**LDAPS, "place": "balancer"}, "extraEgress[0].place: 'balancer' is not one of server, registry, runner"),
    ({**LDAPS, "place": "internet"}, "extraEgress[0].place: 'internet' is not one of"),
    ({**LDAPS, "place": "Server"}, "extraEgress[0].place: 'Server' is not one of"),
    ({**LDAPS, "place": ["server"]}, "extraEgress[0].place: ['server'] is not one of"),
    ({**LDAPS, "place": ""}, "extraEgress[0].place: '' is not one of"),
    ({**LDAPS, "protocol": "icmp"}, "extraEgress[0].protocol: 'icmp' is not one of tcp, udp"),
    ({**LDAPS, "protocol": "-1"}, "extraEgress[0].protocol: '-1' is not one of"),
    ({**LDAPS, "protocol": "TCP"}, "extraEgress[0].protocol: 'TCP' is not one of"),
    ({**LDAPS, "protocol": 6}, "extraEgress[0].protocol: 6 is not one of"),
    *(({**LDAPS, "port": port}, f"extraEgress[0].port: {port!r} is not a port") for port in NO_PORTS),
    ({**SSH, "ports": []}, "extraEgress[0].ports: [] is not a list with at least one item"),
    ({**SSH, "ports": 22}, "extraEgress[0].ports: 22 is not a list"),
    ({**SSH, "ports": "22,2222"}, "extraEgress[0].ports: '22,2222' is not a list"),
    ({**SSH, "ports": [22, 22]}, "extraEgress[0].ports: 22 is listed twice"),
    ({**SSH, "ports": [22, "22"]}, "extraEgress[0].ports: 22 is listed twice"),
    ({**SSH, "ports": [22, [80]]}, "extraEgress[0].ports: [80] is not a port"),
    ({**LDAPS, "networks": "10.20.0.0/24"}, "extraEgress[0].networks: '10.20.0.0/24' is not a list"),
    ({**LDAPS, "networks": []}, "extraEgress[0].networks: [] is not a list with at least one item"),
    (
        {**LDAPS, "networks": ["10.20.0.1/24"]},
        "extraEgress[0].networks: '10.20.0.1/24' has host bits set. Use 10.20.0.0/24",
    ),
    ({**LDAPS, "networks": ["2001:db8::/32"]}, "extraEgress[0].networks: '2001:db8::/32' is not an IPv4 network"),
    ({**LDAPS, "networks": ["ldap.example.com"]}, "extraEgress[0].networks: 'ldap.example.com' is not an IPv4"),
    ({**LDAPS, "networks": [10]}, "extraEgress[0].networks: 10 is not an IPv4 network"),
    ({**LDAPS, "networks": [None]}, "extraEgress[0].networks: None is not an IPv4 network"),
    ({**LDAPS, "networks": ["10.0.0.5", "10.0.0.5/32"]}, "extraEgress[0].networks: '10.0.0.5/32' is listed twice"),
    *(({**LDAPS, "why": why}, "extraEgress[0].why: ") for why in NO_REASONS),
    ({**LDAPS, "prot": 636}, "extraEgress[0]: 'prot' is not one of place, protocol"),
    ({**LDAPS, "network": "10.0.0.0/8"}, "extraEgress[0]: 'network' is not one of"),
    ({**LDAPS, "from": 1}, "extraEgress[0]: 'from' is not one of"),
]


@pytest.mark.parametrize(("entry", "said"), WRONG, ids=[f"{number}" for number in range(len(WRONG))])
def test_a_way_that_cannot_work_is_refused_by_entry_and_field(entry, said):
    assert [line for line in refusal(entry) if line.startswith(said)], refusal(entry)
    assert refusal(SSH, entry)[0].startswith("extraEgress[1]")


@pytest.mark.parametrize("given", ["server", "{}", '{"place": "server"}', "5", "true", '"a text"'])
def test_what_is_no_list_is_refused(given):
    with pytest.raises(SettingsError, match=r"- extraEgress: .+ is not a list\."):
        load(extraEgress=given)


@pytest.mark.parametrize("field", ["place", "protocol", "port", "networks", "why", "other"])
def test_a_private_key_in_the_wrong_place_is_never_shown(field):
    kind = f"OPENSSH {'PRIVATE'} KEY"  # in pieces, so that secret scanners do not report it
    key = f"-----BEGIN {kind}-----\nc2VjcmV0\n-----END {kind}-----"
    shown = "\n".join(refusal({**LDAPS, field: key}) + refusal({**LDAPS, key: field}))
    assert "c2VjcmV0" not in shown
    assert "(hidden)" in shown


def test_all_that_is_wrong_is_named_at_once():
    assert len(refusal({**LDAPS, "place": "x", "port": 0, "networks": ["x", "y"], "why": "ä"}, {})) >= 8


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        (LDAPS, {**LDAPS, "why": "another reason"}, True),
        (LDAPS, {**SSH, "place": "server", "ports": [22, 636], "networks": ["10.20.0.0/24"]}, True),
        (LDAPS, {**LDAPS, "protocol": "udp"}, False),
        (LDAPS, {**LDAPS, "place": "runner"}, False),
        (LDAPS, {**LDAPS, "networks": ["10.20.0.0/25"]}, False),
        (LDAPS, {**LDAPS, "port": 389}, False),
    ],
)
def test_a_rule_that_the_group_would_have_twice_is_refused_as_aws_would(one, other, refused):
    if refused:
        assert refusal(one, other)[0].startswith("extraEgress[1]: tcp 636 from the server to 10.20.0.0/24 is in extra")
    else:
        assert len(ways(one, other).extra_egress) == 2


MAIL = {"smtpAddress": "mail.example.com", "smtpUserName": "g", "smtpPassword": "p", "emailFrom": "g@example.com"}


@pytest.mark.parametrize(
    ("changes", "open_anyway"),
    [
        ({"place": "server", "port": 443}, True),
        ({"place": "runner", "ports": [22, 80]}, True),
        ({"place": "server", "port": 587}, True),
        ({"place": "server", "port": 80}, False),
        ({"place": "runner", "port": 443, "protocol": "udp"}, False),
        ({"place": "runner", "port": 587}, False),
    ],
)
def test_a_way_to_the_world_that_is_open_anyway_is_refused_as_aws_would(changes, open_anyway):
    settings = load(**MAIL, extraEgress=[{"networks": ["0.0.0.0/0"], "why": "x", **changes}])
    problems = extra_egress_problems(settings)
    assert bool(problems) is open_anyway
    assert all("is already open" in problem for problem in problems)


@pytest.mark.parametrize(("place", "most"), [("registry", 59), ("server", 57), ("runner", 55)])
def test_the_rules_of_a_group_are_counted_and_those_of_its_ways_out_too(place, most):
    """AWS allows 60, of which each group uses one for HTTPS to the internet. No mail relay is configured here."""

    def problems(number: int) -> list[str]:
        networks = [f"10.20.{each}.0/24" for each in range(number)]
        return rule_limit_problems(ways({**LDAPS, "place": place, "networks": networks}))

    assert problems(most) == []
    [problem] = problems(most + 1)
    assert problem == (
        f"extraEgress: {most + 1} pairs of port and network, one rule each, create 61 egress rules in the {place}'s "
        "security group, but AWS allows 60. Merge adjacent networks or list fewer ports until at most "
        f"{most} pairs are left."
    )


def test_ports_times_networks_are_counted_and_too_many_stop_the_program_before_its_first_resource():
    entry = {**SSH, "ports": list(range(5000, 5020)), "networks": ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]}
    with pytest.raises(
        Exception, match=r"extraEgress: 60 pairs of port and network, one rule each, create 65 egress rules"
    ):
        run_program(dev_config(extraEgress=[entry]))


def test_the_port_that_aws_blocks_is_warned_of():
    assert [
        warning for warning in ways({**LDAPS, "port": 25}).warnings if warning.startswith("extraEgress: AWS blocks")
    ]
    assert not [warning for warning in ways({**NTP, "port": 25}).warnings if warning.startswith("extraEgress")]
