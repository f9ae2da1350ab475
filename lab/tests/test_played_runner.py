"""The stand-in for gitlab-runner, with a GitLab server whose responses the tests set.

If `LAB_PARTS` contains the real runner, most tests also run with it.
"""

import json
import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from configuration.job_limits import JobLimits
from configuration.runner_config import render_runner_config
from lab import authority
from lab.tests.gitlab_runner import SOURCE, impatient, played_runner, program, verify
from lab.workspace import write_secret
from tests.test_settings import PRIVILEGED, load

__all__ = ["played_runner", "program", "verify"]
TOKEN = "glrt-t1_0123456789abcdefghij"


class GitLab(HTTPServer):
    """Responds with `status` and records requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = {"verify": 200, "request": 204}
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def serve_tls(self, issued: authority.Issued, folder: Path) -> None:
        """Serve TLS from now on."""
        file = folder / "gitlab.pem"
        write_secret(file, issued.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://localhost:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: GitLab

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.path, json.loads(body)))
        status = self.server.status[self.path.rpartition("/")[2]]
        content = json.dumps({"id": 7, "token": TOKEN, "token_expires_at": None}).encode() if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def gitlab():
    server = GitLab()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """Path of config.toml, which does not exist yet."""
    found = tmp_path / "config.toml"
    monkeypatch.setenv("CONFIG_FILE", str(found))
    return found


def service(program: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([*program, "run"], stderr=subprocess.PIPE, text=True)


def configuration(url: str, more: str = "") -> str:
    runner = f'name = "docker-0"\nurl = "{url}"\ntoken = "{TOKEN}"\nexecutor = "docker"\n{more}'
    return f"concurrent = 1\ncheck_interval = 1\n[[runners]]\n{runner}"


def test_verify_sends_token_and_system_id(gitlab, program, file, verify):
    file.write_text(configuration(gitlab.url))
    done = verify(program)
    assert done.returncode == 0
    assert "Verifying runner... is valid" in done.stderr
    assert TOKEN not in done.stderr
    system_id = file.with_name(".runner_system_id").read_text()
    assert gitlab.asked == [("/api/v4/runners/verify", {"token": TOKEN, "system_id": system_id})]
    assert verify(program).returncode == 0
    assert gitlab.asked[0] == gitlab.asked[1]


def test_verify_fails_for_an_invalid_runner_and_logs_that_in_colour(gitlab, program, file, verify):
    file.write_text(configuration(gitlab.url))
    gitlab.status["verify"] = 403
    done = verify(program)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert f"{'Verifying runner... is not valid':50}\033[0;m  runner\033[0;m=t1_012345" in lines
    assert f"\033[31;1mFATAL: {'Failed to verify runners':43}\033[0;m " in lines


def test_verify_succeeds_without_runners_and_without_an_answer(program, file, verify):
    assert verify(program).returncode == 0
    file.write_text(configuration("http://127.0.0.1:1"))
    done = verify(program)
    assert done.returncode == 0
    assert "Verifying runner... failed" in done.stderr
    assert "onnection refused" in done.stderr


@pytest.mark.parametrize(
    "more", ["memory = 512", "cpus = 2", 'privileged = "yes"', 'allowed_pull_policies = "always"', "image = "]
)
def test_what_cannot_be_read_as_configuration_stops_everything(gitlab, program, file, more, verify):
    file.write_text(configuration(gitlab.url, f"[runners.docker]\n{more}\n"))
    done = verify(program)
    assert done.returncode == 1
    assert "decoding configuration file: toml: " in done.stderr
    assert gitlab.asked == []


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("FF_NETWORK_PER_BUILD = true\n", "runners.FF_NETWORK_PER_BUILD"),
        ("[runners.docker]\ndisable_caches = true\n", "runners.docker.disable_caches"),
        ("[runners.feature_flags]\nFF_NETWORK_PER_JOB = true\n", "runners.feature_flags.FF_NETWORK_PER_JOB"),
    ],
)
def test_the_played_one_refuses_a_key_that_would_change_nothing(gitlab, played_runner, file, more, name, verify):
    """The real one ignores unknown keys."""
    file.write_text(configuration(gitlab.url, more))
    done = verify(played_runner)
    assert done.returncode == 1
    assert f"does not support {name}" in done.stderr


@pytest.mark.parametrize("changes", [{}, {"runnerSharedCache": "true"}, PRIVILEGED])
def test_the_programs_own_configuration_is_understood(gitlab, program, file, changes, verify):
    limits = JobLimits(memory=1792, cpus=1)
    settings = load(**changes)
    file.write_text(
        render_runner_config(settings, name="docker-0", limits=limits, external_url=gitlab.url, token=TOKEN)
    )
    done = verify(program)
    assert done.returncode == 0, done.stderr
    assert "Verifying runner... is valid" in done.stderr
    assert "problem with your config" not in done.stderr


def test_the_service_continues_to_poll_a_gitlab_that_does_not_answer(program, file):
    """Only a rejected token makes a runner stop polling."""
    file.write_text(configuration("http://127.0.0.1:1", "unhealthy_requests_limit = 1\n"))
    with service(program) as process:
        assert process.stderr
        log: list[str] = []
        while sum("Checking for jobs... failed" in line for line in log) < 2:
            log.append(next(process.stderr))
        process.terminate()
        log += process.stderr
    assert process.returncode == 0
    assert "unhealthy" not in "".join(log)


def test_the_service_gives_up_on_a_refused_token_until_the_interval_of_its_file_is_over(gitlab, program, file):
    file.write_text(configuration(gitlab.url, 'unhealthy_requests_limit = 1\nunhealthy_interval = "1s"\n'))
    gitlab.status["request"] = 403
    with service(impatient(program)) as process:
        assert process.stderr
        log = [next(process.stderr)]
        while "is not healthy, but check for a new job will be forced" not in log[-1]:
            log.append(next(process.stderr))
        process.terminate()
    assert any("Checking for jobs... forbidden" in line for line in log)
    assert any("is unhealthy and will be disabled for 1s seconds!" in line for line in log)
    path, asked = gitlab.asked[0]
    assert (path, asked["token"], asked["info"]["version"]) == ("/api/v4/jobs/request", TOKEN, "17.10.1")


@pytest.fixture
def trusted(tmp_path, monkeypatch) -> Path:
    """The file with the authorities that the machine trusts: the lab's own."""
    monkeypatch.setattr(authority, "FOLDER", tmp_path / "ca")
    file = tmp_path / "trusted.crt"
    shutil.copy(authority.LAB.certificate(), file)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return file


