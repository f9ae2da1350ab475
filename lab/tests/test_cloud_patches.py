"""Each correction of moto, as a program meets it: through the API."""

import base64
from datetime import timedelta
from functools import cache

import boto3
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto import mock_aws

from lab.cloud import inventory, patches

REGION = "eu-central-1"
patches.apply()


@cache
def client(service):
    """One for all tests: most of the time of a test is the reading of the service's description."""
    return boto3.client(service, REGION, aws_access_key_id="lab", aws_secret_access_key="lab")


def settle():
    """What the loop does in the end: everything asked for has become real."""
    for ec2, elb in patches.regions():
        for reservation in ec2.reservations.values():
            for instance in reservation.instances:
                patches.settle_power(instance)
        for volume in list(ec2.volumes.values()):
            patches.settle_volume(volume)
        for balancer in elb.load_balancers.values():
            balancer.state = "active"


def refused(code, call, **arguments):
    with pytest.raises(ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code


class Cloud:
    """A VPC with a subnet and a gateway, and short ways to make things in it."""

    def __init__(self):
        self.ec2 = client("ec2")
        self.elb = client("elbv2")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.42.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.make_subnet("10.42.0.0/24", "a")
        self.gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=self.gateway, VpcId=self.vpc)
        self.image = self.ec2.describe_images(Owners=["309956199498"])["Images"][0]["ImageId"]

    def make_subnet(self, block, zone):
        made = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=block, AvailabilityZone=REGION + zone)
        return made["Subnet"]["SubnetId"]

    def group(self, name):
        return self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)["GroupId"]

    def interface(self, **arguments):
        made = self.ec2.create_network_interface(SubnetId=self.subnet, **arguments)
        return made["NetworkInterface"]["NetworkInterfaceId"]

    def address(self):
        made = self.ec2.allocate_address(Domain="vpc")
        return made["AllocationId"], made["PublicIp"]

    def run(self, **arguments):
        arguments = {"ImageId": self.image, "InstanceType": "t3.large"} | arguments
        if "NetworkInterfaces" not in arguments:
            arguments.setdefault("SubnetId", self.subnet)
        made = self.ec2.run_instances(MinCount=1, MaxCount=1, **arguments)
        return made["Instances"][0]["InstanceId"]

    def run_on(self, interface):
        return self.run(NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": interface}])

    def instance(self, instance_id):
        return self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]

    def state(self, instance_id):
        return self.instance(instance_id)["State"]["Name"]

    def volume(self, zone="a"):
        return self.ec2.create_volume(Size=1, AvailabilityZone=REGION + zone, VolumeType="gp3")["VolumeId"]

    def balancer(self, name="front", **arguments):
        arguments = {"Subnets": [self.subnet], "Type": "network"} | arguments
        return self.elb.create_load_balancer(Name=name, **arguments)["LoadBalancers"][0]

    def target_group(self, name="http", **arguments):
        arguments = {"Protocol": "TCP", "Port": 80, "VpcId": self.vpc} | arguments
        return self.elb.create_target_group(Name=name, **arguments)["TargetGroups"][0]["TargetGroupArn"]


@pytest.fixture
def cloud():
    with mock_aws():
        patches.target_health.clear()
        yield Cloud()


def test_images(cloud):
    pattern = {"Name": "name", "Values": ["RHEL-8.10*_HVM-*-x86_64-*-Hourly2-GP3"]}
    images = cloud.ec2.describe_images(Owners=["309956199498"], Filters=[pattern])["Images"]
    assert len(images) == 3
    assert {image["RootDeviceName"] for image in images} == {"/dev/sda1"}
    root = images[0]["BlockDeviceMappings"][0]["Ebs"]
    assert (root["VolumeSize"], root["DeleteOnTermination"]) == (10, True)
    # A filter that is too loose finds a newer image that is not meant.
    loose = cloud.ec2.describe_images(Owners=["309956199498"])["Images"]
    assert max(loose, key=lambda image: image["CreationDate"])["Name"].startswith("RHEL-9")


