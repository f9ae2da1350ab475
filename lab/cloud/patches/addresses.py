"""Addresses: elastic ones, automatic ones, private ones."""

import ipaddress
import itertools
from collections.abc import Iterator
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_ip_addresses import ElasticAddress
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.subnets import Subnet

from lab.cloud.network import INTERNET
from lab.cloud.patches import quotas, state
from lab.cloud.patches.correction import correction

ELASTIC_POOL = [str(INTERNET[host]) for host in range(16, 251)]
RESERVED_ADDRESSES = 4  # at the start of a subnet; the last one is reserved too

_turn = itertools.cycle(ELASTIC_POOL)


def public_address() -> str:
    """Return the next free address of the pool; a released address is not reused immediately."""
    taken = set()
    for backend, _ in state.regions():
        taken |= {address.public_ip for address in list(backend.addresses)}
        taken |= {interface.public_ip for interface in list(backend.enis.values())}
    for candidate in itertools.islice(_turn, len(ELASTIC_POOL)):
        if candidate not in taken:
            return candidate
    raise EC2ClientError("InsufficientAddressCapacity", "Not enough available addresses to satisfy the request.")


@correction
def elastic_addresses_come_from_a_pool() -> None:
    """AWS allocates public addresses from its pool (moto: from 127/8 or 54.214/16), and as many elastic addresses
    as the quota of account and region allows, five at first. An automatic address changes with stop and start."""
    original = EC2Backend.allocate_address

    def allocate_address(self: Any, domain: str, address: str | None = None, tags: Any = None) -> Any:
        if len(self.addresses) >= quotas.allowed(quotas.ELASTIC_ADDRESSES, self.account_id, self.region_name):
            raise EC2ClientError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
        return original(self, domain, address=address or public_address(), tags=tags)

    def check_auto_public_ip(interface: Any) -> None:
        if str(interface.public_ip_auto_assign).lower() == "true":
            interface.public_ip = public_address()

    EC2Backend.allocate_address = allocate_address
    NetworkInterface.check_auto_public_ip = check_auto_public_ip


@correction
def elastic_address_needs_a_gateway() -> None:
    """An elastic address can be associated with an interface only if its VPC has an internet gateway; its instance is
    the one the interface is attached to; a load balancer's address cannot be disassociated."""
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


def _taken(subnet: Any) -> set[str]:
    """The private addresses of the interfaces in a subnet."""
    return {
        address["PrivateIpAddress"]
        for interface in list(subnet.ec2_backend.enis.values())
        if interface.subnet.id == subnet.id
        for address in interface.private_ip_addresses
    }


def _usable(subnet: Any) -> Iterator[str]:
    """The addresses of a subnet that AWS does not reserve."""
    hosts = ipaddress.IPv4Network(subnet.cidr_block)
    return (str(hosts[n]) for n in range(RESERVED_ADDRESSES, hosts.num_addresses - 1))


@correction
def private_addresses_are_unique() -> None:
    """An address belongs to one interface of a subnet; AWS reserves the first four and the last. (moto chooses at
    random, and does not release the address of a terminated instance.)"""
    original = EC2Backend.create_network_interface

    def get_available_subnet_ip(subnet: Any, *_: Any, **__: Any) -> str:
        used = _taken(subnet)
        for address in _usable(subnet):
            if address not in used:
                return address
        raise EC2ClientError("InsufficientFreeAddressesInSubnet", f"{subnet.id} has no free address")

    def request_ip(subnet: Any, ip: str, *_: Any, **__: Any) -> None:
        if ip not in set(_usable(subnet)):
            raise EC2ClientError("InvalidParameterValue", f"Address {ip} is not within the range of {subnet.id}")
        if ip in _taken(subnet):
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
