"""Tags: how many a resource can have, and what is found by its tags."""

from collections.abc import Callable, Iterator
from typing import Any

from moto.core.resource_tagging import TaggedResource
from moto.ec2.exceptions import TagLimitExceeded
from moto.ec2.models import EC2Backend
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.elbv2.exceptions import TooManyTagsError
from moto.elbv2.models import ELBv2Backend

from lab.cloud.patches.correction import correction

TAG_LIMIT = 50  # tags per resource


@correction
def tags_of_a_resource_of_ec2_are_limited() -> None:
    """A resource has at most 50 tags, and a call with more creates nothing. (moto has already created the resource.)"""
    original = EC2BaseResponse._get_param

    def get_param(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        value = original(self, name, *args, **kwargs)
        if name in ("TagSpecification", "TagSpecifications"):
            for specification in value or []:
                if len(specification.get("Tags") or []) > TAG_LIMIT:
                    raise TagLimitExceeded
        return value

    EC2BaseResponse._get_param = get_param


@correction
def tags_of_a_resource_of_load_balancing_are_limited() -> None:
    """The same limit applies to load balancers, target groups and listeners, with that service's error. (moto rejects
    the eleventh tag that is added, and checks nothing when the resource is created.)"""

    def checked(method: str) -> Callable[..., Any]:
        original = getattr(ELBv2Backend, method)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            check(kwargs.get("tags") or [])
            return original(self, *args, **kwargs)

        return call

    def check(tags: list[dict[str, str]]) -> None:
        if len(tags) > TAG_LIMIT:
            raise TooManyTagsError

    def add_tags(self: Any, resource_arns: list[str], tags: list[dict[str, str]]) -> None:
        check(tags)
        for arn in resource_arns:
            self._get_resource_by_arn(arn)
            keys = set(self.tagging_service.get_tag_dict_for_resource(arn)) | {tag["Key"] for tag in tags}
            if len(keys) > TAG_LIMIT:
                raise TooManyTagsError
        for arn in resource_arns:
            self.tagging_service.tag_resource(arn, tags)

    for method in ("create_load_balancer", "create_target_group", "create_listener"):
        setattr(ELBv2Backend, method, checked(method))
    ELBv2Backend.add_tags = add_tags


@correction
def everything_of_ec2_is_found_by_its_tags() -> None:
    """GetResources of the tagging API also returns elastic addresses, key pairs and rules of security groups (Resource
    Groups Tagging API, "Services that support the Resource Groups Tagging API"). (moto: none of the three.)"""
    original = EC2Backend.iter_tagged_resources

    def iter_tagged_resources(self: Any) -> Iterator[TaggedResource]:
        yield from original(self)
        groups = [group for of_vpc in list(self.groups.values()) for group in list(of_vpc.values())]
        for kind, resources in {
            "elastic-ip": list(self.addresses),
            "key-pair": list(self.key_pairs.values()),
            "security-group-rule": [rule for each in groups for rule in (*each.ingress_rules, *each.egress_rules)],
        }.items():
            for each in resources:
                arn = f"arn:{self.partition}:ec2:{self.region_name}:{self.account_id}:{kind}/{each.id}"
                yield TaggedResource(arn, dict(self.tags.get(each.id, {})), f"ec2:{kind}")

    EC2Backend.iter_tagged_resources = iter_tagged_resources
