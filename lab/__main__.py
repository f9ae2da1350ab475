"""`python -m lab`: runs an AWS-shaped cloud on this machine, and the program of this clone on it."""

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from lab import containers, host, image, parts, report, stack, vendors
from lab.engine import build
from lab.outside import Outside
from lab.preview import commands, engine
from lab.workspace import LOGS, ROOT, STATE, Daemon, LabError, say, tail

MACHINE_IMAGE = STATE / "machine-image"
"""The file with the tag of the image for new machines. Every `up` writes it, the cloud reads it."""

CLOUD = Daemon("cloud", [sys.executable, "-m", "lab.cloud", "--image", str(MACHINE_IMAGE)])
CLOUD_START_TIMEOUT = 60.0  # seconds
CLOUD_STOP_TIMEOUT = 120.0  # seconds; it removes every machine first

KNOWN_CLOUD = STATE / "known-cloud"
"""The file with the process of the cloud that created the stack's resources, which are lost with that process."""

MEMORY_WITH_GITLAB = 12
"""GiB: 8 for GitLab's own package (docs.gitlab.com/install/requirements), 4 for the rest of the lab."""

INTERRUPTED = 130  # exit status


def main(command_line: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    arguments = _parser().parse_args(command_line)
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # not on the PATH of an ordinary user's login shell or of su
    try:
        arguments.command(arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; the same command can be run again", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab",
        description="Run an AWS-shaped cloud on this machine, and this clone's program on it with the real engine.",
        epilog="LAB_ENGINE=official uses the installed pulumi and its published plugins (not tested). "
        f"All files are in {STATE.relative_to(ROOT)}, logs in {LOGS.relative_to(ROOT)}.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], what: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        added.set_defaults(command=run)
        return added

    command("up", up, "start the lab and run pulumi up on it; can be repeated and interrupted")
    added = command(
        "preview", preview, "show what up would change and what the stack costs; needs no machines and no account"
    )
    added.add_argument("--state", type=Path, metavar="FILE", help="the initial state, as written by `state`")
    added.add_argument("stack", nargs="?", default=stack.STACK, metavar="STACK", help="default: the lab's own stack")
    added = command("preview-diff", preview_diff, "show as Markdown what this clone's files change on a stack")
    added.add_argument("stack", metavar="STACK", help="the stack; Pulumi.STACK.yaml is read in both versions")
    added.add_argument("base", metavar="BASE", help="the commit that created the stack, for example origin/main")
    added = command("state", save_state, "write the state that a stack of this clone would have, without creating it")
    added.add_argument("stack", metavar="STACK", help="the stack, configured in Pulumi.STACK.yaml")
    added.add_argument("file", type=Path, metavar="FILE", help="the file to write")
    command("status", status, "show machines, load balancers, volumes, flows, and which part is real or played")
    added = command("outputs", outputs, "show the stack's outputs")
    added.add_argument("name", nargs="?", metavar="NAME", help="show only this output")
    added.add_argument("--show-secrets", action="store_true", help="show secret outputs in plain text")
    added.add_argument("--json", action="store_true", help="show all outputs as JSON, like pulumi stack output")
    added = command("ssh", ssh, "open a shell on a machine, or run a command on it")
    added.add_argument("role", metavar="ROLE", help="server, registry or runner")
    added.add_argument("run", nargs="*", metavar="-- COMMAND", help="the command to run instead of a shell")
    added.add_argument("--stack", default=stack.STACK, metavar="STACK", help="default: the lab's own stack")
    added = command("run", run, "run a command with the lab's pulumi, AWS credentials and SSH agent")
    added.add_argument("run", nargs="+", metavar="-- COMMAND", help="the command, which runs in the clone's folder")
    added = command("logs", logs, "show the first boot of a machine, or a log of the lab itself")
    added.add_argument("role", metavar="ROLE", help="server, registry or runner; or a log: " + _log_names())
    added.add_argument("--stack", default=stack.STACK, metavar="STACK", help="default: the lab's own stack")
    command("down", down, "remove machines, cloud and state; keep what was built")
    return parser


def up(_: argparse.Namespace) -> None:
    """Prepare tools, engine, image, vendors and cloud, run `pulumi up`, and print the summary."""
    with _alone():
        _refuse_without_machines()
        host.ensure(host.ENGINE_TOOLS | host.MACHINE_TOOLS)
        _refuse_without_machines()
        if parts.gitlab_packages():
            host.ensure_memory(MEMORY_WITH_GITLAB, parts.KNOWN[parts.GITLAB])
        _claim()
        stack.clear_stale()
        build.ensure()
        containers.start()
        MACHINE_IMAGE.write_text(image.ensure())
        vendors.start()
        _start_cloud()
        _match_stack_and_cloud()
        stack.start_agent()
        with report.machines_watched():
            stack.up()
        say(report.summary(stack.outputs()))


def preview(arguments: argparse.Namespace) -> None:
    """Preview the lab's stack on the running lab; otherwise a temporary stack on an API of its own."""
    with _alone():
        host.ensure(host.ENGINE_TOOLS)
        if arguments.stack == stack.STACK and arguments.state is None and CLOUD.running():
            stack.clear_stale()
            stack.preview()
        else:
            commands.preview(arguments.stack, arguments.state)


def preview_diff(arguments: argparse.Namespace) -> None:
    """Print the difference; standard output contains only the Markdown."""
    with _alone(), contextlib.redirect_stdout(sys.stderr):
        host.ensure(host.ENGINE_TOOLS)
        text = commands.preview_diff(arguments.stack, arguments.base)
    print(text, end="")


def save_state(arguments: argparse.Namespace) -> None:
    with _alone():
        host.ensure(host.ENGINE_TOOLS)
        commands.save_state(arguments.stack, arguments.file)


def status(_: argparse.Namespace) -> None:
    found = report.cloud_status() if CLOUD.running() else None
    if found is None:
        owner = _owner()
        elsewhere = f"; the lab of {owner} is on this machine" if owner not in (None, ROOT) else ""
        raise LabError(f"the lab is not up: run make up{elsewhere}")
    names = ("cloud", "dockerd", "vendors-files", "vendors-front", "vendors-registry")
    say(report.overview(found, {name: Daemon(name, []).running() for name in names}))


def outputs(arguments: argparse.Namespace) -> None:
    found = stack.outputs(show_secrets=arguments.show_secrets)
    if not found:
        raise LabError("the stack has no outputs: run make up")
    if arguments.json:
        say(json.dumps(found, indent=2))
    elif arguments.name is None:
        for name, value in found.items():
            say(f"{name}: {value}")
        if "externalUrl" in found:
            say(f"from this machine: {Outside.of(found).curl()}")
    elif arguments.name in found:
        say(str(found[arguments.name]))
    else:
        raise LabError(f"no output is named {arguments.name}; the outputs are {', '.join(sorted(found))}")


def run(arguments: argparse.Namespace) -> None:
    """Replace this process with the command, as `ssh` does. While it runs, it and other `run`s share the lab."""
    if not CLOUD.running():
        raise LabError("the lab is not up: run make up")
    with _lock(fcntl.LOCK_SH) as lock:
        stack.start_agent()
        environment = stack.environment_of_commands()
        os.set_inheritable(lock.fileno(), True)
        os.chdir(ROOT)
        program, *_ = arguments.run
        try:
            os.execvpe(program, arguments.run, environment)
        except OSError as error:
            raise LabError(f"{program}: {error.strerror}") from None


def ssh(arguments: argparse.Namespace) -> None:
    """Replace this process with ssh, which then receives signals and sets the exit status."""
    machine = report.machine(arguments.role, arguments.stack)
    if machine["public_ip"] is None:
        raise LabError(f"{machine['name']} has no public address")
    # Successive machines have the same addresses, and all of them are on this host.
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "IdentitiesOnly=yes"]
    command = ["ssh", "-F", "none", "-i", str(stack.PRIVATE_KEY)]
    command += [argument for option in options for argument in ("-o", option)]
    os.execvp("ssh", [*command, f"ec2-user@{machine['public_ip']}", *arguments.run])


def logs(arguments: argparse.Namespace) -> None:
    file = LOGS / f"{arguments.role}.log"
    if file.exists():
        say(file.read_text(errors="replace"))
        return
    machine = report.machine(arguments.role, arguments.stack)
    say(f"== first boot of {machine['name']}: /var/log/cloud-init-output.log")
    say(containers.exec_in(machine["container"], "cat", "/var/log/cloud-init-output.log"))
    say(f"== the cloud's log about {machine['name']}: {CLOUD.log_file}")
    marks = (machine["instance_id"], machine["name"])
    lines = CLOUD.log_file.read_text(errors="replace").splitlines()
    say("\n".join(line for line in lines if any(mark in line for mark in marks)))


def down(_: argparse.Namespace) -> None:
    """Remove the lab. Every step is tried, even if an earlier one failed or its processes have already ended."""
    with _alone():
        owner = _owner()
        if owner not in (None, ROOT):
            say(f"the lab of this clone is not up; the lab on this machine belongs to {owner}")
            return
        say("tearing the lab down …")
        started = time.monotonic()
        failures = []
        for step in (stack.clear_stale, stack.AGENT.stop, _stop_cloud, _stop_engine, stack.forget):
            try:
                step()
            except Exception as error:  # noqa: BLE001, it is shown after all steps
                failures.append(str(error))
        if failures:
            raise LabError("\n".join(failures))
        KNOWN_CLOUD.unlink(missing_ok=True)
        _release()
        say(f"the lab is down  {time.monotonic() - started:.0f} s")


def _refuse_without_machines() -> None:
    if reason := host.why_no_machines():
        raise LabError(f"{reason}; make preview works here and shows what would be created")


def _start_cloud() -> None:
    found = report.cloud_status()
    if found is not None and not CLOUD.running():
        raise LabError(f"another program already serves {stack.API}: stop it first; it may be another user's lab")
    CLOUD.start()
    deadline = time.monotonic() + CLOUD_START_TIMEOUT
    while report.cloud_status() is None:
        if not CLOUD.running() or time.monotonic() > deadline:
            raise LabError(f"the cloud does not respond\n{tail(CLOUD.log_file)}\n(full log: {CLOUD.log_file})")
        time.sleep(0.1)


def _match_stack_and_cloud() -> None:
    """Discard the stacks' state or the cloud if the other one is gone: neither can be used without the other."""
    this_cloud = CLOUD.pid_file.read_text()
    if any(map(stack.resources, stack.names())):
        if KNOWN_CLOUD.exists() and KNOWN_CLOUD.read_text() != this_cloud:
            say("the cloud was restarted and the stacks' resources are lost: starting with an empty stack")
            stack.forget()
    else:
        found = report.cloud_status()
        if found and (found["machines"] or found["volumes"] or found["balancers"]):
            say("the cloud has resources that are in no stack: restarting the cloud")
            CLOUD.stop(CLOUD_STOP_TIMEOUT)
            _start_cloud()
            this_cloud = CLOUD.pid_file.read_text()
    KNOWN_CLOUD.write_text(this_cloud)


def _stop_cloud() -> None:
    CLOUD.stop(CLOUD_STOP_TIMEOUT)
    engine.daemon().stop()
    if os.geteuid() == 0 and not host.missing(host.MACHINE_TOOLS):
        from lab.cloud.reconciler import remove_everything  # noqa: PLC0415, moto takes a second to import

        remove_everything()


def _stop_engine() -> None:
    if os.geteuid() == 0 and not host.missing(host.MACHINE_TOOLS):
        vendors.stop()
        containers.stop()


@contextlib.contextmanager
def _lock(kind: int) -> Iterator[IO[str]]:
    """Hold the lock of the clone's lab, shared or exclusive. Raises LabError while another command prevents that."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("another command is using this lab: wait until it has finished") from None
        yield lock


def _alone() -> contextlib.AbstractContextManager[IO[str]]:
    """Let only one command at a time change the lab of a clone. Raises LabError while another one runs."""
    return _lock(fcntl.LOCK_EX)


def _owner_file() -> Path:
    """The file with the path of the clone whose lab is on this machine; fixed addresses allow only one lab."""
    return Path("/run" if os.geteuid() == 0 else tempfile.gettempdir(), "gitlab-lab.owner")


def _owner() -> Path | None:
    try:
        return Path(_owner_file().read_text().strip())
    except FileNotFoundError:
        return None


def _claim() -> bool:
    """Claim the host for this clone's lab and return whether that is new. Raises LabError if another clone has it."""
    owner = _owner()
    if owner == ROOT:
        return False
    if owner is not None:
        if (owner / STATE.name).is_dir():
            raise LabError(f"the lab of {owner} is on this machine, which can run only one: run make down there")
        _owner_file().unlink()  # that clone was deleted
    try:
        with _owner_file().open("x") as file:
            file.write(f"{ROOT}\n")
    except FileExistsError:
        raise LabError("another clone has just started its lab on this machine") from None
    return True


def _release() -> None:
    if _owner() == ROOT:
        _owner_file().unlink()


def _log_names() -> str:
    return ", ".join(sorted(file.stem for file in LOGS.glob("*.log"))) or "none yet"


def _terminated(_signal_number: int, _frame: FrameType | None) -> None:
    raise stack.Terminated


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main())
