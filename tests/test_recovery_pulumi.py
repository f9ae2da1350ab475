"""How the recovery commands run Pulumi, with a stand-in for the CLI: interruptions, locks and secrets."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from recovery.errors import RecoveryError
from recovery.pulumi_cli import Interrupted, Pulumi, exclusive, interruptible, uninterruptible
from tests.engine import ROOT

CLI = f"""#!{sys.executable} -u
import json, signal, sys, time
command = sys.argv[1:]
with open("calls", "a") as calls:
    calls.write(" ".join(command) + "\\n")
def interrupted(number, frame):
    with open("calls", "a") as calls:
        calls.write("finished its operations\\n")
    sys.exit(1)
signal.signal(signal.SIGINT, interrupted)
if "up" in command:
    open("started", "w").close()
    time.sleep(20)
elif "ls" in command:
    print(json.dumps([{{"name": "org/prod", "resourceCount": 5}}, {{"name": "new"}}]))
elif "export" in command:
    component = {{"type": "pulumi:pulumi:Stack"}}
    provider = {{"type": "pulumi:providers:aws", "custom": True, "id": "1"}}
    machine = {{"type": "aws:ec2/instance:Instance", "custom": True, "id": "i-1"}}
    made = {{"resources": [component, provider, machine]}}
    print(json.dumps({{"deployment": made if "org/prod" in command else None}}))
elif "cancel" in command:
    sys.exit(255)
elif "set" in command:
    open("value", "w").write(sys.stdin.read())
elif "rm" in command:
    sys.exit(3)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    cli = tmp_path / "bin/pulumi"
    cli.parent.mkdir()
    cli.write_text(CLI)
    cli.chmod(0o755)
    monkeypatch.setenv("PATH", f"{cli.parent}:{os.environ['PATH']}")
    return tmp_path


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stack_is_found_with_or_without_its_organization(folder):
    assert [each["id"] for each in Pulumi("org/prod", folder=folder).resources() or ()] == ["i-1"]
    assert Pulumi("org/new", folder=folder).resources() == []
    assert Pulumi("other", folder=folder).resources() is None


def test_there_may_be_nothing_to_cancel(folder, capsys):
    Pulumi("prod", folder=folder).cancel()
    assert calls(folder) == ["--non-interactive cancel --yes --stack prod"]
    assert "there may be nothing to cancel" in capsys.readouterr().out


def test_a_secret_is_on_no_command_line(folder):
    Pulumi("new", folder=folder).set_secret("gitlab:sshPrivateKey", "-----BEGIN\nKEY\n")
    assert (folder / "value").read_text() == "-----BEGIN\nKEY\n"
    assert calls(folder) == ["--non-interactive config set --secret --stack new gitlab:sshPrivateKey"]


def test_a_failed_command_is_an_error_and_a_missing_cli_too(folder, monkeypatch):
    with pytest.raises(RecoveryError, match=r"pulumi stack rm failed \(status 3\)"):
        Pulumi("new", folder=folder).remove()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RecoveryError, match="not installed"):
        Pulumi("new", folder=folder).up()


def signal_when_started(folder: Path, number: signal.Signals) -> None:
    def send() -> None:
        wait_for((folder / "started").exists)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()


def test_a_signal_lets_the_engine_finish_its_operations_first(folder):
    signal_when_started(folder, signal.SIGTERM)
    with pytest.raises(Interrupted), interruptible():
        Pulumi("new", folder=folder).up()
    assert calls(folder)[-1] == "finished its operations"


def test_a_signal_while_the_engine_starts_does_not_leave_it_alone(folder, monkeypatch):
    original = subprocess.Popen

    def interrupted(*arguments, **options):
        process = original(*arguments, **options)
        wait_for((folder / "started").exists)
        os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(Interrupted), interruptible():
        Pulumi("new", folder=folder).up()
    assert calls(folder)[-1] == "finished its operations"


def test_a_signal_during_the_removal_changes_nothing(capsys):
    with uninterruptible():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert capsys.readouterr().out.count("please wait") == 2


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_the_engine_ends_with_a_killed_caller_and_the_next_command_waits_for_it(folder):
    program = (
        "from pathlib import Path; from recovery.pulumi_cli import Pulumi, exclusive\n"
        f"folder = Path({str(folder)!r})\n"
        "with exclusive(folder) as lock: Pulumi('new', lock=lock, folder=folder).up()"
    )
    caller = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    wait_for((folder / "started").exists)
    caller.kill()
    caller.wait()
    with exclusive(folder):
        assert calls(folder)[-1] == "finished its operations"
