"""`registry-tree reclaim`: what a garbage collection would free, and why."""

import argparse
from typing import Any, Dict, Iterator

from .garbage_collection import explain, mark
from .store import Store
from .text import plural, size_text


def gather(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    """What a collection would remove (`options.untagged`: with -m); nothing if it must not run. Raises StoreError."""
    store.require_links()
    data = plan(store, untagged=options.untagged)
    if store.problems or store.obstacles:
        # Check again, because a running registry changes its files in the meantime.
        again = Store(options.root, store.progress)
        data = plan(again, untagged=options.untagged)
        store.problems, store.obstacles = again.problems, again.obstacles
    return data


def plan(store: Store, *, untagged: bool) -> Dict[str, Any]:
    """What a collection would remove; nothing if it must not run."""
    store.load_blobs()
    removed = mark(store, untagged=untagged)
    if store.problems or store.obstacles:
        return {"untagged": untagged, "manifests": [], "blobs": [], "bytes": 0}
    free = {digest: blob.size for digest, blob in store.blobs.items() if not blob.kept}
    reasons = explain(store, free, removed)
    return {
        "untagged": untagged,
        "manifests": [{"repository": repository.name, "digest": digest} for repository, digest in removed],
        "blobs": [
            {"digest": digest, "bytes": free[digest], "why": reasons.get(digest, "not linked by any repository")}
            for digest in sorted(free)
        ],
        "bytes": sum(free.values()),
    }


def render(data: Dict[str, Any]) -> Iterator[str]:
    """The lines of text; collect-garbage parses the start of each line and the end of the last one."""
    for manifest in data["manifests"]:
        yield f"manifest  {manifest['repository']}@{manifest['digest']}"
    for blob in data["blobs"]:
        yield f"blob      {blob['digest']}  {size_text(blob['bytes'])}  {blob['why']}"
    option = " including untagged manifests" if data["untagged"] else ""
    yield f"a collection{option} would free {size_text(data['bytes'])} in {plural(len(data['blobs']), 'blob')}"
