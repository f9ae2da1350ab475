"""The stand-in for GitLab as a whole, through the interfaces of the real one: nginx, SSH, commands and files."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from configuration import gitlab_settings
from configuration.gitlab_rb import render_gitlab_rb
from configuration.gitlab_settings import in_a_new_gitlab
from lab.tests.gitlab_server import (
    CLIENT,
    PASSWORD,
    PROJECT,
    RAILS,
    REGISTRIES,
    Answer,
    Server,
    free_port,
    install,
    needed,
    proxy_header,
    registry,
    running,
    supervision,
    wait_until,
)
from lab.workspace import ROOT
from programs.acceptance_checks.gitlab_project import BRANCH
from tests import certificates
from tests.e2e import people
from tests.test_settings import load

pytestmark = needed


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(ssh=free_port()) as machine:
        yield machine


# HTTP from outside


def test_the_sign_in_page(server):
    assert server.get("/users/sign_in").status == 200


@pytest.mark.parametrize("path", ["/-/readiness", "/-/liveness", "/-/health"])
def test_monitoring_is_for_addresses_on_the_allow_list(server, path):
    assert server.get(path, client=None).status == 200
    assert server.get(path).status == 404
    assert server.get(path, X_Forwarded_For="127.0.0.1").status == 404


def test_nginx_answers_proxy_connections_only(server):
    with socket.create_connection(("127.0.0.1", server.http)) as connection:
        connection.sendall(b"GET /users/sign_in HTTP/1.0\r\n\r\n")
        assert connection.recv(64) == b""


def test_the_logs_have_the_clients_own_address(server):
    server.get("/users/sign_in?private_token=secret-of-mine", client="198.51.100.9")
    access = server.root / "var/log/gitlab/nginx/gitlab_access.log"
    production = server.root / "var/log/gitlab/gitlab-rails/production_json.log"
    # A line is written after the response has been sent.
    wait_until(lambda: "198.51.100.9 - - " in access.read_text())
    wait_until(lambda: '"remote_ip": "198.51.100.9"' in production.read_text())
    assert "secret-of-mine" not in access.read_text() + production.read_text()


# Git over SSH


@pytest.mark.parametrize(
    "header",
    [b"", proxy_header(None), proxy_header(CLIENT)],
    ids=["none", "without a client", "with a client"],
)
def test_the_ssh_banner_with_and_without_proxy_header(server, header):
    with socket.create_connection(("127.0.0.1", server.ssh), timeout=5) as connection:
        connection.sendall(header + b"SSH-2.0-test\r\n")
        assert connection.recv(64).startswith(b"SSH-2.0-GitLab-SSHD")


def test_a_late_proxy_header_is_read_as_ssh_data(server):
    with socket.create_connection(("127.0.0.1", server.ssh), timeout=5) as connection:
        waited = time.monotonic()
        assert connection.recv(64).startswith(b"SSH-2.0-GitLab-SSHD")
        assert time.monotonic() - waited > 0.4  # proxy_header_timeout is 500 ms
        connection.sendall(proxy_header(CLIENT) + b"SSH-2.0-test\r\n")
        assert b"curve25519" not in b"".join(iter(lambda: connection.recv(4096), b""))  # no key exchange


def test_an_unknown_key_is_refused(server, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", tmp_path / "key"], check=True)
    options = [
        "StrictHostKeyChecking=no",
        f"UserKnownHostsFile={tmp_path}/hosts",
        "BatchMode=yes",
        "IdentityAgent=none",
    ]
    command = ["ssh", "-F", "none", "-i", tmp_path / "key", "-p", str(server.ssh)]
    for option in options:
        command += ["-o", option]
    done = subprocess.run([*command, "git@127.0.0.1"], capture_output=True, text=True, check=False)
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr
    public = (server.root / "var/opt/gitlab/gitlab-sshd/ssh_host_ed25519_key.pub").read_text().split()[1]
    assert public in (tmp_path / "hosts").read_text()


# Tokens for the registry


def claims(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
    return json.loads(header), json.loads(payload)


def granted(answer: Answer) -> list[tuple[str, list[str]]]:
    return [(access["name"], access["actions"]) for access in claims(answer.json["token"])[1]["access"]]


def test_a_token_for_the_registry_says_what_was_asked_for_and_is_allowed(server):
    answer = server.token("root", PASSWORD, f"repository:{PROJECT}/image:pull,push")
    assert granted(answer) == [(f"{PROJECT}/image", ["pull", "push"])]
    header, payload = claims(answer.json["token"])
    assert set(header) == {"typ", "alg", "kid"}
    assert (payload["iss"], payload["aud"]) == ("omnibus-gitlab-issuer", "container_registry")
    assert payload["exp"] - payload["iat"] == 300


@pytest.mark.parametrize("program", REGISTRIES, ids=os.path.basename)
def test_the_registry_takes_the_programs_configuration_and_gitlabs_tokens(server, program, tmp_path):
    def ask(method: str, path: str, *scopes: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(address, timeout=10)
        token = server.token("any", server.secrets["api"], *scopes).json["token"] if scopes else None
        connection.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse()

    with registry(program, server.certificate, tmp_path) as address:
        assert ask("GET", "/").status == 200
        refused = ask("GET", "/v2/")
        assert refused.status == 401
        challenge = 'Bearer realm="http://203.0.113.16/jwt/auth",service="container_registry"'
        assert refused.getheader("Www-Authenticate") == challenge
        uploads = f"/v2/{PROJECT}/blobs/uploads/"
        assert ask("POST", uploads).status == 401
        assert ask("POST", uploads, f"repository:{PROJECT}:pull").status == 401
        assert ask("POST", uploads, f"repository:{PROJECT}:pull,push").status == 202
        assert ask("POST", "/v2/stack/another/blobs/uploads/", "repository:stack/another:pull,push").status == 401


def test_a_path_without_a_project_grants_nothing(server):
    for path in ("stack/none", "nowhere/at/all", "acceptance"):
        assert granted(server.token("root", PASSWORD, f"repository:{path}:pull,push")) == []
    assert granted(server.token("root", PASSWORD, f"repository:{PROJECT}:pull,push")) == [(PROJECT, ["pull", "push"])]


@pytest.mark.parametrize(("user", "password"), [("root", "wrong"), ("root", ""), ("nobody", PASSWORD)])
def test_wrong_credentials_get_no_token(server, user, password):
    answer = server.token(user, password)
    assert answer.status == 401
    assert answer.json["errors"][0]["code"] == "UNAUTHORIZED"


def test_an_anonymous_client_gets_no_token_and_post_has_no_route(server):
    assert server.get("/jwt/auth?service=container_registry").status == 403
    assert server.ask("POST", "/jwt/auth?service=container_registry", body={}).status == 404
    assert server.token("root", PASSWORD).status == 200
    assert server.get("/jwt/auth?service=other").status == 404


def test_reconfigure_overwrites_a_key_at_registry_key_path(server):
    def key_id() -> str:
        return str(claims(server.token("root", PASSWORD).json["token"])[0]["kid"])

    own, before = server.key_path.read_text(), key_id()
    subprocess.run(["openssl", "genrsa", "-out", server.key_path, "1024"], check=True, capture_output=True)
    assert key_id() != before
    assert server.configure().returncode == 0
    assert server.key_path.read_text() == own
    assert key_id() == before


# Runners


def test_a_paused_runner_gets_no_job_and_a_wrong_token_is_rejected(server):
    body = {"token": server.secrets["runner"], "system_id": "s_0123456789ab", "info": {"version": "17.10.1"}}
    assert server.ask("POST", "/api/v4/runners/verify", body=body).json["token"] == server.secrets["runner"]
    assert server.ask("POST", "/api/v4/jobs/request", body=body).status == 204
    server.console("Ci::Runner.instance_type.find_by(description: 'r').update!(active: false)")
    assert server.ask("POST", "/api/v4/jobs/request", body=body).status == 204
    server.console("Ci::Runner.instance_type.find_by(description: 'r').update!(active: true)")
    wrong = {**body, "token": "glrt-t1_wrong"}
    for path in ("runners/verify", "jobs/request"):
        assert server.ask("POST", f"/api/v4/{path}", body=wrong).status == 403


def test_a_runner_is_deleted_by_its_token(server):
    create = "Ci::Runners::CreateRunnerService.new(user: User.first, params: { runner_type: 'instance_type' }).execute"
    token = server.console(f"puts {create}.payload.fetch(:runner).token")
    assert server.ask("DELETE", "/api/v4/runners", body={"token": token}).status == 204
    assert server.ask("DELETE", "/api/v4/runners", body={"token": token}).status == 403


# The API

OF_THE_PROJECT = f"/api/v4/projects/{PROJECT.replace('/', '%2F')}"


def test_the_api_requires_a_token(server):
    assert server.get(OF_THE_PROJECT).status == 401
    assert server.get(OF_THE_PROJECT, Private_Token="wrong").status == 401
    project = server.get(OF_THE_PROJECT, Private_Token=server.secrets["api"]).json
    assert project["container_registry_image_prefix"] == f"203.0.113.16:5000/{PROJECT}"
    assert server.get("/api/v4/projects/4711", Private_Token=server.secrets["api"]).status == 404


def test_a_commit_creates_missing_files_and_updates_existing_ones(server):
    def commit(action: str, path: str, content: str) -> Answer:
        changes = [{"action": action, "file_path": path, "content": content}]
        body = {"branch": "main", "commit_message": "Change", "actions": changes}
        return server.ask("POST", f"{OF_THE_PROJECT}/repository/commits", body=body, Private_Token=token)

    def content(path: str) -> Answer:
        return server.get(f"{OF_THE_PROJECT}/repository/files/{path}/raw?ref=main", Private_Token=token)

    token = server.secrets["api"]
    assert commit("create", "folder/a", "1").status == 201
    assert b"A file with this name already exists" in commit("create", "folder/a", "2").body
    assert b"A file with this name doesn't exist" in commit("update", "b", "2").body
    assert content("folder%2Fa").body == b"1"
    assert commit("update", "folder/a", "ä").status == 201
    assert content("folder%2Fa").body == "ä".encode()
    assert content("b").status == 404


def acceptance_token(server: Server, action: str) -> str:
    """Run the console script that issues or revokes the acceptance's token, and return its output."""
    program = (ROOT / "remote/acceptance_token.rb").read_text()
    done = server.run("gitlab-rails", "runner", program, action, PROJECT, "r", '["signup_enabled", "none"]')
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_acceptance_token_grants_access_to_its_project_only_until_it_is_revoked(server):
    def statuses(token: str) -> list[int]:
        paths = (OF_THE_PROJECT, OF_THE_PROJECT.replace("acceptance", "other"))
        return [
            server.token("acceptance", token).status,
            *(server.get(path, Private_Token=token).status for path in paths),
        ]

    group = server.secrets["group"]
    server.console(f"Projects::CreateService.new(User.first, {{ name: 'other', namespace_id: {group} }}).execute")
    issued = json.loads(acceptance_token(server, "issue"))
    assert issued["runner"] == {"active": True}
    assert list(issued["settings"]) == ["signup_enabled"]
    assert statuses(issued["token"]) == [200, 200, 404]
    another = json.loads(acceptance_token(server, "issue"))["token"]
    assert statuses(issued["token"]) == [401, 401, 401]
    assert statuses(another) == [200, 200, 404]
    revoke = "/api/v4/personal_access_tokens/self"
    assert [server.ask("DELETE", revoke, Private_Token=another).status for _ in range(2)] == [204, 401]


