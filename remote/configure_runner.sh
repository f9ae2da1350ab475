#!/bin/bash
# configure_runner.sh NAME SYSTEM_ID: lays down config.toml and waits until GitLab knows the runner. Standard input, base64:
# config.toml. SYSTEM_ID stays the same on a replaced machine, so that GitLab keeps one record of this runner.
set -euo pipefail
name=$1 system_id=$2
read -r config
install -d -m 0700 /etc/gitlab-runner
umask 077
if [ "$(cat /etc/gitlab-runner/.runner_system_id 2>/dev/null)" != "$system_id" ]; then
    printf '%s' "$system_id" >/etc/gitlab-runner/.runner_system_id
    systemctl try-restart gitlab-runner
fi
base64 -d <<<"$config" >/etc/gitlab-runner/config.toml.new
# The service reads a changed file by itself within seconds.
if cmp -s /etc/gitlab-runner/config.toml.new /etc/gitlab-runner/config.toml; then
    rm /etc/gitlab-runner/config.toml.new
else
    mv /etc/gitlab-runner/config.toml.new /etc/gitlab-runner/config.toml
fi
systemctl enable --now gitlab-runner

# The balancer sends nothing to GitLab before its health checks have passed.
for attempt in {1..60}; do
    timeout 30 gitlab-runner verify && break
    if [ "$attempt" = 60 ]; then
        echo "GitLab did not accept the runner within 5 minutes. Is the web address reachable from this machine? Was the"
        echo "runner deleted in GitLab's admin area? Then run: pulumi up --target-replace of the server's prepare-gitlab step"
        exit 1
    fi
    sleep 5
done
gitlab-runner list 2>&1 | grep -F "$name"
echo "$name verified" >&3
