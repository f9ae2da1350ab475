import base64

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from lab.cloud.patches import instances
from lab.tests.cloud import REGION, client, refused, settle


def test_a_machine_is_of_its_images_architecture_and_in_a_zone_that_has_its_type(cloud):
    refused("InvalidParameterValue", cloud.run, InstanceType="m7g.large")
    assert cloud.run(InstanceType="m6i.large")
    away = client("ec2", "us-east-1")
    vpc = away.create_vpc(CidrBlock="10.43.0.0/16")["Vpc"]["VpcId"]
    made = away.create_subnet(VpcId=vpc, CidrBlock="10.43.0.0/24", AvailabilityZone="us-east-1e")
    subnet = made["Subnet"]["SubnetId"]
    interface = away.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    arguments = {"ImageId": cloud.image, "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}
    refused("Unsupported", away.run_instances, SubnetId=subnet, **arguments)
    refused(
        "Unsupported",
        away.run_instances,
        NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": interface}],
        **arguments,
    )


def test_a_machine_is_found_by_its_volume(cloud):
    machine, volume = cloud.run(), cloud.volume()
    settle()

    def holders():
        by_volume = {"Name": "block-device-mapping.volume-id", "Values": [volume]}
        found = cloud.ec2.describe_instances(Filters=[by_volume])["Reservations"]
        return [each["InstanceId"] for reservation in found for each in reservation["Instances"]]

    assert holders() == []
    cloud.ec2.attach_volume(VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    assert holders() == [machine]


def test_metadata_options_that_are_not_named_stay_as_they_were(cloud):
    instance_id = cloud.run(MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2})
    changed = cloud.ec2.modify_instance_metadata_options(InstanceId=instance_id, HttpPutResponseHopLimit=1)
    assert changed["InstanceMetadataOptions"] == {
        "State": "applied",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "HttpEndpoint": "enabled",
        "HttpProtocolIpv6": "disabled",
        "InstanceMetadataTags": "disabled",
    }


@pytest.fixture
def profile(cloud):
    """The name of a new instance profile with a role in it."""
    iam = client("iam")
    iam.create_role(RoleName="runner", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="runner")
    iam.add_role_to_instance_profile(InstanceProfileName="runner", RoleName="runner")
    return "runner"


def test_a_new_instance_profile_is_not_usable_yet(cloud, profile, monkeypatch):
    with pytest.raises(ClientError) as error:
        cloud.run(IamInstanceProfile={"Name": profile})
    # Exactly the message for which the Terraform provider retries.
    assert error.value.response["Error"] == {
        "Code": "InvalidParameterValue",
        "Message": "Value (runner) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
    }
    instance = cloud.run()
    refused(
        "InvalidParameterValue",
        cloud.ec2.associate_iam_instance_profile,
        InstanceId=instance,
        IamInstanceProfile={"Name": profile},
    )
    monkeypatch.setattr(instances, "PROFILE_DELAY", 0)
    instance = cloud.run(IamInstanceProfile={"Name": profile})
    assert cloud.instance(instance)["IamInstanceProfile"]["Arn"].endswith(":instance-profile/runner")


def test_an_instance_profile_exists_and_has_a_role(cloud, profile, monkeypatch):
    monkeypatch.setattr(instances, "PROFILE_DELAY", 0)
    refused("InvalidParameterValue", cloud.run, IamInstanceProfile={"Name": "nobody"})
    client("iam").remove_role_from_instance_profile(InstanceProfileName=profile, RoleName=profile)
    with pytest.raises(ClientError, match="has no associated IAM Roles"):
        cloud.run(IamInstanceProfile={"Name": profile})


def test_user_data_changes_while_stopped(cloud):
    instance = cloud.run(UserData="one")
    settle()
    change = {"InstanceId": instance, "UserData": {"Value": b"two"}}
    refused("IncorrectInstanceState", cloud.ec2.modify_instance_attribute, **change)
    cloud.ec2.stop_instances(InstanceIds=[instance])
    settle()
    large = {"InstanceId": instance, "UserData": {"Value": b"x" * 16385}}
    refused("InvalidParameterValue", cloud.ec2.modify_instance_attribute, **large)
    cloud.ec2.modify_instance_attribute(**change)
    read = cloud.ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
    assert base64.b64decode(read["UserData"]["Value"]) == b"two"


def test_an_instance_on_an_interface_reads_back(cloud):
    group = cloud.group("server")
    interface, (allocation, public) = cloud.interface(Groups=[group]), cloud.address()
    cloud.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=interface)
    instance = cloud.instance(cloud.run_on(interface))
    assert instance["PublicIpAddress"] == public
    assert instance["SecurityGroups"] == [{"GroupId": group, "GroupName": "server"}]
    assert instance["Placement"]["AvailabilityZone"] == REGION + "a"
    assert instance["NetworkInterfaces"][0]["Attachment"]["DeleteOnTermination"] is False
    (address,) = cloud.ec2.describe_addresses()["Addresses"]
    assert address["InstanceId"] == instance["InstanceId"]


def test_an_instance_with_its_own_address_keeps_its_groups(cloud):
    group = cloud.group("server")
    nic = {"DeviceIndex": 0, "SubnetId": cloud.subnet, "Groups": [group], "PrivateIpAddress": "10.42.0.9"}
    instance = cloud.instance(cloud.run(NetworkInterfaces=[nic]))
    assert instance["SecurityGroups"] == [{"GroupId": group, "GroupName": "server"}]


def test_an_interface_is_given_once(cloud):
    interface = cloud.interface()
    first = cloud.run_on(interface)
    refused("InvalidNetworkInterface.InUse", cloud.run_on, interface=interface)
    cloud.ec2.terminate_instances(InstanceIds=[first])
    refused("InvalidNetworkInterface.InUse", cloud.run_on, interface=interface)
    settle()
    cloud.run_on(interface)
