# shellcheck shell=sh
# push.sh: builds an image of random bytes with standard shell tools, and pushes it with the job token.
. ./registry.sh

begin job-token
token_for "repository:$repository:pull,push"
ask 200 "$address/v2/" || broken "The registry returned $status for the job token."
end ""

begin push
cd "$work"
head -c 4096 /dev/urandom | base64 >fresh-bytes
tar -cf layer.tar fresh-bytes
gzip -c layer.tar >layer
printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
    "$(digest_of layer.tar)" >config

for blob in layer config; do
    ask 202 --request POST "$address/v2/$repository/blobs/uploads/" || broken "The registry returned $status for a new upload."
    place=$(header location)
    case $place in
        http*) ;;
        *) place=$address$place ;;
    esac
    case $place in
        *\?*) place="$place&" ;;
        *) place="$place?" ;;
    esac
    ask 201 --request PUT --header 'Content-Type: application/octet-stream' --data-binary "@$blob" \
        "${place}digest=$(digest_of $blob)" || broken "The registry returned $status for the image's $blob: $(head -c 200 body)"
done

described() { # TYPE FILE
    printf '{"mediaType":"application/vnd.docker.%s","size":%d,"digest":"%s"}' "$1" "$(wc -c <"$2")" "$(digest_of "$2")"
}
printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}' \
    application/vnd.docker.distribution.manifest.v2+json "$(described container.image.v1+json config)" \
    "$(described image.rootfs.diff.tar.gzip layer)" >manifest
ask 201 --request PUT --header 'Content-Type: application/vnd.docker.distribution.manifest.v2+json' \
    --data-binary @manifest "$address/v2/$repository/manifests/$CI_PIPELINE_ID" ||
    broken "The registry returned $status for the manifest: $(head -c 200 body)"
digest=$(digest_of manifest)
[ "$(header docker-content-digest)" = "$digest" ] || broken "The registry's digest of the manifest differs from $digest."

pushed=$repository:$CI_PIPELINE_ID@$digest
repository=$CI_PROJECT_PATH-of-others/acceptance
took=$(($(now) - begun))
token_for "repository:$repository:pull,push"
ask 401 --request POST "$address/v2/$repository/blobs/uploads/" ||
    broken "The registry returned $status instead of 401 for a push to another project."
begun=$(($(now) - took))
echo "DIGEST=$digest" >"$CI_PROJECT_DIR/pushed.env"
end "$pushed"
