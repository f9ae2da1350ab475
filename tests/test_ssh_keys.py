"""The administrators' key pair is parsed in every supported format; no part of a private key is ever shown."""

import base64
import functools
import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from settings import SettingsError
from tests.conftest import openssh_pair
from tests.test_settings import load
from validation.private_keys import string as ssh_string

OPENSSH, PKCS1, PKCS8 = PrivateFormat.OpenSSH, PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8

MAKERS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "another ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "another rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "dsa": lambda: dsa.generate_private_key(1024),
}


@functools.cache
def key(kind: str):
    return MAKERS[kind]()


@functools.cache  # OpenSSH's format contains random numbers
def private(kind: str, form: PrivateFormat, passphrase: str = "") -> str:
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return key(kind).private_bytes(Encoding.PEM, form, encryption).decode()


@functools.cache
def public(kind: str) -> str:
    return key(kind).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


FORMS = [("ed25519", OPENSSH), ("ed25519", PKCS8), ("rsa", OPENSSH), ("rsa", PKCS1), ("rsa", PKCS8)]
FORM_NAMES = ["ed25519 OpenSSH", "ed25519 PKCS8", "rsa OpenSSH", "rsa PKCS1", "rsa PKCS8"]
each_form = pytest.mark.parametrize(("kind", "form"), FORMS, ids=FORM_NAMES)


def refusal(**changes) -> str:
    """The error for invalid settings, after checking that it shows no line of a private key."""
    with pytest.raises(SettingsError) as refused:
        load(**changes)
    text = str(refused.value)
    for value in changes.values():
        if "PRIVATE KEY" in str(value):
            shown = [line for line in str(value).split() if len(line) > 12 and line in text]
            assert shown == []
    return text


@each_form
def test_a_key_pair_is_taken_in_each_form_that_works(kind, form):
    settings = load(sshPublicKey=public(kind), sshPrivateKey=private(kind, form))
    assert settings.ssh_private_key == private(kind, form)


@each_form
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "  \n"),
        lambda text: f"\n{text}\n\n",
        lambda text: text.rstrip("\n"),
        lambda text: f"  {text}\t",
    ],
    ids=["CRLF", "blanks at the ends", "blank lines around", "no last line feed", "blanks around"],
)
def test_line_ends_and_blanks_at_ends_of_lines_are_made_what_they_should_be(kind, form, change):
    settings = load(sshPublicKey=f" {public(kind)}\r\n", sshPrivateKey=change(private(kind, form)))
    assert settings.ssh_private_key == private(kind, form)
    assert settings.ssh_public_key == public(kind)


@each_form
def test_a_private_key_of_another_pair_is_refused_in_each_form(kind, form):
    other = {"ed25519": "another ed25519", "rsa": "another rsa"}[kind]
    assert "- sshPublicKey: does not match sshPrivateKey" in refusal(
        sshPublicKey=public(other), sshPrivateKey=private(kind, form)
    )


def cut(text: str, lines: int) -> str:
    """The text with only that many lines of its body."""
    first, *body, last = text.splitlines()
    return "\n".join([first, *body[:lines], last]) + "\n"


def changed(text: str, position: int) -> str:
    """The text with one byte of its body changed."""
    first, *body, last = text.splitlines()
    blob = bytearray(base64.b64decode("".join(body)))
    blob[position] ^= 0xFF
    return "\n".join([first, base64.b64encode(blob).decode(), last]) + "\n"


DAMAGES = {
    "newlines replaced by blanks": (lambda text: text.replace("\n", " "), "has lost its line breaks"),
    "newlines escaped": (lambda text: text.replace("\n", "\\n"), "has lost its line breaks"),
    "newlines removed": (lambda text: text.replace("\n", ""), "has lost its line breaks"),
    "indented": (lambda text: text.replace("\n", "\n  "), "has indented lines"),
    "indented by a tab": (lambda text: text.replace("\n", "\n\t"), "has indented lines"),
    "quoted lines": (lambda text: text.replace("\n", "\n> "), "is incomplete"),
    "no END": (lambda text: text[: text.index("-----END")], "is incomplete"),
    "END of another kind": (lambda text: text.replace("-----END ", "-----END X"), "is incomplete"),
    "no BEGIN": (lambda text: text.partition("\n")[2], "is not a private key in PEM format"),
    "body cut": (lambda text: cut(text, 0).replace("-\n", f"-\n{text.splitlines()[1][:40]}\n", 1), "is corrupt"),
    "last line of the body missing": (lambda text: cut(text, -1), "is corrupt"),
    "no body": (lambda text: cut(text, 0), "is corrupt"),
    "placeholder": (lambda text: cut(text, 0).replace("-\n", "-\nplease fill in\n", 1), "is corrupt"),
    "placeholder in base64": (lambda text: cut(text, 0).replace("-\n", "-\nAAAA\n", 1), "is corrupt"),
    "dots": (lambda text: cut(text, 0).replace("-\n", "-\n...\n", 1), "is corrupt"),
    "a letter outside base64": (lambda text: text.replace("-\n", "-\nü", 1), "is corrupt"),
    "first byte": (lambda text: changed(text, 0), "is corrupt"),
    "two keys": (lambda text: text + text, "is corrupt"),
}


