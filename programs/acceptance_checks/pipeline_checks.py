"""Checks that run on the server with a token of the acceptance's project, most of them through a pipeline."""

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
"""The only check of this group that runs even if an earlier failure rules out a pipeline."""
FIRST_OF_PIPELINE = "taken"


class PipelineContext:
    """The context of the checks of this group."""

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
        """GitLab's state of the runner; None if GitLab has no runner of that name."""
        self.facts = facts
        """The report of the registry's machine."""
        self._pipeline: Optional[Pipeline] = None

    @property
    def pipeline(self) -> Pipeline:
        """The started pipeline. Raises CheckError if there is none."""
        if self._pipeline is None:
            raise CheckError("no pipeline was started")
        return self._pipeline

    def start_pipeline(self, files: Dict[str, str]) -> None:
        """Commit these files and start a pipeline. Raises FailedCheckError."""
        self.project.commit_files(files)
        self._pipeline = Pipeline(self.project)


def run_pipeline(run: CheckRun, table: Mapping[str, Check]) -> None:
    """Run the checks of this group, after the start message, with a token that is always revoked.

    Raises CheckError if no token is issued, or if standard input ends before the start message.
    """
    console = run.task["console"]
    with one_at_a_time():
        schedule_revocation(run, console)
        progress("requesting a token from GitLab's console")
        issued = issue_token(run, console)
        project = Project(run.endpoints["project"], issued["token"])
        try:
            if issued.get("settings"):
                run.report.add(facts={"settings": issued["settings"]})
            start = read_message()
            if start is None:
                raise CheckError("standard input ended before the start message")
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
    """Run all checks of this group; the pipeline starts once the checks before it have passed."""
    names = list(run.checks)
    first = names.index(FIRST_OF_PIPELINE)
    for name in names[:first]:
        run.perform(name, table[name], context)
    try:
        context.start_pipeline(run.task["files"])
    except FailedCheckError as error:
        run.fail(FIRST_OF_PIPELINE, error)
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
        print(f"old pipelines and images could not be deleted: {error}", file=sys.stderr)


def token_accepted(context: PipelineContext) -> Result:
    """The registry, at its private address without the load balancer, accepts a token signed by GitLab."""
    basic = base64.b64encode(("acceptance:" + context.project.token).encode()).decode()
    headers = {"Authorization": f"Basic {basic}"}
    status, _, body = clients.ask_gitlab("GET", "/jwt/auth?service=container_registry", headers)
    if status != 200:
        raise FailedCheckError(f"GitLab's token issuer returned {status} for valid credentials.")
    signed = json.loads(body.decode())["token"]
    endpoints = context.endpoints
    address = f"http://{endpoints['registry_private_address']}:{endpoints['registry_port']}/v2/"
    status, answered, _ = clients.fetch(address, {"Authorization": f"Bearer {signed}"})
    reasons = differences(claims_of(signed), context.facts, clock_of(answered.get("Date") or ""))
    if status != 200 or reasons:
        why = " ".join(reasons) or "Key, issuer, audience and clock all match."
        raise FailedCheckError(f"{address} returned {status}. {why}", final=bool(reasons))
    return None


def runner_active(context: PipelineContext) -> Result:
    """The runner exists in GitLab and is not paused, which the runner's machine cannot check."""
    name = context.endpoints["runner_name"]
    if context.runner is None:
        raise FailedCheckError(f"GitLab has no runner named {name}.", final=True)
    if not context.runner["active"]:
        raise FailedCheckError(f"The runner {name} is paused in GitLab.", final=True)
    return ReportedElsewhere()


def job_taken(context: PipelineContext) -> Result:
    """The runner has picked up the pipeline's first job."""
    return context.pipeline.taken("push")


def project_cloned(context: PipelineContext) -> Result:
    """The job has cloned its project over external_url."""
    return context.pipeline.cloned("push")


def job_token_accepted(context: PipelineContext) -> Result:
    """The registry accepts the job's token."""
    return context.pipeline.marked("push", "job-token")


def image_pushed(context: PipelineContext) -> Result:
    """The job has pushed an image."""
    return with_disk_usage(lambda: context.pipeline.marked("push", "push"), context.facts)


def image_pulled(context: PipelineContext) -> Result:
    """The second job has pulled that image."""
    return context.pipeline.marked("pull", "pull")


def with_disk_usage(check: Callable[[], Result], facts: Mapping[str, Any]) -> Result:
    """Run a check; if it fails and the registry's volume is full, add that to the error."""
    try:
        return check()
    except FailedCheckError as error:
        used = facts.get("used_percent")
        if used is not None and used >= 99:
            full = f"{error} The registry's data volume is full ({used}%)."
            raise FailedCheckError(full, error.final) from None
        raise


def claims_of(token: str) -> Dict[str, Any]:
    """Header and claims of a JSON Web Token, unverified."""
    header, claims = [
        json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()) for part in token.split(".")[:2]
    ]
    return dict(header, **claims)


def clock_of(date: str) -> Optional[float]:
    """The time of an HTTP Date header, in seconds since 1970; None if it is not a valid date."""
    try:
        at = datetime.datetime.strptime(date, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
    return at.timestamp()


def differences(claims: Mapping[str, Any], facts: Mapping[str, Any], registry_time: Optional[float]) -> List[str]:
    """Why a registry with these facts and clock rejects a token with these claims: key, issuer, audience or clock."""
    reasons = []
    key, issuer, audience = claims.get("kid"), claims.get("iss"), claims.get("aud")
    if facts.get("keys") and key not in facts["keys"]:
        reasons.append(f"Key: GitLab signs with {key}, the registry trusts {', '.join(facts['keys'])}.")
    if facts.get("issuer") and issuer != facts["issuer"]:
        reasons.append(f"Issuer: the token is from {issuer}, the registry trusts {facts['issuer']}.")
    if facts.get("service") and audience not in (facts["service"], [facts["service"]]):
        reasons.append(f"Audience: the token is for {audience}, the registry is {facts['service']}.")
    return reasons + clock_difference(claims, registry_time)


def clock_difference(claims: Mapping[str, Any], registry_time: Optional[float]) -> List[str]:
    """The difference between the clocks, if it is more than the registry allows."""
    if registry_time is None:
        return []
    ahead = registry_time - float(claims.get("iat", registry_time))
    if abs(ahead) <= LEEWAY:
        return []
    return [f"Clock: the registry is {round(abs(ahead))} s {'ahead of' if ahead > 0 else 'behind'} GitLab."]
