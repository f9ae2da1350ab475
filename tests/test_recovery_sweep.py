"""What a killed engine created without recording it is deleted after all, in an order that AWS accepts."""

import boto3
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from recovery import leftovers, sweep
from recovery.leftovers import Resource


class Aws:
    """Resources, each with the one that must be deleted before it."""

    def __init__(self, resources):
        self.resources = dict(resources)
        self.deleted = []

    def __getattr__(self, call):
        def delete(**parameters):
            [value] = parameters.values()
            name = value[0] if isinstance(value, list) else value
            [resource] = [each for each in self.resources if each.id == name]
            if self.resources[resource] in {each.id for each in self.resources}:
                raise ClientError({"Error": {"Code": "DependencyViolation", "Message": "in use"}}, call)
            del self.resources[resource]
            self.deleted.append(f"{call} {name}")

        return delete


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)

    def of(resources, **selected):
        aws = Aws(resources)
        monkeypatch.setattr(leftovers, "resources", lambda clients, tag: iter(tuple(aws.resources)))
        sweep.sweep(lambda service: aws, "gitlab/prod-drill", **selected)
        return aws

    return of


def test_resources_are_deleted_after_those_that_use_them(found):
    aws = found(
        {
            Resource("VPC", "vpc-1"): "subnet-1",
            Resource("volume", "vol-1"): "i-1",
            Resource("subnet", "subnet-1"): "eni-1",
            Resource("network interface", "eni-1"): "i-1",
            Resource("machine", "i-1"): "",
        }
    )
    assert aws.deleted == [
        "terminate_instances i-1",
        "delete_volume vol-1",
        "delete_network_interface eni-1",
        "delete_subnet subnet-1",
        "delete_vpc vpc-1",
    ]
    assert not aws.resources


def test_only_resources_of_the_selected_kinds_are_deleted_and_none_that_is_known(found):
    kept = [Resource("machine", "i-known"), Resource("subnet", "subnet-1")]
    aws = found(dict.fromkeys([*kept, Resource("machine", "i-1")], ""), kinds=["machine"], known=["i-known"])
    assert aws.deleted == ["terminate_instances i-1"]
    assert list(aws.resources) == kept


def test_it_gives_up_after_a_while_and_the_caller_reports_what_is_left(found):
    aws = found({Resource("volume", "vol-1"): "vol-1"})
    assert list(aws.resources) == [Resource("volume", "vol-1")]


def test_every_call_exists():
    key = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    services = {service for service, *_ in sweep.DELETED_BY.values()}
    clients = {service: boto3.client(service, region_name="us-east-1", **key) for service in services}
    assert [call for service, call, _ in sweep.DELETED_BY.values() if not hasattr(clients[service], call)] == []
    known = {kind for kind, *_ in (*leftovers.OF_EC2, *leftovers.OF_LOAD_BALANCING)}
    assert set(sweep.DELETED_BY) == known | {"machine", "certificate"}
