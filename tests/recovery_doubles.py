"""Stand-ins for AWS and Pulumi, with which the recovery commands run in this process."""

import argparse
import dataclasses
import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from botocore.exceptions import ClientError, EndpointConnectionError  # type: ignore[import-untyped]

from recovery import stack_file
from recovery.errors import RecoveryError
from recovery.quotas import ADDRESSES, CPUS, NETWORKS
from recovery.stack import Stack

PROD = "gitlab/prod"
ACCOUNT = "111122223333"
VCPUS = {"c7i.2xlarge": 8, "inf2.xlarge": 4, "m6i.xlarge": 4, "t3.large": 2, "t3.small": 2}
START = datetime.datetime(2026, 11, 27, 23, 0, 5, tzinfo=datetime.UTC)

SETTINGS: dict[str, Any] = {
    "encryptionsalt": "v1:salt",
    "config": {
        "aws:region": "eu-central-1",
        "gitlab:availabilityZone": "eu-central-1b",
        "gitlab:adminCidrs": ["198.51.100.7/32"],
        "gitlab:clientCidrs": ["198.51.100.0/24"],
        "gitlab:sshPublicKey": "ssh-ed25519 AAAA prod",
        "gitlab:domain": "git.example.com",
        "gitlab:hostedZoneId": "Z0123456789ABCDEFGHIJ",
        "gitlab:smtpAddress": "mail.example.com",
        "gitlab:smtpPassword": {"secure": "v1:password"},
        "gitlab:gitlabRb": {"secure": "v1:lines"},
        "gitlab:gitlabVersion": "17.10.0",
        "gitlab:balancerAddressId": "eipalloc-0123456789abcdef0",
        "gitlab:amiId": "ami-0123456789abcdef0",
        "gitlab:registryGarbageCollection": "Sun 03:00",
        "gitlab:tags": {"Project": "gitlab"},
    },
}


