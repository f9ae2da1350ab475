"""Validates names of container images as Docker and the runner parse them: the grammar of
github.com/distribution/reference (reference.go, normalize.go).
"""

import re

_ALPHANUMERIC = "[a-z0-9]+"
_COMPONENT = rf"{_ALPHANUMERIC}(?:(?:[._]|__|-+){_ALPHANUMERIC})*"
_LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
# The grammar also allows IPv6 addresses, but the machines have no IPv6.
_HOST = rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?"
REFERENCE = re.compile(
    rf"(?P<name>(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@(?P<algorithm>sha256|sha384|sha512):(?P<hex>[a-f0-9]+))?"
)
"""The digest algorithms are those of go-digest."""

LONGEST_NAME = 255
"""Characters, without tag and digest."""

HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}

NO_IMAGE = "is not an image name such as alpine:3.23"


def image(value: str) -> str:
    """An image name with optional tag and digest. Raises ValueError for anything else."""
    if "://" in value:
        raise ValueError("includes a scheme. Set only the name, for example registry.example.com/group/image:1.0")
    found = REFERENCE.fullmatch(value)
    if not found or len(found["name"]) > LONGEST_NAME or re.fullmatch("[a-f0-9]{64}", found["name"]):
        raise ValueError(NO_IMAGE)
    if found["algorithm"] and len(found["hex"]) != HEX_DIGITS[found["algorithm"]]:
        raise ValueError(f"has a digest that is not {HEX_DIGITS[found['algorithm']]} hex digits long")
    return value
