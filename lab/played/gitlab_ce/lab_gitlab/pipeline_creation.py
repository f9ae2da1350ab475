"""Ci::CreatePipelineService: from a branch or tag, its .gitlab-ci.yml and variables to a pipeline with jobs.

Source: gitlab-org/gitlab app/services/ci/create_pipeline_service.rb, lib/gitlab/ci/pipeline/chain/.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lab_gitlab import ci_configuration, ci_rules, job_variables, pipeline_processing, projects, repositories
from lab_gitlab.application import Application
from lab_gitlab.ci_configuration import InvalidConfigurationError, Job
from lab_gitlab.ci_records import BUILD, PIPELINE
from lab_gitlab.records import Record, RecordInvalidError

CONFIGURATION = ".gitlab-ci.yml"
FILTERED_OUT = (
    "Pipeline will not run for the selected trigger. "
    "The rules configuration prevented any jobs from being added to the pipeline."
)
FILTERED_BY_WORKFLOW = "Pipeline filtered out by workflow rules."
SKIP = re.compile(r"\[(ci[ _-]skip|skip[ _-]ci)\]", re.IGNORECASE)
OF_SOURCE: Mapping[str, tuple[str, ...]] = {"push": ("pushes",), "api": ("api",), "web": ("web",)}

Variables = Sequence[Mapping[str, Any]]


def create(
    app: Application,
    project: Record,
    user: Record,
    ref: str,
    *,
    source: str,
    variables: Variables = (),
    before_sha: str = repositories.NOWHERE,
    save_on_errors: bool = True,
    ignore_skip: bool = False,
) -> Record:
    """The pipeline as it is before its jobs are looked at.

    Where the file is wrong and `save_on_errors` is set it is `failed`, with `yaml_errors`.

    Raises RecordInvalidError with what the API says when there is none.
    """
    if not project["builds_enabled"]:
        raise _refused("Pipelines are disabled!")
    if not projects.may_write(app, project, user):
        raise _refused("Insufficient permissions to create a new pipeline")
    sha, tag = _revision(project, ref)
    text = repositories.read(project, sha, project["ci_config_path"] or CONFIGURATION)
    if text is None:
        raise _refused("Missing CI config file")
    about = {
        "project_id": project["id"],
        "user_id": user["id"],
        "ref": ref,
        "tag": tag,
        "sha": sha,
        "before_sha": before_sha,
        "source": source,
        "variables": [dict(variable) for variable in variables],
    }
    if not ignore_skip and SKIP.search(repositories.commit(project, sha).message):
        return _saved(app, project, {**about, "status": "skipped"})
    try:
        configuration = ci_configuration.parse(text.decode(errors="replace"))
    except InvalidConfigurationError as error:
        if not save_on_errors:
            raise _refused(*error.messages) from None
        wrong = {"status": "failed", "failure_reason": "config_error", "yaml_errors": error.messages[0]}
        return _saved(app, project, {**about, **wrong})
    known_variables = job_variables.for_rules(app, project, about, configuration.variables)
    if configuration.workflow is not None and not _by_rules(configuration.workflow, known_variables):
        raise _refused(FILTERED_BY_WORKFLOW)
    chosen = _chosen(configuration.jobs, known_variables, about)
    if not chosen:
        raise _refused(FILTERED_OUT)
    _check_needs(chosen)
    with app.database.transaction():
        pipeline = _saved(app, project, {**about, "name": configuration.name})
        for order, (job, decided) in enumerate(chosen):
            _add(app, pipeline, project, job, decided=decided, order=order, stages=configuration.stages)
    repositories.set_reference(project, pipeline_processing.reference(pipeline), sha)
    pipeline_processing.process(app, pipeline, project)
    return pipeline


def _revision(project: Record, ref: str) -> tuple[str, bool]:
    """The commit of a branch or tag, and whether it is a tag. Raises RecordInvalidError."""
    sha = repositories.resolve(project, ref)
    known = repositories.references(project, "refs/heads/", "refs/tags/")
    tag = f"refs/tags/{ref}" in known
    if sha is None or not (tag or f"refs/heads/{ref}" in known):
        raise _refused("Reference not found")
    return sha, tag


def after_push(
    app: Application,
    project: Record,
    user: Record,
    before: Mapping[str, str],
    after: Mapping[str, str],
    *,
    skip: bool = False,
) -> None:
    """A pipeline for each branch and tag that a push has moved. What cannot be made is left out without a word."""
    if skip:
        return
    for name, sha in after.items():
        ref = re.sub(r"^refs/(heads|tags)/", "", name)
        if ref != name and before.get(name) != sha:
            try:
                create(app, project, user, ref, source="push", before_sha=before.get(name, repositories.NOWHERE))
            except RecordInvalidError:
                continue


def _refused(*messages: str) -> RecordInvalidError:
    return RecordInvalidError([("base", message) for message in messages])


def _saved(app: Application, project: Record, about: Mapping[str, Any]) -> Record:
    last = app.database.first("SELECT max(iid) AS last FROM ci_pipelines WHERE project_id = ?", project["id"])
    iid = ((last or {}).get("last") or 0) + 1
    return PIPELINE.create(app, **{"status": "created", **about, "iid": iid})


def _by_rules(rules: Sequence[Mapping[str, Any]], variables: Mapping[str, str]) -> Mapping[str, Any] | None:
    """The first rule that holds, unless it says `never`."""
    for rule in rules:
        if "if" not in rule or ci_rules.evaluate(rule["if"], variables):
            return None if rule.get("when") == "never" else rule
    return None


def _chosen(
    jobs: Sequence[Job], variables: Mapping[str, str], about: Mapping[str, Any]
) -> list[tuple[Job, dict[str, Any]]]:
    found = []
    for job in jobs:
        decided: dict[str, Any] = {"when": job.when, "allow_failure": job.allow_failure, "variables": {}}
        if job.rules is not None:
            own = {name: str(value["value"]) for name, value in job.variables.items()}
            rule = _by_rules(job.rules, {**variables, **own})
            if rule is None:
                continue
            decided["when"] = rule.get("when", job.when)
            decided["allow_failure"] = rule.get("allow_failure", job.allow_failure)
            decided["variables"] = {
                name: {"value": str(value), "raw": False} for name, value in (rule.get("variables") or {}).items()
            }
        elif job.only is not None and not _by_only(job.only, about):
            continue
        found.append((job, decided))
    return found


def _by_only(only: Sequence[str], about: Mapping[str, Any]) -> bool:
    kinds = {"tags" if about["tag"] else "branches", about["ref"], *OF_SOURCE.get(about["source"], ())}
    for entry in only:
        if entry.startswith("/"):
            body, _, flags = entry[1:].rpartition("/")
            if re.search(body, about["ref"], re.IGNORECASE if "i" in flags else 0):
                return True
    return bool(kinds & set(only))


def _check_needs(chosen: Sequence[tuple[Job, Mapping[str, Any]]]) -> None:
    names = {job.name for job, _ in chosen}
    missing = [
        f"'{job.name}' job needs '{need.job}' job, but '{need.job}' does not exist in the pipeline. "
        "This might be because of the only, except, or rules keywords. "
        "To need a job that sometimes does not exist in the pipeline, use needs:optional."
        for job, _ in chosen
        for need in job.needs or ()
        if need.job not in names and not need.optional
    ]
    if missing:
        raise _refused(*missing)


def _add(
    app: Application,
    pipeline: Record,
    project: Record,
    job: Job,
    *,
    decided: Mapping[str, Any],
    order: int,
    stages: Sequence[str],
) -> None:
    needs = None
    if job.needs is not None:
        needs = [{"job": need.job, "artifacts": need.artifacts} for need in job.needs]
    options = {
        **job.options,
        "dependencies": job.dependencies,
        "variables": {**job.variables, **decided["variables"]},
    }
    BUILD.create(
        app,
        project_id=project["id"],
        pipeline_id=pipeline["id"],
        user_id=pipeline["user_id"],
        name=job.name,
        stage=job.stage,
        stage_idx=stages.index(job.stage),
        job_order=order,
        job_when=decided["when"],
        allow_failure=decided["allow_failure"],
        options=options,
        needs=needs,
        tag_list=list(job.tags),
        timeout=job.timeout,
    )
