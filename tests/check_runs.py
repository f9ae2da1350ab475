"""Runs acceptance_checks in this process, with stubs for the machines, for the tests of its parts."""

import contextlib
import http.server
import io
import json
import re
import signal
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configuration import checks, report
from configuration.checks import Endpoints
from configuration.flows import Place
from configuration.remote_step import payload_line
from programs.acceptance_checks.__main__ import main

ENDPOINTS = Endpoints(
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


Answer = tuple[int, str]


class PlayedGitLab(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A stub of GitLab Workhorse that responds on a socket according to `routes`; the last match wins."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.routes: list[tuple[str, str, Callable[[Any], Answer]]] = []
        self.asked: list[tuple[str, str, Any]] = []
        super().__init__(str(path), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def on(self, method: str, path: str, answer: Any = None, status: int = 200) -> None:
        """`answer` is a string, an object for JSON, or a function of the request body that returns either."""

        def made(body: Any) -> Answer:
            given = answer(body) if callable(answer) else answer
            return status, given if isinstance(given, str) else json.dumps(given)

        self.routes.append((method, path, made))

    def received(self, method: str, path: str) -> list[Any]:
        """Bodies of the received requests."""
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

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, a name of http.server
        pass


class Output:
    """Standard output, standard error and exit status of a run of the program."""

    def __init__(self, status: int, out: str, said: str) -> None:
        self.status = status
        self.lines = [json.loads(line) for line in out.splitlines()]
        self.stderr = said

    def __getitem__(self, check: str) -> dict[str, Any]:
        return [line for line in self.lines if line.get("check") == check][-1]

    @property
    def well(self) -> list[str]:
        return [line["check"] for line in self.lines if line.get("state") == "ok"]


def run_here(program: Callable[[], int], text: str) -> tuple[int, str, str]:
    """Run a program's main function in this process, with `text` on standard input. Returns its exit status, standard
    output and standard error; this process keeps its signal handlers.
    """
    out, errors = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    stdin, sys.stdin = sys.stdin, io.StringIO(text)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            status = program()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdin = stdin
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return status, out.getvalue(), errors.getvalue()


def run_group(group: str, *lines: str) -> Output:
    return Output(*run_here(lambda: main(group), "".join(map(payload_line, lines))))


def check_from(place: Place, patience: int = 0, stack: Endpoints = ENDPOINTS) -> Output:
    return run_group(place, report.task(stack, checks.checks_from(place), patience=patience))
