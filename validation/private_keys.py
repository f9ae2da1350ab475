"""Parses private key files, the PEM format and the bodies inside, as far as the public key.

Supports the formats that pulumi-command can log in with: golang.org/x/crypto/ssh, ParseRawPrivateKey.
"""

import base64
import binascii

from validation.ed25519 import public_from_seed

OPENSSH_MAGIC = b"openssh-key-v1\0"
ED25519, RSA = b"ssh-ed25519", b"ssh-rsa"

RSA_OBJECT = bytes.fromhex("2a864886f70d010101")
"""DER value of rsaEncryption, 1.2.840.113549.1.1.1 (RFC 8017)."""
ED25519_OBJECT = bytes.fromhex("2b6570")
"""id-Ed25519, 1.3.101.112 (RFC 8410)."""

INTEGER, OCTET_STRING, OBJECT, SEQUENCE = 0x02, 0x04, 0x06, 0x30

FROM_FILE = "Set it from the file: pulumi config set --secret sshPrivateKey < KEY"
PASSPHRASE = "is protected by a passphrase, which cannot be entered during `up`. Create a key without one"
OTHER_TYPE = "is neither an Ed25519 nor an RSA key; EC2 accepts no other type"
ENDS_EARLY = "is corrupt: its body ends too early"
NO_RSA_KEY = "is corrupt: its numbers are not an RSA key"


class Wire:
    """Reads the fields of an SSH blob (RFC 4251, section 5) in order. Methods raise ValueError at its end."""

    def __init__(self, blob: bytes) -> None:
        self.rest = blob

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if len(self.rest) < count:
            raise ValueError(ENDS_EARLY)
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def number(self) -> int:
        """A four-byte number, `uint32`."""
        return int.from_bytes(self.take(4))

    def string(self) -> bytes:
        """A string, preceded by its length."""
        return self.take(self.number())

    def integer(self) -> int:
        """A number of any length, `mpint`."""
        return int.from_bytes(self.string(), signed=True)


def string(value: bytes) -> bytes:
    """A string of an SSH blob: its length, then its bytes."""
    return len(value).to_bytes(4) + value


