"""The verdict on a restored copy, with stubs for its machines."""

import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from configuration.flows import Place
from doctor_ssh import CheckError, StepResult
from recovery import copy_checks
from recovery.catalogue import Pair, Snapshot
from recovery.copy_checks import IMAGE, LIMITS, Verdict, check_copy
from recovery.errors import RecoveryError

STARTED = datetime.datetime(2026, 11, 27, 23, 0, 5, tzinfo=datetime.UTC)
URL = "https://gitlab-drill.internal"
PUSHED = "gitlab-stack/acceptance/acceptance:7@sha256:" + "ab" * 32
INSPECTION = {"stack": {"external_url": URL, "project": "gitlab-stack/acceptance", "runner_name": "the-runner"}}


def snapshot(role: str) -> Snapshot:
    return Snapshot(
        id=f"snap-{role}",
        role=role,
        stack="gitlab/prod",
        pair="p",
        started=STARTED,
        size=100,
        state="completed",
        encrypted=True,
        keep="hourly",
        locked_until=None,
        region="eu-central-1",
        gitlab_version="17.10.4",
        registry_version="4.15.2",
        drilled="",
    )


PAIR = Pair("p", snapshot("server"), snapshot("registry"))


class Copy:
    """The machines of a healthy copy, instead of doctor_ssh.Machines."""

    def __init__(self) -> None:
        facts = {"facts": {"newest_event": "2026-11-27 22:59:58.5", "canary": PUSHED}}
        self.lines: dict[str, list[dict[str, Any]]] = {
            **{place: [self.line(check) for check in LIMITS[place]] for place in LIMITS},
            "find_image": [self.line("volume")],
        }
        self.lines[Place.SERVER].append(facts)
        self.status = 0
        self.errors = ""
        self.asked: list[tuple[str, str, Sequence[str]]] = []
        self.task: dict[str, Any] = {}
        self.closed = False
        self.options: Mapping[str, Any] = {}
        self.deadline = 0.0
        self.interrupt: Callable[[], None] = lambda: None

    @staticmethod
    def line(check: str, state: str = "ok", detail: str = "") -> dict[str, Any]:
        return {"check": check, "state": state, "seconds": 1.5, "detail": detail}

    def change(self, place: str, check: str, *lines: dict[str, Any]) -> None:
        self.lines[place] = [each for each in self.lines[place] if each.get("check") != check] + list(lines)

    def __call__(self, inspection: Mapping[str, Any], deadline: float, **options: Any) -> "Copy":
        self.options, self.deadline = options, deadline
        return self

    def run(self, place: Place, step: str, arguments: Sequence[str], payload: Sequence[Any] = ()) -> StepResult:
        self.interrupt()
        self.asked.append((place, step, arguments))
        if payload:
            self.task = json.loads(payload[1])
        return StepResult(self.lines[step if step == "find_image" else place], self.status, self.errors)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def copy(monkeypatch) -> Copy:
    copy = Copy()
    monkeypatch.setattr(copy_checks, "Machines", copy)
    return copy


def verdict(url: str = URL) -> Verdict:
    return check_copy(INSPECTION, PAIR, external_url=url)


def failed(found: Verdict) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if not check.passed}


def test_a_copy_without_a_failed_check_passes_and_every_check_is_listed(copy):
    found = verdict()
    assert found.passed
    assert [check.name for check in found.checks] == [*LIMITS[Place.SERVER], *LIMITS[Place.REGISTRY], IMAGE]
    assert found.rpo == datetime.timedelta(seconds=6.5)
    assert found.table().endswith("All checks of the copy passed.")
    assert set(copy.task["limits"]) == {name for each in LIMITS.values() for name in each}
    assert "Silent" in copy.task["console"] or "silent" in copy.task["console"]
    assert sorted(copy.asked) == [
        (Place.REGISTRY, "find_image", PUSHED.split("@")),
        (Place.REGISTRY, "run_checks", [Place.REGISTRY]),
        (Place.SERVER, "run_checks", [Place.SERVER]),
    ]
    assert copy.closed


