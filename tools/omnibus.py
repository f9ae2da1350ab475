"""omnibus-gitlab, the sources of GitLab's package: `make contract` asks its cookbooks what they make of our gitlab.rb.

`python -m tools.omnibus FOLDER` clones what CI asks: the version that the program installs unless told otherwise, and
the newest patch release of the newest required stop. Nothing of it is ever committed here.
"""

import subprocess
import sys
from pathlib import Path

import yaml

from configuration.upgrade_stops import REQUIRED_STOPS

REPOSITORY = "https://gitlab.com/gitlab-org/omnibus-gitlab.git"
EDITION = "+ce.0"
"""What a tag of GitLab CE has after its version."""

PROJECT = Path(__file__).resolve().parent.parent / "Pulumi.yaml"


def default_version() -> str:
    """`gitlabVersion` of a stack that does not set it."""
    version: str = yaml.safe_load(PROJECT.read_text())["config"]["gitlabVersion"]["default"]
    return version


def how_to_clone() -> str:
    """The command, for a person."""
    return f"git clone --depth 1 --branch {default_version()}{EDITION} {REPOSITORY} ../omnibus-gitlab"


def newest_patch(minor: str) -> str:
    """MAJOR.MINOR.PATCH of the newest release of MAJOR.MINOR that has a tag. Raises ValueError when there is none."""
    asked = ["git", "ls-remote", "--refs", REPOSITORY, f"refs/tags/{minor}.*{EDITION}"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[1::2]
    versions = [tag.removeprefix("refs/tags/").removesuffix(EDITION) for tag in listed]
    if not versions:
        raise ValueError(f"{REPOSITORY} has no tag {minor}.*{EDITION}")
    return max(versions, key=lambda version: int(version.rpartition(".")[2]))


def clone(version: str, folder: Path) -> None:
    """The tag of that version, without history, as a folder of its name in `folder`, unless it is there."""
    if not (folder / version).exists():
        clone = ["git", "clone", "--quiet", "--depth", "1", "--config", "advice.detachedHead=false"]
        subprocess.run([*clone, "--branch", f"{version}{EDITION}", REPOSITORY, folder / version], check=True)


def main() -> int:
    """Clone into the folder that is named. Returns 1 when git fails, which has said why."""
    folder = Path(sys.argv[1])
    try:
        for version in (default_version(), newest_patch(REQUIRED_STOPS[-1])):
            clone(version, folder)
            print(folder / version)
    except (subprocess.CalledProcessError, ValueError) as error:
        print(f"omnibus-gitlab was not cloned: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
