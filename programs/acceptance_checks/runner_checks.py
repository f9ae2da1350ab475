"""Checks that run on the runner's machine: the stack as its users reach it, and the runner itself."""

import base64
import re
import shutil
import socket
import tempfile
from typing import Any, Mapping

from . import clients
from .certificate_checks import serves_tls
from .outcomes import FailedCheckError, Result, printable

SESSION_COOKIE = "_gitlab_session"
"""It is Secure if external_url is https (gitlab-org/gitlab, config/initializers/session_store.rb)."""

Endpoints = Mapping[str, Any]


def name_resolves(endpoints: Endpoints) -> Result:
    """GitLab's name resolves to the load balancer's address only."""
    host, address = endpoints["host"], endpoints["balancer_address"]
    if re.match(r"[\d.]+$", host):
        return None
    status, output = clients.run("getent", "ahostsv4", host)
    addresses = sorted({line.split()[0] for line in output.splitlines()}) if status == 0 else []
    if addresses != [address]:
        leads = f"resolves to {', '.join(addresses)}" if addresses else "does not resolve"
        raise FailedCheckError(f"{host} {leads}; the load balancer's address is {address}.")
    return None


def load_balancer_answers(endpoints: Endpoints) -> Result:
    """The load balancer accepts a connection on at least one of its ports."""
    observed = []
    for port in (endpoints["web_port"], endpoints["registry_port"], 22):
        error = connection_error(endpoints["balancer_address"], port)
        if not error:
            return None
        observed.append(f"port {port}: {error}")
    raise FailedCheckError(" ".join(observed))


def connection_error(address: str, port: int) -> str:
    """Why a port does not accept a connection; empty if it does."""
    try:
        socket.create_connection((address, port), timeout=clients.TIMEOUT / 3).close()
    except OSError as error:
        return clients.error_text(error)
    return ""


def sign_in_page(endpoints: Endpoints) -> Result:
    """GitLab's login page is available through the load balancer; over TLS, it and its cookie require TLS too."""
    address = f"{endpoints['external_url']}/users/sign_in"
    _, headers, body = clients.expect(address, 200)
    if serves_tls(endpoints):
        plain = re.search(rf"http://{re.escape(endpoints['host'])}(?![\w.-])[^\s\"'<>]*", body.decode(errors="replace"))
        if plain:
            raise FailedCheckError(f"{address} contains the link {plain.group()[:120]}.", cause="scheme")
        for cookie in headers.get_all("Set-Cookie") or []:
            attributes = [part.strip().lower() for part in cookie.split(";")]
            if attributes[0].startswith(SESSION_COOKIE) and "secure" not in attributes:
                raise FailedCheckError(f"{address} sets its session cookie without Secure.", cause="scheme")
    return None


def readiness_hidden(endpoints: Endpoints) -> Result:
    """GitLab's readiness endpoint is hidden from clients."""
    address = f"{endpoints['external_url']}/-/readiness"
    answered = clients.fetch(address)[0]
    if answered != 404:
        # Only a 200 is final: other failures, such as a 502 of the load balancer, can be temporary.
        raise FailedCheckError(f"{address} returned {answered} instead of 404.", final=answered == 200)
    return None


def git_over_ssh(endpoints: Endpoints) -> Result:
    """Port 22 of GitLab's name reaches gitlab-sshd with GitLab's host key."""
    host = endpoints["host"]
    _, output = clients.run("ssh-keyscan", "-T", "5", "-t", "ed25519", host)
    if "SSH-2.0-GitLab-SSHD" not in output or f" {endpoints['git_ssh_host_key']}" not in output:
        raise FailedCheckError(f"ssh-keyscan {host} printed: {' / '.join(output.splitlines())[:240] or 'nothing'}.")
    return None


def token_issuer_answers(endpoints: Endpoints) -> Result:
    """GitLab's token issuer rejects invalid credentials."""
    wrong = base64.b64encode(b"nobody:not-a-password").decode()
    issuer = f"{endpoints['external_url']}/jwt/auth"
    status, _, _ = clients.fetch(f"{issuer}?service=container_registry", {"Authorization": f"Basic {wrong}"})
    if status not in (401, 403):
        raise FailedCheckError(f"{issuer} returned {status} for invalid credentials.")
    return None


def registry_answers(endpoints: Endpoints) -> Result:
    """The registry responds through the load balancer and sends clients to GitLab for tokens."""
    url = endpoints["external_url"]
    address = f"{url.split(':')[0]}://{_registry_host(endpoints)}/v2/"
    status, headers, _ = clients.fetch(address)
    if status != 401:
        raise FailedCheckError(f"{address} returned {status} instead of 401.")
    challenge = headers.get("WWW-Authenticate") or ""
    if f'realm="{url}/jwt/auth"' not in challenge:
        raise FailedCheckError(f"{address} sends clients to a different token issuer: {challenge}.")
    return None


def runner_runs(_: Endpoints) -> Result:
    """gitlab-runner and Docker are running."""
    for service in ("docker", "gitlab-runner"):
        status, output = clients.run("systemctl", "is-active", service)
        if status != 0:
            raise FailedCheckError(f"The service {service} is {output}.")
    status, output = clients.run("docker", "version", "--format", "{{.Server.Version}}")
    if status != 0:
        raise FailedCheckError(f"Docker does not respond: {clients.last_line(output)}.")
    return None


def docker_knows_registry(endpoints: Endpoints) -> Result:
    """Docker can reach the registry, which rejects invalid credentials."""
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
        raise FailedCheckError(f"docker login with invalid credentials printed: {clients.last_line(output)}.")
    return None


def runner_token_valid(_: Endpoints) -> Result:
    """GitLab accepts the runner's token."""
    # verify exits with 0 even if GitLab does not respond: only its output shows the result.
    _status, output = clients.run("gitlab-runner", "verify")
    if "is valid" not in output and "is alive" not in output:
        lines = [line for line in output.splitlines() if "erify" in line] or [clients.last_line(output)]
        raise FailedCheckError(f"gitlab-runner verify printed: {printable(lines[0])}.")
    return None


def _registry_host(endpoints: Endpoints) -> str:
    return f"{endpoints['host']}:{endpoints['registry_port']}"
