"""The temporary credentials of the machine's role, from the instance metadata service, version 2.

Sources: EC2 User Guide, "Use the Instance Metadata Service to access instance metadata" and "Retrieve security
credentials from instance metadata".
"""

import http.client
import json
import urllib.error
import urllib.request
from typing import Dict, NamedTuple

from .errors import NOT_PERMITTED, BackupError

SERVICE = "http://169.254.169.254"
ROLE = "/latest/meta-data/iam/security-credentials/"
TIMEOUT = 5  # seconds
TOKEN_LIFE = 60  # seconds

NO_ROLE = (
    "this machine has no role that may take snapshots: the metadata service offers no credentials. Run pulumi up, "
    "which attaches the instance profile; then try again: sudo gitlab-backup-volume now"
)


class Credentials(NamedTuple):
    """Temporary credentials of a role. `token` is empty for those of a user."""

    key_id: str
    secret: str
    token: str


def credentials() -> Credentials:
    """The credentials of this machine's role. Raises BackupError if it has none."""
    token = _request("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_LIFE)})
    headers = {"X-aws-ec2-metadata-token": token}
    names = _request("GET", ROLE, headers).split()
    if not names:
        raise BackupError(NO_ROLE, NOT_PERMITTED)
    text = _request("GET", ROLE + names[0], headers)
    try:
        found = json.loads(text)
        return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["Token"])
    except (ValueError, KeyError, TypeError):
        # For example {"Code": "AssumeRoleUnauthorizedAccess"}, while the role does not trust EC2.
        raise BackupError(f"the metadata service has no credentials of {names[0]}", NOT_PERMITTED) from None


def _request(method: str, path: str, headers: Dict[str, str]) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(SERVICE + path, method=method, headers=headers)
    try:
        with opener.open(request, timeout=TIMEOUT) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 404 and path.startswith(ROLE):
            raise BackupError(NO_ROLE, NOT_PERMITTED) from None
        raise BackupError(f"the metadata service answered {error.code} to {method} {path}") from None
    except (OSError, http.client.HTTPException) as error:
        raise BackupError(f"the metadata service does not answer: {error}") from None
