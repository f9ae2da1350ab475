"""Looks up every entry of tools/pins.yaml at its source: `python -m tools.pins` shows what has changed.

It does not update the file, because a change must first be confirmed by a second, independent source.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("pins.yaml")
TIMEOUT = 120  # seconds without any data
HUB = "registry-1.docker.io"
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(frozen=True)
class Answer:
    """A server's response; `challenge` is its WWW-Authenticate header."""

    status: int
    body: bytes
    challenge: str = ""


Fetch = Callable[[str, Mapping[str, str]], Answer]
"""Requests a URL with headers. Raises OSError if there is no response."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """An entry of pins.yaml, which documents the fields; `value` is None while it is not confirmed."""

    name: str
    kind: str
    value: str | None
    used: tuple[str, ...]
    sources: tuple[str, ...]
    date: str
    address: str = ""
    version: str = ""


def read(file: Path = FILE) -> list[Pin]:
    """The entries of pins.yaml. Raises TypeError for a missing or unknown key."""
    entries = yaml.safe_load(file.read_text())
    return [
        Pin(
            **entry | {"used": tuple(entry["used"]), "sources": tuple(entry["sources"]), "date": str(entry["date"])},
        )
        for entry in entries
    ]


def fetch(url: str, headers: Mapping[str, str]) -> Answer:
    """Request a URL, following redirects. Raises OSError if there is no response."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=TIMEOUT) as answer:
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, b"", error.headers.get("WWW-Authenticate") or "")


def look_up(pin: Pin, fetch: Fetch) -> list[str]:
    """The current values: fingerprints of all keys at the address, the digest of an image, or the SHA-256 of a file.

    Raises ValueError or OSError if the lookup fails.
    """
    if pin.kind == "image":
        return [_digest(pin.name, fetch)]
    content = _body(fetch, pin.address)
    return fingerprints(content) if pin.kind == "key" else [hashlib.sha256(content).hexdigest()]


def fingerprints(content: bytes) -> list[str]:
    """Fingerprints of the primary keys in an OpenPGP key file. Needs gpg. Raises ValueError if there is none."""
    with tempfile.TemporaryDirectory() as home:
        show = ["gpg", "--homedir", home, "--batch", "--quiet", "--with-colons", "--show-keys"]
        listed = subprocess.run(show, input=content, capture_output=True, check=False).stdout.decode()
    found = re.findall(r"^pub:.*\n(?:(?!fpr:).*\n)*?fpr:+([0-9A-F]{40}):", listed, re.MULTILINE)
    if not found:
        raise ValueError("the file contains no OpenPGP key")
    return found


def judge(pins: Sequence[Pin], fetch: Fetch) -> tuple[list[str], bool]:
    """One line per pin, and whether all confirmed pins are unchanged. Keys of one address are compared together."""
    lines, good = [], True
    for pin in pins:
        try:
            found = look_up(pin, fetch)
        except (ValueError, OSError) as error:
            lines.append(f"?        {pin.name}: lookup failed: {error}")
            good = False
            continue
        known = {each.value for each in pins if each.address == pin.address} if pin.kind == "key" else {pin.value}
        if pin.value is None:
            lines.append(f"open     {pin.name}: now {', '.join(found)}")
        elif set(found) - known:
            lines.append(f"CHANGED  {pin.name}: was {pin.value}, now {', '.join(found)}")
            good = False
        elif pin.value in found:
            lines.append(f"same     {pin.name}")
        else:
            lines.append(f"gone     {pin.name}: {pin.address} does not have {pin.value}, but {', '.join(found)}")
    return lines, good


def _body(fetch: Fetch, url: str, headers: Mapping[str, str] | None = None) -> bytes:
    answer = fetch(url, headers or {})
    if answer.status != 200:
        raise ValueError(f"{url} returned {answer.status}")
    return answer.body


def _digest(image: str, fetch: Fetch) -> str:
    """The digest of a tag, computed from its manifest. Registries require a token for anonymous reads as well
    (distribution, docs/spec/auth/token.md).
    """
    host, _, path = image.partition("/")
    name, _, tag = path.rpartition(":")
    url = f"https://{HUB if host == 'docker.io' else host}/v2/{name}/manifests/{tag}"
    accept = {"Accept": MANIFESTS}
    answer = fetch(url, accept)
    if answer.status == 401:
        asked = dict(re.findall(r'(\w+)="([^"]*)"', answer.challenge))
        if not asked.get("realm", "").startswith("https://"):
            raise ValueError(f"{url} requires a login")
        query = urllib.parse.urlencode({key: asked[key] for key in ("service", "scope") if key in asked})
        token = json.loads(_body(fetch, f"{asked['realm']}?{query}"))
        accept["Authorization"] = f"Bearer {token.get('token') or token['access_token']}"
    return f"sha256:{hashlib.sha256(_body(fetch, url, accept)).hexdigest()}"


def main() -> int:
    """Look up all pins. Returns 1 if one has changed or could not be looked up."""
    lines, good = judge(read(), fetch)
    print("\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
