"""The state requested through the API, read from moto's memory into plain values for the other modules."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from moto.elbv2.ssl_policies import SSL_POLICIES

from lab.cloud import dns, roles
from lab.cloud.balancers import Balancer, Listener, Policy, Target, TargetGroup
from lab.cloud.machines import Machine
from lab.cloud.metadata import Facts
from lab.cloud.network import Interface, Network, Rule
from lab.cloud.patches import state
from lab.cloud.shown_certificates import SHOWN
from lab.cloud.volumes import Volume


@dataclass(frozen=True)
class Inventory:
    """Everything that the lab must create, in all regions."""

    network: Network = field(default_factory=Network)
    machines: tuple[Machine, ...] = ()
    balancers: tuple[Balancer, ...] = ()
    volumes: tuple[Volume, ...] = ()
    idle_targets: tuple[tuple[str, str], ...] = ()
    """Target group ARN and target id of the targets whose group no listener uses."""
    facts: dict[str, Facts] = field(default_factory=dict)
    """What the metadata service returns, by private address."""
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    group_names: dict[str, str] = field(default_factory=dict)
    not_modelled: tuple[str, ...] = ()


def read() -> Inventory:
    """Return the current state of the API."""
    interfaces: list[Interface] = []
    rules: list[Rule] = []
    machines: list[Machine] = []
    balancers: list[Balancer] = []
    volumes: list[Volume] = []
    idle: list[tuple[str, str]] = []
    facts: dict[str, Facts] = {}
    names: dict[str, tuple[str, ...]] = {}
    group_names: dict[str, str] = {}
    not_modelled: list[str] = []
    for ec2, elb in state.regions():
        used = _interfaces_in_use(ec2)
        interfaces += used.values()
        for groups in list(ec2.groups.values()):
            for group in list(groups.values()):
                group_names[group.id] = group.name
                rules += _rules(group)
        every = list(ec2.volumes.values())
        data = [v for v in every if not _is_root(v)]
        volumes += map(_volume, data)
        for instance in _instances(ec2):
            if instance.state == "terminated":
                continue
            nic = instance.nics.get(0)
            machines.append(_machine(instance, used.get(nic.id) if nic else None, every))
            if nic:
                facts[nic.private_ip_address] = _facts(ec2, instance, nic)
                names |= _names(ec2, instance)
        for balancer in list(elb.load_balancers.values()):
            first, *others = balancer.interfaces.values()
            if others:
                not_modelled.append(f"{balancer.name}: more than one subnet, only {first.subnet.id} is served")
            if first.id in used:
                balancers.append(_balancer(ec2, elb, balancer, used[first.id]))
                names[balancer.dns_name] = (first.public_ip or first.private_ip_address,)
        idle += _idle_targets(elb)
    names |= dns.addresses(names)
    return Inventory(
        Network(
            tuple(sorted(interfaces, key=lambda i: i.id)),
            tuple(sorted(rules, key=lambda r: r.id)),
            tuple(filter(None, (balancer.preserving() for balancer in balancers))),
        ),
        tuple(machines),
        tuple(balancers),
        tuple(volumes),
        tuple(idle),
        facts,
        names,
        group_names,
        tuple(not_modelled),
    )


def _interfaces_in_use(ec2: Any) -> dict[str, Interface]:
    """Return a region's interfaces in use, by id."""
    return {eni.id: _interface(ec2, eni) for eni in list(ec2.enis.values()) if eni.status == "in-use"}


def _instances(ec2: Any) -> Iterator[Any]:
    for reservation in list(ec2.reservations.values()):
        yield from list(reservation.instances)


def find_instance(instance_id: str) -> Any:
    """Return moto's own object of the instance."""
    return next(i for ec2, _ in state.regions() for i in _instances(ec2) if i.id == instance_id)


def find_volume(volume_id: str) -> Any:
    """Return moto's own object of the volume."""
    return next(ec2.volumes[volume_id] for ec2, _ in state.regions() if volume_id in ec2.volumes)


