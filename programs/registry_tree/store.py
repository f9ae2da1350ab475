"""The files of a container registry: blobs, and repositories with links to them."""

import contextlib
import functools
import hashlib
import os
import stat
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from .files import Files
from .manifest import (
    HEX_DIGITS,
    MAX_MANIFEST_SIZE,
    Manifest,
    ManifestError,
    Reference,
    is_digest,
    make_digest,
    malformed,
    parse_manifest,
)
from .problems import Problems, StoreError, describe_os_error
from .text import Progress, timestamp

STORE = os.path.join("docker", "registry", "v2")  # below a registry's root directory
MAX_LINK_SIZE = 1024  # bytes, much longer than any digest
STALE_UPLOAD = 7 * 24 * 3600  # seconds; the registry's default of maintenance.uploadpurging.age
LINKS_IN_DATABASE = "this registry stores its links and tags in a database; only its blobs are on this disk"


class Blob:
    """A file of the blob store. There can be 300,000 of them, so every byte here counts."""

    __slots__ = ("holders", "kept", "last_holder", "linked", "size")

    def __init__(self, size: int) -> None:
        self.size = size  # bytes
        self.linked = False  # some repository links to it
        self.kept = False  # a garbage collection keeps it
        self.holders = 0  # number of repositories, tags or manifests that need it
        self.last_holder = -1


class Repository(NamedTuple):
    """A repository: its name and its folder."""

    name: str
    path: str

    @property
    def layers(self) -> str:
        """The folder of links to layers and configs."""
        return os.path.join(self.path, "_layers")

    @property
    def revisions(self) -> str:
        """The folder of links to manifests."""
        return os.path.join(self.path, "_manifests", "revisions")

    @property
    def tags(self) -> str:
        """The folder of tags."""
        return os.path.join(self.path, "_manifests", "tags")

    def current_link(self, tag: str) -> str:
        """The file that contains the digest of a tag."""
        return os.path.join(self.tags, tag, "current", "link")

    def tag_index(self, tag: str) -> str:
        """The folder of links to every manifest that the tag has pointed to."""
        return os.path.join(self.tags, tag, "index")


class Link(NamedTuple):
    """A link: the digest in its path, and the digest that it contains (None if that is invalid)."""

    digest: str
    target: Optional[str]
    path: str

    @property
    def stored_as(self) -> str:
        """The digest that the blob is stored under: SHA-256, also for a blob that was pushed with another algorithm."""
        return self.digest if self.digest.startswith("sha256:") else self.target or self.digest


def link_path(folder: str, digest: str) -> str:
    """The link to `digest` in a folder of links."""
    return os.path.join(folder, *digest.split(":"), "link")


def find_store(root: str) -> str:
    """Find the folder with `blobs` and `repositories` at `root` or below it. Raises StoreError."""
    root = os.path.realpath(root)
    candidates = [os.path.join(root, *STORE.split(os.sep)[count:]) for count in (3, 2, 1, 0)]
    for folder in candidates:
        if os.path.isdir(os.path.join(folder, "blobs")) or os.path.isdir(os.path.join(folder, "repositories")):
            return folder
    for folder in candidates:
        # A registry that has started, but is still empty. Just an empty folder could be a volume that is not mounted.
        if os.path.isdir(os.path.join(os.path.dirname(folder), "lockfiles")):
            return folder
    raise StoreError(f"{root} does not contain a registry: neither it nor {STORE} in it has blobs or repositories")


