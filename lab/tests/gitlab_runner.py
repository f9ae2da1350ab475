"""The gitlab-runners that tests run: the stand-in, and the real one if `LAB_PARTS` contains it."""

import shutil
import sys
from pathlib import Path

import pytest

from lab import parts
from lab.workspace import ROOT

SOURCE = ROOT / "lab/played/gitlab_runner"
REAL = parts.find(parts.RUNNER)


def install(root: Path) -> None:
    """Install the stand-in's files at the paths of its package."""
    shutil.copytree(SOURCE / "root", root, dirs_exist_ok=True)
    (root / "usr/lib/gitlab-runner").mkdir(parents=True)
    (root / "usr/lib/gitlab-runner/lab_gitlab_runner").symlink_to(SOURCE / "lab_gitlab_runner")


@pytest.fixture(scope="session")
def played_runner(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the stand-in."""
    root = tmp_path_factory.mktemp("gitlab-runner")
    install(root)
    return [sys.executable, str(root / "usr/bin/gitlab-runner")]


@pytest.fixture(params=["played", *(["real"] if REAL else [])])
def program(request: pytest.FixtureRequest, played_runner: list[str]) -> list[str]:
    """The command of each runner."""
    return played_runner if request.param == "played" else [str(REAL)]
