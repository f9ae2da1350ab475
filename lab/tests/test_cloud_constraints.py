"""Every value sent to AWS has its documented constraint, and the API rejects violations with AWS's messages."""

import base64
import json
import re
from functools import cache
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto import mock_aws

from lab.cloud import constraints
from lab.cloud.calls import Call, Parameter
from lab.cloud.constraints import TABLE, elastic_load_balancing, model
from lab.cloud.constraints.kinds import MODEL, PROSE
from lab.tests.cloud import REGION, over_http

RECORDED = json.loads((Path(constraints.__file__).parent.parent / "recorded_parameters.json").read_text())
ENTRIES = [(action, name) for action in TABLE for name in TABLE[action]]
RANGE = "IpPermissions.1.IpRanges.1"
RECORD = "ChangeBatch.Changes.Change.ResourceRecordSet"


# --- the table -------------------------------------------------------------------------------------------


def test_every_parameter_that_was_recorded_has_an_entry_and_no_other_has():
    """For a new parameter, look up what AWS documents for it, and add that to lab/cloud/constraints."""
    sent = (*RECORDED.items(), *constraints.SENT_BY_MACHINES.items())
    recorded = {(action, name) for action, names in sent for name in names}
    assert recorded - set(ENTRIES) == set(), "sent to AWS without an entry in lab/cloud/constraints"
    assert set(ENTRIES) - recorded == set(), "never sent to AWS"


def squeezed(text):
    return re.sub(r"\s", "", text)


def limits_of(shape):
    return {"enum", "min", "max", "pattern"} & set(shape.metadata)


@pytest.mark.parametrize(("action", "name"), ENTRIES)
def test_an_entry_says_what_aws_documents(action, name):
    """If a newer botocore differs, AWS has changed its documentation: update the entry."""
    constraint = TABLE[action][name]
    service, _, operation = action.partition(":")
    shape = model.shape(service, operation, name)
    assert constraint.source
    if constraint is MODEL:
        assert limits_of(shape) or shape.type_name in ("boolean", "integer", "long")
    elif not constraint.says:
        hints = r"constraint|valid|must|maximum|minimum|up to|range|characters"
        assert not re.search(hints, model.prose(service, operation, name), re.IGNORECASE)
        assert not limits_of(shape)
    elif constraint.source == PROSE:
        assert squeezed(constraint.says) in squeezed(model.prose(service, operation, name))
    elif elsewhere := re.fullmatch(r"(\w+):(\w+) (\S+)", constraint.source):
        assert squeezed(constraint.says) in squeezed(model.prose(*elsewhere.groups()))


@pytest.mark.parametrize(
    ("action", "attributes"),
    [
        ("ModifyTargetGroupAttributes", elastic_load_balancing.OF_TARGET_GROUPS),
        ("ModifyLoadBalancerAttributes", elastic_load_balancing.OF_LOAD_BALANCERS),
    ],
)
def test_attributes_are_those_that_aws_documents(action, attributes):
    prose = squeezed(model.prose("elasticloadbalancing", action, "Attributes.member.N.Key"))
    for key, (says, _) in attributes.items():
        assert f"{key}-" in prose
        assert squeezed(says) in prose


# --- valid and invalid values ----------------------------------------------------------------------------


def refusal(action, **values):
    service, _, operation = action.partition(":")
    parameters = [Parameter(re.sub(r"\.\d+(?=\.|$)", ".N", place), place, value) for place, value in values.items()]
    assert all(parameter.name in TABLE[action] for parameter in parameters)
    return constraints.refusal(Call(service, operation, tuple(parameters)))


def encoded(text):
    return base64.b64encode(text.encode()).decode()


ID = "0123456789abcdef0"

