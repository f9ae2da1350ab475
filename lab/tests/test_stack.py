"""The lab's stack: how it is created, the environment of its engine, and interruptions."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest
import yaml

from lab import stack, workspace
from lab.engine import build
from lab.vendors import packages

SALT = "v1:salt"

needs_ssh_keygen = pytest.mark.needs("ssh-keygen")


@pytest.fixture(autouse=True)
def clone(tmp_path, monkeypatch):
    """A clone with a program of two settings."""
    lab = tmp_path / ".lab"
    for name, path in {
        "ROOT": tmp_path,
        "PROJECT": tmp_path / "Pulumi.yaml",
        "SETTINGS": tmp_path / "Pulumi.lab.yaml",
        "KEYS": lab / "keys",
        "PRIVATE_KEY": lab / "keys" / "id_ed25519",
        "PASSPHRASE": lab / "keys" / "passphrase",
        "BACKEND": lab / "state",
        "FOLDER": lab / "stack",
        "AGENT_SOCKET": lab / "agent",
        "LOGS": lab / "logs",
    }.items():
        monkeypatch.setattr(stack, name, path)
    monkeypatch.setattr(build, "PULUMI_HOME", lab / "pulumi")
    lab.mkdir()
    monkeypatch.setattr(packages, "FINGERPRINTS", lab / "fingerprints.json")
    packages.FINGERPRINTS.write_text("{}")
    monkeypatch.setattr(packages, "settings", lambda: {"runnerPackageKeys": ["AB" * 20]})
    stack.PROJECT.write_text("name: trial\nruntime: python\n")
    stack.SETTINGS.write_text("config:\n  aws:region: us-east-1\n")
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """The commands of a stand-in for Pulumi that stores its files in the same places."""
    commands: list[tuple[str, ...]] = []

    def ask(*command, cwd=stack.FOLDER):
        commands.append(command)
        file = stack.FOLDER / "Pulumi.lab.yaml"
        settings = yaml.safe_load(file.read_text()) if file.exists() else {}
        if command[:2] == ("stack", "init"):
            state = stack.BACKEND / ".pulumi" / "stacks" / "trial" / "lab.json"
            state.parent.mkdir(parents=True, exist_ok=True)
            state.touch()
            settings["encryptionsalt"] = SALT
        if command[:2] == ("stack", "export"):
            urns = ["pulumi:pulumi:Stack", "pulumi:providers:aws", "aws:ec2/vpc:Vpc"]
            return str(
                {"deployment": {"resources": [{"urn": f"urn:pulumi:lab::trial::{t}::x"} for t in urns]}}
            ).replace("'", '"')
        file.write_text(yaml.safe_dump(settings))
        return ""

    monkeypatch.setattr(stack, "_ask", ask)
    return commands


def state_of(name):
    """The file with a stack's state."""
    file = stack.BACKEND / ".pulumi" / "stacks" / "trial" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def stack_file():
    return yaml.safe_load((stack.FOLDER / "Pulumi.lab.yaml").read_text())


@needs_ssh_keygen
def test_a_stack_is_made_once_from_the_clones_settings_and_the_labs_key_pair(asked):
    stack.prepare()
    made = stack_file()
    assert made["config"]["aws:region"] == "us-east-1"
    assert made["config"]["trial:sshPublicKey"].startswith("ssh-ed25519 ")
    assert "trial:sshPrivateKey" not in made["config"], "the steps log in by the lab's agent"
    assert made["config"]["trial:runnerPackageKeys"] == ["AB" * 20]
    for secret in (stack.PRIVATE_KEY, stack.PASSPHRASE):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert [command[:2] for command in asked] == [("stack", "init")]
    assert "encryptionsalt" not in stack.SETTINGS.read_text()

    stack.prepare()
    assert len(asked) == 1


