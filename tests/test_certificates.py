"""The domain's own certificate: what a client would reject is refused before anything is created."""

import re
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from settings import SettingsError
from tests.certificates import CLIENT, DOMAIN, authority, issue
from tests.conftest import openssh_pair
from tests.engine import SECRET_KEYS
from tests.test_settings import CERTIFICATE as ARN
from tests.test_settings import NEWEST, load
from validation import certificates
from validation.certificates import KEY_TYPES, LARGEST_CERTIFICATE, chain, parse

ROOT = authority("Example authority")
OTHER = authority("Another authority")
MIDDLE = issue("Intermediate", ROOT, is_authority=True)
GOOD = issue(issuer=ROOT)
BELOW = issue(issuer=MIDDLE)
RSA = rsa.generate_private_key(65537, 2048)
PKCS1 = serialization.PrivateFormat.TraditionalOpenSSL
OLD = issue("Old", is_authority=True, days=(-9, -1))
WEAK = issue("Weak", key=rsa.generate_private_key(65537, 1024), is_authority=True)
# Of a public key any odd number is accepted, and the primes of a real one take seconds to find.
LARGE = SimpleNamespace(public_key=rsa.RSAPublicNumbers(65537, 2**4095 + 1).public_key)
LONG = f"{'x' * 53}.example.com"
REQUEST = GOOD.pem.replace(" CERTIFICATE", " CERTIFICATE REQUEST")


def with_key(private) -> dict[str, str]:
    return issue(issuer=ROOT, key=private).settings(authority=ROOT)


def corrupt(pem: str) -> str:
    """The PEM text with other bytes in the middle: valid base64, but no longer what it was."""
    first, *lines, last = pem.splitlines()
    return "\n".join([first, *("A" * len(line) for line in lines), last])


