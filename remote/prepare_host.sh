#!/bin/bash
# prepare_host.sh [PORT...]: first contact. Waits for the first boot, lays down run-step for all later steps, opens PORTs
# where firewalld is active (the RHEL 8 image has none). Prints the machine's SSH host key, which later steps pin.
set -euo pipefail

main() {
    timeout 30m cloud-init status --wait &>/dev/null || true # its exit codes differ between builds: trust the mark
    if [ ! -e /var/lib/gitlab-stack/first-boot-done ]; then
        echo "first boot did not finish on $(hostname); end of /var/log/cloud-init-output.log:" >&2
        tail -n 20 /var/log/cloud-init-output.log >&2
        exit 1
    fi
    write_run_step
    if systemctl is-active --quiet firewalld; then
        for port in "$@"; do firewall-cmd --quiet --permanent --add-port="$port/tcp"; done
        firewall-cmd --quiet --reload
    fi
    cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub
}

write_run_step() {
    cat >/usr/local/sbin/run-step.new <<'RUN_STEP'
#!/bin/bash
# run-step [--end] SECONDS NAME [ARGUMENT...]: runs one step of the Pulumi program, alone on this machine, and waits for it for
# SECONDS. A step that is not done by then runs on, as what installs or migrates must not be cut; with --end it is ended.
# Standard input: size of the script in bytes, a newline, the script, then what the script reads itself (secrets).
# The script's file descriptor 3 is the step's result, 4 says how far it is; all else goes to /var/log/gitlab-stack/NAME.log.
set -euo pipefail
umask 077
end=
if [ "$1" = --end ]; then end=yes && shift; fi
limit=$1 name=$2
shift 2
read -r size
script=$(head -c "$size")
install -d -m 0700 /var/log/gitlab-stack
log=/var/log/gitlab-stack/$name.log
# A cut SSH session leaves its step running; the repeated one waits here instead of running beside it.
exec 9>/run/gitlab-stack.lock
if ! flock --wait "$limit" 9; then
    echo "$name: another step has kept $(hostname) busy for $limit s; see: fuser -v /run/gitlab-stack.lock" >&2
    exit 75
fi
status=0
if [ -n "$end" ]; then
    timeout --kill-after=30 "$limit" bash -c "umask 022; $script" "$name" "$@" 3>&1 4>&2 >"$log" 2>&1 9>&- || status=$?
else
    # A script that held the session's own output would keep the session open: it writes to files. They have no names any
    # more and are in memory only, as a result may be a secret.
    result=$(mktemp --tmpdir=/dev/shm) progress=$(mktemp --tmpdir=/dev/shm)
    exec 5>"$progress" 7>"$result"
    exec 6<"$progress" 8<"$result"
    rm "$result" "$progress"
    # The shell around the script holds the lock until the script has ended; nothing that the script leaves behind does.
    (bash -c "umask 022; $script" "$name" "$@" 3>&7 4>&5 5>&- 6<&- 7>&- 8<&- 9>&- || exit "$?") <&0 >"$log" 2>&1 &
    worker=$!
    if ! timeout "$limit" tail --sleep-interval=0.1 --pid="$worker" --lines=+1 --follow <&6 >&2 9>&-; then
        echo "$name still runs on $(hostname) after $limit s and is not ended. Run pulumi up again: it waits for it." >&2
        echo "How far it is: tail -f $log. Last lines:" >&2
        tail -n 20 "$log" >&2
        exit 75
    fi
    wait "$worker" || status=$?
    [ "$status" -ne 0 ] || cat <&8
fi
if [ "$status" -ne 0 ]; then
    [ "$status" -ne 124 ] || echo "$name did not finish within $limit s on $(hostname)" >&2
    echo "$name failed on $(hostname); end of $log:" >&2
    tail -n 20 "$log" >&2
    exit "$status"
fi
RUN_STEP
    chmod 0755 /usr/local/sbin/run-step.new
    mv /usr/local/sbin/run-step.new /usr/local/sbin/run-step
}

main "$@" </dev/null
