"""Users and their personal access tokens."""

import datetime
from typing import Any

from lab_gitlab import crypto, instance_settings, passwords
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record, now, shown, today

PAT_PREFIX = "glpat-"
PAT_MAXIMUM_DAYS = 400
PAT_SCOPES = (
    *("api", "read_api", "read_user", "create_runner", "manage_runner", "k8s_proxy", "read_repository"),
    *("write_repository", "read_registry", "write_registry", "ai_features", "sudo", "admin_mode", "read_service_ping"),
)


class User(Model):
    """People; a password is stored as a hash only."""

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
        "otp_required_for_login": Column("boolean", False),
        "password_expires_at": Column("time"),
        "created_at": Column("time"),
    }
    virtual = ("password", "password_confirmation")
    scopes = {
        "active": "state = 'active'",
        "admins": "admin = 1",
        "blocked": "state = 'blocked'",
        "human": "user_type = 'human'",
        "with_two_factor": "otp_required_for_login = 1",
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
    """Only a digest is kept: the token itself is known where it is set."""

    name = "PersonalAccessToken"
    table = "personal_access_tokens"
    columns = {
        "user_id": Column("integer"),
        "name": Column(),
        "scopes": Column("list", []),
        "expires_at": Column("date"),
        "revoked": Column("boolean", False),
        "description": Column(),
        "token_digest": Column(),
        "last_used_at": Column("time"),
        "created_at": Column("time"),
    }
    virtual = ("token",)
    scopes = {
        "active": "revoked = 0 AND (expires_at IS NULL OR expires_at > date('now'))",
        "revoked": "revoked = 1",
    }

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
    """Raises RecordInvalidError when the password is not good enough."""
    return USER.create(app, username="root", name="Administrator", email=email, admin=True, password=password)


def user_with_password(app: Application, login: str, password: str) -> Record | None:
    """An active user by name or address, whatever the second factor."""
    user = USER.find(app, username=login) or USER.find(app, email=login)
    if user is None or user["state"] != "active" or not password:
        return None
    return user if crypto.password_matches(password, user["encrypted_password"]) else None


def password_expired(user: Record) -> bool:
    """Such a user gets nothing but the page that asks for a new password; a bot has none to expire (user.rb)."""
    expires_at = user["password_expires_at"]
    if expires_at is None or user["user_type"] != "human":
        return False
    return datetime.datetime.fromisoformat(expires_at.replace(" UTC", "Z")) <= datetime.datetime.now(datetime.UTC)


def access_token(app: Application, token: str) -> tuple[Record, Record] | None:
    """A token that is neither revoked nor over, and its user if that one is active."""
    found = PERSONAL_ACCESS_TOKEN.select(app, {"token_digest": app.cipher.digest(token)}, scopes=["active"], limit=1)
    if not found:
        return None
    user = USER.find(app, id=found[0]["user_id"])
    if user is None or user["state"] != "active":
        return None
    PERSONAL_ACCESS_TOKEN.update(app, found[0], last_used_at=now())
    return found[0], user


def why_not(app: Application, token: str) -> str | None:
    """What the API says of a token that was good once; None for one that never was."""
    found = PERSONAL_ACCESS_TOKEN.find(app, token_digest=app.cipher.digest(token))
    if found is None:
        return None
    if found["revoked"]:
        return "Token was revoked. You have to re-authorize from the user."
    return "Token is expired. You can either do re-authorization or token refresh."


def present(user: Record) -> dict[str, Any]:
    """As the API shows a user to an administrator."""
    return {
        "id": user["id"],
        "username": user["username"],
        "name": user["name"],
        "state": user["state"],
        "email": user["email"],
        "is_admin": user["admin"],
        "two_factor_enabled": user["otp_required_for_login"],
        "bot": user["user_type"] != "human",
        "created_at": shown(user["created_at"]),
    }


def present_basic(app: Application, user: Record) -> dict[str, Any]:
    """As the API shows a user beside something of theirs."""
    return {
        "id": user["id"],
        "username": user["username"],
        "name": user["name"],
        "state": user["state"],
        "locked": False,
        "avatar_url": None,
        "web_url": f"{app.settings['gitlab']['url']}/{user['username']}",
    }


def present_token(token: Record) -> dict[str, Any]:
    """As the API shows a personal access token: never with the token itself."""
    over = token["expires_at"] is not None and token["expires_at"] <= today()
    return {
        "id": token["id"],
        "name": token["name"],
        "revoked": token["revoked"],
        "created_at": shown(token["created_at"]),
        "description": token["description"],
        "scopes": token["scopes"],
        "user_id": token["user_id"],
        "last_used_at": shown(token["last_used_at"]),
        "active": not token["revoked"] and not over,
        "expires_at": token["expires_at"],
    }
