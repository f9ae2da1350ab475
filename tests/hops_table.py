"""The table of hops in docs/operations.md. `python -m tests.hops_table` writes it."""

from pathlib import Path

from configuration import hops

OPERATIONS = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
BEGIN, END = "<!-- hops: made by `make hops-table` -->\n", "<!-- end of hops -->\n"


def shown() -> str:
    """The table as the document has it."""
    return OPERATIONS.read_text().split(BEGIN)[1].split(END)[0]


def main() -> None:
    before, rest = OPERATIONS.read_text().split(BEGIN)
    _, after = rest.split(END)
    OPERATIONS.write_text(before + BEGIN + hops.table() + END + after)


if __name__ == "__main__":
    main()
