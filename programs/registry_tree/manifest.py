"""Digests and manifests: a manifest is parsed as the registry parses it."""

import json
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
MAX_MANIFEST_SIZE = 4 << 20  # bytes; maxManifestBodyBytes of registry/handlers/manifests.go

IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
IMAGE_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"
SIGNED_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
MANIFESTS = (IMAGE, IMAGE_LIST, OCI_IMAGE, OCI_INDEX, SCHEMA_1, SIGNED_SCHEMA_1)


class ManifestError(Exception):
    """A manifest that cannot be used: the kind of problem, and its details."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


class Reference(NamedTuple):
    """What a manifest states about one blob it needs."""

    role: str  # config, layer, manifest, subject
    digest: str
    size: Optional[int]  # bytes; None in schema 1, which states none
    media_type: str
    external: bool  # the registry need not store it
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


def make_digest(algorithm: str, hexadecimal: str) -> Optional[str]:
    """`algorithm:hexadecimal`, or None when that is not a digest."""
    if len(hexadecimal) == HEX_DIGITS.get(algorithm) and not hexadecimal.strip("0123456789abcdef"):
        return algorithm + ":" + hexadecimal
    return None


def is_digest(text: object) -> bool:
    """Whether `text` is a string that holds one digest and nothing else."""
    return isinstance(text, str) and make_digest(*text.partition(":")[::2]) is not None


def malformed(detail: str) -> ManifestError:
    """The error of a manifest that the registry could not parse."""
    return ManifestError("malformed manifest", detail)


def parse_manifest(digest: str, content: bytes) -> Manifest:
    """The manifest with that digest and content, parsed as registry/storage/manifeststore.go does.

    Raises ManifestError, of the kind "malformed manifest".
    """
    document = _parse_object(content)
    version = document.get("schemaVersion")
    if version == 1:
        return Manifest(digest, SCHEMA_1, "", len(content), tuple(_schema_1_layers(document)))
    if version != 2:
        raise malformed(f"has schema version {version!r}")
    media_type = document.get("mediaType", "")
    if media_type == "":
        media_type = OCI_INDEX if document.get("manifests") is not None else OCI_IMAGE
    references = _references(document, media_type)
    artifact_type = document.get("artifactType")
    return Manifest(
        digest, media_type, artifact_type if isinstance(artifact_type, str) else "", len(content), tuple(references)
    )


def _parse_object(content: bytes) -> Dict[str, Any]:
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise malformed(f"is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise malformed("is not a JSON object")
    return document


def _references(document: Dict[str, Any], media_type: object) -> List[Reference]:
    if media_type in (IMAGE_LIST, OCI_INDEX):
        references = [_reference("manifest", entry) for entry in _list(document, "manifests")]
    elif media_type in (IMAGE, OCI_IMAGE):
        references = [_reference("config", document.get("config"))]
        references += [_reference("layer", entry) for entry in _list(document, "layers")]
    else:
        raise malformed(f"has the media type {media_type!r}")
    if document.get("subject") is not None:
        references.append(_reference("subject", document["subject"]))
    return references


def _list(document: Dict[str, Any], key: str) -> List[Any]:
    value = document.get(key)
    if not isinstance(value, (list, type(None))):
        raise malformed(f"{key} is not a list")
    return value or []


def _schema_1_layers(document: Dict[str, Any]) -> Iterator[Reference]:
    for entry in _list(document, "fsLayers"):
        digest = entry.get("blobSum") if isinstance(entry, dict) else None
        if not is_digest(digest):
            raise malformed(f"a layer has the digest {digest!r}")
        yield Reference("layer", str(digest), None, "", external=False, platform="")


def _reference(role: str, entry: object) -> Reference:
    if not isinstance(entry, dict):
        raise malformed(f"a {role} is not a JSON object")
    digest, size, media_type = entry.get("digest"), entry.get("size"), entry.get("mediaType", "")
    if not is_digest(digest):
        raise malformed(f"a {role} has the digest {digest!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise malformed(f"a {role} has the size {size!r}")
    if not isinstance(media_type, str):
        raise malformed(f"a {role} has the media type {media_type!r}")
    if role == "manifest" and media_type not in MANIFESTS:
        role = "layer"  # BuildKit stores its cache as an index of layers
    return Reference(role, str(digest), size, media_type, _is_external(role, entry, media_type), _platform(entry))


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
