"""A stand-in for the command plugin, `pulumi-resource-command` 1.2.1, if its binary is not available.

It behaves like the real plugin according to its source (pulumi/pulumi-command v1.2.1 `provider/pkg/provider`, and
pulumi-go-provider v1.3.0 `infer/resource.go` for check, diff and preview), including the error messages, because they
determine what a program does about errors, changes and secrets. lab/tests/test_command_provider.py runs the same tests
with the real plugin if it is available (lab/parts.py). On a logged line of more than 64 KiB, where the real plugin
hangs, the stand-in fails. It rejects connections through a proxy, `assetPaths` and `archivePaths`, and everything that
the plugin offers besides the three resources.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from pulumi.runtime.proto import engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc
from pulumi.runtime.proto.provider_pb2 import PropertyDiff

from lab.engine import ssh
from lab.engine.commands import copy_to_remote, run_local, run_remote
from lab.engine.operation import CommandError, Operation
from lab.engine.properties import (
    ARCHIVE,
    ASSET,
    SIGNATURE,
    UNKNOWN,
    Properties,
    differences,
    from_message,
    is_secret,
    plain,
    root,
    secret,
    to_message,
)
from lab.engine.shapes import COPY_TO_REMOTE, LOCAL_COMMAND, REMOTE_COMMAND, Shape

VERSION = "1.2.1"
MAX_MESSAGE = 400 * 1024 * 1024  # bytes; the limit of the engine's own plugins


class Command:
    """`command:local:Command` and `command:remote:Command`."""

    def __init__(self, runner: Callable[..., Awaitable[Properties]], shape: Shape) -> None:
        self._runner = runner
        self.shape = shape

    def check(self, inputs: Properties) -> Iterator[tuple[str, str]]:
        for name in ("assetPaths", "archivePaths"):
            if name in inputs:
                yield name, "not supported by the lab's command plugin"

    def complete(self, inputs: Properties) -> Properties:
        return inputs

    def preview(self, inputs: Properties, state: Properties | None) -> Properties:
        """Keep the last output, unless an input of the last run has changed or an input is not known yet."""
        if state is None or any(
            plain(inputs.get(name)) == UNKNOWN or (name in state and state[name] != inputs.get(name))
            for name in self.shape.fields
        ):
            return {**inputs, "stdout": UNKNOWN, "stderr": UNKNOWN}
        return {**inputs, "stdout": state["stdout"], "stderr": state["stderr"]}

    async def create(self, inputs: Properties, operation: Operation) -> Properties:
        return {**inputs, **await self._run("create", inputs, {}, operation)}

    async def update(self, state: Properties, inputs: Properties, operation: Operation) -> Properties:
        verb = "update" if inputs.get("update") is not None else "create"
        return {**inputs, **await self._run(verb, inputs, state, operation)}

    async def delete(self, state: Properties, operation: Operation) -> None:
        await self._run("delete", state, state, operation)

    async def _run(self, verb: str, inputs: Properties, previous: Properties, operation: Operation) -> Properties:
        given, before = plain(inputs), plain(previous)
        if given.get(verb) is None:
            return {name: previous.get(name, "") for name in ("stdout", "stderr")}
        return await self._runner(given[verb], given, before, operation)


class CopyToRemote:
    """`command:remote:CopyToRemote`."""

    shape = COPY_TO_REMOTE

    def check(self, inputs: Properties) -> Iterator[tuple[str, str]]:
        source = plain(inputs.get("source"))
        kind = source.get(SIGNATURE) if isinstance(source, dict) else None
        if kind not in (ASSET, ARCHIVE):  # also for a source that a preview does not know yet
            yield "asset", "either asset or archive must be set"
        elif kind == ASSET and source.get("uri"):
            yield "asset", "asset must be a path-based file asset or a text asset"
        elif kind == ARCHIVE and not source.get("path"):
            yield "archive", "archive must be a path to a file or directory"

    def complete(self, inputs: Properties) -> Properties:
        """Add the missing keys of an asset."""
        source = inputs.get("source")
        if not isinstance(source, dict):
            return inputs
        if is_secret(source):
            return {**inputs, "source": secret(self.complete({"source": source["value"]})["source"])}
        content: Properties = {"text": ""} if source.get(SIGNATURE) == ASSET else {"assets": {}}
        return {**inputs, "source": {"path": "", "uri": "", **content, **source}}

    def preview(self, inputs: Properties, _state: Properties | None) -> Properties:
        return inputs

    async def create(self, inputs: Properties, operation: Operation) -> Properties:
        await copy_to_remote(plain(inputs), operation)
        return inputs

    async def update(self, state: Properties, inputs: Properties, operation: Operation) -> Properties:
        old, new = plain(state), plain(inputs)
        moved = old["remotePath"] != new["remotePath"]
        if moved or old["source"].get("hash") != new["source"].get("hash"):
            await copy_to_remote(new, operation)
        return inputs

    async def delete(self, state: Properties, operation: Operation) -> None:
        pass  # the real plugin does not delete the copy


REPLACING = {
    PropertyDiff.ADD: PropertyDiff.ADD_REPLACE,
    PropertyDiff.DELETE: PropertyDiff.DELETE_REPLACE,
    PropertyDiff.UPDATE: PropertyDiff.UPDATE_REPLACE,
}

RESOURCES: dict[str, Command | CopyToRemote] = {
    "command:local:Command": Command(run_local, LOCAL_COMMAND),
    "command:remote:Command": Command(run_remote, REMOTE_COMMAND),
    "command:remote:CopyToRemote": CopyToRemote(),
}


def check(resource: Command | CopyToRemote, inputs: Properties) -> tuple[Properties, list[tuple[str, str]]]:
    """Return the inputs with defaults filled in and secret fields marked, and the invalid fields with the reasons."""
    given = {name: value for name, value in inputs.items() if value is not None}
    failures = [*resource.shape.failures(given), *resource.check(given)]
    checked = resource.complete(given)
    if "connection" not in given:
        return checked, failures
    connection = given["connection"]["value"] if is_secret(given["connection"]) else given["connection"]
    if isinstance(connection, dict):
        connection = dict(connection) if failures else {**ssh.DEFAULTS, **connection}
        if "proxy" in connection:
            failures.append(("connection.proxy", "the lab's command plugin cannot connect through a proxy"))
        for name in ssh.SECRET_KEYS:
            if name in connection:
                connection[name] = secret(connection[name])
    return {**checked, "connection": secret(connection)}, failures


def diff(old_inputs: Properties, new_inputs: Properties) -> provider_pb2.DiffResponse:
    """Compare inputs. Only `triggers` as a whole requires replacement; for a changed trigger the SDK requests it."""
    changes = dict(differences(old_inputs, new_inputs))
    if "triggers" in changes:
        changes["triggers"] = REPLACING[changes["triggers"]]
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if changes else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=sorted({root(path) for path in changes}),
        replaces=[path for path, kind in changes.items() if kind in REPLACING.values()],
        detailedDiff={path: PropertyDiff(kind=kind) for path, kind in changes.items()},
        hasDetailedDiff=True,
    )


class CommandProvider(provider_pb2_grpc.ResourceProviderServicer):
    """The part of the plugin protocol that the engine uses for resources."""

    def __init__(self, engine: engine_pb2_grpc.EngineStub) -> None:
        self._engine = engine
        self._cancelled = asyncio.Event()

    async def GetPluginInfo(self, request: Any, context: Any) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=VERSION)

    async def GetSchema(self, request: Any, context: Any) -> provider_pb2.GetSchemaResponse:
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": "command", "version": VERSION}))

    async def CheckConfig(self, request: provider_pb2.CheckRequest, context: Any) -> provider_pb2.CheckResponse:
        return provider_pb2.CheckResponse(inputs=request.news)

    async def DiffConfig(self, request: provider_pb2.DiffRequest, context: Any) -> provider_pb2.DiffResponse:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    async def Configure(self, request: Any, context: Any) -> provider_pb2.ConfigureResponse:
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    async def Check(self, request: provider_pb2.CheckRequest, context: Any) -> provider_pb2.CheckResponse:
        resource = await self._resource(request.type, context)
        inputs, failures = check(resource, from_message(request.news))
        return provider_pb2.CheckResponse(
            inputs=to_message(inputs),
            failures=[provider_pb2.CheckFailure(property=name, reason=why) for name, why in failures],
        )

    async def Diff(self, request: provider_pb2.DiffRequest, context: Any) -> provider_pb2.DiffResponse:
        return diff(from_message(request.old_inputs), from_message(request.news))

    async def Create(self, request: provider_pb2.CreateRequest, context: Any) -> provider_pb2.CreateResponse:
        resource = await self._resource(request.type, context)
        inputs = from_message(request.properties)
        prefix = "" if isinstance(resource, CopyToRemote) else request.name
        if request.preview:
            outputs = resource.preview(inputs, None)
        else:
            async with _reported(context):
                outputs = await resource.create(inputs, self._operation(request))
        return provider_pb2.CreateResponse(id=prefix + secrets.token_hex(4), properties=to_message(outputs))

    async def Update(self, request: provider_pb2.UpdateRequest, context: Any) -> provider_pb2.UpdateResponse:
        resource = await self._resource(request.type, context)
        state, inputs = from_message(request.olds), from_message(request.news)
        if request.preview:
            outputs = resource.preview(inputs, state)
        else:
            async with _reported(context):
                outputs = await resource.update(state, inputs, self._operation(request))
        return provider_pb2.UpdateResponse(properties=to_message(outputs))

    async def Delete(self, request: provider_pb2.DeleteRequest, context: Any) -> empty_pb2.Empty:
        resource = await self._resource(request.type, context)
        async with _reported(context):
            await resource.delete(from_message(request.properties), self._operation(request))
        return empty_pb2.Empty()

    async def Read(self, request: provider_pb2.ReadRequest, context: Any) -> provider_pb2.ReadResponse:
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    async def Invoke(self, request: provider_pb2.InvokeRequest, context: Any) -> provider_pb2.InvokeResponse:
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, f"{request.tok} is not supported by the lab's command plugin"
        )
        raise AssertionError("abort raises")

    async def Cancel(self, request: empty_pb2.Empty, context: Any) -> empty_pb2.Empty:
        self._cancelled.set()
        return empty_pb2.Empty()

    async def _resource(self, token: str, context: Any) -> Command | CopyToRemote:
        if token not in RESOURCES:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{token} is not supported by the lab's command plugin")
        return RESOURCES[token]

    def _operation(self, request: Any) -> Operation:
        return Operation(self._engine, request.urn, request.timeout, self._cancelled)


@contextlib.asynccontextmanager
async def _reported(context: Any) -> AsyncIterator[None]:
    """Report a failed command to the engine as the error message of the call."""
    try:
        yield
    except CommandError as error:
        await context.abort(grpc.StatusCode.UNKNOWN, str(error))


async def _wait_for_end_of_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)


async def serve(engine_address: str) -> None:
    """Serve until the engine interrupts the plugin or has ended itself."""
    options = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)]
    async with grpc.aio.insecure_channel(engine_address) as channel:
        server = grpc.aio.server(options=options)
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(
            CommandProvider(engine_pb2_grpc.EngineStub(channel)), server
        )
        port = server.add_insecure_port("127.0.0.1:0")
        interrupted = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
        await server.start()
        print(port, flush=True)
        tasks = [asyncio.create_task(interrupted.wait()), asyncio.create_task(_wait_for_end_of_parent())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await server.stop(grace=None)


def main() -> None:
    parser = argparse.ArgumentParser(description="The lab's stand-in for Pulumi's command plugin")
    parser.add_argument("engine", help="address of the engine that started the plugin")
    arguments, _ = parser.parse_known_args()
    asyncio.run(serve(arguments.engine))


if __name__ == "__main__":
    main()
