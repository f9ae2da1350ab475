"""What the policies for `up` allow and deny, evaluated as AWS does (lab/cloud/permissions).

A user who can stop a machine, change its user data and start it again is root there, with the machine's role. So a
policy without resource restrictions would compromise the region.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto import mock_aws

from lab.cloud import permissions
from lab.cloud.permissions.policies import Asked, allowed
from lab.cloud.permissions.reference import actions
from lab.tests.cloud import over_http, settle
from recovery import catalogue, copies
from recovery.catalogue import Pair
from recovery.drill import COPY
from tests.conftest import openssh_pair
from tests.policies import FIRST_UP, NAMES, PREVIEW, RESTORE, UP, filled

REGION, STACK, OTHER = NAMES["REGION"], NAMES["STACK"], "gitlab/prod"

# --- every action on every resource type ------------------------------------------------------------------

UNTAGGED = {
    ("acm:AddTagsToCertificate", "certificate"): "ACM requires it for the tags of a new certificate, which has none",
    ("acm:ImportCertificate", "certificate"): "AWS accepts tags for a new certificate only, which has none",
    ("ec2:RunInstances", "image"): "images have other owners, which are checked instead",
    ("ec2:RunInstances", "network-interface"): "AWS does not check the tags of an interface at launch",
    ("ec2:RunInstances", "volume"): "the provider tags root volumes with a second call",
    ("route53:ChangeResourceRecordSets", "hostedzone"): "AWS checks the record's name and type, not a zone's tags",
}
"""Writing actions that depend on no tag, and why. Actions of IAM depend on names, which the policies contain."""

FIRST_TAGS = {
    ("ec2:CreateTags", "volume"): "root-volume",
    ("ec2:CreateTags", "security-group"): "default-group",
}
"""Resources that may get the stack's tag when they have none, and the suffix of that tag's value."""

NAMED = {action for policy in filled(FIRST_UP) for statement in policy["Statement"] for action in statement["Action"]}
CHANGING = {name: action for name, action in actions().items() if name in NAMED and not action.reads}
JUDGED = [(name, type_) for name, action in CHANGING.items() for type_ in action.types]


def asked(name: str, type_: str, keys: Mapping[str, str]) -> Asked:
    account = "" if type_ in ("image", "snapshot") else NAMES["ACCOUNT"]
    resource = f"arn:aws:{name.partition(':')[0]}:{REGION}:{account}:{type_}/x/1"
    known = {"aws:RequestedRegion": REGION, **keys}
    return Asked(name, resource, {key: [value] for key, value in known.items()})


def tags(kind: str, value: str | None) -> dict[str, str]:
    return {f"aws:{kind}/gitlab-stack": value} if value else {}


def makes(name: str, type_: str) -> bool:
    made = {
        "elasticloadbalancing:CreateLoadBalancer": "loadbalancer/net",
        "elasticloadbalancing:CreateTargetGroup": "targetgroup",
    }
    return made.get(name) == type_ or (name.startswith("ec2:") and CHANGING[name].makes(type_))


def test_the_reference_has_every_changing_action_of_the_policies():
    assert {name for name in NAMED if not name.startswith("iam:")} <= set(actions())
    assert len(JUDGED) > 100


OF_TAGS = {
    (name, type_)
    for name, type_ in JUDGED
    if name in ("ec2:CreateTags", "ec2:DeleteTags") and type_ not in ("image", "snapshot")
}
GROUP = "security-group"
OF_LATE = {
    "root-volume": OF_TAGS | {("ec2:ModifyVolume", "volume")},
    "default-group": OF_TAGS | {("ec2:RevokeSecurityGroupEgress", GROUP), ("ec2:RevokeSecurityGroupIngress", GROUP)},
}
"""Actions on resources tagged that way, which may be a third party's: none that opens or captures the resource."""


def changes(owner: str | None) -> set[tuple[str, str]]:
    """Actions that may change or create a resource with that owner's tag, regardless of the tags in the request."""
    policies = filled(FIRST_UP)
    found = set()
    for name, type_ in JUDGED:
        said = [tags("RequestTag", owner)]
        if not makes(name, type_):
            said = [{**tags("ResourceTag", owner), **tags("RequestTag", each)} for each in (None, STACK, OTHER)]
        if any(allowed(policies, asked(name, type_, keys)) for keys in said):
            found.add((name, type_))
    return found


