#!/bin/bash
# run_checks.sh GROUP: runs a GROUP of checks on this machine: server, runner, registry or pipeline. Standard input, base64, a line
# each: the zipapp of programs/acceptance_checks, its task, and what else it reads. Prints JSON lines, one for each check.
set -euo pipefail
read -r program
# A file without a name, in memory only, as the process that would remove it is replaced by the program.
archive=$(mktemp --tmpdir=/dev/shm)
exec 5<>"$archive"
rm "$archive"
base64 -d <<<"$program" >&5
unset program
exec /usr/libexec/platform-python /dev/fd/5 "$1" >&3
