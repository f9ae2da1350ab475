"""The user's lines in gitlab.rb cannot change what the program relies on: real Ruby evaluates the whole file."""

import functools
import json
import re
import subprocess
from typing import Any

import pytest

from configuration.paths import GITLAB_FOLDERS
from settings import SettingsError
from tests.engine import ROOT
from tests.test_configuration import RELAY, gitlab_rb
from tests.test_settings import load
from validation import unsupported
from validation.gitlab_rb import PACKAGE_DEFAULTS, SET_BY_PROGRAM, TOP_LEVEL

EVALUATE = ROOT / "lab/played/gitlab_ce/lab_gitlab/ruby/gitlab_rb.rb"
needs_ruby = pytest.mark.needs("ruby")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The settings in a whole rendered gitlab.rb, by section. The user's lines have not passed `Settings.load`."""
    tmp_path = tmp_path_factory.mktemp("gitlab")

    @functools.cache
    def evaluate(lines: str, **changes: Any) -> dict[str, Any]:
        mark = "# the user's lines"
        text = gitlab_rb(gitlabRb=mark, **changes)
        assert text.count(mark) == 1
        for name in ("registry-token.key", "registry-token.crt", "seeded-root-password"):
            (tmp_path / name).write_text(f"{name}\n")
            text = text.replace(f"/etc/gitlab/{name}", str(tmp_path / name))
        file = tmp_path / "gitlab.rb"
        file.write_text(text.replace(mark, lines))
        done = subprocess.run(["ruby", "--disable=gems", EVALUATE, file], capture_output=True, text=True, check=False)
        settings: dict[str, Any] = json.loads(done.stdout)
        assert "error" not in settings, settings
        return settings

    return evaluate


def relied_on(settings: dict[str, Any]) -> dict[str, Any]:
    said = {f"{section} {key}": settings[section].get(key) for section, key in (*SET_BY_PROGRAM, *PACKAGE_DEFAULTS)}
    return {**said, **{name: settings[name] for name in ("external_url", "registry_external_url")}}


SETS = "\n".join(f"{section}['{key}'] = 'elsewhere'" for section, key in (*SET_BY_PROGRAM, *PACKAGE_DEFAULTS))
"""Sets each at once: Ruby takes longer to start than to evaluate all lines."""
OTHER_WAYS = [
    "nginx.merge!('listen_port' => 8080, 'enable' => false)",
    "nginx.store('listen_port', 8080)",
    "%w[listen_port listen_https].each { |key| nginx[key] = 'x' }",
    "nginx['listen' + '_port'] = 8080",
    "Gitlab['nginx'] = { 'listen_port' => 8080, 'listen_addresses' => ['10.0.0.1'] }",
    "self.external_url = 'http://elsewhere'",
    "send(:external_url, 'http://elsewhere')",
    "send(:registry_external_url, 'http://elsewhere:5000')",
    "gitlab_rails.delete('registry_host')",
    "gitlab_rails['nginx'] = { 'listen_port' => 8080, 'real_ip_header' => 'X-Real-IP' }",
    "gitlab_rails.update('initial_root_password' => 'x', 'store_initial_root_password' => true)",
    "first_password = '/nowhere'",
    "x, nginx = 1, { 'listen_port' => 8080 }",
    "x = (gitlab_rails = {})",
    "external_url = registry = 5",
    "gitlab_sshd.clear",
    "user.replace('uid' => 1, 'username' => 'gitlab')",
    "rails = skipped = monitors = shut_out = mounted = excepted = 5",
]


@needs_ruby
@pytest.mark.parametrize("lines", [SETS, *OTHER_WAYS])
def test_however_a_line_sets_it_what_the_program_relies_on_is_as_without_the_line(evaluated, lines):
    changed = evaluated(lines)
    assert relied_on(changed) == relied_on(evaluated("# nothing"))
    assert changed["nginx"]["listen_port"] == 80
    assert not {"listen_port", "real_ip_header"} & set(changed["gitlab_rails"].get("nginx", {}))


DIRECT = "10.42.0.5,localhost,127.0.0.1"
"""The registry, which GitLab calls at its private address, and the machine itself."""


