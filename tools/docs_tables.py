"""The tables of the documentation that are made of the code: `python -m tools.docs_tables NAME` writes one.

A table stands between two comments of its document, of which the first names the target of the Makefile.
"""

import argparse
import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from configuration import checks, reachability
from lab.workspace import ROOT, STATE
from settings import SmtpSettings

OPERATIONS = ROOT / "docs" / "operations.md"
SECURITY = ROOT / "SECURITY.md"
END_TO_END = ROOT / "tests/e2e"

MEASURED = STATE / "measured.json"
"""Seconds until a fault was healed, by fault and case: what the end-to-end tests measured last on this machine."""

EN_DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """A table in Markdown; `text` makes it."""

    name: str
    document: Path
    text: Callable[[], str]

    @property
    def begin(self) -> str:
        """The line before it."""
        return f"<!-- {self.name}: made by `make {self.name}-table` -->\n"

    @property
    def end(self) -> str:
        """The line after it."""
        return f"<!-- end of {self.name} -->\n"

    def shown(self) -> str:
        """The table as the document has it."""
        return self.document.read_text().split(self.begin)[1].split(self.end)[0]

    def write(self) -> None:
        """Put the table into the document."""
        before, rest = self.document.read_text().split(self.begin)
        _, after = rest.split(self.end)
        self.document.write_text(before + self.begin + self.text() + self.end + after)


@dataclass(frozen=True)
class Fault:
    """A row of the table of faults: the texts of a test's mark `fault(what, sees=..., heals=...)`."""

    what: str
    sees: str
    heals: str


def faults() -> list[Fault]:
    """Every fault that has an end-to-end test, in the order of the tests."""
    return [fault for file in sorted(END_TO_END.glob("test_*.py")) for fault in _marks(file)]


def _marks(file: Path) -> Iterator[Fault]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
            texts = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
            yield Fault(ast.literal_eval(node.args[0]), texts["sees"], texts["heals"])


def measured() -> dict[str, dict[str, int]]:
    """The content of `MEASURED`; empty when there is no such file."""
    return dict(json.loads(MEASURED.read_text())) if MEASURED.exists() else {}


def faults_table() -> str:
    """The table of faults, with the seconds measured last on this machine; a dash where nothing was."""
    known = measured()
    lines = ["| fault | what you see | what heals it | seconds |", "|---|---|---|---|"]
    for fault in faults():
        seconds = _seconds(known.get(fault.what, {}))
        lines.append(f"| {fault.what} | {fault.sees} | {fault.heals} | {seconds} |")
    return "\n".join(lines) + "\n"


def _seconds(cases: dict[str, int]) -> str:
    if len(cases) > 3:
        return f"{min(cases.values())}{EN_DASH}{max(cases.values())}"
    return ", ".join(f"{case} {value}".strip() for case, value in sorted(cases.items())) or EN_DASH


EXAMPLE = reachability.Example(
    web_port=443,
    smtp=SmtpSettings(address="mail.example.com", port=587, sender=""),
    client_cidrs=("192.0.2.0/24",),
    admin_cidrs=("203.0.113.0/24",),
)
"""A stack with a certificate and mail, whose clients and administrators are in networks of their own."""


def reachability_table() -> str:
    """Who reaches what of the stack `EXAMPLE`."""
    return reachability.table(EXAMPLE)


CHECKS = Table("checks", OPERATIONS, checks.table)
FAULTS = Table("faults", OPERATIONS, faults_table)
REACHABILITY = Table("reachability", SECURITY, reachability_table)
TABLES = {table.name: table for table in (CHECKS, FAULTS, REACHABILITY)}


def main() -> None:
    """Write the table that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs_tables", description=__doc__)
    parser.add_argument("table", choices=TABLES)
    TABLES[parser.parse_args().table].write()


if __name__ == "__main__":
    main()