def test_the_next_run_deletes_the_user_of_the_former_acceptance_token_and_keeps_its_pipeline(server):
    """GitLab keeps the user of a revoked token for 30 days, with its namespace and its membership."""

    def send(method: str, path: str, **body: object) -> Answer:
        answer = server.ask(method, path, body=body, Private_Token=token)
        assert answer.status in (201, 204), answer.body
        return answer

    def found() -> Any:
        """The names of the bots, and the numbers of rows of what a bot has."""
        bots = "User.where(user_type: 'project_bot').map(&:name).sort"
        return json.loads(server.console(f"puts JSON.generate([{bots}, *[Namespace, Member].map(&:count)])"))

    create = f"ResourceAccessTokens::CreateService.new(User.first, Project.find_by_full_path('{PROJECT}'),"
    server.console(f"{create} {{ name: 'of an owner', scopes: ['api'], expires_at: Date.tomorrow.iso8601 }}).execute")
    acceptance_token(server, "revoke")
    wait_until(lambda: found()[0] == ["of an owner"], pause=0.1)
    _, namespaces, memberships = found()

    token = json.loads(acceptance_token(server, "issue"))["token"]
    file = {"action": "create", "file_path": ".gitlab-ci.yml", "content": "job: {script: exit 0}"}
    commit = {"branch": "main", "commit_message": "x [skip ci]", "actions": [file]}
    send("POST", f"{OF_THE_PROJECT}/repository/commits", **commit)
    pipeline = send("POST", f"{OF_THE_PROJECT}/pipeline", ref="main").json["id"]
    send("DELETE", "/api/v4/personal_access_tokens/self")
    assert found() == [["gitlab-stack-acceptance", "of an owner"], namespaces + 1, memberships + 1]

    acceptance_token(server, "revoke")
    wait_until(lambda: found() == [["of an owner"], namespaces, memberships], pause=0.1)
    script = f"puts User.find_by(id: Ci::Pipeline.find_by(id: {pipeline}).user_id).user_type"
    assert server.console(script) == "ghost"
    server.console(f"Ci::Pipeline.find_by(id: {pipeline}).destroy")


