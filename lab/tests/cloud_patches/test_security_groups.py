from lab.tests.cloud import refused


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
    # A new group already has one: all traffic to all addresses.
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
