"""Policies as AWS evaluates them: the rules one by one, what a call requires, and the responses of the API."""

import json
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto import mock_aws
from moto.acm.models import acm_backends

from lab.cloud import calls, credentials, permissions
from lab.cloud.patches import state
from lab.cloud.patches.certificates import put
from lab.cloud.permissions import reference, requests
from lab.cloud.permissions.policies import Asked, allowed
from lab.tests import cloud

REGION, ACCOUNT = "eu-central-1", "123456789012"
INSTANCE = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-1"


def statement(effect="Allow", action="ec2:StopInstances", resource="*", **condition):
    made = {"Effect": effect, "Action": action, "Resource": resource}
    return {**made, "Condition": condition} if condition else made


def judged(*statements, action="ec2:StopInstances", resource=INSTANCE, **keys):
    return allowed([{"Statement": [each]} for each in statements], Asked(action, resource, keys))


# --- statements ------------------------------------------------------------------------------------------


def test_what_no_statement_allows_is_refused():
    assert judged(statement())
    assert not judged()
    assert not judged(statement(), action="ec2:StartInstances")
    assert not judged(statement(resource=INSTANCE), resource="arn:aws:ec2:eu-central-1:123456789012:instance/i-12")


def test_one_denial_outweighs_everything_that_allows():
    assert not judged(statement(), statement("Deny"))
    assert judged(statement(), statement("Deny", action="ec2:StartInstances"))


def test_actions_and_resources_have_wildcards_and_only_actions_are_of_any_case():
    assert judged(statement(action="EC2:stop*"))
    assert judged(statement(resource="arn:aws:ec2:*:*:instance/?-1"))
    assert not judged(statement(resource="arn:aws:ec2:*:*:volume/*"))
    assert not judged(statement(resource=INSTANCE.upper()))
    # A dot is not a wildcard.
    assert not judged(statement(resource="a.c"), resource="abc")


def test_a_character_in_braces_is_no_wildcard_and_other_variables_are_an_error():
    snapshot = "arn:aws:ec2:*::snapshot/"
    assert judged(statement(resource=snapshot + "${*}"), resource="arn:aws:ec2:eu-west-1::snapshot/*")
    assert not judged(statement(resource=snapshot + "${*}"), resource="arn:aws:ec2:eu-west-1::snapshot/snap-1")
    assert judged(statement(resource="a${?}${$}b"), resource="a?$b")
    assert not judged(statement(resource="a${?}${$}b"), resource="ac$b")
    with pytest.raises(ValueError, match=r"variable in .* is not supported"):
        judged(statement(resource=snapshot + "${aws:username}"))


def test_an_action_that_knows_no_resource_is_not_allowed_on_some():
    assert judged(statement(action="ec2:DescribeVpcs"), action="ec2:DescribeVpcs", resource="*")
    some = statement(action="ec2:DescribeVpcs", resource=f"arn:aws:ec2:{REGION}:{ACCOUNT}:*/*")
    assert not judged(some, action="ec2:DescribeVpcs", resource="*")


def test_all_conditions_of_a_statement_have_to_hold_and_one_value_of_each():
    both = statement(StringEquals={"aws:RequestedRegion": "a", "aws:ResourceTag/t": ["x", "y"]})
    assert judged(both, **{"aws:RequestedRegion": ["a"], "aws:ResourceTag/t": ["y"]})
    assert not judged(both, **{"aws:RequestedRegion": ["b"], "aws:ResourceTag/t": ["y"]})
    assert not judged(both, **{"aws:RequestedRegion": ["a"]})


TAG = "aws:ResourceTag/t"


