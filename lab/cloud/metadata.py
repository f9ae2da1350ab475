"""The instance metadata service, which machines reach at 169.254.169.254.

The packet filter redirects their requests to `METADATA_PORT` of the operator's address; the private source address
identifies the machine. Version 2 is required if the instance's options require it. The response with a token is sent
with the instance's hop limit as its TTL: with a limit of 1 it does not reach a nested container.
"""

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lab.cloud import credentials
from lab.cloud.network import METADATA_PORT, OPERATOR

VERSIONS = ("1.0", "2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest")
LONGEST_TOKEN_LIFE = 21600  # seconds

Tree = dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """An instance profile, with the name of its role, and whether EC2 may assume that role."""

    arn: str
    id: str
    role: str | None
    trusts_ec2: bool = True


@dataclass(frozen=True)
class Facts:
    """What an instance can query about itself."""

    instance_id: str
    image: str
    type: str
    account: str
    region: str
    zone: str
    hostname: str
    address: str
    public_address: str | None
    public_hostname: str | None
    mac: str
    interface: str
    subnet_id: str
    subnet: str
    vpc_id: str
    vpc: str
    groups: tuple[tuple[str, str], ...] = ()  # id, name
    key_name: str | None = None
    key: str | None = None
    user_data: bytes | None = None
    token_required: bool = False
    hop_limit: int = 1
    enabled: bool = True
    profile: Profile | None = None


