"""The listings of docs/registry-storage.md: commands, and what they said of a store that a real server wrote.

`python -m tools.registry_listings` asks the commands anew and writes what they say.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.registry_server import SERVERS, Registry, find, install_registry_tree, some_bytes

TEXT = Path(__file__).resolve().parent.parent / "docs/registry-storage.md"
LISTING = re.compile(r"```console\n\$ (?P<command>.*)\n(?P<said>(?:.*\n)*?)```\n")
CHANGES_EVERY_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Listing(NamedTuple):
    """A command of the text, and what it printed."""

    command: str
    said: str

    @property
    def lasting(self) -> str:
        """What it said, but for times and the names of uploads."""
        return CHANGES_EVERY_TIME.sub("...", self.said)


def listings() -> list[Listing]:
    """Those of the text, in its order."""
    return [Listing(found["command"], found["said"]) for found in LISTING.finditer(TEXT.read_text())]


def push_story(registry: Registry) -> None:
    """What the text tells of, pushed to a registry that runs."""
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
    """A registry server that is here."""
    return next((server for server in SERVERS if find(server)), None)


def ask(command: str, registry: Registry) -> Listing:
    """Run a command of the text, in the folder of the store."""
    installed = install_registry_tree(registry.folder)
    tool = f'registry-tree() {{ "{sys.executable}" "{installed}" "$@" --root .; }}'
    done = subprocess.run(
        ["bash", "-c", f"{tool}\n{command}"], cwd=registry.store, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return Listing(command, done.stdout)


def asked() -> Iterator[Listing]:
    """Every listing of the text, asked in its order of a store that was pushed just now."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(str(server()), Path(folder))
        with registry.running():
            push_story(registry)
        # As GitLab's registry leaves it: the text tells of that one's collection, whichever server is here.
        (registry.store.parent / "lockfiles").mkdir(exist_ok=True)
        (registry.store.parent / "lockfiles/filesystem-in-use").touch()
        for listing in listings():
            yield ask(listing.command, registry)


def main() -> None:
    """Write what the commands print into the text."""
    text = TEXT.read_text()
    for old, new in zip(listings(), list(asked()), strict=True):
        text = text.replace(f"$ {old.command}\n{old.said}```", f"$ {new.command}\n{new.said}```", 1)
    TEXT.write_text(text)


if __name__ == "__main__":
    main()