@needs_ruby
@pytest.mark.parametrize(
    ("lines", "env"),
    [
        ("# nothing", {"SKIP": "registry"}),
        (
            "gitlab_rails['env'] = { 'http_proxy' => 'http://proxy.example.com:3128', 'no_proxy' => '.example.com' }",
            {"http_proxy": "http://proxy.example.com:3128", "no_proxy": f".example.com,{DIRECT}", "SKIP": "registry"},
        ),
        ("gitlab_rails['env'] = {}", {"SKIP": "registry"}),
        ("gitlab_rails['env'] = nil", {"SKIP": "registry"}),
        (
            "gitlab_rails['env'] = { http_proxy: 'p' }",
            {"http_proxy": "p", "no_proxy": DIRECT, "SKIP": "registry"},
        ),
        (
            "gitlab_rails['env'] = { 'HTTP_PROXY' => 'p', 'NO_PROXY' => 'localhost, a' }",
            {"HTTP_PROXY": "p", "NO_PROXY": "localhost,a,10.42.0.5,127.0.0.1", "SKIP": "registry"},
        ),
        (
            "gitlab_rails['env'] = { 'http_proxy' => 'p', 'no_proxy' => nil, 'NO_PROXY' => 'a' }",
            {"http_proxy": "p", "no_proxy": DIRECT, "NO_PROXY": f"a,{DIRECT}", "SKIP": "registry"},
        ),
        (
            "gitlab_rails['env'] = { 'https_proxy' => 'p', 'no_proxy' => 'a' }",
            {"https_proxy": "p", "no_proxy": "a", "SKIP": "registry"},
        ),
        (
            "gitlab_rails['env']['MALLOC_CONF'] = 'dirty_decay_ms:1000'",
            {"MALLOC_CONF": "dirty_decay_ms:1000", "SKIP": "registry"},
        ),
        ("gitlab_rails['env'] = { 'SKIP' => 'artifacts' }", {"SKIP": "artifacts,registry"}),
        ("gitlab_rails['env'] = { 'SKIP' => 'artifacts, registry' }", {"SKIP": "artifacts,registry"}),
        ("gitlab_rails['env'] = { 'SKIP' => nil }", {"SKIP": "registry"}),
        ("gitlab_rails['env'] = { SKIP: 'lfs' }", {"SKIP": "lfs,registry"}),
        ("x = gitlab_rails['env']['SKIP']", {"SKIP": "registry"}),
        ("gitlab_rails.delete('env')", {"SKIP": "registry"}),
        ("gitlab_rails.merge!('env' => { 'A' => '1' })", {"A": "1", "SKIP": "registry"}),
    ],
)
def test_the_owners_environment_keeps_what_a_backup_and_the_registry_need(evaluated, lines, env):
    assert evaluated(lines)["gitlab_rails"]["env"] == env


@needs_ruby
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("['10.42.0.0/20']", ["10.42.0.0/20", "127.0.0.0/8", "::1/128"]),
        ("['127.0.0.0/8', '10.0.0.0/8']", ["127.0.0.0/8", "10.0.0.0/8", "::1/128"]),
        ("'10.0.0.0/8'", ["10.0.0.0/8", "127.0.0.0/8", "::1/128"]),
        ("[]", ["127.0.0.0/8", "::1/128"]),
        ("nil", None),
    ],
)
def test_whoever_may_watch_the_machine_itself_may(evaluated, given, kept):
    assert evaluated(f"gitlab_rails['monitoring_whitelist'] = {given}")["gitlab_rails"]["monitoring_whitelist"] == kept
    assert "monitoring_whitelist" not in evaluated("# nothing")["gitlab_rails"]


