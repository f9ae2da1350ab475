"""Checks the settings against existing AWS resources and the SSH agent before any resource is created."""

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws

from components.existing_backup import backup_problems, own_volumes
from components.lookups import lookup, not_found
from components.naming import named, stack_tag
from configuration import red_hat
from configuration.flows import Place, extra_egress_problems, rule_limit_problems
from configuration.job_limits import MachineSize, job_limit_problems
from settings import MachineSettings, Settings, SettingsError
from validation import ssh_agent
from validation.values import STACK_TAG

ARCHITECTURE = "x86_64"
"""The architecture of the GitLab packages, the machines' image, and the containers of the registry and of jobs."""

SERVER_MEMORY = 8
"""GiB, GitLab's minimum (GitLab Docs, "Installation requirements")."""

LOAD_BALANCER_INTERFACE = "network_load_balancer"
"""The EC2 API's type of a network load balancer's interface (DescribeNetworkInterfaces)."""

NOT_TERMINATED = ("pending", "running", "shutting-down", "stopping", "stopped")
"""States of an instance that may have a volume attached. AWS lists terminated instances for another hour."""


def check_existing(settings: Settings) -> MachineSize:
    """Check the settings against AWS, and return the size of the runner's machine.

    AWS must allow the number of security group rules and offer the instance types and the image. The volumes, the
    address and the hosted zone in the settings must exist, match the other settings and not be in use elsewhere, and
    so must the backup to restore. A stack that serves TLS must not change to plain HTTP by mistake. If the settings
    contain no private key, the SSH agent must hold it, except for a preview.

    Raises SettingsError, which lists all problems with their keys.
    """
    machines = {
        Place.SERVER: settings.server,
        Place.REGISTRY: settings.registry,
        Place.RUNNER: settings.runner,
    }
    problems = _agent_problem(settings)
    problems += rule_limit_problems(settings) + extra_egress_problems(settings)
    problems += _network_problem(settings) + _zone_problem(settings)
    types = _offered_types(machines, settings.availability_zone)
    problems += _instance_type_problems(machines, types, settings)
    runner = types.get(settings.runner.instance_type)
    size = MachineSize(memory=runner.memory_size, cpus=runner.default_vcpus) if runner else None
    problems += job_limit_problems(settings, size) if size else []
    problems += _image_problem(settings.ami_id) if settings.ami_id else _image_owner_problem(settings.region)
    for role, machine in machines.items():
        problems += _volume_problem(role, machine, settings)
    problems += backup_problems(settings)
    if settings.balancer_address_id:
        problems += _address_problem(settings.balancer_address_id, settings)
    if settings.domain and settings.hosted_zone_id:
        problems += _hosted_zone_problem(settings.hosted_zone_id, settings.domain)
    if not settings.serves_tls and not settings.accept_plain_http_after_tls:
        problems += _served_tls_problem()
    if problems or size is None:
        raise SettingsError(problems)
    return size


def _agent_problem(settings: Settings) -> list[str]:
    if settings.ssh_private_key or pulumi.runtime.is_dry_run():
        return []
    problem = ssh_agent.problem(settings.ssh_public_key)
    return [f"sshPublicKey: sshPrivateKey is not set, and {problem}"] if problem else []


def _network_problem(settings: Settings) -> list[str]:
    """Another CIDR block replaces the VPC, which fails halfway: the internet gateway cannot be moved to the new one
    while machines have public addresses in the former (EC2 API Reference, DetachInternetGateway). The former block then
    needs yet another VPC (pulumi/pulumi#7139).
    """
    if _own_networks(("cidr", str(settings.network))) or not (own := _own_networks()):
        return []
    return [
        (
            f"networkCidr: {str(settings.network)!r}, but the VPC of this stack, {', '.join(own)}, has another CIDR "
            f"block, which cannot be changed. Set that one (aws ec2 describe-vpcs --region {settings.region} --vpc-ids "
            f"{' '.join(own)} --query 'Vpcs[].CidrBlock'), or first destroy everything but the data and the load "
            "balancer's address: pulumi destroy --exclude-protected."
        )
    ]


