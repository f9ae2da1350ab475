import functools
import itertools

import pytest
from cryptography.hazmat.primitives import serialization

from lab import authority


@pytest.fixture(autouse=True, scope="session")
def authorities(tmp_path_factory):
    """The tests' own authorities: those of the clone are not created by several processes at a time."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(authority, "FOLDER", tmp_path_factory.mktemp("ca"))
        yield


@pytest.fixture(autouse=True, scope="session")
def few_keys():
    """Three keys in turn for what the authorities issue, each loaded once: OpenSSL needs 0.1 s to make an RSA key, and
    half of that to check the primes of one that it loads, as it does several times for each certificate in moto.
    """
    keys = itertools.cycle([authority._new_key() for _ in range(3)])
    with pytest.MonkeyPatch.context() as context:
        context.setattr(authority, "_new_key", lambda: next(keys))
        context.setattr(serialization, "load_pem_private_key", functools.cache(serialization.load_pem_private_key))
        yield
