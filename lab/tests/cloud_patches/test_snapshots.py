"""Snapshots of volumes: how they complete, their data, their owners, and their locks."""

from datetime import UTC, datetime, timedelta

import pytest
from moto.core.utils import utcnow

from lab.cloud import volumes
from lab.cloud.patches import snapshots, state
from lab.shell import call
from lab.tests.cloud import REGION, client, refused

ZONE = REGION + "a"
ELSEWHERE = "eu-west-1"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The folder of the volumes' files."""
    monkeypatch.setattr(volumes, "VOLUMES", tmp_path)
    monkeypatch.setattr(state, "snapshot_delay", timedelta())
    return tmp_path


def pending(monkeypatch):
    monkeypatch.setattr(state, "snapshot_delay", timedelta(minutes=5))


def create(cloud, volume):
    return cloud.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]


def described(cloud, snapshot):
    return cloud.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]


def restore(cloud, snapshot, **more):
    return cloud.ec2.create_volume(SnapshotId=snapshot, AvailabilityZone=ZONE, **more)["VolumeId"]


def tag(cloud, snapshot, key, value):
    cloud.ec2.create_tags(Resources=[snapshot], Tags=[{"Key": key, "Value": value}])


def older(snapshot):
    """Let the snapshot be of an hour ago, and so completed."""
    found = next(ec2.snapshots[snapshot] for ec2, _ in state.regions() if snapshot in ec2.snapshots)
    found.stored -= timedelta(hours=1)


# --- states ----------------------------------------------------------------------------------------------


def test_a_snapshot_is_pending_until_it_is_stored(cloud, monkeypatch):
    pending(monkeypatch)
    made = cloud.ec2.create_snapshot(VolumeId=cloud.volume())
    assert (made["State"], made["Progress"]) == ("pending", "0%")
    refused("IncorrectState", cloud.ec2.create_volume, SnapshotId=made["SnapshotId"], AvailabilityZone=ZONE)
    monkeypatch.setattr(state, "snapshot_delay", timedelta())
    found = described(cloud, made["SnapshotId"])
    assert (found["State"], found["Progress"]) == ("completed", "100%")
    restore(cloud, made["SnapshotId"])


def test_a_volume_has_five_snapshots_in_progress(cloud, monkeypatch):
    pending(monkeypatch)
    volume, other = cloud.volume(), cloud.volume()
    for _ in range(5):
        create(cloud, volume)
    refused("ConcurrentSnapshotLimitExceeded", cloud.ec2.create_snapshot, VolumeId=volume)
    create(cloud, other)
    monkeypatch.setattr(state, "snapshot_delay", timedelta())
    create(cloud, volume)


def test_a_pending_snapshot_can_be_deleted(cloud, monkeypatch):
    pending(monkeypatch)
    snapshot = create(cloud, cloud.volume())
    cloud.ec2.delete_snapshot(SnapshotId=snapshot)
    refused("InvalidSnapshot.NotFound", cloud.ec2.describe_snapshots, SnapshotIds=[snapshot])
    refused("InvalidSnapshot.NotFound", cloud.ec2.create_volume, SnapshotId=snapshot, AvailabilityZone=ZONE)


def test_images_have_snapshots_that_are_completed(cloud, monkeypatch):
    pending(monkeypatch)
    assert {each["State"] for each in cloud.ec2.describe_snapshots()["Snapshots"]} == {"completed"}


# --- sizes -----------------------------------------------------------------------------------------------


