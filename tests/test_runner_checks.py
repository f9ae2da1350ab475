"""Checks that run on the runner's machine, of a stack without TLS and of one with TLS."""

import http.server
import re
import socket
import ssl
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
from tests import certificates
from tests.check_runs import ENDPOINTS, Output, check_from


class PlayedBalancer(http.server.ThreadingHTTPServer):
    """GitLab and the registry on one port; `pages` maps paths to status and challenge.

    `body` and `cookies` are those of every response.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), PageHandler)
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.server_address[1]}"
        self.body = f"{self.url[: self.url.index(':')]}://git.example.com/assets"
        self.cookies = [f"_gitlab_session=0a; path=/;{' secure;' if context else ''} HttpOnly"]
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
        for cookie in self.server.cookies:
            self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, a name of http.server
        pass


AUTHORITY = certificates.authority("Known authority")
CERTIFICATE = certificates.certificate(AUTHORITY, "git.example.com", "127.0.0.1")


@pytest.fixture
def tls() -> bool:
    """Whether the stack serves TLS. A test that needs it is parametrized."""
    return False


@pytest.fixture
def balancer(monkeypatch, tmp_path, tls) -> Iterator[PlayedBalancer]:
    monkeypatch.setattr(run, "RETRY_INTERVAL", 0.01)
    context = None
    if tls:
        (tmp_path / "trusted.pem").write_text(AUTHORITY.pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE.write(tmp_path / "shown.pem"))
    server = PlayedBalancer(context)
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


def ids(*without: str) -> list[str]:
    return [check.id for check in checks.checks_from(Place.RUNNER) if check.id not in without]


def test_a_stack_that_is_well_is_seen_so_from_the_runners_machine(check_from_runner):
    seen = check_from_runner()
    assert (seen.status, seen.well) == (0, ids("certificate", "certificate-renewal"))
    assert [line["check"] for line in seen.lines if line.get("state") == "off"] == [
        "certificate",
        "certificate-renewal",
    ]


@pytest.mark.parametrize("tls", [True])
def test_a_stack_with_tls_that_is_well_is_seen_so_from_the_runners_machine(check_from_runner):
    seen = check_from_runner()
    assert (seen.status, seen.well) == (0, ids())


SECURE = "_gitlab_session=0a; path=/; Secure; HttpOnly"


@pytest.mark.parametrize("tls", [True])
@pytest.mark.parametrize(
    ("body", "cookies", "what"),
    [
        ('content="http://git.example.com/users/sign_in">', [SECURE], "link http://git.example.com/users/sign_in[.]"),
        ('url="http://git.example.com";', [SECURE], "the link http://git.example.com[.]"),
        ("", ["_gitlab_session=0a; path=/; HttpOnly"], "session cookie without Secure"),
        ("", ["known=1", "_gitlab_session=secure; path=/"], "session cookie without Secure"),
        ("", [SECURE, SECURE.replace("Secure; ", "")], "session cookie without Secure"),
    ],
)
def test_a_login_page_for_plain_http_behind_tls_is_broken(check_from_runner, balancer, body, cookies, what):
    balancer.body, balancer.cookies = body, cookies
    seen = check_from_runner()
    assert (seen.status, seen["sign-in"]["cause"]) == (1, "scheme")
    assert re.search(what, seen["sign-in"]["detail"])
    assert checks.BY_ID["sign-in"].remedies["scheme"] in seen.stderr


@pytest.mark.parametrize("tls", [True])
def test_links_to_other_hosts_and_other_cookies_are_the_pages_own_business(check_from_runner, balancer):
    balancer.body = "http://git.example.com.au/ http://www.git.example.com https://git.example.com/http://x/"
    balancer.cookies = ["preferred_language=en; path=/", SECURE]
    assert check_from_runner().status == 0


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
    assert seen.well == ids("certificate", "certificate-renewal")[: len(seen.well)]
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
