"""Where moto is kinder than AWS, or wrong: every correction, in one place.

`apply` puts all of them into moto's classes. Below them are the few functions with which the reconcile loop
tells moto what has become real: an instance that is up, a volume that is in, the health of a target.
"""

import base64
import copy
import ipaddress
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import moto.settings
from moto.core.exceptions import ServiceException
from moto.core.utils import utcnow
from moto.ec2.exceptions import DependencyViolationError, EC2ClientError, TagLimitExceeded
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models import iam_instance_profile as profile_models
from moto.ec2.models.amis import Ami, AmiBackend
from moto.ec2.models.elastic_block_store import Volume, VolumeModification
from moto.ec2.models.elastic_ip_addresses import ElasticAddress
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.models.instances import Instance, InstanceState, StateReason
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ec2.models.subnets import Subnet
from moto.ec2.responses import instances as instance_responses
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.ec2.responses.elastic_block_store import ElasticBlockStore
from moto.ec2.utils import filter_dict_attribute_mapping
from moto.elbv2 import models as elbv2_models
from moto.elbv2.exceptions import ELBClientError, TooManyTagsError
from moto.elbv2.models import (
    AvailabilityZone,
    ELBv2Backend,
    FakeHealthStatus,
    FakeLoadBalancer,
    FakeTargetGroup,
    elbv2_backends,
)
from moto.iam.exceptions import NotFoundException
from moto.utilities.utils import get_partition

from lab.cloud.network import INTERNET

ELASTIC_POOL = [str(INTERNET[host]) for host in range(16, 251)]
ELASTIC_QUOTA = 5  # addresses per region, AWS's default
TAG_LIMIT = 50  # tags a resource
USER_DATA_LIMIT = 16384  # bytes, before base64
ROOT_SIZE = 10  # GiB, of the RHEL images
RED_HAT = {"aws": "309956199498", "aws-cn": "841258680906", "aws-us-gov": "219670896067"}  # accounts, by partition
MODIFICATIONS_A_DAY = 4  # of one volume
PROFILE_DELAY = 12  # seconds until EC2 knows of a new instance profile; the Terraform provider waits 5 unasked
RESERVED_ADDRESSES = 4  # at the start of a subnet; the last one is reserved too

growth_delay = timedelta(seconds=20)
"""After that long a machine sees that its volume has grown. Longer than the ten seconds after which the Terraform
provider first looks, and then at the volume's state only."""

_PENDING, _RUNNING, _STOPPING, _STOPPED = (0, "pending"), (16, "running"), (64, "stopping"), (80, "stopped")
_SHUTTING_DOWN, _TERMINATED = (32, "shutting-down"), (48, "terminated")
_FROM_INSIDE = StateReason(
    "Client.InstanceInitiatedShutdown: Instance initiated shutdown", "Client.InstanceInitiatedShutdown"
)

log = logging.getLogger(__name__)

_patches: list[Callable[[], None]] = []


def _patch(function: Callable[[], None]) -> Callable[[], None]:
    _patches.append(function)
    return function


@cache
def apply() -> None:
    """Put every correction into moto's classes; a second call does nothing."""
    for patch in _patches:
        patch()


# --- tags --------------------------------------------------------------------------------------


