"""The list of checks, its wire format, and the program that runs them, tested against each other."""

import ast
import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from configuration import checks, report
from configuration.flows import Place
from configuration.remote_step import PROGRAMS, payload_line, script
from configuration.zipapp import build_zipapp
from programs.acceptance_checks import backup_checks, messages, outcomes, server_checks, update_checks
from programs.acceptance_checks.outcomes import FailedCheckError, Measured, NotApplicable, Result
from programs.acceptance_checks.table import CHECKS
from tests.check_runs import ENDPOINTS, Output, check_from, run_group


def test_every_check_has_its_limit_its_message_and_its_remedy():
    assert len(set(checks.BY_ID)) == len(checks.CHECKS)
    for check in checks.CHECKS:
        assert check.limit >= 0
        assert check.failure.endswith(".")
        assert all([check.remedy, *check.remedies.values()])
        assert check.remedy_for("") == check.remedy
        assert [check.remedy_for(cause) for cause in check.remedies] == [*check.remedies.values()]


def test_the_list_begins_with_the_name_and_ends_on_the_disk_before_what_only_warns():
    assert [check.only_warns for check in checks.CHECKS] == sorted(check.only_warns for check in checks.CHECKS)
    order = [check.id for check in checks.CHECKS if not check.only_warns]
    assert order[0] == "name"
    assert order[-1] == "volume"
    named = ["name", "balancer", "target", "nginx", "readiness", "sign-in", "issuer", "registry", "accepted", "process"]
    named += ["online", "taken", "clone", "job-token", "push", "pull", "volume"]
    assert [check for check in order if check in named] == named


def test_every_check_is_made_from_one_machine():
    seen = [check.id for place in (Place.SERVER, Place.RUNNER, Place.REGISTRY) for check in checks.checks_from(place)]
    seen += [check.id for check in checks.checks_by_pipeline() if check.id != "online"]
    assert sorted([*seen, "volume"]) == sorted(checks.BY_ID)


def ids(selected: Iterable[checks.Check]) -> list[str]:
    return [check.id for check in selected]


def test_a_stack_without_backups_has_every_check_but_those_of_backups():
    without = {place: ids(checks.checks_from(place, backup=False)) for place in (Place.SERVER, Place.REGISTRY)}
    assert without == {
        Place.SERVER: ["target", "nginx", "readiness", "server-updates"],
        Place.REGISTRY: ["registry-updates"],
    }
    assert {check.id for check in checks.CHECKS} - set(ids(checks.checks_of(backup=False))) == set(checks.OF_BACKUPS)


def test_the_program_has_a_function_for_every_check_of_the_list():
    assert {group: list(table) for group, table in CHECKS.items()} == {
        "server": ids(checks.checks_from(Place.SERVER)),
        "runner": ids(checks.checks_from(Place.RUNNER)),
        "pipeline": ids(checks.checks_by_pipeline()),
        "registry": ids(checks.checks_from(Place.REGISTRY)),
    }


def test_no_function_is_behind_two_checks_but_those_of_updates_and_backups_on_each_machine():
    functions = [function for table in CHECKS.values() for function in table.values()]
    assert functions.count(update_checks.updates_installed) == 3
    assert functions.count(backup_checks.backup_fresh) == 2
    assert len(set(functions)) == len(functions) - 3


def causes_in_the_program() -> set[str]:
    """The causes of all FailedCheckError of the program."""
    return {
        str(keyword.value.value)
        for path in (PROGRAMS / "acceptance_checks").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "cause" and isinstance(keyword.value, ast.Constant)
    }


def test_every_remedy_belongs_to_a_cause_of_the_program():
    assert {cause for check in checks.CHECKS for cause in check.remedies} <= causes_in_the_program()


@pytest.mark.parametrize("wrong", ["missing", "misnamed"])
def test_a_program_without_a_check_of_the_list_never_passes(monkeypatch, wrong):
    table = dict.fromkeys(ids(checks.checks_from(Place.SERVER)), lambda _: None)
    monkeypatch.setitem(CHECKS, "server", table)
    assert check_from(Place.SERVER).well == ["target", "nginx", "readiness", "server-backup-fresh", "server-updates"]
    monkeypatch.setitem(CHECKS, "server", {"target": table["target"], "readiness": table["readiness"]})
    if wrong == "misnamed":
        monkeypatch.setitem(CHECKS["server"], "ngnix", table["nginx"])
    seen = check_from(Place.SERVER)
    assert (seen.status, seen.stderr) == (2, "Could not check: KeyError: 'nginx'\n")


def test_checks_are_made_in_the_order_of_the_task(monkeypatch):
    backwards = reversed(ids(checks.checks_from(Place.SERVER)))
    monkeypatch.setitem(CHECKS, "server", dict.fromkeys(backwards, lambda _: None))
    assert check_from(Place.SERVER).well == ids(checks.checks_from(Place.SERVER))


# What `up` shows to the user ------------------------------------------------------------------------------------------


