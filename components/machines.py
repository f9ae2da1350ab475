"""The three machines, the image they are launched from, and the administrators' key pair."""

import pulumi
import pulumi_aws as aws

from components.naming import tagged
from components.network import Addresses, Network
from components.virtual_machine import VirtualMachine
from configuration import red_hat
from configuration.flows import GITLAB_HTTP_PORT, GITLAB_SSHD_PORT, Place
from settings import Settings


def image_id(settings: Settings) -> pulumi.Input[str]:
    """The image in the settings; by default, Red Hat's latest RHEL 8.10 for x86_64 that is billed through AWS (names
    end in Hourly2, not Access2).

    Raises LookupError if Red Hat's account in the region is unknown.
    """
    if settings.ami_id:
        return settings.ami_id
    return aws.ec2.get_ami_output(
        owners=[red_hat.account(settings.region)],
        most_recent=True,
        filters=[
            aws.ec2.GetAmiFilterArgs(name="name", values=["RHEL-8.10*_HVM-*-x86_64-*-Hourly2-GP3"]),
            aws.ec2.GetAmiFilterArgs(name="architecture", values=["x86_64"]),
            aws.ec2.GetAmiFilterArgs(name="root-device-type", values=["ebs"]),
            aws.ec2.GetAmiFilterArgs(name="virtualization-type", values=["hvm"]),
        ],
    ).id


def create_machines(
    settings: Settings, *, network: Network, addresses: Addresses, rules: pulumi.Resource
) -> dict[Place, VirtualMachine]:
    """The machines by role. They start once the security group `rules` exist, because the steps need them."""
    image = image_id(settings)
    key_pair = aws.ec2.KeyPair("gitlab", public_key=settings.ssh_public_key, tags=tagged(settings, "gitlab"))
    return {
        role: VirtualMachine(
            role,
            settings,
            machine,
            image_id=image,
            key_name=key_pair.key_name,
            network=network,
            addresses=addresses,
            rules=rules,
            open_ports=open_ports,
        )
        for role, machine, open_ports in (
            (Place.SERVER, settings.server, (GITLAB_HTTP_PORT, GITLAB_SSHD_PORT)),
            (Place.REGISTRY, settings.registry, (settings.registry_port,)),
            (Place.RUNNER, settings.runner, ()),
        )
    }
