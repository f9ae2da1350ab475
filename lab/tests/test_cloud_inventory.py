"""From API calls to what the lab will create."""

import json

import pytest
from moto import mock_aws

from lab.cloud import inventory
from lab.cloud.balancers import WRONG_ZONE, fixed_health
from lab.cloud.patches import instances, state
from lab.cloud.reconciler import Reconciler
from lab.tests.cloud import REGION, Cloud, client, settle


@pytest.fixture
def cloud():
    with mock_aws():
        state.target_health.clear()
        yield Cloud()


def route_out(cloud):
    table = cloud.ec2.create_route_table(VpcId=cloud.vpc)["RouteTable"]["RouteTableId"]
    cloud.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=cloud.gateway)
    cloud.ec2.associate_route_table(RouteTableId=table, SubnetId=cloud.subnet)


def serve(cloud, instance, name="front", **group):
    settle()
    arn = cloud.target_group(name, **group)
    cloud.elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": instance}])
    balancer = cloud.balancer(name)
    cloud.elb.create_listener(
        LoadBalancerArn=balancer["LoadBalancerArn"],
        Port=80,
        Protocol="TCP",
        DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}],
    )
    return arn


def test_an_interface(cloud):
    group, (allocation, public) = cloud.group("server"), cloud.address()
    interface = cloud.interface(Groups=[group])
    cloud.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=interface)
    assert inventory.read().network.interfaces == ()  # not attached to a machine
    cloud.run_on(interface)
    (found,) = inventory.read().network.interfaces
    assert (found.address, found.subnet, found.vpc) == ("10.42.0.4", "10.42.0.0/24", "10.42.0.0/16")
    assert found.groups == (group,)
    assert (found.elastic, found.public) == (public, None)
    route_out(cloud)
    assert inventory.read().network.interfaces[0].public == public
    cloud.ec2.disassociate_address(AssociationId=cloud.ec2.describe_addresses()["Addresses"][0]["AssociationId"])
    cloud.ec2.detach_internet_gateway(InternetGatewayId=cloud.gateway, VpcId=cloud.vpc)
    assert not inventory.read().network.interfaces[0].routed


