#!/bin/bash
# restrict_metadata.sh: lets only root's processes connect to the metadata service, now and after every boot. Standard input, base64, one
# per line: the program and its systemd unit.
set -euo pipefail
read -r program
read -r service
base64 -d <<<"$program" >/usr/local/sbin/restrict-metadata.new
chmod 0755 /usr/local/sbin/restrict-metadata.new
mv /usr/local/sbin/restrict-metadata.new /usr/local/sbin/restrict-metadata
base64 -d <<<"$service" >/etc/systemd/system/restrict-metadata.service
systemctl daemon-reload
systemctl enable --quiet restrict-metadata
/usr/local/sbin/restrict-metadata
systemctl start restrict-metadata
echo "only root can reach the metadata service" >&3
