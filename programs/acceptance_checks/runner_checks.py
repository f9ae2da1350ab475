"""What the runner's machine can check: the stack as its users reach it, and the runner itself."""

import base64
import re
import shutil
import socket
import tempfile
from typing import Any, Mapping

from . import clients
from .outcomes import FailedCheckError, Result, printable

Endpoints = Mapping[str, Any]


def name_resolves(endpoints: Endpoints) -> Result:
    """GitLab's name leads to the load balancer's address and nowhere else."""
    host, address = endpoints["host"], endpoints["balancer_address"]
    if re.match(r"[\d.]+$", host):
        return None
    status, output = clients.run("getent", "ahostsv4", host)
    addresses = sorted({line.split()[0] for line in output.splitlines()}) if status == 0 else []
    if addresses != [address]:
        leads = f"leads to {', '.join(addresses)}" if addresses else "does not resolve"
        raise FailedCheckError(f"{host} {leads}; the load balancer has {address}.")
    return None


def load_balancer_answers(endpoints: Endpoints) -> Result:
    """The load balancer takes a connection on one of its ports."""
    observed = []
    for port in (endpoints["web_port"], endpoints["registry_port"], 22):
        error = connection_error(endpoints["balancer_address"], port)
        if not error:
            return None
        observed.append(f"port {port}: {error}")
    raise FailedCheckError(" ".join(observed))


def connection_error(address: str, port: int) -> str:
    """Why a port does not take a connection; empty when it does."""
    try:
        socket.create_connection((address, port), timeout=clients.TIMEOUT / 3).close()
    except OSError as error:
        return clients.error_text(error)
    return ""


def sign_in_page(endpoints: Endpoints) -> Result:
    """GitLab's login page comes through the load balancer."""
    clients.expect(f"{endpoints['external_url']}/users/sign_in", 200)
    return None


def readiness_hidden(endpoints: Endpoints) -> Result:
    """Clients are not shown GitLab's readiness."""
    address = f"{endpoints['external_url']}/-/readiness"
    answered = clients.fetch(address)[0]
    if answered != 404:
        # Only a readiness that is shown decides: a lost packet or a load balancer's 502 passes.
        raise FailedCheckError(f"{address} answers {answered} instead of 404.", final=answered == 200)
    return None


def git_over_ssh(endpoints: Endpoints) -> Result:
    """Port 22 of GitLab's name reaches gitlab-sshd with GitLab's host key."""
    host = endpoints["host"]
    _, output = clients.run("ssh-keyscan", "-T", "5", "-t", "ed25519", host)
    if "SSH-2.0-GitLab-SSHD" not in output or f" {endpoints['git_ssh_host_key']}" not in output:
        raise FailedCheckError(f"{host} shows: {' / '.join(output.splitlines())[:240] or 'nothing'}.")
    return None


def token_issuer_answers(endpoints: Endpoints) -> Result:
    """GitLab's token issuer refuses a wrong credential."""
    wrong = base64.b64encode(b"nobody:not-a-password").decode()
    issuer = f"{endpoints['external_url']}/jwt/auth"
    status, _, _ = clients.fetch(f"{issuer}?service=container_registry", {"Authorization": f"Basic {wrong}"})
    if status not in (401, 403):
        raise FailedCheckError(f"{issuer} answers {status} to a wrong credential.")
    return None


def registry_answers(endpoints: Endpoints) -> Result:
    """The registry answers through the load balancer and sends clients to GitLab for tokens."""
    url = endpoints["external_url"]
    address = f"{url.split(':')[0]}://{_registry_host(endpoints)}/v2/"
    status, headers, _ = clients.fetch(address)
    if status != 401:
        raise FailedCheckError(f"{address} answers {status} instead of 401.")
    challenge = headers.get("WWW-Authenticate") or ""
    if f'realm="{url}/jwt/auth"' not in challenge:
        raise FailedCheckError(f"{address} sends for tokens to: {challenge}.")
    return None


def runner_runs(_: Endpoints) -> Result:
    """gitlab-runner and its Docker run."""
    for service in ("docker", "gitlab-runner"):
        status, output = clients.run("systemctl", "is-active", service)
        if status != 0:
            raise FailedCheckError(f"The service {service} is {output}.")
    status, output = clients.run("docker", "version", "--format", "{{.Server.Version}}")
    if status != 0:
        raise FailedCheckError(f"Docker does not answer: {clients.last_line(output)}.")
    return None


def docker_knows_registry(endpoints: Endpoints) -> Result:
    """Docker talks to the registry, which refuses a wrong credential."""
    folder = tempfile.mkdtemp()
    try:
        status, output = clients.run(
            *("docker", "login", "--username", "nobody", "--password-stdin", _registry_host(endpoints)),
            stdin="not-a-password\n",
            DOCKER_CONFIG=folder,
        )
    finally:
        shutil.rmtree(folder)
    if status == 0 or not re.search("denied|unauthorized", output, re.IGNORECASE):
        raise FailedCheckError(f"docker login with a wrong credential says: {clients.last_line(output)}.")
    return None


def runner_token_valid(_: Endpoints) -> Result:
    """GitLab knows the runner's token."""
    # The exit status is 0 also when GitLab does not answer: only the output tells.
    _status, output = clients.run("gitlab-runner", "verify")
    if "is valid" not in output and "is alive" not in output:
        lines = [line for line in output.splitlines() if "erify" in line] or [clients.last_line(output)]
        raise FailedCheckError(f"gitlab-runner verify says: {printable(lines[0])}.")
    return None


def _registry_host(endpoints: Endpoints) -> str:
    return f"{endpoints['host']}:{endpoints['registry_port']}"
