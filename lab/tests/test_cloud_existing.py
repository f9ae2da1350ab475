"""Lookups find the resources that the settings refer to, with fitting properties."""

import pytest
import yaml
from moto import mock_aws

from lab.cloud import existing
from lab.tests.cloud import REGION, client
from lab.workspace import ROOT

CERTIFICATE = f"arn:aws:acm:{REGION}:111122223333:certificate/12345678-90ab-cdef-1234-567890abcdef"


@pytest.fixture(scope="module")
def ec2():
    with mock_aws():
        existing.put(
            {
                "regions": [REGION],
                "images": ["ami-0a1b2c3d4e5f60718"],
                "addresses": ["eipalloc-0123456789abcdef0"],
                "volumes": [
                    {"id": "vol-0123456789abcdef0", "size": 200, "zone": f"{REGION}a"},
                    {
                        "id": "vol-0123456789abcdef1",
                        "size": 100,
                        "zone": f"{REGION}a",
                        "snapshot": "snap-0123456789abcdef1",
                        "tags": {"Name": "server-data-dev"},
                    },
                ],
                "hosted_zones": [{"id": "Z0123456789ABC", "name": "git.example.com"}],
                "certificates": [{"arn": CERTIFICATE, "names": ["git.example.com"]}],
                "tags": {"gitlab-stack": "gitlab/dev"},
            }
        )
        yield client("ec2")


def test_an_image_is_there_and_for_x86(ec2):
    [image] = ec2.describe_images(ImageIds=["ami-0a1b2c3d4e5f60718"])["Images"]
    assert (image["Architecture"], image["RootDeviceType"]) == ("x86_64", "ebs")


def test_no_lookup_of_red_hats_images_finds_it(ec2):
    found = ec2.describe_images(Owners=["309956199498"], Filters=[{"Name": "name", "Values": ["RHEL-8.10*"]}])
    assert "ami-0a1b2c3d4e5f60718" not in {image["ImageId"] for image in found["Images"]}


def test_a_volume_is_there_encrypted_and_in_its_zone(ec2):
    [volume] = ec2.describe_volumes(VolumeIds=["vol-0123456789abcdef0"])["Volumes"]
    assert (volume["Size"], volume["AvailabilityZone"]) == (200, f"{REGION}a")
    assert volume["Encrypted"]


def test_a_restored_volume_is_there_with_its_name_and_its_snapshot(ec2):
    wanted = {"snapshot-id": "snap-0123456789abcdef1", "tag:Name": "server-data-dev", "tag:gitlab-stack": "gitlab/dev"}
    filters = [{"Name": name, "Values": [value]} for name, value in wanted.items()]
    [volume] = ec2.describe_volumes(Filters=filters)["Volumes"]
    assert volume["VolumeId"] == "vol-0123456789abcdef1"


def test_an_address_is_there(ec2):
    [address] = ec2.describe_addresses(AllocationIds=["eipalloc-0123456789abcdef0"])["Addresses"]
    assert address["PublicIp"]


def test_volumes_and_addresses_are_marked_as_the_stacks(ec2):
    mark = [{"Key": "gitlab-stack", "Value": "gitlab/dev"}]
    [volume] = ec2.describe_volumes(VolumeIds=["vol-0123456789abcdef0"])["Volumes"]
    [address] = ec2.describe_addresses(AllocationIds=["eipalloc-0123456789abcdef0"])["Addresses"]
    assert volume["Tags"] == address["Tags"] == mark


@pytest.mark.usefixtures("ec2")
def test_a_hosted_zone_is_there_public_and_holds_the_domain():
    route53 = client("route53")
    zone = route53.get_hosted_zone(Id="Z0123456789ABC")["HostedZone"]
    assert (zone["Name"], zone["Config"]["PrivateZone"]) == ("git.example.com.", False)
    assert route53.list_tags_for_resource(ResourceType="hostedzone", ResourceId="Z0123456789ABC")


@pytest.mark.usefixtures("ec2")
def test_a_certificate_is_there_issued_and_for_the_domain():
    acm = client("acm")
    found = acm.describe_certificate(CertificateArn=CERTIFICATE)["Certificate"]
    assert (found["Status"], found["SubjectAlternativeNames"]) == ("ISSUED", ["git.example.com"])


def test_the_lab_starts_with_the_public_zone_of_the_domain_in_its_stack_file():
    config = yaml.safe_load((ROOT / "Pulumi.lab.yaml").read_text())["config"]
    with mock_aws():
        existing.put(existing.LAB)
        route53 = client("route53")
        zone = route53.get_hosted_zone(Id=config["gitlab:hostedZoneId"])["HostedZone"]
    assert not zone["Config"]["PrivateZone"]
    assert f"{config['gitlab:domain']}.".endswith(f".{zone['Name']}")
