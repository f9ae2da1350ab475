"""The command line of gitlab-backup-volume.

Exit status: 0 done, 1 failed, 75 not started because another program holds the lock, 77 not permitted by AWS, and no
snapshot taken.
"""

import argparse
import signal
import sys
from typing import List, NoReturn, Optional

from . import backup, machine
from .backup import Backups
from .ec2 import Ec2, Snapshot
from .errors import DONE, FAILED, BackupError
from .metadata import credentials

COLUMNS = ("pair", "role", "snapshot", "state", "kept", "age", "GiB", "version", "reason")


def parser() -> argparse.ArgumentParser:
    """The command-line parser."""
    top = argparse.ArgumentParser(
        prog="gitlab-backup-volume",
        description="Takes, lists and deletes snapshots of this machine's data volume.",
        epilog="Exit status: 0 done, 1 failed, 75 not started because the machine is busy, 77 not permitted by AWS.",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    now = commands.add_parser("now", help="freeze the volume, take a snapshot, lock it, delete expired ones")
    now.add_argument(
        "--reason", default="manual", metavar="TEXT", help="written to the snapshot (default: %(default)s)"
    )
    now.add_argument("--in-step", action="store_true", help="a step of pulumi up runs this; it holds the lock already")
    commands.add_parser("list", help="list the snapshots of all machines of this stack, the newest one first")
    commands.add_parser("prune", help="delete expired snapshots of this machine")
    return top


def main(arguments: Optional[List[str]] = None) -> int:
    """Carry out one command. Returns the exit status."""
    chosen = parser().parse_args(arguments)
    # Python would not thaw the file system before it ends.
    signal.signal(signal.SIGTERM, exit_on_signal)
    try:
        known = machine.configuration()
        if chosen.command == "list":
            for line in table(Ec2(known.region, credentials()).snapshots(known.stack)):
                print(line)
            return DONE
        with machine.locks(in_step=getattr(chosen, "in_step", False)):
            return change(known, chosen)
    except BackupError as error:
        print(f"gitlab-backup-volume {chosen.command}: {error}", file=sys.stderr)
        return error.status


def change(known: machine.Configuration, chosen: argparse.Namespace) -> int:
    """Carry out a command that changes something. Raises BackupError after it was added to the record."""
    try:
        backups = Backups(known, Ec2(known.region, credentials()))
        if chosen.command == "prune":
            backups.discard_unfinished()
            print(f"{len(backups.prune())} snapshots deleted")
            return DONE
        taken = backups.take(chosen.reason)
    except BackupError as error:
        backup.failed(str(error))
        raise
    except OSError as error:
        backup.failed(f"{type(error).__name__}: {error}")
        raise BackupError(str(error)) from None
    print(
        f"snapshot {taken['snapshot']} of {taken['pair']}, locked until {taken['locked_until']}; "
        f"writes were held for {taken['frozen_ms']} ms"
    )
    return DONE


def table(snapshots: List[Snapshot]) -> List[str]:
    """The snapshots as aligned lines."""
    rows = [COLUMNS]
    for snapshot in snapshots:
        version = snapshot.tags.get(f"{'gitlab' if snapshot.role == 'server' else snapshot.role}-version", "")
        reason = snapshot.tags.get("gitlab-reason", "")
        found = (snapshot.pair, snapshot.role, snapshot.id, snapshot.state, snapshot.keep)
        rows.append((*found, backup.age(snapshot.started), str(snapshot.size), version, reason))
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def exit_on_signal(*_: object) -> NoReturn:
    """Exit normally on a signal, so that the file system is thawed."""
    sys.exit(FAILED)
