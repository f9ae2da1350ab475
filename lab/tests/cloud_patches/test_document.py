"""docs/moto.md describes all errors of moto that the lab corrects, and describes them correctly."""

import inspect
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import moto
import pytest

from lab.cloud import constraints, idempotency, patches, permissions
from lab.cloud.patches import instances, state
from lab.cloud.patches.correction import corrections
from lab.tests.cloud import over_http, settle
from lab.tests.moto_document import EACH, ONCE, ROWS, SECTIONS, TEXT, as_published, value

LAYERS: tuple[Callable[..., Any], ...] = (constraints.constrained, idempotency.idempotent, permissions.Permissions)
"""Corrections in front of moto."""
CORRECTIONS = [*(each for subject in patches.SUBJECTS for each in corrections(subject)), *LAYERS]
BEFORE_MOTO = [each.__name__ for each in LAYERS]
GIVEN_NOTHING = BEFORE_MOTO[:-1]
"""The last one needs policies, which the lab gets in another way than AWS: test_cloud_permissions.py."""
OF_SECTION = {row.section: row for row in ROWS}
LONGEST = 12  # lines


def place(correction):
    file = inspect.getsourcefile(correction)
    assert file
    return file.partition("/lab/cloud/")[2], correction.__name__


def title(section):
    row = OF_SECTION.get(section.number)
    return row.function if row else f"section {section.number}"


def test_every_correction_has_a_row_and_every_row_is_of_a_correction():
    assert sorted((row.file, row.function) for row in ROWS) == sorted(map(place, CORRECTIONS))


def test_every_row_has_a_section_or_is_the_labs_own_and_every_section_a_row():
    assert [section.number for section in SECTIONS] == [*filter(None, OF_SECTION)] == [*range(1, len(SECTIONS) + 1)]
    assert len(SECTIONS) == len(re.findall(r"^## \d", TEXT, re.MULTILINE))
    assert all(row.upstream.startswith("the lab's own: ") for row in ROWS if not row.section)


def test_a_correction_names_the_issues_that_its_row_names():
    issue = re.compile(r"getmoto/moto#(\d+)\s+\((\w+)\)")
    named = {place(each): set(issue.findall(each.__doc__ or "")) for each in CORRECTIONS}
    assert named == {(row.file, row.function): row.issues for row in ROWS}


def test_the_document_is_of_the_moto_that_runs():
    assert f"(https://github.com/getmoto/moto) {moto.__version__}," in TEXT


def test_what_is_named_of_motos_source_is_there():
    named: dict[str, set[str]] = {}
    for names, file in re.findall(r"`([\w.]+)`[^`]* in `moto/([\w/]+\.py)`", TEXT):
        named.setdefault(file, set()).update(names.split("."))
    assert named
    for file, names in named.items():
        source = Path(moto.__file__).parent / file
        assert names - set(re.findall(r"\w+", source.read_text())) == set(), source


def test_every_reproduction_is_short():
    assert [section.number for section in SECTIONS if section.code.count("\n") > LONGEST] == []


@pytest.fixture(scope="module")
def once():
    """The names defined by the document's first lines, with moto in this process."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(state, "growth_delay", timedelta(seconds=20))
        context.setattr(state, "validation_delay", timedelta())
        context.setattr(state, "snapshot_delay", timedelta(seconds=20))
        context.setattr(instances, "PROFILE_DELAY", 0)
        yield from _once()


@pytest.fixture(scope="module")
def over_http_once():
    """The same with the lab's API, including the corrections in front of moto."""
    with over_http() as api, pytest.MonkeyPatch.context() as context:
        context.setenv("AWS_ENDPOINT_URL", api)
        yield from _once()


def _once():
    names: dict[str, Any] = {}
    exec(ONCE, names)
    yield names
    names["mock"].stop()


def answered(section, names):
    names["mock"].reset()
    names = dict(names)
    exec(EACH, names)
    return value(section.code, names)


@pytest.mark.parametrize("section", SECTIONS, ids=title)
def test_moto_as_it_is_published_answers_as_described(once, section):
    row = OF_SECTION[section.number]
    with as_published():
        found = answered(section, once)
    assert found != section.aws, f"moto is fixed: delete {row.function} in lab/cloud/{row.file}, its row and section"
    assert found == section.moto


@pytest.mark.parametrize("section", [each for each in SECTIONS if title(each) not in BEFORE_MOTO], ids=title)
def test_moto_corrected_answers_as_aws(once, section):
    assert answered(section, once | {"settle": settle}) == section.aws


@pytest.mark.parametrize("section", [each for each in SECTIONS if title(each) in GIVEN_NOTHING], ids=title)
def test_what_corrects_moto_from_before_it_answers_as_aws(over_http_once, section):
    assert answered(section, over_http_once) == section.aws