VALUES = [
    ("ec2:AuthorizeSecurityGroupIngress", f"{RANGE}.Description", "d" * 255, "d" * 256),
    ("ec2:AuthorizeSecurityGroupIngress", f"{RANGE}.Description", "aZ0. _-:/()#,@[]+=&;{}!$*", "aZ0\n"),
    ("ec2:AuthorizeSecurityGroupEgress", "IpPermissions.1.Groups.1.Description", "why (to server)", "from → to"),
    ("ec2:ModifySecurityGroupRules", "SecurityGroupRule.1.SecurityGroupRule.Description", "why", "the server's"),
    ("ec2:CreateSecurityGroup", "GroupDescription", "Traffic of the server", "the server's"),
    ("ec2:CreateSecurityGroup", "GroupName", "n" * 255, "n" * 256),
    ("ec2:CreateSecurityGroup", "GroupName", "gitlab-sg-1", "SG-1"),
    ("ec2:CreateSecurityGroup", "VpcId", f"vpc-{ID}", "vpc-1"),
    ("ec2:AuthorizeSecurityGroupIngress", "GroupId", "sg-01234567", "gitlab"),
    ("ec2:AuthorizeSecurityGroupIngress", f"{RANGE}.CidrIp", "203.0.113.7/32", "203.0.113.7"),
    ("ec2:AuthorizeSecurityGroupIngress", f"{RANGE}.CidrIp", "203.0.113.7/0", "203.0.113.0/33"),
    ("ec2:AuthorizeSecurityGroupIngress", "IpPermissions.1.FromPort", "65535", "65536"),
    ("ec2:AuthorizeSecurityGroupIngress", "IpPermissions.1.ToPort", "-1", "-2"),
    ("ec2:AuthorizeSecurityGroupIngress", "IpPermissions.1.IpProtocol", "tcp", "http"),
    ("ec2:AuthorizeSecurityGroupIngress", "IpPermissions.1.IpProtocol", "-1", "256"),
    ("ec2:RevokeSecurityGroupEgress", "IpPermissions.1.Ipv6Ranges.1.CidrIpv6", "::/0", "0.0.0.0/0"),
    ("ec2:CreateVpc", "CidrBlock", "10.42.0.0/16", "10.0.0.0/15"),
    ("ec2:CreateSubnet", "CidrBlock", "10.42.0.0/28", "10.42.0.0/29"),
    ("ec2:CreateRoute", "DestinationCidrBlock", "0.0.0.0/0", "everywhere"),
    ("ec2:CreateSubnet", "AvailabilityZone", "us-west-2-lax-1a", "eu-central-1"),
    ("ec2:CreateTags", "Tag.1.Key", "k" * 128, "k" * 129),
    ("ec2:CreateTags", "Tag.1.Key", "owner", "aws:owner"),
    ("ec2:CreateTags", "Tag.1.Key", "k", ""),
    ("ec2:CreateTags", "Tag.1.Value", "v" * 256, "v" * 257),
    ("ec2:CreateTags", "ResourceId.1", f"eipalloc-{ID}", "gitlab"),
    ("ec2:CreateVpc", "TagSpecification.1.ResourceType", "vpc", "network"),
    ("ec2:CreateVpc", "InstanceTenancy", "default", "shared"),
    ("ec2:CreateVpc", "AmazonProvidedIpv6CidrBlock", "false", "no"),
    ("ec2:CreateVolume", "Encrypted", "true", "True"),
    ("ec2:CreateVolume", "VolumeType", "gp3", "gp4"),
    ("ec2:ModifyVolume", "Size", "65536", "65537"),
    ("ec2:ModifyVolume", "Throughput", "125", "124"),
    ("ec2:AttachVolume", "Device", "/dev/sdf", "/dev/nvme1n1"),
    ("ec2:RunInstances", "ImageId", f"ami-{ID}", "RHEL-8"),
    ("ec2:RunInstances", "InstanceType", "m6i.xlarge", "m6i.xlage"),
    ("ec2:RunInstances", "MetadataOptions.HttpPutResponseHopLimit", "64", "65"),
    ("ec2:RunInstances", "MetadataOptions.HttpTokens", "required", "always"),
    ("ec2:RunInstances", "MinCount", "1", "0"),
    ("ec2:RunInstances", "NetworkInterface.1.DeviceIndex", "0", "first"),
    ("ec2:RunInstances", "CreditSpecification.CpuCredits", "unlimited", "none"),
    ("ec2:RunInstances", "ClientToken", "t" * 64, "t" * 65),
    ("ec2:RunInstances", "UserData", encoded("x" * 16384), encoded("x" * 16385)),
    ("ec2:RunInstances", "UserData", "", "#cloud-config"),
    ("ec2:ImportKeyPair", "KeyName", "n" * 255, "n" * 256),
    ("ec2:ImportKeyPair", "KeyName", "gitlab-0123abc", "schlüssel"),
    ("ec2:ImportKeyPair", "PublicKeyMaterial", encoded("ssh-ed25519 AAAA you@there"), encoded("ecdsa-sha2-nistp256 A")),
    ("ec2:DescribeImages", "Owner.1", "309956199498", "redhat"),
    ("ec2:DescribeImages", "Filter.1.Name", "virtualization-type", "kind"),
    ("ec2:DescribeVolumes", "Filter.1.Name", "tag:Name", "name"),
    ("ec2:DescribeVpcAttribute", "Attribute", "enableDnsSupport", "dns"),
    ("ec2:CreateSnapshot", "VolumeId", f"vol-{ID}", "vol-data"),
    ("ec2:CreateSnapshot", "TagSpecification.1.ResourceType", "snapshot", "Snapshot"),
    ("ec2:DescribeSnapshots", "Filter.1.Name", "tag:gitlab-stack", "tags"),
    ("ec2:DescribeSnapshots", "Owner.1", "self", "me"),
    ("ec2:CreateVolume", "SnapshotId", f"snap-{ID}", f"vol-{ID}"),
    ("ec2:LockSnapshot", "SnapshotId", f"snap-{ID}", f"vol-{ID}"),
    ("ec2:LockSnapshot", "LockMode", "governance", "Governance"),
    ("ec2:LockSnapshot", "LockDuration", "1", "0"),
    ("ec2:LockSnapshot", "LockDuration", "36500", "36501"),
    ("ec2:DeleteSnapshot", "SnapshotId", f"snap-{ID}", "newest"),
    ("ec2:RunInstances", "IamInstanceProfile.Name", "gitlab-dev-server", "gitlab/dev/server"),
    ("ec2:ReplaceIamInstanceProfileAssociation", "AssociationId", f"iip-assoc-{ID}", f"eipassoc-{ID}"),
    ("iam:CreateRole", "RoleName", "r" * 64, "r" * 65),
    ("iam:CreateRole", "RoleName", "gitlab-dev-server", "gitlab/dev"),
    ("iam:CreateRole", "AssumeRolePolicyDocument", '{"Statement": []}', "{}"),
    ("iam:CreateRole", "Description", "d" * 1000, "d" * 1001),
    ("iam:CreateRole", "MaxSessionDuration", "3600", "3599"),
    ("iam:CreateRole", "Path", "/gitlab/", "gitlab"),
    ("iam:CreateRole", "PermissionsBoundary", "arn:aws:iam::123456789012:policy/limits", "arn:aws:iam::limits:policy"),
    ("iam:PutRolePolicy", "PolicyDocument", '{"Statement": []}', '{"Statement": [}'),
    ("iam:PutRolePolicy", "PolicyName", "p" * 128, "p" * 129),
    ("iam:TagRole", "Tags.member.1.Key", "gitlab-stack", "AWS:stack"),
    ("iam:TagRole", "Tags.member.1.Value", "gitlab/dev", "a|b"),
    ("iam:CreateInstanceProfile", "InstanceProfileName", "p" * 128, "p" * 129),
    ("elasticloadbalancing:CreateLoadBalancer", "Name", "n" * 32, "n" * 33),
    ("elasticloadbalancing:CreateLoadBalancer", "Name", "gitlab-1", "with_underscore"),
    ("elasticloadbalancing:CreateLoadBalancer", "Name", "f-r", "front-"),
    ("elasticloadbalancing:CreateLoadBalancer", "Name", "front-internal", "internal-front"),
    ("elasticloadbalancing:CreateTargetGroup", "Name", "internal-web", "-web"),
    ("elasticloadbalancing:CreateTargetGroup", "HealthCheckIntervalSeconds", "5", "4"),
    ("elasticloadbalancing:CreateTargetGroup", "HealthCheckTimeoutSeconds", "120", "121"),
    ("elasticloadbalancing:CreateTargetGroup", "HealthyThresholdCount", "2", "1"),
    ("elasticloadbalancing:CreateTargetGroup", "UnhealthyThresholdCount", "10", "11"),
    ("elasticloadbalancing:CreateTargetGroup", "HealthCheckPath", "/" + "p" * 1023, "/" + "p" * 1024),
    ("elasticloadbalancing:CreateTargetGroup", "HealthCheckPath", "/-/readiness", "readiness"),
    ("elasticloadbalancing:CreateTargetGroup", "HealthCheckPort", "traffic-port", "0"),
    ("elasticloadbalancing:CreateTargetGroup", "HealthCheckProtocol", "TCP", "TLS"),
    ("elasticloadbalancing:CreateTargetGroup", "Matcher.HttpCode", "200,301-399", "200-600"),
    ("elasticloadbalancing:CreateTargetGroup", "Protocol", "TCP", "SSH"),
    ("elasticloadbalancing:CreateTargetGroup", "VpcId", f"vpc-{ID}", "10.42.0.0/16"),
    ("elasticloadbalancing:CreateListener", "Port", "65535", "0"),
    ("elasticloadbalancing:CreateListener", "SslPolicy", "ELBSecurityPolicy-TLS13-1-2-2021-06", "TLSv1.2"),
    (
        "elasticloadbalancing:CreateListener",
        "Certificates.member.1.CertificateArn",
        "arn:aws:acm:eu-central-1:123456789012:certificate/1",
        "git.example.com",
    ),
    (
        "elasticloadbalancing:CreateListener",
        "DefaultActions.member.1.TargetGroupArn",
        "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/1",
        "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/net/web/1",
    ),
    ("elasticloadbalancing:AddTags", "Tags.member.1.Key", "Größe +-=._:/@", "a,b"),
    ("elasticloadbalancing:AddTags", "Tags.member.1.Key", "owner", "aws:owner"),
    ("elasticloadbalancing:AddTags", "Tags.member.1.Value", "", "(none)"),
    ("elasticloadbalancing:RegisterTargets", "Targets.member.1.Id", f"i-{ID}", "server"),
    ("elasticloadbalancing:ModifyListener", "SslPolicy", "ELBSecurityPolicy-2016-08", "ELBSecurityPolicy-TLS13-1-4"),
    ("elasticloadbalancing:ModifyListener", "Protocol", "TLS", "SSL"),
    ("acm:RequestCertificate", "DomainName", "git.example.com", "git_.example.com"),
    ("acm:RequestCertificate", "DomainName", f"{'d' * 60}.com", f"{'d' * 61}.com"),
    ("acm:RequestCertificate", "SubjectAlternativeNames.1", f"{'d' * 61}.com", "git"),
    ("acm:RequestCertificate", "KeyAlgorithm", "RSA_2048", "RSA_4096"),
    ("acm:RequestCertificate", "ValidationMethod", "DNS", "PHONE"),
    ("acm:RequestCertificate", "IdempotencyToken", "t" * 32, "t" * 33),
    ("acm:RequestCertificate", "Tags.1.Key", "owner", "aws:owner"),
    ("acm:ImportCertificate", "Tags.1.Value", "v" * 256, "v" * 257),
    ("acm:AddTagsToCertificate", "Tags.1.Value", "Größe +-=._:/@", "a,b"),
    ("acm:ImportCertificate", "Certificate", encoded("c" * 32768), encoded("c" * 32769)),
    ("acm:ImportCertificate", "PrivateKey", encoded("k" * 8192), encoded("k" * 8193)),
    ("acm:DescribeCertificate", "CertificateArn", f"arn:aws:acm:{REGION}:123456789012:certificate/1", "certificate/1"),
    ("route53:ChangeResourceRecordSets", "Id", "Z0123456789ABC", "example.com"),
    ("route53:ChangeResourceRecordSets", f"{RECORD}.TTL", "2147483647", "2147483648"),
    ("route53:ChangeResourceRecordSets", f"{RECORD}.TTL", "0", "-1"),
    ("route53:ChangeResourceRecordSets", f"{RECORD}.Name", "git.example.com.", "git.exam ple.com"),
    ("route53:ChangeResourceRecordSets", f"{RECORD}.Type", "A", "ADDRESS"),
    ("route53:ChangeResourceRecordSets", "ChangeBatch.Changes.Change.Action", "UPSERT", "PUT"),
    ("route53:ChangeResourceRecordSets", "ChangeBatch.Comment", "c" * 256, "c" * 257),
    ("route53:ListResourceRecordSets", "maxitems", "1", "many"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "place", "taken", "refused"), VALUES)
