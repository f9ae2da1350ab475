"""The VPC with one public subnet in one zone, and the addresses of all machines and the load balancer."""

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

from components.adoption import kept
from components.naming import TaggedLate, tagged
from configuration.flows import MACHINES, Place
from settings import Settings


class Network(pulumi.ComponentResource):
    """VPC, subnet and the route to the internet. One zone, because a load balancer's fixed address is in one zone."""

    def __init__(self, name: str, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("gitlab:network:Network", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        tags = tagged(settings, name)
        vpc = aws.ec2.Vpc(
            name,
            cidr_block=str(settings.network),
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=tags,
            opts=own,
        )
        # No rules, so that a resource without its own security group is unreachable (Security Hub EC2.2).
        aws.ec2.DefaultSecurityGroup(
            name, vpc_id=vpc.id, tags=tagged(settings, name, TaggedLate.DEFAULT_GROUP), opts=own
        )
        self.subnet = aws.ec2.Subnet(
            name,
            vpc_id=vpc.id,
            cidr_block=str(settings.subnet),
            availability_zone=settings.availability_zone,
            tags=tags,
            opts=own,
        )
        self.gateway = aws.ec2.InternetGateway(name, vpc_id=vpc.id, tags=tags, opts=own)
        routes = aws.ec2.RouteTable(name, vpc_id=vpc.id, tags=tags, opts=own)
        aws.ec2.Route(
            name,
            route_table_id=routes.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=self.gateway.id,
            opts=own,
        )
        self.route_table_association = aws.ec2.RouteTableAssociation(
            name, route_table_id=routes.id, subnet_id=self.subnet.id, opts=own
        )
        self.vpc_id = vpc.id
        self.register_outputs({"vpcId": vpc.id, "subnetId": self.subnet.id})


class Addresses(pulumi.ComponentResource):
    """The interface and Elastic IP address of every machine, and the load balancer's address. They are known before the
    machines exist, and a replaced machine keeps them. Four addresses; the default quota is five per region.

    `public` and `private` are IPv4 addresses, `interface_ids` those of the machines' network interfaces.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        network: Network,
        security_group_ids: Mapping[Place, pulumi.Input[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:network:Addresses", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        reachable = pulumi.ResourceOptions(parent=self, depends_on=[network.gateway])
        load_balancer = aws.ec2.Eip(
            f"{name}-balancer",
            domain="vpc",
            tags=tagged(settings, f"{name}-balancer"),
            # No dependencies: it can outlive the stack without anything else.
            opts=kept(settings, self, adopted_id=settings.balancer_address_id),
        )
        self.load_balancer_allocation_id = load_balancer.allocation_id
        self.interface_ids: dict[Place, pulumi.Output[str]] = {}
        self.private: dict[Place, pulumi.Output[str]] = {}
        self.public: dict[Place, pulumi.Output[str]] = {Place.LOAD_BALANCER: load_balancer.public_ip}
        for machine in MACHINES:
            interface = aws.ec2.NetworkInterface(
                f"{name}-{machine}",
                subnet_id=network.subnet.id,
                security_groups=[security_group_ids[machine]],
                description=f"The one interface of the {machine} machine",
                tags=tagged(settings, f"{name}-{machine}"),
                opts=own,
            )
            address = aws.ec2.Eip(
                f"{name}-{machine}",
                domain="vpc",
                network_interface=interface.id,
                tags=tagged(settings, f"{name}-{machine}"),
                opts=reachable,
            )
            # Depends on the address, so that users of the interface wait until it is reachable.
            self.interface_ids[machine] = pulumi.Output.all(id=interface.id, address=address.id).apply(
                lambda known: known["id"]
            )
            self.private[machine] = interface.private_ip
            self.public[machine] = address.public_ip
        self.register_outputs({"public": {place.value: ip for place, ip in self.public.items()}})
