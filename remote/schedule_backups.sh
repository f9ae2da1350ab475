#!/bin/bash
# schedule_backups.sh CALENDAR FIRST: installs gitlab-backup-volume and a timer that starts it at CALENDAR (systemd.time(7)). If CALENDAR is
# empty, no backups are taken, but those that exist can be listed. If FIRST is `first` and this machine has no last backup, or it
# is not locked, it takes one now. Standard input, base64, one per line: the zipapp, its configuration, its service, its timer.
set -euo pipefail
calendar=$1 first=$2
unit=gitlab-backup-volume
read -r program
read -r configuration
read -r service
read -r timer

if [ -n "$calendar" ]; then
    times=$(systemd-analyze calendar "$calendar" 2>&1) || times="$times: never"
    echo "$times"
    if grep -q ': never' <<<"$times"; then
        echo "backupSchedule: '$calendar' never occurs again. Test a new value with: systemd-analyze calendar VALUE"
        exit 1
    fi
fi

# Not in /usr/local: RHEL's sudo does not search there (secure_path).
base64 -d <<<"$program" >/usr/bin/gitlab-backup-volume.new
chmod 0755 /usr/bin/gitlab-backup-volume.new
/usr/bin/gitlab-backup-volume.new --help
mv /usr/bin/gitlab-backup-volume.new /usr/bin/gitlab-backup-volume
install -d -m 0755 /var/lib/gitlab-stack
base64 -d <<<"$configuration" | install -D -m 0600 /dev/stdin /etc/gitlab-stack/backup.json.new
mv /etc/gitlab-stack/backup.json.new /etc/gitlab-stack/backup.json
base64 -d <<<"$service" >"/etc/systemd/system/$unit.service"
if [ -z "$calendar" ]; then
    systemctl disable --now "$unit.timer" 2>/dev/null || true
    rm -f "/etc/systemd/system/$unit.timer"
    systemctl daemon-reload
    echo "no backups are taken" >&3
    exit
fi

# It is null until the backup is locked.
locked() { grep -q '"locked_until": "' /var/lib/gitlab-stack/last-backup.json 2>/dev/null; }

if [ "$first" = first ] && ! locked; then
    # A new role or its policy is not effective at once (IAM User Guide, "Changes that I make are not always immediately visible").
    for attempt in {1..12}; do
        status=0
        gitlab-backup-volume now --in-step --reason first || status=$?
        if [ "$status" != 77 ] || [ "$attempt" = 12 ]; then break; fi
        sleep 5
    done
    if [ "$status" != 0 ]; then
        if [ "$status" = 77 ]; then
            echo "AWS does not permit it: the permissions boundary of the machine's role has to list this stack and its region (permissionsBoundary)"
        fi
        echo "the first backup of $(hostname) failed, see above. To go without backups: pulumi config set backup false"
        exit "$status"
    fi
fi

base64 -d <<<"$timer" >"/etc/systemd/system/$unit.timer"
systemctl daemon-reload
systemctl enable --quiet "$unit.timer"
systemctl restart "$unit.timer"
echo "backups are taken at $calendar" >&3
