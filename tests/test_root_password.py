"""root_password.py, which reads root's first password over SSH, with a stub of ssh for the server."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import openssh_pair
from tests.engine import ROOT

PASSWORD = "first-Secret-4711"
SSH = """\
#!/bin/bash
# Stub for the server: records the arguments, standard input and pinned keys, and prints $folder/answer.
folder={folder}
printf '%s\\n' "$@" >"$folder/arguments"
for word in "$@"; do case $word in UserKnownHostsFile=*) cp "${{word#*=}}" "$folder/known_hosts" ;; esac; done
cat >"$folder/stdin"
cat "$folder/answer"
cat "$folder/said" >&2 2>/dev/null
exit "$(cat "$folder/status" 2>/dev/null || echo 0)"
"""
INSPECTION = {
    "user": "ec2-user",
    "privateKey": openssh_pair()[1],
    "machines": {"server": {"address": "192.0.2.1", "hostKey": "ssh-ed25519 server"}},
}


@pytest.fixture
def ask(tmp_path, monkeypatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(SSH.format(folder=tmp_path))
    (tmp_path / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")

    def run(answer: str, said: str = "", status: int = 0, outputs: object = None) -> subprocess.CompletedProcess[str]:
        for name, text in (("answer", answer), ("said", said), ("status", str(status))):
            (tmp_path / name).write_text(text)
        return subprocess.run(
            [sys.executable, ROOT / "root_password.py"],
            input=json.dumps({"inspection": INSPECTION} if outputs is None else outputs),
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_password_is_printed_alone_and_asked_of_the_server_whose_key_is_pinned(ask, tmp_path):
    done = ask(json.dumps({"rootPassword": PASSWORD}) + "\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{PASSWORD}\n", "")
    arguments = (tmp_path / "arguments").read_text()
    assert "StrictHostKeyChecking=yes" in arguments
    assert "ec2-user@192.0.2.1" in arguments
    assert "show_root_password" in arguments
    assert (tmp_path / "known_hosts").read_text() == "192.0.2.1 ssh-ed25519 server\n"


def test_a_password_that_was_changed_is_not_there_and_what_helps_is_said(ask):
    done = ask(json.dumps({"rootPassword": None}) + "\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "sudo gitlab-rake 'gitlab:password:reset[root]'" in done.stderr


@pytest.mark.parametrize(
    ("said", "status"), [("Host key verification failed.", 255), ("ssh: connect to host: Connection timed out", 255)]
)
def test_a_server_that_cannot_be_asked_is_told_from_one_without_a_password(ask, said, status):
    done = ask("", said, status)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_while_a_step_is_at_work_it_says_so(ask):
    done = ask("", "", 75)
    assert done.returncode == 2
    assert "a step of pulumi up is running" in done.stderr


def test_outputs_without_what_is_needed_are_named(ask):
    done = ask("", outputs={"externalUrl": "http://x"})
    assert done.returncode == 2
    assert "no stack output `inspection`" in done.stderr
