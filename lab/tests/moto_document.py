"""The table and the reproductions of docs/moto.md, which run against moto as published and against the lab's."""

import ast
import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lab.cloud import patches
from lab.workspace import ROOT

TEXT = (ROOT / "docs/moto.md").read_text()
ROW = re.compile(r"^\| `(?P<file>[\w/]+\.py)` `(?P<function>\w+)` \| .+ \| .+ \| (?P<upstream>.+) \|$", re.MULTILINE)
SECTION = re.compile(
    r"^## (?P<number>\d+)\. .+\n\n```python\n(?P<code>(?:.*\n)+?)```\n\n- AWS: `(?P<aws>.+?)`\.\s(?:.+\n)+?"
    r"- moto: `(?P<moto>.+?)`\.\s",
    re.MULTILINE,
)
ONCE, EACH = re.findall(r"^```python\n((?:.*\n)+?)```$", TEXT, re.MULTILINE)[:2]
"""The code in front of the sections."""


@dataclass(frozen=True)
class Row:
    """A row of the table. `upstream` has the issues of moto and the section."""

    file: str
    function: str
    upstream: str

    @property
    def section(self) -> int | None:
        found = re.search(r"section (\d+)", self.upstream)
        return int(found[1]) if found else None

    @property
    def issues(self) -> set[tuple[str, str]]:
        """Number and state, as in the document."""
        return set(re.findall(r"\[#(\d+)\]\([^)]+\), (\w+)", self.upstream))


@dataclass(frozen=True)
class Section:
    """A section. `aws` and `moto` are the values of the code's last line, as Python prints them."""

    number: int
    code: str
    aws: str
    moto: str


ROWS = [Row(**found.groupdict()) for found in ROW.finditer(TEXT)]
SECTIONS = [
    Section(int(found["number"]), found["code"], found["aws"], found["moto"]) for found in SECTION.finditer(TEXT)
]


def value(code: str, names: dict[str, Any]) -> str:
    """Return the value of the code's last line, as Python prints it."""
    *lines, last = ast.parse(code).body
    assert isinstance(last, ast.Expr), "the last line of a reproduction must be an expression"
    exec(compile(ast.Module(lines, []), "docs/moto.md", "exec"), names)
    return repr(eval(compile(ast.Expression(last.value), "docs/moto.md", "eval"), names))


# --- moto as published -----------------------------------------------------------------------------------

_ABSENT = object()
_corrected: list[tuple[Any, str, Any, Any]] = []
"""Module or class, name, moto's own value, corrected value."""


def apply_corrections() -> None:
    """Apply the corrections as the lab does, and record moto's own values."""
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "moto"]
    classes = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    before = [(owner, dict(vars(owner))) for owner in (*modules, *classes)]
    patches.apply()
    for owner, names in before:
        for name, now in vars(owner).items():
            if now is not names.get(name, _ABSENT):
                _corrected.append((owner, name, names.get(name, _ABSENT), now))


@contextlib.contextmanager
def as_published() -> Iterator[None]:
    """Run the block with moto without the corrections."""
    assert _corrected, "something applied the corrections before lab/tests/cloud.py did"
    for owner, name, original, _ in _corrected:
        if original is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, original)
    try:
        yield
    finally:
        for owner, name, _, corrected in _corrected:
            setattr(owner, name, corrected)
