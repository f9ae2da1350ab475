"""What follows a push: an event, pipelines, webhooks and mirrors.

Source: gitlab-org/gitlab app/workers/post_receive.rb, app/services/git/base_hooks_service.rb.
"""

from collections.abc import Mapping

from lab_gitlab import activity, outgoing, pipeline_creation, projects, repositories
from lab_gitlab.application import Application
from lab_gitlab.records import Record

BRANCHES = "refs/heads/"


def received(
    app: Application, project: Record, user: Record, before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    """Process the change of a repository's branches and tags."""
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
