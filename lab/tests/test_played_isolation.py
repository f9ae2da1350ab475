"""Attacks of one job on another, with the config.toml that the program writes and with one that lets them succeed: so
the played runner is no safer than the real one, and the program's configuration is what stops them.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import gitlab
import pytest

from configuration.job_limits import JobLimits
from configuration.runner_config import render_runner_config
from lab.tests.gitlab_runner import played_runner
from lab.tests.gitlab_server import needed, server, url, wait_until
from lab.tests.test_played_jobs import HOST, ended, engine, lines, open_to_its_project, running
from tests.test_settings import load

__all__ = ["engine", "played_runner", "server", "url"]
pytestmark = needed

PLANT = r"""
plant:
  script:
    - mkdir .git/c
    - cp -r .git/config .git/objects .git/refs .git/c/
    - mkdir .git/c/hooks
    - printf '#!/bin/sh\necho hook of the other branch\n' >.git/c/hooks/post-checkout
    - echo 'echo "echo build.sh of the other branch" >build.sh' >>.git/c/hooks/post-checkout
    - chmod +x .git/c/hooks/post-checkout
    - echo c >.git/commondir
    - mkdir -p /cache/project/protected
    - echo poison >/cache/project/protected/cache.zip
"""
VICTIM = """
victim: {script: [sh build.sh, "cat /cache/project/protected/cache.zip || true"]}
"""
TWO = """
one: {script: [sleep 3], variables: {FF_NETWORK_PER_BUILD: "false"}}
two: {script: [sleep 3], variables: {FF_NETWORK_PER_BUILD: "false"}}
"""


@pytest.fixture(scope="module")
def project(server, url):
    api = gitlab.Gitlab(url, private_token=server.secrets["api"])
    found = api.projects.get("stack/acceptance")
    commit(found, "main", {".gitlab-ci.yml": VICTIM, "build.sh": "echo build.sh as committed"})
    commit(found, "feature", {".gitlab-ci.yml": PLANT})
    commit(found, "two", {".gitlab-ci.yml": TWO})
    return found


def commit(project: Any, branch: str, files: dict[str, str]) -> None:
    actions = [
        {"action": "create" if branch == "main" else "update", "file_path": name, "content": content}
        for name, content in files.items()
    ]
    begin = {} if branch == "main" else {"start_branch": "main"}
    project.commits.create({"branch": branch, "commit_message": "x [skip ci]", "actions": actions, **begin})


def programs_own(server: Any, url: str, **settings: Any) -> str:
    """As `up` writes it, but for the addresses of GitLab and Docker."""
    settings = {"runnerConcurrency": "2", **settings}
    limits, token = JobLimits(memory=512, cpus=1), server.secrets["runner"]
    text = render_runner_config(load(**settings), name="docker-1", limits=limits, external_url=url, token=token)
    text = text.replace("check_interval = 0", "check_interval = 1")
    text = text.replace('executor = "docker"', f'executor = "docker"\n  clone_url = "{url}"')
    return text.replace("[runners.docker]", f'[runners.docker]\n    host = "{HOST}"')


@pytest.fixture
def run(server, url, project, engine, tmp_path, played_runner):
    @contextlib.contextmanager
    def with_configuration(configuration: str) -> Iterator[Any]:
        def pipeline(branch: str) -> dict[str, Any]:
            return ended(project, project.pipelines.create({"ref": branch}))

        with running(server, url, engine, tmp_path, played_runner, configuration):
            yield pipeline

    return with_configuration


def victim_after_attack(run: Any, configuration: str) -> list[str]:
    with run(configuration) as pipeline:
        assert pipeline("feature")["plant"].status == "success"
        return lines(pipeline("main")["victim"])


def test_what_a_job_plants_runs_in_the_next_one_where_checkouts_and_caches_are_kept(server, url, run):
    seen = victim_after_attack(run, open_to_its_project(server, url))
    assert "hook of the other branch" in seen
    assert "build.sh of the other branch" in seen
    assert "poison" in seen


def test_what_a_job_plants_does_not_reach_the_next_one(server, url, run, engine):
    seen = victim_after_attack(run, programs_own(server, url))
    assert "build.sh as committed" in seen
    assert not {"hook of the other branch", "build.sh of the other branch", "poison"} & set(seen)
    assert list((engine / "volume").iterdir()) == []


def test_a_shared_cache_is_shared_and_a_checkout_is_not(server, url, run):
    seen = victim_after_attack(run, programs_own(server, url, runnerSharedCache="true"))
    assert "build.sh as committed" in seen
    assert "poison" in seen


def given(engine: Any, option: str, kind: str = "build") -> list[str | None]:
    """An option of each container of that kind; None where it has none."""
    created = [json.loads(line) for line in (engine / "created").read_text().splitlines()]
    chosen = [options for options in created if options[options.index("--name") + 1].endswith(f"-{kind}")]
    return [options[options.index(option) + 1] if option in options else None for options in chosen]


def test_a_job_chooses_its_network_where_the_file_does_not(server, url, run, engine):
    with run(open_to_its_project(server, url)) as pipeline:
        pipeline("two")
    assert given(engine, "--network") == [None, None]


def test_jobs_at_the_same_time_have_a_network_each_whatever_their_variables_say(server, url, run, engine):
    with run(programs_own(server, url)) as pipeline:
        assert {job.status for job in pipeline("two").values()} == {"success"}
    used = given(engine, "--network")
    assert None not in used
    assert len(set(used)) == len(used) == 2
    asked = (engine / "networks").read_text().splitlines()
    assert {line.split()[-1] for line in asked if line.startswith("network create")} == set(used)
    assert {line.split()[-1] for line in asked if line.startswith("network rm")} == set(used)


def test_no_container_of_a_job_takes_the_whole_machine(server, url, run, engine):
    with run(programs_own(server, url)) as pipeline:
        pipeline("main")
    for kind in ("build", "predefined"):
        assert given(engine, "--memory", kind) == ["512m"]
        assert given(engine, "--cpus", kind) == ["1"]


@pytest.mark.parametrize(
    ("policies", "status"), [("if-not-present", "failed"), ("never", "failed"), ("always", "success")]
)
def test_a_job_may_not_start_an_image_that_another_project_has_pulled(server, url, run, project, policies, status):
    job = f"job: {{image: {{name: 'alpine:3.23', pull_policy: {policies}}}, script: ['true']}}"
    branch = f"policy-{policies}"
    commit(project, branch, {".gitlab-ci.yml": job})
    with run(programs_own(server, url)) as pipeline:
        ran = pipeline(branch)["job"]
    assert ran.status == status
    refusal = (
        f'invalid pull policy for image "alpine:3.23": pull_policy ([{policies}]) defined in GitLab pipeline config is '
        "not one of the allowed_pull_policies ([always])"
    )
    assert (f"ERROR: Job failed: {refusal}" in lines(ran)) == (status == "failed")


PRIVILEGED = {"runnerPrivileged": "true", "runnerTags": ["privileged"], "runnerPrivilegedImages": ["alpine:3.23"]}
TAKEN_BY_TAG = """
untagged: {image: "alpine:3.23", script: [echo never]}
named: {image: "alpine:3.23", tags: [privileged], script: [echo one]}
other: {tags: [privileged], script: [echo two]}
"""


@pytest.fixture
def protected_runner(server) -> Iterator[None]:
    """The record as the program's preparation leaves it for a privileged runner."""
    change = "Ci::Runner.find_by(description: 'r').update!"
    server.console(f"{change}(run_untagged: false, access_level: 'ref_protected', tag_list: %w[privileged])")
    yield
    server.console(f"{change}(run_untagged: true, access_level: 'not_protected', tag_list: [])")


