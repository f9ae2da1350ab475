#!/bin/bash
# make_token_key.sh: generates, once, the key pair that signs registry tokens. It is stored on the data volume, and the private key never
# leaves it. Prints the certificate.
set -euo pipefail
key=/etc/gitlab/registry-token.key certificate=/etc/gitlab/registry-token.crt
chmod 0775 /etc/gitlab
if [ ! -s "$key" ]; then
    (umask 077 && openssl genrsa -out "$key.new" 4096)
    mv "$key.new" "$key"
    rm -f "$certificate"
fi
if [ ! -s "$certificate" ]; then
    openssl req -x509 -new -key "$key" -subj /CN=omnibus-gitlab-issuer -days 3650 -out "$certificate.new"
    mv "$certificate.new" "$certificate"
fi
cat "$certificate" >&3
