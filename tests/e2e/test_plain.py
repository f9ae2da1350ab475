"""A stack without a domain serves plain HTTP: from TLS, which a setting has to allow, and back to TLS."""

import json
from typing import Any

import pytest

from configuration.checks import CHECKS
from lab import stack
from tests.e2e import https, kept
from tests.e2e.operations import Finished, configure, must, repair, setting, up
from tests.e2e.test_doctor import examine

OFF = ("certificate", "certificate-renewal")
"""The checks that do not apply to plain HTTP."""


@pytest.fixture(scope="module")
def image(outputs) -> str:
    """The path of an image that was pushed over TLS."""
    return kept.push("before-plain-http").removeprefix(outputs["registryHost"])


@pytest.fixture(scope="module")
def changed(image) -> Finished:
    """The `up` that takes TLS away."""
    configure(domain=None, hostedZoneId=None, acceptPlainHttpAfterTls="true")
    done = up()
    assert done.status == 0, done.output
    return done


@pytest.fixture
def plain(changed) -> dict[str, Any]:
    """The outputs of the stack that serves plain HTTP."""
    return stack.outputs(show_secrets=True)


def test_tls_is_taken_away_only_if_a_setting_allows_it(outputs):
    configure(domain=None, hostedZoneId=None)
    try:
        refused = up()
    finally:
        configure(domain=setting("domain"), hostedZoneId=setting("hostedZoneId"))
    assert refused.status != 0
    assert "acceptPlainHttpAfterTls" in refused.output
    assert stack.outputs()["externalUrl"] == outputs["externalUrl"]


def test_without_a_domain_everything_works_over_plain_http_and_up_warns(changed, plain, image):
    address = https.address(plain)
    assert "unencrypted" in changed.output
    assert (plain["externalUrl"], plain["registryHost"]) == (f"http://{address}", f"{address}:5000")
    assert plain["dnsRecords"] == []
    passed = [check["check"] for check in plain["acceptance"]]
    assert passed == [check.title for check in CHECKS if check.id not in OFF]
    assert https.in_clear(plain, 80).startswith(b"HTTP/1.1 200")
    assert https.in_clear(plain, 443) == https.CLOSED
    assert json.loads(must("runner", "cat /etc/docker/daemon.json"))["insecure-registries"] == [plain["registryHost"]]
    kept.pull(plain["registryHost"] + image)


def test_the_doctor_does_not_miss_a_certificate_where_there_is_none(plain):
    found = examine("--quick")
    assert (found.status, found.report["verdict"]) == (0, "well")
    states = {check["check"]: check["state"] for check in found.report["checks"]}
    assert {states[name] for name in OFF} == {"off"}


def test_a_domain_turns_plain_http_into_tls_and_keeps_everything(changed, outputs, image):
    configure(domain=setting("domain"), hostedZoneId=setting("hostedZoneId"), acceptPlainHttpAfterTls=None)
    repair()
    again = stack.outputs()
    assert {key: again[key] for key in ("externalUrl", "registryHost", "publicAddresses")} == {
        key: outputs[key] for key in ("externalUrl", "registryHost", "publicAddresses")
    }
    assert https.in_clear(outputs, 80) == https.CLOSED
    assert "insecure" not in must("runner", "cat /etc/docker/daemon.json")
    kept.pull(outputs["registryHost"] + image)
    stack.preview(expect_no_changes=True)
