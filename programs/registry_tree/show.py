"""`registry-tree show`: an image down to its layers, and the images that share them."""

import argparse
import os
from typing import Any, Dict, Iterator, List, Optional, Set

from .images import find_image, list_images, manifest_name
from .manifest import Reference
from .store import Repository, Store, link_path
from .text import and_more, size_text

MAX_SHARED_WITH = 5  # images listed in the text; JSON lists all


def gather(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    """The image `options.image`, its blobs in order, and the images that share each. Raises StoreError."""
    store.require_links()
    repository, tag, digest = find_image(store, options.image)
    data: Dict[str, Any] = {"image": options.image, "repository": repository.name, "tag": tag, "digest": digest}
    revision = link_path(repository.revisions, digest)
    link = repository.current_link(tag) if tag else revision
    if tag:
        data["link"] = os.path.relpath(link, store.root)
    if not os.path.lexists(revision):
        store.problems.report("dangling link", link, f"the repository has no manifest {digest}")
    rows: List[Dict[str, Any]] = []
    _add_manifest(store, repository, digest, "", rows)
    shared = _shared_with(store, repository, tag, digest, {row["blob"] for row in rows})
    for row in rows:
        row["sharedWith"] = shared.get(row["blob"], [])
    data["contents"] = rows
    data["bytes"] = sum({row["blob"]: row["bytes"] or 0 for row in rows}.values())
    return data


def _shared_with(
    store: Store, repository: Repository, tag: Optional[str], digest: str, blobs: Set[str]
) -> Dict[str, List[str]]:
    """Names of the other images that need these blobs, by digest."""
    shared: Dict[str, List[str]] = {}
    for image in list_images(store):
        if image.repository.name == repository.name and image.tag in (tag, "@" + digest):
            continue
        for each in blobs.intersection(image.contents):
            shared.setdefault(each, []).append(image.name)
    return shared


def _add_manifest(store: Store, repository: Repository, digest: str, platform: str, rows: List[Dict[str, Any]]) -> None:
    """Append a row for a manifest, followed by rows for everything it needs."""
    image = manifest_name(repository, digest)
    manifest = store.sound_manifest(digest, image)
    rows.append(
        {
            "role": "manifest",
            "digest": digest,
            "blob": digest,
            "bytes": store.size(digest),
            "mediaType": manifest.media_type if manifest else None,
            "platform": platform,
            "path": os.path.relpath(store.blob_path(digest), store.root),
        }
    )
    seen = {row["digest"] for row in rows}
    for reference in manifest.references if manifest else ():
        if manifest and store.is_manifest(repository, manifest, reference) and reference.digest not in seen:
            _add_manifest(store, repository, reference.digest, reference.platform, rows)
        else:
            rows.append(_reference_row(store, repository, reference))
            if rows[-1]["path"] is None and not reference.external:
                path = store.blob_path(rows[-1]["blob"])
                store.problems.report("missing blob", path, "the file does not exist", image)


def _reference_row(store: Store, repository: Repository, reference: Reference) -> Dict[str, Any]:
    blob = store.stored_as(repository, reference.digest)
    size = store.size(blob)
    return {
        "role": reference.role,
        "digest": reference.digest,
        "blob": blob,
        "bytes": reference.size if size is None else size,
        "mediaType": reference.media_type,
        "platform": reference.platform,
        "path": None if size is None else os.path.relpath(store.blob_path(blob), store.root),
    }


def render(data: Dict[str, Any]) -> Iterator[str]:
    """The lines of text."""
    yield f"{data['image']}  {size_text(data['bytes'])}"
    if data["tag"]:
        yield f"  tag       {data['link']} -> {data['digest']}"
    for row in data["contents"]:
        size = "-" if row["bytes"] is None else size_text(row["bytes"])
        words = [row["digest"], size, row["mediaType"] or "", row["platform"]]
        yield f"  {row['role']:9} {'  '.join(word for word in words if word)}"
        yield f"            {row['path'] or 'not in this registry'}"
        if row["sharedWith"]:
            names = ", ".join(row["sharedWith"][:MAX_SHARED_WITH])
            yield f"            shared with {names}{and_more(len(row['sharedWith']) - MAX_SHARED_WITH)}"
