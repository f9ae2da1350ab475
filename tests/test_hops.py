"""The hops: one list, checks that are held to machines that are played here, and jobs that talk to a real registry."""

import ast
import base64
import contextlib
import fcntl
import fnmatch
import http.server
import io
import itertools
import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configuration import acceptance_project, hops
from configuration.flows import Place
from configuration.remote_step import PROGRAMS, payload_line, script
from programs import hops as program
from tests.shell import SHELLCHECK

STACK = hops.Stack(
    external_url="http://127.0.0.1:1",
    host="127.0.0.1",
    balancer_address="127.0.0.1",
    registry_private_address="127.0.0.1",
    web_port=1,
    registry_port=1,
    git_ssh_host_key="ssh-ed25519 AAAA",
    runner_name="the-runner",
    project="gitlab-stack/acceptance",
)
TOKEN = "glpat-aSecretOfTheAcceptance"
Answer = tuple[int, str]


def test_every_hop_has_its_limit_its_message_and_its_remedy():
    assert len(set(hops.BY_ID)) == len(hops.HOPS)
    for hop in hops.HOPS:
        assert hop.limit >= 0
        assert hop.broken.endswith(".")
        assert hop.remedy


def test_the_list_begins_with_the_name_and_ends_on_the_disk():
    order = [hop.id for hop in hops.HOPS]
    assert order[0] == "name"
    assert order[-1] == "volume"
    named = ["name", "balancer", "target", "nginx", "readiness", "sign-in", "issuer", "registry", "accepted", "process"]
    named += ["online", "taken", "clone", "job-token", "push", "pull", "volume"]
    assert [hop for hop in order if hop in named] == named


def test_every_hop_is_looked_at_from_somewhere_once():
    seen = [hop.id for place in (Place.SERVER, Place.RUNNER, Place.REGISTRY) for hop in hops.seen_from(place)]
    seen += [hop.id for hop in hops.seen_by_pipeline() if hop.id != "online"]
    assert sorted([*seen, "volume"]) == sorted(hops.BY_ID)


def test_the_checks_are_those_of_the_list_in_its_order():
    text = (PROGRAMS / "hops.py").read_text()
    called = re.findall(r'walk\.hop\("([\w-]+)"', text)
    for view in (Place.SERVER, Place.RUNNER):
        wanted = [hop.id for hop in hops.seen_from(view)]
        assert [name for name in dict.fromkeys(called) if name in wanted] == wanted


def test_a_task_gives_each_hop_its_own_patience_or_less():
    hurried = json.loads(hops.task(STACK, hops.HOPS, patience=13))
    assert {hop["id"]: hop["limit"] for hop in hurried["hops"]} == {hop.id: min(hop.limit, 13) for hop in hops.HOPS}


def test_the_result_of_an_up_is_every_hop_with_its_seconds_in_the_order_of_the_list():
    reports = [
        '{"hop": "volume", "state": "ok", "seconds": 0.3, "detail": ""}',
        '{"hop": "target", "state": "left", "seconds": 0, "detail": ""}\n'
        '{"hop": "nginx", "state": "ok", "seconds": 0.1, "detail": ""}\n'
        '{"hop": "target", "state": "ok", "seconds": 9.5, "detail": ""}\n'
        '{"walked_at": "now"}',
    ]
    assert hops.walked(reports) == [
        {"hop": "target healthy", "seconds": 9.5},
        {"hop": "nginx", "seconds": 0.1},
        {"hop": "image on the volume", "seconds": 0.3},
    ]


def test_the_program_is_written_in_python_3_6_and_needs_only_the_standard_library():
    tree = ast.parse((PROGRAMS / "hops.py").read_text(), feature_version=(3, 6))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names - {"dataclasses", "graphlib", "tomllib"}
    assert not re.search(r"capture_output|text=True|:=|removeprefix", (PROGRAMS / "hops.py").read_text())


# A machine that is played ---------------------------------------------------------------------------------------------


