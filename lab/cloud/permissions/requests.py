"""What a call requires: each action on each resource, as AWS evaluates it. Reads existing resources from moto's memory.

The resources of a call are those whose ids it contains, if the action has their type; those that an id stands for (an
association, an attachment); and those that the call creates. AWS's reference documents the resource types of an action,
but not how AWS determines the resources: in case of doubt, an additional resource is evaluated.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moto.acm.models import acm_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends
from moto.iam.models import iam_backends

from lab.cloud import roles
from lab.cloud.calls import Call
from lab.cloud.permissions import reference
from lab.cloud.permissions.policies import Asked
from lab.cloud.permissions.reference import Action

ACM, EC2, IAM, LOAD_BALANCING, ROUTE_53 = "acm", "ec2", "iam", "elasticloadbalancing", "route53"
JSON = (ACM, "servicequotas", "tagging")
"""Services with a JSON protocol."""

PREFIXES = {
    "ami": "image",
    "eipalloc": "elastic-ip",
    "eni": "network-interface",
    "i": "instance",
    "igw": "internet-gateway",
    "key": "key-pair",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "snap": "snapshot",
    "subnet": "subnet",
    "vol": "volume",
    "vpc": "vpc",
}
"""EC2's resource types by the prefix of their ids."""

OF_NO_ACCOUNT = ("image", "snapshot")
"""Types whose ARN contains no account."""

LINKS = ("eipassoc", "eni-attach", "iip-assoc", "rtbassoc")
"""Prefixes of ids that stand for a link between two resources."""

NOT_JUDGED = re.compile(r"IpPermissions\..*|.*\.ReferencedGroupId")
"""Parameters with the group that is a rule's peer. AWS evaluates only the group that contains the rule."""

LOAD_BALANCING_MAKES = {
    "CreateListener": "listener/net",
    "CreateLoadBalancer": "loadbalancer/net",
    "CreateTargetGroup": "targetgroup",
}
"""What a call of load balancing creates. AWS's reference has request tags for all of that service's actions."""

MADE_FROM_THE_SAME = {"CopySnapshot": {"snapshot"}}
"""Types that a call creates from a resource of the same type, which it names; both are evaluated (AWS's reference)."""

TAGGED_WITH = {
    ACM: "acm:AddTagsToCertificate",
    EC2: "ec2:CreateTags",
    LOAD_BALANCING: "elasticloadbalancing:AddTags",
}
"""The action that a call which creates something with tags also requires, by service."""


@dataclass(frozen=True)
class Resource:
    """A resource of a call. `id` ends in `*` if it does not exist yet or the call does not name it."""

    type: str
    id: str
    tags: Mapping[str, str]
    owner: str = ""


def asked(call: Call) -> list[Asked]:
    """Return everything that must be allowed for this call."""
    if call.service == IAM:
        return [_of_iam(call), *_passed_roles(call)]
    action = reference.actions().get(call.permission)
    if action is None:
        return [Asked(call.permission, "*", _of_the_call(call))]
    if _names_what_has_ended(call):
        return []
    made = _made(call, action)
    judged = _judged(call, action, made) if action.types else [Resource("", "*", {})]
    found = [_on(call, call.permission, action, each) for each in judged]
    if made and (tagging := TAGGED_WITH.get(call.service)):
        # ACM has no such condition key.
        makes = {} if call.service == ACM else {f"{call.service}:CreateAction": [call.action]}
        tagged = [each for each in made if _request_tags(call, each.type)]
        found += [_on(call, tagging, reference.actions()[tagging], each, makes) for each in tagged]
    return [*found, *_passed_roles(call)]


def _on(
    call: Call, permission: str, action: Action, resource: Resource, more: Mapping[str, Sequence[str]] | None = None
) -> Asked:
    known = action.known(resource.type)
    keys = {name: values for name, values in _keys(call, resource).items() if name.partition("/")[0] in known}
    return Asked(permission, _arn(call, resource), {**_of_the_call(call), **keys, **(more or {})})


