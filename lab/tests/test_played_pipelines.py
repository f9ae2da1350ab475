"""Projects, commits, pipelines and jobs of the played GitLab, as python-gitlab and git see them."""

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import sqlite3
import subprocess
import zipfile
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

import gitlab
import pytest

from lab.tests.gitlab_server import PASSWORD, PROJECT, REGISTRIES, needed, registry, server, url, wait_until

__all__ = ["server", "url"]
pytestmark = needed

TWO_JOBS = """
stages: [push, pull]
default:
  image: {name: "docker.io/curlimages/curl:8.12.1", entrypoint: [""]}
  before_script: [echo before]
variables: {GREETING: hello}
push:
  stage: push
  script: [echo "$GREETING", "echo DIGEST=sha256:1 >proof.env"]
  after_script: [echo after]
  artifacts: {paths: [proof.txt], reports: {dotenv: proof.env}, expire_in: 1 day}
  timeout: 10 minutes
pull:
  stage: pull
  script: echo "$DIGEST"
"""


class Runner:
    """Speaks the runner's part of the API, as a runner does that has its jobs done by the test."""

    def __init__(self, url: str, token: str) -> None:
        self.netloc, self.token = urlsplit(url).netloc, token

    def send(self, method: str, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.netloc, timeout=10)
        connection.request(method, f"/api/v4/{path}", body, {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        answer = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return answer

    def json(self, method: str, path: str, **fields: Any) -> tuple[int, dict[str, str], Any]:
        body = json.dumps(fields).encode()
        status, headers, answer = self.send(method, path, body, Content_Type="application/json")
        return status, headers, json.loads(answer) if answer else None

    def take(self, **info: Any) -> Any:
        """The next job, None when there is none."""
        fields = {"token": self.token, "system_id": "s_0123456789ab", "info": {"executor": "docker", **info}}
        status, _, job = self.json("POST", "jobs/request", **fields)
        assert status in (201, 204), job
        return job

    def log(self, job: Any, text: str, start: int = 0) -> tuple[int, dict[str, str]]:
        end = start + len(text.encode()) - 1
        sent = {"JOB_TOKEN": job["token"], "Content_Range": f"{start}-{end}", "Content_Type": "text/plain"}
        status, headers, _ = self.send("PATCH", f"jobs/{job['id']}/trace", text.encode(), **sent)
        return status, headers

    def end(self, job: Any, state: str = "success", **more: Any) -> int:
        return self.json("PUT", f"jobs/{job['id']}", token=job["token"], state=state, **more)[0]

    def upload(self, job: Any, content: bytes, name: str, **query: str) -> int:
        parts = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n--b--\r\n'
        asked = urlencode(query)
        sent = {"JOB_TOKEN": job["token"], "Content_Type": "multipart/form-data; boundary=b"}
        return self.send("POST", f"jobs/{job['id']}/artifacts?{asked}", parts % (name.encode(), content), **sent)[0]


@pytest.fixture(scope="module")
def api(server, url):
    return gitlab.Gitlab(url, private_token=server.secrets["api"])


@pytest.fixture
def runner(server, url):
    return Runner(url, server.secrets["runner"])


@pytest.fixture
def project(api):
    """A project of its own, private and empty."""
    group = api.groups.get("stack")
    made = api.projects.create({"name": "under test", "path": "under-test", "namespace_id": group.id})
    yield made
    made.delete()


def commit(project, message="Change", **files: str):
    known = {entry["path"] for entry in project.repository_tree(all=True)} if not project.empty_repo else set()
    project.empty_repo = False
    actions = [
        {"action": "update" if name in known else "create", "file_path": name, "content": text}
        for name, text in files.items()
    ]
    return project.commits.create({"branch": "main", "commit_message": message, "actions": actions})


def start(project, text: str = TWO_JOBS, **more: Any):
    """A pipeline of this .gitlab-ci.yml, started through the API."""
    commit(project, "Configuration [skip ci]", **{".gitlab-ci.yml": text})
    return project.pipelines.create({"ref": "main", **more})


def states(project, pipeline) -> dict[str, str]:
    return {job.name: job.status for job in project.pipelines.get(pipeline.id).jobs.list(all=True)}


def test_two_jobs_go_from_created_to_success(project, runner):
    pipeline = start(project)
    assert pipeline.status == "created"
    assert project.pipelines.get(pipeline.id).status == "pending"
    assert states(project, pipeline) == {"push": "pending", "pull": "created"}
    first = runner.take()
    assert project.pipelines.get(pipeline.id).status == "running"
    assert first["image"]["name"] == "docker.io/curlimages/curl:8.12.1"
    assert first["image"]["entrypoint"] == [""]
    assert [step["name"] for step in first["steps"]] == ["script", "after_script"]
    assert first["steps"][0]["script"] == ["echo before", 'echo "$GREETING"', "echo DIGEST=sha256:1 >proof.env"]
    assert first["runner_info"]["timeout"] == 600
    assert runner.log(first, "one\n")[0] == 202
    assert runner.log(first, "two\n", start=4)[1]["Range"] == "0-8"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("proof.txt", "proof")
    assert runner.upload(first, archive.getvalue(), "artifacts.zip", expire_in="1 day") == 201
    dotenv = {"artifact_type": "dotenv", "artifact_format": "gzip"}
    assert runner.upload(first, gzip.compress(b"DIGEST=sha256:1\n"), ".env", **dotenv) == 201
    assert runner.end(first) == 200
    second = runner.take()
    assert {"key": "DIGEST", "value": "sha256:1", "public": False, "masked": False} in second["variables"]
    assert [dependency["name"] for dependency in second["dependencies"]] == ["push"]
    status, _, sent = runner.send("GET", f"jobs/{first['id']}/artifacts", b"", JOB_TOKEN=second["token"])
    assert (status, sent) == (200, archive.getvalue())
    assert runner.take() is None
    runner.end(second)
    done = project.pipelines.get(pipeline.id)
    assert done.status == "success"
    assert done.duration is not None
    job = project.jobs.get(first["id"])
    assert job.trace() == b"one\ntwo\n"
    assert job.artifact("proof.txt") == b"proof"
    assert job.runner["description"] == "r"
    assert job.queued_duration >= 0


@pytest.mark.parametrize(
    ("given", "depth", "fetched"),
    [
        ("", 20, "+refs/heads/main:refs/remotes/origin/main"),
        ("variables: {GIT_DEPTH: '1'}", 1, "+refs/heads/main:refs/remotes/origin/main"),
        ("variables: {GIT_DEPTH: '0'}", 0, "+refs/heads/*:refs/remotes/origin/*"),
        ("variables: {GIT_DEPTH: all}", 0, "+refs/heads/*:refs/remotes/origin/*"),
    ],
)
def test_a_job_is_cloned_as_deep_as_its_variable_says_or_else_its_project(given, depth, fetched, project, runner):
    start(project, f"{given}\njob: {{script: [echo]}}")
    job = runner.take()
    assert job["git_info"]["depth"] == depth
    assert fetched in job["git_info"]["refspecs"]
    runner.end(job)


# Git over HTTP


def git(*arguments: str, cwd=None) -> subprocess.CompletedProcess[str]:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": "/dev/null", "PATH": "/usr/bin:/bin", "HOME": "/nowhere"}
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
    return subprocess.run(["git", *who, *arguments], cwd=cwd, env=quiet, capture_output=True, text=True, check=False)


def address(url: str, project: Any, credentials: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{credentials}@{rest}/{project.path_with_namespace}.git"


def test_what_is_pushed_is_there_for_the_api_and_starts_a_pipeline(project, url, tmp_path):
    at = address(url, project, f"root:{PASSWORD}")
    assert git("clone", at, str(tmp_path / "work")).returncode == 0
    work = tmp_path / "work"
    (work / ".gitlab-ci.yml").write_text(TWO_JOBS)
    (work / "big").write_bytes(bytes(range(256)) * 8192)  # more than git sends in one piece
    git("add", ".", cwd=work)
    git("commit", "--message=Something", cwd=work)
    pushed = git("push", "origin", "HEAD:main", cwd=work)
    assert pushed.returncode == 0, pushed.stderr
    assert project.files.raw("big", ref="main") == (work / "big").read_bytes()
    (pipeline,) = project.pipelines.list()
    assert (pipeline.source, pipeline.status) == ("push", "pending")
    assert project.commits.get("main").title == "Something"
    pipeline.cancel()


def test_a_job_clones_with_its_token_while_it_runs_and_pushes_nothing(project, runner, url, tmp_path):
    start(project)
    job = runner.take()
    at = address(url, project, f"gitlab-ci-token:{job['token']}")
    commands = [
        ("init", str(tmp_path / "clone")),
        ("-C", str(tmp_path / "clone"), "fetch", "--depth", "20", at, *job["git_info"]["refspecs"]),
        ("-C", str(tmp_path / "clone"), "checkout", job["git_info"]["sha"]),
    ]
    for command in commands:
        done = git(*command)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "clone/.gitlab-ci.yml").read_text() == TWO_JOBS
    refused = git("-C", str(tmp_path / "clone"), "push", at, "HEAD:refs/heads/other")
    assert "You are not allowed to upload code." in refused.stderr
    runner.end(job, "failed", failure_reason="script_failure")
    assert "Access denied" in git("ls-remote", at).stderr


def test_a_deploy_token_reads_the_repository_when_it_may(project, server, url):
    commit(project, **{"README.md": "text"})
    for ability, answer in (("read_repository", ""), ("read_registry", "You are not allowed to download code.")):
        made = server.console(f"""
        project, admin = Project.find_by_full_path('stack/under-test'), User.first
        token = Projects::DeployTokens::CreateService.new(project, admin,
          {{ name: 'n', expires_at: Date.tomorrow.iso8601, {ability}: true }}).execute.fetch(:deploy_token)
        puts [token.username, token.token].join(':')
        """)
        assert answer in git("ls-remote", address(url, project, made.replace("+", "%2B"))).stderr


def test_who_may_fetch_and_push(project, server, url):
    commit(project, **{"README.md": "text"})

    def fetch(credentials: str) -> str:
        return git("ls-remote", address(url, project, credentials)).stderr

    made = {
        scope: server.console(
            "puts User.first.personal_access_tokens.create!(name: 'x', "
            f"scopes: %w[{scope}], expires_at: 1.day.from_now).token"
        )
        for scope in ("read_repository", "read_registry")
    }
    assert fetch(f"root:{PASSWORD}") == fetch(f"anybody:{made['read_repository']}") == ""
    assert "You are not allowed to download code." in fetch(f"root:{made['read_registry']}")
    assert "Access denied" in fetch("root:wrong")
    assert "could not read Username" in git("ls-remote", f"{url}/{project.path_with_namespace}.git").stderr
    assert "not found" in git("ls-remote", f"{url.replace('://', f'://root:{PASSWORD}@')}/stack/none.git").stderr


# How a pipeline goes


def ends(runner: Runner, project: Any, pipeline: Any, **how: str) -> dict[str, str]:
    """Let every job end as `how` says by its name, else well, and return the states."""
    while job := runner.take():
        state = how.get(job["job_info"]["name"], "success")
        runner.end(job, state, **({"failure_reason": "script_failure", "exit_code": 1} if state == "failed" else {}))
    return {"pipeline": project.pipelines.get(pipeline.id).status, **states(project, pipeline)}


def test_after_a_failure_later_stages_are_skipped(project, runner):
    pipeline = start(project)
    assert ends(runner, project, pipeline, push="failed") == {"pipeline": "failed", "push": "failed", "pull": "skipped"}
    (job,) = [job for job in pipeline.jobs.list() if job.name == "push"]
    assert job.failure_reason == "script_failure"
    again = pipeline.retry()
    assert again["status"] in ("pending", "running")
    assert ends(runner, project, pipeline) == {"pipeline": "success", "push": "success", "pull": "success"}
    assert len(pipeline.jobs.list(include_retried=True)) == 3


WHENS = """
stages: [one, two]
fails: {stage: one, script: "false"}
may-fail: {stage: one, script: "false", allow_failure: true}
on-failure: {stage: two, script: "true", when: on_failure}
always: {stage: two, script: "true", when: always}
by-hand: {stage: two, script: "true", when: manual}
at-once: {stage: two, script: "true", needs: []}
after-may-fail: {stage: two, script: "true", needs: [may-fail]}
"""


def test_each_kind_of_when_and_needs(project, runner):
    pipeline = start(project, WHENS)
    assert states(project, pipeline)["at-once"] == "pending"
    assert ends(runner, project, pipeline, **{"may-fail": "failed"}) == {
        "pipeline": "success",
        "fails": "success",
        "may-fail": "failed",
        "on-failure": "skipped",
        "always": "success",
        "by-hand": "manual",
        "at-once": "success",
        "after-may-fail": "success",
    }
    pipeline = start(project, WHENS)
    assert ends(runner, project, pipeline, fails="failed")["on-failure"] == "success"
    assert project.pipelines.get(pipeline.id).status == "failed"


def test_a_job_that_fails_is_run_again_as_often_as_it_says(project, runner):
    pipeline = start(project, "job: {script: 'false', retry: 1}")
    assert ends(runner, project, pipeline, job="failed") == {"pipeline": "failed", "job": "failed"}
    assert len(pipeline.jobs.list(include_retried=True)) == 2


def test_what_waits_for_a_person_is_played(project, runner):
    pipeline = start(project, "job: {script: 'true', when: manual, allow_failure: false}")
    assert project.pipelines.get(pipeline.id).status == "manual"
    project.jobs.get(pipeline.jobs.list()[0].id).play()
    assert ends(runner, project, pipeline) == {"pipeline": "success", "job": "success"}


def test_a_cancelled_job_is_taken_from_a_runner_at_once_unless_it_ends_jobs_gracefully(project, runner):
    for features, during in (({}, "canceled"), ({"cancel_gracefully": True}, "canceling")):
        pipeline = start(project)
        job = runner.take(features=features)
        pipeline.cancel()
        assert states(project, pipeline) == {"push": during, "pull": "canceled"}
        status, headers = runner.log(job, "more\n")
        assert headers["Job-Status"] == during
        assert status == (202 if features else 403)
        runner.end(job, "failed", failure_reason="job_canceled")
        assert project.pipelines.get(pipeline.id).status == "canceled"


def test_a_job_that_is_over_takes_nothing_more(project, runner):
    start(project, "job: {script: 'true'}")
    job = runner.take()
    assert runner.log(job, "x", start=7)[0] == 416
    assert runner.send("PUT", f"jobs/{job['id']}", b"{}", Content_Type="application/json")[0] == 403
    runner.end(job)
    status, headers = runner.log(job, "late")
    assert (status, headers["Job-Status"]) == (403, "success")
    assert runner.end(job, "failed") == 403


def test_deleting_a_pipeline_deletes_its_jobs(project, runner):
    pipeline = start(project, "job: {script: 'true'}")
    job = runner.take()
    runner.end(job)
    pipeline.delete()
    with pytest.raises(gitlab.GitlabGetError, match="404"):
        project.jobs.get(job["id"])


def test_jobs_that_nobody_takes_or_hears_of_are_dropped(server, project, runner):
    for taken in (False, True):
        pipeline = start(project, "job: {script: 'true'}")
        if taken:
            runner.take()
        database = server.root / "var/opt/gitlab/postgresql/data/base/gitlabhq_production.sqlite3"
        with sqlite3.connect(database) as rows:
            rows.execute("UPDATE ci_builds SET updated_at = '2025-04-09T10:00:00.000000Z' WHERE status != 'success'")
        rows.close()
        assert project.pipelines.get(pipeline.id).status == "failed"
        assert pipeline.jobs.list()[0].failure_reason == "stuck_or_timeout_failure"


# Who gets which job


def test_a_paused_runner_gets_no_job_and_one_with_other_tags_neither(api, project, runner):
    start(project, "job: {script: 'true', tags: [special]}")
    assert runner.take() is None
    (found,) = [one for one in api.runners_all.list(all=True) if one.description == "r"]
    shown = api.runners.get(found.id)
    assert (shown.status, shown.paused, shown.tag_list) == ("online", False, [])
    shown.tag_list, shown.paused = ["special"], True
    shown.save()
    assert runner.take() is None
    shown.paused = False
    shown.save()
    job = runner.take()
    assert job["job_info"]["name"] == "job"
    shown.tag_list = []
    shown.save()
    runner.end(job)


def test_what_a_job_runs_with(project, runner):
    text = """
    job:
      image: "$NAMED"
      variables: {NAMED: "$CI_REGISTRY_IMAGE/image", AS-IS: {value: "$NAMED", expand: false}}
      script: ["true"]
      timeout: 1h 30m
    """
    given = [{"key": "SECRET", "value": "x", "variable_type": "file"}, {"key": "NAMED2", "value": "by hand"}]
    start(project, text, variables=given)
    job = runner.take()
    variables = {variable["key"]: variable for variable in job["variables"]}
    values = {key: variable["value"] for key, variable in variables.items()}
    assert values["CI_REGISTRY_IMAGE"] == "203.0.113.16:5000/stack/under-test"
    assert values["NAMED"] == "203.0.113.16:5000/stack/under-test/image"
    assert (values["AS-IS"], variables["AS-IS"]["raw"]) == ("$NAMED", True)
    assert (variables["SECRET"]["file"], variables["SECRET"]["public"]) == (True, False)
    assert values["NAMED2"] == "by hand"
    assert values["CI_JOB_TOKEN"] == values["CI_REGISTRY_PASSWORD"] == job["token"]
    assert variables["CI_JOB_TOKEN"]["masked"]
    assert values["CI_REPOSITORY_URL"] == f"http://gitlab-ci-token:{job['token']}@203.0.113.16/stack/under-test.git"
    assert (values["CI_SERVER_URL"], values["CI_API_V4_URL"]) == ("http://203.0.113.16", "http://203.0.113.16/api/v4")
    assert (values["CI_PIPELINE_SOURCE"], values["CI_COMMIT_BRANCH"]) == ("api", "main")
    assert job["credentials"][0]["url"] == "203.0.113.16:5000"
    assert job["runner_info"]["timeout"] == 5400
    runner.end(job)


# The token of a job


def granted(server: Any, job: Any, path: str) -> list[str] | int:
    answer = server.token("gitlab-ci-token", job["token"], f"repository:{path}:pull,push")
    if answer.status != 200:
        return answer.status
    payload = answer.json["token"].split(".")[1]
    access = json.loads(base64.urlsafe_b64decode(payload + "=="))["access"]
    return [action for entry in access for action in entry["actions"]]


def test_a_jobs_token_is_for_images_of_its_own_project_while_it_runs(server, project, runner):
    start(project, "job: {script: 'true'}")
    job = runner.take()
    assert granted(server, job, "stack/under-test/image") == ["pull", "push"]
    assert granted(server, job, PROJECT) == granted(server, job, "stack/under-test-of-others") == []
    runner.end(job)
    assert granted(server, job, "stack/under-test/image") == 401
    # The project's images would have to go first, and there is no registry.
    server.console("ContainerRepository.where(name: 'image').destroy_all")


def test_a_jobs_token_opens_little_of_the_api(url, project, runner):
    start(project, "job: {script: 'true'}")
    job = runner.take()
    with_token = gitlab.Gitlab(url, job_token=job["token"])
    own = with_token.http_get("/job")
    assert isinstance(own, dict)
    assert own["id"] == job["id"]
    assert with_token.projects.get(project.id, lazy=True).pipelines.list()
    for path in (f"/projects/{project.id}", f"/projects/{project.id}/repository/tree", "/user", "/version"):
        with pytest.raises(gitlab.GitlabAuthenticationError):
            with_token.http_get(path)
    runner.end(job)


# What is refused


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
        ("job: {script: x, needs: [other]}", "job job: undefined need: other"),
        (
            "a: {script: x, stage: build, needs: [b]}\nb: {script: x, stage: deploy}",
            "a job: need b is not defined in current or prior stages",
        ),
        ("job: {script: x, dependencies: [other]}", "job job: undefined dependency: other"),
        ("job: {script: x, retry: 3}", "jobs:job:retry config must be less than or equal to 2"),
        ("job: {script: x, when: sometimes}", "jobs:job when should be one of: on_success"),
        ("job: {script: x, timeout: soon}", "jobs:job:timeout config should be a duration"),
        ("job: {script: x, image: [a]}", "jobs:job:image config should be a hash or a string"),
        ("a: {script: x, needs: [b]}\nb: {script: x, needs: [a]}", "circular dependencies"),
        ("include: other.yml\njob: {script: x}", "the lab plays no include:"),
        ("job: {script: x, rules: [{if: '$A =='}]}", "invalid expression syntax"),
        ("job: {script: x, rules: [{if: $NOTHING}]}", "Pipeline will not run for the selected trigger."),
        ("workflow: {rules: [{when: never}]}\njob: {script: x}", "Pipeline filtered out by workflow rules."),
    ],
)
def test_a_configuration_that_is_refused(project, text, complaint):
    commit(project, **{".gitlab-ci.yml": text})
    with pytest.raises(gitlab.GitlabCreateError) as refused:
        project.pipelines.create({"ref": "main"})
    assert refused.value.response_code == 400
    assert complaint in str(json.loads(refused.value.response_body or b"")["message"]["base"])


