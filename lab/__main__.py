"""`python -m lab`: an AWS-shaped cloud on this machine, and the program of this clone run on it."""

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

from lab import containers, host, image, parts, report, stack, vendors
from lab.engine import build
from lab.preview import commands, engine
from lab.workspace import LOGS, ROOT, STATE, Daemon, LabError, say, tail

MACHINE_IMAGE = STATE / "machine-image"
"""A file that holds the tag of the image of which new machines are made. The cloud reads it, every `up` writes it."""

CLOUD = Daemon("cloud", [sys.executable, "-m", "lab.cloud", "--image", str(MACHINE_IMAGE)])
CLOUD_START_TIMEOUT = 60.0  # seconds
CLOUD_STOP_TIMEOUT = 120.0  # seconds; it takes away every machine first

KNOWN_CLOUD = STATE / "known-cloud"
"""Which run of the cloud the stack's state belongs to: its memory ends with its process."""

MEMORY_WITH_GITLAB = 12
"""GiB: 8 for GitLab's own package (docs.gitlab.com/install/requirements), 4 for the rest of the lab."""

INTERRUPTED = 130  # exit status


def main(command_line: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    arguments = _parser().parse_args(command_line)
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where a login shell of a plain user, or su, does not look
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
        description="An AWS-shaped cloud on this machine, and the program of this clone run on it by the real engine.",
        epilog="LAB_ENGINE=official uses the installed pulumi and its published plugins (untried). "
        f"Everything is kept below {STATE.relative_to(ROOT)}, logs in {LOGS.relative_to(ROOT)}.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], what: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        added.set_defaults(command=run)
        return added

    command("up", up, "start the lab and run pulumi up on it; can be repeated and interrupted")
    added = command(
        "preview", preview, "show what up would do, and what the stack costs; needs no machines and no account"
    )
    added.add_argument("--state", type=Path, metavar="FILE", help="the state to begin with, as `state` wrote it")
    added.add_argument("stack", nargs="?", default=stack.STACK, metavar="STACK", help="the lab's own unless given")
    added = command("preview-diff", preview_diff, "show as Markdown what this clone's files change on a stack")
    added.add_argument("stack", metavar="STACK", help="whose Pulumi.STACK.yaml is taken, of both versions")
    added.add_argument("base", metavar="BASE", help="the commit that made the stack, for example origin/main")
    added = command("state", save_state, "write the state that a stack of this clone would have, without making it")
    added.add_argument("stack", metavar="STACK", help="whose Pulumi.STACK.yaml is taken")
    added.add_argument("file", type=Path, metavar="FILE", help="where to write it")
    command("status", status, "show machines, balancers, volumes, flows, and which part is real or played")
    added = command("outputs", outputs, "show the stack's outputs")
    added.add_argument("name", nargs="?", metavar="NAME", help="only this one")
    added.add_argument("--show-secrets", action="store_true", help="show secret outputs in clear")
    added.add_argument("--json", action="store_true", help="show all of them in JSON, as pulumi stack output does")
    added = command("ssh", ssh, "open a shell on a machine, or run a command on it")
    added.add_argument("role", metavar="ROLE", help="server, registry or runner")
    added.add_argument("run", nargs="*", metavar="-- COMMAND", help="what to run instead of a shell")
    added = command("logs", logs, "show the first boot of a machine, or a log of the lab itself")
    added.add_argument("role", metavar="ROLE", help="server, registry or runner; or a log: " + _log_names())
    command("down", down, "take everything away: machines, cloud, state; keeps what was built")
    return parser


def up(_: argparse.Namespace) -> None:
    """Tools, engine, image, vendors, cloud, `pulumi up`; then what a person wants to know."""
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
    """Of the lab's stack against the lab when it is up; else of a throw-away stack against an API of its own."""
    with _alone():
        host.ensure(host.ENGINE_TOOLS)
        if arguments.stack == stack.STACK and arguments.state is None and CLOUD.running():
            stack.clear_stale()
            stack.preview()
        else:
            commands.preview(arguments.stack, arguments.state)


def preview_diff(arguments: argparse.Namespace) -> None:
    """Nothing but the Markdown goes to standard output."""
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
    elif arguments.name in found:
        say(str(found[arguments.name]))
    else:
        raise LabError(f"there is no output {arguments.name}; there are: {', '.join(sorted(found))}")


def ssh(arguments: argparse.Namespace) -> None:
    """Becomes ssh itself: its exit status, its signals."""
    machine = report.machine(arguments.role)
    if machine["public_ip"] is None:
        raise LabError(f"{machine['name']} has no public address")
    # Machines come and go under the same addresses, and all of them are on this host.
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "IdentitiesOnly=yes"]
    command = ["ssh", "-F", "none", "-i", str(stack.PRIVATE_KEY)]
    command += [argument for option in options for argument in ("-o", option)]
    os.execvp("ssh", [*command, f"ec2-user@{machine['public_ip']}", *arguments.run])


