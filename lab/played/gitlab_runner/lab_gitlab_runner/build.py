"""One job from its header to its last line (common/build.go)."""

import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from lab_gitlab_runner import artifacts, coordinator, docker_executor, feature_flags, log, shell_scripts
from lab_gitlab_runner.configuration import Configuration
from lab_gitlab_runner.coordinator import Runner
from lab_gitlab_runner.docker_executor import BUILDS, SYSTEM_FAILURE, BuildError, Docker
from lab_gitlab_runner.trace import CYAN, GREEN, RESET, Trace
from lab_gitlab_runner.version import architecture, revision, version

CANCELED, TIMEOUT = "canceled", "execution took too long"
AFTER_SCRIPT_TIMEOUT = 300.0  # seconds
ALWAYS_KNOWN = ("script_failure", "runner_system_failure", "job_execution_timeout")
OLDER_NAMES = {"image_pull_failure": "runner_system_failure", "configuration_error": "script_failure"}
DESCRIPTIONS = {
    "prepare_script": "Preparing environment",
    "get_sources": "Getting source from Git repository",
    "download_artifacts": "Downloading artifacts",
    "step_script": 'Executing "step_script" stage of the job script',
    "after_script": "Running after_script",
    "upload_artifacts_on_failure": "Uploading artifacts for failed job",
    "upload_artifacts_on_success": "Uploading artifacts for successful job",
    "cleanup_file_variables": "Cleaning up project directory and file based variables",
}
TOO_LONG = (
    "{stage} could not run to completion because the timeout was exceeded. For more control over job and script "
    "timeouts see: https://docs.gitlab.com/ee/ci/runners/configure_runners.html#set-script-and-after_script-timeouts"
)


