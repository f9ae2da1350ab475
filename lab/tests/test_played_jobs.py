"""Jobs of the runner's stand-in, from GitLab's stand-in to a container and back; Docker is a stand-in as well.

Attacks of one job on another run with the program's config.toml and with one that lets them succeed. This shows that
the stand-in is no safer than the real runner, and that the program's configuration stops the attacks.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gitlab
import pytest

from configuration.job_limits import JobLimits
from configuration.runner_config import render_runner_config
from lab import authority
from lab.tests.gitlab_runner import impatient, played_runner, program
from lab.tests.gitlab_server import balancer, needed, runner_with, server, url, wait_until
from lab.workspace import ROOT, write_secret
from tests.shell import check_shell
from tests.test_settings import load

__all__ = ["played_runner", "program", "server", "url"]
pytestmark = needed

DOCKER = ROOT / "lab/tests/docker_client.sh"
HOST = "unix:///nowhere/docker.sock"
COLOURS = re.compile(r"\x1b\[[0-9;]*[mK]")
VICTIM = "victim: {script: [sh build.sh, 'cat /cache/project/protected/cache.zip || true']}"

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def project(server, url):
    found = gitlab.Gitlab(url, private_token=server.secrets["api"]).projects.get("stack/acceptance")
    files = {".gitlab-ci.yml": VICTIM, "build.sh": "echo build.sh as committed"}
    actions = [{"action": "create", "file_path": name, "content": content} for name, content in files.items()]
    found.commits.create({"branch": "main", "commit_message": "x [skip ci]", "actions": actions})
    return found


@pytest.fixture
def engine(tmp_path, monkeypatch) -> Path:
    """The folder that stands in for Docker's engine; the client of the stand-in comes first in PATH."""
    folder = tmp_path / "engine"
    folder.mkdir()
    docker = tmp_path / "tools/docker"
    docker.parent.mkdir()
    docker.symlink_to(DOCKER)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_DOCKER", str(folder))
    monkeypatch.setenv("DOCKER_HOST", HOST)
    monkeypatch.setenv("CONFIG_FILE", str(tmp_path / "config.toml"))
    return folder


@contextlib.contextmanager
def running(program: list[str], configuration: str) -> Iterator[subprocess.Popen[str]]:
    """Run the service, an impatient one."""
    Path(os.environ["CONFIG_FILE"]).write_text(configuration)
    process = subprocess.Popen([*impatient(program), "run"], stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(120)


@pytest.fixture
def open_to_its_project(server, url) -> str:
    """config.toml of a runner with the defaults: it keeps checkouts and caches, and all jobs share one network."""
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
    volumes = ["/cache"]
"""


@pytest.fixture
def programs_own(server, url) -> Callable[..., str]:
    """config.toml as `up` writes it, except for GitLab's address."""

    def rendered(*, extra_hosts: Sequence[str] = (), **settings: Any) -> str:
        limits, token = JobLimits(memory=512, cpus=1), server.secrets["runner"]
        given = load(**{"runnerConcurrency": "2", **settings})
        text = render_runner_config(
            given, name="docker-1", limits=limits, external_url=url, token=token, extra_hosts=extra_hosts
        )
        text = text.replace("check_interval = 0", "check_interval = 1")
        return text.replace('executor = "docker"', f'executor = "docker"\n  clone_url = "{url}"')

    return rendered


def start(project: Any, text: str, branch: str = "main") -> Any:
    """Start a pipeline with this .gitlab-ci.yml, on a branch that starts at main."""
    action = {"action": "update", "file_path": ".gitlab-ci.yml", "content": text}
    begin = {} if branch == "main" else {"start_branch": "main", "force": True}
    project.commits.create({"branch": branch, "commit_message": "x [skip ci]", "actions": [action], **begin})
    return project.pipelines.create({"ref": branch})


def jobs(pipeline: Any) -> dict[str, Any]:
    return {job.name: job for job in pipeline.jobs.list(all=True)}


def ended(project: Any, pipeline: Any) -> dict[str, Any]:
    """Wait for all jobs to finish and return them by name."""
    wait_until(lambda: all(job.finished_at for job in jobs(pipeline).values()), 120, pause=0.1)
    return {name: project.jobs.get(job.id) for name, job in jobs(pipeline).items()}


@pytest.fixture
def run(project, engine, played_runner, open_to_its_project) -> Run:
    def with_configuration(text: str, configuration: str = open_to_its_project, branch: str = "other") -> Any:
        with running(played_runner, configuration):
            return ended(project, start(project, text, branch))

    return with_configuration


def lines(job: Any) -> list[str]:
    """Return the visible lines of the log."""
    shown = [re.sub(r"section_\w+:\d+:\w+\r", "", line) for line in COLOURS.sub("", job.trace().decode()).split("\n")]
    return [line.rstrip() for line in shown if line]


def created(engine: Path, kind: str = "build") -> list[list[str]]:
    """Return the options of each container of that kind."""
    options = [request.split("\0") for request in (engine / "created").read_text().split("\0\0")[:-1]]
    return [given for given in options if given[given.index("--name") + 1].endswith(f"-{kind}")]


def values(engine: Path, option: str, kind: str = "build") -> list[str | None]:
    """Return the value of an option for each container of that kind; None for a container without it."""
    return [given[given.index(option) + 1] if option in given else None for given in created(engine, kind)]


def test_dockers_stand_in_has_no_complaint_of_shellcheck():
    check_shell(DOCKER.read_text())


def test_a_job_clones_runs_and_hands_variables_to_the_next(run, engine):
    found = run(
        """
        stages: [one, two]
        one:
          stage: one
          variables: {GREETING: "hello $CI_PROJECT_NAME"}
          script:
            - echo "$GREETING" "$CI_JOB_TOKEN"
            - |
              for number in 1 2; do
                echo $number
              done
            - echo "SHARED=of $(cat build.sh)" >$CI_PROJECT_DIR/shared.env
          artifacts: {reports: {dotenv: shared.env}, expire_in: 1 day}
        two: {stage: two, script: ['echo "$SHARED"']}
        """
    )
    assert {name: job.status for name, job in found.items()} == {"one": "success", "two": "success"}
    seen = lines(found["one"])
    assert seen[0].startswith("Running with gitlab-runner 17.10.1")
    assert "Using Docker executor with image alpine:3.23 ..." in seen
    assert "Using docker image sha256:0123 for alpine:3.23 with digest alpine@sha256:4567 ..." in seen
    assert "hello acceptance [MASKED]" in seen
    assert "$ for number in 1 2; do # collapsed multi-line command" in seen
    assert seen[-1] == "Job succeeded"
    sections = re.findall(r"section_start:\d+:(\w+)\r", found["one"].trace().decode())
    assert sections == ["prepare_executor", "get_sources", "step_script", "upload_artifacts_on_success"]
    assert "of echo build.sh as committed" in lines(found["two"])


@pytest.fixture
def outsider(tmp_path, monkeypatch) -> Path:
    """An authority that the runner's machine trusts and its containers do not."""
    monkeypatch.setattr(authority, "FOLDER", tmp_path / "ca")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.OUTSIDER.certificate()))
    return authority.OUTSIDER.certificate()


