"""Records and their validation, as ActiveRecord provides them in GitLab.

A record is a dict of its columns. Console and API use the same models, so both reject the same values.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lab_gitlab.application import Application

FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
"""Of stored times."""

Record = dict[str, Any]
Errors = list[tuple[str, str]]
"""Pairs of attribute and message; the attribute "base" means the whole record."""


@dataclass(frozen=True)
class Column:
    """A column. `kind` is integer, text, boolean, time (UTC), date, list or json (any JSON value)."""

    kind: str = "text"
    default: Any = None


class UnknownAttributeError(Exception):
    """ActiveModel::UnknownAttributeError."""


class RecordInvalidError(Exception):
    """ActiveRecord::RecordInvalid."""

    def __init__(self, errors: Errors) -> None:
        self.errors = errors
        super().__init__(f"Validation failed: {', '.join(full_messages(errors))}")


class Model:
    """One table. Subclasses override `validate`, `before_save` and `before_destroy`."""

    name: ClassVar[str]
    table: ClassVar[str]
    columns: ClassVar[Mapping[str, Column]]
    virtual: ClassVar[Sequence[str]] = ()
    """Attributes that can be set but are not stored, such as a password."""
    scopes: ClassVar[Mapping[str, str]] = {}
    """Named conditions in SQL."""
    base: ClassVar[dict[str, Any]] = {}
    """Column values common to all records of this model, for models that share a table."""

    # Rules

    def validate(self, _app: Application, _record: Record) -> Errors:
        """Return the errors of a record before it is saved; a new record has no id yet."""
        return []

    def before_save(self, app: Application, record: Record) -> None:
        """Complete a valid record before it is saved."""

    def before_destroy(self, app: Application, record: Record) -> None:
        """Delete everything that belongs to the record."""

    # Reading

    def select(
        self,
        app: Application,
        where: Mapping[str, Any] | None = None,
        *,
        unlike: Mapping[str, Any] | None = None,
        scopes: Sequence[str] = (),
        order: Sequence[tuple[str, str]] = (("id", "asc"),),
        limit: int | None = None,
    ) -> list[Record]:
        """Return the records whose columns equal `where` and differ from `unlike`; a list matches any of its values.

        Raises UnknownAttributeError for an unknown column.
        """
        conditions, parameters = [f"({self.scopes[scope]})" for scope in scopes], []
        wanted = [(False, column, value) for column, value in {**self.base, **(where or {})}.items()]
        for negated, column, value in [*wanted, *((True, column, value) for column, value in (unlike or {}).items())]:
            values = value if isinstance(value, list) else [value]
            self._require(column)
            condition = " OR ".join([f"{column} IS ?"] * len(values)) or "0"
            conditions.append(_negation(column, condition, values) if negated else condition)
            parameters += [self._stored(column, value) for value in values]
        sql = f"SELECT * FROM {self.table} WHERE {' AND '.join(f'({part})' for part in conditions) or '1'}"
        sql += " ORDER BY " + ", ".join(
            f"{column} {'DESC' if direction == 'desc' else 'ASC'}" for column, direction in order
        )
        if limit is not None:
            sql += f" LIMIT {limit}"
        return [self._loaded(row) for row in app.database.query(sql, *parameters)]

    def find(self, app: Application, **where: Any) -> Record | None:
        found = self.select(app, where, limit=1)
        return found[0] if found else None

    # Writing

    def create(self, app: Application, **attributes: Any) -> Record:
        """Raises RecordInvalidError, UnknownAttributeError."""
        return self.save(app, None, attributes)

    def update(self, app: Application, record: Record, **attributes: Any) -> Record:
        """Raises RecordInvalidError, UnknownAttributeError."""
        return self.save(app, record["id"], attributes)

    def save(self, app: Application, record_id: int | None, attributes: Mapping[str, Any]) -> Record:
        """Create (without id) or update a record and return it, with the virtual attributes that `before_save` set."""
        for attribute in attributes:
            self._require(attribute, virtual=True)
        record: Record
        if record_id is None:
            record = {name: column.default for name, column in self.columns.items()} | {"id": None} | self.base
            if "created_at" in self.columns:
                record["created_at"] = now()
        else:
            record = self.select(app, {"id": record_id})[0]
        before = dict(record)
        record |= {name: self._assigned(name, value) for name, value in attributes.items()}
        errors = self.validate(app, record)
        if errors:
            raise RecordInvalidError(errors)
        self.before_save(app, record)
        changed = {
            name: self._stored(name, record[name])
            for name in self.columns
            if record_id is None or record[name] != before[name]
        }
        if record_id is None:
            record["id"] = app.database.insert(self.table, changed)
        else:
            app.database.update(self.table, record_id, changed)
        return record

    def update_all(self, app: Application, records: Sequence[Record], changes: Mapping[str, Any]) -> None:
        """Change columns without validation, as `update_all` does. Raises UnknownAttributeError."""
        for column in changes:
            self._require(column)
        stored = {name: self._stored(name, self._assigned(name, value)) for name, value in changes.items()}
        for record in records:
            app.database.update(self.table, record["id"], stored)

    def destroy(self, app: Application, record: Record) -> None:
        self.before_destroy(app, record)
        app.database.execute(f"DELETE FROM {self.table} WHERE id = ?", record["id"])

    def token(self, app: Application, record: Record) -> str | None:
        """Return the decrypted token of a record whose model stores it encrypted. Raises DecryptionError."""
        encrypted = record.get("token_encrypted")
        return app.cipher.decrypt(encrypted) if encrypted else None

    # Types

    def _require(self, name: str, *, virtual: bool = False) -> None:
        if name != "id" and name not in self.columns and not (virtual and name in self.virtual):
            raise UnknownAttributeError(f"unknown attribute '{name}' for {self.name}.")

    def _assigned(self, name: str, value: Any) -> Any:
        column = self.columns.get(name)
        if column and column.kind == "list" and isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        if column and column.kind == "date" and value is not None:
            return str(value)[:10]
        if column and column.kind == "time" and value is not None and str(value).endswith(" UTC"):  # Ruby's format
            return datetime.datetime.fromisoformat(value.replace(" UTC", "Z")).strftime(FORMAT)
        return value

    def _stored(self, name: str, value: Any) -> Any:
        kind = self.columns[name].kind if name in self.columns else "integer"
        if kind in ("list", "json") and value is not None:
            return json.dumps(value)
        if kind == "boolean" and value is not None:
            return int(bool(value))
        return value

    def _loaded(self, row: Record) -> Record:
        record = dict(row)
        for name, column in self.columns.items():
            value = record.get(name)
            if column.kind == "list":
                record[name] = json.loads(value) if value else []
            elif column.kind == "json":
                record[name] = json.loads(value) if value else None
            elif column.kind == "boolean" and value is not None:
                record[name] = bool(value)
        return record


def _negation(column: str, condition: str, values: Sequence[Any]) -> str:
    """Return a condition's opposite, as `where.not` writes it: in SQL, NULL does not differ from a value."""
    return f"NOT ({condition})" + ("" if None in values else f" AND {column} IS NOT NULL")


def full_messages(errors: Errors) -> list[str]:
    """Return messages as Rails formats them: the attribute's name, then the message."""
    return [
        message if attribute == "base" else f"{attribute.replace('_', ' ').capitalize()} {message}"
        for attribute, message in errors
    ]


def now() -> str:
    """Return the current time in the stored format."""
    return after(0)


def after(seconds: int) -> str:
    """Return the time in so many seconds, in the stored format."""
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)).strftime(FORMAT)


def shown(moment: str | None) -> str | None:
    """Return a stored time as the API shows it, in milliseconds."""
    return moment and f"{moment[:23]}Z"


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Return the seconds between two stored times; None if one of them is not set."""
    if start is None or end is None:
        return None
    return (datetime.datetime.fromisoformat(end) - datetime.datetime.fromisoformat(start)).total_seconds()
