"""Invalid settings are rejected before any resource is created; the error has key, value and remedy."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pulumi
import pytest

from components.stack_config import StackConfig
from settings import Settings, SettingsError
from tests.conftest import dev_config, openssh_pair
from tests.engine import PROJECT, ROOT, SECRET_KEYS, run_program
from validation.supported_versions import MAINTAINED

OTHER_PUBLIC_KEY, OTHER_PRIVATE_KEY = openssh_pair(b"o")
ENCRYPTED_PRIVATE_KEY = openssh_pair(cipher=b"aes256-ctr")[1]
SNAPSHOT = "snap-0123456789abcdef0"
CERTIFICATE = "arn:aws:acm:eu-central-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"

NEWEST = f"{MAINTAINED[-1]}.0"


def load(secret_keys=SECRET_KEYS, **changes) -> Settings:
    return load_from(dev_config(**changes), secret_keys)


def load_from(values: dict[str, str], secret_keys=SECRET_KEYS, source=StackConfig) -> Settings:
    """The settings of a configuration, read by the SDK's own class, as the program does."""
    pulumi.runtime.set_all_config(values)
    return Settings.load(source("gitlab"), source("aws"), is_secret=lambda key: key in secret_keys)


PRIVILEGED = {"runnerPrivileged": "true", "runnerTags": ["privileged"], "runnerPrivilegedImages": ["docker:28-dind"]}

