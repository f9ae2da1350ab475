"""Stand-in for Ci::CreatePipelineService: creates a pipeline from a branch, its .gitlab-ci.yml and variables.

Source: gitlab-org/gitlab app/services/ci/create_pipeline_service.rb, lib/gitlab/ci/pipeline/chain/.
"""

import re
from collections.abc import Mapping, Sequence

from lab_gitlab import ci_configuration, pipeline_processing, projects, protected_branches, repositories
from lab_gitlab.application import Application
from lab_gitlab.ci_configuration import InvalidConfigurationError
from lab_gitlab.ci_records import BUILD, PIPELINE
from lab_gitlab.records import Record, RecordInvalidError

CONFIGURATION = ".gitlab-ci.yml"
SKIP = re.compile(r"\[(ci[ _-]skip|skip[ _-]ci)\]", re.IGNORECASE)


def create(
    app: Application,
    project: Record,
    user: Record,
    ref: str,
    *,
    source: str,
    variables: Sequence[Mapping[str, str]] = (),
) -> Record:
    """Create a pipeline; `source` is api or push. Raises RecordInvalidError with the API's message."""
    if not projects.may_write(app, project, user):
        raise _refused("Insufficient permissions to create a new pipeline")
    sha = repositories.branches(project).get(ref)
    if sha is None:
        raise _refused("Reference not found")
    text = repositories.read(project, sha, CONFIGURATION)
    if text is None:
        raise _refused("Missing CI config file")
    try:
        configuration = ci_configuration.parse(text.decode(errors="replace"))
    except InvalidConfigurationError as error:
        raise _refused(str(error)) from None
    if configuration.sources is not None and source not in configuration.sources:
        raise _refused("Pipeline filtered out by workflow rules.")
    about = {"project_id": project["id"], "user_id": user["id"]}
    protected = protected_branches.is_protected(app, project["id"], ref)
    with app.database.transaction():
        pipeline = PIPELINE.create(app, **about, ref=ref, sha=sha, source=source, variables=list(variables))
        for job in configuration.jobs:
            BUILD.create(
                app,
                **about,
                pipeline_id=pipeline["id"],
                name=job.name,
                stage=job.stage,
                stage_idx=configuration.stages.index(job.stage),
                options=job.options,
                tag_list=job.tags,
                protected=protected,
                timeout=job.timeout,
            )
    repositories.set_reference(project, pipeline_processing.reference(pipeline), sha)
    pipeline_processing.process(app, pipeline["id"])
    return pipeline


def after_push(
    app: Application, project: Record, user: Record, before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    """Create a pipeline for each branch that a push has moved; errors are ignored."""
    for name, sha in after.items():
        branch = name.removeprefix("refs/heads/")
        if branch == name or before.get(name) == sha or SKIP.search(repositories.commit(project, sha).message):
            continue
        try:
            create(app, project, user, branch, source="push")
        except RecordInvalidError:
            continue


def _refused(message: str) -> RecordInvalidError:
    return RecordInvalidError([("base", message)])
