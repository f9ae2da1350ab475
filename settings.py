"""The settings of a stack: reads and validates every key of `Pulumi.yaml` once, before any resource is created.

This module does not import Pulumi: `Settings.load` accepts any `ConfigSource`, so plain unit tests can run the checks.
Secrets are plain strings in fields with `repr=False`; components mark them as secret.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from validation import (
    certificates,
    extra_egress,
    gitlab_rb,
    images,
    plain_secrets,
    ssh_keys,
    supported_versions,
    unsupported,
    values,
)
from validation.calendar import calendar
from validation.extra_egress import ExtraEgress
from validation.reader import Check, ConfigSource, Reader

WORLD = ipaddress.IPv4Network("0.0.0.0/0")

SMALLEST_ROOT_VOLUME = 30
"""GiB; the unpacked GitLab package needs several GB in addition to the operating system."""

LARGEST_VOLUME = 16384
"""GiB, for root volumes and data volumes."""

LONGEST_LOCK = 60
"""Days. Every backup is locked for as long as it is kept, and the machines' roles may not lock one for longer."""
LOCK_LIMIT = f"backups are locked while they are kept, for at most {LONGEST_LOCK} days"

MOST_JOBS = 250
"""Concurrent jobs. Each has its own network, and Docker can create 255 on the runner's machine; the remaining few allow
for networks left behind by killed jobs.
"""
ONE_NETWORK_PER_JOB = "each job has its own Docker network, and Docker has 255 of them. For more jobs, add runners"

MOST_RUNNER_TAGS = 50
"""GitLab rejects a runner with more (app/models/ci/runner.rb, TAG_LIST_MAX_LENGTH)."""

BLOCKED_SMTP_PORT = 25
"""AWS blocks it to public addresses: EC2 User Guide, "Restriction on email sent using port 25"."""

LONGEST_REQUESTED_NAME = 64
"""Characters of the domain of a requested certificate (ACM API Reference, RequestCertificate: DomainName)."""

IMPLICIT_TLS_PORTS = (443, 465, 2465, 8465)
"""465 by RFC 8314, section 7.3; Amazon SES also offers 2465 ("Connecting to an Amazon SES SMTP endpoint"), and others,
such as SMTP2GO, 443 and 8465.
"""

DRILL_WARNING = (
    "drill: true, so this stack is a silenced copy of a backup: its GitLab runs only the jobs of the acceptance, and "
    "reaches only this stack. Do not use it, and destroy it after the checks."
)


