"""GitLab CE on its machine."""

import hashlib
import json

import pulumi

from components.package_repository import add_repository
from components.remote_host import MIGRATION_LIMIT
from components.trusted_authority import trust_authority
from components.virtual_machine import VirtualMachine
from configuration import acceptance_project
from configuration.gitlab_rb import render_gitlab_rb
from configuration.gitlab_settings import in_a_new_gitlab
from configuration.package_repositories import GITLAB
from configuration.paths import GITLAB_DATA, GITLAB_FOLDERS, GITLAB_TRUSTED_CERTIFICATES
from configuration.remote_step import program, script
from configuration.systemd_units import FORGET_CALENDAR, forget_root_password_service, forget_root_password_timer
from configuration.trusted_authority import fingerprints
from configuration.upgrade_stops import minimum_postgresql, stops_before
from settings import Settings


class GitLabServer(pulumi.ComponentResource):
    """Installs and configures GitLab, then creates the runner and the acceptance project in it.

    The key that signs the registry's tokens is created first, so that the registry can be set up during GitLab's
    installation. The key stays on this machine's data volume; only its certificate is sent elsewhere.

    `ready` is the last step. `runner_token` is a secret; `token_certificate` is in PEM format and `git_ssh_host_key` in
    authorized_keys format.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        machine: VirtualMachine,
        external_url: pulumi.Input[str],
        public_host: pulumi.Input[str],
        registry_private_ip: pulumi.Input[str],
        runner_public_ip: pulumi.Input[str],
        runner_name: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:server:GitLabServer", name, None, opts)
        host = machine.host
        mounted = machine.mount_data(GITLAB_DATA, *GITLAB_FOLDERS, service="gitlab-runsvdir", parent=self)
        if settings.server.data_snapshot_id:
            # Before the token key: a drill gets its own.
            mounted = host.run(
                "clean_restored_data",
                arguments=[settings.server.data_snapshot_id, "drill" if settings.drill else "restore"],
                after=[mounted.command],
                parent=self,
            )
        token_key = host.run("make_token_key", after=[mounted.command], parent=self, limit=600)
        trusted = trust_authority(
            host,
            settings,
            folders=[GITLAB_TRUSTED_CERTIFICATES],
            # A machine runs one step at a time: after the key, this step cannot delay the registry.
            after=[token_key.command],
            parent=self,
        )
        repository = add_repository(
            host,
            GITLAB,
            settings.gitlab_package_keys,
            version=settings.gitlab_version,
            after=[trusted.command],
            parent=self,
        )
        installed = host.run(
            "install_gitlab",
            arguments=[
                settings.gitlab_version,
                str(minimum_postgresql(settings.gitlab_version)),
                *stops_before(settings.gitlab_version),
            ],
            after=[repository.command],
            limit=MIGRATION_LIMIT,
            parent=self,
        )
        gitlab_rb = pulumi.Output.all(
            external_url=external_url,
            public_host=public_host,
            registry_private_ip=registry_private_ip,
            runner_public_ip=runner_public_ip,
        ).apply(lambda known: render_gitlab_rb(settings, **known))
        configured = host.run(
            "configure_gitlab",
            # The version, so that the step runs again after an upgrade.
            arguments=[settings.gitlab_version],
            payload=[
                pulumi.Output.secret(gitlab_rb),
                pulumi.Output.secret(settings.initial_root_password or ""),
            ],
            after=[installed.command],
            # GitLab signs with the copy of the key, and trusts the links to the authority, that reconfigure writes
            # (omnibus-gitlab recipes/gitlab-rails.rb, add_trusted_certs.rb).
            triggers=[
                token_key.result.apply(lambda pem: hashlib.sha256(pem.encode()).hexdigest()),
                *fingerprints(settings.certificate_authority),
            ],
            limit=MIGRATION_LIMIT,
            parent=self,
        )
        prepared = host.run(
            "prepare_gitlab",
            arguments=[
                runner_name,
                json.dumps(settings.runner_tags),
                acceptance_project.PROJECT_PATH,
                "protected" if settings.runner_privileged else "any",
            ],
            payload=[
                script("prepare_gitlab.rb"),
                pulumi.Output.secret(json.dumps(in_a_new_gitlab(settings.gitlab_settings), sort_keys=True)),
            ],
            after=[configured.command],
            secret_result=True,
            shows_progress=True,
            limit=900,
            parent=self,
        )
        scheduled = host.run(
            "schedule_program",
            name="schedule_forget_root_password",
            arguments=["forget-root-password", "forget-root-password", FORGET_CALENDAR, "FORGET_CALENDAR"],
            payload=[program("forget-root-password"), forget_root_password_service(), forget_root_password_timer()],
            after=[prepared.command],
            parent=self,
        )
        answer = prepared.result.apply(json.loads)
        self.ready = scheduled.command
        self.token_certificate = token_key.result
        self.runner_token: pulumi.Output[str] = answer["runnerToken"]
        self.git_ssh_host_key: pulumi.Output[str] = pulumi.Output.unsecret(answer["gitSshHostKey"])
        self.register_outputs({})
