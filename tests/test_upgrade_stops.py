"""The required stops of a GitLab upgrade, and the PostgreSQL version it needs."""

import pytest

from configuration.upgrade_stops import REQUIRED_STOPS, minimum_postgresql, stops_before


@pytest.mark.parametrize(
    ("version", "stops"),
    [
        ("17.8.7", ()),
        ("17.10.4", ("17.8",)),
        ("17.11.7", ("17.8",)),
        ("18.0.0", ("17.8", "17.11")),
        ("18.2.8", ("17.8", "17.11")),
        ("18.3.0", ("17.8", "17.11", "18.2")),
        ("20.0.0", REQUIRED_STOPS),
    ],
)
def test_the_stops_below_a_version(version, stops):
    assert stops_before(version) == stops


def test_the_stops_are_in_order_of_their_numbers_not_of_their_letters():
    assert list(REQUIRED_STOPS) == sorted(REQUIRED_STOPS, key=lambda stop: tuple(map(int, stop.split("."))))


@pytest.mark.parametrize(("version", "needed"), [("16.11.1", 14), ("17.10.4", 14), ("18.0.0", 16), ("20.1.0", 17)])
def test_the_postgresql_that_a_version_needs(version, needed):
    assert minimum_postgresql(version) == needed
