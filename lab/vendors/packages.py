"""Signed package repositories, in a folder with the same structure as the vendors' sites.

The packages are built from packages/*/*.spec (Docker's contain Debian's build of the engine) and from
lab/played/*/*.spec. A real gitlab-runner and GitLab's own packages replace their stand-ins (lab/parts.py). As at the
vendor, GitLab's packages and their metadata are signed with different keys, and the packages' key changed in spring
2025.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab import parts, workspace
from lab.authority import LAB
from lab.shell import call
from lab.vendors import helper_image, images, rpm
from lab.workspace import CACHE, ROOT, STATE, LabError, inputs_hash

SOURCE = Path(__file__).parent / "packages"
PLAYED = ROOT / "lab" / "played"
FOLDER = STATE / "vendors"
WEB_ROOT = FOLDER / "www"  # contains a folder for each host name
KEYRING = FOLDER / "gnupg"
FINGERPRINTS = FOLDER / "fingerprints.json"
"""The fingerprints of the keys in KEYRING by their addresses, stored so that gpg does not have to list them."""
ENGINE = CACHE / "docker-engine-bookworm"  # Debian's packages of the engine
ENGINE_PACKAGES = ("docker.io", "containerd", "runc", "tini")

GITLAB = "packages.gitlab.com/gitlab/gitlab-ce/el/8/x86_64"
RUNNER = "packages.gitlab.com/runner/gitlab-runner/el/8/x86_64"
DOCKER = "download.docker.com/linux/rhel/8/x86_64/stable"

GITLAB_METADATA_KEY = "packages.gitlab.com/gpgkey/gpg.key"
GITLAB_OLD_KEY = "packages.gitlab.com/gpgkey/gitlab/3D645A26AB9FBD22.pub.gpg"
GITLAB_KEY = "packages.gitlab.com/gpgkey/gitlab/CB947AD886C8E8FD.pub.gpg"
RUNNER_KEY = "packages.gitlab.com/gpgkey/runner/49F16C5CC3A0F81F.pub.gpg"
DOCKER_KEY = "download.docker.com/linux/rhel/gpg"

METADATA_KEYS = {GITLAB: GITLAB_METADATA_KEY, RUNNER: GITLAB_METADATA_KEY, DOCKER: DOCKER_KEY}

SETTINGS = {GITLAB: "gitlabPackageKeys", RUNNER: "runnerPackageKeys", DOCKER: "dockerPackageKeys"}
"""The stack's settings with the fingerprints of each repository's keys."""


@dataclass(frozen=True)
class Package:
    """A package, its repository, and the address of the key that signs it."""

    name: str
    repository: str
    key: str
    macros: Mapping[str, str] = field(default_factory=dict)


def _gitlab_key(version: str) -> str:
    """Return the key of a GitLab package: 17.10.4 was released on 9 April 2025, a week before the new key."""
    return GITLAB_OLD_KEY if tuple(map(int, version.split("."))) <= (17, 10, 4) else GITLAB_KEY


PACKAGES = (
    Package(parts.GITLAB, GITLAB, _gitlab_key("17.10.4"), {"gitlab_version": "17.10.4"}),
    # The target of an upgrade.
    Package(parts.GITLAB, GITLAB, _gitlab_key("17.11.7"), {"gitlab_version": "17.11.7"}),
    Package("gitlab-runner", RUNNER, RUNNER_KEY),
    Package("gitlab-runner-helper-images", RUNNER, RUNNER_KEY),
    Package("docker-ce", DOCKER, DOCKER_KEY),
    Package("docker-ce-cli", DOCKER, DOCKER_KEY),
    Package("containerd.io", DOCKER, DOCKER_KEY, {"containerd_version": "2.3.4"}),
    # A version that security updates install, and one that they do not.
    Package("containerd.io", DOCKER, DOCKER_KEY, {"containerd_version": "2.3.5"}),
    Package("containerd.io", DOCKER, DOCKER_KEY, {"containerd_version": "2.4.0"}),
)


def ensure() -> None:
    """Build the repositories unless they are up to date with specs and files.

    Raises LabError if a package cannot be built, or if PACKAGES and the specs do not match.
    """
    specs = find_specs(SOURCE, PLAYED)
    runner, gitlab = parts.find(parts.RUNNER), parts.gitlab_packages()
    inputs = [
        Path(__file__),
        Path(helper_image.__file__),
        Path(images.__file__),
        LAB.certificate(),
        rpm.MACROS,
        *sorted(spec.parent for spec in specs.values()),
        _ensure_keys(),
    ]
    # Not hashed: each of GitLab's packages is larger than a gigabyte.
    sizes = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in gitlab.values()]
    wanted = inputs_hash(*inputs, *([] if runner is None else [runner]), extra=str(sizes))
    marker = WEB_ROOT / "inputs"
    if marker.exists() and marker.read_text() == wanted:
        return
    _ensure_engine_packages()
    FOLDER.mkdir(parents=True, exist_ok=True)
    workspace.say("packages …")
    with tempfile.TemporaryDirectory(prefix="www-", dir=FOLDER) as folder, _key_ring():
        root, engine = Path(folder, "www"), Path(folder, "engine")
        for archive in ENGINE.iterdir():
            call("dpkg-deb", "--extract", str(archive), str(engine))
        image = Path(folder, "helper-image.tar.xz")
        helper_image.pack(runner, engine / "usr" / "bin" / "tini-static", image)
        real = {} if runner is None else {"real_runner": str(runner)}
        for package in PACKAGES:
            if gitlab and package.name == parts.GITLAB:
                continue
            macros = {"engine": str(engine), "helper_image": str(image), **real, **package.macros}
            _sign(package.key, rpm.build(specs[package.name], root / package.repository, macros))
        for version, file in gitlab.items():
            _sign(_gitlab_key(version), [rpm.take(file, root / GITLAB)])
        for repository, key in METADATA_KEYS.items():
            _index(root / repository, key)
        for key in _addresses():
            _publish(key, root / key)
        (root / "inputs").write_text(wanted)
        shutil.rmtree(WEB_ROOT, ignore_errors=True)
        root.rename(WEB_ROOT)
        parts.note(parts.RUNNER, real=runner is not None)
        parts.note(parts.GITLAB, real=bool(gitlab))
    workspace.say("packages  built and signed")


def settings() -> dict[str, list[str]]:
    """Return the settings of a stack that installs from here: the fingerprints of the keys, created if necessary."""
    known = json.loads(_ensure_keys().read_text())
    keys = {repository: {METADATA_KEYS[repository]} for repository in SETTINGS}
    for package in PACKAGES:
        keys[package.repository].add(package.key)
    return {setting: [known[key] for key in sorted(keys[repository])] for repository, setting in SETTINGS.items()}


def find_specs(*folders: Path) -> dict[str, Path]:
    """Return the specs by package name; gitlab_ce.spec is the spec of gitlab-ce.

    Raises LabError if a spec is missing or is not in PACKAGES.
    """
    found = {spec.stem.replace("_", "-"): spec for folder in folders for spec in folder.glob("*/*.spec")}
    offered = {package.name for package in PACKAGES}
    for name in found.keys() - offered:
        raise LabError(f"{found[name]}: no vendor offers {name}; add it to PACKAGES in {__file__}")
    for name in offered - found.keys():
        raise LabError(f"no spec for the package {name} in {' or '.join(map(str, folders))}")
    return found


def _sign(key: str, files: Iterable[Path]) -> None:
    signing = {"_gpg_name": key, "_gpg_path": str(KEYRING), "__gpg": shutil.which("gpg") or "gpg"}
    call("rpmsign", *(f"--define={name} {value}" for name, value in signing.items()), "--addsign", *map(str, files))


def _index(repository: Path, key: str) -> None:
    rpm.index(repository)
    _gpg("--local-user", f"={key}", "--armor", "--detach-sign", str(repository / "repodata" / "repomd.xml"))


def _publish(key: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_gpg("--armor", "--export", f"={key}"))


def _addresses() -> list[str]:
    """Return the addresses of all keys."""
    return sorted({package.key for package in PACKAGES} | set(METADATA_KEYS.values()))


def _ensure_keys() -> Path:
    """Create a key for every key address, with the address as its user ID. Returns the file with the fingerprints."""
    if FINGERPRINTS.exists() and KEYRING.exists() and list(json.loads(FINGERPRINTS.read_text())) == _addresses():
        return FINGERPRINTS
    with _key_ring():
        known = _gpg("--list-keys", "--with-colons")
        for key in _addresses():
            if f":{key}:" not in known:
                # RSA, because rpm of RHEL 8 does not support Ed25519.
                _gpg("--passphrase", "", "--quick-generate-key", key, "rsa2048", "sign", "never")
        found = {key: _fingerprint(_gpg("--list-keys", "--with-colons", f"={key}")) for key in _addresses()}
        FINGERPRINTS.write_text(json.dumps(found, indent=2))
    return FINGERPRINTS


def _fingerprint(listed: str) -> str:
    """Return the first fingerprint of a colon listing, which is the primary key's."""
    return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))


@contextmanager
def _key_ring() -> Iterator[None]:
    """Create the folder of the keys, and stop gpg's daemons afterwards."""
    KEYRING.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        yield
    finally:
        call("gpgconf", "--homedir", str(KEYRING), "--kill", "all")


def _gpg(*args: str) -> str:
    return call("gpg", "--homedir", str(KEYRING), "--batch", "--quiet", "--yes", *args)


def _ensure_engine_packages() -> None:
    if ENGINE.exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="engine-", dir=CACHE) as folder:
        archives = Path(folder, "archives")
        archives.mkdir()
        # As root, apt would switch to its own user, which cannot write to this folder.
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", *ENGINE_PACKAGES]
        workspace.run("Docker engine for the packages", command, log="packages", cwd=archives)
        archives.rename(ENGINE)