REFUSALS = [
    ("aws:region", {"aws__region": None}, "missing"),
    ("aws:region", {"aws__region": "frankfurt"}, "not an AWS region"),
    ("availabilityZone", {"availabilityZone": None}, "missing"),
    ("availabilityZone", {"availabilityZone": "eu-central-1"}, "not an availability zone"),
    ("availabilityZone", {"availabilityZone": "us-east-1a"}, "not in aws:region"),
    ("availabilityZone", {"availabilityZone": "eu-central-10a"}, "not in aws:region"),
    ("availabilityZone", {"availabilityZone": "us-west-2-lax-1a", "aws__region": "us-west-2"}, "not an availability"),
    ("networkCidr", {"networkCidr": "10.42.0.0"}, "prefix from /16"),
    ("networkCidr", {"networkCidr": "10.42.0.1/16"}, "host bits set"),
    ("networkCidr", {"networkCidr": "8.8.0.0/16"}, "not a private network"),
    ("networkCidr", {"networkCidr": "10.0.0.0/8"}, "unsupported prefix length. Use a prefix from /16 to /26"),
    ("networkCidr", {"networkCidr": "172.17.0.0/16"}, "which Docker uses"),
    ("adminCidrs", {"adminCidrs": None}, "missing"),
    ("adminCidrs", {"adminCidrs": []}, "empty"),
    ("adminCidrs", {"adminCidrs": "198.51.100.7/32"}, "not a list of strings"),
    ("adminCidrs[0]", {"adminCidrs": ["0.0.0.0/0"]}, "opens SSH to too many addresses"),
    ("adminCidrs[0]", {"adminCidrs": ["8.0.0.0/8"]}, "'8.0.0.0/8' is larger than /16"),
    ("adminCidrs[0]", {"adminCidrs": ["198.50.0.0/15"]}, "larger than /16 and opens SSH to too many addresses"),
    ("adminCidrs", {"adminCidrs": ["198.50.0.0/16", "198.51.0.0/16"]}, "the networks together cover 198.50.0.0/15"),
    ("adminCidrs[1]", {"adminCidrs": ["198.51.100.7/32", "::/0"]}, "not an IPv4 network"),
    ("clientCidrs", {"clientCidrs": None}, "missing"),
    ("clientCidrs", {"clientCidrs": ["0.0.0.0/0"]}, "without TLS would send passwords"),
    ("clientCidrs", {"clientCidrs": ["0.0.0.0/1", "128.0.0.0/1"]}, "0.0.0.0/1, 128.0.0.0/1 without TLS"),
    (
        "clientCidrs",
        {"clientCidrs": ["64.0.0.0/2", "128.0.0.0/4", "144.0.0.0/4", "160.0.0.0/3"]},
        "unencrypted over the internet",
    ),
    ("clientCidrs", {"clientCidrs": ["198.51.100.0/24", "198.51.100.0/24"]}, "contains duplicates. List each"),
    ("domain", {"domain": "https://git.example.com"}, "scheme"),
    ("domain", {"domain": "Git.Example.com"}, "lower-case"),
    ("domain", {"domain": "203.0.113.7"}, "lower-case domain name"),
    ("domain", {"certificateArn": CERTIFICATE}, "missing, but certificateArn is set"),
    ("certificateArn", {"certificateArn": "my-certificate", "domain": "git.example.com"}, "not the ARN"),
    (
        "certificateArn",
        {"certificateArn": CERTIFICATE.replace("eu-central-1", "us-east-1"), "domain": "git.example.com"},
        "in 'us-east-1', but the load balancer is in 'eu-central-1'",
    ),
    ("hostedZoneId", {"hostedZoneId": "example.com", "domain": "git.example.com"}, "not a Route 53 hosted zone ID"),
    ("hostedZoneId", {"hostedZoneId": "Z0123456789ABC"}, "domain is missing"),
    ("registryPort", {"registryPort": "80"}, "from 1024 to 65535"),
    ("registryPort", {"registryPort": "http"}, "not a whole number"),
    ("registryGarbageCollection", {"registryGarbageCollection": "nightly"}, "such as daily, Sun 03:00"),
    ("registryGarbageCollection", {"registryGarbageCollection": "0 3 * * 0"}, "systemd calendar expression"),
    ("registryGarbageCollection", {"registryGarbageCollection": "*:*"}, "more than once an hour"),
    ("registryGarbageCollection", {"registryGarbageCollection": "Sun 03:00\nExecStart=x"}, "systemd calendar"),
    ("registryGarbageCollectionUntagged", {"registryGarbageCollectionUntagged": "yes"}, "neither true nor false"),
    ("registryGarbageCollectionUntagged", {"registryGarbageCollectionUntagged": "true"}, "Set its schedule"),
    ("serverDataVolumeId", {"serverDataVolumeId": "gitlab-data"}, "not a volume ID"),
    ("registryDataVolumeId", {"registryDataVolumeId": "vol-1"}, "not a volume ID"),
    (
        "registryDataVolumeId",
        {"serverDataVolumeId": "vol-0123456789abcdef0", "registryDataVolumeId": "vol-0123456789abcdef0"},
        "'vol-0123456789abcdef0' is also serverDataVolumeId. Each machine needs its own volume",
    ),
    (
        "serverDataSnapshotId",
        {"serverDataSnapshotId": "latest", "registryDataSnapshotId": SNAPSHOT},
        "not a snapshot ID",
    ),
    ("registryDataSnapshotId", {"serverDataSnapshotId": SNAPSHOT}, "missing, but the other machine's snapshot is set"),
    ("serverDataSnapshotId", {"registryDataSnapshotId": SNAPSHOT}, "missing, but the other machine's snapshot is set"),
    (
        "registryDataSnapshotId",
        {"serverDataSnapshotId": SNAPSHOT, "registryDataSnapshotId": SNAPSHOT},
        f"{SNAPSHOT!r} is also serverDataSnapshotId. A backup has a snapshot of each volume",
    ),
    *(
        (
            f"{role}DataVolumeId",
            {
                "serverDataSnapshotId": SNAPSHOT,
                "registryDataSnapshotId": SNAPSHOT.replace("0", "1"),
                f"{role}DataVolumeId": "vol-0123456789abcdef0",
            },
            f"set, and so is {role}DataSnapshotId. Remove one",
        )
        for role in ("server", "registry")
    ),
    ("runnerName", {"runnerName": "the runner"}, "not a runner name"),
    ("drill", {"drill": "weekly"}, "neither true nor false"),
    ("balancerAddressId", {"balancerAddressId": "203.0.113.9"}, "not the allocation ID"),
    ("securityUpdates", {"securityUpdates": "on Sundays"}, "such as daily, Sun 03:00"),
    ("backup", {"backup": "sometimes"}, "neither true nor false"),
    ("backupSchedule", {"backupSchedule": "*:0/10"}, "more than once an hour"),
    ("backupKeepWeekly", {"backupKeepWeekly": "52"}, "from 0 to 8: backups are locked while they are kept"),
    ("permissionsBoundary", {"permissionsBoundary": "PowerUser"}, "not the ARN of an IAM policy"),
    ("amiId", {"amiId": "RHEL-8.10"}, "not an AMI ID"),
    ("serverInstanceType", {"serverInstanceType": "large"}, "not an instance type"),
    ("runnerRootVolumeSize", {"runnerRootVolumeSize": "10"}, "from 30 to"),
    ("serverDataVolumeSize", {"serverDataVolumeSize": "1"}, "from 10 to"),
    ("sshPublicKey", {"sshPublicKey": None}, "missing"),
    ("sshPublicKey", {"sshPublicKey": "ecdsa-sha2-nistp256 AAAA"}, "EC2 accepts no other type"),
    ("sshPublicKey", {"sshPublicKey": "ssh-ed25519 not-base64!"}, "corrupt"),
    ("sshPublicKey", {"sshPublicKey": "ssh-ed25519 AAAAB3NzaC1yc2E="}, "corrupt"),
    ("sshPublicKey", {"sshPublicKey": OTHER_PUBLIC_KEY}, "does not match sshPrivateKey"),
    ("sshPrivateKey", {"sshPrivateKey": "hunter2"}, "not a private key"),
    ("sshPrivateKey", {"sshPrivateKey": ENCRYPTED_PRIVATE_KEY}, "passphrase"),
    ("gitlabVersion", {"gitlabVersion": "17.10"}, "not a version"),
    ("acceptUnsupportedGitlab", {"acceptUnsupportedGitlab": "yes"}, "neither true nor false"),
    ("runnerVersion", {"runnerVersion": "latest"}, "not a version"),
    ("registryVersion", {"registryVersion": "v4.15.2-gitlab"}, "not a version"),
    ("registryImage", {"registryImage": "registry.example.com/registry@sha256:abc"}, "not 64 hex digits"),
    ("dockerVersion", {"dockerVersion": "29.1.3"}, "rejects the runner's Docker API"),
    ("containerdVersion", {"containerdVersion": "2.3"}, "not a version"),
    ("containerdVersion", {"containerdVersion": "1.6.39"}, "Use 1.7.29+, 2.1.5+, or 2.2.0 or later"),
    ("containerdVersion", {"containerdVersion": "1.7.28"}, "containers can escape from"),
    ("containerdVersion", {"containerdVersion": "2.0.7"}, "containers can escape from"),
    ("containerdVersion", {"containerdVersion": "2.1.4"}, "containers can escape from"),
    ("gitlabPackageKeys", {"gitlabPackageKeys": []}, "empty. List at least one"),
    (
        "runnerPackageKeys[0]",
        {"runnerPackageKeys": ["6C57C29C6BA75A4E"]},
        "not the full fingerprint of an OpenPGP key",
    ),
    ("dockerPackageKeys[0]", {"dockerPackageKeys": ["$(reboot)"]}, "(40 hex digits)"),
    (
        "dockerPackageKeys",
        {"dockerPackageKeys": ["060A61C51B558A7F742B77AAC52FEB6B621E9F35", "060a61c51b558a7f742b77aac52feb6b621e9f35"]},
        "contains duplicates",
    ),
    ("initialRootPassword", {"initialRootPassword": "short"}, "shorter than 12"),
    ("initialRootPassword", {"initialRootPassword": "MyGitLabIsFine1"}, "contains 'gitlab'"),
    ("initialRootPassword", {"initialRootPassword": "abababababab"}, "repeats the same few characters"),
    ("initialRootPassword", {"initialRootPassword": "pässwörter-4711"}, "printable ASCII"),
    ("runnerConcurrency", {"runnerConcurrency": "0"}, "from 1 to"),
    ("runnerConcurrency", {"runnerConcurrency": "251"}, "from 1 to 250: each job has its own Docker network"),
    ("runnerSharedCache", {"runnerSharedCache": "yes"}, "neither true nor false"),
    ("runnerTags[0]", {"runnerTags": ["docker, linux"]}, "not a runner tag"),
    ("runnerTags", {"runnerTags": [f"t{number}" for number in range(51)]}, "51 values. List at most 50: GitLab"),
    ("runnerDefaultImage", {"runnerDefaultImage": "Alpine latest"}, "not an image name"),
    ("runnerPrivileged", {"runnerPrivileged": "yes"}, "neither true nor false"),
    ("runnerPrivilegedImages[0]", {**PRIVILEGED, "runnerPrivilegedImages": ["docker:*"]}, "not an image name"),
    (
        "runnerPrivilegedImages",
        {**PRIVILEGED, "runnerPrivilegedImages": []},
        "List the images to run privileged",
    ),
    ("runnerPrivilegedImages", {"runnerPrivilegedImages": ["docker:28-dind"]}, "runnerPrivileged is false"),
    ("runnerTags", {**PRIVILEGED, "runnerTags": []}, "may run privileged: set a tag"),
    ("acceptancePipeline", {"acceptancePipeline": "no"}, "neither true nor false"),
    ("acceptanceImage", {"acceptanceImage": "curl:8.12.1; rm -rf /"}, "not an image name"),
    ("smtpUserName", {"smtpUserName": "git"}, "smtpAddress is missing"),
    ("smtpPassword", {"smtpAddress": "mail.example.com", "smtpUserName": "g", "emailFrom": "g@example.com"}, "missing"),
    ("emailFrom", {"smtpAddress": "mail.example.com", "emailFrom": "nobody"}, "not an email address"),
    ("gitlabRb", {"gitlabRb": "external_url 'http://elsewhere'"}, "sets external_url"),
    ("deletionProtection", {"deletionProtection": "maybe"}, "neither true nor false"),
    ("gitlabSettings", {"gitlabSettings": ["admin_mode"]}, "is not a map"),
    ("gitlabSettings.adminMode", {"gitlabSettings": {"adminMode": True}}, "for example admin_mode"),
    ("tags", {"tags": ["a"]}, "not a map of strings"),
    ("tags.aws:team", {"tags": {"aws:team": "x"}}, "AWS rejects"),
    ("tags.Name", {"tags": {"Name": "x"}}, "sets Name itself"),
    ("tags.name", {"tags": {"name": "x"}}, "sets Name itself"),
    ("tags.environment", {"tags": {"Environment": "x", "environment": "x"}}, "differs from another tag only in case"),
    ("tags.gitlab-stack", {"tags": {"gitlab-stack": "x"}}, "sets gitlab-stack itself"),
    ("tags.GitLab-Stack", {"tags": {"GitLab-Stack": "x"}}, "sets gitlab-stack itself"),
    ("tags.Team", {"tags": {"Team": "x" * 257}}, "AWS rejects"),
]


