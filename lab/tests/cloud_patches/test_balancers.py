from lab.cloud.balancers import TargetHealth
from lab.cloud.patches import state
from lab.tests.cloud import refused, settle


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
    state.target_health[arn, instance] = TargetHealth("unhealthy", "Target.FailedHealthChecks", "why")
    assert health() == {"State": "unhealthy", "Reason": "Target.FailedHealthChecks", "Description": "why"}
    state.target_health[arn, instance] = TargetHealth("healthy")
    assert health() == {"State": "healthy"}
    cloud.elb.register_targets(TargetGroupArn=arn, Targets=targets)
    assert health()["State"] == "initial"
