"""The checks of a restored copy: what they accept, and that each fails for what it must find."""

import ast
import base64
import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from typing import Any

import pytest

from configuration import paths
from configuration.flows import Place
from configuration.remote_step import PROGRAMS, REMOTE, script, step_input
from programs.restored_checks import commands, comparison, rake_output, registry_checks, server_checks
from programs.restored_checks.__main__ import main
from programs.restored_checks.outcomes import FailedCheckError
from programs.volume_backup import manifest
from recovery.copy_checks import LIMITS, restored_checks
from tests import rake_samples
from tests.check_runs import run_here
from tests.oldest_python import oldest_python

SOURCES = sorted((PROGRAMS / "restored_checks").glob("*.py"))


# Rake's output --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "text", "checked"),
    [
        (rake_output.secrets, rake_samples.SECRETS, "2 kinds of records"),
        (rake_output.repositories, rake_samples.FSCK, "2 projects"),
        (rake_output.repositories, "Done\n", "0 projects"),
        (rake_output.files, rake_samples.UPLOADS, ""),
        (rake_output.files, rake_samples.NO_FILES, ""),
        (rake_output.files, rake_samples.WITHOUT_CHECKSUM, "1 file without a checksum in GitLab"),
        (rake_output.system, rake_samples.SYSTEM, "18 results"),
    ],
)
def test_output_of_a_healthy_copy_passes(read, text, checked):
    assert read(text) == checked


@pytest.mark.parametrize(
    ("read", "text", "named"),
    [
        (rake_output.secrets, rake_samples.WRONG_SECRETS, "2 rows cannot be decrypted: .*Ci::Runner.3.: token"),
        (rake_output.repositories, rake_samples.WRONG_FSCK, "^shop/web on default: .*broken link.*"),
        (
            rake_output.files,
            rake_samples.WRONG_UPLOADS,
            "2 files: Upload: 3573: .*image.png.*; Upload: 3580: .*mismatch",
        ),
        (rake_output.files, rake_samples.UPLOADS.replace("Failures: 0\nDone", "Failures: 1\nDone"), "1 failure, .* 0"),
        (rake_output.system, rake_samples.SYSTEM.replace("up? ... yes", "up? ... no"), "All migrations up.: no"),
        (
            rake_output.system,
            rake_samples.SYSTEM.replace("default ... OK", "default ... FAIL: 14"),
            "default: FAIL: 14",
        ),
        (rake_output.system, rake_samples.SYSTEM.replace("... 1/1", "... 2/0\n  Please fix the error above"), "to fix"),
        (rake_output.system, rake_samples.SYSTEM.replace("check successful", "check failed"), "gitlab-shell"),
        (rake_output.system, rake_samples.SYSTEM.replace("Members? ... no", "Members? ... yes "), "Members.: yes"),
        (rake_output.system, rake_samples.SYSTEM.replace("users: ... 3", "users: ... 0"), "Active users:: 0"),
        (rake_output.system, rake_samples.SYSTEM.replace("Running? ... yes", "Running? ... Exception: x"), "Exception"),
    ],
)
def test_each_problem_fails_although_rake_exits_with_0_and_is_named(read, text, named):
    with pytest.raises(FailedCheckError, match=re.compile(named, re.DOTALL)):
        read(text)


@pytest.mark.parametrize("read", [rake_output.secrets, rake_output.repositories, rake_output.files, rake_output.system])
@pytest.mark.parametrize("text", ["", "Done\nand more", "rake aborted!\n", "Nothing to check\n"])
def test_output_that_is_not_understood_fails(read, text):
    with pytest.raises(FailedCheckError, match="not understood"):
        read(text)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (rake_output.secrets, rake_samples.SECRETS),
        (rake_output.repositories, rake_samples.FSCK),
        (rake_output.files, rake_samples.UPLOADS),
        (rake_output.system, rake_samples.SYSTEM),
    ],
)
def test_output_that_ends_early_fails(read, text):
    lines = text.strip().splitlines()
    for end in range(len(lines) - 1):
        if "Checking GitLab App ... Finished" in lines[:end]:
            break  # only the end of the whole is missing
        with pytest.raises(FailedCheckError):
            read("\n".join(lines[:end]))


def test_mail_and_directories_which_a_silenced_copy_does_not_reach_are_not_judged():
    text = rake_samples.SYSTEM.replace("LDAP is disabled in config/gitlab.yml", "Could not connect to the LDAP server")
    assert rake_output.system(text.replace("Reply by email is disabled", "IMAP server ... no\n")) == "18 results"