@each_form
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_private_key_is_refused_in_each_form_by_what_is_wrong(kind, form, damage):
    change, reason = DAMAGES[damage]
    text = refusal(sshPublicKey=public(kind), sshPrivateKey=change(private(kind, form)))
    line = next(line for line in text.splitlines() if line.startswith("- sshPrivateKey: (secret) "))
    assert reason in line or (damage == "two keys" and "more than one key" in line)


def test_every_cut_of_every_form_is_refused():
    for kind, form in FORMS:
        whole = private(kind, form).splitlines()[1:-1]
        body = base64.b64decode("".join(whole))
        first, last = private(kind, form).splitlines()[0], private(kind, form).splitlines()[-1]
        for length in {*range(0, len(body), 37), len(body) - 1}:
            part = base64.b64encode(body[:length]).decode()
            refusal(sshPublicKey=public(kind), sshPrivateKey=f"{first}\n{part}\n{last}\n")
        more = base64.b64encode(body + b"\0").decode()
        refusal(sshPublicKey=public(kind), sshPrivateKey=f"{first}\n{more}\n{last}\n")


@each_form
def test_a_changed_byte_of_the_numbers_is_refused(kind, form):
    body = base64.b64decode("".join(private(kind, form).splitlines()[1:-1]))
    first = body.rindex(b"ssh-") + 15 if form is OPENSSH else len(body) - (32 if kind == "ed25519" else 1100)
    last = len(body) - (12 if form is OPENSSH else 1)  # the comment and the padding follow
    for position in [*range(first, last, 41), last]:
        text = refusal(sshPublicKey=public(kind), sshPrivateKey=changed(private(kind, form), position))
        assert "- sshPrivateKey: (secret) is corrupt" in text or "- sshPublicKey: does not match" in text


@pytest.mark.parametrize(("kind", "form"), [("ed25519", OPENSSH), ("rsa", OPENSSH), ("rsa", PKCS1), ("rsa", PKCS8)])
def test_a_key_with_a_passphrase_is_refused_in_each_form(kind, form):
    assert "passphrase" in refusal(sshPublicKey=public(kind), sshPrivateKey=private(kind, form, passphrase="word"))


@pytest.mark.parametrize(("kind", "form"), list(itertools.product(["ecdsa", "dsa"], [PKCS1, PKCS8])))
def test_a_private_key_of_a_type_that_ec2_does_not_take_is_refused(kind, form):
    assert "neither an Ed25519 nor an RSA key" in refusal(sshPrivateKey=private(kind, form))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda: public("ed25519"), "sshPrivateKey: (secret) is a public key. Check whether sshPublicKey and"),
        (lambda: public("rsa"), "is a public key"),
        (lambda: "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\nAAAA", "PuTTY's format"),
        (lambda: "/home/me/.ssh/id_ed25519", "is not a private key in PEM format"),
        (lambda: base64.b64encode(private("ed25519", OPENSSH).encode()).decode(), "is not a private key in PEM format"),
        (
            lambda: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "is not a private key in PEM format",
        ),
    ],
)
def test_what_is_something_else_is_refused_by_what_it_is(value, reason):
    assert reason in refusal(sshPrivateKey=value())


def rsa_line(bits: int) -> str:
    """The line of a public key of that length; finding prime numbers for a real one takes seconds."""
    number = b"\0" + ((1 << bits - 1) + 1).to_bytes(bits // 8)
    blob = b"".join(map(ssh_string, (b"ssh-rsa", b"\1\0\1", number)))
    return f"ssh-rsa {base64.b64encode(blob).decode()}"


@pytest.mark.parametrize("bits", [1024, 1536, 8192])
def test_an_rsa_key_that_rhel_does_not_take_is_refused(bits):
    line = refusal(sshPublicKey=rsa_line(bits), sshPrivateKey=None)
    assert f"of {bits} bits; RHEL and EC2 accept 2048 to 4096 bits" in line


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_rsa_keys_of_usual_lengths_are_taken(bits):
    assert load(sshPublicKey=rsa_line(bits), sshPrivateKey=None).ssh_public_key == rsa_line(bits)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (lambda: f"{public('ed25519')}\n{public('rsa')}", "has more than one line"),
        (lambda: f"{public('ed25519')}\n{public('ed25519')}\n", "has more than one line"),
        (lambda: f"# mine\n{public('ed25519')}", "has more than one line"),
        (lambda: f"{public('ed25519')} {public('rsa')}", "contains more than one public key"),
        (lambda: f"{public('ed25519')} me {public('another ed25519')}", "contains more than one public key"),
        (lambda: public("ed25519")[:60], "is corrupt"),
        (lambda: public("ed25519")[:-4], "is corrupt"),
        (lambda: public("rsa")[:300], "is corrupt"),
        (lambda: f"{public('ed25519')}AAAA", "is corrupt"),
        (lambda: public("ed25519").replace("AAAA", "AAAB", 1), "is corrupt"),
        (lambda: public("rsa").replace("ssh-rsa", "ssh-ed25519", 1), "is corrupt"),
        (lambda: "ssh-ed25519 ÄÖÜ", "is corrupt"),
        (lambda: public("ed25519").replace(" ", "\n", 1), "has more than one line"),
        (lambda: f'from="198.51.100.7" {public("ed25519")}', "EC2 accepts no other type"),
        (lambda: public("ecdsa"), "EC2 accepts no other type"),
        (lambda: "sk-ssh-ed25519@openssh.com AAAA", "EC2 accepts no other type"),
        (lambda: "~/.ssh/id_ed25519.pub", "EC2 accepts no other type"),
    ],
)
def test_what_is_not_one_whole_public_key_is_refused(line, reason):
    assert reason in refusal(sshPublicKey=line(), sshPrivateKey=None)


