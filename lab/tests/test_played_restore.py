"""What a restore and a drill call of GitLab's stand-in: queries, checks, the console, and what must be silent."""

import contextlib
import hashlib
import http.server
import json
import re
import shutil
import socketserver
import sqlite3
import subprocess
import threading
import time
from typing import Any, ClassVar

import pytest

from lab.tests.gitlab_server import PROJECT, needed, server, wait_until
from programs.volume_backup import manifest

__all__ = ["server"]
pytestmark = needed

OF_THE_PROJECT = f"/api/v4/projects/{PROJECT.replace('/', '%2F')}"
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00"
JOB = "job: {script: 'true'}"


def commit(server, files, *, branch="main", expected=201):
    actions = [{"action": "create", "file_path": path, "content": text} for path, text in files.items()]
    body = {"branch": branch, "commit_message": "Change", "actions": actions}
    answer = server.ask("POST", f"{OF_THE_PROJECT}/repository/commits", body=body, Private_Token=server.secrets["api"])
    assert answer.status == expected, answer.body
    return answer.json


def upload(server, content):
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n%s\r\n--b--\r\n' % content
    connection = {"Private_Token": server.secrets["api"], "Content_Type": "multipart/form-data; boundary=b"}
    return server.ask("POST", f"{OF_THE_PROJECT}/uploads", body=body, **connection)


def psql(server, statement):
    done = server.run("gitlab-psql", "-d", "gitlabhq_production", "-At", "-c", statement)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def rake(server, task, **variables):
    done = server.run("gitlab-rake", task, *(f"{name}={value}" for name, value in variables.items()))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def repository(server, project=1):
    digest = hashlib.sha256(str(project).encode()).hexdigest()
    return server.root / f"var/opt/gitlab/git-data/repositories/@hashed/{digest[:2]}/{digest[2:4]}/{digest}.git"


def position(server):
    high, _, low = psql(server, "SELECT pg_current_wal_lsn()").partition("/")
    return int(high, 16) << 32 | int(low, 16)


@pytest.fixture(scope="module", autouse=True)
def filled(server):
    commit(server, {"README.md": "text\n"})
    assert upload(server, b"picture").status == 201


# The manifest of a backup


def test_the_backups_manifest_counts_what_is_there(server, monkeypatch):
    monkeypatch.setattr(manifest, "run", lambda *command, **_: psql(server, command[-1]))
    monkeypatch.setattr(manifest, "SECRETS", f"{server.root}/etc/gitlab/gitlab-secrets.json")
    # A step of the program makes the certificate; any file does here.
    monkeypatch.setattr(manifest, "TOKEN_CERTIFICATE", f"{server.root}/etc/gitlab/gitlab.rb")
    found = manifest.contents("server", "")
    assert found["problems"] == []
    assert found["tables"].keys() == set(manifest.TABLES)
    assert {name: found["tables"][name] for name in ("users", "projects", "uploads", "ci_runners", "issues")} == {
        "users": 1,
        "projects": 1,
        "uploads": 1,
        "ci_runners": 1,
        "issues": 0,
    }
    assert re.fullmatch(TIME, found["newest_event"])
    assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", found["wal_position"])


def test_every_write_extends_the_log_and_no_read_does(server):
    wait_until(lambda: queue_is_empty(server))  # Sidekiq protects the default branch after the first push
    before = position(server)
    assert position(server) == before
    commit(server, {"more": ""})
    after = position(server)
    assert after > before
    assert server.run("gitlab-ctl", "restart", "postgresql").returncode == 0
    wait_until(server.has_database)
    assert position(server) >= after


def test_a_push_is_the_newest_event(server):
    def newest():
        return psql(server, "SELECT created_at FROM events ORDER BY id DESC LIMIT 1")

    before = newest()
    commit(server, {"another": ""})
    assert newest() > before


def test_an_upload_is_a_file_and_a_row(server):
    answer = upload(server, b"text").json
    [secret, name] = answer["url"].split("/")[-2:]
    path = f"{OF_THE_PROJECT}/uploads/{secret}/{name}"
    assert server.get(path, Private_Token=server.secrets["api"]).body == b"text"
    assert (
        psql(server, f"SELECT checksum FROM uploads WHERE secret = '{secret}'") == hashlib.sha256(b"text").hexdigest()
    )


