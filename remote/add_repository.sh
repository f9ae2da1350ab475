#!/bin/bash
# add_repository.sh NAME FILE SETTING FINGERPRINTS URL...: lays down FILE of the package repository NAME and the keys that sign it, which
# each URL offers. A key that is none of FINGERPRINTS (with commas between, from SETTING) ends the step. Standard input, base64: the
# repository file.
set -euo pipefail
name=$1 file=$2 setting=$3 fingerprints=$4
shift 4
read -r repository
ring=$(mktemp -d)
trap 'rm -rf "$ring"' EXIT
in_ring() { gpg --homedir "$ring" --batch --no-options --no-autostart --quiet "$@"; }

for url in "$@"; do
    curl -fsSL --proto =https --retry 3 --max-time 60 --output "$ring/download" "$url" || {
        echo "$name: $url cannot be downloaded. Nothing was changed. Once it can, or has another address in a later version of this"
        echo "program, run pulumi up again."
        exit 1
    }
    # What is imported has lost every subkey that the key has not signed, which rpm would believe (CVE-2021-3521).
    in_ring --import "$ring/download" || {
        echo "$name: $url offers no OpenPGP key, or one that gpg does not take. Nothing was changed."
        exit 1
    }
    # Of the primary keys: the first fingerprint after each (gnupg doc/DETAILS, "Format of the colon listings").
    found=$(in_ring --list-keys --with-colons | awk -F : '$1 == "pub" { primary = 1 } $1 == "fpr" && primary { print $10; primary = 0 }')
    for key in $found; do
        if [[ ",$fingerprints," != *",$key,"* ]]; then
            echo "$name: $url offers a key that is not trusted. Nothing was changed. Its fingerprint is"
            echo "    $key"
            echo "and $setting has ${fingerprints//,/ }."
            echo "If the vendor says elsewhere than on that server that the key is theirs, add it to $setting, then run pulumi up again."
            exit 1
        fi
    done
done

in_ring --armor --output "$ring/keys" --export
install -m 0644 "$ring/keys" "/etc/pki/rpm-gpg/RPM-GPG-KEY-$name"
base64 -d <<<"$repository" >"/etc/yum.repos.d/$file"
# The keys that dnf has taken for the metadata: it would not notice that one of them is valid for longer now.
rm -rf /var/cache/dnf/"$name"-*/pubring
echo "$name: $(wc -w <<<"$found") keys" >&3
