"""The policies of docs/iam, as they are attached: with names in the place of what they leave open."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

IAM = Path(__file__).resolve().parent.parent / "docs/iam"

PREVIEW = ("preview",)
UP = ("preview", "up-ec2", "up-load-balancer")
FIRST_UP = (*UP, "first-up")
"""What is attached, by what is done."""

PROVIDER_5 = {
    "Statement": [{"Effect": "Allow", "Action": "route53:ListHostedZones", "Resource": "*"}],
}
"""What the lab's provider needs beside them, and a later one does not: it looks through all zones for one (its PR
39671).
"""

NAMES = {
    "ACCOUNT": "123456789012",  # moto's
    "DOMAIN": "git.example.com",
    "IMAGE-OWNER": "309956199498",
    "REGION": "eu-central-1",
    "STACK": "gitlab/dev",
    "ZONE": "Z0123456789ABC",
}
"""What stands for the names, unless a test says otherwise."""


@cache
def _text(policy: str) -> str:
    return (IAM / f"{policy}.json").read_text()


def filled(policies: tuple[str, ...], **names: str) -> list[dict[str, Any]]:
    """These policies with the names filled in."""
    known = {**NAMES, **names}
    pattern = re.compile("|".join(sorted(known, key=len, reverse=True)))
    return [json.loads(pattern.sub(lambda found: known[found[0]], _text(policy))) for policy in policies]
