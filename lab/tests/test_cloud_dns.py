"""The public DNS: records of public zones and planted ones."""

import urllib.error

import pytest
from moto import mock_aws

from lab.cloud import dns
from lab.tests.cloud import client, over_http


@pytest.fixture(scope="module")
def api():
    with over_http() as url:
        yield url


@pytest.fixture(autouse=True)
def nothing_known():
    with mock_aws():
        yield
    dns.PLANTED.clear()


def zone(name="example.com", **arguments):
    made = client("route53").create_hosted_zone(Name=name, CallerReference=name, **arguments)
    return made["HostedZone"]["Id"]


def record(zone_id, name, kind, *values):
    content = {"Name": name, "Type": kind, "TTL": 60, "ResourceRecords": [{"Value": value} for value in values]}
    changes = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": content}]}
    client("route53").change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch=changes)


def test_a_record_is_found_by_its_exact_name_and_type_whatever_its_dot_and_capitals():
    record(zone(), "_Ab1.git.example.com.", "CNAME", "_cd2.acm-validations.aws.")
    assert dns.lookup("_ab1.GIT.example.com", "CNAME") == ["_cd2.acm-validations.aws"]
    assert dns.lookup("_ab1.git.example.com.", "A") == []
    assert dns.lookup("git.example.com", "CNAME") == []


def test_a_private_zone_is_not_public():
    vpc = client("ec2").create_vpc(CidrBlock="10.42.0.0/16")["Vpc"]["VpcId"]
    private = zone(VPC={"VPCRegion": "eu-central-1", "VPCId": vpc}, HostedZoneConfig={"PrivateZone": True})
    record(private, "git.example.com", "A", "203.0.113.9")
    assert dns.lookup("git.example.com", "A") == []
    assert dns.addresses({}) == {}


def test_cname_records_are_followed_to_an_address_in_any_order():
    public = zone()
    record(public, "a.example.com", "CNAME", "b.example.com")
    record(public, "b.example.com", "CNAME", "c.example.com.")
    record(public, "c.example.com", "A", "203.0.113.9", "203.0.113.10")
    record(public, "d.example.com", "CNAME", "Front-1.elb.example")
    record(public, "e.example.com", "CNAME", "elsewhere.example")
    both = ("203.0.113.9", "203.0.113.10")
    assert dns.addresses({"Front-1.elb.example": ("203.0.113.11",)}) == {
        **dict.fromkeys(("a.example.com", "b.example.com", "c.example.com"), both),
        "d.example.com": ("203.0.113.11",),
    }


def test_cname_records_that_lead_in_a_circle_have_no_address():
    public = zone()
    record(public, "a.example.com", "CNAME", "b.example.com")
    record(public, "b.example.com", "CNAME", "a.example.com")
    assert dns.addresses({}) == {}


def test_planted_records_answer_until_they_are_removed(api):
    dns.plant("_x.Git.example.org.", "CNAME", "_y.acm-validations.aws.", api=api)
    dns.plant("git.example.org", "A", "203.0.113.9", api=api)
    assert dns.lookup("_x.git.example.org.", "CNAME") == ["_y.acm-validations.aws"]
    assert dns.addresses({}) == {"git.example.org": ("203.0.113.9",)}
    dns.clear(api=api)
    assert dns.lookup("git.example.org", "A") == []


def test_a_record_that_the_lab_does_not_serve_is_refused(api):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        dns.plant("git.example.org", "MX", "mail.example.org", api=api)
    assert refusal.value.code == 400
    assert "A or CNAME, not 'MX'" in refusal.value.read().decode()
