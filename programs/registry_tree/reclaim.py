"""`registry-tree reclaim`: what a garbage collection would free, and why."""

import argparse
from typing import Any, Dict, Iterator

from .garbage_collection import explain, mark
from .store import Store
from .text import plural, size_text


def gather(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    """The manifests and blobs that a collection, `options.untagged` or not, would remove; none in a damaged store."""
    store.require_links()
    store.load_blobs()
    removed = mark(store, untagged=options.untagged)
    if store.problems:
        return {"untagged": options.untagged, "manifests": [], "blobs": [], "bytes": 0}
    free = {digest: blob.size for digest, blob in store.blobs.items() if not blob.kept}
    reasons = explain(store, free, removed)
    return {
        "untagged": options.untagged,
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
