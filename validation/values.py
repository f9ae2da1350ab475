"""Checks of single values: each accepts the string of a key and returns its value, or raises ValueError with a message
that continues "KEY: VALUE ...".
"""

import ipaddress
import re
import string
import unicodedata
from collections.abc import Callable, Sequence

from validation.supported_versions import OLDEST

WEAK_PASSWORD_PARTS = ("gitlab", "devops", "administrator", "admin", "root", "example")
"""GitLab rejects passwords that contain these or a part of the administrator's name: lib/security/weak_passwords.rb."""

SHARED_NETWORK = ipaddress.IPv4Network("100.64.0.0/10")
PRIVATE_NETWORKS = tuple(ipaddress.IPv4Network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
"""RFC 1918."""

STACK_TAG = "gitlab-stack"
"""Key of the tag that shows, in AWS's policies, which stack a resource belongs to."""

DOCKER_NETWORK = ipaddress.IPv4Network("172.17.0.0/16")
"""Docker's default bridge network on the registry's and the runner's machine (Docker docs, "Bridge network driver")."""

LARGEST_ADMIN_NETWORK = 16
"""Prefix length: 65,536 addresses."""

SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 128
"""Characters of the first password of GitLab's root user; the maximum is GitLab's (config/initializers/8_devise.rb)."""

OLDEST_DOCKER = (23, 0, 0)
"""Docker named earlier el8 packages VERSION-3.el8 (download.docker.com/linux/rhel)."""

SMTP_AUTHENTICATIONS = ("login", "plain", "cram_md5")
"""The methods that GitLab's package accepts (omnibus-gitlab, SmtpHelper)."""

SMALL_SIZES = re.compile(r"(?:[a-z0-9-]+\.(?:nano|micro|small)|(?![rxz])[a-z0-9-]+\.medium|c[a-z0-9-]*\.large)")
"""Names of instance types with less than 8 GiB: the c families have 2 GiB per vCPU, all others at least 4, and the size
`large` has two vCPUs (Amazon EC2 Instance Types Guide).
"""

BLANK_AT_END = "starts or ends with whitespace, which is easily lost when it is copied. Use one without"


def matching(pattern: str, mismatch: str) -> Callable[[str], str]:
    """A check that the whole string matches a regular expression; `mismatch` is the message if it does not."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(mismatch)
        return value

    return check


_REGION = r"[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}"
_LABEL = "(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
region = matching(_REGION, "is not an AWS region such as eu-central-1")
availability_zone = matching(rf"{_REGION}[a-z]", "is not an availability zone such as eu-central-1a")
ami_id = matching(r"ami-([0-9a-f]{8}|[0-9a-f]{17})", "is not an AMI ID (ami- and 17 hex digits)")
volume_id = matching(r"vol-([0-9a-f]{8}|[0-9a-f]{17})", "is not a volume ID (vol- and 17 hex digits)")
snapshot_id = matching(r"snap-([0-9a-f]{8}|[0-9a-f]{17})", "is not a snapshot ID (snap- and 17 hex digits)")
address_id = matching(
    r"eipalloc-([0-9a-f]{8}|[0-9a-f]{17})",
    "is not the allocation ID of an Elastic IP address (eipalloc- and 17 hex digits)",
)
hosted_zone_id = matching(r"Z[A-Z0-9]{1,31}", "is not a Route 53 hosted zone ID (Z...)")
certificate_arn = matching(
    r"arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]{36}",
    "is not the ARN of an ACM certificate (arn:aws:acm:REGION:ACCOUNT:certificate/ID)",
)
policy_arn = matching(
    r"arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/([\x21-\x7e]{1,510}/)?[A-Za-z0-9+=,.@_-]{1,128}",
    "is not the ARN of an IAM policy (arn:aws:iam::ACCOUNT:policy/NAME)",
)
instance_type = matching(r"[a-z][a-z0-9-]*[0-9][a-z0-9-]*\.[a-z0-9-]+", "is not an instance type such as m6i.xlarge")
version = matching(r"(0|[1-9][0-9]{0,3})(\.(0|[1-9][0-9]{0,3})){2}", "is not a version such as 17.10.4")
runner_tag = matching(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,254}", "is not a runner tag (letters, digits, . _ : -)")
runner_name = matching(
    r"[A-Za-z0-9_.-]{1,201}",
    "is not a runner name (letters, digits, . _ -), such as gitlab-prod",
)
smtp_authentication = matching("|".join(SMTP_AUTHENTICATIONS), f"is not one of {', '.join(SMTP_AUTHENTICATIONS)}")
host_name = matching(
    rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})+(?<!\.[0-9])(?<!\.[0-9][0-9])(?<!\.[0-9]{{3}})",
    "is not a host name such as git.example.com",
)


def domain(value: str) -> str:
    """A lower-case domain name with at least two labels and at most 253 characters. Raises ValueError otherwise."""
    if "://" in value:
        raise ValueError("includes a scheme. Set only the name, for example git.example.com")
    if re.fullmatch(r"[\d.]+", value) or value != value.lower() or len(value) > 253:
        raise ValueError("is not a lower-case domain name such as git.example.com")
    return host_name(value)


def mail_server(value: str) -> str:
    """The host name or IPv4 address of an SMTP server. Raises ValueError for anything else."""
    if "://" in value or re.search(r":[0-9]+$", value):
        raise ValueError(
            "includes a scheme or a port. Set only the name, for example mail.example.com, and the port as smtpPort"
        )
    if re.fullmatch(r"[0-9.]+", value):
        try:
            return str(ipaddress.IPv4Address(value))
        except ValueError:
            raise ValueError("is not an IPv4 address such as 10.1.2.3") from None
    return host_name(value)


def email(value: str) -> str:
    """An email address according to RFC 5321 (section 4.1.2, Mailbox), with at most 64 characters before the @. Raises
    ValueError for anything else.
    """
    atom = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
    quoted = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
    local, _, place = value.rpartition("@")
    if not re.fullmatch(rf"(?=.{{1,64}}$)(?:{atom}(?:\.{atom})*|{quoted})", local):
        raise ValueError("is not an email address such as git@example.com, without a display name")
    try:
        if place.startswith("[") and place.endswith("]"):
            ipaddress.IPv4Address(place[1:-1])
        else:
            host_name(place)
    except ValueError:
        raise ValueError("is not an email address: the part after @ is not a domain such as example.com") from None
    return value


def smtp_password(value: str) -> str:
    """A password for an SMTP server. Raises ValueError for line breaks and for whitespace at either end."""
    if value != value.strip():
        raise ValueError(BLANK_AT_END)
    if not value.isprintable():
        raise ValueError("contains a line break or another non-printable character")
    return value


def fingerprint(value: str) -> str:
    """The fingerprint of an OpenPGP key, 40 upper-case hex digits; spaces, as vendors publish it, are removed. Raises
    ValueError for anything else: the shorter key IDs can be forged (evil32.com).
    """
    digits = "".join(value.split()).upper()
    if not re.fullmatch(r"[0-9A-F]{40}", digits):
        raise ValueError("is not the full fingerprint of an OpenPGP key (40 hex digits)")
    return digits


def gitlab_version(value: str) -> str:
    """A version of GitLab that this program supports. Raises ValueError for any other."""
    checked = version(value)
    if _numbers(checked)[:2] < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ValueError(f"is older than {oldest}, the oldest supported release. Use {oldest} or later")
    return checked


def server_instance_type(value: str) -> str:
    """An instance type that may have enough memory for GitLab. Raises ValueError for one that is known not to."""
    checked = instance_type(value)
    if SMALL_SIZES.fullmatch(checked):
        raise ValueError("has less than the 8 GiB of memory that GitLab needs. Use a larger one such as m6i.xlarge")
    return checked


def docker_version(value: str) -> str:
    """A version of Docker Engine that the runner's helper supports. Raises ValueError for any other."""
    checked = version(value)
    if _numbers(checked) < OLDEST_DOCKER:
        raise ValueError("has no el8 package named docker-ce-VERSION-1.el8. Use 28.5.x, or 29.3 or later")
    # The helper of runner 17.10 uses API 1.41; Docker 29.0 to 29.2 reject versions below 1.44 (runner issue 39101).
    if checked.startswith(("29.0.", "29.1.", "29.2.")):
        raise ValueError("rejects the runner's Docker API version. Use 28.5.x, or 29.3 or later")
    return checked


def _numbers(checked: str) -> tuple[int, ...]:
    return tuple(map(int, checked.split(".")))


def containerd_version(value: str) -> str:
    """A version of the package containerd.io whose runc has no known container escape. Raises ValueError for any other.
    2.0 was never fixed: CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (containerd pull request 12475).
    """
    checked = version(value)
    major, minor, patch = _numbers(checked)
    fixed = {(1, 7): 29, (2, 1): 5}
    if (major, minor) < (1, 7) or (major, minor) == (2, 0) or patch < fixed.get((major, minor), 0):
        raise ValueError("includes a runc that containers can escape from. Use 1.7.29+, 2.1.5+, or 2.2.0 or later")
    return checked


def _ipv4_network(value: str, example: str) -> ipaddress.IPv4Network:
    try:
        wide = ipaddress.IPv4Network(value, strict=False)
    except ValueError:
        raise ValueError(f"is not an IPv4 network such as {example}") from None
    try:
        return ipaddress.IPv4Network(value)
    except ValueError:
        raise ValueError(f"has host bits set. Use {wide}, or append /32 to a single address") from None


def cidr(value: str) -> str:
    """An IPv4 network in canonical form; a single address gets /32. Raises ValueError for anything else."""
    return str(_ipv4_network(value, "198.51.100.0/24"))


def admin_cidr(value: str) -> str:
    """An IPv4 network no larger than LARGEST_ADMIN_NETWORK. Raises ValueError for a larger one, which would expose SSH
    to far more than the administrators.
    """
    checked = cidr(value)
    if ipaddress.IPv4Network(checked).prefixlen < LARGEST_ADMIN_NETWORK:
        raise ValueError(
            f"is larger than /{LARGEST_ADMIN_NETWORK} and opens SSH to too many addresses. "
            "Use your own address, for example 198.51.100.7/32"
        )
    return checked


def private_networks(networks: Sequence[str]) -> list[str]:
    """Those that lie in a private network (RFC 1918) or a provider's shared one (RFC 6598)."""
    return [
        block
        for block in networks
        if any(ipaddress.IPv4Network(block).subnet_of(private) for private in (*PRIVATE_NETWORKS, SHARED_NETWORK))
    ]


def network(value: str) -> ipaddress.IPv4Network:
    """A private IPv4 network (RFC 1918) from /16, AWS's largest VPC, to /26, the smallest that fits the subnet
    (`Settings.subnet`). Raises ValueError for anything else, and if it overlaps Docker's own network.
    """
    block = _ipv4_network(value, "10.42.0.0/16")
    if not any(block.subnet_of(private) for private in PRIVATE_NETWORKS):
        raise ValueError("is not a private network. Use one inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")
    if block.overlaps(DOCKER_NETWORK):
        raise ValueError(f"overlaps {DOCKER_NETWORK}, which Docker uses on the machines. Use another network")
    if not 16 <= block.prefixlen <= 26:
        raise ValueError("has an unsupported prefix length. Use a prefix from /16 to /26")
    return block


def root_password(value: str) -> str:
    """A password that GitLab accepts for its administrator. Raises ValueError for one that GitLab would reject: a weak
    password fails GitLab's first reconfigure, long after the settings were read.
    """
    if value != value.strip():
        raise ValueError(BLANK_AT_END)
    if len(value) < SHORTEST_PASSWORD:
        raise ValueError(f"is shorter than {SHORTEST_PASSWORD} characters")
    if len(value) > LONGEST_PASSWORD:
        raise ValueError(f"is longer than {LONGEST_PASSWORD} characters, GitLab's limit")
    if any(character not in string.printable or character in "\n\r\t\v\f" for character in value):
        raise ValueError("contains a character outside printable ASCII")
    for part in WEAK_PASSWORD_PARTS:
        if part in value.lower():
            raise ValueError(f"contains {part!r}, and GitLab rejects such passwords for administrators")
    if len(set(value)) < 6:
        raise ValueError("repeats the same few characters, and GitLab rejects weak passwords for administrators")
    return value


def gitlab_setting(name: str) -> None:
    """Raise ValueError unless `name` has the form of a GitLab setting's name."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError("is not a name from GitLab's Settings API, for example admin_mode")


def tag(name: str, value: str) -> None:
    """Raise ValueError unless EC2 and Elastic Load Balancing accept this tag, and the program does not set it itself.
    Elastic Load Balancing allows fewer characters (its API Reference, Tag).
    """
    if not 1 <= len(name) <= 128 or not _is_tag_text(name) or name.lower().startswith("aws:"):
        raise ValueError("has a key that AWS rejects (1 to 128 letters, digits, spaces and _ . : / = + - @; not aws:)")
    if len(value) > 256 or not _is_tag_text(value):
        raise ValueError("is a value that AWS rejects (one line of up to 256 letters, digits, spaces, _ . : / = + - @)")
    # IAM does not distinguish the case of tag keys, neither of its resources' tags (IAM User Guide, "Tags for IAM
    # resources") nor in policies ("Condition").
    if name.lower() == "name":
        raise ValueError("would give every resource the same name; the program sets Name itself")
    if name.lower() == STACK_TAG:
        raise ValueError(f"would let another stack's operators change this one; the program sets {STACK_TAG} itself")


def _is_tag_text(text: str) -> bool:
    r"""Whether Elastic Load Balancing accepts it (API Reference, Tag): `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`. Of \p{Z} only the
    space: the others are line separators and invisible characters.
    """
    return all(each in " _.:/=+-@" or unicodedata.category(each)[0] in "LN" for each in text)