def test_unknown_image_key_or_type_is_refused(cloud):
    refused("InvalidAMIID.NotFound", cloud.run, ImageId="ami-0")
    refused("InvalidKeyPair.NotFound", cloud.run, KeyName="nobody")
    refused("InvalidInstanceType.NotFound", cloud.run, InstanceType="t3.enormous")


def test_a_machine_is_of_its_images_architecture_and_in_a_zone_that_has_its_type(cloud):
    refused("InvalidParameterValue", cloud.run, InstanceType="m7g.large")
    assert cloud.run(InstanceType="m6i.large")
    away = boto3.client("ec2", "us-east-1", aws_access_key_id="lab", aws_secret_access_key="lab")
    vpc = away.create_vpc(CidrBlock="10.42.0.0/16")["Vpc"]["VpcId"]
    made = away.create_subnet(VpcId=vpc, CidrBlock="10.42.0.0/24", AvailabilityZone="us-east-1e")
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
        ec2 = boto3.client("ec2", region, aws_access_key_id="lab", aws_secret_access_key="lab")
        offered = ec2.describe_instance_type_offerings(
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
        ec2 = boto3.client("ec2", region, aws_access_key_id="lab", aws_secret_access_key="lab")
        pattern = {"Name": "name", "Values": ["RHEL-8.10*_HVM-*-x86_64-*-Hourly2-GP3"]}
        assert len(ec2.describe_images(Owners=[account], Filters=[pattern])["Images"]) == 3


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


def tags(number):
    return [{"Key": f"{n:0>128}", "Value": "v" * 256} for n in range(number)]


def test_a_resource_has_fifty_tags_at_most_and_is_not_made_with_more(cloud):
    many = tags(51)
    for kind, make in (
        ("instance", cloud.run),
        ("volume", lambda **a: cloud.ec2.create_volume(Size=1, AvailabilityZone=REGION + "a", **a)),
        ("vpc", lambda **a: cloud.ec2.create_vpc(CidrBlock="10.43.0.0/16", **a)),
        ("elastic-ip", lambda **a: cloud.ec2.allocate_address(Domain="vpc", **a)),
        ("network-interface", cloud.interface),
        (
            "security-group",
            lambda **a: cloud.ec2.create_security_group(GroupName="g", Description="g", VpcId=cloud.vpc, **a),
        ),
    ):
        refused("TagLimitExceeded", make, TagSpecifications=[{"ResourceType": kind, "Tags": many}])
    refused("TagLimitExceeded", cloud.ec2.create_tags, Resources=[cloud.vpc], Tags=many)
    refused("TooManyTags", cloud.balancer, Tags=many)
    refused("TooManyTags", cloud.target_group, Tags=many)
    assert cloud.ec2.describe_instances()["Reservations"] == []
    assert cloud.ec2.describe_volumes()["Volumes"] == []
    assert cloud.ec2.describe_addresses()["Addresses"] == []
    assert cloud.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    assert cloud.elb.describe_load_balancers()["LoadBalancers"] == []
    arn = cloud.target_group()
    refused("TooManyTags", cloud.elb.add_tags, ResourceArns=[arn], Tags=many)


def test_tags_at_the_limits_are_taken(cloud):
    most = tags(50)
    instance = cloud.run(TagSpecifications=[{"ResourceType": "instance", "Tags": most}])
    assert len(cloud.instance(instance)["Tags"]) == 50
    refused("TagLimitExceeded", cloud.ec2.create_tags, Resources=[instance], Tags=[{"Key": "more", "Value": ""}])
    arn = cloud.balancer(Tags=most[:25])["LoadBalancerArn"]
    cloud.elb.add_tags(ResourceArns=[arn], Tags=most)
    refused("TooManyTags", cloud.elb.add_tags, ResourceArns=[arn], Tags=[{"Key": "more", "Value": ""}])


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
    # Word for word what the Terraform provider waits for.
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
    monkeypatch.setattr(patches, "PROFILE_DELAY", 0)
    instance = cloud.run(IamInstanceProfile={"Name": profile})
    assert cloud.instance(instance)["IamInstanceProfile"]["Arn"].endswith(":instance-profile/runner")


def test_an_instance_profile_exists_and_has_a_role(cloud, profile, monkeypatch):
    monkeypatch.setattr(patches, "PROFILE_DELAY", 0)
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


def test_gp3_volumes_have_a_throughput(cloud):
    cloud.volume()
    (volume,) = cloud.ec2.describe_volumes()["Volumes"]
    assert (volume["Iops"], volume["Throughput"]) == (3000, 125)


def test_elastic_addresses_come_from_the_labs_internet(cloud):
    addresses = [cloud.address()[1] for _ in range(5)]
    assert set(addresses) <= {f"198.51.100.{host}" for host in range(16, 251)}
    assert len(set(addresses)) == 5
    refused("AddressLimitExceeded", cloud.ec2.allocate_address)


def test_an_elastic_address_needs_a_gateway(cloud):
    interface, (allocation, _) = cloud.interface(), cloud.address()
    cloud.ec2.detach_internet_gateway(InternetGatewayId=cloud.gateway, VpcId=cloud.vpc)
    give = {"AllocationId": allocation, "NetworkInterfaceId": interface}
    refused("Gateway.NotAttached", cloud.ec2.associate_address, **give)


def test_private_addresses_are_unique_and_not_awss(cloud):
    interfaces = [cloud.interface() for _ in range(3)]
    described = cloud.ec2.describe_network_interfaces(NetworkInterfaceIds=interfaces)["NetworkInterfaces"]
    assert {i["PrivateIpAddress"] for i in described} == {"10.42.0.4", "10.42.0.5", "10.42.0.6"}
    refused("InvalidIPAddress.InUse", cloud.interface, PrivateIpAddress="10.42.0.5")
    refused("InvalidParameterValue", cloud.interface, PrivateIpAddress="10.42.0.2")
    refused("InvalidParameterValue", cloud.interface, PrivateIpAddress="10.42.9.9")


def test_a_fixed_address_is_free_again_after_termination(cloud):
    for _ in range(2):
        instance = cloud.run(PrivateIpAddress="10.42.0.50")
        settle()
        cloud.ec2.terminate_instances(InstanceIds=[instance])
        settle()


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


def test_termination_keeps_what_was_given(cloud):
    interface, volume = cloud.interface(), cloud.volume()
    instance = cloud.run_on(interface)
    settle()
    cloud.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    settle()
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    assert cloud.state(instance) == "shutting-down"
    refused("VolumeInUse", cloud.ec2.attach_volume, VolumeId=volume, InstanceId=cloud.run(), Device="/dev/sdf")
    settle()
    assert cloud.state(instance) == "terminated"
    volumes = {v["VolumeId"]: v["State"] for v in cloud.ec2.describe_volumes()["Volumes"]}
    assert volumes[volume] == "available" and len(volumes) == 2  # it and the other machine's root
    (kept,) = cloud.ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    assert kept["Status"] == "available"
    assert "PrivateIpAddress" not in cloud.instance(instance)


def test_termination_deletes_what_was_made_with_the_machine(cloud):
    instance = cloud.run()
    settle()
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    settle()
    assert cloud.ec2.describe_volumes()["Volumes"] == []
    assert cloud.ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_power(cloud):
    instance = cloud.run()
    assert cloud.state(instance) == "pending"
    settle()
    assert cloud.state(instance) == "running"
    cloud.ec2.reboot_instances(InstanceIds=[instance])
    cloud.ec2.stop_instances(InstanceIds=[instance])
    assert cloud.state(instance) == "stopping"
    refused("IncorrectInstanceState", cloud.ec2.start_instances, InstanceIds=[instance])
    settle()
    assert cloud.state(instance) == "stopped"
    refused("IncorrectInstanceState", cloud.ec2.reboot_instances, InstanceIds=[instance])
    cloud.ec2.start_instances(InstanceIds=[instance])
    settle()
    assert cloud.state(instance) == "running"


def test_reboots_are_counted(cloud):
    instance = cloud.run()
    settle()
    cloud.ec2.reboot_instances(InstanceIds=[instance])
    ((ec2, _),) = [pair for pair in patches.regions() if pair[0].region_name == REGION]
    assert ec2.get_instance(instance).reboots == 1


@pytest.mark.parametrize(("behaviour", "state"), [("stop", "stopped"), ("terminate", "terminated")])
def test_a_machine_that_powers_off_by_itself(cloud, behaviour, state):
    instance = cloud.run(InstanceInitiatedShutdownBehavior=behaviour)
    settle()
    ((ec2, _),) = [pair for pair in patches.regions() if pair[0].region_name == REGION]
    patches.power_off_from_inside(ec2.get_instance(instance))
    settle()
    assert cloud.state(instance) == state


def test_an_automatic_address_changes_with_stop_and_start(cloud):
    nic = {"DeviceIndex": 0, "SubnetId": cloud.subnet, "AssociatePublicIpAddress": True}
    instance = cloud.run(NetworkInterfaces=[nic])
    settle()
    before = cloud.instance(instance)
    cloud.ec2.stop_instances(InstanceIds=[instance])
    settle()
    assert "PublicIpAddress" not in cloud.instance(instance)
    cloud.ec2.start_instances(InstanceIds=[instance])
    settle()
    after = cloud.instance(instance)
    assert after["PublicIpAddress"] != before["PublicIpAddress"]
    assert after["PrivateIpAddress"] == before["PrivateIpAddress"]


def test_an_automatic_address_stays_over_a_reboot(cloud):
    nic = {"DeviceIndex": 0, "SubnetId": cloud.subnet, "AssociatePublicIpAddress": True}
    instance = cloud.run(NetworkInterfaces=[nic])
    settle()
    before = cloud.instance(instance)
    cloud.ec2.reboot_instances(InstanceIds=[instance])
    settle()
    after = cloud.instance(instance)
    assert after["PublicIpAddress"] == before["PublicIpAddress"]
    assert after["PrivateIpAddress"] == before["PrivateIpAddress"]


def test_an_elastic_address_is_there_from_the_first_moment_and_stays(cloud):
    interface, (allocation, public) = cloud.interface(), cloud.address()
    cloud.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=interface)
    instance = cloud.run_on(interface)
    first = cloud.instance(instance)
    assert (first["State"]["Name"], first["PublicIpAddress"]) == ("pending", public)
    settle()
    cloud.ec2.reboot_instances(InstanceIds=[instance])
    cloud.ec2.stop_instances(InstanceIds=[instance])
    settle()
    assert cloud.instance(instance)["PublicIpAddress"] == public
    cloud.ec2.start_instances(InstanceIds=[instance])
    settle()
    assert cloud.instance(instance)["PublicIpAddress"] == public
    assert cloud.instance(instance)["PrivateIpAddress"] == first["PrivateIpAddress"]
    # So they are when another machine takes the first one's place.
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    settle()
    second = cloud.instance(cloud.run_on(interface))
    assert (second["PublicIpAddress"], second["PrivateIpAddress"]) == (public, first["PrivateIpAddress"])


