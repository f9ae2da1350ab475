"""Instances: what they can be launched with, their user data, and how they are described."""

import base64
import itertools
import logging
from datetime import timedelta
from typing import Any

from moto.core.utils import utcnow
from moto.ec2 import utils
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models import iam_instance_profile as profile_models
from moto.ec2.models.instances import Instance
from moto.ec2.responses import instances as instance_responses
from moto.iam.exceptions import NotFoundException

from lab.cloud.patches import quotas, state
from lab.cloud.patches.correction import correction

USER_DATA_LIMIT = 16384  # bytes, before base64
PROFILE_DELAY = 12  # seconds until EC2 accepts a new instance profile; the Terraform provider always waits 5

STANDARD_FAMILIES = {*"acdhimrtz", "im", "is"}
"""The letters with which types of the Standard families begin."""

log = logging.getLogger(__name__)


@correction
def machines_fit_their_image_and_their_zone() -> None:
    """A type runs images of its own architecture, in zones that offer it. (moto starts any type anywhere.)"""
    original = EC2Backend.run_instances

    def run_instances(self: Any, image_id: str, *args: Any, **kwargs: Any) -> Any:
        name, image = kwargs["instance_type"], self.amis.get(image_id)
        known = [found for found in self.instance_types if found.name == name]
        architectures = known[0]["ProcessorInfo"]["SupportedArchitectures"] if known else []
        if known and image and image.architecture not in architectures:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"The architecture '{','.join(architectures)}' of the specified instance type does not match the "
                f"architecture '{image.architecture}' of the specified AMI. Specify an instance type and an AMI that "
                "have matching architectures, and try again. You can use 'describe-instance-types' or "
                "'describe-images' to discover the architecture of the instance type or AMI.",
            )
        zone = zone_of(self, kwargs)
        offers = self.describe_instance_type_offerings("availability-zone", {"instance-type": [name]})
        zones = sorted(offer["Location"] for offer in offers)
        if known and zone and zone not in zones:
            raise EC2ClientError(
                "Unsupported",
                f"Your requested instance type ({name}) is not supported in your requested Availability Zone ({zone}). "
                "Please retry your request by not specifying an Availability Zone or choosing "
                f"{', '.join(zones)}.",
            )
        return original(self, image_id, *args, **kwargs)

    def zone_of(ec2: Any, asked: dict[str, Any]) -> str | None:
        first: dict[str, Any] = next(iter(asked.get("nics") or []), {})
        if interface := first.get("NetworkInterfaceId"):
            return str(ec2.get_network_interface(interface).subnet.availability_zone)
        subnet = first.get("SubnetId") or asked.get("subnet_id")
        return str(ec2.get_subnet(subnet).availability_zone) if subnet else None

    EC2Backend.run_instances = run_instances


def _standard_cpus(ec2: Any, name: str) -> int:
    """Return the vCPUs with which a type counts for the quota of standard instances."""
    family = "".join(itertools.takewhile(str.isalpha, name))
    known = [found["VCpuInfo"]["DefaultVCpus"] for found in ec2.instance_types if found.name == name]
    return int(known[0]) if known and family in STANDARD_FAMILIES else 0


@correction
def vcpus_of_running_machines_are_limited() -> None:
    """Standard instances are launched and started while the vCPUs of those that run stay within the quota. (moto: any
    number.)"""
    original_run = EC2Backend.run_instances
    original_start = EC2Backend.start_instances

    def refuse_beyond_quota(ec2: Any, names: list[str]) -> None:
        running = [each.instance_type for each in ec2.all_instances() if each.state in ("pending", "running")]
        most = quotas.allowed(quotas.STANDARD_CPUS, ec2.account_id, ec2.region_name)
        more = sum(_standard_cpus(ec2, name) for name in names)
        if more and more + sum(_standard_cpus(ec2, name) for name in running) > most:
            raise EC2ClientError(
                "VcpuLimitExceeded",
                f"You have requested more vCPU capacity than your current vCPU limit of {most} allows for the instance "
                "bucket that the specified instance type belongs to. Please visit "
                "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
            )

    def run_instances(self: Any, image_id: str, count: int, *args: Any, **kwargs: Any) -> Any:
        refuse_beyond_quota(self, [kwargs["instance_type"]] * count)
        return original_run(self, image_id, count, *args, **kwargs)

    def start_instances(self: Any, instance_ids: list[str]) -> Any:
        chosen = self.get_multi_instances_by_id(instance_ids)
        refuse_beyond_quota(self, [each.instance_type for each in chosen if each.state == "stopped"])
        return original_start(self, instance_ids)

    EC2Backend.run_instances = run_instances
    EC2Backend.start_instances = start_instances


