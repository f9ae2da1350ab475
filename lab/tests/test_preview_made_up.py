"""A plugin that creates nothing: the real one plans, and only unknown values are generated, the same every time."""

import threading
from concurrent import futures

import grpc
import pytest
from google.protobuf import struct_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from lab.engine.properties import UNKNOWN, from_message, to_message
from lab.preview.made_up import ADDRESSES, NothingCreated, complete


def completed(kind, name, properties, answers=None):
    message = to_message(properties)
    identity = complete(message, f"urn:pulumi:dev::gitlab::gitlab:x:Y${kind}::{name}", answers or {})
    return identity, from_message(message)


def test_what_the_plan_knows_stays():
    _, made = completed("aws:ec2/vpc:Vpc", "gitlab", {"cidrBlock": "10.42.0.0/16", "id": UNKNOWN})
    assert made["cidrBlock"] == "10.42.0.0/16"


def test_ids_addresses_and_arns_have_their_form():
    identity, made = completed(
        "aws:ec2/eip:Eip",
        "gitlab-server",
        {"id": UNKNOWN, "publicIp": UNKNOWN, "allocationId": UNKNOWN, "arn": UNKNOWN},
    )
    assert identity == made["id"] == made["allocationId"] == "gitlab-server-made-up"
    assert made["arn"] == "arn:aws:ec2:us-east-1:000000000000:gitlab-server"
    assert int.from_bytes(bytes(map(int, made["publicIp"].split(".")))) in range(
        int(ADDRESSES[0]), int(ADDRESSES[-1]) + 1
    )


def test_what_the_load_balancing_api_makes_is_known_by_its_arn():
    identity, made = completed("aws:lb/targetGroup:TargetGroup", "gitlab-web", {"arn": UNKNOWN, "id": UNKNOWN})
    assert identity == made["arn"] == made["id"]


def test_a_requested_certificate_has_the_record_that_validates_its_domain():
    kind = "aws:acm/certificate:Certificate"
    planned = {"domainName": "git.example.com", "validationMethod": "DNS", "domainValidationOptions": UNKNOWN}
    identity, made = completed(kind, "gitlab", {**planned, "arn": UNKNOWN, "id": UNKNOWN})
    assert identity == made["arn"] == "arn:aws:acm:us-east-1:000000000000:gitlab"
    assert made["domainValidationOptions"] == [
        {
            "domainName": "git.example.com",
            "resourceRecordName": "_made-up.git.example.com.",
            "resourceRecordType": "CNAME",
            "resourceRecordValue": "_made-up.acm-validations.aws.",
        }
    ]


def test_an_imported_certificate_has_no_record():
    kind = "aws:acm/certificate:Certificate"
    for known in ({}, {"validationMethod": UNKNOWN}):
        _, made = completed(kind, "gitlab-own", {**known, "domainValidationOptions": UNKNOWN})
        assert made["domainValidationOptions"] == []


def test_the_same_name_gets_the_same_and_another_name_something_else():
    first, again, other = (
        completed("aws:ec2/eip:Eip", name, {"publicIp": UNKNOWN})[1]["publicIp"] for name in ("a", "a", "b")
    )
    assert first == again != other


def test_the_rest_is_empty_by_its_type_and_nothing_unknown_is_left():
    _, made = completed(
        "aws:ec2/instance:Instance",
        "server",
        {
            "ipv6Addresses": UNKNOWN,
            "disableApiStop": UNKNOWN,
            "onlyOfThisGeneration": UNKNOWN,
            "metadataOptions": {"httpTokens": "required", "instanceMetadataTags": UNKNOWN, "httpProtocolIpv6": UNKNOWN},
            "rootBlockDevice": {"volumeSize": 40, "iops": UNKNOWN},
            "ebsBlockDevices": [{"deviceName": UNKNOWN}],
        },
    )
    assert made == {
        "ipv6Addresses": [],
        "disableApiStop": False,
        "metadataOptions": {"httpTokens": "required", "instanceMetadataTags": "", "httpProtocolIpv6": ""},
        "rootBlockDevice": {"volumeSize": 40, "iops": 0},
        "ebsBlockDevices": [{"deviceName": ""}],
    }


def test_a_step_answers_as_it_would_on_its_machine():
    _, made = completed(
        "command:remote:Command", "server-prepare-gitlab", {"stdout": UNKNOWN}, {"prepare-gitlab": '{"a": 1}'}
    )
    assert made == {"stdout": '{"a": 1}', "stderr": ""}
    assert completed("command:remote:Command", "runner-new-step", {})[1]["stdout"] == "runner-new-step done"


class Plugin(provider_pb2_grpc.ResourceProviderServicer):
    """A real plugin that records its requests."""

    def __init__(self):
        self.requests = []

    def Check(self, request, context):
        self.requests.append(request)
        return provider_pb2.CheckResponse(inputs=request.news)

    def Create(self, request, context):
        self.requests.append(request)
        properties = {**from_message(request.properties), "id": UNKNOWN}
        return provider_pb2.CreateResponse(properties=to_message(properties))

    def Delete(self, request, context):
        context.abort(grpc.StatusCode.UNKNOWN, "nothing of that name")


@pytest.fixture
def plugin():
    """A client of the simulating plugin, and the real plugin behind it."""
    real, servers, channels = Plugin(), [], []

    def serve(add):
        server = grpc.server(futures.ThreadPoolExecutor(4))
        add(server)
        channel = grpc.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        servers.append(server)
        channels.append(channel)
        return channel

    behind = serve(lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(real, server))
    before = serve(lambda server: server.add_generic_rpc_handlers((NothingCreated(behind, {}),)))
    yield provider_pb2_grpc.ResourceProviderStub(before), real
    for channel in channels:
        channel.close()
    stopped: list[threading.Event] = [server.stop(None) for server in servers]
    for event in stopped:
        event.wait()


URN = "urn:pulumi:dev::gitlab::aws:ec2/vpc:Vpc::gitlab"


def test_a_creation_reaches_the_real_plugin_as_a_plan_only(plugin):
    stub, real = plugin
    created = stub.Create(provider_pb2.CreateRequest(urn=URN, properties=to_message({"cidrBlock": "10.0.0.0/16"})))
    assert [request.preview for request in real.requests] == [True]
    assert created.id == "gitlab-made-up"
    assert from_message(created.properties) == {"cidrBlock": "10.0.0.0/16", "id": "gitlab-made-up"}


def test_a_plan_is_passed_on_with_what_it_leaves_unknown(plugin):
    stub, _ = plugin
    planned = stub.Create(provider_pb2.CreateRequest(urn=URN, preview=True, properties=struct_pb2.Struct()))
    assert from_message(planned.properties) == {"id": UNKNOWN}


def test_names_are_drawn_the_same_every_time(plugin):
    stub, real = plugin
    for seed in (b"1", b"2"):
        stub.Check(provider_pb2.CheckRequest(urn=URN, randomSeed=seed))
    stub.Check(provider_pb2.CheckRequest(urn=f"{URN}2", randomSeed=b"1"))
    first, second, other = (request.randomSeed for request in real.requests)
    assert first == second != other


def test_an_error_of_the_real_plugin_is_passed_on(plugin):
    stub, _ = plugin
    with pytest.raises(grpc.RpcError, match="nothing of that name"):
        stub.Delete(provider_pb2.DeleteRequest(urn=URN))
