"""The command line of `gitlab-runner`, as far as it is played."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from lab_gitlab_runner import coordinator, log, registration, service, worker
from lab_gitlab_runner.configuration import Configuration, ConfigurationError, default_file, load
from lab_gitlab_runner.version import architecture, extended, revision, version


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in ("--version", "-v"):
        print(extended(), end="")
        return 0
    options = _parser().parse_args(arguments)
    log.info(
        "Runtime platform",
        arch=architecture(),
        os="linux",
        pid=os.getpid(),
        revision=revision(),
        version=version(),
    )
    command: Callable[[Namespace], int] = options.command
    try:
        return command(options)
    except log.ExitError:
        return 1


def run(options: Namespace) -> int:
    worker.run(options.config)
    return 0


def verify(options: Namespace) -> int:
    """Fails only for tokens that GitLab calls invalid, see coordinator.verify."""
    configuration = _configuration(options)
    chosen = [runner for runner in configuration.runners if options.name in (None, runner.get("name"))]
    if options.name is not None and not chosen:
        log.fatal("no runner matches the filtering parameters")
    invalid = [runner for runner in chosen if coordinator.verify(runner, configuration.system_id) is None]
    if not invalid:
        return 0
    if not options.delete:
        log.fatal("Failed to verify runners")
    configuration.content["runners"] = [runner for runner in configuration.runners if runner not in invalid]
    configuration.save()
    log.info(f"Updated {configuration.file}")
    return 0


def list_runners(options: Namespace) -> int:
    """Names and tokens go to standard error, as with the real one."""
    try:
        configuration = load(options.config)
    except (ConfigurationError, OSError) as error:
        log.warning(str(error))
        return 0
    log.info("Listing configured runners", ConfigFile=configuration.file)
    for runner in configuration.runners:
        fields = {"Executor": runner.get("executor"), "Token": runner.get("token"), "URL": runner.get("url")}
        log.info(str(runner.get("name")), **fields)
    return 0


def register(options: Namespace) -> int:
    registration.register(_configuration(options), options)
    return 0


def unregister(options: Namespace) -> int:
    configuration = _configuration(options)
    if options.all_runners:
        log.warning("Unregistering all runners")
        chosen = list(configuration.runners)
    elif options.name or options.token:
        chosen = [
            runner
            for runner in configuration.runners
            if options.name in (None, runner.get("name")) and options.token in (None, runner.get("token"))
        ][:1]
        if not chosen:
            log.fatal(f"could not find a runner with the name '{options.name or ''}'")
    else:
        log.fatal("at least one of --name or --token must be specified")
    gone = [runner for runner in chosen if coordinator.unregister(runner, configuration.system_id)]
    if len(gone) < len(chosen) and not options.all_runners:
        log.fatal(f"Failed to unregister runner {options.name or ''}")
    if gone:
        configuration.content["runners"] = [runner for runner in configuration.runners if runner not in gone]
        configuration.save()
        log.info(f"Updated {configuration.file}")
    return 0


def install(options: Namespace) -> int:
    service.install(options.service, options.config, options.user, options.working_directory)
    return 0


def uninstall(options: Namespace) -> int:
    service.uninstall(options.service)
    return 0


def status(options: Namespace) -> int:
    return service.status(options.service)


def _configuration(options: Namespace) -> Configuration:
    log.info("Running in system-mode." if os.geteuid() == 0 else "Running in user-mode.")
    log.info("")
    try:
        return load(options.config)
    except (ConfigurationError, OSError) as error:
        log.fatal(str(error))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="gitlab-runner", description="GitLab Runner, played by the lab", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[Namespace], int], summary: str, *, service: bool = False) -> ArgumentParser:
        command = commands.add_parser(name, help=summary, allow_abbrev=False)
        command.set_defaults(command=function)
        if service:
            command.add_argument("--service", "-n", default="gitlab-runner")
        else:
            command.add_argument("--config", "-c", type=Path, default=default_file())
        return command

    running = add("run", run, "run multi runner service")
    for option in ("--working-directory", "--service", "--user", "--listen-address"):
        running.add_argument(option)
    running.add_argument("--syslog", action="store_true")

    verifying = add("verify", verify, "verify all registered runners")
    verifying.add_argument("--name", "-n")
    verifying.add_argument("--delete", action="store_true")

    add("list", list_runners, "List all configured runners")

    unregistering = add("unregister", unregister, "unregister specific runner")
    unregistering.add_argument("--name", "-n")
    unregistering.add_argument("--token", "-t")
    unregistering.add_argument("--url", "-u")
    unregistering.add_argument("--all-runners", action="store_true")

    _add_registration(add("register", register, "register a new runner"))

    installing = add("install", install, "install service")
    installing.add_argument("--service", "-n", default="gitlab-runner")
    installing.add_argument("--user", "-u", default="")
    installing.add_argument("--working-directory", "-d", default=str(Path.cwd()))
    add("uninstall", uninstall, "uninstall service", service=True)
    add("status", status, "get status of a service", service=True)
    for name in ("start", "stop", "restart"):
        add(name, _control(name), f"{name} service", service=True)
    return parser


def _control(name: str) -> Callable[[Namespace], int]:
    def command(options: Namespace) -> int:
        service.control(options.service, name)
        return 0

    return command


def _add_registration(command: ArgumentParser) -> None:
    """Options that are also read from the environment, as the real one does."""

    def add(*names: str, variable: str) -> None:
        command.add_argument(*names, default=os.environ.get(variable))

    def add_switch(*names: str, variable: str, default: bool = False) -> None:
        given = os.environ.get(variable)
        command.add_argument(
            *names, nargs="?", const=True, type=_switch, default=default if given is None else _switch(given)
        )

    add("--url", "-u", variable="CI_SERVER_URL")
    add("--token", "-t", variable="CI_SERVER_TOKEN")
    add("--registration-token", "-r", variable="REGISTRATION_TOKEN")
    add("--name", "--description", variable="RUNNER_NAME")
    add("--executor", variable="RUNNER_EXECUTOR")
    add("--clone-url", variable="CLONE_URL")
    add("--docker-image", variable="DOCKER_IMAGE")
    add("--tag-list", variable="RUNNER_TAG_LIST")
    add("--access-level", variable="REGISTER_ACCESS_LEVEL")
    add("--maximum-timeout", variable="REGISTER_MAXIMUM_TIMEOUT")
    add("--maintenance-note", variable="REGISTER_MAINTENANCE_NOTE")
    add_switch("--non-interactive", "-n", variable="REGISTER_NON_INTERACTIVE")
    add_switch("--run-untagged", variable="REGISTER_RUN_UNTAGGED")
    add_switch("--locked", variable="REGISTER_LOCKED", default=True)
    add_switch("--paused", variable="REGISTER_PAUSED")
    add_switch("--docker-privileged", variable="DOCKER_PRIVILEGED")
    command.add_argument("--docker-volumes", action="append")


def _switch(text: str) -> bool:
    return text.lower() in ("1", "t", "true", "yes")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