@pytest.mark.parametrize(
    ("key", "changes", "reason"), REFUSALS, ids=[f"{key}: {reason}" for key, _, reason in REFUSALS]
)
def test_a_bad_value_is_refused_with_the_keys_name_and_the_reason(key, changes, reason):
    with pytest.raises(SettingsError) as refusal:
        load(**changes)
    lines = [line for line in str(refusal.value).splitlines() if line.startswith(f"- {key}:")]
    assert lines, f"{key} is missing in:\n{refusal.value}"
    assert reason in lines[0]


def test_one_refusal_names_every_mistake():
    with pytest.raises(SettingsError) as refusal:
        load(aws__region="frankfurt", registryPort="80", adminCidrs=None)
    assert [line.split(":")[0] for line in str(refusal.value).splitlines()[1:]] == [
        "- aws",
        "- adminCidrs",
        "- registryPort",
    ]


def test_networks_that_are_large_but_not_the_world_are_taken():
    settings = load(
        adminCidrs=["198.50.0.0/16", "198.52.0.0/16"], clientCidrs=["64.0.0.0/2", "64.0.0.0/3", "10.0.0.0/8"]
    )
    assert not settings.open_to_the_world
    world = {"clientCidrs": ["0.0.0.0/1", "128.0.0.0/1"], "domain": "git.example.com"}
    with pytest.raises(SettingsError, match=r"- clientCidrs: 0\.0\.0\.0/1, 128\.0\.0\.0/1 would expose gitlabVersion"):
        load(**world)
    assert load(**world, acceptUnsupportedGitlab="true").open_to_the_world


