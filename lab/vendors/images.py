"""Root folders of small images, made of this machine's own programs: each brings the libraries it is linked to."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from lab.shell import call
from lab.workspace import LabError


def lay_out(root: Path, programs: Mapping[str, Path]) -> None:
    """Copy programs to their places below `root`, with their libraries."""
    for place, program in programs.items():
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(program, target)
        copy_libraries(program, root)


def copy_libraries(program: Path, root: Path) -> None:
    """Put the libraries that a program is linked to where it looks for them below `root`."""
    for library in libraries(call("ldd", str(program), check=False)):  # which fails for a static program: it has none
        target = root / library.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, target)


def libraries(listed: str) -> list[Path]:
    """The files in the output of ldd."""
    words = (line.split() for line in listed.splitlines())
    return sorted({Path(word) for line in words for word in line if word.startswith("/")})


def find_program(name: str) -> Path:
    """This machine's program of that name. Raises LabError when it is not there."""
    found = shutil.which(name)
    if found is None:
        raise LabError(f"{name} is not there: `python -m lab up` installs it when run as root")
    return Path(found)
