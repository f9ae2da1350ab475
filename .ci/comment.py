"""`python .ci/comment.py FILE`: the one comment on a pull or merge request, made the first time and edited afterwards.

On GitHub the environment has GITHUB_API_URL, GITHUB_REPOSITORY, PULL_REQUEST and GH_TOKEN; on GitLab CI_API_V4_URL,
CI_PROJECT_ID, CI_MERGE_REQUEST_IID and COMMENT_TOKEN (a project access token with the scope `api`).
"""

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARK = "<!-- what this change changes -->"
"""First line of the comment, by which it is found again; nobody sees it."""

LONGEST = 60_000  # characters; GitHub takes 65,536, GitLab a million
PAGE = 100


def comment(text: str) -> str:
    """Post the text, or put it in the place of an earlier one. Returns what was done."""
    forge = _GitLab() if "CI_API_V4_URL" in os.environ else _GitHub()
    body = f"{MARK}\n{text}"
    if len(body) > LONGEST:
        body = body[:LONGEST] + "\n```\n\nThis is not all: the rest is in the log of the job.\n"
    for found in forge.comments():
        if str(found["body"]).startswith(MARK):
            forge.ask(forge.edit, f"{forge.one}/{found['id']}", {"body": body})
            return f"comment {found['id']} edited"
    return f"comment {forge.ask('POST', forge.all, {'body': body})['id']} made"


class _Forge:
    """`all` is where comments are listed and made, `one` and an id where one is edited, by the method `edit`."""

    all: str
    one: str
    edit: str
    headers: dict[str, str]

    def comments(self) -> Iterator[dict[str, Any]]:
        page = 1
        while found := self.ask("GET", f"{self.all}?per_page={PAGE}&page={page}"):
            yield from found
            page += 1

    def ask(self, method: str, url: str, fields: dict[str, str] | None = None) -> Any:
        body = None if fields is None else json.dumps(fields).encode()
        headers = {"Content-Type": "application/json", **self.headers}
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=30) as answer:
            return json.load(answer)


class _GitHub(_Forge):
    edit = "PATCH"

    def __init__(self) -> None:
        issues = f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/issues"
        self.all = f"{issues}/{os.environ['PULL_REQUEST']}/comments"
        self.one = f"{issues}/comments"
        self.headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {os.environ['GH_TOKEN']}",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    def comments(self) -> Iterator[dict[str, Any]]:
        """Only those of a workflow: anybody can write the mark, and nobody's words are to be replaced."""
        return (found for found in super().comments() if found["user"]["login"] == "github-actions[bot]")


class _GitLab(_Forge):
    edit = "PUT"

    def __init__(self) -> None:
        project = f"{os.environ['CI_API_V4_URL']}/projects/{os.environ['CI_PROJECT_ID']}"
        self.all = self.one = f"{project}/merge_requests/{os.environ['CI_MERGE_REQUEST_IID']}/notes"
        self.headers = {"PRIVATE-TOKEN": os.environ["COMMENT_TOKEN"]}
        self._me = self.ask("GET", f"{os.environ['CI_API_V4_URL']}/user")["id"]

    def comments(self) -> Iterator[dict[str, Any]]:
        """Only those of the token's own user."""
        return (found for found in super().comments() if found["author"]["id"] == self._me)


def main() -> None:
    try:
        print(comment(Path(sys.argv[1]).read_text()))
    except KeyError as missing:
        sys.exit(f"comment: {missing.args[0]} is not in the environment")
    except urllib.error.HTTPError as error:
        sys.exit(f"comment: {error.url} answers {error.code}: {error.read().decode(errors='replace')[:500]}")
    except OSError as error:
        sys.exit(f"comment: {error}")


if __name__ == "__main__":
    main()