@pytest.mark.parametrize("owner", [None, OTHER, f"{STACK}/else", "gitlab/dev2", "GITLAB/DEV"])
def test_nothing_is_changed_or_made_that_is_not_marked_as_the_stacks(owner):
    assert changes(owner) <= set(UNTAGGED)


@pytest.mark.parametrize("late", OF_LATE)
def test_little_is_done_with_what_could_have_been_marked_by_anybody(late):
    assert changes(f"{STACK}/{late}") - set(UNTAGGED) == OF_LATE[late]


def test_what_no_tag_decides_on_is_just_that():
    """Each exception is one in the policies."""
    # The alias of the owner, as for Red Hat's images, or the account of one that has none.
    images = [asked("ec2:RunInstances", "image", {"ec2:Owner": owner}) for owner in ("amazon", NAMES["IMAGE-OWNER"])]
    zone = Asked("route53:ChangeResourceRecordSets", f"arn:aws:route53:::hostedzone/{NAMES['ZONE']}", {})
    assert all(allowed(filled(UP), each) for each in [*images, zone])
    others = {("ec2:RunInstances", "image"), ("route53:ChangeResourceRecordSets", "hostedzone")}
    assert changes(None) == set(UNTAGGED) - others


def test_what_is_the_stacks_is_changed_and_made_with_its_mark():
    needed = {(name, type_) for name, type_ in JUDGED if type_ in CHANGING[name].required or makes(name, type_)} - set(
        UNTAGGED
    )
    assert needed <= changes(STACK)


BOUNDARY = f"arn:aws:iam::{NAMES['ACCOUNT']}:policy/gitlab-boundary"
LIMITED = {"iam:PermissionsBoundary": BOUNDARY}
OWN_ROLE = f"arn:aws:iam::{NAMES['ACCOUNT']}:role/{STACK}/gitlab-dev-server"
OTHER_ROLES = [OWN_ROLE.replace(f"{STACK}/", path) for path in ("", f"{OTHER}/", f"{STACK}2/")]


def does(action: str, resource: str, **keys: str) -> bool:
    return allowed(filled(FIRST_UP), Asked(f"iam:{action}", resource, {key: [value] for key, value in keys.items()}))


@pytest.mark.parametrize("action", ["CreateRole", "PutRolePolicy", "DeleteRolePolicy", "PutRolePermissionsBoundary"])
def test_a_role_is_made_and_given_permissions_only_within_the_boundary(action):
    """Otherwise an operator could give a machine's role any permission, and use it as root of that machine."""
    assert does(action, OWN_ROLE, **LIMITED)
    assert not does(action, OWN_ROLE)
    assert not does(action, OWN_ROLE, **{"iam:PermissionsBoundary": BOUNDARY.replace("gitlab-", "no-")})
    assert not [role for role in OTHER_ROLES if does(action, role, **LIMITED)]


@pytest.mark.parametrize("action", ["AttachRolePolicy", "DeleteRolePermissionsBoundary", "UpdateAssumeRolePolicy"])
def test_no_role_gets_other_policies_or_trust_or_loses_its_boundary(action):
    assert not does(action, OWN_ROLE, **LIMITED)


def test_the_stacks_roles_alone_are_given_to_ec2_alone():
    by_ec2 = {"iam:PassedToService": "ec2.amazonaws.com"}
    assert does("PassRole", OWN_ROLE, **by_ec2)
    assert does("PassRole", OWN_ROLE, **{"iam:PassedToService": "ec2.amazonaws.com.cn"})  # EC2's name in China
    assert not does("PassRole", OWN_ROLE)
    assert not does("PassRole", OWN_ROLE, **{"iam:PassedToService": "lambda.amazonaws.com"})
    assert not [role for role in OTHER_ROLES if does("PassRole", role, **by_ec2)]


@pytest.mark.parametrize(
    "action",
    ["AddRoleToInstanceProfile", "CreateInstanceProfile", "DeleteInstanceProfile", "RemoveRoleFromInstanceProfile"],
)
def test_the_stacks_instance_profiles_alone_are_made_and_changed(action):
    own, *others = (role.replace(":role/", ":instance-profile/") for role in (OWN_ROLE, *OTHER_ROLES))
    assert does(action, own)
    assert not [profile for profile in others if does(action, profile)]