class PlayedGitLab(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers on a socket, as GitLab's workhorse, with what `routes` say; the last matching one decides."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.routes: list[tuple[str, str, Callable[[Any], Answer]]] = []
        self.asked: list[tuple[str, str, Any]] = []
        super().__init__(str(path), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def on(self, method: str, path: str, answer: Any = None, status: int = 200) -> None:
        """`answer` is text, something for JSON, or a function of the request's body that makes either."""

        def made(body: Any) -> Answer:
            given = answer(body) if callable(answer) else answer
            return status, given if isinstance(given, str) else json.dumps(given)

        self.routes.append((method, path, made))

    def told(self, method: str, path: str) -> list[Any]:
        """Bodies of the requests that were made."""
        return [body for asked, at, body in self.asked if asked == method and re.fullmatch(path, at)]


class Handler(http.server.BaseHTTPRequestHandler):
    server: PlayedGitLab

    def answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(content) if content else None
        path = self.path.removeprefix("/api/v4/projects/gitlab-stack%2Facceptance")
        self.server.asked.append((self.command, path, body))
        for method, pattern, made in reversed(self.server.routes):
            if method == self.command and re.fullmatch(pattern, path):
                status, text = made(body)
                break
        else:
            status, text = 404, '{"message": "404 Not Found"}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if text[:1] in "[{" else "text/plain")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        if text:
            self.wfile.write(text.encode())

    do_GET = do_POST = do_DELETE = answer

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def gitlab(tmp_path, monkeypatch) -> Iterator[PlayedGitLab]:
    server = PlayedGitLab(tmp_path / "socket")
    monkeypatch.setattr(program, "WORKHORSE", str(tmp_path / "socket"))
    monkeypatch.setattr(program, "AGAIN_AFTER", 0.01)
    yield server
    server.shutdown()
    server.server_close()


class Walked:
    """What a walk has printed, said and answered."""

    def __init__(self, status: int, out: str, said: str) -> None:
        self.status = status
        self.lines = [json.loads(line) for line in out.splitlines()]
        self.said = said

    def __getitem__(self, hop: str) -> dict[str, Any]:
        return [line for line in self.lines if line.get("hop") == hop][-1]

    @property
    def well(self) -> list[str]:
        return [line["hop"] for line in self.lines if line.get("state") == "ok"]


def walk(view: str, *lines: str) -> Walked:
    out, said = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (15, 1, 2)}
    stdin, sys.stdin = sys.stdin, io.StringIO("".join(map(payload_line, lines)))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            status = program.main(view)
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdin = stdin
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Walked(status, out.getvalue(), said.getvalue())


def look(place: Place, patience: int = 0, stack: hops.Stack = STACK) -> Walked:
    return walk(place, hops.task(stack, hops.seen_from(place), patience=patience))


# From the server ------------------------------------------------------------------------------------------------------


def health_check(status: int, age: float = 0, agent: str = "ELB-HealthChecker/2.0") -> str:
    at = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(time.time() - age))
    return f'10.42.0.9 - - [{at}] "GET /-/readiness HTTP/1.1" {status} 15 "" "{agent}" -\n'


@pytest.fixture
def server(gitlab, tmp_path, monkeypatch) -> PlayedGitLab:
    """A server that is well: its nginx answers, GitLab is ready, the balancer has just looked."""
    monkeypatch.setattr(program, "through_nginx", lambda: "HTTP/1.1 200 OK\r\n")
    monkeypatch.setattr(program, "ACCESS_LOG", str(tmp_path / "access.log"))
    (tmp_path / "access.log").write_text(health_check(200) + health_check(404, agent="curl"))
    gitlab.on("GET", r"/-/readiness\?all=1", {"status": "ok"})
    return gitlab


def test_a_server_that_is_well_is_seen_so(server):
    seen = look(Place.SERVER)
    assert (seen.status, seen.well) == (0, ["target", "nginx", "readiness"])


@pytest.mark.parametrize(
    ("log", "what"),
    [
        (lambda: "", "No health check of the balancer"),
        (lambda: health_check(200, agent="curl/8"), "No health check of the balancer"),
        (lambda: health_check(200, age=40), "arrived 4[01] s ago"),
        (lambda: health_check(200) + health_check(404), "answered with 404"),
    ],
    ids=["no check ever", "somebody else's", "an old one", "one that is refused"],
)
def test_a_target_that_is_not_checked_or_refuses_the_check_is_broken(server, tmp_path, log, what):
    (tmp_path / "access.log").write_text(log())
    seen = look(Place.SERVER)
    assert seen.status == 1
    assert seen["target"]["state"] == "broken"
    assert re.search(what, seen["target"]["detail"])
    assert "target healthy is broken" in seen.said
    assert f"What to do: {hops.BY_ID['target'].remedy}" in seen.said


def test_an_nginx_that_is_silent_is_named_and_not_the_target_that_needs_it(server, monkeypatch):
    def refused(address, timeout):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.undo()
    monkeypatch.setattr(socket, "create_connection", refused)
    seen = look(Place.SERVER)
    assert seen["target"]["state"] == "left"
    assert seen["nginx"]["state"] == "broken"
    assert "Connection refused" in seen["nginx"]["detail"]


def test_a_gitlab_that_is_not_ready_is_named_with_what_ails_it_and_not_the_target(server, tmp_path):
    (tmp_path / "access.log").write_text(health_check(503))
    checks = {
        "status": "failed",
        "db_check": [{"status": "ok"}],
        "redis_check": [{"status": "failed", "message": "refused"}],
    }
    server.on("GET", r"/-/readiness\?all=1", checks, status=503)
    seen = look(Place.SERVER)
    assert [line["hop"] for line in seen.lines if line["state"] == "broken"] == ["readiness"]
    assert seen["readiness"]["detail"] == "GitLab's readiness is 503 (redis: refused)."


