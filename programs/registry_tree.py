#!/usr/libexec/platform-python
"""registry-tree: shows, checks and explains what a container registry keeps on its disk.

It reads the folder of a registry that runs, or any copy of it (a mounted volume, a restored snapshot), and never
writes there. Links in the file system are not followed. Needs nothing but Python 3.6 or newer.

Exit status: 0 sound, 1 damage found, 2 could not look.

Layout: registry/storage/paths.go of GitLab's container-registry 4.15.2, and of distribution 2.8. What a collection
would take: registry/storage/garbagecollect.go of the first.
"""

import argparse
import concurrent.futures
import concurrent.futures.process
import datetime
import errno
import functools
import hashlib
import json
import multiprocessing
import os
import re
import signal
import stat
import sys
import time
import traceback
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, TextIO, Tuple

DEFAULT_ROOT = "/srv/registry/images"
STORE = os.path.join("docker", "registry", "v2")  # below a registry's root directory
SOUND, DAMAGED, CANNOT_LOOK = 0, 1, 2

HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
LARGEST_MANIFEST = 4 << 20  # bytes; maxManifestBodyBytes of registry/handlers/manifests.go
LARGEST_LINK = 1024  # bytes, far more than a digest has
STALE_UPLOAD = 7 * 24 * 3600  # seconds; the registry's own maintenance.uploadpurging.age
CHUNK_FILES, CHUNK_BYTES = 500, 64 << 20  # what one process hashes before it answers
CHUNK_REPOSITORIES = 4  # likewise
READ_AT_ONCE = 1 << 20  # bytes
UNITS = ("", "kB", "MB", "GB", "TB", "PB")
NAMES_KEPT = 10  # of those who need what is damaged

IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
IMAGE_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
SIGNED_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
MANIFESTS = (IMAGE, IMAGE_LIST, OCI_IMAGE, OCI_INDEX, SCHEMA_1, SIGNED_SCHEMA_1)
FOLLOWED_FROM_AN_INDEX = (IMAGE, IMAGE_LIST, OCI_IMAGE, SCHEMA_1, SIGNED_SCHEMA_1)
"""By a collection of untagged manifests: manifest/manifestlist/compat/references.go. An index in an index is not."""

KINDS = {
    IMAGE: "image",
    OCI_IMAGE: "OCI image",
    IMAGE_LIST: "list",
    OCI_INDEX: "OCI index",
    SCHEMA_1: "schema 1",
}


class CannotLook(Exception):
    """There is nothing to look at, or not by this command; the text says why."""


