"""The network load balancer behind external_url: web, git over SSH and the registry on one fixed address."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import pulumi
import pulumi_aws as aws

from components.naming import tagged
from components.network import Addresses, Network
from configuration.flows import GIT_SSH_PORT, GITLAB_HTTP_PORT, GITLAB_SSHD_PORT, Place
from settings import Settings

TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
"""TLS 1.2 and 1.3 (AWS, Network Load Balancers: security policies)."""


class ClientAddress(Enum):
    """How a target learns the client's address (AWS, Network Load Balancers: target group attributes)."""

    UNKNOWN = auto()
    """Not at all: it sees the load balancer's address."""

    PROXY_HEADER = auto()
    """From a PROXY protocol v2 header; the source address is the load balancer's. The header is sent with the client's
    first bytes, so this is for protocols in which the client sends first.
    """

    PRESERVED = auto()
    """From the source address. A machine then cannot reach itself through the load balancer: the source and destination
    of the packets would be the same.
    """


@dataclass(frozen=True, kw_only=True)
class Listener:
    """One port of the load balancer, and the machine and port that it forwards to; `tls`: TLS terminates here."""

    name: str
    port: int
    tls: bool
    target: Place
    target_port: int
    client_address: ClientAddress
    health_check: Mapping[str, Any]


def listeners(settings: Settings) -> tuple[Listener, ...]:
    """The ports of the load balancer. With a certificate it serves no plain HTTP, so there is no port 80."""
    often: dict[str, Any] = {"interval": 10, "timeout": 6, "healthy_threshold": 2, "unhealthy_threshold": 2}
    return (
        Listener(
            name="web",
            port=settings.web_port,
            tls=settings.serves_tls,
            target=Place.SERVER,
            target_port=GITLAB_HTTP_PORT,
            # The server connects to its own external_url.
            client_address=ClientAddress.PROXY_HEADER,
            health_check={**often, "protocol": "HTTP", "path": "/-/readiness", "matcher": "200"},
        ),
        Listener(
            name="ssh",
            port=GIT_SSH_PORT,
            tls=False,
            target=Place.SERVER,
            target_port=GITLAB_SSHD_PORT,
            # An SSH server sends first, and ssh-keyscan waits for it.
            client_address=ClientAddress.PRESERVED,
            health_check={**often, "protocol": "TCP"},
        ),
        Listener(
            name="registry",
            port=settings.registry_port,
            tls=settings.serves_tls,
            target=Place.REGISTRY,
            target_port=settings.registry_port,
            client_address=ClientAddress.UNKNOWN,
            health_check={**often, "protocol": "HTTP", "path": "/", "matcher": "200"},
        ),
    )


class LoadBalancer(pulumi.ComponentResource):
    """The load balancer with its listeners; those with TLS show the certificate with `certificate_arn`."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        network: Network,
        addresses: Addresses,
        security_group_id: pulumi.Input[str],
        instance_ids: Mapping[Place, pulumi.Input[str]],
        certificate_arn: pulumi.Input[str] | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:balancer:LoadBalancer", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        load_balancer = aws.lb.LoadBalancer(
            name,
            load_balancer_type="network",
            subnet_mappings=[
                aws.lb.LoadBalancerSubnetMappingArgs(
                    subnet_id=network.subnet.id, allocation_id=addresses.load_balancer_allocation_id
                )
            ],
            # A load balancer created without security groups can never get one.
            security_groups=[security_group_id],
            tags=tagged(settings, name),
            # Only one load balancer can use the address, so the old one is deleted first.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[network.gateway], delete_before_replace=True),
        )
        self.listeners = listeners(settings)
        for listener in self.listeners:
            full_name = f"{name}-{listener.name}"
            target_group = aws.lb.TargetGroup(
                full_name,
                vpc_id=network.vpc_id,
                target_type="instance",
                protocol="TCP",
                port=listener.target_port,
                preserve_client_ip=str(listener.client_address is ClientAddress.PRESERVED).lower(),
                proxy_protocol_v2=listener.client_address is ClientAddress.PROXY_HEADER,
                deregistration_delay=30,
                # Otherwise a client that is still connected would wait for the idle timeout, 350 s.
                connection_termination=True,
                health_check=aws.lb.TargetGroupHealthCheckArgs(**listener.health_check),
                tags=tagged(settings, full_name),
                opts=own,
            )
            aws.lb.TargetGroupAttachment(
                full_name,
                target_group_arn=target_group.arn,
                target_id=instance_ids[listener.target],
                port=listener.target_port,
                opts=own,
            )
            aws.lb.Listener(
                full_name,
                load_balancer_arn=load_balancer.arn,
                port=listener.port,
                protocol="TLS" if listener.tls else "TCP",
                certificate_arn=certificate_arn if listener.tls else None,
                ssl_policy=TLS_POLICY if listener.tls else None,
                default_actions=[aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=target_group.arn)],
                tags=tagged(settings, full_name),
                opts=pulumi.ResourceOptions(
                    parent=self,
                    # A listener that changes from TLS to TCP would be sent its former security policy, which AWS
                    # refuses (terraform-provider-aws, listener.go: ssl_policy is computed).
                    replace_on_changes=["protocol"],
                    delete_before_replace=True,  # both listen on the same port
                ),
            )
        self.register_outputs({"arn": load_balancer.arn})
