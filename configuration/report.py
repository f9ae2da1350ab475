"""The wire format of programs/acceptance_checks: the task it reads, and the report it prints, JSON lines."""

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
    """The task in JSON: the endpoints, the checks to make in order, and what `more` keys they need.

    `patience` is the most seconds to wait for one check, where its own limit is more. With `show_progress` people read
    the output: a line for each check as it passes, and the report at the end when all have passed.
    """
    limited = [
        {**asdict(check), "limit": check.limit if patience is None else min(check.limit, patience)} for check in checks
    ]
    document = {"endpoints": asdict(endpoints), "checks": limited, "show_progress": show_progress, **(more or {})}
    return json.dumps(document, sort_keys=True)


def findings(report: str) -> list[dict[str, Any]]:
    """The report's lines about checks: `check` (its id), `state` (ok, broken or deferred), `seconds`, `detail`."""
    lines = [_with_current_key(parsed(line)) for line in report.splitlines()]
    return [line for line in lines if "check" in line]


def parsed(line: str) -> dict[str, Any]:
    """One line of JSON that a machine has printed, with every text in it printable. Raises ValueError for another."""
    return dict(json.loads(line, object_pairs_hook=lambda pairs: {printable(name): _clean(of) for name, of in pairs}))


def _clean(value: object) -> object:
    # A map is clean: json makes the innermost first.
    if isinstance(value, list):
        return [_clean(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def _with_current_key(line: dict[str, Any]) -> dict[str, Any]:
    # A stack's state may hold a report of the version before, as with `up --target`; until the next minor version.
    return {"check": line["hop"], **line} if "hop" in line else line


def facts(report: str) -> dict[str, Any]:
    """The facts of a report by the registry's machine."""
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
        # `hop` is the former name of `check`, deprecated: it goes with the next minor version.
        {"check": check.title, "hop": check.title, "seconds": seconds[check.id]}
        for check in CHECKS
        if check.id in seconds
    ]


@dataclass(frozen=True)
class PushedImage:
    """What a pipeline has pushed: `name` is group/project/image:tag, without the registry's host."""

    name: str
    digest: str


def pushed_image(report: str) -> PushedImage:
    """The image that a report names. Raises ValueError when it names none."""
    for finding in findings(report):
        if finding["check"] == "push" and "@" in finding["detail"]:
            name, _, digest = finding["detail"].partition("@")
            return PushedImage(name, digest)
    raise ValueError("no image was pushed")
