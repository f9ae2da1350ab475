"""The administrators' SSH key pair: its form, and that the two keys are of one pair."""

import base64
import binascii
import re

PRIVATE_KEY_FORM = re.compile(
    r"\A\s*-----BEGIN (?P<kind>OPENSSH |RSA |EC |)PRIVATE KEY-----\s"
    r"(?P<body>.+)-----END (?P=kind)PRIVATE KEY-----\s*\Z",
    re.DOTALL,
)
"""What pulumi-command reads: golang.org/x/crypto/ssh, ParsePrivateKey."""

OPENSSH_MAGIC = b"openssh-key-v1\0"


def public_key(value: str) -> str:
    """An ssh-ed25519 or ssh-rsa public key line, with single spaces. Raises ValueError for anything else: these are the
    types EC2 imports (EC2 User Guide, "Create a key pair for your Amazon EC2 instance").
    """
    parts = value.split()
    if len(parts) < 2 or parts[0] not in ("ssh-ed25519", "ssh-rsa"):
        raise ValueError("is not an ssh-ed25519 or ssh-rsa public key line; EC2 takes no other")
    try:
        body = base64.b64decode(parts[1], validate=True)
    except binascii.Error:
        raise ValueError("is damaged: its second word is not base64") from None
    if _ssh_string(body) != parts[0].encode():
        raise ValueError(f"is damaged: its second word is not a {parts[0]} key")
    return " ".join(parts)


def private_key(value: str) -> str:
    """An unencrypted private key in PEM form that ends with one line feed. Raises ValueError for anything else."""
    match = PRIVATE_KEY_FORM.match(value)
    if not match:
        raise ValueError(
            "is not a private key in PEM form. Set it with: pulumi config set --secret sshPrivateKey < FILE"
        )
    if "ENCRYPTED" in match["body"] or _openssh_cipher(match) not in (None, b"none"):
        raise ValueError("is protected by a passphrase, which nobody can type during `up`. Make a key without one")
    return value.strip() + "\n"


def pair_problems(public_key_line: str, private_key_text: str) -> list[str]:
    """What is wrong when the two are not of one pair. Only of private keys in OpenSSH's own form can it be known: those
    hold the public key unencrypted.
    """
    match = PRIVATE_KEY_FORM.match(private_key_text)
    blob = _openssh_blob(match) if match else None
    if blob is None:
        return []
    # cipher, kdf, kdf options, then the count of keys (four bytes) and the first public key: PROTOCOL.key of OpenSSH.
    header = sum(4 + len(_ssh_string(blob, position)) for position in range(3))
    if _ssh_string(blob[header + 4 :]) == base64.b64decode(public_key_line.split()[1]):
        return []
    return ["sshPublicKey: does not belong to sshPrivateKey. Set both from one pair: KEY.pub and KEY."]


def _openssh_cipher(match: re.Match[str]) -> bytes | None:
    """The cipher's name, `none` without a passphrase; None for a key that is not in OpenSSH's own form."""
    blob = _openssh_blob(match)
    return _ssh_string(blob) if blob is not None else None


def _openssh_blob(match: re.Match[str]) -> bytes | None:
    """The binary key after its magic bytes; None for a key that is not in OpenSSH's own form."""
    if match["kind"] != "OPENSSH ":
        return None
    try:
        blob = base64.b64decode("".join(match["body"].split()), validate=True)
    except binascii.Error:
        raise ValueError("is damaged: its body is not base64") from None
    if not blob.startswith(OPENSSH_MAGIC):
        raise ValueError("is damaged: its body is not an OpenSSH key")
    return blob.removeprefix(OPENSSH_MAGIC)


def _ssh_string(blob: bytes, position: int = 0) -> bytes:
    """The length-prefixed string at `position`-th place of an SSH blob (RFC 4251 section 5)."""
    for _ in range(position):
        blob = blob[4 + int.from_bytes(blob[:4]) :]
    return blob[4 : 4 + int.from_bytes(blob[:4])]
