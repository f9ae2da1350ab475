"""The keys that the SSH agent holds, tested with a real agent if OpenSSH is installed."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from validation import ssh_agent

pytestmark = pytest.mark.needs("ssh-agent", "ssh-add")


@pytest.fixture
def agent(tmp_path, monkeypatch) -> Iterator[None]:
    """An SSH agent for this test, without keys."""
    address = str(tmp_path / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL)
    # The socket exists before the agent listens on it.
    with socket.socket(socket.AF_UNIX) as client:
        while client.connect_ex(address):
            assert process.poll() is None
    monkeypatch.setenv("SSH_AUTH_SOCK", address)
    yield
    process.terminate()
    process.wait()


@pytest.fixture
def key(tmp_path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        file = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file], check=True)
        return file

    return make


def add(file: Path) -> str:
    """Add a key to the agent. Returns its public key line."""
    subprocess.run(["ssh-add", "-q", file], check=True, capture_output=True)
    return file.with_suffix(".pub").read_text().strip()


@pytest.mark.usefixtures("agent")
def test_a_key_that_is_held_is_no_problem_whatever_its_comment(key):
    line = add(key("mine"))
    assert ssh_agent.problem(line) is None
    assert ssh_agent.problem(line.replace(" mine", " of the administrators")) is None


@pytest.mark.usefixtures("agent")
def test_a_key_that_is_not_held_is_named_with_the_remedy(key):
    wanted = key("mine").with_suffix(".pub").read_text().strip()
    empty = ssh_agent.problem(wanted)
    assert empty
    assert empty.startswith(
        f"the SSH agent does not hold {wanted!r} (The agent has no identities.). Add it with `ssh-add"
    )
    add(key("another"))
    assert "(keys it holds: 1)" in str(ssh_agent.problem(wanted))


@pytest.mark.parametrize("name", [None, "gone"])
def test_without_an_agent_it_says_how_to_start_one(tmp_path, monkeypatch, key, name):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    if name:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / name))
    problem = str(ssh_agent.problem(key("mine").with_suffix(".pub").read_text()))
    assert "agent" in problem.split("(")[1]
    assert "start one first: eval $(ssh-agent)" in problem


def test_without_openssh_it_says_so(monkeypatch, key):
    line = key("mine").with_suffix(".pub").read_text()
    monkeypatch.setenv("PATH", "")
    assert "Install the OpenSSH client" in str(ssh_agent.problem(line))


@pytest.mark.usefixtures("agent")
def test_a_key_that_comes_after_as_many_as_a_machine_takes_of_a_connection_is_refused(key):
    for number in range(ssh_agent.MOST_KEYS - 1):
        add(key(f"other-{number}"))
    sixth, seventh = add(key("sixth")), add(key("seventh"))
    assert ssh_agent.problem(sixth) is None
    problem = str(ssh_agent.problem(seventh))
    assert problem.startswith(f"the SSH agent offers 6 other keys before {seventh!r}")
    assert "Use an agent with only that key" in problem