@pytest.fixture
def https_url(server, outsider) -> Iterator[str]:
    issued = outsider.with_name("gitlab.pem")
    write_secret(issued, authority.OUTSIDER.issue(["localhost"]).pem)
    with balancer(server, issued) as found:
        yield found


ASKS = """
one:
  script:
    - curl --silent --output none $ADDRESS || echo "without the file $?"
    - curl --silent --output none --cacert "$CI_SERVER_TLS_CA_FILE" $ADDRESS && echo "with the file $?"
    - openssl verify -CAfile "$CI_SERVER_TLS_CA_FILE" "$CI_SERVER_TLS_CA_FILE" | sed 's,.*/,,'
    - grep -c BEGIN "$CI_SERVER_TLS_CA_FILE"
    - echo "$(tail -n 2 "$CI_SERVER_TLS_CA_FILE")"
  variables: {ADDRESS: "%s/users/sign_in"}
"""


def test_a_job_and_its_clone_know_an_own_authority_from_the_runners_file_alone(
    run, open_to_its_project, url, https_url, outsider
):
    """The file contains GitLab's certificate, then its issuers up to the root. A clone is the first use of it."""
    found = run(ASKS % https_url, open_to_its_project.replace(url, https_url))["one"]
    assert found.status == "success", lines(found)
    seen = lines(found)
    assert "without the file 60" in seen
    assert "with the file 0" in seen
    assert "CI_SERVER_TLS_CA_FILE: OK" in seen
    assert seen[seen.index("CI_SERVER_TLS_CA_FILE: OK") + 2] == "2"
    assert seen[-3:-1] == outsider.read_text().splitlines()[-2:]


def test_a_job_over_plain_http_gets_no_certificates_and_keeps_checkout_and_cache_in_marked_volumes(
    run, engine, project
):
    ran = run("one: {script: ['echo \"file: ${CI_SERVER_TLS_CA_FILE-none}\"']}")["one"]
    assert ran.status == "success"
    assert "file: none" in lines(ran)
    made = (engine / "volumes").read_text().splitlines()
    assert len(made) == 2
    for line in made:
        assert "--label com.gitlab.gitlab-runner.managed=true" in line
        assert f"--label com.gitlab.gitlab-runner.project.id={project.id}" in line
        assert re.search(rf" runner-[a-z0-9-]+-project-{project.id}-concurrent-\d+-cache-[0-9a-f]{{32}}$", line)
    assert len(created(engine)) == 1
    assert "glcbt-" not in (engine / "created").read_text(), "no secret is an argument of Docker's client"


