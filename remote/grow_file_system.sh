#!/bin/bash
# grow_file_system.sh MOUNTPOINT SIZE VOLUME: waits until the disk of MOUNTPOINT has SIZE GiB, then grows its partition and XFS file
# system to fill it, and verifies the result. VOLUME is the disk's name in EC2, for messages.
set -euo pipefail
mountpoint=$1 size=$2 volume=$3

source=$(findmnt --noheadings --nofsroot --output SOURCE --mountpoint "$mountpoint")
# On Nitro instances a partition is named after its disk and a number: /dev/nvme0n1p3.
if [[ ! $source =~ ^(/dev/nvme[0-9]+n[0-9]+)(p([0-9]+))?$ ]]; then
    echo "$mountpoint was not grown: it is on $source, not on a plain NVMe disk as in Red Hat's images" >&3
    exit
fi
disk=${BASH_REMATCH[1]} partition=${BASH_REMATCH[3]-}

# EBS: "Size increases take effect once the volume modification reaches the optimizing state". That is seconds after ModifyVolume
# returns, and the provider does not wait for it.
expected=$((size * 1024 * 1024 * 1024))
for attempt in {1..300}; do
    actual=$(blockdev --getsize64 "$disk")
    [ "$actual" -lt "$expected" ] || break
    if [ "$attempt" = 300 ]; then
        echo "$volume should have $size GiB, but after 5 minutes its disk $disk has $actual bytes instead of $expected. Check"
        echo "aws ec2 describe-volumes-modifications; when the state is optimizing or completed, run pulumi up again."
        exit 1
    fi
    sleep 1
done

start=0
if [ -n "$partition" ]; then
    growpart "$disk" "$partition" || [ $? = 1 ] # 1: the partition already fills the disk
    start=$(($(partx --noheadings --output START --nr "$partition" "$disk") * 512))
fi
xfs_growfs "$mountpoint"

read -r block blocks < <(xfs_info "$mountpoint" | sed -n 's/^data .*bsize=\([0-9]*\) .*blocks=\([0-9]*\),.*/\1 \2/p')
missing=$((actual - start - block * blocks))
# Less than this can remain after the last allocation group or the last partition.
if [ "$missing" -gt $((16 * 1024 * 1024)) ]; then
    echo "the file system of $mountpoint on $source was grown, but $missing bytes of $volume are unused. Check: lsblk"
    exit 1
fi
echo "$mountpoint uses all $((actual / 1024 / 1024 / 1024)) GiB of $disk" >&3