def test_a_privileged_job_is_protected_tagged_and_of_a_named_image(
    server, url, project, engine, tmp_path, played_runner, protected_runner
):
    """A job that names no image is not privileged either, whatever image the runner gives it."""
    commit(project, "unprotected", {".gitlab-ci.yml": TAKEN_BY_TAG})
    unprotected = project.pipelines.create({"ref": "unprotected"})
    file = {"action": "update", "file_path": ".gitlab-ci.yml", "content": TAKEN_BY_TAG}
    project.commits.create({"branch": "main", "commit_message": "x [skip ci]", "actions": [file]})
    protected = project.pipelines.create({"ref": "main"})
    with running(server, url, engine, tmp_path, played_runner, programs_own(server, url, **PRIVILEGED)):
        ends = ("success", "failed")
        wait_until(
            lambda: {job.status for job in jobs(protected) if job.name != "untagged"} <= {*ends}, 120, pause=0.25
        )
    assert {job.name: job.status for job in jobs(protected)} == {
        "untagged": "pending",
        "named": "success",
        "other": "success",
    }
    assert {job.status for job in jobs(unprotected)} == {"pending"}
    created = [json.loads(line) for line in (engine / "created").read_text().splitlines()]
    privileged = [options[options.index("--name") + 1] for options in created if "--privileged" in options]
    assert len(privileged) == 1
    assert privileged[0].endswith("-build")
    for pipeline in (protected, unprotected):
        pipeline.cancel()


def jobs(pipeline: Any) -> list[Any]:
    return list(pipeline.jobs.list(all=True))