def test_an_address_given_after_launch_changes_what_the_first_boot_saw(cloud):
    nic = {"DeviceIndex": 0, "SubnetId": cloud.subnet, "AssociatePublicIpAddress": True}
    instance, (allocation, public) = cloud.run(NetworkInterfaces=[nic]), cloud.address()
    assert cloud.instance(instance)["PublicIpAddress"] != public
    settle()
    cloud.ec2.associate_address(AllocationId=allocation, InstanceId=instance)
    assert cloud.instance(instance)["PublicIpAddress"] == public


def test_a_volume_is_larger_for_its_machine_some_seconds_after_the_answer(cloud, monkeypatch):
    monkeypatch.setattr(patches, "growth_delay", timedelta(seconds=20))
    volume = cloud.volume()

    def modify(size):
        return cloud.ec2.modify_volume(VolumeId=volume, Size=size)["VolumeModification"]["ModificationState"]

    def seen():
        return patches.size_in_effect(inventory.find_volume(volume))

    assert modify(2) == "modifying"
    assert seen() == 1
    refused("IncorrectModificationState", cloud.ec2.modify_volume, VolumeId=volume, Size=3)
    monkeypatch.setattr(patches, "growth_delay", timedelta())
    (told,) = cloud.ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"]
    assert told["ModificationState"] == "optimizing"
    assert seen() == 2
    assert [modify(size) for size in (3, 4, 5)] == ["optimizing"] * 3
    assert seen() == 5
    refused("VolumeModificationRateExceeded", cloud.ec2.modify_volume, VolumeId=volume, Size=6)


