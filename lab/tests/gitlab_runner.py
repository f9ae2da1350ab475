"""The gitlab-runners that tests hold to the same: the played one, and the real one where `LAB_PARTS` has it."""

import shutil
import sys
from pathlib import Path

import pytest

from lab import parts
from lab.workspace import ROOT

SOURCE = ROOT / "lab/played/gitlab_runner"
REAL = parts.find(parts.RUNNER)


def install(root: Path) -> None:
    """Put the played one where its package puts it."""
    shutil.copytree(SOURCE / "root", root, dirs_exist_ok=True)
    (root / "usr/lib/gitlab-runner").mkdir(parents=True)
    (root / "usr/lib/gitlab-runner/lab_gitlab_runner").symlink_to(SOURCE / "lab_gitlab_runner")


@pytest.fixture(scope="session")
def played_runner(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the played one."""
    root = tmp_path_factory.mktemp("gitlab-runner")
    install(root)
    return [sys.executable, str(root / "usr/bin/gitlab-runner")]


@pytest.fixture(params=["played", *(["real"] if REAL else [])])
def program(request: pytest.FixtureRequest, played_runner: list[str]) -> list[str]:
    """The command of each."""
    return played_runner if request.param == "played" else [str(REAL)]
