#!/bin/bash
# clean_restored_data.sh SNAPSHOT_ID restore|drill: removes from a data volume that was created from this snapshot what the processes of the
# former machine left in it, before GitLab starts. It does so once per volume. In a drill it also removes what the original GitLab must not
# share with a copy: the queues of Redis, so that no job runs again, and the key that signs the registry's tokens.
set -euo pipefail
snapshot_id=$1 mode=$2
marker=/srv/gitlab/restored-from

if [ "$(cat "$marker" 2>/dev/null)" = "$snapshot_id" ]; then
    echo "the volume from $snapshot_id was cleaned before" >&3
    exit
fi
if systemctl is-active --quiet gitlab-runsvdir; then
    echo "GitLab is running on the volume from $snapshot_id, whose data was not cleaned before its first start."
    echo "If it is the GitLab that you want to keep, remove serverDataSnapshotId and registryDataSnapshotId and run pulumi up again"
    exit 1
fi

# PostgreSQL does not start if a process of the same user has the number in one of these files (src/backend/utils/init/miscinit.c,
# CreateLockFile); on another machine that may be any process.
rm -f /var/opt/gitlab/postgresql/data/postmaster.pid /var/opt/gitlab/postgresql/.s.PGSQL.*.lock

# Locks of pushes at the moment of the snapshot: git refuses to update what they lock, and Gitaly deletes them after an hour at the earliest
# (gitaly, internal/git/housekeeping/clean_stale_data.go). Folders of loose objects have no locks, but most of the files.
repositories=/var/opt/gitlab/git-data/repositories
locks=0
if [ -d "$repositories" ]; then
    locks=$(find "$repositories" -path '*/objects/[0-9a-f][0-9a-f]' -prune -o -type f -name '*.lock' -print -exec rm -f {} + | wc -l)
fi

if [ "$mode" = drill ]; then
    rm -rf /var/opt/gitlab/redis/dump.rdb /var/opt/gitlab/redis/appendonly*
    rm -f /etc/gitlab/registry-token.key /etc/gitlab/registry-token.crt
    # configure_gitlab would go back to it, and start the copy as the original is configured.
    rm -f /etc/gitlab/gitlab.rb.worked
fi

echo "$snapshot_id" >"$marker.new"
mv "$marker.new" "$marker"
echo "removed $locks locks of git from the volume from $snapshot_id" >&3
