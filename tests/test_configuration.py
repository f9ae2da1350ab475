"""The rendered configuration files."""

import configparser
import ipaddress
import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from configuration.checks import CHECKS
from configuration.docker_daemon import render_docker_daemon, render_docker_in_docker
from configuration.flows import MACHINES, Place
from configuration.gitlab_rb import render_gitlab_rb, ruby_string
from configuration.job_limits import JobLimits, MachineSize, job_limits
from configuration.package_repositories import DOCKER, GITLAB, RUNNER
from configuration.registry_config import registry_image, render_registry_config
from configuration.remote_step import prepare_command, step_command, step_input
from configuration.runner_config import render_runner_config
from configuration.user_data import render_user_data
from settings import MOST_JOBS, Settings
from tests.shell import check_shell
from tests.test_settings import CERTIFICATE, PRIVILEGED, load
from validation import values

MAIL = {
    "smtpAddress": "mail.example.com",
    "smtpUserName": "git",
    "smtpPassword": "it's \\ #{secret}",
    "emailFrom": "g@example.com",
}


def gitlab_rb(**changes) -> str:
    return rendered(load(**changes))


def rendered(settings: Settings, *, background_jobs: bool = True) -> str:
    """gitlab.rb of a stack with these settings."""
    host = settings.domain or "203.0.113.20"
    return render_gitlab_rb(
        settings,
        external_url=f"{settings.scheme}://{host}",
        public_host=host,
        registry_private_ip="10.42.0.5",
        runner_public_ip="203.0.113.23",
        background_jobs=background_jobs,
    )


@pytest.mark.parametrize(
    "line",
    [
        "external_url 'http://203.0.113.20'",
        "nginx['listen_port'] = 80",
        "nginx['listen_https'] = false",
        "nginx['proxy_protocol'] = true",
        "nginx['real_ip_trusted_addresses'] = ['10.42.0.0/20']",
        "gitlab_sshd['enable'] = true",
        "gitlab_sshd['listen_address'] = '[::]:2222'",
        "registry['enable'] = false",
        "gitlab_rails['registry_enabled'] = true",
        "gitlab_rails['registry_host'] = '203.0.113.20'",
        "gitlab_rails['registry_port'] = '5000'",
        "gitlab_rails['registry_api_url'] = 'http://10.42.0.5:5000'",
        "gitlab_rails['registry_issuer'] = 'omnibus-gitlab-issuer'",
        "registry['internal_key'] = File.read('/etc/gitlab/registry-token.key')",
        "registry['internal_certificate'] = File.read('/etc/gitlab/registry-token.crt')",
        "gitlab_rails['backup_keep_time'] = 604800",
        "high_availability['mountpoint'] = ['/var/opt/gitlab', '/etc/gitlab', '/var/log/gitlab']",
        "logging['svlogd_size'] = 20 * 1024 * 1024",
        "logging['logrotate_maxsize'] = '100M'",
        "user['uid'] = 440",
        "web_server['uid'] = 441",
        "postgresql['uid'] = 442",
        "redis['uid'] = 443",
        "prometheus['gid'] = 444",
        "  'enabled' => true, 'ip_whitelist' => ['127.0.0.1', '203.0.113.23'],",
        "gitlab_rails['gitlab_email_enabled'] = false",
    ],
)
def test_gitlab_rb_says(line):
    assert line in gitlab_rb().splitlines()


def test_gitlab_rb_leaves_alone_what_would_undo_it():
    """Checks which keys it sets; tests/test_gitlab_rb.py evaluates the whole file."""
    lines = gitlab_rb(**MAIL, gitlabRb="puma['worker_processes'] = 2").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    assert not re.search(r"real_ip_header'\] *=", text)
    assert not re.search(r"^registry_external_url|registry_external_url'\] = (?!nil)", text, re.MULTILINE)
    assert not re.search(r"registry_key_path'\] *=", text)
    assert not re.search(r"monitoring_whitelist'\] =(?!.* unless monitors\.nil\?$)", text, re.MULTILINE)


def test_gitlab_rb_holds_no_root_password():
    text = gitlab_rb(initialRootPassword="first-Secret-4711")
    assert "first-Secret-4711" not in text
    assert "first_password = '/etc/gitlab/seeded-root-password'\n" in text
    # Without the file, GitLab's package generates a password, and would store it as the initial one.
    assert "= File.read(first_password).strip if File.exist?(first_password)\n" in text
    assert "gitlab_rails['store_initial_root_password'] = false\n" in text


