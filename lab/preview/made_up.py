"""An engine plugin that creates and updates nothing: it forwards calls to a real plugin, creations only as plans.

Values that a plan leaves unknown, because AWS or a machine returns them after the creation, are generated from the
resource's name and are the same in every run. The engine starts it instead of the real plugin (engine.py).
"""

import builtins
import hashlib
import importlib
import ipaddress
import json
import os
import re
import signal
import subprocess
import sys
import threading
import typing
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from types import FrameType
from typing import Any

import grpc
import pulumi
from google.protobuf import struct_pb2
from pulumi.runtime.proto import provider_pb2

from lab.engine.properties import UNKNOWN

ANSWERS_VARIABLE = "LAB_ANSWERS"
"""The environment variable with a JSON object: the output of remote steps, by step."""

SERVICE = "/pulumirpc.ResourceProvider/"
MAX_MESSAGE = 400 * 1024 * 1024  # bytes; the limit of the engine's own plugins
OPTIONS = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)]

ADDRESSES = ipaddress.IPv4Network("198.18.0.0/15")
"""Unassigned addresses (RFC 2544); they are shown where a changed string contains an address."""

IMPORTING = threading.Lock()

CERTIFICATE = "aws:acm/certificate:Certificate"

ACCOUNT, REGION = "000000000000", "us-east-1"


