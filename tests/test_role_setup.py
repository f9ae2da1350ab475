"""The commands that create the roles (docs/pull-requests.md, "Set-up: the roles"), run with a stub for aws.

They are run as documented, in a folder that contains nothing but the policies of docs/iam.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.cloud.permissions.policies import Asked, allowed
from lab.cloud.permissions.reference import actions
from tests.policies import IAM
from tests.test_markdown import INDENTED

PAGE = IAM.parent / "pull-requests.md"
RUNNING, COPY = "gitlab/dev", "gitlab/dev-drill"

AWS = """\
#!/bin/bash
printf '%q ' "$@" >>calls
echo >>calls
case $* in
    *get-caller-identity*) echo 123456789012 ;;
    *--policy-name*Policy.Arn*) echo "arn:aws:iam::123456789012:policy/$4" ;;
esac
"""


def commands() -> str:
    section = PAGE.read_text().split("\n## Set-up: the roles\n")[1].split("\n## ")[0]
    blocks = [block[0].replace("\n    ", "\n").removeprefix("    ") for block in INDENTED.finditer(section)]
    return "\n".join(block for block in blocks if "aws iam" in block or "values.sed" in block)


@dataclass(frozen=True)
class Call:
    """A call of `aws iam`, for example `create-role`, and its options by name without hyphens."""

    name: str
    options: dict[str, str]

    def document(self, folder: Path) -> dict[str, Any]:
        [file] = [value.removeprefix("file://") for value in self.options.values() if value.startswith("file://")]
        content: dict[str, Any] = json.loads((folder / file).read_text())
        return content


@dataclass(frozen=True)
class Made:
    """What the commands wrote to their folder, and the calls of `aws iam` that they made."""

    folder: Path
    calls: list[Call]

    def of(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.name == name]

    def attached(self, role: str) -> list[dict[str, Any]]:
        """The managed policies of a role."""
        documents = {call.options["policy-name"]: call.document(self.folder) for call in self.of("create-policy")}
        attached = [call.options for call in self.of("attach-role-policy") if call.options["role-name"] == role]
        return [documents[options["policy-arn"].rpartition("/")[2]] for options in attached]

    @property
    def roles(self) -> Counter[str]:
        """The number of managed policies that each role gets."""
        return Counter(call.options["role-name"] for call in self.of("attach-role-policy"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(IAM, folder / "docs/iam")
    aws = folder / "bin/aws"
    aws.parent.mkdir()
    aws.write_text(AWS)
    aws.chmod(0o755)
    script = f'set -euo pipefail\nPATH="$PWD/bin:$PATH"\n{commands()}'
    subprocess.run(["bash"], input=script, text=True, cwd=folder, check=True)
    lines = [shlex.split(line) for line in (folder / "calls").read_text().splitlines()]
    calls = [
        Call(name, {key.removeprefix("--"): value for key, value in zip(rest[::2], rest[1::2], strict=True)})
        for service, name, *rest in lines
        if service == "iam"
    ]
    return Made(folder, calls)


def test_no_placeholder_is_left_and_no_template_is_changed(made):
    rendered = sorted((made.folder / "policies").rglob("*.json"))
    assert {path.parent.relative_to(made.folder / "policies").as_posix() for path in rendered} >= {RUNNING, COPY}
    for path in rendered:
        assert set(re.findall(r"\b[A-Z][A-Z-]{2,}\b", path.read_text())) <= {"CNAME"}, path
        json.loads(path.read_text())
    for path in IAM.iterdir():
        assert (made.folder / "docs/iam" / path.name).read_bytes() == path.read_bytes()


def test_every_policy_is_from_the_folder_of_a_stack_and_has_a_name_of_its_own(made):
    names = [call.options["policy-name"] for call in made.of("create-policy")]
    assert len(names) == len(set(names))
    for call in made.calls:
        assert not [value for value in call.options.values() if "docs/iam" in value]


def test_a_role_has_no_more_policies_than_iam_allows(made):
    # IAM and AWS STS quotas: managed policies of a role by default; characters without white space of a managed
    # policy, of a role's inline policies together, and of a trust policy by default.
    assert max(made.roles.values()) <= 10
    inline: Counter[str] = Counter()
    for call in made.calls:
        if not any(value.startswith("file://") for value in call.options.values()):
            continue
        size = len(re.sub(r"\s", "", json.dumps(call.document(made.folder))))
        if call.name == "put-role-policy":
            inline[call.options["role-name"]] += size
        else:
            assert size <= {"create-policy": 6_144, "create-role": 2_048}[call.name], call
    assert max(inline.values()) <= 10_240


def test_the_drills_role_changes_the_copy_and_of_the_running_stack_nothing_but_a_tag_of_its_snapshots(made):
    policies = made.attached("gitlab-drill")
    assert COPY in json.dumps(policies)
    assert changed(policies, COPY) > {("ec2:TerminateInstances", "instance"), ("ec2:DeleteVolume", "volume")}
    assert changed(policies, RUNNING) == {("ec2:CreateVolume", "snapshot")}  # a volume of the copy
    drilled = {"aws:TagKeys": ["gitlab-drilled"], "aws:ResourceTag/gitlab-stack": [RUNNING]}
    assert allowed(policies, Asked("ec2:CreateTags", "arn:aws:ec2:eu-central-1::snapshot/snap-1", drilled))


def changed(policies: list[dict[str, Any]], stack: str) -> set[tuple[str, str]]:
    """The changing actions that policies allow on existing resources with a stack's tag, and the resource types."""
    keys = {
        "aws:RequestedRegion": ["eu-central-1"],
        "aws:ResourceTag/gitlab-stack": [stack],
        "ec2:Owner": ["123456789012"],
    }
    found = set()
    for name, action in actions().items():
        for type_ in () if action.reads else action.types:
            account = "" if type_ in ("image", "snapshot") else "123456789012"
            resource = f"arn:aws:{name.partition(':')[0]}:eu-central-1:{account}:{type_}/snap-1"
            if not action.makes(type_) and allowed(policies, Asked(name, resource, keys)):
                found.add((name, type_))
    return found
