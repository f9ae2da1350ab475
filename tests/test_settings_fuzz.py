"""Any content of a stack's file is accepted or rejected: no other error occurs, and no error shows a secret.

The values are random, with a fixed seed.
"""

import json
import random
import string
import time

from settings import SettingsError
from tests.certificates import authority, issue
from tests.conftest import dev_config, openssh_pair, tls_config
from tests.effort import EFFORT
from tests.engine import PROJECT, SECRET_KEYS
from tests.test_settings import load_from
from tests.test_settings_inputs import REFUSED, TAKEN

SECONDS = 1.25 * EFFORT
SEED = 15

PRIVATE_KEY = openssh_pair(b"z")[1]
AUTHORITY = authority("Example authority")
CERTIFICATE = issue(issuer=AUTHORITY)
MARK = "hunter2"
"""A part of every secret."""

WELL_FORMED = sorted(value for table in (TAKEN, REFUSED) for values in table.values() for value in values)
AWKWARD = [
    *("", " ", "\n", "\0", "\ufeff", "true", "null", "0", "-1", "1e9", "9" * 5000, "NaN", "[]", "{}", '""', "[" * 2000),
    *("[null]", '{"a":1.5}', '{"a":{"b":[]}}'),
    *("٣", "²", "é", "\ud800", "🙂", "a" * 9000, "'; reboot #", "${x}", "%s{}"),
    *(PRIVATE_KEY, PRIVATE_KEY.replace("\n", " "), openssh_pair()[0], PRIVATE_KEY[:200]),
    *(CERTIFICATE.pem, CERTIFICATE.key_pem, AUTHORITY.pem, CERTIFICATE.pem.replace("\n", " "), CERTIFICATE.pem[:200]),
    *("198.51.100.7/32", "::1/128", "0.0.0.0/0", "10.0.0.0/8"),
]  # fmt: skip
ALPHABET = string.printable + "٣²é🙂\u2028\x85\ud800"


def some_text(chance: random.Random) -> str:
    kind = chance.randrange(6)
    if kind == 0:
        return "".join(chance.choices(ALPHABET, k=chance.randrange(60)))
    text = chance.choice(chance.choice([AWKWARD, WELL_FORMED, list(dev_values.values())]))
    if kind == 1 and text:
        place = chance.randrange(len(text))
        return text[:place] + chance.choice(ALPHABET) + text[place + chance.randrange(3) :]
    if kind == 2:
        return text[: chance.randrange(len(text) + 1)]
    return text


def some_structure(chance: random.Random, depth: int = 0) -> object:
    kind = chance.randrange(8 if depth < 3 else 5)
    if kind <= 1:
        return some_text(chance)
    if kind <= 4:
        return chance.choice([None, True, False, 0, -1, 12345, 10**30, 1.5, float("inf")])
    if kind == 5:
        return {some_text(chance): some_structure(chance, depth + 1) for _ in range(chance.randrange(4))}
    return [some_structure(chance, depth + 1) for _ in range(chance.randrange(4))]


def secret_text(chance: random.Random) -> str:
    """A random secret that contains MARK, which no message may show."""
    text = some_text(chance)
    place = chance.randrange(len(text) + 1)
    return text[:place] + MARK + text[place:]


def changed(chance: random.Random) -> tuple[dict[str, str], set[str]]:
    """A valid configuration with random changes, and its encrypted keys."""
    values = dict(chance.choice([dev_values, tls_values, own_values]))
    secret_keys = {key for key in SECRET_KEYS if chance.random() < 0.9}
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3, 8])):
        key = chance.choice(KEYS) if chance.random() < 0.95 else some_text(chance)
        text = some_text(chance) if chance.random() < 0.6 else json.dumps(some_structure(chance))
        if chance.random() < 0.1:
            secret_keys.add(key)
        values[f"gitlab:{key}"] = secret_text(chance) if key in {*SECRET_KEYS, *secret_keys} else text
        if chance.random() < 0.1:
            del values[f"gitlab:{key}"]
    if chance.random() < 0.1:
        values["aws:region"] = some_text(chance)
    return values, secret_keys


KEYS = list(PROJECT["config"])
dev_values, tls_values = dev_config(), tls_config()
own_values = dev_config(**CERTIFICATE.settings(authority=AUTHORITY))
KEY_TEXT = PRIVATE_KEY + CERTIFICATE.key_pem
KEY_LINES = {line[20:40] for line in KEY_TEXT.splitlines() if len(line) > 60} | {"PRIVATE KEY--"}


def test_any_configuration_is_read_or_refused_and_no_refusal_shows_a_secret():
    chance = random.Random(SEED)
    end = time.monotonic() + SECONDS
    taken = refused = 0
    while time.monotonic() < end:
        values, secret_keys = changed(chance)
        try:
            settings = load_from(values, secret_keys)
        except SettingsError as error:
            refused += 1
            said = str(error)
            shown = [secret for secret in (MARK, *KEY_LINES) if secret in said]
            assert shown == [], f"{values} shows {shown}:\n{said}"
        else:
            taken += 1
            assert MARK not in repr(settings) or not secret_keys <= set(SECRET_KEYS)
    assert min(taken, refused) > SECONDS, "too few values were accepted, or too few rejected"