class NothingCreated(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Forwards every call unchanged, except for creations, updates and the seed of generated names."""

    def __init__(self, plugin: grpc.Channel, answers: dict[str, str]) -> None:
        self._plugin = plugin
        self._answers = answers

    def service(self, details: Any) -> Any:
        method: str = details.method
        handle: Callable[[bytes, Any], bytes] = {
            f"{SERVICE}Check": self._check,
            f"{SERVICE}Create": self._create,
            f"{SERVICE}Update": self._update,
        }.get(method, lambda request, context: self._forward(method, request, context))
        return grpc.unary_unary_rpc_method_handler(handle)

    def _forward(self, method: str, request: bytes, context: Any) -> bytes:
        try:
            answer: bytes = self._plugin.unary_unary(method)(request)
            return answer
        except grpc.RpcError as error:
            # The details contain the invalid property; the engine reads them from the trailing metadata.
            context.set_trailing_metadata(error.trailing_metadata() or ())
            context.abort(error.code(), error.details())
            raise AssertionError("abort raises") from None

    def _check(self, request: bytes, context: Any) -> bytes:
        message = provider_pb2.CheckRequest.FromString(request)
        # The random suffix of generated names is the same for the same resource.
        message.randomSeed = hashlib.sha256(message.urn.encode()).digest()
        return self._forward(f"{SERVICE}Check", message.SerializeToString(), context)

    def _create(self, request: bytes, context: Any) -> bytes:
        message = provider_pb2.CreateRequest.FromString(request)
        if message.preview:
            return self._forward(f"{SERVICE}Create", request, context)
        message.preview = True
        planned = self._forward(f"{SERVICE}Create", message.SerializeToString(), context)
        answer = provider_pb2.CreateResponse.FromString(planned)
        answer.id = complete(answer.properties, message.urn, self._answers)
        return answer.SerializeToString()

    def _update(self, request: bytes, context: Any) -> bytes:
        message = provider_pb2.UpdateRequest.FromString(request)
        if message.preview:
            return self._forward(f"{SERVICE}Update", request, context)
        message.preview = True
        planned = self._forward(f"{SERVICE}Update", message.SerializeToString(), context)
        answer = provider_pb2.UpdateResponse.FromString(planned)
        complete(answer.properties, message.urn, self._answers)
        return answer.SerializeToString()


def complete(properties: struct_pb2.Struct, urn: str, answers: Mapping[str, str]) -> str:
    """Replace the unknown values in a resource's properties with generated ones. Returns the resource's ID."""
    kind, name = urn.split("::")[2].rpartition("$")[2], urn.split("::")[3]
    if kind.startswith("command:"):
        properties["stdout"], properties["stderr"] = answers.get(name.partition("-")[2], f"{name} done"), ""
        return f"{name}-made-up"
    arn = f"arn:aws:{kind.split(':')[1].split('/')[0]}:{REGION}:{ACCOUNT}:{name}"
    types = _types_of(_resource_class(kind))
    for key, value in list(properties.items()):
        if value != UNKNOWN:
            _complete_inside(value, types.get(key))
        elif key.lower().endswith("arn"):
            properties[key] = arn
        elif key in ("publicIp", "privateIp"):
            number = int(hashlib.sha256(f"{kind} {name} {key}".encode()).hexdigest(), 16)
            properties[key] = str(ADDRESSES[number % ADDRESSES.num_addresses])
        elif re.search(r"(^id|Id|Name|Dns)$", key):
            properties[key] = f"{name}-made-up"
        else:
            _put_empty(properties, key, types)
    if kind == CERTIFICATE and "validationMethod" in properties and properties["validationMethod"] == "DNS":
        properties["domainValidationOptions"] = [_validation_option(str(properties["domainName"]))]
    # Certificates and the resources of the load balancing API are identified by their ARN.
    by_arn = kind == CERTIFICATE or (kind.startswith("aws:lb/") and "Attachment" not in kind)
    identity = arn if by_arn else f"{name}-made-up"
    if "id" in properties:
        properties["id"] = identity
    return identity


def _validation_option(domain: str) -> dict[str, str]:
    """Return what ACM asks for a domain of a requested certificate: a CNAME in its DNS zone."""
    return {
        "domainName": domain,
        "resourceRecordName": f"_made-up.{domain}.",
        "resourceRecordType": "CNAME",
        "resourceRecordValue": "_made-up.acm-validations.aws.",
    }


def _put_empty(properties: struct_pb2.Struct, key: str, types: Mapping[str, Any]) -> None:
    empty = _empty(types[key]) if key in types else None
    if empty is None:  # an object, or a property that the SDK does not have
        del properties[key]
    else:
        properties[key] = empty


def _complete_inside(value: Any, expected: Any) -> None:
    """Replace unknown values in a list or an object with empty ones."""
    if isinstance(value, struct_pb2.ListValue):
        item_type = _item_type(expected)
        for position, item in enumerate(value):
            if item == UNKNOWN:
                value[position] = _empty(item_type) or ""
            else:
                _complete_inside(item, item_type)
    elif isinstance(value, struct_pb2.Struct):
        types = _types_of(_bare(expected))
        for key, item in list(value.items()):
            if item != UNKNOWN:
                _complete_inside(item, types.get(key))
            else:
                _put_empty(value, key, types)


def _resource_class(kind: str) -> Any:
    """Return the SDK's class of a resource type: `aws:ec2/instance:Instance` is pulumi_aws.ec2.Instance."""
    module, _, name = kind.removeprefix("aws:").partition(":")
    with IMPORTING:  # a module that another thread is importing lacks most of its names
        return getattr(importlib.import_module(f"pulumi_aws.{module.split('/')[0]}"), name)


def _types_of(class_: Any) -> dict[str, Any]:
    """Return the types of an SDK class's properties, by their names in the plugin protocol."""
    getters: list[Any] = [each.fget for each in vars(class_).values() if isinstance(each, property)] if class_ else []
    scope = {"_builtins": builtins, **(vars(sys.modules[class_.__module__]) if class_ else {})}
    return {
        getattr(getter, "_pulumi_name", getter.__name__): typing.get_type_hints(getter, scope).get("return")
        for getter in getters
    }


def _bare(expected: Any) -> Any:
    """Unwrap a type from Output and Optional."""
    while typing.get_origin(expected) in (pulumi.Output, typing.Union):
        expected = next(each for each in typing.get_args(expected) if each is not type(None))
    return expected


def _item_type(expected: Any) -> Any:
    return next(iter(typing.get_args(_bare(expected))), None)


def _empty(expected: Any) -> Any:
    """Return the empty value of a type, as AWS does; None for an object."""
    bare = _bare(expected)
    empty = {str: "", bool: False, int: 0, float: 0.0, Sequence: [], Mapping: {}}
    return empty.get(typing.get_origin(bare) or bare)


def main(real_plugin: str) -> None:
    """Serve instead of `real_plugin` until the engine stops this process or that plugin ends."""
    plugin = subprocess.Popen([real_plugin, *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
    assert plugin.stdout

    def leave(_signal_number: int, _frame: FrameType | None) -> None:
        plugin.send_signal(signal.SIGINT)
        os._exit(0)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    channel = grpc.insecure_channel(f"127.0.0.1:{int(plugin.stdout.readline())}", options=OPTIONS)
    server = grpc.server(futures.ThreadPoolExecutor(32), options=OPTIONS)
    server.add_generic_rpc_handlers((NothingCreated(channel, json.loads(os.environ[ANSWERS_VARIABLE])),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    plugin.wait()  # it ends with its parent or on the engine's signal
