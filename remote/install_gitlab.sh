#!/bin/bash
# install_gitlab.sh VERSION POSTGRESQL [STOP...]: installs or upgrades the GitLab CE package. VERSION needs PostgreSQL POSTGRESQL at
# least; an upgrade to it must not skip a STOP, oldest first.
set -euo pipefail
version=$1 needed=$2
shift 2

if [ -e /var/opt/gitlab/bootstrapped ] && [ ! -s /etc/gitlab/gitlab-secrets.json ]; then
    echo "The data volume holds a GitLab, but /etc/gitlab/gitlab-secrets.json is missing: new secrets would make its CI"
    echo "variables, 2FA and runner tokens unreadable. Restore the file from a backup, then run pulumi up again."
    exit 1
fi

earlier() { [ "$1" != "$2" ] && printf '%s\n' "$1" "$2" | sort -VC; }

# The package's own checks ask what is installed and what runs; on a new machine with an old volume both are missing.
check_path() { # FROM STOP...
    if earlier "$version" "$1"; then
        echo "gitlabVersion $version is older than $1, which has already used the data; GitLab cannot be downgraded."
        echo "Set gitlabVersion to $1 or later."
        exit 1
    fi
    for stop in "${@:2}"; do
        if earlier "${1%.*}" "$stop"; then
            echo "GitLab cannot be upgraded from $1 to $version at once: set gitlabVersion to the last patch of $stop first."
            exit 1
        fi
    done
}

check_postgresql() { # FROM
    actual=$(cat /var/opt/gitlab/postgresql/data/PG_VERSION 2>/dev/null || echo "$needed")
    if [ "${actual%%.*}" -lt "$needed" ]; then
        echo "gitlabVersion $version needs PostgreSQL $needed, but the data are of PostgreSQL $actual; nothing was changed."
        echo "With gitlabVersion $1 in place, run on the server: sudo gitlab-ctl pg-upgrade -V $needed; then pulumi up again."
        exit 1
    fi
}

check_background_migrations() { # FROM
    # 3 is finished, 6 finalized: gitlabhq doc/update/background_migrations.md
    if ! unfinished=$(gitlab-psql -tAc "SELECT job_class_name FROM batched_background_migrations WHERE status NOT IN (3, 6)"); then
        echo "gitlabVersion $version needs the background migrations of GitLab $1 to be finished, but whether they are is unknown:"
        echo "its database does not answer. Nothing was changed. On a server that was in use: sudo gitlab-ctl start;"
        echo "on a new one, set gitlabVersion to $1. Then run pulumi up, and upgrade once it succeeds."
        exit 1
    fi
    if [ -n "$unfinished" ]; then
        echo "Background migrations of GitLab $1 are not finished; an upgrade to $version would fail in the middle. Nothing was"
        echo "changed. Wait until Admin > Monitoring > Background migrations shows none that is queued or failed, then run"
        echo "pulumi up again. Unfinished: $(tr '\n' ' ' <<<"$unfinished")"
        exit 1
    fi
}

package=gitlab-ce-$version-ce.0.el8
configured=$(cat /etc/gitlab/configured-version 2>/dev/null || echo "$version")
if [ "$configured" != "$version" ]; then check_path "$configured" "$@"; fi
if ! rpm -q "$package"; then
    # Not if the package is installed already: its own migrations are queued then, and the upgrade can only go on.
    if [ "$configured" != "$version" ]; then
        check_postgresql "$configured"
        check_background_migrations "$configured"
    fi
    dnf -y --enablerepo=gitlab_gitlab-ce install "$package"
fi
cp -n /opt/gitlab/etc/gitlab.rb.template /etc/gitlab/gitlab.rb.template
rpm -q "$package" >&3