def test_a_volume_has_one_machine(cloud):
    first, second, volume = cloud.run(), cloud.run(), cloud.volume()
    settle()
    attached = cloud.ec2.attach_volume(VolumeId=volume, InstanceId=first, Device="/dev/sdf")
    assert attached["State"] == "attaching"
    settle()
    attach = cloud.ec2.attach_volume
    refused("VolumeInUse", attach, VolumeId=volume, InstanceId=second, Device="/dev/sdf")
    refused("InvalidParameterValue", attach, VolumeId=cloud.volume(), InstanceId=first, Device="/dev/sdf")
    cloud.ec2.detach_volume(VolumeId=volume, InstanceId=first)
    refused("VolumeInUse", attach, VolumeId=volume, InstanceId=second, Device="/dev/sdf")
    settle()
    attach(VolumeId=volume, InstanceId=second, Device="/dev/sdf")


def test_a_detachment_can_be_forced(cloud):
    instance, volume = cloud.run(), cloud.volume()
    settle()
    for force in (False, True):
        cloud.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
        settle()
        cloud.ec2.detach_volume(VolumeId=volume, Force=force)
        (found,) = (v for v in inventory.read().volumes if v.id == volume)
        assert (found.status, found.forced) == ("detaching", force)
        settle()


def test_a_volume_and_its_machine_are_in_one_zone(cloud):
    away = {"VolumeId": cloud.volume("b"), "InstanceId": cloud.run(), "Device": "/dev/sdf"}
    refused("InvalidVolume.ZoneMismatch", cloud.ec2.attach_volume, **away)