FAILING = """
exits: {script: ["echo one", "exit 7", "echo two"]}
no-image: {image: "other:1", script: ["true"]}
slow: {script: ["sleep 60"], timeout: 1 second}
unsupported: {script: ["true"], variables: {GIT_STRATEGY: none}}
"""


def test_a_job_that_fails_says_why(run):
    failed = run(FAILING)
    assert {name: (job.status, job.failure_reason, lines(job)[-1]) for name, job in failed.items()} == {
        "exits": ("failed", "script_failure", "ERROR: Job failed: exit code 7"),
        "no-image": (
            "failed",
            "runner_system_failure",
            (
                'ERROR: Job failed: failed to pull image "other:1" with specified policies [always]: Error response '
                "from daemon: manifest for other:1 not found: manifest unknown: manifest unknown (manager.go:254:0s)"
            ),
        ),
        "slow": ("failed", "job_execution_timeout", "ERROR: Job failed: execution took longer than 1s"),
        "unsupported": (
            "failed",
            "runner_system_failure",
            "ERROR: Job failed (system failure): the lab's gitlab-runner does not support GIT_STRATEGY none",
        ),
    }
    assert "one" in lines(failed["exits"])
    assert "two" not in lines(failed["exits"])


def test_a_docker_engine_that_does_not_answer_is_asked_three_times(project, engine, program, open_to_its_project):
    (engine / "down").touch()
    pipeline = start(project, "job: {script: 'true'}", "other")
    with running(program, open_to_its_project):
        job = ended(project, pipeline)["job"]
    assert job.failure_reason == "runner_system_failure"
    words = f"Cannot connect to the Docker daemon at {HOST}. Is the docker daemon running? (docker.go:1041:0s)"
    seen = lines(job)
    assert seen[0].startswith("Running with gitlab-runner 17.10.1")
    assert seen[1].startswith("  on docker-1 t1_")
    assert seen[2] == 'Preparing the "docker" executor'
    refused = [line for line in seen[3:] if line != "ERROR: Failed to remove network for build"]
    assert refused == [
        *3 * [f"ERROR: Preparation failed: {words}", "Will be retried in 3s ..."],
        f"ERROR: Job failed (system failure): {words}",
    ]


@pytest.mark.parametrize(
    ("sent", "seconds", "last"),
    [
        (signal.SIGTERM, 60, "ERROR: Job failed (system failure): aborted: terminated"),
        (signal.SIGQUIT, 0.5, "Job succeeded"),
    ],
)
def test_a_runner_that_is_stopped_aborts_its_job_or_waits_for_it(
    project, engine, played_runner, open_to_its_project, sent, seconds, last
):
    pipeline = start(project, f"job: {{script: ['touch {engine}/begun', 'sleep {seconds}']}}", "other")
    with running(played_runner, open_to_its_project) as process:
        wait_until((engine / "begun").exists)
        process.send_signal(sent)
        process.wait(120)
    assert lines(ended(project, pipeline)["job"])[-1] == last


# Attacks of one job on another


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


@pytest.fixture
def victim_after_attack(project, engine, played_runner) -> Callable[[str], list[str]]:
    """Returns the log lines of a job of main that ran after a job of another branch."""

    def seen(configuration: str) -> list[str]:
        with running(played_runner, configuration):
            assert ended(project, start(project, PLANT, "feature"))["plant"].status == "success"
            return lines(ended(project, start(project, VICTIM))["victim"])

    return seen


def test_what_a_job_plants_runs_in_the_next_one_where_checkouts_and_caches_are_kept(
    victim_after_attack, open_to_its_project
):
    seen = victim_after_attack(open_to_its_project)
    assert "hook of the other branch" in seen
    assert "build.sh of the other branch" in seen
    assert "poison" in seen


def test_what_a_job_plants_does_not_reach_the_next_one(victim_after_attack, programs_own, engine):
    seen = victim_after_attack(programs_own())
    assert "build.sh as committed" in seen
    assert not {"hook of the other branch", "build.sh of the other branch", "poison"} & set(seen)
    assert list((engine / "volume").iterdir()) == []


def test_a_shared_cache_is_shared_and_a_checkout_is_not(victim_after_attack, programs_own):
    seen = victim_after_attack(programs_own(runnerSharedCache="true"))
    assert "build.sh as committed" in seen
    assert "poison" in seen


def test_a_job_chooses_its_network_where_the_file_does_not(run, engine):
    run("""
        one: {script: ["true"]}
        two: {script: ["true"], variables: {FF_NETWORK_PER_BUILD: "true"}}
    """)
    assert sorted(network is None for network in values(engine, "--network")) == [False, True]


