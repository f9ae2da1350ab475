"""Restores on the lab: a new stack takes the place of one whose machines are gone or stopped, from a backup alone."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import stack
from tests.e2e import kept, loads, recovery
from tests.e2e.operations import client, eventually, instances, must, repair
from tests.e2e.recovery import on
from tests.e2e.restored import NEW, RESTORE, commits_of, destroy, log_in, restore
from tests.e2e.test_doctor import examine

RECORDS = """
puts JSON.generate(
  projects: Project.all.map { |project| [project.id, project.full_path] }.sort,
  runners: Ci::Runner.all.map { |runner| [runner.id, runner.description, runner.token] }
)
"""

pytestmark = pytest.mark.long


def records(run: Any) -> dict[str, Any]:
    return dict(json.loads(run("gitlab-rails runner -", stdin=RECORDS).splitlines()[-1]))


def on_new(role: str) -> Any:
    return lambda command, **more: on(NEW, role, command, **more)


@contextlib.contextmanager
def former_stack_back() -> Iterator[None]:
    """Afterwards the new stack is gone, and the former one serves its domain again."""
    try:
        yield
    finally:
        destroy()
        stopped = [each["InstanceId"] for each in instances() if each["State"]["Name"] == "stopped"]
        if stopped:
            client("ec2").start_instances(InstanceIds=stopped)
        # The new stack has taken the domain's record over, and has deleted it.
        repair("--refresh")
        eventually(lambda: examine("--quick").status == 0, seconds=180, interval=5)


def machines_of(name: str) -> dict[str, str]:
    """The states of a stack's machines, by ID."""
    return {
        each["InstanceId"]: str(each["State"]["Name"])
        for each in instances()
        if {"Key": "gitlab-stack", "Value": f"gitlab/{name}"} in each["Tags"]
    }


def test_a_restore_brings_everything_back_under_the_same_name_and_stops_the_former_machines(outputs, tmp_path: Path):
    image = kept.push("before-the-backup")
    before = records(lambda command, **more: must("server", command, **more))
    key = must("server", "sha256sum /etc/gitlab/registry-token.crt")
    pair = recovery.take_pair()
    recovery.raise_quota()
    with former_stack_back():
        done = restore()
        print(done.output)
        assert done.status == 0, done.output
        assert f"Restored backup {pair} of {stack.STACK} into {NEW}." in done.output
        assert re.search(r"^RPO: ", done.output, re.MULTILINE)
        assert re.search(r"^RTO: \d+ s \(find \d+ s, fence \d+ s, up \d+ s\)", done.output, re.MULTILINE)
        assert set(machines_of(stack.STACK).values()) == {"stopped"}
        assert set(machines_of(NEW).values()) == {"running"}
        # One runner, the former record; the same key, so tokens of jobs stay valid.
        assert records(on_new("server")) == before
        assert on(NEW, "server", "sha256sum /etc/gitlab/registry-token.crt") == key
        log_in(outputs)
        on(NEW, "runner", f"docker pull {image}")
        assert commits_of("acceptance", {**outputs, **recovery.outputs(NEW)}, tmp_path / "clone")
        again = restore()
        assert again.status == 0, again.output
        assert "continuing the restore" in again.output


def test_a_restore_that_was_killed_in_any_phase_is_continued_by_the_same_command(outputs, tmp_path: Path):
    image = kept.push("before-the-kill")
    pair = recovery.take_pair()
    recovery.raise_quota()
    with former_stack_back():
        for phase in ("find", "fence", "up"):
            recovery.killed(phase, *RESTORE)
        done = restore()
        assert done.status == 0, done.output
        assert f"Restored backup {pair} of {stack.STACK} into {NEW}." in done.output
        assert set(machines_of(stack.STACK).values()) == {"stopped"}
        log_in(outputs)
        on(NEW, "runner", f"docker pull {image}")
        assert commits_of("acceptance", {**outputs, **recovery.outputs(NEW)}, tmp_path / "clone")


def test_two_restores_under_load_have_everything_that_was_accepted_before_their_backup(outputs, tmp_path: Path):
    for attempt in ("first", "second"):
        folder = tmp_path / attempt
        folder.mkdir()
        with loads.running(outputs, folder) as load:
            load.wait_for_more()
            commits, images = list(load.commits), load.images()
            pair = recovery.take_pair()
        recovery.raise_quota()
        with former_stack_back():
            done = restore("--backup", pair)
            assert done.status == 0, done.output
            assert commits
            assert images
            present = commits_of("under-load", {**outputs, **recovery.outputs(NEW)}, folder / "clone")
            assert [commit for commit in commits if commit not in present] == []
            log_in(outputs)
            for digest in images:
                on(NEW, "runner", f"docker pull --quiet {outputs['registryHost']}/{loads.IMAGE}@{digest}")
