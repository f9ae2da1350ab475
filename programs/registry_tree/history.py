"""`registry-tree history`: every digest that a tag has pointed to."""

import argparse
import os
from typing import Any, Dict, Iterator

from .images import find_image
from .problems import StoreError
from .store import Store, link_path
from .text import plural, size_text, timestamp


def gather(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    """The digests of the tag `options.image`, oldest first and the current one last. Raises StoreError."""
    store.require_links()
    repository, tag, current = find_image(store, options.image)
    if tag is None:
        raise StoreError("only tags have a history; use a tag, for example group/project:latest")
    found = []
    for digest, _, path in store.links(repository.tag_index(tag)):
        stored = os.path.lexists(link_path(repository.revisions, digest)) and store.size(digest) is not None
        state = "current" if digest == current else "stored" if stored else "deleted"
        size = sum(store.contents(repository, digest, options.image).values()) if stored else None
        when = os.lstat(path).st_mtime
        found.append((when, {"digest": digest, "state": state, "bytes": size, "tagged": timestamp(when)}))
    # The current one is last even in a copy whose files all have the same modification time.
    digests = [row for _, row in sorted(found, key=lambda each: (each[1]["state"] == "current", each[0]))]
    return {"image": options.image, "current": current, "digests": digests}


def render(data: Dict[str, Any]) -> Iterator[str]:
    """The lines of text."""
    yield f"{data['image']}  {plural(len(data['digests']), 'digest')}"
    for row in data["digests"]:
        size = "" if row["bytes"] is None else size_text(row["bytes"])
        yield f"  {row['tagged']}  {row['digest']}  {row['state']:7}  {size}".rstrip()
