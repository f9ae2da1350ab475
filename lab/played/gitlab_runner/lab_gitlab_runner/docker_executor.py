"""The docker executor: a job's containers, volumes and images in the machine's Docker (executors/docker).

As with the real one, a container of the helper image runs the runner's own commands (git, permissions), and a container
of the job's image runs its script. Both mount the same volumes, and each is started again for every stage.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab_gitlab_runner import VERSION, shell_scripts
from lab_gitlab_runner.trace import Trace

HELPER = f"registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper:x86_64-v{VERSION}"
ARCHIVE = "/usr/lib/gitlab-runner/helper-images/prebuilt-alpine-x86_64.tar.xz"
ENTRYPOINT = 'ENTRYPOINT ["/usr/bin/dumb-init", "/entrypoint"]'
CONFIGURATION = Path("/root/.docker/config.json")  # of the service's user
BUILDS = "/builds"
SYSTEM_FAILURE = "runner_system_failure"

Settings = Mapping[str, Any]


class BuildError(Exception):
    """The job failed."""

    def __init__(self, text: str, *, reason: str = "script_failure", exit_code: int = 0) -> None:
        self.reason, self.exit_code = reason, exit_code
        super().__init__(text)


class PreparationError(Exception):
    """Docker is not available; the preparation is retried."""


class Docker:
    """The containers of one job, by kind: `predefined` is of the helper image, `build` of the job's image."""

    def __init__(
        self,
        settings: Settings,
        job: dict[str, Any],
        name: str,
        trace: Trace,
        *,
        keeps_checkout: bool,
        own_network: bool,
    ) -> None:
        """`name` identifies project and slot: it is the same for the project's next job in this slot."""
        self.settings, self.job, self.name, self.trace = settings, job, name, trace
        self._once = f"{name}-{secrets.token_hex(8)}"
        self._keeps_checkout = keeps_checkout and not settings.get("disable_cache")
        self._own_network = own_network
        self._containers: dict[str, str] = {}
        self._image = ""
        self._stopped: BuildError | None = None

    # Preparation

    def prepare(self, image: str) -> None:
        """Create network and volumes and pull the image. Raises BuildError, PreparationError."""
        self._checked("version")
        self.trace.line(f"Using Docker executor with image {image} ...")
        if self._own_network:
            self._checked("network", "create", *self._labels(), self._once)
        for target in self._targets():
            self._checked("volume", "create", *self._labels(type="cache"), self._volume(target))
        if _docker("image", "inspect", HELPER).returncode:
            self._checked("import", "--change", ENTRYPOINT, ARCHIVE, HELPER)
        self._image = self._pull(image)

    def _pull(self, image: str) -> str:
        """Pull the image according to the job's policies and return its id. Raises BuildError."""
        policies = (self.job.get("image") or {}).get("pull_policy") or ["always"]
        if refusal := refused_pull_policies(policies, self.settings.get("allowed_pull_policies") or ["always"]):
            raise BuildError(f'invalid pull policy for image "{image}": {refusal}')
        failure = ""
        for policy in policies:
            found = _inspect(image)
            if policy == "always" or (policy == "if-not-present" and not found):
                failure = self._pull_now(image)
                found = None if failure else _inspect(image)
            if found:
                digests = "".join(f" with digest {digest}" for digest in (found.get("RepoDigests") or [])[:1])
                self.trace.line(f"Using docker image {found['Id']} for {image}{digests} ...")
                return str(found["Id"])
            self.trace.warning(f'Failed to pull image with policy "{policy}": {failure} (manager.go:254:0s)')
        words = f'failed to pull image "{image}" with specified policies [{" ".join(policies)}]'
        raise BuildError(f"{words}: {failure} (manager.go:254:0s)", reason="image_pull_failure")

    def _pull_now(self, image: str) -> str:
        """Pull the image; return Docker's error message, or an empty string on success."""
        first, slash, _ = image.partition("/")
        host = first if slash and re.search(r"[.:]|^localhost$", first) else "docker.io"
        with tempfile.TemporaryDirectory(prefix="gitlab-runner-") as folder:
            for source, credentials in self._credentials():
                if host in credentials:
                    self.trace.line(f"Authenticating with credentials from {source}")
                    Path(folder, "config.json").write_text(json.dumps({"auths": {host: credentials[host]}}))
                    break
            self.trace.line(f"Pulling docker image {image} ...")
            tagged = image if re.search(r"[:@]", image) else f"{image}:latest"
            done = _docker("--config", folder, "pull", "--quiet", tagged)
        return _first_line(done.stderr) if done.returncode else ""

    def _credentials(self) -> list[tuple[str, dict[str, Any]]]:
        """Return credentials by registry host for each source; the first source that has the host is used."""
        kept = json.loads(CONFIGURATION.read_text()).get("auths", {}) if CONFIGURATION.exists() else {}
        given = {
            one["url"]: {"auth": base64.b64encode(f"{one['username']}:{one['password']}".encode()).decode()}
            for one in self.job.get("credentials") or ()
            if one["type"] == "registry"
        }
        return [(str(CONFIGURATION), kept), ("job payload (GitLab Registry)", given)]

    # Running

    def run(self, kind: str, script: str, *, write: Callable[[str], None] | None = None) -> None:
        """Run a script in the container of that kind. Raises BuildError if it fails.

        Returns early if another thread calls `stop`.
        """
        container = self._containers.get(kind) or self._create(kind)
        if self._stopped:
            raise self._stopped
        command = ["docker", "start", "--attach", "--interactive", container]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
            assert process.stdin
            assert process.stdout
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(script.encode())
                process.stdin.close()
            while block := os.read(process.stdout.fileno(), 65536):
                (write or self.trace.write)(block.decode(errors="replace"))
        if self._stopped:
            raise self._stopped
        if code := process.returncode:
            raise BuildError(f"exit code {code}", exit_code=code)

    def stop(self, why: BuildError) -> None:
        """Kill the job's containers. May be called from any thread."""
        self._stopped = why
        for container in list(self._containers.values()):
            _docker("kill", container)

    def clean(self) -> None:
        """Remove the containers and their network. Cache volumes are kept for the project's next job, and so is the
        checkout's volume if the strategy is fetch.
        """
        for container in self._containers.values():
            _docker("rm", "--force", "--volumes", container)
        self._containers.clear()
        if not self._keeps_checkout:
            _docker("volume", "rm", "--force", self._volume(BUILDS))
        if self._own_network:
            _docker("network", "rm", self._once)

    def _create(self, kind: str) -> str:
        options = ["--interactive", "--name", f"{self._once}-{kind}", *self._labels(type=kind)]
        binds = [volume for volume in self.settings.get("volumes") or () if ":" in volume]
        for volume in (*(f"{self._volume(target)}:{target}" for target in self._targets()), *binds):
            options += ["--volume", volume]
        if self._own_network:
            options += ["--network", self._once, "--network-alias", "build"]
        for limit in ("memory", "cpus"):
            if limit in self.settings:
                options += [f"--{limit}", self.settings[limit]]
        image = self.job.get("image") or {}
        options += [part for host in self.settings.get("extra_hosts") or () for part in ("--add-host", host)]
        if is_privileged(self.settings, HELPER if kind == "predefined" else str(image.get("name") or "")):
            options.append("--privileged")
        if kind == "predefined":
            words = [HELPER, "gitlab-runner-build"]
        else:
            words = [self._image, "sh", "-c", shell_scripts.DETECT_SHELL]
            if entrypoint := image.get("entrypoint"):
                options += ["--entrypoint", entrypoint[0]]
                words[1:1] = entrypoint[1:]
        done = _docker("create", *options, *words)
        if done.returncode:
            raise BuildError(_first_line(done.stderr), reason=SYSTEM_FAILURE)
        self._containers[kind] = done.stdout.strip()
        if kind == "predefined":
            # Jobs may run as any user, so the volumes' folders are world-writable (`cache-init`).
            self.run(kind, shell_scripts.command("chmod", "0777", *self._targets()))
        return self._containers[kind]

    def _labels(self, **more: str) -> list[str]:
        """Return options for labels that mark objects as the runner's (executors/docker/internal/labels)."""
        job = self.job["job_info"]
        marks = {"job.id": self.job["id"], "project.id": job["project_id"], "managed": "true", **more}
        return [part for key, value in marks.items() for part in ("--label", f"com.gitlab.gitlab-runner.{key}={value}")]

    def _targets(self) -> list[str]:
        """Return the mount points of Docker volumes: the checkout, and `volumes` without a host folder, for caches."""
        caches = [] if self.settings.get("disable_cache") else self.settings.get("volumes") or []
        return [BUILDS, *(volume for volume in caches if ":" not in volume)]

    def _volume(self, target: str) -> str:
        name = self._once if target == BUILDS and not self._keeps_checkout else self.name
        return f"{name}-cache-{hashlib.md5(target.encode()).hexdigest()}"

    def _checked(self, *arguments: str) -> None:
        done = _docker(*arguments)
        if done.returncode:
            raise PreparationError(f"{_first_line(done.stderr)} (docker.go:1041:0s)")