GIVEN = GOOD.settings(authority=ROOT)
REFUSED = [
    # The certificate and the domain.
    ("certificatePem", issue(issuer=ROOT, names=["www.example.com", "b.example.com"]).settings(authority=ROOT),
     "is not for domain 'git.example.com', but for www.example.com, b.example.com", "or set domain to a name of this"),
    ("certificatePem", issue(issuer=ROOT, names=[]).settings(authority=ROOT),
     "is not for domain 'git.example.com', but for no name", "among its subject alternative names"),
    ("certificatePem", issue(issuer=ROOT, names=["*.example.com"]).settings(authority=ROOT, domain="a.b.example.com"),
     "is not for domain 'a.b.example.com', but for *.example.com", "Use a certificate with the domain"),
    # Its validity.
    ("certificatePem", issue(issuer=ROOT, days=(-30, -1)).settings(authority=ROOT), "expired on 20",
     "Renew it, and set"),
    ("certificatePem", issue(issuer=ROOT, days=(2, 30)).settings(authority=ROOT), "is valid only from 20",
     "or correct this machine's clock"),
    ("certificateAuthority", issue(issuer=OLD).settings(authority=OLD),
     "a certificate that issued the domain's has expired", "Have the domain's certificate issued again"),
    # Its issuers.
    ("certificatePem", GOOD.settings(), "is not issued by a public authority that this machine trusts",
     "set certificateAuthority to the root"),
    ("certificatePem", issue().settings(), "is not issued by a public authority", "or it is self-signed"),
    ("certificateAuthority", GOOD.settings(authority=OTHER), "did not issue the certificate in certificatePem",
     "Set the authority's root"),
    ("certificateAuthority", BELOW.settings(authority=ROOT), "did not issue the certificate in certificatePem",
     "append intermediate certificates to certificatePem"),
    ("certificateAuthority", BELOW.settings(authority=MIDDLE), "did not issue", "Set the authority's root"),
    ("certificatePem", {**BELOW.settings(MIDDLE, authority=ROOT), "certificatePem": MIDDLE.pem + BELOW.pem},
     "one of its certificates did not issue the one before it", "Put the domain's certificate first"),
    ("certificatePem", BELOW.settings(ROOT, MIDDLE, authority=ROOT), "did not issue the one before it",
     "then the one that issued it, and so on"),
    ("certificatePem", GOOD.settings(OTHER, authority=ROOT), "did not issue the one before it", "Put the domain's"),
    ("certificatePem", issue(issuer=ROOT, usage=CLIENT).settings(authority=ROOT), "is rejected by clients: ",
     "Have another certificate issued"),
    ("certificatePem", issue(issuer=WEAK).settings(authority=WEAK),
     "is rejected by clients: CA certificate key too weak", "Have another certificate issued"),
    # Its key.
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": OTHER.key_pem}, "is not the key of the first certificate",
     "Set both from the same pair"),
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": issue(key=RSA).key_pem},
     "is not the key of the first certificate", "Set both from the same pair"),
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": corrupt(GOOD.key_pem)}, "is corrupt: OpenSSL cannot use it",
     "pulumi config set --secret certificateKeyPem < KEY"),
    ("certificatePem", with_key(rsa.generate_private_key(65537, 1024)), "its key is RSA 1024",
     "Create another key, and have a certificate issued"),
    ("certificatePem", {**GIVEN, "certificatePem": issue(issuer=ROOT, key=LARGE).pem}, "its key is RSA 4096",
     "a Network Load Balancer supports only RSA 2048, RSA 3072, ECDSA"),
    ("certificatePem", with_key(ec.generate_private_key(ec.SECP256K1())), "its key is ECDSA with another curve",
     "ECDSA P-256, ECDSA P-384, ECDSA P-521."),
    ("certificatePem", with_key(ed25519.Ed25519PrivateKey.generate()), "its key is neither RSA nor ECDSA",
     "supports only RSA 2048"),
    # The key as a text.
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": GOOD.key_as(serialization.PrivateFormat.PKCS8, b"secret")},
     "is protected by a passphrase", "Remove it: openssl pkey"),
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": GOOD.key_as(PKCS1, b"secret")}, "is protected by a passphrase",
     "Remove it: openssl pkey"),
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": GOOD.pem}, "contains a certificate", "into certificatePem"),
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": GOOD.key_pem + GOOD.pem}, "contains a certificate",
     "which belongs into certificatePem"),
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": GOOD.key_pem * 2}, "exactly one private key",
     "Set it from the file"),
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": openssh_pair()[1]}, "is not the private key of a certificate",
     "Set it from the file"),
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": GOOD.key_pem[:100]}, "is incomplete: a BEGIN line",
     "Set it from the file"),
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": "hunter2"}, "is not in PEM format", "Set it from the file"),
    ("certificateKeyPem",
     {**GIVEN, "certificateKeyPem": certificates._pem("PRIVATE KEY", bytes(certificates.LARGEST_KEY))},
     "bytes, and ACM imports 5120 at most", "Remove what is not needed"),
    # The certificates as texts.
    ("certificatePem", {**GIVEN, "certificatePem": GOOD.key_pem}, "(hidden) contains a private key",
     "pulumi config set --secret certificateKeyPem < KEY"),
    ("certificatePem", {**GIVEN, "certificatePem": GOOD.pem + GOOD.key_pem}, "(hidden) contains a private key",
     "Set the certificates alone"),
    ("certificateAuthority", {**GIVEN, "certificateAuthority": ROOT.pem + ROOT.key_pem},
     "(hidden) contains a private key", "Set the certificates alone"),
    ("certificatePem", {**GIVEN, "certificatePem": "git.crt"}, "(hidden) is not in PEM format",
     "pulumi config set certificatePem < FILE"),
    ("certificatePem", {**GIVEN, "certificatePem": GOOD.pem[:-30]}, "is incomplete: a BEGIN line", "from the file"),
    ("certificatePem", {**GIVEN, "certificatePem": GOOD.pem.replace("M", "!", 1)}, "its body is not base64",
     "Set it from the file"),
    ("certificatePem", {**GIVEN, "certificatePem": corrupt(GOOD.pem)}, "is corrupt: OpenSSL cannot read it",
     "Set it from the file"),
    ("certificatePem", {**GIVEN, "certificatePem": REQUEST}, "contains a request for a certificate",
     "Set the certificate that was issued for it"),
    ("certificatePem", {**GIVEN, "certificatePem": GOOD.pem * 60}, f"ACM imports {LARGEST_CERTIFICATE} at most",
     "Remove what is not needed"),
    ("certificateAuthority", {**GIVEN, "certificateAuthority": "/etc/ca.crt"}, "(hidden) is not in PEM format",
     "pulumi config set certificateAuthority < FILE"),
    ("certificateAuthority", {**GIVEN, "certificateAuthority": corrupt(ROOT.pem)}, "is corrupt", "from the file"),
    # The keys together.
    ("certificatePem", {**GIVEN, "certificateArn": ARN}, "set, and so is certificateArn", "Remove one"),
    ("certificateKeyPem", {**GIVEN, "certificateKeyPem": None}, "missing, but certificatePem is set",
     "pulumi config set --secret certificateKeyPem < KEY"),
    ("certificatePem", {**GOOD.settings(), "certificatePem": None}, "missing, but certificateKeyPem is set",
     "pulumi config set certificatePem < CERTIFICATE"),
    ("domain", {**GIVEN, "domain": None}, "missing, but certificatePem is set", "Set the domain that the certificate"),
    ("domain", {"certificateArn": ARN}, "missing, but certificateArn is set", "Set the domain that the certificate"),
    ("certificateAuthority", {"domain": DOMAIN, "certificateAuthority": ROOT.pem},
     "set without certificateArn or certificatePem", "Remove it: a certificate that the program requests"),
    ("certificateAuthority", {"certificateAuthority": ROOT.pem}, "set without certificateArn", "Remove it"),
    ("plainHttp", {"domain": DOMAIN, "plainHttp": True, "certificateArn": ARN}, "true, but certificateArn is set",
     "Remove one"),
    ("plainHttp", {**GIVEN, "plainHttp": True}, "true, but certificatePem is set", "Remove one"),
    ("plainHttp", {"plainHttp": True}, "true, but domain is missing", "Remove it"),
    ("acceptPlainHttpAfterTls", {"domain": DOMAIN, "acceptPlainHttpAfterTls": True}, "but the stack serves TLS",
     "Remove it"),
    ("domain", {"domain": LONG}, "has 65 characters, and ACM issues certificates for 64",
     "Use a shorter name, or set certificatePem"),
    ("clientCidrs", {"clientCidrs": ["0.0.0.0/0"], "domain": DOMAIN, "plainHttp": True}, "without TLS would send",
     "or remove plainHttp"),
]  # fmt: skip


