import pytest

from lab.tests.cloud import REGION, client, refused


@pytest.mark.parametrize("region", [REGION, "us-west-2"])
@pytest.mark.parametrize("block", ["10.42.0.0/16", "10.42.9.0/24"])
def test_vpcs_do_not_share_addresses_in_any_region(cloud, region, block):
    there = client("ec2", region)
    refused("UnsupportedOperation", there.create_vpc, CidrBlock=block)
    there.create_vpc(CidrBlock=block.replace("42", "43"))
    cloud.ec2.detach_internet_gateway(InternetGatewayId=cloud.gateway, VpcId=cloud.vpc)
    cloud.ec2.delete_subnet(SubnetId=cloud.subnet)
    cloud.ec2.delete_vpc(VpcId=cloud.vpc)
    there.create_vpc(CidrBlock=block)


def test_default_vpcs_are_no_obstacle(cloud):
    cloud.ec2.create_vpc(CidrBlock="172.31.0.0/16")
    assert client("ec2", "us-west-2").describe_vpcs()["Vpcs"]