def test_no_pipeline_without_a_file_or_a_branch_and_a_failed_one_after_a_push_of_a_wrong_file(project):
    commit(project, **{"README.md": "text"})
    for ref, complaint in (("main", "Missing CI config file"), ("none", "Reference not found")):
        with pytest.raises(gitlab.GitlabCreateError) as refused:
            project.pipelines.create({"ref": ref})
        assert json.loads(refused.value.response_body or b"") == {"message": {"base": [complaint]}}
    assert project.pipelines.list() == []
    commit(project, **{".gitlab-ci.yml": "job: {stage: none}"})
    (pipeline,) = project.pipelines.list()
    assert (pipeline.source, pipeline.status) == ("push", "failed")
    assert "should implement the script:" in project.pipelines.get(pipeline.id).yaml_errors


def test_conditions_and_the_source_of_a_pipeline(project, runner):
    text = """
    workflow: {rules: [{if: '$CI_PIPELINE_SOURCE == "api"'}]}
    by-branch: {script: x, rules: [{if: '$CI_COMMIT_BRANCH =~ /^ma/ && $WANTED', when: on_success}]}
    unwanted: {script: x, rules: [{if: '$WANTED == "yes"', when: never}, {when: always}]}
    tags-only: {script: x, only: [tags]}
    main-only: {script: x, only: [main]}
    """
    commit(project, **{".gitlab-ci.yml": text})
    assert project.pipelines.list() == []
    pipeline = project.pipelines.create({"ref": "main", "variables": [{"key": "WANTED", "value": "yes"}]})
    assert sorted(states(project, pipeline)) == ["by-branch", "main-only"]
    ends(runner, project, pipeline)


