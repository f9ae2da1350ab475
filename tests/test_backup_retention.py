"""Which backups are kept: examples, and what holds for any schedule, any settings and any interruption."""

import datetime
import random
from itertools import pairwise

import pytest

from programs.volume_backup.ec2 import Snapshot
from programs.volume_backup.retention import DAILY, HOURLY, KINDS, WEEKLY, Keep, expired, kind_of_next
from tests.effort import EFFORT

KEEP = Keep(24, 14, 8)
MONDAY = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)


def snapshot(started: datetime.datetime, kind: str, state: str = "completed") -> Snapshot:
    return Snapshot(f"snap-{started:%Y%m%dT%H%M}", state, started, 100, {"gitlab-keep": kind})


def taken(times: list[datetime.datetime], keep: Keep = KEEP) -> list[Snapshot]:
    """What is left after backups at these times; AWS deletes everything that has expired."""
    kept: list[Snapshot] = []
    for now in times:
        kept.append(snapshot(now, kind_of_next(now, kept, keep)))
        gone = expired(now, kept, keep)
        kept = [each for each in kept if each not in gone]
    return kept


def count(kept: list[Snapshot]) -> dict[str, int]:
    return {kind: sum(each.keep == kind for each in kept) for kind in KINDS}


def test_the_first_backup_of_a_week_is_weekly_the_first_of_a_day_daily_and_others_hourly():
    kinds = [each.keep for each in taken([MONDAY + hour * HOUR for hour in range(49)])]
    # On Wednesday at midnight Monday's hourly ones have expired.
    assert kinds == [WEEKLY, DAILY, *[HOURLY] * 23, DAILY]
    assert kind_of_next(MONDAY + 7 * DAY, taken([MONDAY]), KEEP) == WEEKLY
    assert kind_of_next(MONDAY + 6 * DAY, taken([MONDAY]), KEEP) == DAILY
    assert kind_of_next(MONDAY + HOUR, taken([MONDAY]), KEEP) == HOURLY


def test_three_months_of_hourly_backups_leaves_as_many_as_the_settings_say():
    kept = taken([MONDAY + hour * HOUR for hour in range(24 * 7 * 12)])
    assert count(kept)[WEEKLY] == 8
    assert count(kept)[DAILY] in (12, 13)  # two of fourteen days began a week
    assert count(kept)[HOURLY] in (22, 23, 24)
    newest = max(each.started for each in kept)
    assert newest - min(each.started for each in kept) > 7 * 7 * DAY


def test_a_lock_lasts_exactly_as_long_as_the_retention():
    assert [KEEP.days(kind) for kind in KINDS] == [1, 14, 56]
    assert Keep(25, 0, 0).days(HOURLY) == 2
    assert Keep(1, 0, 0).days(HOURLY) == 1
    assert Keep(1, 60, 8).days(DAILY) == 60


def test_without_weekly_or_daily_backups_their_kind_is_not_used():
    hours = [MONDAY + hour * HOUR for hour in range(24 * 15)]
    assert set(count(taken(hours, Keep(24, 14, 0)))) == set(KINDS)
    assert count(taken(hours, Keep(24, 14, 0)))[WEEKLY] == 0
    assert count(taken(hours, Keep(24, 0, 0)))[DAILY] == 0


def test_a_snapshot_that_aws_could_not_complete_is_deleted_and_replaced_by_the_next():
    failed = snapshot(MONDAY, WEEKLY, state="error")
    assert expired(MONDAY + HOUR, [failed], KEEP) == [failed]
    assert kind_of_next(MONDAY + HOUR, [failed], KEEP) == WEEKLY


def test_a_snapshot_of_unknown_retention_is_never_deleted():
    foreign = Snapshot("snap-1", "completed", MONDAY - 999 * DAY, 100, {})
    later = [snapshot(MONDAY - day * DAY, WEEKLY) for day in range(30)]
    assert foreign not in expired(MONDAY, [foreign, *later], KEEP)


def test_a_machine_that_took_no_backups_for_months_keeps_its_last_ones():
    before = [MONDAY + hour * HOUR for hour in range(24 * 60)]
    kept = taken([*before, before[-1] + 300 * DAY])
    assert sum(each.started <= before[-1] for each in kept) > 30


@pytest.mark.parametrize("seed", range(4 * EFFORT))
def test_what_holds_for_any_schedule_and_settings(seed):
    chance = random.Random(seed)
    keep = Keep(chance.randint(1, 72), chance.choice([0, 3, 14]), chance.choice([0, 2, 8]))
    interval = chance.choice([1, 4, 24, 24 * 7]) * HOUR
    now = MONDAY + chance.randint(0, 6) * DAY
    kept: list[Snapshot] = []
    for _ in range(400):
        now += interval if chance.random() < 0.97 else chance.randint(1, 40) * DAY
        kept.append(snapshot(now, kind_of_next(now, kept, keep)))
        gone = expired(now, kept, keep)
        for each in gone:
            age = now - each.started
            assert age >= keep.days(each.keep) * DAY, "still locked"
            later = [other for other in kept if other.started > each.started and other not in gone]
            assert len(later) >= min(keep.number(each.keep), 1), "the last one is gone"
        kept = [each for each in kept if each not in gone]
        assert kept[-1].started == now, "the newest one is gone"
        for kind in KINDS:
            recent = [each for each in kept if each.keep == kind and now - each.started >= keep.days(kind) * DAY]
            assert len(recent) <= max(1, keep.number(kind)), "expired ones pile up"
        weeks = [each.started.isocalendar()[:2] for each in kept if each.keep == WEEKLY]
        assert len(set(weeks)) == len(weeks)
    assert all(earlier.started < later.started for earlier, later in pairwise(kept))
