"""The queue of Sidekiq's jobs in Redis. A job is executed by the function of its name in sidekiq.WORKERS."""

import base64
import json
import socket
from typing import Any

from lab_gitlab import paths

QUEUE = "queue:default"

Job = dict[str, Any]


def enqueue(worker: str, **arguments: Any) -> None:
    """Raises OSError if Redis does not answer."""
    _ask("RPUSH", QUEUE, base64.b64encode(json.dumps({"class": worker, "args": arguments}).encode()).decode())


def first() -> Job | None:
    """Return the oldest job without removing it: a job whose execution is interrupted is executed again."""
    found = _ask("LINDEX", QUEUE, "0")
    return json.loads(base64.b64decode(found)) if found else None


def remove_first() -> None:
    _ask("LPOP", QUEUE)


def _ask(*words: str) -> str | None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(paths.REDIS_SOCKET))
        connection.sendall(" ".join(words).encode() + b"\r\n")
        with connection.makefile("rb") as stream:
            head = stream.readline().decode().strip()
            if head.startswith("$") and head != "$-1":
                return stream.read(int(head[1:])).decode()
    return None
