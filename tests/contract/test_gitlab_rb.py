"""GitLab's own package accepts every gitlab.rb that the program writes, with the results that the program needs."""

import re
from typing import Any

import pytest
import yaml

from configuration.gitlab_rb import NO_SIDEKIQ, SYSTEM_ACCOUNTS
from configuration.paths import GITLAB_FOLDERS
from tests.contract.conftest import SAID
from tests.contract.nginx import STATISTICS
from tests.contract.reconfigure import KEPT_FILES, Reconfigured
from tests.test_gitlab_rb import OTHER_WAYS, SETS

CERTIFICATE = {
    "domain": "git.example.com",
    "certificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/12345678-1234-1234-1234-123456789012",
}
RELAY = {"smtpAddress": "mail.example.com", "emailFrom": "g@example.com"}
LOGIN = {"smtpUserName": "git", "smtpPassword": "it's \\ #{secret}"}
OWNERS = """
puma['worker_processes'] = 2
gitlab_rails['env'] = { 'http_proxy' => 'http://proxy.example.com:3128', 'SKIP' => 'artifacts' }
gitlab_rails['monitoring_whitelist'] = ['10.42.0.0/20']
gitlab_rails['allowed_hosts'] = ['git.example.com']
gitlab_rails['rack_attack_git_basic_auth'] = { 'enabled' => true, 'ip_whitelist' => ['198.51.100.7'] }
gitlab_rails['ldap_enabled'] = true
gitlab_rails['ldap_servers'] = { 'main' => { 'host' => 'ldap.example.com', 'port' => 636, 'uid' => 'uid' } }
high_availability['mountpoint'] = '/mnt/backups'
sidekiq['concurrency'] = 10
"""
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "certificate": CERTIFICATE,
    "relay": RELAY,
    "login": RELAY | LOGIN,
    "plain login": RELAY | LOGIN | {"smtpAuthentication": "plain"},
    "cram_md5 login": RELAY | LOGIN | {"smtpAuthentication": "cram_md5"},
    "implicit TLS": RELAY | {"smtpPort": 465},
    "owner's lines": {"gitlabRb": OWNERS},
    "everything": CERTIFICATE | RELAY | LOGIN | {"smtpPort": 465, "registryPort": 5443, "gitlabRb": OWNERS},
}
RAILS = "/var/opt/gitlab/gitlab-rails/etc"
SERVICES_WITH_DATA = ("postgresql", "redis", "gitaly", "puma", "sidekiq", "gitlab-workhorse", "nginx", "prometheus")


@pytest.fixture(params=list(FORMS))
def form(request, judged) -> Reconfigured:
    return judged(**FORMS[request.param])


def rails(made: Reconfigured) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(made.file(f"{RAILS}/gitlab.yml"))["production"]
    return settings


def test_every_form_is_accepted_without_unknown_keys(form, checkout, request):
    assert form.problems == []
    said = request.config.stash[SAID].setdefault(str(checkout), [])
    said += [line for line in form.messages("deprecation", "warning") if line not in said]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("puma['wroker_processes'] = 2", "unknown: puma['wroker_processes']"),
        ("gitlab_rails['smtp_adress'] = 'mail.example.com'", "unknown: gitlab_rails['smtp_adress']"),
        ("pumba['worker_processes'] = 2", "unsupported config value pumba"),
        ("gitaly['cgroups_count'] = 1", "gitaly['cgroups_count']"),
        ("gitlab_rails['smtp_tls'] = true; gitlab_rails['smtp_enable_starttls_auto'] = true", "smtp_tls"),
        ("if true", "SyntaxError"),
    ],
)
def test_a_line_that_the_package_does_not_accept_is_detected(judged, line, problem):
    assert problem in "\n".join(judged(line, **RELAY).problems)


def test_removed_keys_are_refused_as_reconfigure_does(judged, checkout):
    """Removed in 18.0 (omnibus-gitlab, deprecations.rb)."""
    made = judged("git_data_dirs({ 'default' => { 'path' => '/srv/git' } })")
    if int(checkout.version.split(".")[0]) >= 18:
        assert "Removed configurations found in gitlab.rb" in made.refusal
    else:
        assert made.problems == []
        assert any("git_data_dirs has been deprecated" in line for line in made.messages("deprecation"))


def test_however_the_owners_lines_set_it_what_the_program_relies_on_comes_out_the_same(judged):
    """Tries all at once. Another test checks that the settings reject most of them by name."""
    plain, changed = judged(), judged("\n".join([SETS, *OTHER_WAYS]))
    assert changed.refusal == ""
    nginx = [path.relative_to(plain.folder) for path in plain.folder.glob("var/opt/gitlab/nginx/conf/**/*.*")]
    assert nginx
    for path in (*nginx, "/var/opt/gitlab/gitlab-shell/config.yml", f"{RAILS}/gitlab-registry.key"):
        assert changed.file(str(path)) == plain.file(str(path))
    for section in ("gitlab", "registry", "gitlab_shell"):
        assert rails(changed)[section] == rails(plain)[section]
    assert changed.accounts == plain.accounts
    assert changed.environments == plain.environments


def test_a_drills_first_configuration_lacks_sidekiq_and_nothing_else(judged):
    loud, quiet = judged(), judged(NO_SIDEKIQ)
    assert quiet.problems == []
    assert set(loud.recipes) ^ set(quiet.recipes) == {"gitlab::sidekiq", "gitlab::sidekiq_disable"}


def test_backups_leave_the_registry_out(form):
    skipped = form.file("/opt/gitlab/etc/gitlab-rails/env/SKIP").split(",")
    assert "registry" in skipped


