#!/bin/bash
# trust_authority.sh [FOLDER...]: makes this machine trust the certificates of the setting certificateAuthority in addition to RHEL's, and no
# longer those of an earlier value. Each FOLDER gets a copy. Standard input, base64, one per line: the certificates; none if it is not set.
set -euo pipefail
loaded=/var/lib/gitlab-stack/trusted-authority # what the running services have loaded
wanted=$(cat)
before=$(cat "$loaded" 2>/dev/null) || true

for folder in /etc/pki/ca-trust/source/anchors "$@"; do
    install -d -m 0755 "$folder"
    rm -f "$folder"/gitlab-stack-*.crt
    count=0
    while read -r certificate; do
        if [ -z "$certificate" ]; then continue; fi
        count=$((count + 1))
        # A file each: GitLab skips one with several certificates (c_rehash; omnibus-gitlab 17.10.4, certificate_helper.rb).
        base64 -d <<<"$certificate" >"$folder/gitlab-stack-$count.crt"
    done <<<"$wanted"
done
if [ -n "$wanted$before" ]; then update-ca-trust extract; fi

# Docker and gitlab-runner load the machine's certificates once per process (crypto/x509 of Go, root.go).
if [ "$wanted" != "$before" ]; then
    if systemctl is-active --quiet gitlab-runner; then
        trap 'systemctl start gitlab-runner' EXIT
        /usr/local/sbin/finish-jobs 30m --abort
    fi
    if systemctl is-active --quiet docker; then systemctl restart docker; fi
    printf '%s\n' "$wanted" >"$loaded"
fi
echo "trusts $count certificates of certificateAuthority" >&3