@pytest.mark.parametrize(
    ("operator", "expected", "keys", "holds"),
    [
        ("StringEquals", "x", {TAG: ["x"]}, True),
        ("StringEquals", "x", {TAG: ["X"]}, False),
        ("StringEquals", "x*", {TAG: ["xy"]}, False),
        ("StringEquals", "x", {}, False),
        ("StringEqualsIfExists", "x", {}, True),
        ("StringEqualsIfExists", "x", {TAG: ["y"]}, False),
        ("StringNotEquals", "x", {TAG: ["y"]}, True),
        ("StringNotEquals", "x", {TAG: ["x"]}, False),
        ("StringNotEquals", "x", {}, True),
        ("StringLike", "x*", {TAG: ["xy"]}, True),
        ("StringLike", "x*", {TAG: ["yx"]}, False),
        ("NumericEquals", "56", {TAG: ["56"]}, True),
        ("NumericEquals", "56", {TAG: ["57"]}, False),
        ("NumericEquals", "56", {}, False),
        ("NumericLessThanEquals", "60", {TAG: ["60"]}, True),
        ("NumericLessThanEquals", 60, {TAG: ["7"]}, True),
        ("NumericLessThanEquals", "60", {TAG: ["61"]}, False),
        ("NumericLessThanEquals", "60", {}, False),
        ("Null", "true", {}, True),
        ("Null", "true", {TAG: ["x"]}, False),
        ("Null", "false", {TAG: [""]}, True),
        ("Null", "false", {}, False),
        ("ForAllValues:StringEquals", ["x", "y"], {TAG: ["x", "y"]}, True),
        ("ForAllValues:StringEquals", ["x", "y"], {TAG: ["x", "z"]}, False),
        ("ForAllValues:StringEquals", "x", {}, True),
        ("ForAllValues:StringNotEquals", "x", {TAG: ["y", "z"]}, True),
        ("ForAllValues:StringNotEquals", "x", {TAG: ["y", "x"]}, False),
        ("ForAnyValue:StringEquals", "x", {TAG: ["y", "x"]}, True),
        ("ForAnyValue:StringEquals", "x", {TAG: ["y"]}, False),
        ("ForAnyValue:StringEquals", "x", {}, False),
        ("ForAnyValue:StringNotEquals", "x", {}, False),
    ],
)
def test_a_condition(operator, expected, keys, holds):
    assert judged(statement(**{operator: {TAG: expected}}), **keys) == holds


def test_keys_are_of_any_case_and_a_tag_that_is_there_in_two_cases_equals_nothing():
    condition = statement(StringEquals={TAG: "x"})
    assert judged(condition, **{"aws:resourcetag/T": ["x"]})
    assert not judged(condition, **{"aws:ResourceTag/t": ["x"], "aws:ResourceTag/T": ["y"]})


@pytest.mark.parametrize(
    "wrong",
    [
        statement(NumericGreaterThan={TAG: "1"}),
        statement(**{"ForSomeValues:StringEquals": {TAG: "1"}}),
        statement(Null={TAG: "yes"}),
        statement(StringLike={TAG: "${aws:username}"}),
        {"Effect": "Allow", "NotAction": "ec2:StopInstances", "Action": "*", "Resource": "*"},
        statement("Permit"),
    ],
)
def test_what_is_not_understood_is_an_error_and_no_permission(wrong):
    with pytest.raises(ValueError, match=r"not supported|Allow or Deny"):
        judged(wrong, **{TAG: ["1"]})


@pytest.mark.parametrize("condition", [{"NumericGreaterThan": {TAG: "1"}}, {"StringLike": {TAG: "${aws:username}"}}])
def test_what_is_not_understood_is_an_error_although_the_statement_is_about_another_action(condition):
    with pytest.raises(ValueError, match="not supported"):
        judged(statement(action="ec2:StartInstances", **condition))


# --- what a call requires --------------------------------------------------------------------------------


@pytest.fixture
def ec2():
    with mock_aws():
        yield cloud.client("ec2")


def call(permission, *parameters):
    service, _, action = permission.partition(":")
    return calls.Call(service, action, calls._parameters(parameters), REGION, "lab")


def asked(permission, *parameters):
    """Return the condition keys, by action and the part of the ARN after the account."""
    return {
        (each.action.partition(":")[2], each.resource.split(":", 5)[-1]): {
            key: list(values)
            for key, values in each.keys.items()
            if key != "aws:RequestedRegion" and not key.startswith("ec2:ResourceTag/")
        }
        for each in requests.asked(call(permission, *parameters))
    }


def tagged(kind, key="t", value="x"):
    return [
        ("TagSpecification.1.ResourceType", kind),
        ("TagSpecification.1.Tag.1.Key", key),
        ("TagSpecification.1.Tag.1.Value", value),
    ]


def test_an_action_that_knows_no_resources_asks_for_none_and_names_its_region():
    [each] = requests.asked(call("ec2:DescribeVolumes", ("VolumeId.1", "vol-0123456789abcdef0")))
    assert (each.resource, each.keys) == ("*", {"aws:RequestedRegion": [REGION]})


def test_what_is_not_in_the_reference_is_asked_for_all_the_same():
    assert asked("ec2:CopyImage", ("SourceImageId", "ami-0123456789abcdef0")) == {("CopyImage", "*"): {}}