def test_the_owners_environment_and_limits_stay(judged):
    made = judged(**FORMS["owner's lines"])
    assert made.file("/opt/gitlab/etc/gitlab-rails/env/http_proxy") == "http://proxy.example.com:3128"
    assert made.file("/opt/gitlab/etc/gitlab-rails/env/no_proxy") == "10.42.0.5,localhost,127.0.0.1"
    assert made.file("/opt/gitlab/etc/gitlab-rails/env/SKIP") == "artifacts,registry"
    assert rails(made)["monitoring"]["ip_whitelist"] == ["10.42.0.0/20", "127.0.0.0/8", "::1/128"]
    assert rails(made)["rack_attack"]["git_basic_auth"]["ip_whitelist"] == ["198.51.100.7", "127.0.0.1", "203.0.113.23"]
    assert "workers 2" in made.file(f"{RAILS}/puma.rb")


def test_hosts_that_the_owner_allows_are_joined_by_those_that_ask(judged):
    assert not rails(judged())["gitlab"].get("allowed_hosts")
    hosts = rails(judged(**FORMS["owner's lines"]))["gitlab"]["allowed_hosts"]
    assert {"git.example.com", "203.0.113.20", "localhost", "127.0.0.1"} <= set(hosts)


def test_links_name_what_clients_reach(judged):
    plain, secure = (rails(judged(**FORMS[name]))["gitlab"] for name in ("plain", "certificate"))
    assert (plain["host"], plain["port"], plain["https"]) == ("203.0.113.20", 80, False)
    assert (secure["host"], secure["port"], secure["https"]) == ("git.example.com", 443, True)


def test_the_registry_is_the_other_machine_and_trusts_what_gitlab_signs(form):
    registry = rails(form)["registry"]
    assert registry["enabled"] is True
    assert registry["host"] == rails(form)["gitlab"]["host"]
    assert registry["api_url"] == f"http://10.42.0.5:{registry['port']}"
    assert registry["issuer"] == "omnibus-gitlab-issuer"
    assert form.file(registry["key"]) == "the key"
    assert "registry::disable" in form.recipes


def test_the_mail_server_is_asked_as_the_settings_say(judged):
    def smtp(name: str) -> str:
        return " ".join(judged(**FORMS[name]).file(f"{RAILS}/smtp_settings.rb").split())

    assert 'address: "mail.example.com", port: 587' in smtp("relay")
    assert "enable_starttls_auto: true" in smtp("relay")
    assert 'user_name: "' not in smtp("relay")
    assert "authentication:" not in smtp("relay")
    assert 'authentication: :login, user_name: "git", password: "it\'s \\\\ \\#{secret}"' in smtp("login")
    assert "authentication: :plain" in smtp("plain login")
    assert "authentication: :cram_md5" in smtp("cram_md5 login")
    assert "port: 465" in smtp("implicit TLS")
    assert "tls: true" in smtp("implicit TLS")
    assert "enable_starttls_auto: false" in smtp("implicit TLS")
    assert rails(judged(**FORMS["relay"]))["gitlab"]["email_from"] == "g@example.com"
    assert rails(judged())["gitlab"]["email_enabled"] is False
    assert not (judged().folder / f"{RAILS}/smtp_settings.rb".lstrip("/")).exists()


def test_the_owners_of_kept_data_have_their_fixed_numbers(form):
    numbers = {account.number for account in SYSTEM_ACCOUNTS}
    made = {(kind, name): number for kind, name, number in form.accounts if number is not None}
    for name in ("git", "gitlab-www", "gitlab-psql", "gitlab-redis", "gitlab-prometheus"):
        assert made["user", name] == made["group", name]
        numbers.remove(made["user", name])
    assert not numbers


def test_nginx_listens_where_the_load_balancer_sends_and_nowhere_else(form):
    files = [path for path in form.folder.glob("var/opt/gitlab/nginx/conf/**/*.*") if path.name != STATISTICS]
    [listen] = [line for path in files for line in re.findall(r"^\s*listen (.*);", path.read_text(), re.MULTILINE)]
    assert set(listen.split()) - {"default_server"} == {"*:80", "proxy_protocol"}


def test_git_over_ssh_is_gitlabs_own_server_without_proxy_protocol(form):
    sshd = yaml.safe_load(form.file("/var/opt/gitlab/gitlab-shell/config.yml"))["sshd"]
    assert sshd["listen"] == "[::]:2222"
    assert sshd["proxy_protocol"] is False
    assert "gitlab-sshd" in form.file("/opt/gitlab/sv/gitlab-sshd/run")


@pytest.mark.parametrize("service", SERVICES_WITH_DATA)
def test_services_wait_for_the_volume(form, service):
    script = form.file(f"/opt/gitlab/sv/{service}/run")
    for folder in GITLAB_FOLDERS:
        assert f"if ! mountpoint -q '{folder}'" in script


def test_logs_are_limited(form):
    """The log of gitlab-sshd has svlogd's defaults, ten files of 1 MB: its recipe, gitlab-shell.rb, sets no limits."""
    logs = {path.parts[-3]: path.read_text() for path in form.folder.glob("opt/gitlab/sv/*/log/config")}
    assert set(SERVICES_WITH_DATA) < set(logs)
    assert {service for service, log in logs.items() if "s20971520\n" not in log} <= {"gitlab-sshd"}
    assert "maxsize 100M" in form.file("/var/opt/gitlab/logrotate/logrotate.d/nginx")


def test_the_first_password_is_the_one_in_the_file_and_the_package_stores_none(form):
    [passwords] = [env for env in form.environments.values() if env and "GITLAB_ROOT_PASSWORD" in env]
    assert passwords["GITLAB_ROOT_PASSWORD"] in set(map(str.strip, KEPT_FILES.values()))
    assert not any("initial_root_password" in str(path) for path in form.folder.rglob("*"))
    assert not [line for line in form.messages("note") if "stored" in line]
