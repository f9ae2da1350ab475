"""What the tests of faults measure, and the table of docs/operations.md that is made of it.

A test of a fault carries the mark `fault(what, sees=..., heals=...)` and calls its fixture `measured` with the seconds
until the stack was proven again. `python -m tests.e2e.measured` writes the table.
"""

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.workspace import ROOT, STATE

MEASURED = STATE / "measured.json"
OPERATIONS = ROOT / "docs" / "operations.md"
BEGIN, END = "<!-- faults: made by `make faults-table` -->\n", "<!-- end of faults -->\n"


@dataclass(frozen=True)
class Fault:
    """A row of the table: the texts of the mark."""

    what: str
    sees: str
    heals: str


def faults() -> list[Fault]:
    """Every fault that has a test, in the order of the tests."""
    return [fault for file in sorted(Path(__file__).parent.glob("test_*.py")) for fault in _marks(file)]


def _marks(file: Path) -> Iterator[Fault]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
            texts = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
            yield Fault(ast.literal_eval(node.args[0]), texts["sees"], texts["heals"])


def record(what: str, case: str, seconds: float) -> None:
    """Keep the seconds of one case of a fault, for example of one machine."""
    known = _read()
    known.setdefault(what, {})[case] = round(seconds)
    MEASURED.write_text(json.dumps(known, indent=1))


def table() -> str:
    """The table in Markdown, with the seconds measured last on this machine; a dash where nothing was."""
    known = _read()
    lines = ["| fault | what you see | what heals it | seconds |", "|---|---|---|---|"]
    for fault in faults():
        cases = known.get(fault.what, {})
        seconds = ", ".join(f"{case} {value}".strip() for case, value in sorted(cases.items())) or "–"
        if len(cases) > 3:
            seconds = f"{min(cases.values())}–{max(cases.values())}"
        lines.append(f"| {fault.what} | {fault.sees} | {fault.heals} | {seconds} |")
    return "\n".join(lines) + "\n"


def _read() -> dict[str, dict[str, int]]:
    return dict(json.loads(MEASURED.read_text())) if MEASURED.exists() else {}


def main() -> None:
    before, rest = OPERATIONS.read_text().split(BEGIN)
    _, after = rest.split(END)
    OPERATIONS.write_text(before + BEGIN + table() + END + after)


if __name__ == "__main__":
    main()
