from lab.tests.cloud import REGION, client, refused


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


def test_what_is_left_of_a_stack_is_found_by_its_tag(cloud):
    def marked(kind, owner="gitlab/lab"):
        return [{"ResourceType": kind, "Tags": [{"Key": "gitlab-stack", "Value": owner}]}]

    volume = cloud.ec2.create_volume(Size=1, AvailabilityZone=REGION + "a", TagSpecifications=marked("volume"))
    address = cloud.ec2.allocate_address(Domain="vpc", TagSpecifications=marked("elastic-ip"))
    pair = cloud.ec2.create_key_pair(KeyName="admin", TagSpecifications=marked("key-pair"))
    rule = cloud.ec2.authorize_security_group_ingress(
        GroupId=cloud.group("web"), CidrIp="198.51.100.1/32", IpProtocol="tcp", FromPort=22, ToPort=22,
        TagSpecifications=marked("security-group-rule"),
    )["SecurityGroupRules"][0]  # fmt: skip
    cloud.ec2.allocate_address(Domain="vpc", TagSpecifications=marked("elastic-ip", "gitlab/lab-drill"))
    cloud.ec2.delete_volume(VolumeId=volume["VolumeId"])
    tagging = client("resourcegroupstaggingapi")
    filters = [{"Key": "gitlab-stack", "Values": ["gitlab/lab"]}]
    found = {each["ResourceARN"] for each in tagging.get_resources(TagFilters=filters)["ResourceTagMappingList"]}
    assert {arn.rpartition("/")[2] for arn in found} == {
        *(address["AllocationId"], pair["KeyPairId"], rule["SecurityGroupRuleId"])
    }