@_patch
def tags_of_a_resource_of_ec2_are_limited() -> None:
    """A resource has at most 50 tags, and a call with more makes nothing. (moto has made the resource by then.)"""
    original = EC2BaseResponse._get_param

    def get_param(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        value = original(self, name, *args, **kwargs)
        if name in ("TagSpecification", "TagSpecifications"):
            for specification in value or []:
                check(specification.get("Tags") or [])
        elif name == "Tags":
            check(value or [])
        return value

    def check(tags: list[dict[str, str]]) -> None:
        if len(tags) > TAG_LIMIT:
            raise TagLimitExceeded()

    EC2BaseResponse._get_param = get_param


@_patch
def tags_of_a_resource_of_load_balancing_are_limited() -> None:
    """The same limit holds for load balancers, target groups and listeners, with the words of that service. (moto
    refuses the eleventh tag that is added, and looks at nothing when the resource is made.)"""

    def checked(method: str) -> Callable[..., Any]:
        original = getattr(ELBv2Backend, method)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            check(kwargs.get("tags") or [])
            return original(self, *args, **kwargs)

        return call

    def check(tags: list[dict[str, str]]) -> None:
        if len(tags) > TAG_LIMIT:
            raise TooManyTagsError()

    def add_tags(self: Any, resource_arns: list[str], tags: list[dict[str, str]]) -> None:
        check(tags)
        for arn in resource_arns:
            self._get_resource_by_arn(arn)
            keys = set(self.tagging_service.get_tag_dict_for_resource(arn)) | {tag["Key"] for tag in tags}
            if len(keys) > TAG_LIMIT:
                raise TooManyTagsError()
        for arn in resource_arns:
            self.tagging_service.tag_resource(arn, tags)

    for method in ("create_load_balancer", "create_target_group", "create_listener"):
        setattr(ELBv2Backend, method, checked(method))
    ELBv2Backend.add_tags = add_tags


# --- images, key pairs, user-data ------------------------------------------------------------------------


@_patch
def images_keys_and_types_must_exist() -> None:
    """AWS refuses an unknown image, key pair or instance type; moto does when told to."""
    moto.settings.ENABLE_AMI_VALIDATION = True
    moto.settings.ENABLE_KEYPAIR_VALIDATION = True
    moto.settings.EC2_ENABLE_INSTANCE_TYPE_VALIDATION = True


@_patch
def machines_fit_their_image_and_their_zone() -> None:
    """A type runs images of its own architecture, in zones that have it. (moto starts any type anywhere.)"""
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


@_patch
def regions_that_moto_has_no_list_of() -> None:
    """Which zone offers which types is in moto for most regions. In one that it has no list of, every zone offers every
    type: for previews, which are the only ones to go there."""
    original = EC2Backend.describe_instance_type_offerings

    def describe_instance_type_offerings(self: Any, location_type: str | None = None, filters: Any = None) -> Any:
        if location_type == "availability-zone" and self.region_name not in INSTANCE_TYPE_OFFERINGS[location_type]:
            everywhere = [
                {"InstanceType": found.name, "Location": zone.name, "LocationType": location_type}
                for found in self.instance_types
                for zone in self.zones.get(self.region_name, ())
            ]
            return [offer for offer in everywhere if self.matches_filters(offer, filters or {}, location_type)]
        return original(self, location_type, filters)

    EC2Backend.describe_instance_type_offerings = describe_instance_type_offerings


@_patch
def red_hats_account_in_each_partition() -> None:
    """In China and in GovCloud, Red Hat has other accounts (moto has one list of images for all regions)."""
    original = AmiBackend._load_amis

    def load(self: Any) -> None:
        original(self)
        owner = RED_HAT.get(get_partition(self.region_name))
        for image in self.amis.values():
            if owner and image.owner_id == RED_HAT["aws"]:
                image.owner_id = owner

    AmiBackend._load_amis = load


@_patch
def instances_are_found_by_their_volumes() -> None:
    """DescribeInstances takes the filter block-device-mapping.volume-id (moto: not implemented)."""
    Instance.volume_ids = property(lambda machine: [each.volume_id for each in machine.block_device_mapping.values()])
    filter_dict_attribute_mapping["block-device-mapping.volume-id"] = "volume_ids"


@_patch
def root_device_of_images() -> None:
    """A RHEL image brings a root device of 10 GiB, gp3, deleted with its instance (moto: 15 GiB, kept)."""

    def block_device_mappings(image: Any) -> list[dict[str, Any]]:
        root = {
            "SnapshotId": image.ebs_snapshot.id,
            "VolumeSize": ROOT_SIZE,
            "DeleteOnTermination": True,
            "VolumeType": "gp3",
            "Encrypted": False,
        }
        return [{"DeviceName": image.root_device_name, "Ebs": root}]

    def setup_defaults(instance: Any) -> None:
        instance.add_block_device(ROOT_SIZE, instance.root_device_name, None, False, True, None, "gp3")

    Ami.block_device_mappings = property(block_device_mappings)
    Instance.setup_defaults = setup_defaults


@_patch
def gp3_defaults() -> None:
    """A gp3 volume has 3,000 IOPS and 125 MiB/s unless asked for more; moto leaves the throughput out."""
    original = Volume.__init__

    def __init__(volume: Any, *args: Any, **kwargs: Any) -> None:
        original(volume, *args, **kwargs)
        if volume.volume_type == "gp3":
            volume.iops = volume.iops or 3000
            volume.throughput = volume.throughput or 125

    Volume.__init__ = __init__


@_patch
def user_data_can_be_changed() -> None:
    """ModifyInstanceAttribute takes user data as a blob; moto has decoded it already and decodes it again."""
    original = instance_responses.parse_user_data

    def parse_user_data(value: Any) -> Any:
        return original(base64.b64encode(value).decode() if isinstance(value, bytes) else value)

    instance_responses.parse_user_data = parse_user_data


@_patch
def user_data_of_a_stopped_instance_only() -> None:
    """User data is changed while the instance is stopped, and limited as at its launch: to 16 KiB in raw form."""
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


@_patch
def instance_profiles_become_usable_late() -> None:
    """EC2 learns of an instance profile some seconds after IAM has made it; until then, as for one that does not
    exist, it answers InvalidParameterValue "Value (NAME) for parameter iamInstanceProfile.name is invalid. Invalid IAM
    Instance Profile name" ("… ARN" when it is named so). The Terraform provider tries again for two minutes when the
    text holds "Invalid IAM Instance Profile" or " has no associated IAM Roles". (moto: usable at once, with no role
    too, and an unknown one is an error of IAM.)"""
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
                log.info("instance profile %s: asked for before EC2 knows it, refused", profile.name)
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


@_patch
def metadata_options_that_are_not_named_stay() -> None:
    """ModifyInstanceMetadataOptions changes what it names; moto forgets the rest, and the provider ends over it."""
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


# --- addresses and interfaces ----------------------------------------------------------------------------


_turn = itertools.cycle(ELASTIC_POOL)


def _public_address() -> str:
    """The next free address of the pool; one just given back is not the next to be given out."""
    taken = set()
    for backend, _ in regions():
        taken |= {address.public_ip for address in list(backend.addresses)}
        taken |= {interface.public_ip for interface in list(backend.enis.values())}
    for candidate in itertools.islice(_turn, len(ELASTIC_POOL)):
        if candidate not in taken:
            return candidate
    raise EC2ClientError("InsufficientAddressCapacity", "Not enough available addresses to satisfy the request.")


@_patch
def elastic_addresses_come_from_a_pool() -> None:
    """AWS draws public addresses from its pool (moto: 127/8 or 54.214/16) and gives an account five elastic
    ones a region. An automatic one is another after stop and start."""
    original = EC2Backend.allocate_address

    def allocate_address(self: Any, domain: str, address: str | None = None, tags: Any = None) -> Any:
        if len(self.addresses) >= ELASTIC_QUOTA:
            raise EC2ClientError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
        return original(self, domain, address=address or _public_address(), tags=tags)

    def check_auto_public_ip(interface: Any) -> None:
        if str(interface.public_ip_auto_assign).lower() == "true":
            interface.public_ip = _public_address()

    EC2Backend.allocate_address = allocate_address
    NetworkInterface.check_auto_public_ip = check_auto_public_ip


@_patch
def elastic_address_needs_a_gateway() -> None:
    """An elastic address can be given to an interface only when its VPC has an internet gateway; its instance
    is the one the interface is attached to; what a load balancer holds cannot be taken from it."""
    original_associate = EC2Backend.associate_address
    original_disassociate = EC2Backend.disassociate_address

    def associate_address(self: Any, instance: Any = None, eni: Any = None, **kwargs: Any) -> Any:
        interface = eni or instance.nics[0]
        if not any(g.vpc and g.vpc.id == interface.vpc_id for g in self.internet_gateways.values()):
            raise EC2ClientError(
                "Gateway.NotAttached", f"Network {interface.vpc_id} is not attached to any internet gateway"
            )
        return original_associate(self, instance=instance, eni=eni, **kwargs)

    def disassociate_address(self: Any, address: str | None = None, association_id: str | None = None) -> None:
        for elastic in self.addresses:
            held = elastic.eni is not None and elastic.eni.requester_managed
            if held and (elastic.public_ip == address or elastic.association_id == association_id):
                raise EC2ClientError(
                    "OperationNotPermitted",
                    f"You do not have permission to disassociate {elastic.public_ip}: "
                    f"it is in use by {elastic.eni.description}",
                )
        original_disassociate(self, address=address, association_id=association_id)

    def instance_id(elastic: Any) -> str:
        instance = elastic.instance or (elastic.eni.instance if elastic.eni else None)
        return instance.id if instance else ""

    EC2Backend.associate_address = associate_address
    EC2Backend.disassociate_address = disassociate_address
    ElasticAddress.instance_id = property(instance_id)


@_patch
def private_addresses_are_unique() -> None:
    """An address belongs to one interface of a subnet; the first four and the last are AWS's. (moto draws at
    random, and does not give back the address of a terminated instance.)"""
    original = EC2Backend.create_network_interface

    def taken(subnet: Any) -> set[str]:
        return {
            address["PrivateIpAddress"]
            for interface in list(subnet.ec2_backend.enis.values())
            if interface.subnet.id == subnet.id
            for address in interface.private_ip_addresses
        }

    def usable(subnet: Any) -> Iterator[str]:
        hosts = ipaddress.IPv4Network(subnet.cidr_block)
        return (str(hosts[n]) for n in range(RESERVED_ADDRESSES, hosts.num_addresses - 1))

    def get_available_subnet_ip(subnet: Any, instance: Any) -> str:
        used = taken(subnet)
        for address in usable(subnet):
            if address not in used:
                return address
        raise EC2ClientError("InsufficientFreeAddressesInSubnet", f"{subnet.id} has no free address")

    def request_ip(subnet: Any, ip: str, instance: Any) -> None:
        if ip not in set(usable(subnet)):
            raise EC2ClientError("InvalidParameterValue", f"Address {ip} is not within the range of {subnet.id}")
        if ip in taken(subnet):
            raise EC2ClientError("InvalidIPAddress.InUse", f"Address {ip} is in use.")

    def create_network_interface(self: Any, subnet: Any, private_ip_address: Any, *args: Any, **kwargs: Any) -> Any:
        subnet = self.get_subnet(subnet) if isinstance(subnet, str) else subnet
        listed = kwargs.get("private_ip_addresses") or (args[0] if args else None)
        if private_ip_address:
            subnet.request_ip(str(private_ip_address), instance=None)
        elif not listed:
            private_ip_address = subnet.get_available_subnet_ip(instance=None)
        return original(self, subnet, private_ip_address, *args, **kwargs)

    Subnet.get_available_subnet_ip = get_available_subnet_ip
    Subnet.request_ip = request_ip
    EC2Backend.create_network_interface = create_network_interface


@_patch
def groups_belong_to_interfaces() -> None:
    """An instance's security groups are those of its first interface. moto keeps two lists: an instance that
    was given an interface, or a private address, reads back without groups: an endless difference."""

    def get_groups(instance: Any) -> list[Any]:
        nics = instance.__dict__.get("nics")
        return list(nics[0]._group_set) if nics and 0 in nics else list(instance._launch_groups)

    def set_groups(instance: Any, groups: list[Any]) -> None:
        instance._launch_groups = groups
        nics = instance.__dict__.get("nics")
        if nics and 0 in nics:
            nics[0]._group_set = list(groups)

    Instance.security_groups = property(get_groups, set_groups)
    NetworkInterface.group_set = property(lambda interface: interface._group_set)


@_patch
def interfaces_given_to_instances() -> None:
    """An interface in use cannot be given to a second instance; one made with the instance dies with it unless
    asked otherwise; the zone is the interface's; a terminated instance has no address any more."""
    original_run, original_init = EC2Backend.run_instances, Instance.__init__

    def run_instances(self: Any, *args: Any, **kwargs: Any) -> Any:
        for spec in kwargs.get("nics") or []:
            given = spec.get("NetworkInterfaceId")
            if given and self.get_network_interface(given).status == "in-use":
                raise EC2ClientError("InvalidNetworkInterface.InUse", f"Interface: [{given}] in use.")
        return original_run(self, *args, **kwargs)

    def __init__(instance: Any, ec2_backend: Any, *args: Any, **kwargs: Any) -> None:
        original_init(instance, ec2_backend, *args, **kwargs)
        specs = {int(spec["DeviceIndex"]): spec for spec in kwargs.get("nics") or []}
        for index, interface in instance.nics.items():
            spec = specs.get(index, {})
            made_here = "NetworkInterfaceId" not in spec
            interface.delete_on_termination = str(spec.get("DeleteOnTermination", made_here)).lower() == "true"
        instance._placement.zone = instance.nics[0].subnet.availability_zone
        _set_state(instance, _PENDING)
        instance.reboots = 0

    def first(attribute: str) -> property:
        return property(lambda i: getattr(i.nics[0], attribute) if 0 in i.nics else None)

    name_of = Instance.private_dns_name.fget
    EC2Backend.run_instances = run_instances
    Instance.__init__ = __init__
    Instance.private_ip = Instance.private_ip_address = first("private_ip_address")
    Instance.public_ip = Instance.public_ip_address = first("public_ip")
    Instance.private_dns_name = property(lambda instance: name_of(instance) if instance.private_ip else "")


# --- power -----------------------------------------------------------------------------------------------


def _set_state(instance: Any, state: tuple[int, str]) -> None:
    instance._state = InstanceState(state[1], state[0])


@_patch
def termination_keeps_what_was_given() -> None:
    """Termination deletes the root volume and the interface made with the instance; an interface that was
    given to it, and every volume attached later, is detached and stays."""
    original = Instance.terminate

    def release_interfaces(instance: Any) -> None:
        for interface in list(instance.nics.values()):
            interface.stop()
            instance.detach_eni(interface)
            if interface.delete_on_termination:
                instance.ec2_backend.delete_network_interface(interface.id)

    def release_volumes(instance: Any) -> None:
        for device, block in list(instance.block_device_mapping.items()):
            instance.ec2_backend.finish_detach_volume(block.volume_id, instance.id, device)
            if block.delete_on_termination:
                instance.ec2_backend.delete_volume(block.volume_id)

    def terminate(instance: Any) -> Any:
        release_interfaces(instance)
        return original(instance)

    Instance.terminate = terminate
    Instance.teardown_defaults = release_volumes


@_patch
def power_takes_time() -> None:
    """Start, stop and terminate answer at once; the instance then passes through pending, stopping or
    shutting-down, and the loop says when it is there (`settle_power`). Only a running one can be rebooted."""

    def refuse(instance: Any) -> None:
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not in a state from which it can be changed: {instance.state}",
        )

    def change(allowed: dict[str, tuple[int, str]]) -> Callable[[Any], Any]:
        def method(instance: Any) -> Any:
            previous = InstanceState(instance.state, instance.state_code)
            if instance.state not in allowed:
                refuse(instance)
            _set_state(instance, allowed[instance.state])
            return previous

        return method

    def reboot(instance: Any) -> None:
        if instance.state != "running":
            refuse(instance)
        instance.reboots += 1

    Instance.finish_start, Instance.finish_stop = Instance.start, Instance.stop
    Instance.finish_terminate = Instance.terminate
    Instance.start = change({"stopped": _PENDING, "pending": _PENDING, "running": _RUNNING})
    Instance.stop = change({"pending": _STOPPING, "running": _STOPPING, "stopping": _STOPPING, "stopped": _STOPPED})
    Instance.terminate = change(
        dict.fromkeys(("pending", "running", "stopping", "stopped", "shutting-down"), _SHUTTING_DOWN)
        | {"terminated": _TERMINATED}
    )
    Instance.reboot = reboot


