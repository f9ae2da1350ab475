"""Name resolution for machines in the VPC: dnsmasq on the address of the VPC's resolver.

It resolves the vendors' sites, EC2's API, the machines' and load balancers' own names and the A, CNAME and alias
records of Route 53; no other name exists. This host's own resolver is not changed.
"""

import os
import signal
from collections.abc import Iterable, Mapping
from functools import cache

import botocore.session  # type: ignore[import-untyped]

from lab.cloud.network import VENDORS
from lab.workspace import RUN, Daemon

VENDOR_NAMES = (
    *("packages.gitlab.com", "download.docker.com", "registry.gitlab.com"),
    *("registry-1.docker.io", "auth.docker.io"),
)
HOSTS = RUN / "names"


@cache
def ec2_hosts() -> tuple[str, ...]:
    """Return the names of EC2's API in every region, at which machines reach the lab's API."""
    regions = botocore.session.get_session().get_available_regions("ec2")
    return tuple(f"ec2.{region}.amazonaws.com" for region in regions)


def render_hosts(names: Mapping[str, Iterable[str]]) -> str:
    """Return a hosts(5) file of the vendors' sites, EC2's API and `names`, which maps names to addresses."""
    lines = [f"{VENDORS} {' '.join(VENDOR_NAMES)}", *(f"{VENDORS} {name}" for name in ec2_hosts())]
    lines += [f"{address} {name}" for name in sorted(names) for address in sorted(names[name])]
    return "\n".join([*lines, ""])


def command(listen: list[str]) -> list[str]:
    """Return the command of dnsmasq that listens on these addresses and answers only from the hosts file."""
    return [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",  # other users cannot read a clone below /root
        "--no-resolv",
        "--no-hosts",
        f"--addn-hosts={HOSTS}",
        "--local=/#/",
        "--bind-interfaces",
        *(f"--listen-address={address}" for address in listen),
    ]


class Names:
    """The name server, kept in line with the names and addresses of the API."""

    def __init__(self) -> None:
        self._daemon = Daemon("names", [])
        self._hosts = ""
        self._listen: list[str] = []

    def apply(self, names: Mapping[str, Iterable[str]], listen: list[str]) -> None:
        """Serve `names` on the addresses `listen`, which this host must have."""
        hosts = render_hosts(names)
        changed = hosts != self._hosts
        if changed:
            RUN.mkdir(parents=True, exist_ok=True)
            HOSTS.write_text(hosts)
            self._hosts = hosts
        if listen != self._listen:
            self._daemon.stop()
            self._daemon = Daemon("names", command(listen))
            self._listen = listen
        if not listen:
            return
        if (pid := self._daemon.pid) is None:
            self._daemon.start()
        elif changed:
            os.kill(pid, signal.SIGHUP)


def remove() -> None:
    """Stop the name server, also one that another process started. Idempotent."""
    Daemon("names", []).stop()
    HOSTS.unlink(missing_ok=True)
