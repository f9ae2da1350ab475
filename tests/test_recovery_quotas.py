"""The check of quotas with the answers of AWS's API, on the lab's."""

import boto3
import pytest
from moto import mock_aws

from lab.cloud import patches
from recovery import quotas
from recovery.errors import RecoveryError

REGION = "eu-central-1"
TYPES = ["m6i.xlarge", "t3.small", "t3.large"]


@pytest.fixture
def cloud():
    patches.apply()
    with mock_aws():
        yield boto3.client("ec2", REGION), boto3.client("service-quotas", REGION)


def launch(ec2, type_: str, number: int) -> list[str]:
    image = ec2.describe_images(Owners=["309956199498"])["Images"][0]["ImageId"]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    made = ec2.run_instances(ImageId=image, InstanceType=type_, MinCount=number, MaxCount=number, SubnetId=subnet)
    return [each["InstanceId"] for each in made["Instances"]]


def check(cloud, types=TYPES, **given) -> None:
    ec2, service = cloud
    quotas.check(ec2, service, types, **given)


def refused(cloud) -> str:
    with pytest.raises(RecoveryError) as error:
        check(cloud)
    return str(error.value)


def test_a_new_account_has_room_and_one_with_a_stack_has_too_few_addresses(cloud):
    ec2, _ = cloud
    check(cloud)
    for _ in range(4):
        ec2.allocate_address(Domain="vpc")
    assert "needs 4 Elastic IP addresses, and only 1 of 5 are free" in refused(cloud)


def test_the_fifth_vpc_has_room_and_the_sixth_has_not(cloud):
    ec2, _ = cloud
    for number in (1, 2, 3):
        ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")
    check(cloud)
    ec2.create_vpc(CidrBlock="10.4.0.0/16")
    assert "needs 1 VPC, and only 0 of 5 are free" in refused(cloud)
    with pytest.raises(ec2.exceptions.ClientError, match="VpcLimitExceeded"):
        ec2.create_vpc(CidrBlock="10.5.0.0/16")


def test_machines_that_run_leave_less_room_until_they_are_stopped(cloud):
    ec2, _ = cloud
    machines = launch(ec2, "m6i.2xlarge", 3)
    check(cloud)
    other = launch(ec2, "t3.small", 1)
    assert "needs 8 vCPUs of running On-Demand Standard instances, and only 6 of 32 are free" in refused(cloud)
    check(cloud, stopped=machines)
    ec2.stop_instances(InstanceIds=other)
    check(cloud)


def test_a_type_that_the_region_does_not_have_is_refused(cloud):
    ec2, _ = cloud
    with pytest.raises(ec2.exceptions.ClientError, match="InvalidInstanceType"):
        check(cloud, ["m6i.xlarge", "x9.large", "t3.large"])