@needs_ruby
@pytest.mark.parametrize(
    ("given", "whitelist"),
    [
        ("{ 'enabled' => true, 'ip_whitelist' => ['198.51.100.7'] }", ["198.51.100.7", "127.0.0.1", "203.0.113.23"]),
        ("{ 'enabled' => true, 'maxretry' => 5 }", ["127.0.0.1", "203.0.113.23"]),
        ("{ 'enabled' => true, 'ip_whitelist' => nil }", ["127.0.0.1", "203.0.113.23"]),
    ],
)
def test_the_runner_is_never_shut_out_by_the_owners_limits(evaluated, given, whitelist):
    attack = evaluated(f"gitlab_rails['rack_attack_git_basic_auth'] = {given}")["gitlab_rails"][
        "rack_attack_git_basic_auth"
    ]
    assert attack["ip_whitelist"] == whitelist
    assert evaluated("gitlab_rails['rack_attack_git_basic_auth'] = nil")


@needs_ruby
def test_hosts_that_the_owner_allows_are_joined_by_those_that_ask(evaluated):
    hosts = evaluated("gitlab_rails['allowed_hosts'] = ['git.example.com']")["gitlab_rails"]["allowed_hosts"]
    assert hosts[:3] == ["git.example.com", "203.0.113.20", "localhost"]
    assert "127.0.0.1" in hosts
    for none in ("# nothing", "gitlab_rails['allowed_hosts'] = []", "gitlab_rails['allowed_hosts'] = nil"):
        assert not evaluated(none)["gitlab_rails"].get("allowed_hosts")


@needs_ruby
def test_services_wait_for_the_stacks_volume_and_for_the_owners(evaluated):
    mounted = evaluated("high_availability['mountpoint'] = '/mnt/backups'")["high_availability"]["mountpoint"]
    assert mounted == ["/mnt/backups", "/var/opt/gitlab", "/etc/gitlab", "/var/log/gitlab"]


@needs_ruby
@pytest.mark.parametrize(
    ("line", "section", "key", "value"),
    [
        ("puma['worker_processes'] = 2", "puma", "worker_processes", 2),
        ("gitlab_rails['backup_keep_time'] = 1", "gitlab_rails", "backup_keep_time", 1),
        ("logging['svlogd_size'] = 7", "logging", "svlogd_size", 7),
        ("nginx['client_max_body_size'] = '1g'", "nginx", "client_max_body_size", "1g"),
        ("nginx['log_format'] = '{\"time\":\"$time_iso8601\"}'", "nginx", "log_format", '{"time":"$time_iso8601"}'),
        ("gitlab_rails['gitlab_email_enabled'] = true", "gitlab_rails", "gitlab_email_enabled", True),
        ("gitlab_rails['ldap_enabled'] = true", "gitlab_rails", "ldap_enabled", True),
    ],
)
def test_what_the_owner_may_change_is_changed(evaluated, line, section, key, value):
    assert load(gitlabRb=line)
    assert evaluated(line)[section][key] == value


@needs_ruby
@pytest.mark.parametrize("lines", ["=begin\nx", "a = <<~END\nx", "if true", "puts 'x", "x = [1,", "def x"])
def test_what_begins_in_the_setting_and_does_not_end_there_hides_nothing(tmp_path, lines):
    (tmp_path / "gitlab.rb").write_text(gitlab_rb(gitlabRb=lines))
    assert (
        subprocess.run(
            ["ruby", "--disable=gems", "-c", tmp_path / "gitlab.rb"], capture_output=True, check=False
        ).returncode
        != 0
    )


