#!/bin/bash
# show_root_password.sh: prints JSON with the initial password of GitLab's root user, a secret; null once it has been deleted.
set -euo pipefail
/usr/libexec/platform-python -c '
import json, os, sys
path = sys.argv[1]
password = open(path, encoding="utf-8").read().rstrip("\n") if os.path.exists(path) else None
print(json.dumps({"rootPassword": password}))
' /etc/gitlab/seeded-root-password >&3