def settle_power(instance: Any) -> None:
    """What the API asked of the instance has become real: end its pending, stopping or shutting-down."""
    match instance.state:
        case "pending":
            instance.finish_start()
        case "stopping":
            reason = instance.state_reason
            instance.finish_stop()
            if reason.code == _FROM_INSIDE.code:
                instance.state_reason = reason
        case "shutting-down":
            instance.finish_terminate()


def power_off_from_inside(instance: Any) -> None:
    """The machine was shut down by its own operating system: stop or terminate it, as it was launched to."""
    if instance.instance_initiated_shutdown_behavior == "terminate":
        instance.terminate()
    else:
        instance.stop()
        instance.state_reason = _FROM_INSIDE


# --- volumes ---------------------------------------------------------------------------------------------


@_patch
def volumes_have_one_machine_and_one_zone() -> None:
    """A volume in use, in another zone or at a device name that is taken cannot be attached; attaching and
    detaching take time, and a volume that the machine has mounted stays `detaching`."""
    original_attach, original_detach = EC2Backend.attach_volume, EC2Backend.detach_volume

    def attach_volume(
        self: Any, volume_id: str, instance_id: str, device_path: str, delete_on_termination: bool = False
    ) -> Any:
        volume, instance = self.get_volume(volume_id), self.get_instance(instance_id)
        if volume.attachment:
            raise EC2ClientError("VolumeInUse", f"{volume_id} is already attached to an instance")
        if volume.availability_zone != instance.availability_zone:
            raise EC2ClientError(
                "InvalidVolume.ZoneMismatch",
                f"The volume '{volume_id}' is not in the same availability zone as instance '{instance_id}'",
            )
        if device_path in instance.block_device_mapping:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Invalid value '{device_path}' for unixDevice. Attachment point {device_path} is already in use",
            )
        attachment = original_attach(self, volume_id, instance_id, device_path, delete_on_termination)
        if device_path != instance.root_device_name:
            attachment.status = "attaching"
        return attachment

    def detach_volume(self: Any, volume_id: str, instance_id: str, device_path: str) -> Any:
        attachment = self.get_volume(volume_id).attachment
        if not attachment or (instance_id and attachment.instance.id != instance_id):
            return original_detach(self, volume_id, instance_id, device_path)  # refuses
        attachment.status = "detaching"
        return attachment

    EC2Backend.attach_volume = attach_volume
    EC2Backend.detach_volume = detach_volume
    EC2Backend.finish_detach_volume = original_detach


