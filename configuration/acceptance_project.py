"""The project whose pipeline ends every `up`: where it is in GitLab and what its repository holds."""

from pathlib import Path

ACCEPTANCE = Path(__file__).resolve().parent.parent / "acceptance"
PROJECT_PATH = "gitlab-stack/acceptance"
"""Its group and name in GitLab."""

DEFAULT_IMAGE = "docker.io/curlimages/curl:8.12.1"
"""The image that acceptance/.gitlab-ci.yml names."""


def files(image: str) -> dict[str, str]:
    """The text of every file by its path in the repository; `image` is the one that the jobs run in."""
    texts = {path.name: path.read_text() for path in sorted(ACCEPTANCE.iterdir())}
    texts[".gitlab-ci.yml"] = texts[".gitlab-ci.yml"].replace(DEFAULT_IMAGE, image)
    return texts
