"""Security groups and their rules, created from the table of flows."""

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws

from components.naming import tagged
from configuration.flows import GROUPS, Direction, Flow, Peer, Place, Rule, rules
from settings import Settings


class SecurityGroups(pulumi.ComponentResource):
    """A group for the load balancer and each machine; rules are added later: they need addresses, which need groups."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        vpc_id: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:security:SecurityGroups", name, None, opts)
        self.ids: dict[Place, pulumi.Output[str]] = {
            place: aws.ec2.SecurityGroup(
                f"{name}-{place}",
                vpc_id=vpc_id,
                description=f"Traffic of the {place}",
                tags=tagged(settings, f"{name}-{place}"),
                opts=pulumi.ResourceOptions(parent=self),
            ).id
            for place in GROUPS
        }
        self.register_outputs({place.value: group_id for place, group_id in self.ids.items()})


class SecurityGroupRules(pulumi.ComponentResource):
    """One AWS rule per peer of each flow's rules. The provider removes AWS's allow-all egress rule, so all other
    traffic is blocked in both directions.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        flows: Sequence[Flow],
        group_ids: Mapping[Place, pulumi.Input[str]],
        public_addresses: Mapping[Place, pulumi.Input[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:security:SecurityGroupRules", name, None, opts)
        self._settings = settings
        self._group_ids = group_ids
        self._public_addresses = public_addresses
        self.rules = tuple(rule for flow in flows for rule in rules(flow))
        for rule in self.rules:
            self._register(name, rule)
        self.register_outputs({})

    def _register(self, name: str, rule: Rule) -> None:
        resource = (
            aws.vpc.SecurityGroupIngressRule if rule.direction is Direction.INGRESS else aws.vpc.SecurityGroupEgressRule
        )
        arrow = "from" if rule.direction is Direction.INGRESS else "to"
        for suffix, peer in self._peers(rule).items():
            port = f"{rule.port}" if rule.protocol == "tcp" else f"{rule.port}-{rule.protocol}"
            full_name = f"{name}-{rule.group}-{arrow}-{rule.other}-{port}{suffix}"
            resource(
                full_name,
                security_group_id=self._group_ids[rule.group],
                description=f"{rule.why} ({arrow} {rule.other})",
                ip_protocol=rule.protocol,
                from_port=rule.port,
                to_port=rule.port,
                tags=tagged(self._settings, full_name),
                opts=pulumi.ResourceOptions(parent=self),
                **peer,
            )

    def _peers(self, rule: Rule) -> dict[str, dict[str, pulumi.Input[str]]]:
        """The peers of a rule as resource arguments, by the suffix of the resource's name."""
        if rule.peer is Peer.GROUP:
            return {"": {"referenced_security_group_id": self._group_ids[rule.other]}}
        if rule.peer is Peer.PUBLIC_ADDRESS:
            return {"": {"cidr_ipv4": pulumi.Output.concat(self._public_addresses[rule.other], "/32")}}
        return {f"-{cidr}": {"cidr_ipv4": cidr} for cidr in rule.ranges(self._settings)}