def put_image(server: Server, address: str, tag: str) -> None:
    """Push an image without layers to the project, with the registry's HTTP API."""

    def ask(method: str, where: str, body: bytes, kind: str) -> http.client.HTTPResponse:
        token = server.token("root", PASSWORD, f"repository:{PROJECT}/image:pull,push").json["token"]
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request(method, where, body, {"Authorization": f"Bearer {token}", "Content-Type": kind})
        return connection.getresponse()

    kind, config = "application/vnd.docker.distribution.manifest.v2+json", json.dumps({"tag": tag}).encode()
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    place = urlsplit(ask("POST", f"/v2/{PROJECT}/image/blobs/uploads/", b"", "").getheader("Location") or "")
    whole = f"{place.path}?{place.query}&digest={digest}"
    assert ask("PUT", whole, config, "application/octet-stream").status == 201
    entry = {"mediaType": "application/config", "size": len(config), "digest": digest}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": entry, "layers": []}).encode()
    assert ask("PUT", f"/v2/{PROJECT}/image/manifests/{tag}", manifest, kind).status == 201


@pytest.mark.parametrize("program", REGISTRIES, ids=os.path.basename)
def test_old_images_are_deleted_by_their_tags(server, program, tmp_path):
    def listed(path: str) -> Any:
        return server.get(f"{images}{path}?per_page=100", Private_Token=server.secrets["api"]).json

    images = f"{OF_THE_PROJECT}/registry/repositories"
    with registry(program, server.certificate, tmp_path, server.registry) as address:
        for tag in ("1", "2", "latest"):
            put_image(server, address, tag)
        [image] = [image for image in listed("") if image["path"] == f"{PROJECT}/image"]
        tags = f"/{image['id']}/tags"
        assert [tag["name"] for tag in listed(tags)] == ["1", "2", "latest"]
        token = server.secrets["api"]
        assert server.ask("DELETE", f"{images}{tags}/2", Private_Token=token).status == 200
        assert server.ask("DELETE", f"{images}{tags}/2", Private_Token=token).status == 404
        assert [tag["name"] for tag in listed(tags)] == ["1", "latest"]
    assert server.get(f"{images}{tags}", Private_Token=token).status == 503


# The console


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("User.first.nonsense", "NoMethodError"),
        ("abort('for a reason')", "for a reason"),
        ("def (", "Please specify a valid ruby command"),
    ],
)
def test_a_script_that_goes_wrong_fails(server, script, complaint):
    done = server.run("gitlab-rails", "runner", script)
    assert done.returncode == 1
    assert complaint in done.stderr


def test_what_models_and_services_reject(server):
    said = json.loads(
        server.console(
            """
            def complaint = yield && 'none' rescue $!.message.lines.first.strip
            admin = User.first
            group = Groups::CreateService.new(admin, { name: 'g', path: 'g', visibility_level: 0 }).execute
            project = Projects::CreateService.new(admin, { name: 'acceptance', namespace_id: Group.first.id }).execute
            runner = Ci::Runners::CreateRunnerService.new(user: admin,
              params: { runner_type: 'instance_type', run_untagged: false }).execute
            tagged = Ci::Runners::CreateRunnerService.new(user: admin,
              params: { runner_type: 'instance_type', tag_list: (1..51).map(&:to_s) }).execute
            puts JSON.generate([
              group.payload[:group].errors.full_messages.first, project.errors.full_messages.first,
              runner.message.first, tagged.message.first,
              complaint { Ci::Runner.first.update!(paused: false) },
              complaint { Gitlab::CurrentSettings.update!(signup: false) },
              complaint { admin.update!(password: 'root-of-all') },
            ])
            """
        )
    )
    assert said == [
        "Organization can't be blank",
        "Name has already been taken",
        "Tags list can not be empty when runner is not allowed to pick untagged jobs",
        "Tags list Too many tags specified. Please limit the number of tags to 50",
        "unknown attribute 'paused' for Ci::Runner.",
        "unknown attribute 'signup' for ApplicationSetting.",
        "Validation failed: Password must not contain commonly used combinations of words and letters",
    ]