def shown_to_people(monkeypatch, *results: str) -> tuple[Output, list[str]]:
    """Run checks as `up` does. Returns the output, and the progress lines."""
    progress: list[str] = []
    monkeypatch.setattr(messages, "progress", progress.append)

    def result(word: str) -> Callable[[Any], Result]:
        def check(_: Any) -> Result:
            if word == "fails":
                raise FailedCheckError("it fails on purpose", final=True)
            return Measured(0.734) if word == "passes" else None

        return check

    names = ids(checks.checks_from(Place.SERVER))
    monkeypatch.setitem(CHECKS, "server", dict(zip(names, map(result, results), strict=True)))
    task = report.task(ENDPOINTS, checks.checks_from(Place.SERVER), show_progress=True)
    return run_group("server", task), progress


def test_a_failing_up_shows_lines_for_people_and_no_json(monkeypatch):
    failed, progress = shown_to_people(monkeypatch, "passes", "fails", "passes", "passes", "passes")
    assert (failed.status, failed.lines) == (1, [])
    assert progress == ["✓ target healthy  0.73 s"]
    assert failed.stderr.splitlines() == [
        "The stack is up but does not work: nginx failed.",
        f"{checks.BY_ID['nginx'].failure} it fails on purpose",
        f"What to do: {checks.BY_ID['nginx'].remedy}",
    ]


HOSTILE = (
    "a\x1b[31mred\x1b[0m b\x1b]0;title\x07c\x1bP1$q\x1b\\d\x9b2Je\x90x\x9cf\x00\x08\x7f\x85\r\ng\x1b]52;c;aGk=\x1b\\h"
)


def test_nothing_that_commands_a_terminal_is_left_of_what_a_machine_says():
    clean = outcomes.printable
    seen = clean(HOSTILE)
    assert not [letter for letter in seen if unicodedata.category(letter) == "Cc"]
    assert seen == "ared bcdef gh"
    assert clean("käse  ✓\tx\n") == "käse  ✓ x"
    assert not [letter for letter in clean("".join(map(chr, range(256)))) if unicodedata.category(letter) == "Cc"]


def test_what_an_up_shows_of_a_failed_check_commands_no_terminal(monkeypatch):
    def fails(_):
        raise FailedCheckError(HOSTILE, final=True)

    monkeypatch.setitem(CHECKS["server"], "target", fails)
    seen = run_group("server", report.task(ENDPOINTS, checks.checks_from(Place.SERVER), show_progress=True))
    assert seen.status == 1
    assert "ared bc" in seen.stderr
    assert not [letter for letter in seen.stderr if unicodedata.category(letter) == "Cc" and letter != "\n"]


def test_a_report_in_a_stacks_state_commands_no_terminal():
    text = json.dumps({"check": "push", "state": "ok", "seconds": 1.0, "detail": f"p/i:1{HOSTILE}@sha256:ab\x1b[2J"})
    assert report.pushed_image(text).digest == "sha256:ab"
    assert not [letter for letter in report.pushed_image(text).name if unicodedata.category(letter) == "Cc"]


def test_an_up_that_could_not_check_shows_no_json(monkeypatch):
    monkeypatch.setattr(messages, "progress", lambda _: None)
    monkeypatch.setitem(CHECKS, "server", {})
    seen = run_group("server", report.task(ENDPOINTS, checks.checks_from(Place.SERVER), show_progress=True))
    assert (seen.status, seen.lines) == (2, [])
    assert seen.stderr == "Could not check: KeyError: 'target'\n"


def test_an_up_whose_checks_pass_shows_them_and_returns_the_same_report(monkeypatch):
    passed, progress = shown_to_people(monkeypatch, "passes", "passes", "passes", "passes", "passes")
    assert len(progress) == 5
    assert [line["check"] for line in passed.lines[:-1]] == ids(checks.checks_from(Place.SERVER))
    assert "checked_at" in passed.lines[-1]


def test_an_up_shows_a_check_that_only_warns_goes_on_and_does_not_call_it_passed(monkeypatch):
    warned, progress = shown_to_people(monkeypatch, "passes", "passes", "passes", "passes", "fails")
    assert (warned.status, warned.stderr) == (0, "")
    check = checks.BY_ID["server-updates"]
    assert progress[-1] == f"! {check.title}: {check.failure} it fails on purpose What to do: {check.remedy}"
    passed = report.results(["\n".join(map(json.dumps, warned.lines))])
    titles = [check.title for check in checks.checks_from(Place.SERVER)]
    assert [each["check"] for each in passed] == titles[:-1]


def test_what_follows_a_check_that_only_warns_is_still_checked(monkeypatch):
    def fails(_: Any) -> Result:
        raise FailedCheckError("old")

    monkeypatch.setitem(CHECKS, "server", {"server-updates": fails, "target": lambda _: None})
    task = report.task(ENDPOINTS, [checks.BY_ID["server-updates"], checks.BY_ID["target"]])
    seen = run_group("server", task)
    assert [(line["check"], line["state"]) for line in seen.lines[:-1]] == [
        ("server-updates", "broken"),
        ("target", "ok"),
    ]


