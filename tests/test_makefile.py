"""`make` alone lists the targets, and starts nothing."""

import os
import re
import shutil
import subprocess

from tests.engine import ROOT


def make(*arguments: str, cwd) -> list[str]:
    """The output of make, even if these tests themselves run under make."""
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_make_alone_lists_every_target_with_its_text_and_starts_nothing(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    described = re.findall(r"^([\w-]+):.*  ## (.+)$", (tmp_path / "Makefile").read_text(), re.MULTILINE)
    assert {"help", "up", "doctor", "test", "down"} <= {target for target, _ in described}

    [command] = make("--dry-run", cwd=tmp_path)  # first, so that a wrong default is not run
    assert command.startswith("awk ")
    listed = [tuple(line.split(maxsplit=1)) for line in make(cwd=tmp_path)]
    assert listed == described
    assert [file.name for file in tmp_path.iterdir()] == ["Makefile"]


def test_every_target_that_is_no_file_has_a_text():
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][\w-]*):", text, re.MULTILINE)
    assert targets
    assert targets == re.findall(r"^([a-z][\w-]*):.*  ## .", text, re.MULTILINE)


def test_a_stack_is_destroyed_without_its_state_only_on_request(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "requirements-dev.txt", tmp_path)
    *_, usual = make("--dry-run", "destroy", "STACK=prod", cwd=tmp_path)
    *_, requested = make("--dry-run", "destroy", "STACK=prod", "LOST_STATE=1", cwd=tmp_path)
    assert "--lost-state" not in usual
    assert requested.split() == [*usual.split(), "--lost-state"]