@_patch
def detachment_can_be_forced() -> None:
    """DetachVolume with Force takes a volume from a machine that has it mounted; moto does not read it."""
    original = ElasticBlockStore.detach_volume

    def detach_volume(self: Any) -> Any:
        answer = original(self)
        if str(self._get_param("Force")).lower() == "true":
            self.ec2_backend.get_volume(self._get_param("VolumeId")).attachment.forced = True
        return answer

    ElasticBlockStore.detach_volume = detach_volume


@_patch
def volumes_grow_after_the_answer() -> None:
    """ModifyVolume answers at once; the machine sees the new size when the modification is `optimizing`, some seconds
    later. While it is `modifying` there is no other, and of one volume there are four in 24 hours (API reference of
    EC2, ModifyVolume: "You can modify a volume up to four times within a rolling 24-hour period"). (moto: done at once,
    as often as one likes.)"""
    original = EC2Backend.modify_volume

    def modify_volume(self: Any, volume_id: str, *args: Any, **kwargs: Any) -> Any:
        earlier = self.get_volume(volume_id).modifications
        if any(each.modification_state == "modifying" for each in earlier):
            raise EC2ClientError(
                "IncorrectModificationState", f"Cannot modify volume {volume_id} in modification state MODIFYING"
            )
        if sum(utcnow() - each.start_time < timedelta(days=1) for each in earlier) >= MODIFICATIONS_A_DAY:
            raise EC2ClientError(
                "VolumeModificationRateExceeded",
                f"You've reached the maximum modification rate per volume limit for {volume_id}.",
            )
        return original(self, volume_id, *args, **kwargs)

    EC2Backend.modify_volume = modify_volume
    VolumeModification.modification_state = property(
        lambda modification: "optimizing" if _in_effect(modification) else "modifying"
    )
    VolumeModification.progress = property(lambda modification: 50 if _in_effect(modification) else 0)


