"""A machine only accepts keys of a package repository by their fingerprints; tested with the real gpg."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from configuration.package_repositories import DOCKER, GITLAB, RUNNER
from configuration.remote_step import script
from tests.conftest import OTHER_PACKAGE_KEYS
from tests.engine import Graph
from tests.shell import run_with_tools
from tests.test_settings import load

CURL = """#!/bin/bash
for url; do :; done
output=${*: -2:1}
[ -e "OFFERED/${url##*/}" ] || { echo "curl: (22) The requested URL returned error: 404" >&2; exit 22; }
cp "OFFERED/${url##*/}" "$output"
"""

Ran = subprocess.CompletedProcess[str]


class Vendor:
    """Creates keys and serves them below https://vendor."""

    def __init__(self, folder: Path) -> None:
        self.home, self.offered = folder / "gnupg", folder / "offered"
        self.home.mkdir(mode=0o700)
        self.offered.mkdir()

    def gpg(self, *arguments: str) -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--passphrase", "", *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def make(self, name: str, *, subkey: bool = False) -> str:
        """Create a key of that name. Returns its fingerprint."""
        self.gpg("--quick-generate-key", name, "rsa2048", "sign", "never")
        fingerprint = fingerprints(self.gpg("--with-colons", "--list-keys", f"={name}").decode())[0]
        if subkey:
            self.gpg("--quick-add-key", fingerprint, "rsa2048", "sign", "never")
        return fingerprint

    def offer(self, file: str, *names: str) -> str:
        """Returns the address."""
        (self.offered / file).write_bytes(self.gpg("--armor", "--export", *[f"={name}" for name in names]))
        return f"https://vendor/{file}"


