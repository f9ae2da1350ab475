#!/bin/bash
# find_image.sh IMAGE DIGEST: on the registry's machine, shows IMAGE (group/project:tag, without the registry's host) on the data
# volume: DIGEST is what its tag leads to, and every link and byte of it is sound. Prints JSON: the check with its seconds.
set -euo pipefail
image=$1 digest=$2
echo "pushed: $image $digest"
start=$(($(date +%s%N) / 1000000))
mountpoint /srv/registry
if ! shown=$(registry-tree show "$image"); then
    echo "$shown"
    echo "the pushed image $image is not there: the registry stores somewhere else than on its data volume"
    exit 1
fi
echo "$shown"
if ! grep -qF -- "-> $digest" <<<"$shown"; then
    echo "the pushed image has $digest, but on the data volume $image is another one"
    exit 1
fi
registry-tree verify "$image"
took=$(($(date +%s%N) / 1000000 - start))
printf '{"check": "volume", "state": "ok", "seconds": %d.%03d, "detail": ""}\n' $((took / 1000)) $((took % 1000)) >&3
