"""Whether `up` can create the domain's A record: it replaces another A record, but AWS refuses any beside a CNAME.

Such a CNAME may be that of a status page while the former stack does not work. Sources: Amazon Route 53 Developer
Guide, "Supported DNS record types", CNAME; Amazon Route 53 API Reference, ListResourceRecordSets.
"""

from typing import Any

from recovery import stack_file
from recovery.errors import RecoveryError

Client = Any
"""A client of boto3, which has no types."""


def check(route53: Client, settings: stack_file.Document) -> None:
    """Raise RecoveryError if the domain is a CNAME record in the hosted zone of the settings, if they have one."""
    zone, domain = (stack_file.setting(settings, name) for name in ("hostedZoneId", "domain"))
    # Another type of value is a secret, which only `up` can read.
    if not (zone and domain and isinstance(zone, str) and isinstance(domain, str)):
        return
    # The list begins with the first record that does not come before these.
    wanted = {"StartRecordName": domain, "StartRecordType": "CNAME", "MaxItems": "1"}
    for found in route53.list_resource_record_sets(HostedZoneId=zone, **wanted)["ResourceRecordSets"]:
        if (found["Name"].rstrip("."), found["Type"]) == (domain.lower(), "CNAME"):
            raise RecoveryError(
                f"{domain} is a CNAME record in the hosted zone {zone}, so `up` could not create its A record. Delete "
                "the CNAME record, or replace it with an A record, which `up` overwrites; then repeat the command"
            )
