"""What the settings say is in AWS already: looked up before anything is made."""

import pulumi
import pulumi_aws as aws

from settings import MachineSettings, Settings, SettingsError


def check_existing(settings: Settings) -> None:
    """See that the image, and the volumes and the address to be taken over, are there and fit.

    Raises SettingsError that lists every one that is not, by the key that names it.
    """
    problems = []
    if settings.ami_id:
        problems += _image_problem(settings.ami_id)
    for role, machine in (("server", settings.server), ("registry", settings.registry)):
        problems += _volume_problem(role, machine, settings.availability_zone)
    if settings.balancer_address_id:
        problems += _address_problem(settings.balancer_address_id)
    if problems:
        raise SettingsError("The settings of this stack cannot be used:\n- " + "\n- ".join(problems))


def _image_problem(image_id: str) -> list[str]:
    try:
        image = aws.ec2.get_ami(
            filters=[aws.ec2.GetAmiFilterArgs(name="image-id", values=[image_id])], include_deprecated=True
        )
    except Exception:  # a failed invoke has no class of its own
        return _not_found("amiId", image_id, "Leave it empty for Red Hat's newest RHEL 8.")
    if image.architecture != "x86_64":
        return [f"amiId: {image_id!r} is for {image.architecture}, the machines are x86_64. Use an image for x86_64."]
    return []


def _volume_problem(role: str, machine: MachineSettings, zone: str) -> list[str]:
    if machine.data_volume_id is None or machine.data_volume_size is None:
        return []
    key, volume_id, size = f"{role}DataVolumeId", machine.data_volume_id, machine.data_volume_size
    try:
        volume = aws.ebs.get_volume(filters=[aws.ebs.GetVolumeFilterArgs(name="volume-id", values=[volume_id])])
    except Exception:
        return _not_found(key, volume_id, "Leave it empty for a new volume.")
    problems = []
    if volume.availability_zone != zone:
        problems.append(
            f"{key}: {volume_id!r} is in {volume.availability_zone}, and a volume stays in its zone. "
            "Set availabilityZone to it."
        )
    if not volume.encrypted or volume.volume_type != "gp3":
        problems.append(f"{key}: {volume_id!r} is not an encrypted gp3 volume. Make one from a snapshot of it.")
    if volume.size > size:
        problems.append(
            f"{role}DataVolumeSize: {size} GiB, but {volume_id!r} has {volume.size}, and volumes do not shrink. "
            f"Set it to {volume.size}."
        )
    return problems


def _address_problem(allocation_id: str) -> list[str]:
    try:
        aws.ec2.get_elastic_ip(id=allocation_id)
    except Exception:
        return _not_found("balancerAddressId", allocation_id, "Leave it empty for a new address.")
    return []


def _not_found(key: str, value: str, remedy: str) -> list[str]:
    problem = f"{key}: AWS did not find {value!r} in this region. {remedy}"
    # A failed invoke ends the program with its own error, whatever is raised afterwards; this is shown beside it.
    pulumi.log.error(problem)
    return [problem]
