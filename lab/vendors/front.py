"""The vendors' common address: TLS with a certificate of the lab's authority, and routing by host name.

As at Docker Hub, anonymous pulls need a token, which any client gets from a different host. The API of EC2 has the same
address: signed requests with credentials of a machine's role pass to the lab's API, and nothing else does.
"""

import json
import sys

from lab import authority
from lab.cloud import PORT as API_PORT
from lab.cloud.credentials import INVALID, PREFIX
from lab.cloud.names import ec2_hosts
from lab.cloud.network import VENDORS
from lab.vendors import packages, registry
from lab.workspace import RUN, Daemon

REGISTRY_HOST = "registry.gitlab.com"
HUB_HOST, HUB_TOKENS_HOST = "registry-1.docker.io", "auth.docker.io"
HUB_TOKEN = "everybodys"
HOSTS = ("packages.gitlab.com", "download.docker.com", REGISTRY_HOST, HUB_HOST, HUB_TOKENS_HOST)
FILES_PORT = 5567
CHALLENGE = (
    "hdr Docker-Distribution-Api-Version registry/2.0 "
    f"""hdr WWW-Authenticate 'Bearer realm="https://{HUB_TOKENS_HOST}/token",service="registry.docker.io"'"""
)
UNAUTHORIZED = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required", "detail": None}]})
TOKEN = json.dumps({"token": HUB_TOKEN, "access_token": HUB_TOKEN, "expires_in": 300})

CODE, MESSAGE = INVALID
DENIED = f"<Response><Errors><Error><Code>{CODE}</Code><Message>{MESSAGE}</Message></Error></Errors></Response>"

_files = Daemon(
    "vendors-files",
    [
        *(sys.executable, "-m", "http.server", "--bind", "127.0.0.1"),
        *("--directory", str(packages.WEB_ROOT), str(FILES_PORT)),
    ],
)
_front = Daemon("vendors-front", ["haproxy", "-db", "-f", str(RUN / "vendors-front.cfg")])


def start() -> None:
    """Serve the vendors' sites. Idempotent. The address does not have to be configured yet."""
    RUN.mkdir(parents=True, exist_ok=True)
    certificate = authority.server_certificate([*HOSTS, *ec2_hosts()])
    file, text = RUN / "vendors-front.cfg", configuration(VENDORS, str(certificate))
    if not file.exists() or file.read_text() != text:
        _front.stop()
        file.write_text(text)
    _files.start()
    _front.start()


def stop() -> None:
    """Stop serving. To the machines, the vendors' sites are then down."""
    _front.stop()
    _files.stop()


def configuration(address: str, certificate: str) -> str:
    """Return haproxy.cfg; `transparent` allows it to bind an address that the host does not have yet (IP_FREEBIND)."""
    return f"""global
  maxconn 256

defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s

frontend vendors
  bind {address}:443 transparent ssl crt {certificate}
  use_backend ec2 if {{ hdr_beg(host) -i ec2. }} {{ hdr_end(host) -i .amazonaws.com }}
  use_backend registry if {{ hdr(host) -i {REGISTRY_HOST} }}
  use_backend hub if {{ hdr(host) -i {HUB_HOST} }}
  use_backend hub_tokens if {{ hdr(host) -i {HUB_TOKENS_HOST} }}
  default_backend files

backend files
  http-request set-path /%[req.hdr(host),lower]%[path]
  server files 127.0.0.1:{FILES_PORT}

backend ec2
  http-request return status 404 unless {{ path / }}
  acl of_a_role req.hdr(authorization) -m sub Credential={PREFIX}
  http-request return status 401 content-type text/xml string '{DENIED}' unless of_a_role
  # The API has closed the connection without a response: do the same.
  errorfile 502 /dev/null
  server api 127.0.0.1:{API_PORT}

backend registry
  http-request set-header X-Forwarded-Proto https
  server registry 127.0.0.1:{registry.PORT}

backend hub
  acl known req.hdr(authorization) "Bearer {HUB_TOKEN}"
  http-request return status 401 content-type application/json string '{UNAUTHORIZED}' {CHALLENGE} unless known
  http-request set-header X-Forwarded-Proto https
  http-request del-header Authorization
  server registry 127.0.0.1:{registry.PORT}

backend hub_tokens
  http-request return status 200 content-type application/json string '{TOKEN}' if {{ path /token }}
  http-request return status 404
"""