def test_actions_of_a_commit_that_cannot_be(project):
    def made(branch="main", **action: str) -> Any:
        return project.commits.create({"branch": branch, "commit_message": "m", "actions": [action]})

    made(action="create", file_path="a", content="1")
    for refused, complaint in (
        ({"action": "create", "file_path": "a", "content": "1"}, "A file with this name already exists"),
        ({"action": "update", "file_path": "b", "content": "1"}, "A file with this name doesn't exist"),
        ({"action": "delete", "file_path": "b"}, "A file with this name doesn't exist"),
        ({"action": "move", "file_path": "c", "previous_path": "b"}, "A file with this name doesn't exist"),
        (
            {"branch": "other", "action": "delete", "file_path": "a"},
            "You can only create or edit files when you are on",
        ),
    ):
        with pytest.raises(gitlab.GitlabCreateError, match=complaint):
            made(**refused)
    made(action="move", file_path="folder/b", previous_path="a")
    encoded = base64.b64encode(b"\0\1").decode()
    made(action="create", file_path="binary", content=encoded, encoding="base64")
    assert project.files.raw("binary", ref="main") == b"\0\1"
    listed = project.repository_tree(recursive=True, all=True)
    assert [entry["path"] for entry in listed] == ["folder", "binary", "folder/b"]
    assert [one.title for one in project.commits.list(all=True, per_page=1)] == ["m", "m", "m"]
    with pytest.raises(gitlab.GitlabGetError, match="404 File Not Found"):
        project.files.get("a", ref="main")