def dump(server, *arguments):
    return server.run("../embedded/bin/pg_dump", *arguments)


def test_a_dump_has_every_row_and_fails_on_a_corrupt_page(server):
    arguments = ("-h", "/var/opt/gitlab/postgresql", "gitlabhq_production")
    whole = dump(server, *arguments)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert whole.stdout.endswith("--\n-- PostgreSQL database dump complete\n--\n\n")
    assert "stack/acceptance" in whole.stdout
    assert dump(server, "gitlabhq_production").returncode == 1
    assert 'database "other" does not exist' in dump(server, *arguments[:2], "other").stderr
    with corrupt(server):
        damaged = dump(server, *arguments)
        assert damaged.returncode == 1
        assert damaged.stderr.startswith("pg_dump: error: query failed: ERROR:  ")
    assert dump(server, *arguments).returncode == 0


@contextlib.contextmanager
def corrupt(server):
    """Overwrite the table of projects in the database; repair it at the end."""
    file = server.root / "var/opt/gitlab/postgresql/data/base/gitlabhq_production.sqlite3"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [[page]] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'projects'").fetchall()
        [[size]] = connection.execute("PRAGMA page_size").fetchall()
    with file.open("r+b") as pages:
        pages.seek((page - 1) * size)
        kept = pages.read(size)
        pages.seek((page - 1) * size)
        pages.write(b"\xff" * size)
        pages.flush()
        try:
            yield
        finally:
            pages.seek((page - 1) * size)
            pages.write(kept)


# Checks of stored data


def verified(server, task):
    """Return the lines of a check of files, without the first and the last."""
    first, *lines, last = rake(server, f"gitlab:{task}:check", VERBOSE="1")
    assert (first.startswith("Checking integrity of "), last) == (True, "Done!")
    return lines


@contextlib.contextmanager
def flipped(file):
    """Flip the last bit of a file, and flip it again at the end."""

    def flip():
        content = file.read_bytes()
        file.chmod(0o600)
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    flip()
    yield
    flip()


def test_changed_and_lost_uploads_are_found(server):
    assert verified(server, "uploads")[0].endswith(": Failures: 0")
    [path] = psql(server, "SELECT path FROM uploads ORDER BY id LIMIT 1").splitlines()
    file = server.root / "var/opt/gitlab/gitlab-rails/uploads" / path
    with flipped(file):
        [batch, failure] = verified(server, "uploads")
        assert (batch[-11:], failure) == ("Failures: 1", "  - Upload: 1: Checksum mismatch")
    away = file.rename(file.with_name("away"))
    assert verified(server, "uploads")[1].startswith("  - Upload: 1: #<Errno::ENOENT: No such file")
    away.rename(file)


def test_checks_without_records_have_no_batch(server):
    assert verified(server, "lfs") == verified(server, "ci_secure_files") == []


def test_a_flipped_bit_in_a_repository_is_found(server):
    assert rake(server, "gitlab:git:fsck")[-2:] == ["Performed integrity check for stack/acceptance", "Done"]
    objects = sorted(file for file in (repository(server) / "objects").glob("??/*") if file.is_file())
    packs = sorted((repository(server) / "objects/pack").glob("*.pack"))
    with flipped([*objects, *packs][0]):
        *_, head, failure = [line for line in rake(server, "gitlab:git:fsck") if line.startswith(("The", "-"))]
        assert head == "The following repositories reported errors:"
        assert failure.startswith("- stack/acceptance on default: Could not fsck repository: ")
    away = repository(server).rename(repository(server).with_name("away"))
    assert rake(server, "gitlab:git:fsck")[-1] == "- stack/acceptance on default: 5:repository not found"
    away.rename(repository(server))


