"""The product with one change: a wrong program, as written by an author who does not know an AWS behaviour."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.workspace import ROOT, STATE

Edits = Mapping[str, Sequence[tuple[str, str]]]
"""For each file of the program: texts that occur in it exactly once, and their replacements."""

PRODUCT = (
    *("Pulumi.yaml", "Pulumi.dev.yaml", "__main__.py", "settings.py", "doctor.py", "doctor_ssh.py"),
    *("acceptance", "components", "configuration", "cloud-init", "programs", "recovery", "remote", "validation"),
)

IMPATIENT: Edits = {
    "configuration/checks.py": [("NEW_BALANCER = 300", "NEW_BALANCER = 6")],
    "programs/acceptance_checks/clients.py": [("TIMEOUT = 10  # seconds", "TIMEOUT = 3  # seconds")],
}
"""An acceptance without the minutes of waiting that a new load balancer of AWS needs."""


@contextmanager
def changed_program(*changes: Edits) -> Iterator[Path]:
    """A copy of this clone's program with these edits, in a separate folder."""
    folder = STATE / "changed-program"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        for name in PRODUCT:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / name)
        (folder / ".venv").symlink_to(ROOT / ".venv")
        for change in changes:
            for name, edits in change.items():
                _edit(folder / name, edits)
        yield folder
    finally:
        shutil.rmtree(folder)


def _edit(file: Path, edits: Sequence[tuple[str, str]]) -> None:
    text = file.read_text()
    for old, new in edits:
        assert text.count(old) == 1, f"{file.name} contains {text.count(old)} times: {old}"
        text = text.replace(old, new)
    file.write_text(text)