def test_what_is_changed_has_the_tags_that_it_has(ec2):
    [vpc] = [ec2.create_vpc(CidrBlock="10.42.0.0/16")["Vpc"]["VpcId"]]
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "t", "Value": "x"}])
    assert asked("ec2:DeleteVpc", ("VpcId", vpc)) == {("DeleteVpc", f"vpc/{vpc}"): {"aws:ResourceTag/t": ["x"]}}
    assert asked("ec2:DeleteVpc", ("VpcId", "vpc-0123456789abcdef0")) == {
        ("DeleteVpc", "vpc/vpc-0123456789abcdef0"): {}
    }


def test_every_resource_of_a_call_is_judged(ec2):
    vpc = ec2.create_vpc(CidrBlock="10.42.0.0/16")["Vpc"]["VpcId"]
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "t", "Value": "x"}])
    assert asked("ec2:CreateSubnet", ("VpcId", vpc), *tagged("subnet", value="y")) == {
        ("CreateSubnet", f"vpc/{vpc}"): {"aws:ResourceTag/t": ["x"]},
        ("CreateSubnet", "subnet/*"): {"aws:RequestTag/t": ["y"], "aws:TagKeys": ["t"]},
        ("CreateTags", "subnet/*"): {
            "aws:RequestTag/t": ["y"],
            "aws:TagKeys": ["t"],
            "ec2:CreateAction": ["CreateSubnet"],
        },
    }


def test_what_is_made_without_tags_is_judged_and_tags_for_something_else_are_not_its_own():
    nothing: dict[tuple[str, str], dict[str, list[str]]] = {("CreateVolume", "volume/*"): {"aws:TagKeys": []}}
    assert asked("ec2:CreateVolume") == nothing
    assert asked("ec2:CreateVolume", *tagged("snapshot")) == nothing


def test_a_machine_is_launched_from_an_image_on_an_interface_in_a_subnet_with_groups_and_a_key_and_a_volume(ec2):
    vpc = ec2.create_vpc(CidrBlock="10.42.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.42.0.0/24")["Subnet"]["SubnetId"]
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]
    ec2.create_tags(Resources=[interface["NetworkInterfaceId"], subnet], Tags=[{"Key": "t", "Value": "x"}])
    image = ec2.describe_images(Owners=["309956199498"])["Images"][0]["ImageId"]
    ec2.create_key_pair(
        KeyName="admins", TagSpecifications=[{"ResourceType": "key-pair", "Tags": [{"Key": "t", "Value": "k"}]}]
    )
    found = asked(
        "ec2:RunInstances",
        ("ImageId", image),
        ("KeyName", "admins"),
        ("NetworkInterface.1.NetworkInterfaceId", interface["NetworkInterfaceId"]),
        *tagged("instance"),
    )
    made = {"aws:RequestTag/t": ["x"], "aws:TagKeys": ["t"]}
    assert found == {
        ("RunInstances", f"image/{image}"): {"ec2:Owner": ["amazon"]},
        # AWS does not evaluate the tags of an interface here.
        ("RunInstances", f"network-interface/{interface['NetworkInterfaceId']}"): {"aws:TagKeys": []},
        ("RunInstances", f"subnet/{subnet}"): {"aws:ResourceTag/t": ["x"]},
        ("RunInstances", f"security-group/{interface['Groups'][0]['GroupId']}"): {},
        ("RunInstances", "key-pair/admins"): {"aws:ResourceTag/t": ["k"]},
        ("RunInstances", "instance/*"): made,
        ("RunInstances", "volume/*"): {"aws:TagKeys": []},
        ("CreateTags", "instance/*"): {**made, "ec2:CreateAction": ["RunInstances"]},
    }