def test_groups_projects_branches_and_files(api):
    group = api.groups.create({"name": "A group", "path": "a-group"})
    with pytest.raises(gitlab.GitlabCreateError, match="has already been taken"):
        api.groups.create({"name": "A group", "path": "a-group"})
    with pytest.raises(gitlab.GitlabHttpError, match="name is missing"):
        api.http_post("/groups", post_data={"path": "b"})
    given = {"name": "One", "namespace_id": group.id, "initialize_with_readme": True}
    project = api.projects.create(given)
    assert (project.path_with_namespace, project.visibility, project.default_branch) == (
        "a-group/one",
        "private",
        "main",
    )
    with pytest.raises(gitlab.GitlabCreateError, match="has already been taken"):
        api.projects.create(given)
    project.branches.create({"branch": "other", "ref": "main"})
    file = project.files.create(
        {"file_path": "folder/new.txt", "branch": "other", "content": "1\n", "commit_message": "New"}
    )
    file.content = "2\n"
    file.save(branch="other", commit_message="Changed")
    found = project.files.get("folder/new.txt", ref="other")
    assert (found.decode(), found.last_commit_id) == (b"2\n", project.branches.get("other").commit["id"])
    assert project.commits.get("other").stats == {"additions": 1, "deletions": 1, "total": 2}
    found.delete(branch="other", commit_message="Gone")
    assert [entry["name"] for entry in project.repository_tree(ref="other")] == ["README.md"]
    project.branches.delete("other")
    with pytest.raises(gitlab.GitlabDeleteError, match="404 Branch Not Found"):
        project.branches.delete("other")
    project.description, project.build_timeout = "A project", 600
    project.save()
    assert api.projects.get("a-group/one").description == "A project"
    assert [one.path for one in group.projects.list()] == ["one"]
    group.delete()
    with pytest.raises(gitlab.GitlabGetError, match="404 Project Not Found"):
        api.projects.get(project.id)


