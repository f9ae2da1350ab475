"""The one comment on a pull request: made once, then edited, and nobody else's is touched. And the report in it."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.shell import check_shell

CI = Path(__file__).resolve().parent.parent / ".ci"
MARK = "<!-- what this change changes -->"


class Forge(BaseHTTPRequestHandler):
    """As much of GitHub and of GitLab as a comment takes."""

    def answer(self, status, content):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/user":
            return self.answer(200, {"id": 7})
        page = int(query.rpartition("page=")[2])
        return self.answer(200, self.server.comments if page == 1 else [])  # type: ignore[attr-defined]

    def write(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
        token = self.headers["Authorization"] or self.headers["PRIVATE-TOKEN"]
        if token not in ("Bearer token", "token"):
            return self.answer(401, {"message": "Bad credentials"})
        self.server.written.append((self.command, self.path, body))  # type: ignore[attr-defined]
        return self.answer(200, {"id": 99})

    do_POST = do_PATCH = do_PUT = write

    def log_message(self, *_):
        pass


@pytest.fixture
def forge():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forge)
    server.comments, server.written = [], []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["github", "gitlab"])
def system(request, forge):
    """Name, environment, where comments are, and how one of the bot's and one of somebody's looks."""
    url = f"http://127.0.0.1:{forge.server_port}"
    authors: dict[str, dict[str, Any]]
    if request.param == "github":
        environment = {
            "GITHUB_API_URL": url,
            "GITHUB_REPOSITORY": "owner/name",
            "PULL_REQUEST": "3",
            "GH_TOKEN": "token",
        }
        authors = {"own": {"user": {"login": "github-actions[bot]"}}, "other": {"user": {"login": "mallory"}}}
        return (
            environment,
            "/repos/owner/name/issues/3/comments",
            ("PATCH", "/repos/owner/name/issues/comments/5"),
            authors,
        )
    environment = {"CI_API_V4_URL": url, "CI_PROJECT_ID": "1", "CI_MERGE_REQUEST_IID": "3", "COMMENT_TOKEN": "token"}
    authors = {"own": {"author": {"id": 7}}, "other": {"author": {"id": 8}}}
    notes = "/projects/1/merge_requests/3/notes"
    return environment, notes, ("PUT", f"{notes}/5"), authors


def comment(tmp_path, environment, text="### preview"):
    file = tmp_path / "preview.md"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, CI / "comment.py", file], env=environment, capture_output=True, text=True, check=False
    )


def test_the_first_comment_is_made(tmp_path, forge, system):
    environment, comments, _, _ = system
    done = comment(tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert forge.written == [("POST", comments, f"{MARK}\n### preview")]


def test_the_next_one_is_put_in_its_place(tmp_path, forge, system):
    environment, _, edited, authors = system
    forge.comments = [{"id": 4, "body": "nice", **authors["own"]}, {"id": 5, "body": f"{MARK}\nold", **authors["own"]}]
    assert comment(tmp_path, environment).returncode == 0
    assert forge.written == [(*edited, f"{MARK}\n### preview")]


def test_a_strangers_comment_with_the_mark_is_left_alone(tmp_path, forge, system):
    environment, comments, _, authors = system
    forge.comments = [{"id": 5, "body": f"{MARK}\nmine", **authors["other"]}]
    assert comment(tmp_path, environment).returncode == 0
    assert [(method, path) for method, path, _ in forge.written] == [("POST", comments)]


def test_a_text_that_is_too_long_is_cut_and_says_so(tmp_path, forge, system):
    assert comment(tmp_path, system[0], "x" * 100_000).returncode == 0
    [(_, _, body)] = forge.written
    assert len(body) < 65_536
    assert body.endswith("This is not all: the rest is in the log of the job.\n")


def test_what_goes_wrong_is_said_in_one_line(tmp_path, system):
    environment = system[0]
    token = "GH_TOKEN" if "GH_TOKEN" in environment else "COMMENT_TOKEN"
    refused = comment(tmp_path, {**environment, token: "wrong"})
    assert refused.returncode == 1
    assert "answers 401" in refused.stderr
    missing = comment(tmp_path, {key: value for key, value in environment.items() if key != token})
    assert missing.stderr == f"comment: {token} is not in the environment\n"


def report(tmp_path, *command):
    file = tmp_path / "report.md"
    done = subprocess.run([CI / "report", file, "a title", *command], capture_output=True, text=True, check=False)
    return done, file.read_text()


def test_a_report_is_what_a_command_said(tmp_path):
    done, text = report(tmp_path, "echo", "~ updated")
    assert done.returncode == 0
    assert done.stdout == "~ updated\n"
    assert text == "### a title\n\n````diff\n~ updated\n````\n"


def test_a_report_of_a_command_that_failed_says_so_and_fails_as_well(tmp_path):
    done, text = report(tmp_path, "sh", "-c", "echo broken >&2; exit 3")
    assert done.returncode == 3
    assert "**`sh -c` has failed with status 3.**" in text
    assert "broken" in text


def test_the_report_is_sound_bash():
    check_shell((CI / "report").read_text())
    check_shell((CI / "run").read_text())
