"""Jobs of the played runner, from the played GitLab to a container and back; the containers are played as well."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gitlab
import pytest

from lab.tests import docker_client
from lab.tests.gitlab_runner import played_runner, program
from lab.tests.gitlab_server import needed, server, url, wait_until

__all__ = ["played_runner", "program", "server", "url"]
pytestmark = needed

HOST = "unix:///nowhere/docker.sock"
ENDS = ("success", "failed", "canceled", "skipped")
COLOURS = re.compile(r"\x1b\[[0-9;]*[mK]")


@pytest.fixture(scope="module")
def project(server, url):
    api = gitlab.Gitlab(url, private_token=server.secrets["api"])
    return api.projects.get("stack/acceptance")


@pytest.fixture
def engine(tmp_path):
    folder = tmp_path / "engine"
    folder.mkdir()
    return folder


@pytest.fixture
def runner(server, url, engine, tmp_path, played_runner):
    with running(server, url, engine, tmp_path, played_runner) as process:
        yield process


@contextlib.contextmanager
def running(
    server: Any, url: str, engine: Path, folder: Path, program: Sequence[str], configuration: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The service, with a Docker client that is found first."""
    tools = folder / "tools"
    tools.mkdir()
    docker = tools / "docker"
    docker.write_text(f'#!/bin/sh\nexec {sys.executable} {docker_client.__file__} "$@"\n')
    docker.chmod(0o755)
    (folder / "etc").mkdir()
    (folder / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    file = folder / "config.toml"
    file.write_text(configuration or open_to_its_project(server, url))
    known = {"LAB_ROOT": str(folder), "CONFIG_FILE": str(file), "FAKE_DOCKER": str(engine)}
    environment = {**os.environ, **known, "PATH": f"{tools}:{os.environ['PATH']}"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*program, "run"], env=environment, stderr=log, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(120)


def open_to_its_project(server: Any, url: str) -> str:
    """config.toml of a runner that keeps checkouts and caches and has one network for all, as they are by default."""
    return f"""
concurrent = 2
check_interval = 1
[[runners]]
  name = "docker-1"
  url = "{url}"
  clone_url = "{url}"
  token = "{server.secrets["runner"]}"
  executor = "docker"
  [runners.docker]
    image = "alpine:3.23"
    host = "{HOST}"
    volumes = ["/cache"]
"""


def start(project: Any, text: str, **more: Any) -> Any:
    known = [] if project.empty_repo else project.repository_tree(all=True)
    project.empty_repo = False
    action = "update" if any(entry["path"] == ".gitlab-ci.yml" for entry in known) else "create"
    change = {"action": action, "file_path": ".gitlab-ci.yml", "content": text}
    project.commits.create({"branch": "main", "commit_message": "x [skip ci]", "actions": [change]})
    return project.pipelines.create({"ref": "main", **more})


def ended(project: Any, pipeline: Any, seconds: float = 120) -> dict[str, Any]:
    """The jobs by their names when the pipeline is over."""
    wait_until(lambda: project.pipelines.get(pipeline.id).status in ENDS, seconds, pause=0.25)
    return {job.name: project.jobs.get(job.id) for job in project.pipelines.get(pipeline.id).jobs.list(all=True)}


def lines(job: Any) -> list[str]:
    """What a person sees of the log."""
    shown = [re.sub(r"section_\w+:\d+:\w+\r", "", line) for line in COLOURS.sub("", job.trace().decode()).split("\n")]
    return [line.rstrip() for line in shown]


def sections(job: Any) -> list[str]:
    return re.findall(r"section_start:\d+:(\w+)\r", job.trace().decode())


def test_two_jobs_clone_run_and_hand_over(project, runner, engine):
    jobs = ended(
        project,
        start(
            project,
            """
            stages: [one, two]
            one:
              stage: one
              variables: {GREETING: "hello $CI_PROJECT_NAME"}
              script:
                - echo "$GREETING" "$CI_JOB_TOKEN" glpat-0123456789
                - |
                  for number in 1 2; do
                    echo $number
                  done
                - mkdir out && echo text >out/file && echo "SHARED=of $CI_JOB_NAME" >shared.env
              after_script: [echo "was $CI_JOB_STATUS"]
              artifacts: {paths: [out], reports: {dotenv: shared.env}}
            two: {stage: two, script: ["cat out/file", 'echo "$SHARED"', "ls .gitlab-ci.yml"]}
            """,
        ),
    )
    assert {name: job.status for name, job in jobs.items()} == {"one": "success", "two": "success"}
    seen = lines(jobs["one"])
    assert seen[0] == "Running with gitlab-runner 17.10.1 (ef334dcc)"
    assert "Using Docker executor with image alpine:3.23 ..." in seen
    assert "Using docker image sha256:0123 for alpine:3.23 with digest alpine@sha256:4567 ..." in seen
    assert "hello acceptance [MASKED] glpat-[MASKED]" in seen
    assert "$ for number in 1 2; do # collapsed multi-line command" in seen
    assert "was success" in seen
    assert 'Uploading artifacts as "archive" to coordinator... 201 Created' in "\n".join(seen)
    assert seen[-2:] == ["Job succeeded", ""]
    assert sections(jobs["one"]) == [
        *("prepare_executor", "prepare_script", "get_sources", "step_script", "after_script"),
        *("upload_artifacts_on_success", "cleanup_file_variables"),
    ]
    assert {"text", "of one", ".gitlab-ci.yml"} <= set(lines(jobs["two"]))
    assert "download_artifacts" in sections(jobs["two"])
    assert jobs["one"].artifact("out/file") == b"text\n"
    assert (engine / "pulled").read_text().split() == ["alpine:3.23", "alpine:3.23"]


@pytest.mark.parametrize(
    ("job", "reason", "last"),
    [
        ('{script: ["echo one", "false", "echo two"]}', "script_failure", "ERROR: Job failed: exit code 1"),
        ('{script: ["true | false | true"]}', "script_failure", "ERROR: Job failed: exit code 1"),
        ('{script: ["exit 7"]}', "script_failure", "ERROR: Job failed: exit code 7"),
        (
            '{image: "other:1", script: ["true"]}',
            "runner_system_failure",
            (
                'ERROR: Job failed: failed to pull image "other:1" with specified policies [always]: Error response '
                "from daemon: manifest for other:1 not found: manifest unknown: manifest unknown (manager.go:254:0s)"
            ),
        ),
        (
            '{script: ["sleep 60"], timeout: 3 seconds}',
            "job_execution_timeout",
            "ERROR: Job failed: execution took longer than 3s seconds",
        ),
        (
            '{script: ["true"], services: [postgres]}',
            "runner_system_failure",
            "ERROR: Job failed (system failure): the lab plays gitlab-runner without services:",
        ),
    ],
)
def test_a_job_that_fails_says_why(project, runner, job, reason, last):
    failed = ended(project, start(project, f"job: {job}"))["job"]
    assert (failed.status, failed.failure_reason) == ("failed", reason)
    assert [line for line in lines(failed) if line][-1] == last
    assert "echo two" not in lines(failed)


def test_a_job_that_wants_all_history_has_it_also_where_one_before_cloned_less(project, runner, engine):
    begun = start(
        project,
        """
        stages: [one, two]
        less: {stage: one, variables: {GIT_DEPTH: "1"}, script: ["test -e .git/shallow"]}
        all: {stage: two, variables: {GIT_DEPTH: "0"}, script: ["test ! -e .git/shallow"]}
        """,
    )
    assert {name: job.status for name, job in ended(project, begun).items()} == {"less": "success", "all": "success"}


def test_a_docker_engine_that_does_not_answer_is_asked_three_times(server, url, project, engine, tmp_path, program):
    (engine / "down").touch()
    with running(server, url, engine, tmp_path, program):
        job = ended(project, start(project, "job: {script: 'true'}"))["job"]
    assert job.failure_reason == "runner_system_failure"
    words = f"{docker_client.DOWN.format(HOST)} (docker.go:1041:0s)"
    refused = ["ERROR: Failed to remove network for build", f"ERROR: Preparation failed: {words}"]
    seen = [line for line in lines(job) if line]
    assert seen[0] == "Running with gitlab-runner 17.10.1 (ef334dcc)"
    assert seen[1].startswith("  on docker-1 t1_")
    assert seen[2:] == [
        'Preparing the "docker" executor',
        *3 * [*refused, "Will be retried in 3s ..."],
        f"ERROR: Job failed (system failure): {words}",
    ]


@pytest.mark.parametrize(
    ("sent", "last"),
    [
        (signal.SIGTERM, "ERROR: Job failed (system failure): aborted: terminated"),
        (signal.SIGQUIT, "Job succeeded"),
    ],
)
def test_a_runner_that_is_stopped_aborts_its_job_or_waits_for_it(project, runner, engine, sent, last):
    pipeline = start(project, f"job: {{script: ['touch {engine}/begun', 'sleep 4']}}")
    wait_until((engine / "begun").exists)
    runner.send_signal(sent)
    runner.wait(120)
    job = ended(project, pipeline)["job"]
    assert [line for line in lines(job) if line][-1] == last


def test_no_secret_of_a_job_is_an_argument_of_dockers_client(project, runner, engine):
    text = f"job: {{script: ['cat {engine}/*/options >seen'], artifacts: {{paths: [seen]}}}}"
    job = ended(project, start(project, text))["job"]
    options = job.artifact("seen").decode()
    assert options.count('"--env-file"') == 2
    assert "glcbt-" not in options


def test_checkout_and_cache_stay_in_volumes_that_are_marked_as_the_runners(runner, engine, project):
    job = ended(project, start(project, "one: {script: [echo one]}\n"))["one"]
    assert job.status == "success"
    made = (engine / "volumes").read_text().splitlines()
    assert len(made) == 2
    for line in made:
        assert "--label com.gitlab.gitlab-runner.managed=true" in line
        assert f"--label com.gitlab.gitlab-runner.project.id={project.id}" in line
        assert "--label com.gitlab.gitlab-runner.type=cache" in line
        assert re.search(rf" runner-[a-z0-9-]+-project-{project.id}-concurrent-\d+-cache-[0-9a-f]{{32}}$", line)
