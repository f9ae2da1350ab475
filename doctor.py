"""The doctor: runs the checks of configuration/checks.py on a stack and reports the first one that fails.

    pulumi stack output --json --show-secrets --stack STACK | python doctor.py [--quick] [--json] [--within SECONDS]

It needs the stack's outputs, an OpenSSH client, access to port 22 of the machines and, unless sshPrivateKey is set, an
SSH agent. It runs the same checks as the acceptance at the end of `pulumi up`, on all machines at once, but never while
a step of `up` is running. It changes nothing, except that the acceptance's pipeline runs in its own project; `--quick`
skips the pipeline.

Exit status: 0 if all checks passed, 1 if a check failed, 2 if some checks could not run, for any reason.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from configuration import acceptance_project, checks, gitlab_settings, report
from configuration.checks import CHECKS, NEEDS_A_TOKEN, Check, Endpoints
from configuration.flows import MACHINES, Place
from configuration.remote_step import PROGRAMS, payload_line, script
from configuration.zipapp import build_zipapp
from doctor_ssh import LOCKED, NO_CONNECTION, CheckError, Machines, Process, StepResult, send
from programs.acceptance_checks.outcomes import printable
from validation import supported_versions

PASSED, BROKEN, COULD_NOT_CHECK = 0, 1, 2

TIME_LIMIT = 180  # seconds for all checks: GitLab's console takes up to 45, the pipeline's two jobs about as long
QUICK_TIME_LIMIT = 20  # seconds for all checks without the pipeline
PATIENCE = 13  # seconds for one check: the load balancer's health checks run every ten
CLEANUP = 5  # seconds reserved for the machines to revoke a token and to report

POSITION = {check.id: position for position, check in enumerate(CHECKS)}


@dataclass(frozen=True)
class Finding:
    """The result of one check. `state` is ok, broken, unseen or off; `seconds` is None if the check did not run. It has
    a `cause` if it failed and the check distinguishes causes.
    """

    check: Check
    state: str
    seconds: float | None = None
    detail: str = ""
    cause: str = ""

    @property
    def remedy(self) -> str:
        """What to do about a failure."""
        return self.check.remedy_for(self.cause)


class Examination:
    """Runs the checks of one stack on the machines that can be reached; `quick` skips the pipeline."""

    def __init__(self, inspection: Mapping[str, Any], machines: Machines, *, quick: bool) -> None:
        self._endpoints = Endpoints(**inspection["stack"])
        self._image = inspection["acceptanceImage"]
        self._tags = inspection.get("acceptanceTags", ())  # missing in stacks of earlier versions
        self._backup = inspection.get("backup", False)  # missing in stacks of earlier versions
        self._machines = machines
        self._more = {"within": machines.time_left() - CLEANUP, "security_updates": inspection.get("securityUpdates")}
        # Compressed, because an unresponsive machine reads nothing: the initial input must fit into a pipe's buffer.
        self._program = build_zipapp(PROGRAMS / "acceptance_checks", compressed=True)
        self._without_pipeline = "" if self._image else "acceptancePipeline is false"
        if quick:
            self._without_pipeline = "needs the pipeline, which --quick skips"
        self.settings: Mapping[str, object] = {}
        """GitLab's own settings of interest; empty if its console was not queried."""
        self._found: dict[str, Mapping[str, Any]] = {}
        self._errors: dict[str, str] = {}

    def findings(self) -> list[Finding]:
        """Run the checks and return a finding for each of them."""
        # Start early, since GitLab's console is slow; the pipeline itself waits for the start message.
        pipeline = None if self._without_pipeline else self._prepare_pipeline()
        with ThreadPoolExecutor() as pool:
            results = dict(zip(MACHINES, pool.map(self._check_from, MACHINES), strict=True))
        self._errors = {check.id: results[check.place].error for check in CHECKS}
        for result in results.values():
            self._found |= result.found
            self._errors |= result.deferred
        if pipeline:
            self._run_pipeline(pipeline, results[Place.REGISTRY].facts)
        unreachable = {
            place: reason
            for place, result in results.items()
            if (reason := _unreachable(self._machines, place, result))
        }
        return judge(
            checks.checks_of(backup=self._backup),
            self._found,
            self._errors,
            unreachable,
            without_pipeline=self._without_pipeline,
        )

    def _check_from(self, place: Place) -> StepResult:
        task = report.task(
            self._endpoints, checks.checks_from(place, backup=self._backup), patience=PATIENCE, more=self._more
        )
        return self._machines.run(place, "run_checks", [place], [self._program, task])

    def _prepare_pipeline(self) -> Process:
        files, console = acceptance_project.files(self._image, self._tags), script("acceptance_token.rb")
        more = {**self._more, "files": files, "console": console, "settings": gitlab_settings.NAMES}
        task = report.task(self._endpoints, checks.checks_by_pipeline(), more=more)
        return self._machines.start(Place.SERVER, "run_checks", ["pipeline"], [self._program, task])

    def _run_pipeline(self, pipeline: Process, facts: Mapping[str, Any]) -> None:
        missing = [check for check in checks.BEFORE_THE_PIPELINE if not self._passed_or_off(check)]
        if all(POSITION[check] > POSITION["accepted"] for check in missing):
            send(pipeline, payload_line(json.dumps({"facts": facts, "pipeline": not missing})))
        result = self._machines.finish(pipeline)
        self.settings = result.facts.get("settings", {})
        self._found |= result.found
        self._errors |= dict.fromkeys(NEEDS_A_TOKEN, result.error)
        if self._passed("pull"):
            self._find_image(self._found["push"]["detail"].split("@"))

    def _find_image(self, image: Sequence[str]) -> None:
        result = self._machines.run(Place.REGISTRY, "find_image", image)
        self._found |= result.found
        self._errors["volume"] = result.error
        if result.status == BROKEN:
            self._found["volume"] = {"state": "broken", "seconds": None, "detail": result.error}

    def _passed(self, check: str) -> bool:
        return check in self._found and self._found[check]["state"] == "ok"

    def _passed_or_off(self, check: str) -> bool:
        return check in self._found and self._found[check]["state"] in ("ok", "off")