def _in_effect(modification: Any) -> bool:
    return bool(utcnow() - modification.start_time >= growth_delay)


def size_in_effect(volume: Any) -> int:
    """GiB that the volume's machine sees."""
    late = [each for each in volume.modifications if each.target_size and not _in_effect(each)]
    return int(late[0].original_size if late else volume.size)


def settle_volume(volume: Any) -> None:
    """The volume's attaching or detaching has become real."""
    attachment = volume.attachment
    if attachment and attachment.status == "attaching":
        attachment.status = "attached"
    elif attachment and attachment.status == "detaching":
        volume.ec2_backend.finish_detach_volume(volume.id, attachment.instance.id, attachment.device)


# --- what is in use cannot be deleted --------------------------------------------------------------------


@_patch
def interface_in_use_stays() -> None:
    """An attached interface cannot be deleted; the elastic address of a deleted one is free again."""
    original = EC2Backend.delete_network_interface

    def delete_network_interface(self: Any, eni_id: str) -> None:
        interface = self.get_network_interface(eni_id)
        if interface.status == "in-use":
            raise EC2ClientError("InvalidParameterValue", f"Network interface '{eni_id}' is currently in use.")
        for address in self.addresses:
            if address.eni is interface:
                address.eni = address.instance = address.association_id = None
        original(self, eni_id)

    EC2Backend.delete_network_interface = delete_network_interface


