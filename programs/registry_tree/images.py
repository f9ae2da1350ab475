"""Images: a manifest in a repository, referenced by a tag or by its digest."""

from typing import Dict, Iterator, NamedTuple, Optional, Set, Tuple

from .manifest import ManifestError, is_digest
from .problems import StoreError
from .store import Repository, Store

UNTAGGED = "(untagged)"


class Image(NamedTuple):
    """An image, and the size in bytes of everything it needs, by digest."""

    repository: Repository
    tag: str  # a tag, @digest, or UNTAGGED: all untagged images of the repository
    contents: Dict[str, int]

    @property
    def name(self) -> str:
        """`group/project:tag`, `group/project@sha256:...` or `group/project (untagged)`."""
        return image_name(self.repository, self.tag)

    @property
    def is_tagged(self) -> bool:
        """Whether the image is referenced by a tag."""
        return self.tag != UNTAGGED and not self.tag.startswith("@")


def image_name(repository: Repository, tag: str) -> str:
    """The name of an image; `tag` is a tag, @digest or UNTAGGED."""
    return repository.name + (tag if tag.startswith("@") else " " + tag if tag == UNTAGGED else ":" + tag)


def manifest_name(repository: Repository, digest: str) -> str:
    """The name of an image by its digest: `group/project@sha256:...`."""
    return f"{repository.name}@{digest}"


def find_image(store: Store, name: str) -> Tuple[Repository, Optional[str], str]:
    """Repository, tag and digest of `group/project:tag`; for `group/project@sha256:...` the tag is None.

    Raises StoreError.
    """
    repository_name, at, digest = name.partition("@")
    if at:
        if not is_digest(digest):
            raise StoreError(f"{digest!r} is not a digest")
        return store.repository(repository_name), None, digest
    repository_name, colon, tag = name.rpartition(":")
    if not colon or not tag or "/" in tag or tag.startswith("."):
        raise StoreError(f"{name!r} is not an image name; use group/project:tag or group/project@sha256:...")
    repository = store.repository(repository_name)
    try:
        current = store.tag(repository, tag)
    except FileNotFoundError:
        raise StoreError(f"{repository.name} has no tag {tag}") from None
    if current is None:
        raise StoreError(f"the link of the tag {tag} in {repository.name} is invalid")
    return repository, tag, current


def list_images(store: Store, *, untagged_as_one: bool = False) -> Iterator[Image]:
    """All images; of the untagged ones, those that no other untagged manifest references.

    With `untagged_as_one`, the untagged images of a repository are listed as a single one.
    """
    for repository in store.repositories():
        known: Set[str] = set()
        for tag, digest in store.tagged(repository):
            contents = store.contents(repository, digest, image_name(repository, tag))
            known.update(contents)
            yield Image(repository, tag, contents)
            store.progress(f"images of {repository.name}", len(known))
        untagged = _untagged_images(store, repository, known)
        if not untagged_as_one:
            yield from untagged
            continue
        together: Dict[str, int] = {}
        for image in untagged:
            together.update(image.contents)
        if together:
            yield Image(repository, UNTAGGED, together)


def _untagged_images(store: Store, repository: Repository, known: Set[str]) -> Iterator[Image]:
    untagged = [link.digest for link in store.links(repository.revisions) if link.digest not in known]
    untagged = [digest for digest in untagged if store.size(digest) is not None]
    for digest in sorted(set(untagged).difference(*(_named_by_index(store, digest) for digest in untagged))):
        yield Image(repository, "@" + digest, store.contents(repository, digest, manifest_name(repository, digest)))


def _named_by_index(store: Store, digest: str) -> Set[str]:
    try:
        manifest = store.manifest(digest)
    except ManifestError:
        return set()
    return {reference.digest for reference in manifest.references if reference.role == "manifest"}
