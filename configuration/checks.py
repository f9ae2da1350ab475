"""The list of checks, from resolving GitLab's name to finding a pushed image on the registry's disk.

The acceptance at the end of `pulumi up` and the doctor both run these checks, and the table in docs/operations.md is
generated from this list. `programs/acceptance_checks`, which runs on the machines, implements each check by its id.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from configuration.acceptance_project import PROJECT_PATH
from configuration.flows import Place
from configuration.paths import INSTALL_SECURITY_UPDATES, SECURITY_UPDATES_LOG

NEW_BALANCER = 300
"""Seconds until a new AWS load balancer serves its first request, including health checks."""

OWN_CERTIFICATE = (
    "Otherwise: set a new certificatePem and certificateKeyPem and run pulumi up, or renew the certificate of "
    "certificateArn."
)
RENEW = (
    "If the program requested the certificate: run pulumi up, which creates the CNAME record that AWS needs to renew "
    "it if hostedZoneId is set; if not, create that record of the stack's output dnsRecords again (docs/tls.md). "
    f"{OWN_CERTIFICATE}"
)
REQUEST_AGAIN = "pulumi up --replace '**aws:acm/certificate:Certificate::gitlab'"
EXPIRED = (
    "If the program requested the certificate: request another one, since AWS does not renew an expired one: "
    f"{REQUEST_AGAIN}. {OWN_CERTIFICATE}"
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: the machine it runs on, the seconds that `up` waits for it to pass, and the messages if it fails.

    `remedies` has a remedy for each cause that the check can distinguish; `remedy` is for all other failures.

    If a check that `only_warns` fails, `up` shows a warning and continues, because its subject can expire without any
    change to the stack; the doctor reports a failure, and if the check passes, the state it found.
    """

    id: str
    title: str
    place: Place
    limit: int
    failure: str
    remedy: str
    only_warns: bool = False
    remedies: Mapping[str, str] = field(default_factory=dict, hash=False)

    def remedy_for(self, cause: str) -> str:
        """What to do about a failure with this cause, which is empty if the check distinguishes none."""
        return self.remedies.get(cause, self.remedy)


def _updates(place: Place, machine: str) -> Check:
    return Check(
        id=f"{place}-updates",
        title=f"updates of {machine}",
        place=place,
        limit=0,
        failure=f"Security updates of {machine} were not installed on schedule, or a reboot is pending.",
        remedy=f"On {machine}: cat {SECURITY_UPDATES_LOG}; systemctl list-timers install-security-updates.timer. "
        f"To install them now, with a reboot if needed: sudo systemd-run {INSTALL_SECURITY_UPDATES}. "
        f"If the timer is missing: pulumi up --replace '**::{place}-schedule-updates'",
        only_warns=True,
    )


def _backup(place: Place, machine: str) -> Check:
    return Check(
        id=f"{place}-backup-fresh",
        title=f"backup of {machine} fresh",
        place=place,
        limit=0,
        failure=f"The backups of {machine} do not succeed on schedule.",
        remedy=f"On {machine}: journalctl -u gitlab-backup-volume; systemctl list-timers gitlab-backup-volume.timer. "
        "To take one now: sudo gitlab-backup-volume now. "
        f"If the timer is missing: pulumi up --replace '**::{place}-schedule-backups'",
        only_warns=True,
    )