@correction
def instances_are_found_by_their_volumes() -> None:
    """DescribeInstances has the filter block-device-mapping.volume-id (moto: not implemented)."""
    Instance.volume_ids = property(lambda machine: [each.volume_id for each in machine.block_device_mapping.values()])
    added = {"block-device-mapping.volume-id": "volume_ids"}
    utils.filter_dict_attribute_mapping = utils.filter_dict_attribute_mapping | added


@correction
def user_data_can_be_changed() -> None:
    """ModifyInstanceAttribute accepts user data as a blob; moto decodes it twice. Related upstream: getmoto/moto#9510
    (merged)."""
    original = instance_responses.parse_user_data

    def parse_user_data(value: Any) -> Any:
        return original(base64.b64encode(value).decode() if isinstance(value, bytes) else value)

    instance_responses.parse_user_data = parse_user_data


@correction
def user_data_of_a_stopped_instance_only() -> None:
    """User data can be changed only while the instance is stopped, with the limit of a launch: 16 KiB in raw form."""
    original = EC2Backend.modify_instance_attribute

    def modify_instance_attribute(self: Any, instance_id: str, key: str, value: Any) -> Any:
        if key == "user_data":
            if value is not None and len(base64.b64decode(str(value))) > USER_DATA_LIMIT:
                raise EC2ClientError("InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT} bytes")
            if self.get_instance(instance_id).state != "stopped":
                raise EC2ClientError(
                    "IncorrectInstanceState",
                    f"The instance '{instance_id}' is not in the 'stopped' state.",
                )
        return original(self, instance_id, key, value)

    EC2Backend.modify_instance_attribute = modify_instance_attribute


@correction
def instance_profiles_become_usable_late() -> None:
    """EC2 accepts an instance profile some seconds after IAM has created it; until then, as for one that does not
    exist, it returns InvalidParameterValue "Value (NAME) for parameter iamInstanceProfile.name is invalid. Invalid IAM
    Instance Profile name" ("… ARN" if the ARN was sent). The Terraform provider retries for two minutes if the message
    contains "Invalid IAM Instance Profile" or " has no associated IAM Roles". (moto: usable immediately, even without a
    role, and an unknown one is an error of IAM.) Related upstream: getmoto/moto#6902 (closed)."""
    original = instance_responses.filter_iam_instance_profiles

    def filter_iam_instance_profiles(
        account_id: str,
        partition: str,
        iam_instance_profile_arn: str | None = None,
        iam_instance_profile_name: str | None = None,
    ) -> Any:
        try:
            profile = original(account_id, partition, iam_instance_profile_arn, iam_instance_profile_name)
        except NotFoundException:
            profile = None
        if profile is None or utcnow() - profile.create_date < timedelta(seconds=PROFILE_DELAY):
            given, field, kind = (
                (iam_instance_profile_name, "name", "name")
                if iam_instance_profile_name
                else (iam_instance_profile_arn, "arn", "ARN")
            )
            if profile:
                log.info("instance profile %s: rejected, because EC2 does not accept it yet", profile.name)
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Value ({given}) for parameter iamInstanceProfile.{field} is invalid. "
                f"Invalid IAM Instance Profile {kind}",
            )
        if not profile.roles:
            raise EC2ClientError(
                "InvalidParameterValue", f'IAM Instance Profile "{profile.arn}" has no associated IAM Roles'
            )
        return profile

    instance_responses.filter_iam_instance_profiles = filter_iam_instance_profiles
    profile_models.filter_iam_instance_profiles = filter_iam_instance_profiles


