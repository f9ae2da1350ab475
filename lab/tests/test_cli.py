"""The command line: which clone may run a lab, lost state and clouds, and output."""

import fcntl
import os
import sys
from pathlib import Path

import pytest

from lab import __main__ as cli
from lab import host, report, stack
from lab.engine import build
from lab.preview import commands, engine
from lab.workspace import ROOT, LabError, say

STATUS = {
    "api": {"only": False},
    "machines": [
        {
            "instance_id": "i-1",
            "name": "server-lab",
            "private_ip": "10.42.0.10",
            "public_ip": "203.0.113.17",
            "state": "running",
            "container": "gitlab-lab-i-1",
            "cloud_init": "running",
            "error": None,
        }
    ],
    "balancers": [
        {
            "name": "gitlab",
            "address": "203.0.113.16",
            "targets": [{"port": 80, "instance_id": "i-1", "health": "initial", "reason": "x"}],
            "error": None,
        }
    ],
    "flows": [
        {
            "direction": "in",
            "from": "203.0.113.1/32",
            "to": "server",
            "protocol": "tcp",
            "first_port": 22,
            "last_port": 22,
            "why": "administrators",
        }
    ],
    "rejected": [{"from": "203.0.113.1", "to": "203.0.113.17", "protocol": "tcp", "port": 8080}],
    "volumes": [{"id": "vol-1", "size": 10, "zone": "us-east-1a", "status": "attached", "instance": "i-1"}],
}


class Cloud:
    """A daemon that is running or not."""

    name = "cloud"
    command = ("cloud",)
    log_file = pid_file = None
    runs = False

    def __init__(self, log_file, pid_file):
        self.log_file, self.pid_file = log_file, pid_file
        self.stopped = 0

    def running(self):
        return self.runs

    def stop(self, timeout=10.0):
        self.runs = False
        self.stopped += 1


@pytest.fixture(autouse=True)
def lab(tmp_path, monkeypatch):
    """A clone and a host of the test's own, without the tools for machines."""
    state = tmp_path / "clone" / ".lab"
    state.mkdir(parents=True)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setattr(cli, "ROOT", tmp_path / "clone")
    monkeypatch.setattr(cli, "STATE", state)
    monkeypatch.setattr(cli, "LOGS", state / "logs")
    monkeypatch.setattr(cli, "KNOWN_CLOUD", state / "known-cloud")
    monkeypatch.setattr(cli, "_owner_file", lambda: tmp_path / "owner")
    monkeypatch.setattr(cli, "CLOUD", Cloud(tmp_path / "cloud.log", tmp_path / "cloud.pid"))
    monkeypatch.setattr(engine, "daemon", lambda: Cloud(tmp_path / "api.log", tmp_path / "api.pid"))
    monkeypatch.setattr(host, "missing", lambda tools: {"no-such-tool": "no-such-package"})
    monkeypatch.setattr(report, "cloud_status", lambda: None)
    for name in ("clear_stale", "forget", "preview", "up"):
        monkeypatch.setattr(stack, name, lambda: None)
    monkeypatch.setattr(stack, "names", lambda: ["lab"])
    monkeypatch.setattr(stack, "resources", lambda name: [])
    return tmp_path


def run(*arguments):
    return cli.main(arguments)


def test_every_command_explains_itself(capsys):
    for command in ("up", "preview", "preview-diff", "state", "status", "outputs", "ssh", "run", "logs", "down"):
        with pytest.raises(SystemExit) as left:
            run(command, "--help")
        assert left.value.code == 0
        assert f"usage: python -m lab {command}" in capsys.readouterr().out


def test_a_command_for_a_machine_is_taken_whole():
    arguments = cli._parser().parse_args(["ssh", "server", "--", "sudo bash -c 'ls --all'"])
    assert (arguments.role, arguments.run) == ("server", ["sudo bash -c 'ls --all'"])
    assert cli._parser().parse_args(["ssh", "server"]).run == []


def test_where_machines_cannot_run_up_says_why_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(host, "why_no_machines", lambda: "no loop devices for the volumes")
    assert run("up") == 1
    errors = capsys.readouterr().err
    assert errors == "lab: no loop devices for the volumes; make preview works here and shows what would be created\n"