# The machines ---------------------------------------------------------------------------------------------------------

COUNTS = {"users": 3, "projects": 2}
DIGEST = "gitlab-stack/acceptance/acceptance:7@sha256:" + "ab" * 32
CONSOLE: dict[str, Any] = {
    "silentMode": True,
    "schedules": [],
    "jobs": [],
    "runners": [],
    "canary": {"pipeline": 7, "log": 1893, "pushed": DIGEST},
}


class Copy:
    """A silenced, complete copy, until a test changes it. Its commands print files of `folder`."""

    def __init__(self, folder, monkeypatch) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self.rake("gitlab:doctor:secrets", rake_samples.SECRETS)
        self.rake("gitlab:git:fsck", rake_samples.FSCK)
        for kind in ("uploads", "lfs", "artifacts", "ci_secure_files"):
            self.rake(f"gitlab:{kind}:check", rake_samples.NO_FILES)
        self.rake("gitlab:check", rake_samples.SYSTEM)
        self.tool("gitlab-rake", f"cd {folder}; cat $1; [ ! -e $1.errors ] || {{ cat $1.errors >&2; exit 1; }}")
        self.tool(
            "gitlab-psql", f'case "$*" in *count*) f=counts ;; *events*) f=event ;; *) f=wal ;; esac; cat {folder}/$f'
        )
        self.tool("gitlab-rails", f"echo 'a warning'; cat {folder}/console")
        self.tool("runuser", f"cat {folder}/dump")
        self.tool("ip", "echo 'RTNETLINK answers: No route to host' >&2; exit 2")
        self.tool("registry-tree", f"cat {folder}/verified; exit $(cat {folder}/verified.status)")
        self.console()
        self.put("counts", "".join(f"{table}|{count}\n" for table, count in COUNTS.items()))
        self.put("event", "2026-11-27 22:59:58.5\n")
        self.put("wal", "1/0\n")
        self.put("dump", "--\n-- PostgreSQL database dump complete\n--\n\n")
        self.put("certificate", "new")
        self.put("secrets", '{"registry": {"internal_key": "new"}, "gitlab_rails": {"db_key_base": "0a"}}')
        for volume in ("server", "registry"):
            (folder / volume).mkdir()
        self.manifest()
        self.put(f"registry/{manifest.NAME}", '{"blobs": 2}')
        self.verified()
        for name in ("aa", "bb"):
            (folder / "registry" / manifest.BLOBS / name[:2] / name).mkdir(parents=True)
        (folder / "repositories").mkdir()
        (folder / "if_inet6").touch()
        monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
        # The machine that runs the tests may have no user `git`.
        monkeypatch.setattr(pwd, "getpwnam", lambda name: pwd.getpwuid(0))
        for module, attribute, name in (
            (manifest, "SECRETS", "secrets"),
            (manifest, "TOKEN_CERTIFICATE", "certificate"),
            (server_checks, "MOUNTPOINT", "server"),
            (server_checks, "REPOSITORIES", "repositories"),
            (server_checks, "IPV6", "if_inet6"),
            (registry_checks, "MOUNTPOINT", "registry"),
        ):
            monkeypatch.setattr(module, attribute, str(folder / name))
        monkeypatch.setattr(server_checks, "GIT", "git")

    def put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def tool(self, name: str, text: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)

    def rake(self, task: str, text: str, errors: str = "") -> None:
        self.put(task, text)
        if errors:
            self.put(f"{task}.errors", errors)

    def console(self, **changes: Any) -> None:
        self.put("console", json.dumps({**CONSOLE, **changes}))

    def verified(self, status: int = 0, **changes: Any) -> None:
        self.put("verified", json.dumps({"tags": 1, "blobs": 2, "damage": [], **changes}))
        self.put("verified.status", str(status))

    def made(self) -> dict[str, Any]:
        """The manifest, as the server's backup writes it."""
        return {
            "written_at": "2026-11-27T23:00:00+00:00",
            "tables": dict(COUNTS),
            "newest_event": "2026-11-27 22:59:58",
            "wal_position": "0/FF000060",
            "rails_secrets_sha256": hashlib.sha256(b'{"db_key_base": "0a"}').hexdigest(),
            "token_certificate_sha256": hashlib.sha256(b"former").hexdigest(),
            "problems": [],
        }

    def manifest(self, **changes: Any) -> None:
        self.put(f"server/{manifest.NAME}", json.dumps({**self.made(), **changes}))

    def task(self) -> dict[str, Any]:
        limits = {check: 5 for each in LIMITS.values() for check in each}
        return {"limits": limits, "project": "gitlab-stack/acceptance", "runner_name": "r", "console": "the program"}

    def lines(self, machine: str = "server") -> list[dict[str, Any]]:
        task = base64.b64encode(json.dumps(self.task()).encode()).decode()
        status, out, _ = run_here(lambda: main(machine), task + "\n")
        lines = [json.loads(line) for line in out.splitlines()]
        assert status == int(any(line.get("state") == "broken" for line in lines))
        return lines

    def fails(self, check: str) -> str:
        """The message of the check that fails; all others pass."""
        machine = "registry" if check in LIMITS[Place.REGISTRY] else "server"
        broken = {line["check"]: line["detail"] for line in self.lines(machine) if line.get("state") == "broken"}
        assert list(broken) == [check]
        return str(broken[check])


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Copy:
    return Copy(tmp_path, monkeypatch)