def test_private_networks_are_warned_of_where_only_public_addresses_arrive():
    settings = load(adminCidrs=["192.168.1.0/24", "198.51.100.0/24"], clientCidrs=["198.51.100.0/24", "100.64.7.0/24"])
    found = [line.partition(" is private")[0] for line in settings.warnings if " is private" in line]
    assert found == ["adminCidrs: 192.168.1.0/24", "clientCidrs: 100.64.7.0/24"]


def test_two_wrong_values_of_a_list_are_no_duplicates_of_each_other():
    with pytest.raises(SettingsError) as refusal:
        load(adminCidrs=["0.0.0.0/0", "::/0"])
    assert [line.split(":")[0] for line in str(refusal.value).splitlines()[1:]] == [
        "- adminCidrs[0]",
        "- adminCidrs[1]",
    ]


def test_no_refusal_shows_a_secret():
    for changes in ({"initialRootPassword": "hunter2"}, {"sshPrivateKey": "hunter2"}, {"smtpPassword": "hunter2\nx"}):
        with pytest.raises(SettingsError) as refusal:
            load(smtpAddress="mail.example.com", smtpUserName="g", emailFrom="g@example.com", **changes)
        assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "changes", [{"adminCidrs": ["0.0.0.0/0"]}, {"gitlabVersion": "latest"}, {"sshPrivateKey": "hunter2"}]
)
def test_the_program_refuses_before_it_registers_anything(changes, monkeypatch):
    registered = []
    monkeypatch.setattr("tests.engine.Registered", lambda *of: registered.append(of))
    with pytest.raises(pulumi.RunError, match="stack's settings are invalid"):
        run_program(dev_config(**changes))
    assert registered == []