def test_there_is_one_lab_on_a_machine(lab):
    assert cli._claim()
    assert not cli._claim()
    other = lab / "other"
    (other / ".lab").mkdir(parents=True)
    (lab / "owner").write_text(f"{other}\n")
    with pytest.raises(LabError, match=f"the lab of {other} is on this machine.*run make down there"):
        cli._claim()
    (other / ".lab").rmdir()
    assert cli._claim(), "a deleted clone still owns the machine"


def test_down_in_another_clone_touches_nothing(lab, monkeypatch, capsys):
    (lab / "owner").write_text(f"{lab / 'other'}\n")
    monkeypatch.setattr(stack, "forget", lambda: pytest.fail("touched"))
    assert run("down") == 0
    assert "the lab of this clone is not up" in capsys.readouterr().out


def test_down_tries_every_step_and_keeps_its_claim_when_one_fails(lab, monkeypatch, capsys):
    cli._claim()
    done = []

    def fail():
        raise OSError("device is busy")

    monkeypatch.setattr(stack, "clear_stale", fail)
    monkeypatch.setattr(stack, "forget", lambda: done.append("forget"))
    assert run("down") == 1
    assert "lab: device is busy" in capsys.readouterr().err
    assert done == ["forget"]
    assert (lab / "owner").exists()

    monkeypatch.setattr(stack, "clear_stale", lambda: None)
    assert run("down") == 0
    assert not (lab / "owner").exists()


