"""Real parts in place of the lab's stand-ins: `LAB_PARTS` is a folder with some or all of them.

They are programs for Linux on x86_64, and packages of GitLab CE. The folder is outside of the clone.
"""

import os
import re
from pathlib import Path

from lab.workspace import STATE, LabError

VARIABLE = "LAB_PARTS"

COMMAND_PLUGIN = "pulumi-resource-command"
RUNNER = "gitlab-runner"
REGISTRY = "registry"
GITLAB = "gitlab-ce"

KNOWN = {
    COMMAND_PLUGIN: "Pulumi's command plugin 1.2.1",
    RUNNER: "gitlab-runner 17.10.1",
    REGISTRY: "GitLab's container registry 4.15.2",
    GITLAB: "GitLab's own package of GitLab CE",
}
PROGRAMS = (COMMAND_PLUGIN, RUNNER, REGISTRY)
"""Parts with a file of the same name; files of packages are named like the package (GITLAB_PACKAGE)."""

GITLAB_PACKAGE = re.compile(r"gitlab-ce-(\d+\.\d+\.\d+)-ce\.0\.el8\.x86_64\.rpm")

IN_PLACE = STATE / "parts"
"""Contains an empty file for each real part in use, for `make status`, which may run without `LAB_PARTS`."""


def find(name: str) -> Path | None:
    """Return the real program with this name; None if the stand-in is to be used.

    Raises LabError if `LAB_PARTS` is not a folder, or contains a file that is not a part or not executable.
    """
    return _offered().get(name)


def gitlab_packages() -> dict[str, Path]:
    """Return GitLab's own packages by version; none if the stand-in is to be used. Raises LabError like `find`."""
    return {found[1]: file for name, file in _offered().items() if (found := GITLAB_PACKAGE.fullmatch(name))}


def note(name: str, *, real: bool) -> None:
    """Record whether the real part or its stand-in is in use."""
    record = IN_PLACE / name
    if real:
        IN_PLACE.mkdir(parents=True, exist_ok=True)
        record.touch()
    else:
        record.unlink(missing_ok=True)


def in_place() -> set[str]:
    """Return the names of the real parts in use, regardless of the current `LAB_PARTS`."""
    return {name for name in KNOWN if (IN_PLACE / name).exists()}


def _offered() -> dict[str, Path]:
    given = os.environ.get(VARIABLE)
    if not given:
        return {}
    folder = Path(given).resolve()
    names = ", ".join([*PROGRAMS, "gitlab-ce-VERSION-ce.0.el8.x86_64.rpm"])
    if not folder.is_dir():
        raise LabError(f"{VARIABLE}={given} is not a folder: set it to a folder with any of {names}, or unset it")
    found = {file.name: file for file in sorted(folder.iterdir())}
    for name, file in found.items():
        if GITLAB_PACKAGE.fullmatch(name):
            continue
        if name not in PROGRAMS:
            raise LabError(f"{file}: not the name of a part; {VARIABLE} may contain {names}: remove the file")
        if not (file.is_file() and os.access(file, os.X_OK)):
            raise LabError(f"{file}: must be {KNOWN[name]} as an executable file: chmod +x it, or remove it")
    return found
