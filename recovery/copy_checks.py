"""The checks of a drill: that the restored copy is silenced and contains everything that the backup must contain.

They run over SSH, as the doctor's do, after the acceptance of the copy has passed. programs/restored_checks has them.
"""

import dataclasses
import datetime
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from configuration.flows import Place
from configuration.remote_step import PROGRAMS, script
from configuration.zipapp import build_zipapp
from doctor_ssh import LOCKED, CheckError, Machines, StepResult
from programs.acceptance_checks.outcomes import printable
from recovery.catalogue import Pair
from recovery.errors import RecoveryError

MINUTE, HOUR = 60, 3600

LIMITS: Mapping[Place, Mapping[str, int]] = {
    Place.SERVER: {
        "silence": 10 * MINUTE,
        "egress": MINUTE,
        "token-key": MINUTE,
        "contents": 20 * MINUTE,
        "secrets-file": MINUTE,
        "secrets": 2 * HOUR,
        "database": 4 * HOUR,
        "repositories": 8 * HOUR,
        "other-repositories": 2 * HOUR,
        "uploads": 4 * HOUR,
        "lfs": 8 * HOUR,
        "artifacts": 8 * HOUR,
        "secure-files": HOUR,
        "system": 30 * MINUTE,
        "job-log": 10 * MINUTE,
    },
    Place.REGISTRY: {"images": 8 * HOUR, "blobs": MINUTE},
}
"""Time limits of the checks in seconds, in the order in which they run. A volume made from a snapshot is slow at first:
AWS loads each block when it is read for the first time (Amazon EBS User Guide, "Initialize Amazon EBS volumes").
"""
IMAGE, IMAGE_LIMIT = "image", 10 * MINUTE
"""The last check, on the registry's machine: the step find_image."""


@dataclass(frozen=True)
class Outcome:
    """The result of one check; `detail` is what was checked, or what is wrong with what."""

    name: str
    machine: str
    passed: bool
    seconds: float
    detail: str


@dataclass(frozen=True)
class Verdict:
    """The results of all checks. `rpo`: by how much the newest event in the copy is older than the backup."""

    checks: tuple[Outcome, ...]
    rpo: datetime.timedelta | None

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    def table(self) -> str:
        """The checks as aligned lines."""
        width = max(len(check.name) for check in self.checks)
        lines = [
            f"{'✓' if check.passed else '✗'} {check.name:<{width}}  {check.machine:<8}  {check.seconds:8.1f} s  "
            f"{check.detail}".rstrip()
            for check in self.checks
        ]
        failed = [check.name for check in self.checks if not check.passed]
        return "\n".join([*lines, f"Failed: {', '.join(failed)}" if failed else "All checks of the copy passed."])

    def as_json(self) -> dict[str, Any]:
        """The verdict for programs."""
        return {
            "passed": self.passed,
            "newestEventSeconds": self.rpo.total_seconds() if self.rpo is not None else None,
            "checks": [dataclasses.asdict(check) for check in self.checks],
        }


def check_copy(
    inspection: Mapping[str, Any],
    pair: Pair,
    *,
    external_url: str,
    limit: float | None = None,
    limits: Mapping[Place, Mapping[str, int]] = LIMITS,
) -> Verdict:
    """Check the copy with this stack output `inspection`. Raises RecoveryError if its machines cannot be asked at all.

    `external_url` is the copy's address, which must be that of the inspection: no other stack may be checked. A check
    that has no result after `limit` seconds, by default the sum of all time limits, has failed.
    """
    if inspection["stack"]["external_url"] != external_url:
        raise RecoveryError(f"{inspection['stack']['external_url']} is not the copy at {external_url}")
    longest = max(sum(each.values()) for each in limits.values()) + IMAGE_LIMIT
    try:
        machines = Machines(inspection, time.monotonic() + min(longest, limit or longest), handle_signals=False)
    except CheckError as error:
        raise RecoveryError(str(error)) from None
    program, task = restored_checks(), task_of(inspection, limits)

    def check_from(place: Place) -> StepResult:
        return machines.run(place, "run_checks", [place], [program, task])

    # If this is interrupted, the steps are ended first, for which the threads wait.
    with ThreadPoolExecutor() as pool, closing(machines):
        results = dict(zip(limits, pool.map(check_from, limits), strict=True))
        facts = results[Place.SERVER].facts
        outcomes = [each for place, result in results.items() for each in outcomes_of(place, limits[place], result)]
        outcomes.append(_find_image(machines, facts.get("canary"), outcomes))
    return Verdict(tuple(outcomes), newest_event_age(pair.started, facts.get("newest_event")))


def restored_checks() -> bytes:
    """The program that checks a machine of a copy."""
    return build_zipapp(PROGRAMS / "restored_checks", PROGRAMS / "volume_backup", compressed=True)


def task_of(inspection: Mapping[str, Any], limits: Mapping[Place, Mapping[str, int]]) -> str:
    """The input of programs/restored_checks."""
    stack = inspection["stack"]
    merged = {check: seconds for each in limits.values() for check, seconds in each.items()}
    known = {"project": stack["project"], "runner_name": stack["runner_name"], "limits": merged}
    return json.dumps({**known, "console": script("inspect_copy.rb")})


def outcomes_of(place: Place, expected: Iterable[str], result: StepResult) -> list[Outcome]:
    """The outcome of each expected check; one without a result has failed."""
    found = result.found
    why = "a step of pulumi up is running" if result.status == LOCKED else result.error
    outcomes = []
    for name in expected:
        line = found.get(name, {"state": "broken", "seconds": 0.0, "detail": f"no result: {why}"})
        outcomes.append(
            Outcome(name, place.value, line["state"] == "ok", line["seconds"], printable(str(line["detail"])))
        )
    return outcomes


def newest_event_age(started: datetime.datetime, event: str | None) -> datetime.timedelta | None:
    """By how much an event, a time in UTC as PostgreSQL prints it, is older than the backup that started then."""
    if not event:
        return None
    at = datetime.datetime.fromisoformat(event).replace(tzinfo=datetime.UTC)
    return max(started - at, datetime.timedelta(0))


def _find_image(machines: Machines, pushed: str | None, outcomes: Sequence[Outcome]) -> Outcome:
    """The image that the acceptance of the former stack pushed last is on the registry's volume, and intact."""
    if pushed is None:
        # Without a pipeline before the backup, the job's log was not expected either; otherwise its check has failed.
        [log] = [outcome for outcome in outcomes if outcome.name == "job-log"]
        return Outcome(IMAGE, Place.REGISTRY.value, log.passed, 0.0, log.detail)
    result = machines.run(Place.REGISTRY, "find_image", pushed.split("@"))
    line = result.found.get("volume")
    if result.status != 0 or line is None:
        return Outcome(IMAGE, Place.REGISTRY.value, False, 0.0, printable(f"{pushed}: {result.error}"))
    return Outcome(IMAGE, Place.REGISTRY.value, True, line["seconds"], printable(pushed))
