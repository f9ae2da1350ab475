"""The oldest Python on which the machines run the programs, that of RHEL 8."""

import functools
import shutil
import subprocess
from pathlib import Path

import pytest


@functools.cache
def _found() -> str | None:
    candidates = [shutil.which("python3.6"), "/usr/libexec/platform-python"]
    candidates += [str(path) for path in Path.home().glob(".pyenv/versions/3.6.*/bin/python3.6")]
    for candidate in filter(None, candidates):
        asked = [candidate, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 6))"]
        if Path(candidate).exists() and subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def oldest_python() -> str:
    """A Python 3.6 interpreter; without one here, the test is skipped."""
    return _found() or pytest.skip("Python 3.6 is not installed")
