"""The doctor: walks the hops of configuration/hops.py on a stack as it is now, and names the one that is broken.

    pulumi stack output --json --show-secrets --stack STACK | python doctor.py [--quick] [--json] [--within SECONDS]

It needs the stack's outputs, an OpenSSH client and the way to port 22 of the machines. It looks from all machines at
the same time, with the checks that end every `pulumi up`, and never while one of its steps is at work. Nothing is
changed but what the acceptance's pipeline does in its own project; `--quick` leaves the pipeline out.

Exit status: 0 well, 1 a hop is broken, 2 could not look at all hops, whatever the reason.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configuration import acceptance_project, hops
from configuration.flows import MACHINES, Place
from configuration.remote_step import look_command, payload_line, program, script, step_input

WELL, BROKEN, CANNOT_LOOK = 0, 1, 2

WITHIN = 180  # seconds for everything: GitLab's console takes up to 45, the pipeline's two jobs about as long
QUICK = 20  # seconds for everything but the pipeline
PATIENCE = 13  # seconds for one hop: the balancer checks every ten
DIALLING = 8  # seconds
CLEARING = 5  # seconds that are left to whoever looks, to revoke a token and to say what was seen
LOCKED = 75  # exit status of look_command when a step is at work
NO_CONNECTION = 255  # exit status of ssh


Process = subprocess.Popen[str]


class CannotLook(Exception):
    """Nothing can be said about the stack; the text says why."""


@dataclass(frozen=True)
class Finding:
    """What was seen of one hop. `state` is ok, broken, unseen or off; `seconds` only where it was looked at."""

    hop: hops.Hop
    state: str
    seconds: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Look:
    """What one look has brought: JSON lines of `programs/hops.py`, exit status, and what else was said."""

    lines: list[dict[str, Any]]
    status: int
    said: str

    @property
    def found(self) -> dict[str, dict[str, Any]]:
        """The last word on each hop."""
        return {line["hop"]: line for line in self.lines if "hop" in line and line["state"] != "left"}

    @property
    def left(self) -> dict[str, str]:
        """Hops that a later one decides, and why."""
        return {line["hop"]: line["detail"] for line in self.lines if line.get("state") == "left"}

    @property
    def facts(self) -> dict[str, Any]:
        return {key: value for line in self.lines for key, value in line.get("facts", {}).items()}

    @property
    def why_not(self) -> str:
        """Why there is no word on a hop."""
        told = [line["unseen"] for line in self.lines if "unseen" in line]
        return (told or self.said.splitlines()[-1:] or ["no answer in time"])[-1]


class Machines:
    """The stack's machines by SSH, each held to the host key that was seen at its first contact."""

    def __init__(self, inspection: Mapping[str, Any], folder: Path, deadline: float) -> None:
        self._machines = inspection["machines"]
        self._user = inspection["user"]
        self._deadline = deadline
        self._key = folder / "key"
        self._key.touch(mode=0o600)
        self._key.write_text(inspection["privateKey"].rstrip("\n") + "\n")
        self._known_hosts = folder / "known_hosts"
        lines = [f"{machine['address']} {machine['hostKey']}\n" for machine in self._machines.values()]
        self._known_hosts.write_text("".join(lines))

    def address(self, place: Place) -> str:
        return str(self._machines[place]["address"])

    def time_left(self) -> float:
        """Seconds."""
        return self._deadline - time.monotonic()

    def look(self, place: Place, step: str, arguments: Sequence[str], payload: Sequence[str] = ()) -> Look:
        """Run a step that changes nothing, to its end."""
        return self.finish(self.start(place, step, arguments, payload))

    def start(self, place: Place, step: str, arguments: Sequence[str], payload: Sequence[str]) -> Process:
        """Begin such a step; it can be told more."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": DIALLING,
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "ServerAliveCountMax": 2,
            "ServerAliveInterval": 5,
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": self._known_hosts,
        }
        command = ["ssh", "-F", "none", "-i", str(self._key)]
        command += [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
        command += [f"{self._user}@{self.address(place)}", look_command(step, max(1, int(self.time_left())), arguments)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        tell(process, step_input(script(f"{step}.sh"), payload))
        return process

    def finish(self, process: Process) -> Look:
        """Wait for a step's end, or until there is no time left."""
        try:
            out, said = process.communicate(timeout=max(0.1, self.time_left()))
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, _ = process.communicate()
            status, said = CANNOT_LOOK, "no answer in time"
        return Look([json.loads(line) for line in out.splitlines() if line.startswith("{")], status, said.strip())


