"""The pinned values are those in use, and a change at their source is reported."""

import hashlib
import http.server
import json
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from configuration.package_repositories import DOCKER, GITLAB, RUNNER
from configuration.registry_config import registry_image
from tests.engine import PROJECT, ROOT
from tools import pins
from tools.pins import Answer, Pin

PINS = pins.read()
DEFAULTS = {key: schema.get("default") for key, schema in PROJECT["config"].items()}
PINNED = {pin.name: pin for pin in PINS}


def used_by(name: str) -> set[str | None]:
    return {pin.value for pin in PINS if name in pin.used}


@pytest.mark.parametrize("repository", [GITLAB, RUNNER, DOCKER], ids=lambda repository: repository.product)
def test_the_keys_of_the_settings_are_those_that_are_pinned(repository):
    assert used_by(repository.setting) == set(DEFAULTS[repository.setting])
    addresses = {pin.address for pin in PINS if repository.setting in pin.used}
    assert addresses == set(repository.key_addresses), "machines download them from other addresses"


def test_the_images_of_the_settings_are_those_that_are_pinned():
    [acceptance] = [pin for pin in PINS if "acceptanceImage" in pin.used]
    assert DEFAULTS["acceptanceImage"] == f"{acceptance.name}@{acceptance.value}"
    [registry] = [pin for pin in PINS if "registryVersion" in pin.used]
    assert registry.name == registry_image(DEFAULTS["registryVersion"])
    assert registry.value is None, "registryImage needs a default"


@pytest.mark.parametrize("pin", PINS, ids=lambda pin: pin.name)
def test_a_pin_is_whole(pin: Pin):
    forms = {"key": r"[0-9A-F]{40}", "image": r"sha256:[0-9a-f]{64}", "file": r"[0-9a-f]{64}"}
    assert pin.value is None or re.fullmatch(forms[pin.kind], pin.value)
    assert (pin.value is None) == (not pin.sources), "a value needs a source, and a pin without a value has none"
    assert (pin.address == "") == (pin.kind == "image")
    assert pin.address.startswith("https://") or pin.kind == "image"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", pin.date)
    assert pin.used


def test_what_has_one_source_or_none_is_documented():
    status = (ROOT / "docs/releases.md").read_text().partition("\n## What is pinned without a second source\n")[2]
    for pin in PINS:
        if pin.kind == "key" and len(pin.sources) < 2:
            assert str(pin.value)[:8] in status, pin.name
    assert "container registry's image" in status
    assert "make pins" in status


# tools/pins.py --------------------------------------------------------------------------------------------------------


def pin(kind: str, value: str | None, name: str = "thing", address: str = "https://there/thing") -> Pin:
    return Pin(name=name, kind=kind, value=value, used=("x",), sources=(), date="2026-01-01", address=address)


def answers(known: Mapping[str, bytes]):
    return lambda url, headers: Answer(200, known[url]) if url in known else Answer(404, b"")


CONTENT = hashlib.sha256(b"content").hexdigest()


@pytest.mark.parametrize(
    ("value", "says", "good"),
    [
        (CONTENT, "same     thing", True),
        ("00" * 32, f"CHANGED  thing: was {'00' * 32}, now {CONTENT}", False),
        (None, f"open     thing: now {CONTENT}", True),
    ],
)
def test_a_file_is_compared(value, says, good):
    assert pins.judge([pin("file", value)], answers({"https://there/thing": b"content"})) == ([says], good)


def test_what_does_not_answer_is_no_success():
    [line], good = pins.judge([pin("file", CONTENT)], answers({}))
    assert line == "?        thing: lookup failed: https://there/thing returned 404"
    assert not good


@pytest.mark.parametrize("host", ["docker.io", "registry.example.com"])
def test_an_image_is_looked_up_with_the_token_that_everybody_gets(host):
    asked = []

    def fetch(url: str, headers: Mapping[str, str]) -> Answer:
        asked.append(url)
        if url == "https://auth.example.com/token?service=s&scope=repository%3Alibrary%2Fthing%3Apull":
            return Answer(200, json.dumps({"token": "anonymous"}).encode())
        assert "manifest" in headers["Accept"]
        if headers.get("Authorization") != "Bearer anonymous":
            challenge = 'realm="https://auth.example.com/token",service="s",scope="repository:library/thing:pull"'
            return Answer(401, b"", f"Bearer {challenge}")
        return Answer(200, b"manifest")

    digest = "sha256:" + hashlib.sha256(b"manifest").hexdigest()
    image = pin("image", digest, name=f"{host}/library/thing:1.2", address="")
    assert pins.judge([image], fetch) == ([f"same     {host}/library/thing:1.2"], True)
    server = "registry-1.docker.io" if host == "docker.io" else host
    assert asked[0] == asked[-1] == f"https://{server}/v2/library/thing/manifests/1.2"


@pytest.fixture(scope="module")
def keys(tmp_path_factory, need) -> Iterator[dict[str, tuple[str, bytes]]]:
    """Two keys by name, each with fingerprint and file."""
    need("gpg")
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)

    def gpg(*arguments: str) -> bytes:
        command = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    made = {}
    for name in ("one", "two"):
        gpg("--quick-generate-key", name, "rsa2048", "sign", "never")
        listed = gpg("--with-colons", "--list-keys", f"={name}").decode()
        made[name] = (re.findall(r"^fpr:+(\w+):", listed, re.MULTILINE)[0], gpg("--armor", "--export", f"={name}"))
    yield made
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


def test_a_key_is_known_by_its_fingerprint_and_another_beside_it_is_shown(keys):
    (first, file), (second, other) = keys["one"], keys["two"]
    offers = {"https://there/thing": file}
    assert pins.judge([pin("key", first)], answers(offers)) == (["same     thing"], True)
    both, good = pins.judge([pin("key", first)], answers({"https://there/thing": file + other}))
    assert both == [f"CHANGED  thing: was {first}, now {first}, {second}"]
    assert not good


def test_of_two_keys_that_an_address_may_offer_one_is_enough(keys):
    (first, file), (second, _) = keys["one"], keys["two"]
    lines, good = pins.judge([pin("key", first), pin("key", second)], answers({"https://there/thing": file}))
    assert lines == ["same     thing", f"gone     thing: https://there/thing does not have {second}, but {first}"]
    assert good


def test_a_page_in_place_of_a_key_is_no_success(keys):
    [line], good = pins.judge([pin("key", "AB" * 20)], answers({"https://there/thing": b"<html>"}))
    assert "the file contains no OpenPGP key" in line
    assert not good


def test_the_network_is_asked_as_it_is():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/secret":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Bearer realm="https://auth"')
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.headers["Accept"].encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        there = f"http://127.0.0.1:{server.server_port}"
        assert pins.fetch(f"{there}/thing", {"Accept": "text/x"}) == Answer(200, b"text/x")
        assert pins.fetch(f"{there}/secret", {}) == Answer(401, b"", 'Bearer realm="https://auth"')
        server.shutdown()
    with pytest.raises(OSError, match="refused"):
        pins.fetch(f"{there}/thing", {})


def test_the_tool_writes_nothing(tmp_path: Path):
    before = pins.FILE.read_bytes()
    pins.judge(pins.read(), answers({}))
    assert pins.FILE.read_bytes() == before
    assert "write" not in Path(pins.__file__).read_text().split('"""', 2)[2]
