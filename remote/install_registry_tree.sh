#!/bin/bash
# install_registry_tree.sh: installs registry-tree, which inspects and verifies the registry's storage. Standard input, base64: the zipapp.
set -euo pipefail
read -r program
# Not in /usr/local: RHEL's sudo does not search there (secure_path).
base64 -d <<<"$program" >/usr/bin/registry-tree.new
chmod 0755 /usr/bin/registry-tree.new
/usr/bin/registry-tree.new --help
mv /usr/bin/registry-tree.new /usr/bin/registry-tree
echo "registry-tree installed" >&3
