"""Stand-in for PostgreSQL's pg_dump: reads every row of the application's database and writes it as SQL.

The database's user must be allowed to log in: with peer authentication, only the system user gitlab-psql is.
Source: postgres src/bin/pg_dump/pg_dump.c (messages).
"""

import getopt
import os
import sys

from lab_gitlab import accounts, paths
from lab_gitlab.database import Database, DatabaseError


def main(arguments: list[str]) -> int:
    """Usage: pg_dump -h FOLDER_OF_THE_SOCKET DATABASE. Returns the exit code."""
    options, names = getopt.gnu_getopt(arguments, "h:")
    where = f'connection to server on socket "{dict(options).get("-h", "/tmp")}/.s.PGSQL.5432" failed'
    if paths.at(dict(options).get("-h", "/tmp")) != paths.POSTGRESQL:
        return _fail(f"{where}: No such file or directory")
    if os.geteuid() != accounts.owner("gitlab-psql").uid:
        return _fail(f"{where}: FATAL:  Peer authentication failed")
    if names != ["gitlabhq_production"]:
        return _fail(f'{where}: FATAL:  database "{" ".join(names)}" does not exist')
    try:
        _dump(Database())
    except DatabaseError as error:
        return _fail(f"query failed: {str(error).replace('PG::Error: ', 'ERROR:  ')}")
    return 0


def _dump(database: Database) -> None:
    [check] = database.query("PRAGMA integrity_check(1)")
    if check["integrity_check"] != "ok":
        raise DatabaseError(f"PG::Error: invalid page: {check['integrity_check']}")
    print("--\n-- PostgreSQL database dump\n--\n")
    for table in database.query("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"):
        print(f"COPY public.{table['name']} FROM stdin;")
        for row in database.query(f"SELECT * FROM {table['name']}"):
            print(*("\\N" if value is None else value for value in row.values()), sep="\t")
        print("\\.\n")
    print("--\n-- PostgreSQL database dump complete\n--\n")


def _fail(message: str) -> int:
    print(f"pg_dump: error: {message}", file=sys.stderr)
    return 1
