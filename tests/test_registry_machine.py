"""Programs of the registry's machine, executed on stores of real registry servers, with a stub for Docker."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from configuration import zipapp
from configuration.remote_step import PROGRAMS, program, script
from configuration.systemd_units import collect_garbage_service
from programs.registry_tree.garbage_collection import mark
from programs.registry_tree.store import Store
from programs.registry_tree.text import Progress
from tests.shell import run_with_tools
from tools.registry_server import digest_of, find, some_bytes

ROOT = Path(__file__).resolve().parent.parent
Ran = subprocess.CompletedProcess[str]

DOCKER = """\
echo "$*" >>{calls}
case $1 in
    inspect) echo the-image ;;
    exec)
        shift 3
        {instead}
        exec {server} "${{@:1:$#-1}}" {configuration}
        ;;
esac
"""
"""A stub that records its calls; `exec` runs the registry's own collection."""


@pytest.fixture
def tools(registry, tmp_path) -> Path:
    """registry-tree for the store, and a stub that reports the data volume as mounted."""
    folder = tmp_path / "bin"
    folder.mkdir()
    put(folder, "mountpoint", "")
    put(folder, "curl", "")
    # From the checkout: Python would compile an installed one at each call.
    command = f"PYTHONPATH={ROOT} exec {sys.executable} -m programs.registry_tree"
    put(folder, "registry-tree", f'{command} "$@" --root {registry.root}')
    return folder


def put(folder: Path, tool: str, text: str) -> None:
    (folder / tool).write_text(f"#!/bin/bash\n{text}\n")
    (folder / tool).chmod(0o755)


# The installation of registry-tree ------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path) -> Callable[[bytes], Ran]:
    """Run the step with `tmp_path` as the machine's program folder; the result is on standard error."""
    text = script("install_registry_tree.sh").replace("/usr/bin/", f"{tmp_path}/")

    def run(program: bytes) -> Ran:
        return run_with_tools(text, "install_registry_tree", [], [program], tools=tmp_path, result="&2")

    return run


def test_the_machine_gets_a_program_that_runs_and_keeps_it_when_another_does_not(install, tmp_path, monkeypatch):
    monkeypatch.setattr(zipapp, "SHEBANG", f"#!{sys.executable}\n".encode())
    program = zipapp.build_zipapp(PROGRAMS / "registry_tree")
    installed = install(program)
    assert (installed.returncode, installed.stderr) == (0, "registry-tree installed\n"), installed.stdout
    assert (tmp_path / "registry-tree").read_bytes() == program
    subprocess.run([tmp_path / "registry-tree", "--help"], stdout=subprocess.DEVNULL, check=True)
    assert install(program[:-100]).returncode != 0
    assert (tmp_path / "registry-tree").read_bytes() == program


# The acceptance -------------------------------------------------------------------------------------------------------


@pytest.fixture
def find_image(tools) -> Callable[[str, str], Ran]:
    """Run the step; the result is on standard error."""

    def run(image: str, digest: str) -> Ran:
        return run_with_tools(script("find_image.sh"), "find_image", [image, digest], [], tools=tools, result="&2")

    return run


def test_the_image_of_the_proof_is_shown_with_the_digest_that_the_push_reported(find_image, filled):
    digest = filled.made["app"]
    found = find_image("group/app:1.0", digest)
    assert found.returncode == 0, found.stdout
    assert f"-> {digest}" in found.stdout
    assert found.stdout.endswith("no problems found\n")
    assert json.loads(found.stderr)["check"] == "volume"


def test_a_proof_whose_image_is_not_there_or_another_one_or_damaged_fails(find_image, registry, filled):
    for image, digest, message in (
        ("group/app:none", filled.made["app"], "does not store images on its data volume"),
        ("nobody/app:1.0", filled.made["app"], "does not store images on its data volume"),
        ("group/app:1.0", filled.made["shared"], "has a different one"),
    ):
        refused = find_image(image, digest)
        assert refused.returncode == 1
        assert message in refused.stdout
    damage(registry)
    damaged = find_image("another:v1", filled.made["elsewhere"])
    assert damaged.returncode == 1
    assert "DAMAGE wrong digest" in damaged.stdout


