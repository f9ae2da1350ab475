"""What a machine's role may do in AWS: take snapshots of its own data volume, lock them, and delete expired ones.

It may neither unlock a snapshot nor read its data, nor do anything with the volume, so root of that machine cannot
destroy its backups. Sources: Service Authorization Reference, "Amazon EC2"; Amazon EBS User Guide, "Control access to
Amazon EBS snapshot lock" and "Amazon EBS snapshot lock".
"""

from collections.abc import Iterator, Sequence
from typing import Any

from configuration.flows import Place
from programs.volume_backup.ec2 import Tag
from programs.volume_backup.retention import KINDS, Keep
from settings import Settings

Statement = dict[str, Any]


def keep_of(settings: Settings) -> Keep:
    """How many backups of each kind are kept, according to the settings."""
    return Keep(settings.backup_keep_hourly, settings.backup_keep_daily, settings.backup_keep_weekly)


def backup_policy(*, volume_arn: str, stack: str, role: Place, keep: Keep) -> dict[str, Any]:
    """The policy of a machine's role. `stack` and `role` are values of the tags that its snapshots must have."""
    return _policy(tuple(_statements(volume_arn, stack, role, keep)))


def trust_policy(region: str) -> dict[str, Any]:
    """Lets EC2, and so the machines that have the role, assume it."""
    # IAM User Guide, "AWS JSON policy elements: Principal": the name of a service in China.
    service = "ec2.amazonaws.com.cn" if region.startswith("cn-") else "ec2.amazonaws.com"
    return _policy([{"Effect": "Allow", "Action": ["sts:AssumeRole"], "Principal": {"Service": service}}])


def _policy(statements: Sequence[Statement]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _statements(volume_arn: str, stack: str, role: Place, keep: Keep) -> Iterator[Statement]:
    _, partition, _, region, _, volume = volume_arn.split(":")
    # With skipRequestingAccountId the provider does not know the account. Volumes cannot be shared with other accounts.
    own_volume = f"arn:{partition}:ec2:{region}:*:{volume}"
    snapshots = f"arn:{partition}:ec2:{region}::snapshot/*"  # no account: snapshots can be shared
    own = {Tag.STACK: stack, Tag.ROLE: role.value}
    requested = {f"aws:RequestTag/{tag}": value for tag, value in own.items()}
    existing = {f"aws:ResourceTag/{tag}": value for tag, value in own.items()}
    # AWS checks CreateSnapshot against the volume and against the new snapshot.
    yield _allow("SnapshotItsVolume", "ec2:CreateSnapshot", own_volume)
    yield _allow("MakeWhatIsMarked", "ec2:CreateSnapshot", snapshots, StringEquals=requested)
    yield _allow(
        "MarkWhatItMakes",
        "ec2:CreateTags",
        snapshots,
        StringEquals={"ec2:CreateAction": "CreateSnapshot", **requested},
    )
    for kind in KINDS:
        if keep.number(kind):
            # LockSnapshot also changes a lock. Without an exact duration for each kind it could shorten every one, or
            # lock snapshots for a hundred years. The tag cannot be changed either.
            yield _allow(
                f"Lock{kind.title()}",
                "ec2:LockSnapshot",
                snapshots,
                StringEquals={**existing, f"aws:ResourceTag/{Tag.KEEP}": kind},
                NumericEquals={"ec2:SnapshotLockDuration": str(keep.days(kind))},
            )
    yield _allow("DeleteItsOwn", "ec2:DeleteSnapshot", snapshots, StringEquals=existing)
    yield _allow("FindSnapshots", "ec2:DescribeSnapshots", "*", StringEquals={"aws:RequestedRegion": region})


def _allow(sid: str, action: str, resource: str, **condition: dict[str, str]) -> Statement:
    statement: Statement = {"Sid": sid, "Effect": "Allow", "Action": [action], "Resource": resource}
    return statement | ({"Condition": condition} if condition else {})
