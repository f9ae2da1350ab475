#!/bin/bash
# issue_credential.sh PROJECT: makes a deploy token that can push and pull in PROJECT alone, and sees to it that the token dies
# within twelve hours even if nobody comes back; until then a proof that failed can be repeated with it.
# Standard input, base64: issue_credential.rb. Prints JSON: a secret.
set -euo pipefail
project=$1
read -r program
program=$(base64 -d <<<"$program")
systemctl stop gitlab-stack-revoke.timer 2>/dev/null || true
credential=$(gitlab-rails runner "$program" issue "$project" | tail -n 1)
[ "${credential:0:1}" = "{" ] || {
    echo "GitLab's console printed no credential; the lines above say why"
    exit 1
}
systemd-run --quiet --collect --unit gitlab-stack-revoke --on-active 12h --timer-property AccuracySec=1s \
    /usr/bin/gitlab-rails runner "$program" revoke "$project"
printf '%s\n' "$credential" >&3
