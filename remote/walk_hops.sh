#!/bin/bash
# walk_hops.sh VIEW: walks the hops that this machine sees as VIEW: server, runner, registry or pipeline. Standard input,
# base64, a line each: programs/hops.py, its task, and what else it reads. Prints JSON lines, one for each hop.
set -euo pipefail
read -r program
program=$(base64 -d <<<"$program")
exec /usr/libexec/platform-python -c "$program" "$1" >&3
