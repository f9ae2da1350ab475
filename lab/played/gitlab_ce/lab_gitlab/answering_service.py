"""Stand-in for Gitaly, as far as GitLab's health checks need it: answers on its socket."""

import socketserver
import sys
from pathlib import Path


class Answer(socketserver.StreamRequestHandler):
    """Answers PONG to every line."""

    def handle(self) -> None:
        for _ in self.rfile:
            self.wfile.write(b"+PONG\r\n")


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def main() -> None:
    socket = Path(sys.argv[1])
    socket.unlink(missing_ok=True)
    server = Server(str(socket), Answer)
    socket.chmod(0o777)
    server.serve_forever()


if __name__ == "__main__":
    main()
