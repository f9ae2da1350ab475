#!/bin/bash
# mount_data.sh VOLUME_ID SERVICE MOUNTPOINT [TARGET...]: mounts a data volume, makes its file system only if it is blank, and binds
# a folder of it over each TARGET. SERVICE lives on it. What a TARGET holds on the root disk, as on a machine of a time when it was
# not yet among the targets, is moved to the volume first.
set -euo pipefail
volume_id=$1 service=$2 mountpoint=$3
shift 3

# Nitro machines name volumes by their order of appearance; only the serial number is the volume's own.
device=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${volume_id/-/}
for _ in {1..120}; do
    [ -b "$device" ] && break
    sleep 1
done
[ -b "$device" ] || {
    echo "volume $volume_id did not appear as $device within 120 s: is it attached to this machine?"
    exit 1
}

found=0
blkid --probe "$device" || found=$?
case $found in
    0) ;;                                      # keeps what it holds
    2) mkfs.xfs -q "$device" && udevadm settle ;; # blank
    *) echo "volume $volume_id holds something blkid cannot name (status $found): look at it before anything is written" && exit 1 ;;
esac
uuid=$(blkid --probe --match-tag UUID --output value "$device")

add_mount() { # FSTAB_SOURCE TARGET TYPE OPTIONS
    mkdir -p "$2"
    sed -i "\|^[^#[:space:]]*[[:space:]]$2[[:space:]]|d" /etc/fstab
    printf '%s %s %s %s 0 0\n' "$1" "$2" "$3" "$4" >>/etc/fstab
    systemctl daemon-reload
    if mountpoint -q "$2"; then return; fi
    if [ -n "$(ls -A "$2")" ]; then
        echo "$2 already holds files on the root disk; they would vanish under the data volume. Move them away first"
        exit 1
    fi
    mount "$2"
    restorecon "$2"
}

add_mount "UUID=$uuid" "$mountpoint" xfs defaults,nofail,x-systemd.device-timeout=60
if [ "$(findmnt --noheadings --output UUID --mountpoint "$mountpoint")" != "$uuid" ]; then
    echo "$mountpoint is mounted from another volume than $volume_id"
    exit 1
fi

service_is_installed() { [ -n "$(systemctl list-unit-files --no-legend "$service.service" || true)" ]; }

start_service() {
    if service_is_installed && systemctl is-enabled --quiet "$service"; then systemctl start "$service"; fi
}

holds_files() { [ -d "$1" ] && [ -n "$(ls -A "$1")" ]; }

# Cut off at any point it can be repeated: until TARGET.moved is there, TARGET is what counts, and the copy after that.
move_files() { # TARGET FOLDER
    if mountpoint -q "$1"; then return; fi
    if [ ! -e "$1.moved" ]; then
        if ! holds_files "$1" || holds_files "$2"; then return; fi
        echo "moving $1 to the data volume"
        if service_is_installed; then systemctl stop "$service"; fi
        rm -rf "$2.new"
        if ! cp --archive "$1" "$2.new"; then
            rm -rf "$2.new"
            start_service
            echo "$1 cannot be moved to the data volume, $mountpoint: is there room for it? df -h $mountpoint; du -sh $1"
            exit 1
        fi
        sync
        mv "$1" "$1.moved"
    fi
    if [ -e "$2.new" ]; then mv --no-target-directory "$2.new" "$2"; fi
}

for target in "$@"; do
    folder=$mountpoint/$(systemd-escape --path "$target")
    mkdir -p "$folder"
    move_files "$target" "$folder"
    add_mount "$folder" "$target" none "bind,nofail,x-systemd.requires-mounts-for=$mountpoint"
    rm -rf "$target.moved"
done
start_service

# systemd mounts at boot only: what comes later, or comes back, is mounted by this.
cat >/usr/local/sbin/keep-data-mounted.new <<'KEEP_DATA_MOUNTED'
#!/bin/bash
# keep-data-mounted DEVICE SERVICE MOUNTPOINT [TARGET...]: whenever DEVICE is there and not what is mounted, mounts it and
# starts SERVICE anew.
set -euo pipefail
device=$1 service=$2
shift 2

in_order() { [ "$(mountpoint -d "$1")" = "$(mountpoint -x "$device")" ] && ls "$1" >/dev/null; }

while sleep 10; do
    [ -b "$device" ] || continue
    lost=
    for place in "$@"; do in_order "$place" || lost=$place; done
    [ -n "$lost" ] || continue
    exec 9>/run/gitlab-stack.lock
    flock --nonblock 9 || continue # a step is at work
    echo "$lost is not on $device: mounting anew, with a restart of $service"
    installed=$(systemctl list-unit-files --no-legend "$service.service" || true)
    if [ -n "$installed" ]; then systemctl stop "$service"; fi
    for ((last = $#; last > 0; last--)); do
        while mountpoint -q "${!last}"; do umount --lazy "${!last}"; done
    done
    for place in "$@"; do mount "$place"; done
    if [ -n "$installed" ]; then systemctl start "$service"; fi
    exec 9>&-
done
KEEP_DATA_MOUNTED
chmod 0755 /usr/local/sbin/keep-data-mounted.new
mv /usr/local/sbin/keep-data-mounted.new /usr/local/sbin/keep-data-mounted
cat >/etc/systemd/system/keep-data-mounted.service <<UNIT
[Unit]
Description=Mount the data volume when it comes late or again
[Service]
ExecStart=/usr/local/sbin/keep-data-mounted $device $service $mountpoint $*
Restart=always
RestartSec=10
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --quiet keep-data-mounted
systemctl restart keep-data-mounted
echo "$volume_id on $mountpoint" >&3
