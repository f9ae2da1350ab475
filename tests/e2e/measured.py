"""What the tests of faults measure, for the table of docs/operations.md (tools/docs_tables.py).

A test of a fault carries the mark `fault(what, sees=..., heals=...)` and calls its fixture `measured` with the seconds
until the stack was proven again.
"""

import json

from tools.docs_tables import MEASURED, measured


def record(what: str, case: str, seconds: float) -> None:
    """Keep the seconds of one case of a fault, for example of one machine."""
    known = measured()
    known.setdefault(what, {})[case] = round(seconds)
    MEASURED.write_text(json.dumps(known, indent=1))
