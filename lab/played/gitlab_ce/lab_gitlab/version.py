"""The version of the package."""

from lab_gitlab.paths import RAILS

DEFAULT_VERSION = "17.10.4"


def version() -> str:
    """Return the content of GitLab's VERSION file; in the repository, where it does not exist, the default version."""
    file = RAILS / "VERSION"
    return file.read_text().strip() if file.exists() else DEFAULT_VERSION


def revision() -> str:
    """Return a value that differs between versions; in the real package REVISION is a commit of GitLab."""
    return f"lab-{version()}"
