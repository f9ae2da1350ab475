"""Creates or updates a comment on a pull or merge request: `python .ci/comment.py FILE`.

Environment on GitHub: GITHUB_API_URL, GITHUB_REPOSITORY, PULL_REQUEST and GH_TOKEN; on GitLab: CI_API_V4_URL,
CI_PROJECT_ID, CI_MERGE_REQUEST_IID and COMMENT_TOKEN (a project access token with the scope `api`).
"""

import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

MARK = "<!-- what this change changes -->"
"""First line of the comment, invisible to readers, by which later runs find it."""

REST = "\nTruncated: the full output is in the job log.\n"
PAGE = 100
MOST_PAGES = 100
"""The limits are 5,000 comments per merge request on GitLab (GitLab application limits), and 2,500 on GitHub."""

FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})(?P<info>.*)")
"""A line that opens or closes a fenced code block (CommonMark 0.31, 4.5)."""


class CommentError(Exception):
    """The comment could not be created or updated; the message explains why, in one line."""


def comment(text: str) -> str:
    """Create the comment, or update an earlier one. Returns what was done."""
    forge = _GitLab() if "CI_API_V4_URL" in os.environ else _GitHub()
    body = shortened(f"{MARK}\n{printable(text)}", forge.longest)
    for found in forge.comments():
        if found["body"].startswith(MARK):
            forge.write(forge.edit, f"{forge.one}/{found['id']}", body)
            return f"comment {found['id']} updated"
    return f"comment {forge.write('POST', forge.all, body)} created"


def printable(text: str) -> str:
    """The text without control characters, which are unreadable or rejected by GitLab's database (NUL)."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text.replace("\r\n", "\n").replace("\r", "\n"))


def shortened(text: str, longest: int) -> str:
    """The text, truncated to `longest` UTF-16 code units, including the end of a code block and the note REST."""
    if _length(text) <= longest:
        return text
    kept, room, fence = [], longest - len(REST), ""
    # Not `splitlines`, which recognizes more line endings than Markdown.
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        opened = _fence_after(fence, line)
        if _length(line) + len(opened) + 2 > room:
            if not FENCE.match(line):
                kept.append(line.encode("utf-16-le")[: 2 * max(0, room - len(fence) - 2)].decode("utf-16-le", "ignore"))
            break
        kept.append(line)
        room -= _length(line)
        fence = opened
    return "".join([*kept, f"\n{fence}\n" if fence else "\n", REST])


def _fence_after(fence: str, line: str) -> str:
    """The fence of the code block that is open after the line; empty if there is none."""
    match = FENCE.fullmatch(line.rstrip("\n"))
    if not match:
        return fence
    if fence:
        closes = match["fence"].startswith(fence) and not match["info"].strip()
        return "" if closes else fence
    return "" if match["fence"][0] == "`" and "`" in match["info"] else match["fence"]


def _length(text: str) -> int:
    return len(text.encode("utf-16-le", "replace")) // 2


class _SameServer(urllib.request.HTTPRedirectHandler):
    """Follows redirects of GET requests only, and only to the same server, which may see the token."""

    def redirect_request(self, req: urllib.request.Request, *rest: Any) -> urllib.request.Request | None:
        asked, led = urlsplit(req.full_url), urlsplit(rest[-1])
        if req.get_method() != "GET" or (asked.scheme, asked.netloc) != (led.scheme, led.netloc):
            return None
        return super().redirect_request(req, *rest)


class _Forge:
    """A forge's API: `all` is the URL to list and create comments, `one` with an ID the URL to update one with the
    method `edit`, and `longest` the maximum length of a comment.
    """

    all: str
    one: str
    edit: str
    longest: int
    headers: dict[str, str]

    def comments(self) -> Iterator[dict[str, Any]]:
        """Our own comments: anyone can write the mark, and other users' comments must not be overwritten."""
        for page in range(1, MOST_PAGES + 1):
            url = f"{self.all}?per_page={PAGE}&page={page}"
            found = self.ask("GET", url)
            if not isinstance(found, list):
                _raise_unexpected("GET", url, found)
            if not found:
                return
            # Comments of a deleted account have no author.
            yield from (item for item in found if _is_comment(item) and self.is_ours(item))
        raise CommentError(f"{self.all} has more than {MOST_PAGES} pages of comments")

    def is_ours(self, found: dict[str, Any]) -> bool:
        raise NotImplementedError

    def write(self, method: str, url: str, body: str) -> int:
        """Create or update a comment. Returns its ID."""
        return self.ask_for_id(method, url, {"body": body})

    def ask_for_id(self, method: str, url: str, fields: dict[str, str] | None = None) -> int:
        """Send a request. Returns the ID in the response."""
        answer = self.ask(method, url, fields)
        if not isinstance(answer, dict) or type(answer.get("id")) is not int:
            _raise_unexpected(method, url, answer)
        found: int = answer["id"]
        return found

    def ask(self, method: str, url: str, fields: dict[str, str] | None = None) -> Any:
        """Send a request. Returns the response, parsed from JSON. Raises CommentError if it is not JSON."""
        body = None if fields is None else json.dumps(fields).encode()
        headers = {"Content-Type": "application/json", **self.headers}
        request = urllib.request.Request(url, body, headers, method=method)
        with urllib.request.build_opener(_SameServer).open(request, timeout=30) as answer:
            content: bytes = answer.read()
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            _raise_unexpected(method, url, content.decode(errors="replace"))