def test_the_domain_changes_with_the_policies_of_both():
    """The former record is deleted before the new one is created."""

    def change(record: str) -> Asked:
        keys = {"NormalizedRecordNames": [record], "RecordTypes": ["CNAME" if record.startswith("_") else "A"]}
        names = {f"route53:ChangeResourceRecordSets{key}": values for key, values in keys.items()}
        return Asked("route53:ChangeResourceRecordSets", f"arn:aws:route53:::hostedzone/{NAMES['ZONE']}", names)

    new = "code.example.com"
    both = [*filled(UP), *filled(("up-load-balancer",), DOMAIN=new)]
    for domain in (NAMES["DOMAIN"], new):
        assert allowed(both, change(domain))
        assert allowed(both, change(f"_0123456789abcdef.{domain}"))
    assert not allowed(both, change("www.example.com"))
    assert not allowed(filled(UP), change(new))


def test_an_image_of_somebody_else_is_not_launched():
    assert not allowed(filled(UP), asked("ec2:RunInstances", "image", {"ec2:Owner": NAMES["ACCOUNT"]}))


def test_a_backup_is_restored_with_its_own_policy_and_only_of_the_former_stack():
    owners = (NAMES["FORMER-STACK"], OTHER, STACK, None)
    snapshots = [asked("ec2:CreateVolume", "snapshot", tags("ResourceTag", owner)) for owner in owners]
    assert [allowed(filled(RESTORE), each) for each in snapshots] == [True, False, False, False]
    assert not [each for each in snapshots if allowed(filled(FIRST_UP), each)]


@pytest.mark.parametrize(
    ("owner", "region", "stopped"),
    [
        (NAMES["FORMER-STACK"], NAMES["FORMER-REGION"], True),
        (OTHER, NAMES["FORMER-REGION"], False),
        (NAMES["FORMER-STACK"], "us-east-1", False),
    ],
)
def test_a_restore_stops_the_machines_of_the_former_stack_in_its_region_and_does_nothing_else_to_them(
    owner, region, stopped
):
    arn = f"arn:aws:ec2:{region}:{NAMES['ACCOUNT']}:instance/i-1"
    keys = {"aws:RequestedRegion": [region], "aws:ResourceTag/gitlab-stack": [owner]}
    done = {name for name, type_ in JUDGED if type_ == "instance" and allowed(filled(RESTORE), Asked(name, arn, keys))}
    assert done == ({"ec2:StopInstances"} if stopped else set())


COPYING = (*RESTORE, "recovery", "copy-backup")
AS_BACKUP = {"gitlab-stack": NAMES["FORMER-STACK"], "gitlab-copy-of": "snap-1"}
DRILLING = (*FIRST_UP, "recovery", "drill")
FORMER_REGION = NAMES["FORMER-REGION"]


def copying(given: Mapping[str, str], owner: str = NAMES["ACCOUNT"], region: str = REGION) -> list[Asked]:
    """What CopySnapshot requires on the original, on the copy, and for the tags that are given to the copy."""
    keys = {"aws:RequestedRegion": [region], **{f"aws:RequestTag/{key}": [value] for key, value in given.items()}}
    copy = f"arn:aws:ec2:{region}::snapshot/*"
    return [
        Asked("ec2:CopySnapshot", f"arn:aws:ec2:{FORMER_REGION}::snapshot/snap-1", {**keys, "ec2:Owner": [owner]}),
        Asked("ec2:CopySnapshot", copy, keys),
        Asked("ec2:CreateTags", copy, {**keys, "ec2:CreateAction": ["CopySnapshot"]}),
    ]


@pytest.mark.parametrize(
    ("copy", "expected"),
    [
        (copying(AS_BACKUP), [True, True, True]),
        (copying(AS_BACKUP, owner="999999999999"), [False, True, True]),
        (copying(AS_BACKUP, region="us-east-1"), [True, False, False]),
        (copying({**AS_BACKUP, "gitlab-stack": STACK}), [True, False, False]),
        (copying({"gitlab-stack": NAMES["FORMER-STACK"]}), [True, False, False]),
        (copying({}), [True, False, False]),
    ],
    ids=["a backup", "another account's", "to another region", "as another stack's", "not as a copy", "without tags"],
)
def test_a_backup_is_copied_with_its_own_policy_from_this_account_and_as_a_copy_of_the_former_stacks(copy, expected):
    assert [allowed(filled(COPYING), each) for each in copy] == expected
    assert not any(allowed(filled((*RESTORE, "recovery")), each) for each in copy)


