import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab import authority
from lab.image import build
from tests.shell import check_shell

SHELL_FILES = [
    file
    for file in build.SOURCE.rglob("*")
    if file.is_file() and not file.is_symlink() and file.read_bytes().startswith(b"#!/bin/")
]


def text(path: str) -> str:
    return (build.SOURCE / path).read_text()


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "authority.crt"
    file.write_text("one")
    monkeypatch.setattr(authority, "FOLDER", tmp_path)
    return file


def test_the_tag_follows_the_inputs(certificate: Path, monkeypatch: pytest.MonkeyPatch):
    first = build.image()
    assert re.fullmatch(r"gitlab-lab-machine:[0-9a-f]{16}", first)
    assert build.image() == first
    certificate.write_text("two")
    second = build.image()
    monkeypatch.setattr(build, "BASE_PACKAGES", ("systemd",))
    assert len({first, second, build.image()}) == 3


@pytest.mark.parametrize("file", SHELL_FILES, ids=lambda file: file.name)
def test_shell_files_are_sound(file: Path):
    check_shell(file.read_text())


def test_what_runs_in_the_machine_is_executable():
    commands = [file for file in SHELL_FILES if file.is_relative_to(build.SOURCE / "files")]
    assert commands
    assert all(os.access(file, os.X_OK) for file in commands)


def test_user_data_comes_from_the_metadata_service_only():
    assert "\ndatasource_list: [Ec2, None]\n" in text("files/etc/cloud/cloud.cfg")


def test_deferred_files_are_not_lost():
    assert "- write-files-deferred" in text("files/etc/cloud/cloud.cfg")


@pytest.mark.parametrize("unit", ["cloud-init-local", "cloud-init"])
def test_cloud_init_does_not_wait_for_itself(unit: str):
    directives = text(f"files/etc/systemd/system/{unit}.service").splitlines()
    assert "Before=sysinit.target" not in directives


def test_the_links_of_the_packages_lead_to_what_the_image_keeps():
    moved = re.search(r"for command in (git .*); do\n  mv ", text("finish.sh"))
    linked = re.search(r"for command in (git .*); do\n  ln ", text("packages/available/baseos.spec"))
    assert moved
    assert linked
    assert moved[1] == linked[1]


def test_every_requirement_of_a_package_is_met():
    root = build.SOURCE.parent
    folders = ("image/packages", "vendors/packages", "played")
    specs = [spec for folder in folders for spec in root.glob(f"{folder}/*/*.spec")]
    provided: set[str] = set()
    required: set[str] = set()
    for spec in specs:
        lines = spec.read_text()
        provided |= set(re.findall(r"^(?:Name:|%package -n) (\S+)", lines, re.MULTILINE))
        provided |= words(lines, "Provides")
        required |= words(lines, "Requires")
    assert required - provided == set()


def test_an_advisory_names_packages_as_they_are_built():
    """dnf silently ignores an advisory for a package that does not exist."""
    updates = ElementTree.parse(build.PACKAGES / "available" / "updateinfo.xml").getroot()
    named: dict[str, set[str]] = {}
    for update in updates:
        for package in update.iter("package"):
            spec = text(f"packages/installed/{package.attrib['name'].removesuffix('-core')}.spec")
            [version] = re.findall(r"^Version: (\S+)$", spec, re.MULTILINE)
            [later] = re.findall(r"^Release: %\{\?updated:([^}]+)\}%\{!\?updated:[^}]+\}(\S+)$", spec, re.MULTILINE)
            assert (package.attrib["version"], package.attrib["release"]) == (version, "".join(later))
            named.setdefault(update.attrib["type"], set()).add(package.attrib["name"])
    assert named == {"security": {"kernel", "kernel-core"}, "bugfix": {"redhat-release"}}
    assert {name.removesuffix("-core") for names in named.values() for name in names} == set(build.UPDATED)


def words(spec: str, tag: str) -> set[str]:
    """Return the names in all lines of a tag, without versions and commas."""
    found: set[str] = set()
    for line in re.findall(rf"^{tag}: (.*)$", spec, re.MULTILINE):
        found |= set(re.sub(r"[<>=]+\s*\S+|,", " ", line).split())
    return found
