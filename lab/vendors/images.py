"""Root folders of small images, with programs of the host and the libraries they are linked to."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from lab.shell import call
from lab.workspace import LabError

BUNDLE = "etc/ssl/certs/ca-certificates.crt"
"""The authorities that an image trusts, at the path of Alpine and of Debian's curl and git. The lab's public authority
is the only one. Containers do not know the other certificates that their machine trusts.
"""


def lay_out(root: Path, files: Mapping[str, Path]) -> None:
    """Copy files, and the libraries of those that are programs, to their paths below `root`."""
    for place, file in files.items():
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
        copy_libraries(file, root)


def copy_libraries(program: Path, root: Path) -> None:
    """Copy the libraries that a program is linked to to the same paths below `root`."""
    for library in libraries(call("ldd", str(program), check=False)):  # ldd fails for a file without any
        target = root / library.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, target)


def libraries(listed: str) -> list[Path]:
    """Return the files in the output of ldd."""
    words = (line.split() for line in listed.splitlines())
    return sorted({Path(word) for line in words for word in line if word.startswith("/")})


def find_program(name: str) -> Path:
    """Return the path of a program of the host. Raises LabError if it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise LabError(f"{name} is not installed: run `python -m lab up` as root, which installs it")
    return Path(found)
