"""The check of the domain's record with the answers of AWS's API, on the lab's."""

import boto3
import pytest
from moto import mock_aws

from lab.cloud import patches
from recovery import domain_record, stack_file
from recovery.errors import RecoveryError

DOMAIN = "git.example.com"


@pytest.fixture
def route53():
    patches.apply()
    with mock_aws():
        yield boto3.client("route53")


def zone_with(route53, *records: tuple[str, str, str]) -> str:
    made = route53.create_hosted_zone(Name="example.com.", CallerReference="1")["HostedZone"]["Id"]
    for name, kind, value in records:
        record = {"Name": name, "Type": kind, "TTL": 60, "ResourceRecords": [{"Value": value}]}
        changes = [{"Action": "CREATE", "ResourceRecordSet": record}]
        route53.change_resource_record_sets(HostedZoneId=made, ChangeBatch={"Changes": changes})
    return str(made).rpartition("/")[2]


def settings_of(zone: object, domain: object = DOMAIN) -> stack_file.Document:
    return {"config": {stack_file.key("hostedZoneId"): zone, stack_file.key("domain"): domain}}


@pytest.mark.parametrize("domain", [DOMAIN, "Git.example.com"])
def test_a_cname_of_the_domain_is_refused(route53, domain):
    zone = zone_with(route53, (DOMAIN, "CNAME", "status.example.net"))
    with pytest.raises(RecoveryError, match="is a CNAME record in the hosted zone"):
        domain_record.check(route53, settings_of(zone, domain))


@pytest.mark.parametrize(
    "record",
    [
        (DOMAIN, "A", "192.0.2.1"),
        (DOMAIN, "TXT", '"text"'),
        (f"a.{DOMAIN}", "CNAME", "status.example.net"),
        ("a.example.com", "CNAME", "status.example.net"),
        ("z.example.com", "CNAME", "status.example.net"),
    ],
    ids=["A", "TXT", "below", "before", "after"],
)
def test_other_records_are_no_reason_to_refuse(route53, record):
    domain_record.check(route53, settings_of(zone_with(route53, record)))


@pytest.mark.parametrize(
    ("zone", "domain"),
    [("", DOMAIN), ("Z0123456789ABC", ""), ({"secure": "v1:zone"}, DOMAIN), ("Z0123456789ABC", {"secure": "v1:name"})],
)
def test_nothing_is_asked_unless_a_hosted_zone_and_a_domain_can_be_read(zone, domain):
    domain_record.check(None, settings_of(zone, domain))
