#!/bin/bash
# configure_gitlab.sh VERSION: writes gitlab.rb, reconfigures, waits until GitLab is ready; VERSION only makes the step run again
# after an upgrade. Standard input, base64, a line each: gitlab.rb, and the initial root password or nothing (then one is
# generated here).
set -euo pipefail
read -r gitlab_rb
read -r given || true
password_file=/etc/gitlab/seeded-root-password seeded=/etc/gitlab/seeded-by-stack unprepared=/etc/gitlab/unprepared

umask 077
given=$(base64 -d <<<"$given")
if [ ! -e /var/opt/gitlab/bootstrapped ]; then
    # This run seeds the database, or one before it did and failed later.
    touch "$unprepared"
    if [ ! -s "$password_file" ]; then
        # In its own command: a failure must end the step, not leave an empty password.
        password=${given:-$(openssl rand -hex 16)}
        printf '%s\n' "$password" >"$password_file.new"
        mv "$password_file.new" "$password_file"
    fi
elif [ ! -e "$seeded" ] && [ ! -s "$password_file" ]; then
    echo "GitLab on the data volume was seeded by something else: $seeded is missing on the server."
    echo "If it is the GitLab that this stack shall have, run there: sudo touch $seeded; then run pulumi up again."
    exit 1
fi
if [ ! -e "$seeded" ]; then
    # A hash: the password itself is deleted once root has another one.
    openssl passwd -6 -stdin <"$password_file" >"$seeded.new"
    mv "$seeded.new" "$seeded"
fi
salt=$(cut -d '$' -f 3 "$seeded")
if [ -n "$given" ] && [ "$(openssl passwd -6 -salt "${salt:-none}" -stdin <<<"$given")" != "$(cat "$seeded")" ]; then
    echo "initialRootPassword was changed, but it is used only when GitLab is seeded, which has already happened."
    echo "Change the password on the server: sudo gitlab-rake 'gitlab:password:reset[root]'; then restore the old setting,"
    echo "or remove it."
    exit 1
fi

base64 -d <<<"$gitlab_rb" >/etc/gitlab/gitlab.rb.new
# Here, because reconfigure would print the wrong line, which may hold a secret.
if ! errors=$(/opt/gitlab/embedded/bin/ruby --disable=gems -W0 -c /etc/gitlab/gitlab.rb.new 2>&1); then
    # From files: a command that writes to a pipe whose reader has what it wants is killed, which pipefail makes a failure.
    line=$(grep -aoEm 1 'gitlab\.rb\.new:[0-9]+' <<<"$errors" | cut -d : -f 2 | sed '2,$d') || line=0
    before=$(grep -anxFm 1 '# From the setting gitlabRb.' /etc/gitlab/gitlab.rb.new | cut -d : -f 1) || before=$line
    after=$(grep -anxF '# End of gitlabRb.' /etc/gitlab/gitlab.rb.new | tail -n 1 | cut -d : -f 1) || after=$line
    rm /etc/gitlab/gitlab.rb.new
    where="gitlab.rb, line $line"
    # What begins in the setting and does not end there is noticed behind it.
    if [ "$line" -ge "$after" ] && [ "$after" -gt "$before" ]; then line=$((after - 1)); fi
    if [ "$line" -gt "$before" ]; then where="gitlabRb, line $((line - before))"; fi
    echo "$where: this is no Ruby, or something begins before it and does not end. GitLab was not reconfigured."
    echo "The line is not shown, because it may hold a secret. To see it where the setting is: ruby -c FILE"
    exit 1
fi
mv /etc/gitlab/gitlab.rb.new /etc/gitlab/gitlab.rb
umask 022
gitlab-ctl reconfigure
# An upgrade that failed in the middle leaves services stopped (omnibus-gitlab, gitlab-ctl upgrade), and reconfigure starts none.
gitlab-ctl start

# The registry is on another machine, but gitlab-backup archives its folder here and fails without one (gitlab issue 353625).
mkdir -p /var/opt/gitlab/gitlab-rails/shared/registry
chown git:git /var/opt/gitlab/gitlab-rails/shared/registry

# The workhorse socket: port 80 answers only PROXY connections.
ready() {
    curl -fsS --max-time 30 --unix-socket /var/opt/gitlab/gitlab-workhorse/sockets/socket 'http://localhost/-/readiness?all=1'
}
for attempt in {1..60}; do
    ready && break
    if [ "$attempt" = 60 ]; then
        echo "GitLab is configured but not ready after 10 minutes; see on the server: gitlab-ctl status; gitlab-ctl tail puma"
        exit 1
    fi
    sleep 10
done
curl -fsS --haproxy-protocol --max-time 60 --output /dev/null http://127.0.0.1:80/users/sign_in

cat /opt/gitlab/embedded/service/gitlab-rails/VERSION >/etc/gitlab/configured-version
echo "GitLab $(cat /etc/gitlab/configured-version) ready" >&3
