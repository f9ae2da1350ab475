"""The registry's data volume: full, and with the former space again."""

from tests.e2e.operations import must

FILES = "/srv/registry/filler /srv/registry/images/rest"


def fill() -> None:
    must("registry", "fallocate -l $(df --output=avail -B1 /srv/registry | tail -n 1) /srv/registry/filler || true")
    must("registry", "cat /dev/zero >/srv/registry/images/rest 2>/dev/null || true")


def empty() -> None:
    """Give the space back to this machine, too: the lab would copy it with each backup, which takes longer than a file
    system may be frozen.
    """
    must("registry", f"rm -f {FILES} && fstrim /srv/registry")
