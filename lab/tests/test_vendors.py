import os
import subprocess
from pathlib import Path

import pytest

from configuration.package_repositories import DOCKER, GITLAB, RUNNER
from lab import authority
from lab.tests import gitlab_runner, gitlab_server
from lab.vendors import front, helper_image, images, packages, registry, rpm
from lab.workspace import LabError


def write_specs(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / f"{name}.spec").write_text(f"Name: {name}\n")


OFFERED = sorted({package.name for package in packages.PACKAGES})


def test_specs_are_found_under_their_package_names(tmp_path: Path):
    write_specs(tmp_path, *(name.replace("-", "_") for name in OFFERED))
    assert sorted(packages.find_specs(tmp_path)) == OFFERED


def test_a_spec_that_no_vendor_offers_is_named(tmp_path: Path):
    write_specs(tmp_path, *OFFERED, "gitlab-pages")
    with pytest.raises(LabError, match=r"gitlab-pages\.spec: no vendor offers gitlab-pages"):
        packages.find_specs(tmp_path)


def test_a_missing_spec_is_named(tmp_path: Path):
    write_specs(tmp_path, *(name for name in OFFERED if name != "gitlab-runner"))
    with pytest.raises(LabError, match="no spec for the package gitlab-runner in"):
        packages.find_specs(tmp_path)


@pytest.mark.needs("rpmbuild")
@pytest.mark.parametrize("package", [gitlab_server, gitlab_runner], ids=["gitlab-ce", "gitlab-runner"])
def test_a_played_package_has_every_file_where_tests_install_it(package, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(rpm, "CACHE", tmp_path / "cache")
    (spec,) = package.SOURCE.glob("*.spec")
    (built,) = rpm.build(spec, tmp_path / "built")
    query = ["rpm", "--query", "--package", "--list", "--nosignature", str(built)]
    packed = set(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split())
    root = tmp_path / "root"
    package.install(root)
    folders = [(folder, files) for folder, _, files in os.walk(root, followlinks=True) if "__pycache__" not in folder]
    installed = {f"/{Path(folder, file).relative_to(root)}" for folder, files in folders for file in files}
    assert len(installed) > 10
    assert installed - packed == set()


def test_addresses_are_below_hosts_that_the_front_answers_for():
    addresses = {package.repository for package in packages.PACKAGES} | set(packages.METADATA_KEYS.values())
    addresses |= {package.key for package in packages.PACKAGES}
    assert {address.split("/")[0] for address in addresses} | {
        front.REGISTRY_HOST,
        front.HUB_HOST,
        front.HUB_TOKENS_HOST,
    } == set(front.HOSTS)


def test_gitlabs_packages_and_their_list_have_different_keys():
    for package in packages.PACKAGES:
        if package.repository != packages.DOCKER:
            assert package.key != packages.METADATA_KEYS[package.repository]


@pytest.fixture
def key_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need):
    need("gpg", "gpgconf")
    for name in ("KEYRING", "FINGERPRINTS"):
        monkeypatch.setattr(packages, name, tmp_path / getattr(packages, name).name)
    return packages


def test_a_stack_of_the_lab_is_told_the_keys_that_its_vendors_offer(key_ring, tmp_path: Path):
    settings = key_ring.settings()
    offered: dict[str, set[str]] = {}
    for setting, repository in (
        ("gitlabPackageKeys", GITLAB),
        ("runnerPackageKeys", RUNNER),
        ("dockerPackageKeys", DOCKER),
    ):
        offered[setting] = set()
        for address in repository.key_addresses:
            file = tmp_path / address.removeprefix("https://")
            key_ring._publish(address.removeprefix("https://"), file)
            listed = subprocess.run(
                ["gpg", "--with-colons", "--show-keys", file], check=True, capture_output=True, text=True
            )
            offered[setting] |= {line.split(":")[9] for line in listed.stdout.splitlines() if line.startswith("fpr:")}
    assert {setting: set(keys) for setting, keys in settings.items()} == offered
    assert [len(keys) for keys in settings.values()] == [3, 2, 1]
    assert key_ring.settings() == settings, "the keys were created again"


def test_one_version_of_gitlab_is_offered_to_upgrade_to():
    versions = [p.macros["gitlab_version"] for p in packages.PACKAGES if p.name == "gitlab-ce"]
    assert versions == ["17.10.4", "17.11.7"]


def test_the_front_takes_its_address_before_the_host_has_it():
    text = front.configuration("192.0.2.7", "/ca/server.pem")
    assert "bind 192.0.2.7:443 transparent ssl crt /ca/server.pem" in text


def test_the_api_of_ec2_gets_signed_requests_of_machines_only():
    _, _, backend = front.configuration("192.0.2.7", "/ca/server.pem").partition("backend ec2\n")
    rules = backend.partition("\n\n")[0]
    assert "http-request return status 404 unless { path / }" in rules
    assert "acl of_a_role req.hdr(authorization) -m sub Credential=ASIA\n" in rules
    assert "unless of_a_role\n" in rules
    assert "server api 127.0.0.1:5566" in rules
    assert "del-header" not in rules


@pytest.mark.needs("haproxy")
def test_the_configuration_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(authority, "FOLDER", tmp_path / "ca")
    file = tmp_path / "front.cfg"
    file.write_text(front.configuration("192.0.2.7", str(authority.server_certificate(front.HOSTS))))
    subprocess.run(["haproxy", "-c", "-q", "-f", str(file)], check=True)


def test_the_libraries_of_a_program_are_read_from_ldd():
    listed = """
        linux-vdso.so.1 (0x00007f2e219b2000)
        libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2e217bf000)
        /lib64/ld-linux-x86-64.so.2 (0x00007f2e219b4000)
    """
    assert images.libraries(listed) == [
        Path("/lib/x86_64-linux-gnu/libc.so.6"),
        Path("/lib64/ld-linux-x86-64.so.2"),
    ]


@pytest.mark.needs("busybox", "curl", "docker-registry", "git")
def test_the_images_of_jobs_trust_the_labs_public_authority_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(authority, "FOLDER", tmp_path / "ca")
    public = authority.LAB.certificate()
    given = {image.name: image.files.get(images.BUNDLE) for image in registry.offered()}
    assert (given["curlimages/curl"], given["library/alpine"]) == (public, public)
    (tmp_path / "tini").touch()
    helper_image.lay_out(tmp_path / "helper", None, tmp_path / "tini")
    assert (tmp_path / "helper" / images.BUNDLE).read_text() == public.read_text()


def test_the_vendors_registry_takes_no_push():
    assert "readonly: {enabled: true}" in registry._configuration(Path("/s"), "127.0.0.1:1", read_only=True)
