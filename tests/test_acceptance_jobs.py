"""The scripts of the acceptance's pipeline, run against a real registry."""

import base64
import http.server
import itertools
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from configuration import acceptance_project
from tests.certificates import certificate
from tests.conftest import own_authority
from tests.shell import SHELLCHECK
from tests.test_settings import PRIVILEGED, load
from tools.registry_server import Registry

FILES = acceptance_project.files(acceptance_project.DEFAULT_IMAGE)


def test_the_project_has_the_files_of_its_folder_and_not_what_a_desktop_left_there(tmp_path, monkeypatch):
    folder = acceptance_project.ACCEPTANCE
    kept = subprocess.run(["git", "ls-files", "."], cwd=folder, capture_output=True, text=True, check=True)
    assert sorted(FILES) == kept.stdout.split()
    shutil.copytree(folder, tmp_path / "acceptance")
    (tmp_path / "acceptance/.DS_Store").write_bytes(b"\0\xca")
    monkeypatch.setattr(acceptance_project, "ACCEPTANCE", tmp_path / "acceptance")
    assert acceptance_project.files(acceptance_project.DEFAULT_IMAGE) == FILES


@pytest.mark.parametrize("path", sorted(acceptance_project.ACCEPTANCE.glob("*.sh")), ids=lambda path: path.name)
def test_a_job_is_sound_shell_of_the_smallest_kind(path):
    subprocess.run([SHELLCHECK, "-x", "-P", path.parent, path], check=True)
    assert path.read_text().startswith("# shellcheck shell=sh\n")


