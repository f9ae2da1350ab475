from lab.tests.cloud import REGION, refused


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
