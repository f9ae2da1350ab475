"""What jobs leave and take over: archives and reports (commands/helpers/artifacts_*.go).

The real helper does this inside its container; here the runner does, with what it copies out and in.
"""

import fnmatch
import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from lab_gitlab_runner import coordinator, log
from lab_gitlab_runner.coordinator import Runner
from lab_gitlab_runner.docker_executor import BuildError, Docker
from lab_gitlab_runner.trace import GREEN, Trace
from lab_gitlab_runner.version import architecture, revision, version

Files = Mapping[str, tuple[tarfile.TarInfo, bytes]]


def upload(
    docker: Docker,
    runner: Runner,
    job: Mapping[str, Any],
    artifact: Mapping[str, Any],
    *,
    directory: str,
    trace: Trace,
) -> None:
    """Raises BuildError when GitLab does not take it; nothing to upload is no failure."""
    trace.line("Uploading artifacts...", GREEN)
    _begin(trace)
    files = _matching(
        _files(docker, directory), artifact.get("paths") or (), artifact.get("exclude") or (), directory, trace
    )
    if not any(about.isfile() for about, _ in files.values()):
        _say(trace, "error", "No files to upload")
        return
    kind, form = artifact.get("artifact_type") or "archive", artifact.get("artifact_format") or "zip"
    content = _zip(files) if form == "zip" else gzip.compress(b"".join(data for _, data in files.values()))
    name = artifact.get("name") or ("artifacts" if form == "zip" else "artifact")
    filename = f"{name}.zip" if form == "zip" else f"{name}.gz"
    query = {"artifact_type": kind, "artifact_format": form}
    if artifact.get("expire_in"):
        query["expire_in"] = artifact["expire_in"]
    answer = coordinator.upload_artifact(runner, job, filename, content, query)
    what = f'Uploading artifacts as "{kind}" to coordinator...'
    fields = {"id": job["id"], "responseStatus": answer.text, "token": coordinator.short(job["token"])}
    if answer.status == 201:
        _say(trace, "info", f"{what} 201 Created", **fields)
        return
    trouble = {413: "too large archive", 403: "forbidden"}.get(answer.status or 0, "error")
    _say(trace, "error", f"{what} {trouble}", **fields)
    raise BuildError("exit code 1", exit_code=1)


def download(docker: Docker, runner: Runner, dependency: Mapping[str, Any], directory: str, trace: Trace) -> None:
    """Raises BuildError when it cannot be had."""
    trace.line(f"Downloading artifacts for {dependency['name']} ({dependency['id']})...", GREEN)
    _begin(trace)
    answer = coordinator.download_artifact(runner, dependency)
    fields = {"host": urlsplit(runner["url"]).netloc, "id": dependency["id"], "responseStatus": answer.text}
    fields["token"] = coordinator.short(dependency["token"])
    what = "Downloading artifacts from coordinator..."
    if answer.status != 200:
        trouble = {403: "forbidden", 404: "not found"}.get(answer.status or 0, "error")
        _say(trace, "error", f"{what} {trouble}", **fields)
        raise BuildError("exit code 1", exit_code=1)
    _say(trace, "info", f"{what} ok", **fields)
    docker.copy_in(_tar(answer.content), directory)


def _begin(trace: Trace) -> None:
    """The helper is a program of its own, and says so."""
    fields = {"arch": architecture(), "os": "linux", "pid": os.getpid(), "revision": revision(), "version": version()}
    _say(trace, "info", "Runtime platform", **fields)


def _say(trace: Trace, level: str, message: str, **fields: object) -> None:
    trace.write(log.formatted(level, message, **fields) + "\n")


def _files(docker: Docker, directory: str) -> Files:
    """Files and folders of the project's folder by their paths within it, without git's own."""
    packed = docker.copy_out(f"{directory}/.")
    found = {}
    if packed:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive:
                path = str(PurePosixPath(member.name))
                if path == "." or path.split("/", 1)[0] == ".git":
                    continue
                content = archive.extractfile(member) if member.isfile() else None
                if content or member.isdir():
                    found[path] = (member, content.read() if content else b"")
    return found


def _matching(files: Files, patterns: Sequence[str], excluded: Sequence[str], directory: str, trace: Trace) -> Files:
    chosen: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    for pattern in patterns:
        clean = pattern.removeprefix("./").rstrip("/")
        found = {path: file for path, file in files.items() if _matches(path, clean)}
        if found:
            _say(trace, "info", f"{pattern}: found {len(found)} matching artifact files and directories")
        else:
            words = (
                f"no matching files. Ensure that the artifact path is relative to the working directory ({directory})"
            )
            _say(trace, "warning", f"{pattern}: {words}")
        chosen |= found
    return {path: file for path, file in chosen.items() if not any(_matches(path, pattern) for pattern in excluded)}


def _matches(path: str, pattern: str) -> bool:
    """A file by its path or a pattern of it, or what lies in a folder of that name."""
    return fnmatch.fnmatchcase(path, pattern) or path.startswith(f"{pattern}/")


def _zip(files: Files) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, (about, content) in sorted(files.items()):
            entry = zipfile.ZipInfo(f"{path}/" if about.isdir() else path)
            entry.external_attr = ((0o040000 if about.isdir() else 0o100000) | about.mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return packed.getvalue()


def _tar(zipped: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(zipped)) as source, tarfile.open(fileobj=packed, mode="w") as target:
        for entry in source.infolist():
            about = tarfile.TarInfo(entry.filename)
            content = source.read(entry)
            about.size = len(content)
            about.type = tarfile.DIRTYPE if entry.is_dir() else tarfile.REGTYPE
            # As root without a mask: a job may run as any user.
            about.mode = (entry.external_attr >> 16) & 0o777 or 0o666
            target.addfile(about, io.BytesIO(content))
    return packed.getvalue()
