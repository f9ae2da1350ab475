"""The policies of docs/iam as they are attached, with their placeholders replaced."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

IAM = Path(__file__).resolve().parent.parent / "docs/iam"

PREVIEW = ("preview",)
UP = ("preview", "up-ec2", "up-load-balancer", "up-roles")
FIRST_UP = (*UP, "first-up")
RESTORE = (*FIRST_UP, "restore")
"""The policies that each task needs."""

PROVIDER_5 = {
    "Statement": [{"Effect": "Allow", "Action": "route53:ListHostedZones", "Resource": "*"}],
}
"""A permission that only the lab's provider version needs: it lists all zones to find one (fixed by its PR 39671)."""

NAMES = {
    "ACCOUNT": "123456789012",  # moto's
    "DOMAIN": "git.example.com",
    "FORMER-REGION": "eu-west-1",
    "FORMER-STACK": "gitlab/former",
    "IMAGE-OWNER": "309956199498",
    "REGION": "eu-central-1",
    '"REGIONS"': '"eu-central-1", "eu-west-1"',
    "STACK": "gitlab/dev",
    '"STACKS"': '"gitlab/dev", "gitlab/dev-b"',
    "ZONE": "Z0123456789ABC",
}
"""Default values of the placeholders."""


@cache
def _text(policy: str) -> str:
    return (IAM / f"{policy}.json").read_text()


def filled(policies: tuple[str, ...], **names: str) -> list[dict[str, Any]]:
    """These policies with their placeholders replaced."""
    known = {**NAMES, **names}
    pattern = re.compile("|".join(sorted(known, key=len, reverse=True)))
    return [json.loads(pattern.sub(lambda found: known[found[0]], _text(policy))) for policy in policies]
