"""The product's commands about backups on the lab, and the stacks that they create."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import containers, report, stack
from lab.workspace import ROOT, VOLUMES
from tests.e2e import backups
from tests.e2e.operations import Finished, client, eventually, lab

QUOTA = {"ServiceCode": "ec2", "QuotaCode": "L-0263D0A3"}
"""Elastic IP addresses of a region."""
TWO_STACKS = 8  # elastic IP addresses
SETTINGS = ".lab/stack/Pulumi.lab.yaml"
CALLER = "198.51.100.1/32"
"""This machine in the lab's internet."""
DRILL_OF_LAB = ("--stack", stack.STACK, "--settings", str(ROOT / SETTINGS), "--caller", CALLER)
LATER = {"find": 0.1, "fence": 2.0, "up": 40.0, "check": 0.5, "destroy": 10.0}
"""Seconds into a phase at which a command is killed."""
DRILL = f"{stack.STACK}-drill"


def recovery(*arguments: str, program: Path = ROOT) -> Finished:
    """Run `python -m recovery` as on a workstation, of this clone's program by default."""
    command = (
        f"cd {shlex.quote(str(program))} && exec {shlex.quote(sys.executable)} -m recovery {shlex.join(arguments)}"
    )
    return lab("run", "--", "bash", "-c", command)


def drill(*options: str, program: Path = ROOT) -> Finished:
    """Run a drill of the lab's stack."""
    return recovery("drill", *DRILL_OF_LAB, *options, program=program)


def killed(phase: str, *arguments: str) -> None:
    """Run `python -m recovery` and kill it with SIGKILL some seconds after a phase has begun, with nothing else."""
    command = [sys.executable, "-m", "lab", "run", "--", sys.executable, "-m", "recovery", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if line.strip() == f"== {phase}":
                break
        else:
            raise AssertionError("".join(said))
        time.sleep(LATER[phase])
        process.kill()


def damage(snapshot_id: str, command: str) -> None:
    """Run a shell command in the file system of a snapshot, which AWS could only lose as a whole."""
    with backups.mounted(VOLUMES / snapshot_id) as mountpoint:
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=mountpoint, check=True)


def inside(name: str, role: str, command: str) -> str:
    """Run a shell command as root on a machine of a drill, which accepts only the drill's own key."""
    return containers.exec_in(report.machine(role, name)["container"], "bash", "-c", command).strip()


def raise_quota() -> None:
    """Let the account have the elastic addresses of two stacks; as on AWS, a quota that was raised stays."""
    quotas = client("service-quotas")
    if quotas.get_service_quota(**QUOTA)["Quota"]["Value"] < TWO_STACKS:
        quotas.request_service_quota_increase(**QUOTA, DesiredValue=TWO_STACKS)


def take_pair() -> str:
    """Take a backup of both machines now, wait until it is complete, and return its ID."""
    for role in backups.ROLES:
        backups.take(role)
    taken = {backups.record(role)["snapshot"] for role in backups.ROLES}

    def complete() -> bool:
        return all(
            backup.state == "completed"
            for role in backups.ROLES
            for backup in backups.all_of(role)
            if backup.id in taken
        )

    eventually(complete)
    return str(backups.record("server")["pair"])


def left_of(name: str, region: str = "us-east-1") -> list[str]:
    """What AWS still has of a stack, apart from its snapshots and from machines that are terminated."""
    ec2 = client("ec2", region)
    mine = [{"Name": "tag:gitlab-stack", "Values": [f"gitlab/{name}"]}]
    machines = [
        instance["InstanceId"]
        for reservation in ec2.describe_instances(Filters=mine)["Reservations"]
        for instance in reservation["Instances"]
        if instance["State"]["Name"] != "terminated"
    ]
    volumes = [each["VolumeId"] for each in ec2.describe_volumes(Filters=mine)["Volumes"]]
    addresses = [each["PublicIp"] for each in ec2.describe_addresses(Filters=mine)["Addresses"]]
    networks = [each["VpcId"] for each in ec2.describe_vpcs(Filters=mine)["Vpcs"]]
    return [*machines, *volumes, *addresses, *networks]


def on(name: str, role: str, command: str, *, stdin: str | None = None) -> str:
    """Run a shell command as root on a machine of another stack; it must succeed. Returns its output."""
    done = lab("ssh", "--stack", name, role, "--", f"sudo bash -c {shlex.quote(command)}", stdin=stdin)
    assert done.status == 0, done.output
    return done.output.strip()


def snapshots_of(pair: str) -> Sequence[Any]:
    """The two backups of a pair, the server's first.

    The registry's next backup on schedule joins the newest pair, too; the first one is that of the pair.
    """
    return [next(backup for backup in backups.all_of(role) if backup.pair == pair) for role in backups.ROLES]


def outputs(name: str) -> dict[str, Any]:
    """The outputs of another stack."""
    done = lab("run", "--", "pulumi", "stack", "output", "--json", "--show-secrets", "--stack", name)
    assert done.status == 0, done.output
    return dict(json.loads(done.output))
