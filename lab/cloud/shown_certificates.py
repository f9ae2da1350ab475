"""Which certificates the load balancers show: those of their listeners, or for a test, others in their place.

`/_lab/certificates` of the API controls this (controls.py); `reissue` and `restore` are the client of that route.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from cryptography import x509
from moto.elbv2.models import elbv2_backends

from lab import authority
from lab.cloud import API, certificates, controls

ROUTE = "/_lab/certificates"


class Shown:
    """The certificates shown in place of ACM's, by ARN, in the process of the cloud.

    Each is issued once, when it is added: the load balancers are reconfigured whenever a certificate changes.
    """

    def __init__(self) -> None:
        self._instead: dict[str, str] = {}

    def add(
        self,
        *,
        days: float = certificates.VALID_DAYS,
        names: Sequence[str] | None = None,
        trusted: bool = True,
        renewed: bool = False,
    ) -> None:
        """Issue certificates for all TLS listeners, as `reissue` describes. Raises ValueError if that is impossible."""
        arns = sorted(set(_arns()))
        if not arns:
            raise ValueError("no load balancer has a TLS listener")
        issuer = authority.LAB if trusted else authority.OUTSIDER
        for arn in arns:
            issued = issuer.issue(names or authority.dns_names(certificates.material(arn)), days=days)
            if renewed:
                _renew(arn, issued)
                self._instead.pop(arn, None)
            else:
                self._instead[arn] = issued.pem

    def clear(self) -> None:
        """Show ACM's certificates again."""
        self._instead.clear()

    def status(self) -> list[dict[str, Any]]:
        return [{"arn": arn, **facts(pem)} for arn, pem in self._instead.items()]

    def material(self, arn: str | None) -> str:
        """Return the certificate, chain and private key that a listener with this ARN shows; empty without one."""
        try:
            return self._instead.get(arn or "") or certificates.material(arn or "")
        except KeyError:
            return ""


SHOWN = Shown()


def _arns() -> Iterator[str]:
    for _, _, backend in list(elbv2_backends.iter_backends()):
        for balancer in list(backend.load_balancers.values()):
            for listener in list(balancer.listeners.values()):
                if listener.protocol == "TLS" and listener.certificate:
                    yield listener.certificate


def _renew(arn: str, issued: authority.Issued) -> None:
    """Replace the certificate in ACM, under the same ARN."""
    held = certificates.find(arn)
    if held.type != "AMAZON_ISSUED":
        raise ValueError(f"ACM renews only certificates that it has issued itself, and {arn} was imported")
    held.cert, held.key, held.chain = issued.certificate.encode(), issued.key.encode(), issued.chain.encode()
    held._key, held._cert = held.validate_pk(), held.validate_certificate()


def facts(pem: str) -> dict[str, Any]:
    """Return the names, the issuer and the end of the first certificate in `pem`."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return {
        "names": authority.dns_names(pem),
        "issuer": certificate.issuer.rfc4514_string(),
        "expires": certificate.not_valid_after_utc.isoformat(),
    }


# --- the client ------------------------------------------------------------------------------------------


def reissue(
    *,
    days: float = certificates.VALID_DAYS,
    names: Sequence[str] | None = None,
    trusted: bool = True,
    renewed: bool = False,
    api: str = API,
) -> None:
    """Let the TLS listeners of the running lab show new certificates, by default for the names of their present ones.

    - `days`: until they expire; negative for one that has expired
    - `trusted`: signed by the lab's authority, or else by the one that no machine trusts
    - `renewed`: the new ones are ACM's own from now on, as after a renewal by ACM; `restore` does not undo that

    Raises OSError if there is no lab or no TLS listener, and for the renewal of an imported certificate.
    """
    wanted = {"days": days, "names": names, "trusted": trusted, "renewed": renewed}
    controls.ask("POST", ROUTE, wanted, api)


def restore(*, api: str = API) -> None:
    """Let the TLS listeners show ACM's certificates again."""
    controls.ask("DELETE", ROUTE, None, api)
