"""Checks that run on the runner's machine."""

import http.server
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from configuration import checks
from configuration.flows import Place
from programs.acceptance_checks import clients, run
from programs.acceptance_checks.outcomes import FailedCheckError
from tests.check_runs import ENDPOINTS, Output, check_from


class PlayedBalancer(http.server.ThreadingHTTPServer):
    """GitLab and the registry on one port; `pages` maps paths to status and challenge."""

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

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, a name of http.server
        pass


@pytest.fixture
def balancer(monkeypatch) -> Iterator[PlayedBalancer]:
    monkeypatch.setattr(run, "RETRY_INTERVAL", 0.01)
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
def check_from_runner(balancer, monkeypatch) -> Callable[..., Output]:
    """A run with stubs for the machine's commands that print `SAYS`, except where a test overrides it."""

    def check_with(patience: int = 0, pages: Any = MappingProxyType({}), **says: Any) -> Output:
        balancer.pages.update(pages)
        answers = SAYS | {name.replace("__", " ").replace("_", "-"): said for name, said in says.items()}

        def answer(*command: str, stdin: str = "", **environment: str) -> tuple[int, str]:
            return answers.get(command[0]) or answers[" ".join(command[:2])]

        monkeypatch.setattr(clients, "run", answer)
        port = balancer.server_address[1]
        stack = replace(ENDPOINTS, external_url=balancer.url, host="git.example.com", web_port=port, registry_port=port)
        original = clients.fetch
        monkeypatch.setattr(
            clients, "fetch", lambda url, headers=None: original(url.replace("git.example.com", "127.0.0.1"), headers)
        )
        return check_from(Place.RUNNER, patience=patience, stack=stack)

    return check_with


def test_a_stack_that_is_well_is_seen_so_from_the_runners_machine(check_from_runner):
    assert check_from_runner().well == [check.id for check in checks.checks_from(Place.RUNNER)]


@pytest.mark.parametrize(
    ("check", "says", "pages", "what"),
    [
        ("name", {"getent": (2, "")}, {}, "does not resolve; the load balancer's address is 127.0.0.1"),
        ("name", {"getent": (0, "192.0.2.1 STREAM x")}, {}, "resolves to 192.0.2.1; .* address is 127.0.0.1"),
        ("sign-in", {}, {"/users/sign_in": (502, "")}, "returned 502 instead of 200"),
        ("hidden", {}, {"/-/readiness": (200, "")}, "returned 200 instead of 404"),
        (
            "git-ssh",
            {"ssh_keyscan": (0, "# h SSH-2.0-OpenSSH_8.0\nh ssh-ed25519 BBBB")},
            {},
            "printed: # h SSH-2.0-OpenSSH_8.0 / h ssh-ed25519 BBBB",
        ),
        ("git-ssh", {"ssh_keyscan": (0, "# h SSH-2.0-GitLab-SSHD\nh ssh-ed25519 BBBB")}, {}, "printed:"),
        ("issuer", {}, {"/jwt/auth": (404, "")}, "returned 404 for invalid credentials"),
        ("issuer", {}, {"/jwt/auth": (200, "")}, "returned 200 for invalid credentials"),
        ("registry", {}, {"/v2/": (503, "")}, "returned 503 instead of 401"),
        ("registry", {}, {"/v2/": (401, 'Bearer realm="http://other/jwt/auth"')}, "different token issuer: .*other"),
        ("process", {"systemctl": (3, "inactive")}, {}, "The service docker is inactive"),
        ("process", {"docker__version": (1, "Cannot connect to the Docker daemon")}, {}, "Docker does not respond"),
        ("docker", {"docker__login": (0, "Login Succeeded")}, {}, "Login Succeeded"),
        ("docker", {"docker__login": (1, "server gave HTTP response to HTTPS client")}, {}, "HTTP response to HTTPS"),
        ("online", {"gitlab_runner": (1, "Verifying runner... is removed   runner=t1_x")}, {}, "is removed"),
        ("online", {"gitlab_runner": (0, "ERROR: Verifying runner... failed")}, {}, "failed"),
    ],
)
def test_what_is_broken_between_the_runner_and_the_stack_is_named(check_from_runner, check, says, pages, what):
    seen = check_from_runner(pages=pages, **says)
    assert seen.status == 1
    assert [line["check"] for line in seen.lines if line["state"] == "broken"] == [check]
    assert seen.well == [known.id for known in checks.checks_from(Place.RUNNER)][: len(seen.well)]
    assert re.search(what, seen[check]["detail"])


def test_a_readiness_that_is_not_seen_once_is_checked_again_and_one_that_is_shown_is_final(
    check_from_runner, balancer, monkeypatch
):
    assert checks.BY_ID["hidden"].limit == 30
    answers = iter([(502, ""), (504, ""), (404, "")])
    fetch = clients.fetch

    def losing(url: str, headers: Any = None) -> Any:
        if url.endswith("/-/readiness"):
            balancer.pages["/-/readiness"] = next(answers)
            if balancer.pages["/-/readiness"][0] == 504:
                raise FailedCheckError("no response within 10 s.")
        return fetch(url, headers)

    monkeypatch.setattr(clients, "fetch", losing)
    assert "hidden" in check_from_runner(patience=20).well
    answers = iter([(200, ""), (404, "")])
    seen = check_from_runner(patience=20)
    assert (seen.status, seen["hidden"]["state"]) == (1, "broken")


def test_a_balancer_that_answers_on_one_port_answers(check_from_runner, balancer, monkeypatch):
    monkeypatch.setattr(clients, "TIMEOUT", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
    says = lambda *command, **_: SAYS.get(command[0]) or SAYS[" ".join(command[:2])]  # noqa: E731
    monkeypatch.setattr(clients, "run", says)
    port = balancer.server_address[1]
    one = replace(ENDPOINTS, external_url=balancer.url, web_port=closed, registry_port=port)
    assert "balancer" in check_from(Place.RUNNER, stack=one).well
    none = replace(
        ENDPOINTS, external_url=balancer.url, web_port=closed, registry_port=closed, balancer_address="127.0.0.9"
    )
    seen = check_from(Place.RUNNER, stack=none)
    assert seen["balancer"]["state"] == "broken"
    assert "Connection refused" in seen["balancer"]["detail"]
