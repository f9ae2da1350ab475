"""Certificates as ACM issues them, and what a load balancer needs to show one.

AWS signs with Amazon's authorities, which every machine trusts. In the lab, its own public authority does.
"""

from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from moto.acm.models import AWS_ROOT_CA, acm_backends

from lab import authority

VALID_DAYS = 198
"""As ACM's since February 2026: public authorities issue certificates for at most 200 days (CA/Browser Forum, SC-081).
"""


def issue(names: Sequence[str], *, days: float = VALID_DAYS) -> tuple[str, str, str]:
    """Return a new certificate for these names that expires in `days` days, its private key, and the chain up to the
    authority, all in PEM format.
    """
    issued = authority.LAB.issue(names, days=days)
    return issued.certificate, issued.key, issued.chain


def find(arn: str) -> Any:
    """Return ACM's certificate with this ARN from moto's memory; None if there is none."""
    found = (backend._certificates.get(arn) for _, _, backend in list(acm_backends.iter_backends()))
    return next((each for each in found if each), None)


def material(arn: str) -> str:
    """Return what the load balancer shows for this ARN in PEM format: certificate, chain and private key. Raises
    KeyError if ACM has no such certificate.
    """
    found = find(arn)
    if found is None:
        raise KeyError(arn)
    chain = found.chain.replace(AWS_ROOT_CA, b"")  # moto adds it to every chain; it has signed nothing here
    return "".join(f"{part.decode().strip()}\n" for part in (found.cert, chain, found.key) if part.strip())


def algorithm(key: Any) -> str:
    """Return ACM's name for the type and size of a key, for example `RSA_2048`."""
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        return f"RSA_{key.key_size}"
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        return f"EC_{'prime256v1' if key.curve.name == 'secp256r1' else key.curve.name}"
    return type(key).__name__
