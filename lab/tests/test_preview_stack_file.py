"""A stack file for the lab's API: only endpoints, credentials and secrets differ from the original."""

from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lab.preview.placeholder_certificate import trusting
from lab.preview.stack_file import (
    PLACEHOLDER,
    PLACEHOLDER_PUBLIC_KEY,
    ciphertexts,
    existing,
    for_the_lab,
    placeholder_key,
    read,
)
from lab.workspace import ROOT, LabError
from validation import certificates
from validation.ssh_keys import pair_problems, private_key, public_key
from validation.values import root_password

API = "http://127.0.0.1:7777"
PROJECT = {
    "name": "gitlab",
    "config": {
        "sshPublicKey": {"type": "string"},
        "sshPrivateKey": {"type": "string", "secret": True},
        "amiId": {"type": "string", "default": ""},
        "serverDataVolumeSize": {"type": "integer", "default": 100},
    },
}
LAB = {"config": {"aws:region": "us-east-1", "aws:accessKey": "lab", "aws:endpoints": [{"ec2": "x", "sts": "x"}]}}
PUBLIC_KEY = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())["config"]["gitlab:sshPublicKey"]


def made(**config):
    given = {key.replace("__", ":"): value for key, value in config.items()}
    return for_the_lab({"config": given}, PROJECT, LAB, API)


def test_the_region_stays_and_who_one_is_does_not():
    values = made(
        aws__region="eu-central-1",
        aws__profile="work",
        aws__assumeRoles=[{"roleArn": "arn"}],
        aws__allowedAccountIds=["123456789012"],
        aws__defaultTags={"tags": {"Owner": "me"}},
    ).values
    assert values["aws:region"] == "eu-central-1"
    assert values["aws:defaultTags"] == {"tags": {"Owner": "me"}}
    assert values["aws:accessKey"] == "lab"
    assert values["aws:endpoints"] == [{"ec2": API, "sts": API}]
    assert not {"aws:profile", "aws:assumeRoles", "aws:allowedAccountIds"} & set(values)


def test_a_secret_that_is_encrypted_or_missing_has_a_placeholder_and_says_why():
    made_file = made(gitlab__smtpPassword={"secure": "v1:abc"}, gitlab__sshPublicKey=PUBLIC_KEY)
    assert made_file.secrets == {
        "gitlab:smtpPassword": "encrypted",
        "gitlab:sshPrivateKey": "not in the stack file",
    }
    assert made_file.values["gitlab:smtpPassword"] == PLACEHOLDER
    assert "v1:abc" not in str(made_file)


def test_a_secret_inside_a_structure_is_replaced_where_it_is():
    made_file = made(gitlab__things=[{"name": "a", "value": {"secure": "v1:abc"}}])
    assert made_file.values["gitlab:things"] == [{"name": "a", "value": PLACEHOLDER}]
    assert "gitlab:things" in made_file.secrets


def test_placeholders_are_the_same_every_time_and_pass_the_programs_own_checks():
    assert placeholder_key(PUBLIC_KEY) == placeholder_key(PUBLIC_KEY)
    for public in (PUBLIC_KEY, PLACEHOLDER_PUBLIC_KEY):
        assert private_key(placeholder_key(public))
        assert pair_problems(public_key(public), placeholder_key(public)) == []
    assert pair_problems(PLACEHOLDER_PUBLIC_KEY, placeholder_key(PUBLIC_KEY))
    assert root_password(PLACEHOLDER) == PLACEHOLDER


def test_a_public_key_that_is_none_is_left_for_the_program_to_refuse():
    assert "PRIVATE KEY" in placeholder_key("nothing of the kind")


def test_texts_are_as_the_engine_hands_them_over_with_the_projects_defaults():
    texts = made(gitlab__flag=True, gitlab__cidrs=["a", "b"], gitlab__size=3, plain="x").texts()
    assert texts["gitlab:flag"] == "true"
    assert texts["gitlab:cidrs"] == '["a", "b"]'
    assert texts["gitlab:size"] == "3"
    assert texts["gitlab:plain"] == "x"
    assert texts["gitlab:serverDataVolumeSize"] == "100"


def test_ciphertexts_can_be_compared_without_being_read():
    given = {"config": {"smtpPassword": {"secure": "v1:a"}, "gitlab:region": "x"}}
    assert ciphertexts(given, "gitlab") == {"gitlab:smtpPassword": {"secure": "v1:a"}}


@pytest.mark.parametrize(
    ("domains", "zone"),
    [
        (["git.example.com"], "git.example.com"),
        (["git.example.com", "gitlab.example.com"], "example.com"),
        (["git.example.com", "example.com"], "example.com"),
    ],
)
def test_a_hosted_zone_holds_the_domain_before_a_change_and_after_it(domains, zone):
    stack_files = [made(gitlab__domain=domain, gitlab__hostedZoneId="Z1") for domain in domains]
    assert existing(*stack_files, stack="dev")["hosted_zones"] == [{"id": "Z1", "name": zone}]


