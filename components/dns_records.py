"""The DNS records of the domain: those in its hosted zone, or those that the user makes."""

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws
from pulumi.output import contains_unknowns

from components.load_balancer import LoadBalancer
from settings import Settings

DnsRecord = Mapping[str, str]
"""`name`, `type` and `value` of a record; names have no trailing dot."""


class DomainRecord(pulumi.ComponentResource):
    """The domain's A record with the load balancer's address, if the settings have a hosted zone."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        balancer_address: pulumi.Input[str],
        former_parent: LoadBalancer,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:dns:DomainRecord", name, None, opts)
        if settings.domain and settings.hosted_zone_id:
            aws.route53.Record(
                name,
                zone_id=settings.hosted_zone_id,
                name=settings.domain,
                type="A",
                ttl=300,
                records=[balancer_address],
                # A restored stack replaces the former one, whose record may still exist.
                allow_overwrite=settings.restores or None,
                opts=pulumi.ResourceOptions(
                    parent=self,
                    # It was part of the load balancer, whose name it does not need to wait for.
                    aliases=[pulumi.Alias(parent=former_parent)],
                    # The record of a former domain. If it were deleted last, an `up` that fails before that would leave
                    # it to the next one, which may be for the former domain again, and would delete its new record.
                    delete_before_replace=True,
                ),
            )
        self.register_outputs({})


def made_by_user(settings: Settings) -> bool:
    """Whether the user makes the domain's records. Not in a drill, whose domain only its machines know."""
    return bool(settings.domain) and not settings.hosted_zone_id and not settings.drill


def records_to_make(
    settings: Settings, balancer_address: pulumi.Input[str], validation: pulumi.Input[Sequence[DnsRecord]] = ()
) -> pulumi.Output[list[DnsRecord]]:
    """The records that the user makes, if any: the A record, and those with which ACM validates a requested
    certificate.
    """
    if not made_by_user(settings):
        return pulumi.Output.from_input([])
    address = pulumi.Output.from_input(balancer_address).apply(
        lambda known: [{"name": settings.domain or "", "type": "A", "value": known}]
    )
    return pulumi.Output.all(address, validation).apply(lambda lists: [record for each in lists for record in each])


def show(records: pulumi.Output[list[DnsRecord]], parent: pulumi.Resource, *, waits: str) -> None:
    """Show the records beside `parent` as soon as they are known; a preview of a new stack shows only that they will
    be. `waits` is what waits for them.
    """

    def log(known: list[DnsRecord]) -> None:
        pulumi.log.info(message(None if contains_unknowns(known) else known, waits=waits), resource=parent)

    records.apply(log, run_with_unknowns=True)


def message(records: Sequence[DnsRecord] | None, *, waits: str) -> str:
    """The text about the records; None if they are not known yet. One text, because each one is a line of its own in
    the engine's output.
    """
    if records is None:
        return f"pulumi up will show the DNS records to create as soon as it knows them; {waits}."
    lines = [f"  {record['name']} {record['type']} {record['value']}" for record in records]
    return "\n".join([f"create these DNS records; {waits}:", *lines])
