"""Drills on the lab: a second stack, restored from the newest backup, silenced, checked and destroyed."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import stack
from lab.cloud import dns
from lab.cloud.network import ELSEWHERE
from lab.workspace import ROOT
from tests.e2e import backups, kept, people, projects, recovery
from tests.e2e.operations import Finished, client, must
from tests.e2e.programs import IMPATIENT, Edits, changed_program
from tests.e2e.recovery import DRILL, drill
from tests.e2e.sink import Sink
from tests.e2e.test_doctor import examine

OUTSIDE = "hooks.example.test"
PENDING = """
deploy:
  tags: [nowhere]
  script: [curl -fsS https://hooks.example.test/deployed]
"""
"""A pipeline whose job waits for a runner that does not exist yet."""


@pytest.fixture
def acting(outputs: dict[str, Any]) -> Iterator[Sink]:
    """A GitLab that has everything with which a restored copy could do harm: a webhook, a mirror, a schedule that is
    due each minute, a job that waits for a runner. All of it points to a sink.
    """
    dns.plant(OUTSIDE, "A", ELSEWHERE)
    with Sink(25, 80, 443) as sink, projects.made(outputs, "acting") as project:
        files = [{"action": "create", "file_path": ".gitlab-ci.yml", "content": PENDING}]
        project.commits.create({"branch": "main", "commit_message": "Deploy", "actions": files})
        project.hooks.create({"url": f"https://{OUTSIDE}/hook", "push_events": True})
        project.remote_mirrors.create({"url": f"https://user:secret@{OUTSIDE}/mirror.git", "enabled": True})
        project.pipelineschedules.create({"description": "deploy", "ref": "main", "cron": "* * * * *"})
        # The copy itself pushes only to the acceptance's project, and only files that differ.
        acceptance = project.manager.gitlab.projects.get(kept.PROJECT)
        changed = [{"action": "update", "file_path": "README.md", "content": "Changed in GitLab."}]
        acceptance.commits.create({"branch": "main", "commit_message": "Change a file", "actions": changed})
        hook = acceptance.hooks.create({"url": f"https://{OUTSIDE}/hook", "push_events": True})
        yield sink
        must("server", f"gitlab-psql -d gitlabhq_production -At -c 'DELETE FROM web_hooks WHERE id = {hook.id}'")


def from_others_than(server: str, sink: Sink) -> list[Any]:
    return [contact for contact in sink.contacts if contact.sender != server]


def test_too_few_elastic_addresses_are_refused_with_the_request_for_more(outputs):
    refused = drill()
    assert refused.status == 1
    assert "aws service-quotas request-service-quota-increase --service-code ec2" in refused.output
    assert "--desired-value 8" in refused.output
    assert recovery.left_of(DRILL) == []


def test_a_drill_restores_a_silenced_copy_checks_all_of_it_and_leaves_only_its_result(outputs, acting, tmp_path):
    recovery.raise_quota()
    pair = recovery.take_pair()
    before = backups.ids()
    command = ["make", "drill", "STACK=lab", f"CALLER={recovery.CALLER}", f"JSON={tmp_path / 'drill.json'}"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    seconds = time.monotonic() - started
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    report = json.loads((tmp_path / "drill.json").read_text())
    assert (report["passed"], report["backup"], report["left"]) == (True, pair, "")
    assert all(check["passed"] for check in report["checks"])
    assert report["rpoSeconds"] > 0
    assert 0 < report["rtoSeconds"] < seconds
    for backup in recovery.snapshots_of(pair):
        assert backup.tags["gitlab-drilled"].endswith(" passed")
    assert before <= backups.ids()
    # Nothing of it acted, and the original is as before.
    assert from_others_than(outputs["publicAddresses"]["server"], acting) == []
    assert recovery.left_of(DRILL) == []
    assert not (ROOT / f"Pulumi.{DRILL}.yaml").exists()
    assert DRILL not in stack.names()
    assert examine("--quick").status == 0
    listed = subprocess.run(["make", "backups", "STACK=lab"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert any(pair in line and "passed" in line for line in listed.stdout.splitlines()), listed.stdout


# --- wrong programs and faults ---------------------------------------------------------------------------

UNSILENCED: Edits = {
    "components/gitlab_server.py": [
        (
            "if settings.drill:\n            mounted = self._restrict_egress",
            "if False:\n            mounted = self._restrict_egress",
        ),
        ("after=[installed.command]) if settings.drill else None", "after=[installed.command]) if False else None"),
    ],
}
SAME_KEY: Edits = {
    "remote/clean_restored_data.sh": [("    rm -f /etc/gitlab/registry-token.key /etc/gitlab/registry-token.crt\n", "")]
}

FLIP = "printf X | dd of={} bs=1 seek=100 conv=notrunc status=none"
STORED = "images/docker/registry/v2/blobs/sha256"
REPOSITORIES = "var-opt-gitlab/git-data/repositories"
DAMAGES = {
    "a blob": ("registry", f"f=$(find {STORED} -name data -size +1k -print -quit); {FLIP.format('$f')}", "images"),
    "a repository": (
        "server",
        # The newest one: in that of the acceptance, its pipeline would fail first.
        (
            f"r=$(ls -td {REPOSITORIES}/@hashed/*/*/*.git | sed -n 1p); "
            f"f=$(find $r -path '*/objects/??/*' -type f -print -quit); chmod u+w $f; {FLIP.format('$f')}"
        ),
        "repositories",
    ),
    "the secrets": (
        "server",
        "sed -i -E 's/(db_key_base.*)[0-9a-f]{8}/\\1deadbeef/' etc-gitlab/gitlab-secrets.json",
        "secrets-file",
    ),
}
"""What is damaged in a snapshot of the machine, and the check that finds it."""


def token_from(url: str) -> str:
    """A command that prints a token for the registry."""
    ask = f"curl -s -u {people.NAME}:{people.PASSWORD} '{url}/jwt/auth?service=container_registry'"
    return f'{ask} | sed -E \'s/.*"token":"([^"]*).*/\\1/\''


def failed_checks(done: Any, file: Path) -> set[str]:
    assert done.status == 1, done.output
    report = json.loads(file.read_text())
    assert report["passed"] is False
    return {check["name"] for check in report["checks"] if not check["passed"]}


@pytest.mark.long
def test_a_copy_that_is_not_silenced_acts_and_is_found_out(outputs, acting, tmp_path):
    recovery.take_pair()
    recovery.raise_quota()
    with changed_program(IMPATIENT, UNSILENCED) as program:
        done = drill("--json", str(tmp_path / "drill.json"), program=program)
    print(done.output)
    assert failed_checks(done, tmp_path / "drill.json") >= {"silence"}
    assert from_others_than(outputs["publicAddresses"]["server"], acting) != []
    assert recovery.left_of(DRILL) == []


@pytest.mark.long
def test_a_copy_that_signs_with_the_key_of_the_original_is_found_out(outputs, tmp_path):
    recovery.take_pair()
    recovery.raise_quota()
    with changed_program(IMPATIENT, SAME_KEY) as program:
        done = drill("--json", str(tmp_path / "drill.json"), program=program)
    assert failed_checks(done, tmp_path / "drill.json") == {"token-key"}


def drill_of_a_damaged_backup(outputs: dict[str, Any], role: str, damage: str, report: Path) -> Finished:
    """The drill of a backup after `damage` in the snapshot of the machine `role`. It must mark the backup as failed."""
    kept.push("intact")
    with projects.made(outputs, "intact") as project:
        files = [{"action": "create", "file_path": "content", "content": "intact" * 100}]
        project.commits.create({"branch": "main", "commit_message": "Intact", "actions": files})
        pair = recovery.take_pair()
    try:
        [damaged] = [backup for backup in recovery.snapshots_of(pair) if backup.tags["gitlab-role"] == role]
        recovery.damage(damaged.id, damage)
        recovery.raise_quota()
        done = drill("--json", str(report))
        for backup in recovery.snapshots_of(pair):
            assert backup.tags["gitlab-drilled"].endswith(" failed")
        assert recovery.left_of(DRILL) == []
        return done
    finally:
        backups.discard({backup.id for backup in recovery.snapshots_of(pair)})


@pytest.mark.long
@pytest.mark.parametrize(("role", "damage", "check"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_backup_fails_its_drill_and_is_marked(outputs, tmp_path, role, damage, check):
    report = tmp_path / "drill.json"
    done = drill_of_a_damaged_backup(outputs, role, damage, report)
    assert check in failed_checks(done, report), done.output


@pytest.mark.long
def test_a_backup_without_its_secrets_fails_its_drill_before_gitlab_makes_new_ones(outputs, tmp_path):
    report = tmp_path / "drill.json"
    done = drill_of_a_damaged_backup(outputs, "server", "rm etc-gitlab/gitlab-secrets.json", report)
    assert failed_checks(done, report) == set()
    assert "/etc/gitlab/gitlab-secrets.json is missing" in done.output
    assert "server-configure-gitlab" not in done.output


@pytest.mark.long
def test_a_drill_that_was_killed_in_any_phase_is_removed_by_the_next_one(outputs, tmp_path):
    recovery.take_pair()
    recovery.raise_quota()
    for phase in ("up", "check", "destroy"):
        recovery.killed(phase, "drill", *recovery.DRILL_OF_LAB)
        assert recovery.left_of(DRILL) != [], phase
    done = drill("--json", str(tmp_path / "drill.json"))
    assert done.status == 0, done.output
    assert recovery.left_of(DRILL) == []
    assert DRILL not in stack.names()


@pytest.mark.long
def test_a_kept_copy_cannot_push_to_the_registry_of_the_original_and_the_next_drill_removes_it(outputs, tmp_path):
    people.make()
    pair = recovery.take_pair()
    recovery.raise_quota()
    done = drill("--keep")
    assert done.status == 0, done.output
    copy = recovery.outputs(DRILL)
    tokens = {
        "original": must("server", token_from(outputs["externalUrl"])),
        "copy": recovery.inside(DRILL, "server", token_from(copy["externalUrl"])),
    }
    ask = "curl -s -o /dev/null -w '%{{http_code}}' -H 'Authorization: Bearer {token}' https://{host}/v2/"
    for origin, expected in (("original", "200"), ("copy", "401")):
        assert must("runner", ask.format(token=tokens[origin], host=outputs["registryHost"])) == expected
    host = copy["registryHost"]
    assert recovery.inside(DRILL, "runner", ask.format(token=tokens["copy"], host=host)) == "200"
    again = drill("--backup", pair, "--json", str(tmp_path / "drill.json"))
    assert again.status == 0, again.output
    assert recovery.left_of(DRILL) == []


@pytest.mark.long
def test_a_drill_in_another_region_copies_the_backup_there_and_deletes_the_copies(outputs, tmp_path):
    recovery.take_pair()
    region = "us-west-2"
    done = drill("--region", region, "--zone", f"{region}a", "--json", str(tmp_path / "drill.json"))
    assert done.status == 0, done.output
    assert recovery.left_of(DRILL, region) == []
    assert client("ec2", region).describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
