from lab.tests.cloud import refused, settle


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