def _zone_problem(settings: Settings) -> list[str]:
    """In another zone the data volumes would be replaced by empty ones, and a second subnet with the same CIDR block,
    which AWS refuses, would end `up` halfway.
    """
    zone = settings.availability_zone
    for role in (Place.SERVER, Place.REGISTRY):
        if not own_volumes(role, ("availability-zone", zone)) and (own := own_volumes(role)):
            return [
                (
                    f"availabilityZone: {zone!r}, but the data volume of this stack, {', '.join(own)}, is in another "
                    "zone. Set that zone, or restore a backup into a new stack: make restore FROM=... ZONE=... A stack "
                    "without data can be destroyed with its volumes, and created in another zone."
                )
            ]
    return []


def _own_networks(*filters: tuple[str, str]) -> Sequence[str]:
    """The IDs of the VPCs that this stack has created."""
    own = (("tag:Name", named("gitlab")), (f"tag:{STACK_TAG}", stack_tag()))
    found = aws.ec2.get_vpcs(
        filters=[aws.ec2.GetVpcsFilterArgs(name=name, values=[value]) for name, value in (*own, *filters)]
    )
    return found.ids or ()


def _offered_types(machines: dict[Place, MachineSettings], zone: str) -> dict[str, aws.ec2.GetInstanceTypeResult]:
    """AWS's description of the machines' instance types, by name, if the zone offers them."""
    types = sorted({machine.instance_type for machine in machines.values()})
    offered = aws.ec2.get_instance_type_offerings(
        location_type="availability-zone",
        filters=[
            aws.ec2.GetInstanceTypeOfferingsFilterArgs(name="location", values=[zone]),
            aws.ec2.GetInstanceTypeOfferingsFilterArgs(name="instance-type", values=types),
        ],
    ).instance_types
    # Only of types that exist: an unknown one would end the program with an error that does not mention the key.
    return {name: aws.ec2.get_instance_type(instance_type=name) for name in sorted(set(offered or ()))}


def _instance_type_problems(
    machines: dict[Place, MachineSettings], found: dict[str, aws.ec2.GetInstanceTypeResult], settings: Settings
) -> list[str]:
    zone = settings.availability_zone
    names = {f"{role}InstanceType": machine.instance_type for role, machine in machines.items()}
    wanted = " or ".join(sorted(set(names.values())))
    list_them = (
        f"aws ec2 describe-instance-type-offerings --region {settings.region} --location-type availability-zone "
        f"--filters Name=location,Values={zone}"
    )
    if not found:
        return [
            (
                f"availabilityZone: AWS does not offer {wanted} in {zone!r}. Use another zone of the region (list "
                f"them: aws ec2 describe-availability-zones --region {settings.region}) or other instance types (list "
                f"those of this zone: {list_them})"
            )
        ]
    problems = []
    for key, name in names.items():
        if name in found:
            problems += _instance_type_problem(key, name, found[name])
        else:
            problems.append(
                f"{key}: AWS does not offer {name!r} in {zone}. Check the spelling, or use another type or another "
                f"availabilityZone. List the types of the zone: {list_them}"
            )
    return problems


def _instance_type_problem(key: str, name: str, found: aws.ec2.GetInstanceTypeResult) -> list[str]:
    example = "Use a type such as m6i.xlarge"
    if ARCHITECTURE not in found.supported_architectures:
        architectures = " and ".join(found.supported_architectures)
        return [
            f"{key}: {name!r} is for {architectures}, but the packages and images are for {ARCHITECTURE}. {example}."
        ]
    if found.ebs_nvme_support != "required" and key != f"{Place.RUNNER}InstanceType":
        # The runner has no data volume. Bare metal types have no hypervisor, but NVMe volumes like Nitro types.
        return [
            (
                f"{key}: {name!r} is not a Nitro type (hypervisor: {found.hypervisor}): its volumes are not NVMe "
                f"devices, and the program identifies data volumes by NVMe device name. {example}."
            )
        ]
    if key == f"{Place.SERVER}InstanceType" and found.memory_size < SERVER_MEMORY * 1024:
        memory = f"{found.memory_size / 1024:g} GiB"
        return [f"{key}: {name!r} has {memory} of memory, but GitLab needs {SERVER_MEMORY} GiB. {example}."]
    return []


