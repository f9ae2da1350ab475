"""The inputs that the command plugin accepts, and its messages about invalid ones.

Source: pulumi/pulumi-command v1.2.1 (the Go structs of each resource), compared with the binary's responses.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.engine.properties import UNKNOWN, Properties, plain

GO_TYPES = {str: "string", float: "float64", bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}
ACCEPTED = {"string": str, "float64": float, "int": float, "bool": bool, "list": list, "strings": dict}


@dataclass(frozen=True)
class Shape:
    """A Go struct: its package and name, and the type of each field with a Pulumi name."""

    package: str
    name: str
    fields: "Mapping[str, str | Shape]"
    required: tuple[str, ...] = ()

    def failures(self, inputs: Properties) -> Iterator[tuple[str, str]]:
        """Yield missing, mistyped and unrecognized fields, each with the plugin's message; unknowns are accepted."""
        where = f"'{self.package}.{self.name}'"
        for field, kind in self.fields.items():
            value = plain(inputs.get(field))
            if value is None:
                if field in self.required:
                    yield field, f"Missing required field '{field}' on {where}"
            elif value != UNKNOWN:
                yield from self._wrong(field, kind, value, where)
        for field in sorted(inputs.keys() - self.fields.keys()):
            yield field, f"Unrecognized field '{field}' on {where}"

    def _wrong(self, field: str, kind: "str | Shape", value: Any, where: str) -> Iterator[tuple[str, str]]:
        if isinstance(kind, Shape):
            if not isinstance(value, dict):
                yield field, _mismatch(field, where, f"{kind.package}.{kind.name}", value)
            elif inner := list(kind.failures(value)):
                found = "".join(f"\n\t{name}: {why}" for name, why in inner)
                yield field, f"An error occurred decoding '{self.name}.{field}': {len(inner)} failures decoding:{found}"
        elif kind == "strings":
            for name, item in value.items() if isinstance(value, dict) else ():
                if not isinstance(item, str):
                    element = f"{field}[{name}] value"
                    yield element, _mismatch(element, where, "string", item)
        elif kind in ACCEPTED and not isinstance(value, ACCEPTED[kind]):
            yield field, _mismatch(field, where, kind, value)


def _mismatch(field: str, where: str, wanted: str, value: Any) -> str:
    return f"Field '{field}' on {where} must be a '{wanted}'; got '{GO_TYPES[type(value)]}' instead"


CONNECTION_FIELDS = {
    **dict.fromkeys(("user", "password", "host"), "string"),
    "port": "float64",
    **dict.fromkeys(("privateKey", "privateKeyPassword", "agentSocketPath"), "string"),
    **dict.fromkeys(("dialErrorLimit", "perDialTimeout"), "int"),
    "hostKey": "string",
}
CONNECTION = Shape("remote", "Connection", {**CONNECTION_FIELDS, "proxy": "any"}, required=("host",))

COMMON = {"triggers": "list", **dict.fromkeys(("create", "update", "delete", "stdin", "logging"), "string")}
ENVIRONMENT: dict[str, str | Shape] = {"environment": "strings", "addPreviousOutputInEnv": "bool"}

LOCAL_COMMAND = Shape(
    "local",
    "CommandInputs",
    {**COMMON, "interpreter": "list", "dir": "string", "assetPaths": "list", "archivePaths": "list", **ENVIRONMENT},
)
REMOTE_COMMAND = Shape(
    "remote", "CommandInputs", {**COMMON, "connection": CONNECTION, **ENVIRONMENT}, required=("connection",)
)
COPY_TO_REMOTE = Shape(
    "remote",
    "CopyToRemoteInputs",
    {"connection": CONNECTION, "triggers": "list", "source": "any", "remotePath": "string"},
    required=("connection", "source", "remotePath"),
)
