"""Stand-in for PostgreSQL: owns the data directory and serves SQL on a Unix socket.

Like PostgreSQL it starts only if it can read the data directory and its user owns it, so it fails on a replaced machine
where that user has another uid. The data is stored in SQLite. A client sends one line of JSON,
{"sql": ..., "parameters": [...]}, and receives one line; each connection is a session.
"""

import contextlib
import json
import os
import signal
import socketserver
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab_gitlab import paths

MAJOR_VERSION = "16"
CONTROL_FILE = "global/pg_control"
DATABASE_FILE = "base/gitlabhq_production.sqlite3"
LOCK_FILE = "postmaster.pid"
FIRST_POSITION, ROW = 0x1500000, 0x60
"""Where the write-ahead log begins, and by how much a changed row extends it."""


class FatalError(Exception):
    """The server cannot start; the message is PostgreSQL's."""


def initialise(data: Path) -> None:
    """Create an empty database in the folder, as initdb does; the caller must own the folder."""
    for part in ("global", "base"):
        (data / part).mkdir(mode=0o700, exist_ok=True)
    (data / "PG_VERSION").write_text(f"{MAJOR_VERSION}\n")
    (data / CONTROL_FILE).write_text("played by the lab\n")
    (data / CONTROL_FILE).chmod(0o600)
    with contextlib.closing(sqlite3.connect(data / DATABASE_FILE)) as connection, connection:
        connection.execute("CREATE TABLE write_ahead_log (position INTEGER)")
        connection.execute("INSERT INTO write_ahead_log VALUES (?)", [FIRST_POSITION])
    (data / DATABASE_FILE).chmod(0o600)


def check(data: Path) -> None:
    """Check the data directory as PostgreSQL does. Raises FatalError."""
    status = data.stat()
    if status.st_uid != os.geteuid():
        raise FatalError(
            f'data directory "{data}" has wrong ownership\n'
            "HINT:  The server must be started by the user that owns the data directory."
        )
    if status.st_mode & 0o027:
        raise FatalError(
            f'data directory "{data}" has invalid permissions\n'
            "DETAIL:  Permissions should be u=rwx (0700) or u=rwx,g=rx (0750)."
        )
    for name in ("PG_VERSION", CONTROL_FILE, DATABASE_FILE):
        try:
            (data / name).open("rb").close()
        except OSError as error:
            raise FatalError(f'could not open file "{name}": {error.strerror}') from None


@contextlib.contextmanager
def lock(data: Path) -> Iterator[None]:
    """Own the data directory. Raises FatalError if another server does.

    The lock file of a server that did not end by itself is replaced, unless a process of this user has its number:
    after a restore on a new machine that can be any of them (postgres src/backend/utils/init/miscinit.c).
    """
    file = data / LOCK_FILE
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        other = int(file.read_text().split()[0])
        if other not in (os.getpid(), os.getppid()):
            os.kill(other, 0)
            raise FatalError(
                f'lock file "{LOCK_FILE}" already exists\n'
                f'HINT:  Is another postmaster (PID {other}) running in data directory "{data}"?'
            )
    file.touch(mode=0o600)
    file.write_text(f"{os.getpid()}\n{data}\n{int(time.time())}\n5432\n{paths.POSTGRESQL}\n")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


class Session(socketserver.StreamRequestHandler):
    """The session of one client."""

    server: "Server"

    def handle(self) -> None:
        connection = sqlite3.connect(self.server.database, timeout=30, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a commit survives the loss of the volume, as in PostgreSQL
        connection.execute("PRAGMA foreign_keys = ON")
        connection.create_function("pg_current_wal_lsn", 0, lambda: _position(connection))
        try:
            for line in self.rfile:
                self.wfile.write(json.dumps(self._answer(connection, json.loads(line))).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client disconnected
        finally:
            connection.close()

    @staticmethod
    def _answer(connection: sqlite3.Connection, question: dict[str, Any]) -> dict[str, Any]:
        before = connection.total_changes
        try:
            cursor = connection.execute(question["sql"], question["parameters"])
            rows = [dict(row) for row in cursor.fetchall()]
            if changed := connection.total_changes - before:
                connection.execute("UPDATE write_ahead_log SET position = position + ?", [changed * ROW])
        except sqlite3.Error as error:
            return {"error": str(error)}
        return {"rows": rows, "id": cursor.lastrowid, "count": cursor.rowcount}


def _position(connection: sqlite3.Connection) -> str:
    """Return the end of the write-ahead log in PostgreSQL's format."""
    [position] = connection.execute("SELECT position FROM write_ahead_log").fetchone()
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A server with one thread per session; SQLite isolates the sessions."""

    daemon_threads = True

    def __init__(self, data: Path, socket: Path) -> None:
        self.database = data / DATABASE_FILE
        socket.unlink(missing_ok=True)
        super().__init__(str(socket), Session)
        socket.chmod(0o777)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        check(paths.POSTGRESQL_DATA)
        with lock(paths.POSTGRESQL_DATA):
            print("LOG:  database system is ready to accept connections", flush=True)
            Server(paths.POSTGRESQL_DATA, paths.POSTGRESQL_SOCKET).serve_forever()
    except FatalError as error:
        sys.exit(f"FATAL:  {error}")


if __name__ == "__main__":
    main()