def test_what_is_in_use_cannot_be_deleted(cloud):
    used, other = cloud.group("used"), cloud.group("other")
    interface, (allocation, _) = cloud.interface(Groups=[used]), cloud.address()
    cloud.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=interface)
    instance = cloud.run_on(interface)
    refused("InvalidParameterValue", cloud.ec2.delete_network_interface, NetworkInterfaceId=interface)
    refused("DependencyViolation", cloud.ec2.delete_security_group, GroupId=used)
    refused("DependencyViolation", cloud.ec2.delete_subnet, SubnetId=cloud.subnet)
    detach = {"InternetGatewayId": cloud.gateway, "VpcId": cloud.vpc}
    refused("DependencyViolation", cloud.ec2.detach_internet_gateway, **detach)
    refused("DependencyViolation", cloud.ec2.delete_vpc, VpcId=cloud.vpc)
    pair = [{"GroupId": other}]
    rule = [{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": pair}]
    cloud.ec2.authorize_security_group_ingress(GroupId=used, IpPermissions=rule)
    refused("DependencyViolation", cloud.ec2.delete_security_group, GroupId=other)
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    settle()
    cloud.ec2.delete_network_interface(NetworkInterfaceId=interface)
    cloud.ec2.release_address(AllocationId=allocation)
    cloud.ec2.delete_security_group(GroupId=used)
    cloud.ec2.delete_security_group(GroupId=other)
    cloud.ec2.delete_subnet(SubnetId=cloud.subnet)
    cloud.ec2.detach_internet_gateway(**detach)
    cloud.ec2.delete_vpc(VpcId=cloud.vpc)


def test_a_group_has_sixty_rules_in_each_direction(cloud):
    group, other = cloud.group("full"), cloud.group("other")

    def rules(count, start=0):
        ranges = [{"CidrIp": f"203.0.113.{number}/32"} for number in range(start, start + count)]
        return {"GroupId": group, "IpPermissions": [tcp(IpRanges=ranges)]}

    def tcp(**far_end):
        return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **far_end}

    cloud.ec2.authorize_security_group_ingress(**rules(59))
    cloud.ec2.authorize_security_group_ingress(
        GroupId=group, IpPermissions=[tcp(UserIdGroupPairs=[{"GroupId": other}])]
    )
    refused("RulesPerSecurityGroupLimitExceeded", cloud.ec2.authorize_security_group_ingress, **rules(1, start=100))
    # A new group has one already: everything to everywhere.
    cloud.ec2.authorize_security_group_egress(**rules(59))
    refused("RulesPerSecurityGroupLimitExceeded", cloud.ec2.authorize_security_group_egress, **rules(1, start=100))


def test_a_rule_that_names_a_group_keeps_its_description(cloud):
    group, other = cloud.group("one"), cloud.group("other")
    pair = [{"GroupId": other, "Description": "why"}]
    rule = [{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": pair}]
    cloud.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule)
    rules = cloud.ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])
    (found,) = [r for r in rules["SecurityGroupRules"] if not r["IsEgress"]]
    assert found["Description"] == "why"
    assert found["ReferencedGroupInfo"] == {"GroupId": other}


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_security_group_has_sixty_rules_in_each_direction(cloud, direction):
    group = cloud.group("full")
    authorize = getattr(cloud.ec2, f"authorize_security_group_{direction}")

    def rules(first, last):
        ranges = [{"CidrIp": f"203.0.113.{n}/32"} for n in range(first, last)]
        return {
            "GroupId": group,
            "IpPermissions": [{"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "IpRanges": ranges}],
        }

    there = 1 if direction == "egress" else 0  # AWS's own allow-all
    authorize(**rules(0, 60 - there))
    with pytest.raises(ClientError) as error:
        authorize(**rules(60, 61))
    assert error.value.response["Error"] == {
        "Code": "RulesPerSecurityGroupLimitExceeded",
        "Message": "The maximum number of rules per security group has been reached.",
    }


def test_a_balancer_reads_back(cloud):
    group, (allocation, public) = cloud.group("front"), cloud.address()
    mapping = [{"SubnetId": cloud.subnet, "AllocationId": allocation}]
    made = cloud.elb.create_load_balancer(Name="front", Type="network", SubnetMappings=mapping, SecurityGroups=[group])[
        "LoadBalancers"
    ][0]
    assert made["State"]["Code"] == "provisioning"
    (read,) = cloud.elb.describe_load_balancers()["LoadBalancers"]
    assert read["State"]["Code"] == "provisioning"
    assert ":loadbalancer/net/front/" in read["LoadBalancerArn"]
    assert read["SecurityGroups"] == [group]
    addresses = read["AvailabilityZones"][0]["LoadBalancerAddresses"]
    assert addresses == [{"IpAddress": public, "AllocationId": allocation}]
    (address,) = cloud.ec2.describe_addresses()["Addresses"]
    disassociate = {"AssociationId": address["AssociationId"]}
    refused("OperationNotPermitted", cloud.ec2.disassociate_address, **disassociate)
    (interface,) = cloud.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert interface["Description"].startswith("ELB net/front/")
    refused("DependencyViolation", cloud.ec2.delete_security_group, GroupId=group)
    cloud.elb.delete_load_balancer(LoadBalancerArn=read["LoadBalancerArn"])
    assert cloud.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    cloud.ec2.release_address(AllocationId=allocation)
    cloud.ec2.delete_security_group(GroupId=group)


def test_a_balancer_gets_its_groups_when_it_is_made(cloud):
    balancer = cloud.balancer()
    change = {"LoadBalancerArn": balancer["LoadBalancerArn"], "SecurityGroups": [cloud.group("late")]}
    refused("InvalidConfigurationRequest", cloud.elb.set_security_groups, **change)


def test_balancers_that_are_refused(cloud):
    cloud.balancer()
    refused("DuplicateLoadBalancerName", cloud.balancer, Scheme="internal")
    refused("ValidationError", cloud.balancer, name="web", Type="application")
    cloud.elb.delete_load_balancer(
        LoadBalancerArn=cloud.elb.describe_load_balancers()["LoadBalancers"][0]["LoadBalancerArn"]
    )
    cloud.ec2.detach_internet_gateway(InternetGatewayId=cloud.gateway, VpcId=cloud.vpc)
    refused("InvalidSubnet", cloud.balancer)
    assert cloud.elb.describe_load_balancers()["LoadBalancers"] == []


def test_one_listener_a_port(cloud):
    forward = [{"Type": "forward", "TargetGroupArn": cloud.target_group()}]
    listener = {"LoadBalancerArn": cloud.balancer()["LoadBalancerArn"], "Port": 80, "Protocol": "TCP"}
    cloud.elb.create_listener(DefaultActions=forward, **listener)
    other = [{"Type": "forward", "TargetGroupArn": cloud.target_group("other")}]
    refused("DuplicateListener", cloud.elb.create_listener, DefaultActions=other, **listener)


def test_what_is_asked_for_twice_is_made_once(cloud):
    balancer, group = cloud.balancer(), cloud.target_group()
    assert cloud.balancer()["LoadBalancerArn"] == balancer["LoadBalancerArn"]
    assert cloud.target_group() == group
    refused("DuplicateTargetGroupName", cloud.target_group, Port=81)
    forward = [{"Type": "forward", "TargetGroupArn": group}]
    listener = {"LoadBalancerArn": balancer["LoadBalancerArn"], "Port": 80, "Protocol": "TCP"}
    made = [cloud.elb.create_listener(DefaultActions=forward, **listener)["Listeners"] for _ in range(2)]
    assert made[0][0]["ListenerArn"] == made[1][0]["ListenerArn"]
    assert len(cloud.ec2.describe_network_interfaces()["NetworkInterfaces"]) == 1


def test_status_codes_of_a_health_check(cloud):
    arn = cloud.target_group(HealthCheckProtocol="HTTP")
    read = cloud.elb.describe_target_groups(TargetGroupArns=[arn])["TargetGroups"][0]
    assert read["Matcher"] == {"HttpCode": "200-399"}
    cloud.elb.modify_target_group(TargetGroupArn=arn, Matcher={"HttpCode": "200"})
    read = cloud.elb.describe_target_groups(TargetGroupArns=[arn])["TargetGroups"][0]
    assert read["Matcher"] == {"HttpCode": "200"}


def test_target_health_is_what_the_balancer_found(cloud):
    arn, instance = cloud.target_group(), cloud.run()
    targets = [{"Id": instance}]
    refused("InvalidTarget", cloud.elb.register_targets, TargetGroupArn=arn, Targets=targets)
    settle()
    cloud.elb.register_targets(TargetGroupArn=arn, Targets=targets)

    def health():
        described = cloud.elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        return described[0]["TargetHealth"]

    assert health()["State"] == "initial"
    patches.target_health[arn, instance] = patches.TargetHealth("unhealthy", "Target.FailedHealthChecks", "why")
    assert health() == {"State": "unhealthy", "Reason": "Target.FailedHealthChecks", "Description": "why"}
    patches.target_health[arn, instance] = patches.TargetHealth("healthy")
    assert health() == {"State": "healthy"}
    cloud.elb.register_targets(TargetGroupArn=arn, Targets=targets)
    assert health()["State"] == "initial"
