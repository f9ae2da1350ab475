"""The lab's certificate authorities, with OpenSSL as the judge of what they issue."""

import subprocess

import pytest

from lab import authority
from lab.authority import LAB, OUTSIDER
from lab.cloud.names import ec2_hosts
from lab.vendors import front

NAME = "git.lab.example.com"

pytestmark = pytest.mark.needs("openssl")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(authority, "FOLDER", tmp_path / "ca")


@pytest.fixture
def judge(tmp_path):
    """Returns OpenSSL's objection to a certificate, with an authority and a host name; empty if there is none."""

    def objection(pem, issuer, name=NAME):
        file = tmp_path / "server.pem"
        file.write_text(pem)
        command = ["openssl", "verify", "-x509_strict", "-CAfile", issuer.certificate(), "-verify_hostname", name, file]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    return objection


def test_a_certificate_is_good_for_its_names_alone(judge):
    pem = LAB.issue([NAME, "other.example.com"]).pem
    assert judge(pem, LAB) == ""
    assert judge(pem, LAB, "other.example.com") == ""
    assert "hostname mismatch" in judge(pem, LAB, "third.example.com")


def test_a_certificate_of_the_outsider_is_not_one_of_the_labs_authority(judge):
    issued = OUTSIDER.issue([NAME])
    assert judge(issued.certificate, OUTSIDER) == ""
    assert "unable to get local issuer certificate" in judge(issued.certificate, LAB)
    assert issued.chain == OUTSIDER.certificate().read_text() != LAB.certificate().read_text()


def test_a_certificate_lasts_as_long_as_requested(judge):
    ten = LAB.issue([NAME], days=10).certificate
    for day, status in ((9, 0), (11, 1)):
        checked = ["openssl", "x509", "-noout", "-checkend", str(day * 86400)]
        done = subprocess.run(checked, input=ten, text=True, capture_output=True, check=False)
        assert done.returncode == status
    assert "certificate has expired" in judge(LAB.issue([NAME], days=-1).pem, LAB)


def test_a_name_too_long_for_the_subject_is_in_the_certificate_all_the_same(judge):
    name = "a" * 60 + ".example.com"
    assert judge(LAB.issue([name]).pem, LAB, name) == ""


def test_keys_can_be_read_by_their_owner_alone():
    server = authority.server_certificate(front.HOSTS)
    keys = [server, *authority.FOLDER.glob("*.key")]
    assert [key.stat().st_mode & 0o077 for key in keys] == [0, 0]


def test_the_certificate_of_the_vendors_and_ec2_is_good_for_each_of_them_and_kept(judge):
    hosts = [*front.HOSTS, "ec2.us-east-1.amazonaws.com", *ec2_hosts()[:2]]
    server = authority.server_certificate(hosts)
    before = server.read_text()
    assert [judge(before, LAB, host) for host in hosts] == [""] * len(hosts)
    assert authority.server_certificate(hosts).read_text() == before
    assert authority.server_certificate([*hosts, "one.more"]).read_text() != before
