"""`registry-tree du`: bytes stored, referenced, saved by sharing, and reclaimable."""

import argparse
from typing import Any, Dict, Iterable, Iterator, List

from .garbage_collection import mark
from .images import Image, list_images
from .store import LINKS_IN_DATABASE, Blob, Store
from .text import plural, size_text


class Usage:
    """Counts the bytes of images by `repo`, `tag` or `layer`, and those that only one row needs."""

    def __init__(self, blobs: Dict[str, Blob], by: str) -> None:
        self.tags = 0
        self.referenced = 0  # bytes, each image counted in full
        self._blobs = blobs
        self._by = by
        self._holder = -1  # number of the repository or image that is being counted
        self._row: Dict[str, Any] = {}
        self._rows: List[Dict[str, Any]] = []  # by that number; unused for layers, which many images can share

    def add(self, image: Image) -> None:
        """Count an image; the images of a repository must be added one after the other."""
        self.tags += image.is_tagged
        self.referenced += sum(image.contents.values())
        self._begin(image.repository.name if self._by == "repo" else image.name)
        holder, row = self._holder, self._row
        for digest in image.contents:
            blob = self._blobs.get(digest)
            if blob and blob.last_holder != holder:
                blob.last_holder = holder
                blob.holders += 1
                row["bytes"] += blob.size

    def _begin(self, name: str) -> None:
        """Start the row of a repository or image, unless it is the current one."""
        if self._by == "repo" and self._row.get("name") == name:
            return
        self._holder += 1
        self._row = {"name": name, "bytes": 0, "onlyHereBytes": 0}
        if self._by != "layer":
            self._rows.append(self._row)

    def rows(self) -> List[Dict[str, Any]]:
        """The rows, largest first."""
        rows = self._rows
        if self._by == "layer":
            rows = [
                {"name": digest, "bytes": blob.size, "holders": blob.holders}
                for digest, blob in self._blobs.items()
                if blob.holders
            ]
        else:
            for blob in self._blobs.values():
                if blob.holders == 1:
                    rows[blob.last_holder]["onlyHereBytes"] += blob.size
        return sorted(rows, key=lambda row: (-row["bytes"], row["name"]))


def gather(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    """The totals, and the bytes of each repo, tag or layer (`options.by`)."""
    store.load_blobs()
    data: Dict[str, Any] = {"blobs": len(store.blobs), "storedBytes": _total(store.blobs.values())}
    if store.in_database:
        return dict(data, linksInDatabase=True)
    usage = Usage(store.blobs, options.by)
    for number, image in enumerate(list_images(store, untagged_as_one=options.by != "layer"), 1):
        usage.add(image)
        store.progress("images", number)
    data.update(
        tags=usage.tags,
        referencedBytes=usage.referenced,
        neededBytes=_total(blob for blob in store.blobs.values() if blob.holders),
        uploadBytes=sum(upload["bytes"] for repository in store.repositories() for upload in store.uploads(repository)),
    )
    rows = usage.rows()
    for key, untagged in (("reclaimableBytes", False), ("reclaimableWithUntaggedBytes", True)):
        mark(store, untagged=untagged)
        data[key] = (
            None
            if store.problems or store.obstacles
            else _total(blob for blob in store.blobs.values() if not blob.kept)
        )
    return dict(data, by=options.by, rows=rows)


def _total(blobs: Iterable[Blob]) -> int:
    return sum(blob.size for blob in blobs)


def render(data: Dict[str, Any]) -> Iterator[str]:
    """The lines of text."""
    yield f"stored        {size_text(data['storedBytes'])} in {plural(data['blobs'], 'blob')}"
    if "linksInDatabase" in data:
        yield LINKS_IN_DATABASE
        return
    referenced, tags = size_text(data["referencedBytes"]), plural(data["tags"], "tag")
    yield f"referenced    {referenced} by {tags} and untagged images, each counted in full"
    yield f"saved         {size_text(max(data['referencedBytes'] - data['neededBytes'], 0))} by sharing"
    yield f"open uploads  {size_text(data['uploadBytes'])}"
    for key, words in (("reclaimableBytes", ""), ("reclaimableWithUntaggedBytes", " including untagged manifests")):
        if data[key] is None:
            yield f"reclaimable   unknown{words}; see registry-tree reclaim"
        else:
            yield f"reclaimable   {size_text(data[key])}{words}"
    yield ""
    for row in data["rows"]:
        if "holders" in row:
            yield f"{row['name']}  {size_text(row['bytes'])}  in {plural(row['holders'], 'image')}"
        else:
            yield f"{row['name']}  {size_text(row['bytes'])}, unshared {size_text(row['onlyHereBytes'])}"
