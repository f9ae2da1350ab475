"""Jobs on the stack's runner, of a project of their own: one pipeline, whose jobs show what the runner makes of each.

Played or real, the runner is held to the same.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab import stack
from tests.e2e import people, projects
from tests.e2e.operations import Finished, eventually, heal, must, on, up
from tests.e2e.programs import changed_program
from tests.e2e.test_doctor import examine

PROJECT = f"{projects.GROUP}/jobs"
LIMIT = 300.0
"""Seconds for all jobs together. A runner learns up to a minute late that a job is canceled."""

IMAGE = "docker.io/curlimages/curl:8.12.1"

CONFIGURATION = f"""
workflow: {{rules: [{{if: $CI_PIPELINE_SOURCE == "api"}}]}}
stages: [first, second]
variables: {{GREETING: hello}}
.tools: &tools {{name: "{IMAGE}", entrypoint: [""]}}

hands over:
  stage: first
  image: *tools
  script:
    - echo "$GREETING from $CI_PROJECT_PATH to $(cat addressee)"
    - echo proof >proof.txt
    - echo DIGEST=sha256:1234 >digest.env
  artifacts: {{paths: [proof.txt], reports: {{dotenv: digest.env}}, expire_in: 1 day}}
takes over:
  stage: second
  image: *tools
  needs: [hands over]
  script: ['echo "$(cat proof.txt) of $DIGEST"']

fails:
  stage: first
  image: *tools
  script: [echo before, exit 7, echo never]
  after_script: ['echo "afterwards it is $CI_JOB_STATUS"']
  artifacts: {{paths: [addressee], when: always}}
takes too long:
  stage: first
  image: *tools
  timeout: 10 seconds
  script: [sleep 120]
has no image:
  stage: first
  image: registry.gitlab.com/gitlab-org/none:1
  script: [echo never]
is canceled:
  stage: first
  image: *tools
  script: [sleep 120]

shows its token:
  stage: first
  image: *tools
  script: ['echo "$CI_JOB_TOKEN and $CI_REGISTRY_PASSWORD"']
names no image:
  stage: first
  script: ['echo "runner $CI_RUNNER_DESCRIPTION"']
is of the stack's own registry:
  stage: first
  image: {{name: $CI_REGISTRY_IMAGE/tools:1, entrypoint: [""]}}
  script: [echo started]
clones without history:
  stage: first
  image: *tools
  variables: {{GIT_DEPTH: "1"}}
  script: ['echo "$(wc -l <.git/shallow) commits end the history"']
clones all of it:
  stage: first
  image: *tools
  variables: {{GIT_DEPTH: "0"}}
  script: [test ! -e .git/shallow]
writes much:
  stage: first
  image: *tools
  script: ['i=0; while [ $i -lt 20000 ]; do echo "line $i of a long log"; i=$((i + 1)); done']
