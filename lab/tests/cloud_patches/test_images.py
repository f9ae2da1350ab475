import pytest
from moto import mock_aws

from lab.tests.cloud import client, refused


def test_images(cloud):
    pattern = {"Name": "name", "Values": ["RHEL-8.10*_HVM-*-x86_64-*-Hourly2-GP3"]}
    images = cloud.ec2.describe_images(Owners=["309956199498"], Filters=[pattern])["Images"]
    assert len(images) == 3
    assert {image["RootDeviceName"] for image in images} == {"/dev/sda1"}
    root = images[0]["BlockDeviceMappings"][0]["Ebs"]
    assert (root["VolumeSize"], root["DeleteOnTermination"]) == (10, True)
    # A filter that is too broad finds a newer image that is not wanted.
    loose = cloud.ec2.describe_images(Owners=["309956199498"])["Images"]
    assert max(loose, key=lambda image: image["CreationDate"])["Name"].startswith("RHEL-9")


def test_unknown_image_key_or_type_is_refused(cloud):
    refused("InvalidAMIID.NotFound", cloud.run, ImageId="ami-0")
    refused("InvalidKeyPair.NotFound", cloud.run, KeyName="nobody")
    refused("InvalidInstanceType.NotFound", cloud.run, InstanceType="t3.enormous")


@pytest.mark.parametrize(
    ("region", "zone", "types"),
    [
        ("us-east-1", "us-east-1a", {"m6i.xlarge", "t3.small"}),
        ("us-east-1", "us-east-1e", set()),
        ("us-east-1", "us-east-1z", set()),
        ("mx-central-1", "mx-central-1a", {"m6i.xlarge", "t3.small"}),
        ("us-gov-west-1", "us-gov-west-1a", {"m6i.xlarge", "t3.small"}),
    ],
)
def test_which_types_a_zone_offers(region, zone, types):
    with mock_aws():
        offered = client("ec2", region).describe_instance_type_offerings(
            LocationType="availability-zone",
            Filters=[
                {"Name": "location", "Values": [zone]},
                {"Name": "instance-type", "Values": ["m6i.xlarge", "t3.small", "m6i.xlage"]},
            ],
        )["InstanceTypeOfferings"]
    assert {each["InstanceType"] for each in offered} == types


@pytest.mark.parametrize(
    ("region", "account"),
    [("eu-central-1", "309956199498"), ("us-gov-west-1", "219670896067"), ("cn-north-1", "841258680906")],
)
def test_red_hat_has_an_account_in_each_partition(region, account):
    with mock_aws():
        pattern = {"Name": "name", "Values": ["RHEL-8.10*_HVM-*-x86_64-*-Hourly2-GP3"]}
        assert len(client("ec2", region).describe_images(Owners=[account], Filters=[pattern])["Images"]) == 3
