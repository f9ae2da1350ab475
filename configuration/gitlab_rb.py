"""Renders GitLab's own configuration, /etc/gitlab/gitlab.rb. Sources: omnibus-gitlab at 17.10.4+ce.0.

Since 19.2 the package reports the four keys `nginx[...]` as deprecated in favour of `gitlab_rails['nginx'][...]`, but
still applies them (gitlab.rb.template at 19.3.0+ce.0); 17.10 supports only these.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from configuration.flows import GITLAB_HTTP_PORT, GITLAB_SSHD_PORT
from configuration.paths import GITLAB_FOLDERS, INITIAL_ROOT_PASSWORD, TOKEN_CERTIFICATE, TOKEN_KEY
from settings import Settings
from validation.gitlab_rb import PACKAGE_DEFAULTS, SECTIONS, SET_BY_PROGRAM

TOKEN_ISSUER = "omnibus-gitlab-issuer"
"""`iss` of the registry's tokens, as signed by GitLab and expected by the registry."""


@dataclass(frozen=True)
class SystemAccount:
    """A system user and group with the same fixed ID, so that data on the volume keeps its owners on a new machine."""

    section: str
    number: int


NO_SIDEKIQ = "Gitlab['sidekiq']['enable'] = false"
"""Without the section's own name, which the user's lines may have hidden by a variable."""

EXTRA_LINES = "# From the setting gitlabRb."
END_OF_EXTRA_LINES = "# End of gitlabRb."
"""Lines around the user's own. remote/configure_gitlab.sh uses them to report the line of the setting with an error."""

MERGED = """\
# Keeps the values above and adds those that the program relies on. Reading a missing key would create it (ConfigMash).
# Assigns each section's name, since a variable of that name would hide the section.
{sections} = %w[{sections}].map { |section| Gitlab[section] }
rails = Gitlab['gitlab_rails']
rails['env'] = {} unless rails.key?('env') && rails['env'].is_a?(Hash)
skipped = rails['env']['SKIP'].is_a?(String) ? rails['env']['SKIP'].split(',').map(&:strip) : []
rails['env']['SKIP'] = (skipped | ['registry']).join(',')
if %w[http_proxy HTTP_PROXY].any? { |name| rails['env'].key?(name) }
  # GitLab reads no_proxy first (Ruby, URI::Generic#find_proxy), which would hide NO_PROXY.
  unproxied = %w[no_proxy NO_PROXY].select { |name| rails['env'].key?(name) }
  (unproxied.empty? ? ['no_proxy'] : unproxied).each do |name|
    given = rails['env'][name].is_a?(String) ? rails['env'][name].split(',').map(&:strip) : []
    rails['env'][name] = (given | {direct}).join(',')
  end
end
monitors = rails.key?('monitoring_whitelist') ? rails['monitoring_whitelist'] : nil
rails['monitoring_whitelist'] = Array(monitors) | ['127.0.0.0/8', '::1/128'] unless monitors.nil?
shut_out = rails.key?('rack_attack_git_basic_auth') ? rails['rack_attack_git_basic_auth'] : nil
if shut_out.is_a?(Hash)
  excepted = shut_out.key?('ip_whitelist') ? Array(shut_out['ip_whitelist']) : []
  shut_out['ip_whitelist'] = excepted | {whitelist}
end
hosts = rails.key?('allowed_hosts') ? Array(rails['allowed_hosts']) : []
require 'socket'
# The load balancer's health checks use the machine's own address, the program's use localhost.
own = Socket.ip_address_list.select(&:ipv4?).map(&:ip_address)
rails['allowed_hosts'] = hosts | [{host}, 'localhost', *own] unless hosts.empty?
mounted = Gitlab['high_availability']
mounted['mountpoint'] = (mounted.key?('mountpoint') ? Array(mounted['mountpoint']) : []) | {folders}
Gitlab['registry_external_url'] = nil
{left}.each { |section, keys| keys.each { |key| Gitlab[section].delete(key) } }
{nginx}.each { |key| rails['nginx'].delete(key) if rails.key?('nginx') && rails['nginx'].is_a?(Hash) }
"""
"""Ruby after the user's lines. The registry's images are on another machine, so GitLab's backup skips them: otherwise,
restore would assign their directory to an account that does not exist (omnibus-gitlab, rake_backup_wrapper). A proxy
cannot reach the registry's private address and the machine itself.
"""