# Who may do what


@pytest.mark.parametrize(
    ("level", "reads", "runs", "administers"),
    [
        ("GUEST", False, False, False),
        ("REPORTER", True, False, False),
        ("DEVELOPER", True, True, False),
        ("MAINTAINER", True, True, True),
    ],
)
def test_members_may_what_their_level_says(server, url, project, level, reads, runs, administers):
    commit(project, "m [skip ci]", **{".gitlab-ci.yml": "job: {script: 'true'}"})
    made = server.console("""
    user = User.find_by_username('somebody') || User.create!(username: 'somebody', name: 'Some Body',
      email: 's@example.test', password: 'kq27dHW0pLx')
    Member.where(user_id: user.id).destroy_all
    puts user.personal_access_tokens.create!(name: 'x', scopes: %w[api], expires_at: 1.day.from_now).token
    """)
    other = gitlab.Gitlab(url, private_token=made)
    with pytest.raises(gitlab.GitlabGetError, match="404 Project Not Found"):
        other.projects.get(project.id)
    server.console(f"""
    Project.find_by_full_path('stack/under-test').add_member(User.find_by_username('somebody'), Gitlab::Access::{level})
    """)
    mine = other.projects.get(project.id)

    def allowed(call: Callable[[], Any]) -> bool:
        try:
            call()
        except gitlab.GitlabError as error:
            if error.response_code not in (400, 403):
                raise
            return False
        return True

    assert allowed(mine.repository_tree) is reads
    assert allowed(lambda: mine.pipelines.create({"ref": "main"}).cancel()) is runs
    assert allowed(lambda: mine.branches.create({"branch": level, "ref": "main"})) is runs
    assert allowed(lambda: commit(mine, other="x")) is administers
    assert not allowed(mine.delete)