def test_the_free_lines_come_after_what_they_may_change_and_before_what_they_may_not():
    before, after = gitlab_rb(**MAIL, gitlabRb="puma['worker_processes'] = 2\n").split("puma['worker_processes'] = 2\n")
    assert "rack_attack_git_basic_auth'] = {" in before
    assert "gitlab_rails['smtp_address']" in before
    assert "\nexternal_url 'http://203.0.113.20'\n" in after
    assert "gitlab_rails['initial_root_password'] = " in after


def test_gitlab_rb_speaks_https_outside_and_http_behind_the_balancer_with_a_certificate():
    text = gitlab_rb(domain="git.example.com", certificateArn=CERTIFICATE)
    assert "external_url 'https://git.example.com'" in text
    assert "nginx['listen_port'] = 80" in text
    assert "nginx['listen_https'] = false" in text


@pytest.mark.parametrize("text", ["plain", "it's", "back\\slash", "#{interpolated}", "\\'", ""])
def test_ruby_strings_mean_what_they_say(text):
    literal = ruby_string(text)
    assert literal[0] == literal[-1] == "'"
    assert re.sub(r"\\(['\\])", r"\1", literal[1:-1]) == text


def test_mail_goes_out_by_starttls_with_a_quoted_password():
    lines = gitlab_rb(**MAIL).splitlines()
    assert "gitlab_rails['smtp_enable'] = true" in lines
    assert "gitlab_rails['smtp_port'] = 587" in lines
    assert "gitlab_rails['smtp_password'] = 'it\\'s \\\\ #{secret}'" in lines


RELAY = {"smtpAddress": "relay.example.com", "emailFrom": "o'brien@example.com"}


def mail_lines(**changes) -> dict[str, str]:
    """The mail settings in gitlab.rb, by key."""
    return dict(
        re.findall(r"^gitlab_rails\['(smtp_\w+|gitlab_email_\w+)'\] = (.*)$", gitlab_rb(**changes), re.MULTILINE)
    )


@pytest.mark.parametrize("port", [25, 587, 2525])
def test_a_relay_without_login_gets_no_word_of_one(port):
    """Not `false` either: GitLab 19.0's net-smtp raises for an unknown mechanism (omnibus-gitlab, SmtpHelper)."""
    assert mail_lines(**RELAY, smtpPort=port) == {
        "smtp_enable": "true",
        "smtp_address": "'relay.example.com'",
        "smtp_port": str(port),
        "smtp_enable_starttls_auto": "true",
        "gitlab_email_from": r"'o\'brien@example.com'",
    }


@pytest.mark.parametrize(
    ("port", "implicit"),
    [(443, True), (465, True), (2465, True), (8465, True), (587, False), (25, False), (2587, False)],
)
def test_tls_begins_with_the_connection_where_the_port_is_for_that_and_never_both_ways(port, implicit):
    for login in (MAIL, RELAY):
        lines = mail_lines(**login, smtpPort=port)
        assert lines["smtp_enable_starttls_auto"] == str(not implicit).lower()
        assert lines.get("smtp_tls") == ("true" if implicit else None)


@pytest.mark.parametrize("mechanism", ["login", "plain", "cram_md5"])
def test_a_login_is_sent_in_the_way_that_is_set(mechanism):
    assert mail_lines(**MAIL, smtpAuthentication=mechanism)["smtp_authentication"] == f"'{mechanism}'"
    assert mail_lines(**MAIL)["smtp_authentication"] == "'login'"


def test_the_registry_listens_where_it_is_published_and_trusts_gitlabs_tokens():
    config = yaml.safe_load(render_registry_config(external_url="http://203.0.113.20", port=5050))
    assert config["database"] == {"enabled": False}, "4.40.0 and later prefer a database"
    assert config["http"]["addr"] == ":5050"
    assert config["http"]["relativeurls"] is True
    assert config["http"]["headers"] == {"X-Content-Type-Options": ["nosniff"]}
    assert "secret" not in config["http"]
    assert config["storage"]["filesystem"] == {"rootdirectory": "/var/lib/registry"}
    assert config["storage"]["delete"] == {"enabled": True}
    assert config["storage"]["cache"] == {"blobdescriptor": "inmemory"}
    assert config["health"]["storagedriver"]["enabled"] is True
    assert config["auth"]["token"] == {
        "realm": "http://203.0.113.20/jwt/auth",
        "service": "container_registry",
        "issuer": "omnibus-gitlab-issuer",
        "rootcertbundle": "/etc/docker/registry/gitlab-registry.crt",
        "autoredirect": False,
    }
    assert (
        registry_image("4.15.2") == "registry.gitlab.com/gitlab-org/build/cng/gitlab-container-registry:v4.15.2-gitlab"
    )


