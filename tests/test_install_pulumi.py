"""The Pulumi engine and its plugins are installed in the SDK's versions, and verified if a checksum is known."""

import hashlib
import io
import re
import tarfile
from pathlib import Path

import pytest

from tests.engine import ROOT
from tools import install_pulumi, pins
from tools.pins import Answer, Pin


def versions() -> dict[str, str]:
    return dict(re.findall(r"^(pulumi[\w-]*)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))


def test_the_pinned_versions_are_those_of_the_sdk():
    known = {pin.name.partition(",")[0]: pin for pin in pins.read() if pin.kind == "file"}
    assert {name: pin.version for name, pin in known.items()} == {
        "Pulumi CLI": versions()["pulumi"],
        "pulumi-resource-aws": versions()["pulumi-aws"],
        "pulumi-resource-command": versions()["pulumi-command"],
    }
    assert all(pin.address.count(pin.version) == len(re.findall(r"v\d", pin.address)) for pin in known.values())


def file(name: str, value: str | None, address: str = "https://there/file") -> Pin:
    return Pin(name=name, kind="file", value=value, used=("x",), sources=(), date="", address=address, version="1.2.3")


PLUGIN = "pulumi-resource-aws, linux-amd64"
CONTENT = b"the plugin"
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a stub of pulumi records its arguments and the installed file; it has one plugin."""
    calls = tmp_path / "calls"
    (tmp_path / "pulumi").write_text(f"""#!/bin/sh
[ "$2" = ls ] && {{ echo '[{{"name": "command", "kind": "resource", "version": "1.2.3"}}]'; exit; }}
for file; do :; done
echo "$*" | sed "s| $file||" >>{calls}
cat "$file" >>{calls}
""")
    (tmp_path / "pulumi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(install_pulumi, "this_platform", lambda: "linux-amd64")
    return calls


def test_a_plugin_is_installed_in_its_version_if_it_has_its_checksum(pulumi, capsys):
    install_pulumi.install_plugins([file(PLUGIN, CHECKSUM)], lambda url, _: Answer(200, CONTENT))
    assert pulumi.read_text() == "plugin install resource aws 1.2.3 --exact --file\nthe plugin"
    assert f"{PLUGIN} 1.2.3: matches the checksum" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [Answer(200, b"another"), Answer(200, b""), Answer(404, b"")])
def test_a_plugin_of_another_checksum_is_not_installed(pulumi, answer):
    with pytest.raises(ValueError, match=r"https://there/file (has the SHA-256|returned 404)"):
        install_pulumi.install_plugins([file(PLUGIN, CHECKSUM)], lambda url, _: answer)
    assert not pulumi.exists()


def test_a_plugin_whose_checksum_is_open_is_said_to_be_unchecked(pulumi, capsys):
    install_pulumi.install_plugins([file(PLUGIN, None)], lambda url, _: Answer(200, CONTENT))
    assert pulumi.exists()
    assert f"{PLUGIN} 1.2.3: NOT verified, no checksum in tools/pins.yaml; its SHA-256 is {CHECKSUM}" in (
        capsys.readouterr().out
    )


def test_a_plugin_that_is_there_is_not_downloaded_again(pulumi):
    there = file("pulumi-resource-command, linux-amd64", CHECKSUM)
    install_pulumi.install_plugins([there], lambda url, _: pytest.fail(url))
    assert not pulumi.exists()


def test_on_a_platform_without_a_pin_the_plugin_is_that_platforms():
    address = "https://there/v1.2.3/aws-v1.2.3-linux-amd64.tar.gz"
    pinned = [file(PLUGIN, CHECKSUM, address)]
    assert install_pulumi.plugins(pinned, "linux-amd64") == {"aws": pinned[0]}
    [elsewhere] = install_pulumi.plugins(pinned, "darwin-arm64").values()
    assert elsewhere.value is None
    assert elsewhere.address == "https://there/v1.2.3/aws-v1.2.3-darwin-arm64.tar.gz"
    pinned.append(file("pulumi-resource-aws, darwin-arm64", "ab" * 32))
    assert install_pulumi.plugins(pinned, "darwin-arm64") == {"aws": pinned[1]}
    assert install_pulumi.plugins(pinned, "linux-amd64") == {"aws": pinned[0]}


def test_every_plugin_of_the_program_is_installed_and_nothing_else():
    found = install_pulumi.plugins(pins.read(), "linux-amd64")
    assert {name: pin.version for name, pin in found.items()} == {
        "aws": versions()["pulumi-aws"],
        "command": versions()["pulumi-command"],
    }


def archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("pulumi/pulumi"))
    return content.getvalue()


@pytest.mark.parametrize("known", [True, False])
def test_the_cli_is_unpacked(tmp_path: Path, capsys, known):
    content = archive()
    checksum = hashlib.sha256(content).hexdigest()
    folder = tmp_path / "made" / "cli"
    install_pulumi.install_cli(folder, file("cli", checksum if known else None), lambda url, _: Answer(200, content))
    assert (folder / "pulumi").is_file()
    assert list(folder.parent.iterdir()) == [folder]
    said = capsys.readouterr().out
    assert ("NOT verified" in said) == (not known)
    assert (checksum in said) == (not known)


@pytest.mark.parametrize("answer", [Answer(200, archive() + b"x"), Answer(404, b"")], ids=["another", "gone"])
def test_a_cli_of_another_checksum_is_not_unpacked(tmp_path: Path, answer):
    expected = hashlib.sha256(archive()).hexdigest()
    with pytest.raises(ValueError, match=r"https://there/file (has the SHA-256|returned 404)"):
        install_pulumi.install_cli(tmp_path / "cli", file("cli", expected), lambda url, _: answer)
    assert not list(tmp_path.iterdir())
