"""Records the AWS actions that the provider calls in a stack's life cycle, and their parameters:
`python -m tests.e2e.permissions`.

The stack only exists in the lab's API, without machines: remote steps return examples. So it can have every optional
feature: domain, certificate, resources of another stack, every kind of change. For each operation, the API enforces the
policies of docs/iam that are attached for it. Tests compare the recorded actions with these policies, and the
parameters with the lab's table of constraints.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import boto3

from lab.cloud import actions, permissions
from lab.preview import engine, stack_file
from lab.preview.tree import Version
from lab.workspace import ROOT, say
from tests.e2e.programs import Edits, changed_program
from tests.policies import FIRST_UP, NAMES, PREVIEW, PROVIDER_5, RESTORE, UP, filled

RECORDED = ROOT / "docs/iam/recorded.json"
PARAMETERS = ROOT / "lab/cloud/recorded_parameters.json"
REGION = "eu-central-1"
KEY = "lab"  # the access key in Pulumi.lab.yaml

CHANGES: Edits = {
    "configuration/flows.py": [('"packages and images"', '"packages, images and more"')],
    "components/load_balancer.py": [('"interval": 10', '"interval": 20')],
    "components/network.py": [("The one interface of", "The only interface of")],
    "components/virtual_machine.py": [("http_put_response_hop_limit=1", "http_put_response_hop_limit=2")],
}
"""Changes that no setting can make, each of a property that the provider updates in place."""

DOMAIN, ZONE = "git.example.com", "Z0123456789ABC"
IMAGE, VOLUME, ADDRESS = "ami-0123456789abcdef0", "vol-0123456789abcdef0", "eipalloc-0123456789abcdef0"
EXISTING = {
    "regions": [REGION],
    "images": [IMAGE],
    "volumes": [{"id": VOLUME, "size": 100, "zone": f"{REGION}a"}],
    "addresses": [ADDRESS],
    "hosted_zones": [{"id": ZONE, "name": "example.com"}],
    "certificates": [],
    "tags": {"gitlab-stack": "gitlab/dev"},
}
"""AWS resources that exist before the stack."""

OPTIONAL_SETTINGS = {
    "deletionProtection": "false",
    "domain": DOMAIN,
    "hostedZoneId": ZONE,
    "registryDataVolumeId": VOLUME,
    "balancerAddressId": ADDRESS,
    "permissionsBoundary": f"arn:aws:iam::{NAMES['ACCOUNT']}:policy/gitlab-boundary",
}
"""Settings that make the provider call more. The certificate is requested; the server's volume is new."""

CHANGED_SETTINGS = {
    "amiId": IMAGE,
    "clientCidrs": ["198.51.100.0/25"],
    "registryDataVolumeSize": "120",
    "serverRootVolumeSize": "50",
    "runnerInstanceType": "t3.xlarge",
    "tags": {"Environment": "changed"},
}
"""Other values for settings that can be changed in place, one tag less, and an image ID."""


@dataclass(frozen=True)
class Record:
    """`actions` by operation, and under `types` the resource types of the stack; `parameters` by action."""

    actions: dict[str, list[str]] = field(default_factory=dict)
    parameters: dict[str, list[str]] = field(default_factory=dict)


