"""The listings of docs/registry-storage.md: commands, and their output for a store that a real server wrote.

`python -m tools.registry_listings` runs the commands again and updates the output in the document.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.registry_server import SERVERS, Registry, find, some_bytes

ROOT = Path(__file__).resolve().parent.parent
TEXT = ROOT / "docs/registry-storage.md"
LISTING = re.compile(r"```console\n\$ (?P<command>.*)\n(?P<output>(?:.*\n)*?)```\n")
CHANGES_EVERY_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Listing(NamedTuple):
    """A command of the document, and its output."""

    command: str
    output: str

    @property
    def lasting(self) -> str:
        """The output without times and upload IDs, which change in every run."""
        return CHANGES_EVERY_TIME.sub("...", self.output)


def listings() -> list[Listing]:
    """The listings of the document, in order."""
    return [Listing(found["command"], found["output"]) for found in LISTING.finditer(TEXT.read_text())]


def push_example(registry: Registry) -> None:
    """Push the images that the document describes to a running registry."""
    system, runtime = some_bytes("system", 300_000), some_bytes("runtime", 80_000)
    for version in ("1.0", "1.1"):
        layers = system, runtime, some_bytes(f"web {version}", 5_000)
        registry.push_image("shop/web", version, *layers)
        registry.push_image("shop/web", "latest", *layers, name=f"shop/web:{version}")
    for night in ("Monday", "Tuesday"):
        registry.push_image("shop/web", "nightly", system, runtime, some_bytes(night, 5_000), name=night)
    registry.push_image("shop/api", "2.0", system, some_bytes("api 2.0", 9_000))
    old = registry.push_image("shop/api", "1.0", system, some_bytes("api 1.0", 9_000))
    registry.delete_manifest("shop/api", old)
    tools = {
        registry.push_image("shop/tools", "", some_bytes(machine, 7_000), oci=True, name=machine): f"linux/{machine}"
        for machine in ("amd64", "arm64")
    }
    registry.push_index("shop/tools", "latest", tools)
    registry.abort_upload("shop/web", some_bytes("aborted", 4_000))


def server() -> str | None:
    """A registry server that is installed here."""
    return next((server for server in SERVERS if find(server)), None)


def rerun(command: str, registry: Registry) -> Listing:
    """Run a command of the document in the folder of the store."""
    tool = f'registry-tree() {{ "{sys.executable}" -m programs.registry_tree "$@" --root .; }}'
    done = subprocess.run(
        ["bash", "-c", f"{tool}\n{command}"],
        cwd=registry.store,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return Listing(command, done.stdout)


def rerun_listings() -> Iterator[Listing]:
    """All listings of the document, in order, for a newly pushed store."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(str(server()), Path(folder))
        with registry.running():
            push_example(registry)
        # As with GitLab's registry: the document describes its collection, whichever server is installed here.
        (registry.store.parent / "lockfiles").mkdir(exist_ok=True)
        (registry.store.parent / "lockfiles/filesystem-in-use").touch()
        for listing in listings():
            yield rerun(listing.command, registry)


def main() -> None:
    """Write the output of the commands into the document."""
    text = TEXT.read_text()
    for old, new in zip(listings(), list(rerun_listings()), strict=True):
        text = text.replace(f"$ {old.command}\n{old.output}```", f"$ {new.command}\n{new.output}```", 1)
    TEXT.write_text(text)


if __name__ == "__main__":
    main()