def test_an_association_stands_for_what_it_joins(ec2):
    vpc = ec2.create_vpc(CidrBlock="10.42.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.42.0.0/24")["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    routed = ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
    assert set(asked("ec2:DisassociateRouteTable", ("AssociationId", routed))) == {
        ("DisassociateRouteTable", f"route-table/{table}"),
        ("DisassociateRouteTable", f"subnet/{subnet}"),
    }
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    joined = ec2.associate_address(AllocationId=address, NetworkInterfaceId=interface)["AssociationId"]
    assert set(asked("ec2:DisassociateAddress", ("AssociationId", joined))) == {
        ("DisassociateAddress", f"elastic-ip/{address}"),
        ("DisassociateAddress", f"network-interface/{interface}"),
    }


@pytest.mark.parametrize(
    ("action", "name", "link"),
    [
        ("DetachNetworkInterface", "AttachmentId", "eni-attach-0123456789abcdef0"),
        ("DisassociateAddress", "AssociationId", "eipassoc-0123456789abcdef0"),
        ("DisassociateRouteTable", "AssociationId", "rtbassoc-0123456789abcdef0"),
        ("ReplaceIamInstanceProfileAssociation", "AssociationId", "iip-assoc-0123456789abcdef0"),
    ],
)
def test_of_an_association_that_has_ended_there_is_nothing_to_judge(ec2, action, name, link):
    assert ec2
    assert asked(f"ec2:{action}", (name, link)) == {}


def test_a_rules_peer_is_not_judged_but_the_group_that_gets_the_rule_is():
    found = asked(
        "ec2:AuthorizeSecurityGroupIngress",
        ("GroupId", "sg-0123456789abcdef0"),
        ("IpPermissions.1.Groups.1.GroupId", "sg-0123456789abcdef1"),
    )
    assert set(found) == {
        ("AuthorizeSecurityGroupIngress", "security-group/sg-0123456789abcdef0"),
        ("AuthorizeSecurityGroupIngress", "security-group-rule/*"),
    }


def test_what_a_call_leaves_out_is_judged_as_something_without_tags():
    assert asked("ec2:ReleaseAddress", ("PublicIp", "192.0.2.1")) == {("ReleaseAddress", "elastic-ip/*"): {}}


def test_a_key_pair_is_called_by_its_name_or_its_id(ec2):
    mark = [{"ResourceType": "key-pair", "Tags": [{"Key": "t", "Value": "x"}]}]
    made = ec2.create_key_pair(KeyName="admins", TagSpecifications=mark)["KeyPairId"]
    known = {"aws:ResourceTag/t": ["x"]}
    assert asked("ec2:DeleteKeyPair", ("KeyName", "admins")) == {("DeleteKeyPair", "key-pair/admins"): known}
    assert asked("ec2:DeleteKeyPair", ("KeyPairId", made)) == {("DeleteKeyPair", f"key-pair/{made}"): known}
    tagged_ = asked("ec2:DeleteTags", ("ResourceId.1", made), ("Tag.1.Key", "u"))
    assert tagged_[("DeleteTags", f"key-pair/{made}")]["aws:ResourceTag/t"] == ["x"]


def test_tags_that_are_set_and_taken_are_known_beside_those_there_are(ec2):
    vpc = ec2.create_vpc(CidrBlock="10.42.0.0/16")["Vpc"]["VpcId"]
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "t", "Value": "x"}])
    sent = [("ResourceId.1", vpc), ("Tag.1.Key", "t"), ("Tag.1.Value", "y")]
    known = {"aws:RequestTag/t": ["y"], "aws:ResourceTag/t": ["x"], "aws:TagKeys": ["t"]}
    assert asked("ec2:CreateTags", *sent) == {("CreateTags", f"vpc/{vpc}"): known}
    assert asked("ec2:DeleteTags", *sent) == {("DeleteTags", f"vpc/{vpc}"): known}


def test_load_balancing_names_by_arn_and_a_listener_is_made_of_a_load_balancer():
    balancer = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:loadbalancer/net/front/1"
    group = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:targetgroup/web/1"
    tags = [("Tags.member.1.Key", "t"), ("Tags.member.1.Value", "x")]
    given = {"aws:RequestTag/t": ["x"], "aws:TagKeys": ["t"]}
    with mock_aws():
        made = asked(
            "elasticloadbalancing:CreateListener",
            ("LoadBalancerArn", balancer),
            ("DefaultActions.member.1.TargetGroupArn", group),
            *tags,
        )
        named = asked("elasticloadbalancing:CreateTargetGroup", ("Name", "web"), *tags)
        plain = asked("elasticloadbalancing:DeleteTargetGroup", ("TargetGroupArn", group))
    assert made == {
        ("CreateListener", "loadbalancer/net/front/1"): given,
        ("AddTags", "listener/net/*"): {**given, "elasticloadbalancing:CreateAction": ["CreateListener"]},
    }
    assert named == {
        ("CreateTargetGroup", "targetgroup/web/*"): given,
        ("AddTags", "targetgroup/web/*"): {**given, "elasticloadbalancing:CreateAction": ["CreateTargetGroup"]},
    }
    assert plain == {("DeleteTargetGroup", "targetgroup/web/1"): {}}


