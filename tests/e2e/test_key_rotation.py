"""Rotation of the administrators' key pair: as documented in docs/operations.md, and with one machine omitted."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lab import stack
from lab.engine import build
from lab.workspace import ROOT
from tests.e2e.operations import ROLES, Finished, client, instance_id, instances, machine, repair, run_product, up
from tests.e2e.programs import Edits, changed_program

pytestmark = pytest.mark.long

OPERATIONS = ROOT / "docs/operations.md"

SHELL = """\
set -euo pipefail
STACK=(--stack lab --config-file "$SETTINGS")
pulumi() {
    case $1 in
        up) (cd "$ROOT" && "$PULUMI" up --yes --skip-preview --suppress-progress "${STACK[@]}") ;;
        *) "$PULUMI" --non-interactive "$@" "${STACK[@]:0:2}" ;;
    esac
}
ssh() {
    command ssh -F none -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \\
        -o LogLevel=ERROR "$@"
}
"""
"""Adapts the documented commands to the lab: to its stack, and to new machines at known addresses."""

HURRIED: Edits = {"components/remote_host.py": [("DIAL_ATTEMPTS = 60", "DIAL_ATTEMPTS = 3")]}
"""Fewer attempts, for a machine that is up but rejects the key."""


def documented() -> str:
    """The commands in docs/operations.md."""
    section = re.split("\n##+ ", OPERATIONS.read_text().split("### Administrators' key\n")[1])[0]
    return "".join(line.removeprefix("    ") + "\n" for line in re.findall("^    .*$", section, re.MULTILINE))


def all_outputs() -> str:
    return json.dumps(stack.outputs(show_secrets=True))


def addresses() -> dict[str, str]:
    found: Mapping[str, str] = stack.outputs()["publicAddresses"]
    return {role: found[role] for role in ROLES}


def run(commands: str) -> Finished:
    """Run commands in the style of docs/operations.md in a shell on the lab."""
    own = {"ROOT": str(ROOT), "PULUMI": str(build.ensure()), "SETTINGS": str(stack.FOLDER / "Pulumi.lab.yaml")}
    stack.prepare()
    done = subprocess.run(
        ["bash", "-c", SHELL + commands],
        cwd=stack.FOLDER,
        env={**stack.environment(), **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Finished(done.returncode, done.stdout, 0.0)


def rotate(old: Path, new: Path) -> Finished:
    """Run all documented commands, except the creation of a key pair that exists."""
    commands = documented() if not new.exists() else documented().split("\n", 1)[1]
    return run(_named(commands, old, new))


def _named(commands: str, old: Path, new: Path) -> str:
    commands = re.sub(r"\bOLD\b", str(old), re.sub(r"\bNEW\b", str(new), commands))
    return commands.replace("SERVER REGISTRY RUNNER", " ".join(addresses().values()))


def opens(key: Path) -> list[str]:
    """The machines that accept this key."""
    ways = {role: f"ssh -o BatchMode=yes -i {key} ec2-user@{address} true" for role, address in addresses().items()}
    return [role for role, way in ways.items() if run(way).status == 0]


def key_pair_of(role: str) -> str:
    """The name of the key pair with which a machine was launched."""
    [name] = [each["KeyName"] for each in instances() if each["InstanceId"] == instance_id(role)]
    return str(name)


def key_pair_of_the_stack() -> str:
    [pair] = client("ec2").describe_key_pairs()["KeyPairs"]
    return str(pair["KeyName"])


def ids() -> list[str]:
    return [instance_id(role) for role in ROLES]


@pytest.fixture
def other(tmp_path) -> Path:
    """Path for another key pair."""
    return tmp_path / "gitlab"


@pytest.fixture(autouse=True)
def _the_labs_own_again(outputs, other) -> Iterator[None]:
    yield
    if other.exists() and opens(stack.PRIVATE_KEY) != list(ROLES):
        add = _named(documented().split("ssh-add")[0].split("\n", 1)[1], other, stack.PRIVATE_KEY)
        assert run(add).status == 0
    run("pulumi config rm sshPrivateKey")  # left by a failed test
    configure(stack.PRIVATE_KEY)
    repair()


def configure(key: Path) -> None:
    """Change only the setting and the agent's key."""
    lines = [line for line in documented().splitlines() if line.startswith(("pulumi config", "ssh-add"))]
    assert len(lines) == 2
    done = run(_named("\n".join(lines), key, key))
    assert done.status == 0, done.output


