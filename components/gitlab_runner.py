"""The CI runner on its machine."""

import hashlib

import pulumi

from components.package_repository import add_repository
from components.remote_host import JOBS_LIMIT
from components.trusted_authority import trust_authority
from components.virtual_machine import VirtualMachine
from configuration.docker_daemon import DEFAULT_BRIDGE, render_docker_daemon, render_docker_in_docker
from configuration.job_limits import JobLimits
from configuration.package_repositories import DOCKER, RUNNER
from configuration.remote_step import program
from configuration.runner_config import render_runner_config
from configuration.systemd_units import (
    PRUNE_CALENDAR,
    docker_prune_service,
    docker_prune_timer,
    refuse_containers_service,
)
from settings import Settings


def runner_system_id(runner_name: str) -> str:
    """The ID by which GitLab identifies the machine of a runner. Derived from the name, so that GitLab treats a
    replaced machine as the same one and no stale record remains. Format: common/system_id_state.go of gitlab-runner
    17.10.1.
    """
    return "s_" + hashlib.sha256(runner_name.encode()).hexdigest()[:12]


class GitLabRunner(pulumi.ComponentResource):
    """Installs gitlab-runner with the docker executor and waits until it has contacted GitLab. `token` is a secret;
    `registry_host` is host:port, as in image names; `ready` is the last step.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        machine: VirtualMachine,
        runner_name: str,
        limits: JobLimits,
        external_url: pulumi.Input[str],
        registry_host: pulumi.Input[str],
        balancer_address: pulumi.Input[str],
        token: pulumi.Output[str],
        after: list[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:runner:GitLabRunner", name, None, opts)
        host = machine.host
        insecure = pulumi.Output.from_input(registry_host).apply(lambda known: None if settings.serves_tls else known)
        daemon = insecure.apply(lambda known: render_docker_daemon(insecure_registry=known, network_per_job=True))
        trusted = trust_authority(host, settings, limit=JOBS_LIMIT, after=machine.first_steps, parent=self)
        docker_repository = add_repository(
            host,
            DOCKER,
            settings.docker_package_keys,
            version=settings.docker_version,
            after=[trusted.command],
            parent=self,
        )
        docker = host.run(
            "install_docker",
            arguments=[settings.docker_version, settings.containerd_version],
            payload=[daemon],
            after=[docker_repository.command],
            limit=JOBS_LIMIT,
            parent=self,
        )
        refused = host.run(
            "install_boot_program",
            name="refuse_containers",
            arguments=["refuse-containers"],
            payload=[program("refuse-containers"), refuse_containers_service()],
            after=[docker.command],
            limit=300,
            parent=self,
        )
        pruned = host.run(
            "schedule_program",
            name="schedule_prune",
            arguments=["prune-docker", "docker-prune", PRUNE_CALENDAR, "PRUNE_CALENDAR"],
            payload=[program("prune-docker"), docker_prune_service(), docker_prune_timer()],
            after=[refused.command],
            parent=self,
        )
        runner_repository = add_repository(
            host,
            RUNNER,
            settings.runner_package_keys,
            version=settings.runner_version,
            after=[pruned.command],
            parent=self,
        )
        installed = host.run(
            "install_runner",
            arguments=[
                settings.runner_version,
                str(DEFAULT_BRIDGE),
                insecure.apply(lambda known: known or ""),
            ],
            after=[runner_repository.command],
            limit=JOBS_LIMIT,
            parent=self,
        )
        extra_hosts = [pulumi.Output.concat(settings.domain or "", ":", balancer_address)] if settings.drill else []
        config = pulumi.Output.all(external_url=external_url, token=token, extra_hosts=extra_hosts).apply(
            lambda known: render_runner_config(settings, name=runner_name, limits=limits, **known)
        )
        configured = host.run(
            "configure_runner",
            arguments=[runner_name, runner_system_id(runner_name), external_url],
            payload=[
                pulumi.Output.secret(config),
                insecure.apply(lambda known: render_docker_in_docker(insecure_registry=known)),
            ],
            after=[installed.command, *after],
            parent=self,
        )
        self.ready = configured.command
        self.register_outputs({})
