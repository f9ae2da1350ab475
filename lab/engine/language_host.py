"""The language host of the lab, through which the engine runs the Python program.

The engine starts it as `pulumi-language-python`, reads its port from standard output and requests runs of the program,
one for a preview and one for an update. It runs in the Python environment with the program's packages, so it has no
packages to install and reports no required plugins.
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

THREADS_PER_OPERATION = 4  # as in the SDK's launcher, for each operation that may run concurrently


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """The part of the engine's language protocol that is needed to run a program. `engine_address` is where messages
    of the program go.
    """

    def __init__(self, engine_address: str) -> None:
        self._engine_address = engine_address

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
        # Each run has its own context: the SDK stores its settings in context variables.
        return contextvars.copy_context().run(run, request, self._engine_address)


def run(request: language_pb2.RunRequest, engine_address: str) -> language_pb2.RunResponse:
    """Run the program once. Errors are logged for the user here; `bail` reports to the engine only that it failed."""
    folder = Path(request.info.program_directory or request.pwd)
    entry_point = folder / (request.info.entry_point or ".")
    program = entry_point if entry_point.is_file() else entry_point / "__main__.py"
    os.chdir(request.pwd or folder)
    sys.argv = [str(program), *request.args]
    sys.path[:] = [str(folder), *(path for path in sys.path if path != str(folder))]
    _forget_modules_below(folder)
    reset_options(
        project=request.project,
        stack=request.stack,
        organization=request.organization or "organization",
        root_directory=request.info.root_directory,
        parallel=request.parallel,
        engine_address=engine_address,
        monitor_address=request.monitor_address,
        preview=request.dryRun,
    )
    set_all_config(dict(request.config), list(request.configSecretKeys))
    # The SDK by design does not await the futures of failed resources; asyncio would report each of them.
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
    # An engine that ends before its program has already reported the reason.
    with contextlib.suppress(grpc.RpcError):
        pulumi.log.error(message)
    return language_pb2.RunResponse(bail=True)


def _traceback(program: Path) -> str:
    """Format the current exception's traceback, starting at the program's first frame."""
    _, error, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    own = [index for index, frame in enumerate(frames) if Path(frame.filename) == program]
    limit = own[0] - len(frames) if own else None
    return "".join(traceback.format_exception(error, limit=limit))


def _forget_modules_below(folder: Path) -> None:
    """Make a second run in this process import the program's modules again, like a new process."""
    packages = Path(sys.prefix)
    for name, module in list(sys.modules.items()):
        source = Path(getattr(module, "__file__", None) or "/")
        own = name == "__main__" or __name__.startswith(name)
        if source.is_relative_to(folder) and not source.is_relative_to(packages) and not own:
            del sys.modules[name]


def exit_with_parent() -> None:
    """End this process when the engine that started it has ended, for any reason."""

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()


def leave(_signal_number: int, _frame: FrameType | None) -> None:
    """Exit without a message: SIGINT is how the engine ends its plugins."""
    os._exit(0)


def main() -> None:
    """Serve until the engine ends. It starts its plugins with its address as the last argument (Pulumi,
    langruntime_plugin.go: buildArgsForNewPlugin).
    """
    server = grpc.server(futures.ThreadPoolExecutor(4))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(sys.argv[-1]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    signal.signal(signal.SIGINT, leave)
    exit_with_parent()
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
