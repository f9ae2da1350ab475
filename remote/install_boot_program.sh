#!/bin/bash
# install_boot_program.sh NAME [ARGUMENT...]: installs the program NAME in /usr/local/sbin and its systemd unit, which runs it at every boot,
# and runs it now with these arguments. Standard input, base64, one per line: the program and its unit.
set -euo pipefail
name=$1
shift
read -r program
read -r service
base64 -d <<<"$program" >"/usr/local/sbin/$name.new"
chmod 0755 "/usr/local/sbin/$name.new"
mv "/usr/local/sbin/$name.new" "/usr/local/sbin/$name"
base64 -d <<<"$service" >"/etc/systemd/system/$name.service"
systemctl daemon-reload
systemctl enable --quiet "$name"
# Restarting the service would also restart what requires it: Docker, and with it the jobs, or GitLab.
"/usr/local/sbin/$name" "$@"
systemctl start "$name"
echo "$name has run, and runs at every boot" >&3
