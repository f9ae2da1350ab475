"""Digests and manifests; manifests are parsed as the registry parses them."""

import re
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from . import go_json

HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
MAX_MANIFEST_SIZE = 4 << 20  # bytes; maxManifestBodyBytes of registry/handlers/manifests.go

IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
IMAGE_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
SIGNED_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
BUILDKIT_CACHE = "application/vnd.buildkit.cacheconfig.v0"
MANIFESTS = (IMAGE, IMAGE_LIST, OCI_IMAGE, OCI_INDEX, SCHEMA_1, SIGNED_SCHEMA_1)


_PLAIN = frozenset(("mediaType", "size", "digest"))


class ManifestError(Exception):
    """A manifest that cannot be used: the kind of problem, and its detail."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


class Reference(NamedTuple):
    """What a manifest states about one blob that it references."""

    role: str  # config, layer, manifest, subject
    digest: str
    size: Optional[int]  # bytes; None if no size above 0 is stated, which the registry accepts
    media_type: str
    external: bool  # the registry does not have to store it
    platform: str


class Manifest(NamedTuple):
    """A manifest whose content matches its digest."""

    digest: str
    media_type: str
    artifact_type: str
    size: int  # bytes
    references: Tuple[Reference, ...]

    @property
    def is_index(self) -> bool:
        """Whether it is a manifest of manifests."""
        return self.media_type in (IMAGE_LIST, OCI_INDEX)


_match_digest = re.compile("|".join(f"{name}:[0-9a-f]{{{digits}}}" for name, digits in HEX_DIGITS.items())).fullmatch


def make_digest(algorithm: str, hexadecimal: str) -> Optional[str]:
    """`algorithm:hexadecimal`, or None if that is not a valid digest."""
    digest = algorithm + ":" + hexadecimal
    return digest if _match_digest(digest) else None


def is_digest(text: object) -> bool:
    """Whether `text` is a string that consists of one digest."""
    return isinstance(text, str) and _match_digest(text) is not None


def malformed(detail: str) -> ManifestError:
    """The error for a manifest that the registry cannot parse."""
    return ManifestError("malformed manifest", detail)


def parse_manifest(digest: str, content: bytes) -> Manifest:
    """Parse the content of a manifest as registry/storage/manifeststore.go does.

    Raises ManifestError of the kind "malformed manifest".
    """
    try:
        document = go_json.parse_object(content)
    except ValueError as error:
        raise malformed(f"is not a JSON object ({error})") from None
    version, media_type = document.get("schemaVersion"), document.get("mediaType") or ""
    if type(version) is not int or not isinstance(media_type, str):
        raise malformed(f"has an invalid schema version {version!r} or media type {media_type!r}")
    if version == 1:
        return Manifest(digest, SCHEMA_1, "", len(content), tuple(_schema_1_layers(document)))
    if version != 2:
        raise malformed(f"has the unsupported schema version {version!r}")
    if not media_type:
        is_index = document.get("manifests") is not None and not go_json.misfit(document, go_json.INDEX)
        media_type = OCI_INDEX if is_index else OCI_IMAGE
    references = _references(document, media_type)
    return Manifest(digest, media_type, document.get("artifactType") or "", len(content), tuple(references))


def _check_types(value: object, kind: object) -> None:
    field = go_json.misfit(value, kind)
    if field:
        raise malformed(f"the field {field} has a value of the wrong type")


def _references(document: Dict[str, Any], media_type: str) -> List[Reference]:
    if media_type in (IMAGE_LIST, OCI_INDEX):
        _check_types(document, go_json.INDEX)
        document["artifactType"] = None  # the registry ignores this field of an index
        entries = document.get("manifests") or []
        is_cache = any((entry or {}).get("mediaType") == BUILDKIT_CACHE for entry in entries)
        return [_reference(_role(entry or {}, is_cache), entry) for entry in entries]
    if media_type not in (IMAGE, OCI_IMAGE):
        raise malformed(f"has the unsupported media type {media_type!r}")
    _check_types(document, go_json.IMAGE)
    references = [_reference("config", document.get("config"))]
    references += [_reference("layer", entry) for entry in document.get("layers") or ()]
    subject = document.get("subject")
    if subject and is_digest(subject.get("digest")) and media_type == OCI_IMAGE:
        references.append(_reference("subject", subject))
    return references


def _role(entry: Dict[str, Any], is_cache: bool) -> str:
    """The role of an index entry; BuildKit stores its cache as an index of layers."""
    media_type = entry.get("mediaType")
    return "manifest" if media_type in MANIFESTS or not (media_type or is_cache) else "layer"


def _schema_1_layers(document: Dict[str, Any]) -> Iterator[Reference]:
    _check_types(document, go_json.SCHEMA_1)
    for entry in document.get("fsLayers") or ():
        digest = (entry or {}).get("blobSum")
        if not is_digest(digest):
            raise malformed(f"a layer has the invalid digest {digest!r}")
        yield Reference("layer", str(digest), None, "", external=False, platform="")


def _reference(role: str, entry: Optional[Dict[str, Any]]) -> Reference:
    entry = entry or {}
    if not _PLAIN.issuperset(entry) or type(entry.get("size")) is not int or entry["size"] >= 1 << 63:
        _check_types(entry, go_json.DESCRIPTOR)
    digest, size, media_type = entry.get("digest"), entry.get("size") or 0, entry.get("mediaType") or ""
    if not is_digest(digest):
        raise malformed(f"a {role} has the invalid digest {digest!r}")
    if not isinstance(media_type, str):
        raise malformed(f"a {role} has the invalid media type {media_type!r}")
    external = _is_external(role, entry, media_type)
    return Reference(role, str(digest), size if size > 0 else None, media_type, external, _platform(entry))


def _is_external(role: str, entry: Dict[str, Any], media_type: str) -> bool:
    return role == "subject" or bool(entry.get("urls")) or "foreign" in media_type or "nondist" in media_type


def _platform(entry: Dict[str, Any]) -> str:
    annotations, platform = entry.get("annotations"), entry.get("platform")
    if isinstance(annotations, dict) and annotations.get("vnd.docker.reference.type") == "attestation-manifest":
        return "attestation"
    if not isinstance(platform, dict):
        return ""
    parts = (platform.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(part for part in parts if isinstance(part, str))