CHECKS = (
    Check(
        id="name",
        title="name resolves",
        place=Place.RUNNER,
        limit=60,
        failure="GitLab's name does not resolve to the load balancer's address.",
        remedy="Point the domain's A record to the load balancer's address; if hostedZoneId is set, run pulumi up. "
        "The machines of a drill have the address in /etc/hosts: start another drill.",
    ),
    Check(
        id="balancer",
        title="load balancer answers",
        place=Place.RUNNER,
        limit=NEW_BALANCER,
        failure="No port of the load balancer answers.",
        remedy="Run pulumi up: it recreates a missing load balancer or rule.",
    ),
    Check(
        id="certificate",
        title="certificate valid",
        place=Place.RUNNER,
        limit=NEW_BALANCER,
        failure="Clients cannot trust the connection to GitLab.",
        remedy="Run pulumi up: it recreates a missing listener or rule.",
        remedies={
            "expired": EXPIRED,
            "wrong-name": "Set domain to a name of the certificate, or certificateArn or certificatePem to a "
            "certificate for the domain; then run pulumi up.",
            "untrusted": "If your own authority signed the certificate: set certificateAuthority. If an intermediate "
            "certificate is missing: append it to certificatePem. Then run pulumi up.",
            "plain-http": "Run pulumi up: it changes the listener back to TLS.",
        },
    ),
    Check(
        id="target",
        title="target healthy",
        place=Place.SERVER,
        limit=NEW_BALANCER,
        failure="The load balancer's health checks do not reach GitLab, or fail.",
        remedy="Run pulumi up: it recreates a missing machine, rule or attachment.",
    ),
    Check(
        id="nginx",
        title="nginx",
        place=Place.SERVER,
        limit=30,
        failure="GitLab's nginx does not answer on the server itself, or rejects the load balancer's requests.",
        remedy="On the server: sudo gitlab-ctl restart nginx; if it does not start: sudo gitlab-ctl tail nginx",
        remedies={
            "rejected": "Run pulumi up --replace '**::server-configure-gitlab': it makes nginx accept plain HTTP with "
            "the PROXY protocol, as the load balancer sends it (nginx['listen_https'], nginx['proxy_protocol']).",
        },
    ),
    Check(
        id="readiness",
        title="readiness with database, Redis, Gitaly",
        place=Place.SERVER,
        limit=180,
        failure="GitLab is not ready.",
        remedy="On the server: sudo gitlab-ctl start; details: sudo gitlab-ctl status, sudo gitlab-ctl tail",
    ),
    Check(
        id="sign-in",
        title="login page through the load balancer",
        place=Place.RUNNER,
        limit=NEW_BALANCER,
        failure="GitLab's login page is not available through the load balancer, or is not made for TLS.",
        remedy="Run pulumi up: it recreates a missing listener or rule of configuration/flows.py.",
        remedies={
            "scheme": "Run pulumi up --replace '**::server-configure-gitlab': it sets external_url in "
            "/etc/gitlab/gitlab.rb to https.",
        },
    ),
    Check(
        id="hidden",
        title="readiness hidden from clients",
        place=Place.RUNNER,
        limit=30,
        failure="GitLab exposes its readiness endpoint to clients.",
        remedy="Remove monitoring_whitelist and nginx settings from the setting gitlabRb, then run pulumi up.",
    ),
    Check(
        id="git-ssh",
        title="git over SSH with GitLab's host key",
        place=Place.RUNNER,
        limit=NEW_BALANCER,
        failure="Git over SSH does not reach gitlab-sshd.",
        remedy="On the server: sudo gitlab-ctl restart gitlab-sshd; "
        "then check the load balancer's target group for port 2222.",
    ),
    Check(
        id="issuer",
        title="token issuer",
        place=Place.RUNNER,
        limit=30,
        failure="GitLab's token issuer (/jwt/auth) does not reject an invalid credential.",
        remedy="Check registry_enabled in /etc/gitlab/gitlab.rb on the server, then: sudo gitlab-ctl reconfigure",
    ),
    Check(
        id="registry",
        title="registry reachable",
        place=Place.RUNNER,
        limit=NEW_BALANCER,
        failure="The registry does not answer through the load balancer, or sends clients to a different token issuer.",
        remedy="Run pulumi up; then on the registry's machine: sudo docker ps --all, sudo docker logs registry",
    ),
    Check(
        id="accepted",
        title="token accepted",
        place=Place.SERVER,
        limit=30,
        failure="The registry rejects the tokens that GitLab signs.",
        remedy="If key, issuer or audience differ: pulumi up --replace '**::registry-run-registry' "
        "--replace '**::server-configure-gitlab'. If a clock is wrong: chronyc tracking on both machines, "
        "then: sudo docker restart registry",
    ),
    Check(
        id="process",
        title="runner process",
        place=Place.RUNNER,
        limit=60,
        failure="gitlab-runner or Docker is not running on the runner's machine.",
        remedy="On the runner's machine: sudo systemctl start docker gitlab-runner; then journalctl -u gitlab-runner",
    ),
    Check(
        id="docker",
        title="registry known to Docker",
        place=Place.RUNNER,
        limit=60,
        failure="Docker on the runner's machine cannot reach the registry, or the registry accepts an invalid "
        "credential.",
        remedy="Run pulumi up --replace '**::runner-install-docker'; then check /etc/docker/daemon.json there.",
    ),
    Check(
        id="online",
        title="runner online",
        place=Place.RUNNER,
        limit=60,
        failure="GitLab does not know the runner's token, or has paused the runner.",
        remedy="If it is paused: resume it in GitLab, Admin > CI/CD > Runners. Otherwise its token is no longer valid: "
        "pulumi up --replace '**::server-prepare-gitlab' installs a valid one.",
    ),
    Check(
        id="taken",
        title="job taken",
        place=Place.SERVER,
        limit=300,
        failure="No runner picked up the job.",
        remedy=f"On the runner's machine: journalctl -u gitlab-runner; the job's log: GitLab, {PROJECT_PATH}.",
    ),
    Check(
        id="clone",
        title="clone",
        place=Place.SERVER,
        limit=120,
        failure="The job could not clone its project over external_url.",
        remedy=f"The job's log: GitLab, {PROJECT_PATH}; on the server: sudo gitlab-ctl tail gitaly",
    ),
    Check(
        id="job-token",
        title="job token accepted",
        place=Place.SERVER,
        limit=60,
        failure="The registry does not accept the job's token.",
        remedy=f"The job's log: GitLab, {PROJECT_PATH}. The container registry must be enabled for that project.",
    ),
    Check(
        id="push",
        title="push",
        place=Place.SERVER,
        limit=120,
        failure="The job could not push an image, or could push to another project.",
        remedy="On the registry's machine: df -h /srv/registry, sudo docker logs registry. "
        "If the volume is full, set a larger registryDataVolumeSize and run pulumi up.",
    ),
    Check(
        id="pull",
        title="pull",
        place=Place.SERVER,
        limit=300,
        failure="A second job could not pull the image that the first job pushed.",
        remedy=f"The job's log: GitLab, {PROJECT_PATH}; on the registry's machine: sudo docker logs registry",
    ),
    Check(
        id="volume",
        title="image on the volume",
        place=Place.REGISTRY,
        limit=60,
        failure="The pushed image is incomplete on the registry's data volume.",
        remedy="On the registry's machine: findmnt /srv/registry; then pulumi up --replace '**::registry-run-registry'",
    ),
    Check(
        id="certificate-renewal",
        title="certificate renewed in time",
        place=Place.RUNNER,
        limit=0,
        failure="The certificate expires soon.",
        remedy=RENEW,
        only_warns=True,
    ),
    _backup(Place.SERVER, "the server"),
    _backup(Place.REGISTRY, "the registry's machine"),
    _updates(Place.SERVER, "the server"),
    _updates(Place.REGISTRY, "the registry's machine"),
    _updates(Place.RUNNER, "the runner's machine"),
)

