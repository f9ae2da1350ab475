# shellcheck shell=sh
# pull.sh: pulls the image of push.sh by digest, and verifies the digest of each blob.
. ./registry.sh

begin pull
manifest=$address/v2/$repository/manifests/$DIGEST
token=
ask 401 "$manifest" || broken "The registry returned $status instead of 401 for the image without a token."
token_for "repository:$repository:pull"
cd "$work"
ask 200 --header 'Accept: application/vnd.docker.distribution.manifest.v2+json' "$manifest" ||
    broken "The registry returned $status for the manifest."
[ "$(digest_of body)" = "$DIGEST" ] || broken "The manifest differs from the one that was pushed."
grep -o 'sha256:[0-9a-f]*' body >blobs # the configuration, then the layer
while read -r blob; do
    ask 200 --location "$address/v2/$repository/blobs/$blob" || broken "The registry returned $status for the blob $blob."
    [ "$(digest_of body)" = "$blob" ] || broken "The blob $blob differs from the one that was pushed."
done <blobs
gzip -dc body | tar -xf - fresh-bytes || broken "The image's layer cannot be unpacked."
end ""