def test_a_value_that_should_be_a_list_is_refused_together_with_what_else_is_wrong():
    """The program itself reports it: pulumi.Config would raise its own error for invalid JSON."""
    with pytest.raises(pulumi.RunError) as refusal:
        run_program(dev_config(adminCidrs="198.51.100.7/32", registryPort="80"))
    assert str(refusal.value).splitlines()[1:] == [
        "- adminCidrs: '198.51.100.7/32' is not a list of strings.",
        "- registryPort: '80' is not a whole number from 1024 to 65535.",
    ]


@pytest.mark.parametrize(
    "mail",
    [{}, {"smtpAddress": "mail.example.com", "smtpUserName": "g", "smtpPassword": "p", "emailFrom": "g@example.com"}],
    ids=["without mail", "with mail"],
)
def test_every_key_of_the_schema_is_read_and_no_other(mail):
    """For all settings, because a key that is not read is rejected as unknown."""
    asked = set()

    class Recorder(StackConfig):
        def get(self, key, default=None):
            if self.name == "gitlab":
                asked.add(key)
            return super().get(key, default)

    load_from(dev_config(**mail), secret_keys=set(PROJECT["config"]), source=Recorder)
    assert asked == set(PROJECT["config"])


def test_the_schema_describes_every_key_and_demands_no_secret():
    for key, schema in PROJECT["config"].items():
        assert schema["description"], key
        assert schema["type"] in ("string", "integer", "boolean", "array", "object")
    # All are optional, and the schema cannot mark a key that has a default, which would be in plain text.
    assert not [key for key, schema in PROJECT["config"].items() if schema.get("secret")]


@pytest.mark.parametrize("key", ["sshPrivateKey", "initialRootPassword", "smtpPassword"])
def test_a_secret_in_plain_text_is_refused_with_the_command_that_encrypts_it(key):
    remedy = f"{key}: stored in plain text. Store it again with: pulumi config set --secret {key}"
    with pytest.raises(SettingsError, match=re.escape(remedy)):
        load(
            secret_keys=set(SECRET_KEYS) - {key},
            initialRootPassword="first-Secret-4711",
            smtpAddress="mail.example.com",
            smtpUserName="g",
            smtpPassword="p",
            emailFrom="g@example.com",
        )


