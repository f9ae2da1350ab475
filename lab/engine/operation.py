"""One call of the engine to the command plugin: its messages, its timeout and its cancellation."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc


class CommandError(Exception):
    """A failed operation, with the message that the engine shows."""


class OperationEndedError(CommandError):
    """The resource's timeout has passed, or the engine was interrupted."""


class Operation:
    """The equivalent of Go's context of a call. `timeout` is in seconds, 0 for none."""

    def __init__(self, engine: engine_pb2_grpc.EngineStub, urn: str, timeout: float, cancelled: asyncio.Event) -> None:
        self._engine = engine
        self._urn = urn
        # The real plugin truncates to whole seconds: less than one second expires immediately.
        self._deadline = asyncio.get_running_loop().time() + int(timeout) if timeout else None
        self._cancelled = cancelled

    async def status(self, text: str) -> None:
        """Show a line that the next one replaces."""
        await self._log(engine_pb2.INFO, text, ephemeral=True)

    async def warning(self, text: str) -> None:
        await self._log(engine_pb2.WARNING, text)

    async def error(self, text: str) -> None:
        await self._log(engine_pb2.ERROR, text)

    async def _log(self, severity: "engine_pb2.LogSeverity.ValueType", text: str, ephemeral: bool = False) -> None:
        if self._ended():
            return  # the real plugin sends messages with the context of the call
        await self._engine.Log(
            engine_pb2.LogRequest(severity=severity, message=text, urn=self._urn, ephemeral=ephemeral)
        )

    @contextlib.asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """Interrupt the body with OperationEndedError when the call ends."""
        try:
            async with asyncio.timeout_at(self._deadline) as limit:
                watcher = asyncio.create_task(self._expire(limit))
                try:
                    yield
                finally:
                    watcher.cancel()
        except TimeoutError:
            cancelled = self._cancelled.is_set()
            raise OperationEndedError("context canceled" if cancelled else "context deadline exceeded") from None

    def _ended(self) -> bool:
        late = self._deadline is not None and asyncio.get_running_loop().time() >= self._deadline
        return late or self._cancelled.is_set()

    async def _expire(self, limit: asyncio.Timeout) -> None:
        await self._cancelled.wait()
        limit.reschedule(asyncio.get_running_loop().time())
