"""The security groups permit exactly the table's flows, in both directions and with the right kind of address."""

import pytest

from configuration.flows import Direction, Flow, Peer, Place, flows, rules
from tests.test_settings import load

INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"


def far_end(rule) -> str:
    return rule.inputs.get("cidrIpv4") or rule.inputs["referencedSecurityGroupId"]


def group(place: str) -> str:
    return f"gitlab-{place}-id"


def test_the_registered_rules_are_exactly_those_of_the_table(graph):
    public = {place: f"{address}/32" for place, address in graph.outputs["publicAddresses"].items()}
    client, admin, world = "198.51.100.0/24", "198.51.100.7/32", "0.0.0.0/0"
    ingress = {
        (rule.inputs["securityGroupId"], far_end(rule), rule.inputs["toPort"]) for rule in graph.of_type(INGRESS)
    }
    egress = {(rule.inputs["securityGroupId"], far_end(rule), rule.inputs["toPort"]) for rule in graph.of_type(EGRESS)}
    assert ingress == {
        *((group("balancer"), client, port) for port in (80, 22, 5000)),
        *((group("balancer"), public["runner"], port) for port in (80, 22, 5000)),
        (group("balancer"), public["server"], 80),
        (group("server"), group("balancer"), 80),
        (group("server"), group("balancer"), 2222),
        (group("registry"), group("balancer"), 5000),
        (group("registry"), group("server"), 5000),
        *((group(machine), admin, 22) for machine in ("server", "registry", "runner")),
    }
    assert egress == {
        *((group("runner"), public["balancer"], port) for port in (80, 22, 5000)),
        (group("server"), public["balancer"], 80),
        (group("balancer"), group("server"), 80),
        (group("balancer"), group("server"), 2222),
        (group("balancer"), group("registry"), 5000),
        (group("server"), group("registry"), 5000),
        *((group(machine), world, 443) for machine in ("server", "registry", "runner")),
        (group("runner"), world, 80),
    }


def test_every_rule_is_tcp_for_one_port_and_says_why(graph):
    for rule in [*graph.of_type(INGRESS), *graph.of_type(EGRESS)]:
        assert rule.inputs["ipProtocol"] == "tcp"
        assert rule.inputs["fromPort"] == rule.inputs["toPort"]
        assert len(rule.inputs["description"]) > 10


def test_groups_hold_no_rules_of_their_own_and_the_default_group_none_at_all(graph):
    groups = [
        *graph.of_type("aws:ec2/securityGroup:SecurityGroup"),
        *graph.of_type("aws:ec2/defaultSecurityGroup:DefaultSecurityGroup"),
    ]
    assert len(groups) == 5
    for each in groups:
        assert "ingress" not in each.inputs
        assert "egress" not in each.inputs


def test_the_world_reaches_nothing_without_a_certificate_and_only_the_balancer_with_one(graph, tls_graph):
    assert not [rule for rule in graph.of_type(INGRESS) if rule.inputs.get("cidrIpv4") == "0.0.0.0/0"]
    open_to_all = [rule for rule in tls_graph.of_type(INGRESS) if rule.inputs.get("cidrIpv4") == "0.0.0.0/0"]
    assert {(rule.inputs["securityGroupId"], rule.inputs["toPort"]) for rule in open_to_all} == {
        (group("balancer"), port) for port in (443, 22, 5000)
    }


def test_a_machine_calls_the_balancer_by_public_addresses_at_both_ends():
    for rule in rules(Flow(Place.RUNNER, Place.LOAD_BALANCER, 5000, "images")):
        assert rule.peer is Peer.PUBLIC_ADDRESS


@pytest.mark.parametrize(("source", "target"), [(Place.LOAD_BALANCER, Place.SERVER), (Place.SERVER, Place.REGISTRY)])
def test_private_flows_name_groups_at_both_ends(source, target):
    made = rules(Flow(source, target, 80, "web"))
    assert {(rule.group, rule.direction, rule.peer) for rule in made} == {
        (source, Direction.EGRESS, Peer.GROUP),
        (target, Direction.INGRESS, Peer.GROUP),
    }


def test_mail_opens_a_way_out_of_the_server_only_when_it_is_set():
    mail = {"smtpAddress": "mail.example.com", "smtpUserName": "g", "smtpPassword": "p", "emailFrom": "g@example.com"}
    assert not [flow for flow in flows(load()) if flow.port == 587]
    assert [flow.source for flow in flows(load(**mail)) if flow.port == 587] == [Place.SERVER]


def test_the_redirectless_port_80_of_the_balancer_is_closed_with_a_certificate(tls_graph):
    assert not [
        rule
        for rule in tls_graph.of_type(INGRESS)
        if rule.inputs["securityGroupId"] == group("balancer") and rule.inputs["toPort"] == 80
    ]
