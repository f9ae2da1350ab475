"""The few pages of the web interface that somebody without a session sees."""

from lab_gitlab import instance_settings
from lab_gitlab.application import Application
from lab_gitlab.http_server import Request, Response, Routes

ROUTES = Routes()
HTML = "text/html; charset=utf-8"


@ROUTES.add("GET", "/")
def root(app: Application, _request: Request) -> Response:
    return _to_sign_in(app)


@ROUTES.add("GET", "/users/sign_in")
def sign_in(app: Application, _request: Request) -> Response:
    """Offers registration only while it is open."""
    register = ""
    if instance_settings.current(app)["signup_enabled"]:
        register = '<p>Don\'t have an account yet? <a href="/users/sign_up">Register now</a></p>'
    return _page(
        200,
        "Sign in",
        '<form action="/users/sign_in" method="post">Username or primary email '
        '<input name="user[login]"> Password <input name="user[password]" type="password"> '
        f"<button>Sign in</button></form>{register}",
    )


@ROUTES.add("GET", "/users/sign_up")
def sign_up(app: Application, _request: Request) -> Response:
    if not instance_settings.current(app)["signup_enabled"]:
        return _to_sign_in(app)
    return _page(200, "Sign up", "<form>Register</form>")


@ROUTES.add("GET", "/help")
def help_page(_app: Application, _request: Request) -> Response:
    return _page(200, "Help", "<h1>GitLab Community Edition</h1>")


def not_found() -> Response:
    return _page(404, "Not Found", "<h1>404: Page not found</h1>")


def _to_sign_in(app: Application) -> Response:
    return Response(302, headers={"Location": f"{app.settings['gitlab']['url']}/users/sign_in"})


def _page(status: int, title: str, body: str) -> Response:
    text = f"<!DOCTYPE html><html><head><title>{title} · GitLab</title></head><body>{body}</body></html>"
    return Response(status, text.encode(), HTML)
