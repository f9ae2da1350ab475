#!/bin/bash
# add_repository.sh NAME FILE SETTING FINGERPRINTS URL...: installs the package repository NAME as FILE, with the signing keys downloaded
# from each URL. Fails if a key is not among FINGERPRINTS, the comma-separated value of SETTING. Standard input, base64: the repository
# file.
set -euo pipefail
name=$1 file=$2 setting=$3 fingerprints=$4
shift 4
read -r repository
ring=$(mktemp -d)
trap 'rm -rf "$ring"' EXIT
in_ring() { gpg --homedir "$ring" --batch --no-options --no-autostart --quiet "$@"; }

for url in "$@"; do
    curl -fsSL --proto =https --retry 3 --max-time 60 --output "$ring/download" "$url" || {
        echo "$name: could not download $url. Nothing was changed. Run pulumi up again once the server responds. If the file has moved,"
        echo "update to a version of this program that has the new URL."
        exit 1
    }
    # gpg drops subkeys without a valid binding signature on import; rpm would trust them (CVE-2021-3521).
    in_ring --import "$ring/download" || {
        echo "$name: $url does not contain an OpenPGP key that gpg can import. Nothing was changed."
        exit 1
    }
    # The fingerprint of a primary key is the first one after its pub line (gnupg doc/DETAILS, "Format of the colon listings").
    found=$(in_ring --list-keys --with-colons | awk -F : '$1 == "pub" { primary = 1 } $1 == "fpr" && primary { print $10; primary = 0 }')
    for key in $found; do
        if [[ ",$fingerprints," != *",$key,"* ]]; then
            echo "$name: $url contains a key that is not trusted. Nothing was changed. Its fingerprint is"
            echo "    $key"
            echo "but $setting contains ${fingerprints//,/ }."
            echo "If the vendor confirms the key in a source other than that server, add it to $setting, then run pulumi up again."
            exit 1
        fi
    done
done

in_ring --armor --output "$ring/keys" --export
install -m 0644 "$ring/keys" "/etc/pki/rpm-gpg/RPM-GPG-KEY-$name"
base64 -d <<<"$repository" >"/etc/yum.repos.d/$file"
# The keys that dnf has cached to verify metadata: it would not notice that the expiry of one of them was extended.
rm -rf /var/cache/dnf/"$name"-*/pubring
echo "$name: $(wc -w <<<"$found") keys" >&3
