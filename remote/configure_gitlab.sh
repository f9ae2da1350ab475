#!/bin/bash
# configure_gitlab.sh VERSION: writes gitlab.rb, reconfigures GitLab, and waits until it is ready; if that fails, GitLab gets the former
# gitlab.rb back, if that worked. VERSION is unused; it makes the step run again after an upgrade. Standard input, base64, one per line: gitlab.rb, and the initial root password (generated here if empty).
set -euo pipefail
read -r gitlab_rb
read -r given || true
password_file=/etc/gitlab/seeded-root-password seeded=/etc/gitlab/seeded-by-stack unprepared=/etc/gitlab/unprepared

umask 077
given=$(base64 -d <<<"$given")
if [ ! -e /var/opt/gitlab/bootstrapped ]; then
    # This run seeds the database, or an earlier run seeded it and failed later.
    touch "$unprepared"
    if [ ! -s "$password_file" ]; then
        # A separate command, so that a failure ends the step instead of leaving an empty password.
        password=${given:-$(openssl rand -hex 16)}
        printf '%s\n' "$password" >"$password_file.new"
        mv "$password_file.new" "$password_file"
    fi
elif [ ! -e "$seeded" ] && [ ! -s "$password_file" ]; then
    echo "The GitLab on the data volume was not seeded by this stack: $seeded is missing on the server."
    echo "To use that GitLab in this stack, run on the server: sudo touch $seeded; then run pulumi up again."
    exit 1
fi
if [ ! -e "$seeded" ]; then
    # Only a hash: the password file is deleted once root has changed the password.
    openssl passwd -6 -stdin <"$password_file" >"$seeded.new"
    mv "$seeded.new" "$seeded"
fi
salt=$(cut -d '$' -f 3 "$seeded")
if [ -n "$given" ] && [ "$(openssl passwd -6 -salt "${salt:-none}" -stdin <<<"$given")" != "$(cat "$seeded")" ]; then
    echo "initialRootPassword was changed, but it only applies when GitLab is first seeded, which has already happened."
    echo "Restore the old value or remove the setting. To change the password, run on the server:"
    echo "sudo gitlab-rake 'gitlab:password:reset[root]'"
    exit 1
fi

base64 -d <<<"$gitlab_rb" >/etc/gitlab/gitlab.rb.new
# From files: a command that writes to a pipe whose reader has what it wants is killed, which pipefail makes a failure.
before=$(grep -anxFm 1 '# From the setting gitlabRb.' /etc/gitlab/gitlab.rb.new | cut -d : -f 1) || before=0
after=$(grep -anxF '# End of gitlabRb.' /etc/gitlab/gitlab.rb.new | tail -n 1 | cut -d : -f 1) || after=0
place() { # LINE of gitlab.rb
    if [ "$1" -gt "$before" ] && [ "$1" -lt "$after" ]; then echo "gitlabRb, line $(($1 - before))"; else echo "gitlab.rb, line $1"; fi
}

# Checked here, because reconfigure would print the invalid line, which may contain a secret.
if ! errors=$(/opt/gitlab/embedded/bin/ruby --disable=gems -W0 -c /etc/gitlab/gitlab.rb.new 2>&1); then
    line=$(grep -aoEm 1 'gitlab\.rb\.new:[0-9]+' <<<"$errors" | cut -d : -f 2 | sed '2,$d') || line=0
    rm /etc/gitlab/gitlab.rb.new
    # Ruby reports a construct that the setting opens and does not close at a line after the setting.
    if [ "$line" -ge "$after" ] && [ "$after" -gt "$before" ]; then line=$((after - 1)); fi
    echo "$(place "$line"): Ruby syntax error here, or an unterminated string, bracket or block above. GitLab was not reconfigured."
    echo "The line is not shown, because it may contain a secret. To see the error, run on the source of the setting: ruby -c FILE"
    exit 1
fi

former=/etc/gitlab/gitlab.rb.worked
version() { cat /opt/gitlab/embedded/service/gitlab-rails/VERSION; }

wait_until_ready() {
    for _ in {1..60}; do
        # Through the Workhorse socket, because port 80 only accepts PROXY connections.
        curl -fsS --max-time 30 --unix-socket /var/opt/gitlab/gitlab-workhorse/sockets/socket 'http://localhost/-/readiness?all=1' &&
            return 0
        sleep 10
    done
    return 1
}

# Pulumi keeps the former inputs of a step that fails: if the setting is taken back, the step does not run again.
restore_former() { # STATUS
    # During an upgrade, the former file is unknown to the new version.
    if [ "$1" = 0 ] || [ "$(version)" != "$(cat /etc/gitlab/configured-version 2>/dev/null)" ]; then return; fi
    if [ ! -e "$former" ] || cmp --silent "$former" /etc/gitlab/gitlab.rb; then return; fi
    cp --archive "$former" /etc/gitlab/gitlab.rb
    if gitlab-ctl reconfigure >/var/log/gitlab-stack/restore_gitlab_rb.log 2>&1 && wait_until_ready; then
        echo "GitLab did not work with the new gitlab.rb, so it has the former one again. Correct the setting, then run pulumi up again."
    else
        echo "GitLab works neither with the new gitlab.rb nor with the former one, which it has again. On the server, see:"
        echo "/var/log/gitlab-stack/restore_gitlab_rb.log; gitlab-ctl status"
    fi
}
trap 'restore_former $?' EXIT

mv /etc/gitlab/gitlab.rb.new /etc/gitlab/gitlab.rb
output=/var/log/gitlab-stack/reconfigure.log
: >"$output"
umask 022
echo "The output of gitlab-ctl reconfigure is in $output"
if ! gitlab-ctl reconfigure >"$output" 2>&1; then
    # The whole trace: the output only lists the part of it that is in cookbooks (Chef, CompileErrorInspector).
    trace=$(grep -aoE 'Stacktrace dumped to /[^[:space:]]+' "$output" | tail -n 1 | cut -d ' ' -f 4) || trace=
    [ -f "$trace" ] || trace=$output
    # Ruby's message for an error in gitlab.rb may contain values of the setting.
    if line=$(grep -aoEm 1 '/etc/gitlab/gitlab.rb:[0-9]+:in' "$trace" | cut -d : -f 2 | sed '2,$d'); then
        echo "$(place "$line"): Ruby error here, while reconfigure read gitlab.rb."
        echo "It is not shown, because it may contain a secret. On the server, see: sudo less $output"
    else
        tail -n 20 "$output"
        echo "The whole output is on the server: sudo less $output"
    fi
    exit 1
fi
# An upgrade that failed midway leaves services stopped (omnibus-gitlab, gitlab-ctl upgrade), and reconfigure does not start them.
gitlab-ctl start

# The registry runs on another machine, but gitlab-backup archives this folder and fails if it is missing (gitlab issue 353625).
mkdir -p /var/opt/gitlab/gitlab-rails/shared/registry
chown git:git /var/opt/gitlab/gitlab-rails/shared/registry

if ! wait_until_ready; then
    echo "GitLab is configured, but not ready after 10 minutes. Check on the server: gitlab-ctl status; gitlab-ctl tail puma"
    exit 1
fi
curl -fsS --haproxy-protocol --max-time 60 --output /dev/null http://127.0.0.1:80/users/sign_in

cp --archive /etc/gitlab/gitlab.rb "$former.new"
mv "$former.new" "$former"
version >/etc/gitlab/configured-version
echo "GitLab $(cat /etc/gitlab/configured-version) is ready" >&3
