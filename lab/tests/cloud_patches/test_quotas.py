"""How many elastic addresses an account may have, and that it may have more after a request."""

import pytest

from lab.tests.cloud import REGION, client, refused

QUOTA = {"ServiceCode": "ec2", "QuotaCode": "L-0263D0A3"}


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
    refused("NoSuchResourceException", quotas.get_service_quota, ServiceCode="ec2", QuotaCode="L-1216C47A")