def test_a_requested_certificate_is_judged_by_its_tags_and_an_existing_one_by_its_own():
    tags = [("Tags.1.Key", "t"), ("Tags.1.Value", "x")]
    given = {"aws:RequestTag/t": ["x"], "aws:TagKeys": ["t"]}
    certificate = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/1"
    with mock_aws():
        requested = asked("acm:RequestCertificate", ("DomainName", "git.example.com"), *tags)
        imported = asked("acm:ImportCertificate", *tags)
        listed = asked("acm:ListCertificates")
        put(acm_backends[ACCOUNT][REGION], certificate, ["git.example.com"])
        acm_backends[ACCOUNT][REGION].add_tags_to_certificate(certificate, [{"Key": "t", "Value": "y"}])
        deleted = asked("acm:DeleteCertificate", ("CertificateArn", certificate))
        replaced = asked("acm:ImportCertificate", ("CertificateArn", certificate))
    # AWS's reference has no resource for it, so the policy's resource must be *.
    [each] = [key for key in requested if key[0] == "RequestCertificate"]
    assert (each[1], requested[each]) == ("*", {**given, "acm:DomainNames": ["git.example.com"]})
    assert requested["AddTagsToCertificate", "certificate/*"] == given
    assert imported["ImportCertificate", "certificate/*"] == given
    assert listed == {("ListCertificates", "*"): {}}
    assert deleted == {("DeleteCertificate", "certificate/1"): {"aws:ResourceTag/t": ["y"]}}
    assert replaced == {("ImportCertificate", "certificate/1"): {"aws:ResourceTag/t": ["y"], "aws:TagKeys": []}}


def test_records_are_judged_by_name_and_type_in_lower_case_without_the_dot_at_the_end():
    record = "ChangeBatch.Changes.Change"
    [each] = requests.asked(
        call(
            "route53:ChangeResourceRecordSets",
            ("Id", "Z1"),
            (f"{record}.Action", "UPSERT"),
            (f"{record}.ResourceRecordSet.Name", "Git.Example.com."),
            (f"{record}.ResourceRecordSet.Type", "A"),
        )
    )
    assert each.resource == "arn:aws:route53:::hostedzone/Z1"
    assert each.keys["route53:ChangeResourceRecordSetsNormalizedRecordNames"] == ["git.example.com"]
    assert each.keys["route53:ChangeResourceRecordSetsRecordTypes"] == ["A"]


def test_a_snapshot_is_made_of_a_volume_with_its_own_tags(ec2):
    volume = ec2.create_volume(Size=1, AvailabilityZone=f"{REGION}a")["VolumeId"]
    ec2.create_tags(Resources=[volume], Tags=[{"Key": "t", "Value": "v"}])
    made = {"aws:RequestTag/t": ["x"], "aws:TagKeys": ["t"]}
    found = asked("ec2:CreateSnapshot", ("VolumeId", volume), *tagged("snapshot"))
    assert found == {
        ("CreateSnapshot", f"volume/{volume}"): {"aws:ResourceTag/t": ["v"]},
        ("CreateSnapshot", "snapshot/*"): made,
        ("CreateTags", "snapshot/*"): {**made, "ec2:CreateAction": ["CreateSnapshot"]},
    }


def test_a_copy_of_a_snapshot_needs_its_source_in_its_region_and_the_copy_with_its_own_tags(ec2):
    volume = ec2.create_volume(Size=1, AvailabilityZone=f"{REGION}a")["VolumeId"]
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    sent = call("ec2:CopySnapshot", ("SourceSnapshotId", snapshot), ("SourceRegion", "eu-west-1"), *tagged("snapshot"))
    made = {"aws:RequestTag/t": ["x"], "aws:TagKeys": ["t"], "aws:RequestedRegion": [REGION]}
    own = f"arn:aws:ec2:{REGION}::snapshot/*"
    assert {(each.action, each.resource): dict(each.keys) for each in requests.asked(sent)}.items() >= {
        ("ec2:CopySnapshot", own): made,
        ("ec2:CreateTags", own): {**made, "ec2:CreateAction": ["CopySnapshot"]},
    }.items()
    sources = [each.resource for each in requests.asked(sent) if each.resource != own]
    assert sources == [f"arn:aws:ec2:eu-west-1::snapshot/{snapshot}"]


def test_a_snapshot_that_is_locked_is_judged_by_its_tags_and_the_days(ec2):
    volume = ec2.create_volume(Size=1, AvailabilityZone=f"{REGION}a")["VolumeId"]
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    ec2.create_tags(Resources=[snapshot], Tags=[{"Key": "t", "Value": "x"}])
    sent = call("ec2:LockSnapshot", ("SnapshotId", snapshot), ("LockDuration", "14"))
    [each] = requests.asked(sent)
    assert each.resource == f"arn:aws:ec2:{REGION}::snapshot/{snapshot}"
    known = {"aws:ResourceTag/t": ["x"], "ec2:ResourceTag/t": ["x"], "ec2:SnapshotLockDuration": ["14"]}
    assert each.keys == {"aws:RequestedRegion": [REGION], **known}
    assert asked("ec2:DeleteSnapshot", ("SnapshotId", snapshot)) == {
        ("DeleteSnapshot", f"snapshot/{snapshot}"): {"aws:ResourceTag/t": ["x"]}
    }


