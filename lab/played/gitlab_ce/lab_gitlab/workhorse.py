"""Stand-in for gitlab-workhorse: a proxy between nginx and Puma, which answers 502 while Puma is down.

What the real one changes in requests (the client's address) is in http_server.client_address.
"""

import asyncio
import contextlib

from lab_gitlab import paths

HEAD_END = b"\r\n\r\n"
BAD_GATEWAY = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"GitLab is not responding: workhorse has no connection to Puma\n"
)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection from nginx."""
    try:
        upstream, downstream = await asyncio.open_unix_connection(str(paths.PUMA_SOCKET))
    except OSError:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            await reader.readuntil(HEAD_END)
            writer.write(BAD_GATEWAY)
            await writer.drain()
        writer.close()
        return
    await asyncio.gather(_pump(reader, downstream), _pump(upstream, writer))


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await source.read(65536):
            target.write(block)
            await target.drain()
    target.close()


async def main() -> None:
    paths.WORKHORSE_SOCKET.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, str(paths.WORKHORSE_SOCKET))
    paths.WORKHORSE_SOCKET.chmod(0o777)  # access is restricted by the folder's mode
    print(f"listening on {paths.WORKHORSE_SOCKET}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