def test_a_snapshot_keeps_its_size_and_a_volume_from_it_is_not_smaller(cloud):
    volume = cloud.ec2.create_volume(Size=2, AvailabilityZone=ZONE)["VolumeId"]
    snapshot = create(cloud, volume)
    cloud.ec2.modify_volume(VolumeId=volume, Size=4)
    assert described(cloud, snapshot)["VolumeSize"] == 2
    sizes = [{"Name": "volume-size", "Values": ["4"]}]
    assert cloud.ec2.describe_snapshots(Filters=sizes, OwnerIds=["self"])["Snapshots"] == []
    refused("InvalidParameterValue", cloud.ec2.create_volume, SnapshotId=snapshot, AvailabilityZone=ZONE, Size=1)
    made = [restore(cloud, snapshot), restore(cloud, snapshot, Size=3)]
    found = cloud.ec2.describe_volumes(VolumeIds=made)["Volumes"]
    assert {each["VolumeId"]: each["Size"] for each in found} == dict(zip(made, (2, 3), strict=True))


# --- data ------------------------------------------------------------------------------------------------


def test_a_snapshot_has_the_data_of_its_moment_and_volumes_begin_with_them(cloud, folder):
    volume = cloud.volume()
    (folder / volume).write_bytes(b"before")
    snapshot = create(cloud, volume)
    (folder / volume).write_bytes(b"after")
    restored = restore(cloud, snapshot)
    assert (folder / restored).read_bytes() == b"before"
    cloud.ec2.delete_snapshot(SnapshotId=snapshot)
    assert not (folder / snapshot).exists()
    assert (folder / restored).read_bytes() == b"before"


def test_a_snapshot_outlives_its_volume(cloud, folder):
    volume = cloud.volume()
    (folder / volume).write_bytes(b"data")
    snapshot = create(cloud, volume)
    cloud.ec2.delete_volume(VolumeId=volume)
    assert sorted(file.name for file in folder.iterdir()) == [snapshot]
    assert described(cloud, snapshot)["VolumeId"] == volume
    assert (folder / restore(cloud, snapshot)).read_bytes() == b"data"


def test_a_copy_in_another_region_has_the_data_and_the_size(cloud, folder):
    volume = cloud.ec2.create_volume(Size=2, AvailabilityZone=ZONE)["VolumeId"]
    (folder / volume).write_bytes(b"data")
    snapshot = create(cloud, volume)
    cloud.ec2.modify_volume(VolumeId=volume, Size=4)
    there = client("ec2", ELSEWHERE)
    copied = there.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=REGION)["SnapshotId"]
    assert (folder / copied).read_bytes() == b"data"
    assert there.describe_snapshots(SnapshotIds=[copied])["Snapshots"][0]["VolumeSize"] == 2
    refused("InvalidSnapshot.NotFound", there.create_volume, SnapshotId=snapshot, AvailabilityZone=f"{ELSEWHERE}a")
    restored = there.create_volume(SnapshotId=copied, AvailabilityZone=f"{ELSEWHERE}a")["VolumeId"]
    cloud.ec2.delete_snapshot(SnapshotId=snapshot)
    there.delete_snapshot(SnapshotId=copied)
    assert (folder / restored).read_bytes() == b"data"


