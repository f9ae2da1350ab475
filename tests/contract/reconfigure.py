"""Runs the cookbooks of GitLab's package on a gitlab.rb, with reconfigure.rb, without applying anything."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from configuration.paths import INITIAL_ROOT_PASSWORD, TOKEN_CERTIFICATE, TOKEN_KEY

HERE = Path(__file__).parent
KEPT_FILES = {TOKEN_KEY: "the key", TOKEN_CERTIFICATE: "the certificate", INITIAL_ROOT_PASSWORD: "first-Secret-4711\n"}
"""Files that gitlab.rb reads on the machine, with their content."""


@dataclass(frozen=True)
class Checkout:
    """A checkout of the source of GitLab's package. Raises ValueError for any other folder."""

    folder: Path

    def __post_init__(self) -> None:
        for needed in ("VERSION", "files/gitlab-cookbooks/gitlab/recipes/default.rb"):
            if not (self.folder / needed).is_file():
                raise ValueError(f"{self.folder} is not a checkout of omnibus-gitlab")

    @property
    def version(self) -> str:
        return (self.folder / "VERSION").read_text().strip()

    def __str__(self) -> str:
        return self.version


@dataclass(frozen=True, kw_only=True)
class Reconfigured:
    """The result. `folder` has the files that the package wrote; `refusal` is the error that stopped it, if any."""

    folder: Path
    said: list[dict[str, str]]
    refusal: str = ""
    unknown: list[str] = field(default_factory=list)
    recipes: list[str] = field(default_factory=list)
    accounts: list[tuple[str, str, int | None]] = field(default_factory=list)
    environments: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Why this gitlab.rb must not be installed on a machine."""
        refusals = [self.refusal] if self.refusal else []
        return refusals + self.messages("removal") + [f"unknown: {key}" for key in self.unknown]

    def messages(self, *kinds: str) -> list[str]:
        return [said["message"] for said in self.said if said["kind"] in kinds]

    def file(self, path: str) -> str:
        return (self.folder / path.lstrip("/")).read_text()


def reconfigure(checkout: Checkout, gitlab_rb: str, folder: Path) -> Reconfigured:
    for number, (path, content) in enumerate(KEPT_FILES.items()):
        kept = folder / f"kept-{number}"
        kept.write_text(content)
        gitlab_rb = gitlab_rb.replace(path, str(kept))
    (folder / "gitlab.rb").write_text(gitlab_rb)
    done = subprocess.run(
        ["ruby", "-W0", HERE / "reconfigure.rb", checkout.folder, folder / "gitlab.rb", folder],
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Reconfigured(folder=folder, **json.loads(done.stdout))
