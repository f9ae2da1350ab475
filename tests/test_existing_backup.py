"""A backup that does not match the settings or the stack is rejected, by key, before any resource is created."""

from typing import Any

import pulumi
import pytest

from tests.conftest import dev_config
from tests.engine import BACKUP, Graph, run_program
from tests.test_existing import DOMAIN, accepted

SERVER, REGISTRY = BACKUP
RESTORED = {"serverDataSnapshotId": SERVER, "registryDataSnapshotId": REGISTRY}
EXISTS = {"server-data-test": SERVER, "registry-data-test": REGISTRY}
LOOKUP = "aws:ebs/getSnapshot:getSnapshot"


def refused(settings: dict[str, Any] | None = None, **existing: Any) -> list[str]:
    with pytest.raises(pulumi.RunError) as refusal:
        run_program(dev_config(**RESTORED, **(settings or {})), existing=existing, only_checks=True)
    return [line.removeprefix("- ") for line in str(refusal.value).splitlines()[1:]]


def changed(snapshot_id: str, **changes: Any) -> dict[str, Any]:
    """The backup with one changed snapshot; `tags` are changed one by one, and None removes one."""
    snapshot = BACKUP[snapshot_id]
    tags = {**snapshot["tags"], **changes.pop("tags", {})}
    return {snapshot_id: {**snapshot, **changes, "tags": {key: tag for key, tag in tags.items() if tag is not None}}}


@pytest.fixture(scope="module")
def restored() -> Graph:
    return run_program(dev_config(**RESTORED, **DOMAIN))


def test_volumes_are_created_from_the_backup_and_another_one_does_not_replace_them(restored, graph):
    for role, snapshot_id in (("server", SERVER), ("registry", REGISTRY)):
        volume = restored.one("aws:ebs/volume:Volume", f"{role}-data")
        assert (volume.inputs["snapshotId"], volume.inputs["size"]) == (snapshot_id, 100)
        assert volume.inputs["encrypted"]
        without = graph.one("aws:ebs/volume:Volume", f"{role}-data")
        assert "snapshotId" not in without.inputs
        assert "snapshotId" in volume.request.ignoreChanges
        assert "snapshotId" in without.request.ignoreChanges, "the volume would be replaced when the keys are removed"


def test_restored_data_is_cleaned_before_the_token_key_is_read_and_gitlab_installed(restored, graph):
    cleaned = restored.step("server-clean-restored-data")
    assert f"{SERVER} restore" in cleaned.inputs["create"]
    assert restored.comes_after(cleaned, restored.step("server-grow-data"))
    for step in ("make-token-key", "install-gitlab"):
        assert restored.comes_after(restored.step(f"server-{step}"), cleaned)
    assert not [each for each in graph.resources if each.name == "server-clean-restored-data"]


def test_a_restored_stack_takes_the_domains_record_and_no_other_stack_does(restored, requested_graph):
    inputs = [each.one("aws:route53/record:Record", "gitlab").inputs for each in (requested_graph, restored)]
    assert [each.get("allowOverwrite") for each in inputs] == [None, True]


def test_a_restored_stack_keeps_the_name_of_the_former_runner(graph, other_graph):
    assert "gitlab-test" in graph.step("server-prepare-gitlab").inputs["create"]
    assert "gitlab-prod" in other_graph.step("server-prepare-gitlab").inputs["create"]
    assert "gitlab-test" not in other_graph.step("server-prepare-gitlab").inputs["create"]


