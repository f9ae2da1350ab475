#!/bin/bash
# run_registry.sh IMAGE PORT: runs the container registry and waits until it responds. Standard input, base64, one per line:
# config.yml, and the certificate of GitLab's token key.
set -euo pipefail
image=$1 port=$2
read -r config
read -r certificate
account=1000 # the image's own user (CNG gitlab-container-registry Dockerfile)

mountpoint -q /srv/registry || {
    echo "/srv/registry is not mounted on the registry's machine; images would be written to the root disk. Run pulumi up --replace"
    echo "'**::registry-mount-data'; if the volume is not attached, that step reports it."
    exit 1
}
install -d -m 0700 -o "$account" -g "$account" /srv/registry/images
install -d -m 0700 -o "$account" -g "$account" /etc/docker/registry

exists() { docker inspect --type container "$1" >/dev/null 2>&1; }

# Not the image's own health check: it may have none, and Docker first runs it after 30 seconds.
restarts() { docker inspect --format '{{.RestartCount}}' registry; }
responds() {
    local restarted
    restarted=$(restarts)
    for _ in {1..120}; do
        if curl -fsS --max-time 10 --output /dev/null "http://127.0.0.1:$port/"; then return 0; fi
        if [ $(($(restarts) - restarted)) -ge 3 ]; then break; fi
        sleep 1
    done
    return 1
}

former() { # stops the running container and keeps it
    docker stop -t 10 registry
    docker update --restart no registry
    docker rename registry registry-former
}
again() { # the kept container is the registry again
    if exists registry; then docker rm --force registry; fi
    docker rename registry-former registry
    docker update --restart always registry
    docker start registry
}

# Pulumi keeps the former inputs of a step that fails: if the setting is taken back, the step does not run again.
kept=/etc/docker/registry-kept
former_files() {
    find /etc/docker/registry -mindepth 1 -delete
    cp --archive "$kept/." /etc/docker/registry
}

# Undo an interrupted run of this step.
if [ -d "$kept" ]; then former_files; fi
if exists registry-former; then again; fi

rm -rf "$kept" "$kept.new"
cp --archive /etc/docker/registry "$kept.new"
mv "$kept.new" "$kept"
restore_former() { # STATUS
    if [ "$1" != 0 ]; then
        former_files
        if exists registry-former && again >/dev/null && responds; then
            echo "The registry did not work with the new settings, so the former one runs again. Correct them, then run pulumi up again."
        fi
    fi
    rm -rf "$kept"
}
trap 'restore_former $?' EXIT

files() { find /etc/docker/registry -type f -exec cat {} + | sha256sum; } # the folder is empty at first
before=$(files)
umask 077
base64 -d <<<"$config" >/etc/docker/registry/config.yml
base64 -d <<<"$certificate" >/etc/docker/registry/gitlab-registry.crt
chown "$account:$account" /etc/docker/registry/config.yml /etc/docker/registry/gitlab-registry.crt
# Stored on the volume, so that uploads in progress survive a new container.
if [ ! -s /srv/registry/http-secret.env ]; then
    # A separate command, so that a failure ends the step instead of leaving an empty secret.
    secret=$(openssl rand -hex 32)
    echo "REGISTRY_HTTP_SECRET=$secret" >/srv/registry/http-secret.env
fi

docker image inspect "$image" >/dev/null 2>&1 || docker pull --quiet "$image"
# --mount, because --volume would create a missing folder and store images on the root disk.
# --read-only, because the image only writes to /tmp and its volume (CNG gitlab-container-registry, scripts/process-wrapper).
container=(
    --name registry --restart always --cap-drop ALL --security-opt no-new-privileges --read-only --tmpfs /tmp
    --publish "$port:$port" --env GITLAB_CONTAINER_REGISTRY_LISTEN_PORT="$port"
    --env-file /srv/registry/http-secret.env --volume /etc/docker/registry:/etc/docker/registry:ro
    --mount "type=bind,source=/srv/registry/images,target=/var/lib/registry" "$image"
)
state=$({ echo "${container[*]}" && cat /etc/docker/registry/* /srv/registry/http-secret.env; } | sha256sum | cut -d ' ' -f 1)
# The read-only container that serves during garbage collection; an interrupted collection can leave it behind.
docker rm --force registry-read-only >/dev/null 2>&1 || true
running=$(docker ps --quiet --filter name='^registry$' --filter label=gitlab-stack.state="$state")
# The running container may have been started with files that were edited manually.
if [ -z "$running" ] || [ "$before" != "$(files)" ]; then
    if exists registry; then former >/dev/null; fi
    docker run --detach --label gitlab-stack.state="$state" "${container[@]}"
fi

if ! responds; then
    echo "the registry does not respond on port $port; Docker has restarted it $(restarts) times. Last log lines:"
    docker logs --tail 20 registry
    exit 1
fi
if exists registry-former; then docker rm --force registry-former >/dev/null; fi

# GitLab's registry marks its files when it starts, but from 4.20.0 on not those of an empty store (its changelog), and registry-tree
# knows by the mark how its garbage collection works. The registry of distribution has no database.
if [ -n "$(docker exec registry /bin/registry database --help 2>/dev/null)" ]; then
    docker exec registry sh -c 'mkdir -p "$1" && touch "$1/filesystem-in-use"' sh /var/lib/registry/docker/registry/lockfiles
fi

# Remove images of earlier versions, by ID because an image that was pulled by digest has no tag.
repository=${image%@*}
if [[ ${repository##*/} = *:* ]]; then repository=${repository%:*}; fi
current=$(docker image inspect --format '{{.Id}}' "$image")
docker image ls --no-trunc --quiet "$repository" | grep -vxF "$current" | xargs --no-run-if-empty docker image rm --force || true
echo "$image responds on port $port" >&3