# Tokens


def refused_token(url: str, token: str) -> str:
    """What comes instead of the user."""
    with pytest.raises(gitlab.GitlabAuthenticationError) as refused:
        gitlab.Gitlab(url, private_token=token).auth()
    return (refused.value.response_body or b"").decode()


def test_a_token_knows_itself_and_ends_itself(url, server, api):
    made = server.console(
        "puts User.first.personal_access_tokens.create!(name: 'own', scopes: %w[read_api], "
        "expires_at: 1.day.from_now).token"
    )
    own = gitlab.Gitlab(url, private_token=made)
    token = own.personal_access_tokens.get("self")
    assert (token.name, token.scopes, token.active, token.revoked) == ("own", ["read_api"], True, False)
    assert own.projects.list()
    with pytest.raises(gitlab.GitlabCreateError) as refused:
        own.projects.create({"name": "x"})
    assert json.loads(refused.value.response_body or b"")["error"] == "insufficient_scope"
    own.personal_access_tokens.delete("self")
    assert "Token was revoked." in refused_token(url, made)
    assert api.version()[0] == "17.10.4"


def test_a_projects_own_token_opens_that_project_alone(url, api, project, server):
    script = """
    project, admin = Project.find_by_full_path('stack/under-test'), User.admins.active.first
    project.group.add_owner(admin)
    made = ResourceAccessTokens::CreateService.new(admin, project, { name: 'own', scopes: ['api'],
      access_level: Gitlab::Access::OWNER, expires_at: Date.tomorrow.iso8601 }).execute
    puts made.payload.fetch(:access_token).token
    """
    own = gitlab.Gitlab(url, private_token=server.console(script))
    mine = own.projects.get("stack/under-test")
    own.auth()
    assert own.user is not None
    assert own.user.bot
    start(mine, "job: {script: 'true'}").delete()
    with pytest.raises(gitlab.GitlabGetError, match="404 Project Not Found"):
        own.projects.get(PROJECT)
    with pytest.raises(gitlab.GitlabListError, match="403"):
        own.runners_all.list()
    revoke = """
    project, admin = Project.find_by_full_path('stack/under-test'), User.admins.active.first
    PersonalAccessToken.where(name: 'own', user_id: project.bots.map(&:id)).each do |token|
      puts ResourceAccessTokens::RevokeService.new(admin, project, token).execute.status
    end
    """
    assert server.console(revoke) == "success"
    with pytest.raises(gitlab.GitlabAuthenticationError):
        own.auth()