@pytest.mark.parametrize(
    "line",
    [
        "gitlab_rails['incoming_email_password'] = \"hunter2\"",
        "'main' => { 'host' => 'ldap', 'password' => 'hunter2' } }",
        "  password: 'hunter2'",
        "'app_secret' => 'hunter2',",
        "args: { client_secret: %q(hunter2) }",
        "gitlab_rails['consolidated_form']['aws_secret_access_key'] = 'hunter2'",
        "prometheus['remote_write'] = [{ 'bearer_token': 'hunter2' }]",
        r'x = "{ \"password\": \"hunter2\" }"',
        "gitlab_rails['env'] = { 'http_proxy' => 'http://user:hunter2@proxy.example.com:3128' }",
        "gitlab_rails['redis_url'] = 'redis://:hunter2@redis.example.com'",
        "mattermost['sql_data_source'] = \"user=mm password=hunter2\"",
        "mattermost['sql_data_source'] = 'host=db password=hunter2 user=mm'",
        "x = YAML.load('password: hunter2')",
        "gitlab_rails['smtp_password'] = hunter2secret",
        "gitlab_rails['smtp_password'] = 4711hunter2",
        "gitlab_rails['smtp_password'] = hunter2.secret",
        f"x = '-----BEGIN RSA {'PRIVATE'} KEY-----",  # in pieces, so that secret scanners do not report it
    ],
)
def test_lines_for_gitlab_rb_that_hold_a_secret_in_plain_text_are_refused_by_their_number(line):
    text = f"puma['worker_processes'] = 2\n\n{line}\n"
    plain = set(SECRET_KEYS) - {"gitlabRb"}
    with pytest.raises(SettingsError) as refusal:
        load(secret_keys=plain, gitlabRb=text)
    [said] = str(refusal.value).splitlines()[1:]
    assert said.startswith("- gitlabRb: stored in plain text")
    assert "in line 3." in said
    assert said.endswith("pulumi config set --secret gitlabRb < FILE")
    assert "hunter2" not in said
    assert load(gitlabRb=text).extra_gitlab_rb == text


@pytest.mark.parametrize(
    "line",
    [
        "    password: hunter2secret",
        "    password: hunter2 # of the directory",
        "    bind_dn: x, api_key: hunter2",
        "    proxy: http://user:hunter2@proxy.example.com:3128",
        "    password: $ecret-hunter2",
        "    password: |",
    ],
)
@pytest.mark.parametrize("opener", ["<<~YAML", "<<-'YAML'", '<<~"YAML"'])
def test_a_secret_without_quotes_in_a_heredoc_is_refused_in_plain_text(line, opener):
    text = f"gitlab_rails['ldap_servers'] = YAML.load {opener}\n  main:\n{line}\n  YAML\n"
    with pytest.raises(SettingsError, match=r"appears to contain a secret in line 3\."):
        load(secret_keys=set(SECRET_KEYS) - {"gitlabRb"}, gitlabRb=text)
    assert load(gitlabRb=text).extra_gitlab_rb == text


