"""`gitlab-runner register --non-interactive` (commands/register.go)."""

import datetime
import socket
from argparse import Namespace
from typing import Any

from lab_gitlab_runner import coordinator, log
from lab_gitlab_runner.configuration import Configuration

EXECUTORS = (
    *("custom", "docker", "docker+machine", "docker-autoscaler", "docker-windows", "instance", "kubernetes"),
    *("parallels", "shell", "ssh", "virtualbox"),
)
DOCKER_EXECUTORS = ("docker", "docker+machine", "docker-autoscaler")
DECIDED_BY_SERVER = (
    "Runner configuration other than name and executor configuration is reserved (specifically --locked, "
    "--access-level, --run-untagged, --maximum-timeout, --paused, --tag-list, and --maintenance-note) and cannot be "
    "specified when registering with a runner authentication token. This configuration is specified on the GitLab "
    "server. Please try again without specifying any of those arguments. For more information, see "
    "https://docs.gitlab.com/ee/ci/runners/new_creation_workflow.html#changes-to-the-gitlab-runner-register-command-syntax"
)
LEGACY_IGNORED = (
    "You have specified an authentication token in the legacy parameter --registration-token. This has triggered the "
    "'legacy-compatible registration process' which has resulted in the following command line parameters being "
    "ignored: --locked, --access-level, --run-untagged, --maximum-timeout, --paused, --tag-list, "
    "and --maintenance-note."
)


def register(configuration: Configuration, options: Namespace) -> None:
    """Verify the token, then append a section to config.toml: twice when it is done twice. Raises log.ExitError."""
    if not options.non_interactive:
        log.fatal("The lab plays `gitlab-runner register` with --non-interactive only")
    url = _needed("url", options.url)
    token = options.token or options.registration_token
    runner: dict[str, Any] = {
        "name": options.name or socket.gethostname(),
        "url": url,
        "id": 0,
        "token": _needed("registration-token", token),
    }
    created = coordinator.is_created_token(token)
    if created:
        _check_authentication_token(configuration, options, token)
        answer = coordinator.verify(runner, configuration.system_id)
        if not answer or not answer.get("id"):
            log.panic("Failed to verify the runner.")
    else:
        answer = coordinator.register(runner, token, runner["name"])
        if answer is None:
            log.panic("Failed to register the runner.")
    runner["id"], runner["token"] = answer["id"], answer.get("token") or token
    try:
        _complete(runner, options)
    except log.ExitError:
        coordinator.unregister(runner, configuration.system_id)
        raise
    configuration.runners.append(runner)
    configuration.save()
    log.info(
        "Runner registered successfully. Feel free to start it, but if it's running already the config should be "
        "automatically reloaded!"
    )
    log.info(f'Configuration (with the authentication token) was saved in "{configuration.file}"')


def _check_authentication_token(configuration: Configuration, options: Namespace, token: str) -> None:
    if any(known.get("token") == token for known in configuration.runners):
        log.warning("A runner with this system ID and token has already been registered.")
    reserved = (
        not options.locked,
        options.access_level,
        options.run_untagged,
        options.maximum_timeout,
        options.paused,
        options.tag_list,
        options.maintenance_note,
    )
    if any(reserved):
        if options.registration_token == token:
            log.warning(LEGACY_IGNORED)
        else:
            log.fatal(DECIDED_BY_SERVER)


def _complete(runner: dict[str, Any], options: Namespace) -> None:
    if options.executor not in EXECUTORS:
        log.panic("Invalid executor specified")
    runner |= {
        "token_obtained_at": datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        "token_expires_at": datetime.datetime(1, 1, 1, tzinfo=datetime.UTC),
        "executor": options.executor,
    }
    if options.clone_url:
        runner["clone_url"] = options.clone_url
    runner["cache"] = {"MaxUploadedArchiveSize": 0, "s3": {}, "gcs": {}, "azure": {}}
    if options.executor in DOCKER_EXECUTORS:
        volumes = list(options.docker_volumes or [])
        if not any(volume.split(":")[-1] == "/cache" for volume in volumes):
            volumes.append("/cache")
        runner["docker"] = {
            "tls_verify": False,
            "image": _needed("docker-image", options.docker_image),
            "privileged": options.docker_privileged,
            "disable_entrypoint_overwrite": False,
            "oom_kill_disable": False,
            "disable_cache": False,
            "volumes": volumes,
            "shm_size": 0,
            "network_mtu": 0,
        }


def _needed(name: str, value: str | None) -> str:
    if not value:
        log.panic(f"The {name} needs to be entered")
    return value
