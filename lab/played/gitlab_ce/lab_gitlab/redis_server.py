"""Stand-in for Redis, as far as GitLab's health checks and queues need it.

It understands inline commands (redis.io/docs/latest/develop/reference/protocol-spec) and keeps its lists in dump.rdb,
in a format of the lab. The real one saves only minutes after a change, this one immediately.
"""

import json
import os
import socketserver
from pathlib import Path
from threading import Lock

from lab_gitlab import paths

Lists = dict[str, list[str]]


class Store:
    """The lists. Every change is saved."""

    def __init__(self, dump: Path) -> None:
        self._dump, self._lock = dump, Lock()
        self._lists: Lists = json.loads(dump.read_text()) if dump.exists() else {}

    def answer(self, words: list[str]) -> bytes:
        """Execute a command and return the reply."""
        with self._lock:
            match [words[0].upper(), *words[1:]]:
                case ["PING"]:
                    return b"+PONG\r\n"
                case ["RPUSH", key, value]:
                    self._lists.setdefault(key, []).append(value)
                    self._save()
                    return b":%d\r\n" % len(self._lists[key])
                case ["LLEN", key]:
                    return b":%d\r\n" % len(self._lists.get(key, []))
                case ["LINDEX", key, "0"]:
                    return _bulk(next(iter(self._lists.get(key, [])), None))
                case ["LPOP", key]:
                    removed = self._lists[key].pop(0) if self._lists.get(key) else None
                    self._save()
                    return _bulk(removed)
        return b"-ERR unknown command '%s'\r\n" % words[0].encode()

    def _save(self) -> None:
        unfinished = self._dump.with_name("temp.rdb")
        with unfinished.open("w") as file:
            json.dump(self._lists, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._dump)


def _bulk(text: str | None) -> bytes:
    return b"$-1\r\n" if text is None else b"$%d\r\n%s\r\n" % (len(text.encode()), text.encode())


class Session(socketserver.StreamRequestHandler):
    """The connection of one client."""

    server: "Server"

    def handle(self) -> None:
        for line in self.rfile:
            if words := line.decode().split():
                self.wfile.write(self.server.store.answer(words))


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, socket: Path, store: Store) -> None:
        self.store = store
        socket.unlink(missing_ok=True)
        super().__init__(str(socket), Session)
        socket.chmod(0o777)


def main() -> None:
    Server(paths.REDIS_SOCKET, Store(paths.REDIS / "dump.rdb")).serve_forever()


if __name__ == "__main__":
    main()