def test_a_comment_of_any_words_is_kept():
    line = f"{public('ed25519')} Jane Doe <jane@example.com> ssh key"
    assert load(sshPublicKey=line.replace(" ", "\t", 1), sshPrivateKey=None).ssh_public_key == line


@each_form
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("\n", " "),
        lambda text: text.replace("\n", "\\n"),
        lambda text: base64.b64encode(text.encode()).decode(),
        str.lower,
    ],
    ids=["whole", "in one line", "escaped", "in base64", "in lower case"],
)
@pytest.mark.parametrize(
    "place",
    [
        lambda text: {"sshPublicKey": text},
        lambda text: {"sshPublicKey": text, "sshPrivateKey": public("ed25519")},
        lambda text: {"sshPublicKey": text, "sshPrivateKey": text},
        lambda text: {"domain": text},
        lambda text: {"registryPort": text},
        lambda text: {"networkCidr": text},
        lambda text: {"deletionProtection": text},
        lambda text: {"initialRootPassword": text},
        lambda text: {"smtpUserName": text, "smtpAddress": "m.example.com", "emailFrom": "a@example.com"},
        lambda text: {"adminCidrs": text},
        lambda text: {"adminCidrs": [text]},
        lambda text: {"adminCidrs": [[text]]},
        lambda text: {"runnerTags": {"x": text}},
        lambda text: {"tags": text},
        lambda text: {"tags": {"Key": text}},
        lambda text: {"tags": {text: "x"}},
        lambda text: {"tags": {"Key": [text]}},
        lambda text: {"gitlabSettings": {text: 1}},
        lambda text: {"gitlabSettings": text},
        lambda text: {"smtpPasswd": text},
        lambda text: {text: "value"},
        lambda text: {"aws__region": text},
    ],
    ids=[
        *["public key", "swapped", "both", "text", "number", "network", "boolean", "password", "user name"],
        *["list", "in a list", "deep in a list", "map for a list", "map", "value", "name of a tag", "list in a tag"],
        *["name of a setting", "setting", "unknown key", "name of a key", "region"],
    ],
)
def test_a_private_key_is_not_shown_wherever_it_is_put(kind, form, change, place):
    text = change(private(kind, form))
    said = refusal(**place(text))
    words = [word for word in text.replace("\\n", " ").split() if len(word) > 12]
    assert [word for word in words if word[4:24] in said] == []


def test_a_private_key_under_a_wrong_key_is_called_one_and_swapped_ones_swapped():
    text = private("ed25519", OPENSSH)
    said = refusal(sshPublicKey=text, sshPrivateKey=public("ed25519"))
    assert "- sshPublicKey: (hidden) contains a private key" in said
    assert "pulumi config set sshPublicKey < KEY.pub" in said
    short = private("ed25519", PKCS8).replace("\n", " ")  # its length and characters are valid in a tag
    assert "- tags.Key: (hidden) contains a private key" in refusal(tags={"Key": short})


def test_what_the_stack_keeps_encrypted_is_not_shown_whatever_key_it_is_under():
    with pytest.raises(SettingsError) as refused:
        load(
            secret_keys={"domain", "tags", "runnerTags", "sshPrivateKey"},
            domain="hunter2",
            tags={"a?": "hunter2"},
            runnerTags=["hunter 2"],
        )
    assert "hunter" not in str(refused.value)
    assert str(refused.value).count("(secret)") == 3


def test_a_pair_of_the_tests_is_taken():
    line, text = openssh_pair(b"x")
    assert load(sshPublicKey=line, sshPrivateKey=text).ssh_private_key == text
