"""The sink of the end-to-end tests records who connects, in any protocol."""

import smtplib
import socket
import urllib.request

import pytest

from tests.e2e import sink
from tests.e2e.sink import Sink

HERE = "127.0.0.1"


def free_port() -> int:
    with socket.create_server((HERE, 0)) as listening:
        return int(listening.getsockname()[1])


def test_a_connection_is_recorded_with_what_the_client_says() -> None:
    port = free_port()
    with Sink(port, address=HERE) as recorded:
        assert recorded.contacts == []
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{HERE}:{port}/hook", data=b"{}", timeout=5) as answer:
            assert answer.status == 200
    (contact,) = recorded.of(HERE)
    assert (contact.port, contact.said.partition(b"\r\n")[0]) == (port, b"POST /hook HTTP/1.1")
    assert recorded.of("198.51.100.17") == []


def test_a_client_that_waits_for_a_greeting_speaks_where_mail_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(sink, "MAIL_PORTS", (port,))
    with Sink(port, address=HERE) as recorded:
        client = smtplib.SMTP(HERE, port, timeout=5)
        client.putcmd("ehlo", "git.example.test")
        client.close()
    (contact,) = recorded.contacts
    assert contact.said == b"ehlo git.example.test\r\n"


def test_a_client_that_says_nothing_is_recorded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "PATIENCE", 0.1)
    port = free_port()
    with Sink(port, address=HERE) as recorded, socket.create_connection((HERE, port)):
        pass
    assert [contact.said for contact in recorded.contacts] == [b""]
