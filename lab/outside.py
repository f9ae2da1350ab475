"""How a client on this machine reaches a stack of the lab, as one on the internet reaches a stack on AWS.

The operator is outside of the stack's VPC. This machine's resolver does not know the names of the lab's internet, and
it does not trust the lab's authority. A client needs options for both; nothing on this machine is changed.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab import authority
from lab.workspace import ROOT


@dataclass(frozen=True)
class Outside:
    """A stack as seen from outside: the URL of GitLab and the load balancer's address."""

    url: str
    address: str

    @classmethod
    def of(cls, outputs: Mapping[str, Any]) -> "Outside":
        """Return the stack with these outputs."""
        return cls(outputs["externalUrl"], outputs["publicAddresses"]["balancer"])

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def curl_options(self) -> list[str]:
        """Return the options with which curl, in this clone's folder, reaches and trusts GitLab."""
        options = []
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            options += ["--cacert", _short(authority.LAB.certificate())]
        if self.host != self.address:
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            options += ["--resolve", f"{self.host}:{port}:{self.address}"]
        return options

    def curl(self) -> str:
        """Return a command that requests GitLab's first page."""
        return shlex.join(["curl", *self.curl_options(), f"{self.url}/"])


def _short(file: Path) -> str:
    return str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file)