def _of_the_call(call: Call) -> dict[str, Sequence[str]]:
    return {"aws:RequestedRegion": [call.region]}


def _keys(call: Call, resource: Resource) -> dict[str, Sequence[str]]:
    given = _request_tags(call, resource.type)
    keys: dict[str, Sequence[str]] = {f"{reference.REQUEST_TAG}/{key}": [value] for key, value in given.items()}
    for name in (reference.RESOURCE_TAG, reference.EC2_RESOURCE_TAG):
        keys |= {f"{name}/{key}": [value] for key, value in resource.tags.items()}
    keys[reference.TAG_KEYS] = list(given)
    if resource.owner:
        keys[reference.OWNER] = [resource.owner]
    if call.service == ACM:
        sent = ("DomainName", "SubjectAlternativeNames.N")
        keys[reference.DOMAIN_NAMES] = [value for name in sent for value in _values(call, name)]
    if days := call.value("LockDuration"):
        keys[reference.LOCK_DURATION] = [days]
    if call.service == ROUTE_53:
        changed = "ChangeBatch.Changes.Change"
        records = f"{changed}.ResourceRecordSet"
        prefix = "route53:ChangeResourceRecordSets"
        # Names in lower case, without the trailing dot (Route 53 Developer Guide, "Using IAM policy conditions").
        names = [value.lower().rstrip(".") for value in _values(call, f"{records}.Name")]
        keys[f"{prefix}NormalizedRecordNames"] = names
        keys[f"{prefix}RecordTypes"] = _values(call, f"{records}.Type")
        keys[f"{prefix}Actions"] = _values(call, f"{changed}.Action")
    return keys


def _values(call: Call, name: str) -> list[str]:
    return [parameter.value for parameter in call.parameters if parameter.name == name]


def _request_tags(call: Call, type_: str) -> dict[str, str]:
    """Return the tags that the call adds to, or removes from, resources of that type."""
    tags = {}
    for parameter in call.parameters:
        specification = re.fullmatch(r"(TagSpecification\.\d+)\.Tag\.\d+\.Key", parameter.place)
        for_type = specification and call.value(f"{specification[1]}.ResourceType") == type_
        if for_type or parameter.name in ("Tag.N.Key", "Tags.N.Key", "Tags.member.N.Key"):
            tags[parameter.value] = call.beside(parameter, "Value") or ""
        elif parameter.name == "TagKeys.member.N":
            tags[parameter.value] = ""
    return tags


def _arn(call: Call, resource: Resource) -> str:
    if resource.id.startswith("arn:") or not resource.type:
        return resource.id
    if call.service == ROUTE_53:
        return f"arn:aws:route53:::{resource.type}/{resource.id}"
    account = "" if resource.type in OF_NO_ACCOUNT else DEFAULT_ACCOUNT_ID
    return f"arn:aws:{call.service}:{call.region}:{account}:{resource.type}/{resource.id}"


# --- IAM -------------------------------------------------------------------------------------------------


def _of_iam(call: Call) -> Asked:
    """Return what a call of IAM requires: the profile, role or policy that it names first in this order."""
    found: Resource | None = None
    if name := call.value("InstanceProfileName"):
        profile = next((each for backend in _iam() for each in _named_in(backend.instance_profiles, name)), None)
        found = _iam_resource(call, "instance-profile", name, profile)
    elif name := call.value("RoleName"):
        found = _iam_resource(call, "role", name, roles.find(name))
    elif arn := call.value("PolicyArn"):
        found = Resource("policy", arn, {})
    if found is None:
        return Asked(call.permission, "*", _of_the_call(call))
    given = _request_tags(call, found.type)
    keys: dict[str, Sequence[str]] = {f"{reference.REQUEST_TAG}/{key}": [value] for key, value in given.items()}
    keys |= {f"{reference.RESOURCE_TAG}/{key}": [value] for key, value in found.tags.items()}
    keys[reference.TAG_KEYS] = list(given)
    if boundary := call.value("PermissionsBoundary") or (found.type == "role" and _boundary(found)):
        keys["iam:PermissionsBoundary"] = [boundary]
    return Asked(call.permission, found.id, {**_of_the_call(call), **keys})


