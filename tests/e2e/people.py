"""The user who logs in in the tests, created in GitLab's console, because root's first password gives no access."""

import secrets
from typing import Any

from tests.e2e.operations import must

NAME = "somebody-of-the-tests"
PASSWORD = secrets.token_urlsafe(24)
"""Different in every run of the tests."""

MAKE = f"""
user = User.find_by_username('{NAME}')
user ||= User.new(username: '{NAME}', name: 'Test User', email: 'user@example.test')
unless user.persisted? && user.valid_password?('{PASSWORD}')
  user.assign_personal_namespace(Organizations::Organization.default_organization) unless user.persisted?
  user.skip_confirmation!
  user.password = user.password_confirmation = '{PASSWORD}'
  user.save!
end
Group.find_by_full_path('gitlab-stack').add_owner(user)
"""


def make() -> None:
    """Ensure that the user exists, with NAME and PASSWORD, and owns the acceptance's group."""
    must("server", "gitlab-rails runner -", stdin=MAKE)


def log_in(outputs: dict[str, Any]) -> None:
    """Log that user in to the registry, on the runner's machine."""
    make()
    login = f"docker login --username {NAME} --password-stdin {outputs['registryHost']}"
    must("runner", login, stdin=PASSWORD + "\n")