class Store(Files):
    """Reads the store of a registry and collects the problems it finds."""

    def __init__(self, root: str, progress: Progress) -> None:
        """Raises StoreError if there is no store at `root` or below it."""
        super().__init__(find_store(root))
        self.obstacles = Problems(self.root)
        """What a garbage collection would do wrong: not damage, but a reason not to run one."""
        self.progress = progress
        self.blobs: Dict[str, Blob] = {}
        self.blobs_loaded = False
        lock = os.path.join(os.path.dirname(self.root), "lockfiles", "filesystem-in-use")
        self.is_gitlabs = os.path.isfile(lock)
        """Whether GitLab's registry has served this store: it creates that file at startup."""
        self.manifest = functools.lru_cache(maxsize=4096)(self._read_manifest)

    # Blobs

    def blob_path(self, digest: str) -> str:
        """The file of a blob."""
        algorithm, _, hexadecimal = digest.partition(":")
        return f"{self.root}/blobs/{algorithm}/{hexadecimal[:2]}/{hexadecimal}/data"

    def size(self, digest: str) -> Optional[int]:
        """Size of a blob in bytes; None if it does not exist."""
        if self.blobs_loaded:
            blob = self.blobs.get(digest)
            return blob.size if blob else None
        path = self.blob_path(digest)
        try:
            return os.lstat(path).st_size if self.is_real_folder(os.path.dirname(path)) else None
        except OSError:
            return None

    def load_blobs(self) -> None:
        """Load all files of the blob store into `blobs`, without opening any."""
        top = os.path.join(self.root, "blobs")
        for algorithm in self._folders_without(top, "data"):
            for prefix in self._folders_without(os.path.join(top, algorithm), "data"):
                folder = os.path.join(top, algorithm, prefix)
                for name in self._folders_without(folder, "data"):
                    self._load_blob(folder, algorithm, prefix, name)
                self.progress("listing blobs", len(self.blobs))
        self.blobs_loaded = True

    def _folders_without(self, path: str, name: str) -> List[str]:
        """The folders in a folder; reports a file of that name in it, which a collection would read as well."""
        folders, files = self.entries(path)
        if name in files:
            self.problems.report("misplaced file", os.path.join(path, name), "is not at the path of a digest")
        return folders

    def _load_blob(self, folder: str, algorithm: str, prefix: str, name: str) -> None:
        path = f"{folder}/{name}/data"
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return  # an empty folder, as in a copy from object storage
        except OSError as error:
            self.problems.report_unreadable(path, error)
            return
        if not stat.S_ISREG(status.st_mode):
            self.problems.report("not a file or folder", path, "is not a regular file; not followed")
        digest = make_digest(algorithm, name)
        if digest is None or not name.startswith(prefix) or len(prefix) != 2:
            self.problems.report("misplaced file", path, "is not at the path of a digest")
        else:
            self.blobs[digest] = Blob(status.st_size)

    # Repositories, links and tags

    @property
    def in_database(self) -> bool:
        """Whether links and tags are stored in a database instead of on this disk."""
        return os.path.isfile(os.path.join(os.path.dirname(self.root), "lockfiles", "database-in-use"))

    def check_halves(self, repositories: int, manifests: int) -> None:
        """Report blobs without repositories, or manifests without blobs: an incomplete copy."""
        if self.blobs and not repositories:
            path = os.path.join(self.root, "repositories")
            self.problems.report("missing folder", path, "there are blobs, but no repositories; incomplete copy?")
        elif manifests and not os.path.isdir(os.path.join(self.root, "blobs")):
            path = os.path.join(self.root, "blobs")
            self.problems.report("missing folder", path, "there are manifests, but no blobs; incomplete copy?")

    def require_links(self) -> None:
        """Raise StoreError if links and tags are stored in a database."""
        if self.in_database:
            raise StoreError(LINKS_IN_DATABASE)

    def repositories(self, below: str = "") -> Iterator[Repository]:
        """The repositories, sorted by name; with `below`, that one and those nested in it."""
        top = os.path.join(self.root, "repositories")
        waiting = [below]
        while waiting:
            name = waiting.pop()
            path = os.path.join(top, name) if name else top
            inside, files = self.entries(path)
            self._report_hidden(path, inside, files)
            if not name and "_layers" in inside:
                self.obstacles.report("stops a collection", os.path.join(path, "_layers"), "is not in a repository")
            if name and any(part in inside for part in ("_layers", "_manifests", "_uploads")):
                yield Repository(name, path)
            nested = [os.path.join(name, part) for part in inside if not part.startswith("_")]
            waiting += sorted(nested, reverse=True)

    def _report_hidden(self, path: str, folders: List[str], files: List[str]) -> None:
        """Report a file at which the registry stops walking a folder (handleRepository of catalog.go)."""
        for name in files:
            if name.startswith("_") and any(folder > name for folder in folders):
                detail = "makes a collection skip the repositories after it and delete their images; remove this file"
                self.obstacles.report("hides repositories", os.path.join(path, name), detail)

    @staticmethod
    def check_name(name: str) -> None:
        """Raise StoreError if a repository name points outside of the store."""
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise StoreError(f"{name!r} is not a repository name")

    def repository(self, name: str) -> Repository:
        """The repository of that name. Raises StoreError if it does not exist."""
        self.check_name(name)
        for repository in self.repositories(name):
            if repository.name == name:
                return repository
        raise StoreError(f"the repository {name} does not exist")

    def link(self, path: str, *, listed: bool = False) -> Optional[str]:
        """The digest in a link. Returns None and reports a problem if it has none. Raises FileNotFoundError."""
        try:
            content = self.read(path, MAX_LINK_SIZE, listed=listed)
        except FileNotFoundError:
            raise
        except OSError as error:
            self.problems.report_unreadable(path, error)
            return None
        text = content.decode("ascii", "replace")
        if is_digest(text):
            return text
        self.problems.report("malformed link", path, f"contains {text[:80]!r} instead of a digest")
        return None

    def links(self, folder: str) -> Iterator[Link]:
        """All links in a folder of links; reports a problem for one that contains a different digest."""
        for algorithm in self.algorithms(folder):
            for name in self._folders_without(os.path.join(folder, algorithm), "link"):
                path = f"{folder}/{algorithm}/{name}/link"
                digest = make_digest(algorithm, name)
                if digest is None:
                    self._report_below(f"{folder}/{algorithm}/{name}", "link")
                    continue
                try:
                    target = self.link(path, listed=True)
                except FileNotFoundError:
                    continue  # a garbage collection removes the link, but not its folder
                found = Link(digest, target, path)
                if target and target != found.stored_as:
                    self.problems.report("malformed link", path, f"contains {target}, not the digest in its path")
                yield found

    def stored_as(self, repository: Repository, digest: str) -> str:
        """The digest that a blob is stored under; one pushed with another algorithm is resolved through its link."""
        if not digest.startswith("sha256:") and self.size(digest) is None:
            with contextlib.suppress(FileNotFoundError):
                return self.link(link_path(repository.layers, digest)) or digest
        return digest

    def algorithms(self, folder: str) -> List[str]:
        """The digest algorithms in a folder of links; reports links below any other folder."""
        names = self._folders_without(folder, "link")
        for name in names:
            if name not in HEX_DIGITS:
                self._report_below(os.path.join(folder, name), "link")
        return [name for name in names if name in HEX_DIGITS]

    def _report_below(self, path: str, name: str) -> None:
        for folder in self._folders_without(path, name):
            self._report_below(os.path.join(path, folder), name)

    def tag_names(self, repository: Repository) -> List[str]:
        """Sorted names of the tags, including deleted ones whose folder is empty."""
        return self.folders(repository.tags)

    def tag(self, repository: Repository, name: str) -> Optional[str]:
        """The digest of a tag. Returns None and reports a problem if its link has none. Raises FileNotFoundError."""
        return self.link(repository.current_link(name))

    def tagged(self, repository: Repository) -> Iterator[Tuple[str, str]]:
        """(tag, digest) of all tags with a valid link, without deleted tags."""
        for name in self.tag_names(repository):
            try:
                digest = self.tag(repository, name)
            except FileNotFoundError:
                continue
            if digest:
                yield name, digest

    def uploads(self, repository: Repository) -> Iterator[Dict[str, Any]]:
        """Unfinished uploads: id, bytes, start time, and whether they are stale."""
        folder = os.path.join(repository.path, "_uploads")
        for name in self.folders(folder):
            size = started = None
            for part in ("data", "startedat"):
                try:
                    status = os.lstat(os.path.join(folder, name, part))
                except OSError:
                    continue
                if part == "data":
                    size = status.st_size
                started = status.st_mtime if started is None else min(started, status.st_mtime)
            if started is not None:
                stale = time.time() - started > STALE_UPLOAD
                yield {"id": name, "bytes": size or 0, "started": timestamp(started), "stale": stale}

    # Manifests

    def _read_manifest(self, digest: str) -> Manifest:
        """The manifest of that digest. Raises ManifestError."""
        try:
            content = self.read(self.blob_path(digest), MAX_MANIFEST_SIZE)
        except FileNotFoundError:
            raise ManifestError("missing blob", "the file does not exist") from None
        except OSError as error:
            raise ManifestError(*describe_os_error(error)) from None
        if len(content) > MAX_MANIFEST_SIZE:
            raise malformed(f"is longer than {MAX_MANIFEST_SIZE:,} bytes")
        algorithm, _, hexadecimal = digest.partition(":")
        actual = hashlib.new(algorithm, content).hexdigest()
        if actual != hexadecimal:
            raise ManifestError("wrong digest", f"the content has the digest {algorithm}:{actual}")
        return parse_manifest(digest, content)

    def sound_manifest(self, digest: str, needed_by: str) -> Optional[Manifest]:
        """The manifest of that digest. Returns None and reports a problem if it cannot be used."""
        try:
            return self.manifest(digest)
        except ManifestError as error:
            self.problems.report(error.kind, self.blob_path(digest), error.detail, needed_by)
            return None

    @staticmethod
    def is_manifest(repository: Repository, manifest: Manifest, reference: Reference) -> bool:
        """Whether it references a manifest; any index entry does that the repository has as a manifest."""
        if reference.role == "manifest" or not manifest.is_index:
            return reference.role == "manifest"
        return os.path.lexists(link_path(repository.revisions, reference.digest))

    def contents(self, repository: Repository, digest: str, needed_by: str) -> Dict[str, int]:
        """Bytes of a manifest and everything below it, by blob digest; the stated size for a missing blob."""
        sizes: Dict[str, int] = {}
        waiting = [digest]
        while waiting:
            manifest = self.sound_manifest(waiting.pop(), needed_by)
            if manifest is None:
                continue
            sizes[manifest.digest] = manifest.size
            for reference in manifest.references:
                if reference.role == "subject" or reference.digest in sizes:
                    continue
                if self.is_manifest(repository, manifest, reference):
                    if self.size(reference.digest) is not None:
                        waiting.append(reference.digest)
                else:
                    blob = self.stored_as(repository, reference.digest)
                    size = reference.size if reference.size is not None else self.size(blob)
                    sizes[blob] = size or 0
        return sizes
