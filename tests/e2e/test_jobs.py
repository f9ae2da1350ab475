"""Jobs of a test project that verify the configuration of the stack's runner.

The played and the real gitlab-runner must pass the same tests.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import stack
from tests.e2e import people, projects
from tests.e2e.operations import Finished, eventually, must, on, repair, up
from tests.e2e.programs import changed_program
from tests.e2e.test_doctor import examine

PROJECT = f"{projects.GROUP}/jobs"
IMAGE = "docker.io/curlimages/curl:8.12.1"

BY_API = 'workflow: {rules: [{if: $CI_PIPELINE_SOURCE == "api"}]}\n'
TOOLS = BY_API + f'default: {{image: {{name: "{IMAGE}", entrypoint: [""]}}}}\n'


@pytest.fixture(scope="module")
def project(outputs) -> Iterator[Any]:
    with projects.made(outputs, "jobs") as made:
        files = {".gitlab-ci.yml": BY_API + VICTIM, "build.sh": "echo script of this branch"}
        actions = [{"action": "create", "file_path": name, "content": content} for name, content in files.items()]
        made.commits.create({"branch": "main", "commit_message": "The script", "actions": actions})
        yield made


def begin(project: Any, branch: str, configuration: str, **variables: str) -> Any:
    """Start a pipeline with one job, on a branch that starts at main. Returns the job."""
    action = {"action": "update", "file_path": ".gitlab-ci.yml", "content": configuration}
    start = {} if branch == "main" else {"start_branch": "main", "force": True}
    project.commits.create({"branch": branch, "commit_message": "A job", "actions": [action], **start})
    given = [{"key": name, "value": value} for name, value in variables.items()]
    [job] = project.pipelines.create({"ref": branch, "variables": given}).jobs.list(all=True)
    return job


def log_of(project: Any, job: Any) -> str:
    eventually(lambda: project.jobs.get(job.id).finished_at)
    return str(project.jobs.get(job.id).trace().decode())


def test_a_job_that_names_no_image_runs_in_the_runners_default(project):
    text = """names no image: {script: ['echo "runner $CI_RUNNER_DESCRIPTION"']}"""
    log = log_of(project, begin(project, "main", BY_API + text))
    assert "Using Docker executor with image alpine:3.23 ..." in log
    assert "\nrunner gitlab-lab\n" in log


def test_a_job_may_use_an_image_of_its_own_project(project, outputs):
    tools = f"{outputs['registryHost']}/{PROJECT}/tools:1"
    people.log_in(outputs)
    must("runner", f"docker pull -q {IMAGE} && docker tag {IMAGE} {tools} && docker push -q {tools}")
    must("runner", f"docker image rm {tools} && docker logout {outputs['registryHost']}")
    text = """of its own: {image: {name: $CI_REGISTRY_IMAGE/tools:1, entrypoint: [""]}, script: [echo started]}"""
    log = log_of(project, begin(project, "main", BY_API + text))
    assert "Authenticating with credentials from job payload (GitLab Registry)" in log
    assert "\nstarted\n" in log


def test_no_container_of_a_job_is_left(project):
    assert "Job succeeded" in log_of(project, begin(project, "main", TOOLS + VICTIM))
    assert must("runner", "docker ps --all --quiet") == ""


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


def visit(project: Any, outputs: dict[str, Any]) -> tuple[str, str]:
    """The log of a job that tries to reach another running job and the machine, and the other job's address."""
    serving = begin(project, "serves", TOOLS + SERVES)
    eventually(lambda: "$ sleep 200" in project.jobs.get(serving.id).trace().decode())
    label = f"label=com.gitlab.gitlab-runner.job.id={serving.id}"
    networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    listed = f"docker ps --quiet --filter {label} --filter label=com.gitlab.gitlab-runner.type=build"
    address = must("runner", f"docker inspect --format '{networks}' $({listed})").split()[0]
    visitor = begin(project, "visits", TOOLS + VISITS, OTHER_JOB=address, MACHINE=outputs["privateAddresses"]["runner"])
    log = log_of(project, visitor)
    project.jobs.get(serving.id).cancel()
    return log, address


def test_what_a_branch_plants_does_not_reach_the_protected_one(project):
    begin(project, "main", TOOLS + VICTIM)
    assert "Job succeeded" in log_of(project, begin(project, "feature", TOOLS + PLANT))
    log = log_of(project, begin(project, "main", TOOLS + VICTIM))
    assert "\nscript of this branch\n" in log
    assert "hook of another branch" not in log
    assert "poison" not in log


