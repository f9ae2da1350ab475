"""The certificates of the setting certificateAuthority, as the machines get them."""

import hashlib
import re

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def certificates(authority: str | None) -> list[str]:
    """Each certificate in PEM format, without the text that openssl prints between them; none without an authority."""
    return [f"{block}\n" for block in CERTIFICATE.findall(authority or "")]


def fingerprints(authority: str | None) -> list[str]:
    """Triggers for a step that has to run again when the authority changes, but not on stacks without one."""
    return [hashlib.sha256(certificate.encode()).hexdigest() for certificate in certificates(authority)]
