#!/bin/bash
# refuse_containers.sh: refuses what jobs send to the runner's machine itself, now and before Docker starts. Standard input, base64, a
# line each: the program, its service.
set -euo pipefail
read -r program
read -r service
base64 -d <<<"$program" >/usr/local/sbin/refuse-containers.new
chmod 0755 /usr/local/sbin/refuse-containers.new
mv /usr/local/sbin/refuse-containers.new /usr/local/sbin/refuse-containers
base64 -d <<<"$service" >/etc/systemd/system/refuse-containers.service
systemctl daemon-reload
systemctl enable --quiet refuse-containers
# Not by a restart of the service: Docker, which requires it, would be restarted too, and with it end the jobs.
/usr/local/sbin/refuse-containers
systemctl start refuse-containers
echo "containers do not reach this machine's own ports" >&3
