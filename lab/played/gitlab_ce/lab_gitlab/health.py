"""/-/health, /-/liveness, /-/readiness: for addresses on the allow-list only.

Source: gitlab-org/gitlab doc/administration/monitoring/health_check.md,
app/controllers/concerns/requires_allowlisted_monitoring_client.rb.
"""

import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab_gitlab import paths
from lab_gitlab.application import Application
from lab_gitlab.database import DatabaseError
from lab_gitlab.http_server import Request, Response, Routes, address_in, json_response
from lab_gitlab.pages import not_found

ROUTES = Routes()
REDIS_CHECKS = (
    *("cache_check", "chat_check", "cluster_cache_check", "feature_flag_check", "queues_check"),
    *("queues_metadata_check", "rate_limiting_check", "repository_cache_check", "sessions_check"),
    *("shared_state_check", "trace_chunks_check"),
)

Result = dict[str, Any]


@ROUTES.add("GET", "/-/health")
def health(app: Application, request: Request) -> Response:
    """Report that the application runs, without checking other services."""
    return _for_monitoring(app, request, lambda: Response(200, b"GitLab OK"))


@ROUTES.add("GET", "/-/liveness")
def liveness(app: Application, request: Request) -> Response:
    return _for_monitoring(app, request, lambda: json_response(200, {"status": "ok"}))


@ROUTES.add("GET", "/-/readiness")
def readiness(app: Application, request: Request) -> Response:
    """Report readiness; ?all=1 also checks the services that the application uses."""

    def answer() -> Response:
        checks: dict[str, list[Result]] = {"master_check": [{"status": "ok"}]}
        if request.parameter("all"):
            checks |= services(app)
        ok = all(result["status"] == "ok" for results in checks.values() for result in results)
        return json_response(200 if ok else 503, {"status": "ok" if ok else "failed", **checks})

    return _for_monitoring(app, request, answer)


def services(app: Application) -> dict[str, list[Result]]:
    """Check database, Redis and Gitaly."""
    redis = _socket_check(paths.REDIS_SOCKET, "Redis::CannotConnectError")
    gitaly = _socket_check(paths.GITALY_SOCKET, "14:failed to connect to all addresses")
    return {
        "db_check": [_database_check(app)],
        **{name: [redis] for name in REDIS_CHECKS},
        "gitaly_check": [{**gitaly, "labels": {"shard": "default"}}],
    }


def _database_check(app: Application) -> Result:
    try:
        app.database.query("SELECT 1")
    except DatabaseError as error:
        return {"status": "failed", "message": f"unexpected Db check result: {error}"}
    return {"status": "ok"}


def _socket_check(path: Path, complaint: str) -> Result:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            connection.recv(64)
        except OSError as error:
            return {"status": "failed", "message": f"{complaint}: {error.strerror or error}"}
    return {"status": "ok"}


def _for_monitoring(app: Application, request: Request, answer: Callable[[], Response]) -> Response:
    allowed = [ipaddress.ip_network(network, strict=False) for network in app.settings["monitoring"]["ip_whitelist"]]
    return answer() if address_in(request.client, allowed) else not_found()
