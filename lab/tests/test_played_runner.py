"""The played gitlab-runner against a GitLab that is told what to answer.

Where `LAB_PARTS` has the real one, it is held to the same.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from configuration.job_limits import JobLimits
from configuration.runner_config import render_runner_config
from lab.tests.gitlab_runner import SOURCE, played_runner, program
from tests.test_settings import PRIVILEGED, load

__all__ = ["played_runner", "program"]
TOKEN = "glrt-t1_0123456789abcdefghij"


class GitLab(HTTPServer):
    """Answers with `status`, a runner's credentials with 200, and remembers what it was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = {"verify": 200, "request": 204, "managers": 204, "runners": 410}
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: GitLab

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, json.loads(body)))
        status = self.server.status[self.path.rpartition("/")[2]]
        content = json.dumps({"id": 7, "token": TOKEN, "token_expires_at": None}).encode() if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_DELETE = answer

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
def root(tmp_path):
    folder = tmp_path / "etc/gitlab-runner"
    folder.mkdir(parents=True)
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    return tmp_path


@pytest.fixture
def run(root, program):
    def runner(*arguments):
        command = [*program, *arguments]
        return subprocess.run(command, env=environment(root), capture_output=True, text=True, check=False)

    return runner


def environment(root: Path) -> dict[str, str]:
    """Of a machine that is only a folder; the real one knows the last of these."""
    return {**os.environ, "LAB_ROOT": str(root), "CONFIG_FILE": str(root / "etc/gitlab-runner/config.toml")}


def configure(root: Path, *urls: str, more: str = "") -> Path:
    sections = [
        f'[[runners]]\nname = "docker-{number}"\nurl = "{url}"\ntoken = "{TOKEN}"\nexecutor = "docker"\n{more}'
        for number, url in enumerate(urls)
    ]
    file = root / "etc/gitlab-runner/config.toml"
    file.write_text("concurrent = 1\ncheck_interval = 1\n" + "\n".join(sections))
    return file


def register(gitlab, run, *arguments):
    return run("register", "--non-interactive", "--url", gitlab.url, "--token", TOKEN, *arguments)


def test_the_version_has_the_real_lines(run):
    lines = run("--version").stdout.splitlines()
    assert lines[0] == "Version:      17.10.1"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "Git revision",
        "Git branch",
        "GO version",
        "Built",
        "OS/Arch",
    ]


def test_verify_sends_token_and_system_id(gitlab, run, root):
    configure(root, gitlab.url)
    done = run("verify")
    assert done.returncode == 0
    assert "Verifying runner... is valid" in done.stderr
    assert TOKEN not in done.stderr
    system_id = (root / "etc/gitlab-runner/.runner_system_id").read_text()
    assert gitlab.asked == [("POST", "/api/v4/runners/verify", {"token": TOKEN, "system_id": system_id})]
    assert system_id.startswith("s_")


def test_verify_fails_when_one_of_the_runners_is_not_valid(gitlab, run, root):
    configure(root, gitlab.url)
    gitlab.status["verify"] = 403
    done = run("verify")
    assert done.returncode == 1
    assert "Failed to verify runners" in done.stderr


def test_verify_is_content_without_runners_and_without_an_answer(run, root):
    assert run("verify").returncode == 0
    configure(root, "http://127.0.0.1:1")
    done = run("verify")
    assert done.returncode == 0
    assert "Verifying runner... failed" in done.stderr
    assert "dial tcp 127.0.0.1:1: connect: connection refused" in done.stderr


def test_the_log_is_coloured_even_where_nobody_sees_it(gitlab, run, root):
    configure(root, gitlab.url)
    gitlab.status["verify"] = 403
    lines = run("verify").stderr.splitlines()
    assert f"{'Verifying runner... is not valid':50}\033[0;m  runner\033[0;m=t1_012345" in lines
    assert f"\033[31;1mFATAL: {'Failed to verify runners':43}\033[0;m " in lines