@needs_ssh_keygen
@pytest.mark.usefixtures("asked")
def test_an_agent_of_the_lab_holds_its_key_is_what_the_engine_sees_and_can_be_killed(monkeypatch, tmp_path):
    monkeypatch.setenv("SSH_AUTH_SOCK", "the user's")
    for name in ("RUN", "LOGS", "ROOT"):
        monkeypatch.setattr(workspace, name, tmp_path)
    daemon = workspace.Daemon("ssh-agent", ["ssh-agent", "-D", "-a", str(stack.AGENT_SOCKET)])
    monkeypatch.setattr(stack, "AGENT", daemon)

    def held() -> list[str]:
        done = subprocess.run(["ssh-add", "-L"], env=stack.environment(), capture_output=True, text=True, check=False)
        return done.stdout.splitlines()

    try:
        stack.start_agent()
        stack.start_agent()
        assert held() == [stack.PRIVATE_KEY.with_suffix(".pub").read_text().strip()]
        assert daemon.pid
        os.kill(daemon.pid, signal.SIGKILL)
        while daemon.running():
            time.sleep(0.01)
        stack.start_agent()
        assert len(held()) == 1
    finally:
        daemon.stop()
    assert held() == []


@needs_ssh_keygen
def test_changed_settings_reach_the_stack_and_its_salt_stays(asked):
    stack.prepare()
    stack.SETTINGS.write_text("config:\n  aws:region: eu-central-1\n")
    stack.prepare()
    assert stack_file()["config"]["aws:region"] == "eu-central-1"
    assert stack_file()["encryptionsalt"] == SALT
    assert [command[:2] for command in asked].count(("stack", "init")) == 1


@needs_ssh_keygen
def test_other_keys_of_the_vendors_reach_the_stack(asked, monkeypatch):
    stack.prepare()
    packages.FINGERPRINTS.write_text('{"new": "keys"}')
    monkeypatch.setattr(packages, "settings", lambda: {"runnerPackageKeys": ["CD" * 20]})
    stack.prepare()
    assert stack_file()["config"]["trial:runnerPackageKeys"] == ["CD" * 20]


@needs_ssh_keygen
def test_a_stack_that_was_half_made_is_made_again(asked):
    stack.prepare()
    key = stack.PRIVATE_KEY.read_text()
    shutil.rmtree(stack.FOLDER)
    stack.prepare()
    assert [command[:2] for command in asked].count(("stack", "init")) == 2
    assert stack.PRIVATE_KEY.read_text() == key


@needs_ssh_keygen
@pytest.mark.usefixtures("asked")
def test_other_stacks_have_a_state_of_their_own_and_keep_it_when_this_one_is_made_again():
    other = state_of("lab-drill.json")
    state_of("lab-b.json.bak")  # of a stack that was removed
    assert stack.names() == ["lab-drill"]
    stack.prepare()
    assert stack.names() == ["lab", "lab-drill"]
    assert stack.resources("lab-drill") == stack.resources("lab")
    assert stack.resources("lab-b") == []
    shutil.rmtree(stack.FOLDER)
    stack.prepare()
    assert other.exists()
    stack.forget()
    assert stack.names() == []


@needs_ssh_keygen
def test_the_state_lists_only_what_the_cloud_holds(asked):
    assert stack.resources() == []
    stack.prepare()
    assert stack.resources() == ["urn:pulumi:lab::trial::aws:ec2/vpc:Vpc::x"]
    stack.forget()
    assert stack.resources() == []
    assert stack.outputs() == {}
    assert stack.PRIVATE_KEY.exists()


def test_the_engine_sees_nothing_of_the_users_aws_account(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "PULUMI_ACCESS_TOKEN", "PULUMI_BACKEND_URL"):
        monkeypatch.setenv(name, "the user's")
    environment = stack.environment()
    assert "the user's" not in environment.values()
    assert environment["AWS_ENDPOINT_URL"] == stack.API
    assert environment["AWS_CONFIG_FILE"] == os.devnull
    assert environment["PULUMI_BACKEND_URL"] == f"file://{stack.BACKEND}"