def test_a_token_that_is_over_says_so(url, server):
    made = server.console(
        "t = User.first.personal_access_tokens.create!(name: 'x', scopes: %w[api], expires_at: 1.day.from_now)\n"
        "puts t.token\nt.update!(expires_at: Date.yesterday)"
    )
    assert "Token is expired." in refused_token(url, made)
    assert refused_token(url, "glpat-nothing") == '{"message":"401 Unauthorized"}'


def test_a_pipeline_made_in_the_console(project, server, runner):
    commit(project, **{".gitlab-ci.yml": "job: {script: 'true', only: [web]}", "README.md": "text"})
    script = """
    project, admin = Project.find_by_full_path('stack/under-test'), User.first
    made, none = %w[main none].map { |ref| Ci::CreatePipelineService.new(project, admin, ref: ref).execute(:web) }
    puts [made.success?, made.payload.status, none.message]
    """
    assert server.console(script).splitlines() == ["true", "created", "Reference not found"]
    ends(runner, project, project.pipelines.list()[0])


# Images


def put_image(server: Any, address: str, job: Any, path: str, tag: str) -> str:
    """Push an image of one layer by the registry's own HTTP, and return its digest."""

    def ask(method: str, where: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        scope = f"repository:{path}:pull,push"
        token = server.token("gitlab-ci-token", job["token"], scope).json["token"]
        connection = http.client.HTTPConnection(address, timeout=10)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, where, body, {"Authorization": f"Bearer {token}", **named})
        response = connection.getresponse()
        response.read()
        return response

    entries = []
    made = f"2025-04-09T10:00:0{tag if tag.isdecimal() else 9}Z"
    for kind, content in (("config", json.dumps({"created": made})), ("layer", "layer")):
        digest = f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
        place = ask("POST", f"/v2/{path}/blobs/uploads/").getheader("Location") or ""
        separator = "&" if "?" in place else "?"
        whole = f"{urlsplit(place)._replace(scheme='', netloc='').geturl()}{separator}digest={digest}"
        assert ask("PUT", whole, content.encode(), Content_Type="application/octet-stream").status == 201
        entries.append({"mediaType": f"application/{kind}", "size": len(content), "digest": digest})
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": entries[0], "layers": entries[1:]}
    done = ask("PUT", f"/v2/{path}/manifests/{tag}", json.dumps(manifest).encode(), Content_Type=kind)
    assert done.status == 201
    return done.getheader("Docker-Content-Digest") or ""


