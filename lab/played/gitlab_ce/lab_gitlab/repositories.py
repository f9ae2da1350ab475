"""Git repositories on the data volume, and what is done to them: the part of Gitaly.

Source: gitlab-org/gitaly internal/gitaly/service/operations/commit_files.go (words of refusals), the hashed layout of
doc/administration/repository_storage_paths.md.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lab_gitlab import paths
from lab_gitlab.records import Record

NOWHERE = "0" * 40
FORMAT = "%x1e%H%x1f%P%x1f%an%x1f%ae%x1f%aI%x1f%cn%x1f%ce%x1f%cI%x1f%B"
FILE, EXECUTABLE = "100644", "100755"


class RepositoryError(Exception):
    """What was asked for cannot be done; the text is Gitaly's."""


@dataclass(frozen=True)
class Commit:
    """Times are ISO 8601 with the author's own zone."""

    sha: str
    parents: Sequence[str]
    author: tuple[str, str]
    authored_at: str
    committer: tuple[str, str]
    committed_at: str
    message: str

    @property
    def title(self) -> str:
        return self.message.splitlines()[0] if self.message else ""


@dataclass(frozen=True)
class Entry:
    """A file or folder of a commit."""

    mode: str
    kind: str
    sha: str
    path: str


@dataclass(frozen=True)
class Action:
    """One change of a commit through the API; `content` None means that the file keeps what it has."""

    action: str
    path: str
    previous_path: str | None = None
    content: bytes | None = None
    executable: bool | None = None


def folder(project: Record) -> Path:
    digest = hashlib.sha256(str(project["id"]).encode()).hexdigest()
    return paths.REPOSITORIES / "@hashed" / digest[:2] / digest[2:4] / f"{digest}.git"


def ensure(project: Record) -> Path:
    """Make the repository unless it is there."""
    found = folder(project)
    if not found.exists():
        found.parent.mkdir(parents=True, exist_ok=True)
        branch = f"--initial-branch={project['default_branch']}"
        run("init", "--quiet", "--bare", branch, str(found))
        run("config", "receive.denyNonFastForwards", "false", repository=found)
    return found


def remove(project: Record) -> None:
    shutil.rmtree(folder(project), ignore_errors=True)


