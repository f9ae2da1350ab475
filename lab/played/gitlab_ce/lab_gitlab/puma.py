"""Stand-in for Puma with the Rails application: the service `puma`."""

import json
import threading
from typing import Any

from lab_gitlab import api, application, git_http, health, jwt_auth, pages, paths
from lab_gitlab.application import Application
from lab_gitlab.authentication import IpBlockedError
from lab_gitlab.http_server import Request, Response, Server, json_response
from lab_gitlab.records import now

ROUTES = (health.ROUTES, pages.ROUTES, jwt_auth.ROUTES, *api.ROUTES, git_http.ROUTES)
LOG = paths.LOGS / "gitlab-rails/production_json.log"


def answer(app: Application, request: Request) -> Response:
    """Call the handler of the path; without one, the response is 404."""
    try:
        for routes in ROUTES:
            found = routes.find(request.method, request.path)
            if found:
                handler, path = found
                return handler(app, request, **path)
    except IpBlockedError:
        return Response(403)
    except json.JSONDecodeError:
        return json_response(400, {"error": "The provided content-type 'application/json' is not valid JSON"})
    finally:
        app.database.close()
    return api.answer_unknown() if request.path.startswith("/api/") else pages.not_found()


class RequestLog:
    """Writes one line of JSON per request. Paths are logged without the query, which may contain tokens."""

    def __init__(self) -> None:
        self._file = LOG.open("a", buffering=1)
        self._lock = threading.Lock()

    def __call__(self, record: dict[str, Any]) -> None:
        with self._lock:
            self._file.write(json.dumps({"time": now(), **record}) + "\n")


def main() -> None:
    app = application.load()
    server = Server(
        paths.PUMA_SOCKET,
        lambda request: answer(app, request),
        RequestLog(),
        trusted_proxies=app.settings["gitlab"]["trusted_proxies"],
    )
    print(f"* Listening on unix://{paths.PUMA_SOCKET}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
