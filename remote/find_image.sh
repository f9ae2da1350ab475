#!/bin/bash
# find_image.sh IMAGE DIGEST: checks that the data volume of the registry's machine stores IMAGE (group/project:tag, without the registry's
# host): its tag points to DIGEST, and all its links and blobs are intact. Prints JSON: the check and its duration in seconds.
set -euo pipefail
image=$1 digest=$2
echo "pushed: $image $digest"
start=$(($(date +%s%N) / 1000000))
mountpoint /srv/registry
if ! shown=$(registry-tree show "$image"); then
    echo "$shown"
    echo "the pushed image $image is missing: the registry does not store images on its data volume"
    exit 1
fi
echo "$shown"
if ! grep -qF -- "-> $digest" <<<"$shown"; then
    echo "the pushed image has the digest $digest, but $image on the data volume has a different one"
    exit 1
fi
registry-tree verify "$image"
took=$(($(date +%s%N) / 1000000 - start))
printf '{"check": "volume", "state": "ok", "seconds": %d.%03d, "detail": ""}\n' $((took / 1000)) $((took % 1000)) >&3