def fingerprints(listed: str) -> list[str]:
    """All fingerprints in a colon listing, including those of subkeys."""
    return [line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:")]


def packets(message: bytes) -> list[tuple[int, bytes]]:
    """The packets of gpg's binary export, each with its tag (RFC 4880 section 4.2.1)."""
    found, position = [], 0
    while position < len(message):
        octets = 1 << (message[position] & 3)
        body = position + 1 + octets
        end = body + int.from_bytes(message[position + 1 : body])
        found.append((message[position] >> 2 & 15, message[position:end]))
        position = end
    return found


@pytest.fixture(scope="module")
def vendor(tmp_path_factory, need) -> Iterator[Vendor]:
    """Has the keys `metadata` and `packages`, and the untrusted key `stranger`, which has a subkey."""
    need("gpg")
    made = Vendor(tmp_path_factory.mktemp("vendor"))
    for name in ("metadata", "packages"):
        made.make(name)
    made.make("stranger", subkey=True)
    yield made
    subprocess.run(["gpgconf", "--homedir", str(made.home), "--kill", "all"], check=True)


@pytest.fixture
def fingerprint(vendor) -> Callable[[str], str]:
    return lambda name: fingerprints(vendor.gpg("--with-colons", "--list-keys", f"={name}").decode())[0]


@pytest.fixture
def add(vendor, tmp_path) -> Callable[..., Ran]:
    """Run add_repository.sh for the runner's repository, with these fingerprints and URLs."""
    tools = tmp_path / "bin"
    for folder in (tools, tmp_path / "etc/pki/rpm-gpg", tmp_path / "etc/yum.repos.d"):
        folder.mkdir(parents=True)
    (tools / "curl").write_text(CURL.replace("OFFERED", str(vendor.offered)))
    (tools / "curl").chmod(0o755)

    def run(pinned: list[str], *addresses: str) -> Ran:
        text = re.sub(r"(?<![\w.])/(etc|var)/", rf"{tmp_path}/\1/", script("add_repository.sh"))
        arguments = [*RUNNER.arguments(pinned)[:4], *addresses]
        return run_with_tools(text, "step", arguments, [RUNNER.render()], tools=tools, result=f"{tmp_path}/result")

    return run


@pytest.fixture
def trusted(tmp_path) -> Callable[[], list[str]]:
    """Fingerprints of the keys that dnf would import, and of the subkeys that they have signed."""

    def listed() -> list[str]:
        file = tmp_path / "etc/pki/rpm-gpg/RPM-GPG-KEY-runner_gitlab-runner"
        if not file.exists():
            return []
        home = tmp_path / "listing"
        home.mkdir(mode=0o700, exist_ok=True)
        show = ["gpg", "--homedir", str(home), "--batch", "--with-colons", "--show-keys", str(file)]
        return sorted(fingerprints(subprocess.run(show, check=True, capture_output=True, text=True).stdout))

    return listed


def test_keys_with_the_fingerprints_of_the_settings_are_laid_down_beside_the_repository(
    vendor, fingerprint, add, trusted, tmp_path
):
    pinned = [fingerprint("metadata"), fingerprint("packages")]
    done = add(pinned, vendor.offer("gpg.key", "metadata"), vendor.offer("packages.gpg", "packages"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert trusted() == sorted(pinned)
    assert (tmp_path / "etc/yum.repos.d/runner_gitlab-runner.repo").read_text() == RUNNER.render()
    assert RUNNER.render().count("gpgkey=") == 1
    assert "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-runner_gitlab-runner\n" in RUNNER.render()
    assert (tmp_path / "result").read_text() == "runner_gitlab-runner: 2 keys\n"
    assert (tmp_path / "etc/pki/rpm-gpg/RPM-GPG-KEY-runner_gitlab-runner").stat().st_mode & 0o777 == 0o644


@pytest.mark.needs("rpmkeys")
def test_rpm_takes_every_key_of_the_one_file(vendor, fingerprint, add, tmp_path):
    pinned = [fingerprint("metadata"), fingerprint("packages")]
    assert add(pinned, vendor.offer("gpg.key", "metadata"), vendor.offer("packages.gpg", "packages")).returncode == 0
    database = ["--dbpath", str(tmp_path / "rpm")]
    keys = tmp_path / "etc/pki/rpm-gpg/RPM-GPG-KEY-runner_gitlab-runner"
    subprocess.run(["rpmkeys", *database, "--import", str(keys)], check=True)
    listed = subprocess.run(["rpm", *database, "-qa", "gpg-pubkey"], check=True, capture_output=True, text=True).stdout
    assert sorted(line.split("-")[2] for line in listed.split()) == sorted(key[-8:].lower() for key in pinned)


def test_another_key_at_the_vendors_address_ends_the_step_and_changes_nothing(
    vendor, fingerprint, add, trusted, tmp_path
):
    pinned = [fingerprint("metadata"), fingerprint("packages")]
    done = add(pinned, vendor.offer("gpg.key", "metadata"), vendor.offer("packages.gpg", "stranger"))
    assert done.returncode == 1
    assert "runner_gitlab-runner: https://vendor/packages.gpg contains a key that is not trusted" in done.stdout
    assert fingerprint("stranger") in done.stdout
    assert f"runnerPackageKeys contains {' '.join(pinned)}." in done.stdout
    assert "pulumi up again" in done.stdout
    assert trusted() == []
    assert not list((tmp_path / "etc/yum.repos.d").iterdir())


def test_a_stranger_beside_a_key_of_the_settings_is_refused(vendor, fingerprint, add, trusted):
    done = add([fingerprint("packages")], vendor.offer("packages.gpg", "packages", "stranger"))
    assert done.returncode == 1
    assert fingerprint("stranger") in done.stdout
    assert trusted() == []


def test_a_strangers_subkey_put_behind_a_key_of_the_settings_is_not_trusted(vendor, fingerprint, add, tmp_path):
    """rpm of RHEL 8 trusted any subkey that follows a primary key (CVE-2021-3521)."""
    stranger = packets(vendor.gpg("--export", "=stranger"))
    first = next(place for place, (tag, _) in enumerate(stranger) if tag == 14)
    forged = vendor.gpg("--export", "=packages") + b"".join(packet for _, packet in stranger[first:])
    (vendor.offered / "forged.gpg").write_bytes(forged)
    assert [tag for tag, _ in packets(forged)] == [6, 13, 2, 14, 2]
    done = add([fingerprint("packages")], "https://vendor/forged.gpg")
    assert done.returncode == 0, done.stdout + done.stderr
    laid_down = tmp_path / "etc/pki/rpm-gpg/RPM-GPG-KEY-runner_gitlab-runner"
    assert packets(vendor.gpg("--output", "-", "--dearmor", str(laid_down))) == packets(forged)[:3]


def test_a_subkeys_fingerprint_in_the_settings_lets_no_key_in(vendor, add, trusted):
    primary, subkey = fingerprints(vendor.gpg("--with-colons", "--list-keys", "=stranger").decode())
    assert primary != subkey
    assert add([subkey], vendor.offer("packages.gpg", "stranger")).returncode == 1
    assert trusted() == []


def test_a_key_that_the_settings_have_and_nobody_offers_is_no_mistake(vendor, fingerprint, add, trusted):
    done = add(["A" * 40, fingerprint("packages")], vendor.offer("packages.gpg", "packages"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert trusted() == [fingerprint("packages")]


@pytest.mark.parametrize("content", [b"", b"<html>moved</html>"], ids=["empty", "a page"])
def test_an_address_without_a_key_is_named(vendor, fingerprint, add, trusted, content):
    (vendor.offered / "none.gpg").write_bytes(content)
    done = add([fingerprint("packages")], vendor.offer("packages.gpg", "packages"), "https://vendor/none.gpg")
    assert done.returncode == 1
    assert "https://vendor/none.gpg does not contain an OpenPGP key" in done.stdout
    assert trusted() == []


def test_keys_that_cannot_be_downloaded_end_the_step(fingerprint, add, trusted):
    done = add([fingerprint("packages")], "https://vendor/gone.gpg")
    assert done.returncode == 1
    assert "runner_gitlab-runner: could not download https://vendor/gone.gpg. Nothing was changed." in done.stdout
    assert "404" in done.stderr
    assert trusted() == []


def test_dnf_reads_the_keys_of_the_metadata_anew(vendor, fingerprint, add, tmp_path):
    """dnf does not read a key with a known ID again, even if its expiry was extended."""
    cache = tmp_path / "var/cache/dnf"
    for name in ("runner_gitlab-runner-0123456789abcdef", "gitlab_gitlab-ce-0123456789abcdef"):
        (cache / name / "pubring").mkdir(parents=True)
    assert add([fingerprint("packages")], vendor.offer("packages.gpg", "packages")).returncode == 0
    assert [path.parent.name for path in cache.glob("*/pubring")] == ["gitlab_gitlab-ce-0123456789abcdef"]


REPOSITORIES = {
    "server-add-gitlab-repository": (GITLAB, "gitlabPackageKeys", "server-install-gitlab"),
    "registry-add-docker-repository": (DOCKER, "dockerPackageKeys", "registry-install-docker"),
    "runner-add-docker-repository": (DOCKER, "dockerPackageKeys", "runner-install-docker"),
    "runner-add-runner-repository": (RUNNER, "runnerPackageKeys", "runner-install-runner"),
}


@pytest.mark.parametrize("name", REPOSITORIES)
def test_nothing_is_installed_before_the_keys_of_its_repository_are_known(graph: Graph, name):
    _, _, installs = REPOSITORIES[name]
    assert graph.step(name).urn in graph.step(installs).depends_on


@pytest.mark.parametrize("name", REPOSITORIES)
def test_the_setting_of_a_repository_is_what_its_machine_is_told(other_graph, name):
    repository, setting, _ = REPOSITORIES[name]
    command = other_graph.step(name).inputs["create"]
    assert f" {repository.name} {repository.file} {setting} {OTHER_PACKAGE_KEYS[setting].upper()} https://" in command
    assert command.endswith(" ".join(repository.key_addresses))


def test_the_keys_are_fetched_again_for_another_version(graph: Graph, upgraded_graph: Graph):
    """Extending the expiry of a key does not change its fingerprint, so nothing else would trigger the step."""
    step = "server-add-gitlab-repository"
    assert graph.step(step).inputs["triggers"] != upgraded_graph.step(step).inputs["triggers"]


def test_blanks_and_lower_case_of_a_fingerprint_are_the_vendors():
    written = "060a 61C5 1B55 8A7F 742B  77AA C52F EB6B 621E 9F35"
    assert load(dockerPackageKeys=[written]).docker_package_keys == ("060A61C51B558A7F742B77AAC52FEB6B621E9F35",)