def test_the_installations_check_names_what_does_not_run(server):
    def lines():
        return rake(server, "gitlab:check", SANITIZE="true")

    well = lines()
    assert "Sidekiq: ... Running? ... yes" in well
    assert "Gitaly: ... default ... OK" in well
    assert "All migrations up? ... yes" in well
    assert well[-2:] == ["Checking GitLab subtasks ... Finished", ""]
    server.run("gitlab-ctl", "stop", "gitaly")
    assert "Gitaly: ... default ... FAIL: 14:connections to all backends failing" in lines()
    server.run("gitlab-ctl", "start", "gitaly")


@pytest.fixture
def job(server):
    """A job that is running, and the headers of requests with its token."""
    commit(server, {f"{time.monotonic_ns()}": "", **({} if has_configuration(server) else {".gitlab-ci.yml": JOB})})
    body = {"token": server.secrets["runner"], "system_id": "s_0123456789ab"}
    taken = server.ask("POST", "/api/v4/jobs/request", body=body)
    assert taken.status == 201
    yield taken.json
    finish(server, taken.json)


def has_configuration(server):
    path = f"{OF_THE_PROJECT}/repository/files/.gitlab-ci.yml/raw?ref=main"
    return server.get(path, Private_Token=server.secrets["api"]).status == 200


def finish(server, job, state="success"):
    server.ask("PUT", f"/api/v4/jobs/{job['id']}", body={"token": job["token"], "state": state})


def test_the_log_of_a_finished_job_is_an_artifact_with_a_checksum(server, job):
    path = f"/api/v4/jobs/{job['id']}/trace"
    server.ask("PATCH", path, body=b"log", JOB_TOKEN=job["token"], Content_Range="0-2")
    assert psql(server, f"SELECT count(*) FROM ci_job_artifacts WHERE job_id = {job['id']}") == "0"
    finish(server, job)
    assert psql(server, f"SELECT file_type, size FROM ci_job_artifacts WHERE job_id = {job['id']}") == "3|3"
    [file] = (server.root / "var/opt/gitlab/gitlab-rails/shared/artifacts").rglob(f"{job['id']}/*/job.log")
    assert file.read_text() == "log"
    assert verified(server, "artifacts")[0].endswith(": Failures: 0")
    with flipped(file):
        assert verified(server, "artifacts")[1].endswith(": Checksum mismatch")
    log = server.get(f"{OF_THE_PROJECT}/jobs/{job['id']}/trace", Private_Token=server.secrets["api"])
    assert log.body == b"log"


# The console


def test_the_console_finds_what_could_act_and_stops_it_without_services(server, job):
    server.console("Environment.create!(project_id: 1, name: 'e', auto_stop_at: 1.day.from_now)")
    at_rest = "status: %w[success failed canceled skipped manual]"
    found = server.console(
        f"""
        pipeline = Ci::Pipeline.where.not({at_rest}).order(:id).first
        job = CommitStatus.where.not({at_rest}).first
        same = pipeline.builds.find_by(name: 'job').id == job.id
        types = Ci::Runner.where(active: true).map(&:runner_type)
        puts JSON.generate([pipeline.status, pipeline.created_at.class, same, job.project_id, types])
        """
    )
    assert json.loads(found) == ["running", "Time", True, 1, ["instance_type"]]
    changed = server.console(
        f"""
        canceled = {{ status: 'canceled', finished_at: Time.current }}
        [CommitStatus, Ci::Pipeline].each {{ |model| puts model.where.not({at_rest}).update_all(canceled) }}
        [Ci::PendingBuild, Ci::RunningBuild].each(&:delete_all)
        puts Environment.where.not(auto_stop_at: nil).update_all(auto_stop_at: nil)
        """
    )
    assert changed.split() == ["1", "1", "1"]
    assert psql(server, "SELECT auto_stop_at FROM environments") == ""
    answer = server.get(f"{OF_THE_PROJECT}/jobs/{job['id']}", Private_Token=server.secrets["api"])
    assert answer.json["status"] == "canceled"
    shown = psql(server, "SELECT finished_at FROM ci_pipelines WHERE id = (SELECT max(id) FROM ci_pipelines)")
    assert re.fullmatch(TIME, shown)


