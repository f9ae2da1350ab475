"""Real parts in the places of those that the lab plays: `LAB_PARTS` names a folder with some or all of them.

They are for Linux on x86_64: programs, and packages of GitLab CE. Whoever has them keeps them outside the clone.
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
"""Those whose file has the part's name; that of a package has the package's (GITLAB_PACKAGE)."""

GITLAB_PACKAGE = re.compile(r"gitlab-ce-(\d+\.\d+\.\d+)-ce\.0\.el8\.x86_64\.rpm")

IN_PLACE = STATE / "parts"
"""An empty file for each real part that is in its place: `make status` may be asked without `LAB_PARTS`."""


def find(name: str) -> Path | None:
    """The real program of this name; None when the part is to be played.

    Raises LabError when `LAB_PARTS` is no folder, or when it holds something that is no part or cannot be executed.
    """
    return _offered().get(name)


def gitlab_packages() -> dict[str, Path]:
    """GitLab's own packages by their versions; none when GitLab is to be played. Raises LabError as `find` does."""
    return {found[1]: file for name, file in _offered().items() if (found := GITLAB_PACKAGE.fullmatch(name))}


def note(name: str, *, real: bool) -> None:
    """Remember that the real part is in its place now, or else what plays it."""
    record = IN_PLACE / name
    if real:
        IN_PLACE.mkdir(parents=True, exist_ok=True)
        record.touch()
    else:
        record.unlink(missing_ok=True)


def in_place() -> set[str]:
    """Names of the real parts that are in their places, whatever `LAB_PARTS` says by now."""
    return {name for name in KNOWN if (IN_PLACE / name).exists()}


def _offered() -> dict[str, Path]:
    given = os.environ.get(VARIABLE)
    if not given:
        return {}
    folder = Path(given).resolve()
    names = ", ".join([*PROGRAMS, "gitlab-ce-VERSION-ce.0.el8.x86_64.rpm"])
    if not folder.is_dir():
        raise LabError(f"{VARIABLE}={given} is no folder: name one that holds any of {names}, or unset it")
    found = {file.name: file for file in sorted(folder.iterdir())}
    for name, file in found.items():
        if GITLAB_PACKAGE.fullmatch(name):
            continue
        if name not in PROGRAMS:
            raise LabError(f"{file}: no part has that name; {VARIABLE} may hold {names}: move it away")
        if not (file.is_file() and os.access(file, os.X_OK)):
            raise LabError(f"{file}: it must be {KNOWN[name]} as an executable file: chmod +x it, or move it away")
    return found
