#!/bin/bash
# install_docker.sh VERSION CONTAINERD: installs Docker Engine VERSION with its daemon.json, and containerd.io CONTAINERD. A later patch of
# the same minor version of containerd.io, installed by install-security-updates, is kept. Waits for running jobs before it upgrades Docker.
# Standard input, base64: daemon.json.
set -euo pipefail
version=$1 containerd=$2
read -r daemon
install -d -m 0755 /etc/docker
base64 -d <<<"$daemon" >/etc/docker/daemon.json.new
changed=0
cmp -s /etc/docker/daemon.json.new /etc/docker/daemon.json || changed=1
mv /etc/docker/daemon.json.new /etc/docker/daemon.json

present=$(rpm -q --queryformat '%{VERSION}' containerd.io) || present=$containerd
newest=$(printf '%s\n' "$containerd" "$present" | sort -V | tail -n 1)
if [ "${present%.*}" = "${containerd%.*}" ]; then containerd=$newest; fi
# A version of containerd.io can have several package releases, each with a different runc.
install=(dnf -y --enablerepo=docker-ce-stable install "docker-ce-$version-1.el8" "docker-ce-cli-$version-1.el8" "containerd.io-$containerd-*.el8")

# An upgrade restarts Docker (%postun of docker-ce.spec), which stops the containers of jobs. Containers survive a restart of containerd
# (KillMode=process in its unit).
if ! rpm -q "docker-ce-$version-1.el8" && systemctl is-active --quiet gitlab-runner; then
    "${install[@]}" --downloadonly
    trap 'systemctl start gitlab-runner' EXIT
    /usr/local/sbin/finish-jobs 30m --abort
fi
"${install[@]}"
systemctl enable --now docker
if [ "$changed" = 1 ]; then systemctl reload docker; fi
docker version --format 'Docker {{.Server.Version}}' >&3
