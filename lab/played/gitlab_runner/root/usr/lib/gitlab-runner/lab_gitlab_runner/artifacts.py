"""What jobs leave and take over: archives and reports (commands/helpers/artifacts_*.go).

The real helper does this inside its container; here the runner does, with what it copies out and in.
"""

import fnmatch
import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from lab_gitlab_runner import coordinator
from lab_gitlab_runner.coordinator import Runner
from lab_gitlab_runner.docker_executor import BuildError, Docker
from lab_gitlab_runner.trace import GREEN, Trace

Files = Mapping[str, tuple[tarfile.TarInfo, bytes]]


def upload(
    docker: Docker, runner: Runner, job: Mapping[str, Any], artifact: Mapping[str, Any], directory: str, trace: Trace
) -> None:
    """Raises BuildError when GitLab does not take it; nothing to upload is no failure."""
    trace.line("Uploading artifacts...", GREEN)
    files = _matching(_files(docker, directory), artifact.get("paths") or (), artifact.get("exclude") or (), trace)
    if not files:
        trace.error("No files to upload")
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
    about = f"id={job['id']} responseStatus={answer.text} token={coordinator.short(job['token'])}"
    if answer.status == 201:
        trace.line(f"{what} 201 Created  {about}")
        return
    trouble = {413: "too large archive", 403: "forbidden"}.get(answer.status or 0, "error")
    trace.error(f"{what} {trouble}  {about}")
    raise BuildError("exit code 1", exit_code=1)


def download(docker: Docker, runner: Runner, dependency: Mapping[str, Any], directory: str, trace: Trace) -> None:
    """Raises BuildError when it cannot be had."""
    trace.line(f"Downloading artifacts for {dependency['name']} ({dependency['id']})...", GREEN)
    answer = coordinator.download_artifact(runner, dependency)
    about = f"id={dependency['id']} responseStatus={answer.text} token={coordinator.short(dependency['token'])}"
    if answer.status != 200:
        trouble = {403: "forbidden", 404: "not found"}.get(answer.status or 0, "error")
        trace.error(f"Downloading artifacts from coordinator... {trouble}  {about}")
        raise BuildError("exit code 1", exit_code=1)
    trace.line(f"Downloading artifacts from coordinator... ok  {about}")
    docker.copy_in(_tar(answer.content), directory)


def _files(docker: Docker, directory: str) -> Files:
    """Files of the project's folder by their paths within it, without git's own."""
    packed = docker.copy_out(f"{directory}/.")
    found = {}
    if packed:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive:
                path = str(PurePosixPath(member.name))
                if member.isfile() and not path.startswith(".git/") and (content := archive.extractfile(member)):
                    found[path] = (member, content.read())
    return found


def _matching(files: Files, patterns: Sequence[str], excluded: Sequence[str], trace: Trace) -> Files:
    chosen: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    for pattern in patterns:
        clean = pattern.removeprefix("./").rstrip("/")
        found = {path: file for path, file in files.items() if _matches(path, clean)}
        if found:
            trace.line(f"{pattern}: found {len(found)} matching artifact files and directories")
        else:
            trace.warning(
                f"{pattern}: no matching files. Ensure that the artifact path is relative to the working directory"
            )
        chosen |= found
    return {path: file for path, file in chosen.items() if not any(_matches(path, pattern) for pattern in excluded)}


def _matches(path: str, pattern: str) -> bool:
    """A file by its path or a pattern of it, or what lies in a folder of that name."""
    return fnmatch.fnmatchcase(path, pattern) or path.startswith(f"{pattern}/")


def _zip(files: Files) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, (about, content) in sorted(files.items()):
            entry = zipfile.ZipInfo(path)
            entry.external_attr = (0o100000 | about.mode) << 16
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
            # As root without a mask: a job may run as any user.
            about.mode = (entry.external_attr >> 16) & 0o777 or 0o666
            target.addfile(about, io.BytesIO(content))
    return packed.getvalue()