class Build:
    """`slot` tells jobs apart that run at once. Run it in a thread of its own."""

    def __init__(self, runner: Runner, configuration: Configuration, job: dict[str, Any], slot: int) -> None:
        self.runner, self.job, self.slot = runner, job, slot
        self.system_id = configuration.system_id
        self.trace = Trace(runner, job)
        self.settings: Mapping[str, Any] = runner.get("docker") or {}
        if clone_url := str(runner.get("clone_url") or ""):
            job["git_info"]["repo_url"] = _at(clone_url, job["git_info"]["repo_url"])
        self.directory = f"{BUILDS}{urlsplit(job['git_info']['repo_url']).path.removesuffix('.git')}"
        self.temporary = f"{self.directory}.tmp"
        self.timeout = float(job["runner_info"].get("timeout") or 3600)
        self._docker: Docker | None = None
        self._deadline: threading.Timer | None = None
        self._interrupted: str | None = None

    @property
    def name(self) -> str:
        """Of volumes and hosts: the same for the project's next job in this slot (`ProjectUniqueName`)."""
        short = coordinator.short(self.runner["token"])
        text = f"runner-{short}-project-{self.job['job_info']['project_id']}-concurrent-{self.slot}"
        return re.sub(r"[^a-z0-9-]", "", text.lower())

    def run(self) -> None:
        """Never raises: what goes wrong ends the job."""
        started = time.monotonic()
        state, reason, exit_code, failed = "success", None, 0, ""
        self.trace.on_cancel = lambda: self._stop(CANCELED)
        self.trace.on_abort = lambda: self._stop(CANCELED)
        try:
            self._header()
            self._deadline = threading.Timer(self.timeout, self._stop, (TIMEOUT,))
            self._deadline.daemon = True
            self._deadline.start()
            self._work()
            self.trace.line("Job succeeded", GREEN)
        except BuildError as error:
            state, reason, exit_code, failed = "failed", error.reason, error.exit_code, str(error)
            system = " (system failure)" if error.reason == SYSTEM_FAILURE else ""
            self.trace.error(f"Job failed{system}: {error}\n")
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the job's system failure
            state, reason, failed = "failed", SYSTEM_FAILURE, str(error)
            self.trace.error(f"Job failed (system failure): {error}")
        finally:
            if self._deadline:
                self._deadline.cancel()
            if self._docker:
                self._docker.clean()
        self.trace.finish(state, reason=self._known(reason) if state == "failed" else None, exit_code=exit_code)
        fields = {"duration_s": time.monotonic() - started, "job": self.job["id"]}
        fields |= {"project": self.job["job_info"]["project_id"], "runner": coordinator.short(self.runner["token"])}
        if state == "success":
            log.info("Job succeeded", **fields)
        else:
            log.warning(f"Job failed: {failed}", **fields)

    def interrupt(self, signal: str) -> None:
        """The service ends."""
        self._stop(f"aborted: {signal}")

    # Stages

    def _header(self) -> None:
        self.trace.line(f"Running with gitlab-runner {version()} ({revision()})")
        short = coordinator.short(self.runner["token"])
        self.trace.line(f"  on {self.runner.get('name')} {short}, system ID: {self.system_id}")

    def _work(self) -> None:
        image = self._expand((self.job.get("image") or {}).get("name") or str(self.settings.get("image") or ""))
        self._section(
            "prepare_executor", f'Preparing the "{self.runner["executor"]}" executor', lambda: self._prepare(image)
        )
        failure: BuildError | None = None
        try:
            self._scripted("prepare_script", "predefined", shell_scripts.prepare(socket.gethostname()))
            sources = self._exports() + self._sources()
            self._scripted("get_sources", "predefined", sources)
            dependencies = [one for one in self.job.get("dependencies") or () if one["artifacts_file"]["filename"]]
            if dependencies:
                self._stage("download_artifacts", lambda: self._download(dependencies))
            failure = self._main_script()
        except BuildError as error:
            failure = error
        self._raise_if_over()
        failure = self._upload(failure)
        self._scripted("cleanup_file_variables", "predefined", shell_scripts.cleanup(self.temporary))
        self._raise_if_over()
        if failure:
            raise failure

    def _main_script(self) -> BuildError | None:
        """The script, then the after_script whatever became of it."""
        steps = {step["name"]: step["script"] for step in self.job["steps"]}
        failure: BuildError | None = None
        try:
            self._scripted(
                "step_script", "build", self._exports() + shell_scripts.user_script(steps["script"], self.directory)
            )
        except BuildError as error:
            failure = error
        if self._interrupted == CANCELED:
            self.trace.warning("script canceled externally (UI, API)")
            failure = BuildError(CANCELED, reason="job_canceled")
            self._go_on()
        if (after := steps.get("after_script")) and self._interrupted is None:
            status = "success" if failure is None else "canceled" if str(failure) == CANCELED else "failed"
            lines = shell_scripts.user_script(after, self.directory)
            lines.insert(1, shell_scripts.notice("Running after script..."))
            limit = threading.Timer(AFTER_SCRIPT_TIMEOUT, self._stop, (TIMEOUT,))
            limit.daemon = True
            limit.start()
            try:
                self._scripted("after_script", "build", self._exports(status) + lines)
            except BuildError as error:
                self.trace.warning(f"after_script failed, but job will continue unaffected: {error}")
            finally:
                limit.cancel()
        return failure

    def _upload(self, failure: BuildError | None) -> BuildError | None:
        """Artifacts of a job that went as their `when` wants; one that is not taken fails a job that went well."""
        wanted = ("on_failure", "always") if failure else ("on_success", "always", "", None)
        chosen = [one for one in self.job.get("artifacts") or () if one.get("when") in wanted]
        if not chosen:
            return failure
        stage = f"upload_artifacts_on_{'failure' if failure else 'success'}"

        def send() -> None:
            assert self._docker
            for artifact in chosen:
                artifacts.upload(
                    self._docker, self.runner, self.job, artifact, directory=self.directory, trace=self.trace
                )

        try:
            self._stage(stage, send)
        except BuildError as error:
            return failure or error
        return failure

    def _download(self, dependencies: list[dict[str, Any]]) -> None:
        assert self._docker
        for dependency in dependencies:
            artifacts.download(self._docker, self.runner, dependency, self.directory, self.trace)

    def _prepare(self, image: str) -> None:
        if not image:
            raise BuildError("no Docker image specified to run the build in", reason=SYSTEM_FAILURE)

        def make() -> Docker:
            self._docker = Docker(
                self.settings,
                self.job,
                self.name,
                self.trace,
                keeps_checkout=self._strategy() == "fetch",
                network=self._network(),
            )
            self._docker.variables = self._variables("running")
            return self._docker

        docker_executor.prepared(make, image, self.trace)

    def _sources(self) -> list[str]:
        quiet = ["export GIT_TERMINAL_PROMPT=0", "export GCM_INTERACTIVE=Never", "export GIT_LFS_SKIP_SMUDGE=1"]
        return quiet + shell_scripts.get_sources(self.job, self.directory, self.temporary, self._strategy())

    def _strategy(self) -> str:
        values = {variable["key"]: str(variable["value"]) for variable in self._variables("running")}
        default = "fetch" if self.job.get("allow_git_fetch") else "clone"
        return values.get("GIT_STRATEGY") or default

    def _network(self) -> str | None:
        """Name of the job's own network (`ProjectUniqueShortName`); None where the job has none."""
        values = {variable["key"]: str(variable["value"]) for variable in self._variables("running")}
        if self.settings.get("network_mode") or not feature_flags.is_on(
            feature_flags.NETWORK_PER_BUILD, self.runner, values
        ):
            return None
        short = coordinator.short(self.runner["token"])
        text = f"runner-{short}-{self.job['job_info']['project_id']}-{self.slot}-{self.job['id']}"
        return re.sub(r"[^a-z0-9-]", "", text.lower())

    def _scripted(self, stage: str, kind: str, lines: list[str]) -> None:
        assert self._docker
        docker = self._docker
        self._stage(stage, lambda: docker.run(kind, shell_scripts.finished(lines)))

    def _stage(self, stage: str, work: Callable[[], None]) -> None:
        self._section(stage, DESCRIPTIONS[stage], work)

    def _section(self, name: str, title: str, work: Callable[[], None]) -> None:
        self.trace.section(name, start=True)
        self.trace.line(f"{CYAN}{title}{RESET}")
        try:
            work()
        finally:
            self.trace.section(name, start=False)
            if self._interrupted == TIMEOUT:
                self.trace.warning(TOO_LONG.format(stage=name))

    # Ends

    def _stop(self, why: str) -> None:
        self._interrupted = why
        if self._docker:
            self._docker.stop(why)

    def _go_on(self) -> None:
        self._interrupted = None
        if self._docker:
            self._docker.go_on()

    def _raise_if_over(self) -> None:
        """What ends a job at once, without artifacts."""
        if self._interrupted == TIMEOUT:
            raise BuildError(
                f"execution took longer than {_go_duration(self.timeout)} seconds", reason="job_execution_timeout"
            )
        if self._interrupted == CANCELED:
            raise BuildError(CANCELED, reason="job_canceled")
        if self._interrupted:
            raise BuildError(self._interrupted, reason=SYSTEM_FAILURE)

    def _known(self, reason: str | None) -> str:
        """A reason that this GitLab knows (failureReasonMapper)."""
        if reason is None:
            return "script_failure"
        known = (*ALWAYS_KNOWN, *((self.job.get("features") or {}).get("failure_reasons") or ()))
        for candidate in (reason, OLDER_NAMES.get(reason)):
            if candidate in known:
                return str(candidate)
        return "unknown_failure"

    # Variables

    def _exports(self, status: str = "running") -> list[str]:
        return shell_scripts.exports(self._variables(status), self.temporary)

    def _variables(self, status: str) -> list[dict[str, Any]]:
        """The job's own after config.toml's and the runner's defaults, with references to others filled in unless
        `raw`.
        """
        own = {
            "CI_BUILDS_DIR": BUILDS,
            "CI_PROJECT_DIR": self.directory,
            "CI_CONCURRENT_ID": self.slot,
            "CI_CONCURRENT_PROJECT_ID": self.slot,
            "CI_SERVER": "yes",
            "CI_JOB_STATUS": status,
            "CI_JOB_TIMEOUT": int(self.timeout),
            "CI_RUNNER_SHORT_TOKEN": coordinator.short(self.runner["token"]),
            "CI_RUNNER_VERSION": version(),
            "CI_RUNNER_REVISION": revision(),
            "CI_RUNNER_EXECUTABLE_ARCH": f"linux/{architecture()}",
            "CI_DISPOSABLE_ENVIRONMENT": "true",
        }
        given = (str(entry).partition("=") for entry in self.runner.get("environment") or ())
        listed = [{"key": key, "value": value} for key, _, value in given]
        listed += [{"key": key, "value": str(value)} for key, value in own.items()]
        listed += [dict(variable) for variable in self.job["variables"]]
        values = {variable["key"]: str(variable["value"]) for variable in listed}
        for variable in listed:
            if not variable.get("raw"):
                variable["value"] = _expanded(str(variable["value"]), values)
        return listed

    def _expand(self, text: str) -> str:
        return _expanded(text, {variable["key"]: str(variable["value"]) for variable in self.job["variables"]})


def _expanded(text: str, values: Mapping[str, str]) -> str:
    """As Go's os.Expand: what is not known becomes nothing, `$$` a dollar sign."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return "$" if name == "$" else values.get(name, "")

    return re.sub(r"\$(?:\{(\w+)\}|(\w+|\$))", value, text)


def _at(clone_url: str, repository: str) -> str:
    """The repository's URL with another server in it; credentials and path stay."""
    given, old = urlsplit(clone_url), urlsplit(repository)
    return old._replace(scheme=given.scheme, netloc=f"{old.username}:{old.password}@{given.netloc}").geturl()


def _go_duration(seconds: float) -> str:
    """As Go prints it: 1h0m0s, 10m0s, 5s."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
