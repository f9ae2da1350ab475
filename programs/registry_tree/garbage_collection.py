"""What the registry's own garbage collection removes (registry/storage/garbagecollect.go), and what images need."""

import os
from typing import Dict, Iterable, Iterator, List, NamedTuple, Sequence, Set

from . import obstacles
from .images import image_name, manifest_name
from .manifest import IMAGE, IMAGE_LIST, MANIFESTS, OCI_IMAGE, SCHEMA_1, SIGNED_SCHEMA_1, Manifest, ManifestError
from .store import Repository, Store, link_path

LOST = "would be lost"
FOLLOWED_FROM_AN_INDEX = (IMAGE, IMAGE_LIST, OCI_IMAGE, SCHEMA_1, SIGNED_SCHEMA_1)
"""Media types that -m follows from an index: manifest/manifestlist/compat/compat.go. It does not follow an index."""


class Collector(NamedTuple):
    """An implementation of garbage collection, and how it differs from the other."""

    name: str
    follows_indexes: bool  # with -m, keeps what a tagged index references, one level down
    keeps_subjects: bool  # of OCI images
    needs_tags: bool  # with -m, fails if a repository has no folder of tags


GITLAB = Collector("GitLab's registry", follows_indexes=True, keeps_subjects=True, needs_tags=False)
DISTRIBUTION = Collector("distribution 2.8", follows_indexes=False, keeps_subjects=False, needs_tags=True)


class Revision(NamedTuple):
    """A manifest of a repository."""

    repository: Repository
    digest: str


class Need(NamedTuple):
    """Something that a manifest needs, but that its own repository does not keep from being collected."""

    manifest: Revision
    blob: str
    is_taken: bool  # its manifest link in this repository is removed, even if its blob is kept


def collector_of(store: Store) -> Collector:
    """The collector of this store; distribution if unknown, because GitLab's registry keeps all that it keeps."""
    return GITLAB if store.is_gitlabs else DISTRIBUTION


def mark(store: Store, *, untagged: bool) -> List[Revision]:
    """Set `kept` of every blob as the registry's collection would, and return the manifests whose links it removes.

    `untagged`: whether untagged manifests are removed (-m). Damage that would make the collection fail or remove too
    much is reported as a problem; anything else that aborts it, or that it would remove from an image, as an obstacle.
    """
    store.obstacles.clear()
    for blob in store.blobs.values():
        blob.kept = False
    removed: List[Revision] = []
    needs: List[Need] = []
    count = manifests = 0
    for count, repository in enumerate(store.repositories(), 1):
        obstacles.check_repository(store, repository, untagged=untagged)
        marking = _Marking(store, repository)
        removed += [Revision(repository, digest) for digest in marking.mark(untagged=untagged)]
        needs += marking.needs
        manifests += marking.links
        store.progress("marking repositories", count)
    store.check_halves(count, manifests)
    _report_losses(store, needs)
    return removed


class _Marking:
    """Marks one repository."""

    def __init__(self, store: Store, repository: Repository) -> None:
        self.needs: List[Need] = []
        self._store = store
        self._repository = repository
        self._collector = collector_of(store)
        self._tagged = dict(store.tagged(repository))
        links = list(store.links(repository.revisions))
        self.links = len(links)
        # Not an intersection, which would iterate over all blobs for each repository.
        known = {link.digest for link in links if link.digest in store.blobs}
        self._revisions = {link.stored_as for link in links} & known
        self._marks: Set[str] = set()
        self._whole: Set[str] = set()  # images with all blobs marked, which need no further check

    def mark(self, *, untagged: bool) -> List[str]:
        """Mark the blobs of the repository as kept. Returns the digests of the manifests whose links are removed."""
        if not self._is_whole(untagged=untagged):
            return []
        tagged = self._revisions.intersection(self._tagged.values())
        removed: Set[str] = set()
        if untagged:
            named = self._mark_manifests(tagged)
            followed = named if self._collector.follows_indexes else set()
            self._mark_manifests(followed)
            removed = self._revisions - tagged - followed
        else:
            self._mark_manifests(self._revisions)
        for digest in self._marks:
            blob = self._store.blobs.get(digest)
            if blob:
                blob.kept = True
        self._find_needs(tagged - self._whole, removed, served=False)
        if not untagged:
            self._find_needs(self._revisions - tagged - self._whole, removed, served=True)
        return sorted(removed)

    def _is_whole(self, *, untagged: bool) -> bool:
        """Whether the collection reads this repository correctly; reports the reason if it does not."""
        store, repository = self._store, self._repository
        if (self._revisions or self._tagged) and not os.path.isdir(repository.layers):
            store.problems.report("missing folder", repository.layers, "without it a collection skips this repository")
            return False
        for tag, digest in self._tagged.items():
            if digest not in self._revisions:
                path = repository.current_link(tag)
                store.problems.report("dangling link", path, f"{repository.name} has no manifest {digest}")
        if untagged and self._revisions and self._collector.needs_tags and not os.path.isdir(repository.tags):
            store.obstacles.report(obstacles.STOPS, repository.tags, "does not exist, so no manifest is tagged")
        return True

    def _mark_manifests(self, digests: Iterable[str]) -> Set[str]:
        """Mark manifests and what they reference. Returns the manifests that indexes among them reference."""
        named: Set[str] = set()
        for digest in digests:
            self._marks.add(digest)
            if digest not in self._revisions:
                continue
            manifest = self._store.sound_manifest(digest, manifest_name(self._repository, digest))
            if manifest is None:
                continue
            kept = self._kept_by(manifest)
            self._marks.update(kept)
            if (
                not manifest.is_index
                and all(each in self._store.blobs for each in kept)
                and not self._names_manifests(manifest)
            ):
                self._whole.add(digest)
            if manifest.is_index:
                named |= {each.digest for each in manifest.references if each.media_type in FOLLOWED_FROM_AN_INDEX}
        return named

    @staticmethod
    def _names_manifests(manifest: Manifest) -> bool:
        return any(each.media_type in MANIFESTS for each in manifest.references)

    def _kept_by(self, manifest: Manifest) -> Iterable[str]:
        return [each.digest for each in manifest.references if each.role != "subject" or self._collector.keeps_subjects]

    def _find_needs(self, roots: Iterable[str], removed: Set[str], *, served: bool) -> None:
        store, repository, marks = self._store, self._repository, self._marks
        for digest, needed, is_manifest in follow(store, repository, roots, self._revisions, served=served):
            is_taken = is_manifest and needed in removed
            if is_taken or needed not in marks or needed not in store.blobs:
                blob = store.stored_as(repository, needed)
                self.needs.append(Need(Revision(repository, digest), blob, is_taken))


