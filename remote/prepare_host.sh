#!/bin/bash
# prepare_host.sh [PORT...]: waits for the first boot, installs run-step, which runs all later steps, and opens PORTs where
# firewalld is active (the RHEL 8 image has none).
# Standard input: this script, which bash reads a line at a time, then run-step in base64.
set -euo pipefail

main() {
    read -r run_step
    timeout 30m cloud-init status --wait &>/dev/null || true # its exit codes differ between builds: trust the mark
    if [ ! -e /var/lib/gitlab-stack/first-boot-done ]; then
        echo "first boot did not finish on $(hostname); end of /var/log/cloud-init-output.log:" >&2
        tail -n 20 /var/log/cloud-init-output.log >&2
        exit 1
    fi
    base64 -d <<<"$run_step" >/usr/local/sbin/run-step.new
    chmod 0755 /usr/local/sbin/run-step.new
    mv /usr/local/sbin/run-step.new /usr/local/sbin/run-step
    if systemctl is-active --quiet firewalld; then
        for port in "$@"; do firewall-cmd --quiet --permanent --add-port="$port/tcp"; done
        firewall-cmd --quiet --reload
    fi
}

main "$@"