@pytest.mark.parametrize(
    ("issuer", "names", "days", "result"),
    [
        (authority.LAB, ["localhost"], 30, "Verifying runner... is valid"),
        (authority.OUTSIDER, ["localhost"], 30, "x509: certificate signed by unknown authority"),
        (authority.LAB, ["git.example.com"], 30, "failed to verify certificate: x509: "),
        (authority.LAB, ["localhost"], -1, "x509: certificate has expired"),
    ],
    ids=["right", "another authority", "another name", "expired"],
)
def test_gitlabs_certificate_is_verified(gitlab, program, file, trusted, tmp_path, issuer, names, days, result, verify):
    gitlab.serve_tls(issuer.issue(names, days=days), tmp_path)
    file.write_text(configuration(gitlab.url))
    done = verify(program)
    assert result in done.stderr
    assert ("is valid" in done.stderr) == (issuer is authority.LAB and names == ["localhost"] and days > 0)


def test_the_service_learns_of_another_authority_only_when_it_starts(gitlab, program, file, trusted, tmp_path, verify):
    """So the program restarts it; Go reads the machine's certificates once per process."""
    gitlab.serve_tls(authority.OUTSIDER.issue(["localhost"]), tmp_path)
    file.write_text(configuration(gitlab.url))
    with service(impatient(program)) as process:
        assert process.stderr
        log = [next(process.stderr)]
        while "Checking for jobs... failed" not in log[-1]:
            log.append(next(process.stderr))
        shutil.copy(authority.OUTSIDER.certificate(), trusted)
        file.write_text(configuration(gitlab.url, "unhealthy_requests_limit = 9\n"))
        while "Configuration loaded" not in log[-1]:
            log.append(next(process.stderr))
        while "Checking for jobs... failed" not in log[-1]:
            log.append(next(process.stderr))
        process.terminate()
    assert gitlab.asked == []
    assert "is valid" in verify(program).stderr


@pytest.mark.needs("rpmspec")
def test_the_package_requires_the_helper_images_of_its_version():
    spec = str(SOURCE / "gitlab_runner.spec")
    command = ["rpmspec", "--query", "--requires", "--define", "runner_version 17.10.2", spec]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "gitlab-runner-helper-images = 17.10.2-1" in done.stdout.splitlines()
