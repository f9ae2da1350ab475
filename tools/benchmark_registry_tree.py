"""Benchmark of registry-tree on large stores: `python -m tools.benchmark_registry_tree FOLDER`.

Creates two stores in FOLDER (22 GB of disk space; deleted afterwards), one with many small files and one with a few
large ones, and compares with programs that read the same data. Uses GitLab's registry if LAB_PARTS provides it,
otherwise Debian's.
"""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from programs.registry_tree.store import STORE
from tools.registry_server import IMAGE, SERVERS, Registry, find, install_registry_tree

MANY_TAGS = 100_000
TAGS_OF_A_REPOSITORY = 100
LARGE_LAYERS, LARGE_LAYER_SIZE = 800, 25 << 20  # bytes
COMMANDS = ("ls", "du", "reclaim --untagged", "verify")


class Writer:
    """Writes a store directly, in the format of a registry, because pushing 100,000 tags takes hours."""

    def __init__(self, root: Path) -> None:
        self.store = root / STORE
        (root / "docker/registry/lockfiles").mkdir(parents=True)

    def blob(self, content: bytes) -> dict[str, object]:
        """Store content. Returns its descriptor."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self._write(f"blobs/sha256/{digest[7:9]}/{digest[7:]}/data", content)
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}

    def tag(self, repository: str, tag: str, layers: list[dict[str, object]]) -> None:
        """Store an image of these layers under a tag."""
        config = self.blob(json.dumps({"os": "linux", "name": f"{repository}:{tag}"}).encode())
        manifest = {"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers}
        digest = str(self.blob(json.dumps(manifest, indent=3).encode())["digest"])
        folder = f"repositories/{repository}"
        for place, target in [
            *((f"_layers/sha256/{str(each['digest'])[7:]}", str(each["digest"])) for each in [config, *layers]),
            (f"_manifests/revisions/sha256/{digest[7:]}", digest),
            (f"_manifests/tags/{tag}/index/sha256/{digest[7:]}", digest),
            (f"_manifests/tags/{tag}/current", digest),
        ]:
            self._write(f"{folder}/{place}/link", target.encode())

    def _write(self, place: str, content: bytes) -> None:
        path = f"{self.store}/{place}"
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(content)


def many_tags(writer: Writer) -> None:
    """A manifest, configuration and one layer for each tag, on top of 100 shared layers."""
    chance = random.Random(0)
    shared = [writer.blob(chance.randbytes(4000)) for _ in range(100)]
    for number in range(MANY_TAGS):
        repository = f"group-{number // 10_000}/project-{number // TAGS_OF_A_REPOSITORY}"
        writer.tag(repository, f"v{number}", [shared[number % 100], writer.blob(chance.randbytes(2000))])


def large_layers(writer: Writer) -> None:
    """20 GB in images of eight layers."""
    chance = random.Random(0)
    for number in range(LARGE_LAYERS // 8):
        layers = [writer.blob(chance.randbytes(LARGE_LAYER_SIZE)) for _ in range(8)]
        writer.tag("group/project", f"v{number}", layers)


def rows(registry: Registry) -> Iterator[tuple[str, list[str]]]:
    """The benchmarks: name and command line."""
    jobs, store = os.cpu_count() or 1, registry.store
    program = str(install_registry_tree(registry.folder))
    yield "`find` and `wc -l`", ["sh", "-c", f"find {store} | wc -l"]
    for command in COMMANDS:
        arguments = [*command.split(), "--root", str(registry.root)]
        yield f"`registry-tree {command}`", [sys.executable, program, *arguments]
    for name, place in (("the blobs", store / "blobs"), ("every file", store)):
        hash_all = f"find {place} -type f -print0 | xargs -0 -n 1000 -P {jobs} sha256sum"
        yield f"`sha256sum` of {name}, {jobs} at a time", ["sh", "-c", f"{hash_all} >/dev/null"]
    collect = f"{registry.program} garbage-collect --dry-run -m {registry.configuration} >/dev/null 2>&1"
    yield "the registry's `garbage-collect --dry-run -m`", ["sh", "-c", collect]


def measure(command: list[str]) -> str:
    """Run a command. Returns seconds, CPU seconds and the peak memory of its processes in MB, as table cells."""
    started, memory = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        memory = max(memory, memory_of(process.pid))
        time.sleep(0.1)
    assert status == 0, command
    seconds, busy = time.monotonic() - started, usage.ru_utime + usage.ru_stime
    return f"{seconds:.1f} | {busy:.1f} | {memory / 1000:.0f}"


def memory_of(process: int) -> int:
    """Memory of a process and its children in kilobytes; shared memory is counted once."""
    try:
        found = re.search(r"^Pss: +(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0  # the process has ended
    return (int(found[1]) if found else 0) + sum(memory_of(int(child)) for child in children)


def main() -> None:
    """Print a table for each of the two stores."""
    folder = Path(sys.argv[1])
    server = next(server for server in reversed(SERVERS) if find(server))
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {server}", flush=True)
    for fill in (many_tags, large_layers):
        place = folder / fill.__name__
        try:
            registry = Registry(server, place)
            fill(Writer(registry.root))
            print(f"\n{fill.__doc__} {len(registry.blobs()):,} blobs.\n")
            print("| | seconds | CPU seconds | MB of memory |\n|---|---|---|---|", flush=True)
            for name, command in rows(registry):
                print(f"| {name} | {measure(command)} |", flush=True)
        finally:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
