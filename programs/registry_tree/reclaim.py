"""`registry-tree reclaim`: what a garbage collection would free, and why."""

import argparse
from typing import Any, Dict, Iterator

from .garbage_collection import explain, mark
from .store import Store
from .text import plural, size_text


def gather(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    """What a collection, `options.untagged` or not, would remove; nothing where it must not run. Raises StoreError."""
    store.require_links()
    data = foretell(store, untagged=options.untagged)
    if store.problems or store.obstacles:
        # A running registry changes its files meanwhile.
        again = Store(options.root, store.progress)
        data = foretell(again, untagged=options.untagged)
        store.problems, store.obstacles = again.problems, again.obstacles
    return data


def foretell(store: Store, *, untagged: bool) -> Dict[str, Any]:
    """What a collection would remove; nothing where it must not run."""
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
            {"digest": digest, "bytes": free[digest], "why": reasons.get(digest, "no repository links to it")}
            for digest in sorted(free)
        ],
        "bytes": sum(free.values()),
    }


def render(data: Dict[str, Any]) -> Iterator[str]:
    """The lines of text; collect-garbage reads the beginnings of the lines and the end of the last."""
    for manifest in data["manifests"]:
        yield f"manifest  {manifest['repository']}@{manifest['digest']}"
    for blob in data["blobs"]:
        yield f"blob      {blob['digest']}  {size_text(blob['bytes'])}  {blob['why']}"
    collection = "a collection with untagged manifests" if data["untagged"] else "a collection"
    yield f"{collection} frees {size_text(data['bytes'])} in {plural(len(data['blobs']), 'blob')}"
