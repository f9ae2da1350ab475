"""GitLab's container registry on its own machine."""

import pulumi

from components.package_repository import add_repository
from components.trusted_authority import trust_authority
from components.virtual_machine import VirtualMachine
from configuration.docker_daemon import render_docker_daemon
from configuration.package_repositories import DOCKER
from configuration.paths import REGISTRY_DATA
from configuration.registry_config import registry_image, render_registry_config
from configuration.remote_step import PROGRAMS, program
from configuration.systemd_units import collect_garbage_service, collect_garbage_timer
from configuration.zipapp import build_zipapp
from settings import Settings


class ContainerRegistry(pulumi.ComponentResource):
    """Runs the registry in a container that stores images on the data volume and accepts tokens signed with the key of
    `token_certificate` (PEM). `ready` is the last step.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        machine: VirtualMachine,
        external_url: pulumi.Input[str],
        token_certificate: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:registry:ContainerRegistry", name, None, opts)
        mounted = machine.mount_data(REGISTRY_DATA, service="docker", parent=self)
        trusted = trust_authority(machine.host, settings, after=[mounted.command], parent=self)
        repository = add_repository(
            machine.host,
            DOCKER,
            settings.docker_package_keys,
            version=settings.docker_version,
            after=[trusted.command],
            parent=self,
        )
        installed = machine.host.run(
            "install_docker",
            arguments=[settings.docker_version, settings.containerd_version],
            payload=[render_docker_daemon()],
            after=[repository.command],
            parent=self,
        )
        config = pulumi.Output.all(external_url=external_url).apply(
            lambda known: render_registry_config(port=settings.registry_port, **known)
        )
        running = machine.host.run(
            "run_registry",
            arguments=[
                settings.registry_image or registry_image(settings.registry_version),
                str(settings.registry_port),
            ],
            payload=[config, token_certificate],
            after=[installed.command],
            parent=self,
        )
        registry_tree = machine.host.run(
            "install_registry_tree",
            payload=[build_zipapp(PROGRAMS / "registry_tree")],
            after=[running.command],
            limit=300,
            parent=self,
        )
        calendar = settings.registry_garbage_collection
        scheduled = machine.host.run(
            "schedule_program",
            name="schedule_garbage_collection",
            arguments=["collect-garbage", "collect-garbage", calendar, "registryGarbageCollection"],
            payload=[
                program("collect-garbage"),
                collect_garbage_service(
                    port=settings.registry_port, untagged=settings.registry_garbage_collection_untagged
                ),
                collect_garbage_timer(calendar),
            ],
            after=[registry_tree.command],
            parent=self,
        )
        self.ready = scheduled.command
        self.register_outputs({})