OF_BACKUPS = ("server-backup-fresh", "registry-backup-fresh")
"""Checks that a stack without backups does not have."""

NEEDS_A_JOB = ("taken", "clone", "job-token", "push", "pull", "volume")
"""Checks that need a pipeline."""

NEEDS_A_TOKEN = ("accepted", *NEEDS_A_JOB)
"""Checks that need a token that GitLab issues for them; `online` is repeated with it."""

BEFORE_THE_PIPELINE = tuple(check.id for check in CHECKS if check.id not in NEEDS_A_TOKEN and not check.only_warns)
"""Checks that must pass before the doctor starts a pipeline."""

CHECK_OF_SILENT_MACHINE = {Place.SERVER: "target", Place.REGISTRY: "registry", Place.RUNNER: "process"}
"""The check that fails if a machine does not respond at all."""

BY_ID = {check.id: check for check in CHECKS}


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """The endpoints of a stack that the checks use; none of them is secret.

    `host` is GitLab's name or address; `git_ssh_host_key` is in authorized_keys format.
    """

    external_url: str
    host: str
    balancer_address: str
    registry_private_address: str
    web_port: int
    registry_port: int
    git_ssh_host_key: str
    runner_name: str
    project: str


def checks_of(*, backup: bool) -> tuple[Check, ...]:
    """All checks of a stack with or without backups, in order."""
    return tuple(check for check in CHECKS if backup or check.id not in OF_BACKUPS)


def checks_from(place: Place, *, backup: bool = True) -> tuple[Check, ...]:
    """The checks that a machine can run without a token, in order."""
    return tuple(check for check in checks_of(backup=backup) if check.place is place and check.id not in NEEDS_A_TOKEN)


def checks_by_pipeline() -> tuple[Check, ...]:
    """The checks that the server runs with a token and a pipeline; `online` then means that the runner is active."""
    return tuple(check for check in CHECKS if check.id in (*NEEDS_A_TOKEN, "online") and check.id != "volume")


def table() -> str:
    """The list of checks as a Markdown table. The remedies for single causes follow the general one."""
    places = {
        Place.SERVER: "the server",
        Place.RUNNER: "the runner's machine",
        Place.REGISTRY: "the registry's machine",
    }
    lines = ["| check | runs on | `up` waits | what a failure means | what to do |", "|---|---|---|---|---|"]
    for check in CHECKS:
        by_cause = (f"**{cause}**: {remedy}" for cause, remedy in check.remedies.items())
        remedy = "<br>".join([check.remedy, *by_cause]).replace("|", "\\|")
        lines.append(f"| {check.title} | {places[check.place]} | {check.limit} s | {check.failure} | {remedy} |")
    return "\n".join(lines) + "\n"
