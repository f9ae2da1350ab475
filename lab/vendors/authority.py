"""The lab's certificate authority, created once per clone. The machines trust it, the host does not."""

from collections.abc import Iterable
from pathlib import Path

from lab.shell import call
from lab.workspace import STATE

FOLDER = STATE / "ca"
CERTIFICATE = FOLDER / "authority.crt"
KEY = FOLDER / "authority.key"
DAYS = "3650"
NEW_KEY = ("-newkey", "rsa:2048", "-noenc")


def certificate() -> Path:
    """Return the authority's certificate, which is public; create it if it does not exist."""
    if not CERTIFICATE.exists():
        FOLDER.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = CERTIFICATE.with_suffix(".unfinished")
        call(
            *("openssl", "req", "-x509", *NEW_KEY, "-days", DAYS, "-subj", "/CN=GitLab lab certificate authority"),
            *("-addext", "keyUsage=critical,keyCertSign", "-keyout", str(KEY), "-out", str(unfinished)),
        )
        unfinished.rename(CERTIFICATE)
    return CERTIFICATE


def server_certificate(names: Iterable[str]) -> Path:
    """Return a file with a certificate for these names and its key, for `ssl crt` of haproxy."""
    issuer = certificate()
    wanted = ",".join(f"DNS:{name}" for name in names)
    server = FOLDER / "server.pem"
    extensions = FOLDER / "server.extensions"
    if server.exists() and extensions.read_text() == f"subjectAltName={wanted}\n":
        return server
    extensions.write_text(f"subjectAltName={wanted}\n")
    key, request, signed = (FOLDER / f"server.{suffix}" for suffix in ("key", "csr", "crt"))
    call(
        *("openssl", "req", "-new", *NEW_KEY, "-subj", "/CN=vendors"),
        *("-keyout", str(key), "-out", str(request)),
    )
    call(
        *("openssl", "x509", "-req", "-in", str(request), "-days", DAYS, "-CA", str(issuer), "-CAkey", str(KEY)),
        *("-extfile", str(extensions), "-out", str(signed)),
    )
    server.touch(mode=0o600)
    server.write_text(signed.read_text() + key.read_text())
    return server