def test_a_failed_check_fails_the_copy_and_the_others_are_still_reported(copy):
    copy.change(Place.SERVER, "secrets", copy.line("secrets", "broken", "2 rows cannot be decrypted"))
    found = verdict()
    assert failed(found) == {"secrets": "2 rows cannot be decrypted"}
    assert not found.passed
    assert "✗ secrets " in found.table()
    assert found.table().endswith("Failed: secrets")
    document = json.loads(json.dumps(found.as_json()))
    assert (document["passed"], document["newestEventSeconds"]) == (False, 6.5)
    [listed] = [each for each in document["checks"] if not each["passed"]]
    detail = "2 rows cannot be decrypted"
    assert listed == {"name": "secrets", "machine": "server", "passed": False, "seconds": 1.5, "detail": detail}


def test_a_check_without_a_result_fails(copy):
    copy.change(Place.REGISTRY, "images")
    copy.errors = "Killed"
    assert failed(verdict()) == {"images": "no result: Killed"}


def test_a_machine_that_does_not_answer_fails_all_its_checks(copy):
    copy.lines[Place.SERVER] = []
    found = failed(verdict())
    assert set(found) == {*LIMITS[Place.SERVER], IMAGE}
    assert found["silence"] == "no result: no answer in time"


def test_a_machine_on_which_a_step_runs_is_not_checked(copy):
    copy.lines[Place.REGISTRY], copy.status = [], 75
    assert failed(verdict())["images"] == "no result: a step of pulumi up is running"


def test_an_unknown_state_does_not_pass(copy):
    copy.change(Place.SERVER, "lfs", copy.line("lfs", "off"))
    assert set(failed(verdict())) == {"lfs"}


@pytest.mark.parametrize("status", [0, 1])
def test_an_image_that_is_not_found_fails(copy, status):
    copy.lines["find_image"] = []
    copy.errors = "the pushed image is missing"
    assert failed(verdict()) == {IMAGE: f"{PUSHED}: the pushed image is missing"}


def test_without_a_pipeline_before_the_backup_no_image_is_expected(copy):
    copy.change(Place.SERVER, "job-log", copy.line("job-log", detail="skipped: no pipeline"))
    copy.lines[Place.SERVER].append({"facts": {"canary": None}})
    found = verdict()
    assert found.passed
    assert found.checks[-1].detail == "skipped: no pipeline"
    copy.change(Place.SERVER, "job-log", copy.line("job-log", "broken", "the log names no image"))
    assert set(failed(verdict())) == {"job-log", IMAGE}


@pytest.mark.parametrize(
    ("event", "age"), [(None, None), ("2026-11-27 22:00:05", 3600.0), ("2026-11-27 23:01:00", 0.0)]
)
def test_the_age_of_the_newest_event_is_relative_to_the_backup(copy, event, age):
    copy.lines[Place.SERVER].append({"facts": {"newest_event": event}})
    found = verdict().rpo
    assert (None if found is None else found.total_seconds()) == age


def test_terminal_sequences_of_the_copy_are_not_shown(copy):
    copy.change(Place.SERVER, "lfs", copy.line("lfs", "broken", "bad\x1b[2J\nname"))
    assert failed(verdict()) == {"lfs": "bad name"}


def test_all_checks_together_can_be_limited(copy):
    check_copy(INSPECTION, PAIR, external_url=URL, limit=7200)
    assert copy.deadline - time.monotonic() == pytest.approx(7200, abs=60)
    check_copy(INSPECTION, PAIR, external_url=URL)
    assert copy.deadline - time.monotonic() > 24 * 3600


def test_another_stack_is_not_checked(copy):
    with pytest.raises(RecoveryError, match="is not the copy"):
        verdict("https://gitlab.example.com")
    assert not copy.asked


def test_without_a_key_the_reason_is_reported(monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise CheckError("the SSH agent does not hold the key")

    monkeypatch.setattr(copy_checks, "Machines", refuse)
    with pytest.raises(RecoveryError, match="SSH agent"):
        verdict()


def test_an_interrupted_caller_ends_the_steps_and_keeps_its_own_signals(copy):
    def interrupt() -> None:
        raise KeyboardInterrupt

    copy.interrupt = interrupt
    with pytest.raises(KeyboardInterrupt):
        verdict()
    assert copy.closed
    assert copy.options == {"handle_signals": False}