def test_a_copy_is_encrypted_on_request_and_has_the_tags_of_the_request_alone(cloud):
    there, volume = client("ec2", ELSEWHERE), cloud.volume()
    snapshot = create(cloud, volume)
    tag(cloud, snapshot, "gitlab-stack", "gitlab/lab")
    marked = [{"ResourceType": "snapshot", "Tags": [{"Key": "gitlab-copy-of", "Value": snapshot}]}]
    source = {"SourceSnapshotId": snapshot, "SourceRegion": REGION}
    plain = there.copy_snapshot(**source)["SnapshotId"]
    encrypted = there.copy_snapshot(**source, Encrypted=True, TagSpecifications=marked)["SnapshotId"]
    again = there.copy_snapshot(SourceSnapshotId=encrypted, SourceRegion=ELSEWHERE)["SnapshotId"]
    found = {each["SnapshotId"]: each for each in there.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    assert [found[each]["Encrypted"] for each in (plain, encrypted, again)] == [False, True, True]
    assert [found[each].get("Tags", []) for each in (plain, encrypted)] == [[], marked[0]["Tags"]]
    assert {each["VolumeId"] for each in found.values()} == {"vol-ffffffff"}
    of_volume = [{"Name": "volume-id", "Values": [volume]}]
    assert there.describe_snapshots(Filters=of_volume)["Snapshots"] == []


def test_a_snapshot_is_copied_once_it_is_completed_and_the_copy_is_pending(cloud, monkeypatch):
    there = client("ec2", ELSEWHERE)
    snapshot = create(cloud, cloud.volume())
    source = {"SourceSnapshotId": snapshot, "SourceRegion": REGION}
    pending(monkeypatch)
    refused("IncorrectState", there.copy_snapshot, **source)
    monkeypatch.setattr(snapshots, "COPIES_IN_PROGRESS", 1)
    monkeypatch.setattr(state, "snapshot_delay", timedelta())
    copied = there.copy_snapshot(**source)["SnapshotId"]
    pending(monkeypatch)
    refused("IncorrectState", there.create_volume, SnapshotId=copied, AvailabilityZone=f"{ELSEWHERE}a")
    older(snapshot)
    refused("ResourceLimitExceeded", there.copy_snapshot, **source)
    refused("InvalidSnapshot.NotFound", there.copy_snapshot, SourceSnapshotId=snapshot, SourceRegion=ELSEWHERE)


def test_a_volume_without_data_has_snapshots_without_data(cloud, folder):
    restore(cloud, create(cloud, cloud.volume()))
    assert list(folder.iterdir()) == []


def test_the_copy_of_a_sparse_file_is_sparse(folder):
    with (folder / "vol-1").open("wb") as file:
        file.truncate(2**30)
        file.write(b"data")
    volumes.copy_data("vol-1", "snap-1")
    copy = (folder / "snap-1").stat()
    assert copy.st_size == 2**30
    assert copy.st_blocks * 512 < 2**20


def test_there_is_no_snapshot_if_its_data_cannot_be_stored(cloud, folder, monkeypatch):
    volume = cloud.volume()
    (folder / volume).touch()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(volumes, "call", full)
    with pytest.raises(OSError, match="No space left"):
        create(cloud, volume)
    monkeypatch.setattr(volumes, "call", call)
    assert cloud.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


# --- owners ----------------------------------------------------------------------------------------------


def test_snapshots_are_found_by_owner(cloud):
    snapshot = create(cloud, cloud.volume())

    def of(*owners):
        return [each["SnapshotId"] for each in cloud.ec2.describe_snapshots(OwnerIds=owners)["Snapshots"]]

    assert of("self") == of("123456789012") == [snapshot]
    assert snapshot not in of("309956199498")
    assert len(cloud.ec2.describe_snapshots()["Snapshots"]) > 1


# --- locks -----------------------------------------------------------------------------------------------


def lock(cloud, snapshot, **more):
    more = {"LockMode": "governance", "LockDuration": 2} | more
    return cloud.ec2.lock_snapshot(SnapshotId=snapshot, **{key: each for key, each in more.items() if each})


def later(monkeypatch, **delay):
    at = utcnow() + timedelta(**delay)
    monkeypatch.setattr(snapshots, "utcnow", lambda: at)


def test_a_locked_snapshot_cannot_be_deleted_until_the_lock_expires(cloud, monkeypatch):
    snapshot = create(cloud, cloud.volume())
    made = lock(cloud, snapshot)
    assert (made["SnapshotId"], made["LockState"], made["LockDuration"]) == (snapshot, "governance", 2)
    assert made["LockExpiresOn"] - made["LockDurationStartTime"] == timedelta(days=2)
    later(monkeypatch, days=1, hours=23)
    refused("OperationNotPermitted", cloud.ec2.delete_snapshot, SnapshotId=snapshot)
    later(monkeypatch, days=2, hours=1)
    (found,) = cloud.ec2.describe_locked_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    assert (found["LockState"], found["OwnerId"]) == ("expired", "123456789012")
    cloud.ec2.delete_snapshot(SnapshotId=snapshot)


def test_the_days_of_a_pending_snapshot_begin_when_it_is_completed(cloud, monkeypatch):
    pending(monkeypatch)
    snapshot = create(cloud, cloud.volume())
    made = lock(cloud, snapshot)
    assert made["LockState"] == "governance"
    assert not {"LockExpiresOn", "LockDurationStartTime"} & set(made)
    refused("OperationNotPermitted", cloud.ec2.delete_snapshot, SnapshotId=snapshot)
    monkeypatch.setattr(state, "snapshot_delay", timedelta())
    (found,) = cloud.ec2.describe_locked_snapshots()["Snapshots"]
    assert found["LockExpiresOn"] - found["LockDurationStartTime"] == timedelta(days=2)


def test_a_lock_is_changed_and_ended_by_who_may(cloud):
    snapshot, other = create(cloud, cloud.volume()), create(cloud, cloud.volume())
    refused("IncorrectState", cloud.ec2.unlock_snapshot, SnapshotId=snapshot)
    lock(cloud, snapshot)
    assert lock(cloud, snapshot, LockDuration=1)["LockDuration"] == 1

    def in_governance(*given):
        filters = [{"Name": "lock-state", "Values": given}]
        return [each["SnapshotId"] for each in cloud.ec2.describe_locked_snapshots(Filters=filters)["Snapshots"]]

    assert in_governance("governance") == [snapshot]
    assert in_governance("compliance", "expired") == []
    cloud.ec2.unlock_snapshot(SnapshotId=snapshot)
    cloud.ec2.delete_snapshot(SnapshotId=snapshot)
    cloud.ec2.delete_snapshot(SnapshotId=other)


def test_a_lock_ends_at_a_date(cloud):
    date = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    made = lock(cloud, create(cloud, cloud.volume()), LockDuration=None, ExpirationDate=date)
    assert (made["LockExpiresOn"], made["LockDuration"]) == (date, 3)


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("InvalidParameterCombination", {"LockDuration": None}),
        ("InvalidParameterCombination", {"ExpirationDate": datetime(2030, 1, 1, tzinfo=UTC)}),
        ("InvalidParameterCombination", {"CoolOffPeriod": 1}),
        ("UnsupportedOperation", {"LockMode": "compliance"}),
    ],
)
def test_a_lock_has_one_mode_and_one_end(cloud, code, more):
    snapshot = create(cloud, cloud.volume())
    refused(code, lock, cloud=cloud, snapshot=snapshot, **more)
    assert cloud.ec2.describe_locked_snapshots()["Snapshots"] == []


