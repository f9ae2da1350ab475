"""Rules of the played GitLab that need no running server."""

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.workspace import ROOT

sys.path.insert(0, str(ROOT / "lab/played/gitlab_ce"))

from lab_gitlab import (
    database_server,
    nginx_configuration,
    passwords,
    paths,
    projects,
    runners,
    schema,
    services,
    users,
)
from lab_gitlab.application import Application
from lab_gitlab.configuration import Configuration, ConfigurationError, load
from lab_gitlab.crypto import Cipher, DecryptionError
from lab_gitlab.database import DatabaseError
from lab_gitlab.http_server import client_address
from lab_gitlab.records import RecordInvalidError

needs_ruby = pytest.mark.skipif(shutil.which("ruby") is None, reason="gitlab.rb is evaluated by Ruby")
ROOT_USER = {"name": "Administrator", "username": "root", "email": "admin@example.com"}


@pytest.fixture
def evaluate(tmp_path):
    """Evaluates a gitlab.rb and completes it."""

    def evaluated(text: str) -> Configuration:
        file: Path = tmp_path / "gitlab.rb"
        file.write_text(f"external_url 'http://203.0.113.16'\n{text}\n")
        configuration = load(file)
        configuration.complete()
        return configuration

    return evaluated


@pytest.fixture
def app(monkeypatch) -> Iterator[Application]:
    """The application's records on an empty database."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        data = Path(folder, "data")
        data.mkdir(mode=0o700)
        database_server.initialise(data)
        database_server.check(data)
        monkeypatch.setattr(paths, "POSTGRESQL_SOCKET", Path(folder, "socket"))
        server = database_server.Server(data, paths.POSTGRESQL_SOCKET)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        application = Application(settings={"registry": {"enabled": False}}, cipher=Cipher("k" * 64))
        yield application
        application.database.close()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "password",
    ["testroot123", "myGitLab-Xq7", "DevOps-Xq7zz9", "xx-administrator-1", "example-Xq7zz9", "password1", "Xq7zz9L"],
)
def test_passwords_that_gitlab_refuses(password):
    assert passwords.problems(password, **ROOT_USER)


def test_a_random_password_is_taken():
    assert passwords.problems("hg29fjQQ01mmz7Lp", **ROOT_USER) == []


@pytest.mark.parametrize(
    ("forwarded_for", "seen"),
    [
        # A health check of the balancer: an empty PROXY address, so no header at all.
        (None, "127.0.0.1"),
        ("203.0.113.77", "203.0.113.77"),
        ("10.42.0.9", "10.42.0.9"),
        # Only the last address that is not trusted counts; what a client puts before it does not.
        ("127.0.0.1, 203.0.113.77", "203.0.113.77"),
        ("192.168.7.7, 10.42.0.9", "192.168.7.7"),
    ],
)
def test_the_client_that_rails_sees(forwarded_for, seen):
    assert client_address(forwarded_for, ["10.42.0.0/24"]) == seen


@needs_ruby
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nginxx['listen_port'] = 80", "Reading unsupported config value nginxx."),
        ("gitlab_rails['a'] = ", "syntax error"),
        ("registry['internal_key'] = File.read('/nowhere')", "No such file or directory"),
        ("external_url 'gitlab.example.test'", "must include a schema and FQDN"),
        ("external_url 'ftp://gitlab.example.test'", "Unsupported external URL scheme: ftp"),
        ("external_url 'https://gitlab.example.test'", "unable to request certificate"),
        ("gitaly['listen_addr'] = 'localhost:8075'", "Removed configurations found in gitlab.rb"),
        ("unicorn['port'] = 8080", "Removed configurations found in gitlab.rb"),
        (
            "gitlab_rails['smtp_enable'] = gitlab_rails['smtp_tls'] = gitlab_rails['smtp_enable_starttls_auto'] = true",
            "mutually exclusive",
        ),
        ("gitlab_rails['gitlab_ssh_host'] = 'gitlab.example.test:2222'", "only contain a valid hostname"),
    ],
)
def test_a_gitlab_rb_that_reconfigure_refuses(evaluate, text, message):
    with pytest.raises(ConfigurationError, match=message):
        evaluate(text)


@needs_ruby
def test_the_line_of_an_error_is_named(evaluate):
    with pytest.raises(ConfigurationError) as error:
        evaluate("nginx['a'] = 1\nnginxx['b'] = 1")
    assert "gitlab.rb:3" in error.value.detail


@needs_ruby
def test_registry_external_url_switches_the_bundled_registry_on_and_takes_the_host(evaluate):
    configuration = evaluate("gitlab_rails['registry_host'] = 'mine'\nregistry_external_url 'http://198.51.100.7:5000'")
    assert configuration.enabled("registry", default=False)
    assert configuration.get("gitlab_rails", "registry_host") == "198.51.100.7"
    assert "gitlab-registry.conf" in nginx_configuration.render(configuration)


@needs_ruby
def test_nginx_speaks_proxy_protocol_when_told(evaluate):
    configuration = evaluate("nginx['proxy_protocol'] = true\nnginx['real_ip_trusted_addresses'] = ['10.42.0.0/24']")
    rendered = nginx_configuration.render(configuration)["gitlab-http.conf"]
    assert "listen *:80 proxy_protocol;" in rendered
    assert "real_ip_header proxy_protocol;" in rendered
    assert "set_real_ip_from 10.42.0.0/24;" in rendered
    assert "proxy_set_header X-Forwarded-For $proxy_protocol_addr;" in rendered
    assert configuration.trusted_proxies == ["10.42.0.0/24"]


@needs_ruby
def test_a_given_real_ip_header_beats_the_proxy_protocol(evaluate):
    configuration = evaluate("nginx['proxy_protocol'] = true\nnginx['real_ip_header'] = 'X-Forwarded-For'")
    assert "real_ip_header X-Forwarded-For;" in nginx_configuration.render(configuration)["gitlab-http.conf"]


@needs_ruby
def test_tls_that_ends_in_front_of_gitlab(evaluate):
    configuration = evaluate(
        "external_url 'https://gitlab.example.test'\nnginx['listen_port'] = 80\nnginx['listen_https'] = false"
    )
    rendered = nginx_configuration.render(configuration)["gitlab-http.conf"]
    assert "listen *:80;" in rendered
    assert "proxy_set_header X-Forwarded-Proto https;" in rendered
    assert "ssl_certificate" not in rendered


@needs_ruby
def test_headers_and_free_nginx_lines_are_taken_over(evaluate):
    configuration = evaluate(
        "nginx['proxy_set_headers'] = { 'X-Lab' => '1', 'X-Real-IP' => nil }\n"
        "nginx['custom_nginx_config'] = 'server { listen 8081; }'"
    )
    rendered = nginx_configuration.render(configuration)
    assert "proxy_set_header X-Lab 1;" in rendered["gitlab-http.conf"]
    assert "X-Real-IP" not in rendered["gitlab-http.conf"]
    assert "server { listen 8081; }" in rendered["nginx.conf"]


@pytest.mark.parametrize(
    ("heard", "made", "status"),
    [
        (None, "2999-01-01T00:00:00Z", "never_contacted"),
        (None, "2001-01-01T00:00:00Z", "stale"),
        ("2999-01-01T00:00:00Z", "2001-01-01T00:00:00Z", "online"),
        ("2001-01-01T00:00:00Z", "2001-01-01T00:00:00Z", "stale"),
    ],
)
def test_a_runner_is_online_by_when_it_was_heard_of(heard, made, status):
    assert runners.status({"contacted_at": heard, "created_at": made}) == status


@needs_ruby
def test_services_wait_for_their_mount_points(evaluate):
    configuration = evaluate("high_availability['mountpoint'] = ['/var/opt/gitlab', '/etc/gitlab']")
    known = {service.name: service for service in (*services.BEFORE_MIGRATION, *services.AFTER_MIGRATION)}
    for name in ("nginx", "postgresql", "puma", "redis", "gitlab-workhorse"):
        script = services.run_script(known[name], configuration, None)
        assert "Refusing to start because /etc/gitlab is not a mountpoint." in script
    assert "mountpoint" not in services.run_script(known["gitlab-sshd"], configuration, None)


# The database


def test_a_password_that_fails_the_seed_leaves_a_gitlab_without_administrator(app):
    with pytest.raises(schema.SeedError, match="Could not create the default administrator account"):
        schema.configure(app, {"GITLAB_ROOT_PASSWORD": "testroot123"})
    assert schema.configure(app, {"GITLAB_ROOT_PASSWORD": "hg29fjQQ01mmz7Lp"}) == ["Running db:migrate rake task"]
    assert users.USER.select(app, scopes=["admins"]) == []


def test_tokens_hang_on_the_secrets_and_passwords_do_not(app):
    schema.configure(app, {"GITLAB_ROOT_PASSWORD": "hg29fjQQ01mmz7Lp"})
    root = users.USER.find(app, username="root")
    assert root
    runner = runners.create_runner(app, root, {"runner_type": "instance_type"})
    token = runners.RUNNER.token(app, runner)
    assert token
    assert token.startswith("glrt-t1_")
    assert runners.runner_with_token(app, token)
    app.cipher = Cipher("n" * 64)
    assert runners.runner_with_token(app, token) is None
    with pytest.raises(DecryptionError):
        runners.RUNNER.token(app, runner)
    assert users.user_with_password(app, "root", "hg29fjQQ01mmz7Lp")


def test_an_older_database_gets_the_columns_that_are_new(app):
    app.database.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, username TEXT)")
    schema.configure(app, {"GITLAB_ROOT_PASSWORD": "hg29fjQQ01mmz7Lp"})
    assert users.USER.select(app, scopes=["admins"])[0]["state"] == "active"


def test_an_upgrade_with_unfinished_background_migrations_fails_in_its_middle(app, monkeypatch):
    schema.configure(app, {"GITLAB_ROOT_PASSWORD": "hg29fjQQ01mmz7Lp"})
    app.database.execute(
        "INSERT INTO batched_background_migrations (job_class_name, table_name, column_name, status)"
        " VALUES ('BackfillOne', 'issues', 'id', 1)"
    )
    schema.configure(app, {})
    monkeypatch.setattr(schema, "version", lambda: "17.11.7")
    with pytest.raises(DatabaseError, match=r"marked as 'finished', but it is 'active':.*BackfillOne"):
        schema.configure(app, {})
    app.database.execute("UPDATE batched_background_migrations SET status = 6")
    assert schema.configure(app, {}) == ["Running db:migrate rake task"]


def test_the_project_of_an_image_is_the_longest_path_that_is_one(app):
    schema.configure(app, {"GITLAB_ROOT_PASSWORD": "hg29fjQQ01mmz7Lp"})
    root = users.USER.select(app)[0]
    made = projects.create_project(app, root, {"name": "One"})
    assert made["full_path"] == "root/one"
    found = projects.project_of_image(app, "root/one/image/deep")
    assert found
    assert found["id"] == made["id"]
    assert projects.project_of_image(app, "root/other") is None
    with pytest.raises(RecordInvalidError, match="Name has already been taken"):
        projects.create_project(app, root, {"name": "one"})


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda data: data.chmod(0o755), "has invalid permissions"),
        (lambda data: (data / "global/pg_control").unlink(), 'could not open file "global/pg_control"'),
    ],
)
def test_a_database_starts_only_on_a_folder_that_is_its_own(tmp_path, spoil, complaint):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    database_server.initialise(data)
    spoil(data)
    with pytest.raises(database_server.FatalError, match=complaint):
        database_server.check(data)


def test_a_database_does_not_start_for_another_user(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    database_server.initialise(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    with pytest.raises(database_server.FatalError, match="wrong ownership"):
        database_server.check(tmp_path)


def test_the_package_knows_the_required_stops():
    if shutil.which("rpmspec") is None:
        pytest.skip("rpmspec is not there")
    for version, oldest in (("17.10.4", "17.8"), ("17.11.7", "17.8"), ("18.2.8", "17.11"), ("18.3.0", "18.2")):
        spec = ROOT / "lab/played/gitlab_ce/gitlab_ce.spec"
        command = ["rpmspec", "--parse", "--define", f"gitlab_version {version}", str(spec)]
        parsed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"upgrade to the latest {oldest}.x version first" in parsed
