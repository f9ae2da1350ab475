#!/bin/bash
# prepare_gitlab.sh RUNNER_NAME RUNNER_TAGS PROJECT: runs prepare_gitlab.rb in GitLab. Standard input, base64: that program.
# Prints JSON with the runner's token, the initial root password and the host keys of git over SSH: a secret.
set -euo pipefail
read -r program
prepared=$(gitlab-rails runner "$(base64 -d <<<"$program")" "$@" | tail -n 1)
[ "${prepared:0:1}" = "{" ] || {
    echo "GitLab's console printed no result; the lines above say why"
    exit 1
}
host_key=$(cut -d ' ' -f 1,2 /var/opt/gitlab/gitlab-sshd/ssh_host_ed25519_key.pub)
printf '%s, "gitSshHostKey": "%s", "initialRootPassword": "%s"}\n' "${prepared%\}}" "$host_key" \
    "$(sed 's/[\\"]/\\&/g' /etc/gitlab/seeded-root-password)" >&3
