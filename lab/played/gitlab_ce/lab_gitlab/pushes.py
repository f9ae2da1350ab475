"""What follows a push: an event, pipelines, webhooks, mirrors, and the protection of a new default branch.

Source: gitlab-org/gitlab app/workers/post_receive.rb, app/services/git/base_hooks_service.rb, branch_hooks_service.rb.
The real worker does all this in the background, the protection first. In the stand-in only the protection takes place
in the background, so the pipeline of the push that creates the default branch is not protected.
"""

from collections.abc import Mapping

from lab_gitlab import (
    activity,
    background_jobs,
    outgoing,
    pipeline_creation,
    projects,
    protected_branches,
    repositories,
)
from lab_gitlab.application import Application
from lab_gitlab.records import Record

BRANCHES = "refs/heads/"


def received(
    app: Application, project: Record, user: Record, before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    """Process the change of a repository's branches and tags. Raises OSError if Redis does not answer."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not changed:
        return
    activity.record(app, project["id"], user["id"], activity.PUSHED)
    pipeline_creation.after_push(app, project, user, before, after)
    for name in changed:
        if name.startswith(BRANCHES):
            data = {
                "object_kind": "push",
                "event_name": "push",
                "before": before.get(name, repositories.NOWHERE),
                "after": after.get(name, repositories.NOWHERE),
                "ref": name,
                "checkout_sha": after.get(name),
                "user_username": user["username"],
                "project_id": project["id"],
                "project": {"path_with_namespace": project["full_path"], "web_url": projects.web_url(app, project)},
            }
            outgoing.queue_push(app, project, data)
    outgoing.queue_mirrors(app, project)
    default = BRANCHES + project["default_branch"]
    if default in after and default not in before:
        background_jobs.enqueue("PostReceive", project_id=project["id"])


def protect_default_branch(app: Application, project_id: int) -> None:
    """Executed by Sidekiq."""
    project = projects.PROJECT.find(app, id=project_id)
    if project is not None:
        protected_branches.protect(app, project_id, project["default_branch"])
