"""Encryption and digests of stored secrets, as Gitlab::CryptoHelper and Devise do it.

Everything except password hashes depends on db_key_base.
"""

import base64
import hashlib
import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_ROUNDS = 2**12


class DecryptionError(Exception):
    """The value was encrypted with another db_key_base; the real GitLab raises OpenSSL::Cipher::CipherError."""


class Cipher:
    """Encrypts tokens that can be shown again, and computes digests of the others."""

    def __init__(self, db_key_base: str) -> None:
        self._key = db_key_base[:32].encode()

    def encrypt(self, text: str) -> str:
        """Encrypt deterministically, so that a record can be selected by its token."""
        nonce = hmac.digest(self._key, text.encode(), "sha256")[:12]
        return base64.b64encode(nonce + AESGCM(self._key).encrypt(nonce, text.encode(), None)).decode()

    def decrypt(self, encrypted: str) -> str:
        """Raises DecryptionError if the key has changed."""
        raw = base64.b64decode(encrypted)
        try:
            return AESGCM(self._key).decrypt(raw[:12], raw[12:], None).decode()
        except InvalidTag:
            raise DecryptionError from None

    def digest(self, text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode() + self._key).digest()).decode()


def hash_password(password: str) -> str:
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}${_scrypt(password, salt).hex()}"


def password_matches(password: str, stored: str) -> bool:
    salt, _, expected = stored.partition("$")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)), bytes.fromhex(expected))


def friendly_token(length: int = 20) -> str:
    """Return random characters for a token, like Devise.friendly_token."""
    return secrets.token_urlsafe(length)[:length]


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_ROUNDS, r=8, p=1)
