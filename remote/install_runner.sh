#!/bin/bash
# install_runner.sh VERSION: installs gitlab-runner and its helper images; a running one of another version finishes its jobs first.
# Standard input, base64: the repository file.
set -euo pipefail
version=$1
read -r repository
base64 -d <<<"$repository" >/etc/yum.repos.d/runner_gitlab-runner.repo
# The runner's package requires its helper images in exactly its own version.
install=(dnf -y --enablerepo=runner_gitlab-runner install "gitlab-runner-$version-1" "gitlab-runner-helper-images-$version-1")

# The package stops the service with SIGTERM, which ends its jobs; after SIGQUIT it takes no more and exits when they are done
# (docs/commands of gitlab-runner, "Signals").
if ! rpm -q "gitlab-runner-$version-1" && systemctl is-active --quiet gitlab-runner; then
    "${install[@]}" --downloadonly
    service=$(systemctl show --property MainPID --value gitlab-runner)
    systemctl kill --kill-who=main --signal=SIGQUIT gitlab-runner
    # Half an hour is enough for most jobs; JOBS_LIMIT in components/remote_host.py leaves the step time to install after it.
    timeout 30m tail --pid="$service" --follow /dev/null || echo "jobs that still run after half an hour are ended"
    systemctl stop gitlab-runner
    trap 'systemctl start gitlab-runner' EXIT
fi
"${install[@]}"
rpm -q "gitlab-runner-$version-1" >&3
