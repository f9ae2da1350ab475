"""Users' input: values that work are accepted, others rejected, by the rules of the program that reads them."""

import re
import subprocess

import pulumi
import pytest

from settings import SettingsError
from tests.conftest import dev_config
from tests.engine import run_program
from tests.test_settings import CERTIFICATE, load
from validation.calendar import TOO_OFTEN, calendar
from validation.images import image
from validation.values import domain, email, mail_server, server_instance_type, version

MAIL = {"smtpAddress": "mail.example.com", "emailFrom": "git@example.com"}
LOGIN = {"smtpUserName": "git", "smtpPassword": "p"}
HEX = "0123456789abcdef"
ARABIC_DIGITS = {ord(str(digit)): chr(0x660 + digit) for digit in range(10)}


def refusals(**changes) -> list[str]:
    """The lines of the error."""
    with pytest.raises(SettingsError) as refused:
        load(**changes)
    return [line.removeprefix("- ") for line in str(refused.value).splitlines()[1:]]


TAKEN = {
    calendar: [
        *("daily", "Weekly", "monthly", "quarterly", "semi-annually", "bi-annually", "annually", "hourly"),
        *("Sun", "Sunday 03:00", "sun 3:00", "SAT 03:00:00", "Mon..Fri 22:30", "Mon-Fri 22:30", "Sat,Sunday 04:00"),
        *("03:00", "3:5", "*:00", "0/6:15", "0..6/2:15", "1,13:00", "03:00:00", "03:00:30.5", "Sun,"),
        *("2027-01-01", "*-*-1,15 03:00", "*-*~1 03:00", "*-02~1..3 03:00", "1-1 03:00", "27-01-01 00:00"),
        *("Mon *-*-1..7 03:00", "daily UTC", "Sun 03:00 utc", "*-*-01 04:30 Europe/Berlin"),
        "Sun 03:00 America/New_York",
        *("Sun 03:00 America/Argentina/Buenos_Aires", "*-*-*  03:00", "Mon,Wed..Fri 03:00"),
    ],
    image: [
        *("alpine", "alpine:3.23", "library/alpine", "docker.io/library/alpine:3.23", "localhost/a"),
        "localhost:5000/a",
        *("registry.example.com:5000/group/sub/app:v1.0_rc-1", "Registry.Example.COM/app", "a__b/c--d"),
        *("my_image:latest", "my-image:Latest", "a.b/c", "10.0.0.5:5000/app", f"app@sha256:{HEX * 4}"),
        *(f"app:1@sha512:{HEX * 8}", f"app@sha384:{HEX * 6}", "app:_x", "app:" + "x" * 128, "a-----b", "a:5000"),
    ],
    email: [
        *("git@example.com", "git+lab@example.com", "o'brien@example.com", "a.b-c_d@mail.example.co.uk"),
        "x@xn--bcher-kva.example",
        *('"git lab"@example.com', r'"a\"b"@example.com', "!#$%&'*+-/=?^_`{|}~@example.com", "git@[192.0.2.1]"),
        "a@b.museum",
        *("x" * 64 + "@example.com", "GIT@EXAMPLE.COM", '""@example.com', '"a@b"@example.com'),
    ],
    mail_server: [
        *("mail.example.com", "10.1.2.3", "email-smtp.eu-central-1.amazonaws.com", "Relay.corp.example", "1and1.com"),
    ],
    domain: ["git.example.com", "xn--bcher-kva.example", "1.example.com", "a-b.c", "git.example.museum"],
    version: ["17.10.4", "0.0.1", "10.0.0"],
    server_instance_type: [
        *("m6i.xlarge", "t3.large", "t3a.xlarge", "m5.large", "c6i.xlarge", "c7i-flex.xlarge", "r5.large"),
        "u-6tb1.56xlarge",
    ],
}  # fmt: skip