def test_a_condition_that_is_negated_excludes_null(server):
    server.console("Environment.create!(project_id: 1)")
    assert server.console("puts Environment.where.not(name: 'x').map(&:name).include?(nil)") == "false"


def test_a_project_runner_only_takes_jobs_of_its_project(server):
    made = server.console(
        """
        about = { name: 'lonely', path: 'lonely', namespace_id: Group.find_by_full_path('stack').id }
        other = Projects::CreateService.new(User.first, about).execute
        service = Ci::Runners::CreateRunnerService
        params = { runner_type: 'project_type', description: 'copy', run_untagged: true, paused: false }
        puts service.new(user: User.first, params: params.dup).execute.message
        runner = service.new(user: User.first, params: { **params, scope: other }).execute.payload.fetch(:runner)
        puts runner.token, Ci::Runner.project_type.find_by(description: 'copy').runner_type
        puts Ci::Runner.instance_type.count
        """
    ).splitlines()
    assert (made[0], made[2:]) == ("Missing/invalid scope", ["project_type", "1"])
    assert made[1].startswith("glrt-t3_")
    commit(server, {f"{time.monotonic_ns()}": ""})
    statuses = [
        server.ask("POST", "/api/v4/jobs/request", body={"token": token, "system_id": "s_0"}).status
        for token in (made[1], server.secrets["runner"])
    ]
    assert statuses == [204, 201]


# What GitLab sends to others


class HttpSink(http.server.BaseHTTPRequestHandler):
    received: ClassVar[list[Any]] = []

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.headers["X-Gitlab-Event"], self.headers["X-Gitlab-Token"], json.loads(content)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class SmtpSink(socketserver.StreamRequestHandler):
    received: ClassVar[list[str]] = []

    def handle(self):
        self.wfile.write(b"220 sink\r\n")
        for line in self.rfile:
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 continue\r\n")
                self.received.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
            self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 sink\r\n")


@pytest.fixture(scope="module")
def sinks():
    """The ports of a web server and of a mail server."""
    servers = [socketserver.ThreadingTCPServer(("127.0.0.1", 0), sink) for sink in (HttpSink, SmtpSink)]
    for each in servers:
        each.daemon_threads = True
        threading.Thread(target=each.serve_forever, args=(0.05,)).start()
    yield [each.server_address[1] for each in servers]
    for each in servers:
        each.shutdown()
        each.server_close()


@pytest.fixture(scope="module")
def mailing(server, sinks):
    """GitLab with the mail server."""
    configure(server, sinks[1])


@pytest.fixture
def outgoing(server, mailing, sinks):
    """A webhook and a push mirror; the sinks are empty. Yields the mirror."""
    web, _ = sinks
    HttpSink.received.clear()
    SmtpSink.received.clear()
    server.console("Gitlab::CurrentSettings.update!(allow_local_requests_from_web_hooks_and_services: true)")
    post(server, "hooks", url=f"http://127.0.0.1:{web}/hook", token="of-the-hook")
    mirror = server.root / "mirror.git"
    subprocess.run(["git", "init", "--quiet", "--bare", mirror], check=True)
    post(server, "remote_mirrors", url=str(mirror), enabled=True)
    yield mirror
    wait_until(lambda: queue_is_empty(server))  # sidekiq pushes to the mirror
    server.console("Gitlab::CurrentSettings.update!(silent_mode_enabled: false)")
    for table in ("web_hooks", "remote_mirrors", "ci_pipeline_schedules"):
        psql(server, f"DELETE FROM {table}")
    shutil.rmtree(mirror)


def configure(server, mail, *, sidekiq=True):
    """Configure a mail server at this port. Later tests do not use it, and to remove it would restart GitLab."""
    lines = [f"sidekiq['enable'] = {str(sidekiq).lower()}"]
    lines += ["gitlab_rails['smtp_enable'] = true", "gitlab_rails['smtp_address'] = '127.0.0.1'"]
    lines += [f"gitlab_rails['smtp_port'] = {mail}", "gitlab_rails['gitlab_email_from'] = 'git@example.com'"]
    done = server.configure("\n".join(lines))
    assert done.returncode == 0, done.stdout
    wait_until(server.is_ready)


