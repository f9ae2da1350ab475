"""Execution of one job (common/build.go)."""

import gzip
import re
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from lab_gitlab_runner import VERSION, coordinator, log, shell_scripts
from lab_gitlab_runner.configuration import NETWORK_PER_BUILD, Runner
from lab_gitlab_runner.docker_executor import BUILDS, SYSTEM_FAILURE, BuildError, Docker, PreparationError
from lab_gitlab_runner.log import RESET
from lab_gitlab_runner.trace import CYAN, GREEN, Trace

PREPARATIONS, PAUSE = 3, 3.0  # attempts, seconds between them
CA_FILE = "CI_SERVER_TLS_CA_FILE"
TRUE = ("1", "t", "T", "TRUE", "true", "True")  # strconv.ParseBool
OLDER_NAMES = {"image_pull_failure": SYSTEM_FAILURE, "job_canceled": "unknown_failure"}
"""Replacements for failure reasons that GitLab 17.10 does not accept from runners (failureReasonMapper)."""


class Build:
    """One job. `slot` distinguishes concurrent jobs; `ca_chain` is that of the response that contained the job. Call
    `run` in a separate thread.
    """

    def __init__(self, runner: Runner, system_id: str, job: dict[str, Any], slot: int, ca_chain: str) -> None:
        self.runner, self.system_id, self.job = runner, system_id, job
        self.trace = Trace(runner, job)
        settings: Mapping[str, Any] = runner.get("docker") or {}
        if clone_url := runner.get("clone_url"):
            job["git_info"]["repo_url"] = _at(clone_url, job["git_info"]["repo_url"])
        self.directory = f"{BUILDS}{urlsplit(job['git_info']['repo_url']).path.removesuffix('.git')}"
        own = [{"key": CA_FILE, "value": ca_chain, "file": True}] if ca_chain else []
        given = [*own, *job["variables"]]
        self.files = {one["key"]: f"{self.directory}.tmp/{one['key']}" for one in given if one.get("file")}
        self.variables = self._variables(given)
        self.strategy = self.variables.get("GIT_STRATEGY") or "fetch"
        self.image = _expanded((job.get("image") or {}).get("name") or settings.get("image", ""), self.variables)
        short = coordinator.short(runner["token"])
        name = f"runner-{short}-project-{job['job_info']['project_id']}-concurrent-{slot}"
        self._docker = Docker(
            settings,
            job,
            re.sub(r"[^a-z0-9-]", "", name.lower()),
            self.trace,
            keeps_checkout=self.strategy == "fetch",
            own_network=self._has_own_network(),
        )

    def run(self) -> None:
        """Run the job. Never raises: an error fails the job."""
        ending: dict[str, Any] = {"state": "success"}
        self.trace.on_cancel = lambda: self._docker.stop(BuildError("canceled", reason="job_canceled"))
        seconds = int(self.job["runner_info"]["timeout"])
        too_long = BuildError(f"execution took longer than {seconds}s", reason="job_execution_timeout")
        deadline = threading.Timer(seconds, self._docker.stop, (too_long,))
        deadline.daemon = True
        deadline.start()
        try:
            self._work()
            self.trace.line("Job succeeded", GREEN)
        except Exception as error:  # noqa: BLE001 - any other error is a system failure of the job
            reason = error.reason if isinstance(error, BuildError) else SYSTEM_FAILURE
            system = " (system failure)" if reason == SYSTEM_FAILURE else ""
            self.trace.error(f"Job failed{system}: {error}\n")
            ending = {"state": "failed", "failure_reason": OLDER_NAMES.get(reason, reason)}
            if isinstance(error, BuildError) and error.exit_code:
                ending["exit_code"] = error.exit_code
        finally:
            deadline.cancel()
            self._docker.clean()
        self.trace.finish(**ending)
        log.info(f"Job {'succeeded' if ending['state'] == 'success' else 'failed'}", job=self.job["id"])

    def interrupt(self, signal: str) -> None:
        """Abort the job because the service stops."""
        self._docker.stop(BuildError(f"aborted: {signal}", reason=SYSTEM_FAILURE))

    # Stages

    def _work(self) -> None:
        self.trace.line(f"Running with gitlab-runner {VERSION}")
        short = coordinator.short(self.runner["token"])
        self.trace.line(f"  on {self.runner.get('name')} {short}, system ID: {self.system_id}")
        self._reject_unsupported()
        self._section("prepare_executor", 'Preparing the "docker" executor', self._prepare)
        sources = shell_scripts.get_sources(
            self.job["git_info"], self.directory, self.strategy, self.files.get(CA_FILE)
        )
        self._section("get_sources", "Getting source from Git repository", lambda: self._run("predefined", sources))
        script = shell_scripts.user_script(self.job["steps"][0]["script"], self.directory)
        title = 'Executing "step_script" stage of the job script'
        self._section("step_script", title, lambda: self._run("build", script))
        if self.job.get("artifacts"):
            title = "Uploading artifacts for successful job"
            self._section("upload_artifacts_on_success", title, self._upload)

    def _reject_unsupported(self) -> None:
        """Raises BuildError if the job uses a feature of the real runner that this stand-in lacks."""
        job, image = self.job, self.job.get("image") or {}
        asked = [name for name in ("services", "cache") if job.get(name)]
        asked += [step["name"] for step in job["steps"] if step["name"] != "script"]
        kinds = {artifact["artifact_type"] for artifact in job.get("artifacts") or ()}
        asked += [f"artifacts of type {kind}" for kind in kinds - {"dotenv"}]
        asked += ["users of images"] if image.get("executor_opts") else []
        asked += [f"GIT_STRATEGY {self.strategy}"] if self.strategy not in ("clone", "fetch") else []
        if asked:
            raise BuildError(f"the lab's gitlab-runner does not support {', '.join(asked)}", reason=SYSTEM_FAILURE)

    def _prepare(self) -> None:
        for number in range(1, PREPARATIONS + 1):
            try:
                self._docker.prepare(self.image)
                return
            except PreparationError as error:
                self._docker.clean()
                self.trace.error(f"Preparation failed: {error}")
                self.trace.line(f"Will be retried in {PAUSE:.0f}s ...", GREEN)
                time.sleep(PAUSE)
                if number == PREPARATIONS:
                    raise

    def _upload(self) -> None:
        """Upload the dotenv reports, one file each. The real runner does this in the helper container."""
        for artifact in self.job["artifacts"]:
            read: list[str] = []
            paths = shlex.join(f"{self.directory}/{path}" for path in artifact["paths"])
            self._docker.run("predefined", f"cat {paths} 2>/dev/null || true", write=read.append)
            if not read:
                self.trace.error("No files to upload")
                continue
            query = {"artifact_type": "dotenv", "artifact_format": "gzip"}
            query |= {"expire_in": artifact["expire_in"]} if artifact.get("expire_in") else {}
            content = gzip.compress("".join(read).encode())
            answer = coordinator.upload_artifact(self.runner, self.job, f"{artifact['name']}.gz", content, query)
            self.trace.line(f'Uploading artifacts as "dotenv" to coordinator... {answer.text}')
            if answer.status != 201:
                raise BuildError("exit code 1", exit_code=1)

    def _run(self, kind: str, lines: list[str]) -> None:
        self._docker.run(kind, shell_scripts.finished([*shell_scripts.exports(self.variables, self.files), *lines]))

    def _section(self, name: str, title: str, work: Callable[[], None]) -> None:
        self.trace.section(name, start=True)
        self.trace.line(f"{CYAN}{title}{RESET}")
        try:
            work()
        finally:
            self.trace.section(name, start=False)

    # Settings

    def _variables(self, of_job: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Return the variables; those of the job override config.toml. References are expanded unless `raw` is set; one
        to a file is replaced with its path.
        """
        given = dict(entry.split("=", 1) for entry in self.runner.get("environment") or ())
        own = {variable["key"]: str(variable["value"]) for variable in of_job}
        values = {**given, "CI_PROJECT_DIR": self.directory, **own}
        raw = {variable["key"] for variable in of_job if variable.get("raw")}
        known = {**values, **self.files}
        return {key: value if key in raw else _expanded(value, known) for key, value in values.items()}

    def _has_own_network(self) -> bool:
        """Return whether the job has its own network: config.toml overrides variables (common/build_settings.go)."""
        flags = self.runner.get("feature_flags") or {}
        return bool(flags.get(NETWORK_PER_BUILD, self.variables.get(NETWORK_PER_BUILD) in TRUE))


def _expanded(text: str, values: Mapping[str, str]) -> str:
    """Expand variables like Go's os.Expand: an unknown one becomes empty, `$$` a dollar sign."""
    known = {**values, "$": "$"}
    return re.sub(r"\$(?:\{(\w+)\}|(\w+|\$))", lambda found: known.get(found[1] or found[2], ""), text)


def _at(clone_url: str, repository: str) -> str:
    """Return the repository's URL with scheme and host of `clone_url`, keeping credentials and path."""
    given, old = urlsplit(clone_url), urlsplit(repository)
    return old._replace(scheme=given.scheme, netloc=f"{old.username}:{old.password}@{given.netloc}").geturl()
