"""The faults of the API as an AWS SDK sees them: over HTTP, with AWS's messages."""

import time
from urllib.error import HTTPError

import boto3
import pytest
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError, ConnectionClosedError  # type: ignore[import-untyped]
from moto import mock_aws

from lab.cloud import controls, faults
from lab.tests.cloud import over_http

REGION = "eu-central-1"


@pytest.fixture(scope="module")
def api():
    with over_http() as url:
        yield url


@pytest.fixture(autouse=True)
def nothing_armed(api):
    with mock_aws():
        pass  # deletes the resources of the previous test
    faults.clear(api=api)


@pytest.fixture(scope="module")
def client(api):
    clients = {}

    def make(service, attempts=1):
        if (service, attempts) not in clients:
            clients[service, attempts] = boto3.client(
                service,
                REGION,
                endpoint_url=api,
                aws_access_key_id="lab",
                aws_secret_access_key="lab",
                config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
            )
        return clients[service, attempts]

    return make


def vpcs(ec2):
    return len(ec2.describe_vpcs(Filters=[{"Name": "cidr", "Values": ["10.42.0.0/16"]}])["Vpcs"])


def make_vpc(ec2):
    ec2.create_vpc(CidrBlock="10.42.0.0/16")


@pytest.mark.parametrize(
    ("service", "action", "kind", "code", "status"),
    [
        ("ec2", "DescribeVpcs", "throttle", "RequestLimitExceeded", 503),
        ("ec2", "DescribeVpcs", "error", "InternalError", 500),
        ("elbv2", "DescribeLoadBalancers", "throttle", "Throttling", 400),
        ("elbv2", "DescribeLoadBalancers", "error", "InternalFailure", 500),
        ("iam", "ListRoles", "throttle", "Throttling", 400),
    ],
)
def test_an_error_as_the_service_says_it(api, client, service, action, kind, code, status):
    calls = {"DescribeVpcs": "describe_vpcs", "DescribeLoadBalancers": "describe_load_balancers"}
    call = getattr(client(service), calls.get(action, "list_roles"))
    faults.inject(action, kind, api=api)
    with pytest.raises(ClientError) as error:
        call()
    assert error.value.response["Error"]["Code"] == code
    assert error.value.response["Error"]["Message"]
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    call()  # the fault was armed for one call


def test_what_is_refused_is_not_done(api, client):
    ec2 = client("ec2")
    faults.inject("CreateVpc", "error", api=api)
    with pytest.raises(ClientError):
        make_vpc(ec2)
    assert vpcs(ec2) == 0


def test_an_answer_that_is_lost_belongs_to_a_call_that_was_carried_out(api, client):
    ec2 = client("ec2")
    faults.inject("CreateVpc", "lost", api=api)
    with pytest.raises(ConnectionClosedError):
        make_vpc(ec2)
    assert vpcs(ec2) == 1


def test_a_slow_call_is_carried_out_in_the_end(api, client):
    ec2 = client("ec2")
    faults.inject("CreateVpc", "slow", seconds=0.3, api=api)
    before = time.monotonic()
    make_vpc(ec2)
    assert time.monotonic() - before >= 0.3
    assert vpcs(ec2) == 1


def test_times_are_counted_and_only_of_the_action_that_was_named(api, client):
    ec2 = client("ec2")
    faults.inject("CreateVpc", "throttle", times=2, api=api)
    assert faults.served(api=api) == {("CreateVpc", "throttle"): 0}
    ec2.describe_subnets()
    for _ in range(2):
        with pytest.raises(ClientError):
            make_vpc(ec2)
    make_vpc(ec2)
    assert faults.served(api=api) == {("CreateVpc", "throttle"): 2}
    assert vpcs(ec2) == 1


def test_a_star_is_every_action(api, client):
    faults.inject("*", "throttle", times=2, api=api)
    for call in (client("ec2").describe_vpcs, client("elbv2").describe_target_groups):
        with pytest.raises(ClientError):
            call()
    assert faults.served(api=api) == {("*", "throttle"): 2}


def test_what_is_disarmed_is_not_served(api, client):
    faults.inject("*", "error", times=100, api=api)
    faults.clear(api=api)
    client("ec2").describe_vpcs()
    assert faults.served(api=api) == {}


def test_an_sdk_that_tries_again_gets_through(api, client):
    ec2 = client("ec2", attempts=3)
    faults.inject("CreateVpc", "throttle", api=api)
    faults.inject("CreateVpc", "error", api=api)
    make_vpc(ec2)
    assert faults.served(api=api) == {("CreateVpc", "throttle"): 1, ("CreateVpc", "error"): 1}
    assert vpcs(ec2) == 1


def test_a_fault_that_there_is_not_is_refused(api):
    with pytest.raises(ValueError, match="throttle, error, lost, slow"):
        faults.inject("CreateVpc", "flood", api=api)
    with pytest.raises(HTTPError) as refusal:
        controls.ask("POST", faults.ROUTE, {"action": "CreateVpc", "kind": "throttle", "often": 3}, api)
    assert refusal.value.code == 400


def make_volume(ec2, token, size=1):
    return ec2.create_volume(AvailabilityZone=REGION + "a", Size=size, ClientToken=token)["VolumeId"]


def test_a_call_with_the_same_client_token_is_done_once(client):
    ec2 = client("ec2")
    first = make_volume(ec2, "one")
    assert make_volume(ec2, "one") == first
    assert make_volume(ec2, "two") != first
    assert len(ec2.describe_volumes()["Volumes"]) == 2


def test_a_client_token_stands_for_one_set_of_parameters(client):
    ec2 = client("ec2")
    make_volume(ec2, "three")
    with pytest.raises(ClientError) as error:
        make_volume(ec2, "three", size=2)
    assert error.value.response["Error"]["Code"] == "IdempotentParameterMismatch"


def run(ec2, **arguments):
    if "SubnetId" not in arguments:
        number = 41 + len(ec2.describe_vpcs()["Vpcs"])  # the lab has no VPCs with overlapping ranges
        vpc = ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")["Vpc"]["VpcId"]
        arguments["SubnetId"] = ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.{number}.0.0/24")["Subnet"]["SubnetId"]
    if "ImageId" not in arguments:
        arguments["ImageId"] = ec2.describe_images(Owners=["309956199498"])["Images"][0]["ImageId"]
    return ec2.run_instances(InstanceType="t3.large", MinCount=1, MaxCount=1, **arguments)


def test_a_refused_call_may_come_again_with_its_client_token(client):
    ec2 = client("ec2")
    with pytest.raises(ClientError):
        run(ec2, ImageId="ami-0", ClientToken="four")
    run(ec2, ClientToken="four")


def test_a_lost_answer_makes_no_second_machine(api, client):
    ec2 = client("ec2", attempts=3)
    faults.inject("RunInstances", "lost", api=api)
    made = run(ec2)  # botocore adds a client token
    found = ec2.describe_instances()["Reservations"]
    assert [reservation["ReservationId"] for reservation in found] == [made["ReservationId"]]
    assert faults.served(api=api) == {("RunInstances", "lost"): 1}