def test_the_doctor_gets_the_findings_of_a_failing_run(monkeypatch):
    monkeypatch.setattr(messages, "progress", pytest.fail)
    monkeypatch.setitem(CHECKS["server"], "target", lambda _: None)
    monkeypatch.setattr(server_checks, "through_nginx", lambda: "")
    seen = check_from(Place.SERVER)
    assert [(line["check"], line["state"]) for line in seen.lines] == [("target", "ok"), ("nginx", "broken")]


def test_a_failing_step_of_an_up_prints_lines_for_people_alone(tmp_path):
    program = build_zipapp(PROGRAMS / "acceptance_checks")
    nobody = replace(ENDPOINTS, balancer_address="127.0.0.9")
    task = report.task(nobody, checks.checks_from(Place.RUNNER), patience=0, show_progress=True)
    text = script("run_checks.sh").replace("/usr/libexec/platform-python", sys.executable)
    done = subprocess.run(
        ["bash", "-c", f"exec 3>&1 4>&2\n{text}", "run_checks", "runner"],
        input=payload_line(program) + payload_line(task),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    passed, failed = done.stderr.splitlines()[:2]
    assert re.fullmatch(r"✓ name resolves  \d\.\d\d s", passed)
    assert failed == "The stack is up but does not work: load balancer answers failed."


# The wire format ------------------------------------------------------------------------------------------------------


def test_a_task_gives_each_check_its_own_patience_or_less():
    hurried = json.loads(report.task(ENDPOINTS, checks.CHECKS, patience=13))
    assert {check["id"]: check["limit"] for check in hurried["checks"]} == {
        check.id: min(check.limit, 13) for check in checks.CHECKS
    }


def test_the_result_of_an_up_is_every_check_with_its_seconds_in_the_order_of_the_list():
    reports = [
        '{"check": "volume", "state": "ok", "seconds": 0.3, "detail": ""}',
        """{"check": "target", "state": "deferred", "seconds": 0, "detail": ""}
        {"check": "nginx", "state": "ok", "seconds": 0.1, "detail": ""}
        {"check": "target", "state": "ok", "seconds": 9.5, "detail": ""}
        {"checked_at": "now"}""",
    ]
    assert report.results(reports) == [
        {"check": "target healthy", "hop": "target healthy", "seconds": 9.5},
        {"check": "nginx", "hop": "nginx", "seconds": 0.1},
        {"check": "image on the volume", "hop": "image on the volume", "seconds": 0.3},
    ]


def test_a_check_that_is_off_has_not_passed():
    off = '{"check": "certificate", "state": "off", "seconds": 0.0, "detail": "external_url is http"}'
    passed = '{"check": "name", "state": "ok", "seconds": 0.5, "detail": ""}'
    assert [each["check"] for each in report.results([f"{passed}\n{off}"])] == ["name resolves"]


def test_a_check_that_does_not_apply_is_off_and_an_up_shows_no_line_for_it(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(messages, "progress", shown.append)
    monkeypatch.setitem(CHECKS["server"], "target", lambda _: NotApplicable("not here"))
    seen = run_group("server", report.task(ENDPOINTS, [checks.BY_ID["target"]], show_progress=True))
    assert (seen.status, shown) == (0, [])
    assert (seen["target"]["state"], seen["target"]["detail"]) == ("off", "not here")


@pytest.mark.parametrize(("cause", "remedy"), [("a", "Do a."), ("b", "Do b."), ("", "Do this."), ("c", "Do this.")])
def test_a_failure_is_reported_with_its_cause_and_the_remedy_for_it(monkeypatch, cause, remedy):
    def fails(_: Any) -> Result:
        raise FailedCheckError("it fails on purpose", final=True, cause=cause)

    monkeypatch.setitem(CHECKS["server"], "target", fails)
    check = replace(checks.BY_ID["target"], remedy="Do this.", remedies={"a": "Do a.", "b": "Do b."})
    seen = run_group("server", report.task(ENDPOINTS, [check]))
    assert seen.stderr.endswith(f"\nWhat to do: {remedy}\n")
    assert seen["target"].get("cause", "") == cause
    shown: list[str] = []
    monkeypatch.setattr(messages, "progress", shown.append)
    run_group("server", report.task(ENDPOINTS, [replace(check, only_warns=True)], show_progress=True))
    assert shown[-1].endswith(f" What to do: {remedy}")


def test_a_report_of_the_version_before_is_understood():
    before = '{"hop": "push", "state": "ok", "seconds": 0.5, "detail": "group/image:7@sha256:ab"}'
    assert report.results([before]) == [{"check": "push", "hop": "push", "seconds": 0.5}]
    assert report.pushed_image(before).name == "group/image:7"


@pytest.mark.parametrize("path", sorted((PROGRAMS / "acceptance_checks").glob("*.py")), ids=lambda path: path.name)
def test_the_program_is_written_in_python_3_6_and_needs_only_the_standard_library(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    nodes = list(ast.walk(tree))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names - {"dataclasses", "graphlib", "tomllib"}
    assert not re.search(r"capture_output|text=True|:=|removeprefix", path.read_text())