def test_the_service_goes_on_asking_a_gitlab_that_does_not_answer(root, program):
    """Only a refused token makes a runner stop asking."""
    configure(root, "http://127.0.0.1:1", more="unhealthy_requests_limit = 1\n")
    with subprocess.Popen([*program, "run"], env=environment(root), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        log: list[str] = []
        while sum("Checking for jobs... failed" in line for line in log) < 2:
            log.append(next(process.stderr))
        process.terminate()
        log += process.stderr
    assert "unhealthy" not in "".join(log)


def test_list_goes_to_standard_error(gitlab, run, root):
    configure(root, gitlab.url)
    done = run("list")
    assert done.stdout == ""
    assert "docker-0" in done.stderr


def test_register_appends_what_the_runner_reads(gitlab, run, root):
    for _ in range(2):
        assert register(gitlab, run, "--executor", "docker", "--docker-image", "alpine:3.23").returncode == 0
    file = root / "etc/gitlab-runner/config.toml"
    assert file.read_text().count("[[runners]]") == 2
    assert file.stat().st_mode & 0o777 == 0o600
    assert "id = 7" in file.read_text()
    assert run("verify").returncode == 0


@pytest.mark.parametrize(
    "option", ["--paused", "--run-untagged", "--locked=false", "--tag-list=a", "--maximum-timeout=600"]
)
def test_register_leaves_to_the_server_what_the_server_decides(gitlab, run, root, option):
    done = register(gitlab, run, "--executor", "docker", "--docker-image", "alpine:3.23", option)
    assert done.returncode == 1
    assert "is reserved" in done.stderr
    assert gitlab.asked == []
    assert not (root / "etc/gitlab-runner/config.toml").exists()


def test_register_needs_an_image_and_takes_the_manager_back_without(gitlab, run):
    done = register(gitlab, run, "--executor", "docker")
    assert done.returncode == 1
    assert "The docker-image needs to be entered" in done.stderr
    assert [path for _, path, _ in gitlab.asked] == ["/api/v4/runners/verify", "/api/v4/runners/managers"]


def test_registration_tokens_are_a_thing_of_the_past(gitlab, run):
    done = run("register", "-n", "--url", gitlab.url, "--registration-token", "GR1348941old", "--executor", "shell")
    assert done.returncode == 1
    assert "410" in done.stderr


def test_unregister_takes_the_runner_out_of_the_file(gitlab, run, root):
    file = configure(root, gitlab.url)
    assert run("unregister", "--name", "docker-0").returncode == 0
    assert "[[runners]]" not in file.read_text()


def test_a_file_that_is_no_toml_stops_everything(run, root):
    (root / "etc/gitlab-runner/config.toml").write_text("concurrent = \n")
    done = run("verify")
    assert done.returncode == 1
    assert "decoding configuration file" in done.stderr


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("FF_NETWORK_PER_BUILD = true\n", "without runners.FF_NETWORK_PER_BUILD"),
        ("[runners.docker]\ndisable_caches = true\n", "without runners.docker.disable_caches"),
        ("[runners.feature_flags]\nFF_NETWORK_PER_JOB = true\n", "without runners.feature_flags.FF_NETWORK_PER_JOB"),
    ],
)
def test_a_key_that_would_change_nothing_is_refused(gitlab, root, played_runner, more, words):
    """The real one ignores what it does not know."""
    configure(root, gitlab.url, more=more)
    command = [*played_runner, "verify"]
    done = subprocess.run(command, env=environment(root), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    "limit", ["memory = 512", "cpus = 2", 'privileged = "yes"', 'allowed_pull_policies = "always"']
)
def test_a_value_of_another_type_stops_everything(gitlab, run, root, limit):
    configure(root, gitlab.url, more=f"[runners.docker]\n{limit}\n")
    done = run("verify")
    assert done.returncode == 1
    assert "decoding configuration file: toml: " in done.stderr
    assert f'(last key "runners.docker.{limit.split()[0]}"): incompatible types: TOML value has type ' in done.stderr


@pytest.mark.parametrize("changes", [{}, {"runnerSharedCache": "true"}, PRIVILEGED])
def test_the_programs_own_configuration_is_understood(gitlab, run, root, changes):
    limits = JobLimits(memory=1792, cpus=1)
    text = render_runner_config(load(**changes), name="docker-0", limits=limits, external_url=gitlab.url, token=TOKEN)
    (root / "etc/gitlab-runner/config.toml").write_text(text)
    done = run("verify")
    assert done.returncode == 0, done.stderr
    assert "Verifying runner... is valid" in done.stderr
    assert "problem with your config" not in done.stderr


def read_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """What the service says, up to the line with these words."""
    assert process.stderr
    seen = [next(process.stderr)]
    while words not in seen[-1]:
        seen.append(next(process.stderr))
    return seen


def test_the_service_gives_up_on_a_refused_token_until_the_file_is_read_again(gitlab, root, program):
    configure(root, gitlab.url, more="unhealthy_requests_limit = 1\n")
    gitlab.status["request"] = 403
    command = [*program, "run"]
    with subprocess.Popen(command, env=environment(root), stderr=subprocess.PIPE, text=True) as process:
        seen = read_until(process, "unhealthy and will be disabled")
        assert any("Checking for jobs... forbidden" in line for line in seen)
        gitlab.status["request"] = 204
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 5
        while len(gitlab.asked) < 2:
            assert time.monotonic() < deadline, "".join(seen)
            time.sleep(0.05)
        process.terminate()
        assert process.stderr
        rest = process.stderr.read()
    assert process.returncode == 0
    assert "Can exit now!" in rest
    assert gitlab.asked[-1][2]["info"]["version"] == "17.10.1"


def test_the_service_asks_again_when_the_interval_of_its_file_is_over(gitlab, root, program):
    configure(root, gitlab.url, more='unhealthy_requests_limit = 1\nunhealthy_interval = "1s"\n')
    gitlab.status["request"] = 403
    with subprocess.Popen([*program, "run"], env=environment(root), stderr=subprocess.PIPE, text=True) as process:
        seen = read_until(process, "is not healthy, but check for a new job will be forced")
        assert any("is unhealthy and will be disabled for 1s seconds!" in line for line in seen)
        process.terminate()


def test_the_package_says_what_it_needs():
    if shutil.which("rpmspec") is None:
        pytest.skip("rpmspec is not there")
    spec = SOURCE / "gitlab_runner.spec"
    command = ["rpmspec", "--query", "--requires", "--define", "runner_version 17.10.2", str(spec)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "gitlab-runner-helper-images = 17.10.2-1" in done.stdout.splitlines()
