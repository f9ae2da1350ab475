"""`registry-tree ls`: repositories, tags and open uploads, with their sizes."""

import argparse
import re
from typing import Any, Dict, Iterator

from .manifest import IMAGE, IMAGE_LIST, OCI_IMAGE, OCI_INDEX, SCHEMA_1, ManifestError
from .problems import StoreError
from .store import Repository, Store
from .text import plural, short_digest, size_text

KINDS = {
    IMAGE: "image",
    OCI_IMAGE: "OCI image",
    IMAGE_LIST: "list",
    OCI_INDEX: "OCI index",
    SCHEMA_1: "schema 1",
}
IMAGE_CONFIG = re.compile(r"(container|oci)\.image(\.config)?\.v\d\+json$")


def gather(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    """All repositories, or `options.repository` and those nested in it. Raises StoreError if that does not exist."""
    store.require_links()
    if options.repository:
        store.check_name(options.repository)
    repositories = [_repository(store, repository) for repository in store.repositories(options.repository)]
    if options.repository and not repositories:
        raise StoreError(f"the repository {options.repository} does not exist")
    return {"repositories": repositories}


def _repository(store: Store, repository: Repository) -> Dict[str, Any]:
    tags = []
    for name, digest in store.tagged(repository):
        size = sum(store.contents(repository, digest, f"{repository.name}:{name}").values())
        tags.append(dict({"tag": name, "digest": digest, "bytes": size}, **_kind(store, digest)))
        store.progress(f"tags of {repository.name}", len(tags))
    return {"name": repository.name, "tags": tags, "uploads": list(store.uploads(repository))}


def _kind(store: Store, digest: str) -> Dict[str, Any]:
    """The kind of image that a digest refers to, for display."""
    try:
        manifest = store.manifest(digest)
    except ManifestError as error:
        return {"kind": error.kind}
    if manifest.is_index:
        platforms = [reference.platform or reference.role for reference in manifest.references]
        return {"kind": KINDS[manifest.media_type], "platforms": platforms}
    config = next((each.media_type for each in manifest.references if each.role == "config"), "")
    if manifest.artifact_type or (config and not IMAGE_CONFIG.search(config)):
        return {"kind": "artifact", "artifactType": manifest.artifact_type or config}
    return {"kind": KINDS[manifest.media_type]}


def render(data: Dict[str, Any]) -> Iterator[str]:
    """The lines of text."""
    for repository in data["repositories"]:
        yield f"{repository['name']}  {plural(len(repository['tags']), 'tag')}"
        width = max([len(tag["tag"]) for tag in repository["tags"]] or [0])
        for tag in repository["tags"]:
            kind = " ".join([tag["kind"], tag.get("artifactType") or ", ".join(tag.get("platforms", []))]).strip()
            yield f"  {tag['tag']:{width}}  {short_digest(tag['digest'])}  {size_text(tag['bytes'])}  {kind}"
        for upload in repository["uploads"]:
            age = "stale upload" if upload["stale"] else "open upload"
            yield f"  {age} {upload['id']}  {size_text(upload['bytes'])}  since {upload['started']}"
    if not data["repositories"]:
        yield "no repositories"