REFUSED = {
    calendar: [
        *("", "nightly", "0 3 * * 0", "@daily", "@1700000000", "Sunny 03:00", "Son 03:00", "Fri..Mon 03:00"),
        "Mon.. 03:00",
        *("25:00", "24:00", "03:60", "3", "03", "03:00:60", "03:00:00:00", "03.00", "3 Uhr", "3am"),
        *("03:00 03:00", "*/6:00"),
        *("*-13-01 03:00", "*-00-01 03:00", "*-*-32 03:00", "*-*-0 03:00", "1969-01-01", "2200-01-01"),
        "*-*~29 03:00",
        *("0/0:00", "6..3:00", "1...3:00", "1,,2:00", "3/30:00", "minutely", "*:*", "*:0/15", "*:00,30"),
        *("03:00:0/10", "03:00:*"),
        *("Sun 03:00 Mars/Base", "Sun 03:00 europe/berlin", "Sun 03:00 CET2", "03:00".translate(ARABIC_DIGITS)),
        *("Sun 03:00\nExecStart=x", "UTC"),
        *("Sun\t03:00", "Sun, Mon 03:00", "2027-01-01T03:00", "01-02-03-04 03:00", "Sun Mon 03:00"),
    ],
    image: [
        *("", "Alpine", "alpine latest", "alpine:", ":3.23", "alpine:3.23:1", "a/b:c/d", "/alpine", "alpine/"),
        *("a//b", "-a", "a-"),
        *("a..b", "a___b", "a_.b", "_a", "a._b", "alpine@3.23", "alpine@sha256:abc", f"alpine@sha256:{HEX * 3}"),
        *(f"alpine@md5:{HEX * 2}", f"alpine@sha256:{'A' * 64}", HEX * 4, "https://docker.io/alpine"),
        "ex_ample.com:5000/a",
        *("a:-x", "a:.x", "a:" + "x" * 129, "x" * 256, "älpine", "alpine:3.23\n", "$IMAGE", "app:1;reboot"),
        *("a:3".translate(ARABIC_DIGITS), "host:x/a"),
    ],
    email: [
        *("nobody", "a@b@example.com", "@example.com", "a@", ".a@example.com", "a.@example.com"),
        *("a..b@example.com", "a b@example.com"),
        *("x" * 65 + "@example.com", "a@example", "a@-x.example.com", "a@example..com", "a@example.com."),
        "GitLab <git@example.com>",
        *("a@[300.1.1.1]", "a@[::1]", "ä@example.com", "a@exämple.com", '"a"b"@example.com', "a(b)@example.com"),
        "a@1.2.3.4",
        *("a,b@example.com", "a\n@example.com", "git@" + ".".join(["x" * 60] * 5)),
    ],
    mail_server: [
        *("relay", "10.1.2", "10.1.2.300", "::1", "[10.1.2.3]", "smtp://mail.example.com"),
        *("mail.example.com:587", "mail..example.com"),
        *("mail.example.com.", "mail_1.example.com", "a@example.com", "3.example.com".translate(ARABIC_DIGITS)),
        "1.2.3.4.5",
    ],
    domain: [
        *("git", "git.example.com.", "git..com", "-git.example.com", "git_lab.example.com", "*.example.com"),
        "git.example.com/x",
        *("git.example.com:443", "bücher.example", "1.2.3.4", "git.example.123", ".".join(["x" * 60] * 5)),
        "git example.com",
    ],
    version: [
        *("17.10", "17.10.4.1", "v17.10.4", "17.10.4-ce.0", "17.10.4-rc42", "17.10.x", "latest", "17.010.4"),
        *("17.10.4".translate(ARABIC_DIGITS), "17.10.4\n"),
        *("99999999.1.1", "17,10,4", "17.10.4".translate(ARABIC_DIGITS)),
    ],
    server_instance_type: [
        *("t3.nano", "t3.micro", "t3a.small", "t2.medium", "t3.medium", "m1.medium", "c5.large", "c6i.large"),
        *("c7i-flex.large", "c5ad.large"),
        *("large", "m6i", "m6i.xlarge ", "M6I.xlarge"),
    ],
}  # fmt: skip


def cases(table):
    return [
        pytest.param(check, value, id=f"{check.__name__} {value[:30]}") for check in table for value in table[check]
    ]


@pytest.mark.parametrize(("check", "value"), cases(TAKEN))
def test_a_value_that_works_is_taken(check, value):
    assert check(value) == value


@pytest.mark.parametrize(("check", "value"), cases(REFUSED))
def test_a_value_that_cannot_work_is_refused(check, value):
    with pytest.raises(ValueError, match=r"^(is|has|includes|rejects|runs) "):
        check(value)


@pytest.mark.needs("systemd-analyze")
def test_systemd_judges_calendars_in_the_same_way():
    for value in TAKEN[calendar]:
        subprocess.run(["systemd-analyze", "calendar", value], check=True, capture_output=True)
    one_shot_or_newer = ("@1700000000", "2027-01-01T03:00")
    for value in REFUSED[calendar]:
        with pytest.raises(ValueError, match=r"\w") as refused:
            calendar(value)
        if value and str(refused.value) != TOO_OFTEN and value not in one_shot_or_newer:
            done = subprocess.run(["systemd-analyze", "calendar", value], check=False, capture_output=True)
            assert done.returncode, value


