#!/bin/bash
# install_runner.sh VERSION BRIDGE: installs gitlab-runner and its helper images, and has Docker use the networks of its daemon.json,
# of which BRIDGE is the default bridge's. What needs a restart waits for the jobs.
set -euo pipefail
version=$1 bridge=$2
# The runner's package requires its helper images in exactly its own version.
install=(dnf -y --enablerepo=runner_gitlab-runner install "gitlab-runner-$version-1" "gitlab-runner-helper-images-$version-1")

upgrade=false restart=false
rpm -q "gitlab-runner-$version-1" || upgrade=true
# Docker reads its networks at its start only (docs of dockerd, "Configuration reload behavior").
[ "$(docker network inspect bridge --format '{{(index .IPAM.Config 0).Subnet}}')" = "$bridge" ] || restart=true

# The package stops the service with SIGTERM, which ends its jobs, and Docker's restart ends their containers; after SIGQUIT the
# runner takes no more jobs and exits when they are done (docs/commands of gitlab-runner, "Signals").
if { $upgrade || $restart; } && systemctl is-active --quiet gitlab-runner; then
    "${install[@]}" --downloadonly
    service=$(systemctl show --property MainPID --value gitlab-runner)
    systemctl kill --kill-who=main --signal=SIGQUIT gitlab-runner
    # Half an hour is enough for most jobs; JOBS_LIMIT in components/remote_host.py leaves the step time to install after it.
    timeout 30m tail --pid="$service" --follow /dev/null || echo "jobs that still run after half an hour are ended"
    systemctl stop gitlab-runner
    trap 'systemctl start gitlab-runner' EXIT
fi
if $restart; then systemctl restart docker; fi
"${install[@]}"
rpm -q "gitlab-runner-$version-1" >&3
