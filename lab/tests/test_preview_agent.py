"""The SSH agent of previews: the keys that it lists."""

import subprocess

import pytest

from lab.preview import agent
from lab.preview.stack_file import PLACEHOLDER_PUBLIC_KEY
from validation import ssh_agent

pytestmark = pytest.mark.needs("ssh-add")


@pytest.mark.parametrize("line", [PLACEHOLDER_PUBLIC_KEY, PLACEHOLDER_PUBLIC_KEY + " at home"])
def test_it_is_said_to_hold_the_key_of_the_stack_and_no_other(monkeypatch, line):
    with agent.listing(line) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        assert ssh_agent.problem(line) is None
        listed = subprocess.run(["ssh-add", "-L"], capture_output=True, text=True, check=True)
        assert listed.stdout == line + "\n"
        assert subprocess.run(["ssh-add", "-D"], capture_output=True, check=False).returncode != 0
    assert not socket.exists()
