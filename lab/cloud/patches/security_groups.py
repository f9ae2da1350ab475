"""Security groups: their rules, and when they can be deleted."""

from typing import Any

from moto.ec2.exceptions import DependencyViolationError
from moto.ec2.models import EC2Backend
from moto.ec2.models.security_groups import SecurityGroupRule

from lab.cloud.patches.correction import correction


@correction
def group_in_use_stays() -> None:
    """A security group cannot be deleted while an interface or a rule of another group uses it."""
    original = EC2Backend.delete_security_group

    def delete_security_group(self: Any, name: str | None = None, group_id: str | None = None) -> None:
        used = {group.id for interface in self.enis.values() for group in interface._group_set}
        for groups in self.groups.values():
            for group in groups.values():
                named = (r.source_group.get("GroupId") for r in group.ingress_rules + group.egress_rules)
                used |= {other for other in named if other and other != group.id}
        if group_id in used:
            raise DependencyViolationError(f"resource {group_id} has a dependent object")
        original(self, name=name, group_id=group_id)

    EC2Backend.delete_security_group = delete_security_group


@correction
def rules_that_name_a_group() -> None:
    """Every rule has a description; moto loses it if the rule's peer is a security group. The peer's owner is omitted:
    a provider that is configured not to look up its account considers any owner foreign. Related upstream:
    getmoto/moto#7831 (merged)."""

    def referenced_group_info(rule: Any) -> dict[str, str] | None:
        return {k: v for k, v in rule.source_group.items() if k != "UserId"} or None

    SecurityGroupRule.description = property(
        lambda rule: rule.ip_range.get("Description") or rule.source_group.get("Description")
    )
    SecurityGroupRule.referenced_group_info = property(referenced_group_info)
