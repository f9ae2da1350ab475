"""One RHEL 8 machine with its data volume."""

import base64
from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from components.naming import tagged
from components.network import Addresses, Network
from components.remote_host import RemoteHost, Step
from configuration import red_hat
from configuration.flows import Place
from configuration.user_data import render_user_data
from settings import MachineSettings, Settings


def rhel8_image_id(region: str) -> pulumi.Output[str]:
    """Red Hat's newest RHEL 8.10 for x86_64 with the fee on the AWS bill (names end in Hourly2, not Access2)."""
    return aws.ec2.get_ami_output(
        owners=[red_hat.account(region)],
        most_recent=True,
        filters=[
            aws.ec2.GetAmiFilterArgs(name="name", values=["RHEL-8.10*_HVM-*-x86_64-*-Hourly2-GP3"]),
            aws.ec2.GetAmiFilterArgs(name="architecture", values=["x86_64"]),
            aws.ec2.GetAmiFilterArgs(name="root-device-type", values=["ebs"]),
            aws.ec2.GetAmiFilterArgs(name="virtualization-type", values=["hvm"]),
        ],
    ).id


class VirtualMachine(pulumi.ComponentResource):
    """A machine on an interface that exists before it, with an encrypted volume for its data that outlives it.

    user-data, image and key pair are what the machine was born with: a change of any leaves it alone, versions and
    configuration reach it by remote steps. Another type is a stop and a start. It is replaced only on purpose
    (`pulumi up --replace`), and then the old one goes first: its volume and interface can be in one machine only.
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
        self.machine = machine
        instance = aws.ec2.Instance(
            role.value,
            ami=image_id,
            instance_type=machine.instance_type,
            key_name=key_name,
            # Deprecated since provider 6.10 for primary_network_interface, which waits for the next major plugin.
            network_interfaces=[
                aws.ec2.InstanceNetworkInterfaceArgs(network_interface_id=addresses.interface_ids[role], device_index=0)
            ],
            user_data_base64=base64.b64encode(render_user_data(role).encode()).decode(),
            metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
                http_endpoint="enabled",
                http_tokens="required",
                # Jobs and other containers are one hop further and get no metadata.
                http_put_response_hop_limit=1,
            ),
            root_block_device=aws.ec2.InstanceRootBlockDeviceArgs(
                volume_type="gp3",
                volume_size=machine.root_volume_size,
                encrypted=True,
                delete_on_termination=True,
                tags=tagged(settings, f"{role}-root"),
            ),
            tags=tagged(settings, role.value),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[network.way_out, rules],
                delete_before_replace=True,
                # AWS knows no other key pair for a machine that exists, so the provider would replace it for one. A
                # machine that is made anew, by `--replace` or because it was lost, takes the program's values all the
                # same: the engine then has no old ones to keep (pulumi 3.259, resource/deploy/step_generator.go).
                ignore_changes=["userDataBase64", "ami", "keyName"],
            ),
        )
        self.instance_id = instance.id
        self.volume_id: pulumi.Output[str] | None = None
        self._attachment: aws.ec2.VolumeAttachment | None = None
        if machine.data_volume_size:
            volume = aws.ebs.Volume(
                f"{role}-data",
                # Not the subnet's: a volume that is kept keeps nothing else alive.
                availability_zone=settings.availability_zone,
                type="gp3",
                size=machine.data_volume_size,
                encrypted=True,
                tags=tagged(settings, f"{role}-data"),
                opts=pulumi.ResourceOptions(
                    parent=self,
                    protect=settings.deletion_protection,
                    import_=machine.data_volume_id,
                    # What an adopted volume is called is not a reason to refuse it.
                    ignore_changes=["tags", "tagsAll"] if machine.data_volume_id else None,
                ),
            )
            self.volume_id = volume.id
            self._attachment = aws.ec2.VolumeAttachment(
                f"{role}-data",
                device_name="/dev/sdf",
                volume_id=volume.id,
                instance_id=instance.id,
                stop_instance_before_detaching=True,
                opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
            )
        self.host = RemoteHost(
            role,
            address=addresses.public[role],
            instance=instance,
            public_key=settings.ssh_public_key,
            private_key=settings.ssh_private_key,
            open_ports=open_ports,
            parent=self,
        )
        self.root_grown = self._grow("/", machine.root_volume_size, f"{role}-root", name="grow_root", parent=self)
        self.register_outputs({"instanceId": instance.id})

    def mount_data(self, mountpoint: str, *targets: str, service: str, parent: pulumi.Resource) -> Step:
        """Mount the data volume, bind a folder of it over each of `targets`, and let its file system fill it;
        `service` is what lives on it.

        Raises ValueError without a data volume.
        """
        size = self.machine.data_volume_size
        if size is None or self.volume_id is None or self._attachment is None:
            raise ValueError(f"the {self.role} machine has no data volume")
        mounted = self.host.run(
            "mount_data",
            arguments=[self.volume_id, service, mountpoint, *targets],
            after=[self._attachment, self.root_grown.command],
            parent=parent,
        )
        return self._grow(
            mountpoint,
            size,
            f"{self.role}-data",
            name="grow_data",
            after=[mounted.command],
            parent=parent,
        )

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
        """Have the file system fill its volume of `size` GiB, which is made larger without the machine's knowledge."""
        return self.host.run(
            "grow_file_system",
            name=name,
            arguments=[mountpoint, str(size), f"{volume}-{pulumi.get_stack()}"],
            after=after,
            parent=parent,
        )
