"""Certificates: requested, imported and in use."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from moto import mock_aws

from lab import authority
from lab.cloud import certificates, dns
from lab.cloud.patches import state
from lab.cloud.patches.certificates import validation_record
from lab.tests.cloud import client, refused

DOMAIN = "git.example.com"


@pytest.fixture
def acm(monkeypatch):
    monkeypatch.setattr(state, "validation_delay", datetime.timedelta())
    with mock_aws():
        dns.PLANTED.clear()
        yield client("acm")
    dns.PLANTED.clear()


def request(acm, domain=DOMAIN, **more):
    return acm.request_certificate(DomainName=domain, ValidationMethod="DNS", **more)["CertificateArn"]


def described(acm, arn):
    return acm.describe_certificate(CertificateArn=arn)["Certificate"]


def records(acm, arn):
    return [option["ResourceRecord"] for option in described(acm, arn)["DomainValidationOptions"]]


def plant(record):
    dns.PLANTED.add(name=record["Name"], type=record["Type"], value=record["Value"])


# --- requested certificates ------------------------------------------------------------------------------


def test_a_certificate_is_issued_once_its_record_is_in_dns_and_not_before(acm):
    arn = request(acm)
    pending = described(acm, arn)
    assert pending["Status"] == "PENDING_VALIDATION"
    assert not {"IssuedAt", "NotAfter", "NotBefore", "Serial"} & set(pending)
    refused("RequestInProgressException", acm.get_certificate, CertificateArn=arn)
    plant(records(acm, arn)[0])
    issued = described(acm, arn)
    assert (issued["Status"], issued["DomainName"]) == ("ISSUED", DOMAIN)
    assert issued["DomainValidationOptions"][0]["ValidationStatus"] == "SUCCESS"
    lifetime = issued["NotAfter"] - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=197) < lifetime <= datetime.timedelta(days=certificates.VALID_DAYS)
    read = x509.load_pem_x509_certificate(acm.get_certificate(CertificateArn=arn)["Certificate"].encode())
    read.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.LAB.certificate().read_bytes()))


def test_a_wrong_value_of_the_record_does_not_validate(acm):
    arn = request(acm)
    plant({**records(acm, arn)[0], "Value": "_something-else.acm-validations.aws."})
    assert described(acm, arn)["Status"] == "PENDING_VALIDATION"


def test_a_record_in_a_private_zone_does_not_validate(acm):
    arn = request(acm)
    route53 = client("route53")
    private = {"HostedZoneConfig": {"PrivateZone": True}, "VPC": {"VPCRegion": "eu-central-1", "VPCId": "vpc-1"}}
    zone = route53.create_hosted_zone(Name="example.com.", CallerReference="1", **private)["HostedZone"]["Id"]
    record = records(acm, arn)[0]
    made = {"Name": record["Name"], "Type": "CNAME", "TTL": 60, "ResourceRecords": [{"Value": record["Value"]}]}
    changes = {"Changes": [{"Action": "CREATE", "ResourceRecordSet": made}]}
    route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=changes)
    assert described(acm, arn)["Status"] == "PENDING_VALIDATION"


def test_every_name_has_its_own_record_and_all_of_them_are_needed(acm):
    arn = request(acm, SubjectAlternativeNames=["registry.example.com"])
    first, second = records(acm, arn)
    assert first["Name"] != second["Name"]
    plant(first)
    assert described(acm, arn)["Status"] == "PENDING_VALIDATION"
    plant(second)
    assert described(acm, arn)["Status"] == "ISSUED"


def test_the_same_domain_always_gets_the_same_record(acm):
    assert records(acm, request(acm)) == records(acm, request(acm))
    assert records(acm, request(acm)) != records(acm, request(acm, "other.example.com"))
    assert validation_record("1", f"*.{DOMAIN}") == validation_record("1", DOMAIN) != validation_record("2", DOMAIN)


def test_a_certificate_is_issued_a_while_after_its_record_was_found(acm, monkeypatch):
    monkeypatch.setattr(state, "validation_delay", datetime.timedelta(minutes=1))
    arn = request(acm)
    plant(records(acm, arn)[0])
    assert described(acm, arn)["Status"] == "PENDING_VALIDATION"
    certificates.find(arn).found_at -= datetime.timedelta(minutes=1)
    assert described(acm, arn)["Status"] == "ISSUED"


def test_validation_is_given_up_after_three_days(acm):
    arn = request(acm)
    certificates.find(arn).created_at -= datetime.timedelta(hours=73)
    assert described(acm, arn)["Status"] == "VALIDATION_TIMED_OUT"


def test_the_load_balancers_material_is_the_certificate_its_chain_and_its_key(acm):
    arn = request(acm)
    parts = certificates.material(arn)
    first, second = x509.load_pem_x509_certificates(parts.encode())
    first.verify_directly_issued_by(second)
    key = serialization.load_pem_private_key(certificates.find(arn).key, None)
    assert first.public_key() == key.public_key()
    assert parts.endswith("-----END PRIVATE KEY-----\n")
    with pytest.raises(KeyError):
        certificates.material(f"{arn}0")


# --- imported certificates -------------------------------------------------------------------------------

RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
CURVE = ec.generate_private_key(ec.SECP256R1())


SERVER, CLIENT, MAIL = (
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.EMAIL_PROTECTION,
)


def common_name(name):
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def signed(key, *, by=None, subject=DOMAIN, issuer=None, days=1, purposes=()):
    now = datetime.datetime.now(datetime.UTC)
    start = now - datetime.timedelta(days=2)
    made = x509.CertificateBuilder(
        common_name(issuer or subject),
        common_name(subject),
        key.public_key(),
        1,
        start,
        now + datetime.timedelta(days=days),
    )
    if purposes:
        made = made.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return made.sign(by or key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def pem(key):
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


LEAF = signed(RSA, by=OTHER_RSA, issuer="authority")
AUTHORITY = signed(OTHER_RSA, subject="authority")
SELF_SIGNED = signed(RSA)
OWN = {"Certificate": SELF_SIGNED, "PrivateKey": pem(RSA)}


def test_a_certificate_with_its_chain_is_imported_and_so_is_one_that_has_signed_itself(acm):
    for given in (OWN, {**OWN, "Certificate": LEAF, "CertificateChain": AUTHORITY}):
        arn = acm.import_certificate(**given)["CertificateArn"]
        assert (described(acm, arn)["Status"], described(acm, arn)["Type"]) == ("ISSUED", "IMPORTED")
    assert certificates.material(arn).encode() == LEAF + AUTHORITY + pem(RSA)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Certificate": b"nothing of the kind"}, "not PEM-encoded"),
        ({"PrivateKey": b"nothing of the kind"}, "not PEM-encoded"),
        ({"Certificate": LEAF + AUTHORITY}, "more than one certificate"),
        ({"PrivateKey": pem(OTHER_RSA)}, "does not match"),
        ({"PrivateKey": pem(RSA) + b"\n" * 5120}, "no larger than 5 KB"),
        ({"Certificate": LEAF}, "not a valid self signed"),
        ({"Certificate": LEAF, "CertificateChain": b"nothing of the kind"}, "not PEM-encoded"),
        ({"Certificate": LEAF, "CertificateChain": SELF_SIGNED}, "Could not validate"),
        ({"Certificate": LEAF, "CertificateChain": AUTHORITY + SELF_SIGNED}, "within the chain .* is: 1"),
        ({"Certificate": signed(RSA, days=-1)}, "expired"),
        (
            {
                "Certificate": signed(RSA, by=CURVE, issuer="authority"),
                "CertificateChain": signed(CURVE, subject="authority"),
            },
            "must match the algorithm of the signing CA",
        ),
        ({"Certificate": signed(k := ec.generate_private_key(ec.SECP256K1())), "PrivateKey": pem(k)}, "not supported"),
    ],
)
def test_an_import_that_does_not_fit_together_is_refused(acm, given, message):
    with pytest.raises(acm.exceptions.ClientError, match=message) as error:
        acm.import_certificate(**{**OWN, **given})
    assert error.value.response["Error"]["Code"] == "ValidationException"
    assert acm.list_certificates()["CertificateSummaryList"] == []


def test_an_import_to_an_arn_replaces_the_certificate_and_nothing_else(acm):
    tags = [{"Key": "k", "Value": "v"}]
    arn = acm.import_certificate(Tags=tags, **OWN)["CertificateArn"]
    renewed = {"Certificate": signed(OTHER_RSA), "PrivateKey": pem(OTHER_RSA)}
    assert acm.import_certificate(CertificateArn=arn, **renewed)["CertificateArn"] == arn
    assert certificates.material(arn).encode() == renewed["Certificate"] + renewed["PrivateKey"]
    assert acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == tags


def test_imports_to_an_arn_that_are_refused_change_nothing(acm):
    arn = acm.import_certificate(**OWN)["CertificateArn"]
    before = certificates.material(arn)
    other_type = {"Certificate": signed(CURVE), "PrivateKey": pem(CURVE)}
    refused("ValidationException", acm.import_certificate, CertificateArn=arn, **other_type)
    refused("ValidationException", acm.import_certificate, CertificateArn=arn, Tags=[{"Key": "k"}], **OWN)
    refused("ValidationException", acm.import_certificate, CertificateArn=request(acm), **OWN)
    refused("ResourceNotFoundException", acm.import_certificate, CertificateArn=f"{arn}0", **OWN)
    assert certificates.material(arn) == before


@pytest.mark.parametrize(
    ("before", "after", "taken"),
    [
        ([SERVER], [SERVER], True),
        ([SERVER], [SERVER, MAIL], True),
        ([SERVER, CLIENT], [SERVER], True),
        ([SERVER, MAIL], [SERVER], False),
        ([], [SERVER], False),
    ],
    ids=["the same", "one more", "without clients", "one less", "the first"],
)
def test_an_import_to_an_arn_keeps_the_usages_of_the_key(acm, before, after, taken):
    arn = acm.import_certificate(Certificate=signed(RSA, purposes=before), PrivateKey=pem(RSA))["CertificateArn"]
    given = {"CertificateArn": arn, "Certificate": signed(OTHER_RSA, purposes=after), "PrivateKey": pem(OTHER_RSA)}
    if taken:
        assert acm.import_certificate(**given)["CertificateArn"] == arn
    else:
        refused("ValidationException", acm.import_certificate, **given)


def test_certificates_with_other_keys_are_listed_on_request_only(acm):
    arn = acm.import_certificate(Certificate=signed(CURVE), PrivateKey=pem(CURVE))["CertificateArn"]
    assert acm.list_certificates()["CertificateSummaryList"] == []
    [listed] = acm.list_certificates(Includes={"keyTypes": ["EC_prime256v1"]})["CertificateSummaryList"]
    assert listed["CertificateArn"] == arn


# --- in use ----------------------------------------------------------------------------------------------


def test_a_certificate_in_use_names_its_load_balancer_and_is_deleted_only_afterwards(cloud):
    acm = client("acm")
    arn = acm.import_certificate(**OWN)["CertificateArn"]
    balancer = cloud.balancer()["LoadBalancerArn"]
    forward = [{"Type": "forward", "TargetGroupArn": cloud.target_group()}]
    made = {"Protocol": "TLS", "DefaultActions": forward, "Certificates": [{"CertificateArn": arn}]}
    listeners = [
        cloud.elb.create_listener(LoadBalancerArn=balancer, Port=port, **made)["Listeners"][0]["ListenerArn"]
        for port in (443, 5000)
    ]
    assert described(acm, arn)["InUseBy"] == [balancer]
    for listener in listeners:
        refused("ResourceInUseException", acm.delete_certificate, CertificateArn=arn)
        cloud.elb.delete_listener(ListenerArn=listener)
    assert described(acm, arn)["InUseBy"] == []
    acm.delete_certificate(CertificateArn=arn)
    refused("ResourceNotFoundException", acm.delete_certificate, CertificateArn=arn)
