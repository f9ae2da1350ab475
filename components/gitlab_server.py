"""GitLab CE on its machine."""

import hashlib
import json
from collections.abc import Sequence

import pulumi

from components.package_repository import add_repository
from components.remote_host import MIGRATION_LIMIT, RemoteHost, Step
from components.trusted_authority import trust_authority
from components.virtual_machine import VirtualMachine
from configuration import acceptance_project
from configuration.flows import GITLAB_SSHD_PORT
from configuration.gitlab_rb import GITLAB_USERS, render_gitlab_rb
from configuration.gitlab_settings import in_a_new_gitlab
from configuration.package_repositories import GITLAB
from configuration.paths import GITLAB_DATA, GITLAB_FOLDERS, GITLAB_TRUSTED_CERTIFICATES
from configuration.remote_step import program, script
from configuration.systemd_units import (
    FORGET_CALENDAR,
    forget_root_password_service,
    forget_root_password_timer,
    restrict_egress_service,
)
from configuration.trusted_authority import fingerprints
from configuration.upgrade_stops import minimum_postgresql, stops_before
from settings import Settings

Addresses = pulumi.Output[dict[str, str]]
"""The addresses in gitlab.rb, by the parameters of render_gitlab_rb."""


class GitLabServer(pulumi.ComponentResource):
    """Installs and configures GitLab, then creates the runner and the acceptance project in it.

    The key that signs the registry's tokens is created first, so that the registry can be set up during GitLab's
    installation. The key stays on this machine's data volume; only its certificate is sent elsewhere.

    In a drill, the copy is silenced before anything in it can act, and gets a runner for the acceptance alone.

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
        balancer_address: pulumi.Input[str],
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
        if settings.drill:
            mounted = self._restrict_egress(host, settings, balancer_address, after=[mounted.command])
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
        addresses = pulumi.Output.all(
            external_url=external_url,
            public_host=public_host,
            registry_private_ip=registry_private_ip,
            runner_public_ip=runner_public_ip,
        )
        silenced = (
            self._silence(host, settings, addresses, token_key, after=[installed.command]) if settings.drill else None
        )
        configured = self._configure(
            host, settings, addresses, token_key, after=[silenced.command if silenced else installed.command]
        )
        prepared = host.run(
            "prepare_gitlab",
            arguments=[
                runner_name,
                json.dumps(settings.runner_tags),
                acceptance_project.PROJECT_PATH,
                "protected" if settings.runner_privileged else "any",
                # An instance runner would run jobs of the original, with its secrets.
                "project_type" if settings.drill else "instance_type",
            ],
            payload=[
                script("prepare_gitlab.rb"),
                pulumi.Output.secret(json.dumps(in_a_new_gitlab(settings.gitlab_settings), sort_keys=True)),
            ],
            after=[configured.command],
            # Silencing pauses every runner.
            triggers=[silenced.result] if silenced else [],
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

    def _restrict_egress(
        self,
        host: RemoteHost,
        settings: Settings,
        balancer_address: pulumi.Input[str],
        *,
        after: Sequence[pulumi.Resource],
    ) -> Step:
        """Silent Mode does not stop everything (GitLab Docs, "GitLab Silent Mode"), and is not on yet."""
        arguments = [GITLAB_USERS, str(settings.subnet), balancer_address, str(GITLAB_SSHD_PORT)]
        return host.run(
            "install_boot_program",
            name="restrict_egress",
            arguments=["restrict-egress", *arguments],
            payload=[
                program("restrict-egress"),
                pulumi.Output.all(*arguments).apply(restrict_egress_service),
            ],
            after=after,
            limit=300,
            parent=self,
        )

    def _silence(
        self,
        host: RemoteHost,
        settings: Settings,
        addresses: Addresses,
        token_key: Step,
        *,
        after: Sequence[pulumi.Resource],
    ) -> Step:
        """Start GitLab without Sidekiq, and silence it before anything in it can act."""
        quiet = self._configure(
            host,
            settings,
            addresses,
            token_key,
            name="configure_gitlab_quietly",
            background_jobs=False,
            after=after,
        )
        return host.run(
            "silence_gitlab",
            payload=[script("silence_gitlab.rb")],
            after=[quiet.command],
            limit=900,
            parent=self,
        )

    def _configure(
        self,
        host: RemoteHost,
        settings: Settings,
        addresses: Addresses,
        token_key: Step,
        *,
        name: str | None = None,
        background_jobs: bool = True,
        after: Sequence[pulumi.Resource],
    ) -> Step:
        gitlab_rb = addresses.apply(lambda known: render_gitlab_rb(settings, background_jobs=background_jobs, **known))
        return host.run(
            "configure_gitlab",
            name=name,
            # The version, so that the step runs again after an upgrade.
            arguments=[settings.gitlab_version],
            payload=[
                pulumi.Output.secret(gitlab_rb),
                pulumi.Output.secret(settings.initial_root_password or ""),
            ],
            after=after,
            # GitLab signs with the copy of the key, and trusts the links to the authority, that reconfigure writes
            # (omnibus-gitlab recipes/gitlab-rails.rb, add_trusted_certs.rb).
            triggers=[
                token_key.result.apply(lambda pem: hashlib.sha256(pem.encode()).hexdigest()),
                *fingerprints(settings.certificate_authority),
            ],
            limit=MIGRATION_LIMIT,
            parent=self,
        )
