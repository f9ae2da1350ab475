"""Git repositories on the data volume and the operations on them, which Gitaly does in the real GitLab.

Source: gitlab-org/gitaly internal/gitaly/service/operations/commit_files.go (error messages), the hashed layout of
doc/administration/repository_storage_paths.md.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_gitlab import paths
from lab_gitlab.records import Record

NOWHERE = "0" * 40
FORMAT = "%H%x1f%an%x1f%ae%x1f%cI%x1f%B"
ACTIONS = ("create", "update")


class RepositoryError(Exception):
    """The operation failed; the message is Gitaly's."""


@dataclass(frozen=True)
class Commit:
    """A commit. `author` is name and e-mail address; `committed_at` is ISO 8601 in the committer's time zone."""

    sha: str
    author: tuple[str, str]
    committed_at: str
    message: str

    @property
    def title(self) -> str:
        return self.message.splitlines()[0] if self.message else ""


@dataclass(frozen=True)
class Entry:
    """A file or folder in a commit."""

    kind: str
    path: str


@dataclass(frozen=True)
class Action:
    """One file change of a commit made through the API; `action` is one of ACTIONS."""

    action: str
    path: str
    content: bytes


def folder(project: Record) -> Path:
    digest = hashlib.sha256(str(project["id"]).encode()).hexdigest()
    return paths.REPOSITORIES / "@hashed" / digest[:2] / digest[2:4] / f"{digest}.git"


def ensure(project: Record) -> Path:
    """Create the repository if it does not exist, and return its path."""
    found = folder(project)
    if not found.exists():
        found.parent.mkdir(parents=True, exist_ok=True)
        branch = f"--initial-branch={project['default_branch']}"
        run("init", "--quiet", "--bare", branch, str(found))
        run("config", "receive.denyNonFastForwards", "false", repository=found)
        # As in Gitaly (internal/git/gitcmd): a reference that was accepted survives the loss of the volume.
        run("config", "core.fsync", "objects,derived-metadata,reference", repository=found)
    return found


def remove(project: Record) -> None:
    shutil.rmtree(folder(project), ignore_errors=True)


def run(
    *arguments: str,
    repository: Path | None = None,
    stdin: bytes | None = None,
    check: bool = True,
) -> bytes:
    """Run git and return its output. Raises RepositoryError with git's error message if it fails and `check` is set."""
    command = [paths.GIT, *(["--git-dir", str(repository)] if repository else []), *arguments]
    done = subprocess.run(
        command,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env={**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"},
        check=False,
    )
    if check and done.returncode:
        raise RepositoryError(done.stderr.decode(errors="replace").strip())
    return done.stdout


# Reading


def references(project: Record, *prefixes: str) -> dict[str, str]:
    """Return commits by the full names of the references below these prefixes, or of all references without any."""
    listed = run("for-each-ref", "--format=%(objectname) %(refname)", *prefixes, repository=ensure(project))
    return {name: sha for sha, _, name in (line.partition(" ") for line in listed.decode().splitlines())}


def branches(project: Record) -> dict[str, str]:
    """Return commits by branch name."""
    prefix = "refs/heads/"
    return {name[len(prefix) :]: sha for name, sha in references(project, prefix).items()}


def resolve(project: Record, name: str) -> str | None:
    """Return the commit of a branch, a tag or an (abbreviated) commit ID."""
    for candidate in (f"refs/heads/{name}", f"refs/tags/{name}", name):
        if name.startswith("-"):
            return None
        arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{candidate}^{{commit}}")
        found = run(*arguments, repository=ensure(project), check=False).decode().strip()
        if found:
            return found
    return None


def commit(project: Record, sha: str) -> Commit:
    shown = run("show", "--no-patch", f"--format={FORMAT}", sha, repository=ensure(project))
    found, name, address, moment, message = shown.decode(errors="replace").split("\x1f")
    return Commit(found, (name, address), moment, message.rstrip("\n"))


def tree(project: Record, sha: str) -> list[Entry]:
    """Return the entries of the top-level folder."""
    listed = run("ls-tree", "-z", "--format=%(objecttype) %(path)", sha, repository=ensure(project))
    return [Entry(*line.split(" ", 1)) for line in listed.decode(errors="replace").split("\0")[:-1]]


def read(project: Record, sha: str, path: str) -> bytes | None:
    """Return the content of a file; None if it does not exist."""
    try:
        return run("cat-file", "blob", f"{sha}:{path}", repository=ensure(project))
    except RepositoryError:
        return None


# Writing


def set_reference(project: Record, name: str, sha: str) -> None:
    run("update-ref", name, sha, repository=ensure(project))


def write(
    project: Record,
    *,
    branch: str,
    parent: str | None,
    message: str,
    author: tuple[str, str],
    actions: Iterable[Action],
) -> str:
    """Create a commit on a branch and return its ID; without `parent` it is a root commit. Raises RepositoryError."""
    who = "{} <{}> now".format(*(re.sub(r"[<>\n\0]", "", part) for part in author))
    lines = [f"commit refs/heads/{branch}\nmark :1\nauthor {who}\ncommitter {who}\n".encode(), _data(message.encode())]
    if parent:
        lines.append(f"from {parent}\n".encode())
    for action in actions:
        there = parent is not None and read(project, parent, action.path) is not None
        if action.action == "create" and there:
            raise RepositoryError("A file with this name already exists")
        if action.action == "update" and not there:
            raise RepositoryError("A file with this name doesn't exist")
        lines += [f"M 100644 inline {json.dumps(action.path, ensure_ascii=False)}\n".encode(), _data(action.content)]
    lines.append(b"\nget-mark :1\n")
    options = ("--quiet", "--force", "--date-format=now", "--cat-blob-fd=1")
    return run("fast-import", *options, repository=ensure(project), stdin=b"".join(lines)).decode().strip()


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


# Representation in the API


def present(found: Commit, web_url: str) -> dict[str, Any]:
    return {
        "id": found.sha,
        "short_id": found.sha[:8],
        "title": found.title,
        "message": found.message,
        "author_name": found.author[0],
        "author_email": found.author[1],
        "web_url": f"{web_url}/-/commit/{found.sha}",
    }
