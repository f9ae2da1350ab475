"""The acceptance project, whose pipeline ends every `up`: its path in GitLab and the files of its repository."""

import json
from collections.abc import Sequence
from pathlib import Path

from settings import Settings

ACCEPTANCE = Path(__file__).resolve().parent.parent / "acceptance"
FILES = (".gitlab-ci.yml", "README.md", "pull.sh", "push.sh", "registry.sh")
"""The files of that folder. Desktops and editors leave others there, such as .DS_Store."""
PROJECT_PATH = "gitlab-stack/acceptance"
"""Its group and name in GitLab."""

DEFAULT_IMAGE = (
    "docker.io/curlimages/curl:8.12.1@sha256:94e9e444bcba979c2ea12e27ae39bee4cd10bc7041a472c4727a558e213744e6"
)
"""The image in acceptance/.gitlab-ci.yml."""


def runner_tags(settings: Settings) -> tuple[str, ...]:
    """Tags that the jobs must request; empty unless the runner rejects untagged jobs."""
    return settings.runner_tags if settings.runner_privileged else ()


def files(image: str, tags: Sequence[str] = ()) -> dict[str, str]:
    """The content of every file by its path in the repository, with the jobs' `image` and their runner's `tags`."""
    texts = {name: (ACCEPTANCE / name).read_text() for name in FILES}
    texts[".gitlab-ci.yml"] = texts[".gitlab-ci.yml"].replace(DEFAULT_IMAGE, image)
    if tags:
        tagged = f"default:\n  tags: {json.dumps(tags)} # setting runnerTags\n"
        texts[".gitlab-ci.yml"] = texts[".gitlab-ci.yml"].replace("default:\n", tagged)
    return texts
