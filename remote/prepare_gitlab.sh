#!/bin/bash
# prepare_gitlab.sh RUNNER_NAME RUNNER_TAGS PROJECT JOBS RUNNER_TYPE: runs prepare_gitlab.rb in GitLab's console. Standard input, base64,
# one per line: that program, and the settings of a new GitLab (JSON). Prints JSON: the runner's token (a secret) and the host key of git
# over SSH.
set -euo pipefail
unprepared=/etc/gitlab/unprepared
read -r program
read -r settings
is_new=false
[ ! -e "$unprepared" ] || is_new=true
prepared=$(base64 -d <<<"$settings" | gitlab-rails runner "$(base64 -d <<<"$program")" "$@" "$is_new" | tail -n 1)
[ "${prepared:0:1}" = "{" ] || {
    echo "GitLab's console did not print a result; see the lines above"
    exit 1
}
rm -f "$unprepared"
unknown=$(/usr/libexec/platform-python -c '
import json, sys
print(", ".join(json.load(sys.stdin).get("unknownSettings", [])))
' <<<"$prepared")
[ -z "$unknown" ] || echo "Skipped gitlabSettings that this GitLab version does not have: $unknown" >&4
/usr/libexec/platform-python -c '
import json, sys
result = json.load(sys.stdin)
result.pop("unknownSettings", None)
result["gitSshHostKey"] = " ".join(open(sys.argv[1], encoding="utf-8").read().split()[:2])
print(json.dumps(result))
' /var/opt/gitlab/gitlab-sshd/ssh_host_ed25519_key.pub <<<"$prepared" >&3