def tell(process: Process, text: str) -> None:
    """Give a step more to read, unless it has ended."""
    assert process.stdin
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(text)
        process.stdin.flush()


def examine(inspection: Mapping[str, Any], machines: Machines, *, quick: bool = False) -> list[Finding]:
    """Look at every hop, as far as there is a way to it; a quick look does without the pipeline."""
    stack = hops.Stack(**inspection["stack"])
    within = machines.time_left() - CLEARING
    pipeline = None
    image = inspection["acceptanceImage"]
    left_out = "" if image else "acceptancePipeline is false"
    if quick:
        left_out = "needs the pipeline, which --quick leaves out"
    if not left_out:
        files, console = acceptance_project.files(image), script("acceptance_token.rb")
        task = hops.task(stack, hops.seen_by_pipeline(), within=within, files=files, console=console)
        # At once, since GitLab's console takes long; it starts nothing before it is told to.
        pipeline = machines.start(Place.SERVER, "walk_hops", ["pipeline"], [program("hops.py"), task])

    def look(place: Place) -> Look:
        task = hops.task(stack, hops.seen_from(place), patience=PATIENCE, within=within)
        return machines.look(place, "walk_hops", [place], [program("hops.py"), task])

    with ThreadPoolExecutor() as pool:
        looks = dict(zip(MACHINES, pool.map(look, MACHINES), strict=True))
    found = {hop: line for each in looks.values() for hop, line in each.found.items()}
    why_not = {hop.id: looks[hop.view].why_not for hop in hops.HOPS}
    why_not |= {hop: why for each in looks.values() for hop, why in each.left.items()}
    if pipeline:
        unwell = [hop.id for hop in hops.HOPS if hop.id not in hops.NEEDS_A_TOKEN and not _is_well(found.get(hop.id))]
        if all(BEFORE[hop] > BEFORE["accepted"] for hop in unwell):
            go = {"facts": looks[Place.REGISTRY].facts, "pipeline": not unwell}
            tell(pipeline, payload_line(json.dumps(go)))
        with_token = machines.finish(pipeline)
        found |= with_token.found
        why_not |= dict.fromkeys(hops.NEEDS_A_TOKEN, with_token.why_not)
        if _is_well(found.get("pull")):
            at_disk = machines.look(Place.REGISTRY, "find_image", found["push"]["detail"].split("@"))
            found |= at_disk.found
            why_not["volume"] = at_disk.why_not
            if at_disk.status == BROKEN:
                found["volume"] = {"state": "broken", "seconds": None, "detail": at_disk.why_not}
    unreachable = {place: trouble for place, each in looks.items() if (trouble := _unreachable(machines, place, each))}
    return judge(found, why_not, unreachable, left_out=left_out)


BEFORE = {hop.id: position for position, hop in enumerate(hops.HOPS)}


def _is_well(line: Mapping[str, Any] | None) -> bool:
    return line is not None and line["state"] == "ok"


@dataclass(frozen=True)
class Unreachable:
    """A machine that could not be looked from. `silent`: nothing answers there at all."""

    why: str
    silent: bool


def _unreachable(machines: Machines, place: Place, look: Look) -> Unreachable | None:
    where = f"the {place} machine at {machines.address(place)}"
    if look.status == LOCKED:
        return Unreachable(f"a step of pulumi up is at work on {where}: wait until it has ended", False)
    if look.status != NO_CONNECTION:
        return None
    if "Host key verification failed" in look.said:
        return Unreachable(f"{where} shows another host key than at its first contact; nothing was sent to it", False)
    if "Permission denied" in look.said:
        return Unreachable(f"{where} does not let the key of the stack's settings in", False)
    return Unreachable(f"{where} does not answer by SSH ({look.why_not})", True)


def judge(
    found: Mapping[str, Mapping[str, Any]],
    why_not: Mapping[str, str],
    unreachable: Mapping[Place, Unreachable],
    *,
    left_out: str,
) -> list[Finding]:
    """A finding for every hop. A machine that is silent breaks the hop it stands for, unless none answers: then it is
    the way to them that is missing. `left_out` says why no pipeline was to run; empty when one was.
    """
    silent = {hops.ABOUT[place]: each.why for place, each in unreachable.items() if each.silent}
    if len(silent) == len(MACHINES):
        silent = {}
    findings: list[Finding] = []
    broken: str | None = None
    for hop in hops.HOPS:
        line = found.get(hop.id)
        if hop.id in silent:
            finding = Finding(hop, "broken", detail=f"{silent[hop.id][0].upper()}{silent[hop.id][1:]}.")
        elif line is not None:
            finding = Finding(hop, line["state"], line["seconds"], line["detail"])
        elif hop.id in hops.NEEDS_A_TOKEN and left_out:
            finding = Finding(hop, "off", detail=left_out)
        elif broken:
            finding = Finding(hop, "unseen", detail=f"not looked at because this is broken: {broken}")
        else:
            machine = Place.SERVER if hop.id in hops.NEEDS_A_TOKEN else hop.view
            why = unreachable[machine].why if machine in unreachable else why_not[hop.id]
            finding = Finding(hop, "unseen", detail=f"not looked at: {why}")
        if finding.state == "broken" and broken is None:
            broken = hop.title
        findings.append(finding)
    return findings