def refusal(line: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load(gitlabRb=line)
    return str(refused.value)


@pytest.mark.parametrize(("section", "key"), [*SET_BY_PROGRAM, *PACKAGE_DEFAULTS])
@pytest.mark.parametrize(
    "form",
    ["{s}['{k}'] = 1", '  {s}["{k}"]=1', "{s}[:{k}] ||= 1", "x = 1; {s} [ '{k}' ] = 1", "Gitlab['{s}']['{k}'] = 1"],
)
def test_a_line_that_sets_what_the_program_relies_on_is_refused_by_name(section, key, form):
    said = refusal(form.format(s=section, k=key))
    assert f"gitlabRb: (hidden) sets {section}['{key}'], but " in said
    assert said.endswith("Remove that line.")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        *((f"{name} 'x'", f"sets {name}, ") for name in TOP_LEVEL),
        ("x = 1; external_url 'x'", "sets external_url"),
        ("external_url('x')", "sets external_url"),
        ("self.external_url = 'x'", "sets external_url"),
        ("Gitlab['external_url'] = 'x'", "sets external_url"),
        ("gitlab_rails['nginx']['listen_port'] = 1", "sets nginx['listen_port']"),
        ("nginx['real_ip_trusted_addresses'] << '10.0.0.0/8'", "sets nginx['real_ip_trusted_addresses']"),
        ("nginx['log_directory'] = '/srv/log'", "sets nginx['log_directory']"),
        ("nginx = { 'listen_port' => 1 }", "assigns a variable named nginx"),
        ("gitlab_rails = {}", "assigns a variable named gitlab_rails"),
        ("puma['x'] = 1\n__END__\n", "contains __END__"),
        ("return if true", "contains return"),
        ("if true\n  return\nend", "contains return"),
        ("def own\n  return 1\nend\nreturn", "contains return"),
        ("def own = 1\nreturn if own\nif own\nend", "contains return"),
        ("def own; 1; end\n  return\nif true\n  x = 1\nend", "contains return"),
        ("x = <<~A + y\n  roles\nA\nreturn", "contains return"),
        ("x = '<<~A'\nreturn\nA", "contains return"),
        ("# <<~A\nexternal_url 'x'\nA", "sets external_url"),
        ("x = [1] << A\nexternal_url 'x'\nA", "sets external_url"),
        ("x = <<~A\nreturn\n", "contains return"),
        ("exit", "contains exit"),
        ("puma['x'] = 1\r\nnginx['listen_port'] = 1\r\n", "sets nginx['listen_port']"),
    ],
)
def test_other_lines_that_undo_it_are_refused(line, said):
    assert said in refusal(line)


ELSEWHERE = "what is not on the data volume is in no backup"
PATHS_ELSEWHERE = [
    "postgresql['dir'] = '/srv/postgresql'",
    "gitlab_rails['shared_path'] = '/mnt/nfs/shared'",
    "gitlab_rails['uploads_directory'] = \"#{base}/uploads\"",
    "gitlab_rails['lfs_storage_path'] = File.join(base, 'lfs')",
    "gitlab_rails['artifacts_path'] = '/var/opt/gitlab/../artifacts'",
    "gitlab_rails['pages_path'] = '/var/opt/gitlab-pages'",
    "gitlab_ci['builds_directory'] = '/var/opt/gitlab/builds' + suffix",
    "git_data_dirs({ 'default' => { 'path' => '/srv/git' } })",
    'git_data_dirs(\n  "default" => { "path" => "/var/opt/gitlab/git-data" },\n  "b" => { "path" => "/srv/b" }\n)',
    "git_data_dirs 'default' => { 'path' => base }",
    "git_data_dirs['default']['path'] = '/srv/git'",
    "gitaly['configuration'][:storage] = [{ name: 'default', path: '/srv/git' }]",
    "gitaly['configuration'] = {\n  storage: [\n    { name: 'default', path: '/srv/git' },\n  ],\n}",
    "gitaly['configuration'] = { 'storage' => storages }",
]


@pytest.mark.parametrize("line", PATHS_ELSEWHERE)
def test_data_that_would_be_in_no_backup_is_refused(line):
    said = refusal(line)
    key = re.split(r" =|\(| |\['default", line)[0]
    assert re.search(rf"gitlabRb: \(hidden\) sets {re.escape(key)}(\[:storage\])?, but {ELSEWHERE}", said)
    assert said.endswith("Remove that line, or write a path below /var/opt/gitlab.")