@pytest.mark.parametrize(
    ("region", "arn"),
    [
        ("eusc-de-east-1", "aws-eusc"),
        ("us-isob-east-1", "aws-iso-b"),
        ("us-iso-west-1", "aws-iso"),
        ("eu-isoe-west-1", "aws-iso-e"),
        ("us-isof-south-1", "aws-iso-f"),
        ("cn-northwest-1", "aws-cn"),
        ("us-gov-east-1", "aws-us-gov"),
        ("ap-southeast-7", "aws"),
        ("mx-central-1", "aws"),
    ],
)
def test_regions_zones_and_certificates_of_every_partition_are_taken(region, arn):
    settings = load(
        aws__region=region,
        availabilityZone=f"{region}a",
        domain="git.example.com",
        certificateArn=CERTIFICATE.replace("eu-central-1", region).replace("arn:aws:", f"arn:{arn}:"),
    )
    assert settings.region == region


@pytest.mark.parametrize(
    "region",
    ["eu-central", "eu-central-1a", "EU-CENTRAL-1", "eu_central_1", "eu-central-1".translate(ARABIC_DIGITS), "-1"],
)
def test_what_is_no_region_is_refused(region):
    assert refusals(aws__region=region)[0].startswith(f"aws:region: {region!r} is not an AWS region")


@pytest.mark.parametrize(
    ("key", "taken", "refused"),
    [
        (
            "gitlabVersion",
            ["17.8.0", "17.10.4", "18.11.2"],
            ["15.11.13", "16.11.10", "17.7.9", "17.10.4".translate(ARABIC_DIGITS), "17.10"],
        ),
        (
            "dockerVersion",
            ["23.0.0", "28.5.2", "29.3.0"],
            ["20.10.24", "19.03.15", "29.1.3", "28.5.2-1", "28.5.2".translate(ARABIC_DIGITS)],
        ),
        (
            "registryPort",
            ["5000", " 5050\n"],
            ["5000".translate(ARABIC_DIGITS), "5000.0", "5e3", "0x1388", "5_000", "9" * 5000, "-5000"],
        ),
        ("backup", ["true", "False"], ["off", "daily", "0"]),
        ("backupSchedule", ["hourly", "0/4:30", "daily"], ["minutely", "*:0/15", "every hour"]),
        ("backupKeepHourly", ["1", "24", "1440"], ["0", "1441", "-1", "24h"]),
        ("backupKeepDaily", ["0", "14", "60"], ["61", "-1", "two"]),
        ("backupKeepWeekly", ["0", "8"], ["9", "-1", "0.5"]),
        (
            "permissionsBoundary",
            ["arn:aws:iam::123456789012:policy/gitlab-boundary", "arn:aws-cn:iam::aws:policy/job/Reader"],
            [
                "gitlab-boundary",
                "arn:aws:iam::123456789012:role/gitlab-boundary",
                "arn:aws:iam::123:policy/gitlab-boundary",
                "arn:aws:iam::123456789012:policy/",
                "arn:aws:iam::123456789012:policy/team/gitlab boundary",
            ],
        ),
        ("runnerName", ["gitlab-prod", "r" * 201, "a.b_c-1"], ["gitlab prod", "a/b", "läufer", "r" * 202]),
        ("runnerConcurrency", ["1", "250"], ["0", "251", "1.5", "four", "²"]),
        ("deletionProtection", ["true", "false", "True", "False\n"], ["yes", "1", "TRUE", "on", "t"]),
        ("smtpPort", ["25", "465", "587", "2465"], ["0", "65536", "smtp", "587/tcp"]),
        ("smtpAuthentication", ["login", "plain", "cram_md5"], ["false", "none", "LOGIN", "xoauth2"]),
        (
            "networkCidr",
            ["10.42.0.0/16", "10.42.0.0/255.255.0.0"],
            ["10.42.0.1/16", "10.42.0.0/33", "fd00::/64", "x/16"],
        ),
    ],
)
def test_a_value_is_taken_or_refused_by_its_key(key, taken, refused):
    for value in taken:
        load(**{key: value})
    for value in refused:
        assert [line.split(":")[0] for line in refusals(**{key: value})] == [key], value


@pytest.mark.parametrize("snapshot", ["snap-0123456789abcdef0", "snap-89abcdef", " snap-0123456789abcdef0\n"])
def test_a_snapshot_is_taken_by_its_id(snapshot):
    settings = load(serverDataSnapshotId=snapshot, registryDataSnapshotId="snap-0123456789abcdef2")
    assert settings.restores
    assert settings.server.data_snapshot_id == snapshot.strip()