TWO = """
one:
  script: [touch %(folder)s/one, "until [ -e %(folder)s/two ]; do sleep 0.01; done"]
  variables: {FF_NETWORK_PER_BUILD: "false"}
two:
  script: [touch %(folder)s/two, "until [ -e %(folder)s/one ]; do sleep 0.01; done"]
  variables: {FF_NETWORK_PER_BUILD: "false"}
"""


def test_jobs_at_the_same_time_have_a_network_each_whatever_their_variables_say(run, programs_own, engine):
    assert {job.status for job in run(TWO % {"folder": engine}, programs_own()).values()} == {"success"}
    used = values(engine, "--network")
    assert None not in used
    assert len(set(used)) == len(used) == 2
    asked = (engine / "networks").read_text().splitlines()
    assert {line.split()[-1] for line in asked if line.startswith("network create")} == set(used)
    assert {line.split()[-1] for line in asked if line.startswith("network rm")} == set(used)


def test_a_runner_that_got_a_job_asks_for_the_next_one_immediately(project, engine, played_runner, open_to_its_project):
    """Source: gitlab-runner, commands/multi.go, requeueRunner."""
    pipeline = start(project, 'one: {script: ["true"]}\ntwo: {script: ["true"]}', "other")
    with running(played_runner, open_to_its_project.replace("check_interval = 1", "check_interval = 36000")):
        assert {job.status for job in ended(project, pipeline).values()} == {"success"}


def test_no_container_of_a_job_takes_the_whole_machine_and_every_one_knows_the_hosts_of_the_configuration(
    run, programs_own, engine
):
    """Source: gitlab-runner, executors/docker/docker.go, createContainer."""
    [job] = run(VICTIM, programs_own(extra_hosts=["git.example.com:203.0.113.9"])).values()
    assert job.status == "success"
    for kind in ("build", "predefined"):
        assert values(engine, "--memory", kind) == ["512m"]
        assert values(engine, "--cpus", kind) == ["1"]
        assert values(engine, "--add-host", kind) == ["git.example.com:203.0.113.9"]


PULLING = """
if-not-present: {image: {name: "alpine:3.23", pull_policy: if-not-present}, script: ["true"]}
never: {image: {name: "alpine:3.23", pull_policy: never}, script: ["true"]}
always: {image: {name: "alpine:3.23", pull_policy: always}, script: ["true"]}
"""


def test_a_job_may_not_start_an_image_that_another_project_has_pulled(run, programs_own, engine):
    ran = run(PULLING, programs_own())
    for policy in ("if-not-present", "never"):
        assert ran[policy].status == "failed"
        assert (
            f'ERROR: Job failed: invalid pull policy for image "alpine:3.23": pull_policy ([{policy}]) defined in '
            "GitLab pipeline config is not one of the allowed_pull_policies ([always])"
        ) in lines(ran[policy])
    assert ran["always"].status == "success"
    for kind in ("build", "predefined"):
        assert values(engine, "--add-host", kind) == [None], "the configuration has no hosts here"


PRIVILEGED = {"runnerPrivileged": "true", "runnerTags": ["privileged"], "runnerPrivilegedImages": ["alpine:3.23"]}
TAKEN_BY_TAG = """
untagged: {image: "alpine:3.23", script: [echo never]}
named: {image: "alpine:3.23", tags: [privileged], script: [echo one]}
other: {tags: [privileged], script: [echo two]}
"""


@pytest.fixture
def protected_runner(server) -> Iterator[None]:
    """Set the runner's record as the program does for a privileged runner, once Sidekiq has protected main."""
    wait_until(lambda: server.console("puts ProtectedBranch.count") == "1")
    with runner_with(server, "run_untagged: false, access_level: 'ref_protected', tag_list: %w[privileged]"):
        yield


def test_a_privileged_job_is_protected_tagged_and_of_a_named_image(
    project, engine, played_runner, protected_runner, programs_own
):
    """A job without its own image is not privileged either, regardless of the runner's default image."""
    unprotected, protected = start(project, TAKEN_BY_TAG, "other"), start(project, TAKEN_BY_TAG)
    with running(played_runner, programs_own(**PRIVILEGED)):
        wait_until(lambda: jobs(protected)["named"].finished_at and jobs(protected)["other"].finished_at, 120)
    statuses = {name: job.status for name, job in jobs(protected).items()}
    assert statuses == {"untagged": "pending", "named": "success", "other": "success"}
    assert {job.status for job in jobs(unprotected).values()} == {"pending"}
    assert created(engine, "predefined")
    assert not any("--privileged" in given for given in created(engine, "predefined"))
    assert sum("--privileged" in given for given in created(engine)) == 1
    for pipeline in (protected, unprotected):
        pipeline.cancel()
