"""Checks of single values: each takes the text of a key and returns the value, or raises ValueError whose message
continues the sentence that begins with key and value.
"""

import ipaddress
import re
import string
from collections.abc import Callable

_SECRET_NAME = r"""(?i:[\w-]*(?:password|passwd|secret|token|key)[\w-]*)["']?\]?\s*(?:=>|=|:)\s*"""
_SECRET_VALUE = r"""(?:"(?!")|'(?!')|%[qQ]?[^\w\s]|<<)(?!/(?:etc|opt|srv|var)/)"""
SECRET_LINE = re.compile(f"{_SECRET_NAME}{_SECRET_VALUE}|-----BEGIN [A-Z ]*PRIVATE KEY-----")
"""A line of Ruby that gives a quoted value, but for a path, to what is named like a secret; or a private key itself."""

WEAK_PASSWORD_PARTS = ("gitlab", "devops", "administrator", "admin", "root", "example")
"""GitLab refuses passwords that contain these or a part of the administrator's name: lib/security/weak_passwords.rb."""

PRIVATE_NETWORKS = tuple(ipaddress.IPv4Network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
"""RFC 1918."""

STACK_TAG = "gitlab-stack"
"""Key of the tag by which policies of AWS tell what is whose."""

DOCKER_NETWORK = ipaddress.IPv4Network("172.17.0.0/16")
"""Docker's default bridge on the registry's and the runner's machine (Docker docs, "Bridge network driver")."""

LARGEST_ADMIN_NETWORK = 16
"""Prefix length: 65,536 addresses."""

SHORTEST_PASSWORD = 12
"""Characters of the first password of GitLab's root user."""

_DAY, _NUMBERS = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)", r"[\d*][\d*.,/]*"
CALENDAR = (
    r"daily|weekly|monthly|quarterly|semiannually|yearly|"
    rf"({_DAY}((,|\.\.){_DAY})* )?(({_NUMBERS}-)?{_NUMBERS}[-~]{_NUMBERS} )?"
    rf"{_NUMBERS}:[0-5]\d(:[0-5]\d)?( UTC| [A-Z][A-Za-z_]+(/[A-Za-z_+-]+)+)?"
)
"""Some of systemd.time(7): a word, or weekdays, date, time of day and zone, of which only the time is required. Never
every minute: the registry accepts no push while its garbage is collected.
"""


def matching(pattern: str, mismatch: str) -> Callable[[str], str]:
    """A check that the whole text matches a regular expression; `mismatch` says what it is not, with an example."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(mismatch)
        return value

    return check


_REGION = r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}"
region = matching(_REGION, "is not an AWS region such as eu-central-1")
availability_zone = matching(rf"{_REGION}[a-z]", "is not an availability zone such as eu-central-1a")
ami_id = matching(r"ami-([0-9a-f]{8}|[0-9a-f]{17})", "is not the id of an image (ami- and 17 hex digits)")
volume_id = matching(r"vol-([0-9a-f]{8}|[0-9a-f]{17})", "is not the id of a volume (vol- and 17 hex digits)")
address_id = matching(
    r"eipalloc-([0-9a-f]{8}|[0-9a-f]{17})",
    "is not the allocation id of an elastic address (eipalloc- and 17 hex digits)",
)
hosted_zone_id = matching(r"Z[A-Z0-9]{1,31}", "is not the id of a Route 53 hosted zone (Z...)")
certificate_arn = matching(
    r"arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/[0-9a-f-]{36}",
    "is not the ARN of an ACM certificate (arn:aws:acm:REGION:ACCOUNT:certificate/ID)",
)
instance_type = matching(r"[a-z][a-z0-9-]*\d[a-z0-9-]*\.[a-z0-9-]+", "is not an instance type such as m6i.xlarge")
version = matching(r"\d+\.\d+\.\d+", "is not a version such as 17.10.4")
runner_tag = matching(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,254}", "is not a runner tag (letters, digits, . _ : -)")
image = matching(r"[a-z0-9]+([._/:-][a-zA-Z0-9]+)*(@sha256:[0-9a-f]{64})?", "is not an image name such as alpine:3.23")
calendar = matching(
    CALENDAR, "is not a time such as daily, Sun 03:00 or *-*-01 04:30 Europe/Berlin (systemd calendar expression)"
)
email = matching(r"[^@\s']+@[^@\s']+\.[^@\s']+", "is not a mail address")
host_name = matching(
    r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))+",
    "is not a host name such as git.example.com",
)


def domain(value: str) -> str:
    """A lower-case domain name of two labels or more, 253 characters at most. Raises ValueError for anything else."""
    if "://" in value:
        raise ValueError("has a scheme. Give the name alone, for example git.example.com")
    if re.fullmatch(r"[\d.]+", value) or value != value.lower() or len(value) > 253:
        raise ValueError("is not a lower-case domain name such as git.example.com")
    return host_name(value)


def fingerprint(value: str) -> str:
    """The fingerprint of an OpenPGP key: 40 hex digits, upper case. Blanks between them, as vendors write it, go away.
    Raises ValueError for anything else: the shorter ids of keys can be forged (evil32.com).
    """
    digits = "".join(value.split()).upper()
    if not re.fullmatch(r"[0-9A-F]{40}", digits):
        raise ValueError("is not the whole fingerprint of an OpenPGP key (40 hex digits)")
    return digits


def docker_version(value: str) -> str:
    """A version of Docker Engine that the runner's helper can talk to. Raises ValueError for any other."""
    checked = version(value)
    # The helper of runner 17.10 speaks API 1.41 at the least; 29.0 to 29.2 refuse below 1.44 (runner issue 39101).
    if checked.startswith(("29.0.", "29.1.", "29.2.")):
        raise ValueError("refuses the runner's Docker API version. Use 28.5.x, or 29.3 and later")
    return checked