def find_balancers(name: str) -> list[Any]:
    """Return moto's own objects of the load balancers with that name."""
    return [b for _, elb in state.regions() for b in list(elb.load_balancers.values()) if b.name == name]


def _interface(ec2: Any, eni: Any) -> Interface:
    groups = tuple(sorted(group.id for group in eni._group_set))
    return Interface(
        id=eni.id,
        address=eni.private_ip_address,
        subnet=eni.subnet.cidr_block,
        vpc=ec2.vpcs[eni.vpc_id].cidr_block,
        mac=eni.mac_address,
        groups=None if eni.requester_managed and not groups else groups,
        elastic=eni.public_ip,
        routed=_routed(ec2, eni.subnet),
    )


def _routed(ec2: Any, subnet: Any) -> bool:
    tables = [table for table in list(ec2.route_tables.values()) if table.vpc_id == subnet.vpc_id]
    own = [table for table in tables if subnet.id in list(table._associations.values())]
    main = [table for table in tables if table.main_association_id]
    return any(
        route.destination_cidr_block == "0.0.0.0/0"
        and (route.gateway_id or "").startswith("igw-")
        and route.gateway.vpc is not None
        and route.gateway.vpc.id == subnet.vpc_id
        for table in (own or main)[:1]
        for route in table.routes
    )


def _rules(group: Any) -> Iterator[Rule]:
    for egress, rules in ((False, group.ingress_rules), (True, group.egress_rules)):
        for rule in list(rules):
            # IPv6 ranges and prefix lists match nothing on the lab.
            if peer := rule.cidr_ipv4 or rule.source_group.get("GroupId"):
                yield Rule(
                    rule.id,
                    group.id,
                    egress,
                    rule.ip_protocol,
                    peer,
                    rule.from_port,
                    rule.to_port,
                    rule.description or "",
                )


def _is_root(volume: Any) -> bool:
    attachment = volume.attachment
    return attachment is not None and attachment.device == attachment.instance.root_device_name


def _volume(volume: Any) -> Volume:
    attachment = volume.attachment
    return Volume(
        volume.id,
        state.size_in_effect(volume),
        volume.availability_zone,
        attachment.status if attachment else "",
        attachment.instance.id if attachment else None,
        forced=getattr(attachment, "forced", False),
    )


def _machine(instance: Any, interface: Interface | None, volumes: list[Any]) -> Machine:
    root = next((_volume(v) for v in volumes if _is_root(v) and v.attachment.instance is instance), None)
    attached = (_volume(v) for v in volumes if not _is_root(v) and v.attachment and v.attachment.instance is instance)
    return Machine(
        instance.id,
        next((tag["value"] for tag in instance.get_tags() if tag["key"] == "Name"), ""),
        instance.private_dns_name.partition(".")[0],
        instance.state,
        interface,
        root,
        tuple(sorted(attached, key=lambda v: v.id)),
        instance.reboots,
    )


def _facts(ec2: Any, instance: Any, nic: Any) -> Facts:
    options = instance.metadata_options
    key = ec2.key_pairs.get(instance.key_name)
    return Facts(
        instance_id=instance.id,
        image=instance.image_id,
        type=instance.instance_type,
        account=ec2.account_id,
        region=ec2.region_name,
        zone=instance.availability_zone,
        hostname=instance.private_dns_name,
        address=nic.private_ip_address,
        public_address=nic.public_ip,
        public_hostname=instance.public_dns_name,
        mac=nic.mac_address,
        interface=nic.id,
        subnet_id=nic.subnet.id,
        subnet=nic.subnet.cidr_block,
        vpc_id=nic.vpc_id,
        vpc=ec2.vpcs[nic.vpc_id].cidr_block,
        groups=tuple((group.id, group.name) for group in nic._group_set),
        key_name=instance.key_name,
        key=key.public_key.strip() if key else None,
        user_data=base64.b64decode(str(instance.user_data)) if instance.user_data else None,
        token_required=options.http_tokens == "required",
        hop_limit=int(options.http_put_response_hop_limit or 1),
        enabled=options.http_endpoint != "disabled",
        profile=roles.profile_of(instance),
    )


