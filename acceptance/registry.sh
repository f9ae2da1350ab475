# shellcheck shell=sh
# Functions for the registry's HTTP API, for jobs without Docker and privileges. Sourced by push.sh and pull.sh.
# Each check ends with one line: check NAME ok SECONDS [NOTE], or: check NAME broken WHY.
set -eu

# shellcheck disable=SC2034
repository=$CI_PROJECT_PATH/acceptance
address=${CI_SERVER_URL%%:*}://$CI_REGISTRY
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

begin() { # NAME: starts a check
    check=$1
    begun=$(now)
}

end() { # [NOTE]: reports that the check passed
    took=$(($(now) - begun))
    echo "check $check ok $((took / 100)).$(printf %02d $((took % 100)))${1:+ $1}"
}

now() { # hundredths of a second
    cut -d ' ' -f 1 /proc/uptime | tr -d .
}

broken() { # WHY: reports that the check failed, and ends the job
    echo "check $check broken $1"
    exit 1
}

request() { # CURL_OPTION...: sends a request, with further options from standard input; body in $work/body; prints the status
    # The runner's file contains the certificates by which it verified GitLab: the image may not know an own authority.
    curl --silent --show-error --max-time 30 ${CI_SERVER_TLS_CA_FILE:+--cacert "$CI_SERVER_TLS_CA_FILE"} \
        --config - --output "$work/body" --write-out '%{http_code}' "$@"
}

ask() { # STATUS CURL_OPTION...: sends a request with $token; body in $work/body, headers in $work/headers; fails unless it returns STATUS
    wanted=$1
    shift
    # On standard input: as an option, the token would be visible to all processes in the container.
    status=$(echo "${token:+header = \"Authorization: Bearer $token\"}" |
        request --dump-header "$work/headers" "$@" 2>"$work/error") || status=$(cat "$work/error")
    [ "$status" = "$wanted" ]
}

header() { # NAME: prints a header of the last response
    tr -d '\r' <"$work/headers" | sed -n "s/^$1: *//Ip" | tail -n 1
}

token_for() { # SCOPE: requests a registry token from GitLab with the job token
    token=
    ask 401 "$address/v2/" || broken "$address/v2/ returned $status instead of 401."
    challenge=$(header www-authenticate)
    realm=$(echo "$challenge" | sed -n 's/.*realm="\([^"]*\)".*/\1/p')
    service=$(echo "$challenge" | sed -n 's/.*service="\([^"]*\)".*/\1/p')
    status=$(printf 'user = "gitlab-ci-token:%s"\n' "$CI_JOB_TOKEN" |
        request "$realm?service=$service&scope=$1" 2>"$work/error") || status=$(cat "$work/error")
    [ "$status" = 200 ] || broken "$realm returned $status for the job token."
    token=$(sed -n 's/.*"token": *"\([^"]*\)".*/\1/p' "$work/body")
    [ -n "$token" ] || broken "$realm returned no token."
}

digest_of() { # FILE
    echo "sha256:$(sha256sum "$1" | cut -d ' ' -f 1)"
}