"""


@dataclass(frozen=True)
class Job:
    """What is left of a job that has ended."""

    status: str
    failure_reason: str | None
    log: str
    files: dict[str, int]
    seconds: float


@pytest.fixture(scope="module")
def project(outputs) -> Iterator[Any]:
    with projects.made(outputs, "jobs") as made:
        yield made


@pytest.fixture(scope="module")
def jobs(outputs, project) -> dict[str, Job]:
    """The jobs of one pipeline by name, once all have ended; one of them was canceled while it ran."""
    tools = f"{outputs['registryHost']}/{PROJECT}/tools:1"
    people.log_in(outputs)
    must("runner", f"docker pull -q {IMAGE} && docker tag {IMAGE} {tools} && docker push -q {tools}")
    must("runner", f"docker image rm {tools} && docker logout {outputs['registryHost']}")
    for addressee in ("nobody", "everybody"):
        files = {".gitlab-ci.yml": CONFIGURATION, "addressee": addressee}
        action = "create" if addressee == "nobody" else "update"
        actions = [{"action": action, "file_path": name, "content": content} for name, content in files.items()]
        project.commits.create({"branch": "main", "commit_message": f"For {addressee}", "actions": actions})
    pipeline = project.pipelines.create({"ref": "main"})
    _wait(project, pipeline)
    return {job.name: _ended(project, job.id) for job in pipeline.jobs.list(all=True)}


def _wait(project: Any, pipeline: Any) -> None:
    """Until all jobs have ended; one of them is canceled when it has run for ten seconds."""
    deadline = time.monotonic() + LIMIT
    canceled = False
    while True:
        jobs = {job.name: job for job in pipeline.jobs.list(all=True)}
        if all(job.finished_at for job in jobs.values()):
            return
        assert time.monotonic() < deadline, {name: job.status for name, job in jobs.items()}
        victim = jobs["is canceled"]
        if not canceled and victim.status == "running" and victim.duration > 10:
            project.jobs.get(victim.id).cancel()
            canceled = True
        time.sleep(1)


def _ended(project: Any, number: int) -> Job:
    job = project.jobs.get(number)
    reason = getattr(job, "failure_reason", None)
    files = {file["file_type"]: file["size"] for file in job.attributes["artifacts"]}
    return Job(job.status, reason, job.trace().decode(), files, job.duration)


def said(job: Job, line: str) -> bool:
    """Whether the script has printed the line: commands are shown with a `$` before them."""
    return f"\n{line}\n" in job.log


def test_a_job_sees_its_commit_and_hands_files_and_variables_to_the_next(jobs):
    assert (jobs["hands over"].status, jobs["takes over"].status) == ("success", "success")
    assert said(jobs["hands over"], f"hello from {PROJECT} to everybody")
    assert said(jobs["takes over"], "proof of sha256:1234")


def test_a_script_that_fails_ends_there_and_what_is_for_always_is_done(jobs):
    job = jobs["fails"]
    assert (job.status, job.failure_reason) == ("failed", "script_failure")
    assert said(job, "before")
    assert not said(job, "never")
    assert said(job, "afterwards it is failed")
    assert "ERROR: Job failed: exit code 7" in job.log
    assert job.files["archive"] > 0


def test_a_job_is_ended_at_its_time_limit(jobs):
    job = jobs["takes too long"]
    assert (job.status, job.failure_reason) == ("failed", "job_execution_timeout")
    assert 10 <= job.seconds < 30


def test_a_job_whose_image_is_nowhere_says_so(jobs):
    job = jobs["has no image"]
    assert (job.status, job.failure_reason) == ("failed", "runner_system_failure")  # GitLab has no better word for it
    assert "manifest for registry.gitlab.com/gitlab-org/none:1 not found" in job.log


def test_a_job_that_is_canceled_ends_before_its_script_does(jobs):
    job = jobs["is canceled"]
    assert (job.status, job.failure_reason) == ("canceled", None)
    assert "ERROR: Job failed: canceled" in job.log
    assert job.seconds < 100


def test_the_log_shows_no_token(jobs):
    assert jobs["shows its token"].status == "success"
    assert said(jobs["shows its token"], "[MASKED] and [MASKED]")


def test_a_job_that_names_no_image_runs_in_the_runners_default(jobs):
    assert jobs["names no image"].status == "success"
    assert "Using Docker executor with image alpine:3.23 ..." in jobs["names no image"].log
    assert said(jobs["names no image"], "runner gitlab-lab")


def test_a_job_may_use_an_image_of_its_own_project(jobs):
    job = jobs["is of the stack's own registry"]
    assert job.status == "success", job.log
    assert "Authenticating with credentials from job payload (GitLab Registry)" in job.log


def test_a_job_clones_as_deep_as_it_says(jobs):
    assert said(jobs["clones without history"], "1 commits end the history")
    assert jobs["clones all of it"].status == "success"


def test_a_long_log_arrives_whole(jobs):
    lines = [line for line in jobs["writes much"].log.splitlines() if line.endswith(" of a long log")]
    assert lines == [f"line {number} of a long log" for number in range(20000)]


def test_no_container_of_a_job_is_left(jobs):
    assert must("runner", "docker ps --all --quiet") == ""


TOOLS = f"""
workflow: {{rules: [{{if: $CI_PIPELINE_SOURCE == "api"}}]}}
default: {{image: {{name: "{IMAGE}", entrypoint: [""]}}}}
"""
PLANT = r"""
plant:
  script:
    - mkdir .git/c && cp -r .git/config .git/objects .git/refs .git/c/ && mkdir .git/c/hooks
    - printf '#!/bin/sh\necho hook of another branch\n' >.git/c/hooks/post-checkout
    - echo 'echo echo script of another branch >build.sh' >>.git/c/hooks/post-checkout
    - chmod +x .git/c/hooks/post-checkout && echo c >.git/commondir
    - mkdir -p /cache/protected && echo poison >/cache/protected/cache.zip || true
"""
VICTIM = """
victim: {script: [sh build.sh, cat /cache/protected/cache.zip || true]}
"""
SERVES = """
serves:
  script: [mkdir /tmp/www, echo secret of another job >/tmp/www/index.html, httpd -p 8000 -h /tmp/www, sleep 200]
