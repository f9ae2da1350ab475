"""Code shared by all API modules: authentication, project lookup, pagination and errors.

Source: gitlab-org/gitlab lib/api/helpers.rb, lib/api/api_guard.rb, lib/gitlab/pagination/offset_pagination.rb.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from lab_gitlab import authentication, projects, users
from lab_gitlab.application import Application
from lab_gitlab.authentication import AccessDeniedError, Caller
from lab_gitlab.http_server import Request, Response, json_response
from lab_gitlab.records import Errors, Record, RecordInvalidError, UnknownAttributeError

PER_PAGE, PER_PAGE_MAXIMUM = 20, 100

Handler = Callable[..., Response]


class RefusedError(Exception):
    """The request is rejected; `response` is sent to the client."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(response.body.decode(errors="replace"))


def message(status: int, text: Any) -> Response:
    return json_response(status, {"message": text})


FORBIDDEN = message(403, "403 Forbidden")
PASSWORD_EXPIRED = message(
    403, "403 Forbidden - Your password expired. Please access GitLab from a web browser to update your password."
)
UNAUTHORIZED = message(401, "401 Unauthorized")


def not_found(what: str = "") -> RefusedError:
    return RefusedError(message(404, f"404 {what} Not Found" if what else "404 Not Found"))


def forbidden(reason: str = "") -> RefusedError:
    return RefusedError(message(403, f"403 Forbidden - {reason}" if reason else "403 Forbidden"))


def bad_request(text: Any) -> RefusedError:
    return RefusedError(message(400, text))


def invalid(text: str) -> RefusedError:
    """Return Grape's error for a missing or invalid parameter."""
    return RefusedError(json_response(400, {"error": text}))


def by_attribute(errors: Errors) -> dict[str, list[str]]:
    """Return the messages of an invalid record as `render_validation_error!` sends them."""
    found: dict[str, list[str]] = {}
    for attribute, text in errors:
        found.setdefault(attribute, []).append(text)
    return found


def answers(handler: Handler) -> Handler:
    """Convert exceptions of a handler to responses."""

    @wraps(handler)
    def answered(app: Application, request: Request, **path: str) -> Response:
        try:
            return handler(app, request, **path)
        except RefusedError as error:
            return error.response
        except RecordInvalidError as error:
            return message(400, by_attribute(error.errors))
        except UnknownAttributeError as error:
            return json_response(400, {"error": str(error)})

    return answered


def for_user(*scopes: str) -> Callable[[Handler], Handler]:
    """Require a token with one of these scopes and pass the caller to the handler.

    The scope `api` is always sufficient, `read_api` for GET and HEAD.
    """

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        def checked(app: Application, request: Request, **path: str) -> Response:
            try:
                caller = authentication.api_caller(app, request)
            except AccessDeniedError:
                return UNAUTHORIZED
            if caller is None:
                return UNAUTHORIZED
            if users.password_expired(caller.user):
                return PASSWORD_EXPIRED
            reading = ("read_api",) if request.method in ("GET", "HEAD") else ()
            needed = ("api", *reading, *scopes)
            if not set(needed) & set(caller.scopes):
                return _insufficient(needed)
            return handler(app, request, caller, **path)

        return answers(checked)

    return decorate


def _insufficient(scopes: Sequence[str]) -> Response:
    return json_response(
        403,
        {
            "error": "insufficient_scope",
            "error_description": "The request requires higher privileges than provided by the access token.",
            "scope": " ".join(dict.fromkeys(scopes)),
        },
    )


def project_of(app: Application, caller: Caller, name: str) -> Record:
    """Return the project with this id or path, if the caller may see it. Raises RefusedError."""
    found = (
        projects.PROJECT.select(app, {"id": int(name)})
        if name.isdecimal()
        else projects.at_full_path(app, projects.PROJECT, name)
    )
    if not found or not projects.may_read(app, found[0], caller.user):
        raise not_found("Project")
    return found[0]


def require(allowed: bool) -> None:
    """Raises RefusedError if the caller is not allowed to do this."""
    if not allowed:
        raise forbidden()


def number(text: str, name: str) -> int:
    """Return a number. Raises RefusedError if the text is not one."""
    if not text.isdecimal():
        raise invalid(f"{name} is invalid")
    return int(text)


def needed(fields: Mapping[str, Any], *names: str) -> list[Any]:
    """Return the values of required fields. Raises RefusedError, which lists all missing and empty ones."""
    missing = [f"{name} is missing" for name in names if name not in fields]
    empty = [f"{name} is empty" for name in names if name in fields and fields[name] in ("", None, [])]
    if missing or empty:
        raise invalid(", ".join([*missing, *empty]))
    return [fields[name] for name in names]


def boolean(value: Any) -> bool:
    return str(value).lower() in ("1", "true", "yes", "on", "t")


def page(request: Request, entries: Sequence[Any], present: Callable[[Any], Any]) -> Response:
    """Return one page of a list, with a Link header (RFC 8288) to the next page at the address that the client used."""
    asked = number(request.parameter("per_page") or str(PER_PAGE), "per_page")
    size = min(max(asked, 1), PER_PAGE_MAXIMUM)
    current = max(number(request.parameter("page") or "1", "page"), 1)
    headers = {}
    if len(entries) > current * size:
        kept = [(name, value) for name, values in request.query.items() for value in values if name != "page"]
        scheme, host = request.headers.get("x-forwarded-proto", "http"), request.headers.get("host", "")
        query = urlencode([*kept, ("page", current + 1)])
        headers["Link"] = f'<{scheme}://{host}{request.path}?{query}>; rel="next"'
    shown = entries[(current - 1) * size : current * size]
    return json_response(200, [present(entry) for entry in shown], **headers)
