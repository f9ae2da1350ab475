"""The files, tests and settings that the documentation mentions exist."""

import ast
import functools
import json
import re
from pathlib import Path

import pytest

from configuration import gitlab_settings
from recovery.copy_checks import HOUR, IMAGE, IMAGE_LIMIT, LIMITS, MINUTE
from tests.engine import PROJECT
from tools import docs_tables, registry_listings

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| (?P<id>[SRGD]\d) \|.*\| `(?P<file>[^`]+)` \| `(?P<test>[^`]+)` \|$", re.MULTILINE)
ROWS = list(ROW.finditer((ROOT / "docs/walkthroughs.md").read_text()))


AWS_ROW = re.compile(r"^\| A(?P<id>\d+) \|.*\| `(?P<test>[^`]+)` \| (`(?P<wrong>[^`]+)`|\N{EN DASH}) \|$", re.MULTILINE)
AWS_ROWS = list(AWS_ROW.finditer((ROOT / "docs/aws.md").read_text()))


@functools.cache
def known_tests(folder: str = "tests") -> set[str]:
    return {
        node.name
        for path in (ROOT / folder).glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


def test_every_step_of_the_walkthroughs_has_its_row():
    steps = {"S": 7, "R": 6, "G": 9, "D": 4}
    expected = [f"{letter}{number}" for letter, count in steps.items() for number in range(1, count + 1)]
    assert [row["id"] for row in ROWS] == expected


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_a_row_names_a_file_and_a_test_that_exist(row):
    assert (ROOT / row["file"]).is_file()
    assert row["test"] in known_tests()


def test_every_trap_of_aws_names_a_test_that_exists():
    assert [int(row["id"]) for row in AWS_ROWS] == list(range(1, 40))
    assert {row["test"] for row in AWS_ROWS} <= known_tests()


def test_every_trap_that_the_lab_can_set_names_the_test_in_which_a_wrong_program_fails():
    assert [int(row["id"]) for row in AWS_ROWS if not row["wrong"]] == [16]
    assert {row["wrong"] for row in AWS_ROWS if row["wrong"]} <= known_tests("tests/e2e")


def test_the_table_of_faults_is_that_of_their_tests():
    lines = docs_tables.FAULTS.shown().splitlines()
    rows = [tuple(cell.strip() for cell in line.strip("|").split(" | "))[:3] for line in lines[2:]]
    assert rows == [(fault.what, fault.sees, fault.heals) for fault in docs_tables.faults()]


def test_the_table_of_checks_is_that_of_the_list():
    assert docs_tables.CHECKS.shown() == docs_tables.CHECKS.text()


def test_the_table_of_who_reaches_what_is_that_of_the_flows():
    assert docs_tables.REACHABILITY.shown() == docs_tables.REACHABILITY.text()


def threats() -> list[list[str]]:
    section = (ROOT / "SECURITY.md").read_text().split("\n## Threats and controls\n")[1].split("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]


THREATS = threats()


@pytest.mark.parametrize("threat", THREATS, ids=[row[0] for row in THREATS])
def test_every_threat_has_its_control_and_tests_that_exist(threat):
    _, control, tests = threat
    assert control
    named = re.findall(r"`(\w+)`", tests)
    assert named
    assert set(named) <= known_tests() | known_tests("tests/e2e") | known_tests("lab/tests")


def test_the_table_of_a_drills_checks_is_that_of_the_checks_with_their_limits():
    section = (ROOT / "docs/backups.md").read_text().split("### What is checked", 1)[1].split("\n### ", 1)[0]
    rows = re.findall(r"^\| `([\w-]+)` \| .+ \| (\d+) (min|h) \|$", section, re.MULTILINE)
    limits = [(name, int(number) * {"min": MINUTE, "h": HOUR}[unit]) for name, number, unit in rows]
    assert limits == [*(each for checks in LIMITS.values() for each in checks.items()), (IMAGE, IMAGE_LIMIT)]


@pytest.mark.needs("docker-registry")
def test_what_the_registry_stores_is_told_in_the_tools_own_words():
    shown = registry_listings.listings()
    for listing, asked in zip(shown, registry_listings.rerun_listings(), strict=True):
        remedy = f"outdated: run python -m tools.registry_listings ({listing.command})"
        assert listing.lasting == asked.lasting, remedy
    commands = {listing.command.split()[1] for listing in shown if listing.command.startswith("registry-tree ")}
    assert commands == {"ls", "show", "history", "du", "reclaim", "verify"}


def test_the_table_of_what_a_new_gitlab_is_set_to_names_every_setting_and_its_page():
    table = (ROOT / "docs/operations.md").read_text().split("## Secure by default", 1)[1].split("\n## ", 1)[0]
    rows = [row for row in table.splitlines() if row.startswith("| `")]
    for setting in gitlab_settings.IN_A_NEW_GITLAB:
        name = re.sub(r"^throttle_protected_paths(?=_(requests|period))", "...", setting.name)
        [row] = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        value = json.dumps(setting.value)
        assert f"`{value}`" in row.split("|")[2]
        assert setting.page in row.split("|")[3]


def test_the_page_of_settings_is_that_of_the_project_file():
    assert docs_tables.SETTINGS.shown() == docs_tables.SETTINGS.text(), "make settings-table"
    assert set(re.findall(r"^\| `(\w+)`", docs_tables.SETTINGS.shown(), re.MULTILINE)) == set(PROJECT["config"])
    assert set(docs_tables.SECTIONS) | set(docs_tables.FURTHER_READING) <= set(PROJECT["config"])
