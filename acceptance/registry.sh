# shellcheck shell=sh
# The registry's own HTTP, for jobs without Docker and without privileges. Read by push.sh and pull.sh.
# Each check ends with a line: check NAME ok SECONDS [NOTE], or: check NAME broken WHY.
set -eu

# shellcheck disable=SC2034
repository=$CI_PROJECT_PATH/acceptance
address=${CI_SERVER_URL%%:*}://$CI_REGISTRY
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

begin() { # NAME: a check begins
    check=$1
    begun=$(now)
}

end() { # [NOTE]: the check passed
    took=$(($(now) - begun))
    echo "check $check ok $((took / 100)).$(printf %02d $((took % 100)))${1:+ $1}"
}

now() { # hundredths of a second
    cut -d ' ' -f 1 /proc/uptime | tr -d .
}

broken() { # WHY
    echo "check $check broken $1"
    exit 1
}

ask() { # STATUS CURL_OPTION...: asks with $token; the answer's body is in $work/body, its headers in $work/headers
    wanted=$1
    shift
    # By standard input: an option would show the token to everything in the container.
    status=$(echo "${token:+header = \"Authorization: Bearer $token\"}" |
        curl --silent --show-error --max-time 30 --config - --output "$work/body" --dump-header "$work/headers" \
            --write-out '%{http_code}' "$@" 2>"$work/trouble") || status=$(cat "$work/trouble")
    [ "$status" = "$wanted" ]
}

header() { # NAME: its value in the last answer
    tr -d '\r' <"$work/headers" | sed -n "s/^$1: *//Ip" | tail -n 1
}

token_for() { # SCOPE: asks GitLab for a token, with what the job has
    token=
    ask 401 "$address/v2/" || broken "$address/v2/ answers $status instead of 401."
    challenge=$(header www-authenticate)
    realm=$(echo "$challenge" | sed -n 's/.*realm="\([^"]*\)".*/\1/p')
    service=$(echo "$challenge" | sed -n 's/.*service="\([^"]*\)".*/\1/p')
    status=$(printf 'user = "gitlab-ci-token:%s"\n' "$CI_JOB_TOKEN" |
        curl --silent --show-error --max-time 30 --config - --output "$work/body" --write-out '%{http_code}' \
            "$realm?service=$service&scope=$1" 2>"$work/trouble") || status=$(cat "$work/trouble")
    [ "$status" = 200 ] || broken "$realm answers $status to the job's token."
    token=$(sed -n 's/.*"token": *"\([^"]*\)".*/\1/p' "$work/body")
    [ -n "$token" ] || broken "$realm answers without a token."
}

digest_of() { # FILE
    echo "sha256:$(sha256sum "$1" | cut -d ' ' -f 1)"
}