def test_a_second_command_at_the_same_time_is_refused(lab, capsys):
    with (lab / "clone" / ".lab" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run("down") == 1
    assert "another command is using this lab" in capsys.readouterr().err


def test_a_stack_whose_cloud_is_gone_starts_anew(lab, monkeypatch, capsys):
    forgotten = []
    monkeypatch.setattr(stack, "forget", lambda: forgotten.append(True))
    cli.CLOUD.pid_file.write_text("1 1\n")
    cli._match_stack_and_cloud()
    monkeypatch.setattr(stack, "resources", lambda name: ["urn"])
    cli._match_stack_and_cloud()
    assert not forgotten

    cli.CLOUD.pid_file.write_text("2 2\n")
    cli._match_stack_and_cloud()
    assert forgotten == [True]
    assert "starting with an empty stack" in capsys.readouterr().out


def test_a_cloud_whose_stack_is_gone_starts_anew(lab, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(report, "cloud_status", lambda: STATUS)
    monkeypatch.setattr(cli, "_start_cloud", lambda: started.append(True))
    cli.CLOUD.pid_file.write_text("1 1\n")
    cli._match_stack_and_cloud()
    assert started == [True]
    assert "resources that are in no stack" in capsys.readouterr().out


def test_a_cloud_with_resources_of_another_stack_goes_on(lab, monkeypatch):
    monkeypatch.setattr(report, "cloud_status", lambda: STATUS)
    monkeypatch.setattr(cli, "_start_cloud", lambda: pytest.fail("restarted"))
    monkeypatch.setattr(stack, "names", lambda: ["lab", "lab-drill"])
    monkeypatch.setattr(stack, "resources", lambda name: ["urn"] if name == "lab-drill" else [])
    cli.CLOUD.pid_file.write_text("1 1\n")
    cli._match_stack_and_cloud()


def test_something_else_at_the_clouds_address_is_not_taken_for_it(monkeypatch):
    monkeypatch.setattr(report, "cloud_status", lambda: STATUS)
    with pytest.raises(LabError, match="another program already serves"):
        cli._start_cloud()


@pytest.fixture
def previewed(monkeypatch):
    """The requested previews of temporary stacks."""
    asked: list[tuple[str, Path | None]] = []
    monkeypatch.setattr(host, "ensure", lambda tools: None)
    monkeypatch.setattr(commands, "preview", lambda name, state: asked.append((name, state)))
    return asked


def test_a_preview_without_a_lab_is_of_a_throw_away_stack_and_claims_nothing(lab, previewed):
    assert run("preview") == 0
    assert run("preview", "dev") == 0
    assert run("preview", "dev", "--state", "state.json") == 0
    assert previewed == [("lab", None), ("dev", None), ("dev", Path("state.json"))]
    assert not (lab / "owner").exists()


def test_a_preview_of_the_running_labs_stack_is_against_it_and_leaves_it_running(monkeypatch, previewed):
    monkeypatch.setattr(cli.CLOUD, "runs", True)
    assert run("preview") == 0
    assert cli.CLOUD.running()
    assert previewed == []
    assert run("preview", "dev") == 0
    assert previewed == [("dev", None)]


def test_a_difference_is_all_that_goes_to_standard_output(monkeypatch, capsys, previewed):
    def difference(name, base):
        say(f"planning {name} of {base}")
        return "No difference\n"

    monkeypatch.setattr(commands, "preview_diff", difference)
    assert run("preview-diff", "dev", "origin/main") == 0
    assert capsys.readouterr() == ("No difference\n", "planning dev of origin/main\n")


def test_a_difference_that_cannot_be_told_is_an_error_and_not_an_empty_one(monkeypatch, capsys, previewed):
    def difference(name, base):
        raise LabError("the program of `origin/main` does not run")

    monkeypatch.setattr(commands, "preview_diff", difference)
    assert run("preview-diff", "dev", "origin/main") == 1
    assert capsys.readouterr() == ("", "lab: the program of `origin/main` does not run\n")


def test_ssh_goes_to_the_machines_public_address_with_the_labs_key(monkeypatch):
    executed: list[list[str]] = []
    monkeypatch.setattr(report, "cloud_status", lambda: STATUS)
    monkeypatch.setattr(os, "execvp", lambda program, command: executed.append(command))
    run("ssh", "server", "--", "sudo id")
    (command,) = executed
    assert command[:5] == ["ssh", "-F", "none", "-i", str(stack.PRIVATE_KEY)]
    assert command[-2:] == ["ec2-user@203.0.113.17", "sudo id"]


def test_an_unknown_machine_is_answered_with_those_that_are_there(monkeypatch, capsys):
    monkeypatch.setattr(report, "cloud_status", lambda: STATUS)
    assert run("ssh", "database") == 1
    assert capsys.readouterr().err == "lab: no machine is named database-lab; the machines are: server-lab\n"


def test_the_machines_of_two_stacks_are_told_apart(monkeypatch):
    drilled = STATUS["machines"][0] | {"instance_id": "i-2", "name": "server-lab-drill"}  # type: ignore[index]
    monkeypatch.setattr(report, "cloud_status", lambda: STATUS | {"machines": [drilled, *STATUS["machines"]]})
    assert report.machine("server")["instance_id"] == "i-1"
    assert report.machine("server", "lab-drill")["instance_id"] == "i-2"
    with pytest.raises(LabError, match="server-lab, server-lab-drill"):
        report.machine("server", "lab-b")


# --- run -------------------------------------------------------------------------------------------------


@pytest.fixture
def agent(monkeypatch):
    """A running cloud, and an agent and a Pulumi that need no tools."""
    monkeypatch.setattr(cli.CLOUD, "runs", True)
    monkeypatch.setattr(stack, "start_agent", lambda: None)
    monkeypatch.setattr(build, "ensure", lambda: Path("/built/pulumi"))


def as_process(*command):
    """The result of `lab run` in a process of its own, which the command replaces."""
    pid = os.fork()
    if pid == 0:
        os._exit(run("run", "--", *command))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.usefixtures("agent")
def test_a_command_has_the_labs_pulumi_and_its_account_and_its_status_is_passed_on(lab, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "the user's")
    written = lab / "variables"
    assert as_process("sh", "-c", f"env >{written}; pwd >>{written}; exit 7") == 7
    lines = written.read_text().splitlines()
    assert any(line.startswith("PATH=/built:") for line in lines)
    assert {"AWS_ACCESS_KEY_ID=lab", "AWS_SECRET_ACCESS_KEY=lab", f"AWS_ENDPOINT_URL={stack.API}"} <= set(lines)
    assert f"PULUMI_BACKEND_URL=file://{stack.BACKEND}" in lines
    assert not [line for line in lines if line.startswith(("AWS_PROFILE", "AWS_REGION"))]
    assert lines[-1] == str(lab / "clone")


@pytest.mark.usefixtures("agent")
def test_commands_run_beside_each_other_and_nothing_else_changes_the_lab_meanwhile(lab):
    started, ended = lab / "started", lab / "ended"
    for file in (started, ended):
        os.mkfifo(file)
    pid = os.fork()
    if pid == 0:
        os._exit(run("run", "--", "sh", "-c", f"echo >{started}; read line <{ended}"))
    started.read_text()
    try:
        assert as_process("true") == 0
        assert run("down") == 1
    finally:
        ended.write_text("\n")
    assert os.waitpid(pid, 0)[1] == 0
    assert run("down") == 0


@pytest.mark.usefixtures("agent")
def test_a_command_that_is_not_there_is_named(capfd):
    assert as_process("no-such-command") == 1
    assert capfd.readouterr().err == "lab: no-such-command: No such file or directory\n"


def test_without_a_lab_no_command_runs(capsys):
    assert run("run", "--", "true") == 1
    assert capsys.readouterr().err == "lab: the lab is not up: run make up\n"


def test_without_a_lab_there_is_nothing_to_show(lab, capsys):
    (lab / "owner").write_text("/srv/other\n")
    assert run("status") == 1
    assert "the lab is not up: run make up; the lab of /srv/other is on this machine" in capsys.readouterr().err


def test_an_interruption_is_no_failure_of_the_lab(monkeypatch, capsys):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "down", interrupt)
    assert run("down") == cli.INTERRUPTED
    assert "can be run again" in capsys.readouterr().err


def test_the_overview_names_machines_where_the_cloud_has_ids():
    text = report.overview(STATUS, {"cloud": True, "dockerd": False})
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "dockerd not running" in lines
    assert "server-lab i-1 running 10.42.0.10 203.0.113.17 first boot running" in lines
    assert "203.0.113.16:80 server-lab initial" in lines
    assert "vol-1 10 GiB attached server-lab" in lines
    assert "in 203.0.113.1/32 → server tcp 22 administrators" in lines
    assert "203.0.113.1 → 203.0.113.17 tcp 8080" in lines
    assert {"Real", "Played"} <= set(lines)


def test_the_overview_shows_which_certificate_a_listener_has():
    certificate = {"names": ["git.lab.example.com"], "expires": "2027-06-14T12:00:00+00:00"}
    target = {"port": 443, "instance_id": "i-1", "health": "healthy", "reason": None, "certificate": certificate}
    ssh = {**target, "port": 22, "certificate": None}
    status = {**STATUS, "balancers": [{"name": "gitlab", "address": "203.0.113.16", "targets": [target, ssh]}]}
    lines = [" ".join(line.split()) for line in report.overview(status, {}).splitlines()]
    assert "203.0.113.16:443 server-lab healthy TLS for git.lab.example.com until 2027-06-14" in lines
    assert "203.0.113.16:22 server-lab healthy" in lines


def test_up_ends_with_address_login_and_proof(monkeypatch):
    monkeypatch.setattr(sys, "executable", f"{ROOT}/.venv/bin/python")
    outputs = {
        "externalUrl": "http://203.0.113.16",
        "publicAddresses": {"balancer": "203.0.113.16"},
        "registryHost": "203.0.113.16:5000",
        "acceptance": [{"check": "push", "seconds": 0.44}],
    }
    lines = [" ".join(line.split()) for line in report.summary(outputs).splitlines()]
    assert lines == [
        "GitLab http://203.0.113.16",
        "Log in as root; this shows the first password: make root-password STACK=lab",
        "Registry 203.0.113.16:5000",
        "Acceptance",
        "✓ push 0.44 s",
        "From this machine",
        "curl http://203.0.113.16/",
    ]


def test_changes_of_the_machines_are_said_once(monkeypatch, capsys):
    monkeypatch.setattr(report, "WATCH_INTERVAL", 0.01)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    answers = [STATUS, STATUS, {**STATUS, "machines": [{**STATUS["machines"][0], "cloud_init": "done"}]}]  # type: ignore[index]
    over = []

    def answer():
        if len(answers) == 1:
            over.append(True)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(report, "cloud_status", answer)
    with report.machines_watched():
        while len(over) < 2:
            pass
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "0 s  load balancer gitlab: port 80 to server-lab initial",
        "0 s  machine server-lab: running, first boot running",
        "0 s  machine server-lab: running, first boot done",
    ]
