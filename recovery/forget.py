"""The command `forget-backups`: deletes the snapshots of a stack that no longer exists, once their locks have ended."""

import argparse
from collections.abc import Sequence

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from recovery import catalogue, confirmation, leftovers, stack
from recovery.catalogue import Snapshot
from recovery.errors import RecoveryError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser("forget-backups", help="delete the unlocked snapshots of a stack without machines")
    stack.add_arguments(parser)
    confirmation.add_argument(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Delete the unlocked snapshots and list the others. Returns the exit status."""
    target = stack.read(chosen)
    ec2 = target.client("ec2")
    if machines := leftovers.machines(ec2, target.tag):
        raise RecoveryError(
            f"{target.tag} still has the machines {', '.join(machines)}, which take backups and delete expired ones. "
            f"First: make destroy STACK={target.name}"
        )
    found = catalogue.snapshots(ec2, target.tag)
    locked = [each for each in found if each.locked_until]
    unlocked = [each for each in found if not each.locked_until]
    print(f"{target.tag} has {len(found)} snapshots in {target.region}, of which {len(locked)} are locked.")
    if unlocked:
        print("They are deleted for ever:" if not locked else "The others are deleted for ever:")
        print("\n".join(f"  {described(each)}" for each in unlocked))
        confirmation.confirm(target.name, yes=chosen.yes)
    failures = [failure for each in unlocked if (failure := _delete(ec2, each))]
    print(f"{len(unlocked) - len(failures)} snapshots deleted.")
    if locked:
        print("Locked; run this again when the locks have ended:")
        print("\n".join(until(locked)))
    if failures:
        raise RecoveryError("; ".join(failures))
    return 0


def until(locked: Sequence[Snapshot]) -> list[str]:
    """Locked snapshots with the times from which on they can be deleted, the first one first."""
    by_end = sorted((each.locked_until, each) for each in locked if each.locked_until)
    return [f"  {ends:%Y-%m-%d %H:%M} UTC  {described(each)}" for ends, each in by_end]


def described(snapshot: Snapshot) -> str:
    """A snapshot in a list."""
    return f"{snapshot.id}  {snapshot.pair}  {snapshot.role}  {snapshot.size} GiB"


def _delete(ec2: leftovers.Client, snapshot: Snapshot) -> str | None:
    """Delete a snapshot. Returns what failed."""
    try:
        ec2.delete_snapshot(SnapshotId=snapshot.id)
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidSnapshot.NotFound":
            return str(error)
    return None
