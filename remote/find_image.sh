#!/bin/bash
# find_image.sh PROJECT DIGEST: on the registry's machine, finds the pushed image on the data volume: linked by its project, its
# bytes true to the digest. Prints JSON: the check with its seconds. Layout: registry/storage/paths.go of container-registry 4.15.2.
set -euo pipefail
project=$1 hex=${2#sha256:}
start=$(($(date +%s%N) / 1000000))
root=/srv/registry/images/docker/registry/v2
link=$root/repositories/$project/acceptance/_manifests/revisions/sha256/$hex/link
if [ "$(cat "$link")" != "sha256:$hex" ]; then
    echo "the pushed image is not linked in $link: the registry stores somewhere else than on its data volume"
    exit 1
fi
sha256sum --check <<<"$hex  $root/blobs/sha256/${hex:0:2}/$hex/data"
mountpoint /srv/registry
took=$(($(date +%s%N) / 1000000 - start))
printf '{"checks": [{"check": "image on the data volume", "seconds": %d.%03d}]}\n' $((took / 1000)) $((took % 1000)) >&3