def test_a_locked_snapshot_can_be_tagged_and_is_found_by_tags(cloud):
    snapshot, other = (create(cloud, cloud.volume()) for _ in range(2))
    for each, owner in ((snapshot, "gitlab/lab"), (other, "gitlab/lab-drill")):
        tag(cloud, each, "gitlab-stack", owner)
    lock(cloud, snapshot)
    tag(cloud, snapshot, "gitlab-drilled", "passed")
    filters = [{"Name": "tag:gitlab-stack", "Values": ["gitlab/lab"]}, {"Name": "status", "Values": ["completed"]}]
    (found,) = cloud.ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
    assert found["SnapshotId"] == snapshot
    assert {each["Key"]: each["Value"] for each in found["Tags"]}["gitlab-drilled"] == "passed"
    cloud.ec2.delete_tags(Resources=[snapshot], Tags=[{"Key": "gitlab-stack"}])
    assert cloud.ec2.describe_snapshots(Filters=filters)["Snapshots"] == []


def test_what_does_not_exist_is_not_locked(cloud):
    missing = "snap-0123456789abcdef0"
    refused("InvalidSnapshot.NotFound", lock, cloud=cloud, snapshot=missing)
    refused("InvalidSnapshot.NotFound", cloud.ec2.unlock_snapshot, SnapshotId=missing)
    refused("InvalidSnapshot.NotFound", cloud.ec2.delete_snapshot, SnapshotId=missing)
