"""A parameter in botocore's service models, which AWS generates: type, limits, allowed values, and AWS's prose."""

import html
import re
from functools import cache
from typing import Any

import botocore.session  # type: ignore[import-untyped]

SERVICES = {name: name for name in ("acm", "ec2", "iam", "route53")} | {"elasticloadbalancing": "elbv2"}
"""The name of botocore's model, by the service that a request is signed for."""


@cache
def shape(service: str, action: str, name: str) -> Any:
    """Return the shape of a parameter, named as in calls.py. Raises LookupError if the action does not have it."""
    found = _service(service).operation_model(action).input_shape
    for segment in name.split("."):
        found = _within(service, found, segment)
    return found


def prose(service: str, action: str, name: str) -> str:
    """Return AWS's documentation of a parameter, without markup and with single spaces. Raises as `shape` does."""
    text = re.sub(r"<[^>]+>", "", str(shape(service, action, name).documentation or ""))
    return " ".join(html.unescape(text).split())


@cache
def _service(name: str) -> Any:
    return botocore.session.get_session().get_service_model(SERVICES[name])


def _within(service: str, outer: Any, segment: str) -> Any:
    if outer.type_name == "list":
        # Load balancing and IAM have `member` before the index, EC2 and JSON the index alone, and XML the element.
        return outer if segment == "member" else outer.member
    members = getattr(outer, "members", {})
    for name, member in members.items():
        if segment == _on_the_wire(service, name, member):
            return member
    raise LookupError(f"{outer.name} of {service} has no {segment}")


def _on_the_wire(service: str, name: str, member: Any) -> str:
    serialized = member.serialization
    if service != "ec2":
        return str(serialized.get("name", name))
    if "queryName" in serialized:
        return str(serialized["queryName"])
    written = str(serialized.get("name", name))
    return written[0].upper() + written[1:]