def test_what_allows_the_copy_allows_no_original_and_no_later_tag():
    original, _, tagged = copying(AS_BACKUP, owner="999999999999")
    assert not allowed(filled(COPYING), replace(original, resource=f"arn:aws:ec2:{REGION}::snapshot/snap-1"))
    later = {key: value for key, value in tagged.keys.items() if key != "ec2:CreateAction"}
    assert not allowed(filled(COPYING), replace(tagged, keys=later))


MARK_LATE = [(name, type_, mark) for (name, type_), mark in FIRST_TAGS.items()]


@pytest.mark.parametrize(("name", "type_", "mark"), MARK_LATE)
def test_what_aws_makes_untagged_gets_its_own_mark_once_and_no_other(name, type_, mark):
    first = tags("RequestTag", f"{STACK}/{mark}")
    assert allowed(filled(FIRST_UP), asked(name, type_, first))
    assert not allowed(filled(FIRST_UP), asked(name, type_, tags("RequestTag", STACK)))
    assert not allowed(filled(FIRST_UP), asked(name, type_, {**first, **tags("ResourceTag", OTHER)}))
    others = {each for other, each in JUDGED if other == name} - {type_}
    assert not [each for each in others if allowed(filled(FIRST_UP), asked(name, each, first))]


def test_a_group_gets_its_first_mark_in_the_first_up_only():
    first = tags("RequestTag", f"{STACK}/default-group")
    assert not allowed(filled(UP), asked("ec2:CreateTags", "security-group", first))


MARK = tags("RequestTag", STACK)


def test_a_certificate_gets_its_first_mark_in_the_first_up_only_and_loses_none():
    name = "acm:AddTagsToCertificate"
    assert allowed(filled(FIRST_UP), asked(name, "certificate", MARK))
    assert not allowed(filled(UP), asked(name, "certificate", MARK))
    assert not allowed(filled(FIRST_UP), asked(name, "certificate", {**MARK, **tags("ResourceTag", OTHER)}))


@pytest.mark.parametrize(
    ("keys", "names", "allowed_"),
    [
        (MARK, ["git.example.com"], True),
        ({}, ["git.example.com"], False),
        (tags("RequestTag", OTHER), ["git.example.com"], False),
        (MARK, ["git.example.com", "www.example.com"], False),
        (MARK, ["example.com"], False),
        ({**MARK, "aws:RequestedRegion": "us-east-1"}, ["git.example.com"], False),
    ],
    ids=["the domain's", "without a mark", "another stack's", "a second name", "another name", "another region"],
)
def test_a_certificate_is_requested_for_the_domain_alone(keys, names, allowed_):
    known = {key: [value] for key, value in {"aws:RequestedRegion": REGION, **keys}.items()}
    request = Asked("acm:RequestCertificate", "*", {**known, "acm:DomainNames": names})
    assert allowed(filled(UP), request) == allowed_


@pytest.mark.parametrize("name", ["ec2:CreateTags", "ec2:DeleteTags"])
@pytest.mark.parametrize("owner", [STACK, f"{STACK}/root-volume", f"{STACK}/default-group"])
def test_tags_of_what_is_the_stacks_change_but_for_the_mark(name, owner):
    keys = {"aws:RequestedRegion": [REGION], "aws:ResourceTag/gitlab-stack": [owner]}
    arn = f"arn:aws:ec2:{REGION}:{NAMES['ACCOUNT']}:volume/vol-1"
    assert allowed(filled(UP), Asked(name, arn, {**keys, "aws:TagKeys": ["Name", "Team"]}))
    marked = {**keys, "aws:TagKeys": ["Name", "gitlab-stack"], "aws:RequestTag/gitlab-stack": [STACK]}
    assert not allowed(filled(FIRST_UP), Asked(name, arn, marked))


# --- resources of this stack, of another stack, and without an owner ---------------------------------------


