"""The caller's own token. Source: gitlab-org/gitlab lib/api/personal_access_tokens/self_information.rb."""

from lab_gitlab import users
from lab_gitlab.api.common import for_user
from lab_gitlab.application import Application
from lab_gitlab.authentication import Caller
from lab_gitlab.http_server import Request, Response, Routes

ROUTES = Routes()


@ROUTES.add("DELETE", "/api/v4/personal_access_tokens/self")
@for_user(*users.PAT_SCOPES)
def revoke_own_token(app: Application, _request: Request, caller: Caller) -> Response:
    users.PERSONAL_ACCESS_TOKEN.update(app, caller.token, revoked=True)
    return Response(204)
