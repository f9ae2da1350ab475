#!/bin/bash
# install_docker.sh VERSION: installs Docker Engine and its daemon.json. Standard input, base64, a line each: the repository
# file, daemon.json.
set -euo pipefail
version=$1
read -r repository
read -r daemon
base64 -d <<<"$repository" >/etc/yum.repos.d/docker-ce.repo
install -d -m 0755 /etc/docker
base64 -d <<<"$daemon" >/etc/docker/daemon.json.new
changed=0
cmp -s /etc/docker/daemon.json.new /etc/docker/daemon.json || changed=1
mv /etc/docker/daemon.json.new /etc/docker/daemon.json

dnf -y --enablerepo=docker-ce-stable install "docker-ce-$version-1.el8" "docker-ce-cli-$version-1.el8" containerd.io
systemctl enable --now docker
if [ "$changed" = 1 ]; then systemctl reload docker; fi
docker version --format 'Docker {{.Server.Version}}' >&3
