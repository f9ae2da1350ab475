#!/bin/bash
# run_checks.sh GROUP: runs one GROUP of checks on this machine: server, runner, registry or pipeline. Standard input, base64, one per
# line: the zipapp of programs/acceptance_checks, its task, and its further input. Prints one line of JSON for each check.
set -euo pipefail
read -r program
# Unlinked while it is open, because exec below replaces the shell that could delete it later.
archive=$(mktemp --tmpdir=/dev/shm)
exec 5<>"$archive"
rm "$archive"
base64 -d <<<"$program" >&5
unset program
exec /usr/libexec/platform-python /dev/fd/5 "$1" >&3
