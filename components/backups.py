"""Backups of the data volumes: snapshots that the machines take themselves."""

import json
from collections.abc import Mapping, Sequence

import pulumi

from components.naming import stack_tag
from components.remote_host import Step
from components.virtual_machine import VirtualMachine
from configuration.backup_policy import keep_of
from configuration.flows import Place
from configuration.paths import GITLAB_DATA, REGISTRY_DATA
from configuration.remote_step import PROGRAMS
from configuration.systemd_units import backup_service, backup_timer
from configuration.zipapp import build_zipapp
from settings import Settings


class Backups(pulumi.ComponentResource):
    """Schedules backups of the server and of the registry's machine, and takes the first one of each.

    The registry's comes after the server's, since it contains every image that GitLab knew before. `ready` is the last
    step. Without backups in the settings, the steps remove what schedules them.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        machines: Mapping[Place, VirtualMachine],
        after: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:backups:Backups", name, None, opts)
        self._settings = settings
        self._program = build_zipapp(PROGRAMS / "volume_backup")
        of_server = self._schedule(
            machines[Place.SERVER], GITLAB_DATA, versions={"gitlab": settings.gitlab_version}, after=after
        )
        of_registry = self._schedule(
            machines[Place.REGISTRY],
            REGISTRY_DATA,
            versions={"registry": settings.registry_image or settings.registry_version},
            joins=Place.SERVER,
            after=[of_server.command],
        )
        self.ready = of_registry.command
        self.register_outputs({})

    def _schedule(
        self,
        machine: VirtualMachine,
        mountpoint: str,
        *,
        versions: Mapping[str, str],
        after: Sequence[pulumi.Resource],
        joins: Place | None = None,
    ) -> Step:
        if machine.data_volume is None:
            raise ValueError(f"the {machine.role} machine has no data volume")
        settings = self._settings
        configuration = {
            "stack": stack_tag(),
            "role": machine.role,
            "region": settings.region,
            "mountpoint": mountpoint,
            "keep": keep_of(settings)._asdict(),
            "versions": versions,
            **({"after": joins} if joins else {}),
        }
        calendar = settings.backup_schedule if settings.backup else ""
        return machine.host.run(
            "schedule_backups",
            arguments=[calendar, "first"],
            payload=[
                self._program,
                machine.data_volume.id.apply(
                    lambda volume_id: json.dumps({**configuration, "volume_id": volume_id}, sort_keys=True)
                ),
                backup_service(machine.role, mountpoint),
                backup_timer(calendar),
            ],
            after=[*after, *([machine.backups_allowed] if machine.backups_allowed else [])],
            limit=15 * 60,
            parent=self,
        )
