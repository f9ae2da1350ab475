"""Secure values for a new GitLab's own settings, where GitLab's defaults are too permissive.

They are applied once, right after the database is seeded; from then on administrators change them in the Admin area.
The names are the columns and accessors of GitLab 17.10's ApplicationSetting (app/models/application_setting.rb).
Settings that are not listed keep GitLab's default: `require_admin_approval_after_user_signup`, for example, is on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

PUBLIC = 20
"""Gitlab::VisibilityLevel::PUBLIC."""


@dataclass(frozen=True)
class GitLabSetting:
    """One of GitLab's settings, its value in a new GitLab, and its page in the Admin area."""

    name: str
    value: bool | int | list[int]
    page: str


IN_A_NEW_GITLAB = (
    GitLabSetting("signup_enabled", False, "General > Sign-up restrictions"),
    # Does not restrict administrators.
    GitLabSetting("restricted_visibility_levels", [PUBLIC], "General > Visibility and access controls"),
    GitLabSetting("require_admin_two_factor_authentication", True, "General > Sign-in restrictions"),
    # Hours that an administrator has to set it up.
    GitLabSetting("two_factor_grace_period", 48, "General > Sign-in restrictions"),
    # A stolen session or token does not give admin rights: the password is requested again, and tokens need a scope.
    GitLabSetting("admin_mode", True, "General > Sign-in restrictions"),
    # High enough for an office in which everyone logs in from one address in the morning.
    GitLabSetting("throttle_protected_paths_enabled", True, "Network > Protected paths"),
    GitLabSetting("throttle_protected_paths_requests_per_period", 30, "Network > Protected paths"),
    GitLabSetting("throttle_protected_paths_period_in_seconds", 60, "Network > Protected paths"),
    # GitLab already blocks such addresses for all other requests that users can trigger.
    GitLabSetting("allow_local_requests_from_system_hooks", False, "Network > Outbound requests"),
    # GitLab's own default since 18.0 (EnableCiJobTokenAllowlistSetting).
    GitLabSetting("enforce_ci_inbound_job_token_scope_enabled", True, "CI/CD > Job token permissions"),
    GitLabSetting("allow_runner_registration_token", False, "CI/CD > Runners"),
    GitLabSetting("usage_ping_enabled", False, "Metrics and profiling > Usage statistics"),
    GitLabSetting("gravatar_enabled", False, "General > Account and limit"),
)

NAMES = [setting.name for setting in IN_A_NEW_GITLAB]


def in_a_new_gitlab(given: Mapping[str, object]) -> dict[str, object]:
    """Values by name: the program's, overridden and extended by those `given`; None keeps GitLab's default."""
    values = {**{setting.name: setting.value for setting in IN_A_NEW_GITLAB}, **given}
    return {name: value for name, value in values.items() if value is not None}


def as_text(values: Mapping[str, object]) -> str:
    """The current values and their pages in the Admin area; settings that this GitLab does not have are marked."""
    shown = {name: _shown(values[name]) if name in values else "unknown to this GitLab" for name in NAMES}
    width = max(len(f"{name}: {value}") for name, value in shown.items())
    lines = [
        f"  {f'{setting.name}: {shown[setting.name]}':<{width}}  Admin > Settings > {setting.page}"
        for setting in IN_A_NEW_GITLAB
    ]
    return "\n".join(["Current settings of GitLab:", *lines])


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