def _image_problem(image_id: str) -> list[str]:
    image = lookup(
        lambda: aws.ec2.get_ami(
            filters=[aws.ec2.GetAmiFilterArgs(name="image-id", values=[image_id])], include_deprecated=True
        )
    )
    if image is None:
        return not_found("amiId", image_id, "Leave it empty to use Red Hat's latest RHEL 8.10.")
    if image.architecture != ARCHITECTURE:
        return [f"amiId: {image_id!r} is for {image.architecture}, but the machines are x86_64. Use an x86_64 image."]
    return []


def _image_owner_problem(region: str) -> list[str]:
    try:
        red_hat.account(region)
    except LookupError as error:
        return [
            f"amiId: missing, and {error}, so its images cannot be found. Set amiId to an x86_64 image of RHEL 8.10."
        ]
    return []


def _volume_problem(role: Place, machine: MachineSettings, settings: Settings) -> list[str]:
    size = machine.data_volume_size
    if size is None:
        return []
    if machine.data_volume_id is None:
        own = [_volume(volume_id) for volume_id in own_volumes(role)]
        return [problem for volume in own if volume for problem in _size_problem(role, volume, size)]
    key, volume_id = f"{role}DataVolumeId", machine.data_volume_id
    volume = _volume(volume_id)
    if volume is None:
        return not_found(key, volume_id, "Leave it empty to create a new volume.")
    problems = []
    if volume.availability_zone != settings.availability_zone:
        problems.append(
            f"{key}: {volume_id!r} is in {volume.availability_zone}, and a volume cannot be moved to another zone. "
            "Set availabilityZone to that zone."
        )
    if not volume.encrypted or volume.volume_type != "gp3":
        problems.append(f"{key}: {volume_id!r} is not an encrypted gp3 volume. Create one from a snapshot of it.")
    problems += _size_problem(role, volume, size)
    problems += _mark_problem(key, volume_id, volume.tags, settings.region)
    problems += _other_problem(key, volume_id, own_volumes(role), "To go back to a backup, restore into a new stack.")
    return problems + _volume_in_use(key, volume_id, named(role))


def _volume(volume_id: str) -> aws.ebs.GetVolumeResult | None:
    return lookup(
        lambda: aws.ebs.get_volume(filters=[aws.ebs.GetVolumeFilterArgs(name="volume-id", values=[volume_id])])
    )


def _size_problem(role: Place, volume: aws.ebs.GetVolumeResult, size: int) -> list[str]:
    """The provider sends a smaller size to AWS, which refuses it when other resources have been changed already (EC2
    API Reference, ModifyVolume: "must be greater than or equal to the existing size of the volume").
    """
    if volume.size <= size:
        return []
    return [
        (
            f"{role}DataVolumeSize: {size} GiB, but {volume.id!r} has {volume.size} GiB, and a volume cannot "
            f"shrink. Set it to {volume.size}."
        )
    ]


def _other_problem(key: str, resource_id: str, own: Sequence[str], alternative: str) -> list[str]:
    """An import in place of a resource that the stack has deletes that one, and does not consider its protection
    (pulumi 3.259, pkg/resource/deploy/step.go, NewImportReplacementStep and DeleteStep.Apply).
    """
    if not own or resource_id in own:
        return []
    return [
        (
            f"{key}: this stack has {', '.join(own)} already, which would be deleted in favour of {resource_id!r}. "
            f"Remove the key. {alternative} If the stack's state was lost, first remove the tag {STACK_TAG} of "
            f"{', '.join(own)}."
        )
    ]


def _mark_problem(key: str, resource_id: str, tags: Mapping[str, str] | None, region: str) -> list[str]:
    """An adopted resource must be tagged by someone with permission to do so; the stack's operators have none."""
    owner = (tags or {}).get(STACK_TAG)
    if owner == stack_tag():
        return []
    mark = f"aws ec2 create-tags --region {region} --resources {resource_id} --tags Key={STACK_TAG},Value={stack_tag()}"
    found = f"is tagged as belonging to {owner}" if owner else "is not tagged as belonging to this stack"
    return [f"{key}: {resource_id!r} {found} (tag {STACK_TAG}). To let this stack adopt it, tag it: {mark}"]


