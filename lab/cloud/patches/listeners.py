"""TLS listeners of network load balancers: certificates, security policies and ALPN."""

from typing import Any

from moto.elbv2.exceptions import ELBClientError
from moto.elbv2.models import ELBv2Backend, FakeAction, FakeListener
from moto.elbv2.responses import ELBV2Response

from lab.cloud import certificates
from lab.cloud.patches.correction import correction

TLS = "TLS"
KEYS = ("RSA_2048", "RSA_3072", "EC_prime256v1", "EC_secp384r1", "EC_secp521r1")
"""The keys of certificates that network load balancers take (User Guide for Network Load Balancers, Document history,
January 19, 2024). RSA 4096 is documented for application load balancers alone.
"""


@correction
def only_tls_listeners_have_a_policy() -> None:
    """A TLS listener has ELBSecurityPolicy-2016-08 unless it asks for another security policy; other listeners of
    network load balancers have none. (moto gives every listener that policy, and HashiCorp's provider sends it back in
    the next ModifyListener, which AWS refuses.)"""
    original = FakeListener.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if self.protocol != TLS:
            self.ssl_policy = None

    FakeListener.__init__ = init


@correction
def certificates_of_tls_listeners() -> None:
    """A TLS listener has exactly one default certificate, which is issued, and whose key network load balancers
    support; other listeners have no certificate, no security policy and no ALPN policy. A listener that becomes a TLS
    listener is given both. (moto takes everything.)"""
    original_create, original_modify = ELBV2Response.create_listener, ELBV2Response.modify_listener

    def create_listener(self: Any) -> Any:
        protocol = self._get_param("Protocol")
        given = _arns(self)
        _check(self, protocol, given)
        if protocol == TLS and not given:
            raise ELBClientError("ValidationError", "A certificate must be specified for TLS listeners")
        return original_create(self)

    def modify_listener(self: Any) -> Any:
        [listener] = self.elbv2_backend.describe_listeners(None, [self._get_param("ListenerArn")])
        protocol = self._get_param("Protocol") or listener.protocol
        given = _arns(self)
        _check(self, protocol, given)
        if protocol == TLS and not given and not listener.certificates:
            raise ELBClientError("ValidationError", "A certificate must be specified for TLS listeners")
        if protocol == TLS and not self._get_param("SslPolicy") and not listener.ssl_policy:
            raise ELBClientError("ValidationError", "An SSL policy must be specified for TLS listeners")
        return original_modify(self)

    ELBV2Response.create_listener = create_listener
    ELBV2Response.modify_listener = modify_listener


def _arns(response: Any) -> list[str]:
    return [each["CertificateArn"] for each in response._get_param("Certificates", [])]


def _check(response: Any, protocol: str, arns: list[str]) -> None:
    """Raise AWS's errors. The text about the security policy is AWS's own and misspelled (USEPA/webcms, pull request
    526).
    """
    if protocol != TLS:
        if response._get_param("SslPolicy"):
            raise ELBClientError("ValidationError", f"An SSL policy cannot be specifed for {protocol} listeners")
        if arns:
            raise ELBClientError("ValidationError", f"A certificate cannot be specified for {protocol} listeners")
        if response._get_param("AlpnPolicy"):
            raise ELBClientError("ValidationError", f"An ALPN policy cannot be specified for {protocol} listeners")
    if len(arns) > 1:
        raise ELBClientError("ValidationError", "You must provide exactly one certificate.")
    for arn in arns:
        found = certificates.find(arn)
        if found is None or arn.split(":")[3] != response.region:
            raise ELBClientError("CertificateNotFound", f"Certificate '{arn}' not found")
        found.check()
        if found.status != "ISSUED" or certificates.algorithm(found._key) not in KEYS:
            # traveloka/terraform-aws-acm-certificate issue 32: AWS says so of a certificate that is still pending.
            raise ELBClientError(
                "UnsupportedCertificate",
                f"The certificate '{arn}' must have a fully-qualified domain name, a supported signature, "
                "and a supported key size.",
            )


@correction
def tls_listeners_can_be_changed() -> None:
    """ModifyListener changes port, protocol, certificate, security and ALPN policy of a listener of a network load
    balancer; one that is no longer a TLS listener has none of the last three. (moto refuses the protocol TLS, and
    ignores the certificate of a TLS listener and the ALPN policy.) Related upstream: getmoto/moto#4808 (merged)."""
    original = ELBV2Response.modify_listener

    def modify_listener(self: Any, arn: str, *changes: Any) -> Any:
        port, protocol, ssl_policy, certificates, actions = changes
        [listener] = self.describe_listeners(None, [arn])
        others = self.load_balancers[listener.load_balancer_arn].listeners.values()
        if port and any(other is not listener and str(other.port) == str(port) for other in others):
            raise ELBClientError("DuplicateListener", "A listener with the specified port already exists.")
        listener.port = port or listener.port
        listener.protocol = protocol or listener.protocol
        if listener.protocol == TLS:
            listener.certificates = [each["CertificateArn"] for each in certificates or []] or listener.certificates
            listener.ssl_policy = ssl_policy or listener.ssl_policy
        else:
            listener.certificates, listener.ssl_policy, listener.alpn_policy = [], None, []
        listener.certificate = next(iter(listener.certificates), None)
        if actions:
            listener.default_actions = listener._default_rule[0].actions = [FakeAction(each) for each in actions]
        return listener

    def modify_listener_with_alpn(self: Any) -> Any:
        answer = original(self)
        if policies := self._get_param("AlpnPolicy"):
            answer.result["Listeners"][0].alpn_policy = policies
        return answer

    ELBv2Backend.modify_listener = modify_listener
    ELBV2Response.modify_listener = modify_listener_with_alpn