class Damage(Exception):
    """A manifest that cannot be used."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


class Finding(NamedTuple):
    """One damage: what, where (relative to the store), how it shows, and who needs it (the first few of `needs`)."""

    kind: str
    path: str
    detail: str
    needed_by: List[str]
    needs: int


class Reference(NamedTuple):
    """What a manifest says of one thing it needs. `size` is None where it says none (schema 1)."""

    role: str  # config, layer, manifest, subject
    digest: str
    size: Optional[int]
    media_type: str
    elsewhere: bool  # the registry need not hold it
    platform: str


class Manifest(NamedTuple):
    """A manifest whose bytes have its digest."""

    digest: str
    media_type: str
    artifact_type: str
    size: int
    references: Tuple[Reference, ...]

    @property
    def is_index(self) -> bool:
        return self.media_type in (IMAGE_LIST, OCI_INDEX)


class Blob:
    """A file of the blob store, and what has been learned of it. With 300,000 of them every byte here counts."""

    __slots__ = ("holders", "kept", "last_holder", "linked", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.linked = False  # by any repository
        self.kept = False  # by a collection
        self.holders = 0  # repositories, tags or manifests that need it
        self.last_holder = -1


class Repository(NamedTuple):
    name: str
    path: str

    @property
    def layers(self) -> str:
        return os.path.join(self.path, "_layers")

    @property
    def revisions(self) -> str:
        return os.path.join(self.path, "_manifests", "revisions")

    @property
    def tags(self) -> str:
        return os.path.join(self.path, "_manifests", "tags")


# Digests and manifests ------------------------------------------------------------------------------------------------


def digest_of(algorithm: str, hexadecimal: str) -> Optional[str]:
    """None when the two make no digest."""
    if len(hexadecimal) == HEX_DIGITS.get(algorithm) and not hexadecimal.strip("0123456789abcdef"):
        return algorithm + ":" + hexadecimal
    return None


def trouble(error: OSError) -> Tuple[str, str]:
    """Kind and detail of what cannot be read."""
    if error.errno == errno.ELOOP:
        return "not a file or folder", "it is a link or something else, and was not followed"
    return "unreadable", error.strerror or str(error)


def is_digest(text: Any) -> bool:
    return isinstance(text, str) and digest_of(*text.partition(":")[::2]) is not None


def parse_manifest(digest: str, content: bytes) -> Manifest:
    """As the registry takes it apart (registry/storage/manifeststore.go). Raises Damage: malformed manifest."""
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _malformed(f"it is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise _malformed("it is no JSON object")
    version, media_type = document.get("schemaVersion"), document.get("mediaType", "")
    if version == 1:
        return Manifest(digest, SCHEMA_1, "", len(content), tuple(_schema_1_layers(document)))
    if version != 2:
        raise _malformed(f"it has schema version {version!r}")
    if media_type == "":
        media_type = OCI_INDEX if document.get("manifests") is not None else OCI_IMAGE
    if media_type in (IMAGE_LIST, OCI_INDEX):
        references = [_reference("manifest", entry) for entry in _list(document, "manifests")]
    elif media_type in (IMAGE, OCI_IMAGE):
        references = [_reference("config", document.get("config"))]
        references += [_reference("layer", entry) for entry in _list(document, "layers")]
    else:
        raise _malformed(f"it has the media type {media_type!r}")
    if document.get("subject") is not None:
        references.append(_reference("subject", document["subject"]))
    artifact_type = document.get("artifactType")
    return Manifest(
        digest, media_type, artifact_type if isinstance(artifact_type, str) else "", len(content), tuple(references)
    )


def _malformed(detail: str) -> Damage:
    return Damage("malformed manifest", detail)


def _list(document: Dict[str, Any], key: str) -> List[Any]:
    found = document.get(key)
    if not isinstance(found, (list, type(None))):
        raise _malformed(f"its {key} are no list")
    return found or []


def _schema_1_layers(document: Dict[str, Any]) -> Iterator[Reference]:
    for entry in _list(document, "fsLayers"):
        digest = entry.get("blobSum") if isinstance(entry, dict) else None
        if not is_digest(digest):
            raise _malformed(f"a layer has the digest {digest!r}")
        yield Reference("layer", str(digest), None, "", False, "")


def _reference(role: str, entry: Any) -> Reference:
    if not isinstance(entry, dict):
        raise _malformed(f"a {role} of it is no JSON object")
    digest, size, media_type = entry.get("digest"), entry.get("size"), entry.get("mediaType", "")
    if not is_digest(digest):
        raise _malformed(f"a {role} of it has the digest {digest!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _malformed(f"a {role} of it has the size {size!r}")
    if not isinstance(media_type, str):
        raise _malformed(f"a {role} of it has the media type {media_type!r}")
    if role == "manifest" and media_type not in MANIFESTS:
        role = "layer"  # BuildKit keeps its cache as an index of layers
    elsewhere = role == "subject" or bool(entry.get("urls")) or "foreign" in media_type or "nondist" in media_type
    return Reference(role, str(digest), size, media_type, elsewhere, _platform(entry))


def _platform(entry: Dict[str, Any]) -> str:
    annotations, platform = entry.get("annotations"), entry.get("platform")
    if isinstance(annotations, dict) and annotations.get("vnd.docker.reference.type") == "attestation-manifest":
        return "attestation"
    if not isinstance(platform, dict):
        return ""
    parts = (platform.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(part for part in parts if isinstance(part, str))


# The store ------------------------------------------------------------------------------------------------------------


def find_store(root: str) -> str:
    """The folder with `blobs` and `repositories`: `root` or below it. Raises CannotLook."""
    root = os.path.realpath(root)
    below = [os.path.join(root, *STORE.split(os.sep)[count:]) for count in (3, 2, 1, 0)]
    for folder in below:
        if os.path.isdir(os.path.join(folder, "blobs")) or os.path.isdir(os.path.join(folder, "repositories")):
            return folder
    for folder in below:
        # A registry that has started and holds nothing yet. An empty folder alone may be a volume that is not mounted.
        if os.path.isdir(os.path.join(os.path.dirname(folder), "lockfiles")):
            return folder
    raise CannotLook(f"{root} holds no registry: neither it nor {STORE} in it has blobs or repositories")


class Store:
    """Reads one store, and collects the damage it meets on its way."""

    def __init__(self, root: str, progress: "Progress") -> None:
        self.root = find_store(root)
        self.progress = progress
        self.damage = {}  # type: Dict[Tuple[str, str], Finding]
        self.blobs = {}  # type: Dict[str, Blob]
        self.blobs_loaded = False
        self.manifest = functools.lru_cache(maxsize=4096)(self._manifest)
        self._is_real = functools.lru_cache(maxsize=4096)(self._is_real_folder)

    @property
    def in_database(self) -> bool:
        """Whether links and tags live in a database instead of here."""
        return os.path.isfile(os.path.join(os.path.dirname(self.root), "lockfiles", "database-in-use"))

    def report(self, kind: str, path: str, detail: str, needed_by: str = "") -> None:
        key = (kind, os.path.relpath(path, self.root))
        found = self.damage.get(key) or Finding(key[0], key[1], detail, [], 0)
        if needed_by and needed_by not in found.needed_by:
            if len(found.needed_by) < NAMES_KEPT:
                found.needed_by.append(needed_by)
            found = found._replace(needs=found.needs + 1)
        self.damage[key] = found

    def add(self, finding: Finding) -> None:
        """What was found elsewhere, by one who looked at other images."""
        known = self.damage.get((finding.kind, finding.path))
        if known:
            names = known.needed_by + [name for name in finding.needed_by if name not in known.needed_by]
            finding = finding._replace(needed_by=names[:NAMES_KEPT], needs=known.needs + finding.needs)
        self.damage[finding.kind, finding.path] = finding

    def unreadable(self, path: str, error: OSError) -> None:
        kind, detail = trouble(error)
        self.report(kind, path, detail)

    def read(self, path: str, limit: int, listed: bool = False) -> bytes:
        """At most `limit` + 1 bytes of a file, so that too long shows. `listed` as in open. Raises OSError."""
        descriptor, content = self.open(path, listed), b""
        try:
            while len(content) <= limit:
                piece = os.read(descriptor, limit + 1 - len(content))
                if not piece:
                    break
                content += piece
        finally:
            os.close(descriptor)
        return content

    def open(self, path: str, listed: bool = False) -> int:
        """A descriptor of the regular file `path`, reached through folders alone: its own is known to be one when it
        was `listed` just now. Raises OSError.
        """
        if not listed and not self._is_real(os.path.dirname(path)):
            raise OSError(errno.ELOOP, "a folder on the way is a link")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.ELOOP, "not a regular file")
        return descriptor

    def _is_real_folder(self, folder: str) -> bool:
        if folder == self.root:
            return True
        return self._is_real(os.path.dirname(folder)) and stat.S_ISDIR(os.lstat(folder).st_mode)

    def folders(self, path: str) -> List[str]:
        """Names of the folders in a folder, in order; none where there is no such folder."""
        try:
            if not self._is_real(path):
                self.report("not a file or folder", path, "it is no folder, and was not followed")
                return []
            with os.scandir(path) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries]
        except FileNotFoundError:
            return []
        except OSError as error:
            self.unreadable(path, error)
            return []
        for name, _, is_link in found:
            if is_link:
                self.report("not a file or folder", os.path.join(path, name), "a symbolic link: it was not followed")
        return sorted(name for name, is_folder, _ in found if is_folder)

    def blob_path(self, digest: str) -> str:
        algorithm, _, hexadecimal = digest.partition(":")
        return os.path.join(self.root, "blobs", algorithm, hexadecimal[:2], hexadecimal, "data")

    def size(self, digest: str) -> Optional[int]:
        """Bytes of a blob; None when it is not there."""
        if self.blobs_loaded:
            blob = self.blobs.get(digest)
            return blob.size if blob else None
        path = self.blob_path(digest)
        try:
            return os.lstat(path).st_size if self._is_real(os.path.dirname(path)) else None
        except OSError:
            return None

    def load_blobs(self) -> None:
        """Look at every file of the blob store, without opening it."""
        top = os.path.join(self.root, "blobs")
        for algorithm in self.folders(top):
            for prefix in self.folders(os.path.join(top, algorithm)):
                folder = os.path.join(top, algorithm, prefix)
                for name in self.folders(folder):
                    self._load_blob(folder, algorithm, prefix, name)
                self.progress("looking at blobs", len(self.blobs))
        self.blobs_loaded = True

    def _load_blob(self, folder: str, algorithm: str, prefix: str, name: str) -> None:
        path = os.path.join(folder, name, "data")
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return  # a folder without a file, as a copy from object storage may have
        except OSError as error:
            self.unreadable(path, error)
            return
        digest = digest_of(algorithm, name)
        if digest is None or not name.startswith(prefix) or len(prefix) != 2:
            self.report("misplaced file", path, "no digest leads here")
        else:
            self.blobs[digest] = Blob(found.st_size)

    def repositories(self, below: str = "") -> Iterator[Repository]:
        """In the order of their names. `below`: that repository and those nested in it."""
        top = os.path.join(self.root, "repositories")
        waiting = [below]
        while waiting:
            name = waiting.pop()
            path = os.path.join(top, name) if name else top
            inside = self.folders(path)
            if name and any(part in inside for part in ("_layers", "_manifests", "_uploads")):
                yield Repository(name, path)
            nested = [os.path.join(name, part) for part in inside if not part.startswith("_")]
            waiting += sorted(nested, reverse=True)

    @staticmethod
    def check_name(name: str) -> None:
        """Raises CannotLook when it would lead out of the store."""
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise CannotLook(f"{name!r} is no name of a repository")

    def repository(self, name: str) -> Repository:
        """Raises CannotLook when there is none of that name."""
        self.check_name(name)
        for repository in self.repositories(name):
            if repository.name == name:
                return repository
        raise CannotLook(f"there is no repository {name}")

    def link(self, path: str, listed: bool = False) -> Optional[str]:
        """The digest in a link; None, and a report, when it holds none. Raises FileNotFoundError."""
        try:
            content = self.read(path, LARGEST_LINK, listed)
        except FileNotFoundError:
            raise
        except OSError as error:
            self.unreadable(path, error)
            return None
        text = content.decode("ascii", "replace")
        if is_digest(text):
            return text
        self.report("malformed link", path, f"it holds {text[:80]!r} instead of a digest")
        return None

    def links(self, folder: str) -> Iterator[Tuple[str, str]]:
        """(digest, path) of every link that is there: one that points elsewhere is reported, and is there."""
        for algorithm in self.folders(folder):
            if algorithm not in HEX_DIGITS:
                continue
            for name in self.folders(os.path.join(folder, algorithm)):
                path = os.path.join(folder, algorithm, name, "link")
                digest = digest_of(algorithm, name)
                try:
                    target = self.link(path, listed=True)
                except FileNotFoundError:
                    continue  # a collection takes the link and leaves its folder
                if digest is None:
                    self.report("misplaced file", path, "no digest leads here")
                    continue
                # Only a blob that was pushed by another kind of digest is stored under the usual kind.
                if target and target != digest and algorithm == "sha256":
                    self.report("malformed link", path, f"it holds {target}")
                yield digest, path

    def tag_names(self, repository: Repository) -> List[str]:
        return self.folders(repository.tags)

    def tag(self, repository: Repository, name: str) -> Optional[str]:
        """Digest of a tag; None, and a report, when its link holds none. Raises FileNotFoundError."""
        return self.link(os.path.join(repository.tags, name, "current", "link"))

    def tagged(self, repository: Repository) -> Iterator[Tuple[str, str]]:
        """(tag, digest), those with a sound link; the empty folders of former tags are passed over."""
        for name in self.tag_names(repository):
            try:
                digest = self.tag(repository, name)
            except FileNotFoundError:
                continue
            if digest:
                yield name, digest

    def _manifest(self, digest: str) -> Manifest:
        """Raises Damage."""
        try:
            content = self.read(self.blob_path(digest), LARGEST_MANIFEST)
        except FileNotFoundError:
            raise Damage("missing blob", "there is no such file") from None
        except OSError as error:
            raise Damage(*trouble(error)) from None
        if len(content) > LARGEST_MANIFEST:
            raise _malformed(f"it is longer than {LARGEST_MANIFEST:,} bytes")
        algorithm, _, hexadecimal = digest.partition(":")
        actual = hashlib.new(algorithm, content).hexdigest()
        if actual != hexadecimal:
            raise Damage("wrong digest", f"its bytes have {algorithm}:{actual}")
        return parse_manifest(digest, content)

    def sound_manifest(self, digest: str, needed_by: str) -> Optional[Manifest]:
        """None, and a report, when it cannot be used."""
        try:
            return self.manifest(digest)
        except Damage as damage:
            self.report(damage.kind, self.blob_path(digest), damage.detail, needed_by)
            return None

    def contents(self, digest: str, needed_by: str) -> Dict[str, int]:
        """Bytes of a manifest and of all that it leads to, by digest; what is missing counts as the manifest says."""
        found = {}  # type: Dict[str, int]
        waiting = [digest]
        while waiting:
            manifest = self.sound_manifest(waiting.pop(), needed_by)
            if manifest is None:
                continue
            found[manifest.digest] = manifest.size
            for reference in manifest.references:
                if reference.role == "subject" or reference.digest in found:
                    continue
                if reference.role == "manifest":
                    if self.size(reference.digest) is not None:
                        waiting.append(reference.digest)
                else:
                    size = reference.size if reference.size is not None else self.size(reference.digest)
                    found[reference.digest] = size or 0
        return found

    def uploads(self, repository: Repository) -> Iterator[Dict[str, Any]]:
        """What was begun and not ended, or not yet."""
        folder = os.path.join(repository.path, "_uploads")
        for name in self.folders(folder):
            size = started = None
            for part in ("data", "startedat"):
                try:
                    found = os.lstat(os.path.join(folder, name, part))
                except OSError:
                    continue
                if part == "data":
                    size = found.st_size
                started = found.st_mtime if started is None else min(started, found.st_mtime)
            if started is not None:
                stale = time.time() - started > STALE_UPLOAD
                yield {"id": name, "bytes": size or 0, "started": timestamp(started), "stale": stale}


# Commands: each gathers plain data, which is printed as JSON or for people --------------------------------------------


def gather_ls(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    need_links(store)
    if options.repository:
        store.check_name(options.repository)
    repositories = []
    for repository in store.repositories(options.repository):
        tags = []
        for name, digest in store.tagged(repository):
            image = f"{repository.name}:{name}"
            tag = {"tag": name, "digest": digest, "bytes": sum(store.contents(digest, image).values())}
            tags.append(dict(tag, **describe(store, digest)))
            store.progress(f"tags of {repository.name}", len(tags))
        repositories.append({"name": repository.name, "tags": tags, "uploads": list(store.uploads(repository))})
    if options.repository and not repositories:
        raise CannotLook(f"there is no repository {options.repository}")
    return {"repositories": repositories}


def describe(store: Store, digest: str) -> Dict[str, Any]:
    """What kind of image a digest names, in words."""
    try:
        manifest = store.manifest(digest)
    except Damage as damage:
        return {"kind": damage.kind}
    if manifest.is_index:
        platforms = [reference.platform or reference.role for reference in manifest.references]
        return {"kind": KINDS[manifest.media_type], "platforms": platforms}
    config = next((each.media_type for each in manifest.references if each.role == "config"), "")
    if manifest.artifact_type or (config and not re.search(r"(container|oci)\.image(\.config)?\.v\d\+json$", config)):
        return {"kind": "artifact", "artifactType": manifest.artifact_type or config}
    return {"kind": KINDS[manifest.media_type]}


def print_ls(data: Dict[str, Any]) -> Iterator[str]:
    for repository in data["repositories"]:
        tags, uploads = repository["tags"], repository["uploads"]
        yield "{}  {}".format(repository["name"], plural(len(tags), "tag"))
        width = max([len(tag["tag"]) for tag in tags] or [0])
        for tag in tags:
            kind = " ".join([tag["kind"], tag.get("artifactType") or ", ".join(tag.get("platforms", []))]).strip()
            yield "  {:{}}  {}  {}  {}".format(tag["tag"], width, short(tag["digest"]), size_text(tag["bytes"]), kind)
        for upload in uploads:
            age = "stale upload" if upload["stale"] else "open upload"
            yield "  {} {}  {}  since {}".format(age, upload["id"], size_text(upload["bytes"]), upload["started"])
    if not data["repositories"]:
        yield "no repositories"


def gather_show(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    need_links(store)
    repository, tag, digest = find_image(store, options.image)
    data = {"image": options.image, "repository": repository.name, "tag": tag, "digest": digest}  # type: Dict[str, Any]
    if tag:
        data["link"] = os.path.relpath(os.path.join(repository.tags, tag, "current", "link"), store.root)
    if not os.path.lexists(link_path(repository.revisions, digest)):
        store.report(
            "link to nothing",
            os.path.join(repository.tags, tag, "current", "link") if tag else link_path(repository.revisions, digest),
            f"the repository has no manifest {digest}",
        )
    rows = []  # type: List[Dict[str, Any]]
    _add_manifest(store, repository, digest, "", rows)
    mine = {row["digest"] for row in rows}
    shared = {}  # type: Dict[str, List[str]]
    for name, holder, contents in images(store):
        if (holder.name, name) not in ((repository.name, tag), (repository.name, "@" + digest)):
            for each in mine.intersection(contents):
                shared.setdefault(each, []).append(image_name(holder, name))
    for row in rows:
        row["sharedWith"] = shared.get(row["digest"], [])
    data["contents"] = rows
    data["bytes"] = sum({row["digest"]: row["bytes"] or 0 for row in rows}.values())
    return data


def _add_manifest(store: Store, repository: Repository, digest: str, note: str, rows: List[Dict[str, Any]]) -> None:
    """A row for a manifest and, below it, for all it needs."""
    image = image_name(repository, "@" + digest)
    manifest = store.sound_manifest(digest, image)
    rows.append(
        {
            "role": "manifest",
            "digest": digest,
            "bytes": store.size(digest),
            "mediaType": manifest.media_type if manifest else None,
            "platform": note,
            "path": os.path.relpath(store.blob_path(digest), store.root),
        }
    )
    seen = {row["digest"] for row in rows}
    for reference in manifest.references if manifest else ():
        if reference.role == "manifest" and reference.digest not in seen:
            _add_manifest(store, repository, reference.digest, reference.platform, rows)
            continue
        stored = store.size(reference.digest)
        if stored is None and not reference.elsewhere:
            store.report("missing blob", store.blob_path(reference.digest), "there is no such file", image)
        rows.append(
            {
                "role": reference.role,
                "digest": reference.digest,
                "bytes": reference.size if stored is None else stored,
                "mediaType": reference.media_type,
                "platform": reference.platform,
                "path": os.path.relpath(store.blob_path(reference.digest), store.root) if stored is not None else None,
            }
        )


def print_show(data: Dict[str, Any]) -> Iterator[str]:
    yield "{}  {}".format(data["image"], size_text(data["bytes"]))
    if data["tag"]:
        yield "  tag       {} -> {}".format(data["link"], data["digest"])
    for row in data["contents"]:
        size = "-" if row["bytes"] is None else size_text(row["bytes"])
        words = [row["digest"], size, row["mediaType"] or "", row["platform"]]
        yield "  {:9} {}".format(row["role"], "  ".join(word for word in words if word))
        yield "            {}".format(row["path"] or "not in this registry")
        if row["sharedWith"]:
            names, more = row["sharedWith"][:5], len(row["sharedWith"]) - 5
            yield "            shared with {}{}".format(", ".join(names), f" and {more:,} more" if more > 0 else "")


def gather_history(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    need_links(store)
    repository, tag, current = find_image(store, options.image)
    if tag is None:
        raise CannotLook("a digest has no history: name a tag, as in group/project:latest")
    found = []
    for digest, path in store.links(os.path.join(repository.tags, tag, "index")):
        stored = os.path.lexists(link_path(repository.revisions, digest)) and store.size(digest) is not None
        state = "current" if digest == current else "stored" if stored else "deleted"
        size = sum(store.contents(digest, options.image).values()) if stored else None
        when = os.lstat(path).st_mtime
        found.append((when, {"digest": digest, "state": state, "bytes": size, "tagged": timestamp(when)}))
    # The current one is last even in a copy whose files all have one time.
    digests = [row for _, row in sorted(found, key=lambda each: (each[1]["state"] == "current", each[0]))]
    return {"image": options.image, "current": current, "digests": digests}


def print_history(data: Dict[str, Any]) -> Iterator[str]:
    yield "{}  {}".format(data["image"], plural(len(data["digests"]), "digest"))
    for row in data["digests"]:
        size = "" if row["bytes"] is None else size_text(row["bytes"])
        yield "  {}  {}  {:7}  {}".format(row["tagged"], row["digest"], row["state"], size).rstrip()


def gather_du(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    store.load_blobs()
    stored = sum(blob.size for blob in store.blobs.values())
    data = {"blobs": len(store.blobs), "storedBytes": stored}  # type: Dict[str, Any]
    if store.in_database:
        return dict(data, linksInDatabase=True)
    rows = []  # type: List[Dict[str, Any]]
    by_repository = options.by == "repo"
    tags = referenced = 0
    for number, (name, repository, contents) in enumerate(images(store, untagged_as_one=options.by != "layer")):
        tags += not (name == UNTAGGED or name.startswith("@"))
        referenced += sum(contents.values())
        if not by_repository or not rows or rows[-1]["name"] != repository.name:
            called = repository.name if by_repository else image_name(repository, name)
            rows.append({"name": called, "bytes": 0, "onlyHereBytes": 0})
        holder = number if options.by == "layer" else len(rows) - 1
        for digest in contents:
            blob = store.blobs.get(digest)
            if blob and blob.last_holder != holder:
                blob.last_holder = holder
                blob.holders += 1
                rows[-1]["bytes"] += blob.size
        if options.by == "layer":
            rows.clear()
        store.progress("images", number + 1)
    needed = sum(blob.size for blob in store.blobs.values() if blob.holders)
    data.update(tags=tags, referencedBytes=referenced, neededBytes=needed)
    data["uploadBytes"] = sum(
        upload["bytes"] for repository in store.repositories() for upload in store.uploads(repository)
    )
    if options.by == "layer":
        rows = [
            {"name": digest, "bytes": blob.size, "holders": blob.holders}
            for digest, blob in store.blobs.items()
            if blob.holders
        ]
    else:
        for blob in store.blobs.values():
            if blob.holders == 1:
                rows[blob.last_holder]["onlyHereBytes"] += blob.size
    for untagged in (False, True):
        mark(store, untagged)
        key = "reclaimableWithUntaggedBytes" if untagged else "reclaimableBytes"
        data[key] = None if store.damage else sum(blob.size for blob in store.blobs.values() if not blob.kept)
    rows.sort(key=lambda row: (-row["bytes"], row["name"]))
    return dict(data, by=options.by, rows=rows)


def print_du(data: Dict[str, Any]) -> Iterator[str]:
    yield "stored        {} in {}".format(size_text(data["storedBytes"]), plural(data["blobs"], "blob"))
    if "linksInDatabase" in data:
        yield IN_DATABASE
        return
    unknown = "unknown until the damage is mended"
    saved = data["referencedBytes"] - data["neededBytes"]
    yield "referenced    {} by {} and what no tag names, each counted whole".format(
        size_text(data["referencedBytes"]), plural(data["tags"], "tag")
    )
    yield f"saved         {size_text(max(saved, 0))} by sharing"
    yield "open uploads  {}".format(size_text(data["uploadBytes"]))
    for key, words in (("reclaimableBytes", ""), ("reclaimableWithUntaggedBytes", " with untagged manifests")):
        yield f"reclaimable   {unknown if data[key] is None else size_text(data[key])}{words}"
    yield ""
    for row in data["rows"]:
        if "holders" in row:
            yield "{}  {}  in {}".format(row["name"], size_text(row["bytes"]), plural(row["holders"], "image"))
        else:
            yield "{}  {}, of which only here {}".format(
                row["name"], size_text(row["bytes"]), size_text(row["onlyHereBytes"])
            )


UNTAGGED = "(untagged)"


def images(store: Store, untagged_as_one: bool = False) -> Iterator[Tuple[str, Repository, Dict[str, int]]]:
    """(tag or @digest, repository, bytes by digest) of every image; of the untagged those that no index names."""
    for repository in store.repositories():
        known = set()  # type: Set[str]
        for tag, digest in store.tagged(repository):
            contents = store.contents(digest, image_name(repository, tag))
            known.update(contents)
            yield tag, repository, contents
            store.progress(f"images of {repository.name}", len(known))
        together = {}  # type: Dict[str, int]
        untagged = [digest for digest, _ in store.links(repository.revisions) if digest not in known]
        untagged = [digest for digest in untagged if store.size(digest) is not None]
        for digest in sorted(set(untagged).difference(*(named_by_index(store, digest) for digest in untagged))):
            contents = store.contents(digest, image_name(repository, "@" + digest))
            if untagged_as_one:
                together.update(contents)
            else:
                yield "@" + digest, repository, contents
        if together:
            yield UNTAGGED, repository, together


def named_by_index(store: Store, digest: str) -> Set[str]:
    try:
        manifest = store.manifest(digest)
    except Damage:
        return set()
    return {reference.digest for reference in manifest.references if reference.role == "manifest"}


def mark(store: Store, untagged: bool) -> List[Tuple[Repository, str]]:
    """Set `kept` of every blob as the registry's collection does, and return the manifests whose links it takes.

    What it would trip over, or take for unneeded because it is damaged, is reported: a collection is not safe then.
    """
    for blob in store.blobs.values():
        blob.kept = False
    taken = []  # type: List[Tuple[Repository, str]]
    for repository in store.repositories():
        taken += [(repository, digest) for digest in _mark_repository(store, repository, untagged)]
        store.progress(f"marking {repository.name}", len(taken))
    return taken


def _mark_repository(store: Store, repository: Repository, untagged: bool) -> List[str]:
    revisions = {digest for digest, _ in store.links(repository.revisions) if digest in store.blobs}
    if revisions and not os.path.isdir(repository.layers):
        store.report("missing folder", repository.layers, "without it no collection looks at this repository")
        return []
    followed = set(revisions)
    taken = []  # type: List[str]
    if untagged:
        tagged = {digest for _, digest in store.tagged(repository)} & revisions
        followed = set()
        for digest in tagged:
            _keep(store, digest)
            manifest = store.sound_manifest(digest, image_name(repository, "@" + digest))
            for reference in manifest.references if manifest else ():
                if manifest and manifest.is_index and reference.media_type in FOLLOWED_FROM_AN_INDEX:
                    followed.add(reference.digest)
                elif not (manifest and manifest.is_index and reference.role == "subject"):
                    _keep(store, reference.digest)
        taken = sorted(revisions - tagged - followed)
    for digest in followed:
        _keep(store, digest)
        manifest = store.sound_manifest(digest, image_name(repository, "@" + digest)) if digest in revisions else None
        for reference in manifest.references if manifest else ():
            if not (manifest and manifest.is_index and reference.role == "subject"):
                _keep(store, reference.digest)
    return taken


def _keep(store: Store, digest: str) -> None:
    blob = store.blobs.get(digest)
    if blob:
        blob.kept = True


def gather_reclaim(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    need_links(store)
    store.load_blobs()
    taken = mark(store, options.untagged)
    if store.damage:
        return {"untagged": options.untagged, "manifests": [], "blobs": [], "bytes": 0}
    free = {digest: blob.size for digest, blob in store.blobs.items() if not blob.kept}
    reasons = why_free(store, free, taken)
    return {
        "untagged": options.untagged,
        "manifests": [{"repository": repository.name, "digest": digest} for repository, digest in taken],
        "blobs": [
            {"digest": digest, "bytes": free[digest], "why": reasons.get(digest, "no repository has a link to it")}
            for digest in sorted(free)
        ],
        "bytes": sum(free.values()),
    }


def why_free(store: Store, free: Dict[str, int], taken: Sequence[Tuple[Repository, str]]) -> Dict[str, str]:
    """Of each blob that nothing keeps, where it comes from; none of those that no repository has a link to."""
    why = {}  # type: Dict[str, str]
    untagged = {}  # type: Dict[str, str]
    for repository, digest in taken:
        untagged[digest] = f"a manifest of {repository.name} that no tag names"
        for each in store.contents(digest, image_name(repository, "@" + digest)):
            why.setdefault(each, "needed by {} alone, that no tag names".format(image_name(repository, "@" + digest)))
    why.update(untagged)
    for repository in store.repositories() if free else ():
        for tag in store.tag_names(repository):
            for digest, _ in store.links(os.path.join(repository.tags, tag, "index")):
                if digest in free:
                    former = f"which was {image_name(repository, tag)} once"
                    first = untagged.get(digest, f"a manifest deleted from {repository.name}")
                    why[digest] = f"{first}, {former}"
        for algorithm in algorithms(store, repository.layers):
            for name in store.folders(os.path.join(repository.layers, algorithm)):
                digest = f"{algorithm}:{name}"
                if digest in free:
                    why.setdefault(digest, f"a layer of {repository.name} that no manifest there names")
    return why


def print_reclaim(data: Dict[str, Any]) -> Iterator[str]:
    for manifest in data["manifests"]:
        yield "manifest  {}@{}".format(manifest["repository"], manifest["digest"])
    for blob in data["blobs"]:
        yield "blob      {}  {}  {}".format(blob["digest"], size_text(blob["bytes"]), blob["why"])
    yield "a collection{} frees {} in {}".format(
        " with untagged manifests" if data["untagged"] else "",
        size_text(data["bytes"]),
        plural(len(data["blobs"]), "blob"),
    )


# Verify ---------------------------------------------------------------------------------------------------------------


def gather_verify(store: Store, options: argparse.Namespace) -> Dict[str, Any]:
    """Everything is looked at once; what seems damaged is looked at again, because a registry at work changes it."""
    data, suspects = examine(store, options.images, None, options.jobs)
    if store.damage:
        again = Store(options.root, store.progress)
        data, _ = examine(again, options.images, suspects, options.jobs)
        confirmed = {key: finding for key, finding in again.damage.items() if key in store.damage}
        store.damage = confirmed
    return data


Claims = Dict[str, Dict[str, int]]
"""Of digests whose size is another than manifests say: the size, by the manifest that says it."""


class Workers:
    """Processes that share work on a store: forked from this one once its blobs are known, they know them too."""

    store = None  # type: Any

    def __init__(self, store: Store, jobs: int) -> None:
        Workers.store = store
        self.jobs = jobs
        self.pool = None  # type: Optional[concurrent.futures.ProcessPoolExecutor]

    def __enter__(self) -> "Workers":
        return self

    def map(self, function: Callable[[Any], Any], work: Iterable[Any]) -> Iterator[Any]:
        """Results in the order of the work, which is begun at once; what makes one piece is done here, and later."""
        pieces = list(work)
        if min(self.jobs, len(pieces)) < 2:
            return map(function, pieces)
        if self.pool is None:
            multiprocessing.set_start_method("fork", force=True)  # no other knows what this process knows
            self.pool = concurrent.futures.ProcessPoolExecutor(self.jobs)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # stays so in the others
        try:
            return self.pool.map(function, pieces)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    def __exit__(self, failure: Any, *_: Any) -> None:
        if self.pool is not None and not failure:
            self.pool.shutdown()


def examine(
    store: Store, names: Sequence[str], suspects: Optional[Set[str]], jobs: int
) -> Tuple[Dict[str, Any], Set[str]]:
    """The whole store, or the images of these `names`; of the blobs the bytes of all, or of the `suspects` alone.

    Returns what was looked at, and the digests of blobs that are not what they should be.
    """
    data = {"repositories": 0, "tags": 0, "manifests": 0}
    claims = {}  # type: Claims
    notices = []  # type: List[Dict[str, str]]
    with Workers(store, jobs) as workers:
        if names:
            wanted = _examine_images(store, names, claims, data)
            store.blobs = {digest: Blob(size) for digest, size in wanted.items()}
            parts = iter(())  # type: Iterator[Part]
        else:
            store.load_blobs()
            parts = iter(()) if store.in_database else workers.map(examine_part, _parts(store))
        # Begun before the parts are gathered, so that one large repository does not keep all but one core waiting.
        hashed = workers.map(hash_chunk, _chunks(store, store.blobs)) if suspects is None else None
        notices = [] if names or store.in_database else _gather_parts(store, parts, claims, data)
        if suspects is not None:
            hashed = workers.map(hash_chunk, _chunks(store, (suspects | set(claims)).intersection(store.blobs)))
        wrong = _gather_wrong(store, hashed or ())
    for digest, (kind, detail) in wrong.items():
        size, claimed = store.blobs[digest].size, max(claims.pop(digest, {}).values(), default=0)
        if kind == "wrong digest" and size < claimed:
            kind, detail = "truncated file", f"it has {size:,} of {claimed:,} bytes"
        store.report(kind, store.blob_path(digest), detail)
    for digest, sizes in claims.items():
        for manifest, size in sizes.items():
            detail = f"it gives {digest} {size:,} bytes, which has {store.blobs[digest].size:,}"
            store.report("malformed manifest", store.blob_path(manifest), detail)
    summary = dict(data, blobs=len(store.blobs), bytes=sum(blob.size for blob in store.blobs.values()))
    return dict(summary, linksInDatabase=store.in_database, notices=notices), set(wrong)


def _examine_images(store: Store, names: Sequence[str], claims: Claims, data: Dict[str, int]) -> Dict[str, int]:
    """Bytes of all blobs that these images need and that are there, by digest."""
    need_links(store)
    wanted = {}  # type: Dict[str, int]
    for name in names:
        repository, tag, digest = find_image(store, name)
        layers = {found for found, _ in store.links(repository.layers)}
        revisions = {found for found, _ in store.links(repository.revisions)}
        if tag:
            data["tags"] += 1
            check_tag(store, repository, tag, revisions)
        elif digest not in revisions:
            raise CannotLook(f"{repository.name} has no manifest {digest}")
        data["repositories"] += 1
        waiting = [digest]
        while waiting:
            digest = waiting.pop()
            if digest in wanted:
                continue
            data["manifests"] += 1
            wanted.update(_present(store, [digest]))
            for reference in check_manifest(store, repository, digest, layers, revisions, claims):
                if reference.role == "manifest":
                    waiting.append(reference.digest)
                else:
                    wanted.update(_present(store, [reference.digest]))
    return wanted


def _present(store: Store, digests: Iterable[str]) -> Dict[str, int]:
    sizes = ((digest, store.size(digest)) for digest in digests)
    return {digest: size for digest, size in sizes if size is not None}


class Part(NamedTuple):
    """What is known of some repositories once they were examined."""

    data: Dict[str, int]
    claims: Claims
    linked: Set[str]
    notices: List[Dict[str, str]]
    damage: List[Finding]


def _parts(store: Store) -> List[List[Repository]]:
    repositories = list(store.repositories())
    return [
        repositories[place : place + CHUNK_REPOSITORIES] for place in range(0, len(repositories), CHUNK_REPOSITORIES)
    ]


def examine_part(repositories: List[Repository]) -> Part:
    """Every link and manifest of some repositories of the store that all processes know."""
    known = Workers.store
    store = Store(known.root, known.progress)
    store.blobs, store.blobs_loaded = known.blobs, True
    part = Part({"repositories": 0, "tags": 0, "manifests": 0}, {}, set(), [], [])
    for repository in repositories:
        part.data["repositories"] += 1
        layers = {digest for digest, _ in store.links(repository.layers)}
        revisions = {digest for digest, _ in store.links(repository.revisions)}
        part.linked.update(layers, revisions)
        for tag in store.tag_names(repository):
            part.data["tags"] += check_tag(store, repository, tag, revisions)
        for digest in sorted(revisions):
            part.data["manifests"] += 1
            check_manifest(store, repository, digest, layers, revisions, part.claims)
            store.progress(f"manifests of {repository.name}", part.data["manifests"])
        for upload in store.uploads(repository):
            if upload["stale"]:
                path = os.path.join(repository.name, "_uploads", upload["id"])
                part.notices.append(notice("stale upload", path, "since {}".format(upload["started"])))
    part.damage.extend(store.damage.values())
    return part


def _gather_parts(store: Store, parts: Iterable[Part], claims: Claims, data: Dict[str, int]) -> List[Dict[str, str]]:
    """Adds the parts to what is known. Returns what is no damage and yet worth knowing."""
    notices = []
    for part in parts:
        for key, count in part.data.items():
            data[key] += count
        for digest, sizes in part.claims.items():
            claims.setdefault(digest, {}).update(sizes)
        for digest in part.linked.intersection(store.blobs):
            store.blobs[digest].linked = True
        notices += part.notices
        for finding in part.damage:
            store.add(finding)
        store.progress("manifests", data["manifests"])
    for digest, blob in store.blobs.items():
        if not blob.linked:
            notices.append(notice("unneeded blob", digest, "no repository has a link to it"))
    return notices


def notice(kind: str, path: str, detail: str) -> Dict[str, str]:
    return {"kind": kind, "path": path, "detail": detail}


def check_tag(store: Store, repository: Repository, tag: str, revisions: Set[str]) -> int:
    """1 when there is such a tag, 0 when there is only its empty folder."""
    folder = os.path.join(repository.tags, tag)
    path = os.path.join(folder, "current", "link")
    index = {digest for digest, _ in store.links(os.path.join(folder, "index"))}
    try:
        current = store.link(path)
    except FileNotFoundError:
        if index:
            store.report("missing link", path, "the tag was {}".format(", ".join(sorted(index)[:3])))
        return int(bool(index))
    if current and current not in revisions:
        store.report("link to nothing", path, f"{repository.name} has no manifest {current}")
    elif current and current not in index:
        store.report("missing link", link_path(os.path.join(folder, "index"), current), "it is the tag's digest")
    return 1


def check_manifest(
    store: Store,
    repository: Repository,
    digest: str,
    layers: Set[str],
    revisions: Set[str],
    claims: Claims,
) -> List[Reference]:
    """Reports what a manifest needs and has not; its own bytes are looked at with those of all blobs.

    `claims` gets the digests whose size is another than the manifest says. Returns what it needs.
    """
    image = image_name(repository, "@" + digest)
    if store.size(digest) is None:
        store.report("missing blob", store.blob_path(digest), "there is no such file", image)
        return []
    try:
        manifest = store.manifest(digest)
    except Damage as damage:
        if damage.kind == "malformed manifest":
            store.report(damage.kind, store.blob_path(digest), damage.detail, image)
        return []
    needed = [reference for reference in manifest.references if not reference.elsewhere]
    for reference in needed:
        size = store.size(reference.digest)
        if size is None:
            store.report("missing blob", store.blob_path(reference.digest), "there is no such file", image)
        elif reference.size not in (None, size):
            claims.setdefault(reference.digest, {})[digest] = int(reference.size or 0)
        if reference.role == "manifest" and reference.digest not in revisions:
            store.report("missing link", link_path(repository.revisions, reference.digest), "its index has it", image)
        if reference.role != "manifest" and reference.digest not in layers:
            store.report("missing link", link_path(repository.layers, reference.digest), "its manifest has it", image)
    return needed


def _chunks(store: Store, digests: Iterable[str]) -> Iterator[List[str]]:
    chunk, size = [], 0  # type: List[str], int
    for digest in sorted(digests):
        chunk.append(digest)
        size += store.blobs[digest].size
        if len(chunk) == CHUNK_FILES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _gather_wrong(
    store: Store, results: Iterable[Tuple[int, Dict[str, Tuple[str, str]]]]
) -> Dict[str, Tuple[str, str]]:
    wrong, count = {}, 0  # type: Dict[str, Tuple[str, str]], int
    for looked_at, found in results:
        wrong.update(found)
        count += looked_at
        store.progress("reading blobs", count)
    return wrong


def hash_chunk(digests: List[str]) -> Tuple[int, Dict[str, Tuple[str, str]]]:
    """How many of these blobs of the store that all processes know were looked at, and what is wrong with which."""
    store, wrong = Workers.store, {}  # type: Store, Dict[str, Tuple[str, str]]
    buffer = memoryview(bytearray(READ_AT_ONCE))
    for digest in digests:
        algorithm, _, hexadecimal = digest.partition(":")
        hashing = hashlib.new(algorithm)
        try:
            with open(store.open(store.blob_path(digest)), "rb", buffering=0) as file:
                for length in iter(lambda: file.readinto(buffer), 0):  # noqa: B023
                    hashing.update(buffer[:length])
        except OSError as error:
            wrong[digest] = trouble(error)
            continue
        if hashing.hexdigest() != hexadecimal:
            wrong[digest] = ("wrong digest", f"its bytes have {algorithm}:{hashing.hexdigest()}")
    return len(digests), wrong


def print_verify(data: Dict[str, Any]) -> Iterator[str]:
    for row in data["notices"]:
        yield "{}  {}  {}".format(row["kind"], row["path"], row["detail"])
    if data["linksInDatabase"]:
        yield IN_DATABASE
    yield "looked at {}, {}, {} and the {} of {}".format(
        plural(data["repositories"], "repository", "repositories"),
        plural(data["tags"], "tag"),
        plural(data["manifests"], "manifest"),
        size_text(data["bytes"]),
        plural(data["blobs"], "blob"),
    )


# What the commands share ----------------------------------------------------------------------------------------------

IN_DATABASE = "this registry keeps its links and tags in a database: here are blobs alone"


def need_links(store: Store) -> None:
    if store.in_database:
        raise CannotLook(IN_DATABASE)


def find_image(store: Store, name: str) -> Tuple[Repository, Optional[str], str]:
    """Repository, tag and digest of `group/project:tag`; the tag is None of `group/project@sha256:...`.

    Raises CannotLook.
    """
    name_of_repository, at, digest = name.partition("@")
    if at:
        if not is_digest(digest):
            raise CannotLook(f"{digest!r} is not a digest")
        return store.repository(name_of_repository), None, digest
    name_of_repository, colon, tag = name.rpartition(":")
    if not colon or not tag or "/" in tag or tag.startswith("."):
        raise CannotLook(f"{name!r} names no image: write group/project:tag or group/project@sha256:...")
    repository = store.repository(name_of_repository)
    try:
        found = store.tag(repository, tag)
    except FileNotFoundError:
        raise CannotLook(f"{repository.name} has no tag {tag}") from None
    if found is None:
        raise CannotLook("the tag cannot be followed")
    return repository, tag, found


def image_name(repository: Repository, tag: str) -> str:
    return repository.name + (tag if tag.startswith("@") else " " + tag if tag == UNTAGGED else ":" + tag)


def link_path(folder: str, digest: str) -> str:
    return os.path.join(folder, *digest.split(":"), "link")


def algorithms(store: Store, path: str) -> List[str]:
    return [name for name in store.folders(path) if name in HEX_DIGITS]


def size_text(size: int) -> str:
    """Readable and exact: 1.2 MB (1,234,567 bytes)."""
    value = float(size)
    for unit in UNITS:
        if value < 999.95 or unit == UNITS[-1]:
            break
        value /= 1000
    exact = f"{size:,} bytes"
    return exact if not unit else f"{value:.1f} {unit} ({exact})"


def plural(count: int, one: str, many: str = "") -> str:
    return "{:,} {}".format(count, one if count == 1 else many or one + "s")


def short(digest: str) -> str:
    return digest[: len("sha256:") + 12]


def timestamp(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Progress:
    """A line on a terminal that says how far long work is; nothing elsewhere."""

    def __init__(self, terminal: Optional[TextIO]) -> None:
        self.terminal = terminal if terminal and terminal.isatty() else None
        self.shown = time.monotonic()
        self.process = os.getpid()

    def __call__(self, what: str, count: int) -> None:
        if self.terminal and time.monotonic() - self.shown > 0.2 and os.getpid() == self.process:
            self.shown = time.monotonic()
            self.terminal.write(f"\r\033[K{printable(what)}: {count:,}")
            self.terminal.flush()

    def clear(self) -> None:
        if self.terminal:
            self.terminal.write("\r\033[K")
            self.terminal.flush()


def printable(line: str) -> str:
    """Names in a damaged store may hold what a terminal takes for a command."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def print_damage(damage: Iterable[Finding]) -> Iterator[str]:
    for finding in damage:
        more = finding.needs - len(finding.needed_by)
        names = ", ".join(finding.needed_by) + (f" and {more:,} more" if more > 0 else "")
        yield "DAMAGE {}: {}: {}{}".format(
            finding.kind, finding.path, finding.detail, "; needed by " + names if names else ""
        )


