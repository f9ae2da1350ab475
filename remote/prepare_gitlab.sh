#!/bin/bash
# prepare_gitlab.sh RUNNER_NAME RUNNER_TAGS PROJECT JOBS: runs prepare_gitlab.rb in GitLab. Standard input, base64: that program.
# Prints JSON with the runner's token, the initial root password and the host key of git over SSH: a secret.
set -euo pipefail
read -r program
prepared=$(gitlab-rails runner "$(base64 -d <<<"$program")" "$@" | tail -n 1)
[ "${prepared:0:1}" = "{" ] || {
    echo "GitLab's console printed no result; the lines above say why"
    exit 1
}
# Added here, because GitLab's console runs as git and cannot read root's file.
/usr/libexec/platform-python -c '
import json, sys
result = json.load(sys.stdin)
host_key, password = (open(path, encoding="utf-8").read() for path in sys.argv[1:])
result["gitSshHostKey"] = " ".join(host_key.split()[:2])
result["initialRootPassword"] = password.rstrip("\n")
print(json.dumps(result))
' /var/opt/gitlab/gitlab-sshd/ssh_host_ed25519_key.pub /etc/gitlab/seeded-root-password <<<"$prepared" >&3
