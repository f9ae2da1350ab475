"""Minimal web pages: the stand-in has no web interface beyond the login page.

Source of the absolute URLs, the cookie and the rejected logins: gitlab-org/gitlab app/views/layouts/_head.html.haml,
config/initializers/session_store.rb, lib/gitlab/middleware/same_site_cookies.rb; Rails, RequestForgeryProtection.
"""

import hmac
import html
import secrets

from lab_gitlab import users
from lab_gitlab.application import Application
from lab_gitlab.http_server import Request, Response, Routes

ROUTES = Routes()
HTML = "text/html; charset=utf-8"
SESSION_COOKIE = "_gitlab_session"


@ROUTES.add("GET", "/")
def root(app: Application, _request: Request) -> Response:
    return Response(302, headers={"Location": f"{app.settings['gitlab']['url']}/users/sign_in"})


@ROUTES.add("GET", "/users/sign_in")
def sign_in(app: Application, request: Request, notice: str = "") -> Response:
    session = request.cookies.get(SESSION_COOKIE) or secrets.token_hex(16)
    url = app.settings["gitlab"]["url"]
    head = f"""<script>gon.gitlab_url="{url}";</script>
<meta content="{url}/assets/twitter_card.jpg" property="og:image">
<meta content="{html.escape(request.base_url + request.path)}" property="og:url">
<meta name="csrf-token" content="{_token(app, session)}">"""
    page = _page(200, "Sign in", f"<p>{notice}The lab's GitLab has no web interface.</p>", head)
    return Response(page.status, page.body, HTML, {"Set-Cookie": _cookie(app, session)})


@ROUTES.add("POST", "/users/sign_in")
def log_in(app: Application, request: Request) -> Response:
    """Log in with the form's fields. Requests that a page of another origin may have sent are rejected.

    Rails compares the Origin header, if there is one, with scheme and host of the request. So a GitLab whose
    external_url is http rejects every login of a browser over TLS.
    """
    session = request.cookies.get(SESSION_COOKIE, "")
    origin = request.headers.get("origin", request.base_url)
    sent = {name: str(value) for name, value in request.fields.items()}
    token = sent.get("authenticity_token") or request.headers.get("x-csrf-token", "")
    matches = hmac.compare_digest(token.encode(), _token(app, session).encode())
    if origin != request.base_url or not session or not matches:
        return _page(422, "The change you requested was rejected (422)", "<h1>422</h1>")
    if users.user_with_password(app, sent.get("user[login]", ""), sent.get("user[password]", "")) is None:
        return sign_in(app, request, "Invalid login or password. ")
    return Response(302, headers={"Location": f"{request.base_url}/", "Set-Cookie": _cookie(app, session)})


def not_found() -> Response:
    return _page(404, "Not Found", "<h1>404: Page not found</h1>")


def _token(app: Application, session: str) -> str:
    return app.cipher.digest(f"csrf-token of {session}")


def _cookie(app: Application, session: str) -> str:
    protected = "; Secure; SameSite=None" if app.settings["gitlab"]["https"] else ""
    return f"{SESSION_COOKIE}={session}; path=/; HttpOnly{protected}"


def _page(status: int, title: str, body: str, head: str = "") -> Response:
    text = f"<!DOCTYPE html><html><head><title>{title} · GitLab</title>{head}</head><body>{body}</body></html>"
    return Response(status, text.encode(), HTML)
