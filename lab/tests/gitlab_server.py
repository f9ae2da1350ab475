"""The stand-in for GitLab, installed in a temporary folder for tests and queried through its real nginx."""

import base64
import contextlib
import http.client
import json
import os
import select
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from configuration.registry_config import render_registry_config
from lab import parts
from lab.tests.forks import Forks
from lab.workspace import ROOT

SOURCE = ROOT / "lab/played/gitlab_ce"
RAILS = "opt/gitlab/embedded/service/gitlab-rails"
PRELOADED = ("lab_gitlab.ctl", "lab_gitlab.pg_dump", "lab_gitlab.psql", "lab_gitlab.rails_command")
REGISTRIES = [str(found) for found in (shutil.which("docker-registry"), parts.find(parts.REGISTRY)) if found]
PASSWORD = "hg29fjQQ01mmz7Lp"
PROXY_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROJECT = "stack/acceptance"
CLIENT = "203.0.113.77"
RUBY_SETUP = """
admin = User.admins.active.order(:id).first
organization = Organizations::Organization.default_organization
group = Groups::CreateService.new(admin, { name: 'stack', path: 'stack', organization_id: organization.id,
  visibility_level: Gitlab::VisibilityLevel::PRIVATE }).execute.payload.fetch(:group)
Projects::CreateService.new(admin, { name: 'acceptance', path: 'acceptance', namespace_id: group.id,
  visibility_level: Gitlab::VisibilityLevel::PRIVATE }).execute
runner = Ci::Runners::CreateRunnerService.new(user: admin, params: { runner_type: 'instance_type', description: 'r',
  run_untagged: true, paused: false, tag_list: [] }).execute.payload.fetch(:runner)
api = admin.personal_access_tokens.create!(name: 'api', scopes: %w[api], expires_at: 1.day.from_now)
puts JSON.generate(runner: runner.token, api: api.token, group: group.id)
"""

needed = pytest.mark.needs("git", "nginx", "ruby", "runsv", "ssh-keygen")


@dataclass
class Answer:
    status: int
    body: bytes
    headers: http.client.HTTPMessage

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A folder that takes the place of a machine.

    `http` and `ssh` are ports; without the latter gitlab-sshd is off. `registry` is the port where GitLab expects the
    registry, which a test may start.
    """

    root: Path
    http: int
    ssh: int | None
    registry: int
    secrets: dict[str, Any] = field(default_factory=dict)
    """Tokens of the administrator and of the runner `r`, and the id of the group `stack`."""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LAB_ROOT": str(self.root)}

    @property
    def socket(self) -> Path:
        return self.root / "var/opt/gitlab/gitlab-workhorse/sockets/socket"

    @property
    def key_path(self) -> Path:
        return self.root / "var/opt/gitlab/gitlab-rails/etc/gitlab-registry.key"

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate that is copied to the registry."""
        kept = json.loads((self.root / "etc/gitlab/gitlab-secrets.json").read_text())
        return x509.load_pem_x509_certificate(kept["registry"]["internal_certificate"].encode())

    @cached_property
    def forks(self) -> Forks:
        return Forks(self.root / RAILS, PRELOADED, self.environment)

    def run(self, command: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return self.forks.run(self.root / "opt/gitlab/bin" / command, *arguments, stdin=stdin)

    def configure(self, more: str = "") -> subprocess.CompletedProcess[str]:
        (self.root / "etc/gitlab/gitlab.rb").write_text(
            f"""
            external_url 'http://203.0.113.16'
            nginx['listen_port'] = {self.http}
            nginx['listen_addresses'] = ['127.0.0.1']
            nginx['proxy_protocol'] = true
            nginx['real_ip_trusted_addresses'] = ['127.0.0.1/32']
            gitlab_sshd['enable'] = {"true" if self.ssh else "false"}
            gitlab_sshd['listen_address'] = '127.0.0.1:{self.ssh}'
            gitlab_sshd['proxy_protocol'] = true
            registry['enable'] = false
            gitlab_rails['registry_enabled'] = true
            gitlab_rails['registry_host'] = '203.0.113.16'
            gitlab_rails['registry_port'] = '5000'
            gitlab_rails['registry_api_url'] = 'http://127.0.0.1:{self.registry}'
            gitlab_rails['initial_root_password'] = '{PASSWORD}'
            {more}
            """
        )
        return self.run("gitlab-ctl", "reconfigure")

    def console(self, script: str) -> str:
        done = self.run("gitlab-rails", "runner", script)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ask(
        self,
        method: str,
        path: str,
        *,
        client: str | None = CLIENT,
        body: Any = None,
        form: Mapping[str, str] | None = None,
        **headers: str,
    ) -> Answer:
        """Send a request to nginx as the load balancer does; `client` None means the load balancer's health check.

        `body` is sent as JSON unless it is bytes, `form` as a browser sends a form.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=10)
        connection.connect()
        connection.sock.sendall(proxy_header(client))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content: bytes | str | None = body if isinstance(body, bytes) else None
        if body is not None and content is None:
            named["Content-Type"], content = "application/json", json.dumps(body)
        elif form is not None:
            named["Content-Type"], content = "application/x-www-form-urlencoded", urlencode(form)
        connection.request(method, path, content, named)
        response = connection.getresponse()
        answer = Answer(response.status, response.read(), response.headers)
        connection.close()
        return answer

    def get(self, path: str, **options: Any) -> Answer:
        return self.ask("GET", path, **options)

    def is_ready(self) -> bool:
        """Return whether GitLab is ready; False while nginx restarts."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/-/readiness", client=None).status == 200
        return False

    def answers_ssh(self) -> bool:
        """Return whether gitlab-sshd accepts connections; False while it restarts."""
        return answers(f"127.0.0.1:{self.ssh}")

    def has_database(self) -> bool:
        """Return whether PostgreSQL answers; False while it restarts."""
        return self.run("gitlab-psql", "-tAc", "SELECT 1").stdout == "1\n"

    def token(self, user: str, password: str, *scopes: str) -> Answer:
        query = "&".join(["service=container_registry", *(f"scope={scope}" for scope in scopes)])
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        return self.get(f"/jwt/auth?{query}", Authorization=f"Basic {credentials}")


