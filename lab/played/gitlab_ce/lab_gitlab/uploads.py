"""Files that users attach to issues and comments.

Source: gitlab-org/gitlab lib/api/project_uploads.rb, app/uploaders/file_uploader.rb, app/models/upload.rb.
"""

import hashlib
import secrets
from pathlib import Path, PurePosixPath
from typing import Any

from lab_gitlab import paths
from lab_gitlab.application import Application
from lab_gitlab.records import Column, Model, Record


class Upload(Model):
    """An uploaded file; `path` is below the folder of uploads, `checksum` is SHA-256."""

    name = "Upload"
    table = "uploads"
    columns = {
        "model_type": Column("text", "Project"),
        "model_id": Column("integer"),
        "path": Column(),
        "size": Column("integer"),
        "checksum": Column(),
        "secret": Column(),
        "uploader": Column("text", "FileUploader"),
        "store": Column("integer", 1),
        "created_at": Column("time"),
    }

    def before_destroy(self, _app: Application, record: Record) -> None:
        file(record).unlink(missing_ok=True)


UPLOAD = Upload()


def file(upload: Record) -> Path:
    return paths.UPLOADS / str(upload["path"])


def keep(app: Application, project: Record, name: str, content: bytes) -> dict[str, Any]:
    """Store a file and return it as the API shows it: first the file, then its record, as in the real GitLab."""
    secret, base = secrets.token_hex(16), PurePosixPath(name).name
    digest = hashlib.sha256(str(project["id"]).encode()).hexdigest()
    about = {
        "model_id": project["id"],
        "path": f"@hashed/{digest[:2]}/{digest[2:4]}/{digest}/{secret}/{base}",
        "size": len(content),
        "checksum": hashlib.sha256(content).hexdigest(),
        "secret": secret,
    }
    place = paths.UPLOADS / about["path"]
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    made = UPLOAD.create(app, **about)
    url = f"/uploads/{secret}/{base}"
    return {"id": made["id"], "alt": base, "url": url, "full_path": f"/-/project/{project['id']}{url}"}