def _iam() -> Iterator[Any]:
    yield from iam_backends[DEFAULT_ACCOUNT_ID].values()


def _named_in(resources: Mapping[str, Any], name: str) -> list[Any]:
    return [each for each in list(resources.values()) if each.name == name]


def _iam_resource(call: Call, type_: str, name: str, existing: Any) -> Resource:
    path = existing.path if existing else call.value("Path") or "/"
    tags = existing.tags if existing else []
    if not isinstance(tags, Mapping):
        tags = {tag["Key"]: tag["Value"] for tag in tags}
    return Resource(type_, f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:{type_}{path}{name}", tags)


def _boundary(role: Resource) -> str:
    existing = roles.find(role.id.rpartition("/")[2])
    return str(existing.permissions_boundary_arn or "") if existing else ""


def _passed_roles(call: Call) -> list[Asked]:
    """Return the permissions to pass a role to EC2, which the caller also needs (Service Authorization Reference,
    dependent actions of RunInstances, AssociateIamInstanceProfile and AddRoleToInstanceProfile).
    """
    if call.permission == "iam:AddRoleToInstanceProfile":
        names = [call.value("RoleName") or "*"]
    elif call.service == EC2:
        given = {call.value("IamInstanceProfile.Name"), call.value("IamInstanceProfile.Arn")} - {None}
        profiles = [each for backend in _iam() for each in list(backend.instance_profiles.values())]
        names = [role.name for each in profiles if {each.name, each.arn} & given for role in each.roles]
    else:
        return []
    passed = {**_of_the_call(call), "iam:PassedToService": [roles.EC2]}
    found = [_iam_resource(call, "role", name, roles.find(name)) for name in names]
    return [Asked("iam:PassRole", each.id, passed) for each in found]


# --- resources -------------------------------------------------------------------------------------------


def _judged(call: Call, action: Action, made: Sequence[Resource]) -> list[Resource]:
    found = [each for each in (*_named(call), *made) if each.type in action.types]
    found = list({(each.type, each.id): each for each in found}.values())
    missing = action.required - {each.type for each in found}
    found += [Resource(type_, "*", {}) for type_ in sorted(missing)]
    # A call that names no resource is evaluated on one without tags.
    return found or [Resource(next(iter(action.types)), "*", {})]


def _made(call: Call, action: Action) -> list[Resource]:
    """Return what the call creates, which has no id yet."""
    if call.service == LOAD_BALANCING and call.action in LOAD_BALANCING_MAKES:
        type_ = LOAD_BALANCING_MAKES[call.action]
        return [Resource(type_, "/".join(filter(None, (call.value("Name"), "*"))), {})]
    if call.service == ACM and call.action in ("ImportCertificate", "RequestCertificate"):
        return [] if call.value("CertificateArn") else [Resource("certificate", "*", {})]
    if call.service != EC2:
        return []
    named = {each.type for each in _named(call)} - MADE_FROM_THE_SAME.get(call.action, set())
    types = [type_ for type_ in action.types if action.makes(type_) and (type_ not in named or type_ == "key-pair")]
    return [Resource(type_, call.value("KeyName") or "*" if type_ == "key-pair" else "*", {}) for type_ in types]


def _named(call: Call) -> Iterator[Resource]:
    match call.service:
        case "acm":
            if arn := call.value("CertificateArn"):
                found = acm_backends[DEFAULT_ACCOUNT_ID][call.region]._certificates.get(arn)
                yield Resource("certificate", arn, dict(found.tags) if found else {})
        case "ec2":
            yield from _of_ec2(call)
        case "elasticloadbalancing":
            yield from _of_load_balancing(call)
        case "route53":
            kind = "change" if call.action == "GetChange" else "hostedzone"
            names = ("Id", "ResourceId")
            yield from (Resource(kind, each.value, {}) for each in call.parameters if each.name in names)


def _of_load_balancing(call: Call) -> Iterator[Resource]:
    tags = elbv2_backends[DEFAULT_ACCOUNT_ID][call.region].tagging_service
    for parameter in call.parameters:
        found = re.fullmatch(r"arn:aws:elasticloadbalancing:[^:]*:\d+:(targetgroup|[a-z-]+/net)/.*", parameter.value)
        if found:
            yield Resource(found[1], parameter.value, tags.get_tag_dict_for_resource(parameter.value))


def _of_ec2(call: Call) -> Iterator[Resource]:
    backend = ec2_backends[DEFAULT_ACCOUNT_ID][call.region]
    ids: list[str] = []
    if (source := call.value("SourceSnapshotId")) and (region := call.value("SourceRegion")):
        there = ec2_backends[DEFAULT_ACCOUNT_ID][region]
        snapshot = there.snapshots.get(source)
        owner = str(snapshot.owner_id) if snapshot else ""
        yield Resource("snapshot", f"arn:aws:ec2:{region}::snapshot/{source}", dict(there.tags.get(source, {})), owner)
        return
    for parameter in call.parameters:
        if not NOT_JUDGED.fullmatch(parameter.name) and re.fullmatch(r"[a-z-]+-[0-9a-f]+", parameter.value):
            ids += _meant(backend, call, parameter.value)
    for each in dict.fromkeys(ids):
        if type_ := PREFIXES.get(each.rpartition("-")[0]):
            image = backend.amis.get(each)
            # The alias of the owner, if it has one (EC2 User Guide, "Example policies to control access": amazon).
            owner = str(image.owner_alias or image.owner_id) if image else ""
            yield Resource(type_, each, dict(backend.tags.get(each, {})), owner)
    if name := call.value("KeyName"):
        pair = backend.key_pairs.get(name)
        yield Resource("key-pair", name, dict(backend.tags.get(pair.id, {})) if pair else {})


def _names_what_has_ended(call: Call) -> bool:
    """Whether it names an association or attachment that does not exist. Then there is nothing to evaluate or change,
    and AWS responds that it was not found, for example if a machine is terminated while its interface is detached.
    """
    if call.service != EC2:
        return False
    backend = ec2_backends[DEFAULT_ACCOUNT_ID][call.region]
    links = [each.value for each in call.parameters if each.value.rpartition("-")[0] in LINKS]
    return any(not _meant(backend, call, each) for each in links)


def _meant(backend: Any, call: Call, identifier: str) -> list[str]:
    """Return the ids of the resources that an id of a call stands for."""
    meant = [identifier]
    match identifier.rpartition("-")[0]:
        case "eipassoc":
            held = [each for each in backend.addresses if each.association_id == identifier]
            meant = [each.allocation_id for each in held] + [each.eni.id for each in held if each.eni]
        case "rtbassoc":
            meant = [
                each
                for table in backend.route_tables.values()
                if identifier in table._associations
                for each in (table.id, table._associations[identifier])
            ]
        case "eni-attach":
            attached = [each for each in backend.enis.values() if each.attachment_id == identifier]
            meant = [each.id for each in attached] + [each.instance.id for each in attached if each.instance]
        case "iip-assoc":
            held = backend.iam_instance_profile_associations.values()
            meant = [each.instance.id for each in held if each.association_id == identifier]
        case "eni" if call.action == "RunInstances" and identifier in backend.enis:
            interface = backend.enis[identifier]
            meant = [identifier, interface.subnet.id, *(group.id for group in interface._group_set)]
        case "vol" if call.action == "DetachVolume" and identifier in backend.volumes:
            attachment = backend.volumes[identifier].attachment
            meant = [identifier, *([attachment.instance.id] if attachment else [])]
    return meant
