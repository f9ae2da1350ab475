"""The one network load balancer behind external_url: web, git over SSH and the registry on one fixed address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from components.naming import tagged
from configuration.flows import GIT_SSH_PORT, GITLAB_HTTP_PORT, GITLAB_SSHD_PORT, Place
from settings import Settings

TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
LARGEST_NAME = 32
"""Characters of a balancer's or target group's name (AWS Elastic Load Balancing API)."""


@dataclass(frozen=True, kw_only=True)
class Listener:
    """One port of the balancer and where it leads. `tells_client` adds PROXY protocol v2, since without preservation
    the target sees only the balancer, and with it a machine cannot reach itself through the balancer.
    """

    name: str
    port: int
    tls: bool
    target: Place
    target_port: int
    tells_client: bool
    health_check: Mapping[str, Any]


def listeners(settings: Settings) -> tuple[Listener, ...]:
    """What the balancer listens to. With a certificate nothing is served in clear, so there is no port 80."""
    often: dict[str, Any] = {"interval": 10, "timeout": 6, "healthy_threshold": 2, "unhealthy_threshold": 2}
    return (
        Listener(
            name="web",
            port=settings.web_port,
            tls=settings.serves_tls,
            target=Place.SERVER,
            target_port=GITLAB_HTTP_PORT,
            tells_client=True,
            health_check={**often, "protocol": "HTTP", "path": "/-/readiness", "matcher": "200"},
        ),
        Listener(
            name="ssh",
            port=GIT_SSH_PORT,
            tls=False,
            target=Place.SERVER,
            target_port=GITLAB_SSHD_PORT,
            tells_client=True,
            health_check={**often, "protocol": "TCP"},
        ),
        Listener(
            name="registry",
            port=settings.registry_port,
            tls=settings.serves_tls,
            target=Place.REGISTRY,
            target_port=settings.registry_port,
            tells_client=False,
            health_check={**often, "protocol": "HTTP", "path": "/", "matcher": "200"},
        ),
    )


class LoadBalancer(pulumi.ComponentResource):
    """The balancer with its listeners and, with a domain in a hosted zone, the domain's address record."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        subnet_id: pulumi.Input[str],
        address: aws.ec2.Eip,
        security_group_id: pulumi.Input[str],
        vpc_id: pulumi.Input[str],
        instance_ids: Mapping[Place, pulumi.Input[str]],
        after: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:balancer:LoadBalancer", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        balancer = aws.lb.LoadBalancer(
            name,
            load_balancer_type="network",
            subnet_mappings=[
                aws.lb.LoadBalancerSubnetMappingArgs(subnet_id=subnet_id, allocation_id=address.allocation_id)
            ],
            # A balancer made without a group can never get one.
            security_groups=[security_group_id],
            tags=tagged(settings, name),
            # The address can be in one balancer only: the old one goes first.
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(after), delete_before_replace=True),
        )
        self.listeners = listeners(settings)
        for listener in self.listeners:
            full_name = f"{name}-{listener.name}"
            target_group = aws.lb.TargetGroup(
                full_name,
                vpc_id=vpc_id,
                target_type="instance",
                protocol="TCP",
                port=listener.target_port,
                preserve_client_ip="false",
                proxy_protocol_v2=listener.tells_client,
                deregistration_delay=30,
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
                load_balancer_arn=balancer.arn,
                port=listener.port,
                protocol="TLS" if listener.tls else "TCP",
                certificate_arn=settings.certificate_arn if listener.tls else None,
                ssl_policy=TLS_POLICY if listener.tls else None,
                default_actions=[aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=target_group.arn)],
                tags=tagged(settings, full_name),
                opts=own,
            )
        if settings.domain and settings.hosted_zone_id:
            aws.route53.Record(
                name,
                zone_id=settings.hosted_zone_id,
                name=settings.domain,
                type="A",
                ttl=300,
                records=[address.public_ip],
                opts=own,
            )
        self.register_outputs({"arn": balancer.arn})
