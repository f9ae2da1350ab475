#!/bin/bash
# install_runner.sh VERSION BRIDGE INSECURE: installs gitlab-runner and its helper images, and makes Docker use its daemon.json completely.
# BRIDGE is the subnet of the default bridge there, INSECURE the registry that uses plain HTTP, or empty. Waits for running jobs before it
# restarts a service.
set -euo pipefail
version=$1 bridge=$2 insecure=$3
# The gitlab-runner package requires helper images of exactly the same version.
install=(dnf -y --enablerepo=runner_gitlab-runner install "gitlab-runner-$version-1" "gitlab-runner-helper-images-$version-1")

upgrade=false restart=false
rpm -q "gitlab-runner-$version-1" || upgrade=true
# Docker reads its network settings only at startup (docs of dockerd, "Configuration reload behavior").
[ "$(docker network inspect bridge --format '{{(index .IPAM.Config 0).Subnet}}')" = "$bridge" ] || restart=true
# Docker keeps its insecure registries on a reload if the new daemon.json has none (moby, daemon/reload.go, reloadRegistryConfig).
loaded=$(docker info --format '{{range .RegistryConfig.IndexConfigs}}{{if not .Secure}}{{.Name}}{{end}}{{end}}') || true
[ "$loaded" = "$insecure" ] || restart=true

# The package stops the service with SIGTERM, which aborts its jobs, and a restart of Docker stops their containers. On SIGQUIT the
# runner accepts no more jobs and exits when the running ones are done (docs/commands of gitlab-runner, "Signals").
if { $upgrade || $restart; } && systemctl is-active --quiet gitlab-runner; then
    "${install[@]}" --downloadonly
    service=$(systemctl show --property MainPID --value gitlab-runner)
    systemctl kill --kill-who=main --signal=SIGQUIT gitlab-runner
    # Half an hour is enough for most jobs; JOBS_LIMIT in components/remote_host.py leaves enough time to install afterwards.
    timeout 30m tail --pid="$service" --follow /dev/null || echo "jobs still running after 30 minutes are aborted"
    systemctl stop gitlab-runner
    trap 'systemctl start gitlab-runner' EXIT
fi
if $restart; then systemctl restart docker; fi
"${install[@]}"
rpm -q "gitlab-runner-$version-1" >&3