class _GitHub(_Forge):
    edit = "PATCH"
    longest = 65_536
    """GitHub: "body is too long (maximum is 65536 characters)"."""

    def __init__(self) -> None:
        issues = f"{_environment('GITHUB_API_URL')}/repos/{_environment('GITHUB_REPOSITORY')}/issues"
        self.all = f"{issues}/{_environment('PULL_REQUEST')}/comments"
        self.one = f"{issues}/comments"
        self.headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {_token('GH_TOKEN')}",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    def is_ours(self, found: dict[str, Any]) -> bool:
        user = found.get("user")
        return isinstance(user, dict) and user.get("login") == "github-actions[bot]"


class _GitLab(_Forge):
    edit = "PUT"
    longest = 1_000_000
    """GitLab application limits, "Size of comments"."""

    def __init__(self) -> None:
        project = f"{_environment('CI_API_V4_URL')}/projects/{_environment('CI_PROJECT_ID')}"
        self.all = self.one = f"{project}/merge_requests/{_environment('CI_MERGE_REQUEST_IID')}/notes"
        self.headers = {"PRIVATE-TOKEN": _token("COMMENT_TOKEN")}
        self._me = self.ask_for_id("GET", f"{_environment('CI_API_V4_URL')}/user")

    def is_ours(self, found: dict[str, Any]) -> bool:
        author = found.get("author")
        return isinstance(author, dict) and author.get("id") == self._me


def _is_comment(item: object) -> bool:
    return isinstance(item, dict) and type(item.get("id")) is int and isinstance(item.get("body"), str)


def _environment(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise CommentError(f"the environment variable {name} is not set")
    return value


def _token(name: str) -> str:
    token = _environment(name)
    # Checked here, because Python's own error would show the token.
    if not re.fullmatch(r"[!-~]+", token):
        raise CommentError(f"{name} contains characters that are not allowed in a token")
    return token


def _raise_unexpected(method: str, url: str, answer: object) -> NoReturn:
    shown = answer if isinstance(answer, str) else json.dumps(answer)
    raise CommentError(f"{method} {url} returned an unexpected response: {shown[:300] or 'nothing'}")


def _error_text(error: urllib.error.HTTPError) -> str:
    if error.code in range(HTTPStatus.MULTIPLE_CHOICES, HTTPStatus.BAD_REQUEST):
        return f"{error.url} returned {error.code}, a redirect to {error.headers.get('Location')}"
    return f"{error.url} returned {error.code}: {error.read().decode(errors='replace')[:500]}"


def _one_line(text: object) -> str:
    return "".join(character for character in " ".join(str(text).split()) if character.isprintable())


def main() -> None:
    """Exits with status 1 and one line that starts with `comment:` if the comment could not be written."""
    try:
        if len(sys.argv) != 2:
            raise CommentError("usage: comment.py FILE")
        print(comment(Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace")))
    except urllib.error.HTTPError as error:
        try:
            message = _error_text(error)
        except (OSError, http.client.HTTPException) as broken:
            message = f"{error.url} returned {error.code}, but its body could not be read: {broken!r}"
        sys.exit(f"comment: {_one_line(message)}")
    except (CommentError, OSError, ValueError) as error:
        sys.exit(f"comment: {_one_line(error)}")
    except http.client.HTTPException as error:
        sys.exit(f"comment: {_one_line(repr(error))}")


if __name__ == "__main__":
    main()