# --- IAM -------------------------------------------------------------------------------------------------


@pytest.fixture
def iam():
    with mock_aws():
        yield cloud.client("iam")


def make_profile(iam, name, **role):
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST, **role)
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


TRUST = json.dumps(
    {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
)
PASSED = {"iam:PassedToService": ["ec2.amazonaws.com"]}


def test_roles_profiles_and_policies_are_named_with_their_paths(iam):
    assert iam
    tags = [("Tags.member.1.Key", "t"), ("Tags.member.1.Value", "x")]
    boundary = ("PermissionsBoundary", f"arn:aws:iam::{ACCOUNT}:policy/limits")
    found = asked("iam:CreateRole", ("RoleName", "one"), ("Path", "/gitlab/"), boundary, *tags)
    given = {"aws:RequestTag/t": ["x"], "aws:TagKeys": ["t"]}
    assert found == {("CreateRole", "role/gitlab/one"): {**given, "iam:PermissionsBoundary": [boundary[1]]}}
    iam.create_role(RoleName="two", AssumeRolePolicyDocument=TRUST, Path="/a/", Tags=[{"Key": "t", "Value": "x"}])
    assert asked("iam:PutRolePolicy", ("RoleName", "two"), ("PolicyName", "p")) == {
        ("PutRolePolicy", "role/a/two"): {"aws:ResourceTag/t": ["x"], "aws:TagKeys": []}
    }
    policy = f"arn:aws:iam::{ACCOUNT}:policy/limits"
    assert set(asked("iam:GetPolicy", ("PolicyArn", policy))) == {("GetPolicy", "policy/limits")}
    assert asked("iam:ListRoles") == {("ListRoles", "*"): {}}


def test_what_gives_a_role_to_a_machine_also_passes_the_role(iam, ec2):
    make_profile(iam, "one", Path="/a/")
    profile = ("IamInstanceProfile.Name", "one")
    assert asked("iam:AddRoleToInstanceProfile", ("InstanceProfileName", "one"), ("RoleName", "one")) == {
        ("AddRoleToInstanceProfile", "instance-profile/one"): {"aws:TagKeys": []},
        ("PassRole", "role/a/one"): PASSED,
    }
    assert asked("ec2:RunInstances", profile)["PassRole", "role/a/one"] == PASSED
    machine = ("InstanceId", "i-0123456789abcdef0")
    assert set(asked("ec2:AssociateIamInstanceProfile", machine, profile)) == {
        ("AssociateIamInstanceProfile", "instance/i-0123456789abcdef0"),
        ("PassRole", "role/a/one"),
    }
    assert "PassRole" not in {action for action, _ in asked("ec2:RunInstances")}


def test_of_the_reference_is_kept_what_is_looked_at():
    definition = {
        "ec2": {
            "privileges": {
                "StopInstances": {
                    "access_level": "Write",
                    "resource_types": {
                        "instance": {
                            "required": True,
                            "condition_keys": ["aws:ResourceTag/${TagKey}", "ec2:ResourceTag/${TagKey}", "ec2:Tenancy"],
                        },
                        "": {"required": False, "condition_keys": ["ec2:Region"]},
                    },
                },
                **{
                    name: {
                        "access_level": "Tagging",
                        "resource_types": {
                            type_: {"required": False, "condition_keys": []} for type_ in ("instance", "fleet")
                        },
                    }
                    for name in ("CreateTags", "DeleteTags")
                },
            }
        }
    }
    names = ["ec2:StopInstances", "ec2:CreateTags", "ec2:DeleteTags"]
    found = reference.extract(definition, names)
    assert found["ec2:StopInstances"] == {
        "level": "Write",
        "types": {"instance": ["aws:ResourceTag", "ec2:ResourceTag"]},
        "required": ["instance"],
        "keys": [],
    }
    assert found["ec2:CreateTags"]["types"] == {"instance": []}


def test_where_the_page_has_the_keys_with_the_resource_types_they_are_kept_with_each_action():
    action = {"access_level": "Write", "resource_types": {"certificate": {"required": True, "condition_keys": []}}}
    resources = {"certificate": {"condition_keys": ["aws:ResourceTag/${TagKey}"]}}
    others: dict[str, Any] = {
        name: {"access_level": "Tagging", "resource_types": {}} for name in ("CreateTags", "DeleteTags")
    }
    definition = {
        "acm": {"privileges": {"DeleteCertificate": action}, "resources": resources},
        "ec2": {"privileges": others},
    }
    found = reference.extract(definition, ["acm:DeleteCertificate", "ec2:CreateTags", "ec2:DeleteTags"])
    assert found["acm:DeleteCertificate"]["types"] == {"certificate": ["aws:ResourceTag"]}


# --- over HTTP -------------------------------------------------------------------------------------------


@pytest.fixture
def api():
    with cloud.over_http() as url, mock_aws():
        yield url


def client(api, service, key="lab"):
    return boto3.client(
        service, REGION, endpoint_url=api, aws_access_key_id=key, aws_secret_access_key="lab", config=None
    )


@pytest.mark.parametrize(
    ("service", "operation", "arguments", "code"),
    [
        ("ec2", "create_vpc", {"CidrBlock": "10.42.0.0/16"}, "UnauthorizedOperation"),
        ("elbv2", "describe_load_balancers", {}, "AccessDenied"),
        ("route53", "list_hosted_zones", {}, "AccessDenied"),
        ("acm", "list_certificates", {}, "AccessDeniedException"),
    ],
)
def test_a_refusal_is_in_the_services_own_words(api, service, operation, arguments, code):
    permissions.enforce("lab", [], api=api)
    with pytest.raises(ClientError) as refused:
        getattr(client(api, service), operation)(**arguments)
    answer = refused.value.response
    status = 400 if service == "acm" else 403
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert "is not authorized to perform" in answer["Error"]["Message"]


def test_policies_are_those_of_one_caller_and_what_they_refuse_is_not_done(api):
    permissions.enforce("lab", [{"Statement": [statement(action="ec2:Describe*")]}], api=api)
    held, other = client(api, "ec2"), client(api, "ec2", key="somebody-else")
    count = len(held.describe_vpcs()["Vpcs"])
    with pytest.raises(ClientError):
        held.create_vpc(CidrBlock="10.42.0.0/16")
    assert len(held.describe_vpcs()["Vpcs"]) == count
    other.create_vpc(CidrBlock="10.43.0.0/16")
    permissions.lift(api=api)
    held.create_vpc(CidrBlock="10.44.0.0/16")
    assert len(held.describe_vpcs()["Vpcs"]) == count + 2


# --- roles of machines -----------------------------------------------------------------------------------


@pytest.fixture
def machine(api, monkeypatch):
    """Makes clients with credentials of a machine's role, which has these policies."""
    monkeypatch.setattr(state, "snapshot_delay", timedelta())

    def make(*statements, boundary=None, **keys):
        iam = client(api, "iam")
        limits = {"PermissionsBoundary": boundary} if boundary else {}
        iam.create_role(RoleName="server", AssumeRolePolicyDocument=TRUST, **limits)
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_role_policy(RoleName="server", PolicyName="backup", PolicyDocument=document)
        issued = credentials.issuer.issue("i-0123456789abcdef0", "server")
        known = {
            "aws_access_key_id": issued.access_key,
            "aws_secret_access_key": issued.secret,
            "aws_session_token": issued.token,
        }
        return boto3.client("ec2", REGION, endpoint_url=api, **{**known, **keys})

    return make


def error(function, **arguments):
    with pytest.raises(ClientError) as refused:
        function(**arguments)
    return refused.value.response["Error"]


OWN = {"StringEquals": {"ec2:ResourceTag/gitlab-stack": "gitlab/dev"}}
SNAPSHOTS = f"arn:aws:ec2:{REGION}::snapshot/*"


def backup_policy(volume):
    mark = {"aws:RequestTag/gitlab-stack": "gitlab/dev"}
    return (
        statement(action="ec2:CreateSnapshot", resource=f"arn:aws:ec2:{REGION}:{ACCOUNT}:volume/{volume}"),
        statement(action="ec2:CreateSnapshot", resource=SNAPSHOTS, StringEquals=mark),
        statement(
            action="ec2:CreateTags",
            resource=SNAPSHOTS,
            StringEquals={**mark, "ec2:CreateAction": "CreateSnapshot"},
        ),
        statement(
            action="ec2:LockSnapshot",
            resource=SNAPSHOTS,
            NumericLessThanEquals={"ec2:SnapshotLockDuration": "60"},
            **OWN,
        ),
        statement(action="ec2:DeleteSnapshot", resource=SNAPSHOTS, **OWN),
        statement(action="ec2:DescribeSnapshots"),
    )


def marked(value):
    return [{"ResourceType": "snapshot", "Tags": [{"Key": "gitlab-stack", "Value": value}]}]


def test_a_machine_does_what_the_policy_of_its_role_allows_and_nothing_else(api, machine):
    root = client(api, "ec2")
    volume, other = (root.create_volume(Size=1, AvailabilityZone=f"{REGION}a")["VolumeId"] for _ in range(2))
    ec2 = machine(*backup_policy(volume))
    foreign = root.create_snapshot(VolumeId=volume, TagSpecifications=marked("gitlab/prod"))["SnapshotId"]
    own = ec2.create_snapshot(VolumeId=volume, TagSpecifications=marked("gitlab/dev"))["SnapshotId"]
    assert len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 2
    spare = ec2.create_snapshot(VolumeId=volume, TagSpecifications=marked("gitlab/dev"))["SnapshotId"]
    ec2.delete_snapshot(SnapshotId=spare)
    lock = {"SnapshotId": own, "LockMode": "governance"}
    ec2.lock_snapshot(**lock, LockDuration=60)
    assert error(ec2.delete_snapshot, SnapshotId=own)["Code"] == "OperationNotPermitted"

    denied = [
        (ec2.create_snapshot, {"VolumeId": other, "TagSpecifications": marked("gitlab/dev")}),
        (ec2.create_snapshot, {"VolumeId": volume, "TagSpecifications": marked("gitlab/prod")}),
        (ec2.create_snapshot, {"VolumeId": volume}),
        (ec2.lock_snapshot, {**lock, "LockDuration": 61}),
        (ec2.lock_snapshot, {**lock, "ExpirationDate": "2126-01-01T00:00:00Z"}),
        (ec2.lock_snapshot, {**lock, "SnapshotId": foreign, "LockDuration": 1}),
        (ec2.unlock_snapshot, {"SnapshotId": own}),
        (ec2.delete_snapshot, {"SnapshotId": foreign}),
        (ec2.create_tags, {"Resources": [foreign], "Tags": marked("gitlab/dev")[0]["Tags"]}),
        (ec2.create_volume, {"SnapshotId": own, "AvailabilityZone": f"{REGION}a"}),
        (ec2.describe_volumes, {}),
    ]
    for function, arguments in denied:
        found = error(function, **arguments)
        assert found["Code"] == "UnauthorizedOperation", (function, arguments)
    sender = f"arn:aws:sts::{ACCOUNT}:assumed-role/server/i-0123456789abcdef0"
    assert f"User: {sender} is not authorized to perform: ec2:DescribeVolumes" in found["Message"]
    assert len(root.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 2


@pytest.mark.parametrize(
    "wrong", [{"aws_secret_access_key": "other"}, {"aws_session_token": "other"}, {"aws_access_key_id": "ASIAOTHER"}]
)
def test_wrong_credentials_are_not_accepted(machine, wrong):
    ec2 = machine(statement(action="ec2:*"), **wrong)
    assert error(ec2.describe_vpcs)["Code"] == "AuthFailure"


def test_a_permissions_boundary_allows_nothing_itself_and_limits_what_a_policy_allows(api, machine):
    document = json.dumps(
        {"Version": "2012-10-17", "Statement": [statement(action=["ec2:DescribeVpcs", "ec2:DescribeSubnets"])]}
    )
    limits = client(api, "iam").create_policy(PolicyName="limits", PolicyDocument=document)["Policy"]["Arn"]
    ec2 = machine(statement(action=["ec2:DescribeVpcs", "ec2:DescribeVolumes"]), boundary=limits)
    ec2.describe_vpcs()
    for function in (ec2.describe_subnets, ec2.describe_volumes):
        assert error(function)["Code"] == "UnauthorizedOperation"


def test_a_policy_that_is_attached_counts_and_a_boundary_that_does_not_exist_allows_nothing(api, machine):
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement(action="ec2:DescribeVpcs")]})
    iam = client(api, "iam")
    policy = iam.create_policy(PolicyName="reads", PolicyDocument=document)["Policy"]["Arn"]
    ec2 = machine(statement(action="ec2:DescribeSubnets"))
    iam.attach_role_policy(RoleName="server", PolicyArn=policy)
    ec2.describe_vpcs()
    ec2.describe_subnets()
    iam.put_role_permissions_boundary(RoleName="server", PermissionsBoundary=f"arn:aws:iam::{ACCOUNT}:policy/gone")
    assert error(ec2.describe_vpcs)["Code"] == "UnauthorizedOperation"


def test_a_role_that_was_deleted_may_do_nothing(api, machine):
    ec2 = machine(statement(action="ec2:*"))
    ec2.describe_vpcs()
    iam = client(api, "iam")
    iam.delete_role_policy(RoleName="server", PolicyName="backup")
    iam.delete_role(RoleName="server")
    assert error(ec2.describe_vpcs)["Code"] == "UnauthorizedOperation"