def test_only_the_engine_of_this_clone_is_ended(clone, monkeypatch):
    def process(name):
        variables = {**os.environ, stack.CLONE_VARIABLE: str(name)}
        return subprocess.Popen(["sleep", "60"], env=variables)

    own, other = process(clone), process(clone / "other")
    try:
        deadline = time.monotonic() + 5
        while own.poll() is None:
            stack.clear_stale()
            assert time.monotonic() < deadline
        assert own.returncode == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_lock_without_an_engine_is_released(asked):
    (stack.BACKEND / ".pulumi" / "stacks" / "trial").mkdir(parents=True)
    (stack.BACKEND / ".pulumi" / "stacks" / "trial" / "lab.json").touch()
    stack.FOLDER.mkdir()
    stack.clear_stale()
    assert asked == []
    lock = stack.BACKEND / ".pulumi" / "locks" / "organization" / "trial" / "lab" / "1.json"
    lock.parent.mkdir(parents=True)
    lock.touch()
    stack.clear_stale()
    assert asked == [("cancel", "--yes", "--stack", "lab")]


def test_the_locks_of_other_stacks_are_released_too(asked):
    state_of("lab-drill.json")
    stack.FOLDER.mkdir()
    for name in ("lab-drill", "removed"):
        lock = stack.BACKEND / ".pulumi" / "locks" / "organization" / "trial" / name / "1.json"
        lock.parent.mkdir(parents=True)
        lock.touch()
    stack.clear_stale()
    assert asked == [("cancel", "--yes", "--stack", "lab-drill")]


@pytest.fixture
def engine(clone, monkeypatch):
    """Replace Pulumi with a Python program."""

    def make(program):
        pulumi = clone / "pulumi"
        pulumi.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{program}")
        pulumi.chmod(0o755)
        monkeypatch.setattr(build, "ensure", lambda: pulumi)
        monkeypatch.setattr(stack, "prepare", lambda: None)

    return make


def test_operations_run_the_program_of_the_clone_on_the_labs_stack(engine, clone, capfd):
    engine("print(os.getcwd(), *sys.argv[1:])")
    stack.preview(refresh=True, expect_no_changes=True)
    stack.up()
    options = f"--stack lab --config-file {stack.FOLDER}/Pulumi.lab.yaml"
    quietly = "--yes --skip-preview --suppress-progress --suppress-outputs"
    commands, event_logs = zip(
        *(line.split(" --event-log ") for line in capfd.readouterr().out.splitlines()), strict=True
    )
    assert commands == (
        f"{clone} preview --refresh --expect-no-changes {options}",
        f"{clone} up {quietly} {options}",
    )
    assert all(log.startswith(f"{clone}/.lab/logs/engine-events-") for log in event_logs)


def test_a_failed_operation_is_an_error(engine):
    engine("sys.exit(255)")
    with pytest.raises(stack.EngineError, match="pulumi destroy failed"):
        stack.destroy()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, stack.Terminated])
def test_an_interrupted_engine_finishes_what_it_is_at(engine, clone, monkeypatch, interruption):
    engine(
        f"def finish(*_): open({str(clone / 'finished')!r}, 'w').close(); sys.exit(1)\n"
        "signal.signal(signal.SIGINT, finish)\n"
        f"open({str(clone / 'started')!r}, 'w').close()\n"
        "while True: time.sleep(0.01)"
    )
    wait = subprocess.Popen.wait

    def interrupted_wait(process, timeout=None):
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        deadline = time.monotonic() + 5
        while not (clone / "started").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if interruption is KeyboardInterrupt:  # the terminal sends it to the engine, too
            process.send_signal(signal.SIGINT)
        raise interruption

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted_wait)
    with pytest.raises(interruption):
        stack.up()
    assert (clone / "finished").exists()
