"""The project whose pipeline ends every `up`: where it is in GitLab and what its repository holds."""

import json
from collections.abc import Sequence
from pathlib import Path

from settings import Settings

ACCEPTANCE = Path(__file__).resolve().parent.parent / "acceptance"
PROJECT_PATH = "gitlab-stack/acceptance"
"""Its group and name in GitLab."""

DEFAULT_IMAGE = (
    "docker.io/curlimages/curl:8.12.1@sha256:94e9e444bcba979c2ea12e27ae39bee4cd10bc7041a472c4727a558e213744e6"
)
"""The image that acceptance/.gitlab-ci.yml names."""


def runner_tags(settings: Settings) -> tuple[str, ...]:
    """What the jobs have to ask for; nothing unless the runner refuses jobs without a tag."""
    return settings.runner_tags if settings.runner_privileged else ()


def files(image: str, tags: Sequence[str] = ()) -> dict[str, str]:
    """The text of every file by its path in the repository; `image` is the one that the jobs run in, `tags` are
    those of their runner.
    """
    texts = {path.name: path.read_text() for path in sorted(ACCEPTANCE.iterdir())}
    texts[".gitlab-ci.yml"] = texts[".gitlab-ci.yml"].replace(DEFAULT_IMAGE, image)
    if tags:
        asked = f"default:\n  tags: {json.dumps(tags)} # setting runnerTags\n"
        texts[".gitlab-ci.yml"] = texts[".gitlab-ci.yml"].replace("default:\n", asked)
    return texts
