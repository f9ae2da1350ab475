"""Protected branches. Whether a job is protected is decided when its pipeline is created.

Source: gitlab-org/gitlab app/models/protected_branch.rb, app/services/projects/protect_default_branch_service.rb. The
stand-in has no wildcards, and protects every branch as GitLab does the default branch: for maintainers.
"""

from collections.abc import Mapping
from typing import Any

from lab_gitlab import members
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record

FOR_MAINTAINERS: Mapping[str, Any] = {
    f"{action}_access_levels_attributes": [{"access_level": members.MAINTAINER}] for action in ("push", "merge")
}


class ProtectedBranch(Model):
    """A protected branch of a project, which need not exist in the repository."""

    name = "ProtectedBranch"
    table = "protected_branches"
    columns = {"project_id": Column("integer"), "name": Column(), "created_at": Column("time")}
    virtual = tuple(FOR_MAINTAINERS)

    def validate(self, app: Application, record: Record) -> Errors:
        errors: Errors = [
            (attribute, "must be for maintainers in the lab")
            for attribute, levels in FOR_MAINTAINERS.items()
            if record.get(attribute) != levels
        ]
        if is_protected(app, record["project_id"], record["name"]):
            errors.append(("name", "has already been taken"))
        return errors

    def before_save(self, _app: Application, record: Record) -> None:
        for attribute in self.virtual:
            record.pop(attribute)


PROTECTED_BRANCH = ProtectedBranch()


def is_protected(app: Application, project_id: int, name: str) -> bool:
    return PROTECTED_BRANCH.find(app, project_id=project_id, name=name) is not None


def protect(app: Application, project_id: int, name: str) -> None:
    """Protect a branch that is not protected yet."""
    if not is_protected(app, project_id, name):
        PROTECTED_BRANCH.create(app, project_id=project_id, name=name, **FOR_MAINTAINERS)
