"""Versions of the program: the files in the clone's folder, and another commit in its own work tree."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import stack
from lab.preview import describe, stack_file
from lab.preview.engine import FOLDER
from lab.preview.placeholder_certificate import trusting
from lab.preview.stack_file import StackFile
from lab.workspace import ROOT, LabError

WORK_TREE = FOLDER / "base"
EXAMPLES = "remote/examples.json"
FORMER_EXAMPLES = Path(__file__).with_name("former_examples.json")
"""The output of the steps of versions that have no examples of their own."""


@dataclass(frozen=True)
class Version:
    """A version of the program with its stack file; `label` is its name in messages."""

    label: str
    folder: Path
    stack: str

    def project(self) -> dict[str, Any]:
        """Return the content of Pulumi.yaml."""
        return stack_file.read(self.folder / "Pulumi.yaml")

    def stack_file(self) -> dict[str, Any]:
        """Return the stack file. The lab's own, which has no public key, gets a placeholder."""
        content = stack_file.read(self.folder / f"Pulumi.{self.stack}.yaml")
        if self.stack == stack.STACK:
            content["config"].setdefault(f"{self.project()['name']}:sshPublicKey", stack_file.PLACEHOLDER_PUBLIC_KEY)
        return content

    def configuration(self, api: str) -> StackFile:
        """Return the configuration for the lab's API, with the same endpoints and credentials for every version."""
        lab = stack_file.read(ROOT / "Pulumi.lab.yaml")
        return stack_file.for_the_lab(self.stack_file(), self.project(), lab, api)

    def answers(self) -> dict[str, str]:
        """Return the output of its remote steps, by step."""
        own = self.folder / EXAMPLES
        answers: dict[str, str] = json.loads((own if own.exists() else FORMER_EXAMPLES).read_text())
        return answers

    def facts(self, configuration: StackFile) -> dict[str, Any]:
        """Return the facts that its own code reports (describe.py). Raises LabError if it does not run."""
        given = {
            "project": self.project()["name"],
            "config": configuration.texts(),
            "secrets": list(configuration.secrets),
        }
        done = subprocess.run(
            [sys.executable, describe.__file__],
            cwd=self.folder,
            env={**os.environ, **(trusting(FOLDER) if configuration.has_placeholder_certificate else {})},
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LabError(f"the program of {self.label} does not run:\n{done.stderr.strip()}")
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check out a commit into its own folder. Raises LabError if the commit does not exist in this clone."""
    if _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}").returncode:
        branch = commit.removeprefix("origin/")
        raise LabError(f"{commit!r} is not a commit in this clone: set BASE= to one, or run git fetch origin {branch}")
    _remove()
    added = _git("worktree", "add", "--detach", "--force", str(WORK_TREE), commit)
    if added.returncode:
        raise LabError(f"git cannot check out {commit}:\n{added.stderr.strip()}")
    try:
        yield WORK_TREE
    finally:
        _remove()


def _remove() -> None:
    if WORK_TREE.exists():
        _git("worktree", "remove", "--force", str(WORK_TREE))
    _git("worktree", "prune")


def _git(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False)
