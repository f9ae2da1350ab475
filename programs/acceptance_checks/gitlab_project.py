"""The acceptance's project and its pipelines, over GitLab's API."""

import json
import re
import urllib.parse
from typing import Any, Dict, Tuple

from . import clients
from .outcomes import FailedCheckError, Measured, printable

KEEP_PIPELINES = 3  # and the same number of images
BRANCH = "main"


class Project:
    """The acceptance's project. Every method raises FailedCheckError if GitLab does not respond as expected."""

    def __init__(self, path: str, token: str) -> None:
        self.path = f"/api/v4/projects/{urllib.parse.quote(path, safe='')}"
        self.token = token

    def call(self, method: str, path: str, body: object = None, allowed: Tuple[int, ...] = (200, 201, 202, 204)) -> Any:  # noqa: ANN401, JSON of any shape
        """Call the API. Returns the body, decoded if it is JSON. Raises FailedCheckError for a status not `allowed`."""
        headers = {"PRIVATE-TOKEN": self.token, "Content-Type": "application/json"}
        request = None if body is None else json.dumps(body)
        status, answered, content = clients.ask_gitlab(method, path, headers, request)
        text = content.decode(errors="replace")
        if status not in allowed:
            raise FailedCheckError(f"GitLab returned {status} for {method} {path}: {text[:200]}.")
        return json.loads(text) if text and "json" in (answered.get("Content-Type") or "") else text

    def get(self, path: str) -> Any:  # noqa: ANN401, JSON of any shape
        """GET a path below the project's."""
        return self.call("GET", self.path + path)

    def commit_files(self, files: Dict[str, str]) -> None:
        """Commit the files (content by path) that differ from the project's."""
        actions = []
        for name, content in sorted(files.items()):
            path = f"{self.path}/repository/files/{urllib.parse.quote(name, safe='')}/raw?ref={BRANCH}"
            status, _, committed = clients.ask_gitlab("GET", path, {"PRIVATE-TOKEN": self.token})
            if status == 200 and committed.decode(errors="replace") == content:
                continue
            actions.append({"action": "update" if status == 200 else "create", "file_path": name, "content": content})
        if actions:
            message = "Update the acceptance files from the stack's Pulumi program"
            commit = {"branch": BRANCH, "commit_message": message, "actions": actions}
            self.call("POST", f"{self.path}/repository/commits", commit)

    def delete_old(self) -> None:
        """Delete all but the latest pipelines and images."""
        for pipeline in self.get("/pipelines?per_page=100&order_by=id&sort=desc")[KEEP_PIPELINES:]:
            self.call("DELETE", f"{self.path}/pipelines/{pipeline['id']}")
        for repository in self.get("/registry/repositories?per_page=100"):
            tags = f"/registry/repositories/{repository['id']}/tags"
            numbers = [tag["name"] for tag in self.get(f"{tags}?per_page=100") if tag["name"].isdigit()]
            for name in sorted(numbers, key=int, reverse=True)[KEEP_PIPELINES:]:
                self.call("DELETE", f"{self.path}{tags}/{name}")

    def revoke_token(self) -> None:
        """Revoke the token that this object uses."""
        self.call("DELETE", "/api/v4/personal_access_tokens/self", allowed=(204, 401))


class Pipeline:
    """A started pipeline. Methods that check something return a Measured or raise FailedCheckError."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.id = int(project.call("POST", f"{project.path}/pipeline", {"ref": BRANCH})["id"])

    def job(self, name: str) -> Dict[str, Any]:
        """A job, as returned by the API."""
        for job in self.project.get(f"/pipelines/{self.id}/jobs?per_page=100"):
            if job["name"] == name:
                return dict(job)
        raise FailedCheckError(f"The pipeline has no job {name} yet.")

    def trace(self, job: Dict[str, Any]) -> str:
        """The job's log."""
        return str(self.project.get(f"/jobs/{job['id']}/trace"))

    def cancel(self) -> None:
        """Cancel the pipeline."""
        self.project.call("POST", f"{self.project.path}/pipelines/{self.id}/cancel")

    def taken(self, name: str) -> Measured:
        """Check that a runner has picked up the job; measures how long it was queued."""
        job = self.job(name)
        if job["status"] in ("created", "pending", "preparing", "waiting_for_resource"):
            raise FailedCheckError(f"The job is {job['status']}.")
        if job["status"] != "running" and "section_start" not in self.trace(job):
            raise FailedCheckError(self.failure(job), final=True)
        return Measured(float(job.get("queued_duration") or 0.0))

    def cloned(self, name: str) -> Measured:
        """Check that the job has cloned its project; measures that section of its log."""
        job = self.job(name)
        trace = self.trace(job)
        section = re.search(r"section_start:(\d+):get_sources.*?section_end:(\d+):get_sources", trace, re.DOTALL)
        script = re.search("section_start:[0-9]+:(step_script|build_script)", trace)
        if section and (script or job["status"] == "success"):
            return Measured(float(int(section.group(2)) - int(section.group(1))), "whole seconds")
        if job["status"] not in ("running", "pending"):
            raise FailedCheckError(self.failure(job), final=True)
        raise FailedCheckError("The job has not cloned its project yet.")

    def marked(self, name: str, mark: str) -> Measured:
        """Check the line that a job printed for a check: `check NAME ok SECONDS [NOTE]` or `check NAME broken WHY`."""
        job = self.job(name)
        trace = self.trace(job)
        # The runner can prefix each line with a timestamp (FF_TIMESTAMPS).
        line = re.search(rf"(?:^| )check {mark} (ok|broken) ?(.*)$", trace, re.MULTILINE)
        if line and line.group(1) == "ok":
            seconds, _, note = line.group(2).strip().partition(" ")
            return Measured(float(seconds), note)
        if line:
            raise FailedCheckError(line.group(2).strip(), final=True)
        if job["status"] in ("failed", "canceled", "skipped", "success"):
            raise FailedCheckError(self.failure(job), final=True)
        raise FailedCheckError(f"The job {name} is {job['status']}.")

    def failure(self, job: Dict[str, Any]) -> str:
        """The status of a job that ended, the reason, and the end of its log."""
        trace = re.sub(r"section_\w+:\d+:\w+", "", self.trace(job)).replace("\r", "\n")
        lines = [line for line in map(printable, trace.splitlines()) if line]
        reason = job.get("failure_reason") or "no reason given"
        return f"The job {job['name']} is {job['status']} ({reason}). Last lines of its log: {' / '.join(lines[-3:])}"
