"""What GitLab sends to other servers: webhooks, push mirrors and mail. Sidekiq sends it, unless Silent Mode is on.

Source: gitlab-org/gitlab app/services/web_hook_service.rb, app/services/projects/update_remote_mirror_service.rb,
lib/gitlab/email/hook/silent_mode_interceptor.rb, doc/administration/silent_mode. In Silent Mode nothing is queued or
sent, and what was queued before is dropped.
"""

import ipaddress
import json
import smtplib
import socket
import ssl
import urllib.request
import uuid
from email.message import EmailMessage
from typing import Any
from urllib.parse import urlsplit

from lab_gitlab import background_jobs, instance_settings, repositories
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Errors, Model, Record
from lab_gitlab.version import version

TIMEOUT = 10  # seconds


class BlockedUrlError(Exception):
    """Gitlab::HTTP::BlockedUrlError."""


class ProjectHook(Model):
    """A webhook of a project."""

    name = "ProjectHook"
    table = "web_hooks"
    columns = {
        "project_id": Column("integer"),
        "url": Column(),
        "token_encrypted": Column(),
        "push_events": Column("boolean", True),
        "enable_ssl_verification": Column("boolean", True),
        "created_at": Column("time"),
    }
    virtual = ("token",)

    def validate(self, _app: Application, record: Record) -> Errors:
        return [] if urlsplit(record["url"] or "").scheme in ("http", "https") else [("url", "is blocked")]

    def before_save(self, app: Application, record: Record) -> None:
        if token := record.pop("token", None):
            record["token_encrypted"] = app.cipher.encrypt(token)


class RemoteMirror(Model):
    """A repository to which a project's branches and tags are pushed. The URL, which may contain a password, is
    encrypted."""

    name = "RemoteMirror"
    table = "remote_mirrors"
    columns = {"project_id": Column("integer"), "enabled": Column("boolean", True), "token_encrypted": Column()}
    virtual = ("url",)

    def before_save(self, app: Application, record: Record) -> None:
        if url := record.pop("url", None):
            record["token_encrypted"] = app.cipher.encrypt(url)


PROJECT_HOOK = ProjectHook()
REMOTE_MIRROR = RemoteMirror()


def silent(app: Application) -> bool:
    return bool(instance_settings.current(app)["silent_mode_enabled"])


# Queued by the application


def queue_push(app: Application, project: Record, data: dict[str, Any]) -> None:
    """Queue the webhooks of a push to a branch. Raises OSError."""
    if not silent(app):
        for hook in PROJECT_HOOK.select(app, {"project_id": project["id"], "push_events": True}):
            background_jobs.enqueue("WebHookWorker", hook_id=hook["id"], data=data)


def queue_mirrors(app: Application, project: Record) -> None:
    """Raises OSError."""
    for mirror in REMOTE_MIRROR.select(app, {"project_id": project["id"], "enabled": True}):
        background_jobs.enqueue("RepositoryUpdateRemoteMirrorWorker", mirror_id=mirror["id"])


def queue_mail(app: Application, recipient: str, subject: str, text: str) -> None:
    """Queue a mail if a mail server is configured. Raises OSError."""
    if app.settings["smtp"]["enabled"]:
        background_jobs.enqueue("ActionMailer::MailDeliveryJob", recipient=recipient, subject=subject, text=text)


# Executed by Sidekiq


def deliver_hook(app: Application, hook_id: int, data: dict[str, Any]) -> None:
    """Raises OSError, BlockedUrlError."""
    hook = PROJECT_HOOK.find(app, id=hook_id)
    if hook is None or silent(app):
        return
    if not instance_settings.current(app)["allow_local_requests_from_web_hooks_and_services"]:
        _require_public(urlsplit(hook["url"]).hostname or "")
    headers = {"Content-Type": "application/json", "User-Agent": f"GitLab/{version()}", "X-Gitlab-Event": "Push Hook"}
    headers |= {"X-Gitlab-Instance": app.settings["gitlab"]["url"], "X-Gitlab-Event-UUID": str(uuid.uuid4())}
    if token := PROJECT_HOOK.token(app, hook):
        headers["X-Gitlab-Token"] = token
    context = ssl.create_default_context()
    if not hook["enable_ssl_verification"]:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(hook["url"], json.dumps(data).encode(), headers)
    urllib.request.urlopen(request, timeout=TIMEOUT, context=context).close()


def _require_public(host: str) -> None:
    """Raises BlockedUrlError for addresses of the local network, OSError for names without an address."""
    for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
        found = ipaddress.ip_address(address[0])
        # Documentation ranges, which are the lab's internet, are private only for Python.
        if found.is_loopback or found.is_link_local or found in ipaddress.ip_network("10.0.0.0/8"):
            raise BlockedUrlError("URL is blocked: Requests to the local network are not allowed")


def update_mirror(app: Application, mirror_id: int) -> None:
    """Raises RepositoryError."""
    mirror = REMOTE_MIRROR.find(app, id=mirror_id)
    if mirror is None or silent(app):
        return
    refspecs = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
    place = repositories.folder({"id": mirror["project_id"]})
    repositories.run("push", "--quiet", REMOTE_MIRROR.token(app, mirror) or "", *refspecs, repository=place)


def deliver_mail(app: Application, recipient: str, subject: str, text: str) -> None:
    """Raises OSError."""
    if silent(app):
        return
    smtp, mail = app.settings["smtp"], EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = smtp["from"], recipient, subject
    mail.set_content(text)
    kind = smtplib.SMTP_SSL if smtp["tls"] else smtplib.SMTP
    with kind(smtp["address"], smtp["port"], timeout=TIMEOUT) as connection:
        connection.ehlo()
        if smtp["starttls"] and connection.has_extn("starttls"):
            connection.starttls(context=ssl.create_default_context())
        if smtp["user_name"]:
            connection.login(smtp["user_name"], smtp["password"])
        connection.send_message(mail)
