"""The comment on a pull request, which is created once and then updated, and the report in it."""

import contextlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import threading
import types
import unittest.mock
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.shell import check_shell

CI = Path(__file__).resolve().parent.parent / ".ci"
MARK = "<!-- what this change changes -->"


class Forge(BaseHTTPRequestHandler):
    """A stub of the GitHub and GitLab APIs for comments."""

    def answer(self, status, content, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

    def odd(self):
        """The response that a test has set for this request, if any."""
        played = self.server.odd.get(self.command)  # type: ignore[attr-defined]
        return played if self.path.partition("?")[0] != "/user" else None

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Authorization"] or self.headers["PRIVATE-TOKEN"]))  # type: ignore[attr-defined]
        path, _, query = self.path.partition("?")
        if played := self.odd():
            return self.answer(*played[:2], **(played[2] if len(played) > 2 else {}))
        if path == "/user":
            return self.answer(200, self.server.user)  # type: ignore[attr-defined]
        page = int(query.rpartition("page=")[2])
        return self.answer(200, self.server.comments if page == 1 else [])  # type: ignore[attr-defined]

    def write(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
        token = self.headers["Authorization"] or self.headers["PRIVATE-TOKEN"]
        if token not in ("Bearer token", "token"):
            return self.answer(401, {"message": "Bad credentials"})
        self.server.written.append((self.command, self.path, body))  # type: ignore[attr-defined]
        if played := self.odd():
            return self.answer(*played[:2], **(played[2] if len(played) > 2 else {}))
        return self.answer(200, {"id": 99})

    do_POST = do_PATCH = do_PUT = write

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    """A forge for all tests, because hundreds of them need one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forge)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def forge(server):
    """The forge without comments, which each test has for itself."""
    server.comments, server.written, server.asked = [], [], []
    server.odd, server.user = {}, {"id": 7}
    return server


@pytest.fixture(params=["github", "gitlab"])
def system(request, forge):
    """Environment, URL path of comments, update request, and author fields of our own and other comments."""
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


def loaded() -> types.ModuleType:
    """Import the program, which is not in a package."""
    specification = importlib.util.spec_from_file_location("comment", CI / "comment.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


PROGRAM = loaded()


def run(arguments, environment) -> subprocess.CompletedProcess[str]:
    """Run `python .ci/comment.py` in this process, because there are hundreds of cases."""
    out, status, said = io.StringIO(), 0, ""
    arguments = ["comment.py", *map(str, arguments)]
    with (
        unittest.mock.patch.dict(os.environ, environment, clear=True),
        unittest.mock.patch.object(sys, "argv", arguments),
        contextlib.redirect_stdout(out),
    ):
        try:
            PROGRAM.main()
        except SystemExit as end:
            status, said = 1, f"{end.code}\n"
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), said)


def comment(tmp_path, environment, text="### preview"):
    file = tmp_path / "preview.md"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return run([file], environment)


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


def length(text: str) -> int:
    """Length in UTF-16 code units, which is never less than a forge counts."""
    return len(text.encode("utf-16-le")) // 2


def longest(environment) -> int:
    return 65_536 if "GH_TOKEN" in environment else 1_000_000


def blocks(body: str) -> list[tuple[str, bool]]:
    """Content of each fenced code block, and whether it is closed, according to CommonMark 0.31 (4.5)."""
    found, opened = [], ""
    content: list[str] = []
    for line in body.split("\n"):
        match = line[:6].lstrip(" ")[:3] in ("```", "~~~") and re.fullmatch(r" {0,3}(`{3,}|~{3,})(.*)", line)
        if opened and match and match[1].startswith(opened) and not match[2].strip():
            found.append(("".join(content), True))
            opened, content = "", []
        elif opened:
            content.append(line + "\n")
        elif match:
            opened = match[1]
    return [*found, ("".join(content), False)] if opened else found


SAID_TO_BE_CUT = "Truncated: the full output is in the job log.\n"


LINES = {
    "one line": "x",
    "lines": "x" * 999 + "\n",
    "two bytes": "ä\n",
    "four bytes": "\N{ROCKET}",
    "backquotes": "a `````` b\n",
    "no line end": "\u2028````\n",
    "tildes": "~~~\n",
    "tabs": "\t",
    "markup": "&amp;<b>\n",
}


# Between the forges only the limit differs.
@pytest.mark.parametrize(
    ("system", "line"),
    [*(("github", line) for line in LINES.values()), ("gitlab", LINES["lines"])],
    ids=[*LINES, "longer on GitLab"],
    indirect=["system"],
)
def test_a_text_that_is_too_long_is_cut_inside_its_block_which_ends_there(tmp_path, forge, system, line):
    said = line * (longest(system[0]) * 11 // 10 // len(line))
    assert comment(tmp_path, system[0], f"### t\n\n```````diff\n{said}\n```````\n").returncode == 0
    [(_, _, body)] = forge.written
    assert longest(system[0]) - 2_000 < length(body) <= longest(system[0])
    assert body.endswith(SAID_TO_BE_CUT)
    [(content, closed)] = blocks(body)
    assert closed
    assert said.startswith(content.rstrip("\n"))


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_a_text_is_cut_when_it_is_longer_than_the_forge_takes_and_not_before(tmp_path, forge, system, over):
    assert comment(tmp_path, system[0], "x" * (longest(system[0]) - len(f"{MARK}\n") + over)).returncode == 0
    [(_, _, body)] = forge.written
    assert longest(system[0]) - 1 <= length(body) <= longest(system[0])
    assert body.endswith(SAID_TO_BE_CUT) is (over > 0)


def test_a_fence_that_does_not_fit_opens_no_block(tmp_path, forge, system):
    fence = "`" * (longest(system[0]) - 500)
    assert comment(tmp_path, system[0], f"### t\n\n{fence}diff\nsaid\n{fence}\n").returncode == 0
    [(_, _, body)] = forge.written
    assert length(body) <= longest(system[0])
    assert not blocks(body)
    assert body.endswith(SAID_TO_BE_CUT)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
        (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}" * 2),
        (b"a\xed\xa0\x80b", "a" + "\N{REPLACEMENT CHARACTER}" * 3 + "b"),
        (b"a\0b", "ab"),
        (b"\x1b[1mbold\x1b[0m", "[1mbold[0m"),
        (b"a\r\nb\rc", "a\nb\nc"),
        (b"", ""),
        ("ä\N{ROCKET}".encode(), "ä\N{ROCKET}"),
    ],
    ids=["Latin-1", "UTF-16's mark", "a surrogate", "NUL", "colours", "carriage returns", "nothing", "UTF-8"],
)
def test_any_bytes_of_a_report_are_taken(tmp_path, forge, system, given, shown):
    done = comment(tmp_path, system[0], given)
    assert done.returncode == 0, done.stderr
    assert [body for _, _, body in forge.written] == [f"{MARK}\n{shown}"]


@pytest.mark.parametrize(
    "odd",
    [
        {"user": None, "author": None},
        {},
        {"user": "octocat", "author": "octocat"},
        {"user": {}, "author": {}},
        {"user": {"login": None}, "author": {"id": None}},
        {"user": [], "author": [7]},
        {"body": None},
        {"body": 5},
        {"id": None},
        {"id": "5/../6"},
        None,
        "a text",
        7,
        [],
    ],
    ids=repr,
)
def test_a_comment_of_nobody_or_of_an_unknown_kind_is_passed_over(tmp_path, forge, system, odd):
    _, _, edited, authors = system
    whole = {"id": 4, "body": f"{MARK}\nold"}
    if isinstance(odd, dict):
        author = {} if odd.keys() & {"user", "author"} or not odd else authors["own"]
        odd = {**whole, **author, **odd}
    forge.comments = [odd, {"id": 5, "body": f"{MARK}\nold", **authors["own"]}]
    done = comment(tmp_path, system[0])
    assert (done.returncode, done.stderr) == (0, "")
    assert forge.written == [(*edited, f"{MARK}\n### preview")]


ODD_ANSWERS = {
    "HTML": (200, b"<html>We are\ndown for maintenance</html>"),
    "nothing": (200, b""),
    "no content": (204, b""),
    "not UTF-8": (200, b"\xff\xfe{}"),
    "nested too deeply": (200, b"[" * 200_000),
    "half": (200, b'[{"id": 5, "bo'),
    "null": (200, None),
    "a text": (200, "[]"),
    "a number": (200, 5),
    "truth": (200, True),
    "a map": (200, {"message": "moved"}),
    "broken off": (200, b"[", {"Content-Length": "100"}),
    "a gateway's page": (502, b"<html>\nBad gateway\n</html>"),
    "an error in no encoding": (500, b"\xe9\x1b[31m\n\n"),
    "an error broken off": (500, b"x", {"Content-Length": "100"}),
    "another server": (302, b"", {"Location": "http://127.0.0.1:1/elsewhere"}),
    "another scheme": (301, b"", {"Location": "file:///etc/passwd"}),
    "nowhere": (302, b""),
    "itself": (302, b"", {"Location": "?page=1"}),
}


@pytest.mark.parametrize("method", ["GET", "POST", "edit"])
@pytest.mark.parametrize("odd", ODD_ANSWERS)
def test_an_answer_that_is_none_of_the_forges_is_said_in_one_line(tmp_path, forge, system, method, odd):
    environment, _, (edit, _), authors = system
    if method == "edit":
        forge.comments = [{"id": 5, "body": MARK, **authors["own"]}]
    forge.odd[edit if method == "edit" else method] = ODD_ANSWERS[odd]
    done = comment(tmp_path, environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"comment: [^\n]{10,900}\n", done.stderr), done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("method", ["POST", "edit"])
@pytest.mark.parametrize("odd", [[], {"id": None}, {"id": "5"}, {"id": True}, {"note": {"id": 5}}], ids=repr)
def test_a_comment_that_the_forge_does_not_name_is_not_taken_for_made(tmp_path, forge, system, method, odd):
    environment, _, (edit, _), authors = system
    forge.comments = [{"id": 5, "body": MARK, **authors["own"]}] if method == "edit" else []
    forge.odd[edit if method == "edit" else method] = (200, odd)
    done = comment(tmp_path, environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"comment: [^\n]+\n", done.stderr)


def test_a_redirect_is_followed_on_the_same_server_and_the_token_goes_to_no_other(tmp_path, forge, system):
    environment, comments, _, _ = system
    other = ThreadingHTTPServer(("127.0.0.1", 0), Forge)
    other.comments, other.written, other.asked, other.odd = [], [], [], {}  # type: ignore[attr-defined]
    threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        forge.odd["GET"] = (301, b"", {"Location": f"http://127.0.0.1:{other.server_port}{comments}?page=1"})
        assert comment(tmp_path, environment).returncode == 1
        assert other.asked == []  # type: ignore[attr-defined]
    finally:
        other.shutdown()
        other.server_close()


def test_a_forge_that_knows_no_pages_is_not_asked_for_ever(tmp_path, forge, system):
    forge.odd["GET"] = (200, [{"id": 1, "body": "nice"}])
    done = comment(tmp_path, system[0])
    assert done.returncode == 1
    assert done.stderr.endswith("has more than 100 pages of comments\n")


@pytest.mark.parametrize("user", [None, [], {}, {"id": None}, {"message": "401 Unauthorized"}], ids=repr)
def test_a_token_whose_user_is_not_said_writes_nothing(tmp_path, forge, user):
    forge.user = user
    environment = {
        "CI_API_V4_URL": f"http://127.0.0.1:{forge.server_port}",
        "CI_PROJECT_ID": "1",
        "CI_MERGE_REQUEST_IID": "3",
        "COMMENT_TOKEN": "token",
    }
    done = comment(tmp_path, environment)
    assert done.returncode == 1
    assert re.fullmatch(r"comment: [^\n]+/user returned an unexpected response: [^\n]+\n", done.stderr)
    assert forge.written == []


@pytest.mark.parametrize("token", ["s3cret token", "s3cr\u2019et", "s3cret\tx", "s3cret\nX-Header: 1"], ids=ascii)
def test_a_token_that_can_be_none_is_named_and_not_shown(tmp_path, system, token):
    name = "GH_TOKEN" if "GH_TOKEN" in system[0] else "COMMENT_TOKEN"
    done = comment(tmp_path, {**system[0], name: token})
    assert done.stderr == f"comment: {name} contains characters that are not allowed in a token\n"


def test_a_token_with_the_end_of_its_line_is_taken(tmp_path, forge, system):
    name = "GH_TOKEN" if "GH_TOKEN" in system[0] else "COMMENT_TOKEN"
    assert comment(tmp_path, {**system[0], name: "token\n"}).returncode == 0
    assert len(forge.written) == 1


@pytest.mark.parametrize(
    "url", ["", "no address", "ftp://127.0.0.1", "http://127.0.0.1:1", "http://[::1", "http://a b"]
)
def test_an_address_that_leads_nowhere_is_said_in_one_line(tmp_path, system, url):
    name = "GITHUB_API_URL" if "GH_TOKEN" in system[0] else "CI_API_V4_URL"
    done = comment(tmp_path, {**system[0], name: url})
    assert done.returncode == 1
    assert re.fullmatch(r"comment: [^\n]+\n", done.stderr), done.stderr


@pytest.mark.parametrize("arguments", [[], ["a.md", "b.md"], ["no-such-file.md"], ["/"]], ids=repr)
def test_a_file_that_cannot_be_read_is_said_in_one_line(system, arguments):
    command = [sys.executable, CI / "comment.py", *arguments]
    done = subprocess.run(command, env=system[0], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"comment: [^\n]+\n", done.stderr)
    assert run(arguments, system[0]).stderr == done.stderr, "`run` differs from the program"


def test_what_goes_wrong_is_said_in_one_line(tmp_path, system):
    environment = system[0]
    token = "GH_TOKEN" if "GH_TOKEN" in environment else "COMMENT_TOKEN"
    refused = comment(tmp_path, {**environment, token: "wrong"})
    assert refused.returncode == 1
    assert "returned 401" in refused.stderr
    missing = comment(tmp_path, {key: value for key, value in environment.items() if key != token})
    assert missing.stderr == f"comment: the environment variable {token} is not set\n"


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
    assert "**`sh -c` failed with status 3.**" in text
    assert "broken" in text


def test_a_report_names_the_commit_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("COMMIT", "7d077a1e")
    assert report(tmp_path, "true")[1].startswith("### a title at 7d077a1e\n")


def test_a_report_of_a_command_of_one_word_that_failed_says_so(tmp_path):
    done, text = report(tmp_path, "false")
    assert done.returncode == 1
    assert "**`false` failed with status 1.**" in text


@pytest.mark.parametrize(
    ("said", "fence"),
    [
        ("~ updated", 4),
        ("```", 4),
        ("````", 5),
        ("  `````diff", 6),
        ("+ x = ``````` # `", 8),
        ("``````\n```", 7),
        ("`" * 5_000, 5_001),
        ("~~~~~~~~", 4),
        ("", 4),
    ],
)
def test_the_fence_of_a_report_is_longer_than_any_in_it(tmp_path, said, fence):
    _, text = report(tmp_path, "printf", "%s", said)
    assert blocks(text) == [(f"{said}\n", True)]
    assert f"\n{'`' * fence}diff\n" in text


def test_the_bytes_of_a_report_are_kept_and_hide_no_fence(tmp_path):
    file = tmp_path / "report.md"
    command = ["printf", r"caf\351\n\377``````\200\n``````\n"]
    subprocess.run([CI / "report", file, "a title", *command], capture_output=True, check=True)
    assert b"\n```````diff\ncaf\xe9\n\xff``````\x80\n``````\n```````\n" in file.read_bytes()


def test_the_report_is_sound_bash():
    check_shell((CI / "report").read_text())
    check_shell((CI / "run").read_text())