def test_the_runner_has_the_docker_executor_and_is_not_privileged():
    settings = load(runnerConcurrency="3")
    config = tomllib.loads(
        render_runner_config(
            settings, name='a "name"', limits=LIMITS, external_url="http://203.0.113.20", token="glrt-t"
        )
    )
    assert config["concurrent"] == 3
    [runner] = config["runners"]
    assert runner["name"] == 'a "name"'
    assert runner["executor"] == "docker"
    assert runner["docker"]["image"] == "alpine:3.23"
    assert runner["docker"]["privileged"] is False


LIMITS = JobLimits(memory=1792, cpus=1)


def rendered_runner(**changes: Any) -> dict[str, Any]:
    url = "http://203.0.113.20"
    text = render_runner_config(load(**changes), name="n", limits=LIMITS, external_url=url, token="glrt-t")
    [runner] = tomllib.loads(text)["runners"]
    return dict(runner)


def test_a_job_finds_nothing_of_another_one():
    runner = rendered_runner()
    assert runner["environment"] == ["GIT_STRATEGY=clone"]
    assert runner["docker"]["disable_cache"] is True
    assert runner["docker"]["volumes"] == []
    assert runner["docker"]["allowed_pull_policies"] == ["always"]
    assert runner["feature_flags"] == {"FF_NETWORK_PER_BUILD": True}


def test_no_container_of_a_job_takes_the_whole_machine():
    docker = rendered_runner()["docker"]
    assert docker["memory"] == docker["service_memory"] == "1792m"
    assert docker["cpus"] == docker["service_cpus"] == "1"


T3_LARGE = MachineSize(memory=8192, cpus=2)


@pytest.mark.parametrize(
    ("machine", "changes", "memory", "cpus"),
    [
        (T3_LARGE, {}, 1792, 1),
        (T3_LARGE, {"runnerConcurrency": "1"}, 7168, 2),
        (MachineSize(memory=65536, cpus=16), {}, 16128, 4),
        (MachineSize(memory=2048, cpus=2), {"runnerConcurrency": "8"}, 512, 1),
        (T3_LARGE, {"runnerJobMemory": "6000", "runnerJobCpus": "2"}, 6000, 2),
    ],
)
def test_a_job_has_its_share_of_the_machine_or_what_the_settings_say(machine, changes, memory, cpus):
    assert job_limits(load(**changes), machine) == JobLimits(memory=memory, cpus=cpus)


def test_only_named_images_are_privileged_and_a_docker_in_a_job_finds_its_daemon_json():
    docker = rendered_runner(**PRIVILEGED)["docker"]
    assert docker["privileged"] is docker["services_privileged"] is True
    assert docker["allowed_privileged_images"] == docker["allowed_privileged_services"] == ["docker:28-dind"]
    assert docker["volumes"] == ["/etc/gitlab-runner/docker-in-docker.json:/etc/docker/daemon.json:ro"]
    assert not {"allowed_privileged_images", "services_privileged"} & set(rendered_runner()["docker"])


def test_a_docker_in_a_job_asks_the_vpcs_name_server_and_knows_the_registry():
    plain = json.loads(render_docker_in_docker(insecure_registry="h:5000"))
    assert plain == {"dns": ["169.254.169.253"], "insecure-registries": ["h:5000"]}
    assert json.loads(render_docker_in_docker(insecure_registry=None)) == {"dns": ["169.254.169.253"]}


def test_caches_are_kept_where_the_setting_asks_for_them_and_checkouts_are_not():
    runner = rendered_runner(runnerSharedCache="true")
    assert runner["docker"]["disable_cache"] is False
    assert runner["docker"]["volumes"] == ["/cache"]
    assert runner["environment"] == ["GIT_STRATEGY=clone"]


def test_a_runner_that_was_refused_asks_again_before_the_proof_gives_up():
    assert rendered_runner()["unhealthy_interval"] == "30s"
    assert next(check.limit for check in CHECKS if check.id == "taken") > 2 * 30


def test_docker_is_told_of_the_registry_only_where_it_speaks_plain_http():
    assert json.loads(render_docker_daemon(insecure_registry="h:5000"))["insecure-registries"] == ["h:5000"]
    assert "insecure-registries" not in json.loads(render_docker_daemon())


