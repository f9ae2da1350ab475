"""gitlab-backup-volume's own client of AWS, compared with botocore and used against moto's server."""

import datetime
import random
from collections.abc import Iterator

import boto3
import botocore.auth  # type: ignore[import-untyped]
import botocore.awsrequest  # type: ignore[import-untyped]
import botocore.credentials  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from programs.volume_backup import ec2, metadata
from programs.volume_backup.ec2 import ApiError, Ec2, NoAnswerError
from programs.volume_backup.errors import BackupError
from programs.volume_backup.metadata import Credentials
from programs.volume_backup.signature import FORM, signed_headers
from tests.backup_machine import PlayedEc2

NOW = datetime.datetime(2026, 11, 26, 18, 0, 0, tzinfo=datetime.UTC)


def by_botocore(body: bytes, region: str, credentials: Credentials, monkeypatch) -> str:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: NOW.replace(tzinfo=None))
    request = botocore.awsrequest.AWSRequest(
        "POST", f"https://ec2.{region}.amazonaws.com/", data=body, headers={"content-type": FORM}
    )
    keys = botocore.credentials.Credentials(credentials.key_id, credentials.secret, credentials.token or None)
    botocore.auth.SigV4Auth(keys, "ec2", region).add_auth(request)
    return str(request.headers["Authorization"])


@pytest.mark.parametrize("seed", range(10))
def test_a_signature_is_botocores(seed, monkeypatch):
    chance = random.Random(seed)
    body = bytes(chance.randrange(256) for _ in range(chance.choice([0, 1, 300])))
    region = chance.choice(["eu-central-1", "us-gov-west-1", "cn-north-1"])
    token = chance.choice(["", "tok/en+=="])
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
    headers = signed_headers(
        body, host=f"ec2.{region}.amazonaws.com", region=region, service="ec2", credentials=credentials, now=NOW
    )
    assert headers["authorization"] == by_botocore(body, region, credentials, monkeypatch)
    assert ("x-amz-security-token" in headers) == bool(token)


def test_another_body_or_secret_has_another_signature():
    def signature(body: bytes = b"a", secret: str = "b") -> str:
        credentials = Credentials("k", secret, "")
        headers = signed_headers(body, host="h", region="r", service="ec2", credentials=credentials, now=NOW)
        return headers["authorization"]

    assert len({signature(), signature(body=b"b"), signature(secret="c")}) == 3


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "ec2.eu-central-1.amazonaws.com"),
        ("us-gov-west-1", "ec2.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "ec2.cn-north-1.amazonaws.com.cn"),
        ("eusc-de-east-1", "ec2.eusc-de-east-1.amazonaws.eu"),
    ],
)
def test_each_region_has_its_own_address(region, host):
    assert Ec2(region, Credentials("", "", "")).url.geturl() == f"https://{host}"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _host, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


def test_snapshots_are_created_found_by_their_tags_and_deleted(moto):
    known = {"endpoint_url": moto, "region_name": "eu-central-1"}
    client = boto3.client("ec2", aws_access_key_id="x", aws_secret_access_key="x", **known)
    volume = client.create_volume(AvailabilityZone="eu-central-1a", Size=7)["VolumeId"]
    ours = Ec2("eu-central-1", Credentials("x", "y", ""), moto)
    tags = {"gitlab-stack": "gitlab/dev", "gitlab-role": "server", "gitlab-backup": "P", "gitlab-keep": "daily"}
    send = ours.prepared_snapshot(volume, "a description & more", tags)
    assert ours.snapshots("gitlab/dev") == [], "it was sent while it was prepared"
    name = send()
    ours.prepared_snapshot(volume, "of another stack", {**tags, "gitlab-stack": "gitlab/prod"})()
    [found] = ours.snapshots("gitlab/dev")
    [by_boto] = client.describe_snapshots(SnapshotIds=[name])["Snapshots"]
    assert (found.id, found.size, found.tags) == (name, 7, tags)
    assert (found.role, found.pair, found.keep) == ("server", "P", "daily")
    assert found.started == by_boto["StartTime"].replace(microsecond=0)
    assert by_boto["Description"] == "a description & more"
    ours.delete(name)
    assert ours.snapshots("gitlab/dev") == []
    with pytest.raises(ApiError, match=r"InvalidSnapshot\.NotFound") as refused:
        ours.delete(name)
    assert not refused.value.temporary
    assert not refused.value.locked


@pytest.fixture
def played(tmp_path, monkeypatch) -> Iterator[PlayedEc2]:
    played = PlayedEc2(tmp_path)
    monkeypatch.setattr(ec2, "PAUSES", (0, 0))
    monkeypatch.setattr(ec2, "LIMIT", 0.15)
    monkeypatch.setattr(metadata, "SERVICE", played.url)
    yield played
    played.shutdown()
    played.server_close()


def test_all_pages_of_a_list_are_read_and_the_newest_one_is_first(played):
    for hour in range(5):
        played.add(NOW + datetime.timedelta(hours=hour), gitlab_stack="s")
    found = Ec2("eu-central-1", Credentials("k", "s", ""), played.url).snapshots("s")
    assert [each.started.hour for each in found] == [22, 21, 20, 19, 18]
    assert played.actions() == ["DescribeSnapshots", "DescribeSnapshots"]


@pytest.mark.parametrize(
    ("fault", "attempts"), [((503, "RequestLimitExceeded"), 3), ((500, ""), 3), ("hangs", 3), ((400, "Any"), 1)]
)
def test_a_question_is_asked_again_unless_the_answer_is_final(played, fault, attempts):
    played.faults["DescribeSnapshots"] = fault
    with pytest.raises((ApiError, NoAnswerError)):
        Ec2("eu-central-1", Credentials("k", "s", ""), played.url).snapshots("s")
    assert len(played.calls) == attempts


def test_an_address_that_nothing_listens_at_gives_no_answer(played):
    with pytest.raises(NoAnswerError, match=r"AWS did not answer DescribeSnapshots: .*refused"):
        Ec2("eu-central-1", Credentials("k", "s", ""), "http://127.0.0.1:9").snapshots("s")


def test_a_long_refusal_is_cut_and_has_its_remedy():
    error = ApiError(
        "LockSnapshot", 403, "UnauthorizedOperation", "Encoded authorization failure message: " + "x" * 900
    )
    assert len(str(error)) < 450
    assert str(error).endswith("Run pulumi up, which restores the machine's role, and check the machine's clock")


def test_credentials_are_those_of_the_machines_role(played):
    assert metadata.credentials() == Credentials("AKIDEXAMPLE", "secret", "session")


def test_a_role_that_does_not_trust_ec2_has_no_credentials(played, monkeypatch):
    monkeypatch.setattr("tests.backup_machine.CREDENTIALS", {"Code": "AssumeRoleUnauthorizedAccess"})
    with pytest.raises(BackupError, match="no credentials of the-role"):
        metadata.credentials()


def test_a_metadata_service_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(metadata, "SERVICE", "http://127.0.0.1:9")
    with pytest.raises(BackupError, match=r"the metadata service does not answer: .*refused"):
        metadata.credentials()


def test_metadata_is_never_asked_for_through_a_proxy(played, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert metadata.credentials().token == "session"