def test_what_the_settings_name_is_taken_to_be_there():
    found = existing(
        made(
            aws__region="eu-central-1",
            gitlab__amiId="ami-1",
            gitlab__availabilityZone="eu-central-1a",
            gitlab__serverDataVolumeId="vol-1",
            gitlab__registryDataSnapshotId="snap-2",
            gitlab__balancerAddressId="eipalloc-1",
            gitlab__domain="git.example.com",
            gitlab__hostedZoneId="Z1",
            gitlab__certificateArn="arn:aws:acm:eu-central-1:1:certificate/1",
        ),
        stack="dev",
    )
    assert found == {
        "regions": ["eu-central-1"],
        "images": ["ami-1"],
        "addresses": ["eipalloc-1"],
        "volumes": [
            {"id": "vol-1", "size": 100, "zone": "eu-central-1a"},
            {
                "id": "vol-2",
                "size": 0,
                "zone": "eu-central-1a",
                "snapshot": "snap-2",
                "tags": {"Name": "registry-data-dev"},
            },
        ],
        "hosted_zones": [{"id": "Z1", "name": "git.example.com"}],
        "certificates": [{"arn": "arn:aws:acm:eu-central-1:1:certificate/1", "names": ["git.example.com"]}],
    }


OWN = {
    "gitlab__domain": "git.example.com",
    "gitlab__certificatePem": "-----BEGIN CERTIFICATE-----",
    "gitlab__certificateKeyPem": {"secure": "v1:abc"},
}


def certificate(made_file):
    return x509.load_pem_x509_certificate(made_file.values["gitlab:certificatePem"].encode())


def test_a_certificate_whose_key_cannot_be_read_has_a_placeholder_for_the_same_domain_with_its_own_key():
    made_file = made(**OWN)
    key = serialization.load_pem_private_key(made_file.values["gitlab:certificateKeyPem"].encode(), None)
    assert certificate(made_file).public_key() == key.public_key()
    names = certificate(made_file).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["git.example.com"]
    assert made_file.has_placeholder_certificate
    assert "gitlab:certificateAuthority" not in made_file.values


@pytest.mark.parametrize("domain", ["git.example.com", "x" * 60 + ".example.com", "https://Git", "", "é.example"])
def test_a_placeholder_certificate_passes_the_programs_own_checks(domain):
    given = {"gitlab__domain": domain, "gitlab__certificateAuthority": "-----BEGIN CERTIFICATE-----"}
    made_file = made(**{**OWN, **given})
    assert made_file.secrets["gitlab:certificateKeyPem"] == "encrypted"
    pem, key, trusted = (
        made_file.values[f"gitlab:{each}"] for each in ("certificatePem", "certificateKeyPem", "certificateAuthority")
    )
    name = domain if domain.endswith(".com") else "placeholder.example.com"
    certificates.check(certificates.certificate(pem), certificates.private_key(key), trusted, name)
    assert certificates.warnings(pem, trusted) == []


def test_an_own_authority_has_a_placeholder_that_issued_the_certificate(tmp_path):
    made_file = made(**OWN, gitlab__certificateAuthority="-----BEGIN CERTIFICATE-----")
    authority = made_file.values["gitlab:certificateAuthority"]
    certificate(made_file).verify_directly_issued_by(x509.load_pem_x509_certificate(authority.encode()))
    assert Path(trusting(tmp_path)["SSL_CERT_FILE"]).read_text() == authority


def test_placeholder_certificates_are_the_same_every_time_and_differ_where_the_certificate_does():
    assert made(**OWN).values == made(**OWN).values
    other = made(**{**OWN, "gitlab__certificatePem": 2 * "-----BEGIN CERTIFICATE-----"})
    assert certificate(other) != certificate(made(**OWN))
    assert len(x509.load_pem_x509_certificates(other.values["gitlab:certificatePem"].encode())) == 2


def test_a_certificate_whose_key_can_be_read_stays():
    made_file = made(**{**OWN, "gitlab__certificateKeyPem": "key"})
    assert made_file.values["gitlab:certificatePem"] == OWN["gitlab__certificatePem"]
    assert not made_file.has_placeholder_certificate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "Pulumi.dev.yaml does not exist in"),
        ("config: ]", "Pulumi.dev.yaml cannot be read: .* line 1"),
        ("- a list", "Pulumi.dev.yaml is not a stack file"),
        ("config: text", "Pulumi.dev.yaml is not a stack file"),
    ],
)
def test_a_stack_file_that_is_broken_is_refused_by_its_name(tmp_path, text, message):
    file = tmp_path / "Pulumi.dev.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(LabError, match=message):
        read(file)
