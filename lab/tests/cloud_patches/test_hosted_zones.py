"""Hosted zones: their records are created and deleted once, and a CNAME is alone."""

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto import mock_aws

from lab.tests.cloud import client

NAME = "git.example.com."
LATER = "zz.git.example.com."
EXISTS = r"InvalidChangeBatch.*name='git\.example\.com\.', type='A'\] but it already exists"
NOT_FOUND = r"InvalidChangeBatch.*name='git\.example\.com\.', type='A'\] but it was not found"


@pytest.fixture
def batch():
    """Change records of one zone in one call, and return its A records. Each change is an action, a name, a type and a
    value.
    """
    with mock_aws():
        route53 = client("route53")
        zone = route53.create_hosted_zone(Name="example.com.", CallerReference="1")["HostedZone"]["Id"]

        def batch(*changes):
            made = [
                {
                    "Action": action,
                    "ResourceRecordSet": {"Name": name, "Type": kind, "TTL": 60, "ResourceRecords": [{"Value": value}]},
                }
                for action, name, kind, value in changes
            ]
            route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": made})
            listed = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
            return [(each["Name"], each["ResourceRecords"][0]["Value"]) for each in listed if each["Type"] == "A"]

        yield batch


@pytest.fixture
def change(batch):
    """The same for A records. Each change is an action, a name and an address."""
    return lambda *changes: batch(*((action, name, "A", address) for action, name, address in changes))


def test_a_deleted_record_is_created_again_whatever_other_records_there_are(change):
    change(("CREATE", NAME, "203.0.113.7"))
    change(("DELETE", NAME, "203.0.113.7"))
    change(("CREATE", LATER, "203.0.113.8"))
    assert change(("CREATE", NAME, "203.0.113.7")) == [(NAME, "203.0.113.7"), (LATER, "203.0.113.8")]


@pytest.mark.parametrize("value", ["203.0.113.7", "203.0.113.8"])
@pytest.mark.parametrize("name", [NAME, "Git.example.com"])
def test_a_record_that_exists_is_not_created_with_any_value(change, name, value):
    change(("UPSERT", NAME, "203.0.113.7"))
    with pytest.raises(ClientError, match=EXISTS):
        change(("CREATE", name, value))
    assert change(("UPSERT", NAME, "203.0.113.9")) == [(NAME, "203.0.113.9")]


def test_a_record_that_does_not_exist_is_not_deleted(change):
    change(("CREATE", NAME, "203.0.113.7"))
    change(("DELETE", NAME, "203.0.113.7"))
    with pytest.raises(ClientError, match=NOT_FOUND):
        change(("DELETE", NAME, "203.0.113.7"))


def test_a_record_is_replaced_in_one_call(change):
    change(("CREATE", NAME, "203.0.113.7"))
    assert change(("DELETE", NAME, "203.0.113.7"), ("CREATE", NAME, "203.0.113.8")) == [(NAME, "203.0.113.8")]
    assert change(("DELETE", NAME, "203.0.113.8"), ("CREATE", NAME, "203.0.113.8")) == [(NAME, "203.0.113.8")]


def test_a_call_with_one_change_that_is_refused_changes_nothing(change):
    change(("CREATE", NAME, "203.0.113.7"))
    with pytest.raises(ClientError, match=EXISTS):
        change(("CREATE", LATER, "203.0.113.8"), ("CREATE", NAME, "203.0.113.8"))
    assert change(("UPSERT", NAME, "203.0.113.7")) == [(NAME, "203.0.113.7")]


BESIDE_A = (
    r"\[RRSet of type CNAME with DNS name git\.example\.com\. is not permitted as it conflicts with other records "
)
BESIDE_CNAME = (
    r"\[RRSet of type A with DNS name git\.example\.com\. is not permitted because a conflicting RRSet of type CNAME "
    r"with the same DNS name already exists in zone example\.com\.\]"
)
A, CNAME = ("A", "203.0.113.7"), ("CNAME", "status.example.net")


@pytest.mark.parametrize("action", ["CREATE", "UPSERT"])
@pytest.mark.parametrize("name", [NAME, "GIT.example.com"])
@pytest.mark.parametrize(("first", "second", "error"), [(A, CNAME, BESIDE_A), (CNAME, A, BESIDE_CNAME)])
def test_a_cname_has_no_record_of_another_type_beside_it(batch, action, name, first, second, error):
    batch(("CREATE", NAME, *first))
    with pytest.raises(ClientError, match=f"InvalidChangeBatch.*{error}"):
        batch((action, name, *second))
    batch(("CREATE", LATER, *second))
    batch(("UPSERT", NAME, *first))
    batch(("DELETE", NAME, *first), (action, name, *second))


def test_records_of_other_types_are_beside_each_other_and_a_cname_is_not_at_the_top_of_a_zone(batch):
    batch(("CREATE", NAME, *A), ("CREATE", NAME, "TXT", '"text"'), ("CREATE", "example.com", *A))
    with pytest.raises(ClientError, match=r"RRSet of type CNAME .* is not permitted at apex in zone example\.com\."):
        batch(("CREATE", "example.com", *CNAME))
