"""Stand-in for a few tasks of `gitlab-rake`; their output is shortened."""

import json
import os
import re
import sys
import tarfile
import time
from collections.abc import Callable
from io import BytesIO

from lab_gitlab import application, integrity, paths, schema, users
from lab_gitlab.application import Application
from lab_gitlab.records import RecordInvalidError, full_messages, now
from lab_gitlab.version import version


def password_reset(app: Application, username: str | None) -> int:
    """gitlab:password:reset[NAME]: reads the new password twice from standard input."""
    user = users.USER.find(app, username=username or input("Enter username: "))
    if user is None:
        print("Unable to find user with username.", file=sys.stderr)
        return 1
    password, again = (sys.stdin.readline().rstrip("\n") for _ in range(2))
    try:
        users.USER.update(app, user, password=password, password_confirmation=again)
    except RecordInvalidError as error:
        print("Unable to change password of the user with username.", *full_messages(error.errors), sep="\n")
        return 1
    print(f"Password successfully updated for user with username {user['username']}.")
    return 0


def backup(app: Application, _: str | None) -> int:
    """gitlab:backup:create: archives the database in a format of the lab, which nothing restores.

    If the registry is enabled and SKIP does not name it, its folder must exist and git must be able to read it, or the
    task fails (lib/backup/targets/files.rb). Deletes archives older than backup_keep_time (lib/backup/manager.rb).
    """
    folder = paths.at(app.registry["path"])
    if app.registry["enabled"] and "registry" not in os.environ.get("SKIP", "").split(","):
        if not folder.exists():
            print(f"rake aborted!\nErrno::ENOENT: No such file or directory @ realpath_rec - {folder}", file=sys.stderr)
            return 1
        if not os.access(folder, os.R_OK | os.X_OK):
            print(
                f"rake aborted!\nBackup::FileBackupError: Failed to create compressed file 'registry.tar.gz' when "
                f"trying to backup the following paths: '{folder}'",
                file=sys.stderr,
            )
            return 1
    content = {model.table: model.select(app) for model in schema.MODELS.values()}
    archive = paths.BACKUPS / f"{time.strftime('%s_%Y_%m_%d')}_{version()}_gitlab_backup.tar"
    archive.touch(mode=0o600)
    with tarfile.open(archive, "w") as tar:
        raw = json.dumps(content).encode()
        member = tarfile.TarInfo("db/database.json")
        member.size, member.mtime = len(raw), int(time.time())
        tar.addfile(member, BytesIO(raw))
    print(f"{now()} -- Backup {archive.name} is done.")
    _delete_old_backups(app.settings["backup"]["keep_time"])
    return 0


def _delete_old_backups(keep_time: int) -> None:
    """Delete archives older than `keep_time` seconds; 0 keeps all."""
    if not keep_time:
        print(f"{now()} -- Deleting old backups ... [SKIPPED]")
        return
    removed = 0
    for archive in paths.BACKUPS.glob("*_gitlab_backup.tar"):
        made = re.match(r"(\d{10})_\d{4}_\d{2}_\d{2}_", archive.name)
        if made and int(made[1]) < time.time() - keep_time:
            archive.unlink()
            removed += 1
    print(f"{now()} -- Deleting old backups ... done. ({removed} removed)")


TASKS: dict[str, Callable[[Application, str | None], int]] = {
    "gitlab:backup:create": backup,
    "gitlab:password:reset": password_reset,
}


def main(arguments: list[str]) -> int:
    """Run tasks with NAME=value settings, as rake does."""
    settings = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    os.environ.update(settings)
    for task in (argument for argument in arguments if "=" not in argument):
        match = re.fullmatch(r"([\w:]+)(?:\[(.*)\])?", task)
        if match and match[1] in integrity.TASKS:
            integrity.TASKS[match[1]](application.load())
            continue
        if match is None or match[1] not in TASKS:
            print(f"rake aborted!\nDon't know how to build task '{task}'", file=sys.stderr)
            print(f"The lab supports: {', '.join([*TASKS, *integrity.TASKS])}", file=sys.stderr)
            return 1
        code = TASKS[match[1]](application.load(), match[2])
        if code:
            return code
    return 0
