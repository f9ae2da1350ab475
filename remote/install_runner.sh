#!/bin/bash
# install_runner.sh VERSION: installs gitlab-runner and its helper images. Standard input, base64: the repository file.
set -euo pipefail
version=$1
read -r repository
base64 -d <<<"$repository" >/etc/yum.repos.d/runner_gitlab-runner.repo
# The runner's package demands its helper images in exactly its own version.
dnf -y --enablerepo=runner_gitlab-runner install "gitlab-runner-$version-1" "gitlab-runner-helper-images-$version-1"
rpm -q "gitlab-runner-$version-1" >&3