@pytest.mark.parametrize(
    "line",
    [
        "puma['worker_processes'] = 2",
        "gitlab_rails['password_authentication_enabled_for_web'] = false",
        "gitlab_rails['smtp_password'] = nil # password: see the vault",
        "# the password: in the vault",
        "# gitlab_rails['smtp_password'] = File.read('/etc/gitlab/mail')",
        "gitlab_rails['smtp_password'] = ENV['SMTP_PASSWORD']",
        "gitlab_rails['smtp_password'] = ENV.fetch('SMTP_PASSWORD')",
        "gitlab_rails['smtp_password'] = gitlab_rails['incoming_email_password']",
        "mail_password = File.read('/etc/gitlab/mail').strip\ngitlab_rails['smtp_password'] = mail_password",
        "def of_file(name) = File.read(name)\ngitlab_rails['smtp_password'] = of_file '/etc/gitlab/mail'",
        "users.each { |name, password| x[name] = { 'password' => password } }",
        "gitlab_rails['secret_file'] = '/etc/gitlab/secret'",
        "secret_file: x",
        "x = \"user=mm password=#{File.read('/etc/gitlab/mail')}\"",
        "nginx['custom_http_config'] = 'proxy_cache_path /tmp keys_zone=cache:10m; set $x $token_x;'",
        "nginx['x'] = 'proxy_pass http://y?private_token=$arg_token;'",
        "puma['x'] = api_key == other",
        "gitlab_rails['omniauth_providers'] = [{ 'args' => { 'scope' => 'read_token:x' } }]",
        "gitlab_rails['http_proxy'] = 'http://proxy.example.com:3128/user@x'",
        'x = "http://user:#{password}@proxy.example.com:3128"',
        "x = <<~YAML\n  # password: in the vault\n  password: ''\n  password: \n  api_key: ~\n  token: 5\nYAML",
        "x = <<~YAML\n  secret: #{ENV['X']}\n  ssl_key: /etc/gitlab/ssl/git.key\n  password: *shared\nYAML",
        "x = <<~YAML\n  password_length: long\nYAML",
        "nginx['ssl_certificate_key'] = '/etc/gitlab/ssl/git.key'",
        "gitlab_rails['smtp_password'] = File.read('/etc/gitlab/mail').strip",
        "gitlab_rails['smtp_password'] = ''",
        "gitlab_rails['gitlab_shell_ssh_key_limit'] = 4",
        "gitlab_rails['monitoring_whitelist'] = ['127.0.0.0/8']",
    ],
)
def test_lines_for_gitlab_rb_without_a_secret_may_stand_in_plain_text(line):
    assert load(secret_keys=set(SECRET_KEYS) - {"gitlabRb"}, gitlabRb=line).extra_gitlab_rb == line


def test_a_runner_has_as_many_tags_as_gitlab_accepts():
    assert len(load(runnerTags=[f"t{number}" for number in range(50)]).runner_tags) == 50


def test_settings_do_not_show_their_secrets():
    given = {"akismet_api_key": "extra-secret"}
    shown = repr(load(initialRootPassword="first-Secret-4711", gitlabRb="# extra-secret", gitlabSettings=given))
    assert "PRIVATE KEY" not in shown
    assert "first-Secret-4711" not in shown
    assert "extra-secret" not in shown


@pytest.mark.parametrize(
    "calendar",
    [
        "daily",
        "Sun 03:00",
        "Mon..Fri 22:30",
        "Sat,Sun 04:00:00 UTC",
        "*-*-01 04:30 Europe/Berlin",
        "*-*~01 0/6:15",
        "2027-1..6-* 3:00",
    ],
)
def test_garbage_is_collected_at_any_time_that_systemd_knows(calendar):
    assert load(registryGarbageCollection=calendar).registry_garbage_collection == calendar
    if shutil.which("systemd-analyze"):
        subprocess.run(["systemd-analyze", "calendar", calendar], check=True)


@pytest.mark.parametrize(
    ("network", "subnet"),
    [
        ("10.42.0.0/16", "10.42.0.0/20"),
        ("10.42.6.0/23", "10.42.6.0/27"),
        ("192.168.7.0/24", "192.168.7.0/27"),
        ("10.1.2.0/26", "10.1.2.0/27"),
    ],
)
def test_the_subnet_is_the_first_sixteenth_of_the_network_but_never_below_what_a_load_balancer_needs(network, subnet):
    found = load(networkCidr=network).subnet
    assert str(found) == subnet
    reserved, machines, wanted_by_the_balancer = 5, 3, 8
    assert found.num_addresses - reserved - machines > wanted_by_the_balancer


@pytest.mark.parametrize(
    "region", ["mx-central-1", "ap-southeast-7", "il-central-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1"]
)
def test_a_region_of_any_partition_of_aws_is_one(region):
    settings = load(aws__region=region, availabilityZone=f"{region}b")
    assert (settings.region, settings.availability_zone) == (region, f"{region}b")


def numbered_networks(count: int) -> list[str]:
    return [f"203.0.113.{number}/32" for number in range(count)]