@dataclass(frozen=True)
class Unreachable:
    """A machine on which no check could run. `silent`: it does not respond at all."""

    why: str
    silent: bool


def _unreachable(machines: Machines, place: Place, result: StepResult) -> Unreachable | None:
    where = f"the {place} machine at {machines.address(place)}"
    if result.status == LOCKED:
        return Unreachable(f"a step of pulumi up is running on {where}: wait until it has finished", False)
    if result.status != NO_CONNECTION:
        return None
    if "Host key verification failed" in result.stderr:
        return Unreachable(f"{where} has a different host key than on first contact; nothing was sent to it", False)
    if "Permission denied" in result.stderr:
        return Unreachable(f"{where} does not accept the key pair in the stack's settings", False)
    return Unreachable(f"{where} does not answer over SSH ({result.error})", True)


def judge(
    selected: Sequence[Check],
    found: Mapping[str, Mapping[str, Any]],
    errors: Mapping[str, str],
    unreachable: Mapping[Place, Unreachable],
    *,
    without_pipeline: str,
) -> list[Finding]:
    """A finding for every `selected` check. A silent machine fails the check that represents it, unless all machines
    are silent: then access to them is missing. `without_pipeline` is the reason why no pipeline runs; empty if one
    does.
    """
    silent = {checks.CHECK_OF_SILENT_MACHINE[place]: each.why for place, each in unreachable.items() if each.silent}
    if len(silent) == len(MACHINES):
        silent = {}
    findings: list[Finding] = []
    failed: str | None = None
    for check in selected:
        line = found.get(check.id)
        if check.id in silent:
            finding = Finding(check, "broken", detail=f"{silent[check.id][0].upper()}{silent[check.id][1:]}.")
        elif line is not None:
            finding = Finding(check, line["state"], line["seconds"], line["detail"], line.get("cause", ""))
        elif check.id in NEEDS_A_TOKEN and without_pipeline:
            finding = Finding(check, "off", detail=without_pipeline)
        elif failed:
            finding = Finding(check, "unseen", detail=f"not checked because an earlier check failed: {failed}")
        else:
            finding = Finding(check, "unseen", detail=f"not checked: {_why_unknown(check, errors, unreachable)}")
        if finding.state == "broken" and failed is None:
            failed = check.title
        findings.append(finding)
    return findings


def _why_unknown(check: Check, errors: Mapping[str, str], unreachable: Mapping[Place, Unreachable]) -> str:
    machine = Place.SERVER if check.id in NEEDS_A_TOKEN else check.place
    return unreachable[machine].why if machine in unreachable else errors[check.id]


def status_of(findings: Sequence[Finding]) -> int:
    """The exit status: never PASSED if a check could not run."""
    states = {finding.state for finding in findings}
    return BROKEN if "broken" in states else COULD_NOT_CHECK if "unseen" in states else PASSED


def first_failed(findings: Sequence[Finding]) -> Finding | None:
    """The first failed check, if any."""
    return next((finding for finding in findings if finding.state == "broken"), None)