@pytest.mark.parametrize(
    "snapshot",
    [
        "snap-0123",
        "snap-0123456789ABCDEF0",
        "snap-0123456789abcdef01",
        "vol-0123456789abcdef0",
        "ami-0123456789abcdef0",
    ],
)
@pytest.mark.parametrize("role", ["server", "registry"])
def test_anything_else_is_no_snapshot(role, snapshot):
    other = {"server": "registry", "registry": "server"}[role]
    keys = {f"{role}DataSnapshotId": snapshot, f"{other}DataSnapshotId": "snap-0123456789abcdef2"}
    [line] = refusals(**keys)
    assert line.startswith(f"{role}DataSnapshotId: {snapshot!r} is not a snapshot ID")


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("x7" + "aBcDeFgH" * 15 + "123456", None),
        ("x7" + "aBcDeFgH" * 15 + "1234567", "is longer than 128 characters"),
        ("correct horse battery", None),
        ("correct horse battery\n", None),
        ("correct horse battery\r\n", None),
        ("correct horse battery ", "starts or ends with whitespace"),
        (" correct horse battery\n", "starts or ends with whitespace"),
        ("\tcorrect horse battery", "starts or ends with whitespace"),
        ("correct horse\nbattery", "contains a character outside printable ASCII"),
        ("correct\0horse battery", "contains a character outside printable ASCII"),
        ("   ", "starts or ends with whitespace"),
    ],
)  # fmt: skip
def test_a_first_password_is_taken_whole_or_refused(password, reason):
    if reason:
        [line] = refusals(initialRootPassword=password)
        assert line.startswith(f"initialRootPassword: (secret) {reason}")
    else:
        assert load(initialRootPassword=password).initial_root_password == password.strip()


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("p", None),
        ("with blanks and 'quotes' #{x}", None),
        ("pässwört", None),
        ("p\n", None),
        ("p\r\n", None),
        ("p ", "starts or ends with whitespace"),
        (" p", "starts or ends with whitespace"),
        ("p\nq", "contains a line break"),
        ("p\0", "contains a line break"),
        ("p\u2028q", "contains a line break"),
    ],
)
def test_a_password_of_the_mail_server_is_taken_whole_or_refused(password, reason):
    changes = {**MAIL, "smtpUserName": "git", "smtpPassword": password}
    if reason:
        [line] = refusals(**changes)
        assert line.startswith(f"smtpPassword: (secret) {reason}")
    else:
        smtp = load(**changes).smtp
        assert smtp
        assert smtp.password == password.strip()


def test_blanks_and_line_ends_around_a_text_do_not_count():
    settings = load(domain=" git.example.com\n", availabilityZone="eu-central-1a\r\n", adminCidrs=["198.51.100.7 "])
    assert (settings.domain, settings.availability_zone) == ("git.example.com", "eu-central-1a")
    assert settings.admin_cidrs == ("198.51.100.7/32",)
    assert load(domain=" \n").domain is None


TYPED = [(True, "true"), (False, "false"), (12345, "12345"), (0, "0"), (-1, "-1"), ("true", "true"), ("007", "007")]


@pytest.mark.parametrize(("value", "text"), TYPED)
def test_what_config_set_keeps_as_boolean_or_number_is_taken_as_it_was_typed(value, text):
    """`pulumi config set --path tags.Backup true` writes a boolean into the stack's file, and 12345 a number."""
    assert load(tags={"Backup": value}).tags == {"Backup": text}
    if value != -1:
        assert load(runnerTags=[value]).runner_tags == (text,)


def test_tags_that_were_typed_as_boolean_or_number_reach_the_resources_as_text(other_graph):
    tags = other_graph.one("aws:ec2/vpc:Vpc", "gitlab").inputs["tags"]
    assert (tags["Boolean"], tags["Number"]) == ("true", "12345")


@pytest.mark.parametrize("value", [1.5, None, [], ["x"], {}, {"a": "b"}, float("nan")])
def test_what_is_no_text_is_refused_by_its_place(value):
    assert [line.split(":")[0] for line in refusals(tags={"Good": "x", "Bad": value})] == ["tags.Bad"]
    [line] = refusals(runnerTags=["x", value])
    assert line.startswith("runnerTags[1]: ")
    assert line.endswith("is not a string. Put it in quotes.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("Team", value) for value in ("a\nb", "a\n", "\n", "a\tb", "a\rb", "a\u2028b", "x" * 257)],
        *[("Team", value) for value in ("a,b", "ok?", "<x>", "🙂")],
        *[(name, "x") for name in ("", "a\nb", "x" * 129, "aws:x", "AWS:x", "Na,me", "Name")],
    ],
)  # fmt: skip
def test_a_tag_that_aws_refuses_is_refused(name, value):
    [line] = refusals(tags={name: value})
    assert line.startswith(("tags.", "tags:"))