@pytest.mark.parametrize("machine", ["server", "registry"])
def test_a_complete_and_silenced_copy_passes_every_check(copy, machine):
    lines = copy.lines(machine)
    assert [line["check"] for line in lines if "check" in line] == list(LIMITS[machine])
    assert all(line["state"] == "ok" for line in lines if "check" in line)
    if machine == "server":
        assert lines[-1] == {"facts": {"newest_event": "2026-11-27 22:59:58", "canary": DIGEST}}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"silentMode": False}, "Silent Mode is off"),
        ({"silentMode": None}, "Silent Mode is off"),
        ({"schedules": [3]}, "active schedules: 3"),
        ({"jobs": [8, 9]}, "active jobs: 8; 9"),
        ({"runners": [1]}, "active runners: 1"),
    ],
)
def test_a_copy_that_can_act_is_found(copy, changes, named):
    copy.console(**changes)
    assert copy.fails("silence") == named


def test_a_copy_whose_egress_is_open_is_found(copy):
    copy.tool("ip", 'echo "$4 via 10.0.0.1 dev eth0 uid $6"')
    assert copy.fails("egress") == "GitLab's user can reach 192.0.2.1: 192.0.2.1 via 10.0.0.1 dev eth0 uid 0"


def test_egress_by_ipv6_is_found_unless_the_kernel_has_none(copy):
    refused = "{ echo 'RTNETLINK answers: Network is unreachable' >&2; exit 2; }"
    copy.tool("ip", f'[ $1 = -6 ] || {refused}; echo "$4 dev eth0"')
    assert copy.fails("egress") == "GitLab's user can reach 2001:db8::1: 2001:db8::1 dev eth0"
    (copy.folder / "if_inet6").unlink()
    copy.tool("ip", f"[ $1 = -6 ] && exit 1; {refused}")
    assert all(line["state"] == "ok" for line in copy.lines() if "check" in line)


def test_an_ip_that_fails_for_another_reason_does_not_count_as_refused(copy):
    copy.tool("ip", "echo 'Error: argument \"uid\" is wrong' >&2; exit 1")
    assert "not understood" in copy.fails("egress")


def test_the_token_key_of_production_is_found(copy):
    copy.put("certificate", "former")
    assert "production accepts" in copy.fails("token-key")


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("counts", "users|3\nprojects|1\n", "projects has 1 of 2 rows"),
        ("counts", "users|1\nprojects|2\n", "users has 1 of 3 rows"),
        ("counts", "users|3\n", "projects has 0 of 2 rows"),
        ("event", "2026-11-27 22:59:57.9\n", "the newest event is of 2026-11-27 22:59:57.9, in the manifest of"),
        ("event", "", "the newest event is of no time"),
        ("wal", "0/FE000060\n", "ends at 0/FE000060, in the manifest at 0/FF000060"),
        ("wal", "", "ValueError"),
    ],
)
def test_a_database_that_lost_something_is_found(copy, file, text, named):
    copy.put(file, text)
    assert named in copy.fails("contents")


def test_the_user_that_the_acceptance_of_the_copy_deleted_is_not_missed(copy):
    copy.manifest(tables={"users": 3, "events": 9, "projects": 2})
    copy.put("counts", "users|2\nevents|8\nprojects|2\n")
    assert all(line["state"] == "ok" for line in copy.lines() if "check" in line)
    copy.put("counts", "users|2\nevents|7\nprojects|2\n")
    assert copy.fails("contents") == "events has 7 of 9 rows"


