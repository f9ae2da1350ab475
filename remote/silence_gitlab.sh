#!/bin/bash
# silence_gitlab.sh: runs silence_gitlab.rb in GitLab's console, while Sidekiq is off. Standard input, base64: that program. Prints its JSON.
set -euo pipefail
read -r program
sidekiq=$(gitlab-ctl status sidekiq 2>&1 || true)
if [[ $sidekiq = run:* ]]; then
    echo "Sidekiq is running, so the restored GitLab may already have acted. Destroy this stack and start another drill."
    exit 1
fi
# GitLab's PostgreSQL ends a statement after 60 s (omnibus-gitlab, postgresql/attributes/default.rb), and this volume is slow at first.
silenced=$(PGOPTIONS='-c statement_timeout=0' gitlab-rails runner "$(base64 -d <<<"$program")" | tail -n 1)
[[ $silenced = '{"silentMode":true,'* ]] || {
    echo "GitLab's console did not confirm Silent Mode; see the lines above"
    exit 1
}
echo "$silenced" >&3
