"""The application's client of the database server."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lab_gitlab import paths

Row = dict[str, Any]


class DatabaseError(Exception):
    """Stands in for PG::ConnectionBad and similar errors."""


class Database:
    """Runs statements in one session per thread, which is opened when first needed."""

    def __init__(self) -> None:
        self._local = threading.local()

    def query(self, sql: str, *parameters: Any) -> list[Row]:
        rows: list[Row] = self._ask(sql, parameters)["rows"]
        return rows

    def first(self, sql: str, *parameters: Any) -> Row | None:
        rows = self.query(sql, *parameters)
        return rows[0] if rows else None

    def execute(self, sql: str, *parameters: Any) -> None:
        self._ask(sql, parameters)

    def insert(self, table: str, values: Mapping[str, Any]) -> int:
        """Insert a row and return its id."""
        columns, marks = ", ".join(values), ", ".join("?" * len(values))
        answer = self._ask(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(values.values()))
        return int(answer["id"])

    def update(self, table: str, row_id: int, values: Mapping[str, Any]) -> None:
        if values:
            assignments = ", ".join(f"{column} = ?" for column in values)
            self.execute(f"UPDATE {table} SET {assignments} WHERE id = ?", *values.values(), row_id)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in a transaction; an exception rolls it back."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def close(self) -> None:
        """Close this thread's session."""
        connection = self._local.__dict__.pop("connection", None)
        if connection:
            connection.close()

    def _ask(self, sql: str, parameters: tuple[Any, ...]) -> dict[str, Any]:
        try:
            stream = self._stream()
            stream.write(json.dumps({"sql": sql, "parameters": parameters}).encode() + b"\n")
            stream.flush()
            line = stream.readline()
            if not line:
                raise ConnectionError("server closed the connection unexpectedly")
        except OSError as error:
            self.close()
            raise DatabaseError(
                f'connection to server on socket "{paths.POSTGRESQL_SOCKET}" failed: {error.strerror or error}'
            ) from None
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise DatabaseError(f"PG::Error: {answer['error']}")
        return answer

    def _stream(self) -> Any:
        if not hasattr(self._local, "connection"):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(60)
            connection.connect(str(paths.POSTGRESQL_SOCKET))
            self._local.connection = connection.makefile("rwb")
            connection.close()  # the stream keeps the socket open
        return self._local.connection