def _names(ec2: Any, instance: Any) -> dict[str, tuple[str, ...]]:
    """Return the instance's names. Inside the VPC, the public name also resolves to the private address."""
    known = [instance.private_dns_name]
    if instance.public_ip and str(ec2.vpcs[instance.vpc_id].enable_dns_hostnames).lower() == "true":
        known.append(instance.public_dns_name)
    return dict.fromkeys(known, (instance.private_ip,))


def _balancer(ec2: Any, elb: Any, balancer: Any, interface: Interface) -> Balancer:
    listeners = []
    for listener in list(balancer.listeners.values()):
        arn = next(iter(_group_arns(elb, listener)), None)
        group = _target_group(ec2, elb.target_groups[arn]) if arn in elb.target_groups else None
        listeners.append(_listener(listener, group))
    return Balancer(
        balancer.name,
        balancer.subnets[0].availability_zone,
        interface,
        tuple(sorted(listeners, key=lambda li: li.port)),
        state.number_of(balancer),
    )


def _listener(listener: Any, group: TargetGroup | None) -> Listener:
    if listener.protocol != "TLS":
        return Listener(int(listener.port), listener.protocol, group)
    known = SSL_POLICIES.get(listener.ssl_policy)
    policy = Policy(tuple(known["ssl_protocols"]), tuple(known["ciphers"])) if known else None
    alpn = next(iter(listener.alpn_policy or []), "None")
    return Listener(int(listener.port), listener.protocol, group, policy, SHOWN.material(listener.certificate), alpn)


def _group_arns(elb: Any, listener: Any) -> list[str]:
    return [
        arn
        for action in listener.default_actions
        if action.type == "forward"
        for arn in elb._get_target_group_arns_from(action_data=action.data)
    ]


def _target_group(ec2: Any, group: Any) -> TargetGroup:
    attributes = group.attributes
    # AWS's default: on for targets given by instance id, off for TCP targets given by address.
    preserve = attributes.get("preserve_client_ip.enabled", str(group.target_type == "instance"))
    port = str(group.health_check_port)
    return TargetGroup(
        arn=group.arn,
        name=group.name,
        targets=tuple(_target(ec2, target) for target in list(group.targets.values())),
        proxy_protocol=str(attributes.get("proxy_protocol_v2.enabled")).lower() == "true",
        preserve_client_ip=str(preserve).lower() == "true",
        check_protocol=group.health_check_protocol,
        check_port=int(port) if port.isdigit() else None,
        check_path=group.health_check_path or "/",
        check_codes=getattr(group, "matcher", {}).get("HttpCode", "200-399"),
        check_interval=int(group.health_check_interval_seconds),
        check_timeout=int(group.health_check_timeout_seconds),
        healthy_after=int(group.healthy_threshold_count),
        unhealthy_after=int(group.unhealthy_threshold_count),
    )


def _target(ec2: Any, target: dict[str, Any]) -> Target:
    port = int(target["Port"])
    if not target["Id"].startswith("i-"):
        zones = (e.availability_zone for e in list(ec2.enis.values()) if e.private_ip_address == target["Id"])
        return Target(target["Id"], port, next(zones, None), target["Id"])
    instance = ec2.get_instance_by_id(target["Id"])
    running = instance is not None and instance.state == "running"
    return Target(
        target["Id"],
        port,
        instance.availability_zone if instance else None,
        instance.private_ip if running else None,
    )


def _idle_targets(elb: Any) -> Iterator[tuple[str, str]]:
    used = {
        arn
        for balancer in list(elb.load_balancers.values())
        for listener in list(balancer.listeners.values())
        for arn in _group_arns(elb, listener)
    }
    for group in list(elb.target_groups.values()):
        if group.arn not in used:
            yield from ((group.arn, target_id) for target_id in list(group.targets))