@contextlib.contextmanager
def runner_with(server: Server, attributes: str) -> Iterator[None]:
    """Set attributes of the runner's record, in Ruby, and those of a runner that takes any job at the end."""
    update = "Ci::Runner.find_by(description: 'r').update!"
    server.console(f"{update}({attributes})")
    yield
    server.console(f"{update}(run_untagged: true, access_level: 'not_protected', tag_list: [])")


def proxy_header(client: str | None) -> bytes:
    """Return a PROXY protocol version 2 header; without a client the command is LOCAL."""
    if client is None:
        return PROXY_SIGNATURE + bytes([0x20, 0]) + struct.pack("!H", 0)
    addresses = socket.inet_aton(client) + socket.inet_aton("203.0.113.16") + struct.pack("!HH", 40000, 80)
    return PROXY_SIGNATURE + bytes([0x21, 0x11]) + struct.pack("!H", len(addresses)) + addresses


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(condition: Any, seconds: float = 60, *, pause: float = 0.05) -> None:
    """Wait for a condition; `pause` is the number of seconds between two checks, more if a check is costly."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(pause)


@contextlib.contextmanager
def balancer(server: Server, certificate: Path | None = None) -> Iterator[str]:
    """Run a load balancer that adds the PROXY protocol header to connections to nginx; yield its URL.

    With a `certificate` for localhost, in one file with its key, it terminates TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate:
        context.load_cert_chain(certificate)

    class Connection(socketserver.BaseRequestHandler):
        def setup(self) -> None:
            if certificate:
                self.request = context.wrap_socket(self.request, server_side=True)

        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", server.http)) as target:
                target.sendall(proxy_header(CLIENT))
                other = {self.request: target, target: self.request}
                while True:
                    for source in select.select(list(other), [], [])[0]:
                        data = source.recv(65536)
                        while isinstance(source, ssl.SSLSocket) and source.pending():
                            data += source.recv(65536)
                        if not data:
                            return
                        other[source].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as listener:
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, args=(0.01,)).start()
        try:
            port = listener.server_address[1]
            yield f"https://localhost:{port}" if certificate else f"http://127.0.0.1:{port}"
        finally:
            listener.shutdown()