def run(
    *arguments: str,
    repository: Path | None = None,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    check: bool = True,
) -> bytes:
    """What git prints. Raises RepositoryError with its words when it fails and `check` is set."""
    command = [paths.GIT, *(["--git-dir", str(repository)] if repository else []), *arguments]
    done = subprocess.run(
        command,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env={**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", **(environment or {})},
        check=False,
    )
    if check and done.returncode:
        raise RepositoryError(done.stderr.decode(errors="replace").strip())
    return done.stdout


# Reading


def references(project: Record, *prefixes: str) -> dict[str, str]:
    """Commits by the full names of the references below these prefixes (all without)."""
    listed = run("for-each-ref", "--format=%(objectname) %(refname)", *prefixes, repository=ensure(project))
    return {name: sha for sha, _, name in (line.partition(" ") for line in listed.decode().splitlines())}


def branches(project: Record) -> dict[str, str]:
    """Commits by the names of the branches."""
    prefix = "refs/heads/"
    return {name[len(prefix) :]: sha for name, sha in references(project, prefix).items()}


def resolve(project: Record, name: str) -> str | None:
    """The commit that a branch, a tag or an (abbreviated) commit names."""
    for candidate in (f"refs/heads/{name}", f"refs/tags/{name}", name):
        if name.startswith("-"):
            return None
        arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{candidate}^{{commit}}")
        found = run(*arguments, repository=ensure(project), check=False).decode().strip()
        if found:
            return found
    return None


def log(project: Record, sha: str, *, path: str | None = None, limit: int = 1000) -> list[Commit]:
    arguments = ["log", f"--format={FORMAT}", f"--max-count={limit}", sha, "--", *([path] if path else [])]
    listed = run(*arguments, repository=ensure(project)).decode(errors="replace")
    return [_commit(part) for part in listed.split("\x1e")[1:]]


def commit(project: Record, sha: str) -> Commit:
    return log(project, sha, limit=1)[0]


def tree(project: Record, sha: str, path: str = "", *, recursive: bool = False) -> list[Entry]:
    """What is in a folder; nothing when there is no such folder."""
    options = ["-r", "-t"] if recursive else []
    wanted = [f"{path.rstrip('/')}/"] if path.strip("/") else []
    listed = run("ls-tree", "-z", *options, sha, "--", *wanted, repository=ensure(project))
    entries = []
    for line in listed.decode(errors="replace").split("\0")[:-1]:
        about, _, name = line.partition("\t")
        mode, kind, blob = about.split()
        entries.append(Entry(mode, kind, blob, name))
    return entries


def find(project: Record, sha: str, path: str) -> Entry | None:
    """The file of that path."""
    listed = run("ls-tree", "-z", sha, "--", path, repository=ensure(project)).decode(errors="replace")
    if not listed:
        return None
    mode, kind, blob = listed.split("\t")[0].split()
    return Entry(mode, kind, blob, path) if kind == "blob" else None


def content(project: Record, entry: Entry) -> bytes:
    return run("cat-file", "blob", entry.sha, repository=ensure(project))


def read(project: Record, sha: str, path: str) -> bytes | None:
    entry = find(project, sha, path)
    return content(project, entry) if entry else None


# Writing


def set_reference(project: Record, name: str, sha: str) -> None:
    run("update-ref", name, sha, repository=ensure(project))


def delete_reference(project: Record, name: str) -> None:
    run("update-ref", "-d", name, repository=ensure(project))


def write(
    project: Record,
    *,
    branch: str,
    parent: str | None,
    message: str,
    author: tuple[str, str],
    committer: tuple[str, str],
    actions: Iterable[Action],
) -> str:
    """Put one commit on a branch and return it; `parent` None begins a history. Raises RepositoryError."""
    entries = {} if parent is None else {e.path: e for e in tree(project, parent, recursive=True) if e.kind == "blob"}
    lines: list[bytes] = [f"commit refs/heads/{branch}\n".encode(), b"mark :1\n"]
    for role, (name, address) in (("author", author), ("committer", committer)):
        lines.append(f"{role} {_plain(name)} <{_plain(address)}> now\n".encode())
    lines.append(_data(message.encode()))
    if parent:
        lines.append(f"from {parent}\n".encode())
    for action in actions:
        lines += _change(entries, action)
    lines.append(b"\nget-mark :1\n")
    stream = b"".join(lines)
    done = run(
        "fast-import", "--quiet", "--date-format=now", "--cat-blob-fd=1", repository=ensure(project), stdin=stream
    )
    return done.decode().strip()


def _change(entries: dict[str, Entry], action: Action) -> list[bytes]:
    path = PurePosixPath(action.path)
    if path.is_absolute() or ".." in path.parts or ".git" in path.parts or not path.parts:
        raise RepositoryError("invalid path")
    name = str(path)
    old = entries.get(action.previous_path or name if action.action == "move" else name)
    if action.action == "create" and old:
        raise RepositoryError("A file with this name already exists")
    if action.action != "create" and old is None:
        raise RepositoryError("A file with this name doesn't exist")
    if action.action == "delete":
        del entries[name]
        return [f"D {_quoted(name)}\n".encode()]
    if action.action == "move" and name in entries:
        raise RepositoryError("A file with this name already exists")
    mode = old.mode if old else FILE
    if action.executable is not None:
        mode = EXECUTABLE if action.executable else FILE
    gone = []
    if action.action == "move" and old:
        del entries[old.path]
        gone = [f"D {_quoted(old.path)}\n".encode()]
    entries[name] = Entry(mode, "blob", old.sha if old else "", name)
    if old and (action.action == "chmod" or (action.action == "move" and action.content is None)):
        return [*gone, f"M {mode} {old.sha} {_quoted(name)}\n".encode()]
    return [*gone, f"M {mode} inline {_quoted(name)}\n".encode(), _data(action.content or b"")]


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _plain(text: str) -> str:
    """Without what has a meaning in a commit's header."""
    return "".join(character for character in text if character not in "<>\n\0")


def _commit(text: str) -> Commit:
    fields = text.split("\x1f")
    return Commit(
        sha=fields[0],
        parents=fields[1].split(),
        author=(fields[2], fields[3]),
        authored_at=fields[4],
        committer=(fields[5], fields[6]),
        committed_at=fields[7],
        message=fields[8].rstrip("\n"),
    )


# As the API shows them


def present(found: Commit, web_url: str) -> dict[str, Any]:
    return {
        "id": found.sha,
        "short_id": found.sha[:8],
        "created_at": _shown(found.committed_at),
        "parent_ids": list(found.parents),
        "title": found.title,
        "message": found.message,
        "author_name": found.author[0],
        "author_email": found.author[1],
        "authored_date": _shown(found.authored_at),
        "committer_name": found.committer[0],
        "committer_email": found.committer[1],
        "committed_date": _shown(found.committed_at),
        "trailers": {},
        "extended_trailers": {},
        "web_url": f"{web_url}/-/commit/{found.sha}",
    }


def _shown(moment: str) -> str:
    """With milliseconds, which git does not keep."""
    return f"{moment[:19]}.000{moment[19:]}"
