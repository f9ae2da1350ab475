"""GitLab's own configuration, /etc/gitlab/gitlab.rb. Sources: omnibus-gitlab at 17.10.4+ce.0.

From 19.2 on the package reports the four keys `nginx[...]` as deprecated in favour of `gitlab_rails['nginx'][...]`, and
still applies them (gitlab.rb.template at 19.3.0+ce.0); 17.10 knows only these.
"""

from dataclasses import dataclass

from configuration.flows import GITLAB_HTTP_PORT, GITLAB_SSHD_PORT
from configuration.paths import GITLAB_FOLDERS, INITIAL_ROOT_PASSWORD, TOKEN_CERTIFICATE, TOKEN_KEY
from settings import Settings

TOKEN_ISSUER = "omnibus-gitlab-issuer"
"""`iss` of the registry's tokens: what GitLab signs and the registry expects."""


@dataclass(frozen=True)
class SystemAccount:
    """A system user and group with the same pinned number, so that the owners of kept data exist on a new machine."""

    section: str
    number: int


EXTRA_LINES = "# From the setting gitlabRb."
"""The line before the owner's own, the last of the file. remote/configure_gitlab.sh looks for it, to say where in the
setting a mistake is.
"""

# Outside the range dnf draws from (999 downwards) and above RHEL's reserved numbers (below 201).
SYSTEM_ACCOUNTS = (
    SystemAccount("user", 440),
    SystemAccount("web_server", 441),
    SystemAccount("postgresql", 442),
    SystemAccount("redis", 443),
    SystemAccount("prometheus", 444),
)


def ruby_string(text: str) -> str:
    """A single-quoted Ruby string: nothing in it is interpolated."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def render_gitlab_rb(
    settings: Settings, *, external_url: str, public_host: str, registry_private_ip: str, runner_public_ip: str
) -> str:
    """The whole file. A secret: it holds the mail password when there is one, never the root password or a key."""
    lines = [
        "# Written by the Pulumi program of this stack; a later `pulumi up` overwrites changes made here.",
        f"external_url {ruby_string(external_url)}",
        "",
        "# Behind the load balancer: true client addresses by PROXY protocol, TLS (if any) ends there.",
        f"nginx['listen_port'] = {GITLAB_HTTP_PORT}",
        "nginx['listen_https'] = false",
        "nginx['proxy_protocol'] = true",
        f"nginx['real_ip_trusted_addresses'] = [{ruby_string(str(settings.subnet))}]",
        "letsencrypt['enable'] = false",
        "",
        "# Thirty failed logins by git or Docker in three minutes shut an address out for an hour, as at gitlab.com.",
        "# Not the runner's: all jobs share it, and two checks fail to log in from there. GitLab sees its public one.",
        "gitlab_rails['rack_attack_git_basic_auth'] = {",
        f"  'enabled' => true, 'ip_whitelist' => ['127.0.0.1', {ruby_string(runner_public_ip)}],",
        "  'maxretry' => 30, 'findtime' => 180, 'bantime' => 3600",
        "}",
        "",
        "# git over SSH: never the machine's own OpenSSH. Clients show their own addresses, without PROXY protocol.",
        "gitlab_sshd['enable'] = true",
        f"gitlab_sshd['listen_address'] = '[::]:{GITLAB_SSHD_PORT}'",
        "",
        "# The registry is another machine; a file laid at registry_key_path alone would be overwritten.",
        "registry['enable'] = false",
        "gitlab_rails['registry_enabled'] = true",
        f"gitlab_rails['registry_host'] = {ruby_string(public_host)}",
        f"gitlab_rails['registry_port'] = '{settings.registry_port}'",
        f"gitlab_rails['registry_api_url'] = 'http://{registry_private_ip}:{settings.registry_port}'",
        f"gitlab_rails['registry_issuer'] = {ruby_string(TOKEN_ISSUER)}",
        f"registry['internal_key'] = File.read({ruby_string(TOKEN_KEY)})",
        f"registry['internal_certificate'] = File.read({ruby_string(TOKEN_CERTIFICATE)})",
        "",
        "# Backups, among them the dump that the package makes before each upgrade, go after a week.",
        "gitlab_rails['backup_keep_time'] = 604800",
        "",
        "# Kept data: services wait for the volume, and its owners have fixed numbers.",
        f"high_availability['mountpoint'] = [{', '.join(map(ruby_string, GITLAB_FOLDERS))}]",
    ]
    for account in SYSTEM_ACCOUNTS:
        lines += [
            f"{account.section}['uid'] = {account.number}",
            f"{account.section}['gid'] = {account.number}",
        ]
    lines += [
        "",
        "# Each log: 30 days, or 30 files of these sizes (runit's, logrotate's). The package has 200 MiB and no limit.",
        "logging['svlogd_size'] = 20 * 1024 * 1024",
        "logging['logrotate_maxsize'] = '100M'",
        "",
        "# Used once, when the database is seeded. The file goes when root has another password; none is made up then.",
        f"first_password = {ruby_string(INITIAL_ROOT_PASSWORD)}",
        "gitlab_rails['initial_root_password'] = File.read(first_password).strip if File.exist?(first_password)",
        "gitlab_rails['store_initial_root_password'] = false",
        "",
    ]
    lines += _mail(settings)
    if settings.extra_gitlab_rb:
        lines += [EXTRA_LINES, settings.extra_gitlab_rb.rstrip("\n"), ""]
    return "\n".join(lines)


def _mail(settings: Settings) -> list[str]:
    smtp = settings.smtp
    if smtp is None:
        return ["gitlab_rails['gitlab_email_enabled'] = false", ""]
    return [
        "gitlab_rails['smtp_enable'] = true",
        f"gitlab_rails['smtp_address'] = {ruby_string(smtp.address)}",
        f"gitlab_rails['smtp_port'] = {smtp.port}",
        f"gitlab_rails['smtp_user_name'] = {ruby_string(smtp.user_name)}",
        f"gitlab_rails['smtp_password'] = {ruby_string(smtp.password)}",
        "gitlab_rails['smtp_authentication'] = 'login'",
        "gitlab_rails['smtp_enable_starttls_auto'] = true",
        f"gitlab_rails['gitlab_email_from'] = {ruby_string(smtp.sender)}",
        "",
    ]
