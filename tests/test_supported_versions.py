"""The warning about a GitLab version without security fixes."""

import calendar
import datetime

import pytest

from validation.supported_versions import AS_OF, MAINTAINED, RELEASED, fixes_ended, warnings


@pytest.mark.parametrize(
    ("version", "ended"),
    [
        ("16.7.0", "2025-04-17"),
        ("17.8.7", "2025-04-17"),
        ("17.9.2", "2025-05-15"),
        ("17.10.4", "2025-06-19"),
        ("18.9.1", "2026-05-21"),
        ("18.10.0", "2026-06-18"),
        ("18.12.0", "2026-08-20"),
        ("19.3.3", "2026-11-19"),
    ],
)
def test_fixes_end_with_the_third_release_after_it(version, ended):
    assert str(fixes_ended(version)) == ended
    assert f"GitLab {version} has received no security fixes since {ended}" in warnings(version)[0]


@pytest.mark.parametrize("version", [*(f"{each}.0" for each in MAINTAINED), "19.7.0", "20.0.3"])
def test_nothing_is_said_of_a_version_that_gets_fixes_or_is_newer_than_the_table(version):
    assert fixes_ended(version) is None
    assert warnings(version) == []


def test_the_table_has_a_release_on_the_third_thursday_of_every_month_until_its_day():
    months = [(day.year, day.month) for day in RELEASED.values()]
    assert len(set(months)) == len(months) == (months[-1][0] - months[0][0]) * 12 + months[-1][1] - months[0][1] + 1
    for release, day in RELEASED.items():
        assert day.weekday() == calendar.THURSDAY, release
        assert (day.day - 1) // 7 == 2, release
    assert max(RELEASED.values()) <= AS_OF < max(RELEASED.values()) + datetime.timedelta(days=31)


def test_a_warning_names_what_to_upgrade_to():
    assert all(release in warnings("17.10.4")[0] for release in MAINTAINED)
