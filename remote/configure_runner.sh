#!/bin/bash
# configure_runner.sh NAME SYSTEM_ID URL: waits until GitLab answers at URL, writes config.toml and checks that GitLab knows the
# runner. Standard input, base64, a line each: config.toml, daemon.json of a Docker in a job. SYSTEM_ID stays the same on a replaced machine, so that GitLab keeps one record.
set -euo pipefail
name=$1 system_id=$2 url=$3
read -r config
read -r docker_in_docker

# First, because verify needs an answer, and the load balancer sends nothing to GitLab before its health checks have passed.
for attempt in {1..60}; do
    status=$(curl -s --max-time 10 --output /dev/null --write-out '%{http_code}' "$url/users/sign_in") || true
    [ "$status" = 200 ] && break
    if [ "$attempt" = 60 ]; then
        echo "$url/users/sign_in has answered $status (000: nothing) to the runner's machine for 5 minutes. Is the load balancer's"
        echo "target healthy? With your own domain: does it point to the load balancer's address?"
        exit 1
    fi
    sleep 5
done

install -d -m 0700 /etc/gitlab-runner
# Before config.toml, which may name it: Docker would make a folder of a file that is missing.
base64 -d <<<"$docker_in_docker" >/etc/gitlab-runner/docker-in-docker.json
chmod 0644 /etc/gitlab-runner/docker-in-docker.json
umask 077
printf '%s' "$system_id" >/etc/gitlab-runner/.runner_system_id
base64 -d <<<"$config" >/etc/gitlab-runner/config.toml.new
mv /etc/gitlab-runner/config.toml.new /etc/gitlab-runner/config.toml
systemctl enable gitlab-runner
# A running one reads the new file within seconds, and the system id with it (commands/multi.go and config.go of gitlab-runner);
# a restart would end its jobs.
systemctl start gitlab-runner

# The exit status of verify is 0 even if GitLab does not answer; only its output shows whether it did.
verified=$(timeout 60 gitlab-runner verify 2>&1) || true
echo "$verified"
if ! grep -q 'is valid\|is alive' <<<"$verified"; then
    echo "GitLab does not know the runner $name. If it was deleted in GitLab's admin area, replace the step prepare-gitlab"
    echo "(docs/operations.md, Rotate)."
    exit 1
fi
echo "$name verified" >&3
