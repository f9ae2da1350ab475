"""Builds the machine image, and rebuilds it only when its inputs have changed."""

import shutil
import tempfile
from pathlib import Path

from lab import authority, workspace
from lab.containers import client, docker
from lab.shell import call
from lab.vendors import rpm
from lab.workspace import CACHE, LabError, inputs_hash

SOURCE = Path(__file__).parent
REPOSITORY = "gitlab-lab-machine"
BASE_REPOSITORY = "gitlab-lab-machine-base"
SUITE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "dbus", "systemd", "systemd-sysv")
CONTEXT = ("Dockerfile", "files", "finish.sh")
PACKAGES = SOURCE / "packages"
AVAILABLE = Path("usr/share/lab/baseos")  # the path in redhat-rhui.repo

UPDATED = ("kernel", "redhat-release")
"""Packages of the image with a later release in Red Hat's repository; the first has a security advisory."""


def image() -> str:
    """Return the tag of the image for this clone's files, whether or not it is built."""
    parts = [Path(__file__), PACKAGES, rpm.MACROS, *(SOURCE / name for name in CONTEXT)]
    inputs = inputs_hash(*parts, authority.LAB.certificate(), extra=_base_tag())
    return f"{REPOSITORY}:{inputs}"


def ensure() -> str:
    """Build the image unless it exists, and return its tag. The lab's Docker engine must be running.

    Raises LabError if a step fails; the next call reuses the results of the earlier steps.
    """
    tag = image()
    if _exists(tag):
        return tag
    base = _ensure_base()
    with tempfile.TemporaryDirectory(prefix="machine-image-", dir=CACHE) as folder:
        context = Path(folder)
        for name in CONTEXT:
            _copy(SOURCE / name, context / name)
        _copy(authority.LAB.certificate(), context / "authority.crt")
        for spec in PACKAGES.glob("installed/*.spec"):
            rpm.build(spec, context / "packages")
        for spec in PACKAGES.glob("available/*.spec"):
            rpm.build(spec, context / "files" / AVAILABLE)
        for name in UPDATED:
            rpm.build(PACKAGES / "installed" / f"{name}.spec", context / "files" / AVAILABLE, {"updated": "1"})
        rpm.index(context / "files" / AVAILABLE, PACKAGES / "available" / "updateinfo.xml")
        # Regardless of the umask: COPY gives folders that exist in the image the mode of the ones here.
        call("chmod", "--recursive", "u=rwX,go=rX", folder)
        workspace.run(
            "machine image",
            client("build", "--force-rm", "--network=host", f"--build-arg=BASE={base}", f"--tag={tag}", folder),
            log="machine-image",
            # Every engine includes the classic builder; BuildKit's client is a separate package.
            env={"DOCKER_BUILDKIT": "0"},
        )
    _remove_others(REPOSITORY, tag)
    _remove_others(BASE_REPOSITORY, base)
    return tag


def _exists(tag: str) -> bool:
    return bool(docker("images", "--quiet", tag).strip())


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def _base_tag() -> str:
    return f"{BASE_REPOSITORY}:{SUITE}-{inputs_hash(extra=' '.join(BASE_PACKAGES))}"


def _ensure_base() -> str:
    tag = _base_tag()
    if not _exists(tag):
        docker("import", str(_ensure_base_archive()), tag)
    return tag


def _ensure_base_archive() -> Path:
    """Return an archive of a minimal Debian system with systemd."""
    archive = CACHE / f"{_base_tag().replace(':', '-')}.tar.gz"
    if archive.exists():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="machine-base-", dir=CACHE) as folder:
        root, unfinished = Path(folder, "root"), Path(folder, "root.tar.gz")
        root.mkdir()
        root.chmod(0o755)  # regardless of the umask: it becomes the machine's /
        workspace.run(
            "base of the machine image",
            # In its own mount namespace, so that an interrupted run leaves no /proc mounted in the folder.
            [
                *("unshare", "--mount", "debootstrap", "--variant=minbase"),
                *(f"--include={','.join(BASE_PACKAGES)}", SUITE, str(root), _mirror()),
            ],
            log="machine-image",
        )
        workspace.run(
            "packing the base",
            [
                *("tar", "--directory", str(root), "--use-compress-program=gzip -1", "--create"),
                *("--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*"),
                *("--file", str(unfinished), "."),
            ],
            log="machine-image",
        )
        unfinished.rename(archive)
    for other in CACHE.glob(f"{BASE_REPOSITORY}-*.tar.gz"):
        if other != archive:
            other.unlink()
    return archive


def _mirror() -> str:
    """Return the host's Debian mirror. Raises LabError if its package sources do not include the suite."""
    wanted = ("Created-By: Packages", "Component: main", f"Codename: {SUITE}")
    listed = call("apt-get", "indextargets", "--format=$(REPO_URI)", *wanted)
    if not listed.strip():
        raise LabError(f"this host's package sources do not include Debian {SUITE}: add it and run `apt-get update`")
    return listed.split()[0]


def _remove_others(repository: str, tag: str) -> None:
    """Remove the images of earlier inputs, except those that a machine still uses."""
    for other in docker("images", "--format={{.Repository}}:{{.Tag}}", repository).split():
        if other != tag:
            docker("rmi", other, check=False)