class Cloud:
    """AWS in several regions. `events` lists what was changed, in order; also by the stand-in for Pulumi."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.regions: dict[str, Ec2] = {}
        self.quotas = {ADDRESSES: 8, NETWORKS: 5, CPUS: 16}
        self.records = [{"Name": "git.example.com.", "Type": "A"}]
        self.dns_available = True

    def region(self, name: str) -> "Ec2":
        return self.regions.setdefault(name, Ec2(self, name))


class Ec2:
    """EC2 and Service Quotas in a region, and Route 53."""

    def __init__(self, cloud: Cloud, region: str) -> None:
        self.cloud = cloud
        self.meta = SimpleNamespace(region_name=region)
        self.snapshots: dict[str, dict[str, Any]] = {}
        self.running: list[str] = []
        self.others: list[dict[str, Any]] = []  # machines that are not the stack's
        self.addresses: list[dict[str, str]] = [{"PublicIpv4Pool": "amazon"}] * 4
        self.networks = [ACCOUNT] * 2  # their owners
        self.available = True
        self.quotas_known = True

    def add_pair(self, pair: str, started: datetime.datetime = START, size: int = 100) -> None:
        for minutes, role in ((0, "server"), (3, "registry")):
            self.add_snapshot(
                f"snap-{role}-{pair}",
                {"gitlab-stack": PROD, "gitlab-role": role, "gitlab-backup": pair, "gitlab-version": "17.10.4"},
                started + datetime.timedelta(minutes=minutes),
                size,
            )

    def add_snapshot(self, name: str, tags: dict[str, str], started: datetime.datetime, size: int) -> None:
        self.snapshots[name] = {
            "SnapshotId": name,
            "StartTime": started,
            "VolumeSize": size,
            "State": "completed",
            "Encrypted": True,
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }

    def tags(self, name: str) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self.snapshots[name]["Tags"]}

    def known(self, name: str) -> dict[str, str]:
        """What snapshots can be filtered by."""
        return {**self.tags(name), "snapshot-id": name}

    def can_paginate(self, call: str) -> bool:
        return True

    def get_paginator(self, call: str) -> Any:
        return SimpleNamespace(paginate=lambda **parameters: [getattr(self, call)(**parameters)])

    def get_waiter(self, name: str) -> Any:
        assert name == "instance_stopped"
        return SimpleNamespace(wait=lambda **_: self.cloud.events.append("stopped"))

    def describe_snapshots(self, SnapshotIds=(), OwnerIds=(), Filters=()) -> dict[str, Any]:  # noqa: N803
        if not self.available:
            raise EndpointConnectionError(endpoint_url="https://ec2")
        wanted = {each["Name"].removeprefix("tag:"): each["Values"] for each in Filters}
        found = [
            each
            for name, each in self.snapshots.items()
            if (not SnapshotIds or name in SnapshotIds)
            and all(self.known(name).get(key) in values for key, values in wanted.items())
        ]
        for each in found:  # a copy needs time
            if each["State"] == "pending":
                each["Left"] -= 1
                each["Progress"] = f"{100 - 50 * each['Left']}%"
                if each["Left"] == 0:
                    each["State"] = "completed"
        return {"Snapshots": [dict(each) for each in found]}

    def describe_locked_snapshots(self, **_: str) -> dict[str, Any]:
        return {"Snapshots": []}

    def copy_snapshot(self, *, SourceRegion, SourceSnapshotId, Encrypted, TagSpecifications, **_) -> dict[str, str]:  # noqa: N803
        assert Encrypted
        source = self.cloud.region(SourceRegion).snapshots[SourceSnapshotId]
        name = f"snap-copy-{len(self.snapshots)}"
        self.snapshots[name] = source | {
            "SnapshotId": name,
            "StartTime": START + datetime.timedelta(hours=5, minutes=len(self.snapshots)),
            "State": "pending",
            "Left": 2,
            "Tags": TagSpecifications[0]["Tags"],
        }
        self.cloud.events.append(f"copy {SourceSnapshotId}")
        return {"SnapshotId": name}

    def delete_snapshot(self, *, SnapshotId) -> None:  # noqa: N803
        del self.snapshots[SnapshotId]
        self.cloud.events.append(f"delete {SnapshotId}")

    def create_tags(self, *, Resources, Tags) -> None:  # noqa: N803
        for name in Resources:
            self.snapshots[name]["Tags"] = [*self.snapshots[name]["Tags"], *Tags]
            self.cloud.events.append(f"tag {name} {Tags[0]['Key']}={Tags[0]['Value']}")

    def describe_instances(self, *, Filters) -> dict[str, Any]:  # noqa: N803
        if not self.available:
            raise EndpointConnectionError(endpoint_url="https://ec2")
        [wanted] = Filters
        running = {"State": {"Name": "running"}, "InstanceType": "m6i.xlarge"}
        machines = [{"InstanceId": each, **running} for each in self.running]
        if wanted["Name"] == "instance-state-name":
            everything = [*machines, *({"InstanceId": "i-other", **running, **each} for each in self.others)]
            machines = [each for each in everything if each["State"]["Name"] in wanted["Values"]]
        else:
            assert (wanted["Name"], wanted["Values"][0]) == ("tag:gitlab-stack", PROD)
        return {"Reservations": [{"Instances": [each]} for each in machines]}

    def describe_instance_types(self, InstanceTypes=(), Filters=()) -> dict[str, Any]:  # noqa: N803
        wanted = [*InstanceTypes, *(value for each in Filters for value in each["Values"])]
        found = [{"InstanceType": each, "VCpuInfo": {"DefaultVCpus": VCPUS[each]}} for each in wanted]
        return {"InstanceTypes": found}

    def describe_vpcs(self) -> dict[str, Any]:
        return {"Vpcs": [{"OwnerId": owner} for owner in self.networks]}

    def stop_instances(self, *, InstanceIds) -> None:  # noqa: N803
        self.cloud.events.append(f"stop {' '.join(InstanceIds)}")
        self.running = []

    def describe_addresses(self) -> dict[str, Any]:
        return {"Addresses": self.addresses}

    def list_resource_record_sets(self, *, HostedZoneId, StartRecordName, **_: str) -> dict[str, Any]:  # noqa: N803
        assert HostedZoneId == SETTINGS["config"]["gitlab:hostedZoneId"]
        if not self.cloud.dns_available:
            raise EndpointConnectionError(endpoint_url="https://route53.amazonaws.com")
        following = [each for each in self.cloud.records if each["Name"] >= f"{StartRecordName}."]
        return {"ResourceRecordSets": following}

    def get_service_quota(self, *, ServiceCode, QuotaCode) -> dict[str, Any]:  # noqa: N803
        if not self.quotas_known:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, "GetServiceQuota")
        arn = f"arn:aws:servicequotas:{self.meta.region_name}:{ACCOUNT}:{ServiceCode}/{QuotaCode}"
        [quota] = [each for each in self.cloud.quotas if (each.service, each.code) == (ServiceCode, QuotaCode)]
        return {"Quota": {"QuotaArn": arn, "Value": float(self.cloud.quotas[quota])}}

    def describe_account_attributes(self, *, AttributeNames) -> dict[str, Any]:  # noqa: N803
        assert AttributeNames == ["vpc-max-elastic-ips"]
        return {"AccountAttributes": [{"AttributeValues": [{"AttributeValue": str(self.cloud.quotas[ADDRESSES])}]}]}


@dataclasses.dataclass(frozen=True)
class FakeStack(Stack):
    """The stack with clients of the stand-in for AWS."""

    cloud: Cloud = dataclasses.field(default_factory=Cloud)

    def client(self, service: str) -> Any:
        return self.cloud.region(self.region)


class FakePulumi:
    """The CLI, with stacks that outlive it in `stacks`. The command `fails_at` raises `failure`."""

    stacks: dict[str, int]

    def __init__(self, stack: str, cloud: Cloud, folder: Path, stacks: dict[str, int]) -> None:
        self.stack, self.cloud, self.folder, self.stacks = stack, cloud, folder, stacks
        self.file = folder / stack_file.name(stack)
        self.fails_at = ""
        self.failure: BaseException = RecoveryError("pulumi failed")
        self.secrets: dict[str, str] = {}

    def _did(self, event: str) -> None:
        self.cloud.events.append(event)
        if self.fails_at == event.split(maxsplit=1)[0]:
            self.fails_at = ""
            raise self.failure

    def resources(self) -> list[dict[str, Any]] | None:
        if self.stack not in self.stacks:
            return None
        return [{"id": "i-known"}] if self.stacks[self.stack] else []

    def init(self, secrets_provider: str | None) -> None:
        assert self.stack not in self.stacks
        self._did(f"init {secrets_provider}")
        self.stacks[self.stack] = 0

    def copy_setting(self, key: str, source: str) -> None:
        self._did(f"cp {key} {source}")

    def set_secret(self, key: str, value: str) -> None:
        self._did(f"set {key}")
        self.secrets[key] = value

    def up(self) -> None:
        assert self.file.exists()
        self.stacks[self.stack] = 70  # some resources exist even if it fails
        self._did("up")
        self.stacks[self.stack] = 139

    def output(self, name: str) -> Any:
        return {"inspection": {"user": "ec2-user"}, "externalUrl": "https://gitlab-drill.internal"}[name]

    def cancel(self) -> None:
        self._did("cancel")

    def destroy(self) -> None:
        assert self.file.exists()
        self._did("destroy")
        self.stacks[self.stack] = 0

    def remove(self) -> None:
        assert self.stacks[self.stack] == 0
        self._did("rm")
        del self.stacks[self.stack]
        self.file.unlink()


@dataclasses.dataclass
class World:
    """AWS with one backup of the stack prod, whose settings file is in `folder`."""

    folder: Path
    cloud: Cloud = dataclasses.field(default_factory=Cloud)
    stacks: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.add_pair("20261127T230004Z")
        self.settings = self.folder / "Pulumi.prod.yaml"
        self.settings.write_text(yaml.safe_dump(SETTINGS))

    @property
    def home(self) -> Ec2:
        return self.cloud.region("eu-central-1")

    @property
    def source(self) -> FakeStack:
        return FakeStack("prod", "eu-central-1", self.settings, cloud=self.cloud)

    def pulumi(self, stack: str) -> FakePulumi:
        return FakePulumi(stack, self.cloud, self.folder, self.stacks)


def arguments(**given: Any) -> argparse.Namespace:
    """The arguments of a command, with their defaults."""
    known: dict[str, Any] = {
        "backup": "latest",
        "region": None,
        "zone": None,
        "overrides": [],
        "yes": True,
        "caller": "192.0.2.9/32",
    }
    return argparse.Namespace(**known | {"keep": False, "json": None, "check_limit": None} | given)