def test_a_value_is_taken_or_refused(action, place, taken, refused):
    assert refusal(action, **{place: taken}) is None
    assert refusal(action, **{place: refused}) is not None


@pytest.mark.parametrize(
    ("kind", "smallest", "largest"),
    [("gp3", 1, 65536), ("io1", 4, 16384), ("st1", 125, 16384), ("standard", 1, 1024), (None, 1, 16384)],
)
def test_the_size_of_a_volume_depends_on_its_type(kind, smallest, largest):
    other = {"VolumeType": kind} if kind else {}
    for size in (smallest, largest):
        assert refusal("ec2:CreateVolume", Size=str(size), **other) is None
    for size in (smallest - 1, largest + 1):
        assert refusal("ec2:CreateVolume", Size=str(size), **other) is not None


@pytest.mark.parametrize(
    ("action", "key", "taken", "wrong"),
    [
        ("ModifyTargetGroupAttributes", "deregistration_delay.timeout_seconds", "3600", "3601"),
        ("ModifyTargetGroupAttributes", "preserve_client_ip.enabled", "true", "yes"),
        ("ModifyTargetGroupAttributes", "stickiness.type", "source_ip", "lb_cookie"),
        ("ModifyLoadBalancerAttributes", "deletion_protection.enabled", "false", "off"),
    ],
)
def test_the_value_of_an_attribute_depends_on_its_key(action, key, taken, wrong):
    def attribute(key, value):
        sent = {"Attributes.member.1.Key": key, "Attributes.member.1.Value": value}
        return refusal(f"elasticloadbalancing:{action}", **sent)

    assert attribute(key, taken) is None
    assert attribute(key, wrong).code == "ValidationError"
    assert attribute("proxy_protocol.enabled", "true").message.endswith("'proxy_protocol.enabled' is not recognized")