def test_a_target_whose_check_fails_although_gitlab_is_ready_is_never_taken_for_well(server, tmp_path):
    (tmp_path / "access.log").write_text(health_check(503))
    seen = look(Place.SERVER)
    assert seen.status == 1
    assert seen["target"]["state"] == "broken"
    assert "Although GitLab is ready" in seen["target"]["detail"]


def test_a_hop_is_waited_for_as_long_as_it_may_take_and_told_about(server, tmp_path, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(program, "tell", told.append)
    monkeypatch.setattr(program, "FIRST_WORD", 0.1)
    (tmp_path / "access.log").write_text("")
    threading.Timer(0.4, lambda: (tmp_path / "access.log").write_text(health_check(200))).start()
    seen = look(Place.SERVER, patience=20)
    assert seen.well == ["target", "nginx", "readiness"]
    assert seen["target"]["seconds"] >= 0.3
    assert len(told) == 1
    assert re.fullmatch(r"waiting for target healthy, 0 s of 20: No health check .*", told[0])


def test_a_word_of_progress_is_one_short_line(tmp_path):
    read, write = os.pipe()
    text = f"import os, sys; os.dup2({write}, 4); from programs import hops; hops.tell('a\\nb ' + 'x' * 100000)"
    subprocess.run([sys.executable, "-c", text], check=True, pass_fds=[write], cwd=PROGRAMS.parent)
    os.close(write)
    with os.fdopen(read) as pipe:
        line = pipe.read()
    assert line.startswith("a b xxx")
    assert line.count("\n") == 1
    assert len(line) <= 400


# From the runner's machine --------------------------------------------------------------------------------------------


class PlayedBalancer(http.server.ThreadingHTTPServer):
    """The web and the registry on one port; `pages` are status and challenge by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PageHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.pages: dict[str, tuple[int, str]] = {
            "/users/sign_in": (200, ""),
            "/-/readiness": (404, ""),
            "/jwt/auth": (401, ""),
            "/v2/": (401, f'Bearer realm="{self.url}/jwt/auth",service="container_registry"'),
        }
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class PageHandler(http.server.BaseHTTPRequestHandler):
    server: PlayedBalancer

    def do_GET(self) -> None:
        status, challenge = self.server.pages[self.path.split("?")[0]]
        self.send_response(status)
        self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def balancer(monkeypatch) -> Iterator[PlayedBalancer]:
    monkeypatch.setattr(program, "AGAIN_AFTER", 0.01)
    server = PlayedBalancer()
    yield server
    server.shutdown()
    server.server_close()


SAYS = {
    "getent": (0, "127.0.0.1       STREAM git.example.com"),
    "ssh-keyscan": (0, "# h:22 SSH-2.0-GitLab-SSHD\nh ssh-ed25519 AAAA"),
    "systemctl": (0, "active"),
    "docker version": (0, "28.5.2"),
    "docker login": (1, "Error response from daemon: Get ...: unauthorized: HTTP Basic: Access denied."),
    "gitlab-runner": (0, "\x1b[0;mVerifying runner... is valid   runner=t1_x"),
}


@pytest.fixture
def look_from_runner(balancer, monkeypatch) -> Callable[..., Walked]:
    """A walk with tools of the machine that say `SAYS`, but for what a test changes."""

    def look_with(patience: int = 0, **says: Any) -> Walked:
        answers = SAYS | {name.replace("__", " ").replace("_", "-"): said for name, said in says.items()}

        def run(*command: str, input: str = "", **environment: str) -> tuple[int, str]:
            return answers.get(command[0]) or answers[" ".join(command[:2])]

        monkeypatch.setattr(program, "run", run)
        port = balancer.server_address[1]
        stack = replace(STACK, external_url=balancer.url, host="git.example.com", web_port=port, registry_port=port)
        original = program.fetch
        monkeypatch.setattr(
            program, "fetch", lambda url, headers=None: original(url.replace("git.example.com", "127.0.0.1"), headers)
        )
        return look(Place.RUNNER, patience=patience, stack=stack)

    return look_with


def test_a_stack_that_is_well_is_seen_so_from_the_runners_machine(look_from_runner):
    assert look_from_runner().well == [hop.id for hop in hops.seen_from(Place.RUNNER)]


@pytest.mark.parametrize(
    ("hop", "says", "pages", "what"),
    [
        ("name", {"getent": (2, "")}, {}, "does not resolve; the balancer has 127.0.0.1"),
        ("name", {"getent": (0, "192.0.2.1 STREAM x")}, {}, "leads to 192.0.2.1; the balancer has 127.0.0.1"),
        ("sign-in", {}, {"/users/sign_in": (502, "")}, "answers 502 instead of 200"),
        ("hidden", {}, {"/-/readiness": (200, "")}, "answers 200 instead of 404"),
        (
            "git-ssh",
            {"ssh_keyscan": (0, "# h SSH-2.0-OpenSSH_8.0\nh ssh-ed25519 BBBB")},
            {},
            "shows: # h SSH-2.0-OpenSSH_8.0 / h ssh-ed25519 BBBB",
        ),
        ("git-ssh", {"ssh_keyscan": (0, "# h SSH-2.0-GitLab-SSHD\nh ssh-ed25519 BBBB")}, {}, "shows:"),
        ("issuer", {}, {"/jwt/auth": (404, "")}, "answers 404 to a wrong credential"),
        ("issuer", {}, {"/jwt/auth": (200, "")}, "answers 200 to a wrong credential"),
        ("registry", {}, {"/v2/": (503, "")}, "answers 503 instead of 401"),
        ("registry", {}, {"/v2/": (401, 'Bearer realm="http://other/jwt/auth"')}, "sends for tokens to: .*other"),
        ("process", {"systemctl": (3, "inactive")}, {}, "The service docker is inactive"),
        ("process", {"docker__version": (1, "Cannot connect to the Docker daemon")}, {}, "Docker does not answer"),
        ("docker", {"docker__login": (0, "Login Succeeded")}, {}, "Login Succeeded"),
        ("docker", {"docker__login": (1, "server gave HTTP response to HTTPS client")}, {}, "HTTP response to HTTPS"),
        ("online", {"gitlab_runner": (1, "Verifying runner... is removed   runner=t1_x")}, {}, "is removed"),
        ("online", {"gitlab_runner": (0, "ERROR: Verifying runner... failed")}, {}, "failed"),
    ],
)
def test_what_is_broken_between_the_runner_and_the_stack_is_named(look_from_runner, balancer, hop, says, pages, what):
    balancer.pages.update(pages)
    seen = look_from_runner(**says)
    assert seen.status == 1
    assert [line["hop"] for line in seen.lines if line["state"] == "broken"] == [hop]
    assert seen.well == [known.id for known in hops.seen_from(Place.RUNNER)][: len(seen.well)]
    assert re.search(what, seen[hop]["detail"])


def test_a_readiness_that_is_not_seen_once_is_looked_at_again_and_one_that_is_shown_is_final(
    look_from_runner, balancer, monkeypatch
):
    assert hops.BY_ID["hidden"].limit == 30
    answers = iter([(502, ""), (504, ""), (404, "")])
    fetch = program.fetch

    def losing(url: str, headers: Any = None) -> Any:
        if url.endswith("/-/readiness"):
            balancer.pages["/-/readiness"] = next(answers)
            if balancer.pages["/-/readiness"][0] == 504:
                raise program.Broken("no answer within 10 s.")
        return fetch(url, headers)

    monkeypatch.setattr(program, "fetch", losing)
    assert "hidden" in look_from_runner(patience=20).well
    answers = iter([(200, ""), (404, "")])
    seen = look_from_runner(patience=20)
    assert (seen.status, seen["hidden"]["state"]) == (1, "broken")


def test_an_error_that_nobody_foresaw_is_told_in_one_line_and_never_as_a_broken_hop(server, monkeypatch):
    def stumble() -> None:
        raise KeyError("a key\nin two lines")

    monkeypatch.setattr(program, "nginx_answers", stumble)
    seen = look(Place.SERVER)
    assert seen.status == 2
    assert seen.said == "Could not look: KeyError: 'a key\\nin two lines'\n"
    assert seen.lines == [{"unseen": "KeyError: 'a key\\nin two lines'"}]


@pytest.mark.parametrize("told", ["", "bm8gSlNPTg==\n"], ids=["nothing", "no task"])
def test_a_program_that_was_told_nothing_of_use_has_not_seen_a_broken_hop(told):
    command = [sys.executable, str(PROGRAMS / "hops.py"), "server"]
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"Could not look: .+\n", done.stderr)


def test_a_balancer_that_answers_on_one_port_answers(look_from_runner, balancer, monkeypatch):
    monkeypatch.setattr(program, "TIMEOUT", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
    says = lambda *command, **_: SAYS.get(command[0]) or SAYS[" ".join(command[:2])]  # noqa: E731
    monkeypatch.setattr(program, "run", says)
    port = balancer.server_address[1]
    one = replace(STACK, external_url=balancer.url, web_port=closed, registry_port=port)
    assert "balancer" in look(Place.RUNNER, stack=one).well
    none = replace(
        STACK, external_url=balancer.url, web_port=closed, registry_port=closed, balancer_address="127.0.0.9"
    )
    seen = look(Place.RUNNER, stack=none)
    assert seen["balancer"]["state"] == "broken"
    assert "Connection refused" in seen["balancer"]["detail"]


# Tokens ---------------------------------------------------------------------------------------------------------------

CLAIMS = {"kid": "AAAA:BBBB", "iss": "omnibus-gitlab-issuer", "aud": "container_registry", "iat": 1000.0}
FACTS = {"issuer": "omnibus-gitlab-issuer", "service": "container_registry", "keys": ["AAAA:BBBB"]}


@pytest.mark.parametrize(
    ("claims", "clock", "why"),
    [
        ({}, 1000.0, None),
        ({}, 1059.0, None),
        ({"kid": "CCCC"}, 1000.0, "Key: GitLab signs with CCCC, the registry trusts AAAA:BBBB."),
        ({"iss": "somebody"}, 1000.0, "Issuer: GitLab is somebody, the registry trusts omnibus-gitlab-issuer."),
        ({"aud": "other"}, 1000.0, "Audience: the token is for other, the registry is container_registry."),
        ({}, 880.0, "Clock: the registry is 120 s behind GitLab."),
        ({}, 1120.0, "Clock: the registry is 120 s before GitLab."),
    ],
)
def test_key_issuer_audience_and_clock_of_a_token_are_told_apart(claims, clock, why):
    assert program.differences(CLAIMS | claims, FACTS, clock) == ([why] if why else [])


def test_the_registrys_machine_tells_whom_it_trusts(tmp_path, monkeypatch):
    from configuration.registry_config import render_registry_config

    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2")
    for name in ("one", "two"):
        subprocess.run(
            [*made, "-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.crt"],
            check=True,
            capture_output=True,
        )
    (tmp_path / "config.yml").write_text(render_registry_config(external_url="http://git.example.com", port=5000))
    bundle = (tmp_path / "one.crt").read_text() + (tmp_path / "two.crt").read_text()
    (tmp_path / "gitlab-registry.crt").write_text(bundle)
    monkeypatch.setattr(program, "REGISTRY_FOLDER", str(tmp_path))
    monkeypatch.setattr(program, "REGISTRY_DATA", str(tmp_path))
    [told] = [line["facts"] for line in look(Place.REGISTRY).lines if "facts" in line]
    assert (told["issuer"], told["service"]) == ("omnibus-gitlab-issuer", "container_registry")
    assert 0 <= told["used_percent"] <= 100
    # The other way to the same id: facts of GitLab's lib/json_web_token/rsa_token.rb, by shell.
    by_hand = (
        "openssl pkey -in {} -pubout -outform DER | openssl dgst -sha256 -binary | head -c30 | base32 -w0 "
        "| sed 's/..../&:/g;s/:$//'"
    )
    keys = [
        subprocess.run(
            ["bash", "-c", by_hand.format(tmp_path / f"{name}.key")], check=True, capture_output=True, text=True
        ).stdout
        for name in ("one", "two")
    ]
    assert told["keys"] == keys


# The pipeline ---------------------------------------------------------------------------------------------------------


def token_of(claims: dict[str, Any]) -> str:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    return f"{part({'kid': claims['kid']})}.{part({k: v for k, v in claims.items() if k != 'kid'})}.c2ln"


PUSHED = "gitlab-stack/acceptance/acceptance:7@sha256:" + "ab" * 32
CLONED = "".join(
    f"section_{mark}\r\x1b[0K\n" for mark in ("start:100:get_sources", "end:102:get_sources", "start:102:step_script")
)
TRACES = {
    "push": f"{CLONED}$ sh push.sh\nhop job-token ok 0.12\n2026-11-24T13:00:00Z 01O hop push ok 0.34 {PUSHED}\n",
    "pull": f"{CLONED}hop pull ok 0.56\n",
}
FILES = acceptance_project.files(acceptance_project.DEFAULT_IMAGE)


class PlayedPipeline:
    """GitLab's side of a pipeline, a registry that takes its tokens, and the machine's own commands."""

    def __init__(self, gitlab: PlayedGitLab, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gitlab = gitlab
        self.runner: dict[str, Any] | None = {"active": True}
        self.jobs = {name: {"status": "success", "queued_duration": 0.78} for name in ("push", "pull")}
        self.traces = dict(TRACES)
        self.commands: list[list[str]] = []
        self.console_answers = True
        monkeypatch.setattr(program, "TOKEN_LOCK", str(folder / "lock"))
        self.use = lambda run: monkeypatch.setattr(subprocess, "run", run)
        self.use(self.run)
        monkeypatch.setattr(program, "fetch", self.registry)
        self.registry_answer = 200
        self.claims = CLAIMS | {"iat": time.time()}
        gitlab.on("GET", r"/jwt/auth\?service=container_registry", lambda _: {"token": token_of(self.claims)})
        for name, content in FILES.items():
            gitlab.on("GET", f"/repository/files/{re.escape(name)}/raw.*", content)
        gitlab.on("POST", "/pipeline", {"id": 7}, status=201)
        gitlab.on(
            "GET",
            "/pipelines/7/jobs.*",
            lambda _: [{"id": place, "name": name} | job for place, (name, job) in enumerate(self.jobs.items())],
        )
        for place, name in enumerate(self.jobs):
            gitlab.on("GET", f"/jobs/{place}/trace", lambda _, name=name: self.traces[name])
        gitlab.on("GET", r"/pipelines\?.*", [{"id": number} for number in (7, 6, 5, 4, 3)])
        gitlab.on("DELETE", r"/pipelines/\d+", "", status=204)
        gitlab.on("GET", r"/registry/repositories\?.*", [{"id": 9}])
        gitlab.on("GET", r"/registry/repositories/9/tags.*", [{"name": name} for name in ("kept", "10", "9", "8", "7")])
        gitlab.on("DELETE", r"/registry/repositories/9/tags/\w+", {}, status=200)
        gitlab.on("POST", "/pipelines/7/cancel", {"id": 7})
        gitlab.on("DELETE", "/api/v4/personal_access_tokens/self", "", status=204)

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        self.commands.append(command)
        if command[0] == "gitlab-rails":
            answer = json.dumps({"token": TOKEN, "runner": self.runner}) if self.console_answers else "it is broken"
            return subprocess.CompletedProcess(command, 0, f"a warning\n{answer}\n".encode(), b"")
        return subprocess.CompletedProcess(command, 0, b"", b"")

    def registry(self, url: str, headers: Any = None) -> tuple[int, Any, bytes]:
        assert headers["Authorization"].startswith("Bearer ")
        return self.registry_answer, {"Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())}, b""

    def walk(self, go: dict[str, Any] | None = None, **more: Any) -> Walked:
        task = hops.task(
            STACK, hops.seen_by_pipeline(), patience=0, console="the console's program", files=FILES, **more
        )
        return walk("pipeline", task, *([json.dumps({"facts": FACTS} | go)] if go is not None else []))

    @property
    def revoked(self) -> bool:
        return bool(self.gitlab.told("DELETE", "/api/v4/personal_access_tokens/self"))


@pytest.fixture
def pipeline(gitlab, tmp_path, monkeypatch) -> PlayedPipeline:
    return PlayedPipeline(gitlab, tmp_path, monkeypatch)


def test_a_pipeline_that_is_well_is_walked_with_the_seconds_of_each_hop(pipeline):
    walked = pipeline.walk({})
    assert walked.status == 0, walked.said
    assert walked.well == ["accepted", "taken", "clone", "job-token", "push", "pull"]
    seconds = {hop: walked[hop]["seconds"] for hop in walked.well[1:]}
    assert seconds == {"taken": 0.78, "clone": 2.0, "job-token": 0.12, "push": 0.34, "pull": 0.56}
    assert walked["push"]["detail"] == PUSHED
    report = "\n".join(map(json.dumps, walked.lines))
    assert hops.pushed_image(report).name == "gitlab-stack/acceptance/acceptance:7"


def test_the_last_three_pipelines_and_images_are_kept_and_what_others_pushed_with_them(pipeline):
    pipeline.walk({})
    deleted = [path for method, path, _ in pipeline.gitlab.asked if method == "DELETE"]
    assert deleted == [
        *("/pipelines/4", "/pipelines/3", "/registry/repositories/9/tags/7"),
        "/api/v4/personal_access_tokens/self",
    ]


def test_files_are_committed_only_where_they_differ(pipeline):
    pipeline.walk({})
    assert not pipeline.gitlab.told("POST", "/repository/commits")
    pipeline.gitlab.on("GET", "/repository/files/push.sh/raw.*", "an older one")
    pipeline.gitlab.on("GET", "/repository/files/pull.sh/raw.*", {"message": "404 File Not Found"}, status=404)
    pipeline.gitlab.on("POST", "/repository/commits", {"id": "abc"}, status=201)
    pipeline.walk({})
    [commit] = pipeline.gitlab.told("POST", "/repository/commits")
    assert [(action["action"], action["file_path"]) for action in commit["actions"]] == [
        ("create", "pull.sh"),
        ("update", "push.sh"),
    ]


@pytest.mark.parametrize(
    "ends",
    ["well", "broken", "told to start nothing", "terminated", "GitLab gone"],
)
def test_the_token_is_revoked_however_it_ends_and_nobody_reads_it(pipeline, monkeypatch, ends):
    if ends == "broken":
        pipeline.traces["push"] = f"{CLONED}hop job-token broken the registry answers 401\n"
        pipeline.jobs["push"]["status"] = "failed"
    if ends == "terminated":
        monkeypatch.setattr(program, "token_accepted", lambda *_: os.kill(os.getpid(), 15))
    if ends == "GitLab gone":
        pipeline.gitlab.on("DELETE", "/api/v4/personal_access_tokens/self", "no", status=502)
    walked = pipeline.walk(None if ends == "told to start nothing" else {})
    assert pipeline.revoked
    timers = [command for command in pipeline.commands if "gitlab-stack-revoke" in " ".join(command)]
    assert timers[1][0] == "systemd-run"
    assert ["revoke", STACK.project] == timers[1][-2:]
    # Where the token could not be revoked, the machine still will.
    assert (len(timers) == 3) == (ends != "GitLab gone")
    assert TOKEN not in json.dumps(walked.lines) + walked.said
    assert not [command for command in pipeline.commands if TOKEN in " ".join(command)]


def test_a_revocation_under_way_or_planned_by_a_walk_that_was_killed_is_ended_and_no_error(pipeline):
    loaded = ["gitlab-stack-revoke-77.timer", "gitlab-stack-revoke-76.service"]
    play = pipeline.run

    def systemd(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        if command[:2] == ["systemctl", "stop"]:
            loaded[:] = [unit for unit in loaded if not fnmatch.fnmatch(unit, command[2])]
        if command[0] == "systemd-run":
            assert not [unit for unit in loaded if unit.startswith("gitlab-stack-revoke")], "two at once"
            assert command[command.index("--unit") + 1] not in ("gitlab-stack-revoke-77", "gitlab-stack-revoke-76")
        return play(command, **options)

    pipeline.use(systemd)
    assert pipeline.walk({}).status == 0


def test_a_machine_that_plans_no_revocation_could_not_be_looked_from_and_gets_no_token(pipeline):
    play = pipeline.run

    def systemd(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        if command[0] == "systemd-run":
            raise subprocess.CalledProcessError(1, command)
        return play(command, **options)

    pipeline.use(systemd)
    walked = pipeline.walk({})
    assert walked.status == 2
    assert walked.said.startswith("Could not look: CalledProcessError: ")
    assert not [command for command in pipeline.commands if command[0] == "gitlab-rails"]


def test_nothing_is_started_before_it_is_told_to(pipeline):
    walked = pipeline.walk(None)
    assert walked.status == 2
    assert walked.lines == [{"unseen": "nothing was to be started"}]
    assert not pipeline.gitlab.told("POST", "/pipeline")


def test_a_token_is_looked_at_without_a_pipeline_when_that_has_no_prospect(pipeline):
    walked = pipeline.walk({"pipeline": False})
    assert walked.well == ["accepted"]
    assert not pipeline.gitlab.told("POST", "/pipeline")


def test_a_console_without_an_answer_is_said_to_be_one(pipeline):
    pipeline.console_answers = False
    walked = pipeline.walk({})
    assert walked.status == 2
    assert "console made no token" in walked.said


@pytest.mark.parametrize(
    ("hop", "change", "what"),
    [
        ("accepted", lambda p: p.claims.update(kid="CCCC"), "Key: GitLab signs with CCCC"),
        ("accepted", lambda p: setattr(p, "registry_answer", 401), "answers 401. Neither key, issuer"),
        ("accepted", lambda p: p.claims.update(iat=time.time() + 120), "Clock: the registry is 1[12]. s behind"),
        ("online", lambda p: setattr(p, "runner", None), "GitLab has no runner of the name the-runner"),
        ("online", lambda p: p.runner.update(active=False), "the runner the-runner paused"),
        ("taken", lambda p: p.gitlab.on("POST", "/pipeline", {"message": "no"}, status=400), "with 400"),
        ("taken", lambda p: p.jobs["push"].update(status="pending"), "The job is pending"),
        (
            "taken",
            lambda p: (
                p.jobs["push"].update(status="failed", failure_reason="runner_system_failure"),
                p.traces.update(push="ERROR: Job failed (system failure): no such image\n"),
            ),
            "runner_system_failure.*no such image",
        ),
        (
            "clone",
            lambda p: (
                p.jobs["push"].update(status="failed"),
                p.traces.update(push="section_start:1:get_sources\r\nfatal: unable to access\n"),
            ),
            "fatal: unable to access",
        ),
        ("job-token", lambda p: p.traces.update(push=f"{CLONED}hop job-token broken answers 403\n"), "answers 403"),
        ("push", lambda p: p.traces.update(push=f"{CLONED}hop job-token ok 0.1\nhop push broken 500\n"), "^500$"),
        ("push", lambda p: p.traces.update(push=f"{CLONED}hop job-token ok 0.1\nsh: curl: not found\n"), "not found"),
        ("pull", lambda p: (p.jobs["pull"].update(status="skipped"), p.traces.update(pull="")), "is skipped"),
    ],
)
def test_what_is_broken_about_a_pipeline_is_named(pipeline, hop, change, what):
    change(pipeline)
    walked = pipeline.walk({})
    assert walked.status == 1
    assert [line["hop"] for line in walked.lines if line.get("state") == "broken"] == [hop]
    assert re.search(what, walked[hop]["detail"])
    started = pipeline.gitlab.told("POST", "/pipeline") and hop not in ("accepted", "online")
    assert len(pipeline.gitlab.told("POST", "/pipelines/7/cancel")) == (1 if started and "400" not in what else 0)


def test_a_push_that_fails_on_a_full_volume_says_so(pipeline):
    pipeline.traces["push"] = f"{CLONED}hop job-token ok 0.1\nhop push broken The manifest is answered with 500.\n"
    walked = pipeline.walk({"facts": FACTS | {"used_percent": 100}})
    assert walked["push"]["detail"].endswith("The registry's data volume is full (100 percent).")


def test_without_time_left_a_hop_is_not_looked_at_and_never_well(pipeline):
    pipeline.jobs["push"]["status"] = "pending"
    task = hops.task(STACK, hops.seen_by_pipeline(), console="", files=FILES, within=0.3)
    walked = walk("pipeline", task, json.dumps({"facts": FACTS}))
    assert walked.status == 2
    assert walked.lines[-1] == {"unseen": "there was no time left to look at: job taken"}
    assert pipeline.revoked


def test_two_do_not_run_the_pipeline_at_once(pipeline, tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        walked = pipeline.walk({})
    assert walked.status == 2
    assert "by somebody else" in walked.said
    assert pipeline.commands == []


def test_the_console_makes_a_token_of_the_project_alone_that_ends_and_removes_the_one_before():
    text = script("acceptance_token.rb")
    assert text.index("ResourceAccessTokens::RevokeService") < text.index("ResourceAccessTokens::CreateService")
    assert "expires_at: Date.tomorrow.iso8601" in text
    assert "seeded-root-password" not in text + (PROGRAMS / "hops.py").read_text()


# The jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(acceptance_project.ACCEPTANCE.glob("*.sh")), ids=lambda path: path.name)
def test_a_job_is_sound_shell_of_the_smallest_kind(path):
    subprocess.run([SHELLCHECK, "-x", "-P", path.parent, path], check=True)
    assert path.read_text().startswith("# shellcheck shell=sh\n")


class GuardedRegistry(http.server.ThreadingHTTPServer):
    """A registry that asks for tokens, before one that does not, and GitLab, which gives them out."""

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), Guard)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.behind = behind
        self.answers: dict[str, int] = {}
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


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
            realm = f"http://{self.server.address}/jwt/auth"
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

    def log_message(self, format: str, *args: Any) -> None:
        pass


Job = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def guarded(registry, filled) -> Iterator[GuardedRegistry]:
    with registry.running():
        server = GuardedRegistry(registry.address)
        yield server
        server.shutdown()
        server.server_close()


@pytest.fixture
def job(guarded, tmp_path) -> Job:
    """Runs a script of the project in a clone of it, as a job does."""
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
                "CI_SERVER_URL": f"http://{guarded.address}",
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
    assert re.search(r"^hop job-token ok \d+\.\d\d$", pushed.stdout, re.MULTILINE)
    assert re.search(rf"^hop push ok \d+\.\d\d group/project/acceptance:1@{digest}$", pushed.stdout, re.MULTILINE)
    assert digest in registry.blobs()
    pulled = job("pull.sh", DIGEST=digest)
    assert pulled.returncode == 0, pulled.stdout + pulled.stderr
    assert re.fullmatch(r"hop pull ok \d+\.\d\d\n", pulled.stdout)
    assert "the-job-token" not in pushed.stdout + pushed.stderr + pulled.stdout + pulled.stderr


def test_every_push_is_another_image(job, tmp_path):
    digests = set()
    for _ in range(2):
        assert job("push.sh").returncode == 0
        digests.add(digest_in(tmp_path))
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("variables", "answers", "said"),
    [
        ({"CI_JOB_TOKEN": "ended"}, {}, "hop job-token broken .*/jwt/auth answers 403 to the job's token"),
        ({"CI_REGISTRY": "127.0.0.1:1"}, {}, "hop job-token broken .*Failed to connect|refused"),
        ({"CI_PROJECT_PATH": "group/other"}, {}, "hop job-token broken The registry answers 401"),
        ({}, {"POST /v2": 503}, "hop push broken An upload is answered with 503"),
        ({}, {"PUT /v2/group/project/acceptance/blobs": 500}, "hop push broken The image's layer is answered with 500"),
        ({}, {"PUT /v2/group/project/acceptance/manifests": 500}, "hop push broken The manifest is answered with 500"),
        (
            {},
            {"POST /v2/group/project-of-others": 202},
            "hop push broken A push to another project is answered with 202",
        ),
    ],
)
def test_what_is_broken_about_a_push_is_named_by_the_job(job, guarded, variables, answers, said):
    guarded.answers = answers
    failed = job("push.sh", **variables)
    assert failed.returncode == 1
    assert re.search(said, failed.stdout), failed.stdout + failed.stderr


def test_what_is_broken_about_a_pull_is_named_by_the_job(job, guarded, tmp_path, registry):
    assert job("push.sh").returncode == 0
    digest = digest_in(tmp_path)
    guarded.answers = {"GET /v2/group/project/acceptance/blobs": 404}
    assert re.search("hop pull broken The blob .* is answered with 404", job("pull.sh", DIGEST=digest).stdout)
    guarded.answers = {f"manifests/{digest}": 200}
    assert "Without a token the image is answered with 200" in job("pull.sh", DIGEST=digest).stdout
    guarded.answers = {}
    assert "The manifest is answered with 404" in job("pull.sh", DIGEST="sha256:" + "0" * 64).stdout


def test_the_pipeline_runs_only_when_the_program_starts_it():
    assert 'if: $CI_PIPELINE_SOURCE == "api"' in FILES[".gitlab-ci.yml"]
    assert "privileged" not in "".join(FILES.values())
    assert "docker.sock" not in "".join(FILES.values())