def test_every_job_has_a_network_inside_the_block_that_no_vpc_may_overlap():
    daemon = json.loads(render_docker_daemon(network_per_job=True))
    bridge = ipaddress.IPv4Interface(daemon["bip"]).network
    [pool] = daemon["default-address-pools"]
    networks = set(ipaddress.IPv4Network(pool["base"]).subnets(new_prefix=pool["size"])) - {bridge}
    assert all(network.subnet_of(values.DOCKER_NETWORK) for network in {*networks, bridge})
    assert len(networks) == 255 > MOST_JOBS


def test_the_registrys_docker_keeps_its_networks():
    """Changing them would require a restart of Docker, and so of the registry."""
    assert not {"bip", "default-address-pools"} & set(json.loads(render_docker_daemon()))


@pytest.mark.parametrize(
    ("text", "name", "base_url", "signed_metadata"),
    [
        (GITLAB.render(), "gitlab_gitlab-ce", "https://packages.gitlab.com/gitlab/gitlab-ce/el/8/$basearch", "1"),
        (
            RUNNER.render(),
            "runner_gitlab-runner",
            "https://packages.gitlab.com/runner/gitlab-runner/el/8/$basearch",
            "1",
        ),
        (DOCKER.render(), "docker-ce-stable", "https://download.docker.com/linux/rhel/8/$basearch/stable", "0"),
    ],
)
def test_repositories_are_signed_and_off_between_steps(text, name, base_url, signed_metadata):
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    section = parser[name]
    assert section["baseurl"] == base_url
    assert section["enabled"] == "0"
    assert section["gpgcheck"] == "1"
    assert section["repo_gpgcheck"] == signed_metadata
    assert section["sslverify"] == "1"
    assert section["gpgkey"] == f"file:///etc/pki/rpm-gpg/RPM-GPG-KEY-{name}", (
        "verified by the step, not fetched by dnf"
    )


@pytest.mark.parametrize("repository", [GITLAB, RUNNER, DOCKER], ids=lambda repository: repository.product)
def test_signing_keys_come_by_https_and_from_addresses_that_are_still_there(repository):
    assert all(address.startswith("https://") for address in repository.key_addresses)
    assert "https://packages.gitlab.com/gpg.key" not in repository.key_addresses


def test_gitlabs_repository_knows_the_package_key_of_before_and_after_its_change():
    offered = " ".join(GITLAB.key_addresses)
    assert "3D645A26AB9FBD22" in offered
    assert "CB947AD886C8E8FD" in offered


@pytest.mark.parametrize("role", MACHINES)
def test_user_data_set_the_locale_once_and_leave_the_mark_last(role):
    document = yaml.safe_load(render_user_data(role))
    [environment] = [file for file in document["write_files"] if file["path"] == "/etc/environment"]
    assert environment["content"].splitlines() == ["LANG=en_US.UTF-8", "LC_ALL=en_US.UTF-8", "LC_CTYPE=en_US.UTF-8"]
    assert document["runcmd"][-1] == ["/usr/local/sbin/first-boot"]
    assert "fs_setup" not in document
    assert "packages" not in document
    assert render_user_data(role) == render_user_data(role)


def test_user_data_that_ec2_would_refuse_are_refused_here(monkeypatch):
    monkeypatch.setattr("configuration.user_data.LARGEST_USER_DATA", 100)
    with pytest.raises(ValueError, match=r"user data of the server machine is .* EC2 accepts 100"):
        render_user_data(Place.SERVER)


@pytest.mark.parametrize("role", MACHINES)
def test_scripts_in_user_data_are_sound_shell(role):
    for file in yaml.safe_load(render_user_data(role))["write_files"]:
        if file["content"].startswith("#!/bin/bash"):
            check_shell(file["content"])


def test_the_command_line_of_a_step_quotes_its_arguments():
    assert step_command("mount_data", 60, ["vol-1", "a b; reboot"]).endswith("mount_data vol-1 'a b; reboot'")
    assert prepare_command([80, 2222]) == "sudo bash -s -- 80 2222"


def test_a_step_reads_its_script_by_size_and_its_payload_line_by_line():
    assert step_input("echo ä\n", ["one\ntwo", ""]) == "8\necho ä\nb25lCnR3bw==\n\n"


def test_a_payload_may_be_a_file_that_is_not_text():
    assert step_input("", [b"\xff\x00", "ä"]) == "0\n/wA=\nw6Q=\n"
