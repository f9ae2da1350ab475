"""A load of pushes to GitLab and of images to the registry, and whether a restored volume has all of them."""

import contextlib
import hashlib
import json
import re
import secrets
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e import https, kept, people, projects
from tests.e2e.operations import eventually, must
from tests.e2e.test_registry import PUSHER

REPOSITORIES = "var-opt-gitlab/git-data/repositories"
STORED = "images/docker/registry/v2"
IMAGE = f"{kept.PROJECT}/under-load"
AUTHOR = ("-c", "user.name=Test User", "-c", "user.email=user@example.test")


@dataclass(frozen=True)
class Load:
    """What GitLab and the registry have accepted so far: commits, and digests of images' manifests."""

    project_id: int
    commits: list[str]

    def images(self) -> list[str]:
        return re.findall(r"^0 .*digest: (sha256:\w+)", must("runner", "cat /var/tmp/pushes"), re.MULTILINE)

    def wait_for_more(self) -> None:
        """Wait until another commit and another image have been accepted."""
        commits, images = len(self.commits), len(self.images())
        eventually(lambda: len(self.commits) > commits and len(self.images()) > images, interval=0.2)

    def lost_commits(self, volume: Path, accepted: Sequence[str]) -> list[str]:
        """The accepted commits that the server's volume does not have on the branch, and the errors of git fsck."""
        # The hashed storage of GitLab Docs, "Repository storage paths".
        name = hashlib.sha256(str(self.project_id).encode()).hexdigest()
        repository = volume / REPOSITORIES / "@hashed" / name[:2] / name[2:4] / f"{name}.git"
        checked = _git(repository, "fsck", "--full", "--no-dangling", "--no-progress")
        errors = [] if checked.returncode == 0 else [checked.stdout + checked.stderr]
        present = set(_git(repository, "rev-list", "refs/heads/main").stdout.split())
        return errors + [commit for commit in accepted if commit not in present]


def lost_images(volume: Path, accepted: Sequence[str]) -> list[str]:
    """The accepted images that are incomplete on the registry's volume: link, manifest, configuration and layers."""
    return [digest for digest in accepted if not _complete(volume / STORED, digest)]


def _complete(stored: Path, digest: str) -> bool:
    link = stored / "repositories" / IMAGE / "_manifests/revisions/sha256" / digest.partition(":")[2] / "link"
    if not link.exists() or link.read_text() != digest or (content := _blob(stored, digest)) is None:
        return False
    manifest = json.loads(content)
    return all(_blob(stored, part["digest"]) is not None for part in (manifest["config"], *manifest["layers"]))


def _blob(stored: Path, digest: str) -> bytes | None:
    """The content of a blob; None if it does not exist or has another digest."""
    name = digest.partition(":")[2]
    file = stored / "blobs/sha256" / name[:2] / name / "data"
    content = file.read_bytes() if file.exists() else b""
    return content if hashlib.sha256(content).hexdigest() == name else None


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Its files belong to the user git of the server's machine.
    command = ["git", "-c", "safe.directory=*", "--git-dir", str(repository), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def running(outputs: dict[str, Any], folder: Path) -> Iterator[Load]:
    """Push commits from a clone in `folder`, and images from the runner's machine, until the end."""
    people.log_in(outputs)
    must("runner", "cat >/run/pusher", stdin=PUSHER.format(image=f"{outputs['registryHost']}/{IMAGE}:latest"))
    with projects.made(outputs, "under-load") as project:
        load, ended = Load(project.id, []), threading.Event()
        pushing = threading.Thread(target=_push, args=(outputs, folder, load.commits, ended))
        must("runner", "systemd-run --quiet --collect --unit load --setenv HOME=/root bash /run/pusher")
        pushing.start()
        try:
            eventually(lambda: "digest" in must("runner", "cat /var/tmp/pushes || true"))
            yield load
        finally:
            ended.set()
            pushing.join()
            must("runner", "systemctl stop load")


def _push(outputs: dict[str, Any], folder: Path, accepted: list[str], ended: threading.Event) -> None:
    """Push small commits, one after the other; an error does not end it, because only what was accepted counts."""
    address = f"https://{people.NAME}:{people.PASSWORD}@{https.name(outputs)}/{projects.GROUP}/under-load.git"

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(folder), *https.git_options(outputs), *AUTHOR, *arguments]
        return subprocess.run(command, env=https.git_environment(), capture_output=True, text=True, check=False)

    git("init", "--quiet", "--initial-branch=main")
    while not ended.wait(0.05):
        (folder / "content").write_text(secrets.token_hex(2048))
        git("add", "content")
        git("commit", "--quiet", "--message", "Under load")
        commit = git("rev-parse", "HEAD").stdout.strip()
        if git("push", "--quiet", address, "HEAD:refs/heads/main").returncode == 0:
            accepted.append(commit)
