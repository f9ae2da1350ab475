"""Temporary projects in the stack's GitLab."""

import contextlib
from collections.abc import Iterator
from typing import Any

import gitlab

from tests.e2e import https, people
from tests.e2e.operations import must

GROUP = "gitlab-stack"
"""The acceptance created it."""

MAKE = """
admin = User.admins.active.order(:id).first
Gitlab::Auth::CurrentUserMode.bypass_session!(admin.id) do
  group = Group.find_by_full_path('{group}')
  made = Projects::CreateService.new(admin, {{ name: '{name}', path: '{name}', namespace_id: group.id,
    visibility_level: Gitlab::VisibilityLevel::PRIVATE }}).execute
  abort(made.errors.full_messages.join) unless made.persisted?
  user = User.find_by_username('{user}')
  token = user.personal_access_tokens.create!(name: '{group}/{name}', scopes: %w[api], expires_at: 1.day.from_now)
  puts token.token
end
"""
DELETE = """
admin = User.admins.active.order(:id).first
Gitlab::Auth::CurrentUserMode.bypass_session!(admin.id) do
  User.find_by_username('{user}').personal_access_tokens.find_by(name: '{group}/{name}').revoke!
  Projects::DestroyService.new(Project.find_by_full_path('{group}/{name}'), admin).execute
end
"""


@contextlib.contextmanager
def made(outputs: dict[str, Any], name: str) -> Iterator[Any]:
    """A project with this name, as an object of python-gitlab, for the user of tests.e2e.people. Deleted at the end."""
    names = {"group": GROUP, "name": name, "user": people.NAME}
    people.make()
    token = must("server", "gitlab-rails runner -", stdin=MAKE.format(**names))
    api = gitlab.Gitlab(
        outputs["externalUrl"], private_token=token, ssl_verify=str(https.authorities()), session=https.session(outputs)
    )
    yield api.projects.get(f"{GROUP}/{name}")
    must("server", "gitlab-rails runner -", stdin=DELETE.format(**names))