def test_the_administrators_key_is_rotated_as_documented_and_no_machine_replaced(other):
    before = ids()
    done = rotate(stack.PRIVATE_KEY, other)
    assert done.status == 0, done.output
    assert ids() == before
    assert opens(other) == list(ROLES)
    assert opens(stack.PRIVATE_KEY) == []
    assert "run-pipeline" in done.output, "the acceptance did not run"
    replaced = up("--replace", machine("runner"))
    assert replaced.status == 0, replaced.output
    assert key_pair_of("runner") == key_pair_of_the_stack() != key_pair_of("server")
    before = ids()
    back = rotate(other, stack.PRIVATE_KEY)
    assert back.status == 0, back.output
    assert ids() == before
    assert opens(stack.PRIVATE_KEY) == list(ROLES)
    assert opens(other) == []


def test_a_machine_that_was_forgotten_is_named_once_with_the_line_to_add(other):
    before = ids()
    made = run(f"ssh-keygen -q -t ed25519 -N '' -C gitlab -f {other}")
    assert made.status == 0, made.output
    public_key = other.with_suffix(".pub").read_text().strip()
    for role in ("server", "registry"):
        added = run(_added(role, public_key))
        assert added.status == 0, added.output
    configure(other)
    forgotten = run(f"ssh-add -d {stack.PRIVATE_KEY}")  # ssh tries all keys of the agent
    assert forgotten.status == 0, forgotten.output
    with changed_program(HURRIED) as program:
        refused = up(program=program)
    assert refused.status != 0
    reported = re.findall(
        r"the (\w+) machine at (\S+) does not accept the key pair of sshPublicKey\. Add this line to (\S+) there, "
        r"then run pulumi up again: (.*)",
        refused.output,
    )
    assert set(reported) == {("runner", addresses()["runner"], "/home/ec2-user/.ssh/authorized_keys", public_key)}
    assert "unable to authenticate" not in refused.output
    assert ids() == before
    added = run(_added("runner", public_key))
    assert added.status == 0, added.output
    repair()
    assert ids() == before


def test_a_stack_may_hold_the_private_key_and_gives_it_up_without_trusting_any_machine_anew():
    before, trusted = ids(), stack.outputs(show_secrets=True)["inspection"]["machines"]
    secret = stack.PRIVATE_KEY.read_text().splitlines()[-2]
    assert secret not in stack.state_in_clear()
    by_key = run(f"pulumi config set --secret sshPrivateKey <{stack.PRIVATE_KEY}\nssh-add -q -D\npulumi up")
    assert by_key.status == 0, by_key.output
    held = stack.outputs(show_secrets=True)["inspection"]
    assert held["privateKey"] == stack.PRIVATE_KEY.read_text()
    assert held["machines"] == trusted
    assert secret in stack.state_in_clear()
    assert run_product(all_outputs(), "doctor.py", "--quick").returncode == 0

    by_agent = run("pulumi config rm sshPrivateKey\npulumi up")
    assert by_agent.status != 0
    assert "sshPublicKey: sshPrivateKey is not set, and the SSH agent does not hold" in by_agent.output
    assert "The agent has no identities" in by_agent.output
    by_agent = run(f"ssh-add -q {stack.PRIVATE_KEY}\npulumi up")
    assert by_agent.status == 0, by_agent.output
    for role in ROLES:
        assert re.search(rf"Command\s+{role}-host-key\s+replaced", by_agent.output), by_agent.output
        changed = rf"Stash\s+{role}-host-key\s+(creat|updat|replac|delet)"  # it is refreshed and shown as unchanged
        assert not re.search(changed, by_agent.output), by_agent.output
    assert secret not in stack.state_in_clear()
    found = stack.outputs(show_secrets=True)["inspection"]
    assert "privateKey" not in found
    assert found["machines"] == trusted
    assert ids() == before
    assert run_product(all_outputs(), "doctor.py", "--quick").returncode == 0
    stack.preview(expect_no_changes=True)


def _added(role: str, line: str) -> str:
    return f"ssh -i {stack.PRIVATE_KEY} ec2-user@{addresses()[role]} 'cat >>.ssh/authorized_keys' <<<'{line}'"
