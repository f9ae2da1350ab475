"""Load balancers, their listeners, target groups and the health of targets."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

from moto.core.exceptions import ServiceException
from moto.elbv2 import models as elbv2_models
from moto.elbv2.exceptions import ELBClientError
from moto.elbv2.models import AvailabilityZone, ELBv2Backend, FakeHealthStatus, FakeLoadBalancer, FakeTargetGroup

from lab.cloud.balancers import INITIAL
from lab.cloud.patches import state
from lab.cloud.patches.addresses import public_address
from lab.cloud.patches.correction import correction


def _interface(ec2: Any, balancer: Any, mapping: dict[str, str]) -> Any:
    """Create the load balancer's interface in the subnet of a subnet mapping."""
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
        made._group_set = []  # moto assigns the VPC's default group
    if allocation := mapping.get("AllocationId"):
        ec2.associate_address(eni=made, allocation_id=allocation)
    elif internet_facing:
        made.public_ip = public_address()
    return made


def _addresses(made: Any) -> list[dict[str, str]]:
    """Return the elastic address of an interface as in the description of a load balancer's zone."""
    held = made and made.association.get("allocationId")
    return [{"IpAddress": made.public_ip, "AllocationId": held}] if held else []


def _availability_zones(balancer: Any) -> list[Any]:
    """Return the zones of the load balancer's subnets, with its addresses there."""
    zones = [AvailabilityZone(subnet) for subnet in balancer.subnets]
    for zone in zones:
        zone.load_balancer_addresses = _addresses(balancer.interfaces.get(zone.subnet_id))
    return zones


@correction
def balancer_has_an_interface_in_each_subnet() -> None:
    """A network load balancer has one interface per subnet, with the elastic address of the subnet mapping (or one of
    AWS's), and with the load balancer's security groups."""
    original_create = ELBv2Backend.create_load_balancer
    original_delete = ELBv2Backend.delete_load_balancer

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
                balancer.interfaces[mapping["SubnetId"]] = _interface(self.ec2_backend, balancer, mapping)
        except ServiceException:
            delete_load_balancer(self, balancer.arn)
            raise
        return balancer

    def delete_load_balancer(self: Any, arn: str) -> None:
        balancer = self.load_balancers.get(arn)
        original_delete(self, arn)
        for made in balancer.interfaces.values() if balancer else ():
            made.status = "available"
            self.ec2_backend.delete_network_interface(made.id)
        for group in self.target_groups.values():
            group.load_balancer_arns = [other for other in group.load_balancer_arns if other != arn]

    ELBv2Backend.create_load_balancer = create_load_balancer
    ELBv2Backend.delete_load_balancer = delete_load_balancer
    FakeLoadBalancer.availability_zones = property(_availability_zones)


@correction
def balancer_has_groups_from_the_start() -> None:
    """A load balancer can have security groups only if it was created with some; its interfaces have the same."""
    original = ELBv2Backend.set_security_groups

    def set_security_groups(self: Any, arn: str, sec_groups: list[str]) -> None:
        balancer = self.load_balancers.get(arn)
        if balancer and not balancer.security_groups:
            raise ELBClientError(
                "InvalidConfigurationRequest",
                "You cannot set security groups on a load balancer that was created without any.",
            )
        original(self, arn, sec_groups)
        for made in balancer.interfaces.values():
            made._group_set = [self.ec2_backend.get_security_group_from_id(group) for group in sec_groups]

    ELBv2Backend.set_security_groups = set_security_groups


@correction
def arn_of_network_load_balancers() -> None:
    """The ARN of a network load balancer contains `net`; moto's contains `app` for all. Related upstream:
    getmoto/moto#2200 (closed), getmoto/moto#9175 (merged)."""
    original = elbv2_models.make_arn_for_load_balancer

    def make_arn_for_load_balancer(**kwargs: Any) -> str:
        return str(original(**kwargs)).replace(":loadbalancer/app/", ":loadbalancer/net/")

    elbv2_models.make_arn_for_load_balancer = make_arn_for_load_balancer


@correction
def balancer_becomes_active() -> None:
    """A load balancer is `provisioning` until it works; in moto until it is described. Upstream: getmoto/moto#3936
    (closed), getmoto/moto#3937 (merged)."""
    FakeLoadBalancer.activate = lambda _: None


@correction
def one_listener_a_port() -> None:
    """A load balancer has one listener per port; moto does not detect an existing one."""
    original = ELBv2Backend.create_listener

    def create_listener(self: Any, load_balancer_arn: str, protocol: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        balancer = self.load_balancers.get(load_balancer_arn)
        if balancer and any(str(listener.port) == str(port) for listener in balancer.listeners.values()):
            raise ELBClientError("DuplicateListener", "A listener with the specified port already exists.")
        return original(self, load_balancer_arn, protocol, port, *args, **kwargs)

    ELBv2Backend.create_listener = create_listener


@correction
def health_check_of_tcp_groups() -> None:
    """An HTTP health check of a TCP target group accepts 200-399 by default (moto: 200), and its status codes can be
    changed (moto ignores the new ones). Related upstream: getmoto/moto#4702 (closed)."""
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


@correction
def what_is_there_already_is_not_made_again() -> None:
    """CreateLoadBalancer, CreateTargetGroup and CreateListener complete at most one time: a second call with the
    same settings succeeds and returns the existing resource, one with other settings is rejected. (moto rejects both;
    an SDK that did not receive the first response would fail with an error that AWS does not return.)"""

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


@correction
def target_health_is_measured() -> None:
    """A target is healthy if the load balancer's own checks succeed; moto reports every target as healthy. Related
    upstream: getmoto/moto#2324 (merged)."""
    original, original_register = FakeTargetGroup.health_for, FakeTargetGroup.register

    def register(group: Any, targets: list[dict[str, Any]]) -> None:
        original_register(group, targets)
        for target in targets:
            state.target_health.pop((group.arn, target["Id"]), None)

    def health_for(group: Any, target: dict[str, Any], ec2_backend: Any) -> Any:
        registered = group.targets.get(target["Id"])
        status = original(group, target, ec2_backend)
        if registered is None or status.status != "healthy":
            return status
        health = state.target_health.get((group.arn, target["Id"]), INITIAL)
        port, check = registered["Port"], group.health_check_port
        return FakeHealthStatus(target["Id"], port, check, health.state, health.reason, health.description)

    FakeTargetGroup.register = register
    FakeTargetGroup.health_for = health_for
