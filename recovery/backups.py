"""The command `backups`: lists the backups of a stack."""

import argparse
import dataclasses
import datetime
import itertools
import json
from collections.abc import Iterator, Sequence

from programs.volume_backup.backup import age, utc_now
from recovery import catalogue, stack
from recovery.catalogue import Pair, Snapshot

COLUMNS = ("backup", "age", "state", "server GiB", "registry GiB", "GitLab", "kept as", "locked until", "drilled")
HOURLY = "hourly"
"""The default of backupSchedule."""
TWO_HOURS = datetime.timedelta(hours=2)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser("backups", help="list the backups of a stack, the newest one first")
    stack.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the pairs of snapshots as JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """List the backups. Returns the exit status."""
    target = stack.read(chosen)
    found = catalogue.snapshots(target.client("ec2"), target.tag)
    pairs = catalogue.pairs(found)
    if chosen.json:
        print(as_json(pairs))
        return 0
    now = utc_now()
    print("\n".join(table(pairs, now)) if pairs else f"{target.tag} has no backups in {target.region}.")
    for warning in warnings(found, now, target.schedule):
        print(f"Warning: {warning}")
    return 0


def table(pairs: Sequence[Pair], now: datetime.datetime) -> list[str]:
    """The pairs as aligned lines."""
    rows = [COLUMNS, *(_row(pair, now) for pair in pairs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def stale_after(pairs: Sequence[Pair], schedule: str) -> datetime.timedelta:
    """The age from which on the newest backup is too old: twice its interval, as in `backup fresh`. This machine cannot
    evaluate a systemd calendar, so that of another `schedule` than HOURLY is taken from the last complete backups.
    """
    if schedule == HOURLY:
        return TWO_HOURS
    started = [pair.started for pair in pairs if pair.usable][:5]
    intervals = [later - earlier for later, earlier in itertools.pairwise(started)]
    return max(TWO_HOURS, 2 * max(intervals)) if intervals else datetime.timedelta.max


def warnings(snapshots: Sequence[Snapshot], now: datetime.datetime, schedule: str) -> Iterator[str]:
    """What is wrong with a stack's backups."""
    usable = [pair for pair in catalogue.pairs(snapshots) if pair.usable]
    if snapshots and not usable:
        yield "none of the backups is complete."
    elif usable and now - usable[0].started > stale_after(usable, schedule):
        yield f"the newest complete backup is {age(usable[0].started, now)} old (make doctor shows why)."
    for pair in catalogue.incomplete(snapshots):
        yield f"{pair} is not complete: a backup is unfinished for some minutes, or has failed."


def as_json(pairs: Sequence[Pair]) -> str:
    """The pairs for programs."""
    listed = [dataclasses.asdict(pair) | {"usable": pair.usable} for pair in pairs]
    return json.dumps(listed, indent=2, default=datetime.datetime.isoformat)


def _row(pair: Pair, now: datetime.datetime) -> tuple[str, ...]:
    ends = [each.locked_until for each in (pair.server, pair.registry) if each.locked_until]
    return (
        pair.id,
        age(pair.started, now),
        "complete" if pair.usable else "not complete",
        str(pair.server.size),
        str(pair.registry.size),
        pair.server.gitlab_version,
        pair.server.keep,
        # Both snapshots are needed.
        f"{min(ends):%Y-%m-%d %H:%M} UTC" if len(ends) == 2 else "not locked",
        pair.server.drilled or "never",
    )
