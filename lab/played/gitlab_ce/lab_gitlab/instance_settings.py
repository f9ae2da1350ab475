"""The settings of the admin area: a single record with the defaults of GitLab 17.10."""

from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record

LOWEST = {
    "throttle_protected_paths_period_in_seconds": 1,
    "throttle_protected_paths_requests_per_period": 1,
    "two_factor_grace_period": 0,
}
VISIBILITY_LEVELS = (0, 10, 20)


class ApplicationSetting(Model):
    """The settings that affect this stand-in, and those with which a new server is hardened."""

    name = "ApplicationSetting"
    table = "application_settings"
    columns = {
        "admin_mode": Column("boolean", False),
        "after_sign_up_text": Column(),
        "allow_local_requests_from_system_hooks": Column("boolean", True),
        "allow_local_requests_from_web_hooks_and_services": Column("boolean", False),
        "allow_runner_registration_token": Column("boolean", True),
        "auto_devops_enabled": Column("boolean", True),
        "container_registry_token_expire_delay": Column("integer", 5),
        "default_group_visibility": Column("integer", 0),
        "default_project_visibility": Column("integer", 0),
        "enforce_ci_inbound_job_token_scope_enabled": Column("boolean", False),
        "gravatar_enabled": Column("boolean", True),
        "home_page_url": Column(),
        "password_authentication_enabled_for_git": Column("boolean", True),
        "password_authentication_enabled_for_web": Column("boolean", True),
        "require_admin_approval_after_user_signup": Column("boolean", True),
        "require_admin_two_factor_authentication": Column("boolean", False),
        "require_personal_access_token_expiry": Column("boolean", True),
        "restricted_visibility_levels": Column("list", []),
        "runner_token_expiration_interval": Column("integer"),
        "shared_runners_enabled": Column("boolean", True),
        "signup_enabled": Column("boolean", True),
        "silent_mode_enabled": Column("boolean", False),
        "throttle_protected_paths_enabled": Column("boolean", False),
        "throttle_protected_paths_period_in_seconds": Column("integer", 60),
        "throttle_protected_paths_requests_per_period": Column("integer", 10),
        "two_factor_grace_period": Column("integer", 48),
        "usage_ping_enabled": Column("boolean", True),
        "user_default_external": Column("boolean", False),
        "version_check_enabled": Column("boolean", True),
    }

    def validate(self, _app: Application, record: Record) -> Errors:
        errors: Errors = []
        for name, lowest in LOWEST.items():
            if not isinstance(record[name], int):
                errors.append((name, "is not a number"))
            elif record[name] < lowest:
                errors.append((name, f"must be greater than or equal to {lowest}"))
        for level in record["restricted_visibility_levels"]:
            if level not in VISIBILITY_LEVELS:
                errors.append(("restricted_visibility_levels", f"'{level}' is not a valid visibility level"))
        return errors


APPLICATION_SETTING = ApplicationSetting()


def current(app: Application) -> Record:
    """Return the single record."""
    found = APPLICATION_SETTING.find(app)
    if found is None:
        raise LookupError("the database has no application settings: it was never seeded")
    return found


def as_seen(app: Application, user: Record, *, in_admin_mode: bool) -> Record:
    """Return the user with the privileges that apply: the setting admin_mode limits administrators to admin mode.

    Source: gitlab-org/gitlab lib/gitlab/auth/current_user_mode.rb, lib/api/api_guard.rb.
    """
    if in_admin_mode or not current(app)["admin_mode"]:
        return user
    return {**user, "admin": False}
