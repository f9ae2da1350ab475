"""What tools/pins.yaml pins, looked up again where it comes from: `python -m tools.pins` shows what has changed.

It writes nothing: whether a change is right, only another source than the one that was asked can tell.
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
TIMEOUT = 120  # seconds without a byte
HUB = "registry-1.docker.io"
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(frozen=True)
class Answer:
    """What a server said: `challenge` is its WWW-Authenticate."""

    status: int
    body: bytes
    challenge: str = ""


Fetch = Callable[[str, Mapping[str, str]], Answer]
"""Asks for a URL with headers. Raises OSError when nobody answers."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """An entry of pins.yaml; `value` is None while it is open. The file says what the others are."""

    name: str
    kind: str
    value: str | None
    used: tuple[str, ...]
    sources: tuple[str, ...]
    date: str
    address: str = ""
    version: str = ""


def read(file: Path = FILE) -> list[Pin]:
    """The entries of pins.yaml. Raises TypeError for a key that is missing or not known."""
    entries = yaml.safe_load(file.read_text())
    return [
        Pin(
            **entry | {"used": tuple(entry["used"]), "sources": tuple(entry["sources"]), "date": str(entry["date"])},
        )
        for entry in entries
    ]


def fetch(url: str, headers: Mapping[str, str]) -> Answer:
    """The answer of the network, after redirections. Raises OSError when nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=TIMEOUT) as answer:
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, b"", error.headers.get("WWW-Authenticate") or "")


def look_up(pin: Pin, fetch: Fetch) -> list[str]:
    """What is there now: fingerprints of all keys at an address, the digest of an image, the SHA-256 of a file.

    Raises ValueError or OSError when it cannot be known.
    """
    if pin.kind == "image":
        return [_digest(pin.name, fetch)]
    content = _body(fetch, pin.address)
    return fingerprints(content) if pin.kind == "key" else [hashlib.sha256(content).hexdigest()]


def fingerprints(content: bytes) -> list[str]:
    """Of the primary keys in a file of OpenPGP keys. Raises ValueError when there is none; needs gpg."""
    with tempfile.TemporaryDirectory() as home:
        show = ["gpg", "--homedir", home, "--batch", "--quiet", "--with-colons", "--show-keys"]
        listed = subprocess.run(show, input=content, capture_output=True, check=False).stdout.decode()
    found = re.findall(r"^pub:.*\n(?:(?!fpr:).*\n)*?fpr:+([0-9A-F]{40}):", listed, re.MULTILINE)
    if not found:
        raise ValueError("there is no OpenPGP key")
    return found


def judge(pins: Sequence[Pin], fetch: Fetch) -> tuple[list[str], bool]:
    """A line for each pin, and whether all that is not open is as it was. Keys of one address are judged together."""
    lines, good = [], True
    for pin in pins:
        try:
            found = look_up(pin, fetch)
        except (ValueError, OSError) as error:
            lines.append(f"?        {pin.name}: not looked up: {error}")
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
            lines.append(f"gone     {pin.name}: {pin.value} is not at {pin.address}, but {', '.join(found)}")
    return lines, good


def _body(fetch: Fetch, url: str, headers: Mapping[str, str] | None = None) -> bytes:
    answer = fetch(url, headers or {})
    if answer.status != 200:
        raise ValueError(f"{url} answers with {answer.status}")
    return answer.body


def _digest(image: str, fetch: Fetch) -> str:
    """Of a tag, computed from its manifest. Registries want a token of those as well who may read without a login
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
            raise ValueError(f"{url} wants a login")
        query = urllib.parse.urlencode({key: asked[key] for key in ("service", "scope") if key in asked})
        token = json.loads(_body(fetch, f"{asked['realm']}?{query}"))
        accept["Authorization"] = f"Bearer {token.get('token') or token['access_token']}"
    return f"sha256:{hashlib.sha256(_body(fetch, url, accept)).hexdigest()}"


def main() -> int:
    """Look everything up. Returns 1 when something has changed or could not be looked up."""
    lines, good = judge(read(), fetch)
    print("\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