def _volume_in_use(key: str, volume_id: str, own_machine: str) -> list[str]:
    """A volume can be attached to only one machine at a time. After its adoption, that is this stack's own machine,
    identified by its Name, which only the program sets, before it attaches the volume.
    """
    holders = _instances(("block-device-mapping.volume-id", volume_id))
    if not holders or _instances(("block-device-mapping.volume-id", volume_id), ("tag:Name", own_machine)):
        return []
    return [
        (
            f"{key}: {volume_id!r} is attached to {', '.join(holders)}, which is not this stack's {own_machine}. "
            "First destroy the stack that uses it or detach it, or leave this key empty to create a new volume."
        )
    ]


def _instances(*filters: tuple[str, str]) -> Sequence[str]:
    found = aws.ec2.get_instances(
        filters=[aws.ec2.GetInstancesFilterArgs(name=name, values=[value]) for name, value in filters],
        instance_state_names=NOT_TERMINATED,
    )
    return found.ids or ()


def _address_problem(allocation_id: str, settings: Settings) -> list[str]:
    key = "balancerAddressId"
    address = lookup(lambda: aws.ec2.get_elastic_ip(id=allocation_id))
    if address is None:
        return not_found(key, allocation_id, "Leave it empty to create a new address.")
    problems = _mark_problem(key, allocation_id, address.tags, settings.region)
    if settings.deletion_protection:
        unprotected = "If it may be released: set deletionProtection to false, run pulumi up, and set the key again."
        problems += _other_problem(key, allocation_id, _own_addresses(), unprotected)
    if not address.association_id:
        return problems
    # After its adoption it is associated with an interface that the load balancer created without the program's tags:
    # the interface belongs to this stack if it is in this stack's VPC.
    interface = aws.ec2.get_network_interface(id=address.network_interface_id)
    if _own_networks(("vpc-id", interface.vpc_id)) and interface.interface_type == LOAD_BALANCER_INTERFACE:
        return problems
    return [
        *problems,
        (
            f"{key}: {allocation_id!r} ({address.public_ip}) is associated with {interface.id} "
            f"({interface.description!r}), which is not this stack's load balancer. First destroy the stack that uses "
            "it or disassociate it, or leave this key empty to create a new address."
        ),
    ]


def _own_addresses() -> Sequence[str]:
    """The load balancer's address that this stack has allocated."""
    found = aws.ec2.get_eips(
        filters=[
            aws.ec2.GetEipsFilterArgs(name="tag:Name", values=[named(f"gitlab-{Place.LOAD_BALANCER}")]),
            aws.ec2.GetEipsFilterArgs(name=f"tag:{STACK_TAG}", values=[stack_tag()]),
        ]
    )
    return found.allocation_ids or ()


def _hosted_zone_problem(zone_id: str, domain: str) -> list[str]:
    key = "hostedZoneId"
    zone = lookup(lambda: aws.route53.get_zone(zone_id=zone_id))
    if zone is None:
        return not_found(key, zone_id, "Leave it empty and create the domain's record yourself.", where="account")
    problems = []
    name = zone.name.rstrip(".")
    if not f".{domain}".endswith(f".{name}"):
        problems.append(
            f"{key}: {zone_id!r} is the zone of {name}, which does not contain the domain {domain}. Use the zone that "
            "contains it."
        )
    if zone.private_zone:
        problems.append(
            f"{key}: {zone_id!r} is a private zone, which is not visible outside its VPCs. Use the public zone of "
            f"{name}."
        )
    return problems


def _served_tls_problem() -> list[str]:
    """The load balancer's group allows port 443 only if the stack serves TLS, in every version of the program. There is
    no such group before the first `up`, which the lookup of one listener would report as an error.
    """
    found = aws.ec2.get_security_groups(
        filters=[
            aws.ec2.GetSecurityGroupsFilterArgs(name="tag:Name", values=[named(f"gitlab-{Place.LOAD_BALANCER}")]),
            aws.ec2.GetSecurityGroupsFilterArgs(name="ip-permission.from-port", values=["443"]),
        ]
    )
    if not found.ids:
        return []
    return [
        (
            "acceptPlainHttpAfterTls: false, but this stack serves TLS, and these settings change it to plain HTTP: "
            "every browser that has used it rejects plain HTTP for that name, on all ports, for two years (HSTS). Keep "
            "the domain and its certificate, and remove plainHttp; or set acceptPlainHttpAfterTls to true."
        )
    ]
