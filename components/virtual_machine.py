"""One RHEL 8 machine with its data volume."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.adoption import kept
from components.backup_role import BackupRole
from components.naming import TaggedLate, tagged
from components.network import Addresses, Network
from components.remote_host import RemoteHost, Step
from configuration.flows import Place
from configuration.paths import volume_device
from configuration.remote_step import program
from configuration.systemd_units import (
    keep_data_mounted_service,
    restrict_metadata_service,
    security_updates_service,
    security_updates_timer,
)
from configuration.user_data import render_user_data
from settings import MachineSettings, Settings


@dataclass(frozen=True)
class DataVolume:
    """A machine's data volume and its attachment. `size` is in GiB."""

    id: pulumi.Output[str]
    arn: pulumi.Output[str]
    size: int
    attachment: aws.ec2.VolumeAttachment


class VirtualMachine(pulumi.ComponentResource):
    """A machine with an existing interface and an encrypted data volume that outlives it.

    User data, image and key pair are set at launch: changing them does not affect an existing machine. Versions and
    configuration are applied by remote steps. Changing the instance type stops and starts the machine. It is replaced
    only on request (`pulumi up --replace`), and then the old one is deleted first, because its volume and interface can
    be attached to only one machine. With a data volume it has a role for backups of it, and only root can reach its
    metadata service. `open_ports` are opened in firewalld, if the image has it. `first_steps` precede all others.
    """

    def __init__(
        self,
        role: Place,
        settings: Settings,
        machine: MachineSettings,
        *,
        image_id: pulumi.Input[str],
        key_name: pulumi.Input[str],
        network: Network,
        addresses: Addresses,
        rules: pulumi.Resource,
        open_ports: tuple[int, ...] = (),
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:machine:VirtualMachine", role.value, None, opts)
        self.role = role
        has_data = machine.data_volume_size is not None
        backup_role = (
            BackupRole(role, settings, opts=pulumi.ResourceOptions(parent=self))
            if settings.backup and has_data
            else None
        )
        instance = self._launch(
            settings,
            machine,
            profile=backup_role.profile.name if backup_role else None,
            image_id=image_id,
            key_name=key_name,
            interface_id=addresses.interface_ids[role],
            after=[network.route_table_association, rules],
        )
        self.instance_id = instance.id
        self.data_volume = self._attach_data_volume(settings, machine, instance)
        self.backups_allowed = backup_role.allow(self.data_volume.arn) if backup_role and self.data_volume else None
        self.host = RemoteHost(
            role,
            address=addresses.public[role],
            instance=instance,
            public_key=settings.ssh_public_key,
            private_key=settings.ssh_private_key,
            open_ports=open_ports,
            parent=self,
        )
        root_grown = self._grow("/", machine.root_volume_size, f"{role}-root", name="grow_root", parent=self)
        self.first_steps = [root_grown.command]
        if settings.drill:
            self.first_steps.append(self._name_load_balancer(settings, addresses).command)
        self.metadata_restricted = self._restrict_metadata() if has_data else None
        self.updates_scheduled = self._schedule_updates(settings.security_updates)
        self.register_outputs({"instanceId": instance.id})

    def mount_data(self, mountpoint: str, *targets: str, service: str, parent: pulumi.Resource) -> Step:
        """Mount the data volume, bind-mount one of its directories over each of `targets`, and grow its file system to
        the size of the volume; `service` is the systemd service that uses it.

        Raises ValueError if the machine has no data volume.
        """
        if self.data_volume is None or self.metadata_restricted is None:
            raise ValueError(f"the {self.role} machine has no data volume")
        device = self.data_volume.id.apply(volume_device)
        unit = device.apply(
            lambda path: keep_data_mounted_service(device=path, service=service, mountpoint=mountpoint, targets=targets)
        )
        mounted = self.host.run(
            "mount_data",
            arguments=[self.data_volume.id, device, service, mountpoint, *targets],
            payload=[program("keep-data-mounted"), unit],
            # Before the services of the volume run: they have no business with the role's credentials.
            after=[self.data_volume.attachment, self.metadata_restricted.command],
            parent=parent,
        )
        return self._grow(
            mountpoint,
            self.data_volume.size,
            f"{self.role}-data",
            name="grow_data",
            after=[mounted.command],
            parent=parent,
        )

    def _name_load_balancer(self, settings: Settings, addresses: Addresses) -> Step:
        """No DNS record leads to the domain of a drill: only its machines know it."""
        return self.host.run(
            "name_load_balancer",
            arguments=[addresses.public[Place.LOAD_BALANCER], settings.domain or ""],
            after=self.first_steps,
            limit=300,
            parent=self,
        )

    def _restrict_metadata(self) -> Step:
        return self.host.run(
            "install_boot_program",
            name="restrict_metadata",
            arguments=["restrict-metadata"],
            payload=[program("restrict-metadata"), restrict_metadata_service()],
            after=self.first_steps,
            parent=self,
        )

    def _schedule_updates(self, calendar: str) -> Step:
        return self.host.run(
            "schedule_program",
            name="schedule_updates",
            arguments=["install-security-updates", "install-security-updates", calendar, "securityUpdates"],
            payload=[
                program("install-security-updates"),
                security_updates_service(self.role),
                security_updates_timer(calendar),
            ],
            after=self.first_steps,
            parent=self,
        )

    def _launch(
        self,
        settings: Settings,
        machine: MachineSettings,
        *,
        image_id: pulumi.Input[str],
        key_name: pulumi.Input[str],
        interface_id: pulumi.Input[str],
        profile: pulumi.Input[str] | None,
        after: Sequence[pulumi.Resource],
    ) -> aws.ec2.Instance:
        return aws.ec2.Instance(
            self.role.value,
            ami=image_id,
            instance_type=machine.instance_type,
            key_name=key_name,
            iam_instance_profile=profile,
            # Deprecated since provider 6.10 in favour of primary_network_interface: switch with the next major plugin.
            network_interfaces=[
                aws.ec2.InstanceNetworkInterfaceArgs(network_interface_id=interface_id, device_index=0)
            ],
            user_data_base64=base64.b64encode(render_user_data(self.role).encode()).decode(),
            metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
                http_endpoint="enabled",
                http_tokens="required",
                # Containers, including jobs, are one network hop further away and get no metadata.
                http_put_response_hop_limit=1,
            ),
            root_block_device=aws.ec2.InstanceRootBlockDeviceArgs(
                volume_type="gp3",
                volume_size=machine.root_volume_size,
                encrypted=True,
                delete_on_termination=True,
                tags=tagged(settings, f"{self.role}-root", TaggedLate.ROOT_VOLUME),
            ),
            tags=tagged(settings, self.role.value),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=list(after),
                delete_before_replace=True,
                # AWS cannot change the key pair of an existing machine, so the provider would replace the machine. A
                # machine that is recreated, by `--replace` or because it was lost, still gets the program's values: the
                # engine then has no old ones to keep (pulumi 3.259, resource/deploy/step_generator.go).
                ignore_changes=["userDataBase64", "ami", "keyName"],
            ),
        )

    def _attach_data_volume(
        self, settings: Settings, machine: MachineSettings, instance: aws.ec2.Instance
    ) -> DataVolume | None:
        if machine.data_volume_size is None:
            return None
        name = f"{self.role}-data"
        volume = aws.ebs.Volume(
            name,
            # Not the subnet's attribute, so that the volume can outlive the stack without the subnet.
            availability_zone=settings.availability_zone,
            type="gp3",
            size=machine.data_volume_size,
            encrypted=True,
            # AWS copies the blocks when they are first read, so a restored machine is slow at first. A rate for this
            # (volume_initialization_rate) costs extra.
            snapshot_id=machine.data_snapshot_id,
            tags=tagged(settings, name),
            # Another snapshot would replace the volume, and with it everything since the restore.
            opts=kept(settings, self, adopted_id=machine.data_volume_id, only_at_creation=["snapshotId"]),
        )
        attachment = aws.ec2.VolumeAttachment(
            name,
            device_name="/dev/sdf",
            volume_id=volume.id,
            instance_id=instance.id,
            stop_instance_before_detaching=True,
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        return DataVolume(volume.id, volume.arn, machine.data_volume_size, attachment)

    def _grow(
        self,
        mountpoint: str,
        size: int,
        volume: str,
        *,
        name: str,
        parent: pulumi.Resource,
        after: Sequence[pulumi.Resource] = (),
    ) -> Step:
        """Grow the file system to its volume's `size` in GiB; AWS enlarges the volume without notifying the machine."""
        return self.host.run(
            "grow_file_system",
            name=name,
            arguments=[mountpoint, str(size), f"{volume}-{pulumi.get_stack()}"],
            after=after,
            parent=parent,
        )
