"""Digests of blobs, computed from their content."""

import hashlib
from typing import Dict, Iterable, Iterator, List, NamedTuple, Tuple

from .problems import describe_os_error
from .store import Store
from .workers import Workers

CHUNK_FILES, CHUNK_BYTES = 500, 64 << 20  # the unit of work of one process
READ_SIZE = 1 << 20  # bytes

Wrong = Dict[str, Tuple[str, str]]
"""Kind and detail of a blob's problem, by digest."""


class Hashed(NamedTuple):
    """The result of one chunk."""

    blobs: int
    wrong: Wrong


def chunks(store: Store, digests: Iterable[str]) -> Iterator[List[str]]:
    """Split the digests into chunks of CHUNK_FILES or CHUNK_BYTES."""
    chunk: List[str] = []
    size = 0
    for digest in sorted(digests):
        chunk.append(digest)
        size += store.blobs[digest].size
        if len(chunk) == CHUNK_FILES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def hash_chunk(digests: List[str]) -> Hashed:
    """Compare the content of these blobs of the workers' store with their digests."""
    store: Store = Workers.store
    wrong: Wrong = {}
    buffer = memoryview(bytearray(READ_SIZE))
    for digest in digests:
        algorithm, _, hexadecimal = digest.partition(":")
        try:
            actual = hash_blob(store, digest, algorithm, buffer)
        except OSError as error:
            wrong[digest] = describe_os_error(error)
            continue
        if actual != hexadecimal:
            wrong[digest] = ("wrong digest", f"the content has the digest {algorithm}:{actual}")
    return Hashed(len(digests), wrong)


def hash_blob(store: Store, digest: str, algorithm: str, buffer: memoryview) -> str:
    """The hexadecimal digest of a blob's content by this algorithm, read through `buffer`. Raises OSError."""
    hashing = hashlib.new(algorithm)
    with open(store.open(store.blob_path(digest)), "rb", buffering=0) as file:
        for length in iter(lambda: file.readinto(buffer), 0):
            hashing.update(buffer[:length])
    return hashing.hexdigest()


def gather_wrong(store: Store, results: Iterable[Hashed]) -> Wrong:
    """Collect the blobs whose content is wrong."""
    wrong: Wrong = {}
    count = 0
    for hashed in results:
        wrong.update(hashed.wrong)
        count += hashed.blobs
        store.progress("reading blobs", count)
    return wrong