def test_as_many_networks_as_are_accepted_fill_a_security_group_with_rules():
    made = run_program(dev_config(clientCidrs=numbered_networks(18), adminCidrs=numbered_networks(58))).resources
    rules = [each for each in made if each.type.startswith("aws:vpc/securityGroup")]
    by_group = Counter((rule.type, rule.inputs["securityGroupId"]) for rule in rules)
    ingress = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    # A client network is three rules of the load balancer's group.
    assert (by_group[ingress, "gitlab-balancer-id"], by_group[ingress, "gitlab-server-id"]) == (58, 60)
    assert max(by_group.values()) == 60


@pytest.mark.parametrize(
    ("key", "most", "number"), [("clientCidrs", 18, "61 ingress rules"), ("adminCidrs", 58, "61 ingress rules")]
)
def test_more_networks_than_rules_of_a_security_group_are_refused(key, most, number, monkeypatch):
    assert load(**{key: numbered_networks(most)})
    registered = []
    monkeypatch.setattr("tests.engine.Registered", lambda *of: registered.append(of))
    with pytest.raises(pulumi.RunError) as refusal:
        run_program(dev_config(**{key: numbered_networks(most + 1)}))
    assert registered == []
    [line] = str(refusal.value).splitlines()[1:]
    assert line.startswith(f"- {key}: {most + 1} networks create {number}")
    assert "AWS allows 60" in line
    assert "Merge adjacent networks" in line
    assert f"until at most {most} are left" in line


def test_mail_through_the_port_that_aws_blocks_is_warned_of_and_goes_on(monkeypatch):
    mail = {"smtpAddress": "mail.example.com", "smtpUserName": "g", "smtpPassword": "p", "emailFrom": "g@example.com"}
    well = {**mail, "gitlabVersion": NEWEST, "domain": "git.example.com"}
    shown: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", shown.append)
    run_program(dev_config(**well), only_checks=True)
    assert shown == []
    run_program(dev_config(**well, smtpPort=25), only_checks=True)
    [warning] = shown
    assert warning.startswith("smtpPort: AWS blocks port 25")
    assert "Use 587" in warning


def test_a_stack_without_backups_is_warned_of_in_every_up(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", shown.append)
    run_program(dev_config(gitlabVersion=NEWEST, domain="git.example.com", backup=False), only_checks=True)
    [warning] = shown
    assert warning.startswith("backup: false, so GitLab's data and the pushed images are not backed up.")


def test_a_gitlab_without_security_fixes_is_warned_of_in_every_up_and_goes_on(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", shown.append)
    run_program(dev_config(domain="git.example.com"), only_checks=True)
    [warning] = shown
    assert warning.startswith("gitlabVersion: GitLab 17.10.4 has received no security fixes since 2025-06-19.")
    assert "docs/operations.md, Upgrade" in warning


def test_the_world_is_let_in_to_a_gitlab_without_security_fixes_only_by_a_setting_that_says_so():
    open_to_all = {"clientCidrs": ["0.0.0.0/0"], "domain": "git.example.com"}
    with pytest.raises(SettingsError) as refusal:
        load(**open_to_all)
    [line] = str(refusal.value).splitlines()[1:]
    assert line.startswith("- clientCidrs: 0.0.0.0/0 would expose gitlabVersion '17.10.4'")
    assert "set acceptUnsupportedGitlab to true" in line
    assert load(**open_to_all, acceptUnsupportedGitlab="true").accept_unsupported_gitlab
    assert load(**open_to_all, gitlabVersion=NEWEST).client_cidrs == ("0.0.0.0/0",)
    with pytest.raises(SettingsError, match="or set domain"):
        load(clientCidrs=["0.0.0.0/0"], acceptUnsupportedGitlab="true")


def test_the_engine_has_to_be_as_new_as_the_sdk_and_the_readme_says_both_versions():
    [sdk] = re.findall(r"^pulumi==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert PROJECT["requiredPulumiVersion"] == f">={sdk}"
    [on_aws] = re.findall(r"^\*\*On AWS\*\*, with (.+?):$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert "Python 3.11 or newer" in on_aws
    assert f"{sdk.rpartition('.')[0]} or newer" in on_aws


def test_settings_know_nothing_of_pulumi():
    text = Path(Settings.load.__code__.co_filename).read_text()
    assert "import pulumi" not in text
