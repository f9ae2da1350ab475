#!/bin/bash
# mount_data.sh VOLUME_ID DEVICE SERVICE MOUNTPOINT [TARGET...]: mounts a data volume, with a new file system only if it is blank, and
# bind-mounts a folder of it over each TARGET, where SERVICE stores its data. Files of a TARGET that are still on the root disk (because
# an earlier version of this stack did not have that TARGET) are first moved to the volume.
# Standard input, base64, one per line: keep-data-mounted and its systemd unit.
set -euo pipefail
volume_id=$1 device=$2 service=$3 mountpoint=$4
shift 4
read -r program
read -r unit

for _ in {1..120}; do
    [ -b "$device" ] && break
    sleep 1
done
[ -b "$device" ] || {
    echo "volume $volume_id did not appear as $device within 120 s. Check that it is attached to $(hostname)."
    exit 1
}

status=0
blkid --probe "$device" || status=$?
case $status in
    0) ;; # it has a file system
    2) mkfs.xfs -q "$device" && udevadm settle ;; # blank
    *)
        echo "volume $volume_id contains data that blkid cannot identify (status $status). Nothing was written to it."
        echo "Inspect it with: lsblk --fs $device"
        exit 1
        ;;
esac
uuid=$(blkid --probe --match-tag UUID --output value "$device")

add_mount() { # FSTAB_SOURCE TARGET TYPE OPTIONS
    mkdir -p "$2"
    sed -i "\|^[^#[:space:]]*[[:space:]]$2[[:space:]]|d" /etc/fstab
    printf '%s %s %s %s 0 0\n' "$1" "$2" "$3" "$4" >>/etc/fstab
    systemctl daemon-reload
    if mountpoint -q "$2"; then return; fi
    if [ -n "$(ls -A "$2")" ]; then
        echo "$2 already contains files on the root disk, which the data volume would hide. Move them elsewhere, then run pulumi up again"
        exit 1
    fi
    mount "$2"
    restorecon "$2"
}

add_mount "UUID=$uuid" "$mountpoint" xfs defaults,nofail,x-systemd.device-timeout=60
if [ "$(findmnt --noheadings --output UUID --mountpoint "$mountpoint")" != "$uuid" ]; then
    echo "$mountpoint on $(hostname) is mounted from a volume other than $volume_id. Unmount it, then run pulumi up again"
    exit 1
fi

service_is_installed() { [ -n "$(systemctl list-unit-files --no-legend "$service.service" || true)" ]; }

start_service() {
    if service_is_installed && systemctl is-enabled --quiet "$service"; then systemctl start "$service"; fi
}

holds_files() { [ -d "$1" ] && [ -n "$(ls -A "$1")" ]; }

# Safe to repeat after an interruption at any point: TARGET is valid until TARGET.moved exists, the copy from then on.
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
            echo "$1 could not be moved to the data volume, $mountpoint. Check its free space: df -h $mountpoint; du -sh $1"
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

# From now on the volume is mounted again whenever it is attached late or re-attached.
base64 -d <<<"$program" >/usr/local/sbin/keep-data-mounted.new
chmod 0755 /usr/local/sbin/keep-data-mounted.new
mv /usr/local/sbin/keep-data-mounted.new /usr/local/sbin/keep-data-mounted
base64 -d <<<"$unit" >/etc/systemd/system/keep-data-mounted.service
systemctl daemon-reload
systemctl enable --quiet keep-data-mounted
systemctl restart keep-data-mounted
echo "$volume_id on $mountpoint" >&3
