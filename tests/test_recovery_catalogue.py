"""recovery/catalogue.py: the backups of a stack, according to the tags of its snapshots."""

import datetime
from typing import Any

import pytest

from recovery import catalogue
from recovery.errors import RecoveryError
from tests.aws_answers import Aws, once
from tests.snapshots import HOURLY, STACK, at, described, locked


def found(*snapshots: Any, locks: Any = ()) -> list[catalogue.Snapshot]:
    aws = Aws()
    aws.answers = {"DescribeSnapshots": {"Snapshots": snapshots}, "DescribeLockedSnapshots": {"Snapshots": locks}}
    return catalogue.snapshots(aws("ec2"), STACK)


def ids(pairs: list[catalogue.Pair]) -> list[tuple[str, str, str]]:
    return [(pair.id, pair.server.id, pair.registry.id) for pair in pairs]


def test_the_snapshots_of_one_stack_are_requested_on_all_pages_and_sorted():
    aws = Aws()
    aws.answers = {
        "DescribeSnapshots": once({"Snapshots": HOURLY[:3], "NextToken": "more"}, {"Snapshots": HOURLY[3:]}),
        "DescribeLockedSnapshots": once(
            {"Snapshots": [locked("snap-s1", "11-28 22:00")], "NextToken": "more"},
            {"Snapshots": [locked("snap-s2", "11-28 23:00")]},
        ),
    }
    snapshots = catalogue.snapshots(aws("ec2"), STACK)
    assert [each.id for each in snapshots] == ["snap-r2", "snap-s2", "snap-r1", "snap-s1"]
    first, second = aws.sent("DescribeSnapshots")
    assert first == {"OwnerIds": ["self"], "Filters": [{"Name": "tag:gitlab-stack", "Values": [STACK]}]}
    assert second == first | {"NextToken": "more"}
    ends = {each.id: each.locked_until for each in snapshots}
    assert ends == {"snap-r1": None, "snap-r2": None, "snap-s1": at("11-28 22:00"), "snap-s2": at("11-28 23:00")}
    server = snapshots[1]
    assert (server.role, server.stack, server.pair, server.keep) == ("server", STACK, "20261127T230004Z", "hourly")
    assert (server.size, server.state, server.encrypted, server.region) == (100, "completed", True, "eu-central-1")
    assert (server.gitlab_version, server.registry_version, server.drilled) == ("17.10.4", "", "")
    assert snapshots[0].registry_version == "4.15.2"


def test_the_account_is_not_asked_for_locks_if_there_are_no_snapshots():
    aws = Aws()
    assert catalogue.snapshots(aws("ec2"), STACK) == []
    assert not aws.sent("DescribeLockedSnapshots")


@pytest.mark.parametrize(
    ("lock", "ends"),
    [
        (locked("snap-s1", "11-28 22:00"), at("11-28 22:00")),
        (locked("snap-s1", "11-28 22:00", LockState="expired"), None),
        (locked("snap-s1", "11-28 22:00", LockState="compliance"), at("11-28 22:00")),
        # Its days begin when the snapshot is completed.
        (locked("snap-s1", None, LockDuration=14), at("12-11 22:00")),
    ],
)
def test_a_snapshot_is_locked_until_its_lock_ends(lock, ends):
    [snapshot] = found(HOURLY[0], locks=[lock])
    assert snapshot.locked_until == ends


def test_a_snapshot_without_the_tags_is_described_and_belongs_to_no_pair():
    [snapshot] = found(described("snap-s1", "server", "11-27 22:00", Tags=[]))
    assert (snapshot.role, snapshot.pair) == ("", "")
    assert catalogue.pairs([snapshot]) == []


def test_a_pair_is_two_snapshots_of_one_backup_and_the_newest_one_comes_first():
    pairs = catalogue.pairs(found(*HOURLY))
    assert ids(pairs) == [("20261127T230004Z", "snap-s2", "snap-r2"), ("20261127T220004Z", "snap-s1", "snap-r1")]
    assert pairs[0].started == at("11-27 23:00")
    assert all(pair.usable for pair in pairs)