def record() -> Record:
    """Record the provider's calls while a stack is created, changed and destroyed. Takes some minutes."""
    found = Record()
    with engine.api(EXISTING) as api, changed_program(CHANGES) as changed:
        here, there = (Version("this clone", folder, "dev") for folder in (ROOT, changed))
        before = _configuration(here, api, OPTIONAL_SETTINGS)
        after = _configuration(here, api, OPTIONAL_SETTINGS | CHANGED_SETTINGS)
        own, renewed = (
            _configuration(here, api, OPTIONAL_SETTINGS | CHANGED_SETTINGS | _own_certificate(number))
            for number in range(2)
        )
        # Without backups the roles are deleted; with them again the machines get others.
        unsaved = _configuration(here, api, OPTIONAL_SETTINGS | CHANGED_SETTINGS | {"backup": "false"})
        throwaway = engine.Throwaway("dev", "gitlab", api, creates=True)

        def operate(
            name: str, version: Version, given: stack_file.StackFile, *operation: str, allowed: tuple[str, ...] = UP
        ) -> None:
            throwaway.configure(given)
            permissions.enforce(KEY, [*filled(allowed, DOMAIN=DOMAIN, ZONE=ZONE), PROVIDER_5], api=api)
            actions.forget(api=api)
            throwaway.operate(operation, version.folder, version.answers())
            called = actions.called(api=api)
            found.actions[name] = sorted({*found.actions.get(name, []), *called})
            for action, sent in called.items():
                found.parameters[action] = sorted({*found.parameters.get(action, []), *sent})
            say(f"{name}: {len(called)} actions")

        at_once = ("--yes", "--skip-preview")
        operate("up", here, before, "up", *at_once, allowed=FIRST_UP)
        types = {resource["type"] for resource in throwaway.resources() if resource.get("custom")}
        found.actions["types"] = sorted(each for each in types if not each.startswith("pulumi:"))
        operate("refresh", here, before, "refresh", *at_once)
        operate("preview", there, after, "preview", "--refresh", allowed=PREVIEW)
        operate("change", there, after, "up", *at_once)
        operate("change", there, unsaved, "up", *at_once)
        # A new certificate gets its first tag (docs/pull-requests.md).
        operate("change", there, own, "up", *at_once, allowed=FIRST_UP)
        operate("change", there, renewed, "up", *at_once)
        operate("destroy", here, before, "destroy", *at_once)
        backup = _former_backup(api, before.texts()["gitlab:gitlabVersion"])
        restoring = _configuration(here, api, {"deletionProtection": "false", **backup})
        volumes = ("--target", "**:VirtualMachine::*", "--target", "**:Volume::*-data")
        operate("restore", here, restoring, "up", *at_once, *volumes, allowed=RESTORE)
        throwaway.operate(("destroy", *at_once), here.folder, here.answers())
    return found


def _former_backup(api: str, version: str) -> dict[str, str]:
    """Create a backup of a former stack, as a caller without policies, and return the settings that restore it."""
    ec2 = boto3.client("ec2", REGION, endpoint_url=api, aws_access_key_id="backup", aws_secret_access_key="lab")
    settings = {}
    for role in ("server", "registry"):
        volume = ec2.create_volume(Size=100, AvailabilityZone=f"{REGION}a", Encrypted=True)
        tags = {
            "gitlab-stack": NAMES["FORMER-STACK"],
            "gitlab-role": role,
            "gitlab-backup": "1",
            "gitlab-version": version,
        }
        snapshot = ec2.create_snapshot(
            VolumeId=volume["VolumeId"],
            TagSpecifications=[
                {"ResourceType": "snapshot", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            ],
        )
        settings[f"{role}DataSnapshotId"] = snapshot["SnapshotId"]
    return settings


def _configuration(version: Version, api: str, settings: dict[str, Any]) -> stack_file.StackFile:
    given = version.stack_file()
    given["config"] |= {f"gitlab:{key}": value for key, value in settings.items()}
    lab = stack_file.read(ROOT / "Pulumi.lab.yaml")
    return stack_file.for_the_lab(given, version.project(), lab, api)


def _own_certificate(number: int) -> dict[str, Any]:
    """Settings of an own certificate, another one for each number. Its key is encrypted, so the lab replaces all three
    by those of a placeholder.
    """
    return {
        "certificatePem": f"certificate {number}",
        "certificateKeyPem": {"secure": "v1:key"},
        "certificateAuthority": "authority",
    }


if __name__ == "__main__":
    made = record()
    RECORDED.write_text(json.dumps(made.actions, indent=2) + "\n")
    PARAMETERS.write_text(json.dumps(made.parameters, indent=2, sort_keys=True) + "\n")
