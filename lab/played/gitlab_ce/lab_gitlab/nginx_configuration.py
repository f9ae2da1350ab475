"""Configuration of the bundled nginx, for the real nginx.

Source: omnibus-gitlab 17.10.4+ce.0, gitlab/libraries/nginx.rb and templates/default/nginx*.erb: same listeners,
headers, log format and locations; left out is what the lab's nginx has no module for (vhost_traffic_status).
"""

import os
from collections.abc import Iterable

from lab_gitlab import paths
from lab_gitlab.configuration import Configuration

MANAGED = "# This file is managed by gitlab-ctl. Manual changes will be erased!\n"
MONITORING = (("/-/health", "txt"), ("/-/readiness", "json"), ("/-/liveness", "json"))
ACCESS_LOG = (
    '$remote_addr - $remote_user [$time_local] "$request_method $filtered_request_uri $server_protocol" '
    '$status $body_bytes_sent "$filtered_http_referer" "$http_user_agent" $gzip_ratio'
)
UNBUFFERED = (
    r"/api/v\d/jobs/\d+/artifacts$|/import/gitlab_project$|\.git/git-receive-pack$|\.git/ssh-receive-pack$|"
    r"\.git/ssh-upload-pack$|\.git/gitlab-lfs/objects|\.git/info/lfs/objects/batch$"
)


def render(configuration: Configuration) -> dict[str, str]:
    """Content by file name in nginx's conf folder."""
    contents = {
        "nginx.conf": _main(configuration),
        "gitlab-http.conf": _gitlab(configuration),
        "gitlab-health.conf": _health(),
        "nginx-status.conf": _status(configuration),
    }
    if configuration.enabled("registry", default=False):
        contents["gitlab-registry.conf"] = _registry(configuration)
    return {name: MANAGED + content for name, content in contents.items()}


def proxy_headers(configuration: Configuration) -> dict[str, str]:
    """Headers that workhorse gets. gitlab.rb adds to the defaults, and takes one away by nil."""
    headers: dict[str, str | None] = {
        "Host": "$http_host_with_default",
        "X-Real-IP": "$remote_addr",
        "X-Forwarded-For": "$proxy_add_x_forwarded_for",
        "Upgrade": "$http_upgrade",
        "Connection": "$connection_upgrade",
        "X-Forwarded-Proto": "https" if configuration.https else "http",
    }
    if configuration.https:
        headers["X-Forwarded-Ssl"] = "on"
    if configuration.get("nginx", "proxy_protocol"):
        headers |= {"X-Real-IP": "$proxy_protocol_addr", "X-Forwarded-For": "$proxy_protocol_addr"}
    headers |= configuration.get("nginx", "proxy_set_headers", {})
    return {name: value for name, value in headers.items() if value}


def _main(configuration: Configuration) -> str:
    user, group = (configuration.get("web_server", name) for name in ("username", "group"))
    account = f"user {user} {group};" if paths.IS_MACHINE else "user root;" if os.geteuid() == 0 else ""
    included = ["gitlab-http.conf", "nginx-status.conf"]
    if configuration.enabled("registry", default=False):
        included.append("gitlab-registry.conf")
    includes = "\n".join(f"  include {paths.NGINX_DIRECTORY}/conf/{name};" for name in included)
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
  log_format gitlab_access '{ACCESS_LOG}';
  access_log {paths.LOGS}/nginx/access.log;
  server_names_hash_bucket_size 64;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout 65;
  keepalive_time 1h;
  gzip on;
  include {paths.OPT}/embedded/conf/mime.types;
{temporary}
  proxy_cache_path proxy_cache keys_zone=gitlab:10m max_size=1g levels=1:2;
  proxy_cache gitlab;

  map $http_upgrade $connection_upgrade {{
    default upgrade;
    ''      close;
  }}

  # Tokens do not go into the log.
  map $request_uri $request_uri_1 {{
    default $request_uri;
    ~(?i)^(?<start>.*)(?<key>[\\?&]private[\\-_]token)=[^&]*(?<rest>.*)$ "$start$key=[FILTERED]$rest";
  }}
  map $request_uri_1 $request_uri_2 {{
    default $request_uri_1;
    ~(?i)^(?<start>.*)(?<key>[\\?&]authenticity[\\-_]token)=[^&]*(?<rest>.*)$ "$start$key=[FILTERED]$rest";
  }}
  map $request_uri_2 $filtered_request_uri {{
    default $request_uri_2;
    ~(?i)^(?<start>.*)(?<key>[\\?&]rss[\\-_]token)=[^&]*(?<rest>.*)$ "$start$key=[FILTERED]$rest";
  }}
  map $http_referer $filtered_http_referer {{
    default $http_referer;
    ~^(?<key>.*)\\? $key;
  }}

  upstream gitlab-workhorse {{
    server unix:{paths.WORKHORSE_SOCKET};
  }}