@dataclass(frozen=True)
class Place:
    """A network with a machine behind a load balancer, all of one owner, and that owner's tags."""

    tags: list[dict[str, str]]
    vpc: str
    subnet: str
    group: str
    routes: str
    gateway: str
    interface: str
    spare: str
    address: str
    key: str
    machine: str
    volume: str
    attached: str
    image: str
    balancer: str
    listener: str
    targets: str


def specification(kind: str, mark: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": mark}] if mark else []


def build(api: str, owner: str | None) -> Place:
    ec2, elb = client(api, "ec2", "root"), client(api, "elbv2", "root")
    name = (owner or "nobodys").replace("/", "-")
    mark = [{"Key": "gitlab-stack", "Value": owner}] if owner else []
    number = 41 + len(ec2.describe_vpcs()["Vpcs"])  # the lab has no VPCs with overlapping ranges
    vpc = ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.{number}.0.0/24", AvailabilityZone=f"{REGION}a")["Subnet"][
        "SubnetId"
    ]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    routes = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    group = ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
    interface, spare = (
        ec2.create_network_interface(SubnetId=subnet, Groups=[group])["NetworkInterface"]["NetworkInterfaceId"]
        for _ in range(2)
    )
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    public = openssh_pair()[0]
    marks = specification("key-pair", mark)
    key = ec2.import_key_pair(KeyName=name, PublicKeyMaterial=public, TagSpecifications=marks)["KeyName"]
    image = ec2.describe_images(Owners=[NAMES["IMAGE-OWNER"]])["Images"][0]["ImageId"]
    machine = ec2.run_instances(
        ImageId=image,
        InstanceType="t3.small",
        KeyName=key,
        MinCount=1,
        MaxCount=1,
        NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": interface}],
        UserData="#!/bin/sh",
    )["Instances"][0]["InstanceId"]
    volume, attached = (
        ec2.create_volume(Size=1, AvailabilityZone=f"{REGION}a", VolumeType="gp3")["VolumeId"] for _ in range(2)
    )
    marked = {"Tags": mark} if mark else {}
    balancer = elb.create_load_balancer(Name=name, Type="network", Subnets=[subnet], **marked)
    balancer_arn = balancer["LoadBalancers"][0]["LoadBalancerArn"]
    targets = elb.create_target_group(Name=name, Protocol="TCP", Port=80, VpcId=vpc, **marked)
    targets_arn = targets["TargetGroups"][0]["TargetGroupArn"]
    listener = elb.create_listener(
        LoadBalancerArn=balancer_arn,
        Protocol="TCP",
        Port=80,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": targets_arn}],
        **marked,
    )["Listeners"][0]["ListenerArn"]
    ids = [vpc, subnet, gateway, routes, group, interface, spare, address, machine, volume, attached]
    if mark:
        ec2.create_tags(Resources=ids, Tags=mark)
    return Place(
        tags=mark,
        vpc=vpc,
        subnet=subnet,
        group=group,
        routes=routes,
        gateway=gateway,
        interface=interface,
        spare=spare,
        address=address,
        key=key,
        machine=machine,
        volume=volume,
        attached=attached,
        image=image,
        balancer=balancer_arn,
        listener=listener,
        targets=targets_arn,
    )


OPEN = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
SHELL = "#cloud-boothook"


