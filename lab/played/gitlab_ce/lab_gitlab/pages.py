"""Minimal web pages: the stand-in has no web interface."""

from lab_gitlab.application import Application
from lab_gitlab.http_server import Request, Response, Routes

ROUTES = Routes()
HTML = "text/html; charset=utf-8"


@ROUTES.add("GET", "/")
def root(app: Application, _request: Request) -> Response:
    return Response(302, headers={"Location": f"{app.settings['gitlab']['url']}/users/sign_in"})


@ROUTES.add("GET", "/users/sign_in")
def sign_in(_app: Application, _request: Request) -> Response:
    return _page(200, "Sign in", "<p>The lab's GitLab has no web interface.</p>")


def not_found() -> Response:
    return _page(404, "Not Found", "<h1>404: Page not found</h1>")


def _page(status: int, title: str, body: str) -> Response:
    text = f"<!DOCTYPE html><html><head><title>{title} · GitLab</title></head><body>{body}</body></html>"
    return Response(status, text.encode(), HTML)