@pytest.mark.parametrize("program", REGISTRIES, ids=os.path.basename)
def test_images_through_the_api(server, url, api, project, runner, program, tmp_path):
    with registry(program, server.certificate, tmp_path) as address:
        assert server.configure(f"gitlab_rails['registry_api_url'] = 'http://{address}'").returncode == 0
        wait_until(server.is_ready)
        start(project, "job: {script: 'true'}")
        job = runner.take()
        path = "stack/under-test/image"
        digests = {tag: put_image(server, address, job, path, tag) for tag in ("1", "2", "3", "latest")}
        runner.end(job)
        (image,) = project.repositories.list(tags=True)
        assert (image.path, image.location) == (path, f"203.0.113.16:5000/{path}")
        assert [tag["name"] for tag in image.attributes["tags"]] == ["1", "2", "3", "latest"]
        shown = image.tags.get("2")
        assert (shown.digest, shown.created_at) == (digests["2"], "2025-04-09T10:00:02Z")
        assert shown.total_size > len("layer")
        image.tags.delete("2")
        image.tags.delete_in_bulk(name_regex_delete="[0-9]+", keep_n=1)
        assert [tag.name for tag in image.tags.list(all=True)] == ["3", "latest"]
        with pytest.raises(gitlab.GitlabGetError, match="404 Tag Not Found"):
            image.tags.get("2")
        image.delete()
        assert project.repositories.list() == []
    assert server.configure().returncode == 0
    wait_until(server.is_ready)
