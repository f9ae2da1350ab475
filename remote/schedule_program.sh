#!/bin/bash
# schedule_program.sh PROGRAM UNIT CALENDAR SETTING: installs PROGRAM in /usr/local/sbin, the service UNIT that runs it, and the timer
# that starts UNIT at CALENDAR (systemd.time(7)), which SETTING holds. With an empty CALENDAR UNIT is started by hand only.
# Standard input, base64, a line each: the program, its service, its timer.
set -euo pipefail
name=$1 unit=$2 calendar=$3 setting=$4
read -r program
read -r service
read -r timer

if [ -n "$calendar" ]; then
    times=$(systemd-analyze calendar "$calendar" 2>&1) || times="$times: never"
    echo "$times"
    if grep -q ': never' <<<"$times"; then
        echo "$setting: $calendar never occurs again. Try other values with: systemd-analyze calendar '$calendar'"
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
    echo "$unit is started by hand only" >&3
    exit
fi
base64 -d <<<"$timer" >"/etc/systemd/system/$unit.timer"
systemctl daemon-reload
systemctl enable --quiet "$unit.timer"
systemctl restart "$unit.timer"
echo "$unit is started at $calendar" >&3