def test_a_manifest_without_the_facts_of_a_stopped_gitlab_fails_with_the_reason(copy):
    copy.manifest(tables=None, problems=["rows of tables: connection refused"])
    assert copy.fails("contents") == "the manifest does not contain tables: rows of tables: connection refused"


def test_what_the_program_of_backups_writes_is_what_the_checks_find(copy):
    copy.manifest(**manifest.contents("server", ""))
    assert "production accepts" in copy.fails("token-key")
    written = manifest.contents("registry", str(copy.folder / "registry"))
    copy.put(f"registry/{manifest.NAME}", json.dumps(written))
    assert [line["detail"] for line in copy.lines("registry")][1] == "2, at the time of the backup 2"


def test_the_queries_of_a_check_may_take_as_long_as_the_check(copy):
    copy.tool("gitlab-psql", f'echo "$PGOPTIONS" >>{copy.folder}/options')
    copy.lines()
    assert {*(copy.folder / "options").read_text().splitlines()} == {"-c statement_timeout=5s"}


def test_a_gitlab_that_is_stopped_fails_with_its_message(copy):
    copy.tool("gitlab-psql", "echo 'psql: error: connection refused' >&2; exit 2")
    assert copy.fails("contents") == "rows of tables: gitlab-psql -d failed: psql: error: connection refused"


def test_other_keys_than_in_the_backup_are_found(copy):
    copy.put("secrets", '{"gitlab_rails": {"db_key_base": "0b"}}')
    assert "other keys" in copy.fails("secrets-file")


@pytest.mark.parametrize(
    ("task", "text", "check"),
    [
        ("gitlab:doctor:secrets", rake_samples.WRONG_SECRETS, "secrets"),
        ("gitlab:git:fsck", rake_samples.WRONG_FSCK, "repositories"),
        ("gitlab:uploads:check", rake_samples.WRONG_UPLOADS, "uploads"),
        ("gitlab:lfs:check", rake_samples.WRONG_UPLOADS, "lfs"),
        ("gitlab:artifacts:check", rake_samples.WRONG_UPLOADS, "artifacts"),
        ("gitlab:ci_secure_files:check", rake_samples.WRONG_UPLOADS, "secure-files"),
        ("gitlab:check", rake_samples.SYSTEM.replace("up? ... yes", "up? ... no"), "system"),
    ],
)
def test_each_rake_task_is_read(copy, task, text, check):
    copy.rake(task, text)
    assert copy.fails(check)


def test_a_rake_task_that_is_aborted_fails_with_its_reason(copy):
    copy.rake("gitlab:git:fsck", rake_samples.FSCK, "rake aborted!\nPG::ConnectionBad: could not connect\n")
    assert copy.fails("repositories").endswith("exit status 1: rake aborted! / PG::ConnectionBad: could not connect")


def test_a_gitlab_without_a_check_of_secure_files_skips_it_and_says_so(copy):
    copy.rake("gitlab:ci_secure_files:check", "", rake_samples.NO_SUCH_TASK)
    [line] = [line for line in copy.lines() if line.get("check") == "secure-files"]
    assert (line["state"], line["detail"][:8]) == ("ok", "skipped:")


def test_a_dump_that_fails_or_ends_early_is_found(copy):
    copy.tool("runuser", "echo '-- PostgreSQL database dump complete'; echo 'pg_dump: error: invalid page' >&2; exit 1")
    assert copy.fails("database").endswith("exit status 1: pg_dump: error: invalid page")
    copy.tool("runuser", "echo 'COPY public.users'")
    assert "not complete" in copy.fails("database")


def test_a_flipped_byte_in_a_wiki_is_found_and_projects_are_left_to_gitlab(copy):
    hashed = copy.folder / "repositories/@hashed/ab/cd"
    hashed.mkdir(parents=True)
    (hashed / f"{'ab' * 32}.git").mkdir()  # no repository at all: GitLab's own check reports it
    (copy.folder / "repositories/+gitaly/tmp/x.git").mkdir(parents=True)
    wiki = hashed / f"{'ab' * 32}.wiki.git"
    git = ["git", "--git-dir", str(wiki)]
    subprocess.run([*git, "init", "--quiet", "--bare"], check=True)
    done = subprocess.run([*git, "hash-object", "-w", "--stdin"], input=b"text", capture_output=True, check=True)
    name = done.stdout.decode().strip()
    assert [line["detail"] for line in copy.lines() if line.get("check") == "other-repositories"] == ["1 repository"]
    blob = wiki / "objects" / name[:2] / name[2:]
    blob.chmod(0o600)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert f"{'ab' * 32}.wiki.git: " in copy.fails("other-repositories")


