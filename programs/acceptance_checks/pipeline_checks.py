"""What the server checks with a token of the acceptance's project, and by a pipeline of it."""

import base64
import contextlib
import datetime
import json
import sys
from typing import Any, Callable, Dict, List, Mapping, Optional

from . import clients
from .acceptance_token import TOKEN_LIFE, cancel_revocation, issue_token, one_at_a_time, schedule_revocation
from .gitlab_project import Pipeline, Project
from .messages import progress, read_message
from .outcomes import Check, CheckError, FailedCheckError, ReportedElsewhere, Result
from .run import CheckRun

LEEWAY = 60  # seconds; registry/auth/token/token.go of container-registry 4.15.2
WITHOUT_PIPELINE = "accepted"
"""The one check of this group that is made also when a pipeline has no prospect of success."""
FIRST_OF_PIPELINE = "taken"


class PipelineContext:
    """What the checks of this group have in common."""

    def __init__(
        self,
        endpoints: Mapping[str, Any],
        project: Project,
        runner: Optional[Mapping[str, Any]],
        facts: Mapping[str, Any],
    ) -> None:
        self.endpoints = endpoints
        self.project = project
        self.runner = runner
        """What GitLab knows of the runner; None when it has none of the name."""
        self.facts = facts
        """What the registry's machine has reported."""
        self._pipeline: Optional[Pipeline] = None

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that was started."""
        if self._pipeline is None:
            raise CheckError("no pipeline was started")
        return self._pipeline

    def start_pipeline(self, files: Dict[str, str]) -> None:
        """Start a pipeline of these files. Raises FailedCheckError."""
        self.project.commit_files(files)
        self._pipeline = Pipeline(self.project)


def run_pipeline(run: CheckRun, table: Mapping[str, Check]) -> None:
    """Perform the checks of this group with a token that is revoked in any case, once the start message has come.

    Raises CheckError when the token is not to be had or nothing is to be started.
    """
    console = run.task["console"]
    with one_at_a_time():
        schedule_revocation(run, console)
        progress("asking GitLab's console for a token")
        issued = issue_token(run, console)
        project = Project(run.endpoints["project"], issued["token"])
        try:
            if issued.get("settings"):
                run.report.add(facts={"settings": issued["settings"]})
            start = read_message()
            if start is None:
                raise CheckError("nothing was to be started")
            context = PipelineContext(run.endpoints, project, issued["runner"], start["facts"])
            if start.get("pipeline", True):
                perform_pipeline(run, table, context)
            else:
                run.perform(WITHOUT_PIPELINE, table[WITHOUT_PIPELINE], context)
        finally:
            try:
                project.revoke_token()
                cancel_revocation()
            except FailedCheckError as error:
                print(f"the token will be revoked within {TOKEN_LIFE}: {error}", file=sys.stderr)


def perform_pipeline(run: CheckRun, table: Mapping[str, Check], context: PipelineContext) -> None:
    """Perform all checks of this group; the pipeline is started when those before it have passed."""
    names = list(run.checks)
    first = names.index(FIRST_OF_PIPELINE)
    for name in names[:first]:
        run.perform(name, table[name], context)
    try:
        context.start_pipeline(run.task["files"])
    except FailedCheckError as error:
        run.fail(FIRST_OF_PIPELINE, str(error))
    try:
        for name in names[first:]:
            run.perform(name, table[name], context)
    except BaseException:
        with contextlib.suppress(FailedCheckError):
            context.pipeline.cancel()
        raise
    try:
        context.project.delete_old()
    except FailedCheckError as error:
        print(f"old pipelines and images are still there: {error}", file=sys.stderr)


def token_accepted(context: PipelineContext) -> Result:
    """A token that GitLab signs opens the registry at its own address, without the load balancer between."""
    basic = base64.b64encode(("acceptance:" + context.project.token).encode()).decode()
    headers = {"Authorization": f"Basic {basic}"}
    status, _, body = clients.ask_gitlab("GET", "/jwt/auth?service=container_registry", headers)
    if status != 200:
        raise FailedCheckError(f"GitLab's token issuer answers {status} to a valid credential.")
    signed = json.loads(body.decode())["token"]
    endpoints = context.endpoints
    address = f"http://{endpoints['registry_private_address']}:{endpoints['registry_port']}/v2/"
    status, answered, _ = clients.fetch(address, {"Authorization": f"Bearer {signed}"})
    reasons = differences(claims_of(signed), context.facts, clock_of(answered.get("Date") or ""))
    if status != 200 or reasons:
        why = " ".join(reasons) or "Neither key, issuer, audience nor clock differ."
        raise FailedCheckError(f"{address} answers {status}. {why}", final=bool(reasons))
    return None


def runner_active(context: PipelineContext) -> Result:
    """GitLab has the runner and has not paused it, which the runner's machine cannot know."""
    name = context.endpoints["runner_name"]
    if context.runner is None:
        raise FailedCheckError(f"GitLab has no runner of the name {name}.", final=True)
    if not context.runner["active"]:
        raise FailedCheckError(f"GitLab has the runner {name} paused.", final=True)
    return ReportedElsewhere()


