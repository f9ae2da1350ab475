"""A stack that takes the place of the lab's, restored from its backups."""

import subprocess
from pathlib import Path
from typing import Any

from lab import stack
from lab.workspace import ROOT
from tests.e2e import https, people, projects, recovery
from tests.e2e.operations import Finished

NEW = "lab-b"
# The lab refuses a network that overlaps that of the former stack.
RESTORE = (
    *("restore", "--stack", NEW, "--from", stack.STACK, "--settings", str(ROOT / recovery.SETTINGS), "--yes"),
    *("--set", "networkCidr=10.77.0.0/16"),
)


def restore(*options: str) -> Finished:
    """Restore the lab's stack into a new one."""
    return recovery.recovery(*RESTORE, *options)


def destroy() -> None:
    """Destroy the new stack."""
    recovery.recovery("destroy", "--stack", NEW, "--yes")
    (ROOT / f"Pulumi.{NEW}.yaml").unlink(missing_ok=True)


def log_in(outputs: dict[str, Any]) -> None:
    """Log in to the new stack's registry, on its runner's machine."""
    login = f"docker login --username {people.NAME} --password-stdin {outputs['registryHost']}"
    recovery.on(NEW, "runner", login, stdin=people.PASSWORD + "\n")


def commits_of(project: str, outputs: dict[str, Any], folder: Path) -> set[str]:
    """The commits of a project's branch, from a clone by name."""
    address = f"https://{people.NAME}:{people.PASSWORD}@{https.name(outputs)}/{projects.GROUP}/{project}.git"
    command = ["git", *https.git_options(outputs)]
    environment = https.git_environment()
    subprocess.run([*command, "clone", "--quiet", address, str(folder)], env=environment, check=True)
    listed = subprocess.run(
        ["git", "-C", str(folder), "rev-list", "--all"], env=environment, check=True, capture_output=True, text=True
    )
    return set(listed.stdout.split())
