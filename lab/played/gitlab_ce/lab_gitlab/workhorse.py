"""Plays gitlab-workhorse: stands between nginx and Puma, and answers 502 itself while Puma is away.

What the real one does to requests on the way (the client's address) is done in http_server.client_address.
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
    """One connection of nginx."""
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
    paths.WORKHORSE_SOCKET.chmod(0o777)  # the folder decides who may come here
    print(f"listening on {paths.WORKHORSE_SOCKET}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