def job_taken(context: PipelineContext) -> Result:
    """The runner has taken the pipeline's first job."""
    return context.pipeline.taken("push")


def project_cloned(context: PipelineContext) -> Result:
    """The job has cloned its project over external_url."""
    return context.pipeline.cloned("push")


def job_token_accepted(context: PipelineContext) -> Result:
    """The job's token opens the registry."""
    return context.pipeline.marked("push", "job-token")


def image_pushed(context: PipelineContext) -> Result:
    """The job has pushed an image."""
    return with_disk_usage(lambda: context.pipeline.marked("push", "push"), context.facts)


def image_pulled(context: PipelineContext) -> Result:
    """The second job has pulled that image."""
    return context.pipeline.marked("pull", "pull")


def with_disk_usage(check: Callable[[], Result], facts: Mapping[str, Any]) -> Result:
    """Make a check; where it fails although the registry's volume is full, its error says so too."""
    try:
        return check()
    except FailedCheckError as error:
        used = facts.get("used_percent")
        if used is not None and used >= 99:
            full = f"{error} The registry's data volume is full ({used} percent)."
            raise FailedCheckError(full, error.final) from None
        raise


def claims_of(token: str) -> Dict[str, Any]:
    """Header and claims of a JSON web token, unverified."""
    header, claims = [
        json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()) for part in token.split(".")[:2]
    ]
    return dict(header, **claims)


def clock_of(date: str) -> Optional[float]:
    """The time of an HTTP Date header, in seconds since 1970; None when it is not a date."""
    try:
        at = datetime.datetime.strptime(date, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
    return at.timestamp()


def differences(claims: Mapping[str, Any], facts: Mapping[str, Any], registry_time: Optional[float]) -> List[str]:
    """Why a registry of these facts and this clock refuses a token of these claims; key, issuer, audience, clock."""
    reasons = []
    key, issuer, audience = claims.get("kid"), claims.get("iss"), claims.get("aud")
    if facts.get("keys") and key not in facts["keys"]:
        reasons.append(f"Key: GitLab signs with {key}, the registry trusts {', '.join(facts['keys'])}.")
    if facts.get("issuer") and issuer != facts["issuer"]:
        reasons.append(f"Issuer: GitLab is {issuer}, the registry trusts {facts['issuer']}.")
    if facts.get("service") and audience not in (facts["service"], [facts["service"]]):
        reasons.append(f"Audience: the token is for {audience}, the registry is {facts['service']}.")
    return reasons + clock_difference(claims, registry_time)


def clock_difference(claims: Mapping[str, Any], registry_time: Optional[float]) -> List[str]:
    """How far the clocks are apart, when that is more than the registry allows."""
    if registry_time is None:
        return []
    ahead = registry_time - float(claims.get("iat", registry_time))
    if abs(ahead) <= LEEWAY:
        return []
    return [f"Clock: the registry is {round(abs(ahead))} s {'before' if ahead > 0 else 'behind'} GitLab."]