def rsa_blob(modulus: int, exponent: int) -> bytes:
    """The RSA public key with these numbers in SSH format (RFC 4253, section 6.6)."""
    numbers = (value.to_bytes(value.bit_length() // 8 + 1) for value in (exponent, modulus))
    return string(RSA) + b"".join(map(string, numbers))


def ed25519_blob(public: bytes) -> bytes:
    """The Ed25519 public key of these 32 bytes in SSH format (RFC 8709)."""
    return string(ED25519) + string(public)


def normalized(value: str) -> str:
    """The PEM text with plain line breaks and no trailing whitespace. Raises ValueError with the reason if it is not
    PEM.
    """
    lines = [line.rstrip() for line in value.strip().splitlines()]
    first = lines[0] if lines else ""
    if first.startswith(("ssh-", "ecdsa-", "sk-")) or "PUBLIC KEY" in first:
        raise ValueError(f"is a public key. Check whether sshPublicKey and sshPrivateKey are swapped. {FROM_FILE}")
    if first.startswith("PuTTY-User-Key-File"):
        raise ValueError("is in PuTTY's format. Convert it: puttygen KEY.ppk -O private-openssh -o KEY")
    if not first.startswith("-----BEGIN ") or "PRIVATE KEY" not in first:
        raise ValueError(f"is not a private key in PEM format. {FROM_FILE}")
    if len(lines) == 1:
        raise ValueError(f"has lost its line breaks. {FROM_FILE}")
    if any(line[:1].isspace() for line in lines):
        raise ValueError(f"has indented lines. {FROM_FILE}")
    if lines[-1] != first.replace("BEGIN", "END", 1):
        raise ValueError(f"is incomplete: its last line is not the END line that matches its first. {FROM_FILE}")
    return "\n".join(lines) + "\n"


def public_blob(pem: str) -> bytes:
    """The public key, in SSH format, of the unencrypted private key in a `normalized` text. Raises ValueError for
    anything else, and for an incomplete or corrupt key.
    """
    first, *lines, _ = pem.splitlines()
    headers, body = _headers(lines)
    kind = first.removeprefix("-----BEGIN ").removesuffix("-----")
    if kind.startswith("ENCRYPTED") or any("ENCRYPTED" in header for header in headers):
        raise ValueError(PASSPHRASE)
    if kind not in READERS:
        raise ValueError(OTHER_TYPE)
    if any(line.startswith("-----") for line in body):
        raise ValueError(f"contains more than one key. {FROM_FILE}")
    try:
        blob = base64.b64decode("".join(body), validate=True)
    except (binascii.Error, ValueError):  # the latter: not ASCII
        raise ValueError("is corrupt: its body is not base64") from None
    return READERS[kind](blob)


def _headers(lines: list[str]) -> tuple[list[str], list[str]]:
    """The headers of a PEM text, which a blank line terminates (RFC 1421), and the lines after them."""
    if not any(":" in line for line in lines[:1]):
        return [], lines
    end = lines.index("") if "" in lines else len(lines)
    return lines[:end], lines[end:]


def _openssh(blob: bytes) -> bytes:
    """OpenSSH's own format: its PROTOCOL.key."""
    if not blob.startswith(OPENSSH_MAGIC):
        raise ValueError("is corrupt: its body is not an OpenSSH key")
    wire = Wire(blob.removeprefix(OPENSSH_MAGIC))
    cipher, derivation, _ = wire.string(), wire.string(), wire.string()
    if (cipher, derivation) != (b"none", b"none"):
        raise ValueError(PASSPHRASE)
    if wire.number() != 1:
        raise ValueError(f"contains more than one key. {FROM_FILE}")
    public, private = wire.string(), Wire(wire.string())
    if wire.rest or private.number() != private.number():
        raise ValueError("is corrupt: its parts do not match")
    found = _openssh_numbers(private)
    private.string()  # the comment
    padding = private.rest
    if found != public or padding != bytes(range(1, len(padding) + 1)):
        raise ValueError("is corrupt: its parts do not match")
    return public


def _openssh_numbers(wire: Wire) -> bytes:
    """The public key. Accepts zeros in place of the private numbers: a preview without secrets uses them."""
    kind = wire.string()
    if kind == ED25519:
        public, both = wire.string(), wire.string()
        seed, rest = both[:32], both[32:]
        if len(public) != 32 or rest != public or (any(seed) and public_from_seed(seed) != public):
            raise ValueError("is corrupt: its numbers are not an Ed25519 key")
        return ed25519_blob(public)
    if kind == RSA:
        modulus, exponent, private, coefficient, prime, other = (wire.integer() for _ in range(6))
        return _rsa(modulus, exponent, private, (prime, other), coefficient) if private else rsa_blob(modulus, exponent)
    raise ValueError(OTHER_TYPE)


def _pkcs1(blob: bytes) -> bytes:
    """RSAPrivateKey of RFC 8017, appendix A.1.2."""
    body, rest = der(blob, SEQUENCE)
    numbers = []
    while body:
        number, body = der(body, INTEGER)
        numbers.append(int.from_bytes(number, signed=True))
    if rest or len(numbers) != 9:
        raise ValueError("is corrupt: its body is not an RSA key")
    _, modulus, exponent, private, prime, other, first, second, coefficient = numbers
    blob = _rsa(modulus, exponent, private, (prime, other), coefficient)
    if (first, second) != (private % (prime - 1), private % (other - 1)):
        raise ValueError(NO_RSA_KEY)
    return blob


def _pkcs8(blob: bytes) -> bytes:
    """PrivateKeyInfo of RFC 5208."""
    body, rest = der(blob, SEQUENCE)
    _, body = der(body, INTEGER)
    algorithm, body = der(body, SEQUENCE)
    object_id, _ = der(algorithm, OBJECT)
    key, _ = der(body, OCTET_STRING)
    if rest:
        raise ValueError("is corrupt: its body is followed by more data")
    if object_id == RSA_OBJECT:
        return _pkcs1(key)
    if object_id == ED25519_OBJECT:
        seed, rest = der(key, OCTET_STRING)
        if rest or len(seed) != 32:
            raise ValueError("is corrupt: its numbers are not an Ed25519 key")
        return ed25519_blob(public_from_seed(seed))
    raise ValueError(OTHER_TYPE)


def _elliptic(_: bytes) -> bytes:
    raise ValueError(OTHER_TYPE)


def _rsa(modulus: int, exponent: int, private: int, primes: tuple[int, int], coefficient: int) -> bytes:
    """The public key of these numbers. Raises ValueError if they do not match (RFC 8017, section 3.2)."""
    one, other = primes
    if exponent <= 0 or min(primes) <= 2 or one * other != modulus or coefficient * other % one != 1:
        raise ValueError(NO_RSA_KEY)
    if any(exponent * private % (prime - 1) != 1 for prime in primes):
        raise ValueError(NO_RSA_KEY)
    return rsa_blob(modulus, exponent)


def der(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the first element (X.690, DER), which must have this tag, and the bytes after it."""
    wire = Wire(data)
    found, length = wire.take(2)
    if length >= 0x80:
        length = int.from_bytes(wire.take(length & 0x7F))
    if found != tag:
        raise ValueError("is corrupt: its body is not a key")
    return wire.take(length), wire.rest


READERS = {
    "OPENSSH PRIVATE KEY": _openssh,
    "RSA PRIVATE KEY": _pkcs1,
    "PRIVATE KEY": _pkcs8,
    "EC PRIVATE KEY": _elliptic,
}
"""By the label after BEGIN."""