def test_a_job_log_without_its_image_is_found(copy):
    copy.console(canary={"pipeline": 7, "log": 0, "pushed": None})
    assert copy.fails("job-log") == "the log of the acceptance's pipeline 7 has 0 bytes and names no image"


def test_a_console_without_a_result_fails_the_checks_that_need_it_and_no_other(copy):
    copy.put("console", "PG::ConnectionBad")
    broken = [line["check"] for line in copy.lines() if line.get("state") == "broken"]
    assert broken == ["silence", "job-log"]


def test_a_wrong_blob_is_found_and_named(copy):
    damage = {"kind": "wrong digest", "path": "blobs/sha256/ab/abcd/data", "detail": "has another content"}
    copy.verified(status=1, damage=[damage])
    assert copy.fails("images") == "wrong digest: blobs/sha256/ab/abcd/data: has another content"


@pytest.mark.parametrize(("status", "text"), [(0, "no problems found"), (0, ""), (0, "{}"), (2, "{}")])
def test_a_registry_tree_that_is_not_understood_fails(copy, status, text):
    copy.verified(status)
    copy.put("verified", text)
    assert re.search("not understood|could not check", copy.fails("images"))


def test_a_registry_tree_that_fails_without_a_problem_is_not_understood(copy):
    copy.verified(status=1)
    assert "not understood" in copy.fails("images")


def test_missing_blobs_are_counted(copy):
    copy.put(f"registry/{manifest.NAME}", '{"blobs": 3}')
    assert copy.fails("blobs") == "2 of 3 blobs"


def test_a_copy_without_blobs_is_found(copy):
    shutil.rmtree(copy.folder / "registry/images")
    assert copy.fails("blobs") == "0 of 2 blobs"


def test_a_volume_without_a_manifest_is_named(copy):
    file = copy.folder / "registry" / manifest.NAME
    file.write_text("[1]")
    assert copy.fails("blobs").startswith(f"{file} is not a manifest: ")
    file.unlink()
    assert copy.fails("blobs") == f"{file}: No such file or directory"


def test_a_command_that_takes_too_long_is_killed_with_what_it_started(tmp_path):
    with pytest.raises(FailedCheckError, match=r"did not finish within 0\.1 s"):
        commands.run("bash", "-c", f"(sleep 0.2; touch {tmp_path}/continued) & wait", limit=0.1)
    time.sleep(0.3)
    assert not (tmp_path / "continued").exists()


# What the programs have in common -------------------------------------------------------------------------------------


def test_positions_in_the_write_ahead_log_are_compared_as_numbers():
    assert comparison.wal_bytes("A/0") > comparison.wal_bytes("9/FFFFFFFF") > comparison.wal_bytes("9/1")


def test_the_volumes_are_those_of_the_paths():
    assert (server_checks.MOUNTPOINT, registry_checks.MOUNTPOINT) == (paths.GITLAB_DATA, paths.REGISTRY_DATA)


