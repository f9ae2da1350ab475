"""Roles and instance profiles, read from moto's memory."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends

from lab.cloud.metadata import Profile

EC2 = "ec2.amazonaws.com"
"""The service that a role of an instance must trust, which has this name in most partitions."""

Policies = Sequence[Mapping[str, Any]]


def profile_of(instance: Any) -> Profile | None:
    """Return the instance profile of one of moto's instances."""
    arn = (instance.iam_instance_profile or {}).get("Arn")
    backends = iam_backends[DEFAULT_ACCOUNT_ID].values()
    profiles = (each for backend in backends for each in list(backend.instance_profiles.values()))
    found = next((each for each in profiles if each.arn == arn), None)
    if found is None:
        return None
    role = found.roles[0] if found.roles else None
    return Profile(found.arn, found.id, role.name if role else None, trusts_ec2=bool(role and _trusts_ec2(role)))


def find(name: str) -> Any | None:
    """Return moto's object of the role with this name."""
    roles = (each for backend in iam_backends[DEFAULT_ACCOUNT_ID].values() for each in list(backend.roles.values()))
    return next((each for each in roles if each.name == name), None)


def policies(name: str) -> list[Policies]:
    """Return the policies of a role, and its permissions boundary: each of these has to allow a call.

    A role that does not exist may do nothing.
    """
    role = find(name)
    if role is None:
        return [()]
    inline = [json.loads(document) for document in role.policies.values()]
    attached = [_document(policy) for policy in role.managed_policies.values()]
    boundary = [(_document(_policy(role.permissions_boundary_arn)),)] if role.permissions_boundary_arn else []
    return [(*inline, *attached), *boundary]


def _policy(arn: str) -> Any:
    backends = iam_backends[DEFAULT_ACCOUNT_ID].values()
    return next((backend.managed_policies[arn] for backend in backends if arn in backend.managed_policies), None)


def _document(policy: Any) -> Mapping[str, Any]:
    if policy is None:  # a boundary that does not exist allows nothing
        return {"Statement": []}
    document: Mapping[str, Any] = json.loads(next(each.document for each in policy.versions if each.is_default))
    return document


def _trusts_ec2(role: Any) -> bool:
    statements = json.loads(role.assume_role_policy_document)["Statement"]
    return any(
        each["Effect"] == "Allow"
        and "sts:AssumeRole" in _several(each["Action"])
        and EC2 in _several(each.get("Principal", {}).get("Service", ()))
        for each in ([statements] if isinstance(statements, dict) else statements)
    )


def _several(one_or_more: str | Sequence[str]) -> Sequence[str]:
    return [one_or_more] if isinstance(one_or_more, str) else one_or_more
