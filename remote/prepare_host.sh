#!/bin/bash
# prepare_host.sh [PORT...]: waits for the first boot, installs run-step, which runs all later steps, with its lock, and finish-jobs, which
# some of them run, and opens each PORT if firewalld is active (the RHEL 8 image does not include it).
# Standard input: this script, which bash reads line by line, then the two programs in base64, one per line.
set -euo pipefail

install_program() {
    base64 -d <<<"$2" >"/usr/local/sbin/$1.new"
    chmod 0755 "/usr/local/sbin/$1.new"
    mv "/usr/local/sbin/$1.new" "/usr/local/sbin/$1"
}

main() {
    read -r run_step
    read -r finish_jobs
    timeout 30m cloud-init status --wait &>/dev/null || true # exit codes differ between builds: trust the marker file
    if [ ! -e /var/lib/gitlab-stack/first-boot-done ]; then
        echo "first boot did not finish on $(hostname); last lines of /var/log/cloud-init-output.log:" >&2
        tail -n 20 /var/log/cloud-init-output.log >&2
        exit 1
    fi
    install_program run-step "$run_step"
    install_program finish-jobs "$finish_jobs"
    # Now and at each boot. flock(2) needs no permission to write, so any user could hold a lock that others can read.
    printf 'f %s 0600\n' /run/gitlab-stack.lock /run/gitlab-stack-acceptance.lock >/etc/tmpfiles.d/gitlab-stack.conf
    systemd-tmpfiles --create gitlab-stack.conf
    if systemctl is-active --quiet firewalld; then
        for port in "$@"; do firewall-cmd --quiet --permanent --add-port="$port/tcp"; done
        firewall-cmd --quiet --reload
    fi
}

main "$@"
