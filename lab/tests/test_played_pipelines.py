"""Pipelines and jobs of GitLab's stand-in, as programs, users and runners see them."""

import base64
import gzip
import http.client
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import gitlab
import pytest

from configuration import acceptance_project
from lab.tests.gitlab_runner import REAL
from lab.tests.gitlab_server import PROJECT, needed, runner_with, server, url, wait_until

__all__ = ["server", "url"]
pytestmark = needed

IMAGE = "docker.io/curlimages/curl:8.12.1"
TWO_JOBS = """
stages: [push, pull]
push:
  stage: push
  script: [echo one, "echo DIGEST=sha256:1 >digest.env"]
  artifacts: {reports: {dotenv: digest.env}, expire_in: 1 day}
pull:
  stage: pull
  script: echo "$DIGEST"
"""


class Runner:
    """A client of the runner API; the test takes the place of the jobs."""

    def __init__(self, url: str, token: str) -> None:
        self.netloc, self.token = urlsplit(url).netloc, token

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.netloc, timeout=10)
        connection.request(method, f"/api/v4/{path}", body, {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        answer = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return answer

    def json(self, method: str, path: str, **fields: Any) -> tuple[int, Any]:
        status, _, answer = self.send(method, path, json.dumps(fields).encode(), Content_Type="application/json")
        return status, json.loads(answer) if answer else None

    def take(self) -> Any:
        """Request a job; return None if there is none."""
        status, job = self.json("POST", "jobs/request", token=self.token, system_id="s_0123456789ab")
        assert status in (201, 204), job
        return job

    def log(self, job: Any, text: str, start: int = 0) -> tuple[int, dict[str, str]]:
        sent = {"JOB_TOKEN": job["token"], "Content_Range": f"{start}-{start + len(text) - 1}"}
        status, headers, _ = self.send("PATCH", f"jobs/{job['id']}/trace", text.encode(), **sent)
        return status, headers

    def end(self, job: Any, state: str = "success", **more: Any) -> int:
        return self.json("PUT", f"jobs/{job['id']}", token=job["token"], state=state, **more)[0]

    def upload(self, job: Any, content: bytes, **query: str) -> int:
        parts = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n%s\r\n--b--\r\n'
        sent = {"JOB_TOKEN": job["token"], "Content_Type": "multipart/form-data; boundary=b"}
        return self.send("POST", f"jobs/{job['id']}/artifacts?{urlencode(query)}", parts % content, **sent)[0]

    def do_all(self, **ends: str) -> None:
        """Finish every job with its state in `ends`, by default with success."""
        while job := self.take():
            self.end(job, ends.get(job["job_info"]["name"], "success"), failure_reason="script_failure")


@pytest.fixture
def runner(server, url):
    return Runner(url, server.secrets["runner"])


@pytest.fixture(scope="module")
def project(server, url):
    found = gitlab.Gitlab(url, private_token=server.secrets["api"]).projects.get(PROJECT)
    change(found, "README.md", "create", "text")
    refused(found, "Missing CI config file")
    change(found, ".gitlab-ci.yml", "create", TWO_JOBS)
    return found


def change(project: Any, path: str, action: str, text: str, message: str = "Change [skip ci]") -> None:
    actions = [{"action": action, "file_path": path, "content": text}]
    project.commits.create({"branch": "main", "commit_message": message, "actions": actions})


def start(project: Any, text: str = TWO_JOBS, **more: Any) -> Any:
    """Start a pipeline with this .gitlab-ci.yml through the API."""
    change(project, ".gitlab-ci.yml", "update", text)
    return project.pipelines.create({"ref": "main", **more})


def refused(project: Any, complaint: str, ref: str = "main") -> None:
    with pytest.raises(gitlab.GitlabCreateError) as error:
        project.pipelines.create({"ref": ref})
    assert error.value.response_code == 400
    assert complaint in json.loads(error.value.response_body or b"")["message"]["base"][0]


def states(pipeline: Any) -> dict[str, str]:
    """Return the states of the jobs by name."""
    return {job.name: job.status for job in pipeline.jobs.list(all=True)}


def test_the_acceptances_own_pipeline_is_understood(project, runner):
    start(project, acceptance_project.files(IMAGE)[".gitlab-ci.yml"])
    job = runner.take()
    assert job["job_info"]["name"] == "push"
    assert (job["image"]["name"], job["image"]["entrypoint"]) == (IMAGE, [""])
    assert [(step["name"], step["script"]) for step in job["steps"]] == [("script", ["sh push.sh"])]
    assert job["runner_info"]["timeout"] == 600
    [artifact] = job["artifacts"]
    assert (artifact["artifact_type"], artifact["paths"], artifact["expire_in"]) == ("dotenv", ["pushed.env"], "1 day")
    runner.end(job, "failed")
    assert runner.take() is None


def test_two_jobs_go_from_pending_to_success_and_one_passes_variables_to_the_other(project, runner):
    pipeline = start(project)
    assert states(pipeline) == {"push": "pending", "pull": "created"}
    first = runner.take()
    assert states(pipeline) == {"push": "running", "pull": "created"}
    assert runner.take() is None
    assert runner.log(first, "one\n")[0] == 202
    assert runner.log(first, "two\n", start=4)[1]["Range"] == "0-8"
    assert runner.upload(first, b"an archive", artifact_type="archive") == 400
    assert runner.upload(first, gzip.compress(b"no variable"), artifact_type="dotenv") == 400
    assert runner.upload(first, gzip.compress(b"DIGEST=sha256:1\n"), artifact_type="dotenv") == 201
    assert runner.end(first) == 200
    second = runner.take()
    assert {"key": "DIGEST", "value": "sha256:1", "public": False, "masked": False} in second["variables"]
    runner.end(second)
    assert states(pipeline) == {"push": "success", "pull": "success"}
    job = project.jobs.get(first["id"])
    assert job.trace() == b"one\ntwo\n"
    assert job.queued_duration >= 0


@pytest.mark.skipif(REAL is None, reason="LAB_PARTS has no gitlab-runner")
def test_the_real_runner_does_what_it_is_given(server, url, project, tmp_path):
    """Uses the shell executor on this machine: it needs the same payload as the others."""
    file = tmp_path / "config.toml"
    file.write_text(f"""
    check_interval = 1
    [[runners]]
      url = "{url}"
      clone_url = "{url}"
      token = "{server.secrets["runner"]}"
      executor = "shell"
      builds_dir = "{tmp_path}"
    """)
    text = """
    stages: [one, two]
    variables: {GREETING: "hello $CI_PROJECT_NAME"}
    one:
      stage: one
      script: [echo "$GREETING $CI_JOB_TOKEN", 'echo "SHARED=$(cat README.md)" >shared.env']
      artifacts: {reports: {dotenv: shared.env}, expire_in: 1 day}
    two: {stage: two, script: ['echo "it is $SHARED"', exit 7]}
    """
    pipeline = start(project, text)
    environment = {**os.environ, "HOME": str(tmp_path)}
    with subprocess.Popen([str(REAL), "run", "--config", str(file)], env=environment) as process:
        wait_until(lambda: all(job.finished_at for job in pipeline.jobs.list()), pause=0.5)
        process.terminate()
    one, two = (project.jobs.get(job.id) for job in reversed(pipeline.jobs.list()))
    logs = [job.trace().decode() for job in (one, two)]
    assert (one.status, two.status, two.failure_reason) == ("success", "failed", "script_failure"), "\n".join(logs)
    assert "\nhello acceptance [MASKED]\n" in logs[0]
    assert "\nit is text\n" in logs[1]


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": "/dev/null", "PATH": "/usr/bin:/bin", "HOME": "/nowhere"}
    return subprocess.run(["git", *arguments], env=quiet, capture_output=True, text=True, check=False)


def test_a_job_clones_with_its_token_while_it_runs_and_pushes_nothing(project, runner, url, tmp_path):
    start(project)
    job = runner.take()
    at = url.replace("://", f"://gitlab-ci-token:{job['token']}@") + f"/{PROJECT}.git"
    clone = ("-C", str(tmp_path))
    for command in (
        ("init",),
        ("fetch", "--depth", str(job["git_info"]["depth"]), at, *job["git_info"]["refspecs"]),
        ("checkout", job["git_info"]["sha"]),
    ):
        done = git(*clone, *command)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / ".gitlab-ci.yml").read_text() == TWO_JOBS
    assert "You are not allowed to upload code." in git(*clone, "push", at, "HEAD:refs/heads/other").stderr
    runner.end(job, "failed")
    assert "Access denied" in git("ls-remote", at).stderr


# Progress of a pipeline


def test_after_a_failure_later_stages_are_skipped(project, runner):
    text = """
    stages: [one, two, three]
    fails: {stage: one, script: exit 1}
    works: {stage: one, script: exit 0}
    later: {stage: two, script: exit 0}
    last: {stage: three, script: exit 0}
    """
    pipeline = start(project, text)
    runner.do_all(fails="failed")
    assert states(pipeline) == {"fails": "failed", "works": "success", "later": "skipped", "last": "skipped"}
    [failed] = [project.jobs.get(job.id) for job in pipeline.jobs.list() if job.name == "fails"]
    assert failed.failure_reason == "script_failure"


@pytest.mark.parametrize("what", ["pipeline", "job"])
def test_a_canceled_job_stays_with_its_runner_until_the_runner_ends_it(project, runner, what):
    pipeline = start(project)
    job = runner.take()
    (pipeline if what == "pipeline" else project.jobs.get(job["id"])).cancel()
    assert states(pipeline) == {"push": "canceling", "pull": {"pipeline": "canceled", "job": "created"}[what]}
    status, headers = runner.log(job, "more\n")
    assert (status, headers["Job-Status"]) == (202, "canceling")
    runner.end(job, "failed", failure_reason="job_canceled")
    assert states(pipeline) == {"push": "canceled", "pull": {"pipeline": "canceled", "job": "skipped"}[what]}
    assert runner.take() is None


def test_a_finished_job_accepts_no_updates_and_a_running_one_only_with_its_token(project, runner):
    start(project, "job: {script: exit 0}")
    job = runner.take()
    assert runner.log(job, "x", start=7)[0] == 416
    assert runner.json("PUT", f"jobs/{job['id']}", token=runner.token, state="success")[0] == 403
    runner.end(job)
    status, headers = runner.log(job, "late")
    assert (status, headers["Job-Status"]) == (403, "success")
    assert runner.end(job, "failed") == 403


def test_deleting_a_pipeline_deletes_its_jobs_and_their_files(server, project, runner):
    def left() -> int:
        """Return the number of GitLab's files with the log's or the report's content."""
        data = server.root / "var/opt/gitlab"
        return sum(file.read_bytes() in (b"left", report) for file in data.rglob("*") if file.is_file())

    report = gzip.compress(b"LEFT=1")
    pipeline = start(project, "job: {script: exit 0}")
    job = runner.take()
    runner.log(job, "left")
    runner.upload(job, report, artifact_type="dotenv")
    runner.end(job)
    assert left() == 2
    pipeline.delete()
    with pytest.raises(gitlab.GitlabGetError, match="404"):
        project.jobs.get(job["id"])
    assert left() == 0


# Assignment of jobs


@pytest.fixture
def tagged_runner(server) -> Iterator[None]:
    with runner_with(server, "tag_list: %w[special], run_untagged: false"):
        yield


def test_a_runner_takes_the_jobs_of_its_tags(project, runner, tagged_runner):
    text = "untagged: {script: exit 0}\nother: {script: exit 0, tags: [other]}\nits: {script: exit 0, tags: [special]}"
    pipeline = start(project, text)
    runner.do_all()
    assert states(pipeline) == {"untagged": "pending", "other": "pending", "its": "success"}
    pipeline.cancel()
    assert states(pipeline) == {"untagged": "canceled", "other": "canceled", "its": "success"}


def test_a_new_default_branch_is_protected_by_sidekiq_and_only_for_the_pipelines_that_follow(server, url, project):
    """Jobs keep what held when their pipeline was created (Ci::Build#protected)."""
    group = server.secrets["group"]
    server.console(f"Projects::CreateService.new(User.first, {{ name: 'young', namespace_id: {group} }}).execute")
    young = project.manager.gitlab.projects.get("stack/young")
    runner = Runner(url, server.secrets["runner"])
    with runner_with(server, "access_level: 'ref_protected'"):
        assert server.run("gitlab-ctl", "stop", "sidekiq").returncode == 0
        change(young, ".gitlab-ci.yml", "create", "job: {script: exit 0}")
        early = young.pipelines.create({"ref": "main"})
        assert runner.take() is None
        server.run("gitlab-ctl", "start", "sidekiq")
        count = "puts Project.find_by_full_path('stack/young').protected_branches.count"
        wait_until(lambda: server.console(count) == "1")
        assert runner.take() is None
        young.pipelines.create({"ref": "main"})
        runner.do_all()
    assert states(early) == {"job": "pending"}
    early.cancel()


def test_what_a_job_runs_with(project, runner):
    variables = [{"key": "GIVEN", "value": "by a user"}, {"key": "WRITTEN", "value": "over"}]
    start(project, "job: {variables: {WRITTEN: x}, script: exit 0, timeout: 90 minutes}", variables=variables)
    job = runner.take()
    values = {variable["key"]: variable["value"] for variable in job["variables"]}
    assert (values["GIVEN"], values["WRITTEN"]) == ("by a user", "over")
    assert (values["CI_REGISTRY"], values["CI_REGISTRY_IMAGE"]) == ("203.0.113.16:5000", f"203.0.113.16:5000/{PROJECT}")
    assert values["CI_JOB_TOKEN"] == values["CI_REGISTRY_PASSWORD"] == job["token"]
    masked = {variable["key"] for variable in job["variables"] if variable["masked"]}
    assert masked == {"CI_JOB_TOKEN", "CI_REGISTRY_PASSWORD"}
    assert values["CI_REPOSITORY_URL"] == f"http://gitlab-ci-token:{job['token']}@203.0.113.16/{PROJECT}.git"
    assert (values["CI_SERVER_URL"], values["CI_PROJECT_PATH"]) == ("http://203.0.113.16", PROJECT)
    assert values["CI_PIPELINE_SOURCE"] == "api"
    assert job["image"] is None
    assert job["credentials"][0]["url"] == "203.0.113.16:5000"
    assert job["runner_info"]["timeout"] == 5400
    runner.end(job)


# The token of a job


def granted(server: Any, job: Any, path: str) -> list[str] | int:
    answer = server.token("gitlab-ci-token", job["token"], f"repository:{path}:pull,push")
    if answer.status != 200:
        return int(answer.status)
    payload = answer.json["token"].split(".")[1]
    access = json.loads(base64.urlsafe_b64decode(payload + "=="))["access"]
    return [action for entry in access for action in entry["actions"]]


def test_a_jobs_token_is_for_images_of_its_own_project_while_it_runs_and_not_for_the_api(server, project, runner):
    start(project, "job: {script: exit 0}")
    job = runner.take()
    assert granted(server, job, f"{PROJECT}/image") == ["pull", "push"]
    assert granted(server, job, "stack/another") == granted(server, job, f"{PROJECT}-of-others") == []
    assert runner.send("GET", f"projects/{quote(PROJECT, safe='')}", JOB_TOKEN=job["token"])[0] == 401
    runner.end(job)
    assert granted(server, job, f"{PROJECT}/image") == 401


# Rejected pipelines


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("job: {script: [1, 2", "(<unknown>): "),
        ("- a\n- b\n", "Invalid configuration format"),
        (".hidden: {script: x}", "jobs config should contain at least one visible job"),
        ("job: {stage: test}", "jobs job config should implement the script:, run:, or trigger: keyword"),
        (
            "job: {script: x, stage: none}",
            "job job: chosen stage none does not exist; available stages are .pre, build, test, deploy, .post",
        ),
        ("job: {script: x, sript: y}", "jobs:job config contains unknown keys: sript"),
        ("job: {script: {a: b}}", "jobs:job:script config should be a string or a nested array of strings"),
        ("job: {script: x, needs: [other]}", "jobs:job the lab does not support needs:"),
        ("job: {script: x, variables: {GIT_DEPTH: '1'}}", "the lab does not support GIT_DEPTH"),
        ("job: {script: x, timeout: soon}", "jobs:job:timeout config should be a duration"),
        ("job: {script: x, image: [a]}", "jobs:job:image config should be a hash or a string"),
        ("job: {script: x, artifacts: {reports: {junit: x}}}", "jobs:job:artifacts:reports config contains unknown"),
        ("job: {script: x, tags: special}", "jobs:job:tags config should be an array of strings"),
        ("include: other.yml\njob: {script: x}", "the lab does not support include:"),
        ("default: {retry: 1}\njob: {script: x}", "default the lab does not support retry:"),
        ("job: {script: x, rules: [{if: $A}]}", "jobs:job the lab does not support rules:"),
        ("workflow: {rules: [{if: $A}]}\njob: {script: x}", "workflow:rules:rule the lab supports if: only with"),
        ("workflow: {rules: [{if: '$CI_PIPELINE_SOURCE == \"push\"'}]}\njob: {script: x}", "filtered out by workflow"),
    ],
)
def test_an_invalid_configuration_is_rejected(project, text, complaint):
    change(project, ".gitlab-ci.yml", "update", text)
    refused(project, complaint)


