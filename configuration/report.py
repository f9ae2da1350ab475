"""The wire format of programs/acceptance_checks: the task it reads and the report it prints, in JSON lines."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from configuration.checks import CHECKS, Check, Endpoints
from programs.acceptance_checks.outcomes import printable


def task(
    endpoints: Endpoints,
    checks: Iterable[Check],
    *,
    patience: int | None = None,
    show_progress: bool = False,
    more: Mapping[str, object] | None = None,
) -> str:
    """The task in JSON: the endpoints, the checks to run in order, and `more` keys that they need.

    `patience` caps the seconds to wait for each check. With `show_progress`, the output is for people: a line for each
    check as it passes, and the report at the end if all have passed.
    """
    limited = [
        {**asdict(check), "limit": check.limit if patience is None else min(check.limit, patience)} for check in checks
    ]
    document = {"endpoints": asdict(endpoints), "checks": limited, "show_progress": show_progress, **(more or {})}
    return json.dumps(document, sort_keys=True)


def findings(report: str) -> list[dict[str, Any]]:
    """The lines of the report about checks: `check` (its id), `state` (ok, broken, off or deferred), `seconds`,
    `detail`, and `cause` if the check failed and distinguishes causes.
    """
    lines = [_with_current_key(parsed(line)) for line in report.splitlines()]
    return [line for line in lines if "check" in line]


def parsed(line: str) -> dict[str, Any]:
    """One line of JSON printed by a machine, with every string made printable. Raises ValueError for anything else."""
    return dict(json.loads(line, object_pairs_hook=lambda pairs: {printable(name): _clean(of) for name, of in pairs}))


def _clean(value: object) -> object:
    # Maps are already clean: json builds the innermost ones first.
    if isinstance(value, list):
        return [_clean(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def _with_current_key(line: dict[str, Any]) -> dict[str, Any]:
    # Until the next minor version: after `up --target`, a stack's state may contain a report of the previous version.
    return {"check": line["hop"], **line} if "hop" in line else line


def facts(report: str) -> dict[str, Any]:
    """The facts in a report of the registry's machine."""
    return {key: value for line in report.splitlines() for key, value in parsed(line).get("facts", {}).items()}


def results(reports: Sequence[str]) -> list[dict[str, Any]]:
    """Title and seconds of every check that passed, in the order of the list; the stack output `acceptance`."""
    seconds: Mapping[str, float] = {
        finding["check"]: finding["seconds"]
        for report in reports
        for finding in findings(report)
        if finding["state"] == "ok"
    }
    return [
        # `hop` is the former name of `check`. Deprecated: it is removed in the next minor version.
        {"check": check.title, "hop": check.title, "seconds": seconds[check.id]}
        for check in CHECKS
        if check.id in seconds
    ]


@dataclass(frozen=True)
class PushedImage:
    """The image that a pipeline pushed: `name` is group/project/image:tag, without the registry's host."""

    name: str
    digest: str


def pushed_image(report: str) -> PushedImage:
    """The pushed image in a report. Raises ValueError if it contains none."""
    for finding in findings(report):
        if finding["check"] == "push" and "@" in finding["detail"]:
            name, _, digest = finding["detail"].partition("@")
            return PushedImage(name, digest)
    raise ValueError("no image was pushed")
