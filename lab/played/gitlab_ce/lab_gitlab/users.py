"""Users and their personal access tokens.

Source: gitlab-org/gitlab app/models/user.rb, app/models/concerns/has_user_type.rb, lib/users/internal.rb.
"""

import datetime

from lab_gitlab import crypto, instance_settings, passwords
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record

PAT_PREFIX = "glpat-"
PAT_MAXIMUM_DAYS = 400
PAT_SCOPES = (
    *("api", "read_api", "read_user", "create_runner", "manage_runner", "k8s_proxy", "read_repository"),
    *("write_repository", "read_registry", "write_registry", "ai_features", "sudo", "admin_mode", "read_service_ping"),
)


class User(Model):
    """A user; the password is stored only as a hash.

    `user_type` is human, project_bot, or that of an internal user, such as ghost or admin_bot; the scope `active`
    leaves out internal users.
    """

    name = "User"
    table = "users"
    columns = {
        "username": Column(),
        "name": Column(),
        "email": Column(),
        "encrypted_password": Column(),
        "admin": Column("boolean", False),
        "state": Column("text", "active"),
        "user_type": Column("text", "human"),
        "password_expires_at": Column("time"),
        "created_at": Column("time"),
    }
    virtual = ("password", "password_confirmation")
    scopes = {
        "active": "state = 'active' AND user_type IN ('human', 'project_bot')",
        "admins": "admin = 1",
        "human": "user_type = 'human'",
    }

    def validate(self, app: Application, record: Record) -> Errors:
        errors: Errors = []
        for other in self.select(app, {"username": record["username"]}):
            if other["id"] != record["id"]:
                errors.append(("username", "has already been taken"))
        password = record.get("password")
        if password is None:
            return [*errors, ("password", "can't be blank")] if record["id"] is None else errors
        if record.get("password_confirmation") not in (None, password):
            errors.append(("password_confirmation", "doesn't match Password"))
        found = passwords.problems(password, name=record["name"], username=record["username"], email=record["email"])
        return errors + [("password", problem) for problem in found]

    def before_save(self, _app: Application, record: Record) -> None:
        if record.get("password") is not None:
            record["encrypted_password"] = crypto.hash_password(record["password"])
        for name in self.virtual:
            record.pop(name, None)


class PersonalAccessToken(Model):
    """A personal access token. Only its digest is stored; the token itself is available only when it is created."""

    name = "PersonalAccessToken"
    table = "personal_access_tokens"
    columns = {
        "user_id": Column("integer"),
        "name": Column(),
        "scopes": Column("list", []),
        "expires_at": Column("date"),
        "revoked": Column("boolean", False),
        "token_digest": Column(),
        "created_at": Column("time"),
    }
    virtual = ("token",)
    scopes = {"active": "revoked = 0 AND (expires_at IS NULL OR expires_at > date('now'))"}

    def validate(self, app: Application, record: Record) -> Errors:
        errors: Errors = [(name, "can't be blank") for name in ("name", "scopes") if not record[name]]
        if any(scope not in PAT_SCOPES for scope in record["scopes"]):
            errors.append(("scopes", "can only contain available scopes"))
        if record["id"] is None and instance_settings.current(app)["require_personal_access_token_expiry"]:
            last = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=PAT_MAXIMUM_DAYS)
            if not record["expires_at"]:
                errors.append(("expires_at", "can't be blank"))
            elif record["expires_at"] > last.isoformat():
                errors.append(("expires_at", f"must be before {last}"))
        return errors

    def before_save(self, app: Application, record: Record) -> None:
        if record.get("token") is None and not record["token_digest"]:
            record["token"] = PAT_PREFIX + crypto.friendly_token()
        if record.get("token") is not None:
            record["token_digest"] = app.cipher.digest(record["token"])


USER = User()
PERSONAL_ACCESS_TOKEN = PersonalAccessToken()


def seed_administrator(app: Application, *, password: str, email: str) -> Record:
    """Create the administrator `root`. Raises RecordInvalidError if the password is too weak."""
    return USER.create(app, username="root", name="Administrator", email=email, admin=True, password=password)


def user_with_password(app: Application, login: str, password: str) -> Record | None:
    """Return the active user with this login and password."""
    user = USER.find(app, username=login)
    if user is None or user["state"] != "active" or not password:
        return None
    return user if crypto.password_matches(password, user["encrypted_password"]) else None


def password_expired(user: Record) -> bool:
    """Whether the user must set a new password before doing anything else; never true for a bot (user.rb)."""
    expires_at = user["password_expires_at"]
    if expires_at is None or user["user_type"] != "human":
        return False
    return datetime.datetime.fromisoformat(expires_at) <= datetime.datetime.now(datetime.UTC)


def access_token(app: Application, token: str) -> tuple[Record, Record] | None:
    """Return the token's record and its user, if the token is neither revoked nor expired and the user is active."""
    found = PERSONAL_ACCESS_TOKEN.select(app, {"token_digest": app.cipher.digest(token)}, scopes=["active"], limit=1)
    if not found:
        return None
    user = USER.find(app, id=found[0]["user_id"])
    if user is None or user["state"] != "active":
        return None
    return found[0], user
