"""Settings of a stack: every key of `Pulumi.yaml` read and checked once, before any resource exists.

Nothing here knows Pulumi: `Settings.load` takes anything that has `get` and `get_object`, so the checks run in
plain unit tests. Secrets are held as plain text with `repr=False`; components mark them secret.
"""

import base64
import binascii
import ipaddress
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

WORLD = ipaddress.IPv4Network("0.0.0.0/0")
MINIMUM_ROOT_VOLUME_SIZE = 30  # GiB; the GitLab package unpacks to several GB beside the system

# GitLab refuses passwords that contain these or a part of the administrator's name: lib/security/weak_passwords.rb.
WEAK_PASSWORD_PARTS = ("gitlab", "devops", "administrator", "admin", "root", "example")
SHORTEST_PASSWORD = 12

# Unencrypted private keys that SSH clients in Go read; golang.org/x/crypto/ssh ParsePrivateKey.
PRIVATE_KEY = re.compile(
    r"\A\s*-----BEGIN (?P<kind>OPENSSH |RSA |EC |)PRIVATE KEY-----\s"
    r"(?P<body>.+)-----END (?P=kind)PRIVATE KEY-----\s*\Z",
    re.DOTALL,
)
OPENSSH_MAGIC = b"openssh-key-v1\0"


# Some of systemd.time(7): a word, or weekdays, date, time of day and zone, of which the time must be there. Never every
# minute: the registry takes no push while its garbage is collected.
_DAY, _NUMBERS = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)", r"[\d*][\d*.,/]*"
CALENDAR = (
    r"daily|weekly|monthly|quarterly|semiannually|yearly|"
    rf"({_DAY}((,|\.\.){_DAY})* )?(({_NUMBERS}-)?{_NUMBERS}[-~]{_NUMBERS} )?"
    rf"{_NUMBERS}:[0-5]\d(:[0-5]\d)?( UTC| [A-Z][A-Za-z_]+(/[A-Za-z_+-]+)+)?"
)


BLOCKED_SMTP_PORT = 25
"""AWS lets nothing out to it at public addresses: EC2 User Guide, "Restriction on email sent using port 25"."""