def test_the_folders_of_data_are_those_on_the_volume():
    assert unsupported.DATA_FOLDERS == GITLAB_FOLDERS


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "postgresql['enable'] = false",
            "sets postgresql['enable'], but upgrades, backups and drills ask the PostgreSQL",
        ),
        (
            "gitlab_rails['db_host'] = 'db.example.com'",
            "sets gitlab_rails['db_host'], but upgrades, backups and drills",
        ),
        (
            "gitlab_rails['databases']['main']['db_host'] = 'db.example.com'",
            "sets gitlab_rails['databases']['main']['db_host'], but upgrades",
        ),
        ("x = { 'use_iam_profile' => true }", "sets use_iam_profile, but only root reaches AWS's metadata service"),
        ("x = { use_iam_profile: true }", "sets use_iam_profile"),
        ("gitlab_rails['backup_upload_connection']['use_iam_profile'] = true", "sets use_iam_profile"),
        ("x = YAML.load <<~YAML\n  use_iam_profile: true\nYAML", "sets use_iam_profile"),
    ],
)
def test_what_cannot_work_in_this_stack_is_refused_with_the_reason(line, said):
    assert said in refusal(line)


@pytest.mark.parametrize(
    ("key", "value"),
    [("smtp_enable", "true"), ("smtp_address", "'mail.example.com'"), ("smtp_enable", "true if 1")],
)
def test_mail_that_would_never_be_sent_is_refused_without_the_setting_of_its_server(key, value):
    line = f"gitlab_rails['{key}'] = {value}"
    assert f"gitlabRb: (hidden) sets gitlab_rails['{key}'], but mail is off" in refusal(line)
    assert load(gitlabRb=line, **RELAY).extra_gitlab_rb == line


@pytest.mark.parametrize(
    "line",
    [
        "gitlab_rails['smtp_enable'] = false",
        "# gitlab_rails['smtp_enable'] = true",
        "postgresql['enable'] = true # as it is",
        "postgresql['shared_buffers'] = '1GB'",
        "postgresql['dir'] = '/var/opt/gitlab/postgresql'",
        "gitlab_rails['shared_path'] = \"/var/opt/gitlab/shared\" # own",
        "gitlab_rails['lfs_storage_path'] = nil",
        "gitlab_rails['backup_path'] = '/mnt/backups'",
        "x = gitlab_rails['shared_path']",
        'git_data_dirs({\n  "default" => {\n    "path" => "/var/opt/gitlab/git-data"\n   }\n})',
        "gitaly['configuration'] = { git: { bin_path: '/opt/git' } }\nx = { storage: [{ path: '/srv' }] }",
        "gitaly['configuration'] = { storage: [{ name: 'a', path: '/var/opt/gitlab/a' }], git: { path: '/opt/x' } }",
        "gitaly['configuration'][:concurrency] = [{ rpc: 'x' }]",
        "x = { 'use_iam_profile' => false }",
    ],
)
def test_what_can_work_in_this_stack_is_taken(line):
    assert load(gitlabRb=line).extra_gitlab_rb == line


@pytest.mark.parametrize(
    "line",
    [
        "# nginx['listen_port'] = 8080",
        "nginx['listen_port_x'] = 1",
        "mattermost_nginx['listen_port'] = 1",
        "x = gitlab_rails['registry_host']",
        "puts 1 if gitlab_rails['registry_port'] == '5000'",
        "gitlab_rails['env'] = { 'http_proxy' => 'http://proxy.example.com:3128' }",
        "gitlab_rails['monitoring_whitelist'] = ['127.0.0.0/8', '10.42.0.0/20']",
        "nginx['log_format'] = 'x'",
        "pages_external_url 'http://pages.example.com'",
        "gitlab_rails['rack_attack_git_basic_auth'] = { 'enabled' => false }",
        "exiting = 1",
        "nginx['custom_gitlab_server_config'] = <<~CONF\n  location /x {\n    return 404;\n  }\n  exit\nCONF",
        "gitlab_rails['ldap_servers'] = YAML.load <<-'EOS'\n  main:\n    roles: [a]\n  roles: [b]\n  EOS",
        "x = [<<A, <<~B]\nreturn\nA\n  roles: [b]\n  B",
        "x = <<~A\n__END__\nexternal_url 'x'\nA",
        "def own(name)\n  return 1 if name\n\n  2\nend",
        "own = lambda do |name|\n  return 1 if name\n  2\nend",
        "own = ->(name) {\n  return 1 if name\n  2\n}",
    ],
)
def test_a_line_that_undoes_nothing_is_taken(line):
    assert load(gitlabRb=line).extra_gitlab_rb == line
