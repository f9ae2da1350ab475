"""`registry-tree verify`: checks all links, manifests and blobs, with digests computed from the content."""

import argparse
import os
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from .checks import Claims, check_manifest, check_other_digests, check_tag, read_links
from .hashing import Wrong, chunks, gather_wrong, hash_chunk
from .images import find_image
from .obstacles import check_repository
from .problems import Problem, StoreError
from .store import LINKS_IN_DATABASE, Blob, Repository, Store
from .text import plural, size_text
from .workers import Workers

CHUNK_REPOSITORIES = 4  # the unit of work of one process


class Notice(NamedTuple):
    """Something worth knowing that is not a problem."""

    kind: str
    path: str
    detail: str


class Part:
    """The results of checking some repositories: counts of what was checked, and what was found."""

    def __init__(self) -> None:
        self.counts = {"repositories": 0, "tags": 0, "manifests": 0}
        self.claims: Claims = {}
        self.linked: Set[str] = set()
        self.notices: List[Notice] = []
        self.problems: List[Problem] = []


def gather(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    """Check the whole store, or `options.images`, with `options.jobs` processes. Raises StoreError.

    Problems are checked a second time, because a running registry changes its files in the meantime.
    """
    data, wrong = check(store, options.images, options.jobs)
    if store.problems:
        again = Store(options.root, store.progress)
        data, _ = check(again, options.images, options.jobs, only=wrong)
        store.problems = store.problems.confirmed_by(again.problems)
    return data


def check(
    store: Store, images: Sequence[str], jobs: int, only: Optional[Set[str]] = None
) -> Tuple[Dict[str, Any], Set[str]]:
    """Check the whole store or these images; the content of all blobs, or of `only` these and those of doubtful size.

    Returns what was checked, and the digests of the blobs with wrong content.
    """
    total = Part()
    with Workers(store, jobs) as workers:
        parts: Iterable[Part] = ()
        if images:
            store.blobs = _check_images(store, images, total)
        else:
            store.load_blobs()
            if not store.in_database:
                parts = workers.map(check_part, _portions(store))
        if only is None:
            # Started before the parts are gathered, so that one large repository does not leave the other cores idle.
            hashed = workers.map(hash_chunk, chunks(store, store.blobs))
            _gather_parts(store, parts, total)
        else:
            _gather_parts(store, parts, total)
            hashed = workers.map(hash_chunk, chunks(store, (only | set(total.claims)).intersection(store.blobs)))
        wrong = gather_wrong(store, hashed)
    if not images and not store.in_database:
        total.notices += _unneeded_blobs(store)
        total.notices += [Notice(each.kind, each.path, each.detail) for each in store.obstacles]
        store.check_halves(total.counts["repositories"], total.counts["manifests"])
    _report_wrong_blobs(store, wrong, total.claims)
    total.notices += _wrong_sizes(store, wrong, total.claims)
    data: Dict[str, Any] = dict(
        total.counts, blobs=len(store.blobs), bytes=sum(blob.size for blob in store.blobs.values())
    )
    notices = [notice._asdict() for notice in total.notices]
    return dict(data, linksInDatabase=store.in_database, notices=notices), set(wrong)


def _check_images(store: Store, names: Sequence[str], total: Part) -> Dict[str, Blob]:
    """Check the links and manifests of these images. Returns the existing blobs that they need."""
    store.require_links()
    blobs: Dict[str, Blob] = {}
    for name in names:
        repository, tag, digest = find_image(store, name)
        links = read_links(store, repository)
        check_other_digests(store, repository, links)
        if tag:
            total.counts["tags"] += 1
            check_tag(store, repository, tag, links)
        elif digest not in links.revisions:
            raise StoreError(f"{repository.name} has no manifest {digest}")
        total.counts["repositories"] += 1
        waiting = [digest]
        while waiting:
            digest = waiting.pop()
            if digest in blobs:
                continue
            total.counts["manifests"] += 1
            needed = check_manifest(store, repository, digest, links, total.claims)
            manifests = {each.digest for each in needed if each.role == "manifest" or each.digest in links.revisions}
            waiting += manifests
            layers = {each.digest for each in needed} - manifests
            _add_existing(store, [digest, *(links.layers.get(each, each) for each in layers)], blobs)
    return blobs


def _add_existing(store: Store, digests: Iterable[str], blobs: Dict[str, Blob]) -> None:
    for digest in digests:
        size = store.size(digest)
        if size is not None:
            blobs[digest] = Blob(size)


def _portions(store: Store) -> List[List[Repository]]:
    repositories = list(store.repositories())
    for repository in repositories:
        check_repository(store, repository, untagged=True)
    starts = range(0, len(repositories), CHUNK_REPOSITORIES)
    return [repositories[start : start + CHUNK_REPOSITORIES] for start in starts]


def check_part(repositories: List[Repository]) -> Part:
    """Check all links and manifests of some repositories of the workers' store."""
    known: Store = Workers.store
    store = Store(known.root, known.progress)
    store.blobs, store.blobs_loaded = known.blobs, True
    part = Part()
    for repository in repositories:
        part.counts["repositories"] += 1
        _check_repository(store, repository, part)
    part.problems = list(store.problems)
    return part


def _check_repository(store: Store, repository: Repository, part: Part) -> None:
    links = read_links(store, repository)
    check_other_digests(store, repository, links)
    part.linked.update(links.layers.values(), links.revisions)
    for tag in store.tag_names(repository):
        part.counts["tags"] += check_tag(store, repository, tag, links)
    for digest in sorted(links.revisions):
        part.counts["manifests"] += 1
        check_manifest(store, repository, digest, links, part.claims)
        store.progress(f"manifests of {repository.name}", part.counts["manifests"])
    for upload in store.uploads(repository):
        if upload["stale"]:
            path = os.path.join(repository.name, "_uploads", upload["id"])
            part.notices.append(Notice("stale upload", path, f"since {upload['started']}"))


def _gather_parts(store: Store, parts: Iterable[Part], total: Part) -> None:
    """Add the parts to the total, and their problems to the store's."""
    for part in parts:
        for key, count in part.counts.items():
            total.counts[key] += count
        for digest, sizes in part.claims.items():
            total.claims.setdefault(digest, {}).update(sizes)
        for digest in part.linked:
            blob = store.blobs.get(digest)
            if blob:
                blob.linked = True
        total.notices += part.notices
        for problem in part.problems:
            store.problems.merge(problem)
        store.progress("manifests", total.counts["manifests"])


def _unneeded_blobs(store: Store) -> List[Notice]:
    return [
        Notice("unreferenced blob", digest, "not linked by any repository")
        for digest, blob in store.blobs.items()
        if not blob.linked
    ]


def _report_wrong_blobs(store: Store, wrong: Wrong, claims: Claims) -> None:
    """Report the blobs with wrong content."""
    for digest, problem in wrong.items():
        size, stated = store.blobs[digest].size, max(claims.get(digest, {}).values(), default=0)
        truncated = ("truncated file", f"has {size:,} of {stated:,} bytes")
        kind, detail = truncated if problem[0] == "wrong digest" and size < stated else problem
        store.problems.report(kind, store.blob_path(digest), detail)


def _wrong_sizes(store: Store, wrong: Wrong, claims: Claims) -> Iterator[Notice]:
    """Manifests that state the wrong size for an intact blob. They were pushed like this and are served like this, but
    some clients reject them (containerd, "failed size validation").
    """
    for digest, sizes in claims.items():
        for manifest, stated in sizes.items() if digest not in wrong else ():
            detail = f"states {stated:,} bytes for {digest}, which has {store.blobs[digest].size:,}"
            yield Notice("wrong size", manifest, detail)


def render(data: Dict[str, Any]) -> Iterator[str]:
    """The lines of text."""
    for notice in data["notices"]:
        yield f"{notice['kind']}  {notice['path']}  {notice['detail']}"
    if data["linksInDatabase"]:
        yield LINKS_IN_DATABASE
    repositories = plural(data["repositories"], "repository", "repositories")
    tags, manifests = plural(data["tags"], "tag"), plural(data["manifests"], "manifest")
    size, blobs = size_text(data["bytes"]), plural(data["blobs"], "blob")
    yield f"checked {repositories}, {tags}, {manifests}, and {size} in {blobs}"
