"""TLS listeners of a real load balancer on the loopback interface: what clients get, and how certificates change."""

import contextlib
import dataclasses
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from moto.elbv2.ssl_policies import SSL_POLICIES

from lab import workspace
from lab.authority import LAB, OUTSIDER
from lab.cloud import balancers
from lab.cloud.balancers import Balancer, Balancers, Listener, Policy, Target, TargetGroup
from lab.cloud.network import Interface
from lab.tests.played_target import LOCAL, PROXY, PlayedTarget, wait_for
from lab.workspace import Daemon

NAME = "git.lab.example.com"
LOOPBACK = "127.0.0.1"
INTERFACE = Interface("eni-00000000000000bbb", LOOPBACK, "127.0.0.0/24", "127.0.0.0/16", "02:00:00:00:00:01", None)
DEFAULT = "ELBSecurityPolicy-TLS13-1-2-2021-06"

pytestmark = pytest.mark.needs("haproxy", "curl")


@pytest.fixture
def run(monkeypatch):
    """A folder for haproxy's files, with a path that is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    for module, name in ((balancers, "RUN"), (workspace, "RUN"), (workspace, "LOGS")):
        monkeypatch.setattr(module, name, folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def target():
    made = PlayedTarget()
    made.becomes(200)
    yield made
    made.listening.close()


class Front:
    """A load balancer with one TLS listener in front of the target, reconciled as by the cloud's loop."""

    def __init__(self, target):
        with socket.create_server((LOOPBACK, 0)) as free:
            self.port = free.getsockname()[1]
        self.notes: list[str] = []
        self.balancers = Balancers(lambda _: None, lambda _, text: self.notes.append(text))
        self.group = TargetGroup(
            "arn:http",
            "http",
            (Target("i-server", target.port, "a", LOOPBACK),),
            proxy_protocol=True,
            check_protocol="HTTP",
            check_path=target.check_path,
            check_interval=1,
            healthy_after=1,
        )
        self.balancer = Balancer("front", "a", INTERFACE)

    def shows(self, pem, *, policy=DEFAULT, alpn_policy="None", **group):
        """Give the listener a certificate and a policy, and its target group other settings."""
        described = SSL_POLICIES[policy]
        known = Policy(tuple(described["ssl_protocols"]), tuple(described["ciphers"]))
        self.group = dataclasses.replace(self.group, **group)
        listener = Listener(self.port, "TLS", self.group, known, pem, alpn_policy)
        self.balancer = dataclasses.replace(self.balancer, listeners=(listener,))
        self.balancers.reconcile(self.balancer)
        wait_for(lambda: "healthy" in {health.state for health in self.balancers.reconcile(self.balancer).values()})

    @property
    def worker(self):
        return balancers._worker(balancers._socket(self.balancer))

    @contextlib.contextmanager
    def connected(self, trusted=LAB, versions=(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), alpn=()):
        context = ssl.create_default_context(cafile=trusted.certificate())
        context.minimum_version, context.maximum_version = versions
        context.set_ciphers("ALL:@SECLEVEL=0")
        if alpn:
            context.set_alpn_protocols(alpn)
        with (
            socket.create_connection((LOOPBACK, self.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as connection,
        ):
            yield connection

    def serial(self):
        with self.connected() as connection:
            return connection.getpeercert()["serialNumber"]

    def curl(self):
        """The exit status of curl: 0, 60 for a certificate that it refuses, 28 for a timeout."""
        names = ("--resolve", f"{NAME}:{self.port}:{LOOPBACK}", "--cacert", str(LAB.certificate()))
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", "5", "-o", "/dev/null", *names]
        return subprocess.run([*command, f"https://{NAME}:{self.port}/page"], check=False).returncode


@pytest.fixture
def front(target, run, monkeypatch):
    made = Front(target)
    monkeypatch.setattr(Balancers, "_create", lambda *_: None)
    monkeypatch.setattr(
        balancers,
        "daemon",
        lambda balancer: Daemon("balancer-front", ["haproxy", "-W", "-db", "-f", str(run / f"{INTERFACE.device}.cfg")]),
    )
    yield made
    made.balancers.remove("front")


def request(connection, path="/page"):
    connection.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    return connection.recv(12)


def test_tls_ends_at_the_load_balancer_and_the_target_sees_the_client(front, target):
    front.shows(LAB.issue([NAME]).pem)
    with front.connected(alpn=["h2", "http/1.1"]) as connection:
        host, port = connection.getsockname()
        assert request(connection) == b"HTTP/1.1 200"
        assert connection.selected_alpn_protocol() is None  # as on AWS without an ALPN policy
    assert target.seen["/page"] == {(PROXY, f"{host}:{port}")}
    assert target.seen[target.check_path] == {(LOCAL, None)}


def test_a_listener_with_an_alpn_policy_agrees_to_http_2_even_if_its_target_does_not(front):
    front.shows(LAB.issue([NAME]).pem, alpn_policy="HTTP2Preferred")
    with front.connected(alpn=["http/1.1", "h2"]) as connection:
        assert connection.selected_alpn_protocol() == "h2"


def test_a_target_hears_of_a_client_with_the_clients_first_decrypted_bytes(front, target):
    front.shows(LAB.issue([NAME]).pem)
    before = target.clients
    with front.connected() as connection:
        time.sleep(0.2)
        assert target.clients == before
        assert request(connection) == b"HTTP/1.1 200"
    assert target.clients == before + 1


V1, V1_1, V1_2, V1_3 = (getattr(ssl.TLSVersion, name) for name in ("TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"))


@pytest.mark.parametrize(
    ("policy", "accepted"),
    [
        ("ELBSecurityPolicy-TLS13-1-3-2021-06", {V1_3}),
        (DEFAULT, {V1_2, V1_3}),
        ("ELBSecurityPolicy-TLS13-1-2-Res-2021-06", {V1_2, V1_3}),
        ("ELBSecurityPolicy-2016-08", {V1, V1_1, V1_2}),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_the_policy_decides_on_versions_and_ciphers(front, policy, accepted):
    front.shows(LAB.issue([NAME]).pem, policy=policy)
    for version in (V1, V1_1, V1_2, V1_3):
        refusal = contextlib.nullcontext() if version in accepted else pytest.raises(ssl.SSLError, match="version")
        with refusal, front.connected(versions=(version, version)) as connection:
            assert request(connection) == b"HTTP/1.1 200"
            assert connection.cipher()[0] in SSL_POLICIES[policy]["ciphers"]


def test_another_certificate_is_shown_at_once_and_connections_stay(front):
    front.shows(LAB.issue([NAME]).pem)
    first, worker = front.serial(), front.worker
    with front.connected() as connection:
        front.shows(LAB.issue([NAME]).pem)
        assert front.serial() != first
        assert request(connection) == b"HTTP/1.1 200"
    assert front.worker == worker, "haproxy was reloaded"
    assert front.notes == [""] * 2


def test_a_reload_shows_the_certificate_of_before(front):
    front.shows(LAB.issue([NAME]).pem)
    last = LAB.issue([NAME])
    front.shows(last.pem)
    shown, worker = front.serial(), front.worker
    front.shows(last.pem, healthy_after=2)
    assert front.worker != worker
    assert front.serial() == shown


@pytest.mark.parametrize(
    "pem",
    [
        lambda: OUTSIDER.issue([NAME]).pem,
        lambda: LAB.issue(["other.example.com"]).pem,
        lambda: LAB.issue([NAME], days=-1).pem,
    ],
    ids=["untrusted", "wrong name", "expired"],
)
def test_a_client_refuses_a_wrong_certificate_immediately_and_never_waits(front, pem):
    front.shows(LAB.issue([NAME]).pem)
    assert front.curl() == 0
    front.shows(pem())
    assert [front.curl() for _ in range(5)] == [60] * 5
    front.shows(LAB.issue([NAME]).pem)
    assert front.curl() == 0


def test_clients_get_through_while_certificates_change(front):
    pems = [LAB.issue([NAME]).pem for _ in range(2)]
    front.shows(pems[0])
    over, failures, successes = threading.Event(), [], []

    def connect():
        while not over.is_set():
            try:
                with front.connected() as connection:
                    successes.append(request(connection))
            except OSError as error:
                failures.append(repr(error))

    clients = [threading.Thread(target=connect, daemon=True) for _ in range(2)]
    for client in clients:
        client.start()
    for pem in pems * 5:
        front.shows(pem)
    over.set()
    for client in clients:
        client.join(5)
    assert failures == []
    assert set(successes) == {b"HTTP/1.1 200"}


def test_a_certificate_that_haproxy_does_not_take_is_an_error_and_the_former_stays(front):
    front.shows(LAB.issue([NAME]).pem)
    shown = front.serial()
    with pytest.raises(workspace.LabError, match=f"does not take the certificate of port {front.port}"):
        front.shows("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert front.serial() == shown
    front.shows(LAB.issue([NAME]).pem)
    assert front.serial() != shown


def test_private_keys_are_readable_by_root_alone_and_removed_with_the_load_balancer(front, run):
    front.shows(LAB.issue([NAME]).pem)
    [file] = run.glob("*.pem")
    assert file.stat().st_mode & 0o777 == 0o600
    front.balancers.remove("front")
    assert list(run.glob(f"{INTERFACE.device}*")) == []
