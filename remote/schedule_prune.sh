#!/bin/bash
# schedule_prune.sh: has Docker rid of what jobs left in it, every night. Standard input, base64: prune-docker.
set -euo pipefail
read -r program
base64 -d <<<"$program" >/usr/local/sbin/prune-docker.new
chmod 0755 /usr/local/sbin/prune-docker.new
mv /usr/local/sbin/prune-docker.new /usr/local/sbin/prune-docker
cat >/etc/systemd/system/docker-prune.service <<'UNIT'
[Unit]
Description=Remove what jobs left in Docker
After=docker.service
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/prune-docker 70
UNIT
# Not at midnight, when nightly pipelines begin.
cat >/etc/systemd/system/docker-prune.timer <<'UNIT'
[Unit]
Description=Remove what jobs left in Docker, every night
[Timer]
OnCalendar=03:17
RandomizedDelaySec=30min
[Install]
WantedBy=timers.target
UNIT
systemctl daemon-reload
systemctl enable --quiet docker-prune.timer
systemctl restart docker-prune.timer
echo "Docker is pruned every night" >&3
