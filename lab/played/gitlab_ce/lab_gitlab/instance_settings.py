"""The settings of the admin area: one record, with GitLab 17.10's defaults."""

from lab_gitlab.application import Application
from lab_gitlab.records import Column, Model, Record


class ApplicationSetting(Model):
    """Only settings that decide about something that is played, or that a new server is hardened with."""

    name = "ApplicationSetting"
    table = "application_settings"
    columns = {
        "admin_mode": Column("boolean", False),
        "after_sign_up_text": Column(),
        "allow_local_requests_from_web_hooks_and_services": Column("boolean", False),
        "allow_runner_registration_token": Column("boolean", False),
        "auto_devops_enabled": Column("boolean", True),
        "container_registry_token_expire_delay": Column("integer", 5),
        "default_group_visibility": Column("integer", 0),
        "default_project_visibility": Column("integer", 0),
        "gravatar_enabled": Column("boolean", True),
        "home_page_url": Column(),
        "password_authentication_enabled_for_git": Column("boolean", True),
        "password_authentication_enabled_for_web": Column("boolean", True),
        "require_admin_approval_after_user_signup": Column("boolean", True),
        "require_personal_access_token_expiry": Column("boolean", True),
        "shared_runners_enabled": Column("boolean", True),
        "signup_enabled": Column("boolean", True),
        "usage_ping_enabled": Column("boolean", True),
        "user_default_external": Column("boolean", False),
        "version_check_enabled": Column("boolean", True),
    }


APPLICATION_SETTING = ApplicationSetting()


def current(app: Application) -> Record:
    """The one record."""
    found = APPLICATION_SETTING.find(app)
    if found is None:
        raise LookupError("the database has no application settings: it was never seeded")
    return found