def as_text(
    findings: Sequence[Finding], settings: Mapping[str, object], warnings: Sequence[str], seconds: float
) -> str:
    """The report for people: all checks, GitLab's settings, then the first failed check and what to do."""
    signs = {"ok": "✓", "broken": "✗", "unseen": "?", "off": "–"}  # noqa: RUF001, an en dash
    width = max(len(finding.check.title) for finding in findings)
    lines = []
    for finding in findings:
        detail = finding.detail if finding.check.only_warns else ""
        notes = {"ok": f"{finding.seconds or 0.0:6.2f} s  {detail}", "broken": "failed"}
        note = notes.get(finding.state, finding.detail)
        lines.append(f"{signs[finding.state]} {finding.check.title:<{width}}  {note}".rstrip())
    setting_lines = ["", gitlab_settings.as_text(settings)] if settings else []
    warning_lines = [f"Warning: {warning}" for warning in warnings]
    return "\n".join([*lines, *setting_lines, "", *_conclusion(findings), *warning_lines, f"{seconds:.0f} s"])


def _conclusion(findings: Sequence[Finding]) -> list[str]:
    failed = first_failed(findings)
    if failed:
        check = failed.check
        return [f"Failed: {check.title}. {check.failure} {failed.detail}", f"What to do: {failed.remedy}"]
    if status_of(findings) == COULD_NOT_CHECK:
        return ["No check failed, but some checks could not run."]
    if any(finding.state == "off" for finding in findings):
        return ["All checks that ran passed; some were skipped."]
    return ["All checks passed."]


def as_json(
    findings: Sequence[Finding], settings: Mapping[str, object], warnings: Sequence[str], seconds: float
) -> str:
    """The report for programs, in JSON."""
    verdict = {PASSED: "well", BROKEN: "broken", COULD_NOT_CHECK: "could not look"}[status_of(findings)]
    failed = first_failed(findings)
    listed = [
        {
            **_id_of(finding.check),
            "title": finding.check.title,
            "state": finding.state,
            "seconds": finding.seconds,
            "detail": finding.detail,
        }
        for finding in findings
    ]
    document = {
        "verdict": verdict,
        "broken": failed
        and {
            **_id_of(failed.check),
            "message": failed.check.failure,
            "cause": failed.cause,
            "remedy": failed.remedy,
        },
        "checks": listed,
        "hops": listed,
        "settings": settings,
        "warnings": list(warnings),
        "seconds": round(seconds, 1),
    }
    return json.dumps(document, indent=2)


def _id_of(check: Check) -> dict[str, str]:
    # `hop` and `hops` are the former names of `check` and `checks`. Deprecated: removed in the next minor version.
    return {"check": check.id, "hop": check.id}


def read_outputs(text: str) -> dict[str, Any]:
    """The stack's output `inspection`. Raises CheckError if `text` does not contain it."""
    try:
        inspection = json.loads(text)["inspection"]
        if isinstance(inspection, dict):
            return inspection
    except (ValueError, KeyError, TypeError):
        raise CheckError(
            "no stack output `inspection` on standard input. It is available after the first successful `up`: "
            "pulumi stack output --json --show-secrets --stack STACK"
        ) from None
    raise CheckError("the stack's output `inspection` is hidden: add --show-secrets")


def main() -> int:
    """Run the doctor. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Reports the first failing check of a stack.")
    parser.add_argument("--quick", action="store_true", help="skip the checks that need a pipeline")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--within",
        type=int,
        metavar="SECONDS",
        help=f"time limit for all checks together; default {TIME_LIMIT}, or {QUICK_TIME_LIMIT} with --quick",
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    deadline = started + (arguments.within or (QUICK_TIME_LIMIT if arguments.quick else TIME_LIMIT))
    try:
        inspection = read_outputs(sys.stdin.read())
        examination = Examination(inspection, Machines(inspection, deadline), quick=arguments.quick)
        findings = examination.findings()
        warnings = supported_versions.warnings(inspection["gitlabVersion"]) if "gitlabVersion" in inspection else []
    except CheckError as reason:
        print(f"doctor: {reason}", file=sys.stderr)
        return COULD_NOT_CHECK
    except FileNotFoundError as missing:
        print(f"doctor: {missing.filename} is not installed", file=sys.stderr)
        return COULD_NOT_CHECK
    except Exception as error:  # noqa: BLE001, Python's own exit status 1 would mean a failed check
        print(f"doctor: could not check: {type(error).__name__}: {printable(str(error))}", file=sys.stderr)
        return COULD_NOT_CHECK
    shown = as_json if arguments.json else as_text
    print(shown(findings, examination.settings, warnings, time.monotonic() - started))
    return status_of(findings)


if __name__ == "__main__":
    sys.exit(main())
