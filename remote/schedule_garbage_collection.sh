#!/bin/bash
# schedule_garbage_collection.sh PORT CALENDAR [-m]: lays down the service that collects the registry's garbage, and has it run at
# CALENDAR (systemd.time(7)), or by hand alone when that is empty. With -m untagged manifests go too.
set -euo pipefail
port=$1 calendar=$2
shift 2

if [ -n "$calendar" ]; then
    times=$(systemd-analyze calendar "$calendar" 2>&1) || times="$times: never"
    echo "$times"
    if grep -q ': never' <<<"$times"; then
        echo "registryGarbageCollection: $calendar is no time that comes again. Try others with: systemd-analyze calendar '$calendar'"
        exit 1
    fi
fi

cat >/usr/local/sbin/collect-garbage.new <<'COLLECT_GARBAGE'
#!/bin/bash
# collect-garbage collect PORT [-m]: frees what no image needs, by the registry's own garbage collection. Meanwhile a container of
# the same image, with the same files, serves on PORT in the registry's place and takes no push.
# collect-garbage finish PORT: systemd's last act however the first ended, killed as well: the registry takes pushes again.
# After a power cut neither is needed: Docker starts the registry (--restart always) and forgets the other (--rm).
set -euo pipefail
act=${1:?run it by: systemctl start collect-garbage} port=$2
shift 2
result=/run/collect-garbage/result log=/var/log/gitlab-stack/collect-garbage.log

note() { echo "$1" >"$result"; }

used() { du --summarize --block-size=1 /srv/registry/images | cut -f 1; }

answers() {
    for _ in {1..60}; do
        if curl -fsS --max-time 10 --output /dev/null "http://127.0.0.1:$port/"; then return; fi
        sleep 1
    done
    return 1
}

collect() {
    local options=() free image before freed
    [ $# = 0 ] || options=(--untagged)
    note "the registry's files could not be looked at"
    # What is pushed just now may look damaged (status 1): it is looked at again when nothing is.
    free=$(registry-tree reclaim "${options[@]}") || [ $? = 1 ]
    echo "$free"
    if [ "$free" != "${free% in 0 blobs}" ] && ! grep -q '^manifest ' <<<"$free"; then
        note "nothing to free"
        return
    fi

    note "ended before anything was freed"
    image=$(docker inspect --format '{{.Config.Image}}' registry)
    docker stop -t 30 registry
    # The whole of maintenance: of a single key the registry makes a map of another kind, and panics (distribution issue 2974).
    docker run --detach --rm --name registry-read-only --publish "$port:$port" --volumes-from registry \
        --env-file /srv/registry/http-secret.env --env GITLAB_CONTAINER_REGISTRY_LISTEN_PORT="$port" \
        --env REGISTRY_STORAGE_MAINTENANCE='{"readonly": {"enabled": true}}' "$image"
    answers

    note "refused, because the registry's files are damaged: registry-tree verify"
    registry-tree reclaim "${options[@]}"
    note "ended while it was freeing; what is left goes next time"
    before=$(used)
    docker exec registry-read-only /bin/registry garbage-collect "$@" /etc/docker/registry/config.yml
    freed=$(numfmt --to=si --suffix=B $((before - $(used))))
    note "freed $freed, but then the registry's files were damaged or not looked at: registry-tree verify"
    registry-tree verify
    note "freed $freed, all that is left is sound"
}

finish() {
    [ -e "$result" ] || return 0 # it never began
    flock 9
    docker rm --force registry-read-only &>>"$log" || true
    for _ in {1..30}; do
        if docker start registry &>>"$log"; then break; fi
        sleep 2
    done
    if ! answers &>>"$log"; then
        echo "garbage collection: $(cat "$result"); THE REGISTRY DOES NOT ANSWER: docker logs registry; $log"
        exit 1
    fi
    if [ "$SERVICE_RESULT" = success ]; then log=; else log=" ($SERVICE_RESULT, see $log)"; fi
    echo "garbage collection: $(cat "$result"); pushes are taken$log"
}

# No step of the Pulumi program runs beside it.
exec 9>/run/gitlab-stack.lock
if [ "$act" = finish ]; then
    finish
elif flock --wait 3600 9; then
    collect "$@" &>"$log"
else
    echo "garbage collection: not begun, a step has kept this machine busy for an hour: fuser -v /run/gitlab-stack.lock"
    exit 75
fi
COLLECT_GARBAGE
chmod 0755 /usr/local/sbin/collect-garbage.new
mv /usr/local/sbin/collect-garbage.new /usr/local/sbin/collect-garbage
cat >/etc/systemd/system/collect-garbage.service <<UNIT
[Unit]
Description=Free what no image of the registry needs
After=docker.service
RequiresMountsFor=/srv/registry
[Service]
Type=oneshot
RuntimeDirectory=collect-garbage
ExecStart=/usr/local/sbin/collect-garbage collect $port $*
ExecStopPost=/usr/local/sbin/collect-garbage finish $port
TimeoutStopSec=300
UNIT
if [ -z "$calendar" ]; then
    systemctl disable --now collect-garbage.timer 2>/dev/null || true
    rm -f /etc/systemd/system/collect-garbage.timer
    systemctl daemon-reload
    echo "garbage is collected by hand alone" >&3
    exit
fi
cat >/etc/systemd/system/collect-garbage.timer <<UNIT
[Unit]
Description=Free what no image of the registry needs, now and then
[Timer]
OnCalendar=$calendar
Persistent=true
[Install]
WantedBy=timers.target
UNIT
systemctl daemon-reload
systemctl enable --quiet collect-garbage.timer
systemctl restart collect-garbage.timer
echo "garbage is collected at $calendar" >&3
