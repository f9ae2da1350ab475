"""Projects, commits, pipelines and jobs of the played GitLab, as python-gitlab and git see them."""

import gzip
import http.client
import io
import json
import subprocess
import zipfile
from typing import Any
from urllib.parse import urlencode, urlsplit

import gitlab
import pytest

from lab.tests.gitlab_server import PASSWORD, balancer, needed, server

__all__ = ["server"]
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
def url(server):
    with balancer(server) as url:
        yield url


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
    assert pipeline.status == "pending"
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
