#!/bin/bash
# schedule_program.sh PROGRAM UNIT CALENDAR SETTING: installs PROGRAM in /usr/local/sbin, the service UNIT that runs it, and a timer that
# starts UNIT at CALENDAR (systemd.time(7)), the value of SETTING. If CALENDAR is empty, UNIT is only started manually.
# Standard input, base64, one per line: the program, its service, its timer.
set -euo pipefail
name=$1 unit=$2 calendar=$3 setting=$4
read -r program
read -r service
read -r timer

if [ -n "$calendar" ]; then
    times=$(systemd-analyze calendar "$calendar" 2>&1) || times="$times: never"
    echo "$times"
    if grep -q ': never' <<<"$times"; then
        echo "$setting: '$calendar' never occurs again. Test a new value with: systemd-analyze calendar VALUE"
        exit 1
    fi
fi

base64 -d <<<"$program" >"/usr/local/sbin/$name.new"
chmod 0755 "/usr/local/sbin/$name.new"
mv "/usr/local/sbin/$name.new" "/usr/local/sbin/$name"
base64 -d <<<"$service" >"/etc/systemd/system/$unit.service"
if [ -z "$calendar" ]; then
    systemctl disable --now "$unit.timer" 2>/dev/null || true
    rm -f "/etc/systemd/system/$unit.timer"
    systemctl daemon-reload
    echo "$unit is not scheduled; start it manually" >&3
    exit
fi
base64 -d <<<"$timer" >"/etc/systemd/system/$unit.timer.new"
if ! cmp --silent "/etc/systemd/system/$unit.timer.new" "/etc/systemd/system/$unit.timer"; then
    # If it is persistent and CALENDAR has occurred since its last run, another timer would start UNIT at once (systemd issue 16732).
    systemctl stop "$unit.timer" 2>/dev/null || true
    install -D -m 0644 /dev/null "/var/lib/systemd/timers/stamp-$unit.timer"
fi
mv "/etc/systemd/system/$unit.timer.new" "/etc/systemd/system/$unit.timer"
systemctl daemon-reload
systemctl enable --quiet "$unit.timer"
systemctl restart "$unit.timer"
echo "$unit is scheduled at $calendar" >&3