"""
VISITS = """
visits:
  variables: {FF_NETWORK_PER_BUILD: "false"}
  script:
    - gateway=$(ip route | awk '/^default/ {print $3}')
    - for place in $OTHER_JOB:8000 $gateway:22 $MACHINE:22; do
        curl -s --http0.9 --max-time 5 "http://$place/" || echo "closed to jobs, $place";
      done
    - curl -fsS --output /dev/null "$CI_SERVER_URL/users/sign_in" && echo GitLab answers
    - nslookup packages.gitlab.com >/dev/null && echo a name resolves
"""


def begin(project: Any, branch: str, job: str, **variables: str) -> Any:
    """The one job of a pipeline on a branch of its own, which has a build.sh beside."""
    files = {".gitlab-ci.yml": TOOLS + job, "build.sh": "echo script of this branch"}
    known = {entry["path"] for entry in project.repository_tree(all=True)}
    actions = [
        {"action": "update" if name in known else "create", "file_path": name, "content": content}
        for name, content in files.items()
    ]
    start = {} if branch == "main" else {"start_branch": "main", "force": True}
    project.commits.create({"branch": branch, "commit_message": "A job", "actions": actions, **start})
    given = [{"key": name, "value": value} for name, value in variables.items()]
    [job] = project.pipelines.create({"ref": branch, "variables": given}).jobs.list(all=True)
    return job


def log_of(project: Any, job: Any) -> str:
    eventually(lambda: project.jobs.get(job.id).finished_at)
    return str(project.jobs.get(job.id).trace().decode())


def visit(project: Any, outputs: dict[str, Any]) -> tuple[str, str]:
    """What a job finds of another one that runs, and of the machine; and the other's address."""
    serving = begin(project, "serves", SERVES)
    eventually(lambda: "$ sleep 200" in project.jobs.get(serving.id).trace().decode())
    label = f"label=com.gitlab.gitlab-runner.job.id={serving.id}"
    networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    listed = f"docker ps --quiet --filter {label} --filter label=com.gitlab.gitlab-runner.type=build"
    address = must("runner", f"docker inspect --format '{networks}' $({listed})").split()[0]
    visitor = begin(project, "visits", VISITS, OTHER_JOB=address, MACHINE=outputs["privateAddresses"]["runner"])
    log = log_of(project, visitor)
    project.jobs.get(serving.id).cancel()
    return log, address


def test_what_a_branch_plants_does_not_reach_the_protected_one(jobs, project):
    begin(project, "main", VICTIM)
    assert "Job succeeded" in log_of(project, begin(project, "feature", PLANT))
    log = log_of(project, begin(project, "main", VICTIM))
    assert "\nscript of this branch\n" in log
    assert "hook of another branch" not in log
    assert "poison" not in log


def test_a_job_reaches_gitlab_and_its_name_server_and_neither_other_jobs_nor_the_machine(jobs, project, outputs):
    log, other = visit(project, outputs)
    assert f"\nclosed to jobs, {other}:8000\n" in log
    assert log.count("\nclosed to jobs, ") == 3
    assert "\nGitLab answers\n" in log
    assert "\na name resolves\n" in log


@pytest.mark.long
def test_jobs_on_one_network_read_each_other_and_the_machine_answers_them(jobs, project, outputs):
    open_to_all = {
        "configuration/runner_config.py": [("FF_NETWORK_PER_BUILD = true", "FF_NETWORK_PER_BUILD = false")],
        "programs/refuse-containers": [("--jump REJECT", "--jump ACCEPT")],
    }
    with changed_program(open_to_all) as program:
        done = up(program=program)
        assert done.status == 0, done.output
        log, other = visit(project, outputs)
        must("runner", "iptables --flush INPUT")
    heal()
    assert "\nsecret of another job\n" in log
    assert f"\nclosed to jobs, {other}" not in log
    # curl may end badly with what is no HTTP.
    assert log.count("SSH-2.0-") == 2, "the machine answers by both of its addresses"


LONG_JOB = f"""
workflow: {{rules: [{{if: $CI_PIPELINE_SOURCE == "api"}}]}}
long: {{image: {{name: "{IMAGE}", entrypoint: [""]}}, script: [sleep 120]}}
"""


