"""Version of the package, as `gitlab-runner --version` prints it."""

import hashlib
import platform
from pathlib import Path

PLAYED = "17.10.1"
REVISIONS = {PLAYED: "ef334dcc"}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def version() -> str:
    """As the package was built; in the repository the version that is played."""
    file = Path(__file__).with_name("VERSION")
    return file.read_text().strip() if file.exists() else PLAYED


def revision() -> str:
    """The real commit where it is known, else something that differs between versions."""
    return REVISIONS.get(version()) or hashlib.sha256(version().encode()).hexdigest()[:8]


def architecture() -> str:
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def extended() -> str:
    branch = "-".join(version().split(".")[:2]) + "-stable"
    return (
        f"Version:      {version()}\n"
        f"Git revision: {revision()}\n"
        f"Git branch:   {branch}\n"
        "GO version:   go1.23.6 X:cacheprog\n"
        "Built:        2025-03-26T12:24:33Z\n"
        f"OS/Arch:      linux/{architecture()}\n"
    )