def refusals(**changes) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load(**changes)
    return str(refused.value).splitlines()[1:]


@pytest.mark.parametrize(
    ("key", "changes", "problem", "remedy"),
    REFUSED,
    ids=[f"{number} {row[0]}: {row[2]}" for number, row in enumerate(REFUSED)],
)
def test_what_a_client_or_aws_would_reject_is_refused_with_its_cause_and_remedy(key, changes, problem, remedy):
    [line] = refusals(**changes)
    assert line.startswith(f"- {key}: ")
    assert problem in line
    assert remedy in line
    assert line.endswith((".", "< KEY", "< CERTIFICATE"))
    secrets = [each for row in (GOOD.key_pem, GOOD.pem, ROOT.key_pem) for each in row.splitlines()[1:-1]]
    assert not [secret for secret in (*secrets, "hunter2") if secret[:20] in line]


@pytest.mark.parametrize(
    "changes",
    [
        GIVEN,
        BELOW.settings(MIDDLE, authority=ROOT),
        BELOW.settings(MIDDLE, ROOT, authority=ROOT),
        {**BELOW.settings(), "certificateAuthority": ROOT.pem + OTHER.pem + MIDDLE.pem},
        (alone := issue()).settings(authority=alone),
        issue(issuer=ROOT, names=["*.example.com"]).settings(authority=ROOT),
        issue(issuer=ROOT, names=[LONG]).settings(authority=ROOT, domain=LONG),
        {"domain": DOMAIN, "certificateArn": ARN, "certificateAuthority": ROOT.pem},
        {"domain": LONG, "certificateArn": ARN},
        {"domain": LONG[1:]},
    ],
    ids=range(10),
)
def test_a_certificate_that_clients_and_aws_accept_is_taken(changes):
    settings = load(**changes)
    assert settings.serves_tls
    assert settings.requests_certificate == ({"domain"} == set(changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"acceptPlainHttpAfterTls": True},
        {"domain": DOMAIN, "plainHttp": True},
        {"domain": LONG, "plainHttp": True, "acceptPlainHttpAfterTls": True, "hostedZoneId": "Z1"},
    ],
)
def test_plain_http_is_warned_of_with_the_setting_that_ends_it(changes):
    settings = load(**changes, gitlabVersion=NEWEST)
    assert not settings.serves_tls
    [warning] = settings.warnings
    end = "plainHttp: true" if "plainHttp" in changes else "domain: missing"
    assert warning.startswith(f"{end}, so passwords, tokens and images are sent unencrypted. ")
    assert warning.endswith(f"{'Remove plainHttp' if 'plainHttp' in changes else 'Set domain'} to serve only TLS.")