def test_a_snapshot_that_does_not_exist_is_refused_by_its_key(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", shown.append)
    with pytest.raises(LookupError):  # the engine's own error
        run_program(dev_config(**RESTORED), existing={"snapshots": {SERVER: None, REGISTRY: None}})
    assert shown == [
        (
            f"{key}: AWS did not find {snapshot_id!r} in this region, or denied the request (see its error). "
            "List the backups of a stack: make backups STACK=..."
        )
        for key, snapshot_id in RESTORED.items()
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            changed(SERVER, state="pending"),
            (
                f"serverDataSnapshotId: '{SERVER}' is pending, and a volume can be created only from a "
                "completed snapshot. Wait for it (aws ec2 wait snapshot-completed --region eu-central-1 --snapshot-ids "
                f"{SERVER}), or use another backup."
            ),
        ),
        (
            changed(REGISTRY, encrypted=False),
            f"registryDataSnapshotId: '{REGISTRY}' is not encrypted, unlike every backup. Use another one.",
        ),
        (
            changed(SERVER, volumeSize=101),
            (
                f"serverDataVolumeSize: 100 GiB, but '{SERVER}' has 101 GiB, and a volume cannot be smaller than its "
                "snapshot. Set it to 101."
            ),
        ),
        (
            changed(REGISTRY, tags={"gitlab-role": "server"}),
            (
                f"registryDataSnapshotId: '{REGISTRY}' is a backup of the server, not one of the registry "
                "(tag gitlab-role). Set the registry's snapshot."
            ),
        ),
        (
            changed(SERVER, tags={"gitlab-role": None}),
            (
                f"serverDataSnapshotId: '{SERVER}' is not a backup, not one of the server (tag gitlab-role). "
                "Set the server's snapshot."
            ),
        ),
        (
            changed(SERVER, tags={"gitlab-version": "17.9.8"}),
            (
                "gitlabVersion: '17.10.4', but serverDataSnapshotId is a backup of 17.9.8 (tag gitlab-version), and "
                "GitLab restores only backups of its own version. Set gitlabVersion to that version, and upgrade after "
                "the restore."
            ),
        ),
        (
            changed(REGISTRY, tags={"gitlab-stack": "gitlab/other"}),
            (
                f"registryDataSnapshotId: '{REGISTRY}' is of the stack gitlab/other, but serverDataSnapshotId "
                f"'{SERVER}' of gitlab/prod (tag gitlab-stack). Set both snapshots of the same backup."
            ),
        ),
        (
            changed(REGISTRY, startTime="2026-11-27T22:03:00Z", tags={"gitlab-backup": "20261127T220004Z"}),
            (
                f"registryDataSnapshotId: '{REGISTRY}' of 2026-11-27 22:03:00+00:00 is older than serverDataSnapshotId "
                f"'{SERVER}' of 2026-11-27 23:00:00+00:00, so images that GitLab knows may be missing. "
                "Set both snapshots of the same backup."
            ),
        ),
    ],
    ids=[
        "pending",
        "not encrypted",
        "larger",
        "another role",
        "no backup",
        "another version",
        "another stack",
        "older",
    ],
)
def test_a_backup_that_does_not_match_is_refused_by_its_key(changes, problem):
    assert refused(snapshots=changes) == [problem]


@pytest.mark.parametrize("role", ["server", "registry"])
def test_a_stack_that_has_a_volume_already_is_not_restored(role):
    name, key, snapshot_id = f"{role}-data-test", f"{role}DataSnapshotId", RESTORED[f"{role}DataSnapshotId"]
    for created_from in ("", "snap-0fedcba9876543210"):
        [problem] = refused(createdFrom={name: created_from})
        assert problem == (
            f"{key}: this stack has vol-of-{name} already, which was not created from '{snapshot_id}', and a restore "
            "does not change existing volumes. Restore into a new stack, or remove the key."
        )


def test_volumes_of_the_stack_are_found_by_its_tag_and_their_names(restored):
    asked = [each["filters"] for each in restored.asked("aws:ebs/getEbsVolumes:getEbsVolumes")]
    own = [
        [
            {"name": "tag:Name", "values": [f"{role}-data-test"]},
            {"name": "tag:gitlab-stack", "values": ["gitlab/test"]},
        ]
        for role in ("server", "registry")
    ]
    zone = {"name": "availability-zone", "values": ["eu-central-1a"]}
    in_their_zone = [filters for each in own for filters in ([*each, zone], each)]
    assert asked == [*in_their_zone, *own, *own]


def test_a_snapshot_does_not_matter_any_more_once_its_volume_exists():
    upgraded = {**RESTORED, "gitlabVersion": "17.11.7"}
    for left in ({}, changed(SERVER, state="error"), {SERVER: None, REGISTRY: None}):
        assert not accepted(upgraded, {"snapshots": left, "createdFrom": EXISTS}).asked(LOOKUP)
    half = accepted(RESTORED, {"snapshots": {SERVER: None}, "createdFrom": {"server-data-test": SERVER}})
    assert [each["filters"] for each in half.asked(LOOKUP)] == [[{"name": "snapshot-id", "values": [REGISTRY]}]]


def test_the_registrys_snapshot_may_be_of_a_later_backup_and_copies_of_one_backup_may_be_started_in_any_order():
    later = changed(REGISTRY, startTime="2026-11-28T01:03:00Z", tags={"gitlab-backup": "20261128T010004Z"})
    copies = changed(REGISTRY, startTime="2026-11-27T22:03:00Z")
    for snapshots in (later, copies):
        accepted(RESTORED, {"snapshots": snapshots})


def test_nothing_is_asked_about_backups_without_one_in_the_settings(graph):
    assert not graph.asked(LOOKUP)
