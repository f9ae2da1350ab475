# shellcheck shell=sh
# pull.sh: pulls by digest what push.sh has pushed, and compares every byte of it with its digest.
. ./registry.sh

begin pull
manifest=$address/v2/$repository/manifests/$DIGEST
token=
ask 401 "$manifest" || broken "Without a token the image is answered with $status."
token_for "repository:$repository:pull"
cd "$work"
ask 200 --header 'Accept: application/vnd.docker.distribution.manifest.v2+json' "$manifest" ||
    broken "The manifest is answered with $status."
[ "$(digest_of body)" = "$DIGEST" ] || broken "The manifest is another than was pushed."
grep -o 'sha256:[0-9a-f]*' body >blobs # the configuration, then the layer
while read -r blob; do
    ask 200 --location "$address/v2/$repository/blobs/$blob" || broken "The blob $blob is answered with $status."
    [ "$(digest_of body)" = "$blob" ] || broken "The blob $blob is another than was pushed."
done <blobs
gzip -dc body | tar -xf - fresh-bytes || broken "The image's layer cannot be unpacked."
end ""