{includes}

  {configuration.get("nginx", "custom_nginx_config", "")}
}}
"""


def _gitlab(configuration: Configuration) -> str:
    def get(key: str) -> object:
        return configuration.get("nginx", key)

    https = configuration.listen_https
    proxy_protocol = " proxy_protocol" if get("proxy_protocol") else ""
    # nginx.rb: a header given by hand beats the one that goes with the PROXY protocol.
    real_ip_header = get("real_ip_header") or ("proxy_protocol" if proxy_protocol else None)
    tls = f" ssl{' http2' if get('http2_enabled') else ''}" if https else ""
    addresses = configuration.get("nginx", "listen_addresses")
    default_host = configuration.host
    if configuration.port != (443 if https else 80):
        default_host += f":{configuration.port}"
    logs = (
        f"  access_log {paths.LOGS}/nginx/gitlab_access.log gitlab_access;\n"
        f"  error_log {paths.LOGS}/nginx/gitlab_error.log {get('error_log_level')};"
    )
    headers = "\n".join(f"  proxy_set_header {name} {value};" for name, value in proxy_headers(configuration).items())
    redirect = ""
    if https and get("redirect_http_to_https"):
        port = get("redirect_http_to_https_port")
        redirect = f"""
server {{
{_lines(f"  listen {address}:{port}{proxy_protocol};" for address in addresses)}
  server_name {configuration.host};
  server_tokens off;
  location / {{
    return 301 https://{configuration.host}:{configuration.port}$request_uri;
  }}
{headers}
  include {paths.NGINX_DIRECTORY}/conf/gitlab-health.conf;
{logs}
}}
"""
    certificate = ""
    if https:
        certificate = f"""
  ssl_certificate {configuration.certificate};
  ssl_certificate_key {configuration.certificate_key};
  ssl_protocols {get("ssl_protocols")};
  ssl_session_cache shared:SSL:10m;
"""
    real_ip = [f"  set_real_ip_from {address};" for address in configuration.get("nginx", "real_ip_trusted_addresses")]
    if real_ip_header:
        real_ip.insert(0, f"  real_ip_header {real_ip_header};")
    if get("real_ip_recursive"):
        real_ip.insert(0, f"  real_ip_recursive {get('real_ip_recursive')};")
    return f"""{redirect}
server {{
{_lines(f"  listen {address}:{configuration.listen_port}{proxy_protocol}{tls};" for address in addresses)}
  server_name {configuration.host};
  server_tokens off;
  client_max_body_size {get("client_max_body_size")};
{certificate}
{_lines(real_ip)}
  add_header Strict-Transport-Security "max-age={get("hsts_max_age")}" always;
  proxy_hide_header Referrer-Policy;
  add_header Referrer-Policy strict-origin-when-cross-origin;
{logs}

  if ($http_host = "") {{
    set $http_host_with_default "{default_host}";
  }}
  if ($http_host != "") {{
    set $http_host_with_default $http_host;
  }}

  proxy_read_timeout {get("proxy_read_timeout")};
  proxy_connect_timeout {get("proxy_connect_timeout")};
  proxy_redirect off;
  proxy_http_version 1.1;
{headers}

  location ~ ({UNBUFFERED}) {{
    proxy_cache off;
    proxy_pass http://gitlab-workhorse;
    proxy_request_buffering off;
  }}
  location ~ ^/api/v\\d {{
    proxy_cache off;
    proxy_pass http://gitlab-workhorse;
    proxy_intercept_errors off;
  }}
  include {paths.NGINX_DIRECTORY}/conf/gitlab-health.conf;
  location / {{
    proxy_cache off;
    proxy_pass http://gitlab-workhorse;
  }}

  {configuration.get("nginx", "custom_gitlab_server_config", "")}
}}
"""


def _health() -> str:
    locations = "\n".join(
        f"""location = {path} {{
  proxy_cache off;
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


def _status(configuration: Configuration) -> str:
    status = configuration.get("nginx", "status", {})
    addresses = status.get("listen_addresses") or ["*"]
    return f"""
server {{
{_lines(f"  listen {address}:{status.get('port') or 8060};" for address in addresses)}
  server_name localhost;
  location /nginx_status {{
    stub_status;
    server_tokens off;
    access_log off;
    allow 127.0.0.1;
    deny all;
  }}
}}
"""


def _registry(configuration: Configuration) -> str:
    """What appears, unasked, in front of the bundled registry."""
    port = configuration.get("registry_nginx", "listen_port") or configuration.get("gitlab_rails", "registry_port", 80)
    return f"""
server {{
  listen *:{port};
  server_name {configuration.get("gitlab_rails", "registry_host")};
  location / {{
    proxy_pass http://127.0.0.1:5000;
  }}
}}
"""


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)
