"""omnibus-gitlab, the source of GitLab's package: `make contract` tests our gitlab.rb against its cookbooks.

`python -m tools.omnibus FOLDER` clones the versions that CI tests: the default of `gitlabVersion`, and the newest patch
release of the newest required stop. They are never committed to this repository.
"""

import subprocess
import sys
from pathlib import Path

import yaml

from configuration.upgrade_stops import REQUIRED_STOPS

REPOSITORY = "https://gitlab.com/gitlab-org/omnibus-gitlab.git"
EDITION = "+ce.0"
"""Suffix of the tags of GitLab CE."""

PROJECT = Path(__file__).resolve().parent.parent / "Pulumi.yaml"


def default_version() -> str:
    """The default of `gitlabVersion`."""
    version: str = yaml.safe_load(PROJECT.read_text())["config"]["gitlabVersion"]["default"]
    return version


def how_to_clone() -> str:
    """The command that clones the default version, for messages."""
    return f"git clone --depth 1 --branch {default_version()}{EDITION} {REPOSITORY} ../omnibus-gitlab"


def newest_patch(minor: str) -> str:
    """The newest tagged patch release of MAJOR.MINOR, as MAJOR.MINOR.PATCH. Raises ValueError if there is none."""
    asked = ["git", "ls-remote", "--refs", REPOSITORY, f"refs/tags/{minor}.*{EDITION}"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[1::2]
    versions = [tag.removeprefix("refs/tags/").removesuffix(EDITION) for tag in listed]
    if not versions:
        raise ValueError(f"{REPOSITORY} has no tag {minor}.*{EDITION}")
    return max(versions, key=lambda version: int(version.rpartition(".")[2]))


def clone(version: str, folder: Path) -> None:
    """Clone the tag of a version, without history, into a folder of that name in `folder`, unless it exists."""
    if not (folder / version).exists():
        clone = ["git", "clone", "--quiet", "--depth", "1", "--config", "advice.detachedHead=false"]
        subprocess.run([*clone, "--branch", f"{version}{EDITION}", REPOSITORY, folder / version], check=True)


def main() -> int:
    """Clone into the folder of the command line. Returns 1 if that fails; git prints the reason."""
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
