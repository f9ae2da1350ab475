"""The API and the reconcile loop in one process: `python -m lab.cloud --image FILE`, `--api-only` or `--clean`."""

import argparse
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from lab.cloud import HOST, PORT, actions, controls, dns, existing, faults, patches, permissions, shown_certificates
from lab.cloud.constraints import constrained
from lab.cloud.idempotency import idempotent
from lab.cloud.reconciler import Reconciler, remove_everything

LATENCY = 0.05  # seconds
"""Minimum duration of a call. The AWS SDK for Go closes a request's body as soon as the response arrives; if it is
still writing the request then, net/http closes the connection, and the response is lost.
"""

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.cloud", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help="port of the API; can be set only with --api-only")
    parser.add_argument("--existing", type=Path, help="a JSON file of existing resources; only with --api-only")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--image", type=Path, metavar="FILE", help="create machines from the image tag in this file")
    mode.add_argument("--api-only", action="store_true", help="only the API: no machines, no root needed")
    mode.add_argument("--clean", action="store_true", help="remove what a killed cloud has left, and exit")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    if arguments.clean:
        remove_everything()
        return
    patches.apply()
    if arguments.existing:
        existing.put(json.loads(arguments.existing.read_text()))
    elif arguments.image:
        existing.put(existing.LAB)
    reconciler = Reconciler(partial(Path.read_text, arguments.image), api_only=arguments.api_only)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: reconciler.stop())
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it logs every request
    app = application(reconciler)
    server = make_server(HOST, arguments.port, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, name="api", daemon=True).start()
    reconciler.run()


def application(reconciler: Reconciler) -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    """Return moto's API for all services, with the lab's own routes in front of it."""
    armed, called, permitted = faults.Faults(), actions.Actions(), permissions.Permissions()
    controlled: dict[str, controls.Control] = {
        faults.ROUTE: armed,
        dns.ROUTE: dns.PLANTED,
        shown_certificates.ROUTE: shown_certificates.SHOWN,
    }
    moto = DomainDispatcherApplication(create_backend_app)
    aws = armed.before(called.before(permitted.before(constrained(idempotent(moto)))))

    def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
            case "GET", "/_lab/status":
                start_response("200 OK", [("Content-Type", "application/json")])
                return [json.dumps(reconciler.status()).encode()]
            case "POST", "/_lab/shutdown":
                reconciler.stop()
                start_response("202 Accepted", [("Content-Type", "text/plain")])
                return [b"shutting down\n"]
            case _, path if path in controlled:
                return controls.route(controlled[path], environ, start_response)
            case _, path if path == actions.ROUTE:
                return called.route(environ, start_response)
            case _, path if path == permissions.ROUTE:
                return permitted.route(environ, start_response)
        time.sleep(LATENCY)
        return aws(environ, start_response)

    return serve


if __name__ == "__main__":
    main()