def test_a_missing_branch_is_rejected(project):
    refused(project, "Reference not found", ref="none")


def test_a_commit_starts_a_pipeline_unless_a_rule_the_message_or_a_fault_of_the_file_is_against_it(project, runner):
    def started(text: str, message: str = "Change") -> list[str]:
        known = {pipeline.id for pipeline in project.pipelines.list(all=True)}
        change(project, ".gitlab-ci.yml", "update", text, message)
        return [pipeline.source for pipeline in project.pipelines.list(all=True) if pipeline.id not in known]

    assert started("job: {script: exit 0}") == ["push"]
    assert started("job: {script: exit 1}", "Change [ci skip]") == []
    assert started("job: {stage: none}") == []
    assert started(acceptance_project.files(IMAGE)[".gitlab-ci.yml"]) == []
    runner.do_all()


# Permissions


@pytest.mark.parametrize(
    ("level", "reads", "runs", "deletes"),
    [("REPORTER", True, False, False), ("MAINTAINER", True, True, False), ("OWNER", True, True, True)],
)
def test_a_project_token_has_the_permissions_of_its_level(server, url, project, runner, level, reads, runs, deletes):
    script = f"""
    project, admin = Project.find_by_full_path('{PROJECT}'), User.admins.active.first
    Group.find_by_full_path('stack').add_owner(admin)
    made = ResourceAccessTokens::CreateService.new(admin, project, {{ name: '{level}', scopes: ['api'],
      access_level: Gitlab::Access::{level}, expires_at: Date.tomorrow.iso8601 }}).execute
    puts made.payload.fetch(:access_token).token
    """
    pipeline = start(project)
    own = gitlab.Gitlab(url, private_token=server.console(script))
    mine = own.projects.get(PROJECT).pipelines.get(pipeline.id, lazy=True)

    def allowed(call: Callable[[], object]) -> bool:
        try:
            call()
        except gitlab.GitlabError as error:
            if error.response_code != 403:
                raise
            return False
        return True

    assert allowed(mine.jobs.list) is reads
    assert allowed(mine.cancel) is runs
    assert allowed(mine.delete) is deletes
    runner.do_all()