@pytest.mark.parametrize(
    ("private", "described"),
    [
        (RSA, "RSA 2048"),
        (rsa.generate_private_key(65537, 3072), "RSA 3072"),
        (ec.generate_private_key(ec.SECP256R1()), "ECDSA P-256"),
        (ec.generate_private_key(ec.SECP384R1()), "ECDSA P-384"),
        (ec.generate_private_key(ec.SECP521R1()), "ECDSA P-521"),
    ],
)
def test_a_key_of_every_type_that_a_network_load_balancer_supports_is_taken(private, described):
    settings = load(**with_key(private))
    assert settings.certificate_pem
    assert [each.key for each in parse(settings.certificate_pem)] == [described]
    assert described in KEY_TYPES


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", " "),
        lambda text: f"\n\n  {text}  \n",
        lambda text: f"Bag Attributes\n    friendlyName: git\n{text}# end",
        lambda text: "\n".join(f"    {line}" for line in text.splitlines()),
    ],
)
def test_line_ends_and_comments_do_not_count_so_that_they_change_no_resource(change):
    settings = load(
        domain=DOMAIN,
        certificatePem=change(GOOD.pem),
        certificateKeyPem=change(GOOD.key_pem),
        certificateAuthority=change(ROOT.pem),
    )
    assert settings.certificate_pem == GOOD.pem
    assert settings.certificate_key_pem == GOOD.key_pem
    assert settings.certificate_authority == ROOT.pem


PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


@pytest.mark.parametrize("private", [GOOD.key, RSA])
@pytest.mark.parametrize("before", ["", PARAMETERS])
def test_a_key_may_have_the_older_formats_of_openssl(private, before):
    given = issue(issuer=ROOT, key=private)
    text = given.key_as(PKCS1)
    assert text.startswith(("-----BEGIN EC PRIVATE", "-----BEGIN RSA PRIVATE"))
    settings = load(**given.settings(authority=ROOT, certificateKeyPem=before + text))
    assert settings.certificate_key_pem == text


def test_without_an_authority_this_machines_public_ones_are_trusted(tmp_path, monkeypatch):
    (tmp_path / "public.pem").write_text(ROOT.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "public.pem"))
    assert load(**BELOW.settings(MIDDLE)).serves_tls
    [line] = refusals(**BELOW.settings())
    assert "Append the intermediate certificates" in line
    # Only the authority of the setting is trusted if there is one.
    assert refusals(**BELOW.settings(MIDDLE, authority=OTHER))[0].startswith("- certificateAuthority: did not issue")


def key_usage(*, enciphers: bool) -> x509.KeyUsage:
    others = ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign")
    never = dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=True, key_encipherment=enciphers, **never)


