"""The version that the package was built with."""

from lab_gitlab.paths import RAILS

PLAYED = "17.10.4"


def version() -> str:
    """As in GitLab's own VERSION file; in the repository, where no package was built, the version that is played."""
    file = RAILS / "VERSION"
    return file.read_text().strip() if file.exists() else PLAYED


def revision() -> str:
    """What the real package has in REVISION is a commit of GitLab; here it only has to differ between versions."""
    return f"lab-{version()}"
