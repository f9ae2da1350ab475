"""Validates the administrators' SSH keys and checks that they form a pair."""

import base64
import binascii

from validation import private_keys
from validation.private_keys import ED25519, RSA, Wire

SMALLEST_RSA, LARGEST_RSA = 2048, 4096
"""Bits. RHEL's SSH server rejects smaller keys (crypto-policies, RequiredRSASize), EC2 rejects larger keys (EC2 User
Guide, "Create a key pair for your Amazon EC2 instance").
"""

KEY_TYPES = ("ssh-ed25519", "ssh-rsa", "ssh-dss", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")
"""Prefixes of the first field of a public key line (sshd(8), AUTHORIZED_KEYS FILE FORMAT)."""

FROM_FILE = "Set it from the file: pulumi config set sshPublicKey < KEY.pub"


def public_key(value: str) -> str:
    """An ssh-ed25519 or ssh-rsa public key line, with single spaces. Raises ValueError for anything else: EC2 imports
    only these types (EC2 User Guide, "Create a key pair for your Amazon EC2 instance").
    """
    if len(value.strip().splitlines()) > 1:
        raise ValueError(f"has more than one line; a public key is a single line. {FROM_FILE}")
    parts = value.split()
    if len(parts) < 2 or parts[0] not in ("ssh-ed25519", "ssh-rsa"):
        raise ValueError(f"is not an ssh-ed25519 or ssh-rsa public key line; EC2 accepts no other type. {FROM_FILE}")
    if any(word.startswith(KEY_TYPES) for word in parts[2:]):
        raise ValueError(f"contains more than one public key. {FROM_FILE}")
    try:
        body = base64.b64decode(parts[1], validate=True)
    except (binascii.Error, ValueError):  # the latter: not ASCII
        raise ValueError("is corrupt: its second field is not base64") from None
    _check_public_blob(body, parts[0])
    return " ".join(parts)


def private_key(value: str) -> str:
    """An unencrypted Ed25519 or RSA private key in PEM format that ends with one line feed. Raises ValueError for
    anything else, including an incomplete or corrupt body.
    """
    pem = private_keys.normalized(value)
    private_keys.public_blob(pem)
    return pem


def pair_problems(public_key_line: str, private_key_text: str) -> list[str]:
    """A problem if the two keys are not a pair."""
    if private_keys.public_blob(private_key_text) == base64.b64decode(public_key_line.split()[1]):
        return []
    return ["sshPublicKey: does not match sshPrivateKey. Set both from the same key pair: KEY.pub and KEY."]


def _check_public_blob(blob: bytes, kind: str) -> None:
    wire = Wire(blob)
    if wire.string() != kind.encode():
        raise ValueError(f"is corrupt: its second field is not an {kind} key")
    if kind.encode() == ED25519:
        whole = len(wire.string()) == 32 and not wire.rest
    else:
        exponent, modulus = wire.integer(), wire.integer()
        whole = not wire.rest and min(exponent, modulus) > 0 and private_keys.rsa_blob(modulus, exponent) == blob
        bits = modulus.bit_length()
        if whole and not SMALLEST_RSA <= bits <= LARGEST_RSA:
            raise ValueError(
                f"is an {RSA.decode()} key of {bits} bits; RHEL and EC2 accept {SMALLEST_RSA} to {LARGEST_RSA} bits. "
                "Create a new pair: ssh-keygen -t ed25519"
            )
    if not whole:
        raise ValueError(f"is corrupt: its second field is not a complete {kind} key")
