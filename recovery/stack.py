"""The stack that a command is for: its name and settings, and how AWS is called for it."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from recovery import stack_file
from recovery.errors import RecoveryError

ROLES = ("aws:assumeRole", "aws:assumeRoles", "aws:assumeRoleWithWebIdentity")
KEYS = ("aws:accessKey", "aws:secretKey", "aws:token")
"""Settings of Pulumi's AWS provider that choose other credentials than the shell's, in addition to aws:profile (Pulumi
Registry, AWS Classic, Configuration Reference).
"""


@dataclass(frozen=True)
class Stack:
    """A stack. `name` may contain the organization, as Pulumi accepts it; `config` is the part of its settings' file
    that is readable without a key.
    """

    name: str
    region: str
    settings: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """The value of the tag of all its resources and snapshots."""
        return f"{stack_file.NAME}/{stack_file.short(self.name)}"

    @property
    def schedule(self) -> str:
        """When backups are taken: the setting backupSchedule."""
        return str(stack_file.setting({"config": self.config}, "backupSchedule"))

    def client(self, service: str) -> Any:  # noqa: ANN401, boto3 has no types
        """A client of an AWS service in the stack's region, of the account that `pulumi up` uses."""
        key, secret, token = (self.config.get(name) for name in KEYS)
        session = boto3.Session(key, secret, token, self.region, profile_name=self.config.get("aws:profile"))
        return session.client(service)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments from which `read` returns the stack."""
    parser.add_argument("--stack", required=True, metavar="NAME")
    parser.add_argument(
        "--settings", type=Path, metavar="FILE", help="the stack's settings (default: Pulumi.NAME.yaml)"
    )
    parser.add_argument("--region", help="AWS region (default: aws:region of the settings)")


def read(chosen: argparse.Namespace) -> Stack:
    """The stack that the arguments name. Raises RecoveryError if its region is unknown, or if the file has credentials
    that only `up` uses.
    """
    name = chosen.stack
    file = (chosen.settings or stack_file.ROOT / stack_file.name(name)).resolve()
    exists = file.is_file()
    if chosen.settings and not exists:
        raise RecoveryError(f"--settings: {chosen.settings} does not exist")
    config = ((stack_file.parsed(file.read_text()) or {}).get("config") or {}) if exists else {}
    encrypted = [key for key in KEYS if isinstance(config.get(key), dict)]
    if others := [*(key for key in ROLES if key in config), *encrypted]:
        raise RecoveryError(
            f"{file.name} contains {' and '.join(others)}, which only pulumi can use, so this command could search "
            "another account: use the credentials of the shell, or of a profile that assumes the role (aws:profile)"
        )
    region = chosen.region or config.get("aws:region")
    if not region:
        why = "does not contain aws:region" if exists else "does not exist"
        raise RecoveryError(f"{file.name} {why}, so the region is unknown: add --region (make: REGION=)")
    return Stack(name, region, file if exists else None, config)