# Outside the range that dnf allocates from (999 downwards) and above RHEL's reserved IDs (below 201).
SYSTEM_ACCOUNTS = (
    SystemAccount("user", 440),
    SystemAccount("web_server", 441),
    SystemAccount("postgresql", 442),
    SystemAccount("redis", 443),
    SystemAccount("prometheus", 444),
)

GITLAB_USERS = f"{SYSTEM_ACCOUNTS[0].number}-{SYSTEM_ACCOUNTS[-1].number}"
"""The IDs of all users that GitLab's services run as, but root."""


def ruby_string(text: str) -> str:
    """A single-quoted Ruby string: nothing in it is interpolated."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def render_gitlab_rb(
    settings: Settings,
    *,
    external_url: str,
    public_host: str,
    registry_private_ip: str,
    runner_public_ip: str,
    background_jobs: bool = True,
) -> str:
    """The whole file. Secret: it contains the SMTP password, if one is set, but never the root password or a key.

    Without `background_jobs`, GitLab runs without Sidekiq, which alone acts without a request.
    """
    excepted = f"['127.0.0.1', {ruby_string(runner_public_ip)}]"
    lines = [
        "# Written by the Pulumi program of this stack; a later `pulumi up` overwrites changes made here.",
        "",
        "# Thirty failed logins by git or Docker within three minutes block an address for an hour, as on gitlab.com.",
        "# Except the runner's public address: all jobs share it, and two checks fail to log in from it on purpose.",
        "gitlab_rails['rack_attack_git_basic_auth'] = {",
        f"  'enabled' => true, 'ip_whitelist' => {excepted},",
        "  'maxretry' => 30, 'findtime' => 180, 'bantime' => 3600",
        "}",
        "",
        "# Delete backups after a week, including the dump that the package creates before each upgrade.",
        "gitlab_rails['backup_keep_time'] = 604800",
        "",
        "# Services wait for the data volume.",
        f"high_availability['mountpoint'] = {_ruby_strings(GITLAB_FOLDERS)}",
        "",
        "# Keep logs for 30 days or 30 files of these sizes (runit, logrotate). Package defaults: 200 MiB, no limit.",
        "logging['svlogd_size'] = 20 * 1024 * 1024",
        "logging['logrotate_maxsize'] = '100M'",
        "",
    ]
    lines += _mail(settings)
    if settings.extra_gitlab_rb:
        lines += [EXTRA_LINES, settings.extra_gitlab_rb.rstrip("\n"), END_OF_EXTRA_LINES]
    lines.append(_merged(excepted, public_host, registry_private_ip))
    lines += _relied_on(settings, external_url, public_host, registry_private_ip)
    if not background_jobs:
        lines += ["# Until this restored copy is silenced.", NO_SIDEKIQ, ""]
    return "\n".join(lines)


def _merged(excepted: str, public_host: str, registry_private_ip: str) -> str:
    left: dict[str, list[str]] = defaultdict(list)
    for section, key in PACKAGE_DEFAULTS:
        left[section].append(key)
    shown = ", ".join(f"{ruby_string(section)} => {_ruby_strings(keys)}" for section, keys in left.items())
    filled = {
        "%w[{sections}]": f"%w[{' '.join(SECTIONS)}]",
        "{sections}": ", ".join(SECTIONS),
        "{whitelist}": excepted,
        "{host}": ruby_string(public_host),
        "{direct}": _ruby_strings((registry_private_ip, "localhost", "127.0.0.1")),
        "{folders}": _ruby_strings(GITLAB_FOLDERS),
        "{left}": f"{{ {shown} }}",
        "{nginx}": _ruby_strings(key for section, key in (*SET_BY_PROGRAM, *PACKAGE_DEFAULTS) if section == "nginx"),
    }
    text = MERGED
    for name, value in filled.items():
        text = text.replace(name, value)
    return text


def _ruby_strings(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(ruby_string, texts))}]"


def _relied_on(settings: Settings, external_url: str, public_host: str, registry_private_ip: str) -> list[str]:
    """The last lines of the file, which override all earlier ones (SET_BY_PROGRAM)."""
    lines = [
        f"external_url {ruby_string(external_url)}",
        "",
        "# Behind the load balancer: client addresses from the PROXY protocol; TLS (if any) terminates there.",
        f"nginx['listen_port'] = {GITLAB_HTTP_PORT}",
        "nginx['listen_https'] = false",
        "nginx['proxy_protocol'] = true",
        f"nginx['real_ip_trusted_addresses'] = [{ruby_string(str(settings.subnet))}]",
        "letsencrypt['enable'] = false",
        "",
        "# git over SSH: never the machine's own OpenSSH. Client addresses are preserved, without the PROXY protocol.",
        "gitlab_sshd['enable'] = true",
        f"gitlab_sshd['listen_address'] = '[::]:{GITLAB_SSHD_PORT}'",
        "",
        "# The registry is on another machine. A file placed at registry_key_path would be overwritten.",
        "registry['enable'] = false",
        "gitlab_rails['registry_enabled'] = true",
        f"gitlab_rails['registry_host'] = {ruby_string(public_host)}",
        f"gitlab_rails['registry_port'] = '{settings.registry_port}'",
        f"gitlab_rails['registry_api_url'] = 'http://{registry_private_ip}:{settings.registry_port}'",
        f"gitlab_rails['registry_issuer'] = {ruby_string(TOKEN_ISSUER)}",
        f"registry['internal_key'] = File.read({ruby_string(TOKEN_KEY)})",
        f"registry['internal_certificate'] = File.read({ruby_string(TOKEN_CERTIFICATE)})",
        "",
        "# Fixed IDs for the owners of the data on the volume.",
    ]
    for account in SYSTEM_ACCOUNTS:
        lines += [
            f"{account.section}['uid'] = {account.number}",
            f"{account.section}['gid'] = {account.number}",
        ]
    lines += [
        "",
        "# Used once, when the database is seeded. The file is deleted once root's password has changed.",
        f"first_password = {ruby_string(INITIAL_ROOT_PASSWORD)}",
        "gitlab_rails['initial_root_password'] = File.read(first_password).strip if File.exist?(first_password)",
        "gitlab_rails['store_initial_root_password'] = false",
        "",
    ]
    return lines


def _mail(settings: Settings) -> list[str]:
    smtp = settings.smtp
    if smtp is None:
        return ["gitlab_rails['gitlab_email_enabled'] = false", ""]
    lines = [
        "gitlab_rails['smtp_enable'] = true",
        f"gitlab_rails['smtp_address'] = {ruby_string(smtp.address)}",
        f"gitlab_rails['smtp_port'] = {smtp.port}",
    ]
    if smtp.user_name is not None and smtp.password is not None:
        lines += [
            f"gitlab_rails['smtp_user_name'] = {ruby_string(smtp.user_name)}",
            f"gitlab_rails['smtp_password'] = {ruby_string(smtp.password)}",
            f"gitlab_rails['smtp_authentication'] = {ruby_string(smtp.authentication)}",
        ]
    # With both set, the package's reconfigure fails (omnibus-gitlab, SmtpHelper).
    if smtp.implicit_tls:
        lines += ["gitlab_rails['smtp_tls'] = true", "gitlab_rails['smtp_enable_starttls_auto'] = false"]
    else:
        lines.append("gitlab_rails['smtp_enable_starttls_auto'] = true")
    return [*lines, f"gitlab_rails['gitlab_email_from'] = {ruby_string(smtp.sender)}", ""]
