#!/bin/bash
# mount_data.sh VOLUME_ID DEVICE SERVICE MOUNTPOINT [TARGET...]: mounts a data volume, creates its file system only if it is blank,
# and binds a folder of it over each TARGET. SERVICE keeps its data there. The files that a TARGET holds on the root disk, because it
# was not a target when the machine was new, are moved to the volume first.
# Standard input, base64, a line each: keep-data-mounted, its service.
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
    echo "volume $volume_id did not appear as $device within 120 s: is it attached to $(hostname)?"
    exit 1
}

status=0
blkid --probe "$device" || status=$?
case $status in
    0) ;; # it has a file system
    2) mkfs.xfs -q "$device" && udevadm settle ;; # blank
    *)
        echo "volume $volume_id holds data that blkid cannot identify (status $status). Nothing was written to it."
        echo "Find out what it is: lsblk --fs $device"
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
        echo "$2 already holds files on the root disk; the data volume would hide them. Move them away first"
        exit 1
    fi
    mount "$2"
    restorecon "$2"
}

add_mount "UUID=$uuid" "$mountpoint" xfs defaults,nofail,x-systemd.device-timeout=60
if [ "$(findmnt --noheadings --output UUID --mountpoint "$mountpoint")" != "$uuid" ]; then
    echo "$mountpoint on $(hostname) is mounted from another volume than $volume_id. Unmount it, then run pulumi up again"
    exit 1
fi

service_is_installed() { [ -n "$(systemctl list-unit-files --no-legend "$service.service" || true)" ]; }

start_service() {
    if service_is_installed && systemctl is-enabled --quiet "$service"; then systemctl start "$service"; fi
}

holds_files() { [ -d "$1" ] && [ -n "$(ls -A "$1")" ]; }

# Interrupted at any point it can be repeated: TARGET is valid until TARGET.moved exists, the copy after that.
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

# From here on it is mounted again whenever it comes late or comes back.
base64 -d <<<"$program" >/usr/local/sbin/keep-data-mounted.new
chmod 0755 /usr/local/sbin/keep-data-mounted.new
mv /usr/local/sbin/keep-data-mounted.new /usr/local/sbin/keep-data-mounted
base64 -d <<<"$unit" >/etc/systemd/system/keep-data-mounted.service
systemctl daemon-reload
systemctl enable --quiet keep-data-mounted
systemctl restart keep-data-mounted
echo "$volume_id on $mountpoint" >&3
