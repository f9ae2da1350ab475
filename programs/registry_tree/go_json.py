"""JSON as the registry parses it: with Go's encoding/json, into structs with typed fields.

Field names are case-insensitive, a repeated name is merged into the existing value, `null` leaves a field unchanged,
and invalid UTF-8 is replaced (https://pkg.go.dev/encoding/json#Unmarshal).
"""

import json
from typing import Any, Dict, List, Tuple

TEXTS = {None: str}
"""The type of a map of strings."""
PLATFORM = {"architecture": str, "os": str, "os.version": str, "os.features": [str], "variant": str, "features": [str]}
DESCRIPTOR = {
    "mediaType": str,
    "digest": str,
    "size": int,
    "urls": [str],
    "annotations": TEXTS,
    "platform": PLATFORM,
}
"""Descriptor of blobs.go, with ManifestDescriptor of manifest/manifestlist/manifestlist.go."""
VERSIONED = {"schemaVersion": int, "mediaType": str}
IMAGE = dict(VERSIONED, artifactType=str, config=dict, layers=list, subject=DESCRIPTOR, annotations=TEXTS)
"""Manifest of manifest/ocischema/manifest.go, whose descriptors are checked one by one; that of
manifest/schema2/manifest.go has fewer fields."""
INDEX = dict(VERSIONED, manifests=[DESCRIPTOR])
SCHEMA_1 = dict(VERSIONED, fsLayers=[{"blobSum": str}])

_NAMES = {name.lower(): name for name in [*DESCRIPTOR, *IMAGE, *INDEX, *SCHEMA_1, *PLATFORM, "blobSum"]}
_EXACT = frozenset(_NAMES.values())


def parse_object(content: bytes) -> Dict[str, Any]:
    """Parse a JSON object; field names get the case that is used here. Raises ValueError."""
    try:
        document = _DECODER.decode(content.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("not an object")
    return document


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs) and found.keys() <= _EXACT:
        return found
    found = {}
    for key, value in pairs:
        name = _NAMES.get(key.casefold(), key)
        found[name] = _read_again(found[name], value) if name in found else value
    return found


def _read_again(there: object, value: object) -> object:
    """The value of a field that occurs twice."""
    if value is None:
        return None if isinstance(there, list) else there
    if isinstance(there, dict) and isinstance(value, dict):
        return dict(
            there, **{key: _read_again(there[key], each) if key in there else each for key, each in value.items()}
        )
    if isinstance(there, list) and isinstance(value, list):
        known = len(there)
        return [_read_again(there[place], each) if place < known else each for place, each in enumerate(value)]
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse)


def misfit(value: object, kind: object, name: str = "") -> str:
    """The name of the first field with a value of the wrong type, for which Go rejects the whole document; "" if none.

    `kind`: a type, a list with one kind, or a dictionary of kinds by name; the key None stands for all other names.
    """
    if value is None:
        return ""
    if isinstance(kind, type):
        fits = type(value) is kind and (type(value) is not int or -(1 << 63) <= value < 1 << 63)
        return "" if fits else name
    if isinstance(kind, dict) and isinstance(value, dict):
        others = kind.get(None)
        for key, each in value.items():
            of = kind.get(key, others)
            wrong = of and misfit(each, of, key)
            if wrong:
                return wrong
        return ""
    if isinstance(kind, list) and isinstance(value, list):
        return next(filter(None, (misfit(each, kind[0], name) for each in value)), "")
    return name
