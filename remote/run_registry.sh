#!/bin/bash
# run_registry.sh IMAGE PORT: runs the container registry and waits until it answers. Standard input, base64, a line each:
# config.yml, the certificate of GitLab's token key.
set -euo pipefail
image=$1 port=$2
read -r config
read -r certificate
account=1000 # the image's own user (CNG gitlab-container-registry Dockerfile)

mountpoint -q /srv/registry || {
    echo "/srv/registry is not mounted on the registry's machine; images would be written to the root disk. Run pulumi up --replace"
    echo "'**::registry-mount-data'; if the volume is not attached, that step says so."
    exit 1
}
install -d -m 0700 -o "$account" -g "$account" /srv/registry/images
install -d -m 0700 -o "$account" -g "$account" /etc/docker/registry
files() { find /etc/docker/registry -type f -exec cat {} + | sha256sum; } # there is none at first
before=$(files)
umask 077
base64 -d <<<"$config" >/etc/docker/registry/config.yml
base64 -d <<<"$certificate" >/etc/docker/registry/gitlab-registry.crt
chown "$account:$account" /etc/docker/registry/config.yml /etc/docker/registry/gitlab-registry.crt
# Kept on the volume: uploads in progress survive a new container.
if [ ! -s /srv/registry/http-secret.env ]; then
    # In its own command: a failure must end the step, not leave an empty secret.
    secret=$(openssl rand -hex 32)
    echo "REGISTRY_HTTP_SECRET=$secret" >/srv/registry/http-secret.env
fi

docker image inspect "$image" >/dev/null 2>&1 || docker pull --quiet "$image"
# --mount, because --volume would create a missing folder, and images would go to the root disk.
# Read-only: the image writes nothing outside /tmp and its volume (CNG gitlab-container-registry, scripts/process-wrapper).
container=(
    --name registry --restart always --cap-drop ALL --security-opt no-new-privileges --read-only --tmpfs /tmp
    --publish "$port:$port" --env GITLAB_CONTAINER_REGISTRY_LISTEN_PORT="$port"
    --env-file /srv/registry/http-secret.env --volume /etc/docker/registry:/etc/docker/registry:ro
    --mount "type=bind,source=/srv/registry/images,target=/var/lib/registry" "$image"
)
state=$({ echo "${container[*]}" && cat /etc/docker/registry/* /srv/registry/http-secret.env; } | sha256sum | cut -d ' ' -f 1)
# The container that serves in its place while garbage is collected, left by a collection that was interrupted.
docker rm --force registry-read-only >/dev/null 2>&1 || true
running=$(docker ps --quiet --filter name='^registry$' --filter label=gitlab-stack.state="$state")
# A running one may have read files that somebody had changed.
if [ -z "$running" ] || [ "$before" != "$(files)" ]; then
    docker rm --force registry >/dev/null 2>&1 || true
    docker run --detach --label gitlab-stack.state="$state" "${container[@]}"
fi

# Not by the image's own health check, which it may lack and which Docker first runs after half a minute.
restarts() { docker inspect --format '{{.RestartCount}}' registry; }
restarted=$(restarts)
for attempt in {1..120}; do
    curl -fsS --max-time 10 --output /dev/null "http://127.0.0.1:$port/" && break
    if [ "$attempt" = 120 ] || [ $(($(restarts) - restarted)) -ge 3 ]; then
        echo "the registry does not answer on port $port; Docker has restarted it $(($(restarts) - restarted)) times. Its last lines:"
        docker logs --tail 20 registry
        exit 1
    fi
    sleep 1
done

# Images of earlier versions, by their ids: one that was pulled by its digest has no tag.
repository=${image%@*}
if [[ ${repository##*/} = *:* ]]; then repository=${repository%:*}; fi
current=$(docker image inspect --format '{{.Id}}' "$image")
docker image ls --no-trunc --quiet "$repository" | grep -vxF "$current" | xargs --no-run-if-empty docker image rm --force || true
echo "$image answers on port $port" >&3
