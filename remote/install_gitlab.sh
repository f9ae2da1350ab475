#!/bin/bash
# install_gitlab.sh VERSION: installs or upgrades the GitLab CE package. Standard input, base64: the repository file.
set -euo pipefail
version=$1
read -r repository
base64 -d <<<"$repository" >/etc/yum.repos.d/gitlab_gitlab-ce.repo

if [ -e /var/opt/gitlab/bootstrapped ] && [ ! -s /etc/gitlab/gitlab-secrets.json ]; then
    echo "The data volume holds a GitLab, but /etc/gitlab/gitlab-secrets.json is missing: new secrets would make its CI"
    echo "variables, 2FA and runner tokens unreadable. Restore the file from a backup, then run pulumi up again."
    exit 1
fi

# The package's own guard reads /opt/gitlab, which is empty on a new machine with an old volume.
configured=$(cat /etc/gitlab/configured-version 2>/dev/null || echo "$version")
if [ "$configured" != "$version" ]; then
    if [ "$(printf '%s\n' "$configured" "$version" | sort -V | head -n 1)" = "$version" ]; then
        echo "gitlabVersion $version is older than $configured, which the data were last used with; GitLab cannot go back."
        echo "Set gitlabVersion to $configured or later."
        exit 1
    fi
    # Required stops: gitlabhq doc/update/upgrade_paths.md
    for stop in 17.8 17.11 18.2 18.5 18.8 18.11 19.2; do
        between=$(printf '%s\n' "${configured%.*}" "$stop" "${version%.*}" | sort -V | sed -n 2p)
        if [ "$between" = "$stop" ] && [ "$stop" != "${configured%.*}" ] && [ "$stop" != "${version%.*}" ]; then
            echo "GitLab cannot go from $configured to $version at once: set gitlabVersion to the last patch of $stop first."
            exit 1
        fi
    done
fi

package=gitlab-ce-$version-ce.0.el8
rpm -q "$package" || dnf -y --enablerepo=gitlab_gitlab-ce install "$package"
cp -n /opt/gitlab/etc/gitlab.rb.template /etc/gitlab/gitlab.rb.template
rpm -q "$package" >&3
