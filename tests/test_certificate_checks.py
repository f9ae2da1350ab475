"""The checks of the certificates that the load balancer shows, with TLS servers on loopback."""

import re
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configuration import checks, report
from configuration.flows import Place
from programs.acceptance_checks import certificate_checks, clients, messages, run
from programs.acceptance_checks.outcomes import FailedCheckError
from tests import certificates
from tests.certificates import Signed
from tests.check_runs import ENDPOINTS, Output, run_group

HOST = "git.example.com"
KNOWN = certificates.authority("Known authority")
UNKNOWN = certificates.authority("Unknown authority")
GOOD = certificates.certificate(KNOWN, HOST)


class Shower(socketserver.BaseRequestHandler):
    """Completes a handshake with the server's certificate; without one it answers plain HTTP, as nginx does."""

    server: "Listener"

    def handle(self) -> None:
        self.request.settimeout(5)
        if self.server.context is None:
            self.request.recv(4096)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return
        try:
            with self.server.context.wrap_socket(self.request, server_side=True) as connection:
                connection.recv(1)
        except OSError:
            pass  # the client has rejected the certificate, or does not speak TLS


class Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        super().__init__(("127.0.0.1", 0), Shower)


@contextmanager
def listener(shown: Signed | None, folder: Path) -> Iterator[int]:
    """A listener of the load balancer with this certificate, or without TLS; its port."""
    context = None
    if shown:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown.write(folder / "shown.pem"))
    with Listener(context) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def silent() -> Iterator[int]:
    """A port that accepts no connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def check(monkeypatch, tmp_path) -> Iterator[Callable[..., Output]]:
    """Run both checks while the load balancer shows these certificates, on a machine that trusts one authority."""
    (tmp_path / "trusted.pem").write_text(KNOWN.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    with ExitStack() as open_ports:

        def check_with(
            web: Signed | str | None = GOOD, registry: Signed | str | None = GOOD, *, show_progress: bool = False
        ) -> Output:
            ports = [
                open_ports.enter_context(silent() if isinstance(shown, str) else listener(shown, tmp_path))
                for shown in (web, registry)
            ]
            url = f"https://{HOST}"
            stack = replace(ENDPOINTS, external_url=url, host=HOST, web_port=ports[0], registry_port=ports[1])
            of_certificates = [checks.BY_ID["certificate"], checks.BY_ID["certificate-renewal"]]
            task = report.task(stack, of_certificates, patience=0, show_progress=show_progress)
            return run_group(Place.RUNNER, task)

        yield check_with


def day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + seconds))


def test_a_certificate_that_the_machine_trusts_passes_and_its_last_day_and_issuer_are_reported(check):
    seen = check()
    assert (seen.status, seen.well) == (0, ["certificate", "certificate-renewal"])
    days = seen["certificate-renewal"]["detail"]
    assert days == f"89 days left, until {day(90 * 86400)}, issued by Known authority"


CAUSES: dict[str, tuple[Any, str]] = {
    "expired": (
        certificates.certificate(KNOWN, HOST, days=-2),
        rf"for {HOST}, issued by Known authority, valid from \S+ to {day(-2 * 86400)}: it has expired\.",
    ),
    "wrong-name": (
        certificates.certificate(KNOWN, "other.example.com", "www.example.com"),
        rf"for other.example.com, www.example.com, issued by Known authority, .*: it is not for {HOST}\.",
    ),
    "untrusted": (
        certificates.certificate(UNKNOWN, HOST),
        r"issued by Unknown authority, .*: this machine does not trust it \(unable to get local issuer certificate\)\.",
    ),
    "plain-http": (None, r"answers with plain HTTP, without TLS\."),
}


@pytest.mark.parametrize("port", ["web", "registry"])
@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_has_its_message_and_its_remedy_on_either_port(check, port, cause):
    shown, message = CAUSES[cause]
    seen = check(**{port: shown})
    assert seen.status == 1
    assert [line["check"] for line in seen.lines] == ["certificate"]
    assert (seen["certificate"]["state"], seen["certificate"]["cause"]) == ("broken", cause)
    assert re.search(rf"^{HOST}:\d+:? .*{message}$", seen["certificate"]["detail"])
    known = checks.BY_ID["certificate"]
    assert f"What to do: {known.remedies.get(cause, known.remedy)}\n" in seen.stderr


def test_every_remedy_is_for_a_cause_that_the_check_reports():
    assert {*checks.BY_ID["certificate"].remedies} == {*CAUSES}


@pytest.mark.parametrize("port", ["web", "registry"])
def test_a_port_without_an_answer_leaves_the_verdict_to_the_checks_of_its_target(check, port):
    seen = check(**{port: "silent"})
    first, last = (line for line in seen.lines if line["check"] == "certificate")
    assert (first["state"], last["state"]) == ("deferred", "broken")
    assert "no TLS connection: Connection refused" in last["detail"]
    assert "cause" not in last


def test_a_certificate_without_alternative_names_is_not_for_the_host(check):
    seen = check(web=certificates.certificate(KNOWN))
    assert seen["certificate"]["cause"] == "wrong-name"
    assert "a certificate for no name" in seen["certificate"]["detail"]


def test_of_many_names_only_the_first_are_shown(check):
    names = [f"n{number}.example.com" for number in range(100)]
    assert "n4.example.com and 95 more" in check(web=certificates.certificate(KNOWN, *names))["certificate"]["detail"]


def test_an_authority_that_signs_for_other_purposes_is_no_reason_to_stop_without_a_message(check):
    """Certificates of authorities are not for servers, so they cannot be decoded by a handshake."""
    seen = check(web=certificates.authority(HOST))
    assert (seen.status, seen["certificate"]["state"]) == (1, "broken")
    assert seen["certificate"]["cause"] in ("untrusted", "wrong-name")


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("git.example.com", True),
        ("GIT.example.com", True),
        ("*.example.com", True),
        ("*.com", False),
        ("example.com", False),
        ("*", False),
        ("*.git.example.com", False),
        ("git.example.com.evil.test", False),
        ("", False),
    ],
)
def test_a_wildcard_replaces_exactly_one_label(name, fits):
    assert certificate_checks.fits(name, "git.example.com") is fits


@pytest.mark.parametrize(("days", "state"), [(15, "ok"), (14, "broken"), (10, "broken")])
def test_a_certificate_with_less_than_two_weeks_left_passes_but_should_have_been_renewed(check, days, state):
    seen = check(registry=certificates.certificate(KNOWN, HOST, days=days))
    assert seen["certificate"]["state"] == "ok"
    assert seen["certificate-renewal"]["state"] == state
    assert f"{days - 1} days left, until {day(days * 86400)}" in seen["certificate-renewal"]["detail"]


def test_an_up_continues_with_a_certificate_that_expires_soon_and_shows_the_remedy(check, monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(messages, "progress", shown.append)
    seen = check(web=certificates.certificate(KNOWN, HOST, days=10), show_progress=True)
    assert seen.status == 0
    assert shown[-1].startswith("! certificate renewed in time: The certificate expires soon. It has 9 days left")
    assert shown[-1].endswith(checks.BY_ID["certificate-renewal"].remedy)


def test_without_tls_there_is_no_certificate_to_check():
    plain = report.task(ENDPOINTS, [checks.BY_ID["certificate"], checks.BY_ID["certificate-renewal"]])
    seen = run_group(Place.RUNNER, plain)
    assert seen.status == 0
    assert [(line["check"], line["state"]) for line in seen.lines[:-1]] == [
        ("certificate", "off"),
        ("certificate-renewal", "off"),
    ]


def test_a_listener_that_still_shows_its_former_certificate_is_waited_for(monkeypatch):
    monkeypatch.setattr(run, "RETRY_INTERVAL", 0.01)
    outcomes = iter([FailedCheckError("shows the former certificate", cause="untrusted"), None])

    def certificate(_: Any, __: int) -> Any:
        error = next(outcomes, None)
        if error:
            raise error

    monkeypatch.setattr(certificate_checks, "valid_certificate", certificate)
    stack = replace(ENDPOINTS, external_url=f"https://{HOST}")
    assert run_group(Place.RUNNER, report.task(stack, [checks.BY_ID["certificate"]])).well == ["certificate"]


def test_a_page_behind_a_certificate_that_is_not_trusted_is_no_response(check, tmp_path):
    with (
        listener(certificates.certificate(UNKNOWN, "127.0.0.1"), tmp_path) as port,
        pytest.raises(FailedCheckError, match="certificate verify failed"),
    ):
        clients.fetch(f"https://127.0.0.1:{port}/")
