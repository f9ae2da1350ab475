"""Which AWS actions are recorded, with which parameters, under which names, and for which clients."""

import io
import json

import pytest

from lab.cloud import calls
from lab.cloud.actions import PROVIDER, Actions

USER_AGENT = f"APN/1.0 HashiCorp/1.0 Terraform/1.12.0 {PROVIDER}/5.100.0"


def request(service="ec2", body="", method="POST", path="/", agent=USER_AGENT):
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_TYPE": "application/x-www-form-urlencoded; charset=utf-8",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body.encode()),
        "HTTP_USER_AGENT": agent,
        "HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 Credential=lab/20261124/us-east-1/{service}/aws4_request, Signature=0",
    }


def rest(method, path, query="", body=""):
    sent = request("route53", method=method, path=path, body=body)
    return {**sent, "CONTENT_TYPE": "application/xml", "QUERY_STRING": query}


def read(environ):
    call = calls.read(environ)
    assert call is not None
    return call


def action(environ):
    return read(environ).permission


def parameters(environ):
    return {(each.name, each.place): each.value for each in read(environ).parameters}


@pytest.fixture
def noted():
    """Sends requests through the record and returns its contents."""
    record = Actions()
    reached = []

    def send(*requests):
        def aws(environ, start_response):
            reached.append(environ["wsgi.input"].read())
            return []

        serve = record.before(aws)
        for each in requests:
            serve(each, lambda *_: None)
        return json.loads(b"".join(record.route({"REQUEST_METHOD": "GET"}, lambda *_: None)))

    send.record, send.reached = record, reached  # type: ignore[attr-defined]
    return send


def test_an_action_of_the_query_protocol_is_named_with_the_service_it_is_signed_for():
    assert action(request("ec2", "Action=RunInstances&Version=2016-11-15")) == "ec2:RunInstances"
    assert action(request("elasticloadbalancing", "Action=CreateListener")) == "elasticloadbalancing:CreateListener"


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/2013-04-01/hostedzone/Z1/rrset", "ChangeResourceRecordSets"),
        ("GET", "/2013-04-01/hostedzone/Z1/rrset", "ListResourceRecordSets"),
        ("GET", "/2013-04-01/hostedzone/Z1", "GetHostedZone"),
        ("GET", "/2013-04-01/hostedzone", "ListHostedZones"),
        ("GET", "/2013-04-01/tags/hostedzone/Z1", "ListTagsForResource"),
        ("GET", "/2013-04-01/change/C1", "GetChange"),
        ("DELETE", "/2013-04-01/hostedzone/Z1", "DELETE /2013-04-01/hostedzone/Z1"),
    ],
)
def test_an_action_of_route_53_is_named_by_method_and_path_and_an_unknown_one_shown_as_it_is(method, path, name):
    assert action(rest(method, path)) == f"route53:{name}"


def test_a_parameter_is_named_as_the_api_reference_does_with_n_for_the_place_in_a_list():
    body = "Action=CreateTags&Version=2016-11-15&ResourceId.1=vpc-1&Tag.1.Key=a&Tag.12.Value="
    assert parameters(request(body=body)) == {
        ("ResourceId.N", "ResourceId.1"): "vpc-1",
        ("Tag.N.Key", "Tag.1.Key"): "a",
        ("Tag.N.Value", "Tag.12.Value"): "",
    }


def test_parameters_of_route_53_are_in_path_query_and_body():
    path = "/2013-04-01/hostedzone/Z1/rrset"
    body = (
        '<?xml version="1.0"?><ChangeResourceRecordSetsRequest xmlns="https://route53.amazonaws.com/doc/2013-04-01/">'
        "<ChangeBatch><Comment>why</Comment><Changes><Change><Action>UPSERT</Action></Change></Changes></ChangeBatch>"
        "</ChangeResourceRecordSetsRequest>"
    )
    assert parameters(rest("GET", path, query="type=A&maxitems=1")) == {
        ("Id", "Id"): "Z1",
        ("type", "type"): "A",
        ("maxitems", "maxitems"): "1",
    }
    sent = rest("POST", path, body=body)
    assert parameters(sent) == {
        ("Id", "Id"): "Z1",
        ("ChangeBatch.Comment", "ChangeBatch.Comment"): "why",
        ("ChangeBatch.Changes.Change.Action", "ChangeBatch.Changes.Change.Action"): "UPSERT",
    }
    assert sent["wsgi.input"].read() == body.encode()


def test_each_action_and_parameter_is_noted_once_and_the_request_reaches_aws_whole(noted):
    bodies = ["Action=DescribeVpcs&VpcId.1=vpc-1&VpcId.2=vpc-2", "Action=DescribeVpcs&MaxResults=5"]
    assert noted(*(request(body=body) for body in bodies)) == {"ec2:DescribeVpcs": ["MaxResults", "VpcId.N"]}
    assert noted.reached == [body.encode() for body in bodies]


def test_other_clients_do_not_count(noted):
    assert noted(request(body="Action=DescribeVpcs", agent="Boto3/1.40 md/Botocore")) == {}


def test_a_record_can_be_begun_anew(noted):
    noted(request(body="Action=DescribeVpcs"))
    noted.record.route({"REQUEST_METHOD": "DELETE"}, lambda *_: None)
    assert noted(request(body="Action=DeleteVpc")) == {"ec2:DeleteVpc": []}
