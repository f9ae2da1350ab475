"""The hops from a person's name for GitLab to an image on the registry's disk: one list for everything that walks them.

The acceptance that ends `pulumi up` and the doctor walk this list, and the table in docs/operations.md is made of it.
`programs/hops.py` holds the check behind each id; it runs on the machines.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from configuration.flows import Place

NEW_BALANCER = 300
"""Seconds until a new balancer of AWS serves its first request, health checks included."""


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One hop: where it is looked at, how many seconds `up` waits for it, and what a person reads when it is broken."""

    id: str
    title: str
    view: Place
    limit: int
    broken: str
    remedy: str


HOPS = (
    Hop(
        id="name",
        title="name resolves",
        view=Place.RUNNER,
        limit=60,
        broken="The name of GitLab does not lead to the balancer's address.",
        remedy="Point the address record of the domain to the balancer's address; with hostedZoneId, run pulumi up.",
    ),
    Hop(
        id="balancer",
        title="balancer answers",
        view=Place.RUNNER,
        limit=NEW_BALANCER,
        broken="Nothing answers at the balancer's address, on none of its ports.",
        remedy="Run pulumi up: it makes a balancer or a rule that is missing again.",
    ),
    Hop(
        id="target",
        title="target healthy",
        view=Place.SERVER,
        limit=NEW_BALANCER,
        broken="The balancer's health checks of GitLab do not arrive, or are refused.",
        remedy="Run pulumi up: it makes a machine, a rule or an attachment that is missing again.",
    ),
    Hop(
        id="nginx",
        title="nginx",
        view=Place.SERVER,
        limit=30,
        broken="GitLab's nginx does not answer on its own machine.",
        remedy="On the server: sudo gitlab-ctl restart nginx; why it does not start: sudo gitlab-ctl tail nginx",
    ),
    Hop(
        id="readiness",
        title="readiness with database, Redis, Gitaly",
        view=Place.SERVER,
        limit=180,
        broken="GitLab is not ready.",
        remedy="On the server: sudo gitlab-ctl start; what it says: sudo gitlab-ctl status, sudo gitlab-ctl tail",
    ),
    Hop(
        id="sign-in",
        title="login page through the balancer",
        view=Place.RUNNER,
        limit=NEW_BALANCER,
        broken="GitLab's login page does not come through the balancer.",
        remedy="Run pulumi up: it makes a listener or a rule of configuration/flows.py that is missing again.",
    ),
    Hop(
        id="hidden",
        title="readiness hidden from clients",
        view=Place.RUNNER,
        limit=30,
        broken="GitLab shows its readiness to clients.",
        remedy="Take monitoring_whitelist and changes of nginx out of the setting gitlabRb, then run pulumi up.",
    ),
    Hop(
        id="git-ssh",
        title="git over SSH with GitLab's host key",
        view=Place.RUNNER,
        limit=NEW_BALANCER,
        broken="Git over SSH does not end at GitLab's own SSH server.",
        remedy="On the server: sudo gitlab-ctl restart gitlab-sshd; then look at the balancer's target of port 2222.",
    ),
    Hop(
        id="issuer",
        title="token issuer",
        view=Place.RUNNER,
        limit=30,
        broken="GitLab's token issuer (/jwt/auth) does not refuse a wrong credential as it must.",
        remedy="Look at registry_enabled in /etc/gitlab/gitlab.rb on the server, then: sudo gitlab-ctl reconfigure",
    ),
    Hop(
        id="registry",
        title="registry reachable",
        view=Place.RUNNER,
        limit=NEW_BALANCER,
        broken="The registry does not answer through the balancer, or asks for tokens of somebody else.",
        remedy="Run pulumi up; then on the registry's machine: sudo docker ps --all, sudo docker logs registry",
    ),
    Hop(
        id="accepted",
        title="token accepted",
        view=Place.SERVER,
        limit=30,
        broken="The registry refuses the tokens that GitLab signs.",
        remedy="For key, issuer or audience: pulumi up --replace '**::registry-run-registry' "
        "--replace '**::server-configure-gitlab'. For a clock: chronyc tracking on both machines, "
        "then: sudo docker restart registry",
    ),
    Hop(
        id="process",
        title="runner process",
        view=Place.RUNNER,
        limit=60,
        broken="gitlab-runner or its Docker does not run.",
        remedy="On the runner's machine: sudo systemctl start docker gitlab-runner; then journalctl -u gitlab-runner",
    ),
    Hop(
        id="docker",
        title="registry known to Docker",
        view=Place.RUNNER,
        limit=60,
        broken="Docker on the runner's machine does not talk to the registry, or lets a wrong credential in.",
        remedy="Run pulumi up --replace '**::runner-install-docker'; then look at /etc/docker/daemon.json there.",
    ),
    Hop(
        id="online",
        title="runner online",
        view=Place.RUNNER,
        limit=60,
        broken="GitLab does not know the runner's token, or has the runner paused.",
        remedy="If it is paused: resume it in GitLab, Admin > CI/CD > Runners. Else its token is not valid any more: "
        "pulumi up --replace '**::server-prepare-gitlab' makes or finds one that is.",
    ),
    Hop(
        id="taken",
        title="job taken",
        view=Place.SERVER,
        limit=300,
        broken="No runner has begun the job.",
        remedy="On the runner's machine: journalctl -u gitlab-runner; the job's log: GitLab, gitlab-stack/acceptance.",
    ),
    Hop(
        id="clone",
        title="clone",
        view=Place.SERVER,
        limit=120,
        broken="The job could not clone its project over external_url.",
        remedy="The job's log: GitLab, gitlab-stack/acceptance; on the server: sudo gitlab-ctl tail gitaly",
    ),
    Hop(
        id="job-token",
        title="job token accepted",
        view=Place.SERVER,
        limit=60,
        broken="The job's token opens no way to the registry.",
        remedy="The job's log: GitLab, gitlab-stack/acceptance. The container registry must be on for that project.",
    ),
    Hop(
        id="push",
        title="push",
        view=Place.SERVER,
        limit=120,
        broken="The job could not push an image, or could push where it must not.",
        remedy="On the registry's machine: df -h /srv/registry, sudo docker logs registry. "
        "If the volume is full: a larger registryDataVolumeSize, then pulumi up.",
    ),
    Hop(
        id="pull",
        title="pull",
        view=Place.SERVER,
        limit=300,
        broken="A second job could not pull the image that the first had pushed.",
        remedy="The job's log: GitLab, gitlab-stack/acceptance; on the registry's machine: sudo docker logs registry",
    ),
    Hop(
        id="volume",
        title="image on the volume",
        view=Place.REGISTRY,
        limit=60,
        broken="The pushed image is not whole on the registry's data volume.",
        remedy="On the registry's machine: findmnt /srv/registry; then pulumi up --replace '**::registry-run-registry'",
    ),
)

