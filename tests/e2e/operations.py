"""Operations of the end-to-end tests on the lab, its stack, its machines and its AWS."""

import contextlib
import os
import pty
import select
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml

from lab import stack
from lab.workspace import LOGS, ROOT

ROLES = ("server", "registry", "runner")
OPERATION_TIMEOUT = 900.0  # seconds


@dataclass(frozen=True)
class Finished:
    """The result of a command: status, output of both streams, and duration in seconds."""

    status: int
    output: str
    seconds: float


def lab(*arguments: str, stdin: str | None = None) -> Finished:
    """Run `python -m lab`. The engine's output is also stored in the lab's logs."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "lab", *arguments],
        cwd=ROOT,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if arguments == ("up",):
        _keep(done.stdout)
    return Finished(done.returncode, done.stdout, time.monotonic() - started)


def run_product(
    outputs: str, program: str, *options: str, limit: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of the product that reads a stack's outputs, as JSON with secrets (doctor.py, root_password.py),
    with the lab's SSH agent, for at most `limit` seconds.
    """
    return subprocess.run(
        [sys.executable, program, *options],
        cwd=ROOT,
        env=stack.environment(),
        input=outputs,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )


def on(role: str, command: str, *, stdin: str | None = None) -> Finished:
    """Run a shell command on a machine as an administrator does: over SSH, to the machine's own address."""
    return lab("ssh", role, "--", f"sudo bash -c {shlex.quote(command)}", stdin=stdin)


def must(role: str, command: str, *, stdin: str | None = None) -> str:
    """Run a shell command on a machine, which must succeed. Returns its output."""
    done = on(role, command, stdin=stdin)
    assert done.status == 0, done.output
    return done.output.strip()


class Operation:
    """A running operation of the engine."""

    def __init__(self, *command: str, program: Path | None = None) -> None:
        self._started = time.monotonic()
        self.process = stack.start(*command, program=program, output=subprocess.PIPE)
        self._output: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._output.append(line)

    def said(self) -> str:
        """The output so far."""
        return "".join(self._output)

    def finish(self) -> Finished:
        """Wait until it ends."""
        try:
            status = self.process.wait(OPERATION_TIMEOUT)
        finally:
            self.process.kill()
        # A plugin that outlives a killed engine keeps the pipe open.
        self._reader.join(10)
        output = self.said()
        _keep(output)
        return Finished(status, output, time.monotonic() - self._started)


def setting(key: str) -> str:
    """A setting in Pulumi.lab.yaml, the stack's original settings."""
    return str(yaml.safe_load(stack.SETTINGS.read_text())["config"][f"gitlab:{key}"])


def configure(**settings: str | None) -> None:
    """Set these keys of the stack's settings, or remove those that are None. Private keys are set as secrets."""
    for key, value in settings.items():
        stack.configure(key, value, secret=key.endswith("KeyPem"))


def start_up(*options: str, program: Path | None = None) -> Operation:
    """Start a plain `pulumi up`, by default of this clone's program."""
    return Operation("up", "--yes", "--skip-preview", "--suppress-progress", *options, program=program)


@contextlib.contextmanager
def starting_up(*options: str, program: Path | None = None) -> Iterator[Operation]:
    """Like start_up; an `up` that still runs at the end is killed, and its lock released, so that others can follow."""
    operation = start_up(*options, program=program)
    try:
        yield operation
    finally:
        if operation.process.poll() is None:
            operation.process.kill()
            operation.finish()
            stack.clear_stale()


def up(*options: str, program: Path | None = None) -> Finished:
    """Run a plain `pulumi up`, by default of this clone's program."""
    return start_up(*options, program=program).finish()


def preview(*, program: Path | None = None) -> Finished:
    """Run `pulumi preview`, by default of this clone's program."""
    return Operation("preview", program=program).finish()


def repair(*options: str) -> float:
    """Run `pulumi up` of this clone's program, which must succeed. Returns its seconds."""
    done = up(*options)
    assert done.status == 0, done.output
    return done.seconds


def repeat_acceptance(*options: str, program: Path | None = None) -> Finished:
    """Repeat the acceptance as documented in docs/operations.md; with `program`, in an `up` of that program."""
    return up("--replace", step("server-run-checks"), *options, program=program)


def step(name: str) -> str:
    """URN of a remote step."""
    return _urn(f"command:remote:Command::{name}")


def machine(role: str) -> str:
    """URN of a machine."""
    return _urn(f"aws:ec2/instance:Instance::{role}")


def _urn(ending: str) -> str:
    found = [urn for urn in stack.resources() if urn.endswith(f"${ending}")]
    assert len(found) == 1, f"{ending} is {found}"
    return found[0]


def client(service: str, region: str = "us-east-1") -> Any:
    """A boto3 client for the lab's AWS."""
    return boto3.client(
        service,
        endpoint_url=stack.API,
        region_name=region,
        aws_access_key_id="lab",
        aws_secret_access_key="lab",
    )


def instances() -> list[dict[str, Any]]:
    """Instances that are not terminated."""
    reservations = client("ec2").describe_instances(
        Filters=[{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    )["Reservations"]
    return [instance for reservation in reservations for instance in reservation["Instances"]]


def certificates() -> list[str]:
    """The ARNs of the certificates in AWS Certificate Manager."""
    found = client("acm").list_certificates()["CertificateSummaryList"]
    return [str(certificate["CertificateArn"]) for certificate in found]


def instance_id(role: str) -> str:
    """ID of the current machine with this role."""
    found = [
        instance["InstanceId"]
        for instance in instances()
        for tag in instance["Tags"]
        if tag == {"Key": "Name", "Value": f"{role}-{stack.STACK}"}
    ]
    assert len(found) == 1, f"{role} is {found}"
    return found[0]


def target_health(port: int) -> str:
    """State of the only target on that port of its machine."""
    elb = client("elbv2")
    for group in elb.describe_target_groups()["TargetGroups"]:
        if group["Port"] == port:
            [target] = elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])["TargetHealthDescriptions"]
            return str(target["TargetHealth"]["State"])
    raise AssertionError(f"no target group for port {port}")


def at_a_terminal(*command: str, until: str, seconds: float = 60.0) -> str:
    """The output of an operation of the engine at a terminal, up to that text; then the operation is killed."""
    terminal, its_end = pty.openpty()
    process = stack.start(*command, output=its_end, stdin=its_end)
    os.close(its_end)
    said, deadline = "", time.monotonic() + seconds
    try:
        while until not in said:
            assert time.monotonic() < deadline, said
            if select.select([terminal], [], [], 1.0)[0]:
                said += os.read(terminal, 4096).decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    return said


def eventually(condition: Callable[[], object], seconds: float = 120.0, interval: float = 1.0) -> float:
    """Wait until the condition is true. Returns the seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds:.0f} s"
        time.sleep(interval)
    return time.monotonic() - started


def _keep(display: str) -> None:
    """Store the engine's output, which test_end.py searches for secrets."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / "engine-display.log").open("a") as log:
        log.write(display)
