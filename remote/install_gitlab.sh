#!/bin/bash
# install_gitlab.sh VERSION POSTGRESQL [STOP...]: installs or upgrades the GitLab CE package. VERSION requires at least PostgreSQL
# POSTGRESQL; the upgrade must not skip a STOP (oldest first).
set -euo pipefail
version=$1 needed=$2
shift 2

if [ -e /var/opt/gitlab/bootstrapped ] && [ ! -s /etc/gitlab/gitlab-secrets.json ]; then
    echo "The data volume contains a GitLab installation, but /etc/gitlab/gitlab-secrets.json is missing: new secrets would make its"
    echo "CI variables, 2FA and runner tokens unreadable. Restore the file from a backup, then run pulumi up again."
    exit 1
fi

earlier() { [ "$1" != "$2" ] && printf '%s\n' "$1" "$2" | sort -VC; }

# The package's own checks inspect the installed package and the running services; a new machine with an old volume has neither.
check_path() { # FROM STOP...
    if earlier "$version" "$1"; then
        echo "gitlabVersion $version is older than $1, which has already migrated the data; GitLab cannot be downgraded."
        echo "Set gitlabVersion to $1 or later."
        exit 1
    fi
    for stop in "${@:2}"; do
        if earlier "${1%.*}" "$stop"; then
            echo "GitLab cannot be upgraded directly from $1 to $version: set gitlabVersion to the last patch of $stop first."
            exit 1
        fi
    done
}

check_postgresql() { # FROM
    actual=$(cat /var/opt/gitlab/postgresql/data/PG_VERSION 2>/dev/null || echo "$needed")
    if [ "${actual%%.*}" -lt "$needed" ]; then
        echo "gitlabVersion $version requires PostgreSQL $needed, but the database is at PostgreSQL $actual. Nothing was changed."
        echo "With gitlabVersion $1 still installed, run on the server: sudo gitlab-ctl pg-upgrade -V $needed; then pulumi up again."
        exit 1
    fi
}

check_background_migrations() { # FROM
    # 3: finished, 6: finalized (gitlabhq doc/update/background_migrations.md)
    if ! unfinished=$(gitlab-psql -tAc "SELECT job_class_name FROM batched_background_migrations WHERE status NOT IN (3, 6)"); then
        echo "gitlabVersion $version requires that the background migrations of GitLab $1 are finished, but their state is unknown:"
        echo "the database does not respond. Nothing was changed. On an existing server, run: sudo gitlab-ctl start;"
        echo "on a new server, set gitlabVersion to $1. Then run pulumi up, and upgrade once it succeeds."
        exit 1
    fi
    if [ -n "$unfinished" ]; then
        echo "Background migrations of GitLab $1 are not finished; an upgrade to $version would fail midway. Nothing was changed."
        echo "Wait until Admin > Monitoring > Background migrations shows no queued or failed migrations, then run pulumi up again."
        echo "Unfinished: $(tr '\n' ' ' <<<"$unfinished")"
        exit 1
    fi
}

package=gitlab-ce-$version-ce.0.el8
configured=$(cat /etc/gitlab/configured-version 2>/dev/null || echo "$version")
if [ "$configured" != "$version" ]; then check_path "$configured" "$@"; fi
# An upgrade that failed after its migrations has not changed configured-version.
installed=$(cat /opt/gitlab/embedded/service/gitlab-rails/VERSION 2>/dev/null || echo "$version")
if [ -e /var/opt/gitlab/bootstrapped ]; then check_path "$installed"; fi
if ! rpm -q "$package"; then
    # Skipped if the package is already installed: then its own migrations are queued, and the upgrade can only continue.
    if [ "$configured" != "$version" ]; then
        check_postgresql "$configured"
        check_background_migrations "$configured"
    fi
    dnf -y --enablerepo=gitlab_gitlab-ce install "$package"
fi
cp -n /opt/gitlab/etc/gitlab.rb.template /etc/gitlab/gitlab.rb.template
rpm -q "$package" >&3
