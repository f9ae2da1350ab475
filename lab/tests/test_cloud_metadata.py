import dataclasses
import http.client
import json
import socket

import pytest

from lab.cloud import credentials, metadata
from lab.cloud.metadata import Facts, Profile, Server, Tokens, answer

FACTS = Facts(
    instance_id="i-1",
    image="ami-1",
    type="t3.large",
    account="123456789012",
    region="eu-central-1",
    zone="eu-central-1a",
    hostname="ip-10-42-0-5.eu-central-1.compute.internal",
    address="10.42.0.5",
    public_address="198.51.100.17",
    public_hostname="ec2-198-51-100-17.eu-central-1.compute.amazonaws.com",
    mac="02:00:00:00:00:02",
    interface="eni-1",
    subnet_id="subnet-1",
    subnet="10.42.0.0/24",
    vpc_id="vpc-1",
    vpc="10.42.0.0/16",
    groups=(("sg-1", "runner"),),
    key_name="admin",
    key="ssh-ed25519 AAAA admin",
    user_data=b"\x1f\x8bgzip",
    token_required=True,
)
TOKEN = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/latest/meta-data/instance-id", "i-1"),
        ("/2009-04-04/meta-data/local-ipv4", "10.42.0.5"),
        ("/latest/meta-data/public-ipv4", "198.51.100.17"),
        ("/latest/meta-data/placement/availability-zone", "eu-central-1a"),
        ("/latest/meta-data/public-keys/", "0=admin"),
        ("/latest/meta-data/public-keys/0/openssh-key", "ssh-ed25519 AAAA admin"),
        ("/latest/meta-data/network/interfaces/macs/", "02:00:00:00:00:02/"),
        ("/latest/meta-data/network/interfaces/macs/02:00:00:00:00:02/security-group-ids", "sg-1"),
        ("/latest/", "dynamic/\nmeta-data/\nuser-data"),
    ],
)
def test_paths(path, text):
    assert answer(FACTS, path) == text.encode()


def test_user_data_comes_as_it_was_given():
    assert answer(FACTS, "/latest/user-data") == b"\x1f\x8bgzip"


@pytest.mark.parametrize("path", ["/latest/meta-data/nothing", "/2000-01-01/meta-data", "/latest/user-data/x"])
def test_what_there_is_not(path):
    assert answer(FACTS, path) is None


def test_identity_document():
    document = json.loads(answer(FACTS, "/latest/dynamic/instance-identity/document") or b"")
    assert (document["instanceId"], document["region"]) == ("i-1", "eu-central-1")


def test_a_token_is_for_one_machine_and_for_its_time():
    now = [0.0]
    tokens = Tokens(lambda: now[0])
    token = tokens.issue("i-1", 60)
    assert tokens.valid("i-1", token)
    assert not tokens.valid("i-2", token)
    assert not tokens.valid("i-1", None)
    now[0] = 61
    assert not tokens.valid("i-1", token)


class Client:
    """A machine with the address 127.0.0.1, whose facts are FACTS unless they are removed."""

    def __init__(self):
        self.facts = {"127.0.0.1": FACTS}
        self.server = Server(self.facts.get, ("127.0.0.1", 0))
        self.server.start()

    def __call__(self, method, path, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=2)
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body


@pytest.fixture(scope="module")
def server_client():
    client = Client()
    yield client
    client.server.shutdown()
    client.server.server_close()


@pytest.fixture
def ask(server_client):
    server_client.facts["127.0.0.1"] = FACTS
    return server_client


def test_version_2_is_required(ask):
    assert ask("GET", "/latest/meta-data/instance-id")[0] == 401
    status, token = ask("PUT", "/latest/api/token", TOKEN)
    assert status == 200
    given = {"X-aws-ec2-metadata-token": token}
    assert ask("GET", "/latest/meta-data/instance-id", given) == (200, "i-1")
    assert ask("GET", "/latest/meta-data/nothing", given)[0] == 404
    assert ask("GET", "/latest/meta-data/instance-id", {"X-aws-ec2-metadata-token": "made up"})[0] == 401


@pytest.mark.parametrize("life", ["", "0", "21601", "x"])
def test_a_token_needs_a_life(ask, life):
    assert ask("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": life})[0] == 400


def test_no_token_through_a_proxy(ask):
    assert ask("PUT", "/latest/api/token", TOKEN | {"X-Forwarded-For": "10.0.0.1"})[0] == 403


def test_nobody_else_is_answered(ask):
    ask.facts.clear()
    assert ask("GET", "/latest/meta-data/")[0] == 403


def test_the_token_goes_no_further_than_the_hop_limit(ask, monkeypatch):
    limits = []

    class Connection(socket.socket):
        def sendall(self, *arguments):
            limits.append(self.getsockopt(socket.IPPROTO_IP, socket.IP_TTL))
            return super().sendall(*arguments)

    setup = metadata.Handler.setup

    def wrapped(handler):
        handler.request = Connection(fileno=handler.request.detach())
        setup(handler)

    monkeypatch.setattr(metadata.Handler, "setup", wrapped)
    ask("PUT", "/latest/api/token", TOKEN)
    assert set(limits) == {1}
    limits.clear()
    ask("GET", "/latest/meta-data/")
    assert min(limits) > 1


# --- the role of a machine -------------------------------------------------------------------------------

FOLDER = "/latest/meta-data/iam"
PROFILE = Profile("arn:aws:iam::123456789012:instance-profile/server", "AIPA1", "server")


def having(profile):
    return dataclasses.replace(FACTS, profile=profile)


def test_without_an_instance_profile_there_are_no_credentials():
    assert answer(FACTS, f"{FOLDER}/security-credentials/") is None


def test_the_credentials_of_the_role_are_those_that_the_api_accepts():
    facts = having(PROFILE)
    assert answer(facts, f"{FOLDER}/security-credentials/") == b"server"
    found = json.loads(answer(facts, f"{FOLDER}/security-credentials/server") or b"")
    assert (found["Code"], found["Type"]) == ("Success", "AWS-HMAC")
    issued = credentials.issuer.find(found["AccessKeyId"])
    assert issued
    assert (issued.role, issued.instance) == ("server", "i-1")
    assert (found["SecretAccessKey"], found["Token"]) == (issued.secret, issued.token)
    assert found["Expiration"] > found["LastUpdated"]
    info = json.loads(answer(facts, f"{FOLDER}/info") or b"")
    assert (info["Code"], info["InstanceProfileArn"]) == ("Success", PROFILE.arn)


@pytest.mark.parametrize(
    ("profile", "code"),
    [
        (dataclasses.replace(PROFILE, role=None), "InstanceProfileNotFound"),
        (dataclasses.replace(PROFILE, trusts_ec2=False), "AssumeRoleUnauthorizedAccess"),
    ],
)
def test_a_role_that_ec2_cannot_assume_has_no_credentials(profile, code):
    assert json.loads(answer(having(profile), f"{FOLDER}/info") or b"")["Code"] == code
    found = answer(having(profile), f"{FOLDER}/security-credentials/server")
    assert found is None or "AccessKeyId" not in json.loads(found)
