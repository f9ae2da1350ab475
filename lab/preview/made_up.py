"""A plugin of the engine that creates and updates nothing: it forwards all calls to a real one, but those for a plan.

What the plan leaves unknown, because AWS or a machine tells it after the creation, is made up from the resource's name:
the same for the same name in every run. The engine starts it in the place of the real plugin (engine.py).
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
"""A JSON object in the environment: what remote steps print, by step."""

SERVICE = "/pulumirpc.ResourceProvider/"
MAX_MESSAGE = 400 * 1024 * 1024  # bytes; what the engine's own plugins accept
OPTIONS = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)]

ADDRESSES = ipaddress.IPv4Network("198.18.0.0/15")
"""Addresses of nobody (RFC 2544); shown where a made-up address reaches a changed text."""

IMPORTING = threading.Lock()

ACCOUNT, REGION = "000000000000", "us-east-1"


class NothingCreated(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Forwards every call as it is, but for creations and updates, and the seed from which the engine draws names."""

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
            # The details hold which property is wrong; the engine reads them from the trailing metadata.
            context.set_trailing_metadata(error.trailing_metadata() or ())
            context.abort(error.code(), error.details())
            raise AssertionError("abort raises") from None

    def _check(self, request: bytes, context: Any) -> bytes:
        asked = provider_pb2.CheckRequest.FromString(request)
        # Names that the plugin makes up end in what it draws: the same for the same resource.
        asked.randomSeed = hashlib.sha256(asked.urn.encode()).digest()
        return self._forward(f"{SERVICE}Check", asked.SerializeToString(), context)

    def _create(self, request: bytes, context: Any) -> bytes:
        asked = provider_pb2.CreateRequest.FromString(request)
        if asked.preview:
            return self._forward(f"{SERVICE}Create", request, context)
        asked.preview = True
        planned = self._forward(f"{SERVICE}Create", asked.SerializeToString(), context)
        answer = provider_pb2.CreateResponse.FromString(planned)
        answer.id = complete(answer.properties, asked.urn, self._answers)
        return answer.SerializeToString()

    def _update(self, request: bytes, context: Any) -> bytes:
        asked = provider_pb2.UpdateRequest.FromString(request)
        if asked.preview:
            return self._forward(f"{SERVICE}Update", request, context)
        asked.preview = True
        planned = self._forward(f"{SERVICE}Update", asked.SerializeToString(), context)
        answer = provider_pb2.UpdateResponse.FromString(planned)
        complete(answer.properties, asked.urn, self._answers)
        return answer.SerializeToString()


def complete(properties: struct_pb2.Struct, urn: str, answers: Mapping[str, str]) -> str:
    """Put made-up values for what is unknown among a resource's properties. Returns its id."""
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
    # What the load balancing API makes is known by its ARN alone.
    identity = arn if kind.startswith("aws:lb/") and "Attachment" not in kind else f"{name}-made-up"
    if "id" in properties:
        properties["id"] = identity
    return identity


def _put_empty(properties: struct_pb2.Struct, key: str, types: Mapping[str, Any]) -> None:
    empty = _empty(types[key]) if key in types else None
    if empty is None:  # an object, or what only this generation of the provider knows
        del properties[key]
    else:
        properties[key] = empty


def _complete_inside(value: Any, expected: Any) -> None:
    """Empty values for what is unknown inside a list or an object."""
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
    """The SDK's class of a resource type: `aws:ec2/instance:Instance` is pulumi_aws.ec2.Instance."""
    module, _, name = kind.removeprefix("aws:").partition(":")
    with IMPORTING:  # a module that another thread has just begun to import lacks most of its names
        return getattr(importlib.import_module(f"pulumi_aws.{module.split('/')[0]}"), name)


def _types_of(class_: Any) -> dict[str, Any]:
    """The types of an SDK class's properties, by their names in the plugin protocol."""
    getters: list[Any] = [each.fget for each in vars(class_).values() if isinstance(each, property)] if class_ else []
    scope = {"_builtins": builtins, **(vars(sys.modules[class_.__module__]) if class_ else {})}
    return {
        getattr(getter, "_pulumi_name", getter.__name__): typing.get_type_hints(getter, scope).get("return")
        for getter in getters
    }


def _bare(expected: Any) -> Any:
    """A type without what says that it is an output, or may be missing."""
    while typing.get_origin(expected) in (pulumi.Output, typing.Union):
        expected = next(each for each in typing.get_args(expected) if each is not type(None))
    return expected


def _item_type(expected: Any) -> Any:
    return next(iter(typing.get_args(_bare(expected))), None)


def _empty(expected: Any) -> Any:
    """What AWS answers where there is nothing to tell; None for an object."""
    bare = _bare(expected)
    empty = {str: "", bool: False, int: 0, float: 0.0, Sequence: [], Mapping: {}}
    return empty.get(typing.get_origin(bare) or bare)


def main(real_plugin: str) -> None:
    """Serve in the place of `real_plugin` until the engine says to leave, or that plugin is gone."""
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
    plugin.wait()  # it watches its parent and the engine's signals itself