def tree(facts: Facts) -> Tree:
    """Return the tree of paths below a version: values are str or bytes, folders are dictionaries."""
    interface = {
        "device-number": "0",
        "interface-id": facts.interface,
        "local-hostname": facts.hostname,
        "local-ipv4s": facts.address,
        "mac": facts.mac,
        "owner-id": facts.account,
        "security-group-ids": "\n".join(group for group, _ in facts.groups),
        "security-groups": "\n".join(name for _, name in facts.groups),
        "subnet-id": facts.subnet_id,
        "subnet-ipv4-cidr-block": facts.subnet,
        "vpc-id": facts.vpc_id,
        "vpc-ipv4-cidr-block": facts.vpc,
        "vpc-ipv4-cidr-blocks": facts.vpc,
    }
    meta_data: Tree = {
        "ami-id": facts.image,
        "ami-launch-index": "0",
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": {"ami": "/dev/sda1", "root": "/dev/sda1"},
        "hostname": facts.hostname,
        "instance-action": "none",
        "instance-id": facts.instance_id,
        "instance-life-cycle": "on-demand",
        "instance-type": facts.type,
        "local-hostname": facts.hostname,
        "local-ipv4": facts.address,
        "mac": facts.mac,
        "network": {"interfaces": {"macs": {facts.mac: interface}}},
        "placement": {"availability-zone": facts.zone, "region": facts.region},
        "profile": "default-hvm",
        "security-groups": interface["security-groups"],
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if facts.public_address:
        interface["public-ipv4s"] = meta_data["public-ipv4"] = facts.public_address
        interface["public-hostname"] = meta_data["public-hostname"] = facts.public_hostname or ""
    if facts.key:
        meta_data["public-keys"] = {"0": {"openssh-key": facts.key}}
    if facts.profile:
        meta_data["iam"] = _iam(facts.instance_id, facts.profile)
    found: Tree = {
        "dynamic": {"instance-identity": {"document": json.dumps(identity(facts), indent=2)}},
        "meta-data": meta_data,
    }
    if facts.user_data is not None:
        found["user-data"] = facts.user_data
    return found


def _iam(instance_id: str, profile: Profile) -> Tree:
    """Return the folder `iam`, whose credentials can be used for requests to the lab's API."""
    issued = credentials.issuer.issue(instance_id, profile.role) if profile.role and profile.trusts_ec2 else None
    info = {"Code": "Success", "InstanceProfileArn": profile.arn, "InstanceProfileId": profile.id}
    if issued:
        return {"info": json.dumps(info, indent=2), "security-credentials": {issued.role: issued.document()}}
    # IAM User Guide, "Troubleshoot IAM and Amazon EC2": the codes of the info document.
    info["Code"] = "AssumeRoleUnauthorizedAccess" if profile.role else "InstanceProfileNotFound"
    info["Message"] = f"EC2 cannot assume the role {profile.role}." if profile.role else "The profile has no role."
    text = json.dumps(info, indent=2)
    return {"info": text, "security-credentials": {profile.role: text} if profile.role else {}}


def identity(facts: Facts) -> dict[str, str | None]:
    """Return the instance identity document, unsigned."""
    return {
        "accountId": facts.account,
        "architecture": "x86_64",
        "availabilityZone": facts.zone,
        "imageId": facts.image,
        "instanceId": facts.instance_id,
        "instanceType": facts.type,
        "kernelId": None,
        "privateIp": facts.address,
        "ramdiskId": None,
        "region": facts.region,
        "version": "2017-09-30",
    }


def answer(facts: Facts, path: str) -> bytes | None:
    """Return the response to a GET of the path; None if the path does not exist."""
    parts = [part for part in path.partition("?")[0].split("/") if part]
    if not parts:
        return "\n".join(VERSIONS).encode()
    if parts[0] not in VERSIONS:
        return None
    node: Any = tree(facts)
    for part in parts[1:]:
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    if isinstance(node, (bytes, str)):
        return node if isinstance(node, bytes) else node.encode()
    if parts[-1] == "public-keys":
        return f"0={facts.key_name}".encode()
    return "\n".join(name + "/" * isinstance(value, dict) for name, value in sorted(node.items())).encode()


class Tokens:
    """Session tokens. Each is valid for one machine and for the requested time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens: dict[str, tuple[str, float]] = {}

    def issue(self, machine: str, seconds: int) -> str:
        now = self._clock()
        self._tokens = {token: entry for token, entry in self._tokens.items() if entry[1] > now}
        token = secrets.token_urlsafe(40)
        self._tokens[token] = machine, now + seconds
        return token

    def valid(self, machine: str, token: str | None) -> bool:
        owner, end = self._tokens.get(token or "", ("", 0.0))
        return owner == machine and end > self._clock()


class Handler(BaseHTTPRequestHandler):
    """The rules of the service (EC2 User Guide, "How Instance Metadata Service Version 2 works")."""

    server: "Server"
    server_version = "EC2ws"
    sys_version = ""

    def do_PUT(self) -> None:
        facts = self._facts()
        if facts is None:
            return
        life = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.path != "/latest/api/token":
            self._send(HTTPStatus.NOT_FOUND)
        elif "X-Forwarded-For" in self.headers:  # a proxy could pass the token on
            self._send(HTTPStatus.FORBIDDEN)
        elif not (life.isdigit() and 1 <= int(life) <= LONGEST_TOKEN_LIFE):
            self._send(HTTPStatus.BAD_REQUEST)
        else:
            self.connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, facts.hop_limit)
            token = self.server.tokens.issue(facts.instance_id, int(life))
            self._send(HTTPStatus.OK, token.encode(), {"X-aws-ec2-metadata-token-ttl-seconds": life})

    def do_GET(self) -> None:
        facts = self._facts()
        if facts is None:
            return
        token = self.headers.get("X-aws-ec2-metadata-token")
        needed = facts.token_required or token is not None
        if needed and not self.server.tokens.valid(facts.instance_id, token):
            self._send(HTTPStatus.UNAUTHORIZED)
        elif (found := answer(facts, self.path)) is None:
            self._send(HTTPStatus.NOT_FOUND)
        else:
            self._send(HTTPStatus.OK, found)

    def _facts(self) -> Facts | None:
        facts = self.server.lookup(self.client_address[0])
        if facts is None or not facts.enabled:
            self._send(HTTPStatus.FORBIDDEN)
            return None
        return facts

    def _send(self, status: HTTPStatus, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing: every machine sends many requests."""


class Server(ThreadingHTTPServer):
    """The metadata server. `lookup` returns the facts of the machine with a private address."""

    daemon_threads = True

    def __init__(
        self,
        lookup: Callable[[str], Facts | None],
        address: tuple[str, int] = (OPERATOR, METADATA_PORT),
    ) -> None:
        super().__init__(address, Handler)
        self.lookup = lookup
        self.tokens = Tokens()

    def start(self) -> None:
        """Serve in a separate thread."""
        threading.Thread(target=self.serve_forever, name="metadata", daemon=True).start()
