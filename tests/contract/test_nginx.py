"""The client address that GitLab sees behind the load balancer, with the nginx configuration of its own package."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.nginx import LOCAL, Nginx, running, version_1, version_2
from tests.contract.test_gitlab_rb import CERTIFICATE

CLIENT = "198.51.100.77"
BALANCER = "127.0.0.0/20"
"""The network of the load balancer, on loopback."""

ENDPOINT = b"\xea\x00\x05\x01vpce"
"""A field that AWS's load balancers add, of type PP2_TYPE_AWS (Elastic Load Balancing, Target groups for your NLB)."""

FORGED = ("X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "X-Forwarded-Proto: gopher")


@pytest.fixture(scope="module", params=["plain", "certificate"])
def secure(request) -> bool:
    return request.param == "certificate"


@pytest.fixture(scope="module")
def nginx(judged, secure) -> Iterator[Nginx]:
    made = judged(network=BALANCER, **(CERTIFICATE if secure else {}))
    assert made.problems == []
    with tempfile.TemporaryDirectory(prefix="nginx-") as folder, running(made.folder, Path(folder)) as server:
        yield server


@pytest.mark.parametrize(
    "header",
    [version_1(CLIENT), version_2(CLIENT), version_2(CLIENT, more=ENDPOINT)],
    ids=["version 1", "version 2", "version 2 with an AWS field"],
)
def test_the_client_is_the_one_in_the_header_whatever_the_request_says(nginx, header):
    answer = nginx.answer(header, *FORGED)
    assert answer.startswith("HTTP/1.1 200")
    assert f"X-Real-IP: {CLIENT}\n" in answer
    assert f"X-Forwarded-For: {CLIENT}\n" in answer
    assert "127.0.0.1" not in answer
    assert "gopher" not in answer


def test_the_log_names_the_client(nginx):
    nginx.answer(version_2(CLIENT), path="/named")
    [line] = [line for line in nginx.log() if "/named" in line]
    assert line.startswith(f"{CLIENT} - ")


@pytest.mark.parametrize(
    "header",
    [version_2(command=LOCAL), version_2(CLIENT, command=LOCAL), version_2()],
    ids=["LOCAL", "LOCAL with addresses", "UNSPEC"],
)
def test_a_health_check_of_the_balancer_is_answered_and_has_no_address(nginx, header):
    answer = nginx.answer(header, *FORGED, path="/-/readiness")
    assert answer.startswith("HTTP/1.1 200")
    assert "X-Real-IP" not in answer
    assert "X-Forwarded-For" not in answer


@pytest.mark.parametrize("header", [b"", b"PROXY nonsense\r\n"], ids=["none", "malformed"])
def test_without_a_header_nothing_is_served(nginx, header):
    assert nginx.answer(header) == ""


def test_links_have_the_clients_scheme(nginx, secure):
    answer = nginx.answer(version_2(CLIENT))
    assert f"X-Forwarded-Proto: {'https' if secure else 'http'}\n" in answer
    assert ("X-Forwarded-Ssl: on\n" in answer) == secure
