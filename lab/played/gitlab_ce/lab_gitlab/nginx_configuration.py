"""The configuration of the bundled nginx, written for a real nginx.

Source of listener, headers, log format and locations, as far as this project depends on them:
omnibus-gitlab 17.10.4+ce.0, gitlab/libraries/nginx.rb and templates/default/nginx*.erb.
"""

import os

from lab_gitlab import paths
from lab_gitlab.configuration import Configuration

MONITORING = (("/-/health", "txt"), ("/-/readiness", "json"), ("/-/liveness", "json"))
ACCESS_LOG = (
    '$remote_addr - $remote_user [$time_local] "$request_method $filtered_request_uri $server_protocol" '
    '$status $body_bytes_sent "$http_referer" "$http_user_agent" $gzip_ratio'
)


def render(configuration: Configuration) -> dict[str, str]:
    """Return the content of each file in nginx's conf folder."""
    return {
        "nginx.conf": _main(configuration),
        "gitlab-http.conf": _gitlab(configuration),
        "gitlab-health.conf": _health(),
    }


def _main(configuration: Configuration) -> str:
    account = "user gitlab-www;" if paths.IS_MACHINE else "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"  {kind}_temp_path {kind}_temp;" for kind in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
    )
    return f"""
{account}
worker_processes 1;
error_log stderr;
pid nginx.pid;
daemon off;

events {{
  worker_connections 1024;
}}

http {{
  log_format gitlab_access '{configuration.get("nginx", "log_format", ACCESS_LOG)}';
  access_log {paths.LOGS}/nginx/access.log;
  gzip on;
  include {paths.OPT}/embedded/conf/mime.types;
{temporary}

  map $http_upgrade $connection_upgrade {{
    default upgrade;
    ''      close;
  }}

  # Keeps tokens out of the log.
  map $request_uri $filtered_request_uri {{
    default $request_uri;
    ~(?i)^(?<start>.*)(?<key>[\\?&]private[\\-_]token)=[^&]*(?<rest>.*)$ "$start$key=[FILTERED]$rest";
  }}

  upstream gitlab-workhorse {{
    server unix:{paths.WORKHORSE_SOCKET};
  }}

  include {paths.NGINX_DIRECTORY}/conf/gitlab-http.conf;
}}
"""


def _gitlab(configuration: Configuration) -> str:
    proxy_protocol = configuration.get("nginx", "proxy_protocol", default=False)
    listen_addresses = configuration.get("nginx", "listen_addresses", ["*"])
    protocol = " proxy_protocol" if proxy_protocol else ""
    protocol += " ssl" if configuration.listens_with_tls else ""
    listeners = "\n".join(f"  listen {address}:{configuration.listen_port}{protocol};" for address in listen_addresses)
    real_ip = ["real_ip_header proxy_protocol;"] if proxy_protocol else []
    real_ip += [f"set_real_ip_from {address};" for address in configuration.real_ip_trusted_addresses]
    trusted = "\n".join(f"  {line}" for line in real_ip)
    certificate = _certificate(configuration) if configuration.listens_with_tls else ""
    client, forwarded_for = (
        ("$proxy_protocol_addr", "$proxy_protocol_addr")
        if proxy_protocol
        else ("$remote_addr", "$proxy_add_x_forwarded_for")
    )
    return f"""
server {{
{listeners}
  server_name {configuration.host};
  server_tokens off;
  client_max_body_size 0;
{certificate}
{trusted}
{_hsts(configuration)}
  access_log {paths.LOGS}/nginx/gitlab_access.log gitlab_access;
  error_log {paths.LOGS}/nginx/gitlab_error.log error;

  if ($http_host = "") {{
    set $http_host_with_default "{configuration.host}";
  }}
  if ($http_host != "") {{
    set $http_host_with_default $http_host;
  }}

  proxy_read_timeout 3600;
  proxy_connect_timeout 300;
  proxy_redirect off;
  proxy_http_version 1.1;
  proxy_request_buffering off;
  proxy_set_header Host $http_host_with_default;
  proxy_set_header X-Real-IP {client};
  proxy_set_header X-Forwarded-For {forwarded_for};
  proxy_set_header X-Forwarded-Proto {"https" if configuration.https else "http"};
{"  proxy_set_header X-Forwarded-Ssl on;" if configuration.https else ""}
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $connection_upgrade;

  include {paths.NGINX_DIRECTORY}/conf/gitlab-health.conf;
  location / {{
    proxy_pass http://gitlab-workhorse;
  }}
}}
"""


def _certificate(configuration: Configuration) -> str:
    """Return the directives for TLS. nginx does not start if the files are missing."""
    base = f"/etc/gitlab/ssl/{configuration.host}"
    named = {"ssl_certificate": f"{base}.crt", "ssl_certificate_key": f"{base}.key"}
    return "\n".join(f"  {name} {paths.at(configuration.get('nginx', name, usual))};" for name, usual in named.items())


def _hsts(configuration: Configuration) -> str:
    """Return the header that makes browsers refuse plain HTTP; the package also sends it over plain HTTP."""
    age = int(configuration.get("nginx", "hsts_max_age", 63072000))
    more = "; includeSubdomains" if configuration.get("nginx", "hsts_include_subdomains", default=False) else ""
    return f'  add_header Strict-Transport-Security "max-age={age}{more}" always;' if age > 0 else ""


def _health() -> str:
    locations = "\n".join(
        f"""location = {path} {{
  proxy_http_version 1.0;
  proxy_pass http://gitlab-workhorse;
  error_page 404 500 502 /error.{kind};
}}"""
        for path, kind in MONITORING
    )
    return f"""
location /error.txt {{
  return 500 'nginx returned $status when communicating with gitlab-workhorse\\n';
}}
location /error.json {{
  return 500 '{{"error":"nginx returned $status when communicating with gitlab-workhorse","status":$status}}\\n';
}}
{locations}
"""