@_patch
def group_in_use_stays() -> None:
    """A security group that an interface has, or that a rule of another group names, cannot be deleted."""
    original = EC2Backend.delete_security_group

    def delete_security_group(self: Any, name: str | None = None, group_id: str | None = None) -> None:
        used = {group.id for interface in self.enis.values() for group in interface._group_set}
        for groups in self.groups.values():
            for group in groups.values():
                named = (r.source_group.get("GroupId") for r in group.ingress_rules + group.egress_rules)
                used |= {other for other in named if other and other != group.id}
        if group_id in used:
            raise DependencyViolationError(f"resource {group_id} has a dependent object")
        original(self, name=name, group_id=group_id)

    EC2Backend.delete_security_group = delete_security_group


@_patch
def network_in_use_stays() -> None:
    """A subnet with interfaces cannot be deleted, nor an internet gateway detached while its VPC has public
    addresses, nor a VPC deleted that has a gateway or groups of its own."""
    original_subnet = EC2Backend.delete_subnet
    original_gateway = EC2Backend.detach_internet_gateway
    original_vpc = EC2Backend.delete_vpc

    def delete_subnet(self: Any, subnet_id: str) -> Any:
        if any(interface.subnet.id == subnet_id for interface in self.enis.values()):
            raise DependencyViolationError(f"The subnet '{subnet_id}' has dependencies and cannot be deleted.")
        return original_subnet(self, subnet_id)

    def detach_internet_gateway(self: Any, internet_gateway_id: str, vpc_id: str) -> None:
        if any(i.public_ip and i.vpc_id == vpc_id for i in self.enis.values()):
            raise DependencyViolationError(
                f"Network {vpc_id} has some mapped public address(es). "
                "Please unmap those public address(es) before detaching the gateway."
            )
        original_gateway(self, internet_gateway_id, vpc_id)

    def delete_vpc(self: Any, vpc_id: str) -> Any:
        gateway = any(g.vpc and g.vpc.id == vpc_id for g in self.internet_gateways.values())
        if gateway or any(not group.is_default for group in self.groups[vpc_id].values()):
            raise DependencyViolationError(f"The vpc '{vpc_id}' has dependencies and cannot be deleted.")
        return original_vpc(self, vpc_id)

    EC2Backend.delete_subnet = delete_subnet
    EC2Backend.detach_internet_gateway = detach_internet_gateway
    EC2Backend.delete_vpc = delete_vpc


@_patch
def rules_that_name_a_group() -> None:
    """Every rule has a description; moto loses that of a rule whose peer is a security group. The owner of the
    peer is left out: a provider that was told not to ask for its account takes any owner for a foreign one."""

    def referenced_group_info(rule: Any) -> dict[str, str] | None:
        return {k: v for k, v in rule.source_group.items() if k != "UserId"} or None

    SecurityGroupRule.description = property(
        lambda rule: rule.ip_range.get("Description") or rule.source_group.get("Description")
    )
    SecurityGroupRule.referenced_group_info = property(referenced_group_info)