def test_a_script_gets_arguments_and_standard_input_and_can_be_standard_input(server):
    done = server.run("gitlab-rails", "runner", "puts ARGV.inspect, $stdin.read; exit 3", "a", stdin="from outside")
    assert done.stdout == '["a"]\nfrom outside\n'
    assert done.returncode == 3
    assert server.run("gitlab-rails", "runner", "-", stdin="puts Gitlab::VERSION").stdout == "17.10.4\n"


def test_the_lab_can_delay_the_console(server):
    knob = server.root / "run/lab/console-delay"
    knob.parent.mkdir(parents=True, exist_ok=True)
    knob.write_text("0.5\n")
    started = time.monotonic()
    server.console("puts 1")
    assert time.monotonic() - started >= 0.5
    knob.unlink()


def test_common_passwords_are_rejected(server):
    weak = [
        "testroot123",
        "myGitLab-Xq7",
        "DevOps-Xq7zz9",
        "xx-administrator-1",
        "example-Xq7zz9",
        "password1",
        "Xq7zz9L",
    ]
    offered = json.dumps([*weak, PASSWORD])
    script = (
        "user = User.find_by_username('root'); puts JSON.parse(ARGV[0]).select { |word| user.update(password: word) }"
    )
    assert server.run("gitlab-rails", "runner", script, offered).stdout.split() == [PASSWORD]


def test_a_lost_password_is_replaced_on_the_server(server):
    def reset(password: str) -> subprocess.CompletedProcess[str]:
        return server.run("gitlab-rake", "gitlab:password:reset[root]", stdin=f"{password}\n{password}\n")

    assert "Password must not contain" in reset("password1").stdout
    assert reset("another-Secret-4711").returncode == 0
    assert server.token("root", PASSWORD).status == 401
    assert server.token("root", "another-Secret-4711").status == 200
    assert reset(PASSWORD).returncode == 0


def test_the_database_answers_by_gitlab_psql(server):
    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return server.run("gitlab-psql", *arguments)

    count = "SELECT job_class_name FROM batched_background_migrations WHERE status NOT IN (3, 6)"
    empty = ask("-tAc", count)
    assert (empty.returncode, empty.stdout) == (0, "")
    make = "INSERT INTO batched_background_migrations (job_class_name, status) VALUES ('BackfillOne', 1)"
    assert ask("-tAc", make).returncode == 0
    assert ask("-tAc", count).stdout == "BackfillOne\n"
    assert ask("-tAc", "DELETE FROM batched_background_migrations").returncode == 0
    assert ask("-d", "template1", "-c", "SHOW server_version", "-qt").stdout == " 16.8\n\n"
    wrong = ask("-tAc", "SELECT id FROM nowhere")
    assert (wrong.returncode, wrong.stderr[:8]) == (1, "ERROR:  ")
    assert server.run("gitlab-ctl", "stop", "postgresql").returncode == 0
    stopped = ask("-tAc", count)
    assert stopped.returncode == 2
    assert stopped.stderr.startswith("psql: error: connection to server on socket")
    assert server.run("gitlab-ctl", "start", "postgresql").returncode == 0
    wait_until(server.has_database)


def backup(server: Server, *settings: str) -> subprocess.CompletedProcess[str]:
    return server.run("gitlab-rake", "gitlab:backup:create", *settings)


OLD_BACKUP = "var/opt/gitlab/backups/1400000000_2014_05_13_7.0.0_gitlab_backup.tar"


def test_a_backup_needs_the_registrys_folder_unless_skip_names_it(server):
    aborted = backup(server, "SKIP=artifacts")
    assert aborted.returncode == 1
    assert "No such file or directory @ realpath_rec" in aborted.stderr
    assert backup(server, "SKIP=registry").returncode == 0
    folder = server.root / "var/opt/gitlab/gitlab-rails/shared/registry"
    folder.mkdir()
    assert backup(server, "SKIP=artifacts").returncode == 0
    folder.rmdir()


def test_a_backup_is_kept_without_backup_keep_time(server):
    old = server.root / OLD_BACKUP
    old.touch()
    assert "[SKIPPED]" in backup(server, "SKIP=registry").stdout
    assert old.exists()


AS_IT_WAS = """
Gitlab::CurrentSettings.update!(signup_enabled: true, admin_mode: false, restricted_visibility_levels: [])
User.find_by_username('root').update!(password_expires_at: nil)
"""