def test_rules(cloud):
    group, other = cloud.group("one"), cloud.group("other")
    permissions = [
        {
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 22,
            "IpRanges": [{"CidrIp": "198.51.100.1/32", "Description": "administrator"}],
        },
        {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": [{"GroupId": other}]},
        {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
    ]
    cloud.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=permissions)
    rules = [rule for rule in inventory.read().network.rules if rule.group == group]
    assert {(r.egress, r.protocol, r.peer, r.first_port, r.description) for r in rules} == {
        (False, "tcp", "198.51.100.1/32", 22, "administrator"),
        (False, "tcp", other, 80, ""),
        (True, "-1", "0.0.0.0/0", None, ""),
    }


def test_a_machine(cloud):
    names = [{"Key": "Name", "Value": "runner"}]
    tags = [{"ResourceType": "instance", "Tags": names}]
    instance, volume = cloud.run(TagSpecifications=tags), cloud.volume()
    settle()
    cloud.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    (found,) = inventory.read().machines
    assert (found.id, found.name, found.state) == (instance, "runner", "running")
    assert found.hostname == "ip-10-42-0-4"
    assert [(v.id, v.status) for v in found.volumes] == [(volume, "attaching")]  # not the root device
    assert found.root
    assert found.root.size == 10
    settle()
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    assert inventory.read().machines[0].state == "shutting-down"
    settle()
    left = inventory.read()
    assert left.machines == ()
    assert [v.id for v in left.volumes] == [volume]


def test_what_the_metadata_service_tells(cloud):
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBsZvlFH8RsHAT6sAH4flr3a4VY+I7hu74FRQ3cC76cx admin"
    cloud.ec2.import_key_pair(KeyName="admin", PublicKeyMaterial=key.encode())
    instance = cloud.run(
        KeyName="admin",
        UserData="#cloud-config\n",
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    )
    facts = inventory.read().facts["10.42.0.4"]
    assert (facts.instance_id, facts.user_data) == (instance, b"#cloud-config\n")
    assert (facts.token_required, facts.hop_limit, facts.enabled) == (True, 2, True)
    assert facts.key == key
    assert facts.zone == REGION + "a"


def test_changed_user_data_do_not_make_it_another_instance(cloud):
    """cloud-init runs user data once per instance id: after stop, change and start the id is the same."""
    instance = cloud.run(UserData="one")
    settle()
    cloud.ec2.stop_instances(InstanceIds=[instance])
    settle()
    cloud.ec2.modify_instance_attribute(InstanceId=instance, UserData={"Value": b"two"})
    cloud.ec2.start_instances(InstanceIds=[instance])
    facts = inventory.read().facts["10.42.0.4"]
    assert (facts.instance_id, facts.user_data) == (instance, b"two")


def test_without_a_word_about_it_a_token_goes_one_hop(cloud):
    cloud.run()
    assert inventory.read().facts["10.42.0.4"].hop_limit == 1


def test_a_balancer_and_its_targets(cloud):
    instance = cloud.run()
    arn = serve(cloud, instance, HealthCheckProtocol="HTTP", HealthCheckPath="/-/readiness", HealthCheckPort="81")
    preserve = [{"Key": "preserve_client_ip.enabled", "Value": "false"}]
    proxy = [{"Key": "proxy_protocol_v2.enabled", "Value": "true"}]
    cloud.elb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=preserve + proxy)
    (balancer,) = inventory.read().balancers
    (listener,) = balancer.listeners
    group = listener.group
    assert group
    assert (balancer.name, balancer.interface.address, listener.port) == ("front", "10.42.0.5", 80)
    assert (group.proxy_protocol, group.preserve_client_ip) == (True, False)
    assert (group.check_protocol, group.check_path, group.check_port) == ("HTTP", "/-/readiness", 81)
    assert [(t.id, t.port, t.address) for t in group.targets] == [(instance, 80, "10.42.0.4")]
    assert fixed_health(balancer, group.targets[0]) is None
    cloud.ec2.stop_instances(InstanceIds=[instance])
    stopped = inventory.read().balancers[0].groups()[0]
    assert stopped.targets[0].address is None


def test_client_addresses_are_preserved_unless_told_otherwise(cloud):
    arn = serve(cloud, cloud.run())
    found = inventory.read()
    assert found.balancers[0].groups()[0].preserve_client_ip
    (preserving,) = found.network.preserving
    assert preserving.interface == found.balancers[0].interface
    assert preserving.targets == ((80, ("10.42.0.4",)),)
    attributes = [{"Key": "preserve_client_ip.enabled", "Value": "false"}]
    cloud.elb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=attributes)
    assert inventory.read().network.preserving == ()


def test_balancers_have_numbers_of_their_own_and_keep_them(cloud):
    def numbers():
        return {balancer.name: balancer.number for balancer in inventory.read().balancers}

    cloud.run()
    made = [cloud.balancer(name=name)["LoadBalancerArn"] for name in ("one", "two")]
    before = numbers()
    assert before["one"] != before["two"]
    cloud.elb.delete_load_balancer(LoadBalancerArn=made[0])
    cloud.balancer(name="three")
    after = numbers()
    assert after["two"] == before["two"]
    assert len({*before.values(), *after.values()}) == 3


def test_a_target_in_a_zone_that_the_balancer_has_not(cloud):
    serve(cloud, cloud.run(SubnetId=cloud.make_subnet("10.42.1.0/24", "b")))
    (balancer,) = inventory.read().balancers
    (group,) = balancer.groups()
    assert fixed_health(balancer, group.targets[0]) == WRONG_ZONE


def test_targets_that_no_listener_leads_to(cloud):
    instance = cloud.run()
    settle()
    arn = cloud.target_group()
    cloud.elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": instance}])
    assert inventory.read().idle_targets == ((arn, instance),)