def _launch(own: Place, **there: Any) -> dict[str, Any]:
    specifications = specification("instance", own.tags)
    basics = {"ImageId": own.image, "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1}
    return {**basics, "TagSpecifications": specifications, **there}


def _opened(own: Place, it: Place) -> dict[str, Any]:
    given = specification("security-group-rule", own.tags)
    return {"GroupId": it.group, "IpPermissions": OPEN, "TagSpecifications": given}


Deed = tuple[str, str, Any]
"""A service, its operation, and the arguments for the operator's own place and the target place."""

DEEDS: dict[str, Deed] = {
    "stop": ("ec2", "stop_instances", lambda own, it: {"InstanceIds": [it.machine]}),
    "user data": (
        "ec2",
        "modify_instance_attribute",
        lambda own, it: {"InstanceId": it.machine, "UserData": {"Value": SHELL}},
    ),
    "start": ("ec2", "start_instances", lambda own, it: {"InstanceIds": [it.machine]}),
    "read user data": (
        "ec2",
        "describe_instance_attribute",
        lambda own, it: {"InstanceId": it.machine, "Attribute": "userData"},
    ),
    "metadata": (
        "ec2",
        "modify_instance_metadata_options",
        lambda own, it: {"InstanceId": it.machine, "HttpTokens": "optional"},
    ),
    "open": ("ec2", "authorize_security_group_ingress", _opened),
    "close": (
        "ec2",
        "revoke_security_group_egress",
        lambda own, it: {"GroupId": it.group, "IpPermissions": [{"IpProtocol": "-1"}]},
    ),
    "groups": (
        "ec2",
        "modify_network_interface_attribute",
        lambda own, it: {"NetworkInterfaceId": it.interface, "Groups": [own.group]},
    ),
    "attach its volume": (
        "ec2",
        "attach_volume",
        lambda own, it: {"VolumeId": it.volume, "InstanceId": own.machine, "Device": "/dev/sdg"},
    ),
    "attach a volume to it": (
        "ec2",
        "attach_volume",
        lambda own, it: {"VolumeId": own.attached, "InstanceId": it.machine, "Device": "/dev/sdh"},
    ),
    "detach": ("ec2", "detach_volume", lambda own, it: {"VolumeId": it.volume, "InstanceId": it.machine}),
    "grow": ("ec2", "modify_volume", lambda own, it: {"VolumeId": it.volume, "Size": 2}),
    "delete a volume": ("ec2", "delete_volume", lambda own, it: {"VolumeId": it.volume}),
    "associate its address": (
        "ec2",
        "associate_address",
        lambda own, it: {"AllocationId": it.address, "NetworkInterfaceId": own.spare},
    ),
    "associate an address with it": (
        "ec2",
        "associate_address",
        lambda own, it: {"AllocationId": own.address, "NetworkInterfaceId": it.spare},
    ),
    "release": ("ec2", "release_address", lambda own, it: {"AllocationId": it.address}),
    "route": (
        "ec2",
        "create_route",
        lambda own, it: {"RouteTableId": it.routes, "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": own.gateway},
    ),
    "route its subnet": (
        "ec2",
        "associate_route_table",
        lambda own, it: {"RouteTableId": own.routes, "SubnetId": it.subnet},
    ),
    "detach the gateway": (
        "ec2",
        "detach_internet_gateway",
        lambda own, it: {"InternetGatewayId": it.gateway, "VpcId": it.vpc},
    ),
    "an interface in it": (
        "ec2",
        "create_network_interface",
        lambda own, it: {"SubnetId": it.subnet, "TagSpecifications": specification("network-interface", own.tags)},
    ),
    "a subnet in it": (
        "ec2",
        "create_subnet",
        lambda own, it: {
            "VpcId": it.vpc,
            "CidrBlock": "10.42.9.0/24",
            "TagSpecifications": specification("subnet", own.tags),
        },
    ),
    "a machine in it": (
        "ec2",
        "run_instances",
        lambda own, it: _launch(own, SubnetId=it.subnet, SecurityGroupIds=[own.group]),
    ),
    "a machine with its key": (
        "ec2",
        "run_instances",
        lambda own, it: _launch(
            own, KeyName=it.key, NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": own.spare}]
        ),
    ),
    "its key pair": ("ec2", "delete_key_pair", lambda own, it: {"KeyName": it.key}),
    "terminate": ("ec2", "terminate_instances", lambda own, it: {"InstanceIds": [it.machine]}),
    "a listener": (
        "elbv2",
        "create_listener",
        lambda own, it: {
            "LoadBalancerArn": it.balancer,
            "Protocol": "TCP",
            "Port": 81,
            "DefaultActions": [{"Type": "forward", "TargetGroupArn": own.targets}],
            "Tags": own.tags,
        },
    ),
    "its traffic": (
        "elbv2",
        "modify_listener",
        lambda own, it: {
            "ListenerArn": it.listener,
            "DefaultActions": [{"Type": "forward", "TargetGroupArn": own.targets}],
        },
    ),
    "a target": (
        "elbv2",
        "register_targets",
        lambda own, it: {"TargetGroupArn": it.targets, "Targets": [{"Id": own.machine}]},
    ),
    "load balancer attributes": (
        "elbv2",
        "modify_load_balancer_attributes",
        lambda own, it: {
            "LoadBalancerArn": it.balancer,
            "Attributes": [{"Key": "deletion_protection.enabled", "Value": "false"}],
        },
    ),
    "delete a listener": ("elbv2", "delete_listener", lambda own, it: {"ListenerArn": it.listener}),
    "delete a load balancer": ("elbv2", "delete_load_balancer", lambda own, it: {"LoadBalancerArn": it.balancer}),
    "delete a target group": ("elbv2", "delete_target_group", lambda own, it: {"TargetGroupArn": it.targets}),
}

CLAIMS: dict[str, Deed] = {
    "tag a machine": ("ec2", "create_tags", lambda own, it: {"Resources": [it.machine], "Tags": own.tags}),
    "tag a volume": ("ec2", "create_tags", lambda own, it: {"Resources": [it.volume], "Tags": own.tags}),
    "tag a group": ("ec2", "create_tags", lambda own, it: {"Resources": [it.group], "Tags": own.tags}),
    "tag a load balancer": ("elbv2", "add_tags", lambda own, it: {"ResourceArns": [it.balancer], "Tags": own.tags}),
}
"""Attempts to claim a third party's resource."""


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with over_http() as url:
        yield url


CLIENTS: dict[tuple[str, ...], Any] = {}


def client(api: str, service: str, key: str, region: str = REGION) -> Any:
    if (api, service, key, region) not in CLIENTS:
        CLIENTS[api, service, key, region] = boto3.client(
            service, region, endpoint_url=api, aws_access_key_id=key, aws_secret_access_key="lab"
        )
    return CLIENTS[api, service, key, region]


@pytest.fixture
def places(api) -> Iterator[tuple[Place, Place, Place]]:
    """One of the stack, one of another stack, and one of none."""
    with mock_aws():
        yield build(api, STACK), build(api, OTHER), build(api, None)
    permissions.lift(api=api)


def refused(api: str, deed: Deed, own: Place, it: Place) -> bool:
    """Whether the operation is denied because a permission is missing, and for no other reason."""
    service, operation, arguments = deed
    try:
        getattr(client(api, service, "operator"), operation)(**arguments(own, it))
    except ClientError as error:
        return error.response["Error"]["Code"] in ("UnauthorizedOperation", "AccessDenied")
    return False


def former() -> list[dict[str, Any]]:
    """The same actions on all resources, as in an earlier version of the policy."""
    statements = [statement for policy in filled(FIRST_UP) for statement in policy["Statement"]]
    named = sorted({action for statement in statements for action in statement["Action"]})
    return [{"Statement": [{"Effect": "Allow", "Action": named, "Resource": "*"}]}]


def test_nothing_is_done_to_what_is_another_stacks_or_nobodys(api, places):
    """Without conditions all of it is done, so the denials have no other reason."""
    own, another, nobodys = places
    everything = {**DEEDS, **CLAIMS}
    permissions.enforce("operator", filled(FIRST_UP), api=api)
    for it in (another, nobodys):
        assert [name for name, deed in everything.items() if not refused(api, deed, own, it)] == []
    permissions.enforce("operator", former(), api=api)
    assert [name for name, deed in everything.items() if refused(api, deed, own, another)] == []


def test_a_preview_only_reads_what_is_the_stacks_and_up_does_all_of_it(api, places):
    own, another, _ = places
    permissions.enforce("operator", filled(PREVIEW), api=api)
    assert refused(api, DEEDS["read user data"], own, another)
    assert [name for name, deed in DEEDS.items() if not refused(api, deed, own, own)] == ["read user data"]
    permissions.enforce("operator", filled(UP), api=api)
    assert [name for name, deed in DEEDS.items() if refused(api, deed, own, own)] == []


@pytest.mark.parametrize(
    ("service", "operation", "arguments"),
    [
        ("ec2", "create_vpc", {"CidrBlock": "10.9.0.0/16"}),
        ("ec2", "allocate_address", {"Domain": "vpc"}),
        ("ec2", "create_internet_gateway", {}),
        ("ec2", "create_volume", {"Size": 1, "AvailabilityZone": f"{REGION}a", "VolumeType": "gp3"}),
    ],
)
@pytest.mark.parametrize("owner", [None, OTHER, STACK])
def test_what_is_made_is_made_with_the_stacks_mark(api, service, operation, arguments, owner):
    kinds = {
        "create_vpc": "vpc",
        "allocate_address": "elastic-ip",
        "create_internet_gateway": "internet-gateway",
        "create_volume": "volume",
    }
    mark = [{"Key": "gitlab-stack", "Value": owner}] if owner else []
    with mock_aws():
        permissions.enforce("operator", filled(UP), api=api)
        given = {"TagSpecifications": specification(kinds[operation], mark)} if mark else {}
        deed = (service, operation, lambda *_: {**arguments, **given})
        assert refused(api, deed, None, None) == (owner != STACK)  # type: ignore[arg-type]
    permissions.lift(api=api)


DRILL = {"STACK": f"{STACK}-drill", "FORMER-STACK": STACK}
DRILLED = {COPY: DRILL["STACK"]}


@pytest.mark.parametrize(
    ("policies", "names", "tags", "allowed_"),
    [
        (COPYING, {"FORMER-STACK": STACK}, {}, True),
        ((*RESTORE, "recovery"), {"FORMER-STACK": STACK}, {}, False),
        (COPYING, {"FORMER-STACK": OTHER}, {}, False),
        (DRILLING, DRILL, DRILLED, True),
        (DRILLING, DRILL, {}, False),
        (DRILLING, DRILL, {COPY: OTHER}, False),
    ],
    ids=["restore", "without its policy", "another stack", "drill", "as a backup", "as another drill's"],
)
def test_a_backup_is_copied_to_another_region_by_those_who_may(api, monkeypatch, policies, names, tags, allowed_):
    """With the calls of `make restore REGION=` and of `make drill REGION=`."""
    monkeypatch.setattr("time.sleep", lambda _: settle())
    with mock_aws():
        source, target = (client(api, "ec2", "operator", region) for region in (FORMER_REGION, REGION))
        pair = backup(client(api, "ec2", "root", FORMER_REGION))
        permissions.enforce("operator", filled(policies, **names), api=api)
        if allowed_:
            copied = copies.copy_pair(pair, source, target, tags=tags)
            assert (copied.server.state, copied.registry.region) == ("completed", REGION)
        else:
            with pytest.raises(ClientError, match=r"UnauthorizedOperation.*CopySnapshot"):
                copies.copy_pair(pair, source, target, tags=tags)
    permissions.lift(api=api)


def backup(ec2: Any) -> Pair:
    """A backup of the stack STACK."""
    for role in ("server", "registry"):
        volume = ec2.create_volume(AvailabilityZone=f"{FORMER_REGION}a", Size=1)["VolumeId"]
        known = {"gitlab-stack": STACK, "gitlab-role": role, "gitlab-backup": "20261127T230004Z"}
        given = [{"Key": key, "Value": value} for key, value in known.items()]
        ec2.create_snapshot(VolumeId=volume, TagSpecifications=specification("snapshot", given))
    settle()
    return catalogue.find(catalogue.pairs(catalogue.snapshots(ec2, STACK)))


@pytest.mark.parametrize(
    ("name", "kind", "refused_"),
    [
        ("git.example.com", "A", False),
        ("GIT.example.com.", "A", False),
        ("example.com", "A", True),
        ("www.git.example.com", "A", True),
        ("git.example.com", "MX", True),
        ("git.example.com", "NS", True),
        ("_0123.git.example.com.", "CNAME", False),
        ("_0123.git.example.com", "A", True),
        ("_0123.example.com", "CNAME", True),
        ("www.git.example.com", "CNAME", True),
        ("git.example.com", "CNAME", True),
    ],
)
def test_of_the_hosted_zone_the_domains_records_are_changed(api, name, kind, refused_):
    with mock_aws():
        zone = client(api, "route53", "root").create_hosted_zone(Name="example.com.", CallerReference="1")
        zone_id = zone["HostedZone"]["Id"].rpartition("/")[2]
        permissions.enforce("operator", filled(UP, ZONE=zone_id), api=api)
        record = {"Name": name, "Type": kind, "TTL": 300, "ResourceRecords": [{"Value": "192.0.2.1"}]}
        batch = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
        arguments = {"HostedZoneId": zone_id, "ChangeBatch": batch}
        deed: Deed = ("route53", "change_resource_record_sets", lambda *_: arguments)
        assert refused(api, deed, None, None) == refused_  # type: ignore[arg-type]
    permissions.lift(api=api)