def logs(arguments: argparse.Namespace) -> None:
    file = LOGS / f"{arguments.role}.log"
    if file.exists():
        say(file.read_text(errors="replace"))
        return
    machine = report.machine(arguments.role)
    say(f"== first boot of {machine['name']}: /var/log/cloud-init-output.log")
    say(containers.exec_in(machine["container"], "cat", "/var/log/cloud-init-output.log"))
    say(f"== the cloud about {machine['name']}: {CLOUD.log_file}")
    marks = (machine["instance_id"], machine["name"])
    lines = CLOUD.log_file.read_text(errors="replace").splitlines()
    say("\n".join(line for line in lines if any(mark in line for mark in marks)))


def down(_: argparse.Namespace) -> None:
    """Every step is tried, whatever became of the one before and of the processes themselves."""
    with _alone():
        owner = _owner()
        if owner not in (None, ROOT):
            say(f"nothing of this clone is up; the lab on this machine is that of {owner}")
            return
        say("taking the lab down …")
        started = time.monotonic()
        failures = []
        for step in (stack.clear_stale, stack.AGENT.stop, _stop_cloud, _stop_engine, stack.forget):
            try:
                step()
            except Exception as error:  # noqa: BLE001, it is shown when every step was tried
                failures.append(str(error))
        if failures:
            raise LabError("\n".join(failures))
        KNOWN_CLOUD.unlink(missing_ok=True)
        _release()
        say(f"the lab is down  {time.monotonic() - started:.0f} s")


def _refuse_without_machines() -> None:
    if reason := host.why_no_machines():
        raise LabError(f"{reason}; make preview works here and shows what would be made")


def _start_cloud() -> None:
    found = report.cloud_status()
    if found is not None and not CLOUD.running():
        raise LabError(f"something else answers at {stack.API}: a lab of another user? It must end first")
    CLOUD.start()
    deadline = time.monotonic() + CLOUD_START_TIMEOUT
    while report.cloud_status() is None:
        if not CLOUD.running() or time.monotonic() > deadline:
            raise LabError(f"the cloud does not answer\n{tail(CLOUD.log_file)}\n(whole log: {CLOUD.log_file})")
        time.sleep(0.1)


def _match_stack_and_cloud() -> None:
    """The cloud forgets with its process, the state can be deleted: neither is of use without the other."""
    this_cloud = CLOUD.pid_file.read_text()
    if stack.resources():
        if KNOWN_CLOUD.exists() and KNOWN_CLOUD.read_text() != this_cloud:
            say("the cloud that held this stack's resources has ended, and they with it: the stack starts anew")
            stack.forget()
    else:
        found = report.cloud_status()
        if found and (found["machines"] or found["volumes"] or found["balancers"]):
            say("the cloud holds machines that no stack knows of: it starts anew")
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
def _alone() -> Iterator[None]:
    """One command at a time changes a clone's lab."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("another command is at work on this lab: wait until it has ended") from None
        yield


def _owner_file() -> Path:
    """Names the clone whose lab is on this machine: addresses and names are fixed, so there can be only one."""
    return Path("/run" if os.geteuid() == 0 else tempfile.gettempdir(), "gitlab-lab.owner")


def _owner() -> Path | None:
    try:
        return Path(_owner_file().read_text().strip())
    except FileNotFoundError:
        return None


def _claim() -> bool:
    """Make the machine's one lab this clone's; whether it was not before. Raises LabError when it is another's."""
    owner = _owner()
    if owner == ROOT:
        return False
    if owner is not None:
        if (owner / STATE.name).is_dir():
            raise LabError(f"the lab of {owner} is on this machine, and there can be only one: run make down there")
        _owner_file().unlink()  # that clone is gone
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
