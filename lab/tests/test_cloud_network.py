import itertools
import json
import subprocess

import pytest

from lab.cloud import packet_filter
from lab.cloud.network import INTERNET, Interface, Network, Preserving, Rule
from lab.cloud.packet_filter import render

BALANCER = Interface(
    "eni-00000000000000aaa", "10.42.0.7", "10.42.0.0/24", "10.42.0.0/16", "02:00:00:00:00:01", ("sg-front",),
    "198.51.100.16", True,
)  # fmt: skip
RUNNER = Interface(
    "eni-00000000000000bbb", "10.42.0.5", "10.42.0.0/24", "10.42.0.0/16", "02:00:00:00:00:02", ("sg-runner",),
    "198.51.100.17", True,
)  # fmt: skip
PRIVATE = Interface(
    "eni-00000000000000ccc", "10.42.1.5", "10.42.1.0/24", "10.42.0.0/16", "02:00:00:00:00:03", ("sg-runner",),
    "198.51.100.18", False,
)  # fmt: skip


PRESERVING = Preserving(BALANCER, 3, ((22, (RUNNER.address, PRIVATE.address)),))


def chain(text, name):
    lines = text.splitlines()
    rest = lines[lines.index(f"chain {name} {{") + 1 :]
    return [line.strip() for line in itertools.takewhile(lambda line: line != "}", rest)]


def rules_of(interface, *rules, others=(), egress=True):
    text = render(Network((interface, *others), rules))
    return chain(text, f"{'egress' if egress else 'ingress'}_{interface.key}")


def test_addresses_that_aws_reserves():
    assert (RUNNER.router, RUNNER.resolver) == ("10.42.0.1", "10.42.0.2")
    assert (PRIVATE.router, PRIVATE.resolver) == ("10.42.1.1", "10.42.0.2")
    assert len(RUNNER.device) <= 15


def test_a_reference_matches_private_addresses_of_all_members():
    rule = Rule("sgr-1", "sg-front", False, "tcp", "sg-runner", 80, 80)
    rules = rules_of(BALANCER, rule, others=(RUNNER, PRIVATE), egress=False)
    assert rules == ['ip saddr { 10.42.0.5, 10.42.1.5 } tcp dport 80-80 accept comment "sgr-1"']


def test_a_reference_to_a_group_without_members_matches_nothing():
    assert rules_of(BALANCER, Rule("sgr-1", "sg-front", False, "tcp", "sg-none", 80, 80), egress=False) == []


def test_a_range_matches_addresses_after_translation():
    rule = Rule("sgr-1", "sg-front", False, "tcp", "198.51.100.17/32", 80, 443)
    rules = rules_of(BALANCER, rule, egress=False)
    assert rules == ['ip saddr 198.51.100.17/32 tcp dport 80-443 accept comment "sgr-1"']


def test_each_balancers_clients_have_aliases_of_their_own():
    pairs = {str(client): str(alias) for client, alias in PRESERVING.aliases_of().items()}
    assert pairs == {"10.42.0.0/16": "240.6.0.0/16", str(INTERNET): "240.7.0.0/24"}
    small = Interface("eni-1", "10.42.0.7", "10.42.0.0/26", "10.42.0.0/25", "m", None)
    ranges = {str(alias) for alias in Preserving(small, 4, ()).aliases_of().values()}
    assert ranges == {"240.8.0.0/25", "240.9.0.0/24"}


def test_a_reference_to_a_balancers_group_matches_its_clients_where_it_preserves_them():
    rule = Rule("sgr-1", "sg-runner", False, "tcp", "sg-front", 22, 22)
    text = render(Network((BALANCER, RUNNER), (rule,), (PRESERVING,)))
    assert chain(text, f"ingress_{RUNNER.key}") == [
        'ip saddr { 10.42.0.7 } tcp dport 22-22 accept comment "sgr-1"',
        'ct original ip saddr { 240.6.0.0/15 } tcp dport 22-22 accept comment "sgr-1"',
    ]


def test_a_target_is_dropped_that_calls_itself_where_addresses_are_preserved():
    text = render(Network((BALANCER, RUNNER, PRIVATE), (), (PRESERVING,)))
    assert chain(text, f"ingress_{BALANCER.key}") == [
        "tcp dport 22 ip saddr { 10.42.0.5, 10.42.1.5, 198.51.100.17 } drop"
    ]
    assert chain(text, f"ingress_{RUNNER.key}") == []


def test_directions_are_apart():
    rule = Rule("sgr-1", "sg-runner", True, "tcp", "0.0.0.0/0", 443, 443)
    assert rules_of(RUNNER, rule, egress=False) == []
    assert rules_of(RUNNER, rule)[-1] == 'ip daddr 0.0.0.0/0 tcp dport 443-443 accept comment "sgr-1"'