class Needed(NamedTuple):
    """Something that a manifest references and an image needs."""

    manifest: str
    digest: str
    is_manifest: bool


def follow(
    store: Store, repository: Repository, roots: Iterable[str], revisions: Set[str], *, served: bool
) -> Iterator[Needed]:
    """Everything that these images need, through indexes of any depth, except subjects, which an image does not need.

    An entry is a manifest if the repository has it as one, regardless of its media type in an index. With `served`,
    other manifests are not followed: their links are gone, and the registry does not serve them.
    """
    waiting = list(roots)
    seen = set(waiting)
    while waiting:
        digest = waiting.pop()
        try:
            manifest = store.manifest(digest)
        except ManifestError as error:
            if error.kind not in ("missing blob", "malformed manifest"):
                store.problems.report(error.kind, store.blob_path(digest), error.detail)
            continue
        for reference in manifest.references:
            if reference.role == "subject":
                continue
            known = reference.digest in revisions and (manifest.is_index or reference.media_type in MANIFESTS)
            is_manifest = known or (
                reference.role == "manifest" and (not served or _is_served(store, repository, reference.digest))
            )
            yield Needed(digest, reference.digest, is_manifest)
            if is_manifest and reference.digest not in seen:
                seen.add(reference.digest)
                waiting.append(reference.digest)


def _is_served(store: Store, repository: Repository, digest: str) -> bool:
    """Whether a manifest that was pushed as a layer is served, as distribution does."""
    return not store.is_gitlabs and os.path.lexists(link_path(repository.layers, digest))


def _report_losses(store: Store, needs: Sequence[Need]) -> None:
    """Report what images need and the collection would remove, with the names of the images."""
    names: Dict[str, Dict[str, List[str]]] = {}
    collection = f"the garbage collection of {collector_of(store).name}"
    for (repository, manifest), digest, is_taken in needs:
        blob = store.blobs.get(digest)
        if blob is None:
            continue
        taken = [store.blob_path(digest)] if not blob.kept else []
        if is_taken:
            taken.append(link_path(repository.revisions, digest))
        for path in taken:
            if repository.name not in names:
                names[repository.name] = _images_by_manifest(store, repository)
            for name in names[repository.name].get(manifest) or [manifest_name(repository, manifest)]:
                store.obstacles.report(LOST, path, f"{collection} would delete it", name)


def _images_by_manifest(store: Store, repository: Repository) -> Dict[str, List[str]]:
    """Names of the tagged images that contain a manifest, by its digest."""
    found: Dict[str, List[str]] = {}
    revisions = {link.digest for link in store.links(repository.revisions)}
    for tag, digest in store.tagged(repository):
        needed = follow(store, repository, [digest], revisions, served=False)
        for each in {digest, *(found.manifest for found in needed)}:
            found.setdefault(each, []).append(image_name(repository, tag))
    return found


def explain(store: Store, free: Dict[str, int], removed: Sequence[Revision]) -> Dict[str, str]:
    """The origin of each blob that nothing keeps, by digest; without those that no repository links to."""
    reasons: Dict[str, str] = {}
    untagged: Dict[str, str] = {}
    for repository, digest in removed:
        name = manifest_name(repository, digest)
        untagged[digest] = f"untagged manifest of {repository.name}"
        for each in store.contents(repository, digest, name):
            reasons.setdefault(each, f"only needed by the untagged {name}")
    reasons.update(untagged)
    for repository in store.repositories() if free else ():
        reasons.update(_former_tags(store, repository, free, untagged))
        for digest in _layers(store, repository):
            if digest in free:
                reasons.setdefault(digest, f"layer of {repository.name} that none of its manifests references")
    return reasons


def _former_tags(
    store: Store, repository: Repository, free: Dict[str, int], untagged: Dict[str, str]
) -> Dict[str, str]:
    """Reasons for the manifests in `free` that a tag of this repository has pointed to."""
    reasons = {}
    for tag in store.tag_names(repository):
        for link in store.links(repository.tag_index(tag)):
            if link.digest in free:
                origin = untagged.get(link.digest, f"manifest deleted from {repository.name}")
                reasons[link.digest] = f"{origin}, formerly {image_name(repository, tag)}"
    return reasons


def _layers(store: Store, repository: Repository) -> Iterable[str]:
    for algorithm in store.algorithms(repository.layers):
        for name in store.folders(os.path.join(repository.layers, algorithm)):
            yield f"{algorithm}:{name}"
