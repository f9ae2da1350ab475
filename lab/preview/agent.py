"""An SSH agent that lists a key but does not sign: for programs whose steps only simulate a login."""

import base64
import contextlib
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from validation.private_keys import string as ssh_string

FAILURE, REQUEST_IDENTITIES, IDENTITIES_ANSWER = 5, 11, 12
"""Message types (draft-ietf-sshm-ssh-agent, "Message numbers")."""


@contextlib.contextmanager
def listing(public_key_line: str) -> Iterator[Path]:
    """Run an agent that lists this key; yields its socket."""
    _, key, *comment = public_key_line.split(maxsplit=2)
    identity = ssh_string(base64.b64decode(key)) + ssh_string(" ".join(comment).encode())
    answer = bytes([IDENTITIES_ANSWER]) + (1).to_bytes(4) + identity

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while size := self.rfile.read(4):
                message = self.rfile.read(int.from_bytes(size))
                self.wfile.write(ssh_string(answer if message[:1] == bytes([REQUEST_IDENTITIES]) else bytes([FAILURE])))

    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder, "agent")
        with socketserver.ThreadingUnixStreamServer(str(socket), Handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            try:
                yield socket
            finally:
                server.shutdown()
