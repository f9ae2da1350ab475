"""recovery/leftovers.py finds what a stack has in AWS, on moto."""

import functools
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from recovery import leftovers
from tests.aws_answers import REGION, Aws, failure, once
from tests.certificates import issue
from tests.conftest import openssh_pair

STACK = "gitlab/prod"
OTHER = "gitlab/prod-b"


@functools.cache
def clients(service: str) -> Any:
    return boto3.client(service, region_name=REGION)


@pytest.fixture
def aws(monkeypatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        yield


def create(stack: str, prefix: str) -> dict[str, str]:
    """One resource of each kind, by kind, in the network with this prefix."""
    ec2, elb, iam = clients("ec2"), clients("elbv2"), clients("iam")
    mark = [{"Key": "gitlab-stack", "Value": stack}]

    def marked(type_: str, suffix: str = "") -> dict[str, Any]:
        value = stack + suffix
        return {"TagSpecifications": [{"ResourceType": type_, "Tags": [{"Key": "gitlab-stack", "Value": value}]}]}

    network = ec2.create_vpc(CidrBlock=f"{prefix}.0.0/16", **marked("vpc"))["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=network, CidrBlock=f"{prefix}.0.0/24", **marked("subnet"))["Subnet"]["SubnetId"]
    gateway = ec2.create_internet_gateway(**marked("internet-gateway"))["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=network)
    table = ec2.create_route_table(VpcId=network, **marked("route-table"))["RouteTable"]["RouteTableId"]
    group = ec2.create_security_group(GroupName="g", Description="g", VpcId=network, **marked("security-group"))
    interface = ec2.create_network_interface(SubnetId=subnet, **marked("network-interface"))["NetworkInterface"]
    zone = {"AvailabilityZone": f"{REGION}a", "Size": 10}
    volume = ec2.create_volume(**zone, **marked("volume", "/root-volume"))["VolumeId"]
    address = ec2.allocate_address(Domain="vpc", **marked("elastic-ip"))["AllocationId"]
    pair = ec2.import_key_pair(KeyName=f"key-{stack[-1]}", PublicKeyMaterial=openssh_pair()[0], **marked("key-pair"))[
        "KeyPairId"
    ]
    # As AWS requires. Moto does not, unless another test has imported the lab.
    image = {"ImageId": ec2.describe_images()["Images"][0]["ImageId"], "InstanceType": "t3.large", "SubnetId": subnet}
    [machine] = ec2.run_instances(MinCount=1, MaxCount=1, **image, **marked("instance"))["Instances"]
    name = stack.replace("/", "-")
    [balancer] = elb.create_load_balancer(Name=name, Type="network", Subnets=[subnet], Tags=mark)["LoadBalancers"]
    [target] = elb.create_target_group(Name=name, Protocol="TCP", Port=22, VpcId=network, Tags=mark)["TargetGroups"]
    iam.create_role(RoleName=name, Path=f"/{stack}/", AssumeRolePolicyDocument=json.dumps({"Statement": []}))
    iam.create_instance_profile(InstanceProfileName=name, Path=f"/{stack}/")
    own = issue()
    certificate = clients("acm").import_certificate(Certificate=own.pem, PrivateKey=own.key_pem, Tags=mark)[
        "CertificateArn"
    ]
    return {
        "machine": machine["InstanceId"],
        "volume": volume,
        "elastic address": address,
        "network interface": interface["NetworkInterfaceId"],
        "security group": group["GroupId"],
        "route table": table,
        "subnet": subnet,
        "internet gateway": gateway,
        "VPC": network,
        "key pair": pair,
        "load balancer": balancer["LoadBalancerArn"],
        "target group": target["TargetGroupArn"],
        "certificate": certificate,
        "role": name,
        "instance profile": name,
    }


@pytest.mark.usefixtures("aws")
def test_every_kind_of_resource_of_the_stack_is_found_and_none_of_another_one():
    created, other = create(STACK, "10.42"), create(OTHER, "10.43")
    assert sorted(leftovers.resources(clients, STACK)) == sorted(created.items())
    assert sorted(leftovers.resources(clients, OTHER)) == sorted(other.items())
    assert list(leftovers.resources(clients, "gitlab/pro")) == []


def machine(state: str) -> Aws:
    """AWS with one machine in this state."""
    aws = Aws()
    found = [{"Instances": [{"InstanceId": "i-1", "State": {"Name": state}}]}]
    aws.answers["DescribeInstances"] = {"Reservations": found}
    return aws


def test_a_terminated_machine_is_not_left():
    assert list(leftovers.resources(machine("terminated"), STACK)) == []


@pytest.mark.parametrize("state", ["pending", "running", "shutting-down", "stopping", "stopped"])
def test_a_machine_in_any_other_state_is(state):
    assert list(leftovers.resources(machine(state), STACK)) == [leftovers.Resource("machine", "i-1")]


def test_the_types_of_the_programs_resources_are_those_that_are_looked_for(graph, own_graph):
    """A new type of the program needs a row in leftovers.py, unless it disappears with another one."""
    with_another = {
        *(
            "DefaultSecurityGroup",
            "Listener",
            "RolePolicy",
            "Route",
            "RouteTableAssociation",
            "SecurityGroupEgressRule",
        ),
        *("SecurityGroupIngressRule", "TargetGroupAttachment", "VolumeAttachment", "CertificateValidation"),
    }
    listed = {
        *("Certificate", "Eip", "Instance", "InstanceProfile", "InternetGateway", "KeyPair", "LoadBalancer"),
        *("NetworkInterface", "Role", "RouteTable", "SecurityGroup", "Subnet", "TargetGroup", "Volume", "Vpc"),
    }
    types = {
        resource.type.rpartition(":")[2]
        for each in (graph, own_graph)
        for resource in each.resources
        if resource.type.startswith("aws:")
    }
    assert types - with_another == listed


def test_tags_of_load_balancing_are_requested_for_twenty_resources_at_a_time():
    aws = Aws()
    arns = [f"arn:{number}" for number in range(45)]
    aws.answers["DescribeLoadBalancers"] = {"LoadBalancers": [{"LoadBalancerArn": arn} for arn in arns]}
    own = {"ResourceArn": arns[44], "Tags": [{"Key": "gitlab-stack", "Value": STACK}]}
    other = {"ResourceArn": arns[0], "Tags": [{"Key": "gitlab-stack", "Value": OTHER}]}
    aws.answers["DescribeTags"] = once({"TagDescriptions": [other]}, {}, {"TagDescriptions": [own]})
    assert list(leftovers.resources(aws, STACK)) == [leftovers.Resource("load balancer", arns[44])]
    assert [len(each["ResourceArns"]) for each in aws.sent("DescribeTags")] == [20, 20, 5]


def test_what_is_deleted_while_it_is_listed_is_not_left():
    aws = Aws()
    arns = ["arn:own", "arn:gone"]
    aws.answers["DescribeTargetGroups"] = {"TargetGroups": [{"TargetGroupArn": arn} for arn in arns]}
    own = {"ResourceArn": "arn:own", "Tags": [{"Key": "gitlab-stack", "Value": STACK}]}
    gone = failure("TargetGroupNotFound")
    aws.answers["DescribeTags"] = once(gone, {"TagDescriptions": [own]}, gone)
    aws.answers["ListCertificates"] = {
        "CertificateSummaryList": [{"CertificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/1"}]
    }
    aws.answers["ListTagsForCertificate"] = failure("ResourceNotFoundException")
    assert list(leftovers.resources(aws, STACK)) == [leftovers.Resource("target group", "arn:own")]


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, which only passes while the program sleeps."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_what_aws_lists_for_some_seconds_more_is_waited_for(clock):
    aws = Aws()
    volumes = {"Volumes": [{"VolumeId": "vol-1"}, {"VolumeId": "vol-2"}]}
    aws.answers["DescribeVolumes"] = once(volumes, volumes, {"Volumes": [{"VolumeId": "vol-2"}]})
    assert leftovers.remaining(aws, STACK, {"vol-2"}) == []
    assert clock == [2 * leftovers.INTERVAL]


def test_what_does_not_disappear_is_reported_in_the_end(clock):
    aws = Aws()
    aws.answers["DescribeVolumes"] = {"Volumes": [{"VolumeId": "vol-1"}]}
    assert list(map(str, leftovers.remaining(aws, STACK))) == ["volume vol-1"]
    assert clock == [leftovers.PATIENCE]
