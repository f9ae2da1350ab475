"""What GitLab's own settings are in a new GitLab, where its defaults leave doors open.

They are set once, when the database has just been seeded; afterwards they are up to the Admin area. Names: the columns
and accessors of GitLab 17.10's ApplicationSetting (app/models/application_setting.rb). What is not listed keeps
GitLab's default: `require_admin_approval_after_user_signup`, for example, is on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

PUBLIC = 20
"""Of Gitlab::VisibilityLevel."""


@dataclass(frozen=True)
class GitLabSetting:
    """One of GitLab's settings, its value in a new GitLab, and the page of the Admin area that has it."""

    name: str
    value: bool | int | list[int]
    page: str


IN_A_NEW_GITLAB = (
    GitLabSetting("signup_enabled", False, "General > Sign-up restrictions"),
    # Administrators still can.
    GitLabSetting("restricted_visibility_levels", [PUBLIC], "General > Visibility and access controls"),
    GitLabSetting("require_admin_two_factor_authentication", True, "General > Sign-in restrictions"),
    # Hours that an administrator has for it.
    GitLabSetting("two_factor_grace_period", 48, "General > Sign-in restrictions"),
    # A stolen session or token of an administrator is none's: the password is asked again, tokens need a scope.
    GitLabSetting("admin_mode", True, "General > Sign-in restrictions"),
    # An office behind one address can still log in in the morning.
    GitLabSetting("throttle_protected_paths_enabled", True, "Network > Protected paths"),
    GitLabSetting("throttle_protected_paths_requests_per_period", 30, "Network > Protected paths"),
    GitLabSetting("throttle_protected_paths_period_in_seconds", 60, "Network > Protected paths"),
    # GitLab refuses such addresses to all other requests that users can make it send.
    GitLabSetting("allow_local_requests_from_system_hooks", False, "Network > Outbound requests"),
    # From 18.0 on GitLab's own default (EnableCiJobTokenAllowlistSetting).
    GitLabSetting("enforce_ci_inbound_job_token_scope_enabled", True, "CI/CD > Job token permissions"),
    GitLabSetting("allow_runner_registration_token", False, "CI/CD > Runners"),
    GitLabSetting("usage_ping_enabled", False, "Metrics and profiling > Usage statistics"),
    GitLabSetting("gravatar_enabled", False, "General > Account and limit"),
)

NAMES = [setting.name for setting in IN_A_NEW_GITLAB]


def in_a_new_gitlab(given: Mapping[str, object]) -> dict[str, object]:
    """Values by name: the program's, with those `given` added or in their place; None leaves GitLab's own."""
    values = {**{setting.name: setting.value for setting in IN_A_NEW_GITLAB}, **given}
    return {name: value for name, value in values.items() if value is not None}


def as_text(values: Mapping[str, object]) -> str:
    """The values that a GitLab has now, and where its Admin area has them; one it does not know is said to be so."""
    shown = {name: _shown(values[name]) if name in values else "unknown to this GitLab" for name in NAMES}
    width = max(len(f"{name}: {value}") for name, value in shown.items())
    lines = [
        f"  {f'{setting.name}: {shown[setting.name]}':<{width}}  Admin > Settings > {setting.page}"
        for setting in IN_A_NEW_GITLAB
    ]
    return "\n".join(["Current settings of GitLab:", *lines])


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
