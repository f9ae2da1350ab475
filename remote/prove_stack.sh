#!/bin/bash
# prove_stack.sh URL HOST REGISTRY_PORT PROJECT SSH_HOST_KEY: on the runner's machine and through the balancer, does what the
# stack was made for. Standard input, base64, a line each: user name and token of a credential for PROJECT.
# Prints JSON: the checks with their seconds, and the digest of the pushed image.
set -euo pipefail
url=$1 host=$2 registry=$2:$3 project=$4 host_key=$5
read -r username
read -r token
username=$(base64 -d <<<"$username")
token=$(base64 -d <<<"$token")
image=$registry/$project/acceptance:latest

work=$(mktemp -d /var/tmp/prove-stack.XXXXXX)
export DOCKER_CONFIG=$work/docker
trap 'docker rm --force acceptance-proof; docker image rm --force "$image"; rm -rf "$work"' EXIT

checks=()
check() { # NAME REMEDY FUNCTION...
    local name=$1 remedy=$2 start=$(($(date +%s%N) / 1000000)) took
    shift 2
    echo "== $name"
    if ! "$@"; then
        echo "The stack is up but does not work: $name failed. $remedy"
        exit 1
    fi
    took=$(($(date +%s%N) / 1000000 - start))
    checks+=("$(printf '{"check": "%s", "seconds": %d.%03d}' "$name" $((took / 1000)) $((took % 1000)))")
}

await_status() { # URL STATUS SECONDS
    local deadline=$((SECONDS + $3)) status
    until status=$(curl -s --max-time 10 --output /dev/null --write-out '%{http_code}' "$1"); [ "$status" = "$2" ]; do
        echo "$1 answers $status instead of $2"
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 3
    done
}

git_over_ssh() {
    local deadline=$((SECONDS + 120)) scan
    until scan=$(ssh-keyscan -T 10 -t ed25519 "$host" 2>&1) && grep -q '^[^#]' <<<"$scan"; do
        [ "$SECONDS" -lt "$deadline" ] || break
        sleep 3
    done
    echo "$scan"
    grep -q 'SSH-2.0-GitLab-SSHD' <<<"$scan" && grep -qF " $host_key" <<<"$scan"
}

runner_known() {
    local verified
    verified=$(timeout 60 gitlab-runner verify 2>&1)
    echo "$verified"
    grep -q 'is valid\|is alive' <<<"$verified"
}

docker_login() { docker login --username "$1" --password-stdin "$registry"; }

refused() { # COMMAND...: it fails, and for want of rights
    local answer
    if answer=$("$@" 2>&1); then
        echo "$answer"
        return 1
    fi
    echo "$answer"
    grep -qiE 'denied|unauthorized' <<<"$answer"
}

wrong_credential_refused() { refused docker_login "$username" <<<"not-$token"; }

login() { docker_login "$username" <<<"$token"; }

push() {
    local pushed
    head -c 65536 /dev/urandom >"$work/fresh-bytes"
    tar --create --directory "$work" fresh-bytes | docker import - "$image" || return 1
    pushed=$(docker push "$image") || { echo "$pushed" && return 1; }
    digest=$(grep -o 'sha256:[0-9a-f]\{64\}' <<<"$pushed" | tail -n 1)
    [ -n "$digest" ]
}

other_project_refused() {
    local other=$registry/$project-of-others/acceptance:latest
    docker tag "$image" "$other" || return 1
    refused docker push "$other" || return 1
    docker image rm "$other"
}

pull() {
    docker image rm --force "$image" || return 1
    docker pull "$registry/$project/acceptance@$digest" || return 1
    docker create --name acceptance-proof "$registry/$project/acceptance@$digest" none || return 1
    docker cp acceptance-proof:/fresh-bytes "$work/pulled-bytes" || return 1
    docker rm acceptance-proof
    docker image rm --force "$registry/$project/acceptance@$digest"
    cmp "$work/fresh-bytes" "$work/pulled-bytes"
}

check "sign-in page through the balancer" \
    "Look at the balancer's target health, then at gitlab-ctl status on the server. With your own domain: does it point to the balancer's address?" \
    await_status "$url/users/sign_in" 200 300
check "readiness hidden from clients" "GitLab's monitoring allow-list lets clients in: look at monitoring_whitelist and nginx in gitlab.rb." \
    await_status "$url/-/readiness" 404 0
check "git over SSH with GitLab's host key" "Look at gitlab-ctl status gitlab-sshd on the server and at the target group of port 2222." \
    git_over_ssh
check "runner verified" "Look at journalctl -u gitlab-runner on this machine." runner_known
check "registry through the balancer" "Look at docker ps on the registry's machine and at its target's health." \
    await_status "${url%%:*}://$registry/v2/" 401 120
check "wrong credential refused" "The registry lets anybody in: look at auth.token in its config.yml." wrong_credential_refused
check "login with a short-lived credential" \
    "Compare the registry's certificate with GitLab's key, the issuer on both, and the clocks of both machines (chronyc tracking). A proof that failed more than twelve hours ago has no valid credential any more: repeat all of it (docs/operations.md, Test the stack again)." login
check "push of a fresh image" "Look at docker logs registry on the registry's machine." push
check "push to another project refused" "GitLab grants too much: look at the deploy tokens of $project." other_project_refused
check "pull of the same image" "Look at docker logs registry on the registry's machine." pull

printf -v joined '%s, ' "${checks[@]}"
printf '{"checks": [%s], "digest": "%s"}\n' "${joined%, }" "$digest" >&3
