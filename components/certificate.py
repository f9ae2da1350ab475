"""The certificate of the load balancer's TLS listeners: requested from ACM, looked up there, or imported."""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Any

import pulumi
import pulumi_aws as aws

from components import dns_records
from components.dns_records import DnsRecord
from components.naming import tagged
from programs.acceptance_checks.certificate_checks import fits
from settings import Settings, SettingsError
from validation import certificates

VALIDATION_MINUTES = 45
"""How long `up` waits for ACM to find the validation record. ACM itself gives up after 72 hours (AWS Certificate
Manager, "DNS validation"), and a repeated `up` waits again.
"""
PROGRESS_INTERVAL = 60.0  # seconds

UNSUPPORTED_KEYS = ("RSA_1024", "RSA_4096")
"""Of those that ACM imports (ACM API Reference, CertificateDetail, KeyAlgorithm): see certificates.KEY_TYPES."""


class Certificate(pulumi.ComponentResource):
    """The domain's certificate: `arn` is that of an issued one, and `dns_records` are the records that the user makes.

    A requested certificate renews itself as long as its validation record exists (AWS Certificate Manager, "Managed
    certificate renewal"). An imported one keeps its ARN when the settings contain a new one, so only it changes.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        balancer_address: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("gitlab:certificate:Certificate", name, None, opts)
        self.arn: pulumi.Input[str]
        validation: pulumi.Input[Sequence[DnsRecord]] = ()
        waits = "GitLab's checks wait for them"
        if settings.requests_certificate:
            self.arn, validation = self._requested(name, settings)
            waits = f"the certificate waits for them, at most {VALIDATION_MINUTES} minutes, then run pulumi up again"
        elif settings.certificate_arn:
            self.arn = self._existing(settings, settings.certificate_arn)
        else:
            self.arn = self._imported(name, settings)
        self.dns_records = dns_records.records_to_make(settings, balancer_address, validation)
        if dns_records.made_by_user(settings):
            dns_records.show(self.dns_records, self, waits=waits)
            if settings.requests_certificate:
                self._report_wait(validation)
        self.register_outputs({"arn": self.arn})

    def _requested(self, name: str, settings: Settings) -> tuple[pulumi.Output[str], pulumi.Output[list[DnsRecord]]]:
        """The ARN, once ACM has issued the certificate, and the validation records."""
        own = pulumi.ResourceOptions(parent=self)
        certificate = aws.acm.Certificate(
            name,
            domain_name=settings.domain,
            validation_method="DNS",
            key_algorithm="RSA_2048",
            tags=tagged(settings, name),
            # A new one is created before the old one is deleted: ACM does not delete one that a listener uses.
            opts=own,
        )
        records = []
        if settings.hosted_zone_id:
            option = certificate.domain_validation_options[0]  # one name, one option
            records.append(
                aws.route53.Record(
                    f"{name}-validation",
                    zone_id=settings.hosted_zone_id,
                    name=option.resource_record_name,
                    type=option.resource_record_type,
                    ttl=60,
                    records=[option.resource_record_value],
                    # An account has the same record for every certificate of a name (AWS Certificate Manager, "DNS
                    # validation"), so another stack or a former certificate may have made it.
                    allow_overwrite=True,
                    # For the same reason as the A record (dns_records.py): without it ACM cannot renew the certificate.
                    opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
                )
            )
        validation = aws.acm.CertificateValidation(
            name,
            certificate_arn=certificate.arn,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=records,
                custom_timeouts=pulumi.CustomTimeouts(create=f"{VALIDATION_MINUTES}m"),
            ),
        )
        return validation.certificate_arn, certificate.domain_validation_options.apply(_validation_records)

    def _report_wait(self, validation: pulumi.Input[Sequence[DnsRecord]]) -> None:
        issued = pulumi.Output.from_input(self.arn)

        def report(records: Sequence[DnsRecord]) -> pulumi.Input[None]:
            return report_wait(records, issued.future(), self)

        pulumi.Output.from_input(validation).apply(report)

    def _existing(self, settings: Settings, arn: str) -> pulumi.Output[str]:
        """The ARN in the settings, after ACM's own description of the certificate has been checked.

        It is read as a resource, because the provider's data source finds certificates only by their first name, and
        fails if there is none (terraform-provider-aws, certificate_data_source.go): one for several names or with a
        wildcard would be refused. A preview reads it as well. Its name is that of the key, for the engine's error if
        it does not exist.
        """
        found = aws.acm.Certificate.get("certificateArn", arn, opts=pulumi.ResourceOptions(parent=self))
        return pulumi.Output.all(
            found.status, found.domain_name, found.subject_alternative_names, found.key_algorithm
        ).apply(
            lambda known: checked(
                settings, arn, status=known[0], names={known[1], *(known[2] or ())}, key=known[3] or "unknown"
            )
        )

    def _imported(self, name: str, settings: Settings) -> pulumi.Output[str]:
        pem = settings.certificate_pem or ""
        first = certificates.parse(pem)[0]
        # Another name than that of a requested certificate, whose ARN accepts no import.
        imported = aws.acm.Certificate(
            f"{name}-own",
            certificate_body=first.pem,
            certificate_chain=certificates.chain(pem, settings.certificate_authority),
            private_key=pulumi.Output.secret(settings.certificate_key_pem),
            tags=tagged(settings, f"{name}-own"),
            # An import to the same ARN can change neither of them (AWS Certificate Manager, "Reimport a certificate").
            opts=pulumi.ResourceOptions(parent=self, replacement_trigger=", ".join([first.key, *first.usages])),
        )
        if pulumi.runtime.is_dry_run():
            return imported.arn
        return pulumi.Output.all(imported.arn, imported.not_after).apply(
            lambda known: in_force(known[0], until=known[1], wanted=first.valid_until)
        )


async def report_wait(records: Sequence[DnsRecord], issued: Awaitable[object], about: pulumi.Resource) -> None:
    """Log every minute that `up` still waits for `records`, until the certificate is `issued` or the wait failed."""
    waiting = asyncio.ensure_future(issued)
    for minutes in range(1, VALIDATION_MINUTES):
        finished, _ = await asyncio.wait([waiting], timeout=PROGRESS_INTERVAL)
        if finished:
            # The engine reports a failure; asyncio would log one that is never retrieved as well.
            waiting.exception()
            return
        names = ", ".join(f"{record['name']} {record['type']}" for record in records)
        pulumi.log.info(
            f"the certificate has been waiting {minutes} of at most {VALIDATION_MINUTES} minutes for {names}",
            resource=about,
        )


def _validation_records(options: Sequence[Any]) -> list[DnsRecord]:
    return [
        {
            "name": option.resource_record_name.rstrip("."),
            "type": option.resource_record_type,
            "value": option.resource_record_value.rstrip("."),
        }
        for option in options
    ]


def in_force(arn: str, *, until: str | None, wanted: datetime) -> str:
    """The ARN. Raises RunError if the certificate in ACM is valid `until` another time than the one `wanted`.

    The provider keeps the new certificate in its state if ACM refuses to import it, and does not import it again
    (terraform-provider-aws, issue 34968).
    """
    if until and datetime.fromisoformat(until) != wanted:
        raise pulumi.RunError(
            f"certificatePem: is valid until {wanted:%Y-%m-%d}, but the certificate in ACM is another one, valid until "
            f"{until}: AWS refused to import the new one, or this up did not include it. Replace it: pulumi up "
            "--replace '**aws:acm/certificate:Certificate::gitlab-own'"
        )
    return arn


def checked(settings: Settings, arn: str, *, status: str, names: set[str], key: str) -> str:
    """The ARN. Raises RunError if the certificate's status is not ISSUED, its key is not supported by load balancers,
    or none of its names includes the domain.
    """
    problems = []
    if key.replace("-", "_") in UNSUPPORTED_KEYS:
        problems.append(
            f"certificateArn: the key of {arn!r} is {key}, and a Network Load Balancer supports only "
            f"{', '.join(certificates.KEY_TYPES)}. Use another certificate, or remove the setting: the program then "
            "requests one."
        )
    if status != "ISSUED":
        problems.append(
            f"certificateArn: {arn!r} has the status {status}, and a load balancer accepts only issued certificates. "
            "Use an issued one, or remove the key: the program then requests one."
        )
    if not any(fits(name, settings.domain or "") for name in names):
        problems.append(
            f"certificateArn: {arn!r} is for {', '.join(sorted(names))}, which does not include the domain "
            f"{settings.domain}. Use a certificate for it, or remove the key: the program then requests one."
        )
    if problems:
        raise pulumi.RunError(str(SettingsError(problems)))
    return arn