def during_a_long_job(project: Any, change: Callable[[], Finished]) -> tuple[str, str]:
    """Status and log of a job during which something is changed."""
    actions = [{"action": "update", "file_path": ".gitlab-ci.yml", "content": LONG_JOB}]
    project.commits.create({"branch": "main", "commit_message": "A long job", "actions": actions})
    [job] = project.pipelines.create({"ref": "main"}).jobs.list(all=True)
    eventually(lambda: "$ sleep 120" in project.jobs.get(job.id).trace().decode())
    done = change()
    assert done.status == 0, done.output
    eventually(lambda: project.jobs.get(job.id).finished_at)
    ended = project.jobs.get(job.id)
    return str(ended.status), ended.trace().decode()


@pytest.mark.long
def test_a_new_configuration_of_the_runner_ends_no_job(jobs, project):
    restarts = {"remote/configure_runner.sh": [("systemctl start gitlab-runner", "systemctl restart gitlab-runner")]}
    stack.configure("runnerConcurrency", "3")
    with changed_program(restarts) as program:
        status, log = during_a_long_job(project, lambda: up(program=program))
    assert status == "failed"
    assert "Job failed (system failure): aborted: terminated" in log
    stack.configure("runnerConcurrency", None)
    status, log = during_a_long_job(project, up)
    assert status == "success", log
    eventually(lambda: "concurrent = 4" in must("runner", "cat /etc/gitlab-runner/config.toml"))


def update(program: str = "/usr/local/sbin/install-security-updates") -> Finished:
    """Begin to install updates, as the timer does in its time."""
    return on("runner", f"systemd-run --quiet --unit updates-now bash {program}")


@pytest.mark.long
def test_the_runners_machine_reboots_for_updates_when_its_jobs_are_done(jobs, project):
    def booted() -> str:
        done = on("runner", "systemctl is-active --quiet gitlab-runner && ps -o lstart= 1")
        return done.output.strip() if done.status == 0 else ""

    pinned = "rpm -q docker-ce docker-ce-cli gitlab-runner gitlab-runner-helper-images redhat-release"
    before, packages = booted(), must("runner", pinned)
    assert must("runner", "uname -r") == "4.18.0-553.el8_10.x86_64"
    status, log = during_a_long_job(project, update)
    assert status == "success", log
    eventually(lambda: booted() not in ("", before))
    assert must("runner", "uname -r") == "4.18.0-553.51.1.el8_10.x86_64"
    assert must("runner", "rpm -q containerd.io") == "containerd.io-2.3.5-1.el8.x86_64"
    assert must("runner", pinned) == packages
    [runner] = [check for check in examine("--quick").told["checks"] if check["check"] == "runner-updates"]
    assert (runner["state"], runner["detail"]) == ("ok", "0 days old, kernel running = installed")

    # A program that does not wait for jobs cuts them; it reboots because another kernel seems to run.
    careless = "sed 's/^ *finish_jobs$/:/' /usr/local/sbin/install-security-updates >/run/careless"
    must("runner", f"{careless} && echo 4.18.0-553.el8_10.x86_64 >/run/lab/kernel")
    before = booted()
    status, _ = during_a_long_job(project, lambda: update("/run/careless"))
    assert status == "failed"
    eventually(lambda: booted() not in ("", before))
    # What was cut would lie there for a day.
    must("runner", "docker container prune --force && docker network prune --force")
    # `docker volume prune` leaves named ones in some versions, and the option for them is unknown in others.
    must("runner", "docker volume ls --quiet | xargs --no-run-if-empty docker volume rm")


@pytest.mark.long
def test_a36_caches_of_projects_stay_in_volumes_until_something_removes_them(jobs):
    managed = "--filter label=com.gitlab.gitlab-runner.managed=true"
    project_of = '{{.Label "com.gitlab.gitlab-runner.project.id"}}'

    def projects() -> set[str]:
        return set(must("runner", f"docker volume ls {managed} --format '{project_of}'").split())

    eventually(lambda: projects() == set())  # a job that was canceled is cleaned up late
    # The acceptance runs again, and leaves a cache.
    stack.configure("runnerSharedCache", "true")
    only_docker = '"/usr/bin/docker system prune --all --force --filter until=72h"'
    edits = {"configuration/systemd_units.py": [('f"{PRUNE_DOCKER} {FULL_DISK}"', only_docker)]}
    with changed_program(edits) as program:
        done = up(program=program)
    assert done.status == 0, done.output
    must("runner", "systemctl start docker-prune")
    assert len(projects()) == 1
    heal()
    must("runner", "systemctl start docker-prune")
    assert projects() == set()
    stack.configure("runnerSharedCache", None)
    heal()
    must("runner", f"docker image inspect {IMAGE}")