NEEDS_A_JOB = ("taken", "clone", "job-token", "push", "pull", "volume")
"""Hops that only a pipeline can walk."""

NEEDS_A_TOKEN = ("accepted", *NEEDS_A_JOB)
"""Hops that are walked with a token of GitLab's, made for this; `online` is looked at once more with it."""

ABOUT = {Place.SERVER: "target", Place.REGISTRY: "registry", Place.RUNNER: "process"}
"""The hop that is broken when a machine does not answer at all."""

BY_ID = {hop.id: hop for hop in HOPS}


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What the checks have to know of a stack; none of it is a secret.

    `host` is GitLab's name or address; `git_ssh_host_key` is in authorized_keys form.
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


def seen_from(view: Place) -> tuple[Hop, ...]:
    """What a machine can see without a token, in order."""
    return tuple(hop for hop in HOPS if hop.view is view and hop.id not in NEEDS_A_TOKEN)


def seen_by_pipeline() -> tuple[Hop, ...]:
    """What the server sees with a token, and by a pipeline; that the runner is not paused belongs to it."""
    return tuple(hop for hop in HOPS if hop.id in (*NEEDS_A_TOKEN, "online") and hop.id != "volume")


def task(stack: Stack, hops: Iterable[Hop], *, patience: int | None = None, **more: Any) -> str:
    """What `programs/hops.py` is told, in JSON: the stack, the hops to walk, and what else their checks need.

    `patience` is the most seconds that one hop is waited for, where its own limit is more.
    """
    limits = {hop.id: hop.limit if patience is None else min(hop.limit, patience) for hop in HOPS}
    walked = [{**asdict(hop), "limit": limits[hop.id]} for hop in hops]
    return json.dumps({"stack": asdict(stack), "hops": walked, **more}, sort_keys=True)


def findings(report: str) -> list[dict[str, Any]]:
    """The hops of a report that `programs/hops.py` has printed."""
    return [line for line in map(json.loads, report.splitlines()) if "hop" in line]


def facts(report: str) -> dict[str, Any]:
    """What else a report tells."""
    told: dict[str, Any] = {}
    for line in map(json.loads, report.splitlines()):
        told |= line.get("facts", {})
    return told


def walked(reports: Sequence[str]) -> list[dict[str, Any]]:
    """Title and seconds of every hop that is well in the reports, in the order of the list."""
    seconds: Mapping[str, float] = {
        finding["hop"]: finding["seconds"] for report in reports for finding in findings(report)
    }
    return [{"hop": hop.title, "seconds": seconds[hop.id]} for hop in HOPS if hop.id in seconds]


@dataclass(frozen=True)
class PushedImage:
    """What a pipeline has pushed: `name` is group/project/image:tag, without the registry's host."""

    name: str
    digest: str


def pushed_image(report: str) -> PushedImage:
    """Raises ValueError when the report tells of none."""
    for finding in findings(report):
        if finding["hop"] == "push" and "@" in finding["detail"]:
            name, _, digest = finding["detail"].partition("@")
            return PushedImage(name, digest)
    raise ValueError("no image was pushed")


def table() -> str:
    """The list as a table in Markdown."""
    views = {Place.SERVER: "the server", Place.RUNNER: "the runner's machine", Place.REGISTRY: "the registry's machine"}
    lines = ["| hop | looked at from | `up` waits | when it is broken | what to do |", "|---|---|---|---|---|"]
    for hop in HOPS:
        remedy = hop.remedy.replace("|", "\\|")
        lines.append(f"| {hop.title} | {views[hop.view]} | {hop.limit} s | {hop.broken} | {remedy} |")
    return "\n".join(lines) + "\n"
