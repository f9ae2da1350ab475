#!/bin/bash
# install_registry_tree.sh: installs registry-tree, which shows and checks what the registry stores on its volume. Standard input,
# base64: the program, a zipapp.
set -euo pipefail
read -r program
# Not below /usr/local: RHEL's sudo does not look there (secure_path).
base64 -d <<<"$program" >/usr/bin/registry-tree.new
chmod 0755 /usr/bin/registry-tree.new
/usr/bin/registry-tree.new --help
mv /usr/bin/registry-tree.new /usr/bin/registry-tree
echo "registry-tree installed" >&3
