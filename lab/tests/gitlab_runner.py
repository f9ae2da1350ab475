"""The gitlab-runners that tests run: the stand-in, and the real one if `LAB_PARTS` contains it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import parts
from lab.tests.forks import Forks
from lab.workspace import ROOT

SOURCE = ROOT / "lab/played/gitlab_runner"
REAL = parts.find(parts.RUNNER)
FASTER = 20
"""By how much the clock of an impatient runner is faster."""


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


def impatient(program: list[str]) -> list[str]:
    """The command of the stand-in with a fast clock, so with short pauses; the real runner's command as it is.

    Time limits of jobs are real seconds: threading does not use that clock.
    """
    python, *rest = program
    if python != sys.executable:
        return program
    code = (
        "import runpy, subprocess, threading, time; now, sleep = time.monotonic, time.sleep; "
        f"time.monotonic = lambda: now() * {FASTER}; time.sleep = lambda seconds: sleep(seconds / {FASTER}); "
        f"runpy.run_path({rest[0]!r}, run_name='__main__')"
    )
    return [python, "-c", code]


@pytest.fixture(params=["played", *(["real"] if REAL else [])])
def program(request: pytest.FixtureRequest, played_runner: list[str]) -> list[str]:
    """The command of each runner."""
    return played_runner if request.param == "played" else [str(REAL)]


@pytest.fixture(scope="session")
def verify() -> Iterator[Callable[[list[str]], subprocess.CompletedProcess[str]]]:
    """A function that runs `gitlab-runner verify` with a runner's command."""
    forks = Forks(SOURCE, ["lab_gitlab_runner.commands"], os.environ)

    def run(program: list[str]) -> subprocess.CompletedProcess[str]:
        if program[0] == sys.executable:
            return forks.run(Path(program[1]), "verify", environment=os.environ)
        return subprocess.run([*program, "verify"], capture_output=True, text=True, check=False)

    yield run
    forks.close()