def damage(registry) -> None:
    """Corrupt a layer of another:v1."""
    hexadecimal = digest_of(some_bytes("another")).removeprefix("sha256:")
    (registry.store / f"blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data").write_bytes(b"?" * 3000)


# Garbage collection ---------------------------------------------------------------------------------------------------


class Collection:
    """collect-garbage with its paths redirected to a temporary folder."""

    def __init__(self, folder: Path, registry, tools: Path) -> None:
        self.program = (
            program("collect-garbage")
            .replace('"10 10 0"', '"0 0 0"')
            .replace("/srv/registry/images", str(registry.root))
        )
        for place in ("/run/", "/var/log/gitlab-stack/"):
            self.program = self.program.replace(place, f"{folder}{place}")
            (folder / place.strip("/")).mkdir(parents=True)
        (folder / "run/collect-garbage").mkdir()
        self.environment = {"PATH": f"{tools}:{os.environ['PATH']}"}
        self.folder = folder
        self.registry = registry
        self.tools = tools
        self.calls = folder / "calls"
        self.docker()

    def docker(self, instead: str = "") -> None:
        """Install the stub of Docker; `instead` runs before the collection."""
        words = {"server": self.registry.program, "configuration": self.registry.configuration, "calls": self.calls}
        put(self.tools, "docker", DOCKER.format(instead=instead, **words))

    def command(self, *arguments: str) -> list[str]:
        return ["bash", "-c", self.program, "collect-garbage", *arguments]

    def run(self, *options: str) -> tuple[int, str]:
        """Run it as systemd does. Returns the status of `collect`, and the output in the journal."""
        first = self._ask("collect", "5000", *options)
        return first.returncode, first.stdout + self.finish("success" if first.returncode == 0 else "exit-code")

    def finish(self, service_result: str) -> str:
        last = self._ask("finish", "5000", SERVICE_RESULT=service_result)
        assert (last.returncode, last.stderr) == (0, "")
        return last.stdout

    def _ask(self, *arguments: str, **environment: str) -> Ran:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            env=self.environment | environment,
            check=False,
        )

    def changes(self) -> list[str]:
        """The Docker commands that change something, without their options."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        words = [shlex.split(line) for line in lines]
        return [
            f"{each[0]} {'registry-read-only' if each[0] == 'run' else each[-1]}"
            for each in words
            if each[0] != "inspect"
        ]


BACK = ["rm registry-read-only", "start registry"]
AWAY = ["stop registry", "run registry-read-only"]


@pytest.fixture
def collection(tmp_path, registry, tools) -> Collection:
    return Collection(tmp_path / "machine", registry, tools)


def foretold(registry) -> set[str]:
    store = Store(str(registry.root), Progress(None))
    store.load_blobs()
    mark(store, untagged=False)
    return {digest for digest, blob in store.blobs.items() if not blob.kept}


def test_what_no_image_needs_is_freed_while_nothing_can_be_pushed(collection, filled):
    expected, before = foretold(collection.registry), collection.registry.blobs()
    status, journal = collection.run()
    assert status == 0, journal
    assert re.fullmatch(
        r"garbage collection: freed \d[\d.]*KB, all remaining files are intact; pushes are accepted\n", journal
    )
    assert before - collection.registry.blobs() == expected != set()
    assert filled.made["round 0"] in collection.registry.blobs(), "untagged manifests go only with -m"
    [exec_] = [line for line in collection.calls.read_text().splitlines() if line.startswith("exec ")]
    assert exec_ == "exec registry-read-only /bin/registry garbage-collect /etc/docker/registry/config.yml"
    assert collection.changes() == [*AWAY, "exec /etc/docker/registry/config.yml", *BACK]
    [run] = [line for line in collection.calls.read_text().splitlines() if line.startswith("run ")]
    assert 'REGISTRY_STORAGE_MAINTENANCE={"readonly": {"enabled": true}}' in run
    assert run.endswith("the-image")


def test_untagged_manifests_go_only_when_they_are_asked_for(collection, filled):
    untagged = filled.made["round 0"]
    assert untagged in collection.registry.blobs()
    status, journal = collection.run("-m")
    if filled.registry.program == find("docker-registry"):
        # Distribution 2.8 would also delete what a tagged index references.
        assert status == 1
        assert re.match("garbage collection: refused: REFUSED would be lost: .*; needed by (multi|often):", journal)
        assert "(all: registry-tree reclaim --untagged); pushes are accepted" in journal
        assert collection.changes() == BACK
    else:
        assert status == 0, journal
    assert (untagged in collection.registry.blobs()) == (status == 1)


def test_a_collection_that_would_end_at_a_folder_is_refused_and_the_registry_is_not_stopped(collection):
    repositories = collection.registry.store / "repositories"
    shutil.copytree(repositories / "another", repositories / "another.BAK")
    before = collection.registry.blobs()
    status, journal = collection.run()
    assert status == 1
    assert journal.startswith(
        "garbage collection: refused: REFUSED stops a collection: repositories/another.BAK: does not have a valid "
    )
    assert collection.changes() == BACK
    assert collection.registry.blobs() == before


def test_what_is_found_only_when_nothing_can_be_pushed_any_more_is_refused_as_well(collection):
    stray = collection.registry.store / "blobs/data"
    put(collection.tools, "curl", f"touch {stray}")  # called while the registry is stopped
    status, journal = collection.run()
    assert status == 1
    assert journal.startswith("garbage collection: refused: DAMAGE misplaced file: blobs/data: ")
    assert collection.changes() == [*AWAY, *BACK]


def test_the_registry_is_left_alone_when_there_is_nothing_to_free(collection):
    collection.registry.collect()
    assert collection.run() == (0, "garbage collection: nothing to free; pushes are accepted\n")
    assert "stop registry" not in collection.changes()


def test_of_a_damaged_store_nothing_is_taken(collection, filled):
    hexadecimal = filled.made["elsewhere"].removeprefix("sha256:")
    (collection.registry.store / f"blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data").write_text("{}")
    before = collection.registry.blobs()
    status, journal = collection.run()
    assert status == 1
    assert journal.startswith("garbage collection: refused: DAMAGE ")
    assert "pushes are accepted (exit-code, see /" in journal
    assert journal.count("\n") == 1
    assert collection.registry.blobs() == before
    assert collection.changes() == BACK


def test_damage_is_told_when_it_is_found_afterwards(collection):
    damage(collection.registry)
    status, journal = collection.run()
    assert status == 1
    damaged = "but afterwards the registry's files were damaged or could not be checked"
    assert re.match(rf"garbage collection: freed \S+, {damaged}", journal)
    assert collection.changes()[-2:] == BACK


def test_a_collection_that_fails_leaves_a_registry_that_takes_pushes(collection):
    collection.docker("exit 1")
    status, journal = collection.run()
    assert status == 1
    assert journal.startswith(
        "garbage collection: interrupted while freeing; the next collection frees the rest; pushes are accepted"
    )
    assert collection.changes()[-2:] == BACK


def test_a_collection_that_is_killed_leaves_a_registry_that_takes_pushes(collection):
    collection.docker("exec sleep 30")
    killed = subprocess.Popen(collection.command("collect", "5000"), env=collection.environment, process_group=0)
    deadline = time.monotonic() + 20
    while "exec /etc/docker/registry/config.yml" not in collection.changes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(killed.pid, 9)
    killed.wait()
    assert "interrupted while freeing" in collection.finish("signal")
    assert collection.changes()[-2:] == BACK


def test_what_accepts_pushes_again_is_not_killed_while_updates_have_the_lock():
    """They wait for a long collection, and get the lock before `finish` does."""
    assert "\nTimeoutStopSec=2h\n" in collect_garbage_service(port=5000, untagged=False)


def test_a_collection_waits_for_a_step_and_touches_nothing_when_it_has_waited_too_long(collection):
    collection.program = collection.program.replace("--wait 3600", "--wait 0.2")
    lock = collection.folder / "run/gitlab-stack.lock"
    with subprocess.Popen(["flock", lock, "sleep", "20"], process_group=0) as step:
        while subprocess.run(["flock", "--nonblock", lock, "true"], check=False).returncode == 0:
            time.sleep(0.02)
        status, journal = collection.run()
        os.killpg(step.pid, 9)
    assert status == 75
    assert journal == (
        "garbage collection: not started: a step has been running on this machine for an hour: ps -ef --forest\n"
    )
    assert collection.changes() == []
