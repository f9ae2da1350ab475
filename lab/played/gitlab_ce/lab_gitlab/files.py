"""Files and folders with owner and mode; a file is written only if its content differs."""

import os
from pathlib import Path

from lab_gitlab.accounts import ROOT_OWNER, Owner


def write(path: Path, content: str, *, owner: Owner = ROOT_OWNER, mode: int = 0o644) -> bool:
    """Write `content` atomically; return whether the file has changed."""
    changed = not path.exists() or path.read_text() != content
    if changed:
        unfinished = path.with_name(f".{path.name}.new")
        unfinished.touch(mode=0o600)
        unfinished.write_text(content)
        _own(unfinished, owner, mode)
        unfinished.replace(path)
    else:
        _own(path, owner, mode)
    return changed


def folder(path: Path, *, owner: Owner = ROOT_OWNER, mode: int = 0o755) -> None:
    """Create the folder and its parents. Like Chef, this sets the owner of the folder only, not of its contents."""
    path.mkdir(parents=True, exist_ok=True)
    _own(path, owner, mode)


def _own(path: Path, owner: Owner, mode: int) -> None:
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, owner.uid, owner.gid)