def containerd_version(value: str) -> str:
    """A version of the package containerd.io whose runc keeps containers in. Raises ValueError for any other; 2.0 was
    never mended: CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (containerd pull request 12475).
    """
    checked = version(value)
    major, minor, patch = map(int, checked.split("."))
    mended = {(1, 7): 29, (2, 1): 5}
    if (major, minor) < (1, 7) or (major, minor) == (2, 0) or patch < mended.get((major, minor), 0):
        raise ValueError("has a runc that lets containers out. Use 1.7.29, 2.1.5, 2.2.0 or later of these")
    return checked


def cidr(value: str) -> str:
    """An IPv4 network in its usual form: a single address gets /32. Raises ValueError for anything else."""
    try:
        return str(ipaddress.IPv4Network(value))
    except ValueError as error:
        raise ValueError(f"is not an IPv4 network such as 198.51.100.0/24 ({error})") from None


def admin_cidr(value: str) -> str:
    """An IPv4 network of LARGEST_ADMIN_NETWORK or smaller. Raises ValueError for a larger one: administrators are not
    the whole world.
    """
    checked = cidr(value)
    if ipaddress.IPv4Network(checked).prefixlen < LARGEST_ADMIN_NETWORK:
        raise ValueError(
            f"is larger than /{LARGEST_ADMIN_NETWORK}, which opens SSH to the world. "
            "Name your own address, for example 198.51.100.7/32"
        )
    return checked


def network(value: str) -> ipaddress.IPv4Network:
    """A private IPv4 network (RFC 1918) from /16, AWS's largest VPC, to /26, the smallest that has room for the subnet
    (`Settings.subnet`). Raises ValueError for anything else, and for what overlaps Docker's own network.
    """
    try:
        block = ipaddress.IPv4Network(value)
    except ValueError as error:
        raise ValueError(f"is not an IPv4 network such as 10.42.0.0/16 ({error})") from None
    if not any(block.subnet_of(private) for private in PRIVATE_NETWORKS):
        raise ValueError("is not private. Use a block inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")
    if block.overlaps(DOCKER_NETWORK):
        raise ValueError(f"overlaps {DOCKER_NETWORK}, which Docker uses on the machines. Use another block")
    if not 16 <= block.prefixlen <= 26:
        raise ValueError("has an unsupported prefix length. Use a prefix from /16 to /26")
    return block


def root_password(value: str) -> str:
    """A password that GitLab accepts for its administrator. Raises ValueError for one that it would refuse: a weak
    one stops GitLab's first reconfigure, long after the settings were read.
    """
    if len(value) < SHORTEST_PASSWORD:
        raise ValueError(f"is shorter than {SHORTEST_PASSWORD} characters")
    if any(character not in string.printable or character in "\n\r\t\v\f" for character in value):
        raise ValueError("has a character outside printable ASCII")
    for part in WEAK_PASSWORD_PARTS:
        if part in value.lower():
            raise ValueError(f"contains {part!r}, and GitLab refuses such passwords for its administrator")
    if len(set(value)) < 6:
        raise ValueError("repeats itself, and GitLab refuses weak passwords for its administrator")
    return value


def gitlab_setting(name: str) -> None:
    """Raises ValueError unless this may be the name of one of GitLab's own settings."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError("is not a name such as GitLab's settings have, for example admin_mode (GitLab, Settings API)")


def secret_lines(value: str) -> list[int]:
    """Numbers, from 1, of the lines that look as if they held a secret (SECRET_LINE)."""
    return [number for number, line in enumerate(value.splitlines(), start=1) if SECRET_LINE.search(line)]


def tag(name: str, value: str) -> None:
    """Raises ValueError unless this is a tag that EC2 and Elastic Load Balancing accept (the latter's API Reference,
    Tag: it takes fewer characters), and none of those that the program sets.
    """
    if not re.fullmatch(r"[\w\s.:/=+@-]{1,128}", name) or name.lower().startswith("aws:"):
        raise ValueError("has a key AWS refuses (1 to 128 letters, digits, spaces and . : / = + - @; not aws:)")
    if not re.fullmatch(r"[\w\s.:/=+@-]{0,256}", value):
        raise ValueError("is a value AWS refuses (up to 256 letters, digits, spaces and . : / = + - @)")
    if name == "Name":
        raise ValueError("would give every resource one name; the program sets Name itself")
    # Policies do not tell upper case from lower in the key of a tag (IAM User Guide, "Condition").
    if name.lower() == STACK_TAG:
        raise ValueError(f"would let another stack's operators at this one; the program sets {STACK_TAG} itself")