class SettingsError(ValueError):
    """The stack's settings are invalid. Each of `problems` names a key, its value and the remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("The stack's settings are invalid:\n- " + "\n- ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """The size of one machine. Volume sizes are in GiB; `data_volume_size` is None if the machine has no data volume.

    `data_volume_id` is a volume kept from a destroyed stack, to adopt; `data_snapshot_id` a backup to restore.
    """

    instance_type: str
    root_volume_size: int
    data_volume_size: int | None = None
    data_volume_id: str | None = None
    data_snapshot_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class SmtpSettings:
    """The SMTP server that GitLab sends mail through; `sender` is an email address. `user_name` and `password` are None
    if the server needs no login; `authentication` is one of values.SMTP_AUTHENTICATIONS.
    """

    address: str
    port: int
    user_name: str | None = None
    password: str | None = field(default=None, repr=False)
    authentication: str = "login"
    sender: str

    @property
    def implicit_tls(self) -> bool:
        """Whether the connection starts with TLS; otherwise GitLab uses STARTTLS."""
        return self.port in IMPLICIT_TLS_PORTS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The validated settings of one stack. `Pulumi.yaml` describes each key."""

    region: str
    availability_zone: str
    network: ipaddress.IPv4Network
    admin_cidrs: tuple[str, ...]
    client_cidrs: tuple[str, ...]
    extra_egress: tuple[ExtraEgress, ...]
    domain: str | None
    certificate_arn: str | None
    certificate_pem: str | None
    certificate_key_pem: str | None = field(repr=False)
    certificate_authority: str | None
    plain_http: bool
    accept_plain_http_after_tls: bool
    hosted_zone_id: str | None
    registry_port: int
    registry_garbage_collection: str
    registry_garbage_collection_untagged: bool
    balancer_address_id: str | None
    security_updates: str
    ami_id: str | None
    server: MachineSettings
    registry: MachineSettings
    runner: MachineSettings
    ssh_public_key: str
    ssh_private_key: str | None = field(repr=False)
    gitlab_version: str
    accept_unsupported_gitlab: bool
    runner_version: str
    registry_version: str
    registry_image: str | None
    docker_version: str
    containerd_version: str
    gitlab_package_keys: tuple[str, ...]
    runner_package_keys: tuple[str, ...]
    docker_package_keys: tuple[str, ...]
    initial_root_password: str | None = field(repr=False)
    runner_name: str | None
    runner_concurrency: int
    runner_tags: tuple[str, ...]
    runner_job_memory: int
    runner_job_cpus: int
    runner_default_image: str
    runner_shared_cache: bool
    runner_privileged: bool
    runner_privileged_images: tuple[str, ...]
    acceptance_pipeline: bool
    acceptance_image: str
    smtp: SmtpSettings | None
    gitlab_settings: Mapping[str, object] = field(repr=False)
    extra_gitlab_rb: str = field(repr=False)
    backup: bool
    backup_schedule: str
    backup_keep_hourly: int
    backup_keep_daily: int
    backup_keep_weekly: int
    permissions_boundary: str | None
    deletion_protection: bool
    drill: bool
    tags: Mapping[str, str]

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """The only subnet: the first sixteenth of the network, but never smaller than /27.

        A /28 has 11 usable addresses. The machines use three, and a load balancer needs eight free ones ("Availability
        Zones for your Network Load Balancer"), which would leave none.
        """
        return next(self.network.subnets(new_prefix=min(self.network.prefixlen + 4, 27)))

    @property
    def open_to_the_world(self) -> bool:
        """Whether `client_cidrs` together cover at least half of all addresses: AWS also accepts 0.0.0.0/0 in parts."""
        united = ipaddress.collapse_addresses(map(ipaddress.IPv4Network, self.client_cidrs))
        return sum(network.num_addresses for network in united) >= WORLD.num_addresses // 2

    @property
    def restores(self) -> bool:
        """Whether the data volumes are created from a backup."""
        return self.server.data_snapshot_id is not None

    @property
    def serves_tls(self) -> bool:
        """Whether the load balancer terminates TLS; it then serves no plain HTTP."""
        return bool(self.certificate_arn or self.certificate_pem or (self.domain and not self.plain_http))

    @property
    def requests_certificate(self) -> bool:
        """Whether the program requests the certificate for the domain, because the settings contain none."""
        return self.serves_tls and not self.certificate_arn and not self.certificate_pem

    @property
    def scheme(self) -> str:
        """The scheme of external_url: `http` or `https`."""
        return "https" if self.serves_tls else "http"

    @property
    def web_port(self) -> int:
        """The load balancer's port for GitLab's web interface."""
        return 443 if self.serves_tls else 80

    @property
    def warnings(self) -> list[str]:
        """Settings that are valid but inadvisable, or that fail in most accounts and cannot be checked in advance. Each
        warning contains the key, the value and the remedy.
        """
        warnings = [DRILL_WARNING] if self.drill else []
        warnings += supported_versions.warnings(self.gitlab_version)
        if not self.serves_tls:
            warnings.append(
                f"{'plainHttp: true' if self.domain else 'domain: missing'}, so passwords, tokens and images are sent "
                f"unencrypted. {'Remove plainHttp' if self.domain else 'Set domain'} to serve only TLS."
            )
        if self.certificate_pem:
            warnings += certificates.warnings(self.certificate_pem, self.certificate_authority)
        for key, networks in (("adminCidrs", self.admin_cidrs), ("clientCidrs", self.client_cidrs)):
            if private := values.private_networks(networks):
                warnings.append(
                    f"{key}: {', '.join(private)} is private, but clients reach machines and load balancer over the "
                    "internet, with a public address. Set that; curl https://checkip.amazonaws.com shows it to them."
                )
        if not self.backup and not self.drill:
            warnings.append(
                "backup: false, so GitLab's data and the pushed images are not backed up. What is deleted, or lost "
                "with a volume, cannot be restored. Set it to true unless another system takes and tests backups."
            )
        if self.smtp is not None and self.smtp.port == BLOCKED_SMTP_PORT:
            warnings.append(
                f"smtpPort: AWS blocks port {BLOCKED_SMTP_PORT} to public addresses, so sending mail will time out. "
                "Use 587 (Amazon SES also accepts 2587), or ask AWS to remove the restriction first: "
                "EC2 User Guide, 'Restriction on email sent using port 25'."
            )
        if any(BLOCKED_SMTP_PORT in entry.ports and entry.protocol == "tcp" for entry in self.extra_egress):
            warnings.append(
                f"extraEgress: AWS blocks port {BLOCKED_SMTP_PORT} to public addresses even if a security group allows "
                "it. Ask AWS to remove the restriction first, or use another port."
            )
        return warnings

    @classmethod
    def load(cls, config: ConfigSource, aws: ConfigSource, is_secret: Callable[[str], bool]) -> "Settings":
        """Read the project's keys from `config` and the region from `aws`; `is_secret` returns whether a key of
        `config` is encrypted in the stack's file.

        Raises SettingsError, which lists all problems, not only the first one.
        """
        keys = Reader(config, is_secret)
        # Problems are listed in this order.
        settings = cls(
            region=keys.required("aws:region", aws.get("region"), values.region),
            availability_zone=keys.text("availabilityZone", values.availability_zone),
            network=keys.text("networkCidr", values.network),
            client_cidrs=keys.sequence("clientCidrs", values.cidr),
            admin_cidrs=keys.sequence("adminCidrs", values.admin_cidr),
            extra_egress=extra_egress.load(keys),
            domain=keys.optional("domain", values.domain),
            certificate_arn=keys.optional("certificateArn", values.certificate_arn),
            certificate_pem=keys.hidden("certificatePem", certificates.certificate),
            certificate_key_pem=keys.optional_secret("certificateKeyPem", certificates.private_key),
            certificate_authority=keys.hidden("certificateAuthority", certificates.authority),
            plain_http=keys.boolean("plainHttp"),
            accept_plain_http_after_tls=keys.boolean("acceptPlainHttpAfterTls"),
            hosted_zone_id=keys.optional("hostedZoneId", values.hosted_zone_id),
            ssh_public_key=keys.text("sshPublicKey", ssh_keys.public_key),
            ssh_private_key=keys.optional_secret("sshPrivateKey", ssh_keys.private_key),
            tags=keys.mapping("tags", values.tag),
            smtp=_smtp(keys),
            registry_port=keys.number("registryPort", 1024, 65535),
            registry_garbage_collection=keys.optional("registryGarbageCollection", calendar) or "",
            registry_garbage_collection_untagged=keys.boolean("registryGarbageCollectionUntagged"),
            balancer_address_id=keys.optional("balancerAddressId", values.address_id),
            security_updates=keys.optional("securityUpdates", calendar) or "",
            ami_id=keys.optional("amiId", values.ami_id),
            server=_machine(keys, "server", values.server_instance_type, has_data=True),
            registry=_machine(keys, "registry", values.instance_type, has_data=True),
            runner=_machine(keys, "runner", values.instance_type, has_data=False),
            gitlab_version=keys.text("gitlabVersion", values.gitlab_version),
            accept_unsupported_gitlab=keys.boolean("acceptUnsupportedGitlab"),
            runner_version=keys.text("runnerVersion", values.version),
            registry_version=keys.text("registryVersion", values.version),
            registry_image=keys.optional("registryImage", images.image),
            docker_version=keys.text("dockerVersion", values.docker_version),
            containerd_version=keys.text("containerdVersion", values.containerd_version),
            gitlab_package_keys=keys.sequence("gitlabPackageKeys", values.fingerprint),
            runner_package_keys=keys.sequence("runnerPackageKeys", values.fingerprint),
            docker_package_keys=keys.sequence("dockerPackageKeys", values.fingerprint),
            initial_root_password=keys.optional_secret("initialRootPassword", values.root_password),
            runner_name=keys.optional("runnerName", values.runner_name),
            runner_concurrency=keys.number("runnerConcurrency", 1, MOST_JOBS, reason=ONE_NETWORK_PER_JOB),
            runner_tags=keys.sequence(
                "runnerTags",
                values.runner_tag,
                empty_allowed=True,
                most=MOST_RUNNER_TAGS,
                reason="GitLab accepts no runner with more tags",
            ),
            runner_job_memory=keys.number("runnerJobMemory", 0, 24 * 1024 * 1024),
            runner_job_cpus=keys.number("runnerJobCpus", 0, 448),
            runner_default_image=keys.text("runnerDefaultImage", images.image),
            runner_shared_cache=keys.boolean("runnerSharedCache"),
            runner_privileged=keys.boolean("runnerPrivileged"),
            runner_privileged_images=keys.sequence("runnerPrivilegedImages", images.image, empty_allowed=True),
            acceptance_pipeline=keys.boolean("acceptancePipeline"),
            acceptance_image=keys.text("acceptanceImage", images.image),
            gitlab_settings=keys.structure("gitlabSettings", values.gitlab_setting),
            extra_gitlab_rb=keys.optional_hidden("gitlabRb", gitlab_rb.lines, plain_secrets.secret_lines) or "",
            backup=keys.boolean("backup"),
            backup_schedule=keys.text("backupSchedule", calendar),
            backup_keep_hourly=keys.number("backupKeepHourly", 1, 24 * LONGEST_LOCK, reason=LOCK_LIMIT),
            backup_keep_daily=keys.number("backupKeepDaily", 0, LONGEST_LOCK, reason=LOCK_LIMIT),
            backup_keep_weekly=keys.number("backupKeepWeekly", 0, LONGEST_LOCK // 7, reason=LOCK_LIMIT),
            permissions_boundary=keys.optional("permissionsBoundary", values.policy_arn),
            deletion_protection=keys.boolean("deletionProtection"),
            drill=keys.boolean("drill"),
        )
        keys.refuse_unknown()
        # Values can only be compared with each other if all of them are valid.
        problems = keys.problems or _problems_between_keys(settings)
        if problems:
            raise SettingsError(problems)
        return settings


def _problems_between_keys(settings: Settings) -> list[str]:
    problems = []
    if settings.availability_zone[:-1] != settings.region:
        problems.append(
            f"availabilityZone: {settings.availability_zone!r} is not in aws:region {settings.region!r}. "
            f"Use a zone in that region, for example {settings.region}a."
        )
    problems += _certificate_problems(settings)
    problems += _world_problems(settings)
    problems += extra_egress.problems_between_entries(settings.extra_egress)
    if settings.registry_garbage_collection_untagged and not settings.registry_garbage_collection:
        problems.append(
            "registryGarbageCollectionUntagged: set, but registryGarbageCollection is missing. Set its schedule."
        )
    if settings.server.data_volume_id and settings.server.data_volume_id == settings.registry.data_volume_id:
        problems.append(
            f"registryDataVolumeId: {settings.registry.data_volume_id!r} is also serverDataVolumeId. "
            "Each machine needs its own volume: set the ID of the volume that holds the pushed images."
        )
    problems += _snapshot_problems(settings.server, settings.registry)
    if settings.hosted_zone_id and not settings.domain:
        problems.append("hostedZoneId: set, but domain is missing. Set the domain to create the record for.")
    problems += [
        f"adminCidrs: the networks together cover {network}, which is larger than /{values.LARGEST_ADMIN_NETWORK} and "
        "opens SSH to too many addresses. List your administrators' addresses, for example 198.51.100.7/32."
        for network in ipaddress.collapse_addresses(map(ipaddress.IPv4Network, settings.admin_cidrs))
        if network.prefixlen < values.LARGEST_ADMIN_NETWORK
    ]
    # A drill has no mail server, but the lines of its original.
    mail = None if settings.smtp or settings.drill else unsupported.sets_mail(settings.extra_gitlab_rb)
    problems += [f"gitlabRb: (hidden) {mail}."] if mail else []
    problems += _privileged_problems(settings)
    problems += _drill_problems(settings) if settings.drill else []
    if settings.ssh_private_key:
        problems += ssh_keys.pair_problems(settings.ssh_public_key, settings.ssh_private_key)
    return problems


def _snapshot_problems(server: MachineSettings, registry: MachineSettings) -> list[str]:
    """Problems of the backup to restore: its two snapshots belong together."""
    machines = {"server": server, "registry": registry}
    problems = [
        f"{role}DataVolumeId: set, and so is {role}DataSnapshotId. Remove one: a volume is either adopted or created "
        "from a backup."
        for role, machine in machines.items()
        if machine.data_volume_id and machine.data_snapshot_id
    ]
    missing = [role for role, machine in machines.items() if not machine.data_snapshot_id]
    if len(missing) == 1:
        problems.append(
            f"{missing[0]}DataSnapshotId: missing, but the other machine's snapshot is set. Set both snapshots of the "
            "same backup, or neither."
        )
    elif server.data_snapshot_id and server.data_snapshot_id == registry.data_snapshot_id:
        problems.append(
            f"registryDataSnapshotId: {registry.data_snapshot_id!r} is also serverDataSnapshotId. A backup has a "
            "snapshot of each volume: set the registry's."
        )
    return problems


def _certificate_problems(settings: Settings) -> list[str]:
    """Problems of the keys that decide how the domain is served; the certificate itself is judged if there are none."""
    arn, pem, key = settings.certificate_arn, settings.certificate_pem, settings.certificate_key_pem
    own = "certificateArn" if arn else "certificatePem" if pem else None
    checks = (
        (
            own and not settings.domain,
            f"domain: missing, but {own} is set. Set the domain that the certificate is for.",
        ),
        (
            arn and pem,
            "certificatePem: set, and so is certificateArn. Remove one: the load balancer has only one certificate.",
        ),
        (
            pem and not key,
            (
                "certificateKeyPem: missing, but certificatePem is set. Set its private key: "
                "pulumi config set --secret certificateKeyPem < KEY"
            ),
        ),
        (
            key and not pem,
            (
                "certificatePem: missing, but certificateKeyPem is set. Set the certificate: "
                "pulumi config set certificatePem < CERTIFICATE"
            ),
        ),
        (
            settings.certificate_authority and not own,
            (
                "certificateAuthority: set without certificateArn or certificatePem. Remove it: a certificate that the "
                "program requests is issued by a public authority."
            ),
        ),
        (
            settings.plain_http and own,
            f"plainHttp: true, but {own} is set. Remove one: a stack with a certificate serves only TLS.",
        ),
        (
            settings.plain_http and not settings.domain,
            "plainHttp: true, but domain is missing. Remove it: a stack without a domain always serves plain HTTP.",
        ),
        (
            settings.accept_plain_http_after_tls and settings.serves_tls,
            (
                "acceptPlainHttpAfterTls: true, but the stack serves TLS. Remove it: it would allow a later change to "
                "plain HTTP by mistake."
            ),
        ),
        (
            settings.requests_certificate and len(settings.domain or "") > LONGEST_REQUESTED_NAME,
            (
                f"domain: {settings.domain!r} has {len(settings.domain or '')} characters, and ACM issues certificates "
                f"for {LONGEST_REQUESTED_NAME} at most. Use a shorter name, or set certificatePem or certificateArn."
            ),
        ),
        (
            arn and arn.split(":")[3] != settings.region,
            (
                f"certificateArn: the certificate is in {(arn or '::::').split(':')[3]!r}, but the load balancer is in "
                f"{settings.region!r}. Use a certificate in the load balancer's region."
            ),
        ),
    )
    problems = [problem for found, problem in checks if found]
    if pem and key and settings.domain and not problems:
        try:
            certificates.check(pem, key, settings.certificate_authority, settings.domain)
        except ValueError as error:
            problems.append(str(error))
    return problems


def _drill_problems(settings: Settings) -> list[str]:
    """Problems of a drill, which must be a copy that only administrators reach and that leaves the original alone."""
    own_name = (
        "missing, but drill is true. No public authority issues a certificate for a domain that only the drill's "
        "machines know: set one by an authority that is made for the drill."
    )
    checks = (
        (
            "serverDataSnapshotId",
            not settings.server.data_snapshot_id and not settings.registry.data_snapshot_id,
            "missing, as registryDataSnapshotId is, but drill is true. Set the two snapshots of the backup to check.",
        ),
        ("certificatePem", not settings.certificate_pem, own_name),
        ("certificateAuthority", not settings.certificate_authority, own_name),
        (
            "hostedZoneId",
            settings.hosted_zone_id,
            "set, but drill is true, and no DNS record may lead to a copy. Remove it.",
        ),
        (
            "smtpAddress",
            settings.smtp,
            "set, but drill is true, and a copy must not send mail. Remove all keys of smtp.",
        ),
        (
            "clientCidrs",
            set(settings.client_cidrs) != set(settings.admin_cidrs),
            "not adminCidrs, but drill is true, and only administrators may reach a copy. Set it to the same list.",
        ),
        ("backup", settings.backup, "true, but drill is true, and a copy needs no backups. Set it to false."),
        (
            "deletionProtection",
            settings.deletion_protection,
            "true, but drill is true, and a copy is destroyed with its volumes. Set it to false.",
        ),
    )
    return [f"{key}: {problem}" for key, found, problem in checks if found]


def _privileged_problems(settings: Settings) -> list[str]:
    """Problems of privileged jobs: one can take over the runner's machine, and with it every job that runs there."""
    if not settings.runner_privileged:
        return (
            ["runnerPrivilegedImages: set, but runnerPrivileged is false. Set it to true, or remove the images."]
            if settings.runner_privileged_images
            else []
        )
    problems = []
    if not settings.runner_tags:
        problems.append(
            "runnerTags: missing, but runnerPrivileged is true. Only jobs that request a tag may run privileged: "
            "set a tag, for example privileged."
        )
    if not settings.runner_privileged_images:
        problems.append(
            "runnerPrivilegedImages: missing, but runnerPrivileged is true. List the images to run privileged, spelled "
            "as in the jobs, for example docker:28-dind."
        )
    return problems


def _world_problems(settings: Settings) -> list[str]:
    if not settings.open_to_the_world:
        return []
    clients = f"clientCidrs: {', '.join(settings.client_cidrs)}"
    if not settings.serves_tls:
        return [
            (
                f"{clients} without TLS would send passwords and job tokens unencrypted over the internet. "
                f"List the networks of your users, or {'remove plainHttp' if settings.domain else 'set domain'}."
            )
        ]
    ended = supported_versions.fixes_ended(settings.gitlab_version)
    if ended and not settings.accept_unsupported_gitlab:
        return [
            (
                f"{clients} would expose gitlabVersion {settings.gitlab_version!r} to the internet, and that version "
                f"has received no security fixes since {ended}. List the networks of your users, upgrade along the "
                "required stops (docs/operations.md, Upgrade), or set acceptUnsupportedGitlab to true."
            )
        ]
    return []


def _machine(keys: Reader, role: str, check_type: Check[str], *, has_data: bool) -> MachineSettings:
    return MachineSettings(
        instance_type=keys.text(f"{role}InstanceType", check_type),
        root_volume_size=keys.number(f"{role}RootVolumeSize", SMALLEST_ROOT_VOLUME, LARGEST_VOLUME),
        data_volume_size=keys.number(f"{role}DataVolumeSize", 10, LARGEST_VOLUME) if has_data else None,
        data_volume_id=keys.optional(f"{role}DataVolumeId", values.volume_id) if has_data else None,
        data_snapshot_id=keys.optional(f"{role}DataSnapshotId", values.snapshot_id) if has_data else None,
    )


def _smtp(keys: Reader) -> SmtpSettings | None:
    login = {
        "smtpUserName": keys.hidden("smtpUserName", values.matching(r"\S+", "contains whitespace")),
        "smtpPassword": keys.optional_secret("smtpPassword", values.smtp_password),
    }
    port = keys.number("smtpPort", 1, 65535)
    authentication = keys.text("smtpAuthentication", values.smtp_authentication)
    if not keys.has("smtpAddress"):
        keys.problems += [
            f"{key}: set, but smtpAddress is missing. Set the mail server's name."
            for key in (*login, "emailFrom")
            if keys.has(key)
        ]
        return None
    missing = [key for key in login if not keys.has(key)]
    if len(missing) == 1:
        keys.problems.append(
            f"{missing[0]}: missing. Set both smtpUserName and smtpPassword, or neither if the server needs no login."
        )
    return SmtpSettings(
        address=keys.text("smtpAddress", values.mail_server),
        port=port,
        user_name=login["smtpUserName"],
        password=login["smtpPassword"],
        authentication=authentication,
        sender=keys.text("emailFrom", values.email),
    )
