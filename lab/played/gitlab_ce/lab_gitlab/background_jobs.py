"""The queue of Sidekiq's jobs in Redis. A job is executed by the function of its name in sidekiq.WORKERS."""

import base64
import fcntl
import json
import socket
from typing import IO, Any

from lab_gitlab import paths

QUEUE = "queue:default"
LOCK = paths.RAILS_VAR / "working/sidekiq.lock"
"""Locked while Sidekiq runs. The user git may not ask runit."""

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


def lock() -> IO[str]:
    """Return the lock of the only Sidekiq, which is held until the file is closed. Raises BlockingIOError."""
    file = LOCK.open("a")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def sidekiq_runs() -> bool:
    try:
        lock().close()
    except BlockingIOError:
        return True
    return False


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
