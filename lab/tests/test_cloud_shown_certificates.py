"""Which certificates load balancers show, and how a test changes them."""

import urllib.error
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID

from lab import authority
from lab.authority import LAB, OUTSIDER
from lab.cloud import certificates, inventory, shown_certificates
from lab.cloud.shown_certificates import SHOWN
from lab.tests.cloud import Cloud, client, over_http, settle

NAME = "git.lab.example.com"


@pytest.fixture(scope="module")
def api():
    with over_http() as url:
        yield url


@pytest.fixture
def cloud():
    with mock_aws():
        yield Cloud()
    SHOWN.clear()


@pytest.fixture
def arn(cloud):
    """A certificate that a TLS listener shows."""
    issued = LAB.issue([NAME])
    made = client("acm").import_certificate(
        Certificate=issued.certificate, PrivateKey=issued.key, CertificateChain=issued.chain
    )
    listen(cloud, made["CertificateArn"])
    return made["CertificateArn"]


def listen(cloud, arn, policy="ELBSecurityPolicy-TLS13-1-2-2021-06"):
    cloud.run()
    settle()
    cloud.elb.create_listener(
        LoadBalancerArn=cloud.balancer()["LoadBalancerArn"],
        Port=443,
        Protocol="TLS",
        Certificates=[{"CertificateArn": arn}],
        SslPolicy=policy,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": cloud.target_group()}],
    )


def listener():
    return inventory.read().balancers[0].listeners[0]


def shown():
    return x509.load_pem_x509_certificate(listener().pem.encode())


def days_left():
    return (shown().not_valid_after_utc - datetime.now(UTC)) / timedelta(days=1)


def test_a_listener_shows_its_certificate_with_its_policy(arn):
    found = listener()
    assert (found.protocol, found.closed_because()) == ("TLS", None)
    assert found.policy.protocols == ("TLSv1.3", "TLSv1.2")
    assert "ECDHE-RSA-AES128-GCM-SHA256" in found.policy.ciphers
    assert found.pem == certificates.material(arn)
    assert authority.dns_names(found.pem) == [NAME]


def test_a_certificate_that_is_no_longer_in_acm_closes_the_port_and_not_the_loop(arn, monkeypatch):
    monkeypatch.setattr(certificates, "find", lambda _: None)
    assert listener().closed_because() == "it has no certificate"


@pytest.mark.parametrize("days", [10, -1])
def test_a_certificate_that_expires_when_the_test_says(api, arn, days):
    shown_certificates.reissue(days=days, api=api)
    assert days_left() == pytest.approx(days, abs=0.1)
    assert authority.dns_names(listener().pem) == [NAME]
    assert shown().issuer.rfc4514_string() == f"CN={LAB.common_name}"


def test_a_certificate_for_another_name(api, arn):
    shown_certificates.reissue(names=["other.example.com"], api=api)
    assert authority.dns_names(listener().pem) == ["other.example.com"]


def test_a_certificate_of_the_authority_that_no_machine_trusts(api, arn):
    shown_certificates.reissue(trusted=False, api=api)
    assert shown().issuer.rfc4514_string() == f"CN={OUTSIDER.common_name}"
    assert OUTSIDER.certificate().read_text() in listener().pem


def test_what_is_shown_stays_the_same_until_the_test_says_otherwise(api, arn):
    before = listener().pem
    shown_certificates.reissue(trusted=False, api=api)
    assert len({listener().pem for _ in range(3)}) == 1
    assert certificates.material(arn) == before, "ACM's own certificate has changed"
    shown_certificates.restore(api=api)
    assert listener().pem == before


def test_a_renewal_replaces_acms_own_certificate_under_its_arn(api, arn, monkeypatch):
    held = certificates.find(arn)
    held.type, held.account_id, held.issued_at = "AMAZON_ISSUED", DEFAULT_ACCOUNT_ID, held.created_at
    shown_certificates.reissue(trusted=False, api=api)
    before = client("acm").describe_certificate(CertificateArn=arn)["Certificate"]
    shown_certificates.reissue(renewed=True, api=api)
    after = client("acm").describe_certificate(CertificateArn=arn)["Certificate"]
    assert after["Serial"] != before["Serial"]
    assert {key for key in after if after[key] != before.get(key)} <= {"Serial", "NotAfter", "NotBefore"}
    assert listener().pem == certificates.material(arn)
    assert days_left() > 190
    shown_certificates.restore(api=api)
    assert listener().pem == certificates.material(arn)


def test_acm_renews_no_imported_certificate(api, arn):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        shown_certificates.reissue(renewed=True, api=api)
    assert "was imported" in refusal.value.read().decode()


def test_without_a_tls_listener_there_is_nothing_to_reissue(api, cloud):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        shown_certificates.reissue(api=api)
    assert refusal.value.code == 400
    assert "no load balancer has a TLS listener" in refusal.value.read().decode()


def test_the_route_lists_what_is_shown_instead(api, arn):
    shown_certificates.reissue(names=["other.example.com"], days=10, api=api)
    [found] = SHOWN.status()
    assert (found["arn"], found["names"]) == (arn, ["other.example.com"])
    assert found["expires"].startswith(str((datetime.now(UTC) + timedelta(days=10)).date()))