def prepare(
    server: Server,
    is_new: str,
    *,
    tags: str = "[]",
    jobs: str = "any",
    given: dict[str, object] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the console script of the step prepare_gitlab."""
    program, settings = (ROOT / "remote/prepare_gitlab.rb").read_text(), json.dumps(in_a_new_gitlab(given or {}))
    arguments = ("runner", program, "lab", tags, "lab/acceptance", jobs, "instance_type", is_new)
    return server.run("gitlab-rails", *arguments, stdin=settings)


def settings_of(server: Server, *names: str) -> dict[str, object]:
    current = "c = Gitlab::CurrentSettings.current_application_settings"
    found: dict[str, object] = json.loads(
        server.console(
            f"{current}\nputs JSON.generate(%w[{' '.join(names)}].to_h {{ |name| [name, c.public_send(name)] }})"
        )
    )
    return found


def test_a_new_gitlab_gets_every_setting_of_the_program_and_another_one_none(server):
    before = settings_of(server, *gitlab_settings.NAMES)
    assert prepare(server, "false").returncode == 0
    assert settings_of(server, *gitlab_settings.NAMES) == before
    try:
        made = prepare(
            server, "true", given={"gravatar_enabled": True, "home_page_url": "http://x", "admin_mode": None}
        )
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout.splitlines()[-1])["unknownSettings"] == []
        wanted = {setting.name: setting.value for setting in gitlab_settings.IN_A_NEW_GITLAB}
        changed = {"gravatar_enabled": True, "admin_mode": False, "home_page_url": "http://x"}
        assert settings_of(server, *gitlab_settings.NAMES, "home_page_url") == {**wanted, **changed}
    finally:
        server.console(f"{AS_IT_WAS}\nGitlab::CurrentSettings.update!(home_page_url: nil)")


def test_a_setting_that_this_gitlab_does_not_have_is_named_and_a_value_that_it_refuses_ends_it(server):
    try:
        made = prepare(server, "true", given={"of_another_version": True})
        assert json.loads(made.stdout.splitlines()[-1])["unknownSettings"] == ["of_another_version"]
        assert settings_of(server, "signup_enabled") == {"signup_enabled": False}
        refused = prepare(server, "true", given={"two_factor_grace_period": -1})
        assert refused.returncode == 1
        assert "gitlabSettings: Two factor grace period must be greater than or equal to 0" in refused.stderr
    finally:
        server.console(AS_IT_WAS)


def test_with_admin_mode_an_administrator_needs_the_bypass_in_the_console(server):
    create = "Ci::Runners::CreateRunnerService.new(user: User.first, params: { runner_type: 'instance_type' }).execute"
    try:
        assert prepare(server, "true").returncode == 0
        server.console("User.find_by_username('root').update!(password_expires_at: nil)")
        assert prepare(server, "false").returncode == 0, "the program bypasses admin mode"
        assert server.console(f"puts {create}.error?") == "true"
        bypassed = f"Gitlab::Auth::CurrentUserMode.bypass_session!(User.first.id) {{ puts {create}.error? }}"
        assert server.console(bypassed) == "false"
    finally:
        server.console(AS_IT_WAS)


def test_the_program_does_not_act_as_an_administrator_that_is_gitlabs_own(server):
    """GitLab's admin_bot is an administrator, but internal, so not `active` (app/models/user.rb)."""
    bot = "{ username: 'GitLab-Admin-Bot', name: 'GitLab Admin Bot', user_type: 'admin_bot', admin: true,"
    server.console(f"User.create!({bot} email: 'admin-bot@example.com', password: '{PASSWORD}' }})")
    try:
        server.console("User.find_by_username('root').update!(state: 'blocked')")
        refused = prepare(server, "false")
        assert refused.returncode == 1
        assert refused.stderr.startswith("GitLab has no active administrator. ")
    finally:
        server.console("User.find_by_username('root').update!(state: 'active')")
        server.console("User.find_by_username('GitLab-Admin-Bot').destroy")


def test_the_acceptance_has_what_it_needs_whatever_the_owners_defaults_are(server):
    """`valid` is whether GitLab accepts the runner's token."""

    def prepared() -> dict[str, Any]:
        done = prepare(server, "false")
        assert done.returncode == 0, done.stderr
        token = json.loads(done.stdout.splitlines()[-1])["runnerToken"]
        names = "shared_runners_enabled builds_access_level container_registry_access_level ci_config_path"
        project = "project = Project.find_by_full_path('lab/acceptance')"
        shown = server.console(
            f"{project}\nputs JSON.generate(%w[{names}].to_h {{ |name| [name, project.public_send(name)] }})"
        )
        body = {"token": token, "system_id": "s_0123456789ab", "info": {"version": "17.10.1"}}
        return {**json.loads(shown), "valid": server.ask("POST", "/api/v4/runners/verify", body=body).status == 200}

    needed = {
        "shared_runners_enabled": True,
        "builds_access_level": "enabled",
        "container_registry_access_level": "enabled",
        "ci_config_path": None,
        "valid": True,
    }
    other = "shared_runners_enabled: false, runner_token_expiration_interval: -1"
    try:
        server.console(f"Gitlab::CurrentSettings.update!({other})\nCi::Runner.find_by(description: 'lab')&.destroy")
        assert prepared() == needed
        changed = "shared_runners_enabled: false, builds_access_level: 'disabled', ci_config_path: 'elsewhere.yml'"
        server.console(f"Project.find_by_full_path('lab/acceptance').update!({changed})")
        server.console("Ci::Runner.find_by(description: 'lab').update!(token_expires_at: Time.current)")
        # On for members is enough.
        assert prepared() == {**needed, "builds_access_level": "private"}
        assert prepared() == {**needed, "builds_access_level": "private"}
    finally:
        server.console(
            "Gitlab::CurrentSettings.update!(shared_runners_enabled: true, runner_token_expiration_interval: nil)"
        )


def test_what_the_owner_decides_outlives_the_programs_preparation(server):
    def prepared(is_new: str) -> Any:
        done = prepare(server, is_new, tags='["docker"]')
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def state() -> str:
        return server.console(
            "puts [Gitlab::CurrentSettings.signup_enabled?, Ci::Runner.find_by(description: 'lab').active].inspect"
        )

    server.console("Gitlab::CurrentSettings.update!(signup_enabled: true)")
    made = prepared("true")
    assert state() == "[false, true]"
    server.console(AS_IT_WAS)
    server.console("Ci::Runner.find_by(description: 'lab').update!(active: false)")
    assert prepared("false") == made
    assert state() == "[true, false]"
    assert server.token("root", PASSWORD).status == 200, "a later run must not expire the password"


def test_the_initial_password_of_root_grants_no_access_until_it_is_changed(server):
    """The console, which prepares and checks the stack, still works."""
    token = server.console("""
    puts User.find_by_username('root').personal_access_tokens.create!(name: 'x', scopes: %w[api],
      expires_at: 1.day.from_now).token
    """)
    assert server.token("root", PASSWORD).status == 200
    assert server.get(OF_THE_PROJECT, PRIVATE_TOKEN=token).status == 200
    for _ in range(2):
        assert prepare(server, "true").returncode == 0
    try:
        assert server.token("root", PASSWORD).status == 401
        assert server.token("root", token).status == 401
        refused = server.get(OF_THE_PROJECT, PRIVATE_TOKEN=token)
        assert (refused.status, b"Your password expired" in refused.body) == (403, True)

        question = next(
            line.partition("'")[2].rstrip("'")
            for line in (ROOT / "programs/forget-root-password").read_text().splitlines()
            if line.startswith("question=")
        )
        for password, said in ((PASSWORD, "valid"), ("another-Secret-4711", "invalid")):
            asked = server.run("gitlab-rails", "runner", question, stdin=f"{password}\n")
            assert asked.stdout.strip() == said
    finally:
        server.console(AS_IT_WAS)


def test_the_test_user_is_created_once_and_can_log_in(server):
    server.console("""
    Group.find_by_full_path('gitlab-stack') || Groups::CreateService.new(User.first, { name: 'g', path: 'gitlab-stack',
      visibility_level: 0, organization_id: 1 }).execute
    """)
    for _ in range(2):
        assert server.run("gitlab-rails", "runner", "-", stdin=people.MAKE).returncode == 0
    assert server.token(people.NAME, people.PASSWORD).status == 200
    assert server.console(f"puts !Namespace.find_by_full_path('{people.NAME}').nil?") == "true"


def test_a_privileged_runner_takes_protected_jobs_with_a_tag_until_it_is_none(server):
    def state() -> str:
        return server.console(
            "runner = Ci::Runner.find_by(description: 'lab'); puts [runner.run_untagged, runner.access_level].inspect"
        )

    def prepared(jobs: str) -> Any:
        done = prepare(server, "false", tags='["docker"]', jobs=jobs)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    made = prepared("any")
    assert state() == '[true, "not_protected"]'
    assert prepared("protected") == made
    assert state() == '[false, "ref_protected"]'
    assert prepared("any") == made
    assert state() == '[true, "not_protected"]'
    # An owner may restrict the runner to protected jobs regardless of privileges.
    server.console("Ci::Runner.find_by(description: 'lab').update!(access_level: 'ref_protected')")
    prepared("any")
    assert state() == '[true, "ref_protected"]'
    server.console("Ci::Runner.find_by(description: 'lab').update!(access_level: 'not_protected')")


def test_a_privileged_runner_takes_the_first_job_of_the_project_before_sidekiq_has_seen_a_push(server):
    """GitLab protects a new default branch only in the background, and a job stays what it was at the beginning."""

    def created(path: str, **body: object) -> Any:
        answer = server.ask("POST", f"{project}/{path}", body=body, Private_Token=server.secrets["api"])
        assert answer.status == 201, answer.body
        return answer.json

    project, file = "/api/v4/projects/lab%2Facceptance", {"action": "create", "file_path": ".gitlab-ci.yml"}
    assert server.run("gitlab-ctl", "stop", "sidekiq").returncode == 0
    try:
        # The second run finds the branch protected.
        for _ in range(2):
            done = prepare(server, "false", tags='["docker"]', jobs="protected")
            assert done.returncode == 0, done.stderr
        server.console("Ci::Runner.find_by(description: 'lab').update!(active: true)")
        actions = [{**file, "content": "job: {script: exit 0, tags: [docker]}"}]
        created("repository/commits", branch=BRANCH, commit_message="x [skip ci]", actions=actions)
        pipeline = created("pipeline", ref=BRANCH)
        token = json.loads(done.stdout.splitlines()[-1])["runnerToken"]
        taken = server.ask("POST", "/api/v4/jobs/request", body={"token": token, "system_id": "s_0123456789ab"})
        assert taken.status == 201
        assert taken.json["git_info"]["sha"] == pipeline["sha"]
    finally:
        server.run("gitlab-ctl", "start", "sidekiq")
        server.console("Ci::Runner.find_by(description: 'lab').update!(access_level: 'not_protected')")


# Settings that differ from those of the other tests

RUNNER = "203.0.113.23"


@pytest.fixture(scope="class")
def other_settings(server: Server) -> Iterator[None]:
    """Settings that do not affect each other, and the program's own lines about failed logins."""
    given = render_gitlab_rb(
        load(), external_url="u", public_host="h", registry_private_ip="r", runner_public_ip=RUNNER
    )
    start = given.index("gitlab_rails['rack_attack_git_basic_auth']")
    others = (
        "gitlab_sshd['proxy_protocol'] = false",
        "nginx['hsts_max_age'] = 0",
        "gitlab_rails['backup_keep_time'] = 604800",
    )
    assert server.configure("\n".join([given[start : given.index("}", start) + 1], *others])).returncode == 0
    wait_until(server.is_ready)
    wait_until(server.answers_ssh)
    yield
    assert server.configure().returncode == 0
    wait_until(server.is_ready)
    wait_until(server.answers_ssh)


@pytest.mark.usefixtures("other_settings")
class TestOtherSettings:
    def test_an_unexpected_proxy_header_is_not_valid_ssh(self, server):
        with socket.create_connection(("127.0.0.1", server.ssh), timeout=5) as connection:
            waited = time.monotonic()
            assert connection.recv(64).startswith(b"SSH-2.0-GitLab-SSHD")
            assert time.monotonic() - waited < 0.4
            connection.sendall(proxy_header(CLIENT) + b"SSH-2.0-test\r\n")
            assert b"curve25519" not in b"".join(iter(lambda: connection.recv(4096), b""))

    def test_who_fails_to_log_in_too_often_is_shut_out_but_not_the_runner(self, server):
        """Uses the program's own gitlab.rb lines, and the failing logins of the acceptance checks."""
        runner, other = RUNNER, "198.51.100.9"

        def login(client: str, user: str, password: str) -> int:
            credentials = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
            return server.get("/jwt/auth?service=container_registry", client=client, Authorization=credentials).status

        assert {login(runner, "nobody", "not-a-password") for _ in range(40)} == {401}
        assert login(runner, "root", PASSWORD) == 200
        assert {login(other, "nobody", "not-a-password") for _ in range(29)} == {401}
        assert login(other, "root", PASSWORD) == 200, "a successful login resets the count"
        answers = [login(other, "nobody", "not-a-password") for _ in range(60)]
        assert set(answers[:30]) == {401}
        assert set(answers) == {401, 403}
        assert login(other, "root", PASSWORD) == 403
        assert login(other, "gitlab-ci-token", "of a job") == 401
        assert server.get("/users/sign_in", client=other).status == 200
        assert login("198.51.100.10", "root", PASSWORD) == 200

    def test_hsts_can_be_disabled(self, server):
        assert server.get("/users/sign_in").headers["Strict-Transport-Security"] is None

    def test_old_backups_are_removed_after_backup_keep_time(self, server):
        old = server.root / OLD_BACKUP
        old.touch()
        assert "done. (1 removed)" in backup(server, "SKIP=registry").stdout
        assert not old.exists()


# TLS

NAME = "git.example.com"
LOGIN = {"user[login]": "root", "user[password]": PASSWORD}


def log_in(server: Server, *, form: Mapping[str, str] = LOGIN, token: bool = True, **headers: str) -> Answer:
    """Get the login page and send its form, as a browser does."""
    page = server.get("/users/sign_in", Host=NAME)
    [csrf_token] = re.findall(rb'name="csrf-token" content="([^"]+)"', page.body)
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    sent = {**form, "authenticity_token": csrf_token.decode()} if token else form
    return server.ask("POST", "/users/sign_in", form=sent, Host=NAME, Cookie=cookie, **headers)


@pytest.fixture(scope="class")
def https(server: Server) -> Iterator[Callable[..., None]]:
    """A function that configures an external_url for HTTPS, with more lines; the usual one is back at the end."""

    def configure(more: str = "") -> None:
        assert server.configure(f"external_url 'https://{NAME}'; {more}").returncode == 0

    yield configure
    assert server.configure().returncode == 0
    wait_until(server.is_ready)


class TestHttps:
    def test_behind_a_load_balancer_with_tls_everything_is_https(self, server, https):
        https("nginx['listen_https'] = false")
        wait_until(server.is_ready)
        page = server.get("/users/sign_in", Host=NAME, X_Forwarded_Proto="http")
        assert b'content="https://git.example.com/users/sign_in" property="og:url"' in page.body
        assert b'gitlab_url="https://git.example.com"' in page.body
        assert b"http://git.example.com" not in page.body
        assert re.fullmatch(r"_gitlab_session=\w+; path=/; HttpOnly; Secure; SameSite=None", page.headers["Set-Cookie"])
        assert page.headers["Strict-Transport-Security"] == "max-age=63072000"
        assert log_in(server, Origin=f"https://{NAME}").status == 302
        assert log_in(server, Origin=f"https://{NAME}").headers["Location"] == f"https://{NAME}/"
        for origin in (f"http://{NAME}", "https://other.example.com", "null"):
            assert log_in(server, Origin=origin).status == 422, origin

    def test_an_nginx_that_terminates_tls_needs_key_files_and_rejects_plain_http(self, server, https):
        log, keys = server.root / "var/log/gitlab/nginx/current", server.root / "etc/gitlab/ssl"
        keys.mkdir()
        own = certificates.certificate(certificates.authority("own"), NAME)
        (keys / f"{NAME}.crt").write_text(own.pem)
        (keys / f"{NAME}.key").write_text(own.key_pem)
        for listen_https in ("", "nginx['listen_https'] = true"):
            https(listen_https)
            wait_until(lambda: rejects_plain_http(server))
            assert over_tls(server).startswith(b"HTTP/1.1 200 OK")
        before = log.read_text().count("cannot load certificate")
        shutil.rmtree(keys)
        server.run("gitlab-ctl", "term", "nginx")
        wait_until(lambda: log.read_text().count("cannot load certificate") > before)
        with pytest.raises(ConnectionRefusedError):
            server.get("/users/sign_in")


def test_a_gitlab_for_plain_http_rejects_browsers_that_use_tls_but_commits_them_to_it(server):
    page = server.get("/users/sign_in", Host=NAME)
    assert b'content="http://git.example.com/users/sign_in" property="og:url"' in page.body
    assert "secure" not in page.headers["Set-Cookie"].lower()
    assert page.headers["Strict-Transport-Security"] == "max-age=63072000"
    assert log_in(server, Origin=f"https://{NAME}").status == 422
    assert log_in(server, Origin=f"http://{NAME}").status == 302


def test_a_login_needs_the_token_of_its_page_and_the_password(server):
    assert log_in(server).status == 302
    assert log_in(server, token=False).status == 422
    assert log_in(server, form={**LOGIN, "authenticity_token": "ä"}, token=False).status == 422
    assert b"Invalid login or password" in log_in(server, form={**LOGIN, "user[password]": "wrong"}).body


def rejects_plain_http(server: Server) -> bool:
    """Return whether nginx requires TLS; False while it restarts."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        rejected = server.get("/users/sign_in")
        return rejected.status == 400 and b"The plain HTTP request was sent to HTTPS port" in rejected.body
    return False


def over_tls(server: Server) -> bytes:
    """Return the start of the response to a request for the login page in TLS, after a PROXY header."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", server.http), timeout=5) as plain:
        plain.sendall(proxy_header(CLIENT))
        with context.wrap_socket(plain, server_hostname=NAME) as connection:
            connection.sendall(f"GET /users/sign_in HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
            return connection.recv(64)


# Services and reconfigure


MISTAKES = {
    "nginxx['typo'] = 1": "Reading unsupported config value nginxx.",
    "gitlab_rails['a'] = ": "syntax error",
    "registry['internal_key'] = File.read('/nowhere')": "No such file or directory",
    "external_url 'gitlab.example.test'": "must include a schema and FQDN",
}


def test_readiness_of_all_fails_with_one_service_and_without_puma_nginx_has_no_upstream(server):
    assert server.get("/-/readiness?all=1", client=None).status == 200
    assert server.run("gitlab-ctl", "stop", "redis").stdout.startswith("ok: down: redis:")
    assert server.run("gitlab-ctl", "status", "redis").returncode == 3
    answer = server.get("/-/readiness?all=1", client=None)
    assert answer.status == 503
    assert answer.json["cache_check"][0]["status"] == "failed"
    assert server.get("/-/readiness", client=None).status == 200
    server.run("gitlab-ctl", "start", "redis")
    server.run("gitlab-ctl", "stop", "puma")
    assert server.get("/users/sign_in").status == 502
    server.run("gitlab-ctl", "start", "puma")
    wait_until(lambda: server.get("/-/readiness?all=1", client=None).status == 200)


def test_a_gitlab_rb_with_a_mistake_fails_reconfigure_and_changes_nothing(server):
    def processes() -> list[str]:
        return [line.partition(")")[0] for line in server.run("gitlab-ctl", "status").stdout.splitlines()]

    before = processes()
    for text, complaint in MISTAKES.items():
        done = server.configure(text)
        assert done.returncode == 1, text
        assert complaint in done.stdout
        assert done.stdout.splitlines()[-1].startswith("Infra Phase failed.")
        assert processes() == before, text
    assert server.configure().returncode == 0


CONTROL = """
import json, sys
from lab_gitlab import runit
command, seconds, *names = sys.argv[1:]
print(json.dumps(runit.control(command, *names, seconds=float(seconds))))
"""
SLOW_TO_END = 'echo $$ >>pids; trap "sleep 0.2; exit" TERM; while :; do sleep 0.05; done'
STUBBORN = 'trap "" TERM; echo $$ >>pids; while :; do sleep 0.05; done'


class Supervised:
    """Services of a folder that takes the place of a machine."""

    def __init__(self, root: Path) -> None:
        install(root)
        self.services = root / "opt/gitlab/service"
        self.services.mkdir()
        self._environment = {**os.environ, "LAB_ROOT": str(root), "PYTHONPATH": str(root / RAILS)}

    def add(self, name: str, script: str) -> None:
        """Add a service with this script, which appends its process to the file `pids`."""
        new = self.services.with_name(name)  # supervised only once it is complete
        new.mkdir()
        (new / "run").write_text(f"#!/bin/sh\n{script}\n")
        (new / "run").chmod(0o755)
        new.rename(self.services / name)

    def started(self, name: str) -> list[str]:
        pids = self.services / name / "pids"
        return pids.read_text().splitlines() if pids.exists() else []

    def control(self, command: str, *names: str, seconds: float) -> list[tuple[str, int]]:
        """Return the output and the exit code for each service."""
        given = [sys.executable, "-c", CONTROL, command, str(seconds), *names]
        done = subprocess.run(given, env=self._environment, stdout=subprocess.PIPE, text=True, check=True)
        return [(text, code) for text, code in json.loads(done.stdout)]


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    made = Supervised(tmp_path)
    with supervision(made.services):
        yield made


def test_a_reconfigure_goes_on_after_the_restart_of_a_service(supervised):
    """Of one that did not start before it was repaired, and of one that has just started and does not end at once."""
    supervised.add("broken", f"echo $$ >>pids; [ -e repaired ] || exit 1; {SLOW_TO_END}")
    wait_until(lambda: len(supervised.started("broken")) == 2)
    supervised.add("young", SLOW_TO_END)
    wait_until(lambda: supervised.started("young"))
    before = {name: supervised.started(name) for name in ("broken", "young")}
    (supervised.services / "broken/repaired").touch()
    with ThreadPoolExecutor() as pool:  # each on its own: a restart of both waits for the other one
        restarts = pool.map(lambda name: supervised.control("restart", name, seconds=30)[0], before)
    for name, (text, code) in zip(before, restarts, strict=True):
        assert (text.startswith(f"ok: run: {name}: (pid "), code) == (True, 0), text
        assert not any(f"(pid {process})" in text for process in before[name])


def test_a_service_that_does_not_end_in_time_is_reported(supervised):
    supervised.add("stubborn", STUBBORN)
    wait_until(lambda: supervised.started("stubborn"))
    [process] = supervised.started("stubborn")
    for command in ("restart", "stop"):
        [(text, code)] = supervised.control(command, "stubborn", seconds=0.1)
        assert (text.partition(")")[0], code) == (f"timeout: run: stubborn: (pid {process}", 1)
    [(text, code)] = supervised.control("stop", "missing", seconds=0.1)
    assert (text.startswith("fail: missing: "), code) == (True, 1)
    subprocess.run(["sv", "kill", supervised.services / "stubborn"], check=True)


def test_a_killed_service_is_restarted(server):
    def process() -> str:
        return server.run("gitlab-ctl", "status", "redis").stdout.partition(")")[0]

    before = process()
    os.kill(int(before.rpartition(" ")[2]), signal.SIGKILL)
    wait_until(lambda: process() != before and process().startswith("run: redis: (pid "))


def test_the_database_starts_only_if_other_users_cannot_read_its_folder(server):
    """The end-to-end tests cover another owner of the folder, which requires a machine with its own accounts."""
    data, log = server.root / "var/opt/gitlab/postgresql/data", server.root / "var/log/gitlab/postgresql/current"
    data.chmod(0o755)
    assert server.run("gitlab-ctl", "term", "postgresql").returncode == 0
    wait_until(lambda: f'data directory "{data}" has invalid permissions' in log.read_text())
    data.chmod(0o700)
    wait_until(server.has_database)


def test_secrets_that_were_lost_leave_tokens_unreadable(server):
    """Must be the last test: it leaves the server unusable."""
    kept = server.root / "etc/gitlab/gitlab-secrets.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.unlink()
    assert server.configure().returncode == 0
    wait_until(server.is_ready)
    body = {"token": server.secrets["runner"]}
    assert server.ask("POST", "/api/v4/runners/verify", body=body).status == 403
    done = server.run("gitlab-rails", "runner", "puts Ci::Runner.first.token")
    assert "OpenSSL::Cipher::CipherError" in done.stderr
    assert server.token("root", PASSWORD).status == 200
