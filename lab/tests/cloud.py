"""The lab's API in the process of a test, and shortcuts that create resources in it."""

import contextlib
import threading
from collections.abc import Iterator
from functools import cache

import boto3
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto.core.config import default_user_config
from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server

from lab.cloud import __main__ as program
from lab.cloud.patches import state
from lab.cloud.reconciler import Reconciler
from lab.tests.moto_document import apply_corrections

REGION = "eu-central-1"


apply_corrections()

# All clients share a session, which reads the description of each service once; moto would give each test its own.
default_user_config["core"]["reset_boto3_session"] = False


@cache
def client(service, region=REGION):
    """Return a client that all tests share, because making it takes most of a test's time."""
    return boto3.client(service, region, aws_access_key_id="lab", aws_secret_access_key="lab")


@contextlib.contextmanager
def over_http() -> Iterator[str]:
    """Serve the lab's API on a separate port, without a reconcile loop and without latency; yields its URL."""
    app = program.application(Reconciler(str, api_only=True))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with pytest.MonkeyPatch.context() as context:
        context.setattr(program, "LATENCY", 0.0)
        yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def settle():
    """Complete everything that was requested, as the loop does in the end."""
    for ec2, elb in state.regions():
        for reservation in ec2.reservations.values():
            for instance in reservation.instances:
                state.settle_power(instance)
        for volume in list(ec2.volumes.values()):
            state.settle_volume(volume)
        for snapshot in list(ec2.snapshots.values()):
            snapshot.stored = snapshot.start_time - state.snapshot_delay
        for balancer in elb.load_balancers.values():
            balancer.state = "active"


def refused(code, call, **arguments):
    with pytest.raises(ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code


class Cloud:
    """A VPC with a subnet and a gateway, and shortcuts that create resources in it."""

    def __init__(self, region=REGION, range="10.42"):  # noqa: A002, the first two numbers of its addresses
        self.region = region
        self.ec2 = client("ec2", region)
        self.elb = client("elbv2", region)
        self.vpc = self.ec2.create_vpc(CidrBlock=f"{range}.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.make_subnet(f"{range}.0.0/24", "a")
        self.gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=self.gateway, VpcId=self.vpc)
        self.image = self.ec2.describe_images(Owners=["309956199498"])["Images"][0]["ImageId"]

    def make_subnet(self, block, zone):
        made = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=block, AvailabilityZone=self.region + zone)
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
        return self.ec2.create_volume(Size=1, AvailabilityZone=self.region + zone, VolumeType="gp3")["VolumeId"]

    def balancer(self, name="front", **arguments):
        arguments = {"Subnets": [self.subnet], "Type": "network"} | arguments
        return self.elb.create_load_balancer(Name=name, **arguments)["LoadBalancers"][0]

    def target_group(self, name="http", **arguments):
        arguments = {"Protocol": "TCP", "Port": 80, "VpcId": self.vpc} | arguments
        return self.elb.create_target_group(Name=name, **arguments)["TargetGroups"][0]["TargetGroupArn"]
