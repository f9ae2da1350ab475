"""The command `destroy`: `pulumi destroy`, with what is lost before it, and what is left in AWS after it."""

import argparse
import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configuration import cost
from programs.volume_backup.backup import age, utc_now
from recovery import catalogue, confirmation, leftovers, stack
from recovery.backups import TWO_HOURS
from recovery.catalogue import Snapshot
from recovery.errors import RecoveryError
from recovery.pulumi_cli import Pulumi, exclusive, interruptible
from recovery.stack import Stack
from recovery.sweep import USERS_OF_NETWORKS, sweep, unrecorded

VOLUME = "aws:ebs/volume:Volume"
MACHINE = "aws:ec2/instance:Instance"
RECORD = "aws:route53/record:Record"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser("destroy", help="destroy a stack, and list what is left of it in AWS")
    stack.add_arguments(parser)
    confirmation.add_argument(parser)
    parser.add_argument(
        "--lost-state", action="store_true", help="delete what AWS has of a stack whose state has no resources"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Destroy the stack. Returns the exit status."""
    target = stack.read(chosen)
    with exclusive() as lock, interruptible():
        return destroy(target, Pulumi(target.name, lock=lock), yes=chosen.yes, lost_state=chosen.lost_state)


def destroy(target: Stack, pulumi: Pulumi, *, yes: bool, lost_state: bool = False) -> int:
    """Destroy the stack, after a confirmation unless `yes`. Returns the exit status. Raises RecoveryError if the state
    has no resources but AWS has some, unless `lost_state`.
    """
    ec2 = target.client("ec2")
    resources = pulumi.resources()
    if resources is None:
        raise RecoveryError(f"Pulumi has no stack {target.name}: pulumi stack ls --all lists those of the backend")
    kept = [each for each in resources if keeps(each)]
    known = {each["id"] for each in resources}
    lost = unrecorded(target.client, target.tag, kinds=USERS_OF_NETWORKS, known=known)
    if lost and not resources and not lost_state:
        # A stack of the same name in another backend has the same tag.
        raise RecoveryError(
            f"the state of {target.name} has no resources, but AWS has {', '.join(map(str, lost))} of {target.tag}; "
            "nothing was changed. If they belong to a stack of this name in another backend: pulumi login to that one "
            "(pulumi whoami --verbose shows the current one). If the state is lost, add --lost-state (make: "
            "LOST_STATE=1), which deletes them"
        )
    print("\n".join(plan(resources, catalogue.snapshots(ec2, target.tag), utc_now())))
    print("".join(f"{line}\n" for line in domain(target.name, resources)), end="")
    print("".join(f"Pulumi does not know the stack's {each}, which is deleted, too.\n" for each in lost), end="")
    confirmation.confirm(target.name, yes=yes)
    if lost:
        sweep(target.client, target.tag, kinds=USERS_OF_NETWORKS, known=known)
    if len(resources) > len(kept):
        pulumi.destroy(settings=target.settings, keep_protected=bool(kept))
    print("Comparing with AWS what is left...", flush=True)
    left = leftovers.remaining(target.client, target.tag, {each["id"] for each in kept})
    print("\n".join(result(target, kept, catalogue.snapshots(ec2, target.tag))))
    if left:
        raise RecoveryError(
            f"AWS still has {len(left)} other resources that are tagged as those of {target.tag}:\n  "
            + "\n  ".join(map(str, left))
            + "\nRun this again. Delete them manually if Pulumi does not know them."
        )
    return 0


def keeps(resource: Mapping[str, Any]) -> bool:
    """Whether destroying the stack keeps a resource of its state in AWS."""
    return bool(resource.get("protect") or resource.get("retainOnDelete"))


def plan(
    resources: Sequence[Mapping[str, Any]], snapshots: Sequence[Snapshot], now: datetime.datetime
) -> Iterator[str]:
    """What destroying the stack deletes, what it keeps, and which backup there is."""
    lost = [each for each in resources if not keeps(each)]
    volumes = [each["id"] for each in lost if each["type"] == VOLUME]
    machines = sum(each["type"] == MACHINE for each in lost)
    yield f"Destroying the stack deletes {len(lost)} resources, {machines} of them machines."
    if volumes:
        yield f"Deletion protection is off: the data volumes {' and '.join(volumes)} are deleted with all data."
    if kept := [each["id"] for each in resources if keeps(each)]:
        yield f"Deletion protection keeps {', '.join(kept)}."
    usable = [pair for pair in catalogue.pairs(snapshots) if pair.usable]
    if not usable:
        yield "There is no complete backup."
        return
    yield f"The newest complete backup is {usable[0].id}, {age(usable[0].started, now)} old."
    if now - usable[0].started > TWO_HOURS:
        yield "What was written since then is in no backup."


def domain(name: str, resources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How to keep the domain's A record: the provider deletes it even if it has the address of a restored stack."""
    for each in resources:
        if each["type"] == RECORD and each["outputs"]["type"] == "A" and not keeps(each):
            record = each["outputs"]["name"]
            yield f"The A record of {record} is deleted, even if a restored stack uses it now. If so, first:"
            # Steps depend on it; they are of no use without the stack.
            yield f"  pulumi state delete --yes --target-dependents --stack {name} '{each['urn']}'"
            yield "and afterwards pulumi up of that stack, which recreates the record that renews its certificate."


def result(target: Stack, kept: Sequence[Mapping[str, Any]], snapshots: Sequence[Snapshot]) -> Iterator[str]:
    """What the stack leaves in AWS on purpose."""
    if kept:
        yield f"Kept by deletion protection: {', '.join(each['id'] for each in kept)}."
        yield "docs/operations.md, Destroy, and keep the data, describes how to use or to delete them."
    if not snapshots:
        yield "No snapshots are left."
        return
    oldest, newest = snapshots[-1].started, snapshots[0].started
    yield f"{len(snapshots)} snapshots are left, from {oldest:%Y-%m-%d} to {newest:%Y-%m-%d}."
    ends = [each.locked_until for each in snapshots if each.locked_until]
    if ends:
        yield f"{len(ends)} of them are locked, the last one until {max(ends):%Y-%m-%d}."
    monthly = cost.dollars(cost.snapshots(target.region).monthly)
    yield f"Cost: {monthly} a month if they contain {cost.SNAPSHOTS} GB; AWS charges for each changed block once."
    yield f"To delete those that are not locked: make forget-backups STACK={target.name}"
