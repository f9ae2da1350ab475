"""Checks of the links and manifests of one repository; `hashing` checks the content of blobs."""

from typing import Dict, List, NamedTuple, Set

from .hashing import READ_SIZE, hash_blob
from .images import manifest_name
from .manifest import ManifestError, Reference
from .store import Repository, Store, link_path

Claims = Dict[str, Dict[str, int]]
"""Sizes in bytes that manifests state and that differ from the blob's, by blob and manifest."""


class Links(NamedTuple):
    """The digests that a repository links to; for each layer, the digest that it is stored under."""

    layers: Dict[str, str]
    revisions: Set[str]


def read_links(store: Store, repository: Repository) -> Links:
    """Read the links of a repository."""
    return Links(
        {link.digest: link.stored_as for link in store.links(repository.layers)},
        {link.digest for link in store.links(repository.revisions)},
    )


def check_other_digests(store: Store, repository: Repository, links: Links) -> None:
    """Report layer links by an algorithm other than SHA-256 that point to a blob with a different digest."""
    for digest, target in links.layers.items():
        if digest == target or store.size(target) is None:
            continue
        path = link_path(repository.layers, digest)
        algorithm, _, hexadecimal = digest.partition(":")
        try:
            actual = hash_blob(store, target, algorithm, memoryview(bytearray(READ_SIZE)))
        except OSError:
            continue  # reported with the blob
        if actual != hexadecimal:
            store.problems.report("malformed link", path, f"points to {target}, whose digest is {algorithm}:{actual}")


def check_tag(store: Store, repository: Repository, tag: str, links: Links) -> bool:
    """Report the problems of a tag. Returns whether the tag exists: a deleted one leaves an empty folder."""
    path = repository.current_link(tag)
    index = {link.digest for link in store.links(repository.tag_index(tag))}
    try:
        current = store.link(path)
    except FileNotFoundError:
        if index:
            store.problems.report("missing link", path, f"the tag's index lists {', '.join(sorted(index)[:3])}")
        return bool(index)
    if current and current not in links.revisions:
        store.problems.report("dangling link", path, f"{repository.name} has no manifest {current}")
    elif current and current not in index:
        link = link_path(repository.tag_index(tag), current)
        store.problems.report("missing link", link, "the tag points to this digest")
    return True


def check_manifest(store: Store, repository: Repository, digest: str, links: Links, claims: Claims) -> List[Reference]:
    """Report what a manifest needs and the registry does not have; its content is hashed together with all blobs.

    Adds wrong sizes that the manifest states to `claims`. Returns the references that it needs.
    """
    image = manifest_name(repository, digest)
    if store.size(digest) is None:
        store.problems.report("missing blob", store.blob_path(digest), "the file does not exist", image)
        return []
    try:
        manifest = store.manifest(digest)
    except ManifestError as error:
        if error.kind == "malformed manifest":
            store.problems.report(error.kind, store.blob_path(digest), error.detail, image)
        return []
    needed = [reference for reference in manifest.references if not reference.external]
    for reference in needed:
        if not (manifest.is_index and reference.digest in links.revisions):
            _check_link(store, repository, reference, links, image)
        blob = links.layers.get(reference.digest, reference.digest)
        size = store.size(blob)
        if size is None:
            store.problems.report("missing blob", store.blob_path(blob), "the file does not exist", image)
        elif reference.size is not None and reference.size != size:
            claims.setdefault(blob, {})[digest] = reference.size
    return needed


def _check_link(store: Store, repository: Repository, reference: Reference, links: Links, image: str) -> None:
    if reference.role == "manifest":
        # Distribution also accepts and serves a manifest that was pushed as a layer.
        if reference.digest not in links.revisions and (store.is_gitlabs or reference.digest not in links.layers):
            path = link_path(repository.revisions, reference.digest)
            store.problems.report("missing link", path, "an index references it", image)
    elif reference.digest not in links.layers:
        path = link_path(repository.layers, reference.digest)
        store.problems.report("missing link", path, "a manifest references it", image)
