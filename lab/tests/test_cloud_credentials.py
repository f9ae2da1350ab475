"""Temporary credentials: how long they live, and which requests are accepted."""

import io
from datetime import UTC, datetime, timedelta

import botocore.auth  # type: ignore[import-untyped]
import pytest
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials as Keys  # type: ignore[import-untyped]

from lab.cloud.credentials import EXPIRED, INVALID, Issuer

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
FORM = "application/x-www-form-urlencoded; charset=utf-8"


@pytest.fixture
def clock():
    return [NOW]


@pytest.fixture
def issuer(clock):
    return Issuer(lambda: clock[0])


def signed(issued, at, monkeypatch, body=b"Action=DescribeSnapshots&Version=2016-11-15"):
    """Return a request as botocore signs it."""
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: at)
    request = AWSRequest("POST", "https://ec2.eu-central-1.amazonaws.com/", {"content-type": FORM}, body)
    keys = Keys(issued.access_key, issued.secret, issued.token)
    botocore.auth.SigV4Auth(keys, "ec2", "eu-central-1").add_auth(request)
    sent = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()}
    return {
        **sent,
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "HTTP_HOST": "ec2.eu-central-1.amazonaws.com",
        "CONTENT_TYPE": FORM,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }


def test_a_machine_keeps_its_credentials_until_they_are_about_to_expire(issuer, clock):
    first = issuer.issue("i-1", "server")
    assert first.access_key.startswith("ASIA")
    assert issuer.issue("i-2", "server") != first
    assert issuer.issue("i-1", "other") != first
    clock[0] = NOW + timedelta(hours=5, minutes=44)
    assert issuer.issue("i-1", "server") == first
    clock[0] = NOW + timedelta(hours=5, minutes=46)
    second = issuer.issue("i-1", "server")
    assert second != first
    assert issuer.find(first.access_key) == first


def test_a_signed_request_is_accepted_and_stays_readable(issuer, monkeypatch):
    issued = issuer.issue("i-1", "server")
    request = signed(issued, NOW, monkeypatch)
    assert issuer.problem(issued.access_key, request) is None
    assert request["wsgi.input"].read().startswith(b"Action=")


@pytest.mark.parametrize(
    "change",
    [
        {"wsgi.input": io.BytesIO(b"Action=DeleteSnapshots_&Version=2016-11-15")},
        {"HTTP_HOST": "ec2.us-east-1.amazonaws.com"},
        {"HTTP_X_AMZ_SECURITY_TOKEN": "other"},
        {"HTTP_AUTHORIZATION": "AWS4-HMAC-SHA256 Credential=x"},
        {"PATH_INFO": "/other"},
    ],
)
def test_a_request_that_was_changed_is_not_accepted(issuer, monkeypatch, change):
    issued = issuer.issue("i-1", "server")
    assert issuer.problem(issued.access_key, {**signed(issued, NOW, monkeypatch), **change}) == INVALID


def test_unknown_credentials_are_not_accepted(issuer, monkeypatch):
    issued = Issuer(lambda: NOW).issue("i-1", "server")
    assert issuer.problem(issued.access_key, signed(issued, NOW, monkeypatch)) == INVALID


def test_a_request_is_accepted_for_five_minutes_and_credentials_for_six_hours(issuer, clock, monkeypatch):
    issued = issuer.issue("i-1", "server")

    def problem(**age):
        return issuer.problem(issued.access_key, signed(issued, clock[0] - timedelta(**age), monkeypatch))

    assert problem(minutes=4) is None
    assert problem(minutes=-4) is None
    assert problem(minutes=6) == problem(minutes=-6) == EXPIRED
    clock[0] = NOW + timedelta(hours=6)
    assert problem(minutes=0) == EXPIRED