@pytest.mark.parametrize(
    ("protocol", "first", "last", "match"),
    [
        ("-1", None, None, "ip daddr 10.0.0.0/8 accept"),
        ("udp", 53, 53, "ip daddr 10.0.0.0/8 udp dport 53-53 accept"),
        ("icmp", -1, -1, "ip daddr 10.0.0.0/8 ip protocol icmp accept"),
        ("icmp", 8, 0, "ip daddr 10.0.0.0/8 ip protocol icmp icmp type 8 icmp code 0 accept"),
        ("50", None, None, "ip daddr 10.0.0.0/8 ip protocol 50 accept"),
    ],
)
def test_protocols(protocol, first, last, match):
    rule = Rule("sgr-1", "sg-runner", True, protocol, "10.0.0.0/8", first, last)
    assert rules_of(RUNNER, rule)[-1] == f'{match} comment "sgr-1"'


def test_without_a_route_to_the_gateway_there_is_no_way_out_and_none_in():
    text = render(Network((RUNNER, PRIVATE)))
    assert chain(text, f"egress_{RUNNER.key}")[0] == "ip daddr != { 10.42.0.0/16, 198.51.100.0/24 } goto blocked"
    assert chain(text, f"egress_{PRIVATE.key}")[0] == "ip daddr != 10.42.0.0/16 goto blocked"
    assert "map public { type ipv4_addr : ipv4_addr; elements = { 10.42.0.5 : 198.51.100.17 }; }" in text
    assert "map private { type ipv4_addr : ipv4_addr; elements = { 198.51.100.17 : 10.42.0.5 }; }" in text


def test_without_an_elastic_address_there_is_no_way_out():
    interface = Interface("eni-00000000000000ddd", "10.42.0.9", "10.42.0.0/24", "10.42.0.0/16", "m", (), None, True)
    assert interface.public is None


def test_a_balancer_without_groups_lets_everything_through():
    open_balancer = Interface(
        "eni-00000000000000eee", "10.42.0.9", "10.42.0.0/24", "10.42.0.0/16", "m", None, None, True
    )
    assert rules_of(open_balancer)[-1] == "accept"
    assert rules_of(open_balancer, egress=False) == ["accept"]


def test_judged_before_and_after_translation():
    text = render(Network((RUNNER,)))
    assert "hook prerouting priority -150" in chain(text, "egress")[0]
    assert "hook postrouting priority 150" in chain(text, "ingress")[0]
    assert chain(text, "egress")[-1] == chain(text, "ingress")[-1] == "goto blocked"
    assert chain(text, "blocked")[-1] == "drop"


def test_services_that_no_group_judges():
    egress = chain(render(Network((RUNNER,))), "egress")
    first_rule = egress.index('iifname vmap { "lab-0000000bbb" : jump egress_0000000bbb }')
    assert egress.index("ip daddr 169.254.169.254 tcp dport 80 accept") < first_rule


def test_equal_networks_render_equally():
    rules = (Rule("sgr-1", "sg-runner", True, "-1", "0.0.0.0/0"),)
    assert render(Network((RUNNER, BALANCER), rules)) == render(Network((RUNNER, BALANCER), rules))


def test_another_filter_that_would_drop_the_labs_packets(monkeypatch):
    chains = [
        {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"},
        {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"},
        {"family": "inet", "table": "mine", "name": "forward", "hook": "forward", "policy": "accept"},
        {"family": "ip", "table": "gitlab_lab", "name": "blocked"},
    ]
    listing = json.dumps({"nftables": [{"metainfo": {}}, *({"chain": chain} for chain in chains)]})
    monkeypatch.setattr(packet_filter, "call", lambda *_, **__: listing)
    assert packet_filter.foreign_filters() == ["ip filter FORWARD"]


@pytest.mark.needs("nft", root=True)
@pytest.mark.parametrize("interfaces", [(), (BALANCER, RUNNER, PRIVATE)])
@pytest.mark.parametrize("preserving", [(), (PRESERVING,)])
def test_the_kernel_takes_it(interfaces, preserving):
    rules = (
        Rule("sgr-1", "sg-runner", True, "-1", "0.0.0.0/0"),
        Rule("sgr-2", "sg-runner", False, "icmp", "10.0.0.0/8", 8, -1),
        Rule("sgr-3", "sg-front", False, "tcp", "sg-runner", 80, 80),
        Rule("sgr-4", "sg-front", True, "50", "sg-runner"),
    )
    text = render(Network(interfaces, rules, preserving))
    subprocess.run(["nft", "--check", "-f", "-"], input=text, text=True, check=True)
