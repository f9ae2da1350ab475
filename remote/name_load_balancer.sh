#!/bin/bash
# name_load_balancer.sh ADDRESS DOMAIN: makes DOMAIN the name of ADDRESS on this machine, regardless of DNS.
set -euo pipefail
others=$(sed '/# load balancer of gitlab-stack$/d' /etc/hosts)
printf '%s\n%s %s # load balancer of gitlab-stack\n' "$others" "$1" "$2" >/etc/hosts
echo "$2 is $1" >&3