@correction
def replaced_profile_is_the_instances() -> None:
    """ReplaceIamInstanceProfileAssociation changes the instance's profile, for which the Terraform provider waits.
    (moto: only the association.)"""
    original = EC2Backend.replace_iam_instance_profile_association

    def replace_iam_instance_profile_association(self: Any, *args: Any, **kwargs: Any) -> Any:
        association = original(self, *args, **kwargs)
        instance = self.get_instance(association.instance.id)
        instance.iam_instance_profile = {
            "Arn": association.iam_instance_profile.arn,
            "Id": association.association_id,
        }
        return association

    EC2Backend.replace_iam_instance_profile_association = replace_iam_instance_profile_association


@correction
def metadata_options_that_are_not_named_stay() -> None:
    """ModifyInstanceMetadataOptions changes only the options that are sent; moto removes the others, and the provider
    fails. Related upstream: getmoto/moto#9890 (merged)."""
    original = EC2Backend.modify_instance_metadata_options

    def modify_instance_metadata_options(self: Any, instance_id: str, **options: Any) -> Any:
        before = self.get_instance(instance_id).metadata_options
        kept = {
            "http_tokens": before.http_tokens,
            "hop_limit": before.http_put_response_hop_limit,
            "http_endpoint": before.http_endpoint,
            "http_protocol": before.http_protocol_ipv6,
            "metadata_tags": before.instance_metadata_tags,
        }
        named = {name: value for name, value in options.items() if value is not None}
        return original(self, instance_id, **(kept | named))

    EC2Backend.modify_instance_metadata_options = modify_instance_metadata_options


@correction
def groups_belong_to_interfaces() -> None:
    """An instance's security groups are those of its first interface. moto keeps two lists: an instance launched with
    an interface, or a private address, is described without groups, which is a permanent difference. Related upstream:
    getmoto/moto#4975 (merged)."""

    def get_groups(instance: Any) -> list[Any]:
        nics = instance.__dict__.get("nics")
        return list(nics[0]._group_set) if nics and 0 in nics else list(instance._launch_groups)

    def set_groups(instance: Any, groups: list[Any]) -> None:
        instance._launch_groups = groups
        nics = instance.__dict__.get("nics")
        if nics and 0 in nics:
            nics[0]._group_set = list(groups)

    Instance.security_groups = property(get_groups, set_groups)


@correction
def interfaces_given_to_instances() -> None:
    """An interface in use cannot be attached to a second instance; one created with the instance is deleted with it by
    default; the zone is the interface's; a terminated instance no longer has an address. Related upstream:
    getmoto/moto#7954 (merged)."""
    original_run, original_init = EC2Backend.run_instances, Instance.__init__

    def run_instances(self: Any, *args: Any, **kwargs: Any) -> Any:
        for spec in kwargs.get("nics") or []:
            given = spec.get("NetworkInterfaceId")
            if given and self.get_network_interface(given).status == "in-use":
                raise EC2ClientError("InvalidNetworkInterface.InUse", f"Interface: [{given}] in use.")
        return original_run(self, *args, **kwargs)

    def initialize(instance: Any, ec2_backend: Any, *args: Any, **kwargs: Any) -> None:
        original_init(instance, ec2_backend, *args, **kwargs)
        specs = {int(spec["DeviceIndex"]): spec for spec in kwargs.get("nics") or []}
        for index, interface in instance.nics.items():
            spec = specs.get(index, {})
            made_here = "NetworkInterfaceId" not in spec
            interface.delete_on_termination = str(spec.get("DeleteOnTermination", made_here)).lower() == "true"
        instance._placement.zone = instance.nics[0].subnet.availability_zone
        state.set_state(instance, state.PENDING)
        instance.reboots = 0

    def first(attribute: str) -> property:
        return property(lambda i: getattr(i.nics[0], attribute) if 0 in i.nics else None)

    name_of = Instance.private_dns_name.fget
    EC2Backend.run_instances = run_instances
    Instance.__init__ = initialize
    Instance.private_ip = Instance.private_ip_address = first("private_ip_address")
    Instance.public_ip = Instance.public_ip_address = first("public_ip")
    Instance.private_dns_name = property(lambda instance: name_of(instance) if instance.private_ip else "")