@pytest.mark.parametrize("value", ["", "x", "Größe 2", "a.b:c/d=e+f-g@h_i", "日本", "x" * 256, "a  b", "²"])
def test_a_tag_that_aws_takes_is_taken(value):
    assert load(tags={f"Key {value[:9]}".strip(): value}).tags


@pytest.mark.parametrize(
    ("unknown", "near"),
    [
        ("smtpAdress", "smtpAddress"),
        ("smtp_address", "smtpAddress"),
        ("smtp-address", "smtpAddress"),
        ("smtpaddress", "smtpAddress"),
        ("SmtpAddress", "smtpAddress"),
        ("adminCidr", "adminCidrs"),
        ("clientCIDRs", "clientCidrs"),
        ("gitlabversion", "gitlabVersion"),
        ("runnerTag", "runnerTags"),
        ("sshPrivatKey", "sshPrivateKey"),
        ("sshPrivateKey2", "sshPrivateKey"),
        ("ssh_private_key", "sshPrivateKey"),
        ("deletionProtected", "deletionProtection"),
        ("avaliabilityZone", "availabilityZone"),
        ("tag", "tags"),
        ("zzz", None),
        ("region", None),
        ("", None),
    ],
)
def test_a_key_that_is_none_is_refused_with_the_nearest_one(unknown, near):
    values = {**dev_config(), f"gitlab:{unknown}": "hunter2"}
    with pytest.raises(pulumi.RunError) as refused:
        run_program(values)
    [line] = str(refused.value).splitlines()[1:]
    assert line.startswith(f"- {unknown}: unknown setting.")
    assert line.endswith(f"pulumi config rm {unknown}")
    assert (f"Did you mean {near}?" in line) if near else ("mean" not in line)
    assert "hunter2" not in line


def test_keys_of_other_namespaces_are_not_the_programs():
    others = {"pulumi:tags": "{}", "aws:profile": "x", "gitlabx:smtpAdress": "x", "command:x": "y"}
    run_program(dev_config() | others, only_checks=True)


@pytest.mark.parametrize("key", ["adminCidrs", "clientCidrs", "tags", "gitlabSettings", "runnerTags"])
@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000, "[" * 900 + "]" * 900, "{", "nul", '"text"', "12", "true", "null", "1" * 5000),
        *('["\\ud800"]', '{"\\ud800": 1}'),
    ],
)  # fmt: skip
def test_any_text_under_a_key_for_lists_or_maps_is_read_or_refused(key, text):
    try:
        load(**{key: text})
    except SettingsError as error:
        assert f"- {key}" in str(error)  # noqa: PT017  some of them are accepted
        assert len(str(error)) < 2000  # noqa: PT017


@pytest.mark.parametrize("port", [25, 587, 2587, 465])
def test_mail_goes_through_a_relay_that_asks_for_no_login(port):
    settings = load(**MAIL, smtpPort=port)
    assert settings.smtp
    assert (settings.smtp.user_name, settings.smtp.password) == (None, None)
    assert any(line.startswith("smtpPort: AWS blocks port 25") for line in settings.warnings) == (port == 25)


@pytest.mark.parametrize("missing", LOGIN)
def test_half_a_login_is_refused(missing):
    [line] = refusals(**MAIL, **{key: value for key, value in LOGIN.items() if key != missing})
    assert line.startswith(f"{missing}: missing. Set both smtpUserName and smtpPassword")


def test_a_password_under_the_user_name_is_not_shown():
    [line] = refusals(**MAIL, smtpUserName="hunter2 with blanks", smtpPassword="git")
    assert line == "smtpUserName: (hidden) contains whitespace."


@pytest.mark.parametrize("count", [1, 40])
def test_networks_are_judged_together_however_they_are_cut(count):
    whole = [f"{number}.0.0.0/8" for number in range(128)]
    lines = refusals(clientCidrs=whole)
    assert "without TLS" in lines[0]
    assert not load(clientCidrs=whole[:-count]).open_to_the_world


def test_the_calendars_refusal_says_where_the_grammar_is():
    [line] = refusals(registryGarbageCollection="nightly")
    assert re.search(r"is not a systemd calendar expression such as daily, Sun 03:00 or ", line)
    [line] = refusals(securityUpdates="*:0/5")
    assert "more than once an hour" in line