COMMANDS = {
    "ls": (gather_ls, print_ls),
    "show": (gather_show, print_show),
    "history": (gather_history, print_history),
    "du": (gather_du, print_du),
    "verify": (gather_verify, print_verify),
    "reclaim": (gather_reclaim, print_reclaim),
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="registry-tree",
        description="Shows, checks and explains what a container registry keeps on its disk, and never writes there.",
        epilog="Exit status: 0 sound, 1 damage found, 2 could not look.",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True

    def command(name: str, help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        made.add_argument(
            "--root", default=DEFAULT_ROOT, help="the registry's root directory, or a copy of it (default: %(default)s)"
        )
        made.add_argument("--json", action="store_true", help="print one JSON document")
        return made

    command("ls", "repositories, tags and sizes").add_argument(
        "repository", nargs="?", default="", help="this one and those nested in it"
    )
    image = "group/project:tag or group/project@sha256:..."
    command("show", "a tag down to its layers: manifest, config, layers, sizes, and who shares them").add_argument(
        "image", help=image
    )
    command("history", "every digest that a tag has had and that the registry remembers").add_argument(
        "image", help="group/project:tag"
    )
    command("du", "bytes stored, referenced, saved by sharing, and reclaimable").add_argument(
        "--by", choices=("repo", "tag", "layer"), default="repo", help="what to list (default: %(default)s)"
    )
    verify = command("verify", "every link, manifest and blob, with all digests computed anew")
    verify.add_argument("images", nargs="*", metavar="image", help=image + "; without one, everything")
    verify.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes that read blobs (default: %(default)s)"
    )
    command("reclaim", "what a garbage collection would free, and why").add_argument(
        "--untagged", action="store_true", help="as with the collection's -m: manifests that no tag names go too"
    )
    return top


def main(arguments: Optional[Sequence[str]] = None) -> int:
    options = parser().parse_args(arguments)
    gather, render = COMMANDS[options.command]
    # Names on the disk may be in any encoding, and a service's locale is often C.
    output = open(sys.stdout.fileno(), "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    store, problem = None, ""
    progress = Progress(sys.stderr)
    try:
        store = Store(options.root, progress)
        data = gather(store, options)
    except CannotLook as reason:
        problem = str(reason)
    except OSError as error:
        problem = f"{error.filename or options.root}: {error.strerror}"
    except concurrent.futures.process.BrokenProcessPool:
        problem = "a process that shared the work was killed: too little memory? Try again with --jobs 1"
    progress.clear()
    damage = [store.damage[key] for key in sorted(store.damage)] if store else []
    try:
        if problem:
            print(ascii("registry-tree: " + problem)[1:-1], file=sys.stderr)
        elif options.json:
            json.dump(dict(data, damage=[finding._asdict() for finding in damage]), output, indent=1)
            output.write("\n")
        else:
            output.writelines(printable(line) + "\n" for line in render(data))
        if problem or not options.json:
            output.writelines(printable(line) + "\n" for line in print_damage(damage))
        if options.command == "verify" and not options.json and not problem:
            output.write("{}\n".format(plural(len(damage), "damage", "damages") if damage else "sound"))
        output.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # the reader has seen enough
    return DAMAGED if damage else CANNOT_LOOK if problem else SOUND


def run() -> None:
    """Ends the process, with a status that says what it should also when something unforeseen happens."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()
        os._exit(CANNOT_LOOK)  # without waiting for work that nobody wants any more
    except Exception:  # Python's own status for it is 1, which would say that damage was found
        traceback.print_exc()
        sys.exit(CANNOT_LOOK)


if __name__ == "__main__":
    run()