@pytest.mark.parametrize("python", [lambda: sys.executable, oldest_python], ids=["this Python", "Python 3.6"])
def test_the_zipapp_runs_and_its_input_fits_into_the_buffer_of_a_pipe(tmp_path, copy, python):
    program, task = restored_checks(), json.dumps(copy.task())
    assert len(step_input(script("run_checks.sh"), [program, task + script("inspect_copy.rb")])) < 65536
    (tmp_path / "program").write_bytes(program)
    encoded = base64.b64encode(task.encode())
    command = [python(), str(tmp_path / "program"), "registry"]
    done = subprocess.run(command, input=encoded, capture_output=True, check=False)
    assert [json.loads(line)["check"] for line in done.stdout.splitlines()] == list(LIMITS[Place.REGISTRY]), done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_it_compiles_for_python_3_6_and_imports_only_the_standard_library(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1 or node.module == "typing" or str(node.module).startswith("programs.volume_backup")


# The program for GitLab's console -------------------------------------------------------------------------------------

MODELS = """
require 'json'
class Rows < Array
  def where(conditions = nil)
    return self unless conditions
    Rows.new(select { |row| conditions.all? { |key, value| [*value].include?(row[key]) } })
  end
  def not(conditions) = Rows.new(reject { |row| conditions.all? { |key, value| [*value].include?(row[key]) } })
  def order(key) = Rows.new(sort_by { |row| row[key] })
  def find_by(conditions) = where(conditions).first
end
DATA_ = JSON.parse(ENV.fetch('COPY'), symbolize_names: true)
Row = Struct.new(:id, :project_id, :status, :active, :description, :runner_type, :created_at, :builds, :name, :log,
                 keyword_init: true) do
  def trace = Struct.new(:raw).new(log)
end
ROWS = Hash.new { |_, table| Rows.new(DATA_.fetch(table, []).map { |row| Row.new(**row) }) }
ROWS[:pipelines] = Rows.new(ROWS[:pipelines].each { |row|
  row.created_at = Time.parse(row.created_at)
  row.builds = Rows.new(row.builds.map { |job| Row.new(**job) })
})
module Ci
  module HasStatus; AVAILABLE_STATUSES = %w[created pending running success failed canceled skipped manual]; end
  Runner, PipelineSchedule, Pipeline = ROWS[:runners], ROWS[:schedules], ROWS[:pipelines]
end
CommitStatus = ROWS[:jobs]
Project = Class.new { def self.find_by_full_path(_) = DATA_[:project] && Row.new(id: 1) }
ApplicationSetting = Struct.new(:silent_mode_enabled) { def self.current_without_cache = new(DATA_[:silent]) }
"""
BEFORE = "2026-11-27T23:00:00+00:00"


def pipeline(number: int, created_at: str, log: str, status: str = "success") -> dict[str, Any]:
    jobs = [{"name": "pull", "log": "check pull ok 0.1"}, {"name": "push", "log": log}]
    return {"id": number, "project_id": 1, "status": status, "created_at": created_at, "builds": jobs}


def inspect(tmp_path, **copy: Any) -> dict[str, Any]:
    (tmp_path / "models.rb").write_text("require 'time'\n" + MODELS)
    command = ["ruby", "--disable=gems", "-r", str(tmp_path / "models.rb"), str(REMOTE / "inspect_copy.rb")]
    done = subprocess.run(
        [*command, "gitlab-stack/acceptance", "the-runner", BEFORE],
        env={**os.environ, "COPY": json.dumps({"silent": True, "project": True, **copy})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.needs("ruby")
def test_only_what_can_act_on_its_own_is_reported_and_the_acceptance_of_the_copy_is_not(tmp_path):
    own = {"active": True, "description": "the-runner", "runner_type": "project_type"}
    found = inspect(
        tmp_path,
        schedules=[{"id": 1, "active": False}, {"id": 2, "active": True}],
        jobs=[
            *({"id": number, "project_id": 2, "status": status} for number, status in enumerate(("manual", "pending"))),
            {"id": 7, "project_id": 1, "status": "running"},
        ],
        runners=[
            {"id": 1, **own},
            {"id": 2, **own, "runner_type": "instance_type"},
            {"id": 3, **own, "description": None},
            {"id": 4, **own, "active": False},
        ],
        pipelines=[
            pipeline(5, "2026-11-27T22:00:00Z", "x\ncheck push ok 0.20 group/acceptance:5@sha256:ab\r\n"),
            pipeline(6, "2026-11-27T22:30:00Z", "check push broken", status="failed"),
            pipeline(9, "2026-11-28T03:00:00Z", "check push ok 0.20 group/acceptance:9@sha256:cd"),
        ],
    )
    assert (found["silentMode"], found["schedules"], found["jobs"], found["runners"]) == (True, [2], [1], [2, 3])
    assert found["canary"] == {"pipeline": 5, "log": 51, "pushed": "group/acceptance:5@sha256:ab"}


@pytest.mark.needs("ruby")
def test_a_copy_without_a_pipeline_before_the_backup_has_no_canary(tmp_path):
    later = pipeline(9, "2026-11-28T03:00:00Z", "check push ok 0.20 group/acceptance:9@sha256:cd")
    assert inspect(tmp_path, pipelines=[later])["canary"] is None
    assert inspect(tmp_path, project=None, silent=False) == {
        "silentMode": False,
        "schedules": [],
        "jobs": [],
        "runners": [],
        "canary": None,
    }
