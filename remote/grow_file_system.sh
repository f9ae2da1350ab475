#!/bin/bash
# grow_file_system.sh MOUNTPOINT SIZE VOLUME: waits until the disk below MOUNTPOINT has SIZE GiB, grows the partition and its XFS file
# system to fill it, and checks that they do. VOLUME is the disk's name in EC2, for messages.
set -euo pipefail
mountpoint=$1 size=$2 volume=$3

source=$(findmnt --noheadings --nofsroot --output SOURCE --mountpoint "$mountpoint")
# Nitro machines name a disk, and a partition by its disk and a number: /dev/nvme0n1p3.
if [[ ! $source =~ ^(/dev/nvme[0-9]+n[0-9]+)(p([0-9]+))?$ ]]; then
    echo "$mountpoint is on $source, not on a plain NVMe disk as in Red Hat's images: not grown" >&3
    exit
fi
disk=${BASH_REMATCH[1]} partition=${BASH_REMATCH[3]-}

# EBS: "Size increases take effect once the volume modification reaches the optimizing state", seconds after ModifyVolume has
# returned, and the provider does not wait for that.
expected=$((size * 1024 * 1024 * 1024))
for attempt in {1..300}; do
    actual=$(blockdev --getsize64 "$disk")
    [ "$actual" -lt "$expected" ] || break
    if [ "$attempt" = 300 ]; then
        echo "$volume is to have $size GiB, but its disk $disk has $actual bytes instead of $expected after 5 minutes. See"
        echo "aws ec2 describe-volumes-modifications; when it is optimizing or completed, run pulumi up again."
        exit 1
    fi
    sleep 1
done

start=0
if [ -n "$partition" ]; then
    growpart "$disk" "$partition" || [ $? = 1 ] # 1: it fills the disk already
    start=$(($(partx --noheadings --output START --nr "$partition" "$disk") * 512))
fi
xfs_growfs "$mountpoint"

read -r block blocks < <(xfs_info "$mountpoint" | sed -n 's/^data .*bsize=\([0-9]*\) .*blocks=\([0-9]*\),.*/\1 \2/p')
missing=$((actual - start - block * blocks))
# Less than this may follow the last allocation group or the last partition.
if [ "$missing" -gt $((16 * 1024 * 1024)) ]; then
    echo "the file system of $mountpoint on $source was grown, but leaves $missing bytes of $volume unused. See: lsblk"
    exit 1
fi
echo "$mountpoint has the $((actual / 1024 / 1024 / 1024)) GiB of $disk" >&3
