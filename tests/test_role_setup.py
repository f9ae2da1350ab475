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
RUNNING, COPY, REGION = "gitlab/dev", "gitlab/dev-drill", "eu-central-1"
OPERATORS = {
    "OPERATOR": (RUNNING, REGION),
    "RESTORER": ("gitlab/dev-b", REGION),
    "RESTORER-ELSEWHERE": ("gitlab/dev-c", "eu-west-1"),
}
"""The roles with which `pulumi up` is run, with stack and region; the last two restore a backup of the first stack."""

AWS = """\
#!/bin/bash
printf '%q ' "$@" >>calls
echo >>calls
case $* in
    *get-caller-identity*) echo 123456789012 ;;
    *--policy-name*Policy.Arn*) echo "arn:aws:iam::123456789012:policy/$4" ;;
esac
"""


def blocks() -> list[str]:
    """The commands of the section, as they are pasted."""
    section = PAGE.read_text().split("\n## Set-up: the roles\n")[1].split("\n## ")[0]
    found = [block[0].replace("\n    ", "\n").removeprefix("    ") for block in INDENTED.finditer(section)]
    return [block for block in found if re.search(r"aws iam|render|values\.sed", block)]


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

    def names(self, role: str) -> list[str]:
        """The names of a role's managed policies."""
        attached = [call.options for call in self.of("attach-role-policy") if call.options["role-name"] == role]
        return [options["policy-arn"].rpartition("/")[2] for options in attached]

    def attached(self, role: str) -> list[dict[str, Any]]:
        """A role's managed policies."""
        documents = {call.options["policy-name"]: call.document(self.folder) for call in self.of("create-policy")}
        return [documents[name] for name in self.names(role)]

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
    script = "\n".join(["set -euo pipefail", 'PATH="$PWD/bin:$PATH"', *blocks()])
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
        assert set(re.findall(r"\b[A-Z][A-Z-]{2,}\b", path.read_text())) <= {"AWS", "CNAME"}, path
        json.loads(path.read_text())
    for path in IAM.iterdir():
        assert (made.folder / "docs/iam" / path.name).read_bytes() == path.read_bytes()


def test_every_policy_is_from_the_folder_of_a_stack_and_has_a_name_of_its_own(made):
    names = [call.options["policy-name"] for call in made.of("create-policy")]
    assert len(names) == len(set(names))
    for call in made.calls:
        assert not [value for value in call.options.values() if "docs/iam" in value]


def test_every_role_is_created_before_it_gets_policies(made):
    known = set()
    for call in made.calls:
        role = call.options.get("role-name")
        if call.name == "create-role":
            known.add(role)
        assert role is None or role in known, call
    assert known == {*OPERATORS, "gitlab-preview", "gitlab-drift", "gitlab-drill"}


def test_people_assume_the_roles_that_run_up_and_no_other(made):
    for call in made.of("create-role"):
        [statement] = call.document(made.folder)["Statement"]
        by_people = statement["Principal"] == {"AWS": "arn:aws:iam::123456789012:root"}
        assert by_people == (call.options["role-name"] in OPERATORS), call
        assert statement["Action"] == f"sts:AssumeRole{'' if by_people else 'WithWebIdentity'}"


def test_what_the_first_up_needs_is_not_detached_by_the_commands_that_attach_it():
    detaching = [block for block in blocks() if "detach-role-policy" in block]
    assert detaching
    assert not [block for block in detaching if re.search(r"^attach ", block, re.MULTILINE)]


def test_every_placeholder_has_a_row_and_the_state_is_created_before_its_policies():
    page = PAGE.read_text()
    [values] = [block for block in blocks() if "cat >values.sed" in block]
    placeholders = re.findall(r'^s\|"?([A-Z/-]+)"?\|', values, re.MULTILINE)
    table = page.split("| placeholder | value |\n")[1].split("\n\n")[0]
    rows = [name for row in table.splitlines() for name in re.findall(r"`([A-Z/-]+)`", row.split("|")[1])]
    assert sorted(rows) == sorted(placeholders)
    assert page.index("aws s3api create-bucket") < page.index("aws kms create-key") < page.index("cat >values.sed")


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
    assert allowed(policies, Asked("ec2:CreateTags", f"arn:aws:ec2:{REGION}::snapshot/snap-1", drilled))


@pytest.mark.parametrize("role", ["RESTORER", "RESTORER-ELSEWHERE"])
def test_a_role_that_restores_is_the_new_stacks_operator_and_stops_the_machines_of_the_former_one(made, role):
    policies = made.attached(role)
    _, region = OPERATORS[role]
    assert changed(policies, *OPERATORS[role]) == changed(made.attached("OPERATOR"), RUNNING)
    assert changed(policies, RUNNING) | changed(policies, RUNNING, region) == {
        ("ec2:CreateVolume", "snapshot"),
        ("ec2:StopInstances", "instance"),
    }


def test_the_boundary_admits_the_backups_of_every_stack_whose_role_runs_up(made):
    assert {role for role in made.roles if any(name.endswith("up-roles") for name in made.names(role))} == set(
        OPERATORS
    )
    [boundary] = [call for call in made.of("create-policy") if call.options["policy-name"] == "gitlab-boundary"]
    for stack, region in OPERATORS.values():
        done = changed([boundary.document(made.folder)], stack, region)
        assert done >= {("ec2:CreateSnapshot", "volume"), ("ec2:DeleteSnapshot", "snapshot")}, stack


def changed(policies: list[dict[str, Any]], stack: str, region: str = REGION) -> set[tuple[str, str]]:
    """The changing actions that policies allow on existing resources with a stack's tag, and the resource types."""
    keys = {
        "aws:RequestedRegion": [region],
        "aws:ResourceTag/gitlab-stack": [stack],
        "ec2:Owner": ["123456789012"],
    }
    found = set()
    for name, action in actions().items():
        for type_ in () if action.reads else action.types:
            account = "" if type_ in ("image", "snapshot") else "123456789012"
            resource = f"arn:aws:{name.partition(':')[0]}:{region}:{account}:{type_}/snap-1"
            if not action.makes(type_) and allowed(policies, Asked(name, resource, keys)):
                found.add((name, type_))
    return found
