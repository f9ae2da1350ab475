from lab.tests.cloud import refused, settle


def test_elastic_addresses_come_from_the_labs_internet(cloud):
    addresses = [cloud.address()[1] for _ in range(5)]
    assert set(addresses) <= {f"198.51.100.{host}" for host in range(16, 251)}
    assert len(set(addresses)) == 5
    refused("AddressLimitExceeded", cloud.ec2.allocate_address)


def test_private_addresses_are_unique_and_not_awss(cloud):
    interfaces = [cloud.interface() for _ in range(3)]
    described = cloud.ec2.describe_network_interfaces(NetworkInterfaceIds=interfaces)["NetworkInterfaces"]
    assert {i["PrivateIpAddress"] for i in described} == {"10.42.0.4", "10.42.0.5", "10.42.0.6"}
    refused("InvalidIPAddress.InUse", cloud.interface, PrivateIpAddress="10.42.0.5")
    refused("InvalidParameterValue", cloud.interface, PrivateIpAddress="10.42.0.2")
    refused("InvalidParameterValue", cloud.interface, PrivateIpAddress="10.42.9.9")
    cloud.interface(PrivateIpAddress="10.42.0.7")
    assert cloud.instance(cloud.run())["PrivateIpAddress"] == "10.42.0.8"


def test_a_fixed_address_is_free_again_after_termination(cloud):
    for _ in range(2):
        instance = cloud.run(PrivateIpAddress="10.42.0.50")
        settle()
        cloud.ec2.terminate_instances(InstanceIds=[instance])
        settle()


def test_an_automatic_address_changes_with_stop_and_start(cloud):
    nic = {"DeviceIndex": 0, "SubnetId": cloud.subnet, "AssociatePublicIpAddress": True}
    instance = cloud.run(NetworkInterfaces=[nic])
    settle()
    before = cloud.instance(instance)
    assert before["PublicIpAddress"].startswith("198.51.100.")
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
    # Both are unchanged when another machine replaces the first one.
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
