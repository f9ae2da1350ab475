import pytest

from lab.cloud.patches import state
from lab.tests.cloud import REGION, refused, settle


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
    assert volumes[volume] == "available"
    assert len(volumes) == 2  # the data volume and the other machine's root volume
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
    ((ec2, _),) = [pair for pair in state.regions() if pair[0].region_name == REGION]
    assert ec2.get_instance(instance).reboots == 1


@pytest.mark.parametrize(("behaviour", "end"), [("stop", "stopped"), ("terminate", "terminated")])
def test_a_machine_that_powers_off_by_itself(cloud, behaviour, end):
    instance = cloud.run(InstanceInitiatedShutdownBehavior=behaviour)
    settle()
    ((ec2, _),) = [pair for pair in state.regions() if pair[0].region_name == REGION]
    state.power_off_from_inside(ec2.get_instance(instance))
    settle()
    assert cloud.state(instance) == end
