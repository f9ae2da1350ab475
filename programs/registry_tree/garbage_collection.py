"""What the registry's own garbage collection would remove (registry/storage/garbagecollect.go)."""

import os
from typing import Dict, Iterable, List, NamedTuple, Sequence, Set, Tuple

from .images import image_name, manifest_name
from .manifest import IMAGE, IMAGE_LIST, OCI_IMAGE, SCHEMA_1, SIGNED_SCHEMA_1, Manifest
from .store import Repository, Store

FOLLOWED_FROM_AN_INDEX = (IMAGE, IMAGE_LIST, OCI_IMAGE, SCHEMA_1, SIGNED_SCHEMA_1)
"""By a collection of untagged manifests: manifest/manifestlist/compat/references.go. An index in an index is not."""


class Revision(NamedTuple):
    """A manifest of a repository."""

    repository: Repository
    digest: str


def mark(store: Store, *, untagged: bool) -> List[Revision]:
    """Set `kept` of every blob as the registry's collection does, and return the manifests whose links it removes.

    `untagged`: whether manifests that no tag names are removed (-m). Files that would make the collection fail, or
    make it remove too much because they are damaged, are reported: then it is not safe.
    """
    for blob in store.blobs.values():
        blob.kept = False
    removed: List[Revision] = []
    for repository in store.repositories():
        removed += [Revision(repository, digest) for digest in _mark_repository(store, repository, untagged=untagged)]
        store.progress(f"marking {repository.name}", len(removed))
    return removed


def _mark_repository(store: Store, repository: Repository, *, untagged: bool) -> List[str]:
    """Keep the blobs of a repository. Returns the digests of the manifests whose links are removed."""
    revisions = {digest for digest, _ in store.links(repository.revisions) if digest in store.blobs}
    if revisions and not os.path.isdir(repository.layers):
        store.problems.report("missing folder", repository.layers, "without it a collection skips this repository")
        return []
    followed, removed = _mark_tagged(store, repository, revisions) if untagged else (revisions, [])
    _keep(store, followed)
    for digest in followed & revisions:
        manifest = store.sound_manifest(digest, manifest_name(repository, digest))
        if manifest:
            _keep(store, _needed(manifest))
    return removed


def _mark_tagged(store: Store, repository: Repository, revisions: Set[str]) -> Tuple[Set[str], List[str]]:
    """Keep what tags name.

    Returns the digests that their indexes lead to, which are followed as well, and the other manifests.
    """
    tagged = {digest for _, digest in store.tagged(repository)} & revisions
    _keep(store, tagged)
    followed: Set[str] = set()
    for digest in tagged:
        manifest = store.sound_manifest(digest, manifest_name(repository, digest))
        if manifest is None:
            continue
        _keep(store, _needed(manifest))
        if manifest.is_index:
            followed |= {each.digest for each in manifest.references if each.media_type in FOLLOWED_FROM_AN_INDEX}
    return followed, sorted(revisions - tagged - followed)


def _needed(manifest: Manifest) -> List[str]:
    """What a manifest keeps: all its references, but for the subject of an index."""
    is_index = manifest.is_index
    return [each.digest for each in manifest.references if not (is_index and each.role == "subject")]


def _keep(store: Store, digests: Iterable[str]) -> None:
    for digest in digests:
        blob = store.blobs.get(digest)
        if blob:
            blob.kept = True


def explain(store: Store, free: Dict[str, int], removed: Sequence[Revision]) -> Dict[str, str]:
    """Where each blob that nothing keeps comes from, by digest; nothing for those that no repository links to."""
    reasons: Dict[str, str] = {}
    untagged: Dict[str, str] = {}
    for repository, digest in removed:
        name = manifest_name(repository, digest)
        untagged[digest] = f"a manifest of {repository.name} that no tag names"
        for each in store.contents(digest, name):
            reasons.setdefault(each, f"needed only by {name}, which no tag names")
    reasons.update(untagged)
    for repository in store.repositories() if free else ():
        reasons.update(_former_tags(store, repository, free, untagged))
        for digest in _layers(store, repository):
            if digest in free:
                reasons.setdefault(digest, f"a layer of {repository.name} that no manifest there names")
    return reasons


def _former_tags(
    store: Store, repository: Repository, free: Dict[str, int], untagged: Dict[str, str]
) -> Dict[str, str]:
    """Of the manifests of `free` that a tag of this repository has named."""
    reasons = {}
    for tag in store.tag_names(repository):
        for digest, _ in store.links(repository.tag_index(tag)):
            if digest in free:
                origin = untagged.get(digest, f"a manifest deleted from {repository.name}")
                reasons[digest] = f"{origin}, formerly {image_name(repository, tag)}"
    return reasons


def _layers(store: Store, repository: Repository) -> Iterable[str]:
    for algorithm in store.algorithms(repository.layers):
        for name in store.folders(os.path.join(repository.layers, algorithm)):
            yield f"{algorithm}:{name}"