# Limits of [runners.docker] (common/config.go, executors/docker/internal/pull)


def refused_pull_policies(wanted: Sequence[str], allowed: Sequence[str]) -> str | None:
    """Return why the policies are rejected; None if one of them is allowed.

    In 17.10 one allowed policy is enough to use all of them (`verifyPullPolicies`); 18.0 drops the others.
    """
    if set(wanted) & set(allowed):
        return None
    return (
        f"pull_policy ([{' '.join(wanted)}]) defined in GitLab pipeline config is not one of the allowed_pull_policies "
        f"([{' '.join(allowed)}])"
    )


def is_privileged(settings: Settings, image: str) -> bool:
    """Return whether a container is privileged, by the image name in the job; without a list all images are allowed."""
    allowed = settings.get("allowed_privileged_images")
    return bool(settings.get("privileged")) and (not allowed or any(_matches(image, pattern) for pattern in allowed))


def _matches(image: str, pattern: str) -> bool:
    """Match like doublestar: `*` does not match a slash, `**` does."""
    wild = {"**": ".*", "*": "[^/]*"}
    parts = (wild.get(part) or re.escape(part) for part in re.split(r"(\*+)", pattern))
    return re.fullmatch("".join(parts), image) is not None


# Docker client


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["docker", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def _inspect(image: str) -> dict[str, Any] | None:
    done = _docker("image", "inspect", image)
    found: list[dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else []
    return found[0] if found else None


def _first_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[0] if lines else "unknown error"