def test_without_its_own_a_pair_has_the_first_snapshot_of_the_registry_that_is_not_older():
    assert ids(catalogue.pairs(found(*HOURLY[:1], *HOURLY[2:]))) == [
        ("20261127T230004Z", "snap-s2", "snap-r2"),
        ("20261127T220004Z", "snap-s1", "snap-r2"),
    ]
    later = described("snap-r3", "registry", "11-28 00:03")
    assert ids(catalogue.pairs(found(HOURLY[2], later))) == [("20261127T230004Z", "snap-s2", "snap-r3")]
    failed = described("snap-r2", "registry", "11-27 23:03", State="error")
    assert ids(catalogue.pairs(found(HOURLY[2], failed, later))) == [("20261127T230004Z", "snap-s2", "snap-r3")]


def test_a_snapshot_of_the_registry_that_is_older_than_the_servers_makes_no_pair():
    older = described("snap-r2", "registry", "11-27 22:59", pair="20261127T225804Z")
    assert catalogue.pairs(found(HOURLY[2], older)) == []


def test_copies_of_one_backup_are_a_pair_whichever_was_started_first():
    older = described("snap-r2", "registry", "11-27 22:59", pair="20261127T230004Z")
    assert ids(catalogue.pairs(found(HOURLY[2], older))) == [("20261127T230004Z", "snap-s2", "snap-r2")]
    nameless = [{**each, "Tags": [tag for tag in each["Tags"] if tag["Key"] != "gitlab-backup"]} for each in HOURLY[:2]]
    assert ids(catalogue.pairs(found(nameless[0], older))) == [("", "snap-s1", "snap-r2")]


def test_the_latest_backup_is_the_newest_one_that_is_complete():
    snapshots = found(*HOURLY[:3], described("snap-r2", "registry", "11-27 23:03", State="pending"))
    pairs = catalogue.pairs(snapshots)
    assert [pair.usable for pair in pairs] == [False, True]
    assert catalogue.find(pairs).id == "20261127T220004Z"
    assert catalogue.find(pairs, "20261127T220004Z").id == "20261127T220004Z"
    assert catalogue.incomplete(snapshots) == ["20261127T230004Z"]
    with pytest.raises(RecoveryError, match=r"20261127T230004Z is not complete: .* completed, the registry's pending"):
        catalogue.find(pairs, "20261127T230004Z")


def test_a_backup_that_does_not_exist_is_refused():
    pairs = catalogue.pairs(found(*HOURLY))
    with pytest.raises(RecoveryError, match="no backup 20251127T230004Z; the newest one is 20261127T230004Z"):
        catalogue.find(pairs, "20251127T230004Z")
    with pytest.raises(RecoveryError, match=r"there is no backup$"):
        catalogue.find([])
    with pytest.raises(RecoveryError, match="there is no backup 1"):
        catalogue.find([], "1")
    pending = catalogue.pairs(found(described("snap-s1", "server", "11-27 22:00", State="pending"), HOURLY[1]))
    with pytest.raises(RecoveryError, match="none of 1 backups is complete"):
        catalogue.find(pending)


def test_a_backup_of_the_server_without_one_of_the_registry_is_incomplete():
    assert catalogue.incomplete(found(HOURLY[0])) == ["20261127T220004Z"]
    assert catalogue.incomplete(found(*HOURLY)) == []
    assert catalogue.incomplete(found(HOURLY[1])) == []


def test_the_result_of_a_drill_is_a_tag():
    [snapshot] = found(described("snap-s1", "server", "11-27 22:00", more_tags={"gitlab_drilled": "2026-11-28 passed"}))
    assert snapshot.drilled == "2026-11-28 passed"
    assert snapshot.started.tzinfo == datetime.UTC
