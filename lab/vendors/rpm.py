"""Builds packages with rpmbuild, in a folder that is gone afterwards."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lab.shell import call
from lab.workspace import CACHE, LabError

MACROS = Path(__file__).parent / "packages" / "macros"


def build(spec: Path, output: Path, macros: Mapping[str, str] | None = None) -> list[Path]:
    """Build the packages of a spec into `output`; its sources are what lies beside it.

    Raises LabError with rpmbuild's words when it fails.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rpmbuild-", dir=CACHE) as folder:
        defined = {
            "_topdir": folder,
            "_dbpath": f"{folder}/database",  # else ~/.rpmdb
            "_sourcedir": str(spec.parent),
            **(macros or {}),
        }
        defines = (f"--define={name} {value}" for name, value in defined.items())
        call("rpmbuild", "-bb", "--quiet", f"--load={MACROS}", *defines, str(spec))
        return [Path(shutil.move(file, output)) for file in sorted(Path(folder, "RPMS").glob("*/*.rpm"))]


def take(package: Path, output: Path) -> Path:
    """A copy of a package in `output`. Raises LabError when the file is not the package that its name says."""
    # Without the check of a signature whose key is not known here.
    held = call("rpm", "--nosignature", "-qp", "--queryformat=%{NVRA}.rpm", str(package))
    if held != package.name:
        raise LabError(f"{package}: it holds {held}: name it so, or move it away")
    output.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(package, output))


def index(repository: Path, advisories: Path | None = None) -> None:
    """Write the repository's metadata; dnf takes from `advisories`, an updateinfo.xml, what is a security update."""
    call("createrepo_c", "--quiet", str(repository))
    if advisories:
        call("modifyrepo_c", "--mdtype=updateinfo", str(advisories), str(repository / "repodata"))
