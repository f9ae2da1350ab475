"""Signed package repositories, laid out in a folder as they lie below the vendors' addresses.

The packages are built from packages/*/*.spec, where Docker's carry Debian's build of the engine, and from
lab/played/*/*.spec; a real gitlab-runner and GitLab's own packages take the places of what plays them (lab/parts.py).
As with the vendors, the key that signs a package of GitLab's is not the one that signs the list of packages, and it
changed in spring 2025.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab import parts, workspace
from lab.shell import call
from lab.vendors import helper_image, images, rpm
from lab.workspace import CACHE, ROOT, STATE, LabError, inputs_hash

SOURCE = Path(__file__).parent / "packages"
PLAYED = ROOT / "lab" / "played"
FOLDER = STATE / "vendors"
WEB_ROOT = FOLDER / "www"  # has a folder for each host name
KEYRING = FOLDER / "gnupg"
FINGERPRINTS = FOLDER / "fingerprints.json"
"""Fingerprints of the keys in KEYRING by their addresses: beside it, so that it need not be asked."""
ENGINE = CACHE / "docker-engine-bookworm"  # Debian's packages of it
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
"""Which setting of a stack has the fingerprints of a repository's keys."""


@dataclass(frozen=True)
class Package:
    """A package, where it is offered, and the address of the key that it is signed with."""

    name: str
    repository: str
    key: str
    macros: Mapping[str, str] = field(default_factory=dict)


def _gitlab_key(version: str) -> str:
    """The key of a package of GitLab: 17.10.4 is of 9 April 2025, a week before GitLab announced the new one."""
    return GITLAB_OLD_KEY if tuple(map(int, version.split("."))) <= (17, 10, 4) else GITLAB_KEY


PACKAGES = (
    Package(parts.GITLAB, GITLAB, _gitlab_key("17.10.4"), {"gitlab_version": "17.10.4"}),
    # What an upgrade goes to.
    Package(parts.GITLAB, GITLAB, _gitlab_key("17.11.7"), {"gitlab_version": "17.11.7"}),
    Package("gitlab-runner", RUNNER, RUNNER_KEY),
    Package("gitlab-runner-helper-images", RUNNER, RUNNER_KEY),
    Package("docker-ce", DOCKER, DOCKER_KEY),
    Package("docker-ce-cli", DOCKER, DOCKER_KEY),
    Package("containerd.io", DOCKER, DOCKER_KEY, {"containerd_version": "2.3.4"}),
    # What security updates go to, and what they leave.
    Package("containerd.io", DOCKER, DOCKER_KEY, {"containerd_version": "2.3.5"}),
    Package("containerd.io", DOCKER, DOCKER_KEY, {"containerd_version": "2.4.0"}),
)


def ensure() -> None:
    """Build the repositories unless they are of the present specs and files.

    Raises LabError when a package does not build, or when there is a spec that no vendor offers.
    """
    specs = find_specs(SOURCE, PLAYED)
    runner, gitlab = parts.find(parts.RUNNER), parts.gitlab_packages()
    inputs = [
        Path(__file__),
        Path(helper_image.__file__),
        Path(images.__file__),
        rpm.MACROS,
        *sorted(spec.parent for spec in specs.values()),
        _ensure_keys(),
    ]
    # GitLab's packages are of more than a gigabyte each.
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
    """The settings of a stack whose machines install from here: fingerprints of the keys, which are made if need be."""
    known = json.loads(_ensure_keys().read_text())
    keys = {repository: {METADATA_KEYS[repository]} for repository in SETTINGS}
    for package in PACKAGES:
        keys[package.repository].add(package.key)
    return {setting: [known[key] for key in sorted(keys[repository])] for repository, setting in SETTINGS.items()}


def find_specs(*folders: Path) -> dict[str, Path]:
    """The spec of each offered package by its name; the file gitlab_ce.spec is of gitlab-ce.

    Raises LabError when one is missing or offered by nobody.
    """
    found = {spec.stem.replace("_", "-"): spec for folder in folders for spec in folder.glob("*/*.spec")}
    offered = {package.name for package in PACKAGES}
    for name in found.keys() - offered:
        raise LabError(f"{found[name]}: no vendor offers {name}; name it in PACKAGES of {__file__}")
    for name in offered - found.keys():
        raise LabError(f"there is no spec for the package {name} in {' or '.join(map(str, folders))}")
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
    """Of every key."""
    return sorted({package.key for package in PACKAGES} | set(METADATA_KEYS.values()))


def _ensure_keys() -> Path:
    """Make a key for every address of one, named after it. Returns the file of their fingerprints."""
    if FINGERPRINTS.exists() and KEYRING.exists() and list(json.loads(FINGERPRINTS.read_text())) == _addresses():
        return FINGERPRINTS
    with _key_ring():
        known = _gpg("--list-keys", "--with-colons")
        for key in _addresses():
            if f":{key}:" not in known:
                # RSA: rpm of RHEL 8 knows no Ed25519.
                _gpg("--passphrase", "", "--quick-generate-key", key, "rsa2048", "sign", "never")
        found = {key: _fingerprint(_gpg("--list-keys", "--with-colons", f"={key}")) for key in _addresses()}
        FINGERPRINTS.write_text(json.dumps(found, indent=2))
    return FINGERPRINTS


def _fingerprint(listed: str) -> str:
    """The first of a colon listing: that of the primary key."""
    return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))


@contextmanager
def _key_ring() -> Iterator[None]:
    """The folder of the keys is there; nothing of gpg runs on afterwards."""
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
        # As root apt would go down to a user of its own, who may not write there.
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", *ENGINE_PACKAGES]
        workspace.run("Docker engine for the packages", command, log="packages", cwd=archives)
        archives.rename(ENGINE)