def usages(**changes) -> tuple[str, ...]:
    return parse(issue(issuer=ROOT, **changes).pem)[0].usages


def test_the_usages_of_a_key_are_those_that_an_import_to_the_same_arn_may_not_change():
    """AWS Certificate Manager, "Reimport a certificate": client authentication and, of ECDSA, encipherment may go."""
    server = "purpose 2b06010505070301"
    assert usages() == (server,)
    assert usages(usage=CLIENT) == ()
    enciphers = [key_usage(enciphers=True)]
    assert usages(key=RSA, more=enciphers) == (server, "usage 0", "usage 2")
    assert usages(more=enciphers) == usages(more=[key_usage(enciphers=False)]) == (server, "usage 0")
    assert parse(ROOT.pem)[0].usages == ()


def test_an_authority_with_another_algorithm_is_warned_of():
    other = issue("RSA", key=RSA, is_authority=True)
    below = issue("RSA below", other, key=RSA, is_authority=True)
    for given in (issue(issuer=other).settings(authority=other), issue(issuer=below).settings(below, authority=other)):
        [warning] = load(**given, gitlabVersion=NEWEST).warnings
        assert warning.startswith(
            "certificatePem: its key is ECDSA P-256, but that of its authority RSA 2048, and ACM imports only a"
        )


@pytest.mark.parametrize(("days", "warned"), [(30.5, False), (29.5, True), (0.5, True)])
def test_a_certificate_that_ends_soon_is_warned_of_and_so_is_one_of_an_issuer(days, warned):
    middle = issue("Short", ROOT, is_authority=True, days=(-1, days))
    for changes in (
        issue(issuer=ROOT, days=(-1, days)).settings(authority=ROOT),
        issue(issuer=middle).settings(middle, authority=ROOT),
    ):
        warnings = load(**changes, gitlabVersion=NEWEST).warnings
        assert len(warnings) == warned
        for line in warnings:
            assert re.match(rf"certificatePem: expires on 20..-..-.., in {int(days)} days\. Renew it, and set ", line)


def test_the_key_must_be_encrypted_in_the_stacks_file_and_is_not_shown():
    remedy = "- certificateKeyPem: stored in plain text. Store it again with: pulumi config set --secret"
    [line] = refusals(secret_keys=set(SECRET_KEYS) - {"certificateKeyPem"}, **GIVEN)
    assert line.startswith(remedy)
    shown = repr(load(**GIVEN))
    assert "PRIVATE KEY" not in shown
    assert load(secret_keys={*SECRET_KEYS, "certificatePem", "certificateAuthority"}, **GIVEN).serves_tls


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_no_key_is_written_to_a_disk_and_no_descriptor_stays_open(platform, monkeypatch):
    opened: list[str] = []
    load_chain = ssl.SSLContext.load_cert_chain

    def recorded(context, *paths):
        opened.extend(paths)
        load_chain(context, *paths)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", recorded)
    before = set(Path("/dev/fd").iterdir())
    monkeypatch.setattr("sys.platform", platform)
    load(**GIVEN)
    [line] = refusals(**{**GIVEN, "certificateKeyPem": OTHER.key_pem})
    assert line.startswith("- certificateKeyPem: is ")
    monkeypatch.undo()
    assert set(Path("/dev/fd").iterdir()) == before
    assert len(opened) == 4
    assert all(path.startswith("/dev/fd/") for path in opened)


def test_the_chain_for_acm_is_that_of_the_setting_or_of_the_authority_in_the_right_order():
    assert chain(BELOW.pem + MIDDLE.pem, ROOT.pem) == MIDDLE.pem
    assert chain(BELOW.pem, ROOT.pem + OTHER.pem + MIDDLE.pem) == MIDDLE.pem + ROOT.pem
    assert chain(GOOD.pem, ROOT.pem) == ROOT.pem
    assert chain(GOOD.pem, None) is None
    assert chain((alone := issue()).pem, alone.pem) is None
