"""The setting `gitlabRb`: the user's own lines, rejected if they would override what the program relies on.

Patterns cannot recognize every way to write a line. So configuration/gitlab_rb.py also writes the program's values
after the user's lines and deletes keys that must keep the package's default; the checks here only report it earlier.
"""

import re
from collections.abc import Sequence

from validation import ruby_text, unsupported
from validation.assignments import assigned

BALANCER = "the load balancer forwards to nginx on port 80 with the PROXY protocol"
SSHD = "the load balancer forwards git over SSH to gitlab-sshd on port 2222, and the checks compare its host key"
REGISTRY = "the registry runs on its own machine and trusts this GitLab's tokens"
PASSWORD = "the first password is the setting initialRootPassword or one generated on the server"
ACCOUNTS = "the data on the volume is owned by these account names and numbers"
ACCESS_LOG = "the checks read nginx's access log in its own folder, which is on the data volume"
IMAGES = "images are on the registry's own machine, which this key does not reach"
SECRETS = "an installation on a new machine requires gitlab-secrets.json on the data volume"
SOCKET = "the checks and the steps use the package's own socket to reach GitLab"

SET_BY_PROGRAM = {
    ("nginx", "listen_port"): BALANCER,
    ("nginx", "listen_https"): BALANCER,
    ("nginx", "proxy_protocol"): BALANCER,
    ("nginx", "real_ip_trusted_addresses"): BALANCER,
    ("letsencrypt", "enable"): "TLS terminates at the load balancer, which has the certificate; set domain",
    ("gitlab_sshd", "enable"): SSHD,
    ("gitlab_sshd", "listen_address"): SSHD,
    ("registry", "enable"): REGISTRY,
    ("registry", "internal_key"): REGISTRY,
    ("registry", "internal_certificate"): REGISTRY,
    ("gitlab_rails", "registry_enabled"): REGISTRY,
    ("gitlab_rails", "registry_host"): REGISTRY,
    ("gitlab_rails", "registry_port"): f"{REGISTRY}; set registryPort",
    ("gitlab_rails", "registry_api_url"): REGISTRY,
    ("gitlab_rails", "registry_issuer"): REGISTRY,
    ("gitlab_rails", "initial_root_password"): PASSWORD,
    ("gitlab_rails", "store_initial_root_password"): PASSWORD,
    **{
        (section, key): ACCOUNTS
        for section in ("user", "web_server", "postgresql", "redis", "prometheus")
        for key in ("uid", "gid")
    },
}
"""What the program sets in gitlab.rb and relies on, by section and key, and why."""

PACKAGE_DEFAULTS = {
    ("nginx", "enable"): BALANCER,
    ("nginx", "listen_address"): BALANCER,
    ("nginx", "listen_addresses"): BALANCER,
    ("nginx", "real_ip_header"): BALANCER,
    ("nginx", "log_directory"): ACCESS_LOG,
    ("gitlab_sshd", "proxy_protocol"): SSHD,
    ("gitlab_sshd", "dir"): SSHD,
    ("gitlab_sshd", "generate_host_keys"): SSHD,
    ("gitlab_sshd", "host_keys_dir"): SSHD,
    ("gitlab_sshd", "host_keys_glob"): SSHD,
    ("gitlab_rails", "gitlab_shell_ssh_port"): "clients use port 22 of the load balancer for git over SSH",
    ("gitlab_rails", "registry_key_path"): REGISTRY,
    ("registry", "storage"): IMAGES,
    ("package", "generate_default_secrets"): SECRETS,
    ("package", "generate_secrets_json_file"): SECRETS,
    ("gitlab_workhorse", "enable"): SOCKET,
    ("gitlab_workhorse", "dir"): SOCKET,
    ("gitlab_workhorse", "listen_network"): SOCKET,
    ("gitlab_workhorse", "listen_addr"): SOCKET,
    ("gitlab_workhorse", "sockets_directory"): SOCKET,
    ("user", "username"): ACCOUNTS,
    ("user", "group"): ACCOUNTS,
    ("manage_accounts", "enable"): ACCOUNTS,
}
"""Keys that must keep the package's default. From 19.2 on, GitLab also reads the keys of nginx from
gitlab_rails['nginx'] (omnibus-gitlab, translate_rails_nginx_settings).
"""

TOP_LEVEL = {
    "external_url": "which the program derives from the load balancer",
    "registry_external_url": "which the program derives from the load balancer",
    "roles": "but this machine runs every part of GitLab except the registry",
}

SECTIONS = sorted({section for section, _ in (*SET_BY_PROGRAM, *PACKAGE_DEFAULTS)} | {"high_availability"})


def lines(value: str) -> str:
    """Lines for GitLab's gitlab.rb. Raises ValueError if a line sets what the program relies on or what this stack does
    not support, or ends the file before the program's own lines.
    """
    code = ruby_text.code(value)
    text = "\n".join(code)
    for name, why in TOP_LEVEL.items():
        if re.search(
            rf"(?:^|;|\bthen\b|\bself\.|\bGitlab\.)\s*{name}\b(?!\s*\[)|\bGitlab\s*\[\s*['\":]{name}\b",
            text,
            re.MULTILINE,
        ):
            raise ValueError(f"sets {name}, {why}. Remove that line")
    for (section, key), why in {**SET_BY_PROGRAM, **PACKAGE_DEFAULTS}.items():
        if assigned(text, section, key):
            raise ValueError(f"sets {section}['{key}'], but {why}. Remove that line")
    unsupported.check(value)
    for section in SECTIONS:
        if re.search(rf"^\s*{section}\s*=(?![=~>])", text, re.MULTILINE):
            raise ValueError(
                f"assigns a variable named {section}, which hides GitLab's settings. Use {section}['key'] = value"
            )
    ends = re.search(r"^(?:__END__$|\s*(?:exit!?|abort)\b)", text, re.MULTILINE)
    if match := ends or re.search(r"^\s*return\b", "\n".join(_outside_methods(code)), re.MULTILINE):
        raise ValueError(
            f"contains {match[0].strip()}, which ends the file before the program's own lines. Remove that line"
        )
    return value


METHOD = re.compile(
    r"(?P<indent>\s*)(?:def\s(?!\s*[\w.?!]+\s*(?:\([^()]*\))?\s*=\s)(?!.*\bend\s*$)"
    r"|.*(?:->|\blambda\b).*(?:\bdo\b|\{)(?:\s*\|[^|]*\|)?\s*$)"
)
"""The first line of a method or a lambda that ends in a later line; `def name = value` has no end."""


def _outside_methods(code: Sequence[str]) -> list[str]:
    """The lines outside methods and lambdas, which end with the indentation that they begin with."""
    outside: list[str] = []
    following = 0
    for index, line in enumerate(code):
        if index < following:
            continue
        outside.append(line)
        if method := METHOD.match(line):
            end = re.compile(rf"{method['indent']}(?:end\b|\}})")
            following = next((later for later in range(index + 1, len(code)) if end.match(code[later])), index) + 1
    return outside
