#!/bin/bash
# Stand-in for Docker's client, for the runner: a container is a folder, and its processes run on this machine.
#
# FAKE_DOCKER is the folder that stands in for the engine. If it contains a file `down`, the engine does not respond;
# `created`, `volumes` and `networks` record the requests for them. In `created` a null byte ends each option, and one
# more each request. Paths below /builds and /cache are replaced with the folder of the volume that is mounted there, or
# with the container's own folder.
#
# A job runs it about twenty times, so it is not in Python, which takes several times as long to start.
set -euo pipefail
cd "$FAKE_DOCKER"

offered=alpine:3.23

fail() {
    echo "$1" >&2
    exit 1
}

inspect_image() {
    if [[ $1 != registry.gitlab.com/* && $1 != "$offered" ]]; then
        fail "Error: No such image: $1"
    fi
    echo "[{\"Id\": \"sha256:0123\", \"RepoDigests\": [\"${1%%:*}@sha256:4567\"]}]"
}

pull() {
    if [[ $1 != "$offered" ]]; then
        fail "Error response from daemon: manifest for $1 not found: manifest unknown: manifest unknown"
    fi
}

create() {
    local container
    container=$(mktemp --directory container-XXXXXXXXXXXX)
    printf '%s\0' "$@" >"$container/options"
    printf '%s\0' "$@" '' >>created
    echo "$container"
}

# The folder of a mount point in a container, which is created.
place() {
    local folder=$1$2 option='' word
    while IFS= read -r -d '' word; do
        if [[ $option == --volume && $word == *":$2" ]]; then
            folder=volume/${word%":$2"}
        fi
        option=$word
    done <"$1/options"
    mkdir -p "$folder"
    echo "$PWD/$folder"
}

start() {
    local builds cache script
    builds=$(place "$1" /builds)
    cache=$(place "$1" /cache)
    script=$(sed -E "s,(^|[^[:alnum:]_.])/builds\b,\1$builds,g; s,(^|[^[:alnum:]_.])/cache\b,\1$cache,g")
    exec 3>&2 2>/dev/null # bash itself would report a process that is killed
    # shellcheck disable=SC2016 # for the inner shell
    env --ignore-environment --chdir=/ PATH="$PATH" HOME="$PWD/$1" \
        setsid bash -c 'echo $$ >"$HOME/group"; exec bash' <<<"$script" 2>&3
}

if [[ -e down ]]; then
    fail "Cannot connect to the Docker daemon at $DOCKER_HOST. Is the docker daemon running?"
fi
case "$*" in
    version) echo 20.10.24 ;;
    "image inspect "*) inspect_image "$3" ;;
    "--config "*" pull --quiet "*) pull "${!#}" ;;
    "volume "* | "network "*)
        echo "$*" >>"${1}s"
        if [[ "$1 $2" == "volume rm" ]]; then
            rm -rf "volume/${!#}"
        fi
        ;;
    "create "*) create "${@:2}" ;;
    "start --attach --interactive "*) start "$4" ;;
    "kill "*) kill -KILL -- "-$(cat "$2/group")" ;;
    "rm "*) rm -rf "${!#}" ;;
    *) fail "unknown command $*" ;;
esac
