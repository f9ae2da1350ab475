"""Builds packages with rpmbuild in a temporary folder."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lab.shell import call
from lab.workspace import CACHE, LabError

MACROS = Path(__file__).parent / "packages" / "macros"


def build(spec: Path, output: Path, macros: Mapping[str, str] | None = None) -> list[Path]:
    """Build the packages of a spec into `output`; its sources are the files in its folder.

    Raises LabError with rpmbuild's message if it fails.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rpmbuild-", dir=CACHE) as folder:
        defined = {
            "_topdir": folder,
            "_dbpath": f"{folder}/database",  # instead of ~/.rpmdb
            "_sourcedir": str(spec.parent),
            **(macros or {}),
        }
        defines = (f"--define={name} {value}" for name, value in defined.items())
        call("rpmbuild", "-bb", "--quiet", f"--load={MACROS}", *defines, str(spec))
        return [Path(shutil.move(file, output)) for file in sorted(Path(folder, "RPMS").glob("*/*.rpm"))]


def take(package: Path, output: Path) -> Path:
    """Copy a package to `output`. Raises LabError if the file's name is not that of the package in it."""
    # The signature is not checked, because its key is not known here.
    name = call("rpm", "--nosignature", "-qp", "--queryformat=%{NVRA}.rpm", str(package))
    if name != package.name:
        raise LabError(f"{package}: the package in it is {name}: rename the file, or remove it")
    output.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(package, output))


def index(repository: Path, advisories: Path | None = None) -> None:
    """Write the repository's metadata. `advisories`, an updateinfo.xml, declares which updates are security updates."""
    call("createrepo_c", "--quiet", str(repository))
    if advisories:
        call("modifyrepo_c", "--mdtype=updateinfo", str(advisories), str(repository / "repodata"))
