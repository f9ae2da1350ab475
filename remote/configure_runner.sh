#!/bin/bash
# configure_runner.sh NAME SYSTEM_ID URL: waits until GitLab responds at URL, writes config.toml, and verifies the runner NAME with GitLab.
# SYSTEM_ID stays the same when the machine is replaced, so that GitLab keeps a single runner manager. Standard input, base64, one per
# line: config.toml, and the daemon.json for Docker-in-Docker jobs.
set -euo pipefail
name=$1 system_id=$2 url=$3
read -r config
read -r docker_in_docker

# First, because verify needs a response, and the load balancer forwards nothing to GitLab until its health checks have passed.
for attempt in {1..60}; do
    status=$(curl -s --max-time 10 --output /dev/null --write-out '%{http_code}' "$url/users/sign_in") || true
    [ "$status" = 200 ] && break
    if [ "$attempt" = 60 ]; then
        echo "The runner's machine has received $status (000: no response) from $url/users/sign_in for 5 minutes. Check that the load"
        echo "balancer's target is healthy and, if you use your own domain, that it points to the load balancer's address."
        exit 1
    fi
    sleep 5
done

install -d -m 0700 /etc/gitlab-runner
# Before config.toml, which may mount it: Docker creates a directory in place of a missing file.
base64 -d <<<"$docker_in_docker" >/etc/gitlab-runner/docker-in-docker.json
chmod 0644 /etc/gitlab-runner/docker-in-docker.json
umask 077
printf '%s' "$system_id" >/etc/gitlab-runner/.runner_system_id
base64 -d <<<"$config" >/etc/gitlab-runner/config.toml.new
mv /etc/gitlab-runner/config.toml.new /etc/gitlab-runner/config.toml
systemctl enable gitlab-runner
# A running gitlab-runner reloads config.toml and the system ID within seconds (commands/multi.go and config.go of gitlab-runner);
# a restart would abort its jobs.
systemctl start gitlab-runner

# verify exits with 0 even if GitLab does not respond; only its output shows the result.
verified=$(timeout 60 gitlab-runner verify 2>&1) || true
echo "$verified"
if ! grep -q 'is valid\|is alive' <<<"$verified"; then
    echo "GitLab does not recognize the runner $name. If it was deleted in GitLab's admin area, replace the step prepare-gitlab"
    echo "(docs/operations.md, Rotate)."
    exit 1
fi
echo "runner $name verified" >&3
