#!/bin/bash
# restrict_egress.sh ARGUMENT...: runs restrict-egress with these arguments, now and after every boot, before GitLab starts. Standard input,
# base64, one per line: the program and its systemd unit.
set -euo pipefail
read -r program
read -r service
base64 -d <<<"$program" >/usr/local/sbin/restrict-egress.new
chmod 0755 /usr/local/sbin/restrict-egress.new
mv /usr/local/sbin/restrict-egress.new /usr/local/sbin/restrict-egress
base64 -d <<<"$service" >/etc/systemd/system/restrict-egress.service
systemctl daemon-reload
systemctl enable --quiet restrict-egress
# Restarting the service would also restart GitLab, which requires it.
/usr/local/sbin/restrict-egress "$@"
systemctl start restrict-egress
echo "GitLab's users reach only this stack" >&3
