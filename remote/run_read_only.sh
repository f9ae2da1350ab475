#!/bin/bash
# run_read_only.sh SECONDS [ARGUMENT...]: runs a read-only step for at most SECONDS. Several can run at the same time; while run-step
# is running a step, the exit status is 75. Input and result are those of run-step; other output goes to standard error.
set -euo pipefail
umask 077
limit=$1
shift
exec 9>/run/gitlab-stack.lock
flock --shared --nonblock 9 || exit 75
read -r size
script=$(head -c "$size")
exec timeout --kill-after=5 "$limit" bash -c "umask 022; $script" "$0" "$@" 3>&1 4>&2 >&2