def test_a_job_reaches_gitlab_and_its_name_server_and_neither_other_jobs_nor_the_machine(project, outputs):
    log, other = visit(project, outputs)
    assert f"\nclosed to jobs, {other}:8000\n" in log
    assert log.count("\nclosed to jobs, ") == 3
    assert "\nGitLab answers\n" in log
    assert "\na name resolves\n" in log


@pytest.mark.long
def test_jobs_on_one_network_read_each_other_and_the_machine_answers_them(project, outputs):
    open_to_all = {
        "configuration/runner_config.py": [("FF_NETWORK_PER_BUILD = true", "FF_NETWORK_PER_BUILD = false")],
        "programs/refuse-containers": [("--jump REJECT", "--jump ACCEPT")],
    }
    with changed_program(open_to_all) as program:
        done = up(program=program)
        assert done.status == 0, done.output
        log, other = visit(project, outputs)
        must("runner", "iptables --flush INPUT")
    repair()
    assert "\nsecret of another job\n" in log
    assert f"\nclosed to jobs, {other}" not in log
    # curl may fail for a response that is not HTTP.
    assert log.count("SSH-2.0-") == 2, "the machine must respond at both of its addresses"


def during_a_long_job(project: Any, change: Callable[[], Finished]) -> tuple[str, str]:
    """Status and log of a job during which `change` is made."""
    job = begin(project, "main", TOOLS + "long: {script: [sleep 120]}")
    eventually(lambda: "$ sleep 120" in project.jobs.get(job.id).trace().decode())
    done = change()
    assert done.status == 0, done.output
    eventually(lambda: project.jobs.get(job.id).finished_at)
    ended = project.jobs.get(job.id)
    return str(ended.status), ended.trace().decode()


@pytest.mark.long
def test_a_new_configuration_of_the_runner_ends_no_job(project):
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
    """Start to install updates, as the timer does."""
    return on("runner", f"systemd-run --quiet --unit updates-now bash {program}")


@pytest.mark.long
def test_the_runners_machine_reboots_for_updates_when_its_jobs_are_done(project):
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
    [runner] = [check for check in examine("--quick").report["checks"] if check["check"] == "runner-updates"]
    assert (runner["state"], runner["detail"]) == ("ok", "0 days old, kernel running = installed")

    # A program that does not wait for jobs aborts them; it reboots because another kernel seems to run.
    careless = "sed 's/^ *finish_jobs$/:/' /usr/local/sbin/install-security-updates >/run/careless"
    must("runner", f"{careless} && echo 4.18.0-553.el8_10.x86_64 >/run/lab/kernel")
    before = booted()
    status, _ = during_a_long_job(project, lambda: update("/run/careless"))
    assert status == "failed"
    eventually(lambda: booted() not in ("", before))
    # The remains of aborted jobs would stay for a day.
    must("runner", "docker container prune --force && docker network prune --force")
    # Some versions of `docker volume prune` keep named volumes, and others do not know the option for them.
    must("runner", "docker volume ls --quiet | xargs --no-run-if-empty docker volume rm")


@pytest.mark.long
def test_a36_caches_of_projects_stay_in_volumes_until_something_removes_them(outputs):
    managed = "--filter label=com.gitlab.gitlab-runner.managed=true"
    project_of = '{{.Label "com.gitlab.gitlab-runner.project.id"}}'

    def projects() -> set[str]:
        return set(must("runner", f"docker volume ls {managed} --format '{project_of}'").split())

    eventually(lambda: projects() == set())  # a canceled job is cleaned up late
    # The acceptance runs again, and its job leaves a cache.
    stack.configure("runnerSharedCache", "true")
    only_docker = '"/usr/bin/docker system prune --all --force --filter until=72h"'
    edits = {"configuration/systemd_units.py": [('f"{PRUNE_DOCKER} {FULL_DISK}"', only_docker)]}
    with changed_program(edits) as program:
        done = up(program=program)
    assert done.status == 0, done.output
    must("runner", "systemctl start docker-prune")
    assert len(projects()) == 1
    repair()
    must("runner", "systemctl start docker-prune")
    assert projects() == set()
    stack.configure("runnerSharedCache", None)
    repair()
    must("runner", f"docker image inspect {IMAGE}")