class GuardedRegistry(http.server.ThreadingHTTPServer):
    """A proxy that requires tokens in front of a registry that does not, and a stub of GitLab that issues them."""

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), Guard)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{self.address}"
        self.behind = behind
        self.answers: dict[str, int] = {}
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def serve_tls(self, certificate: Path) -> None:
        """Serve only TLS from now on; the file also contains the certificate's key."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://{self.address}"


class Guard(http.server.BaseHTTPRequestHandler):
    server: GuardedRegistry

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/jwt/auth"):
            job = "Basic " + base64.b64encode(b"gitlab-ci-token:the-job-token").decode()
            project = self.path.split("scope=repository:")[1].split("/acceptance:")[0]
            token = "good" if project == "group/project" else "good for nothing"
            granted = self.headers["Authorization"] == job
            return self.send(200 if granted else 403, json.dumps({"token": token} if granted else {}).encode())
        for ending, status in self.server.answers.items():
            if ending in f"{self.command} {self.path}":
                return self.send(status, b'{"errors":[{"code":"UNKNOWN"}]}')
        if self.headers["Authorization"] != "Bearer good":
            realm = f"{self.server.url}/jwt/auth"
            return self.send(401, b"", {"Www-Authenticate": f'Bearer realm="{realm}",service="container_registry"'})
        headers = {name: self.headers[name] for name in ("Content-Type", "Accept") if self.headers[name]}
        request = urllib.request.Request(
            f"http://{self.server.behind}{self.path}", body or None, headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request) as got:
                given = {name: got.headers[name] for name in ("Location", "Docker-Content-Digest") if got.headers[name]}
                if "Location" in given:
                    given["Location"] = given["Location"].replace(f"http://{self.server.behind}", "")
                return self.send(got.status, got.read(), given)
        except urllib.error.HTTPError as error:
            return self.send(error.code, error.read())

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ((headers or {}) | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, a name of http.server
        pass


Job = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def registry(server, tmp_path_factory) -> Iterator[Registry]:
    """A running registry, which the tests share: each push is another image."""
    with Registry(server, tmp_path_factory.mktemp("registry")).running() as registry:
        yield registry


@pytest.fixture
def guarded(registry) -> Iterator[GuardedRegistry]:
    server = GuardedRegistry(registry.address)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def job(guarded, tmp_path) -> Job:
    """Run a script of the project in a clone, as a job does."""
    numbers = itertools.count(1)
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)

    def run(name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", name],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "CI_PROJECT_PATH": "group/project",
                "CI_REGISTRY": guarded.address,
                "CI_SERVER_URL": guarded.url,
                "CI_JOB_TOKEN": "the-job-token",
                "CI_PIPELINE_ID": str(next(numbers)),
                "CI_PROJECT_DIR": str(tmp_path),
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def digest_in(folder: Path) -> str:
    return (folder / "pushed.env").read_text().strip().removeprefix("DIGEST=")


def test_an_image_is_pushed_and_pulled_with_the_jobs_token_by_plain_http(job, tmp_path, registry):
    pushed = job("push.sh")
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr
    digest = digest_in(tmp_path)
    assert re.search(r"^check job-token ok \d+\.\d\d$", pushed.stdout, re.MULTILINE)
    assert re.search(rf"^check push ok \d+\.\d\d group/project/acceptance:1@{digest}$", pushed.stdout, re.MULTILINE)
    assert digest in registry.blobs()
    pulled = job("pull.sh", DIGEST=digest)
    assert pulled.returncode == 0, pulled.stdout + pulled.stderr
    assert re.fullmatch(r"check pull ok \d+\.\d\d\n", pulled.stdout)
    assert "the-job-token" not in pushed.stdout + pushed.stderr + pulled.stdout + pulled.stderr


def test_an_own_authority_is_known_to_the_jobs_from_the_runners_file_and_not_otherwise(job, guarded, tmp_path):
    guarded.serve_tls(certificate(own_authority(), "127.0.0.1").write(tmp_path / "server.pem"))
    authority = tmp_path / "authority.pem"
    authority.write_text(own_authority().pem)
    unknown = job("push.sh")
    assert unknown.returncode == 1
    assert re.search("check job-token broken .*certificate", unknown.stdout), unknown.stdout + unknown.stderr
    pushed = job("push.sh", CI_SERVER_TLS_CA_FILE=str(authority))
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr
    pulled = job("pull.sh", DIGEST=digest_in(tmp_path), CI_SERVER_TLS_CA_FILE=str(authority))
    assert pulled.returncode == 0, pulled.stdout + pulled.stderr


def test_every_push_is_another_image(job, tmp_path):
    digests = set()
    for _ in range(2):
        assert job("push.sh").returncode == 0
        digests.add(digest_in(tmp_path))
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("variables", "answers", "said"),
    [
        ({"CI_JOB_TOKEN": "ended"}, {}, "check job-token broken .*/jwt/auth returned 403 for the job token"),
        ({"CI_REGISTRY": "127.0.0.1:1"}, {}, "check job-token broken .*Failed to connect|refused"),
        ({"CI_PROJECT_PATH": "group/other"}, {}, "check job-token broken The registry returned 401"),
        ({}, {"POST /v2": 503}, "check push broken The registry returned 503 for a new upload"),
        (
            {},
            {"PUT /v2/group/project/acceptance/blobs": 500},
            "check push broken The registry returned 500 for the image's layer",
        ),
        (
            {},
            {"PUT /v2/group/project/acceptance/manifests": 500},
            "check push broken The registry returned 500 for the manifest",
        ),
        (
            {},
            {"POST /v2/group/project-of-others": 202},
            "check push broken The registry returned 202 .* push to another project",
        ),
    ],
)
def test_what_is_broken_about_a_push_is_named_by_the_job(job, guarded, variables, answers, said):
    guarded.answers = answers
    failed = job("push.sh", **variables)
    assert failed.returncode == 1
    assert re.search(said, failed.stdout), failed.stdout + failed.stderr


def test_what_is_broken_about_a_pull_is_named_by_the_job(job, guarded, registry):
    digest = registry.push_image("group/project/acceptance", "1", b"a layer")
    guarded.answers = {"GET /v2/group/project/acceptance/blobs": 404}
    assert re.search("check pull broken The registry returned 404 for the blob", job("pull.sh", DIGEST=digest).stdout)
    guarded.answers = {f"manifests/{digest}": 200}
    assert "returned 200 instead of 401 for the image without a token" in job("pull.sh", DIGEST=digest).stdout
    guarded.answers = {}
    assert "The registry returned 404 for the manifest" in job("pull.sh", DIGEST="sha256:" + "0" * 64).stdout


def test_the_pipeline_runs_only_when_the_program_starts_it():
    assert 'if: $CI_PIPELINE_SOURCE == "api"' in FILES[".gitlab-ci.yml"]
    assert "privileged" not in "".join(FILES.values())
    assert "docker.sock" not in "".join(FILES.values())


@pytest.mark.parametrize(
    ("changes", "tags"), [({}, []), ({"runnerTags": ["docker"]}, []), (PRIVILEGED, ["privileged"])]
)
def test_jobs_ask_for_the_runners_tags_where_it_takes_no_others(changes, tags):
    asked = acceptance_project.runner_tags(load(**changes))
    pipeline = yaml.safe_load(acceptance_project.files("curl:1", asked)[".gitlab-ci.yml"])
    assert pipeline["default"].get("tags", []) == tags
    assert pipeline["default"]["image"]["name"] == "curl:1"
