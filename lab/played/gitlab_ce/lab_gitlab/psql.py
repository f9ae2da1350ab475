"""Stand-in for `gitlab-psql`: runs one statement, given with -c, on the application's database.

Source: omnibus-gitlab 17.10.4+ce.0, config/software/gitlab-psql.rb. The output is psql's in the formats that this
project uses: tuples only (-t), with or without alignment (-A).
"""

import getopt
import re
import sys
from typing import Any

from lab_gitlab import paths
from lab_gitlab.database import Database, DatabaseError, Row

CONNECTION_FAILED, SCRIPT_FAILED = 2, 1
TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.(\d+))?Z")


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    if not paths.PSQL_RC.exists():
        print(
            f"{sys.argv[0]} error: could not load {paths.PSQL_RC}\n"
            "Either you are not allowed to read the file, or it does not exist yet.\n"
            "You can generate it with:   sudo gitlab-ctl reconfigure"
        )
        return 1
    options = dict(getopt.gnu_getopt(arguments, "tAqc:d:")[0])
    if "-c" not in options or "-t" not in options:
        print("gitlab-psql: the lab supports it only with -t and -c", file=sys.stderr)
        return 1
    try:
        rows = _ask(options["-c"])
    except DatabaseError as error:
        message = str(error)
        if message.startswith("PG::Error: "):
            print(f"ERROR:  {message[len('PG::Error: ') :]}", file=sys.stderr)
            return SCRIPT_FAILED
        print(f"psql: error: {message}", file=sys.stderr)
        return CONNECTION_FAILED
    for row in rows:
        values = [_shown(value) for value in row.values()]
        print("|".join(values) if "-A" in options else " " + " | ".join(values))
    if "-A" not in options:
        print()
    return 0


def _shown(value: Any) -> str:
    """Return a value as PostgreSQL formats it; stored times have the type `timestamp with time zone`."""
    if found := TIME.fullmatch(str(value)):
        day, time, fraction = found.groups(default="")
        return f"{day} {time}.{fraction}".rstrip("0").rstrip(".") + "+00" if fraction.strip("0") else f"{day} {time}+00"
    return "" if value is None else str(value)


def _ask(statement: str) -> list[Row]:
    database = Database()
    if statement.rstrip(";").lower() == "show server_version":
        database.query("SELECT 1")
        return [{"server_version": (paths.POSTGRESQL_DATA / "PG_VERSION").read_text().strip() + ".8"}]
    return database.query(statement)