def test_names_of_machines_load_balancers_and_public_records(cloud):
    cloud.run()
    balancer = cloud.balancer()
    route53 = client("route53")
    zone = route53.create_hosted_zone(Name="example.test", CallerReference="1")["HostedZone"]["Id"]
    alias = {"HostedZoneId": "Z", "DNSName": balancer["DNSName"], "EvaluateTargetHealth": False}
    record = {"Name": "git.example.test", "Type": "A", "AliasTarget": alias}
    changes = [{"Action": "CREATE", "ResourceRecordSet": record}]
    route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})
    names = inventory.read().names
    assert names["ip-10-42-0-4.eu-central-1.compute.internal"] == ("10.42.0.4",)
    assert names["git.example.test"] == names[balancer["DNSName"]]


@pytest.mark.parametrize("region", [REGION, "us-west-2"])
def test_two_stacks_are_there_at_once_in_one_region_and_in_two(cloud, region):
    other = Cloud(region, "10.43")
    for name, each in (("one", cloud), ("other", other)):
        serve(each, each.run(), name)
    found = inventory.read()
    assert {interface.address for interface in found.network.interfaces} >= {"10.42.0.4", "10.43.0.4"}
    assert len({machine.container for machine in found.machines}) == 2
    assert {balancer.interface.vpc for balancer in found.balancers} == {"10.42.0.0/16", "10.43.0.0/16"}
    assert {preserving.targets for preserving in found.network.preserving} == {
        ((80, (f"10.{n}.0.4",)),) for n in (42, 43)
    }
    assert found.facts["10.43.0.4"].region == region
    assert len({balancer.number for balancer in found.balancers}) == 2
    for name in ("10-42-0-4", "10-43-0-4"):
        assert any(known.startswith(f"ip-{name}.") for known in found.names)


def test_with_the_api_alone_what_is_asked_for_counts_as_done(cloud):
    instance = cloud.run()
    balancer = cloud.balancer()
    reconciler = Reconciler(str, api_only=True)
    reconciler._step()
    assert cloud.state(instance) == "running"
    assert cloud.elb.describe_load_balancers()["LoadBalancers"][0]["State"]["Code"] == "active"
    status = reconciler.status()
    assert status["api"] == {"only": True}
    assert status["machines"][0]["instance_id"] == instance
    assert status["balancers"][0]["name"] == balancer["LoadBalancerName"]
    assert status["flows"][0]["direction"] == "out"


@pytest.mark.parametrize(
    ("principal", "trusts_ec2"),
    [
        ({"Service": "ec2.amazonaws.com"}, True),
        ({"Service": ["ecs.amazonaws.com", "ec2.amazonaws.com"]}, True),
        ({"Service": "lambda.amazonaws.com"}, False),
        ({"AWS": "123456789012"}, False),
    ],
)
def test_a_machine_has_the_profile_and_the_role_that_ec2_may_assume(cloud, monkeypatch, principal, trusts_ec2):
    monkeypatch.setattr(instances, "PROFILE_DELAY", 0)
    trust = {"Statement": [{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}]}
    iam = client("iam")
    iam.create_role(RoleName="server", AssumeRolePolicyDocument=json.dumps(trust))
    arn = iam.create_instance_profile(InstanceProfileName="machines")["InstanceProfile"]["Arn"]
    iam.add_role_to_instance_profile(InstanceProfileName="machines", RoleName="server")
    machine = cloud.run()
    [facts] = inventory.read().facts.values()
    assert facts.profile is None
    cloud.ec2.associate_iam_instance_profile(InstanceId=machine, IamInstanceProfile={"Name": "machines"})
    [facts] = inventory.read().facts.values()
    assert facts.profile
    assert (facts.profile.arn, facts.profile.role, facts.profile.trusts_ec2) == (arn, "server", trusts_ec2)
    iam.remove_role_from_instance_profile(InstanceProfileName="machines", RoleName="server")
    [facts] = inventory.read().facts.values()
    assert facts.profile
    assert facts.profile.role is None