def post(server, path, **fields):
    answer = server.ask("POST", f"{OF_THE_PROJECT}/{path}", body=fields, Private_Token=server.secrets["api"])
    assert answer.status == 201, answer.body
    return answer.json


def pushed_to(mirror):
    done = subprocess.run(["git", "-C", mirror, "rev-parse", "main"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def fail_a_pipeline(server):
    body = {"token": server.secrets["runner"], "system_id": "s_0123456789ab"}
    while (taken := server.ask("POST", "/api/v4/jobs/request", body=body)).status == 201:
        finish(server, taken.json, "failed")


def queue_is_empty(server):
    dump = server.root / "var/opt/gitlab/redis/dump.rdb"
    return not any(json.loads(dump.read_text()).values()) if dump.exists() else True


def test_a_push_reaches_webhook_and_mirror_and_a_failed_pipeline_is_mailed(server, outgoing):
    sha = commit(server, {f"{time.monotonic_ns()}": ""})["id"]
    wait_until(lambda: HttpSink.received and pushed_to(outgoing) == sha)
    [(event, token, data)] = HttpSink.received
    assert (event, token, data["ref"], data["after"]) == ("Push Hook", "of-the-hook", "refs/heads/main", sha)
    fail_a_pipeline(server)
    wait_until(lambda: SmtpSink.received)
    assert "Subject: acceptance | Failed pipeline for main | " in SmtpSink.received[-1]
    assert "To: admin@example.com" in SmtpSink.received[-1]


def test_a_webhook_to_the_local_network_is_blocked_by_default(server, outgoing):
    server.console("Gitlab::CurrentSettings.update!(allow_local_requests_from_web_hooks_and_services: false)")
    sha = commit(server, {f"{time.monotonic_ns()}": ""})["id"]
    wait_until(lambda: pushed_to(outgoing) == sha and queue_is_empty(server))
    assert HttpSink.received == []


def test_in_silent_mode_nothing_is_sent_not_even_what_was_queued_before(server, outgoing, sinks):
    settings = "/api/v4/application/settings"
    configure(server, sinks[1], sidekiq=False)
    commit(server, {f"{time.monotonic_ns()}": ""})
    fail_a_pipeline(server)
    assert not queue_is_empty(server)
    silenced = server.ask("PUT", f"{settings}?silent_mode_enabled=true", Private_Token=server.secrets["api"])
    assert (silenced.status, silenced.json["silent_mode_enabled"]) == (200, True)
    assert server.console("puts Gitlab::SilentMode.enabled?") == "true"
    configure(server, sinks[1])
    wait_until(lambda: queue_is_empty(server))
    sha = commit(server, {f"{time.monotonic_ns()}": ""})["id"]
    fail_a_pipeline(server)
    wait_until(lambda: queue_is_empty(server))
    assert (HttpSink.received, SmtpSink.received) == ([], [])
    assert pushed_to(outgoing) != sha


def pushes():
    """Return the commits of the pushes that the webhook has reported."""
    return [data["after"] for _, _, data in HttpSink.received]


def test_without_sidekiq_jobs_wait_in_the_dump_of_redis_and_are_lost_with_it(server, outgoing):
    assert server.run("gitlab-ctl", "stop", "sidekiq").returncode == 0
    dump = server.root / "var/opt/gitlab/redis/dump.rdb"
    lost = commit(server, {f"{time.monotonic_ns()}": ""})["id"]
    server.run("gitlab-ctl", "stop", "redis")
    assert not queue_is_empty(server)
    kept = dump.read_text()
    dump.unlink()
    server.run("gitlab-ctl", "start", "redis")
    server.run("gitlab-ctl", "start", "sidekiq")
    later = commit(server, {f"{time.monotonic_ns()}": ""})["id"]
    wait_until(lambda: HttpSink.received and queue_is_empty(server))
    assert pushes() == [later]
    server.run("gitlab-ctl", "stop", "redis")
    dump.write_text(kept)
    server.run("gitlab-ctl", "start", "redis")
    wait_until(lambda: pushes() == [later, lost])


def test_a_schedule_that_is_due_creates_a_pipeline_while_sidekiq_runs_and_it_is_active(server, outgoing):
    def due(condition="1"):
        psql(server, f"UPDATE ci_pipeline_schedules SET next_run_at = '2020-01-01T00:00:00.000000Z' WHERE {condition}")

    def scheduled():
        return int(psql(server, "SELECT count(*) FROM ci_pipelines WHERE source = 'schedule'"))

    fields = {"description": "d", "ref": "main", "cron": "* * * * *"}
    made = post(server, "pipeline_schedules", **fields)
    assert (made["active"], made["next_run_at"] > made["created_at"]) == (True, True)
    answer = server.ask(
        "POST",
        f"{OF_THE_PROJECT}/pipeline_schedules",
        body={**fields, "cron": "x"},
        Private_Token=server.secrets["api"],
    )
    assert (answer.status, answer.json["message"]) == (400, {"cron": ["syntax is invalid"]})
    due()
    wait_until(lambda: scheduled() == 1)
    assert server.run("gitlab-ctl", "stop", "sidekiq").returncode == 0
    due()
    assert server.console("puts Ci::PipelineSchedule.where(active: true).update_all(active: false)") == "1"
    server.run("gitlab-ctl", "start", "sidekiq")
    commit(server, {f"{time.monotonic_ns()}": ""})
    wait_until(lambda: HttpSink.received)  # Sidekiq starts what is due before it executes a job
    assert scheduled() == 1
    assert server.console("puts Ci::PipelineSchedule.where(active: true).map(&:id).inspect") == "[]"


# A volume that was copied while GitLab ran


def test_a_stale_lock_file_of_postgresql_is_replaced_unless_a_process_has_its_number(server):
    file = server.root / "var/opt/gitlab/postgresql/data/postmaster.pid"
    log = server.root / "var/log/gitlab/postgresql/current"
    assert server.run("gitlab-ctl", "stop", "postgresql").returncode == 0
    assert not file.exists()
    with subprocess.Popen(["sleep", "60"]) as other:
        file.write_text(f"{other.pid}\n")
        before = log.read_text().count('lock file "postmaster.pid" already exists')
        server.run("gitlab-ctl", "start", "postgresql")
        wait_until(lambda: log.read_text().count('lock file "postmaster.pid" already exists') > before)
        other.kill()
    wait_until(server.has_database)
    wait_until(server.is_ready)


def test_a_branch_with_a_lock_file_refuses_pushes_until_it_is_removed(server):
    lock = repository(server) / "refs/heads/locked.lock"
    start = {"branch": "locked", "start_branch": "main", "commit_message": "m"}
    body = {**start, "actions": [{"action": "create", "file_path": f"{time.monotonic_ns()}", "content": ""}]}
    lock.touch()
    headers = {"Private_Token": server.secrets["api"]}
    refused = server.ask("POST", f"{OF_THE_PROJECT}/repository/commits", body=body, **headers)
    assert (refused.status, b"locked.lock" in refused.body) == (400, True)
    lock.unlink()
    assert server.ask("POST", f"{OF_THE_PROJECT}/repository/commits", body=body, **headers).status == 201


def test_a_changed_secrets_file_is_named_row_by_row(server):
    """Must be the last test: it leaves the server's tokens unreadable."""
    well = rake(server, "gitlab:doctor:secrets", VERBOSE="1")
    line = r"I, \[\S+ #\d+\]  INFO -- : "
    assert re.fullmatch(line + r"Total: 0 row\(s\) affected", well[-2])
    assert any(re.fullmatch(line + "- Ci::Runner failures: 0", each) for each in well)
    kept = server.root / "etc/gitlab/gitlab-secrets.json"
    kept.unlink()
    assert server.configure().returncode == 0
    found = rake(server, "gitlab:doctor:secrets", VERBOSE="1")
    assert re.search(r"Total: [1-9]\d* row\(s\) affected", found[-2])
    assert any(re.fullmatch(r"D, \[\S+ #\d+\] DEBUG -- :   - Ci::Runner\[1\]: token", each) for each in found)
