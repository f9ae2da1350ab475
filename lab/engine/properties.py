"""Values of Pulumi resources in the engine's plugin protocol.

They are JSON. A mapping with a signature is a secret or an asset, and one particular string represents a value that is
not known yet (pulumi/pulumi `sdk/go/common/resource/plugin/rpc.go`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto.provider_pb2 import PropertyDiff

Properties = dict[str, Any]
"""A resource's inputs or outputs."""

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
ASSET = "c44067f5952c0a294b673a41bacd8c17"
ARCHIVE = "0def7320c3a5731c473e5ecbe6d01bc7"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def from_message(message: struct_pb2.Struct) -> Properties:
    properties: Properties = json_format.MessageToDict(message)
    return properties


def to_message(properties: Properties) -> struct_pb2.Struct:
    return json_format.ParseDict(properties, struct_pb2.Struct())


def is_secret(value: object) -> bool:
    return isinstance(value, dict) and value.get(SIGNATURE) == SECRET


def secret(value: Any) -> Any:
    return value if is_secret(value) else {SIGNATURE: SECRET, "value": value}


def plain(value: Any) -> Any:
    """Return the value with every secret in it unwrapped."""
    if is_secret(value):
        return plain(value["value"])
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, PropertyDiff.Kind.ValueType]]:
    """Yield the paths at which two property values differ, each with its PropertyDiff kind.

    Secrets are compared as a whole: a value that becomes secret has changed.
    """
    if _is_object(old) and _is_object(new):
        for name in sorted({*old, *new}):
            yield from _element(old, new, name, _member(path, name))
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            yield from _element(dict(enumerate(old)), dict(enumerate(new)), index, f"{path}[{index}]")
    elif old != new:
        yield path, PropertyDiff.UPDATE


def root(path: str) -> str:
    """Return the top-level property of a path from `differences`."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and SIGNATURE not in value


def _member(path: str, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_$][\w$]*", name):
        quoted = name.replace('"', '\\"')
        return f'{path}["{quoted}"]'
    return f"{path}.{name}" if path else name


def _element(
    old: Mapping[Any, Any], new: Mapping[Any, Any], key: Any, path: str
) -> Iterator[tuple[str, PropertyDiff.Kind.ValueType]]:
    if key not in old:
        yield path, PropertyDiff.ADD
    elif key not in new:
        yield path, PropertyDiff.DELETE
    else:
        yield from differences(old[key], new[key], path)
