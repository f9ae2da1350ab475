"""TLS listeners."""

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric import rsa
from moto.acm.models import acm_backends

from lab.cloud.patches.certificates import put
from lab.tests.cloud import REGION, client, refused
from lab.tests.cloud_patches.test_certificates import pem, signed

POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
ARN = f"arn:aws:acm:{REGION}:123456789012:certificate/"


class Listeners:
    def __init__(self, cloud):
        self.elb = cloud.elb
        self.balancer = cloud.balancer()["LoadBalancerArn"]
        self.forward = [{"Type": "forward", "TargetGroupArn": cloud.target_group()}]
        self.certificate = self.issued("one")

    @staticmethod
    def issued(name):
        """Return the ARN of a new certificate."""
        put(acm_backends["123456789012"][REGION], ARN + name, ["git.example.com"])
        return ARN + name

    def create(self, protocol="TLS", port=443, certificate=None, **more):
        shown = {"Certificates": [{"CertificateArn": certificate}]} if certificate else {}
        asked = {"LoadBalancerArn": self.balancer, "DefaultActions": self.forward, "Port": port, "Protocol": protocol}
        return self.elb.create_listener(**asked, **shown, **more)["Listeners"][0]["ListenerArn"]

    def modify(self, listener, **changes):
        return self.elb.modify_listener(ListenerArn=listener, **changes)["Listeners"][0]

    def read(self, listener):
        return self.elb.describe_listeners(ListenerArns=[listener])["Listeners"][0]


@pytest.fixture
def listeners(cloud):
    return Listeners(cloud)


def test_a_tls_listener_reads_back(listeners):
    made = listeners.create(certificate=listeners.certificate, SslPolicy=POLICY, AlpnPolicy=["HTTP2Preferred"])
    read = listeners.read(made)
    assert (read["Protocol"], read["SslPolicy"], read["AlpnPolicy"]) == ("TLS", POLICY, ["HTTP2Preferred"])
    assert read["Certificates"] == [{"CertificateArn": listeners.certificate}]


def test_a_tls_listener_has_a_default_policy_and_a_tcp_listener_none(listeners):
    tls = listeners.create(certificate=listeners.certificate)
    assert listeners.read(tls)["SslPolicy"] == "ELBSecurityPolicy-2016-08"
    assert "SslPolicy" not in listeners.read(listeners.create("TCP", port=80))


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ({}, "ValidationError", "A certificate must be specified for TLS listeners"),
        ({"protocol": "TCP", "SslPolicy": POLICY}, "ValidationError", "An SSL policy cannot be specifed for TCP"),
        ({"protocol": "TCP", "certificate": f"{ARN}one"}, "ValidationError", "A certificate cannot be specified"),
        ({"protocol": "TCP", "AlpnPolicy": ["HTTP2Only"]}, "ValidationError", "An ALPN policy cannot be specified"),
        ({"certificate": f"{ARN}other"}, "CertificateNotFound", "not found"),
        ({"certificate": f"{ARN}one".replace(REGION, "us-east-1")}, "CertificateNotFound", "not found"),
    ],
)
def test_a_listener_that_is_refused_is_not_made(listeners, more, code, message):
    with pytest.raises(ClientError, match=message) as error:
        listeners.create(**more)
    assert error.value.response["Error"]["Code"] == code
    assert listeners.elb.describe_listeners(LoadBalancerArn=listeners.balancer)["Listeners"] == []


def test_a_certificate_that_is_pending_or_has_too_long_a_key_is_not_supported(listeners):
    acm = client("acm")
    pending = acm.request_certificate(DomainName="git.example.com", ValidationMethod="DNS")["CertificateArn"]
    key = rsa.generate_private_key(65537, 4096)
    long = acm.import_certificate(Certificate=signed(key), PrivateKey=pem(key))["CertificateArn"]
    for arn in (pending, long):
        with pytest.raises(ClientError, match=f"'{arn}' must have a fully-qualified domain name") as error:
            listeners.create(certificate=arn)
        assert error.value.response["Error"]["Code"] == "UnsupportedCertificate"


def test_the_certificate_and_the_policies_of_a_tls_listener_can_be_changed(listeners):
    made, other = listeners.create(certificate=listeners.certificate), listeners.issued("two")
    changed = {"Certificates": [{"CertificateArn": other}], "SslPolicy": POLICY, "AlpnPolicy": ["HTTP1Only"]}
    listeners.modify(made, Port=8443, Protocol="TLS", **changed)
    read = listeners.read(made)
    assert {key: read[key] for key in changed} == changed
    assert read["Port"] == 8443
    acm = client("acm")
    acm.delete_certificate(CertificateArn=listeners.certificate)
    refused("ResourceInUseException", acm.delete_certificate, CertificateArn=other)


def test_a_tcp_listener_becomes_a_tls_listener_and_the_reverse(listeners):
    made = listeners.create("TCP", port=80)
    shown = {"Certificates": [{"CertificateArn": listeners.certificate}]}
    refused("ValidationError", listeners.modify, listener=made, Protocol="TLS", SslPolicy=POLICY)
    refused("ValidationError", listeners.modify, listener=made, Protocol="TLS", **shown)
    listeners.modify(made, Port=443, Protocol="TLS", SslPolicy=POLICY, **shown)
    assert listeners.read(made)["Certificates"] == shown["Certificates"]
    refused("ValidationError", listeners.modify, listener=made, Protocol="TCP", SslPolicy=POLICY)
    listeners.modify(made, Port=80, Protocol="TCP")
    assert not {"Certificates", "SslPolicy"} & {key for key, value in listeners.read(made).items() if value}


def test_a_changed_port_is_free(listeners):
    listeners.create("TCP", port=80)
    other = listeners.create("TCP", port=22)
    refused("DuplicateListener", listeners.modify, listener=other, Port=80)