def test_an_address_record_holds_an_address():
    value = f"{RECORD}.ResourceRecords.ResourceRecord.Value"
    assert refusal("route53:ChangeResourceRecordSets", **{f"{RECORD}.Type": "A", value: "203.0.113.7"}) is None
    assert refusal("route53:ChangeResourceRecordSets", **{f"{RECORD}.Type": "CNAME", value: "git.example.com"}) is None
    found = refusal("route53:ChangeResourceRecordSets", **{f"{RECORD}.Type": "A", value: "git.example.com"})
    assert found.code == "InvalidChangeBatch"


def test_an_alias_record_holds_a_domain_name():
    value, cname = f"{RECORD}.ResourceRecords.ResourceRecord.Value", {f"{RECORD}.Type": "CNAME"}
    valid = "_a1.b2.acm-validations.aws."
    assert refusal("route53:ChangeResourceRecordSets", **cname, **{value: valid}) is None
    found = refusal("route53:ChangeResourceRecordSets", **cname, **{value: "not a name"})
    assert found.code == "InvalidChangeBatch"


def test_a_refusal_does_not_contain_a_private_key():
    key = encoded("k" * 8193)
    found = refusal("acm:ImportCertificate", PrivateKey=key)
    assert found.message.startswith("1 validation error detected: Value at 'privateKey' failed")
    assert key not in found.message


