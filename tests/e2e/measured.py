"""Measurements of the tests of faults, for the table in docs/operations.md (tools/docs_tables.py).

A test of a fault has the mark `fault(what, sees=..., heals=...)`, and calls its fixture `measured` with the seconds
until the stack passed again.
"""

import json

from tools.docs_tables import MEASURED, measured


def record(what: str, case: str, seconds: float) -> None:
    """Store the seconds of one case of a fault, for example of one machine."""
    known = measured()
    known.setdefault(what, {})[case] = round(seconds)
    MEASURED.write_text(json.dumps(known, indent=1))