@contextlib.contextmanager
def registry(program: str, certificate: x509.Certificate, folder: Path, port: int | None = None) -> Iterator[str]:
    """Run a registry with the program's configuration, which trusts the certificate; yield its address.

    Without a port it has a free one.
    """
    folder.joinpath("config.yml").write_text(render_registry_config(external_url="http://203.0.113.16", port=5000))
    folder.joinpath("token.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    address = f"127.0.0.1:{port or free_port()}"
    elsewhere = {
        "REGISTRY_HTTP_ADDR": address,
        "REGISTRY_HTTP_SECRET": "kept",
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(folder / "storage"),
        "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE": str(folder / "token.crt"),
    }
    with (folder / "log").open("w") as log:
        command = [program, "serve", str(folder / "config.yml")]
        process = subprocess.Popen(command, env={**os.environ, **elsewhere}, stdout=log, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or answers(address))
        assert process.poll() is None, (folder / "log").read_text()
        yield address
    finally:
        process.terminate()
        process.wait(20)


def answers(address: str) -> bool:
    with contextlib.suppress(OSError):
        host, _, port = address.partition(":")
        socket.create_connection((host, int(port)), timeout=1).close()
        return True
    return False


def install(root: Path) -> None:
    """Install the stand-in's files at the paths of its package."""
    shutil.copytree(SOURCE / "root", root, dirs_exist_ok=True)
    (root / RAILS).mkdir(parents=True)
    (root / RAILS / "lab_gitlab").symlink_to(SOURCE / "lab_gitlab")


@contextlib.contextmanager
def supervision(services: Path) -> Iterator[None]:
    """Supervise services like runsvdir(8), which scans for new ones only every five seconds, but without that delay."""
    supervisors: dict[Path, subprocess.Popen[bytes]] = {}
    ended = threading.Event()

    def scan() -> None:
        while not ended.wait(0.05):
            for service in services.iterdir() if services.exists() else ():
                if service not in supervisors or supervisors[service].poll() is not None:
                    supervisors[service] = subprocess.Popen(["runsv", service])

    thread = threading.Thread(target=scan)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        logs = [log for service in supervisors for log in _handles(service / "log")]
        for supervisor in supervisors.values():
            supervisor.terminate()
        for service, supervisor in supervisors.items():
            wait_until(partial(_has_ended, service, supervisor), 20, pause=0.01)
            supervisor.kill()
            supervisor.wait(20)
        for log in logs:
            assert select.select([log], [], [], 20)[0], "the log did not end with its input"
            os.close(log)


def _has_ended(service: Path, supervisor: subprocess.Popen[bytes]) -> bool:
    """Return whether a service has ended for good; runsv(8) then sleeps for a second if it has been young."""
    if supervisor.poll() is not None:
        return True
    with contextlib.suppress(FileNotFoundError):
        return _status(service) == (0, "d")
    return False


def _handles(service: Path) -> list[int]:
    """Return a file descriptor that is readable when the service's process has ended; none without a process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        process, _ = _status(service)
        return [os.pidfd_open(process)] if process else []
    return []


def _status(service: Path) -> tuple[int, str]:
    """Return the number of a service's process, 0 without one, and the wanted state: u for up or d for down.

    Source: runit, runsv.c, update_status().
    """
    status = (service / "supervise/status").read_bytes()
    return int.from_bytes(status[12:16], "little"), chr(status[17])


@contextlib.contextmanager
def running(*, ssh: int | None = None) -> Iterator[Server]:
    """Install and run GitLab."""
    # Not in pytest's folder, because paths of sockets must be short.
    root = Path(tempfile.mkdtemp(prefix="lab-"))
    install(root)
    (root / "etc/gitlab").mkdir(parents=True)
    machine = Server(root, free_port(), ssh, registry=free_port())
    with supervision(root / "opt/gitlab/service"):
        done = machine.configure()
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith("gitlab Reconfigured!\n")
        wait_until(machine.is_ready)
        wait_until(lambda: not ssh or machine.answers_ssh())
        machine.secrets = json.loads(machine.console(RUBY_SETUP))
        yield machine
        machine.forks.close()
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server without gitlab-sshd, whose host keys take half a second to make."""
    with running() as machine:
        yield machine


@pytest.fixture(scope="module")
def url(server: Server) -> Iterator[str]:
    """The URL of the server for clients, through a load balancer."""
    with balancer(server) as found:
        yield found
