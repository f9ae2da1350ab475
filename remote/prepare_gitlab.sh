#!/bin/bash
# prepare_gitlab.sh RUNNER_NAME RUNNER_TAGS PROJECT JOBS: runs prepare_gitlab.rb in GitLab. Standard input, base64: that program.
# Prints JSON with the runner's token, a secret, and the host key of git over SSH.
set -euo pipefail
unprepared=/etc/gitlab/unprepared
read -r program
is_new=false
[ ! -e "$unprepared" ] || is_new=true
prepared=$(gitlab-rails runner "$(base64 -d <<<"$program")" "$@" "$is_new" | tail -n 1)
[ "${prepared:0:1}" = "{" ] || {
    echo "GitLab's console printed no result; the lines above say why"
    exit 1
}
rm -f "$unprepared"
/usr/libexec/platform-python -c '
import json, sys
result = json.load(sys.stdin)
result["gitSshHostKey"] = " ".join(open(sys.argv[1], encoding="utf-8").read().split()[:2])
print(json.dumps(result))
' /var/opt/gitlab/gitlab-sshd/ssh_host_ed25519_key.pub <<<"$prepared" >&3
