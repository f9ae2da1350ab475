"""The language host of the lab: what the engine talks to in order to run the Python program.

The engine starts it as `pulumi-language-python`, reads the port it serves on from its standard output and asks it to
run the program, once for a preview and once for an update. It runs in the Python that has the program's packages, so
there is nothing to install and no plugin to announce.
"""

import asyncio
import contextlib
import contextvars
import logging
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from concurrent import futures
from pathlib import Path
from types import FrameType

import grpc
import pulumi
from pulumi.runtime import reset_options, run_in_stack, set_all_config
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

THREADS_PER_OPERATION = 4  # what the SDK's own launcher gives the program for each operation that may run at once


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """The part of the engine's language protocol that running a program takes."""

    def Handshake(
        self, request: language_pb2.LanguageHandshakeRequest, context: grpc.ServicerContext
    ) -> language_pb2.LanguageHandshakeResponse:
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: object, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo()

    def GetRequiredPackages(
        self, request: language_pb2.GetRequiredPackagesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetRequiredPackagesResponse:
        return language_pb2.GetRequiredPackagesResponse()

    def GetRequiredPlugins(
        self, request: language_pb2.GetRequiredPluginsRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetRequiredPluginsResponse:
        return language_pb2.GetRequiredPluginsResponse()

    def About(self, request: object, context: grpc.ServicerContext) -> language_pb2.AboutResponse:
        version = ".".join(str(part) for part in sys.version_info[:3])
        return language_pb2.AboutResponse(executable=sys.executable, version=version)

    def Run(self, request: language_pb2.RunRequest, context: grpc.ServicerContext) -> language_pb2.RunResponse:
        # A context of its own for each run: the SDK keeps its settings in context variables.
        return contextvars.copy_context().run(run, request)


def run(request: language_pb2.RunRequest) -> language_pb2.RunResponse:
    """Run the program once. What went wrong is logged for the user here; `bail` tells the engine only that it did."""
    folder = Path(request.info.program_directory or request.pwd)
    entry_point = folder / (request.info.entry_point or ".")
    program = entry_point if entry_point.is_file() else entry_point / "__main__.py"
    os.chdir(request.pwd or folder)
    sys.argv = [str(program), *request.args[1:]]
    sys.path[:] = [str(folder), *(path for path in sys.path if path != str(folder))]
    _forget_modules_below(folder)
    reset_options(
        project=request.project,
        stack=request.stack,
        organization=request.organization or "organization",
        root_directory=request.info.root_directory,
        parallel=request.parallel,
        engine_address=request.args[0] if request.args else "",
        monitor_address=request.monitor_address,
        preview=request.dryRun,
    )
    set_all_config(dict(request.config), list(request.configSecretKeys))
    # Futures of resources that failed are never looked at, by design of the SDK; asyncio would report each of them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    executor = futures.ThreadPoolExecutor(max(request.parallel, 1) * THREADS_PER_OPERATION)
    loop = asyncio.new_event_loop()
    loop.set_default_executor(executor)
    try:
        loop.run_until_complete(run_in_stack(lambda: _execute(program)))
    except pulumi.RunError as error:
        return _failed(str(error))
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            return _failed(f"Program exited with non-zero exit code: {leaving.code}")
    except Exception:  # noqa: BLE001, it is the program's
        return _failed(f"Program failed with an unhandled exception:\n{_traceback(program)}")
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                loop.run_until_complete(task)
        executor.shutdown(wait=False, cancel_futures=True)
        loop.close()
        sys.stdout.flush()
        sys.stderr.flush()
    return language_pb2.RunResponse()


def _execute(program: Path) -> None:
    if not program.is_file():
        raise pulumi.RunError(f"unable to find main python program `__main__.py` in `{program.parent}`")
    runpy.run_path(str(program), run_name="__main__")


def _failed(message: str) -> language_pb2.RunResponse:
    # An engine that is gone before its program has told the user why itself.
    with contextlib.suppress(grpc.RpcError):
        pulumi.log.error(message)
    return language_pb2.RunResponse(bail=True)


def _traceback(program: Path) -> str:
    """The current exception's traceback, from the program's own first frame on."""
    _, error, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    own = [index for index, frame in enumerate(frames) if Path(frame.filename) == program]
    limit = own[0] - len(frames) if own else None
    return "".join(traceback.format_exception(error, limit=limit))


def _forget_modules_below(folder: Path) -> None:
    """Let a second run in this process import the program's modules anew, as a new process would."""
    packages = Path(sys.prefix)
    for name, module in list(sys.modules.items()):
        source = Path(getattr(module, "__file__", None) or "/")
        own = name == "__main__" or __name__.startswith(name)
        if source.is_relative_to(folder) and not source.is_relative_to(packages) and not own:
            del sys.modules[name]


def exit_with_parent() -> None:
    """End this process when the engine that started it is gone, however it went."""

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()


def leave(_signal_number: int, _frame: FrameType | None) -> None:
    """The engine's own way to end its plugins is SIGINT: nothing to report."""
    os._exit(0)


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    signal.signal(signal.SIGINT, leave)
    exit_with_parent()
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