def status_of(findings: Sequence[Finding]) -> int:
    """The exit status. Raises nothing: what was not looked at is never well."""
    states = {finding.state for finding in findings}
    return BROKEN if "broken" in states else CANNOT_LOOK if "unseen" in states else WELL


def as_text(findings: Sequence[Finding], seconds: float) -> str:
    """What a person reads: every hop, then the one that is broken and what to do."""
    signs = {"ok": "✓", "broken": "✗", "unseen": "?", "off": "–"}
    width = max(len(finding.hop.title) for finding in findings)
    lines = []
    for finding in findings:
        if finding.state == "ok":
            note = f"{finding.seconds:6.2f} s"
        else:
            note = finding.state if finding.state == "broken" else finding.detail
        lines.append(f"{signs[finding.state]} {finding.hop.title:<{width}}  {note}")
    lines.append("")
    broken = next((finding for finding in findings if finding.state == "broken"), None)
    if broken:
        lines.append(f"Broken: {broken.hop.title}. {broken.hop.broken} {broken.detail}")
        lines.append(f"What to do: {broken.hop.remedy}")
    elif status_of(findings) == CANNOT_LOOK:
        lines.append("Nothing is known to be broken, but not every hop could be looked at.")
    elif any(finding.state == "off" for finding in findings):
        lines.append("Every hop that was looked at is well.")
    else:
        lines.append("Every hop is well.")
    lines.append(f"{seconds:.0f} s")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding], seconds: float) -> str:
    """The same for programs."""
    verdict = {WELL: "well", BROKEN: "broken", CANNOT_LOOK: "could not look"}[status_of(findings)]
    broken = next((finding for finding in findings if finding.state == "broken"), None)
    document = {
        "verdict": verdict,
        "broken": broken and {"hop": broken.hop.id, "message": broken.hop.broken, "remedy": broken.hop.remedy},
        "hops": [
            {
                "hop": finding.hop.id,
                "title": finding.hop.title,
                "state": finding.state,
                "seconds": finding.seconds,
                "detail": finding.detail,
            }
            for finding in findings
        ],
        "seconds": round(seconds, 1),
    }
    return json.dumps(document, indent=2)


def read_outputs(text: str) -> dict[str, Any]:
    """The stack's output `inspection`. Raises CannotLook when it is not in the text."""
    try:
        inspection = json.loads(text)["inspection"]
        if isinstance(inspection, dict):
            return inspection
    except (ValueError, KeyError, TypeError):
        raise CannotLook(
            "no stack output `inspection` on standard input. It is there after the first `up` that went through: "
            "pulumi stack output --json --show-secrets --stack STACK"
        ) from None
    raise CannotLook("the stack's output `inspection` is hidden: add --show-secrets")


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description="Names the hop of a stack that is broken.")
    parser.add_argument("--quick", action="store_true", help="without the pipeline")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--within", type=int, metavar="SECONDS", help=f"for everything; default {WITHIN}, with --quick {QUICK}"
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    deadline = started + (arguments.within or (QUICK if arguments.quick else WITHIN))
    try:
        inspection = read_outputs(sys.stdin.read())
        with tempfile.TemporaryDirectory() as folder:
            findings = examine(inspection, Machines(inspection, Path(folder), deadline), quick=arguments.quick)
    except CannotLook as reason:
        print(f"doctor: {reason}", file=sys.stderr)
        return CANNOT_LOOK
    except FileNotFoundError as missing:
        print(f"doctor: {missing.filename} is not installed", file=sys.stderr)
        return CANNOT_LOOK
    except Exception as error:  # Python's own exit status would be 1, which says that the stack is broken
        print(f"doctor: could not look: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return CANNOT_LOOK
    print((as_json if arguments.json else as_text)(findings, time.monotonic() - started))
    return status_of(findings)


if __name__ == "__main__":
    sys.exit(main())