# --- load balancers --------------------------------------------------------------------------------------


@_patch
def balancer_has_an_interface_in_each_subnet() -> None:
    """A network load balancer has one interface a subnet, with the elastic address that the subnet mapping
    names (or one of AWS's), and with the balancer's security groups. A group can be given at creation only."""
    original_create = ELBv2Backend.create_load_balancer
    original_delete = ELBv2Backend.delete_load_balancer
    original_groups = ELBv2Backend.set_security_groups

    def create_load_balancer(self: Any, name: str, security_groups: list[str], **kwargs: Any) -> Any:
        if kwargs.get("loadbalancer_type") != "network":
            raise ELBClientError("ValidationError", "The lab models network load balancers only.")
        if any(balancer.name == name for balancer in self.load_balancers.values()):
            raise ELBClientError(
                "DuplicateLoadBalancerName",
                f"A load balancer with the same name '{name}' exists, but with different settings",
            )
        mappings = kwargs.get("subnet_mappings") or [{"SubnetId": s} for s in kwargs.get("subnet_ids", [])]
        kwargs["scheme"] = kwargs.get("scheme") or "internet-facing"
        balancer = original_create(self, name=name, security_groups=security_groups, **kwargs)
        balancer.interfaces = {}
        try:
            for mapping in mappings:
                balancer.interfaces[mapping["SubnetId"]] = interface(self.ec2_backend, balancer, mapping)
        except ServiceException:
            delete_load_balancer(self, balancer.arn)
            raise
        return balancer

    def interface(ec2: Any, balancer: Any, mapping: dict[str, str]) -> Any:
        internet_facing = balancer.scheme == "internet-facing"
        if internet_facing and not any(g.vpc and g.vpc.id == balancer.vpc_id for g in ec2.internet_gateways.values()):
            raise ELBClientError("InvalidSubnet", f"VPC {balancer.vpc_id} has no internet gateway")
        made = ec2.create_network_interface(
            mapping["SubnetId"],
            mapping.get("PrivateIPv4Address"),
            group_ids=balancer.security_groups,
            description=f"ELB {balancer.arn.partition('loadbalancer/')[2]}",
        )
        made.requester_managed, made.status, made.interface_type = True, "in-use", "network_load_balancer"
        if not balancer.security_groups:
            made._group_set = []  # moto gives it the VPC's default group
        if allocation := mapping.get("AllocationId"):
            ec2.associate_address(eni=made, allocation_id=allocation)
        elif internet_facing:
            made.public_ip = _public_address()
        return made

    def delete_load_balancer(self: Any, arn: str) -> None:
        balancer = self.load_balancers.get(arn)
        original_delete(self, arn)
        for made in balancer.interfaces.values() if balancer else ():
            made.status = "available"
            self.ec2_backend.delete_network_interface(made.id)
        for group in self.target_groups.values():
            group.load_balancer_arns = [other for other in group.load_balancer_arns if other != arn]

    def set_security_groups(self: Any, arn: str, sec_groups: list[str]) -> None:
        balancer = self.load_balancers.get(arn)
        if balancer and not balancer.security_groups:
            raise ELBClientError(
                "InvalidConfigurationRequest",
                "You cannot set security groups on a load balancer that was created without any.",
            )
        original_groups(self, arn, sec_groups)
        for made in balancer.interfaces.values():
            made._group_set = [self.ec2_backend.get_security_group_from_id(group) for group in sec_groups]

    def availability_zones(balancer: Any) -> list[Any]:
        zones = [AvailabilityZone(subnet) for subnet in balancer.subnets]
        for zone in zones:
            zone.load_balancer_addresses = addresses(balancer, balancer.interfaces.get(zone.subnet_id))
        return zones

    def addresses(balancer: Any, made: Any) -> list[dict[str, str]]:
        held = made and made.association.get("allocationId")
        return [{"IpAddress": made.public_ip, "AllocationId": held}] if held else []

    ELBv2Backend.create_load_balancer = create_load_balancer
    ELBv2Backend.delete_load_balancer = delete_load_balancer
    ELBv2Backend.set_security_groups = set_security_groups
    FakeLoadBalancer.availability_zones = property(availability_zones)


@_patch
def arn_of_network_load_balancers() -> None:
    """The ARN of a network load balancer says `net`; moto writes `app` for all."""
    original = elbv2_models.make_arn_for_load_balancer

    def make_arn_for_load_balancer(**kwargs: Any) -> str:
        return str(original(**kwargs)).replace(":loadbalancer/app/", ":loadbalancer/net/")

    elbv2_models.make_arn_for_load_balancer = make_arn_for_load_balancer