@pytest.mark.parametrize(
    ("action", "place", "value", "code", "message"),
    [
        (
            "ec2:AuthorizeSecurityGroupEgress",
            f"{RANGE}.Description",
            "webhooks to the server's own external_url (to balancer)",
            "InvalidParameterValue",
            (
                "Invalid rule description. Valid descriptions are strings less than 256 characters from the following "
                "set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*"
            ),
        ),
        ("ec2:AttachVolume", "VolumeId", "vol", "InvalidVolumeID.Malformed", 'Invalid id: "vol" (expecting "vol-...")'),
        ("ec2:DeleteVpc", "VpcId", "vpc-1", "InvalidVpcID.NotFound", "The vpc ID 'vpc-1' does not exist"),
        ("ec2:CreateVpc", "CidrBlock", "10.0.0.0/8", "InvalidVpc.Range", "The CIDR '10.0.0.0/8' is invalid."),
        (
            "ec2:DescribeVpcAttribute",
            "Attribute",
            "dns",
            "InvalidParameterValue",
            (
                "Value (dns) for parameter Attribute is invalid. Member must satisfy enum value set: "
                "[enableDnsSupport, enableDnsHostnames, enableNetworkAddressUsageMetrics]"
            ),
        ),
        (
            "ec2:RunInstances",
            "MetadataOptions.HttpPutResponseHopLimit",
            "0",
            "InvalidParameterValue",
            "Value (0) for parameter HttpPutResponseHopLimit is invalid. Possible values: Integers from 1 to 64",
        ),
        (
            "elasticloadbalancing:ModifyTargetGroup",
            "HealthCheckIntervalSeconds",
            "600",
            "ValidationError",
            (
                "1 validation error detected: Value '600' at 'healthCheckIntervalSeconds' failed to satisfy "
                "constraint: Member must have value less than or equal to 300"
            ),
        ),
        (
            "elasticloadbalancing:AddTags",
            "Tags.member.2.Key",
            "k" * 129,
            "ValidationError",
            (
                f"1 validation error detected: Value '{'k' * 129}' at 'tags.2.member.key' failed to satisfy "
                "constraint: Member must have length less than or equal to 128"
            ),
        ),
        (
            "route53:ChangeResourceRecordSets",
            f"{RECORD}.TTL",
            "-1",
            "InvalidInput",
            (
                "1 validation error detected: Value '-1' at 'changeBatch.changes.change.resourceRecordSet.TTL' failed "
                "to satisfy constraint: Member must have value greater than or equal to 0"
            ),
        ),
    ],
)
def test_a_refusal_is_in_the_words_of_aws(action, place, value, code, message):
    found = refusal(action, **{place: value})
    assert (found.code, found.message) == (code, message)


