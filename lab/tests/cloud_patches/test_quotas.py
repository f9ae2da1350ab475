"""How much of what a stack needs an account may have, and that it may have more after a request."""

import pytest

from lab.tests.cloud import REGION, client, refused, settle

QUOTA = {"ServiceCode": "ec2", "QuotaCode": "L-0263D0A3"}
VPCS = {"ServiceCode": "vpc", "QuotaCode": "L-F678F1CE"}
CPUS = {"ServiceCode": "ec2", "QuotaCode": "L-1216C47A"}


def both(region=REGION):
    """The quota of elastic addresses according to both services."""
    attributes = client("ec2", region).describe_account_attributes()["AccountAttributes"]
    of_account = {each["AttributeName"]: each["AttributeValues"][0]["AttributeValue"] for each in attributes}
    quota = client("service-quotas", region).get_service_quota(**QUOTA)["Quota"]["Value"]
    return quota, of_account["vpc-max-elastic-ips"]


def test_a_region_allows_five_elastic_addresses_and_more_after_a_request(cloud):
    quotas = client("service-quotas")
    assert both() == (5, "5")
    for _ in range(5):
        cloud.address()
    refused("AddressLimitExceeded", cloud.ec2.allocate_address)
    requested = quotas.request_service_quota_increase(**QUOTA, DesiredValue=8)["RequestedQuota"]
    assert (requested["DesiredValue"], requested["Status"]) == (8, "PENDING")
    assert both() == (8, "8")
    for _ in range(3):
        cloud.address()
    refused("AddressLimitExceeded", cloud.ec2.allocate_address)


def test_a_quota_is_that_of_one_region(cloud):
    client("service-quotas", "us-west-2").request_service_quota_increase(**QUOTA, DesiredValue=8)
    assert both("us-west-2") == (8, "8")
    assert both() == (5, "5")


def test_a_region_allows_five_vpcs_with_its_default_one_and_more_after_a_request(cloud):
    quotas = client("service-quotas")
    assert quotas.get_service_quota(**VPCS)["Quota"]["Value"] == 5
    assert len(cloud.ec2.describe_vpcs()["Vpcs"]) == 2, "the default one and the cloud's"
    for number in (1, 2, 3):
        cloud.ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")
    refused("VpcLimitExceeded", cloud.ec2.create_vpc, CidrBlock="10.4.0.0/16")
    client("ec2", "us-west-2").create_vpc(CidrBlock="10.4.0.0/16")
    quotas.request_service_quota_increase(**VPCS, DesiredValue=6)
    cloud.ec2.create_vpc(CidrBlock="10.5.0.0/16")
    refused("VpcLimitExceeded", cloud.ec2.create_vpc, CidrBlock="10.6.0.0/16")


def test_standard_machines_run_until_the_quota_of_vcpus_is_reached_and_more_after_a_request(cloud):
    quotas = client("service-quotas")
    assert quotas.get_service_quota(**CPUS)["Quota"]["Value"] == 32
    first = cloud.run(InstanceType="m6i.4xlarge")
    cloud.run(InstanceType="m6i.4xlarge")
    refused("VcpuLimitExceeded", cloud.run, InstanceType="t3.micro")
    cloud.run(InstanceType="g4dn.xlarge")  # has a quota of its own
    cloud.ec2.stop_instances(InstanceIds=[first])
    settle()
    second = cloud.run(InstanceType="t3.micro")
    refused("VcpuLimitExceeded", cloud.ec2.start_instances, InstanceIds=[first])
    quotas.request_service_quota_increase(**CPUS, DesiredValue=34)
    cloud.ec2.start_instances(InstanceIds=[first, second])
    assert cloud.state(first) == "pending"


@pytest.mark.parametrize("desired", [4, 5])
def test_a_request_is_for_more_than_there_is(cloud, desired):
    refused(
        "IllegalArgumentException",
        client("service-quotas").request_service_quota_increase,
        **QUOTA,
        DesiredValue=desired,
    )


def test_other_quotas_of_ec2_are_not_known(cloud):
    quotas = client("service-quotas")
    refused("NoSuchResourceException", quotas.get_service_quota, ServiceCode="ec2", QuotaCode="L-34B43A08")