@_patch
def balancer_becomes_active() -> None:
    """A load balancer is `provisioning` until it works; in moto until it is looked at."""
    FakeLoadBalancer.activate = lambda balancer: None


@_patch
def one_listener_a_port() -> None:
    """A load balancer has one listener a port; moto never finds the other one."""
    original = ELBv2Backend.create_listener

    def create_listener(self: Any, load_balancer_arn: str, protocol: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        balancer = self.load_balancers.get(load_balancer_arn)
        if balancer and any(str(listener.port) == str(port) for listener in balancer.listeners.values()):
            raise ELBClientError("DuplicateListener", "A listener with the specified port already exists.")
        return original(self, load_balancer_arn, protocol, port, *args, **kwargs)

    ELBv2Backend.create_listener = create_listener


@_patch
def health_check_of_tcp_groups() -> None:
    """An HTTP health check of a TCP target group takes 200-399 unless told otherwise (moto: 200), and its
    status codes can be changed (moto forgets the new ones)."""
    original_create = ELBv2Backend.create_target_group
    original = ELBv2Backend.modify_target_group

    def create_target_group(self: Any, name: str, **kwargs: Any) -> Any:
        if kwargs.get("protocol") == "TCP" and kwargs.get("healthcheck_protocol") == "HTTP":
            kwargs["matcher"] = kwargs.get("matcher") or {"HttpCode": "200-399"}
            kwargs["healthcheck_path"] = kwargs.get("healthcheck_path") or "/"
        return original_create(self, name, **kwargs)

    def modify_target_group(self: Any, *args: Any, **kwargs: Any) -> Any:
        group = original(self, *args, **kwargs)
        codes = args[8] if len(args) > 8 else kwargs.get("http_codes")
        if codes is not None:
            group.matcher = {"HttpCode": codes}
        return group

    ELBv2Backend.create_target_group = create_target_group
    ELBv2Backend.modify_target_group = modify_target_group


@_patch
def what_is_there_already_is_not_made_again() -> None:
    """CreateLoadBalancer, CreateTargetGroup and CreateListener complete at most one time: a second call with the
    same settings succeeds and brings what is there, one with other settings is refused. (moto refuses both; an
    SDK that lost the first answer would end with an error that AWS does not give.)"""

    def once(create: Callable[..., Any], there: Callable[[Any], Iterable[Any]]) -> Callable[..., Any]:
        def create_once(self: Any, *args: Any, **kwargs: Any) -> Any:
            asked = copy.deepcopy((args, kwargs))
            for made in there(self):
                if getattr(made, "asked", None) == asked:
                    return made
            made = create(self, *args, **kwargs)
            made.asked = asked
            return made

        return create_once

    def listeners(elb: Any) -> list[Any]:
        return [listener for balancer in elb.load_balancers.values() for listener in balancer.listeners.values()]

    ELBv2Backend.create_load_balancer = once(
        ELBv2Backend.create_load_balancer, lambda elb: list(elb.load_balancers.values())
    )
    ELBv2Backend.create_target_group = once(
        ELBv2Backend.create_target_group, lambda elb: list(elb.target_groups.values())
    )
    ELBv2Backend.create_listener = once(ELBv2Backend.create_listener, listeners)


@dataclass(frozen=True)
class TargetHealth:
    """The state of a target as DescribeTargetHealth names it: healthy, initial, unhealthy, unused."""

    state: str
    reason: str | None = None
    description: str | None = None


INITIAL = TargetHealth("initial", "Elb.RegistrationInProgress", "Target registration is in progress")

target_health: dict[tuple[str, str], TargetHealth] = {}
"""What the load balancers found out, by target group ARN and target id; the loop writes it."""


@_patch
def target_health_is_measured() -> None:
    """A target is healthy when the balancer's own checks say so; moto calls every target healthy."""
    original, original_register = FakeTargetGroup.health_for, FakeTargetGroup.register

    def register(group: Any, targets: list[dict[str, Any]]) -> None:
        original_register(group, targets)
        for target in targets:
            target_health.pop((group.arn, target["Id"]), None)

    def health_for(group: Any, target: dict[str, Any], ec2_backend: Any) -> Any:
        registered = group.targets.get(target["Id"])
        status = original(group, target, ec2_backend)
        if registered is None or status.status != "healthy":
            return status
        health = target_health.get((group.arn, target["Id"]), INITIAL)
        port, check = registered["Port"], group.health_check_port
        return FakeHealthStatus(target["Id"], port, check, health.state, health.reason, health.description)

    FakeTargetGroup.register = register
    FakeTargetGroup.health_for = health_for


# --- what the loop reads ---------------------------------------------------------------------------------


def regions() -> list[tuple[Any, Any]]:
    """The EC2 and the load balancing part of each region that has been talked to."""
    return [
        (backend, elbv2_backends[account][region]) for account, region, backend in list(ec2_backends.iter_backends())
    ]