# --- through the API -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api_client():
    """Makes clients of the lab's API."""

    @cache
    def make(service):
        keys = {"aws_access_key_id": "lab", "aws_secret_access_key": "lab"}
        return boto3.client(service, REGION, endpoint_url=url, **keys)

    with over_http() as url:
        yield make


@pytest.fixture
def client(api_client):
    """Makes clients of an API without resources."""
    with mock_aws():
        pass  # deletes the resources of the previous test
    return api_client


def error(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]


def test_a_rule_with_an_apostrophe_is_refused_and_not_made(client):
    ec2 = client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.42.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="server", Description="Traffic of the server", VpcId=vpc)["GroupId"]

    def authorize(why):
        ranges = [{"CidrIp": "203.0.113.7/32", "Description": why}]
        permission = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": ranges}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])

    found = error(authorize, why="webhooks to the server's own external_url (from server)")
    assert found["Code"] == "InvalidParameterValue"
    assert found["Message"].endswith("from the following set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*")

    def described():
        rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])
        return [rule.get("Description") for rule in rules["SecurityGroupRules"] if not rule["IsEgress"]]

    assert described() == []
    authorize("webhooks to GitLab itself (from server)")
    assert described() == ["webhooks to GitLab itself (from server)"]


def test_nothing_is_made_with_a_tag_that_breaks_the_limits(client):
    ec2, elb = client("ec2"), client("elbv2")
    for key, value in (("k" * 129, "v"), ("k", "v" * 257), ("aws:own", "v")):
        tags = [{"Key": key, "Value": value}]
        specification = [{"ResourceType": "volume", "Tags": tags}]
        arguments = {"Size": 1, "AvailabilityZone": REGION + "a", "TagSpecifications": specification}
        assert error(ec2.create_volume, **arguments)["Code"] == "InvalidParameterValue"
        assert error(elb.create_target_group, Name="web", Tags=tags)["Code"] == "ValidationError"
    assert ec2.describe_volumes()["Volumes"] == []
    assert elb.describe_target_groups()["TargetGroups"] == []


def test_each_service_refuses_in_its_own_way(client):
    assert error(client("ec2").delete_vpc, VpcId="vpc-1")["Code"] == "InvalidVpcID.NotFound"
    elb = client("elbv2")
    assert error(elb.create_load_balancer, Name="internal-front", Type="network")["Message"] == (
        "The load balancer name 'internal-front' cannot begin with 'internal-'"
    )
    assert error(elb.describe_target_health, TargetGroupArn="web")["Message"] == "'web' is not a valid target group ARN"
    acm = client("acm")
    found = error(acm.request_certificate, DomainName="git.example.com", Tags=[{"Key": "k"}, {"Key": "aws:k"}])
    assert (found["Code"], "'tags.2.member.key'" in found["Message"]) == ("ValidationException", True)
    assert acm.list_certificates()["CertificateSummaryList"] == []
    record = {"Name": "git.example.com", "Type": "ADDRESS", "TTL": 1, "ResourceRecords": [{"Value": "203.0.113.7"}]}
    change = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
    found = error(client("route53").change_resource_record_sets, HostedZoneId="Z0123456789ABC", ChangeBatch=change)
    assert found["Code"] == "InvalidInput"