class SettingsError(ValueError):
    """The stack's settings cannot be used; each of `problems` names a key, its value and the remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("The settings of this stack cannot be used:\n- " + "\n- ".join(problems))


class ConfigReader(Protocol):
    """What `Settings.load` needs of `pulumi.Config`."""

    def get(self, key: str) -> str | None: ...
    def get_object(self, key: str) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Size of one machine. Volumes in GiB; `data_volume_size` is None where a machine holds no data.

    `data_volume_id` names a volume that a destroyed stack has left, to be taken over.
    """

    instance_type: str
    root_volume_size: int
    data_volume_size: int | None = None
    data_volume_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class SmtpSettings:
    """Where GitLab sends its mail."""

    address: str
    port: int
    user_name: str
    password: str = field(repr=False)
    sender: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One stack, as its owner wishes it. `Pulumi.yaml` describes each key."""

    region: str
    availability_zone: str
    network: ipaddress.IPv4Network
    admin_cidrs: tuple[str, ...]
    client_cidrs: tuple[str, ...]
    domain: str | None
    certificate_arn: str | None
    hosted_zone_id: str | None
    registry_port: int
    registry_garbage_collection: str
    registry_garbage_collection_untagged: bool
    balancer_address_id: str | None
    ami_id: str | None
    server: MachineSettings
    registry: MachineSettings
    runner: MachineSettings
    ssh_public_key: str
    ssh_private_key: str = field(repr=False)
    gitlab_version: str
    runner_version: str
    registry_version: str
    docker_version: str
    initial_root_password: str | None = field(repr=False)
    runner_concurrency: int
    runner_tags: tuple[str, ...]
    runner_default_image: str
    runner_privileged: bool
    acceptance_pipeline: bool
    acceptance_image: str
    smtp: SmtpSettings | None
    extra_gitlab_rb: str = field(repr=False)
    deletion_protection: bool
    tags: Mapping[str, str]

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """The one subnet: the first sixteenth of the network, never smaller than /27.

        A /28 has 11 usable addresses. Three are the machines', and a load balancer wants eight free ones ("Availability
        Zones for your Network Load Balancer"), so none would be left for anything else.
        """
        return next(self.network.subnets(new_prefix=min(self.network.prefixlen + 4, 27)))

    @property
    def serves_tls(self) -> bool:
        return self.certificate_arn is not None

    @property
    def scheme(self) -> str:
        return "https" if self.serves_tls else "http"

    @property
    def web_port(self) -> int:
        return 443 if self.serves_tls else 80

    @property
    def warnings(self) -> list[str]:
        """What will not work in most accounts and cannot be looked up: each with key, value and remedy."""
        if self.smtp is None or self.smtp.port != BLOCKED_SMTP_PORT:
            return []
        return [
            f"smtpPort: AWS blocks port {BLOCKED_SMTP_PORT} on the way to public addresses, and mail would time out. "
            "Use 587 (Amazon SES takes 2587 too), or have the block lifted before: "
            "EC2 User Guide, 'Restriction on email sent using port 25'."
        ]

    @classmethod
    def load(cls, config: ConfigReader, aws: ConfigReader, is_secret: Callable[[str], bool]) -> "Settings":
        """Read the project's keys from `config` and the region from `aws`; `is_secret` tells whether a key of `config`
        is encrypted in the stack's file.

        Raises SettingsError that lists everything wrong, not only the first find.
        """
        keys = _Keys(config, is_secret)
        region = keys.checked("aws:region", aws.get("region"), _region)
        zone = keys.text("availabilityZone", _availability_zone)
        network = keys.text("networkCidr", _network)
        client_cidrs = keys.sequence("clientCidrs", _cidr)
        admin_cidrs = keys.sequence("adminCidrs", _admin_cidr)
        domain = keys.optional("domain", _domain)
        certificate_arn = keys.optional("certificateArn", _certificate_arn)
        hosted_zone_id = keys.optional("hostedZoneId", _hosted_zone_id)
        public_key = keys.text("sshPublicKey", _public_key)
        private_key = keys.secret("sshPrivateKey", _private_key)
        tags = keys.mapping("tags", _tag)
        smtp = _smtp(keys)

        settings = cls(
            region=region,
            availability_zone=zone,
            network=network,
            admin_cidrs=admin_cidrs,
            client_cidrs=client_cidrs,
            domain=domain,
            certificate_arn=certificate_arn,
            hosted_zone_id=hosted_zone_id,
            registry_port=keys.number("registryPort", 1024, 65535),
            registry_garbage_collection=keys.optional("registryGarbageCollection", _calendar) or "",
            registry_garbage_collection_untagged=keys.boolean("registryGarbageCollectionUntagged"),
            balancer_address_id=keys.optional("balancerAddressId", _address_id),
            ami_id=keys.optional("amiId", _ami_id),
            server=_machine(keys, "server", has_data=True),
            registry=_machine(keys, "registry", has_data=True),
            runner=_machine(keys, "runner", has_data=False),
            ssh_public_key=public_key,
            ssh_private_key=private_key,
            gitlab_version=keys.text("gitlabVersion", _version),
            runner_version=keys.text("runnerVersion", _version),
            registry_version=keys.text("registryVersion", _version),
            docker_version=keys.text("dockerVersion", _docker_version),
            initial_root_password=keys.optional_secret("initialRootPassword", _root_password),
            runner_concurrency=keys.number("runnerConcurrency", 1, 1000),
            runner_tags=keys.sequence("runnerTags", _runner_tag, empty_allowed=True),
            runner_default_image=keys.text("runnerDefaultImage", _image),
            runner_privileged=keys.boolean("runnerPrivileged"),
            acceptance_pipeline=keys.boolean("acceptancePipeline"),
            acceptance_image=keys.text("acceptanceImage", _image),
            smtp=smtp,
            extra_gitlab_rb=keys.optional_secret_text("gitlabRb", _gitlab_rb) or "",
            deletion_protection=keys.boolean("deletionProtection"),
            tags=tags,
        )
        keys.problems += _problems_between_keys(settings) if not keys.problems else []
        if keys.problems:
            raise SettingsError(keys.problems)
        return settings


def _problems_between_keys(settings: Settings) -> list[str]:
    problems = []
    if settings.availability_zone[:-1] != settings.region:
        problems.append(
            f"availabilityZone: {settings.availability_zone!r} is not in aws:region {settings.region!r}. "
            f"Name a zone of that region, for example {settings.region}a."
        )
    if settings.certificate_arn:
        if not settings.domain:
            problems.append(
                "domain: missing, but certificateArn is set. A certificate is for a name: set the domain it is for."
            )
        certificate_region = settings.certificate_arn.split(":")[3]
        if certificate_region != settings.region:
            problems.append(
                f"certificateArn: the certificate is in {certificate_region!r}, the balancer in {settings.region!r}. "
                "Use a certificate of the balancer's region."
            )
    elif str(WORLD) in settings.client_cidrs:
        problems.append(
            "clientCidrs: 0.0.0.0/0 without certificateArn would carry passwords and job tokens of the whole world in "
            "clear. Name the networks of your users, or set domain and certificateArn."
        )
    if settings.registry_garbage_collection_untagged and not settings.registry_garbage_collection:
        problems.append(
            "registryGarbageCollectionUntagged: set, but registryGarbageCollection is missing. Say when to collect."
        )
    if settings.server.data_volume_id and settings.server.data_volume_id == settings.registry.data_volume_id:
        problems.append(
            f"registryDataVolumeId: {settings.registry.data_volume_id!r} is serverDataVolumeId as well. "
            "Each machine has a volume of its own: name the one of pushed images."
        )
    if settings.hosted_zone_id and not settings.domain:
        problems.append("hostedZoneId: set, but domain is missing. Set the domain whose record shall be made.")
    problems += _key_pair_problem(settings.ssh_public_key, settings.ssh_private_key)
    return problems


class _Keys:
    """Reads keys and collects what is wrong with them, so that one run names every mistake."""

    def __init__(self, config: ConfigReader, is_secret: Callable[[str], bool]) -> None:
        self.config = config
        self.is_secret = is_secret
        self.problems: list[str] = []

    def checked(self, key: str, value: str | None, check: "Check") -> Any:
        """A value that is required, wherever it comes from."""
        if not value:
            self.problems.append(f"{key}: missing. Set it in the stack's file.")
            return None
        return self._checked(key, value, check)

    def text(self, key: str, check: "Check") -> Any:
        return self.checked(key, self.config.get(key), check)

    def secret(self, key: str, check: "Check") -> Any:
        value = self.config.get(key)
        if not value:
            self.problems.append(f"{key}: missing. Set it with: pulumi config set --secret {key}")
            return None
        if not self.is_secret(key):
            self.problems.append(f"{key}: in plain text. Set it anew with: pulumi config set --secret {key}")
        return self._checked(key, value, check, shown="(secret)")

    def optional(self, key: str, check: "Check") -> Any:
        return self._checked(key, value, check) if (value := self.config.get(key)) else None

    def optional_secret(self, key: str, check: "Check") -> Any:
        return self.secret(key, check) if self.config.get(key) else None

    def optional_secret_text(self, key: str, check: "Check") -> Any:
        """Text that may hold secrets and need not: never shown, taken in plain as well."""
        return self._checked(key, value, check, shown="(hidden)") if (value := self.config.get(key)) else None

    def number(self, key: str, lowest: int, highest: int) -> Any:
        def whole(value: str) -> int:
            if not re.fullmatch(r"-?\d+", value) or not lowest <= int(value) <= highest:
                raise ValueError(f"is not a whole number from {lowest} to {highest}")
            return int(value)

        return self.text(key, whole)

    def boolean(self, key: str) -> Any:
        def truth(value: str) -> bool:
            if value not in ("true", "false"):
                raise ValueError("is neither true nor false")
            return value == "true"

        return self.text(key, truth)

    def sequence(self, key: str, check: "Check", *, empty_allowed: bool = False) -> Any:
        values = self._structure(key)
        if values is None and empty_allowed:
            return ()
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self.problems.append(f"{key}: {'missing' if values is None else f'{values!r} is not a list of texts'}.")
            return ()
        if not values and not empty_allowed:
            self.problems.append(f"{key}: empty. Name at least one.")
        checked = tuple(self._checked(f"{key}[{position}]", value, check) for position, value in enumerate(values))
        if len(set(checked)) != len(checked):
            self.problems.append(f"{key}: {values!r} names one twice. Name each once.")
        return checked

    def mapping(self, key: str, check: Callable[[str, str], None]) -> Mapping[str, str]:
        values = self._structure(key)
        if values is None:
            return {}
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            self.problems.append(f"{key}: {values!r} does not map texts to texts.")
            return {}
        if len(values) > 40:
            self.problems.append(f"{key}: {len(values)} tags. AWS takes 50 a resource, ten are kept for the program.")
        for name, value in values.items():
            try:
                check(name, value)
            except ValueError as problem:
                self.problems.append(f"{key}.{name}: {value!r} {problem}.")
        return values

    def _structure(self, key: str) -> Any:
        try:
            return self.config.get_object(key)
        except ValueError:
            return self.config.get(key)

    def _checked(self, key: str, value: str, check: "Check", *, shown: str | None = None) -> Any:
        try:
            return check(value)
        except ValueError as problem:
            self.problems.append(f"{key}: {shown or repr(value)} {problem}.")
            return None


Check = Callable[[str], Any]


def _matching(pattern: str, remedy: str) -> Check:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(remedy)
        return value

    return check


_REGION = r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}"
_region = _matching(_REGION, "is not an AWS region such as eu-central-1")
_availability_zone = _matching(rf"{_REGION}[a-z]", "is not an availability zone such as eu-central-1a")
_ami_id = _matching(r"ami-([0-9a-f]{8}|[0-9a-f]{17})", "is not the id of an image (ami- and 17 hex digits)")
_volume_id = _matching(r"vol-([0-9a-f]{8}|[0-9a-f]{17})", "is not the id of a volume (vol- and 17 hex digits)")
_address_id = _matching(
    r"eipalloc-([0-9a-f]{8}|[0-9a-f]{17})",
    "is not the allocation id of an elastic address (eipalloc- and 17 hex digits)",
)
_hosted_zone_id = _matching(r"Z[A-Z0-9]{1,31}", "is not the id of a Route 53 hosted zone (Z...)")
_certificate_arn = _matching(
    r"arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/[0-9a-f-]{36}",
    "is not the ARN of an ACM certificate (arn:aws:acm:REGION:ACCOUNT:certificate/ID)",
)
_instance_type = _matching(r"[a-z][a-z0-9-]*\d[a-z0-9-]*\.[a-z0-9-]+", "is not an instance type such as m6i.xlarge")
_version = _matching(r"\d+\.\d+\.\d+", "is not a version such as 17.10.4")
_runner_tag = _matching(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,254}", "is not a runner tag (letters, digits, . _ : -)")
_image = _matching(
    r"[a-z0-9]+([._/:-][a-zA-Z0-9]+)*(@sha256:[0-9a-f]{64})?", "is not an image name such as alpine:3.20"
)
_calendar = _matching(
    CALENDAR, "is not a time such as daily, Sun 03:00 or *-*-01 04:30 Europe/Berlin (systemd calendar expression)"
)
_email = _matching(r"[^@\s']+@[^@\s']+\.[^@\s']+", "is not a mail address")
_host_name = _matching(
    r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))+",
    "is not a host name such as git.example.com",
)


def _domain(value: str) -> str:
    if "://" in value:
        raise ValueError("has a scheme. Give the name alone, for example git.example.com")
    if re.fullmatch(r"[\d.]+", value) or value != value.lower() or len(value) > 253:
        raise ValueError("is not a lower-case domain name such as git.example.com")
    name: str = _host_name(value)
    return name


def _docker_version(value: str) -> str:
    version: str = _version(value)
    # The helper of runner 17.10 speaks API 1.41 at the least; 29.0 to 29.2 refuse below 1.44 (runner issue 39101).
    if version.startswith(("29.0.", "29.1.", "29.2.")):
        raise ValueError("refuses the runner's Docker API version. Use 28.5.x, or 29.3 and later")
    return version


def _cidr(value: str) -> str:
    try:
        return str(ipaddress.IPv4Network(value))
    except ValueError as error:
        raise ValueError(f"is not an IPv4 network such as 198.51.100.0/24 ({error})") from None


def _admin_cidr(value: str) -> str:
    cidr = _cidr(value)
    if ipaddress.IPv4Network(cidr).prefixlen < 8:
        raise ValueError("opens SSH to the world. Name your own address, for example 198.51.100.7/32")
    return cidr


def _network(value: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError as error:
        raise ValueError(f"is not an IPv4 network such as 10.42.0.0/16 ({error})") from None
    private = [ipaddress.IPv4Network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
    if not any(network.subnet_of(block) for block in private):
        raise ValueError("is not private. Use a block inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")
    if network.overlaps(ipaddress.IPv4Network("172.17.0.0/16")):
        raise ValueError("overlaps 172.17.0.0/16, which Docker uses on the machines. Use another block")
    if not 16 <= network.prefixlen <= 26:
        raise ValueError("has a size AWS or this program cannot use. Use a prefix from /16 to /26")
    return network


def _public_key(value: str) -> str:
    parts = value.split()
    if len(parts) < 2 or parts[0] not in ("ssh-ed25519", "ssh-rsa"):
        raise ValueError("is not an ssh-ed25519 or ssh-rsa public key line; EC2 takes no other")
    try:
        body = base64.b64decode(parts[1], validate=True)
    except binascii.Error:
        raise ValueError("is damaged: its second word is not base64") from None
    if _ssh_string(body) != parts[0].encode():
        raise ValueError(f"is damaged: its second word is not a {parts[0]} key")
    return " ".join(parts)


def _private_key(value: str) -> str:
    match = PRIVATE_KEY.match(value)
    if not match:
        raise ValueError(
            "is not a private key in PEM form. Set it with: pulumi config set --secret sshPrivateKey < FILE"
        )
    if "ENCRYPTED" in match["body"] or _openssh_cipher(match) not in (None, b"none"):
        raise ValueError("is protected by a passphrase, which nobody can type during `up`. Make a key without one")
    return value.strip() + "\n"


def _openssh_cipher(match: re.Match[str]) -> bytes | None:
    blob = _openssh_blob(match)
    return _ssh_string(blob) if blob is not None else None


def _openssh_blob(match: re.Match[str]) -> bytes | None:
    if match["kind"] != "OPENSSH ":
        return None
    try:
        blob = base64.b64decode("".join(match["body"].split()), validate=True)
    except binascii.Error:
        raise ValueError("is damaged: its body is not base64") from None
    if not blob.startswith(OPENSSH_MAGIC):
        raise ValueError("is damaged: its body is not an OpenSSH key")
    return blob.removeprefix(OPENSSH_MAGIC)


def _ssh_string(blob: bytes, position: int = 0) -> bytes:
    """The length-prefixed string at `position`-th place of an SSH blob (RFC 4251 section 5)."""
    for _ in range(position):
        blob = blob[4 + int.from_bytes(blob[:4]) :]
    return blob[4 : 4 + int.from_bytes(blob[:4])]


def _key_pair_problem(public_key: str, private_key: str) -> list[str]:
    match = PRIVATE_KEY.match(private_key)
    blob = _openssh_blob(match) if match else None
    if blob is None:
        return []
    # cipher, kdf, kdf options, then the count of keys (four bytes) and the first public key: PROTOCOL.key of OpenSSH.
    header = sum(4 + len(_ssh_string(blob, position)) for position in range(3))
    if _ssh_string(blob[header + 4 :]) == base64.b64decode(public_key.split()[1]):
        return []
    return ["sshPublicKey: does not belong to sshPrivateKey. Set both from one pair: KEY.pub and KEY."]


def _root_password(value: str) -> str:
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


def _gitlab_rb(value: str) -> str:
    for name in ("external_url", "registry_external_url"):
        if re.search(rf"^\s*{name}\b", value, re.MULTILINE):
            raise ValueError(f"sets {name}, which the program derives from the load balancer. Remove that line")
    return value


def _tag(name: str, value: str) -> None:
    if not re.fullmatch(r"[\w\s.:/=+@-]{1,128}", name) or name.lower().startswith("aws:"):
        raise ValueError("has a key AWS refuses (1 to 128 letters, digits, spaces and . : / = + - @; not aws:)")
    if not re.fullmatch(r"[\w\s.:/=+@-]{0,256}", value):
        raise ValueError("is a value AWS refuses (up to 256 letters, digits, spaces and . : / = + - @)")
    if name == "Name":
        raise ValueError("would give every resource one name; the program sets Name itself")


def _machine(keys: _Keys, role: str, *, has_data: bool) -> MachineSettings:
    return MachineSettings(
        instance_type=keys.text(f"{role}InstanceType", _instance_type),
        root_volume_size=keys.number(f"{role}RootVolumeSize", MINIMUM_ROOT_VOLUME_SIZE, 16384),
        data_volume_size=keys.number(f"{role}DataVolumeSize", 10, 16384) if has_data else None,
        data_volume_id=keys.optional(f"{role}DataVolumeId", _volume_id) if has_data else None,
    )


def _smtp(keys: _Keys) -> SmtpSettings | None:
    if not keys.config.get("smtpAddress"):
        keys.problems += [
            f"{key}: set, but smtpAddress is missing. Set the mail server's name."
            for key in ("smtpUserName", "smtpPassword", "emailFrom")
            if keys.config.get(key)
        ]
        return None
    return SmtpSettings(
        address=keys.text("smtpAddress", _host_name),
        port=keys.number("smtpPort", 1, 65535),
        user_name=keys.text("smtpUserName", _matching(r"\S+", "has blanks")),
        password=keys.secret("smtpPassword", _matching(r"[^\n\r]+", "has more than one line")),
        sender=keys.text("emailFrom", _email),
    )
