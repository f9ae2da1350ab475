"""Paths, long commands and daemons."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import workspace
from lab.workspace import Daemon, LabError, inputs_hash


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "RUN", tmp_path / "run")
    monkeypatch.setattr(workspace, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(workspace, "START_CHECK", 0.05)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 5
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_a_long_command_says_what_it_does_and_how_long_it_took(capsys):
    workspace.run("greeting", ["sh", "-c", "cat; echo $WHO"], log="hello", env={"WHO": "world"}, stdin="hello\n")
    assert (workspace.LOGS / "hello.log").read_text() == "hello\nworld\n"
    assert capsys.readouterr().out.splitlines() == ["greeting …", "greeting  0 s"]


def test_a_running_command_reports_its_last_line(capsys, monkeypatch):
    monkeypatch.setattr(workspace, "PROGRESS_INTERVAL", 0.1)
    workspace.run("slow", ["sh", "-c", "echo one; echo two; sleep 0.15"], log="slow")
    assert "  0 s  two" in capsys.readouterr().out.splitlines()


def test_a_failed_command_shows_the_end_of_its_log_and_where_it_is():
    with pytest.raises(LabError, match=r"(?s)broken: sh exited with status 3\n.*the reason\n.*broken\.log") as error:
        workspace.run("broken", ["sh", "-c", "seq 100; seq 19; echo the reason >&2; exit 3"], log="broken")
    assert "100" not in str(error.value).splitlines()


def test_a_command_that_is_not_there_is_named():
    with pytest.raises(LabError, match="absent: no-such-tool does not exist"):
        workspace.run("absent", ["no-such-tool"], log="absent")


def test_an_interrupted_command_does_not_run_on(monkeypatch):
    def interrupt(process, stdin, log_file, started):
        interrupted.append(process)
        raise KeyboardInterrupt

    interrupted: list[subprocess.Popen[str]] = []
    monkeypatch.setattr(workspace, "_wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        workspace.run("long", ["sleep", "60"], log="long")
    assert interrupted[0].returncode == -signal.SIGTERM


def test_the_tail_of_a_log_shows_what_a_progress_bar_shows_last(tmp_path):
    log = tmp_path / "log"
    log.write_text("start\n\n10 %\r50 %\r100 %\n")
    assert workspace.tail(log) == "start\n100 %"


def test_a_daemon_starts_once_and_is_known_by_another_process():
    daemon = Daemon("sleeper", ["sleep", "60"])
    daemon.start()
    try:
        pid = daemon.pid
        daemon.start()
        assert daemon.pid == pid
        assert Daemon("sleeper", ["sleep", "60"]).pid == pid
        assert pid is not None
        assert os.getsid(pid) == pid
    finally:
        daemon.stop()
    assert not daemon.running()
    assert not daemon.pid_file.exists()


def test_a_pid_that_names_another_process_now_is_not_the_daemon():
    daemon = Daemon("old", ["sleep", "60"])
    workspace.RUN.mkdir()
    daemon.pid_file.write_text(f"{os.getpid()} 1\n")
    assert not daemon.running()
    daemon.stop()
    assert not daemon.pid_file.exists()


def test_a_daemon_that_ignores_sigterm_is_killed(tmp_path):
    ready = tmp_path / "ready"
    daemon = Daemon("stubborn", ["sh", "-c", f"trap '' TERM; touch {ready}; while :; do sleep 0.05; done"])
    daemon.start()
    wait_for(ready)
    daemon.stop(timeout=0.2)
    assert not daemon.running()


def test_what_a_killed_daemon_left_behind_is_stopped_too(tmp_path):
    child_pid = tmp_path / "child"
    daemon = Daemon(
        "parent", ["sh", "-c", f"sleep 60 & echo $! >{child_pid}.new; mv {child_pid}.new {child_pid}; wait"]
    )
    daemon.start()
    wait_for(child_pid)
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGKILL)
    child = int(child_pid.read_text())
    daemon.stop()
    deadline = time.monotonic() + 5
    while workspace._start_time(child) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_daemon_that_ends_at_once_says_why(monkeypatch):
    monkeypatch.setattr(workspace, "START_CHECK", 2.0)
    daemon = Daemon("broken", [sys.executable, "-c", "import sys; sys.exit('no such port')"])
    with pytest.raises(LabError, match=r"(?s)broken exited with status 1 .*no such port"):
        daemon.start()
    assert not daemon.running()


def test_the_hash_of_inputs_changes_with_content_name_and_mode(tmp_path):
    folder = tmp_path / "inputs"
    folder.mkdir()
    file = folder / "a"
    file.write_text("1")
    seen = {inputs_hash(folder), inputs_hash(folder, extra="go1.25")}
    assert inputs_hash(folder) in seen
    file.write_text("2")
    seen.add(inputs_hash(folder))
    file.chmod(0o755)
    seen.add(inputs_hash(folder))
    file.rename(folder / "b")
    seen.add(inputs_hash(folder))
    assert len(seen) == 5
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "b.pyc").write_text("")
    assert inputs_hash(folder) in seen


def test_a_missing_input_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        inputs_hash(tmp_path / "absent")
