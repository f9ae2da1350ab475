"""The docker executor: a job's containers, volumes and images on the machine's own Docker (executors/docker).

As with the real one, a container of the helper image does what is the runner's (git, permissions), the job's own
image does what the job says; both see the same volumes, and each is started again for every stage.
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
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab_gitlab_runner import docker_policies, shell_scripts
from lab_gitlab_runner.configuration import ROOT
from lab_gitlab_runner.trace import GREEN, Trace
from lab_gitlab_runner.version import version

HELPER = "registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper"
ARCHIVE = ROOT / "usr/lib/gitlab-runner/helper-images/prebuilt-alpine-x86_64.tar.xz"
ENTRYPOINT = 'ENTRYPOINT ["/usr/bin/dumb-init", "/entrypoint"]'
BUILDS = "/builds"
SYSTEM_FAILURE = "runner_system_failure"
CONFIGURATION_ERROR = "configuration_error"
TERMINATE = """for process in $(cd /proc && ls -rvd [0-9]*); do
  if [ $$ -ne $process ] && [ $process -ne 1 ]; then kill -TERM $process 2>/dev/null; fi
done; sleep 1"""
CONFIGURATION = "/root/.docker/config.json"  # of the user that the service runs as


class BuildError(Exception):
    """The job has failed; `reason` None is a failure of its script."""

    def __init__(self, text: str, *, reason: str | None = None, exit_code: int = 0) -> None:
        self.reason, self.exit_code = reason, exit_code
        super().__init__(text)


class PreparationError(Exception):
    """Docker cannot be used just now; it is tried again."""


class Docker:
    """The containers of one job."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        job: Mapping[str, Any],
        name: str,
        trace: Trace,
        *,
        keeps_checkout: bool,
        network: str | None,
    ) -> None:
        """`name` is the same for the project's next job in this slot, `network` (None: Docker's own bridge) is not."""
        self.settings, self.job, self.trace = settings, job, trace
        self.name, self._once = name, f"{name}-{secrets.token_hex(8)}"
        self._keeps_checkout = keeps_checkout and not settings.get("disable_cache")
        self._network = network
        self._made_network = False
        self.variables: list[dict[str, Any]] = []
        self._containers: dict[str, str] = {}
        self._image = self._used = ""
        self._running: subprocess.Popen[bytes] | None = None
        self._stopped: str | None = None
        self._temporary = tempfile.TemporaryDirectory(prefix="gitlab-runner-")

    # Preparation

    def prepare(self, image: str) -> None:
        """Raises BuildError, PreparationError."""
        version_info = self._docker("version", "--format", "{{.Server.Version}}")
        if version_info.returncode:
            self.trace.error("Failed to remove network for build")
            raise PreparationError(f"{_first_line(version_info.stderr)} (docker.go:1041:0s)")
        self.trace.line(f"Using Docker executor with image {image} ...")
        if self.job.get("services"):
            raise BuildError("the lab plays gitlab-runner without services:", reason=SYSTEM_FAILURE)
        self._create_network()
        if self.settings.get("disable_cache"):
            for volume in docker_policies.cache_volumes(self.settings):
                words = "Container based cache volumes creation is disabled. Will not create volume for"
                self.trace.warning(f"{words} {json.dumps(volume)}")
        for target in (BUILDS, *self._volumes()):
            self._checked("volume", "create", *self._labels(type="cache"), self._volume(target))
        self._ensure_helper_image()
        self._image = self._pull(image)

    def _create_network(self) -> None:
        if self._network is None:
            return
        self._checked("network", "create", *self._labels(), self._network)
        self._made_network = True

    def _ensure_helper_image(self) -> None:
        reference = self._helper()
        if self._docker("image", "inspect", reference).returncode == 0:
            return
        if ARCHIVE.exists():
            self._checked("import", "--change", ENTRYPOINT, str(ARCHIVE), reference)
            return
        self.trace.line(f"Using helper image:  {reference}")
        self._pull(reference)

    def _helper(self) -> str:
        return str(self.settings.get("helper_image") or f"{HELPER}:x86_64-v{version()}")

    def _pull(self, image: str) -> str:
        """The image's id, pulled by the policies of the job or of config.toml. Raises BuildError."""
        policies = docker_policies.pull_policies(self.settings, self.job)
        if refusal := docker_policies.refused_pull_policies(self.settings, self.job):
            words = f"invalid pull policy for image {json.dumps(image)}: {refusal}"
            raise BuildError(words, reason=CONFIGURATION_ERROR)
        trouble = ""
        for number, policy in enumerate(policies, start=1):
            if number > 1:
                self.trace.line(f"Attempt #{number}: Trying {json.dumps(policy)} pull policy")
            found = self._inspect(image)
            if policy == "never" or (policy == "if-not-present" and found):
                if found and policy == "if-not-present":
                    self.trace.line(f"Using locally found image version due to {json.dumps(policy)} pull policy")
                trouble = "" if found else f"Error: No such image: {image}"
            else:
                trouble = self._pull_now(image)
                found = self._inspect(image)
            if not trouble and found:
                digests = found.get("RepoDigests") or []
                with_digest = f" with digest {digests[0]}" if digests else ""
                self._used = f"Using docker image {found['Id']} for {image}{with_digest} ..."
                self.trace.line(self._used)
                return str(found["Id"])
            self.trace.warning(f"Failed to pull image with policy {json.dumps(policy)}: {trouble} (manager.go:254:0s)")
        words = f'failed to pull image "{image}" with specified policies [{" ".join(policies)}]'
        raise BuildError(f"{words}: {trouble} (manager.go:254:0s)", reason="image_pull_failure")

    def _pull_now(self, image: str) -> str:
        """Empty when the image is there, else Docker's words."""
        source = self._write_credentials(image)
        if source:
            self.trace.line(f"Authenticating with credentials from {source}")
        self.trace.line(f"Pulling docker image {image} ...")
        done = self._docker("pull", "--quiet", image if re.search(r"[:@]", image) else f"{image}:latest")
        return _first_line(done.stderr) if done.returncode else ""

    def _write_credentials(self, image: str) -> str | None:
        """Put what opens the image's registry where the client looks; returns where that came from."""
        first, slash, _ = image.partition("/")
        host = first if slash and re.search(r"[.:]|^localhost$", first) else "docker.io"
        written = next((v["value"] for v in self.variables if v["key"] == "DOCKER_AUTH_CONFIG"), None)
        root = Path(CONFIGURATION)
        sources: list[tuple[str, dict[str, Any]]] = []
        with contextlib.suppress(ValueError):
            sources.append(("$DOCKER_AUTH_CONFIG", json.loads(written or "{}").get("auths", {})))
        if root.exists():
            sources.append((CONFIGURATION, json.loads(root.read_text()).get("auths", {})))
        given = {
            one["url"]: {"auth": base64.b64encode(f"{one['username']}:{one['password']}".encode()).decode()}
            for one in self.job.get("credentials") or ()
            if one["type"] == "registry"
        }
        sources.append(("job payload (GitLab Registry)", given))
        for source, known in sources:
            if host in known:
                file = Path(self._temporary.name, "config.json")
                file.touch(mode=0o600)
                file.write_text(json.dumps({"auths": {host: known[host]}}))
                return source
        return None

    # Running

    def run(self, kind: str, script: str, *, write: Callable[[str], None] | None = None) -> None:
        """Run a script in the container of that kind (predefined, build). Raises BuildError when it fails.

        Ends early when `stop` is called by another thread.
        """
        container = self._containers.get(kind) or self._create(kind)
        if self._stopped:
            raise BuildError(self._stopped)
        process = subprocess.Popen(
            self._command("start", "--attach", "--interactive", container),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._running = process
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(script.encode())
            process.stdin.close()
        while block := os.read(process.stdout.fileno(), 65536):
            (write or self.trace.write)(block.decode(errors="replace"))
        process.wait()
        self._running = None
        if self._stopped:
            raise BuildError(self._stopped)
        state = self._docker("inspect", "--format", "{{.State.ExitCode}}", container)
        if state.returncode:
            raise BuildError(_first_line(state.stderr), reason=SYSTEM_FAILURE)
        if code := int(state.stdout.strip() or 0):
            raise BuildError(f"exit code {code}", exit_code=code)

    def stop(self, why: str) -> None:
        """End what runs; for any thread. What runs in the job's own container is asked first."""
        self._stopped = why
        if self._running:
            threading.Thread(target=self._end, daemon=True).start()

    def _end(self) -> None:
        build = self._containers.get("build")
        if build:
            self._docker("exec", build, "sh", "-c", TERMINATE)
        for container in self._containers.values():
            self._docker("kill", container)

    def go_on(self) -> None:
        """After a stop: what follows the script may run, in a container of its own."""
        self._stopped = None
        if container := self._containers.pop("build", None):
            self._docker("rm", "--force", "--volumes", container)

    def copy_out(self, path: str) -> bytes:
        """A file or folder of the helper's container as a tar archive; empty when there is none."""
        done = subprocess.run(
            self._command("cp", f"{self._containers['predefined']}:{path}", "-"), capture_output=True, check=False
        )
        return done.stdout if done.returncode == 0 else b""

    def copy_in(self, archive: bytes, folder: str) -> None:
        """Unpack a tar archive there. Raises BuildError."""
        target = f"{self._containers['predefined']}:{folder}"
        done = subprocess.run(self._command("cp", "-", target), input=archive, capture_output=True, check=False)
        if done.returncode:
            raise BuildError(done.stderr.decode(errors="replace").strip(), reason=SYSTEM_FAILURE)

    def clean(self) -> None:
        """Containers and their network go; volumes of caches stay for the project's next job, and so does the one of
        the checkout where the strategy is fetch.
        """
        for container in self._containers.values():
            self._docker("rm", "--force", "--volumes", container)
        if not self._keeps_checkout:
            self._docker("volume", "rm", "--force", self._volume(BUILDS))
        if self._made_network:
            self._docker("network", "rm", str(self._network))
        self._temporary.cleanup()

    def _create(self, kind: str) -> str:
        name = f"{self._once}-{kind}"
        options = ["--interactive", "--name", name, "--hostname", self.name]
        for target in (BUILDS, *self._volumes()):
            options += ["--volume", f"{self._volume(target)}:{target}"]
        options += [part for volume in self._binds() for part in ("--volume", volume)]
        own_image = str((self.job.get("image") or {}).get("name") or "")
        if docker_policies.is_privileged(self.settings, self._helper() if kind == "predefined" else own_image):
            options.append("--privileged")
        options += self._network_options(name)
        limits = {limit: self.settings[limit] for limit in ("memory", "cpus") if limit in self.settings}
        options += [part for limit, value in limits.items() for part in (f"--{limit}", value)]
        options += [part for host in self.settings.get("extra_hosts") or () for part in ("--add-host", str(host))]
        options += self._labels(type=kind)
        options += ["--env-file", str(self._environment_file())]
        if kind == "predefined":
            what = [self._helper(), "gitlab-runner-build"]
        else:
            self.trace.line(self._used)
            image = self.job.get("image") or {}
            words = [self._image, "sh", "-c", shell_scripts.DETECT_SHELL]
            if entrypoint := image.get("entrypoint"):
                options += ["--entrypoint", entrypoint[0]]
                words[1:1] = entrypoint[1:]
            if user := (image.get("executor_opts") or {}).get("docker", {}).get("user"):
                options += ["--user", user]
            what = words
        done = self._docker("create", *options, *what)
        if done.returncode:
            raise BuildError(_first_line(done.stderr), reason=SYSTEM_FAILURE)
        self._containers[kind] = done.stdout.strip()
        if kind == "predefined":
            self._open_volumes()
        return self._containers[kind]

    def _network_options(self, name: str) -> list[str]:
        if self._network:
            return ["--network", self._network, "--network-alias", "build", "--network-alias", name]
        mode = self.settings.get("network_mode")
        return ["--network", str(mode)] if mode else []

    def _environment_file(self) -> Path:
        """Variables of one line, in a file that nobody else can read; scripts export all of them themselves."""
        values = {str(v["key"]): str(v["value"]) for v in self.variables if not v.get("file")}
        file = Path(self._temporary.name, "environment")
        file.touch(mode=0o600)
        file.write_text("".join(f"{key}={value}\n" for key, value in values.items() if "\n" not in value))
        return file

    def _open_volumes(self) -> None:
        """Jobs may run as any user: the folders of the volumes are everybody's, as `cache-init` makes them."""
        targets = [BUILDS, *self._volumes()]
        mounts = [part for target in targets for part in ("--volume", f"{self._volume(target)}:{target}")]
        labels = self._labels(type="cache-init")
        self._checked("run", "--rm", *labels, *mounts, self._helper(), "chmod", "0777", *targets)

    def _labels(self, **more: str) -> list[str]:
        """Options that mark a container or a volume as the runner's (executors/docker/internal/labels)."""
        job, commit = self.job["job_info"], self.job["git_info"]
        marks = {
            "job.id": self.job["id"],
            "job.sha": commit["sha"],
            "job.before_sha": commit["before_sha"],
            "job.ref": commit["ref"],
            "project.id": job["project_id"],
            "managed": "true",
            **more,
        }
        return [part for key, value in marks.items() for part in ("--label", f"com.gitlab.gitlab-runner.{key}={value}")]

    def _volumes(self) -> list[str]:
        return [] if self.settings.get("disable_cache") else docker_policies.cache_volumes(self.settings)

    def _binds(self) -> list[str]:
        return [str(volume) for volume in self.settings.get("volumes") or () if ":" in str(volume)]

    def _volume(self, target: str) -> str:
        name = self._once if target == BUILDS and not self._keeps_checkout else self.name
        return f"{name}-cache-{hashlib.md5(target.encode()).hexdigest()}"

    # Docker's client

    def _inspect(self, image: str) -> dict[str, Any] | None:
        done = self._docker("image", "inspect", image)
        found: list[dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else []
        return found[0] if found else None

    def _checked(self, *arguments: str) -> None:
        done = self._docker(*arguments)
        if done.returncode:
            raise PreparationError(_first_line(done.stderr))

    def _docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def _command(self, *arguments: str) -> list[str]:
        host = self.settings.get("host")
        return ["docker", "--config", self._temporary.name, *(["--host", str(host)] if host else []), *arguments]


def prepared(make: Callable[[], Docker], image: str, trace: Trace, *, tries: int = 3, pause: float = 3.0) -> Docker:
    """An executor that is ready. Raises BuildError, PreparationError after the last try."""
    for number in range(1, tries + 1):
        executor = make()
        try:
            executor.prepare(image)
            return executor
        except PreparationError as error:
            executor.clean()
            trace.error(f"Preparation failed: {error}")
            trace.line(f"Will be retried in {pause:.0f}s ...", GREEN)
            time.sleep(pause)
            if number == tries:
                raise
        except BuildError:
            executor.clean()
            raise
    raise AssertionError


def _first_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[0] if lines else "unknown error"
