"""The vendors' common address: TLS by the lab's authority, then by host name to the packages or the registry."""

import sys

from lab.cloud.network import VENDORS
from lab.vendors import authority, packages, registry
from lab.workspace import RUN, Daemon

REGISTRY_HOST = "registry.gitlab.com"
HOSTS = ("packages.gitlab.com", "download.docker.com", REGISTRY_HOST)
FILES_PORT = 5567

_files = Daemon(
    "vendors-files",
    [
        *(sys.executable, "-m", "http.server", "--bind", "127.0.0.1"),
        *("--directory", str(packages.WEB_ROOT), str(FILES_PORT)),
    ],
)
_front = Daemon("vendors-front", ["haproxy", "-db", "-f", str(RUN / "vendors-front.cfg")])


def start() -> None:
    """Answer for the vendors. Idempotent. The address need not be there yet."""
    RUN.mkdir(parents=True, exist_ok=True)
    certificate = authority.server_certificate(HOSTS)
    file, text = RUN / "vendors-front.cfg", configuration(VENDORS, str(certificate))
    if not file.exists() or file.read_text() != text:
        _front.stop()
        file.write_text(text)
    _files.start()
    _front.start()


def stop() -> None:
    """No vendor answers any more: what a machine sees when the package repositories are down."""
    _front.stop()
    _files.stop()


def configuration(address: str, certificate: str) -> str:
    """haproxy.cfg; `transparent` lets it bind an address that the host has not got yet (IP_FREEBIND)."""
    return f"""global
  maxconn 256

defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s

frontend vendors
  bind {address}:443 transparent ssl crt {certificate}
  use_backend registry if {{ hdr(host) -i {REGISTRY_HOST} }}
  default_backend files

backend files
  http-request set-path /%[req.hdr(host),lower]%[path]
  server files 127.0.0.1:{FILES_PORT}

backend registry
  http-request set-header X-Forwarded-Proto https
  server registry 127.0.0.1:{registry.PORT}
"""
