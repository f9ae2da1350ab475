#!/bin/bash
# refuse_containers.sh: blocks connections from jobs to the runner's machine itself, now and before every start of Docker. Standard input,
# base64, one per line: the program and its systemd unit.
set -euo pipefail
read -r program
read -r service
base64 -d <<<"$program" >/usr/local/sbin/refuse-containers.new
chmod 0755 /usr/local/sbin/refuse-containers.new
mv /usr/local/sbin/refuse-containers.new /usr/local/sbin/refuse-containers
base64 -d <<<"$service" >/etc/systemd/system/refuse-containers.service
systemctl daemon-reload
systemctl enable --quiet refuse-containers
# Restarting the service would also restart Docker, which requires it, and abort the jobs.
/usr/local/sbin/refuse-containers
systemctl start refuse-containers
echo "containers cannot connect to this machine's own ports" >&3
