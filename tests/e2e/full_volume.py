"""The registry's data volume: full, and with the former space again."""

from tests.e2e.operations import must

VOLUME = "/srv/registry"
FILLER = f"{VOLUME}/filler"
REST = f"{VOLUME}/images/rest"
"""Takes what the file system did not give to the filler."""


def fill() -> None:
    must("registry", f"fallocate -l $(df --output=avail -B1 {VOLUME} | tail -n 1) {FILLER} || true")
    must("registry", f"cat /dev/zero >{REST} 2>/dev/null || true")


def empty() -> None:
    """Give the space back to this machine, too: the lab would copy it with each backup, which takes longer than a file
    system may be frozen.
    """
    must("registry", f"rm -f {FILLER} {REST} && fstrim {VOLUME}")
