"""Resources in use cannot be deleted."""

from typing import Any

from moto.ec2.exceptions import DependencyViolationError, EC2ClientError
from moto.ec2.models import EC2Backend

from lab.cloud.patches.correction import correction


@correction
def interface_in_use_stays() -> None:
    """An attached interface cannot be deleted; the elastic address of a deleted one is available again."""
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


@correction
def network_in_use_stays() -> None:
    """A subnet with interfaces cannot be deleted, an internet gateway cannot be detached while its VPC has public
    addresses, and a VPC with a gateway or its own security groups cannot be deleted. Related upstream:
    getmoto/moto#8811 (merged)."""
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
