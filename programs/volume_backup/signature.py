"""Signs requests of AWS's Query API. Source: IAM User Guide, "AWS Signature Version 4 for API requests"."""

import datetime
import hashlib
import hmac
from typing import Dict

from .metadata import Credentials

ALGORITHM = "AWS4-HMAC-SHA256"
FORM = "application/x-www-form-urlencoded; charset=utf-8"


def signed_headers(
    body: bytes, *, host: str, region: str, service: str, credentials: Credentials, now: datetime.datetime
) -> Dict[str, str]:
    """The headers of `POST /` with this body, including its signature; `now` is in UTC."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"content-type": FORM, "host": host, "x-amz-date": stamp}
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(headers))
    lines = [f"{name}:{headers[name]}\n" for name in sorted(headers)]
    canonical = "\n".join(["POST", "/", "", "".join(lines), names, hashlib.sha256(body).hexdigest()])
    scope = [stamp[:8], region, service, "aws4_request"]
    text = "\n".join([ALGORITHM, stamp, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + credentials.secret).encode()
    for part in scope:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    who = f"{credentials.key_id}/{'/'.join(scope)}"
    headers["authorization"] = f"{ALGORITHM} Credential={who}, SignedHeaders={names}, Signature={signature}"
    return headers
