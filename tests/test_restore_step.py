"""clean_restored_data.sh, executed on a copy of a volume's folders: what a restore removes, what it keeps, and when."""

import re
import subprocess
from pathlib import Path

import pytest

from configuration.paths import RESTORED_FROM, TOKEN_CERTIFICATE, TOKEN_KEY
from configuration.remote_step import script
from tests.shell import run_with_tools

SNAPSHOT, OTHER = "snap-0123456789abcdef1", "snap-0123456789abcdef2"
REPOSITORIES = "var/opt/gitlab/git-data/repositories"
LEFT_BY_PROCESSES = (
    "var/opt/gitlab/postgresql/data/postmaster.pid",
    "var/opt/gitlab/postgresql/.s.PGSQL.5432.lock",
    f"{REPOSITORIES}/@hashed/6b/86/one.git/refs/heads/main.lock",
    f"{REPOSITORIES}/@hashed/6b/86/one.git/packed-refs.lock",
    f"{REPOSITORIES}/@pools/ab/cd/two.git/objects/info/commit-graphs/commit-graph-chain.lock",
)
OF_THE_ORIGINAL = (
    "var/opt/gitlab/redis/dump.rdb",
    "var/opt/gitlab/redis/appendonlydir/appendonly.aof.1.incr.aof",
    TOKEN_KEY.lstrip("/"),
    TOKEN_CERTIFICATE.lstrip("/"),
)
KEPT = (
    "var/opt/gitlab/postgresql/data/PG_VERSION",
    f"{REPOSITORIES}/@hashed/6b/86/one.git/refs/heads/main",
    f"{REPOSITORIES}/@hashed/6b/86/one.git/refs/heads/fix.locked",
    f"{REPOSITORIES}/@hashed/6b/86/one.git/objects/6b/0123456789abcdef",
    "var/opt/gitlab/redis/redis.conf",
    "var/opt/gitlab/gitlab-rails/shared/artifacts/poetry.lock",
    "etc/gitlab/gitlab-secrets.json",
    "etc/gitlab/gitlab.rb",
)


class Machine:
    """A machine whose GitLab is not installed, with a data volume that was created from a snapshot."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools = folder / "bin"
        self.tools.mkdir()
        (folder / "srv/gitlab").mkdir(parents=True)
        self.put("systemctl", "exit 3")  # inactive
        for name in (*LEFT_BY_PROCESSES, *OF_THE_ORIGINAL, *KEPT):
            self.write(name)

    def put(self, tool: str, text: str) -> None:
        (self.tools / tool).write_text(f"#!/bin/bash\n{text}\n")
        (self.tools / tool).chmod(0o755)

    def write(self, name: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(name)

    def has(self, *names: str) -> list[str]:
        return [name for name in names if (self.folder / name).exists()]

    def run(self, mode: str, snapshot: str = SNAPSHOT) -> subprocess.CompletedProcess[str]:
        text = re.sub(r"(?<![\w.])/(etc|srv|var)/", rf"{self.folder}/\1/", script("clean_restored_data.sh"))
        return run_with_tools(text, "clean_restored_data", [snapshot, mode], [], tools=self.tools, result="&2")

    @property
    def marker(self) -> Path:
        return self.folder / RESTORED_FROM.lstrip("/")


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_a_restore_removes_what_the_former_processes_left_and_nothing_else(machine):
    done = machine.run("restore")
    assert (done.returncode, done.stderr) == (0, f"removed 3 locks of git from the volume from {SNAPSHOT}\n")
    assert not machine.has(*LEFT_BY_PROCESSES)
    assert machine.has(*OF_THE_ORIGINAL, *KEPT) == [*OF_THE_ORIGINAL, *KEPT]
    assert machine.marker.read_text() == f"{SNAPSHOT}\n"


def test_a_drill_also_removes_the_queues_and_the_token_key_of_the_original(machine):
    assert machine.run("drill").returncode == 0
    assert not machine.has(*LEFT_BY_PROCESSES, *OF_THE_ORIGINAL)
    assert machine.has(*KEPT) == list(KEPT)


@pytest.mark.parametrize("mode", ["restore", "drill"])
def test_it_is_done_once_for_a_volume_and_never_again_while_gitlab_runs(machine, mode):
    assert machine.run(mode).returncode == 0
    running = [*LEFT_BY_PROCESSES, *OF_THE_ORIGINAL]
    for name in running:
        machine.write(name)
    machine.put("systemctl", "exit 0")
    again = machine.run(mode)
    assert (again.returncode, again.stderr) == (0, f"the volume from {SNAPSHOT} was cleaned before\n")
    assert machine.has(*running) == running


def test_a_backup_of_a_restored_stack_is_cleaned_after_its_own_restore(machine):
    machine.marker.write_text(f"{OTHER}\n")
    assert machine.run("restore").returncode == 0
    assert not machine.has(*LEFT_BY_PROCESSES)
    assert machine.marker.read_text() == f"{SNAPSHOT}\n"


def test_an_interrupted_step_leaves_no_mark_and_is_completed_by_the_next(machine):
    machine.put("find", 'echo "$1/half.lock"; exit 1')
    assert machine.run("drill").returncode != 0
    assert not machine.marker.exists()
    assert machine.has(*OF_THE_ORIGINAL) == list(OF_THE_ORIGINAL)
    (machine.tools / "find").unlink()
    assert machine.run("drill").returncode == 0
    assert not machine.has(*LEFT_BY_PROCESSES, *OF_THE_ORIGINAL)
    assert machine.marker.exists()


def test_data_of_a_running_gitlab_is_not_cleaned(machine):
    machine.put("systemctl", "exit 0")
    done = machine.run("drill")
    assert done.returncode == 1
    assert f"GitLab is running on the volume from {SNAPSHOT}" in done.stdout
    assert machine.has(*LEFT_BY_PROCESSES, *OF_THE_ORIGINAL) == [*LEFT_BY_PROCESSES, *OF_THE_ORIGINAL]
    assert not machine.marker.exists()


def test_a_volume_without_repositories_is_cleaned_too(machine):
    (machine.folder / REPOSITORIES).rename(machine.folder / "elsewhere")
    done = machine.run("restore")
    assert (done.returncode, done.stderr) == (0, f"removed 0 locks of git from the volume from {SNAPSHOT}\n")
