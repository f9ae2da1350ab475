#!/bin/bash
# revoke_credential.sh PROJECT: ends the acceptance's deploy token. Standard input, base64: issue_credential.rb.
set -euo pipefail
read -r program
gitlab-rails runner "$(base64 -d <<<"$program")" revoke "$1"
systemctl stop gitlab-stack-revoke.timer 2>/dev/null || true
echo revoked >&3
