"""GitLab CE, a CI runner and a container registry on RHEL 8 machines behind one load balancer, checked end to end."""

import pulumi

from components.acceptance import Acceptance
from components.backups import Backups
from components.certificate import Certificate
from components.container_registry import ContainerRegistry
from components.dns_records import DomainRecord, records_to_make
from components.existing import check_existing
from components.gitlab_runner import GitLabRunner
from components.gitlab_server import GitLabServer
from components.load_balancer import LoadBalancer
from components.machines import create_machines
from components.network import Addresses, Network
from components.security import SecurityGroupRules, SecurityGroups
from components.stack_config import StackConfig
from configuration.flows import Place, flows
from configuration.job_limits import job_limits
from settings import Settings, SettingsError

config = StackConfig()
try:
    settings = Settings.load(
        config, StackConfig("aws"), is_secret=lambda key: pulumi.runtime.is_config_secret(config.full_key(key))
    )
    runner_size = check_existing(settings)
except SettingsError as error:
    raise pulumi.RunError(str(error)) from None
for warning in settings.warnings:
    pulumi.log.warn(warning)

runner_name = settings.runner_name or f"{pulumi.get_project()}-{pulumi.get_stack()}"

network = Network("gitlab", settings)
groups = SecurityGroups("gitlab", settings, vpc_id=network.vpc_id)
addresses = Addresses("gitlab", settings, network=network, security_group_ids=groups.ids)
rules = SecurityGroupRules(
    "gitlab", settings, flows=flows(settings), group_ids=groups.ids, public_addresses=addresses.public
)

public_host = pulumi.Output.from_input(settings.domain or addresses.public[Place.LOAD_BALANCER])
external_url = pulumi.Output.concat(settings.scheme, "://", public_host)
registry_host = pulumi.Output.concat(public_host, ":", str(settings.registry_port))

balancer_address = addresses.public[Place.LOAD_BALANCER]
certificate = Certificate("gitlab", settings, balancer_address=balancer_address) if settings.serves_tls else None
dns_records = certificate.dns_records if certificate else records_to_make(settings, balancer_address)

machines = create_machines(settings, network=network, addresses=addresses, rules=rules)
load_balancer = LoadBalancer(
    "gitlab",
    settings,
    network=network,
    addresses=addresses,
    security_group_id=groups.ids[Place.LOAD_BALANCER],
    instance_ids={role: machine.instance_id for role, machine in machines.items()},
    certificate_arn=certificate.arn if certificate else None,
)
domain_record = DomainRecord("gitlab", settings, balancer_address=balancer_address, former_parent=load_balancer)

server = GitLabServer(
    "server",
    settings,
    machine=machines[Place.SERVER],
    external_url=external_url,
    public_host=public_host,
    registry_private_ip=addresses.private[Place.REGISTRY],
    runner_public_ip=addresses.public[Place.RUNNER],
    balancer_address=balancer_address,
    runner_name=runner_name,
)
registry = ContainerRegistry(
    "registry",
    settings,
    machine=machines[Place.REGISTRY],
    external_url=external_url,
    token_certificate=server.token_certificate,
)
runner = GitLabRunner(
    "runner",
    settings,
    machine=machines[Place.RUNNER],
    runner_name=runner_name,
    limits=job_limits(settings, runner_size),
    external_url=external_url,
    registry_host=registry_host,
    balancer_address=balancer_address,
    token=server.runner_token,
    after=[load_balancer, domain_record],
)
backups = Backups("backups", settings, machines=machines, after=[server.ready, registry.ready])
acceptance = Acceptance(
    "acceptance",
    settings,
    machines=machines,
    addresses=addresses,
    rules=rules,
    load_balancer=load_balancer,
    server=server,
    external_url=external_url,
    public_host=public_host,
    runner_name=runner_name,
    after=[domain_record, registry.ready, runner.ready, backups.ready],
)

pulumi.export("externalUrl", external_url)
pulumi.export("registryHost", registry_host)
pulumi.export("dnsRecords", dns_records)
pulumi.export("publicAddresses", {place.value: ip for place, ip in addresses.public.items()})
pulumi.export("privateAddresses", {place.value: ip for place, ip in addresses.private.items()})
pulumi.export("instanceIds", {role.value: machine.instance_id for role, machine in machines.items()})
# Deprecated: this output is removed in the next minor version.
pulumi.export("initialRootPassword", "no longer an output; until it is changed: make root-password STACK=...")
pulumi.export("acceptance", acceptance.result)
pulumi.export("inspection", acceptance.inspection)
