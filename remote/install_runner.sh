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

# The package stops the service, which aborts its jobs, and a restart of Docker stops their containers.
if { $upgrade || $restart; } && systemctl is-active --quiet gitlab-runner; then
    "${install[@]}" --downloadonly
    trap 'systemctl start gitlab-runner' EXIT
    # Half an hour is enough for most jobs; JOBS_LIMIT in components/remote_host.py leaves enough time to install afterwards.
    /usr/local/sbin/finish-jobs 30m --abort
fi
if $restart; then systemctl restart docker; fi
"${install[@]}"
rpm -q "gitlab-runner-$version-1" >&3
